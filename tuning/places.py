"""Which waiting trial gets a worker that has become free.

A worker on a new node takes ten seconds and more to start. Tune gives a freed worker to the first trial that waits,
also when that trial's own worker is just starting, and ends the latter: where segments are shorter than a start, or
there are many workers, new nodes would never come to work. Here a freed worker goes to a trial that has no place yet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray.tune.schedulers import FIFOScheduler

from tuning.unsaved import Unsaved

PENDING, RUNNING = "PENDING", "RUNNING"


class PlacedScheduler(Unsaved, FIFOScheduler):  # type: ignore[misc]  # ray is not typed
    """``places``: how many trials fit on the cluster as it is now, whatever it may grow to."""

    def __init__(self, places: Callable[[], int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._places = places
        self._live: list[Any] = []

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        self._live.append(trial)

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """The first of those that wait beyond the places; the newest where all of them are starting already."""
        self._live = [trial for trial in self._live if trial.status in (PENDING, RUNNING)]
        waiting = [trial for trial in self._live if trial.status == PENDING]
        return (
            waiting[first_without_place(self._places(), len(self._live) - len(waiting), len(waiting))]
            if waiting
            else None
        )


def first_without_place(places: int, running: int, waiting: int) -> int:
    """Which of ``waiting`` trials, the oldest first, gets a worker that has become free.

    Ray places them in order, so as many of the oldest are starting as there are places that neither a running trial nor
    the freed worker has.
    """
    starting = max(0, places - running - 1)
    return min(starting, waiting - 1)
