"""Optuna's Gaussian process and CMA-ES, which know neither conditional spaces nor trials that were stopped early.

The method is drawn by its share among the best; within a method the space is flat. All trials of a method take part, on
one scale: the normal scores of their ranks, a higher rung before a lower one and those that cannot be trained last, so
that a trial that was stopped at the first rung speaks against its surroundings although its value is no full run's.
Two objectives make no difference here, for ranks know them already.
"""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from methods.errors import InputError
from tuning.engine.choices import METHOD
from tuning.engine.sampler.model import Model, Observation
from tuning.engine.sampler.shares import likely_method
from tuning.engine.sampler.storage import ListStorage
from tuning.engine.sampler.study import distribution
from tuning.space.domains import same
from tuning.space.load import SAMPLER_PACKAGES

NEEDS = SAMPLER_PACKAGES  # what Optuna's samplers import when they are asked
GP_MOST, GP_FEWEST = 120, 5  # observations: an ask takes time by their cube; with fewer there is nothing to model
CMA_MOST, CMA_FEWEST = 200, 10  # the distribution is that of the best tenth of these (warm-started CMA-ES's gamma)
_normal = NormalDist()

Scored = tuple[Observation, float]


def missing(name: str) -> list[str]:
    """The packages that a proposer needs and that are not installed here."""
    return [package for package in NEEDS.get(name, ()) if importlib.util.find_spec(package) is None]


def require_packages(name: str) -> None:
    """Raise ``InputError`` unless all packages of a proposer are installed."""
    if missing(name):
        needed = NEEDS[name]
        packages = f"package{'s' if len(needed) > 1 else ''} {' and '.join(needed)}"
        raise InputError(f"sampler {name} needs the {packages}: pip install 'skeltune[samplers]'")


def on_one_scale(model: Model, method: str, most: int) -> list[Scored]:
    """A method's trials with the normal scores of their ranks, the best first: at most ``most`` of them, the best half
    of that and an even spread of the others.

    Those that cannot be trained share the mean of the last ranks.
    """
    ranked = model.ranked(method)
    faulty = [o for o in model.all() if o.rung == -2 and model.of(o) == method]
    count = len(ranked) + len(faulty)
    scored = [(o, _normal.inv_cdf(1 - (place + 0.5) / count)) for place, o in enumerate(ranked)]
    last = _normal.inv_cdf(len(faulty) / 2 / count) if faulty else 0.0
    return thinned([*scored, *((o, last) for o in faulty)], most)


