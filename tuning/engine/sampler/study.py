"""The model as an Optuna study, for the samplers that Optuna has."""

from __future__ import annotations

import math
import warnings
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from tuning.engine.choices import METHOD, Choices
from tuning.engine.sampler.model import Model, Observation
from tuning.engine.sampler.storage import ListStorage
from tuning.space.domains import Draw

optuna.logging.set_verbosity(optuna.logging.WARNING)  # the journal tells the story


def distribution(draw: Draw) -> BaseDistribution:
    """A dimension as Optuna has it."""
    if draw.kind == "categorical":
        return CategoricalDistribution(draw.choices)
    if draw.kind == "int":
        return IntDistribution(int(draw.low), int(draw.high))
    return FloatDistribution(draw.low, draw.high, log=draw.log)


class ModelStudy:
    """A study over all trials, or those of one ``method``, that follows a :class:`Model`.

    ``two``: also the cost, to be low.
    """

    def __init__(self, model: Model, method: str | None = None, two: bool = False) -> None:
        self.model, self.method, self.two = model, method, two
        self.choices: Choices = model.choices
        self._dimensions = {
            name: {draw.name: distribution(draw) for draw in self._asked(name)} for name in self.choices.methods
        }
        self._places: dict[int, int] = {}
        self._fill()
        model.watch(self._changed)

    def _asked(self, method: str) -> tuple[Draw, ...]:
        whole = self.method is None and len(self.choices.methods) > 1
        return ((self.choices.method_draw,) if whole else ()) + self.choices.draws(method)

    def _fill(self) -> None:
        self.storage = ListStorage()
        self.study = optuna.create_study(
            storage=self.storage,
            directions=["maximize", "minimize"] if self.two else ["maximize"],
            sampler=optuna.samplers.RandomSampler(seed=0),
        )
        self._places.clear()
        for observation in self.model.all():
            self._put(observation)

    def _changed(self, trial: int | None) -> None:
        if trial is None:
            self._fill()
        else:
            self._put(self.model.observations[trial])

    def _put(self, observation: Observation) -> None:
        method = self.model.of(observation)
        if self.method in (None, method):
            place = self._places.setdefault(observation.trial, len(self._places))
            self.storage.put(place, self._frozen(observation, self._dimensions[method]))

    def _frozen(self, seen: Observation, dimensions: dict[str, BaseDistribution]) -> FrozenTrial:
        rungs, draws = self.model.rungs, self.model.draws(seen)
        params = {name: draws[name] for name in dimensions}
        state, values, steps = OptunaState.RUNNING, None, {}
        if self.two and seen.rung != -1:
            state, values = OptunaState.COMPLETE, self._two_values(seen)
        elif seen.rung == self.model.target:
            state, values = OptunaState.COMPLETE, [seen.value]
        elif seen.rung >= 0:
            state, steps = OptunaState.PRUNED, {rungs[seen.rung]: seen.value}
        elif seen.rung == -2:
            state = OptunaState.PRUNED  # without a step it ranks last
        return FrozenTrial(
            number=0, state=state, value=None, values=values, datetime_start=None, datetime_complete=None,
            params=params, distributions=dimensions, user_attrs={}, system_attrs={}, intermediate_values=steps,
            trial_id=0,
        )  # fmt: skip

    def _two_values(self, seen: Observation) -> list[float]:
        """Score and logarithm of the cost, shifted so far for those that came less far, or of whom less is known, that
        any that came further dominates them: Optuna has no pruned trials with two objectives.
        """
        behind = self.model.target - seen.rung if seen.rung >= 0 else len(self.model.rungs)
        if seen.rung >= 0 and seen.cost is not None:
            return [seen.value - 2.0 * behind, math.log(max(seen.cost, 1e-9)) + 100.0 * behind]
        return [seen.value - 2.0 * behind - 1.0, 100.0 * behind + 50.0]

    def good(self, count: int) -> int:
        """Of ``count`` finished trials, how many a TPE shall take for good: the best tenth, at most 25, as Optuna does.

        With two objectives no more than half of those at the target: further ones may be dominated by all that are
        there, and the weights of the good are shares of a hypervolume that reaches down to the worst of them.
        """
        best = min(math.ceil(0.1 * count), 25)
        if not self.two:
            return best
        full = sum(o.rung == self.model.target and self.method in (None, self.model.of(o)) for o in self.model.all())
        return max(1, min(best, full // 2))

    def propose(self, sampler: optuna.samplers.BaseSampler) -> dict[str, Any]:
        """Draws by ``sampler``; the study is left as it was."""
        self.study.sampler = sampler
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # experimental, deprecated: told to whoever writes this, not to who runs it
            trial = self.study.ask()
            try:
                drawn = self.choices.suggest(trial, self.method)
            finally:
                del self.storage.trials[len(self._places) :]
        return {METHOD: drawn.pop(METHOD), **drawn}
