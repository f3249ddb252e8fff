"""What a search would do, said before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tuning.config.schema import SearchSpec
from tuning.engine.journal import replay
from tuning.observe.lines import short_draws
from tuning.plan import JOURNAL_FILE, plan_search
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


def dry_run_lines(space_file: Path, runs: Path) -> list[str]:
    """The space explained, five samples, the run folder's state, and the most epochs that the search can cost."""
    plan = plan_search(space_file, runs)
    spec, space = plan.spec, plan.space
    lines = explain(spec, space, Facts(n_train=len(plan.split.train)))
    lines += ["", plan.split.note, "", "five samples:"]
    lines += [f"  {drawn['method']:<14} {short_draws(drawn)}" for drawn in sample_draws(space, 5, spec.seed)]
    trials = spec.budget.trials
    if trials is not None:
        lines += ["", _cost(plan.ladder.rungs, plan.ladder.eta, trials, spec)]
    journal = plan.folder / JOURNAL_FILE
    if journal.is_file():
        state = replay(journal)
        lines.append(f"{plan.folder}: {len(state.ended)} trials ended, {len(state.pending)} to continue")
    else:
        lines.append(f"would write to {plan.folder}; nothing was started")
    return lines


def _cost(rungs: tuple[int, ...], eta: int, trials: int, spec: SearchSpec) -> str:
    """Epochs with a cut of one in eta at each rung, and with no cut at all."""
    expected, alive, before = 0.0, float(trials), 0
    for rung in rungs:
        expected += alive * (rung - before)
        alive, before = alive / eta, rung
    finish = 0
    if spec.finish.rerun is not None:
        finish += spec.finish.rerun.top * spec.finish.rerun.seeds * rungs[-1]
    if spec.finish.retrain is not None:
        finish += spec.finish.retrain.seeds * rungs[-1]
    return (
        f"{trials} trials: about {expected:.0f} epochs if one in {eta} goes on at each rung, at most "
        f"{trials * rungs[-1]}; the finish takes {finish} more"
    )