def thinned(scored: Sequence[Scored], most: int) -> list[Scored]:
    """The best half of ``most``, and an even spread of the others, the last one included."""
    if len(scored) <= most:
        return list(scored)
    rest = np.linspace(most // 2, len(scored) - 1, most - most // 2).round().astype(int)
    return [*scored[: most // 2], *(scored[int(i)] for i in rest)]


class Flat:
    """A proposer that draws the method first, then asks one of Optuna's samplers about that method's trials.

    Subclasses say what the sampler is and which trials it sees.
    """

    name = ""
    most = fewest = 0

    def __init__(self, model: Model) -> None:
        require_packages(self.name)
        self.model = model
        self.dimensions = {
            method: {draw.name: distribution(draw) for draw in model.choices.draws(method)}
            for method in model.choices.methods
        }

    def __call__(self, seed: int) -> dict[str, Any]:
        rng = np.random.default_rng(seed)
        method = likely_method(self.model, rng)
        scored = on_one_scale(self.model, method, self.most)
        if len(scored) < self.fewest or not self.dimensions[method]:
            return self.model.choices.sample(rng, method)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # experimental, deprecated: told to whoever writes this, not to who runs it
            study = self.study(method, scored)
            study.sampler = self.sampler(method, scored, int(rng.integers(2**31)))
            drawn = self.model.choices.suggest(study.ask(), method)
        return {METHOD: drawn.pop(METHOD), **drawn}

    def study(self, method: str, scored: Sequence[Scored]) -> optuna.Study:
        """A fresh study of these trials."""
        storage = ListStorage()
        study = optuna.create_study(storage=storage, direction="maximize", sampler=optuna.samplers.RandomSampler(0))
        for observation, value in self.seen(scored):
            storage.put(len(storage.trials), self.frozen(method, observation, value))
        return study

    def seen(self, scored: Sequence[Scored]) -> Sequence[Scored]:
        """The trials of the study."""
        return scored

    def frozen(
        self, method: str, observation: Observation, value: float, only: Callable[[str], bool] = lambda _: True
    ) -> FrozenTrial:
        """A trial as Optuna has it; ``only``: the dimensions that it shall know of."""
        draws = self.model.draws(observation)
        dimensions = {name: found for name, found in self.dimensions[method].items() if only(name)}
        return FrozenTrial(
            number=0, state=OptunaState.COMPLETE, value=value, values=None, datetime_start=None,
            datetime_complete=None, params={name: draws[name] for name in dimensions}, distributions=dimensions,
            user_attrs={}, system_attrs={}, intermediate_values={}, trial_id=0,
        )  # fmt: skip

    def sampler(self, method: str, scored: Sequence[Scored], seed: int) -> optuna.samplers.BaseSampler:
        """The sampler to ask."""
        raise NotImplementedError


class Gp(Flat):
    """Optuna's Gaussian process (Matern-5/2, log expected improvement). Trials at work count with the mean of all, so
    that nobody proposes the same again meanwhile (Optuna's own way with them takes three times as long).
    """

    name, most, fewest = "gp", GP_MOST, GP_FEWEST

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        logging.getLogger("optuna._gp").setLevel(logging.ERROR)  # how it could be faster is no news for a search

    def seen(self, scored: Sequence[Scored]) -> Sequence[Scored]:
        method = self.model.of(scored[0][0])
        at_work = [o for o in self.model.all() if o.rung == -1 and self.model.trial(o.trial).ended is None]
        return [*scored, *((o, 0.0) for o in at_work if self.model.of(o) == method)]

    def sampler(self, method: str, scored: Sequence[Scored], seed: int) -> optuna.samplers.BaseSampler:
        made = optuna.samplers.GPSampler(seed=seed, n_startup_trials=1, warn_independent_sampling=False)
        made._n_local_search = 4  # of its 10 starts: most of an ask's time, and an ask shall take a second at most
        return made


class CmaEs(Flat):
    """CMA-ES, started warm from all trials so far (Nomura et al. 2021, Warm Starting CMA-ES for Hyperparameter
    Optimization), and asked once.

    The distribution is estimated anew for each ask instead of being carried on from generation to generation: what is
    proposed then hangs on the journal alone, not on who asked before. A choice is drawn by the words' shares among the
    best tenth, for CMA-ES knows numbers only.
    """

    name, most, fewest = "cmaes", CMA_MOST, CMA_FEWEST

    def seen(self, scored: Sequence[Scored]) -> Sequence[Scored]:
        return scored[:1]  # it tells the dimensions; the others are the sampler's source

    def sampler(self, method: str, scored: Sequence[Scored], seed: int) -> optuna.samplers.BaseSampler:
        dimensions = self.dimensions[method]

        def numeric(name: str) -> bool:
            return not isinstance(dimensions[name], CategoricalDistribution) and not dimensions[name].single()

        source = [self.frozen(method, o, value, numeric) for o, value in scored]
        best = [self.model.draws(o) for o, _ in scored[: len(scored) // 10]]
        return optuna.samplers.CmaEsSampler(
            seed=seed, source_trials=source, warn_independent_sampling=False, independent_sampler=_AsTheBest(best, seed)
        )


class _AsTheBest(optuna.samplers.BaseSampler):
    """Draws a choice by the shares of its words among the best, each word with the weight of one trial more in all."""

    def __init__(self, best: Sequence[dict[str, Any]], seed: int) -> None:
        self.best, self.rng = best, np.random.default_rng(seed)

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
        return {}

    def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: BaseDistribution) -> Any:
        if not isinstance(param_distribution, CategoricalDistribution):  # all numbers are CMA-ES's own
            raise TypeError(f"{param_name} is no choice")
        words = param_distribution.choices
        weights = np.array(
            [1 / len(words) + sum(same(draws[param_name], word) for draws in self.best) for word in words]
        )
        return words[int(self.rng.choice(len(words), p=weights / weights.sum()))]
