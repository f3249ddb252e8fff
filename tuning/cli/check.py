"""`skeltune check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = """
Example: `skeltune check my.yaml`

    my.yaml:37:9: unknown parameter 'temprature' of method 'skeletonclr'; did you mean 'temperature'?
       37 |         temprature: {log: [0.04, 0.5]}
          |         ^^^^^^^^^^
"""


def run(
    space: Annotated[str, typer.Argument(help="A search-space YAML, or the name of a shipped one.")] = "quickstart",
    data: Annotated[bool, typer.Option(help="Also open the dataset and try the split.")] = True,
) -> None:
    """Validate a search space: every fault at its line, then warnings. Exit code 2 when something is wrong."""
    from tuning.resources import find_space
    from tuning.space import load_search
    from tuning.space.explain import warnings

    path = find_space(space)
    if data:
        from tuning.plan import plan_search

        plan = plan_search(path, Path("runs"))
        spec, bound = plan.spec, plan.space
        said, *notes = plan.notes
        typer.echo(said)
    else:
        spec, bound = load_search(path)
        notes = [*bound.start_notes, *warnings(spec, bound, None)]
    for note in notes:
        typer.echo(f"warning: {note}")
    dimensions = ", ".join(f"{method} {count}" for method, count in bound.free.items())
    typer.echo(f"{path}: fine; free dimensions: {dimensions}; space {spec.space_hash()[:12]}")
