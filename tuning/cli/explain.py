"""`skeltune explain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = """
Example: `skeltune explain quickstart`

    parameter         where        drawn from            published  inside
    temperature       skeletonclr  log [0.05, 0.5]       0.07       yes
"""


def run(
    space: Annotated[str, typer.Argument(help="A search-space YAML, or the name of a shipped one.")] = "quickstart",
    data: Annotated[bool, typer.Option(help="Open the dataset, so that rungs are told in steps too.")] = True,
    runs: Annotated[Path, typer.Option(help="Where an earlier run's journal tells the seconds an epoch.")] = Path(
        "runs"
    ),
    seconds_per_epoch: Annotated[
        float | None, typer.Option(min=0.001, help="For the arithmetic of the budget, where you know them.")
    ] = None,
) -> None:
    """Say what a search space means: every parameter beside its published value, ladder, budget, caveats."""
    from tuning.arithmetic import budget_lines
    from tuning.preview import known_pace
    from tuning.resources import find_space
    from tuning.space import load_search
    from tuning.space.explain import Facts, explain

    path, n_train = find_space(space), None
    if data:
        from tuning.plan import plan_search

        plan = plan_search(path, runs)
        spec, bound, n_train = plan.spec, plan.space, len(plan.split.train)
    else:
        spec, bound = load_search(path)
    pace = known_pace(spec, bound, runs, seconds_per_epoch)
    for line in [*explain(spec, bound, Facts(n_train, pace.seconds)), "", *budget_lines(spec, bound, pace)]:
        typer.echo(line)
