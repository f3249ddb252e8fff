"""Learning curves out of journals: recorded trials replayed, or a surrogate of them for whatever a sampler proposes.

A replay can only propose what was tried. What a recorded trial would have scored beyond the rung at which it was culled
is estimated, and every such score can be counted. Between two rungs a curve is straight in the logarithm of the epoch.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from methods.errors import InputError
from tuning.engine.choices import METHOD, Choices
from tuning.engine.simulator import Point
from tuning.engine.state import FAULTY, JournalState, TrialState
from tuning.engine.surrogate import Observed, Surrogate

LEAST_SECONDS = 1e-3  # of an epoch: time must go on


@dataclass(frozen=True)
class Tried:
    """A recorded trial. ``scores``: epochs -> (top-1, the probe's loss). ``faulty``: it then could not be trained."""

    source: str
    trial: int
    draws: Mapping[str, Any]
    scores: Mapping[int, tuple[float, float | None]]
    faulty: bool
    seconds: float
    epochs: int

    @property
    def last(self) -> int:
        """The last epoch with a score; 0 where there is none."""
        return max(self.scores, default=0)

    def first_scores(self, rungs: Sequence[int]) -> tuple[float, ...]:
        """Its scores at the first of ``rungs``, as far as they were recorded or lie between two that were."""
        if not self.scores or min(self.scores) > rungs[0]:
            return ()
        knots = {epoch: score for epoch, (score, _) in self.scores.items()}
        return tuple(between(knots, rung) for rung in rungs if rung <= self.last)


@dataclass(frozen=True)
class Record:
    """Trials that fit a space. ``rungs``: epochs at which a curve has its knots.

    ``left``: (why, how many) trials were left out; ``skipped``: recorded rungs that lie below another journal's first.
    """

    trials: tuple[Tried, ...]
    rungs: tuple[int, ...]
    left: tuple[tuple[str, int], ...] = ()
    skipped: tuple[int, ...] = ()

    def count(self, method: str) -> int:
        """Recorded trials of a method."""
        return sum(1 for t in self.trials if t.draws[METHOD] == method)

    def seconds(self) -> dict[str, float]:
        """Method -> mean seconds of an epoch, probes included."""
        found = {}
        for method in dict.fromkeys(str(t.draws[METHOD]) for t in self.trials):
            own = [t for t in self.trials if t.draws[METHOD] == method]
            found[method] = sum(t.seconds for t in own) / max(1, sum(t.epochs for t in own))
        return found

    def observed(self) -> list[Observed]:
        """The trials as a surrogate takes them."""
        found = [Observed(t.draws, t.first_scores(self.rungs), t.faulty) for t in self.trials]
        return [one for one in found if one.scores or one.faulty]


def record(choices: Choices, journals: Mapping[str, JournalState]) -> Record:
    """The trials of ``journals`` (by name) that are points of the space. Raises ``InputError`` where there is none."""
    left: Counter[str] = Counter()
    found: dict[str, list[Tried]] = {}
    for name, state in journals.items():
        for trial in state.trials.values():
            tried = _tried(choices, name, trial)
            if isinstance(tried, str):
                left[tried] += 1
            else:
                found.setdefault(name, []).append(tried)
    scored = {name: sorted({e for t in trials for e in t.scores}) for name, trials in found.items()}
    firsts = [epochs[0] for epochs in scored.values() if epochs]
    if not firsts:
        why = ", ".join(f"{count} {reason}" for reason, count in left.items())
        raise InputError(f"no recorded trial has a score and fits the space{'; left out: ' if why else ''}{why}")
    union = sorted({epoch for epochs in scored.values() for epoch in epochs})
    rungs = tuple(epoch for epoch in union if epoch >= max(firsts))
    skipped = tuple(epoch for epoch in union if epoch < max(firsts))
    trials = tuple(t for trials in found.values() for t in trials)
    return Record(trials, rungs, tuple(left.items()), skipped)


def _tried(choices: Choices, source: str, trial: TrialState) -> Tried | str:
    """A trial of a journal, or why it is none for this space."""
    if trial.of is not None:
        return "that repeat another one"
    unfit = _unfit(choices, trial.draws)
    if unfit:
        return unfit
    scores = {r.epoch: (r.top1, r.loss) for r in trial.reports.values() if r.rung and r.top1 is not None}
    faulty = trial.ended in FAULTY
    if not scores and not faulty:
        return "without a score"
    return Tried(source, trial.trial, trial.draws, scores, faulty, trial.seconds, len(trial.reports))


def _unfit(choices: Choices, draws: Mapping[str, Any]) -> str:
    method = draws.get(METHOD)
    if method not in choices.methods:
        return f"of method '{method}', which is not in the space"
    needed = {draw.name: draw for draw in choices.draws(str(method))}
    missing = [name for name in needed if name not in draws]
    unknown = [name for name in draws if name != METHOD and name not in needed]
    if missing or unknown:
        return f"without draw '{missing[0]}'" if missing else f"with draw '{unknown[0]}', which is not in the space"
    for name, draw in needed.items():
        try:
            draw.check(draws[name])
        except InputError:
            return f"with '{name}' out of the space's bounds"
    return ""


def between(knots: Mapping[int, float], epoch: int) -> float:
    """The value at ``epoch``, straight between the nearest knots in log epochs; outside them the nearest one's."""
    if epoch in knots:
        return knots[epoch]
    order = sorted(knots)
    place = bisect_right(order, epoch)
    if place in (0, len(order)):
        return knots[order[0 if place == 0 else -1]]
    low, high = order[place - 1], order[place]
    share = math.log(epoch / low) / math.log(high / low)
    return knots[low] + share * (knots[high] - knots[low])


class SurrogateCurves:
    """Curves of any draws, by a surrogate. ``seconds``: of an epoch, by method. One object for one search."""

    def __init__(self, surrogate: Surrogate, seconds: Mapping[str, float]) -> None:
        self.surrogate, self.seconds = surrogate, seconds
        self._knots: dict[int, dict[int, float]] = {}

    def point(self, trial: int, draws: Mapping[str, Any], epoch: int) -> Point:
        """The epoch-th epoch (from 1) of these draws."""
        knots = self._knots.get(trial)
        if knots is None:
            path = zip(self.surrogate.rungs, self.surrogate.path(draws), strict=True)
            knots = self._knots[trial] = {rung: value for rung, value in path if value is not None}
        return Point(_seconds(self.seconds, draws), _value(knots, self.surrogate.rungs[-1], epoch))


class ReplayedCurves:
    """Curves of recorded trials, exact where they were scored and estimated elsewhere. One object for one search.

    A trial of the search must be told apart from others with the same draws: :meth:`assign` says which one it is.
    """

    def __init__(self, recorded: Record, surrogate: Surrogate, seconds: Mapping[str, float]) -> None:
        self.record, self.surrogate, self.seconds = recorded, surrogate, seconds
        self._which: dict[int, int] = {}
        self._knots: dict[int, dict[int, float]] = {}

    def assign(self, trial: int, place: int) -> None:
        """``trial`` is the recorded one at ``place`` in the record."""
        self._which[trial] = place

    def which(self, trial: int) -> int:
        """The place in the record of a trial of the search."""
        return self._which[trial]

    def recorded(self, trial: int, epoch: int) -> bool:
        """Whether what happens at ``epoch`` was recorded; otherwise it is estimated."""
        tried = self.record.trials[self._which[trial]]
        return epoch in tried.scores or (tried.faulty and epoch > tried.last)

    def point(self, trial: int, draws: Mapping[str, Any], epoch: int) -> Point:
        """The epoch-th epoch (from 1) of the recorded trial."""
        place = self._which[trial]
        tried = self.record.trials[place]
        seconds = _seconds(self.seconds, tried.draws)
        if epoch in tried.scores:
            return Point(seconds, *tried.scores[epoch])
        if place not in self._knots:
            self._knots[place] = self._estimate(tried)
        return Point(seconds, _value(self._knots[place], self.surrogate.rungs[-1], epoch))

    def _estimate(self, tried: Tried) -> dict[int, float]:
        """All knots: what was recorded, and around it what the surrogate adds."""
        own = {epoch: score for epoch, (score, _) in tried.scores.items()}
        known = tried.first_scores(self.surrogate.rungs)
        path = known if tried.faulty else self.surrogate.path(tried.draws, known)
        rungs = zip(self.surrogate.rungs, path, strict=False)
        outside = {
            rung: value for rung, value in rungs if value is not None and (not own or not min(own) <= rung <= max(own))
        }
        return {**outside, **own}


def _seconds(seconds: Mapping[str, float], draws: Mapping[str, Any]) -> float:
    return max(seconds[str(draws[METHOD])], LEAST_SECONDS)


def _value(knots: Mapping[int, float], top: int, epoch: int) -> float | None:
    """On the curve; None beyond its last knot where it does not reach the top."""
    last = max(knots, default=0)
    return None if epoch > last and last < top else between(knots, epoch)
