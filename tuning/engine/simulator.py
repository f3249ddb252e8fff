"""A search without training: engines against recorded or surrogate learning curves, thousands of trials in seconds.

Time is simulated: a heap of workers, each busy with one epoch of one trial. What an engine sees is what it would see in
a real search: one report an epoch, with a score where it is probed.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tuning.engine.segment import Segment


@dataclass(frozen=True)
class Point:
    """What one epoch gives: its cost, and the probe's accuracy and loss (None where it diverged)."""

    seconds: float
    value: float | None
    loss: float | None = None


class Contender(Protocol):
    """A search engine, as the simulator drives it."""

    def ask(self) -> Segment | None:
        """The next piece of work; None while there is none (asked again after the next report)."""

    def report(self, trial: int, epoch: int, point: Point) -> bool:
        """Take in the score at ``epoch`` (one of ``probe_at``); whether the trial goes on at once."""


class Curves(Protocol):
    """Learning curves: what a configuration would give after each epoch."""

    def point(self, trial: int, draws: Mapping[str, Any], epoch: int) -> Point:
        """The epoch-th epoch (from 1) of these draws."""


@dataclass(frozen=True)
class Seen:
    """One probed score: ``epochs`` spent by all workers and ``clock`` (simulated seconds) when it came."""

    epochs: int
    clock: float
    trial: int
    epoch: int
    value: float | None


def simulate(
    engine: Contender,
    curves: Curves,
    probe_at: Sequence[int],
    workers: int,
    *,
    epochs: int | None = None,
    seconds: float | None = None,
    watch: Callable[[Seen], None] | None = None,
) -> list[Seen]:
    """Run ``engine`` on ``workers`` workers until it has no more work, or ``epochs`` or ``seconds`` are spent.

    Every probed score in the order in which it came. A worker without work waits for the next report of another.
    """
    top = max(probe_at)
    probes = frozenset(probe_at)
    busy: list[tuple[float, int, Segment, int, Point]] = []  # (when, order, segment, epoch done then, its result)
    idle, clock, spent, order = workers, 0.0, 0, 0
    seen: list[Seen] = []

    def start(segment: Segment, epoch: int) -> None:
        nonlocal order
        point = curves.point(segment.trial, segment.draws, epoch)
        order += 1
        heapq.heappush(busy, (clock + point.seconds, order, segment, epoch, point))

    while True:
        while idle and (segment := engine.ask()) is not None:
            idle -= 1
            start(segment, segment.after + 1)
        if not busy:
            return seen
        clock, _, segment, epoch, point = heapq.heappop(busy)
        spent += 1
        if seconds is not None and clock > seconds:
            return seen
        go = True
        if epoch in probes:
            found = Seen(spent, clock, segment.trial, epoch, point.value)
            seen.append(found)
            if watch is not None:
                watch(found)
            go = engine.report(segment.trial, epoch, point)
        if epochs is not None and spent >= epochs:
            return seen
        if go and epoch < top:
            start(segment, epoch + 1)
        else:
            idle += 1
