"""`skeltune new`."""

from __future__ import annotations

from typing import Annotated

import typer

EXAMPLE = """
Example: `skeltune new --methods skeletonclr,skeletonbyol --data data/utd_mhad > my.yaml`
"""


def run(
    methods: Annotated[str, typer.Option(help="Comma-separated; default: all that are registered.")] = "",
    data: Annotated[str, typer.Option(help="synthetic, or a dataset folder.")] = "synthetic",
    name: Annotated[str, typer.Option(help="Names the run folder.")] = "my-search",
) -> None:
    """Write a complete, commented search space from the methods' own tables of parameters."""
    from tuning.space.template import template

    chosen = [part.strip() for part in methods.split(",") if part.strip()]
    typer.echo(template(chosen, data=data, name=name), nl=False)
