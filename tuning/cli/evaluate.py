"""`skeltune evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = """
Example: `skeltune evaluate runs/quickstart/best.pt --config runs/quickstart/best.yaml --kind knn`

    test top1 66.41 (knn, 288 clips)
"""


def run(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint written by `search` or `train`.")],
    config: Annotated[Path, typer.Option(help="The file that names data, split and probe.")],
    on: Annotated[str, typer.Option(help="test or validation.")] = "test",
    kind: Annotated[str | None, typer.Option(help="linear or knn, instead of the file's probe.")] = None,
    solver: Annotated[str | None, typer.Option(help="lbfgs or sgd, instead of the file's.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Probe the weights of a checkpoint: linear or kNN, each stream and fused."""
    from tuning.train import evaluate_checkpoint

    found = evaluate_checkpoint(checkpoint, config, on=on, kind=kind, solver=solver, device=device)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    typer.echo(f"{on} top1 {100 * found['top1']:.2f} ({found['probe']['kind']}, {found['clips']} clips)")
    if len(found["streams"]) > 1:
        for (name, (top1, _)), weight in zip(found["streams"].items(), found["fuse"], strict=True):
            typer.echo(f"  {name:<8} {100 * top1:.2f}  weight {weight:.2f}")
