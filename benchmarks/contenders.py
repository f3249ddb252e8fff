"""The engines to compare, each as the simulator drives it: random, Optuna alone, Ray's own classes, and ours.

Ray's classes are driven as its controller drives them: a result goes to the scheduler; CONTINUE goes on to the
searcher as a result, STOP completes the trial there with its last result, whatever epoch that was.
"""

from __future__ import annotations

import functools
import importlib
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
import optuna

from methods.errors import InputError, did_you_mean
from tuning.engine.choices import METHOD, Choices
from tuning.engine.simulator import Contender, Point, Segment

optuna.logging.set_verbosity(optuna.logging.WARNING)

OURS, OURS_MODULE = "skeltune", "tuning.engine.virtual"
SCORE, TIME, ROUND = "score", "epoch", "training_iteration"


class Source(Protocol):
    """Where configurations come from."""

    def ask(self, trial: int) -> Mapping[str, Any]:
        """The draws of a new trial."""

    def heard(self, trial: int, epoch: int, value: float, goes_on: bool) -> None:
        """A score, NaN where it diverged, and whether the trial goes on."""


class Rule(Protocol):
    """Who goes on."""

    def begun(self, trial: int) -> None:
        """A trial started."""

    def goes_on(self, trial: int, epoch: int, value: float) -> bool:
        """Whether a trial goes on after this score."""


class Searched:
    """A contender of two halves, as Ray has them: one proposes, the other stops; nothing is ever paused."""

    def __init__(self, source: Source, rule: Rule) -> None:
        self._source, self._rule, self._next = source, rule, 0

    def ask(self) -> Segment:
        """A new trial, always."""
        trial, self._next = self._next, self._next + 1
        draws = self._source.ask(trial)
        self._rule.begun(trial)
        return Segment(trial, draws)

    def report(self, trial: int, epoch: int, point: Point) -> bool:
        """The rule decides, then the source hears of both."""
        value = math.nan if point.value is None else point.value
        goes_on = self._rule.goes_on(trial, epoch, value)
        self._source.heard(trial, epoch, value, goes_on)
        return goes_on


class Prior:
    """Random draws, methods alike."""

    def __init__(self, choices: Choices, seed: int) -> None:
        self._choices, self._rng = choices, np.random.default_rng(seed)

    def ask(self, trial: int) -> Mapping[str, Any]:
        return self._choices.sample(self._rng)

    def heard(self, trial: int, epoch: int, value: float, goes_on: bool) -> None:
        """Nothing is learnt."""


class ToTheTop:
    """Every trial is trained in full."""

    def __init__(self, top: int) -> None:
        self._top = top

    def begun(self, trial: int) -> None:
        """Nothing to note."""

    def goes_on(self, trial: int, epoch: int, value: float) -> bool:
        return epoch < self._top


class RayAsha:
    """Ray's own ASHAScheduler, one bracket, at our rungs."""

    def __init__(self, rungs: Sequence[int], eta: int) -> None:
        from ray.tune.schedulers import ASHAScheduler, TrialScheduler

        self._stop = TrialScheduler.STOP
        self._inner: Any = ASHAScheduler(
            time_attr=TIME, metric=SCORE, mode="max", max_t=rungs[-1], grace_period=rungs[0], reduction_factor=eta
        )
        # Ray finds its rungs by a floating-point logarithm; these are the ones that trials are probed at.
        self._inner._brackets[0]._rungs = [(rung, {}) for rung in reversed(rungs[:-1])]

    def begun(self, trial: int) -> None:
        self._inner.on_trial_add(None, _trial(trial))

    def goes_on(self, trial: int, epoch: int, value: float) -> bool:
        result = _result(epoch, value)
        if self._inner.on_trial_result(None, _trial(trial), result) != self._stop:
            return True
        self._inner.on_trial_complete(None, _trial(trial), result)
        return False


class RayOptuna:
    """Ray's own OptunaSearch with a define-by-run space and its default TPE."""

    def __init__(self, choices: Choices, seed: int) -> None:
        from ray.tune.search.optuna import OptunaSearch

        logging.getLogger("ray.tune.search.optuna").setLevel(logging.ERROR)
        self._choices = choices
        self._inner: Any = OptunaSearch(space=self._define, metric=SCORE, mode="max", seed=seed)

    def _define(self, trial: Any) -> None:
        self._choices.suggest(_Dotted(trial))

    def ask(self, trial: int) -> Mapping[str, Any]:
        asked = self._inner.suggest(str(trial)) or {}
        return {METHOD: self._choices.methods[0], **{name.replace(".", "/"): asked[name] for name in asked}}

    def heard(self, trial: int, epoch: int, value: float, goes_on: bool) -> None:
        tell = self._inner.on_trial_result if goes_on else self._inner.on_trial_complete
        tell(str(trial), _result(epoch, value))


