"""`skeltune cancel`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = """
Example: `skeltune cancel quickstart t0007`

    quickstart: asked to cancel t0007; whoever trains ends at the next epoch
"""


def run(
    name: Annotated[str, typer.Argument(metavar="RUN", help="A search's name, or its run folder.")],
    trials: Annotated[list[str], typer.Argument(metavar="TRIAL", help="Which trials: t0007 or 7.")],
    runs: Annotated[Path, typer.Option(help="Where run folders live.")] = Path("runs"),
) -> None:
    """End trials that run, wait or are still to begin; it says nothing about their configurations.

    Each was one of the budget's trials. To have them count as culled by the search: `skeltune prune`.
    """
    from tuning.control import ask_cancel, find_run
    from tuning.engine.journal import replay
    from tuning.run_files import JOURNAL_FILE

    folder = find_run(name, runs)
    typer.echo(ask_cancel(folder, trials, replay(folder / JOURNAL_FILE)))
