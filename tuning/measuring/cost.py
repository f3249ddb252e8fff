"""From the seconds of steps and rungs to what a whole search comes to, by its ladder and its budget."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from tuning.arithmetic import MOST_TRIALS, Pace, climb, expected_epochs, repeats_due, trials_paid
from tuning.config.schema import SearchSpec
from tuning.engine.ladder import Ladder, make_ladder
from tuning.slots import Slots
from tuning.space import Space

MANY = 1000  # trials that a mean is taken over where a budget names none


@dataclass(frozen=True)
class MethodTime:
    """Seconds of one configuration. ``stages``: (share of a run at which it begins, seconds of an epoch's steps).

    ``spread``: of an epoch's end; ``rung``: of probing at the top, ``below``: at every other rung.
    """

    stages: tuple[tuple[float, float], ...]
    spread: float
    rung: float
    below: float

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> MethodTime:
        """Of what :meth:`tuning.measuring.worker.Bench.profile` answers."""
        steps = row["steps_per_epoch"]
        stages = tuple((float(stage["start"]), stage["seconds"] * steps) for stage in row["stages"])
        rung, below = (row[name]["features"] + row[name]["probe"] for name in ("rung", "rung_below"))
        return cls(stages, row["spread_s"], rung, below)

    def train(self, begin: int, end: int, top: int) -> float:
        """Seconds of the epochs from ``begin`` to ``end`` of a run of ``top``, without probes."""
        starts = [start * top for start, _ in self.stages]
        total = (end - begin) * self.spread
        for start, until, (_, each) in zip(starts, [*starts[1:], float(top)], self.stages, strict=True):
            total += max(0.0, min(end, until) - max(begin, start)) * each
        return total

    def epoch(self) -> float:
        """Seconds of an epoch on the average of a full run, without probes."""
        return self.train(0, 1000, 1000) / 1000  # of a thousand, so that stages begin where they begin


def segments(ladder: Ladder, trials: int, methods: int) -> Iterator[tuple[int, int, int]]:
    """(trials, from epoch, to epoch) of all that a search trains; each ends at a probe. Repeats too."""
    for row in climb(ladder, trials, methods):
        done = 0
        for step in row:
            yield step.trials, done, done + step.epochs
            done += step.epochs
    again = repeats_due(ladder, trials)
    if again:
        yield again, 0, ladder.rungs[0]


def seconds_an_epoch(time: MethodTime, ladder: Ladder, trials: int, methods: int) -> float:
    """The mean over a search whose trials all are of such a configuration, probes included."""
    parts, top = list(segments(ladder, trials, methods)), ladder.top
    spent = sum(n * (time.train(a, b, top) + (time.rung if b == top else time.below)) for n, a, b in parts)
    return spent / sum(n * (end - begin) for n, begin, end in parts)


@dataclass(frozen=True)
class Estimate:
    """What a search comes to. ``pace``: seconds an epoch as :mod:`tuning.arithmetic` takes them.

    Seconds of all trials together: ``search``, were the methods to share the trials; ``least`` and ``most``, were all
    trials of the cheapest or the dearest configuration that was measured. None where the budget itself is in hours, or
    tells no trials.
    """

    pace: Pace
    trials: int | None
    epochs: int | None
    search: float | None
    least: float | None
    most: float | None


def estimate(
    spec: SearchSpec, space: Space, times: Mapping[str, Sequence[MethodTime]], slots: Slots, crowded: float = 1.0
) -> Estimate:
    """``times``: of each method that was measured, its configurations, the representative one first.

    ``crowded``: how much longer a step takes when as many trials as will share a GPU are at work on it.
    """
    ladder, methods = make_ladder(spec.schedule), len(space.branches)
    trials = spec.budget.trials or MANY
    paces = {
        name: [crowded * seconds_an_epoch(one, ladder, trials, methods) for one in found]
        for name, found in times.items()
    }
    pace = Pace({name: found[0] for name, found in paces.items()}, "measured just now", slots.count, slots.gpu)
    epochs = expected_epochs(spec, space, pace)
    if epochs is None or not paces:
        return Estimate(pace, None, epochs, None, None, None)
    every = [seconds for found in paces.values() for seconds in found]
    mean = fmean(found[0] for found in paces.values())
    paid = min(trials_paid(ladder, epochs, methods), spec.budget.trials or MOST_TRIALS)
    counted = expected_epochs(spec, space, Pace())  # by the limits that know nothing of time
    if counted is None or counted > epochs:
        return Estimate(pace, paid, epochs, epochs * mean, None, None)
    return Estimate(pace, paid, epochs, epochs * mean, epochs * min(every), epochs * max(every))
