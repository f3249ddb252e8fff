"""`skeltune status`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = """
Example: `skeltune status quickstart`

    quickstart: 7 of 10 trials ended (4 culled, 2 top, 1 diverged), 2 running or to continue
    failures of workers: 1 lost (each tried again unless its trial is told as failed)
    node               epochs  trials  pace   remarks
    10.0.0.11              41       5  1.0x
    10.0.0.12              18       4  2.6x   1 lost, slow: 2.6 times the others' seconds an epoch
"""


def run(
    name: Annotated[str, typer.Argument(help="A search's name, or its run folder.")] = "quickstart",
    runs: Annotated[Path, typer.Option(help="Where run folders live.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Say how far a search is; reads the journal, disturbs nothing."""
    from tuning.report import read_run, status_lines

    run_folder = read_run(name, runs)
    if as_json:
        typer.echo(json.dumps(run_folder.summary(), indent=2))
    else:
        for line in status_lines(run_folder):
            typer.echo(line)
