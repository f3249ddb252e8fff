"""`skeltune sample`."""

from __future__ import annotations

from typing import Annotated

import typer

EXAMPLE = """
Example: `skeltune sample quickstart -n 2` prints two whole configurations; `--draws` only what was drawn.
"""


def run(
    space: Annotated[str, typer.Argument(help="A search-space YAML, or the name of a shipped one.")] = "quickstart",
    number: Annotated[int, typer.Option("-n", "--number", min=1, help="How many.")] = 5,
    seed: Annotated[int, typer.Option(help="The same seed prints the same samples, always.")] = 0,
    draws: Annotated[bool, typer.Option("--draws", help="Print the draws only, a line each, as JSON.")] = False,
) -> None:
    """Draw configurations from a space, as a random search would."""
    import json

    from tuning.preview import sample_texts
    from tuning.resources import find_space
    from tuning.space import load_search

    spec, bound = load_search(find_space(space))
    for drawn, text in sample_texts(spec, bound, number, seed):
        typer.echo(json.dumps(drawn) if draws else text)
