"""`skeltune import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = """
Example: `skeltune import weights/crossclr_3views.pt --from crossclr --data data/ntu60`

    LinguoLi/CrosSCLR: 3s-CrosSCLR, as crossclr on joint, motion, bone
    from the weights: encoder.width 16, encoder.dim 256, ...; layout ntu25 (25 joints)
    weights/crossclr_3views.skeltune.pt: evaluate it with: skeltune evaluate ... --data data/ntu60
"""


def run(
    checkpoint: Annotated[list[Path], typer.Argument(help="The official file; of CRRL also one of each of its runs.")],
    from_: Annotated[
        str,
        typer.Option("--from", help="Whose it is: aimclr, crossclr, cmcs, skelemixclr, pstl, scdnet, crrl or cmd."),
    ],
    out: Annotated[Path | None, typer.Option(help="Default: beside the first file, as NAME.skeltune.pt.")] = None,
    stream: Annotated[str | None, typer.Option(help="What one network was trained on: joint, motion or bone.")] = None,
    layout: Annotated[str | None, typer.Option(help="A layout's name or YAML file, if the weights do not say.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="The dataset folder to evaluate on: its joints are taken, its clips must fit.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A setting that weights do not say, e.g. encoder.heads=4."),
    ] = None,
) -> None:
    """Turn an official repository's checkpoint into one of ours, to be probed like any other."""
    from tuning.official.verb import import_verb

    import_verb(checkpoint, from_, out=out, stream=stream, layout=layout, data=data, changes=set_ or [], say=typer.echo)
