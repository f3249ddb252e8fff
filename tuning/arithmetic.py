"""What a search will cost, counted before it starts: epochs by its ladder, then time, GPU-hours and money.

Counts are whole numbers: of m trials at a rung, m // eta go on. `rule: promote` keeps to that but for trials that fail;
`rule: stop` comes near it on average. Seconds an epoch are measured, or given; nobody guesses them.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from tuning.config.schema import SearchSpec
from tuning.engine.ladder import Ladder, make_ladder
from tuning.engine.state import JournalState
from tuning.slots import Slots
from tuning.space import Space
from tuning.space.cautions import plural
from tuning.words import duration

MOST_TRIALS = 10_000  # that a budget is asked to pay; nobody reads on


@dataclass(frozen=True)
class Step:
    """``trials`` that train ``epochs`` more, to the next rung at which they are decided on."""

    trials: int
    epochs: int

    @property
    def cost(self) -> int:
        """Epochs of all of them."""
        return self.trials * self.epochs


Climb = tuple[tuple[Step, ...], ...]  # one row a bracket


@dataclass(frozen=True)
class Pace:
    """How fast a search goes: seconds an epoch of each method (probes included), and who says so.

    ``slots``: trials side by side; ``gpus``: that one trial holds, 0 on a machine without.
    """

    seconds: Mapping[str, float] = field(default_factory=dict)
    source: str = ""
    slots: int = 1
    gpus: float = 0.0

    def mean(self, methods: Sequence[str]) -> float | None:
        """Of all methods alike; one that nobody measured counts as the others' mean. None where none was."""
        known = [self.seconds[name] for name in methods if name in self.seconds]
        return fmean(known) if known else None


def pace_of(
    space: Space, state: JournalState | None = None, slots: Slots | None = None, given: float | None = None
) -> Pace:
    """The pace that a journal tells, or ``given`` seconds an epoch for every method; without either, no seconds."""
    count, gpus = (slots.count, slots.gpu) if slots is not None else (1, 0.0)
    if given is not None:
        return Pace(dict.fromkeys(space.methods, given), "as given", count, gpus)
    found = {name: s for name, s in seconds_by_method(state).items() if name in space.methods} if state else {}
    return Pace(found, "measured in its journal", count, gpus)


def seconds_by_method(state: JournalState) -> dict[str, float]:
    """Mean seconds an epoch, probes included, of every method that a search has trained."""
    spent: dict[str, list[float]] = {}
    for trial in state.trials.values():
        spent.setdefault(str(trial.draws.get("method", "")), []).extend(r.seconds for r in trial.reports.values())
    return {name: fmean(seconds) for name, seconds in spent.items() if seconds}


# --- counts -----------------------------------------------------------------------------------------------------------


def climb(ladder: Ladder, trials: int, methods: int = 1) -> Climb:
    """How many of ``trials`` train to each rung, bracket by bracket; methods are taken to share them evenly.

    One at least gets to the top: a search that has no full run when its trials are out lets its best go on.
    """
    groups = methods if ladder.per_method else 1
    counts = [_counts(ladder, bracket, dealt, groups) for bracket, dealt in enumerate(_dealt(ladder, trials))]
    if trials and not any(row[-1] for row in counts):
        highest = max(b + k for b, row in enumerate(counts) for k, count in enumerate(row) if count)
        bracket = next(b for b, row in enumerate(counts) if b <= highest and row[highest - b])
        row = counts[bracket]
        row[highest - bracket + 1 :] = [1] * (len(row) - (highest - bracket) - 1)
    return tuple(tuple(map(Step, row, _lengths(ladder, bracket))) for bracket, row in enumerate(counts))


