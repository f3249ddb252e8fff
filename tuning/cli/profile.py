"""`skeltune profile`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

EXAMPLE = """
Example: `skeltune profile quickstart`

    method        samples/s    step   memory  load  views  forward  backward ...
    skeletonclr         171  0.19 s  228 MiB   0 %    1 %     47 %      49 % ...
    skeletonbyol         88  0.36 s  223 MiB   0 %    1 %     47 %      50 % ...

    time: at 5.3 s an epoch (measured just now), 2 side by side: the search about 53 s
    CPU-hours of the search: about 0.029; 0.023 to 0.036 if every trial were as ...
"""


def run(
    space: Annotated[str, typer.Argument(help="A search-space YAML, or the name of a shipped one.")] = "quickstart",
    steps: Annotated[int, typer.Option(min=1, help="Timed steps of each stage of a method.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of a configuration's steps, and again of its rung.")] = 10.0,
    method: Annotated[list[str] | None, typer.Option(help="Only this one; may be repeated.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Run a few steps of each method: samples a second, memory, where the time goes, what the search will cost."""
    from tuning.measuring.profile import Wishes, profile
    from tuning.measuring.profile_lines import lines, to_json
    from tuning.resources import find_space

    wishes = Wishes(steps, seconds, tuple(method or ()), device)
    found = profile(find_space(space), wishes, say=lambda line: typer.echo(line, err=True))
    for line in [json.dumps(to_json(found), indent=2)] if as_json else lines(found):
        typer.echo(line)
