"""Two objectives: who is dominated by whom, and how alone one stands among those that nobody dominates.

Fronts and crowding are those of NSGA-II (Deb et al. 2002, A Fast and Elitist Multiobjective Genetic Algorithm), for a
score to be high and a cost to be low. A cost counts by its factors: distances are taken of its logarithm.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tuning.engine.objectives import Objectives
from tuning.engine.state import TrialState


@dataclass(frozen=True)
class Point:
    """One trial: ``score`` to be high, ``cost`` to be low, both finite; ``loss`` (the probe's) settles ties."""

    trial: int
    score: float
    cost: float
    loss: float = math.inf


def dominates(a: Point, b: Point) -> bool:
    """Whether ``a`` is no worse than ``b`` in both, and better in one."""
    return a.score >= b.score and a.cost <= b.cost and (a.score > b.score or a.cost < b.cost)


def fronts(points: Iterable[Point]) -> list[list[Point]]:
    """Non-dominated fronts, the best first, each by falling score and cost. Equal points are in the same front."""
    found: list[list[Point]] = []
    for point in sorted(points, key=lambda p: (-p.score, p.cost, p.loss, p.trial)):
        # In the order of falling scores the last of a front is its cheapest: if it does not dominate, none of it does.
        low, high = 0, len(found)
        while low < high:
            middle = (low + high) // 2
            if dominates(found[middle][-1], point):
                low = middle + 1
            else:
                high = middle
        if low == len(found):
            found.append([])
        found[low].append(point)
    return found


def crowding(front: Sequence[Point]) -> dict[int, float]:
    """Trial -> its distance to the neighbours on its front, as a sum of shares of the front's extent.

    ``front`` is one of :func:`fronts`. Its two ends have infinity; of equal points only the first counts, the others
    have 0.
    """
    distance = {point.trial: 0.0 for point in front}
    alone = [p for i, p in enumerate(front) if i == 0 or (p.score, p.cost) != (front[i - 1].score, front[i - 1].cost)]
    costs = [_log(p.cost) for p in alone]
    high, wide = alone[0].score - alone[-1].score, costs[0] - costs[-1]
    for i, point in enumerate(alone):
        if i in (0, len(alone) - 1):
            distance[point.trial] = math.inf
        else:  # within a front of three both extents are above zero, up to rounding of the logarithm
            distance[point.trial] = (alone[i - 1].score - alone[i + 1].score) / high
            distance[point.trial] += (costs[i - 1] - costs[i + 1]) / wide if wide else 0.0
    return distance


def _log(cost: float) -> float:
    return math.log(max(cost, 1e-9))


def order(points: Iterable[Point]) -> list[int]:
    """Trials by merit: front by front, in each those that stand alone first; ties by the lower loss and number."""
    merit: list[int] = []
    for front in fronts(points):
        distance = crowding(front)
        merit += [p.trial for p in sorted(front, key=lambda p: (-distance[p.trial], p.loss, p.trial))]
    return merit


def points_at(trials: Iterable[TrialState], rung: int, objectives: Objectives) -> list[Point]:
    """Trials scored at ``rung`` epochs whose cost is known, as points; none that repeats another one."""
    found = []
    for trial in trials:
        report, cost = trial.at(rung), objectives.cost(trial, rung)
        if trial.of is None and report is not None and report.top1 is not None and cost is not None:
            loss = math.inf if report.loss is None else report.loss
            found.append(Point(trial.trial, report.top1, cost, loss))
    return found


def front(trials: Iterable[TrialState], rung: int, objectives: Objectives) -> list[Point]:
    """Those of the trials scored at ``rung`` epochs that no other dominates, the most accurate first."""
    found = fronts(points_at(trials, rung, objectives))
    return found[0] if found else []
