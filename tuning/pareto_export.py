"""The front of a search with two objectives on the disk: a config for each trial that no other dominates."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from methods.training.seeds import derive_seed
from tuning.engine.finalists import final_rung, rerun_results
from tuning.engine.objectives import WORDS, Objectives, cost_text, objectives_of
from tuning.engine.pareto import Point, front
from tuning.engine.state import JournalState
from tuning.export_best import data_told, portable, told_in
from tuning.files import write_text
from tuning.plan import Plan
from tuning.provenance import surroundings
from tuning.report import front_line
from tuning.run_files import trial_key
from tuning.space.export import dump

FRONT_FOLDER = "pareto"  # in the run folder
_FILE = re.compile(r"\d{2,}\.yaml")


def export_front(plan: Plan, state: JournalState, threads: int, say: Callable[[str], None]) -> list[Path]:
    """Write each trial of the front as ``pareto/NN.yaml``, the most accurate first, 01; nothing with one objective.

    A file that tells the same already is left as it is, one whose place is no longer there is removed.
    """
    objectives = objectives_of(plan.spec.objectives, plan.ladder.top, state)
    rung = final_rung(state, plan.ladder)
    found = front(state.trials.values(), rung, objectives) if objectives.two else []
    if not found:
        return []
    folder = plan.folder / FRONT_FOLDER
    folder.mkdir(exist_ok=True)
    paths = []
    for place, point in enumerate(found, start=1):
        path = folder / f"{place:02d}.yaml"
        paths.append(path)
        told = _told(plan, state, objectives, rung, point) | {"front": _place(objectives, place, len(found), rung)}
        there = told_in(path)
        if any(_plain(there.get(key)) != _plain(value) for key, value in told.items()):
            config = plan.space.resolve(state.trials[point.trial].draws)
            story = _story(plan, path, objectives, point, told)
            write_text(
                path, story + dump(portable(plan), config, told | {"data": data_told(plan)} | surroundings(threads))
            )
    for path in folder.iterdir():
        if _FILE.fullmatch(path.name) and path not in paths:
            path.unlink()
    say(f"{front_line(found, objectives)}: {folder}")
    return paths


def _place(objectives: Objectives, place: int, count: int, rung: int) -> dict[str, Any]:
    return {"objectives": list(objectives.names), "place": place, "of": count, "epochs": rung}


def _told(plan: Plan, state: JournalState, objectives: Objectives, rung: int, point: Point) -> dict[str, Any]:
    """The provenance that follows from the space and the journal alone. ``rerun``: with new seeds, where there are."""
    report = state.trials[point.trial].at(rung)
    cost = int(point.cost) if point.cost.is_integer() else point.cost
    again = [r["top1"] for _, r in sorted(rerun_results(state).get(point.trial, {}).items()) if "top1" in r]
    return {
        "search": {
            "name": plan.spec.name,
            "space": plan.spec.space_hash(),
            "trials": state.count,
            "trial": trial_key(point.trial),
        },
        "validation": {
            "in_search": point.score,
            "loss": report.loss if report is not None else None,
            "rerun": again,
            objectives.second: cost,
        },
        "seeds": {"search": plan.spec.seed, "trial": derive_seed(plan.spec.seed, "trial", point.trial)},
    }


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _story(plan: Plan, path: Path, objectives: Objectives, point: Point, told: dict[str, Any]) -> str:
    """The comment at the top of a file."""
    place = told["front"]
    again = told["validation"]["rerun"]
    words = f"validation {100 * point.score:.1f} at {place['epochs']} epochs in the search"
    if again:
        words += f", {', '.join(f'{100 * v:.1f}' for v in again)} with new seeds"
    return (
        f"# {place['place']} of {place['of']} on the front of accuracy and {WORDS[objectives.second]} that "
        f"{plan.spec.name} found: {trial_key(point.trial)}\n"
        f"# {words}; {cost_text(objectives.second, point.cost)} {WORDS[objectives.second]}\n"
        f"# Train it with: skeltune train {path}\n"
    )
