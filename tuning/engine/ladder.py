"""Rungs by integer arithmetic: where trials are probed and decided upon, and who is compared with whom there.

``int(log(max / min) / log(eta) + 1)``, as Ray has it, gives 3 rungs for 1..1000 by 10; here they are multiplied out.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from tuning.config.schema import ScheduleSpec


@dataclass(frozen=True)
class Ladder:
    """``rungs``: epochs at which a trial is probed, ascending; the last is the full run, where values are final.

    ``rule``: ``stop`` or ``promote``. ``per_method``: below the top, trials are compared within their method only.
    ``brackets``: trials of bracket b are first decided on at the b-th rung. ``grow``: the highest rung that trials go
    to begins at the second one and rises only while the order of the best still changes. ``repeats``: trials that are
    run again to their first rung, to measure noise.
    """

    rungs: tuple[int, ...]
    eta: int
    rule: str = "stop"
    per_method: bool = False
    brackets: int = 1
    grow: bool = False
    repeats: int = 0

    @property
    def top(self) -> int:
        """Epochs of a full run."""
        return self.rungs[-1]

    def next_rung(self, epoch: int) -> int:
        """The first rung after ``epoch`` epochs are done (the top when there is none)."""
        return next((rung for rung in self.rungs if rung > epoch), self.top)

    def first(self, bracket: int) -> int:
        """The epoch at which a trial of ``bracket`` is first decided on."""
        return self.rungs[min(bracket, len(self.rungs) - 1)]

    def next_bracket(self, dealt: Sequence[int]) -> int:
        """The bracket of the next trial, after ``dealt`` trials in each: equal epochs for all, as Hyperband has it.

        Without chance, so that a search that goes on deals them as an undisturbed one would.
        """
        count = len(dealt)
        weights = [1 / self._cost(b) for b in range(count)]
        share = (sum(dealt) + 1) / sum(weights)
        return max(range(count), key=lambda b: (weights[b] * share - dealt[b], -b))

    @property
    def bracket_count(self) -> int:
        """Brackets that differ: the last one that can is the one that trains every trial to the top."""
        return min(self.brackets, len(self.rungs))

    def _cost(self, bracket: int) -> float:
        """Epochs that a trial of a bracket takes on average: 1/eta of those at a rung go on to the next."""
        rungs = self.rungs[bracket:]
        steps = [rungs[0], *(b - a for a, b in itertools.pairwise(rungs))]
        return float(sum(step / self.eta**k for k, step in enumerate(steps)))


def make_ladder(schedule: ScheduleSpec) -> Ladder:
    """The ladder that a search space describes."""
    asha = schedule.asha
    return Ladder(
        schedule.rungs(),
        asha.eta,
        rule=asha.rule,
        per_method=asha.ladder == "per_method",
        brackets=asha.brackets,
        grow=asha.grow,
        repeats=asha.repeats,
    )