def _dealt(ladder: Ladder, trials: int) -> list[int]:
    """Trials of each bracket; of more than anybody waits for, as the first ones are."""
    if ladder.bracket_count == 1:
        return [trials]
    times = max(1, trials // MOST_TRIALS)
    order = _brackets(ladder, 1 << (trials // times).bit_length())
    counts = np.bincount(order[: trials // times], minlength=ladder.bracket_count)
    return [int(count) * times for count in counts]


@functools.lru_cache(maxsize=16)
def _brackets(ladder: Ladder, trials: int) -> NDArray[np.int64]:
    """The bracket of each of the first trials, as the ladder deals them."""
    dealt, order = [0] * ladder.bracket_count, []
    for _ in range(trials):
        order.append(ladder.next_bracket(dealt))
        dealt[order[-1]] += 1
    return np.array(order, dtype=np.int64)


def _counts(ladder: Ladder, bracket: int, trials: int, groups: int) -> list[int]:
    """How many trials of a bracket reach each of its rungs, ``groups`` of them compared among themselves."""
    size, larger = divmod(trials, groups)
    counts = []
    least = 1 if ladder.rule == "stop" else 0  # there the best of fewer than eta goes on when no other will come
    sizes = [(size + 1, larger), (size, groups - larger)]
    for _ in _lengths(ladder, bracket):
        counts.append(sum(one * many for one, many in sizes))
        sizes = [(max(least, one // ladder.eta) if one else 0, many) for one, many in sizes]
    return counts


def _lengths(ladder: Ladder, bracket: int) -> list[int]:
    rungs = ladder.rungs[bracket:]
    return [rungs[0], *(b - a for a, b in itertools.pairwise(rungs))]


def repeats_due(ladder: Ladder, trials: int) -> int:
    """Trials that will be run again to the first rung: one for each eta trials, after the first twice eta."""
    return min(ladder.repeats, max(0, trials // ladder.eta - 1))


def epochs_of(ladder: Ladder, trials: int, methods: int = 1) -> int:
    """All epochs of a search over ``trials``, repeats too."""
    climbing = sum(step.cost for row in climb(ladder, trials, methods) for step in row)
    return climbing + repeats_due(ladder, trials) * ladder.rungs[0]


def trials_paid(ladder: Ladder, epochs: float, methods: int = 1) -> int:
    """How many trials ``epochs`` pay, from 1 to ``MOST_TRIALS``."""
    low, high = 1, MOST_TRIALS + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if epochs_of(ladder, middle, methods) <= epochs else (low, middle)
    return low


# --- lines ------------------------------------------------------------------------------------------------------------

_UNKNOWN_PACE = (
    "time: seconds an epoch are known after the first trial (or give --seconds-per-epoch), and then hours too"
)


def budget_lines(spec: SearchSpec, space: Space, pace: Pace | None = None, ladder: Ladder | None = None) -> list[str]:
    """The arithmetic of a search's budget, for people. ``ladder``: another than the space's (a baseline engine's)."""
    pace = pace or Pace()
    count = _Count(spec, ladder or make_ladder(spec.schedule), len(space.branches), pace, pace.mean(space.methods))
    limits = count.limits()
    known = [limit for limit in limits if limit.trials is not None]
    if not known:
        lines = [f"budget: {' and '.join(limit.what for limit in limits)}; {count.average()}", *count.finish()]
        return [*lines, _UNKNOWN_PACE]
    first = min(known, key=lambda limit: limit.trials or 0)
    lines = [*count.search(first), *count.finish()]
    if len(limits) > 1:
        lines.append(_first_to_come(limits))
    return [*lines, count.time(first.trials or 0) if count.seconds else _UNKNOWN_PACE]


def expected_epochs(
    spec: SearchSpec, space: Space, pace: Pace | None = None, ladder: Ladder | None = None
) -> int | None:
    """Epochs of the whole search up to the first of its limits that is known, repeats too; None where none is."""
    pace, ladder = pace or Pace(), ladder or make_ladder(spec.schedule)
    count = _Count(spec, ladder, len(space.branches), pace, pace.mean(space.methods))
    paid = [limit.trials for limit in count.limits() if limit.trials is not None]
    return epochs_of(ladder, min(paid), count.methods) if paid else None


@dataclass(frozen=True)
class _Limit:
    """One limit of a budget, as people call it, and the trials that it pays (None: seconds are not known)."""

    what: str
    trials: int | None
    in_trials: bool = False

    @property
    def told(self) -> str:
        return self.what if self.in_trials or self.trials is None else f"{self.what} ({_trials(self.trials)})"


def _first_to_come(limits: Sequence[_Limit]) -> str:
    """`first to come: 500 epochs (71 trials), then 100 trials; whether ...`."""
    told = [limit.told for limit in sorted(limits, key=lambda limit: limit.trials or 0) if limit.trials is not None]
    unknown = [limit.what for limit in limits if limit.trials is None]
    line = f"first to come: {told[0]}" + (f", then {', '.join(told[1:])}" if told[1:] else "")
    return line + (f"; whether {' or '.join(unknown)} come before is known with the seconds" if unknown else "")


def _trials(count: int) -> str:
    more = "at least " if count >= MOST_TRIALS else ""
    return f"{more}{count:,} {plural('trial', count)}"


@dataclass(frozen=True)
class _Count:
    """The arithmetic of one search. ``seconds``: an epoch's mean over the methods, None where nobody knows."""

    spec: SearchSpec
    ladder: Ladder
    methods: int
    pace: Pace
    seconds: float | None

    def limits(self) -> list[_Limit]:
        """Every limit of the budget."""
        b, hour = self.spec.budget, 3600 / (self.pace.gpus or 1.0)
        found = []
        if b.trials is not None:
            found.append(_Limit(f"{b.trials:,} {plural('trial', b.trials)}", b.trials, in_trials=True))
        if b.epochs is not None:
            found.append(_Limit(f"{b.epochs:,} epochs", self._paid(b.epochs)))
        for what, limit, seconds in (
            ("GPU-hours", b.gpu_hours, hour),
            ("minutes", b.minutes, 60 * self.pace.slots),
            (f"to spend at {b.price or 0:g} a GPU-hour", b.money, hour / (b.price or 1.0)),
        ):
            if limit is not None:
                paid = self._paid(limit * seconds / self.seconds) if self.seconds else None
                found.append(_Limit(f"{limit:g} {what}", paid))
        return found

    def _paid(self, epochs: float) -> int:
        return trials_paid(self.ladder, epochs, self.methods)

    def search(self, limit: _Limit) -> list[str]:
        """The search's epochs as a sum, a row for each bracket where there are several."""
        trials, first = limit.trials or 0, self.ladder.rungs[0]
        rows = climb(self.ladder, trials, self.methods)
        total = sum(step.cost for row in rows for step in row)
        summed = f"{_sum(rows[0])} = " if len(rows) == 1 else ""
        share = 100 * total / (trials * self.ladder.top)
        line = f"budget: {limit.what if limit.in_trials else f'{limit.what} pay {_trials(trials)}'} ~ {summed}"
        line += f"{total:,} epochs ({share:.0f} % of {trials:,} full {plural('run', trials)})"
        again = repeats_due(self.ladder, trials)
        if again:
            line += f", + {again} {plural('repeat', again)} x {first} = {again * first:,}"
        full = sum(row[-1].trials for row in rows)
        most = "at most " if self.ladder.grow else ""
        lines = [f"{line}; {most}{full:,} of {trials:,} {'runs' if full == 1 else 'run'} in full"]
        if len(rows) > 1:
            lines += [
                f"  first judged at {self.ladder.rungs[bracket]}: {_sum(row)} = {sum(step.cost for step in row):,}"
                for bracket, row in enumerate(rows)
            ]
        if self.ladder.grow:
            lines.append(f"  {self._least(rows):,} of these if the ladder never grows above {self._lowest_cap}")
        return lines

    @property
    def _lowest_cap(self) -> int:
        return self.ladder.rungs[min(1, len(self.ladder.rungs) - 1)]

    def _least(self, rows: Climb) -> int:
        """Epochs of a growing ladder that stays as it begins: two rungs, and whatever it takes to be judged at all."""
        return sum(
            step.cost
            for bracket, row in enumerate(rows)
            for k, step in enumerate(row)
            if k == 0 or self.ladder.rungs[bracket + k] <= self._lowest_cap
        )

    def average(self) -> str:
        """What one trial takes of a ladder with many."""
        many = 1000
        each = epochs_of(self.ladder, many, self.methods) / many
        return f"a trial takes about {each:.3g} epochs, a full run {self.ladder.top}"

    @property
    def _finish(self) -> tuple[int, str]:
        """Runs of the finish at most, and what they are; successive elimination takes fewer where a lead is clear."""
        finish, parts, runs = self.spec.finish, [], 0
        if self.spec.budget.on_end == "finish" and finish.rerun is not None:
            runs += finish.rerun.top * finish.rerun.seeds
            parts.append(f"{finish.rerun.top} x {finish.rerun.seeds} re-runs")
        if self.spec.budget.on_end == "finish" and finish.retrain is not None:
            runs += finish.retrain.seeds
            parts.append(f"{finish.retrain.seeds} {plural('retraining', finish.retrain.seeds)}")
        return runs, " + ".join(parts)

    def finish(self) -> list[str]:
        """What comes after the budget."""
        (runs, what), top = self._finish, self.ladder.top
        told = f"finish, on top of the budget: at most {what} = {runs} x {top} = {runs * top:,} epochs"
        return [told] if runs else []

    def time(self, trials: int) -> str:
        """Time, GPU-hours and money of the search and of its finish."""
        pace, price, each = self.pace, self.spec.budget.price, self.seconds or 0.0
        search = epochs_of(self.ladder, trials, self.methods) * each
        finish = self._finish[0] * self.ladder.top * each
        told = [
            f"time: at {each:.2g} s an epoch ({pace.source}), {pace.slots} side by side: the search about "
            f"{duration(search / pace.slots)}"
        ]
        if finish:
            told[0] += f", the finish up to {duration(finish / pace.slots)}"
        hours = [seconds * (pace.gpus or 1.0) / 3600 for seconds in (search, finish)]
        if pace.gpus or price or self.spec.budget.gpu_hours:
            told.append(f"GPU-hours {_two(hours)}" + ("" if pace.gpus else " (slot-hours, as there is no GPU here)"))
        if price:
            told.append(f"money {_two([hour * price for hour in hours])}")
        return "; ".join(told)


def _two(values: Sequence[float]) -> str:
    return " + ".join(f"{value:.3g}" for value in values if value)


def _sum(row: Sequence[Step]) -> str:
    """`40x3 + 13x6 + 4x18`."""
    return " + ".join(f"{step.trials:,}x{step.epochs:,}" for step in row if step.trials)
