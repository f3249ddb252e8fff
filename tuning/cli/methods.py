"""`skeltune methods`."""

from __future__ import annotations

from typing import Annotated

import typer

EXAMPLE = """
Example: `skeltune methods` lists what is registered; `skeltune methods skeletonclr` all that a space may set there.
"""


def run(name: Annotated[str | None, typer.Argument(help="A method, for its parameters.")] = None) -> None:
    """List the pretraining methods, or everything that can be set for one of them."""
    from methods.fields import field_table
    from methods.registry import get_method, list_methods

    if name is None:
        for known in list_methods():
            typer.echo(f"{known:<18} {get_method(known).summary}")
        return
    entry = get_method(name)
    recipe = entry.recipe
    typer.echo(f"{name}: {entry.summary}")
    typer.echo(f"recipe: {recipe.frames} frames, {recipe.epochs} epochs; {recipe.source}")
    parts = {"": entry.config(), "encoder.": recipe.encoder, "augment.": recipe.augment, "optim.": recipe.optim}
    for prefix, published in parts.items():
        typer.echo("")
        for field in field_table(type(published)).values():
            value = getattr(published, field.name)
            span = f"{field.range.kind} {list(field.range.bounds)}" if field.range else ""
            typer.echo(f"  {prefix + field.name:<24} {value!s:<16} {span:<34} {field.doc}")
