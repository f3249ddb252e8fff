"""Those who propose draws: each a function of the model and the ask's seed, so that a restart changes nothing."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import optuna

from methods.errors import InputError
from tuning.engine.sampler.flat import CmaEs, Gp
from tuning.engine.sampler.model import Model
from tuning.engine.sampler.rank_gp import RankGp
from tuning.engine.sampler.study import ModelStudy

Proposer = Callable[[int], dict[str, Any]]  # the seed of the ask -> draws


def _quietly(make: Callable[[], optuna.samplers.BaseSampler]) -> optuna.samplers.BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


class Tpe:
    """Optuna's multivariate TPE over the whole conditional space (``group=True``)."""

    def __init__(self, model: Model, two: bool = False) -> None:
        self.study = ModelStudy(model, two=two)

    def __call__(self, seed: int) -> dict[str, Any]:
        sampler = _quietly(
            lambda: optuna.samplers.TPESampler(seed=seed % 2**32, n_startup_trials=1, group=True, gamma=self.study.good)
        )
        return self.study.propose(sampler)


def make(name: str, model: Model, two: bool = False) -> Proposer:
    """The proposer of that name. Raises ``InputError`` where packages are missing that it needs."""
    if name == "tpe":
        return Tpe(model, two)
    if name == "rank_gp":
        return RankGp(model)
    if name == "gp":
        return Gp(model)
    if name == "cmaes":
        return CmaEs(model)
    raise InputError(f"sampler {name} is not there yet")
