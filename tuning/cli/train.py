"""`skeltune train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = """
Example: `skeltune train runs/quickstart/best.yaml`

    epoch   27/27  loss 1.1042  spread 0.612
    test top1 70.83
    the file states 70.83
"""


def run(
    config: Annotated[Path, typer.Argument(help="best.yaml, or any space with nothing left to search.")],
    out: Annotated[Path | None, typer.Option(help="Output folder; default runs/train-<name>.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Another length; schedules rescale with it.")] = None,
    stream: Annotated[str | None, typer.Option(help="Train one stream of the configuration only.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Default: the one that the file states.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default as in the search.")] = None,
) -> None:
    """Train one configuration without Ray and probe it on the test split. The same command resumes."""
    from tuning.train import TrainingFailed, train

    try:
        train(config, out=out, epochs=epochs, stream=stream, seed=seed, device=device, threads=threads, say=typer.echo)
    except TrainingFailed as error:
        typer.echo(f"skeltune: {error}", err=True)
        raise typer.Exit(1) from error
