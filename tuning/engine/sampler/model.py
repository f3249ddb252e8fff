"""What the trials so far say about the draws: one observation a trial, each at the highest rung that many have reached.

Scores of different rungs are never ranked against each other: the study's values are those of one rung, the *target*;
trials that came less far are pruned at their rung, and rank behind in its order; running trials count with what they
have. The study is kept and updated; it is built anew only when the target rises.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tuning.engine.choices import METHOD, Choices
from tuning.engine.pareto import Point, order
from tuning.engine.state import CANCELLED, FAULTY, JournalState, TrialState

Cost = Callable[[TrialState, int], float | None]  # of a trial, as it was known at an epoch
ENOUGH = 8  # scores at a rung before it is modelled (research: search.md 4.3, the rule of BOHB)


@dataclass(frozen=True)
class Observation:
    """What is known of one trial: ``rung`` (index; -1: not scored yet, -2: cannot be trained) and its score there.

    ``cost``: None where it is unknown, or no objective.
    """

    trial: int
    rung: int
    value: float = 0.0
    cost: float | None = None


class Model:
    """Observations of all trials of a search, kept in step with its state.

    ``watch`` is told of every observation that changed, and with None that all did. ``cost``: the second objective.
    """

    def __init__(
        self,
        choices: Choices,
        rungs: tuple[int, ...],
        state: JournalState,
        enough: int = ENOUGH,
        cost: Cost | None = None,
    ) -> None:
        self.choices, self.rungs, self.state, self.enough, self.cost = choices, rungs, state, enough, cost
        self.target = 0
        self.observations: dict[int, Observation] = {}
        self._counts = [0] * len(rungs)
        self._scored: dict[int, list[float | None]] = {}
        self._ranked: dict[str | None, list[Observation]] = {}  # until an observation changes
        self._watchers: list[Callable[[int | None], None]] = []
        self.known: dict[int, TrialState] = {}
        for trial in state.trials.values():
            self.update(trial)

    def watch(self, watcher: Callable[[int | None], None]) -> None:
        """Have ``watcher`` called with the number of each trial whose observation changed, or None for all."""
        self._watchers.append(watcher)

    def learn(self, trials: Sequence[TrialState]) -> None:
        """Take in trials of an earlier search whose scores are as good as this one's; their numbers are below 0."""
        for trial in trials:
            self.known[trial.trial] = trial
            self.update(trial)

    def trial(self, number: int) -> TrialState:
        """A trial of this search, or of an earlier one."""
        return self.known[number] if number < 0 else self.state.trials[number]

    def update(self, trial: TrialState) -> None:
        """A trial was asked for, scored, or ended."""
        if trial.of is not None:
            return
        known = self._scored.setdefault(trial.trial, [None] * len(self.rungs))
        for index, rung in enumerate(self.rungs):
            report = trial.at(rung)
            if known[index] is None and report is not None:
                known[index] = report.top1
                self._counts[index] += 1
        target = max((i for i, count in enumerate(self._counts) if count >= self.enough), default=0)
        risen = target > self.target
        self.target = max(target, self.target)
        if risen:
            for number in self.observations:
                self.observations[number] = self._observe(self.trial(number))
        before, now = self.observations.get(trial.trial), self._observe(trial)
        self.observations[trial.trial] = now
        if risen or before != now:
            self._ranked.clear()
        for watcher in self._watchers:
            watcher(None if risen else trial.trial)

    def _observe(self, trial: TrialState) -> Observation:
        scores = self._scored[trial.trial] if trial.ended != CANCELLED else [None] * len(self.rungs)
        for index in range(self.target, -1, -1):
            value = scores[index]
            if value is not None:
                return self._observed(trial.trial, index, value)
        return Observation(trial.trial, -2 if trial.ended in FAULTY else -1)

    def _observed(self, number: int, index: int, value: float) -> Observation:
        cost = self.cost(self.trial(number), self.rungs[index]) if self.cost is not None else None
        return Observation(number, index, value, cost)

    def ranked(self, method: str | None = None) -> list[Observation]:
        """Scored trials, the best first: higher rungs (up to the target) before lower ones, then by score.

        With two objectives those of a rung by their fronts (:func:`tuning.engine.pareto.order`), then those of unknown
        cost.
        """
        if method not in self._ranked:
            found = [o for o in self.observations.values() if o.rung >= 0 and (method is None or self.of(o) == method)]
            self._ranked[method] = self._in_order(found)
        return self._ranked[method]

    def _in_order(self, found: list[Observation]) -> list[Observation]:
        found = sorted(found, key=lambda o: (-o.rung, -o.value, o.trial))
        if self.cost is None:
            return found
        merit: dict[int, int] = {}
        for _, group in itertools.groupby(found, key=lambda o: o.rung):
            points = [Point(o.trial, o.value, o.cost) for o in group if o.cost is not None]
            merit |= {trial: place for place, trial in enumerate(order(points))}
        return sorted(found, key=lambda o: (-o.rung, merit.get(o.trial, len(found))))

    def ranked_after(self, count: int) -> list[Observation]:
        """:meth:`ranked` as it was when the first ``count`` scores were in, whoever was cancelled since."""
        place = {rung: index for index, rung in enumerate(self.rungs)}
        scores: dict[int, dict[int, float]] = {}
        counts = [0] * len(self.rungs)
        earlier = [(number, epoch) for number, trial in self.known.items() for epoch in trial.reports]
        for number, epoch in [*earlier, *self.state.order[:count]]:
            trial = self.trial(number)
            top1 = trial.reports[epoch].top1
            if epoch in place and top1 is not None and trial.of is None:
                scores.setdefault(number, {})[place[epoch]] = top1
                counts[place[epoch]] += 1
        target = max((i for i, n in enumerate(counts) if n >= self.enough), default=0)
        found = []
        for number, known in scores.items():
            index = max((i for i in known if i <= target), default=None)
            if index is not None:
                found.append(self._observed(number, index, known[index]))
        return self._in_order(found)

    def of(self, observation: Observation) -> str:
        """The method of an observed trial."""
        return str(self.trial(observation.trial).draws[METHOD])

    def draws(self, observation: Observation) -> dict[str, Any]:
        """The draws of an observed trial."""
        return self.trial(observation.trial).draws

    def all(self) -> Iterator[Observation]:
        """Every observation, in the order of trials."""
        for number in sorted(self.observations):
            yield self.observations[number]
