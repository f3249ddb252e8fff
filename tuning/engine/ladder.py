"""Rungs by integer arithmetic: where trials are probed and decided upon.

``int(log(max / min) / log(eta) + 1)``, as Ray has it, gives 3 rungs for 1..1000 by 10; here they are multiplied out.
"""

from __future__ import annotations

from dataclasses import dataclass

from tuning.config.schema import ScheduleSpec


@dataclass(frozen=True)
class Ladder:
    """``rungs``: epochs at which a trial is probed, ascending; the last is the full run, where values are final."""

    rungs: tuple[int, ...]
    eta: int

    @property
    def top(self) -> int:
        """Epochs of a full run."""
        return self.rungs[-1]

    def next_rung(self, epoch: int) -> int:
        """The first rung after ``epoch`` epochs are done (the top when there is none)."""
        return next((rung for rung in self.rungs if rung > epoch), self.top)


def make_ladder(schedule: ScheduleSpec) -> Ladder:
    """The ladder that a search space describes."""
    return Ladder(schedule.rungs(), schedule.asha.eta)
