"""`skeltune evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from methods.errors import WorkFailed

EXAMPLE = """Examples:

`skeltune evaluate runs/quickstart/best.pt --config runs/quickstart/best.yaml`

`skeltune evaluate best.pt --config best.yaml --protocol semi_10 --protocol finetune --draws 3`

`skeltune evaluate best.pt --data data/pku2 --split xsub --protocol finetune` (transfer)

`skeltune evaluate best.pt --config best.yaml --protocol linear --protocol linear_aimclr --fuse fitted`

    best.pt: skeletonbyol, epoch 6
    data/generated, split xsub: test, 360 clips
    protocol       stream  top1   labelled  draws  which epoch       weights
    linear         joint   63.06  540       1      no epochs
"""


def _list(wanted: bool) -> None:
    if not wanted:
        return
    from methods.training.protocols import PROTOCOLS

    width = max(map(len, PROTOCOLS))
    for name, protocol in PROTOCOLS.items():
        typer.echo(f"{name:<{width}}  {protocol.doc}  [{protocol.source}]")
    raise typer.Exit


def run(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint written by `search` or `train`.")],
    config: Annotated[Path | None, typer.Option(help="The file that names data, split and probe.")] = None,
    protocol: Annotated[
        list[str] | None, typer.Option(help="How to judge; may be repeated. Default: the file's probe.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Other data than the file's, with the same joints (transfer): a folder.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Another split than the file's, by name.")] = None,
    on: Annotated[str, typer.Option(help="test or validation.")] = "test",
    draws: Annotated[
        int | None, typer.Option(min=1, help="Draws of labels and seeds; default: the protocol's.")
    ] = None,
    report: Annotated[
        str, typer.Option(help="last epoch, or best (by the scored clips, as papers do; marked as such).")
    ] = "last",
    fuse: Annotated[
        str | None, typer.Option(help="equal, fitted, searched, or weights: 0.6,0.4 or joint=0.6,bone=0.4.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Another length; the protocols' schedules rescale.")] = None,
    kind: Annotated[str | None, typer.Option(help="linear or knn, instead of the file's probe.")] = None,
    solver: Annotated[str | None, typer.Option(help="lbfgs or sgd, instead of the file's.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
    _listed: Annotated[
        bool, typer.Option("--list", callback=_list, is_eager=True, help="List the protocols and end.")
    ] = False,
) -> None:
    """Judge the weights of a checkpoint by one or more protocols: each stream and fused, probed or fine-tuned."""
    from tuning.evaluation import Wishes, evaluate, failures, lines

    wishes = Wishes(
        data=data,
        split=split,
        on=on,
        protocols=tuple(protocol or ()),
        kind=kind,
        solver=solver,
        report=report,
        fuse=fuse,
        draws=draws,
        epochs=epochs,
        device=device,
    )
    found = evaluate(checkpoint, config, wishes, say=lambda text: typer.echo(text, err=True))
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        for line in lines(found):
            typer.echo(line)
    failed = failures(found)
    if failed:
        raise WorkFailed("\nskeltune: ".join(failed))
