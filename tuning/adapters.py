"""The engine as Ray Tune sees it: a searcher and a scheduler over one object, so that both know the same.

A segment from one rung to the next is one Ray trial that ends (Ray's PAUSED keeps its slot, and `fit` never returns); a
promotion is a new Ray trial of the same engine trial, which goes on from its checkpoint on whichever node is free. A
failure ends a Ray trial too, and the engine asks for the trial again: Ray retries nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from methods.errors import InputError
from tuning.engine.mishaps import lacked_memory
from tuning.floor import Floor
from tuning.places import PlacedScheduler
from tuning.stock import mishap_of, number_of
from tuning.trial import task_config, unpack
from tuning.unsaved import Unsaved
from tuning.watching.view import ClusterView


class EngineSearcher(Unsaved, Searcher):  # type: ignore[misc]  # ray is not typed
    """Hands out the engine's segments. ``slots``: how many may be at work now."""

    def __init__(self, floor: Floor, slots: Callable[[], int], view: ClusterView) -> None:
        super().__init__(metric="top1", mode="max")
        self.floor, self.slots, self.view = floor, slots, view
        self._given: dict[str, int] = {}
        self._holder: dict[int, str] = {}  # trial -> the Ray trial that has it now

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # FINISHED is a str
        """A task; None while there is none; FINISHED when there will be none."""
        if len(self.floor.engine.busy) >= self.slots():
            return None
        task = self.floor.ask()
        if task is not None:
            number = int(task.key[1:])
            self._given[trial_id], self._holder[number] = number, trial_id
            alone = lacked_memory(self.floor.engine.state.trials[number])
            return task_config(task, self.view.avoid(), alone)
        engine = self.floor.engine
        over = engine.finished or (engine.interrupted() and not engine.busy)
        return Searcher.FINISHED if over else None  # type: ignore[no-any-return]

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The worker is free, however its Ray trial ended: a segment that ended without a word is asked for again."""
        number = self._given.pop(trial_id, None)
        if number is not None and self._holder[number] == trial_id:
            self.floor.engine.dropped(number)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the journal is the memory, and Ray's snapshot is never read."""

    def restore(self, checkpoint_path: str) -> None:
        raise RuntimeError("a search is resumed from its journal, never from Ray's snapshot")


class EngineScheduler(PlacedScheduler):
    """Tells the engine what came, and Ray what the engine decided."""

    def __init__(self, floor: Floor, view: ClusterView, places: Callable[[], int]) -> None:
        super().__init__(places)
        self.floor, self.view = floor, view

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        payload = unpack(result)
        if payload is not None:
            self.view.bad.worked(str(payload.get("node", "")))
        if payload is None or self.floor.result(number_of(trial), payload):
            return str(TrialScheduler.CONTINUE)
        return str(TrialScheduler.STOP)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """The trial ended itself: at the top, or because it could not go on."""
        payload = unpack(result)
        if payload is not None:
            self.floor.result(number_of(trial), payload)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """The trial's process failed: Ray gives it up, the engine decides whether it is asked for again."""
        mishap, number = mishap_of(trial), number_of(trial)
        self.view.failed(mishap.node, number, mishap.kind)
        self.floor.failed(number, mishap.line, mishap.kind, mishap.node)


class GrowingSlots:
    """How many trials may be at work: what fits on the cluster as it is, or as it will be when it has grown.

    ``count`` turns the cluster's resources into slots and raises what :func:`tuning.slots.find_slots` raises.
    """

    def __init__(self, first: int, view: ClusterView, count: Callable[[Mapping[str, float]], int]) -> None:
        self._now, self._view, self._count = first, view, count
        self._seen: Mapping[str, float] = {}

    def __call__(self) -> int:
        self._view.look()
        if self._view.resources != self._seen:
            self._seen = self._view.resources
            with contextlib.suppress(InputError):  # none fits now: nodes come back
                self._now = self._count(self._seen)
        return self._now
