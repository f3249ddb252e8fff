"""`skeltune export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = """
Example: `skeltune export runs/aimclr/best.yaml --to aimclr --out pretext_aimclr.yaml`

    without a counterpart there:
      momentum_schedule: cosine (there constant)
    pretext_aimclr.yaml: run there: python main.py pretrain_aimclr --config pretext_aimclr.yaml
"""


def run(
    config: Annotated[Path, typer.Argument(help="best.yaml, or any space with nothing left to search.")],
    to: Annotated[str, typer.Option(help="aimclr, crossclr, cmcs, skelemixclr, pstl, scdnet, crrl or cmd.")],
    out: Annotated[Path | None, typer.Option(help="Write it here; else it is printed.")] = None,
) -> None:
    """Write a configuration as an official repository's YAML or command line, with what cannot be said there."""
    from tuning.official.verb import export_verb

    export_verb(config, to, out=out, say=typer.echo)
