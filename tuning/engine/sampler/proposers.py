"""Those who propose draws: each a function of the model and the ask's seed, so that a restart changes nothing."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna

from methods.errors import InputError
from tuning.engine.choices import METHOD
from tuning.engine.sampler.encoding import from_unit, to_unit
from tuning.engine.sampler.flat import CmaEs, Gp
from tuning.engine.sampler.model import Model
from tuning.engine.sampler.rank_gp import RankGp
from tuning.engine.sampler.shares import GAMMA, likely_method
from tuning.engine.sampler.study import ModelStudy
from tuning.space.domains import Draw

Proposer = Callable[[int], dict[str, Any]]  # the seed of the ask -> draws


def _quietly(make: Callable[[], optuna.samplers.BaseSampler]) -> optuna.samplers.BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


class Random:
    """The prior: methods alike, then every dimension."""

    def __init__(self, model: Model) -> None:
        self.choices = model.choices

    def __call__(self, seed: int) -> dict[str, Any]:
        return self.choices.sample(np.random.default_rng(seed))


class Tpe:
    """Optuna's multivariate TPE over the whole conditional space (``group=True``)."""

    def __init__(self, model: Model, two: bool = False) -> None:
        self.study = ModelStudy(model, two=two)

    def __call__(self, seed: int) -> dict[str, Any]:
        sampler = _quietly(
            lambda: optuna.samplers.TPESampler(seed=seed % 2**32, n_startup_trials=1, group=True, gamma=self.study.good)
        )
        return self.study.propose(sampler)


class MethodTpe:
    """The method by the shares of methods among the best, then Optuna's multivariate TPE over all of its dimensions."""

    def __init__(self, model: Model, two: bool = False, gamma: float = GAMMA) -> None:
        self.model, self.gamma = model, gamma
        self.studies = {name: ModelStudy(model, name, two) for name in model.choices.methods}

    def __call__(self, seed: int) -> dict[str, Any]:
        rng = np.random.default_rng(seed)
        method = likely_method(self.model, rng, self.gamma)
        study = self.studies[method]
        sampler = _quietly(
            lambda: optuna.samplers.TPESampler(
                seed=int(rng.integers(2**32)), n_startup_trials=5, multivariate=True, gamma=study.good
            )
        )
        return study.propose(sampler)


class NearBest:
    """One of the best trials, each dimension moved a little: a search around what is good, without a model."""

    def __init__(self, model: Model, share: float = 0.1, step: float = 0.15) -> None:
        self.model, self.share, self.step = model, share, step

    def __call__(self, seed: int) -> dict[str, Any]:
        rng = np.random.default_rng(seed)
        ranked = self.model.ranked()
        if not ranked:
            return self.model.choices.sample(rng)
        best = ranked[: max(3, round(self.share * len(ranked)))]
        draws = self.model.draws(best[int(rng.integers(len(best)))])
        method = str(draws[METHOD])
        moved = {draw.name: self._moved(draw, draws[draw.name], rng) for draw in self.model.choices.draws(method)}
        return {METHOD: method, **moved}

    def _moved(self, draw: Draw, value: Any, rng: np.random.Generator) -> Any:
        if draw.kind == "categorical":
            return draw.sample(rng) if rng.random() < self.step else value
        unit = to_unit(draw, value)
        for _ in range(20):
            moved = unit + self.step * rng.standard_normal()
            if 0 <= moved <= 1:
                return from_unit(draw, moved)
        return draw.sample(rng)


def make(name: str, model: Model, two: bool = False) -> Proposer:
    """The proposer of that name. Raises ``InputError`` where packages are missing that it needs."""
    if name == "tpe":
        return Tpe(model, two)
    if name == "rank_gp":
        return RankGp(model)
    if name == "near_best":
        return NearBest(model)
    if name == "gp":
        return Gp(model)
    if name == "cmaes":
        return CmaEs(model)
    raise InputError(f"sampler {name} is not there yet")
