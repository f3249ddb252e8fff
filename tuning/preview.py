"""What a search would do, said before anything starts."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np

from methods.errors import InputError
from tuning.arithmetic import Pace, budget_lines, pace_of
from tuning.config.schema import SearchSpec
from tuning.driver import this_machine
from tuning.engine.journal import replay
from tuning.observe.lines import short_draws
from tuning.plan import plan_search
from tuning.run_files import JOURNAL_FILE
from tuning.slots import find_slots
from tuning.space import Space
from tuning.space.explain import Facts, explain
from tuning.space.export import dump


def sample_draws(space: Space, number: int, seed: int) -> list[dict[str, Any]]:
    """``number`` draws from the prior; the same seed gives the same."""
    rng = np.random.default_rng(seed)
    return [space.sample(rng) for _ in range(number)]


def sample_texts(spec: SearchSpec, space: Space, number: int, seed: int) -> list[tuple[dict[str, Any], str]]:
    """Draws, and the whole configuration that each stands for as YAML."""
    return [(drawn, dump(spec, space.resolve(drawn))) for drawn in sample_draws(space, number, seed)]


def known_pace(spec: SearchSpec, space: Space, runs: Path, seconds: float | None = None) -> Pace:
    """The pace of a search on this machine, by ``seconds`` an epoch as given or an earlier run's journal in ``runs``.

    A journal that cannot be read, and wishes that this machine cannot meet, tell nothing here.
    """
    state = slots = None
    with contextlib.suppress(InputError, OSError):
        state = replay(runs / spec.name / JOURNAL_FILE)
    with contextlib.suppress(InputError):
        slots = find_slots(spec.budget, this_machine())
    return pace_of(space, state, slots, seconds)


def dry_run_lines(space_file: Path, runs: Path, seconds: float | None = None) -> list[str]:
    """The space explained, five samples, what the budget comes to, and the run folder's state.

    ``seconds``: of an epoch, where the user knows them.
    """
    plan = plan_search(space_file, runs)
    spec, space = plan.spec, plan.space
    pace = known_pace(spec, space, runs, seconds)
    lines = explain(spec, space, Facts(n_train=len(plan.split.train), seconds=pace.seconds))
    lines += ["", plan.split.note, "", "five samples:"]
    lines += [f"  {drawn['method']:<14} {short_draws(drawn)}" for drawn in sample_draws(space, 5, spec.seed)]
    lines += ["", *budget_lines(spec, space, pace)]
    journal = plan.folder / JOURNAL_FILE
    if journal.is_file():
        state = replay(journal)
        lines.append(f"{plan.folder}: {len(state.ended)} trials ended, {len(state.pending)} to continue")
    else:
        lines.append(f"would write to {plan.folder}; nothing was started")
    return lines
