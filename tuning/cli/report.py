"""`skeltune report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = """
Example: `skeltune report quickstart --plot quickstart.svg`

    quickstart: 10 of 10 trials ended (7 culled, 3 top), 6 jobs of the finish done; best: runs/quickstart/best.yaml

    methods: validation top-1 by rung, of the trials that were let so far
    method            rung    n   best  median
    skeletonbyol         1    6   45.6    41.1
"""


def run(
    name: Annotated[str, typer.Argument(help="A search's name, or its run folder.")] = "quickstart",
    runs: Annotated[Path, typer.Option(help="Where run folders live.")] = Path("runs"),
    plot: Annotated[
        Path | None, typer.Option(help="Also draw rung survival to this .svg or .png (needs the extra `plots`).")
    ] = None,
) -> None:
    """Sum a search up: state, ten best trials, methods rung by rung, results of the finish; on request a figure."""
    from tuning.report import read_run
    from tuning.summary import report_lines, winner_of

    found = read_run(name, runs)
    for line in report_lines(found):
        typer.echo(line)
    if plot is not None:
        from tuning.plots import plot_search

        schedule = found.spec.schedule
        plot_search(
            found.state,
            schedule.rungs(),
            plot,
            name=found.spec.name,
            winner=winner_of(found),
            eta=schedule.asha.eta,
            objectives=found.objectives,
        )
        typer.echo(f"figure: {plot}")
