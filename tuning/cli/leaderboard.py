"""`skeltune leaderboard`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = """
Example: `skeltune leaderboard quickstart`

    trial  method         rung  top1   loss   s/epoch  ended   drawn
    t0006  skeletonbyol   27    71.3   0.912  1.4      top     momentum=.98 lr=.004
"""


def run(
    name: Annotated[str, typer.Argument(help="A search's name, or its run folder.")] = "quickstart",
    runs: Annotated[Path, typer.Option(help="Where run folders live.")] = Path("runs"),
    number: Annotated[int, typer.Option("-n", "--number", min=1, help="How many rows.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Rank the trials of a search; values of different rungs are never compared: the higher rung stands first."""
    from tuning.report import front_lines, leaderboard_lines, leaderboard_rows, read_run, stage_lines

    found = read_run(name, runs)
    rows = leaderboard_rows(found)[:number]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    for line in [*leaderboard_lines(rows), *front_lines(found), *stage_lines(found)]:
        typer.echo(line)
