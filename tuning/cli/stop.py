"""`skeltune stop`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = """
Example: `skeltune stop quickstart`

    quickstart: asked to stop; running trials end at their next epoch, and `skeltune search` goes on later
"""


def run(
    name: Annotated[str, typer.Argument(metavar="RUN", help="A search's name, or its run folder.")],
    now: Annotated[bool, typer.Option("--now", help="As a second Ctrl-C: do not wait for running epochs.")] = False,
    runs: Annotated[Path, typer.Option(help="Where run folders live.")] = Path("runs"),
) -> None:
    """Stop a running search as Ctrl-C does, from anywhere that sees its folder; the same search goes on later."""
    from tuning.control import ask_stop, find_run

    typer.echo(ask_stop(find_run(name, runs), now))
