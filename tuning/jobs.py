"""A fixed list of full runs as a Ray searcher and scheduler: no model, no early stop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from tuning.engine.mishaps import counts, lacked_memory, speaks_against
from tuning.engine.state import Failure, TrialState
from tuning.places import PlacedScheduler
from tuning.session import Task
from tuning.stock import mishap_of
from tuning.trial import task_config, unpack
from tuning.unsaved import Unsaved
from tuning.watching.mishap import Mishap
from tuning.watching.view import ClusterView

Done = Callable[[Task, Mapping[str, Any]], None]


class JobSearcher(Unsaved, Searcher):  # type: ignore[misc]  # ray is not typed
    """Hands out the tasks in order; one whose worker failed comes again, until its failures are more than ``retries``.

    What counts as a failure is what counts in a search (:func:`tuning.engine.mishaps.counts`). ``failed`` is told of
    those given up.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        may_begin: Callable[[], bool],
        failed: Callable[[Task, str], None],
        retries: int,
        view: ClusterView,
    ) -> None:
        super().__init__(metric="top1", mode="max")
        self._left, self._may_begin, self._failed = list(tasks), may_begin, failed
        self._retries, self._view = retries, view
        self._given: dict[str, Task] = {}
        self._record = {task.key: TrialState(number, {}, "job") for number, task in enumerate(tasks)}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # FINISHED is a str
        """The next task; None while those at work may come again."""
        self._view.look()
        if not self._may_begin():
            return Searcher.FINISHED  # type: ignore[no-any-return]
        if not self._left:
            return None if self._given else Searcher.FINISHED
        task = self._given[trial_id] = self._left.pop(0)
        return task_config(task, self._view.avoid(), lacked_memory(self._record[task.key]))

    def faltered(self, task: Task, mishap: Mishap) -> None:
        """A task's worker failed."""
        record = self._record[task.key]
        counted = counts(record, mishap.kind)
        record.failures.append(Failure(mishap.line, mishap.kind, mishap.node, counted, record.epochs))
        self._view.failed(mishap.node, record.trial, mishap.kind)

    def worked(self, task: Task, epoch: int, node: str) -> None:
        """A task finished an epoch."""
        self._record[task.key].epochs = epoch
        self._view.bad.worked(node)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The scheduler writes results down; that a failure is final is told only here."""
        task = self._given.pop(trial_id, None)
        if task is None or not error:
            return
        record = self._record[task.key]
        if len(speaks_against(record)) > self._retries:
            self._failed(task, record.failures[-1].error if record.failures else "failed")
        else:
            self._left.append(task)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the journal is the memory."""

    def restore(self, checkpoint_path: str) -> None:
        raise RuntimeError("jobs are resumed from the journal, never from Ray's snapshot")


class JobScheduler(PlacedScheduler):
    """Gives each finished task's last result to ``done``, and the searcher what went well and what did not."""

    def __init__(
        self,
        searcher: JobSearcher,
        tasks: Sequence[Task],
        done: Done,
        stopping: Callable[[], bool],
        places: Callable[[], int],
    ) -> None:
        super().__init__(places)
        self._searcher = searcher
        self._tasks = {task.key: task for task in tasks}
        self._done, self._stopping = done, stopping

    def _task(self, trial: Any) -> Task:
        return self._tasks[trial.config["task"]["key"]]

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        payload = unpack(result)
        if payload is not None:
            self._searcher.worked(self._task(trial), int(payload["epoch"]), str(payload.get("node", "")))
        return str(TrialScheduler.STOP if self._stopping() else TrialScheduler.CONTINUE)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        payload = unpack(result)
        if payload is not None and ("ended" in payload or "top1" in payload):
            self._done(self._task(trial), payload)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Comes before the searcher hears that the Ray trial is over."""
        self._searcher.faltered(self._task(trial), mishap_of(trial))
