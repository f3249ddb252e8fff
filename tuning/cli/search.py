"""`skeltune search`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = """
Example: `skeltune search` runs the embedded quickstart; `skeltune search my.yaml --runs /data/runs` your own.

    t0003 skeletonclr     3/27  top1  41.7  0.9 s/epoch
    t0003 skeletonclr    culled at 3: 41.7 < 47.2   [4 of 10 trials ended, about 2 min left]
"""


def run(
    space: Annotated[str, typer.Argument(help="A search-space YAML, or the name of a shipped one.")] = "quickstart",
    runs: Annotated[Path, typer.Option(help="Where run folders live; the search uses RUNS/NAME.")] = Path("runs"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would happen; start nothing.")] = False,
    engine: Annotated[
        str, typer.Option(help="skeltune; to compare with: stock (Ray's own classes), random-asha.")
    ] = "skeltune",
    seconds_per_epoch: Annotated[
        float | None, typer.Option(min=0, help="What an epoch takes, to say beforehand how long the search will.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="A running Ray cluster: `auto`, host:port or ray://host:port.")
    ] = None,
    expect: Annotated[
        str, typer.Option(help="What that cluster has when it has grown, e.g. `CPU=64,GPU=8`: trials queue for it.")
    ] = "",
    store: Annotated[
        str,
        typer.Option(help="Where journal and checkpoints are copied to, for nodes that share no disk: s3://, gs://."),
    ] = "",
    data_from: Annotated[
        str, typer.Option(help="From where each node copies the dataset, once: s3://, gs://, a path.")
    ] = "",
) -> None:
    """Search a space and leave the best configuration in RUNS/NAME/best.yaml. The same command resumes."""
    from tuning.resources import find_space

    path = find_space(space)
    if dry_run:
        from tuning.preview import dry_run_lines

        for line in dry_run_lines(path, runs, seconds_per_epoch):
            typer.echo(line)
        return
    from tuning.driver import run_search
    from tuning.finish import NoFinalist
    from tuning.slots import read_expected

    try:
        run_search(
            path,
            runs=runs,
            engine=engine,
            address=address,
            seconds_per_epoch=seconds_per_epoch,
            expect=read_expected(expect),
            store=store,
            data_from=data_from,
            say=typer.echo,
        )
    except NoFinalist as error:
        typer.echo(f"skeltune: {error}", err=True)
        raise typer.Exit(1) from error
