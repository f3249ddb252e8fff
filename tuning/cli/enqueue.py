"""`skeltune enqueue`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = """
Example: `skeltune enqueue quickstart runs/before/best.yaml`

    quickstart: asked to try 1 configuration next; those enqueued come before the sampler's
    they count to budget.trials, of which 7 of 10 were asked for
"""


def run(
    name: Annotated[str, typer.Argument(metavar="RUN", help="A search's name, or its run folder.")],
    config: Annotated[
        Path,
        typer.Argument(
            metavar="CONFIG", help="An exported best.yaml, or a partial configuration as in start_from, or a list."
        ),
    ],
    runs: Annotated[Path, typer.Option(help="Where run folders live.")] = Path("runs"),
) -> None:
    """Have a search try configurations next; each is one of its trials. What does not fit its space is refused."""
    from tuning.control import ask_enqueue
    from tuning.enqueue import read_configs
    from tuning.report import read_run

    found = read_run(name, runs)
    starts = read_configs(config, found.space)
    draws = [dict(start.draws) for start in starts]
    for line in ask_enqueue(found.path, draws, found.spec.budget.trials, found.state):
        typer.echo(line)
    for note in dict.fromkeys(note for start in starts for note in start.notes):
        typer.echo(f"note: {note}")
