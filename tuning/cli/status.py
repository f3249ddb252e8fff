"""`skeltune status`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = """
Example: `skeltune status quickstart`

    quickstart: 7 of 10 trials ended (4 culled, 2 top, 1 diverged), 2 running or to continue
"""


def run(
    name: Annotated[str, typer.Argument(help="A search's name, or its run folder.")] = "quickstart",
    runs: Annotated[Path, typer.Option(help="Where run folders live.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Say how far a search is; reads the journal, disturbs nothing."""
    from tuning.report import read_run, status_line

    run_folder = read_run(name, runs)
    if as_json:
        typer.echo(json.dumps(run_folder.summary(), indent=2))
    else:
        typer.echo(status_line(run_folder))
