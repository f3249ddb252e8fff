"""`skeltune check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = """
Example: `skeltune check my.yaml`

    my.yaml:37:9: unknown parameter 'temprature' of method 'skeletonclr'; did you mean 'temperature'?
       37 |         temprature: {log: [0.04, 0.5]}
          |         ^^^^^^^^^^

    budget: 40 trials ~ 40x3 + 13x6 + 4x18 = 270 epochs (25 % of 40 full runs), + 5 repeats x 3 = 15; ...
"""


def run(
    space: Annotated[str, typer.Argument(help="A search-space YAML, or the name of a shipped one.")] = "quickstart",
    data: Annotated[bool, typer.Option(help="Also open the dataset and try the split.")] = True,
    runs: Annotated[Path, typer.Option(help="Where an earlier run's journal tells the seconds an epoch.")] = Path(
        "runs"
    ),
    seconds_per_epoch: Annotated[
        float | None, typer.Option(min=0.001, help="For the arithmetic of the budget, where you know them.")
    ] = None,
) -> None:
    """Validate a search space: every fault at its line, warnings, what its budget comes to. Exit code 2 for a fault."""
    from tuning.arithmetic import budget_lines
    from tuning.preview import known_pace
    from tuning.resources import find_space
    from tuning.space import load_search
    from tuning.space.explain import warnings

    path = find_space(space)
    if data:
        from tuning.plan import plan_search

        plan = plan_search(path, runs)
        spec, bound = plan.spec, plan.space
        said, *notes = plan.notes
        typer.echo(said)
    else:
        spec, bound = load_search(path)
        notes = [*bound.start_notes, *warnings(spec, bound, None)]
    for note in notes:
        typer.echo(f"warning: {note}")
    for line in budget_lines(spec, bound, known_pace(spec, bound, runs, seconds_per_epoch)):
        typer.echo(line)
    dimensions = ", ".join(f"{method} {count}" for method, count in bound.free.items())
    typer.echo(f"{path}: fine; free dimensions: {dimensions}; space {spec.space_hash()[:12]}")
