"""A fixed list of full runs as a Ray searcher and scheduler: no model, no early stop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from tuning.session import Task
from tuning.stock import last_line
from tuning.trial import task_config, unpack
from tuning.unsaved import Unsaved

Done = Callable[[Task, Mapping[str, Any]], None]


class JobSearcher(Unsaved, Searcher):  # type: ignore[misc]  # ray is not typed
    """Hands out the tasks in order."""

    def __init__(self, tasks: Sequence[Task], may_begin: Callable[[], bool], failed: Callable[[Task], None]) -> None:
        super().__init__(metric="top1", mode="max")
        self._left, self._may_begin, self._failed = list(tasks), may_begin, failed
        self._given: dict[str, Task] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str:  # type: ignore[override]  # FINISHED is a str
        if not self._left or not self._may_begin():
            return Searcher.FINISHED  # type: ignore[no-any-return]
        self._given[trial_id] = self._left.pop(0)
        return task_config(self._given[trial_id])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The scheduler writes results down; that a failure is final is told only here."""
        if error:
            self._failed(self._given[trial_id])

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the journal is the memory."""

    def restore(self, checkpoint_path: str) -> None:
        raise RuntimeError("jobs are resumed from the journal, never from Ray's snapshot")


class JobScheduler(Unsaved, FIFOScheduler):  # type: ignore[misc]  # ray is not typed
    """Gives each finished task's last result to ``done``; ``errors`` keeps the last error of each that faltered."""

    def __init__(self, tasks: Sequence[Task], done: Done, stopping: Callable[[], bool]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._tasks = {task.key: task for task in tasks}
        self._done, self._stopping = done, stopping
        self.errors: dict[str, str] = {}

    def _task(self, trial: Any) -> Task:
        return self._tasks[trial.config["task"]["key"]]

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        return str(TrialScheduler.STOP if self._stopping() else TrialScheduler.CONTINUE)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        payload = unpack(result)
        if payload is not None and ("ended" in payload or "top1" in payload):
            self._done(self._task(trial), payload)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        self.errors[self._task(trial).key] = last_line(trial)
