"""`skeltune data convert | inspect | synth`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Skeleton datasets: convert, inspect, generate.", no_args_is_help=True)


@app.command(epilog="Example: `skeltune data convert utd_mhad.npz data/utd_mhad`")
def convert(
    source: Annotated[Path, typer.Argument(help="What you have, e.g. a ragged .npz.")],
    out: Annotated[Path, typer.Argument(help="The dataset folder to write; must not exist yet.")],
    format_: Annotated[str, typer.Option("--format", help="auto, or the name of a reader.")] = "auto",
) -> None:
    """Turn skeletons from somewhere else into a dataset folder."""
    from methods.data.formats import convert as convert_data

    dataset = convert_data(source, out, format_)
    typer.echo(
        f"{out}: {len(dataset)} clips, {dataset.num_classes} classes, {dataset.layout.num_joints} joints, "
        f"splits {', '.join(dataset.splits) or 'none'}"
    )


@app.command(epilog="Example: `skeltune data inspect data/utd_mhad --split xsub`")
def inspect(
    path: Annotated[Path, typer.Argument(help="A dataset folder.")],
    split: Annotated[str | None, typer.Option(help="Count for this split only; default: every stored one.")] = None,
) -> None:
    """Print counts, lengths, classes per split, missing joints, and clips that stand on both sides of a split."""
    from methods.data import inspect_dataset, open_dataset

    for line in inspect_dataset(open_dataset(path), split).lines():
        typer.echo(line)


@app.command(epilog="Example: `skeltune data synth data/generated --seed 1`")
def synth(
    out: Annotated[Path, typer.Argument(help="The dataset folder to write; must not exist yet.")],
    seed: Annotated[int | None, typer.Option(min=0, help="Default: the embedded dataset's own.")] = None,
) -> None:
    """Write the generated skeletons of the quickstart (or a set like it with another seed)."""
    import dataclasses

    from methods.data.synthetic import QUICKSTART, write_synthetic

    config = QUICKSTART if seed is None else dataclasses.replace(QUICKSTART, seed=seed)
    dataset = write_synthetic(out, config)
    typer.echo(f"{out}: {len(dataset)} clips, {dataset.num_classes} classes, splits {', '.join(dataset.splits)}")
