"""`skeltune prune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = """
Example: `skeltune prune quickstart --waiting`

    quickstart: asked to cull all that wait behind the best of their rung; whoever trains ends at the next epoch
"""


def run(
    name: Annotated[str, typer.Argument(metavar="RUN", help="A search's name, or its run folder.")],
    trials: Annotated[list[str] | None, typer.Argument(metavar="TRIAL", help="Which: t0007 or 7.")] = None,
    waiting: Annotated[
        bool, typer.Option("--waiting", help="All that wait at a rung and are not among the best 1/eta there.")
    ] = False,
    runs: Annotated[Path, typer.Option(help="Where run folders live.")] = Path("runs"),
) -> None:
    """Cull trials by hand: those named, or all that wait behind the best; the search learns from their scores.

    At a rung where fewer than eta were scored nobody is culled by `--waiting`: nothing is decided there yet.
    """
    from tuning.control import ask_prune, find_run
    from tuning.engine.journal import replay
    from tuning.run_files import JOURNAL_FILE

    folder = find_run(name, runs)
    typer.echo(ask_prune(folder, trials or [], waiting, replay(folder / JOURNAL_FILE)))
