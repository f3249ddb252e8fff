"""`skeltune new`."""

from __future__ import annotations

from typing import Annotated

import typer

EXAMPLE = """
Example: `skeltune new --method skeletonclr --method pstl --data data/utd_mhad > my.yaml`

    search:
      method:
        one_of:
          skeletonclr:
            temperature: {log: [0.03, 0.5]}             # published 0.07; tau of InfoNCE
"""


def run(
    method: Annotated[
        list[str] | None,
        typer.Option("--method", "--methods", help="Repeat it, or separate by commas; default: all registered."),
    ] = None,
    data: Annotated[
        str, typer.Option(help="synthetic, a dataset folder, or data in a form that we read.")
    ] = "synthetic",
    name: Annotated[str, typer.Option(help="Names the run folder.")] = "my-search",
) -> None:
    """Write a complete, commented search space from the methods' own tables of parameters."""
    from tuning.space.template import template

    chosen = [part.strip() for given in method or [] for part in given.split(",") if part.strip()]
    typer.echo(template(chosen, data=data, name=name), nl=False)