class OptunaAlone:
    """Optuna's loop: ask, report at a rung, prune or not, tell; its default TPE and a pruner of its own."""

    def __init__(self, choices: Choices, seed: int, top: int, pruner: optuna.pruners.BasePruner) -> None:
        self._choices, self._top = choices, top
        sampler = optuna.samplers.TPESampler(seed=seed)
        # The name enters HyperbandPruner's choice of brackets.
        self._study = optuna.create_study(
            direction="maximize", sampler=sampler, pruner=pruner, study_name=f"seed {seed}"
        )
        self._trials: dict[int, optuna.Trial] = {}

    def ask(self) -> Segment:
        """A new trial, always."""
        trial = self._study.ask()
        self._trials[trial.number] = trial
        return Segment(trial.number, self._choices.suggest(trial))

    def report(self, trial: int, epoch: int, point: Point) -> bool:
        """As the loops in Optuna's guide; a diverged trial has failed."""
        asked = self._trials[trial]
        if point.value is None:
            self._study.tell(asked, state=optuna.trial.TrialState.FAIL)
            return False
        asked.report(point.value, epoch)
        if epoch >= self._top:
            self._study.tell(asked, point.value)
        elif asked.should_prune():
            self._study.tell(asked, state=optuna.trial.TrialState.PRUNED)
        else:
            return True
        return False


class _Dotted:
    """An Optuna trial under other names: Ray unflattens keys at ``/`` and would lose ``method`` beside ``method/x``."""

    def __init__(self, trial: Any) -> None:
        self._trial = trial

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        return float(self._trial.suggest_float(name.replace("/", "."), low, high, log=log))

    def suggest_int(self, name: str, low: int, high: int) -> int:
        return int(self._trial.suggest_int(name.replace("/", "."), low, high))

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        return self._trial.suggest_categorical(name.replace("/", "."), choices)


def _trial(number: int) -> Any:
    """All that ASHA reads of a trial."""
    return SimpleNamespace(trial_id=number)


def _result(epoch: int, value: float) -> dict[str, Any]:
    return {SCORE: value, TIME: epoch, ROUND: epoch}


Maker = Callable[[Choices, Sequence[int], int, int, int], Contender]  # choices, rungs, eta, seed, workers


def _random(choices: Choices, rungs: Sequence[int], eta: int, seed: int, workers: int) -> Contender:
    return Searched(Prior(choices, seed), ToTheTop(rungs[-1]))


def _random_asha(choices: Choices, rungs: Sequence[int], eta: int, seed: int, workers: int) -> Contender:
    return Searched(Prior(choices, seed), RayAsha(rungs, eta))


def _stock(choices: Choices, rungs: Sequence[int], eta: int, seed: int, workers: int) -> Contender:
    return Searched(RayOptuna(choices, seed), RayAsha(rungs, eta))


def _optuna(kind: str, choices: Choices, rungs: Sequence[int], eta: int, seed: int, workers: int) -> Contender:
    pruners: dict[str, Callable[[], optuna.pruners.BasePruner]] = {
        "none": optuna.pruners.NopPruner,
        "sha": lambda: optuna.pruners.SuccessiveHalvingPruner(min_resource=rungs[0], reduction_factor=eta),
        "hyperband": lambda: optuna.pruners.HyperbandPruner(rungs[0], rungs[-1], eta),
        "median": optuna.pruners.MedianPruner,
    }
    return OptunaAlone(choices, seed, rungs[-1], pruners[kind]())


CONTENDERS: dict[str, Maker] = {
    "random": _random,
    "tpe": functools.partial(_optuna, "none"),
    "random-asha": _random_asha,
    "stock": _stock,
    "optuna-sha": functools.partial(_optuna, "sha"),
    "optuna-hyperband": functools.partial(_optuna, "hyperband"),
    "optuna-median": functools.partial(_optuna, "median"),
}


def fault_of(name: str) -> str | None:
    """A line about an engine that cannot be made."""
    if not name.startswith(OURS):
        return None if name in CONTENDERS else f"no engine '{name}'{did_you_mean(name, [*CONTENDERS, OURS])}"
    try:
        module = importlib.import_module(OURS_MODULE)
    except ImportError as error:
        return f"engine '{name}' needs {OURS_MODULE}: {error}"
    return None if hasattr(module, "contender") else f"engine '{name}' needs {OURS_MODULE}.contender"


def make(name: str, choices: Choices, rungs: Sequence[int], eta: int, seed: int, workers: int) -> Contender:
    """A fresh engine; names that begin with ``skeltune`` are those of ``tuning.engine``. Raises ``InputError``."""
    if fault := fault_of(name):
        raise InputError(fault)
    if name.startswith(OURS):
        ours: Maker = functools.partial(importlib.import_module(OURS_MODULE).contender, name)
        return ours(choices, rungs, eta, seed, workers)
    return CONTENDERS[name](choices, rungs, eta, seed, workers)
