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
) -> None:
    """Say what a search space means: every parameter beside its published value, the ladder, the caveats."""
    from tuning.resources import find_space
    from tuning.space import load_search
    from tuning.space.explain import Facts, explain

    path = find_space(space)
    if data:
        from tuning.plan import plan_search

        plan = plan_search(path, Path("runs"))
        spec, bound, facts = plan.spec, plan.space, Facts(n_train=len(plan.split.train))
    else:
        (spec, bound), facts = load_search(path), Facts()
    for line in explain(spec, bound, facts):
        typer.echo(line)
