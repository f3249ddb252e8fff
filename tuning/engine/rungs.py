"""The tables of a ladder: who was scored at a rung, in what order, and who went on from there."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tuning.engine.pareto import Point, order

Width = Callable[[], float]


@dataclass(frozen=True, order=True)
class Entry:
    """One trial at a rung, in the order of merit: score, then the probe's lower loss, then the lower number."""

    minus: float  # minus the score; infinity for a trial that diverged, collapsed or failed on its way here
    loss: float
    trial: int


@dataclass
class Table:
    """Trials scored at one rung. ``went``: those that were let on from here."""

    entries: list[Entry] = field(default_factory=list)  # sorted, the best first
    known: dict[int, Entry] = field(default_factory=dict)
    went: set[int] = field(default_factory=set)

    def add(self, trial: int, value: float | None, loss: float | None, cost: float | None = None) -> None:
        """Take a trial's score in; None (it could not be scored) ranks last. A trial counts once, with its first.

        ``cost`` is for those who weigh it (:class:`ParetoTable`).
        """
        if trial in self.known:
            return
        minus = math.inf if value is None or math.isnan(value) else -value
        entry = Entry(minus, math.inf if loss is None or math.isnan(loss) else loss, trial)
        self.known[trial] = entry
        insort(self.entries, entry)

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def scored(self) -> int:
        """How many have a score; they stand before the others."""
        return bisect_left(self.entries, Entry(math.inf, -math.inf, -1))

    def place(self, trial: int) -> float | None:
        """The share of the table that is better than a trial, in [0, 1); None for one that is not here."""
        entry = self.known.get(trial)
        return None if entry is None else bisect_left(self.entries, entry) / len(self.entries)

    def quota(self, eta: int) -> int:
        """How many of those that are here may have gone on: the best 1/eta, none before eta are in."""
        return len(self.entries) // eta

    def cut(self, count: int) -> float | None:
        """The score of the last of the best ``count``; None where there is none, or where no score is the limit."""
        return -self.entries[count - 1].minus if 0 < count <= len(self.entries) else None

    def best(self, count: int, width: float = 0.0) -> Iterator[int]:
        """The best ``count`` trials, best first. Scores within ``width`` of the cut are ties, settled by the loss.

        A trial without a score is never among them.
        """
        count = min(count, self.scored)
        if count <= 0:
            return
        if width <= 0:
            for entry in self.entries[:count]:
                yield entry.trial
            return
        cut = self.entries[count - 1].minus
        low = bisect_left(self.entries, Entry(cut - width, -math.inf, -1))
        high = bisect_left(self.entries, Entry(math.nextafter(cut + width, math.inf), -math.inf, -1))
        high = min(high, self.scored)
        for entry in self.entries[:low]:
            yield entry.trial
        tied = sorted(self.entries[low:high], key=lambda e: (e.loss, e.minus, e.trial))
        for entry in tied[: count - low]:
            yield entry.trial


@dataclass
class ParetoTable(Table):
    """A table with two objectives: front by front of those that nobody dominates in (score, cost), and within a front
    those that stand alone first, its two ends before all (:func:`tuning.engine.pareto.order`).

    A trial of unknown cost ranks behind those whose cost is known, by its score. Noise is not used: a tie in accuracy
    is none in cost, so ``width`` is ignored and only equal merit is settled by the loss. ``entries`` stay in the order
    of scores.
    """

    costs: dict[int, float] = field(default_factory=dict)  # of those that have a score and a known cost
    _merit: list[int] | None = None

    def add(self, trial: int, value: float | None, loss: float | None, cost: float | None = None) -> None:
        if trial in self.known:
            return
        super().add(trial, value, loss)
        if cost is not None and math.isfinite(cost) and self.known[trial].minus < math.inf:
            self.costs[trial] = cost
        self._merit = None

    @property
    def merit(self) -> list[int]:
        """All trials, the best first."""
        if self._merit is None:
            known = self.known
            points = [Point(n, -known[n].minus, cost, known[n].loss) for n, cost in self.costs.items()]
            self._merit = order(points) + [e.trial for e in self.entries if e.trial not in self.costs]
        return self._merit

    def place(self, trial: int) -> float | None:
        return self.merit.index(trial) / len(self.entries) if trial in self.known else None

    def cut(self, count: int) -> float | None:
        return None

    def best(self, count: int, width: float = 0.0) -> Iterator[int]:
        yield from self.merit[: max(0, min(count, self.scored))]
