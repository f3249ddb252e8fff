"""The search as an Optuna study, in ``optuna.log`` of the run folder: `optuna-dashboard optuna.log` shows it live.

A copy and no memory: the journal is the truth, and the file may be deleted at any time. A thread does all writing, so
that nobody who decides on trials waits for it; what goes wrong there is said once and disturbs nothing.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from methods.errors import InputError
from tuning.engine.choices import METHOD, Choices
from tuning.engine.journal import finite
from tuning.engine.state import FAULTY, TOP, JournalState, Report, TrialState, scored
from tuning.recorder import Observer
from tuning.run_files import trial_key
from tuning.space.domains import Draw

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.storages import JournalStorage
    from optuna.trial import FrozenTrial

MIRROR_FILE = "optuna.log"
CLOSE_SECONDS = 10.0  # how long the end of a search waits for its mirror
RETRY_SECONDS = 60.0  # how long a file that could not be written is left alone
LOCK_SECONDS = 3  # after which a lock is one that a killed process left: its holders need a millisecond
KEY = "trial"  # the user attribute that tells which of our trials an Optuna trial is
METRIC_NAMES = "study:metric_names"  # what Study.set_metric_names sets, which would warn that it is experimental


def seconds_per_epoch(trial: TrialState) -> float:
    """What a trial costs, where a search has cost as its second objective."""
    return trial.seconds / max(1, len(trial.reports))


@dataclass
class _Row:
    """What the mirror shows of one trial; the writing thread's own, for a ``TrialState`` changes under its hands."""

    number: int
    draws: Mapping[str, Any]
    origin: str
    of: int | None
    seconds: float = 0.0
    cost: float = 0.0
    steps: dict[int, float] = field(default_factory=dict)
    ended: str | None = None
    detail: str = ""
    error: str = ""

    def state(self, top: int) -> str:
        """The name of its Optuna state; only a full run is COMPLETE, for values of unlike epochs are not compared."""
        if self.ended is None:
            return "RUNNING"
        if self.ended in FAULTY:
            return "FAIL"
        return "COMPLETE" if self.ended == TOP and max(self.steps, default=0) >= top else "PRUNED"

    def values(self, objectives: int, state: str) -> list[float] | None:
        """The last score, and the cost where there are two objectives; None for what is running or failed."""
        if state in ("RUNNING", "FAIL") or not self.steps:
            return None
        return [self.steps[max(self.steps)], self.cost][:objectives]

    def attributes(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            KEY: trial_key(self.number),
            "method": str(self.draws.get(METHOD, "")),
            "origin": self.origin,
        }
        if self.of is not None:
            found["repeats"] = trial_key(self.of)
        if self.error:
            found["faltered"] = self.error
        if self.ended is not None:
            found |= {"ended": self.ended, "detail": self.detail, "seconds": round(self.seconds, 3)}
        return found


def _score(report: Report) -> float | None:
    return finite(report.top1) if report.rung else None


@dataclass(frozen=True)
class _Study:
    """What does not change while a search runs."""

    name: str
    choices: Choices
    top: int
    directions: tuple[tuple[str, str], ...]

    def params(self, draws: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
        """Parameters and their distributions; a draw that the space cannot have made is left out."""
        from tuning.engine.sampler.study import distribution

        try:
            asked = self.choices.asked(draws)
        except KeyError:
            return {}, {}
        params = {draw.name: _clipped(draw, draws[draw.name]) for draw in asked if _drawn(draw, draws)}
        return params, {draw.name: distribution(draw) for draw in asked if draw.name in params}

    def frozen(self, row: _Row) -> FrozenTrial:
        """A trial as Optuna would have it. When it began is not known: its seconds before now."""
        import optuna

        state, now = row.state(self.top), datetime.now()
        params, distributions = self.params(row.draws)
        return optuna.trial.FrozenTrial(
            number=-1, trial_id=-1, state=optuna.trial.TrialState[state], value=None,
            values=row.values(len(self.directions), state),
            datetime_start=now - timedelta(seconds=row.seconds), datetime_complete=None if row.ended is None else now,
            params=params, distributions=distributions, user_attrs=row.attributes(), system_attrs={},
            intermediate_values=dict(row.steps),
        )  # fmt: skip


def _drawn(draw: Draw, draws: Mapping[str, Any]) -> bool:
    try:
        draw.check(draws[draw.name])
    except (InputError, KeyError):
        return False
    return True


def _clipped(draw: Draw, value: Any) -> Any:
    """Within the bounds, which a draw may pass by a rounding and Optuna's distributions may not."""
    if draw.kind == "categorical":
        return value
    within = min(max(value, draw.low), draw.high)
    return int(within) if draw.kind == "int" else float(within)


class _LogFile:
    """Optuna's journal file, without a flush to the disk a line, which a copy does not need.

    A torn last line is cut off on opening: Optuna would glue the next one to it and be unable to read either.
    Appending raises ``OSError`` where the file was deleted or cut since.
    """

    def __init__(self, path: Path) -> None:
        from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

        self._path = path
        self._lock = JournalFileSymlinkLock(str(path), grace_period=LOCK_SECONDS)
        for link in path.parent.glob(f"{path.name}.lock*"):
            with suppress(FileNotFoundError):
                if time.time() - link.lstat().st_mtime > LOCK_SECONDS:
                    link.unlink()
        self._reader = JournalFileBackend(str(path), self._lock)  # makes the file
        with self._locked():
            self._size = _cut(path)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._lock.acquire()
        try:
            yield
        finally:
            self._lock.release()

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """The operations from a number on."""
        return self._reader.read_logs(log_number_from)

    def append_logs(self, logs: Sequence[Mapping[str, Any]]) -> None:
        """Write operations, one a line."""
        text = b"".join(json.dumps(log, separators=(",", ":"), allow_nan=False).encode() + b"\n" for log in logs)
        with self._locked():
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            try:
                now = os.fstat(file)
                if now.st_size < self._size:
                    raise OSError(f"{self._path} was cut")
                self._size = now.st_size + len(text)
                while text:
                    text = text[os.write(file, text) :]
            finally:
                os.close(file)


def _cut(path: Path) -> int:
    """Cut off a last line that is not whole; the file's size after that."""
    text = path.read_bytes()
    whole = text.rfind(b"\n") + 1
    last = text.rfind(b"\n", 0, max(0, whole - 1)) + 1
    try:
        json.loads(text[last:whole] or b"{}")
    except ValueError:
        whole = last
    if whole < len(text):
        os.truncate(path, whole)
    return whole


class _Book:
    """An open file, and which Optuna trial in it is which of ours."""

    def __init__(self, path: Path, study: _Study) -> None:
        """Open or create. Raises whatever Optuna makes of a damaged file."""
        import optuna

        backend: Any = _LogFile(path)
        self._states = optuna.trial.TrialState
        self._plan = study
        self._storage: JournalStorage = optuna.storages.JournalStorage(backend)
        self._study = self._find(study)
        self._ids: dict[str, int] = {}
        self._twice = False
        for trial in self._storage.get_all_trials(self._study, deepcopy=False):
            key = trial.user_attrs.get(KEY)
            if key is not None:  # whatever has no such attribute was put there by somebody else
                self._twice |= key in self._ids
                self._ids[key] = self._storage.get_trial_id_from_study_id_trial_number(self._study, trial.number)

    def _find(self, study: _Study) -> int:
        from optuna.study import StudyDirection

        try:
            return self._storage.get_study_id_from_name(study.name)
        except KeyError:
            directions = [StudyDirection[direction.upper()] for _, direction in study.directions]
            number = self._storage.create_new_study(directions, study.name)
            self._storage.set_study_system_attr(number, METRIC_NAMES, [name for name, _ in study.directions])
            return number

    def agrees(self, rows: Mapping[int, _Row]) -> bool:
        """Whether what stands here can be completed to ``rows`` by adding alone."""
        directions = [d.name.lower() for d in self._storage.get_study_directions(self._study)]
        if self._twice or directions != [direction for _, direction in self._plan.directions]:
            return False
        known = {trial_key(row.number): row for row in rows.values()}
        return all(key in known and self._is(place, known[key]) for key, place in self._ids.items())

    def _is(self, place: int, row: _Row) -> bool:
        there, here = self._storage.get_trial(place), row.state(self._plan.top)
        return (
            there.params == self._plan.params(row.draws)[0]
            and there.state.name in ("RUNNING", here)
            and all(row.steps.get(step) == value for step, value in there.intermediate_values.items())
        )

    def show(self, row: _Row) -> None:
        """Add what is missing of a trial. One that is finished here is left as it is."""
        key = trial_key(row.number)
        if key not in self._ids:
            self._ids[key] = self._storage.create_new_trial(self._study, self._plan.frozen(row))
            return
        place = self._ids[key]
        there = self._storage.get_trial(place)
        if there.state.is_finished():
            return
        for step, value in row.steps.items():
            if step not in there.intermediate_values:
                self._storage.set_trial_intermediate_value(place, step, value)
        for name, word in row.attributes().items():
            if there.user_attrs.get(name) != word:
                self._storage.set_trial_user_attr(place, name, word)
        state = row.state(self._plan.top)
        if state != "RUNNING":  # last, for nothing can be added to a finished trial
            values = row.values(len(self._plan.directions), state)
            self._storage.set_trial_state_values(place, self._states[state], values)


class _Writer(threading.Thread):
    """The thread: takes changes of rows from a queue, and keeps the file in step with the rows."""

    def __init__(self, path: Path, study: _Study, rows: dict[int, _Row]) -> None:
        super().__init__(name="optuna-mirror", daemon=True)
        self.queue: SimpleQueue[tuple[int, Callable[[dict[int, _Row]], None]] | None] = SimpleQueue()
        # Optuna's lock is a link to the file; a relative one leads nowhere, and left behind is waited for without end.
        self._path, self._study, self._rows = path.absolute(), study, rows
        self._book: _Book | None = None
        self._due = 0.0
        self._said = False

    def run(self) -> None:
        self._sync(None)
        while (item := self.queue.get()) is not None:
            number, change = item
            change(self._rows)
            self._sync(self._rows.get(number))
        self._due = 0.0
        self._sync(None)

    def _sync(self, row: _Row | None) -> None:
        try:
            if self._book is None:
                if time.monotonic() >= self._due:
                    self._book = self._opened()
            elif row is not None:
                try:
                    self._book.show(row)
                except Exception:  # the file was deleted, replaced or damaged: what stands there now is looked at anew
                    self._book = None
                    self._book = self._opened()
        except Exception as error:  # no fault of the mirror is one of the search
            self._due = time.monotonic() + RETRY_SECONDS
            self.warn(f"cannot be written ({type(error).__name__}: {error})")

    def warn(self, what: str) -> None:
        """Say once that something is amiss."""
        if not self._said:
            self._said = True
            print(f"warning: {self._path} {what}; nothing else depends on it", file=sys.stderr)

    def _opened(self) -> _Book:
        """The file with all rows in it: as it is, if it can be completed, else written anew."""
        try:
            book = _Book(self._path, self._study)
            sound = book.agrees(self._rows)
        except Exception:  # Optuna has no exception of its own for a file that it cannot make sense of
            sound = False
        if not sound:
            self._write_anew()
            book = _Book(self._path, self._study)
        for row in self._rows.values():
            book.show(row)
        return book

    def _write_anew(self) -> None:
        part = self._path.with_name(f".{self._path.name}.part")
        part.unlink(missing_ok=True)
        try:
            book = _Book(part, self._study)
            for row in self._rows.values():
                book.show(row)
            os.replace(part, self._path)
        finally:
            part.unlink(missing_ok=True)


class Mirror(Observer):
    """Watches a search and mirrors it; each call costs the caller some microseconds.

    RUNNING: not ended, paused or interrupted. COMPLETE: a full run of ``top`` epochs. FAIL: diverged, collapsed or
    failed. PRUNED: every other end. Scores are intermediate values, their step is the epoch.
    A dashboard that runs while the file is deleted or written anew has to be started again.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        choices: Choices,
        state: JournalState,
        top: int,
        directions: Mapping[str, str] | None = None,
        cost: Callable[[TrialState], float] = seconds_per_epoch,
    ) -> None:
        """Begin, with what ``state`` knows already; a file that is there is completed, or written anew if it is wrong.

        ``name``: the study's. ``directions``: objective -> maximize or minimize, the score first; of two, ``cost`` is
        the second one's value.
        """
        import tuning.engine.sampler.study  # noqa: F401  # here: two threads that import one package find it half made

        self._cost = cost
        study = _Study(name, choices, top, tuple((directions or {"top1": "maximize"}).items()))
        rows = {number: self._row(trial) for number, trial in state.trials.items()}
        for trial, report in scored(state):
            if (value := _score(report)) is not None:
                rows[trial.trial].steps[report.epoch] = value
        self._known = set(rows)
        self._writer = _Writer(path, study, rows)
        self._writer.start()

    def _row(self, trial: TrialState) -> _Row:
        return _Row(
            trial.trial,
            trial.draws,
            trial.origin,
            trial.of,
            trial.seconds,
            self._cost(trial),
            ended=trial.ended,
            detail=trial.detail,
            error=trial.failures[-1].error if trial.failures else "",
        )

    def _change(self, trial: TrialState, **what: Any) -> None:
        self.begun(trial)
        number = trial.trial
        self._writer.queue.put((number, lambda rows: vars(rows[number]).update(what)))

    def begun(self, trial: TrialState) -> None:
        if trial.trial not in self._known:
            self._known.add(trial.trial)
            row = self._row(trial)
            self._writer.queue.put((row.number, lambda rows: rows.update({row.number: row})))

    def reported(self, trial: TrialState, report: Report) -> None:
        value = _score(report)
        if value is not None:
            self.begun(trial)
            number, epoch = trial.trial, report.epoch
            self._writer.queue.put((number, lambda rows: rows[number].steps.update({epoch: value})))

    def faltered(self, trial: TrialState, error: str) -> None:
        self._change(trial, error=error[:500])

    def ended(self, trial: TrialState) -> None:
        self._change(trial, ended=trial.ended, detail=trial.detail, seconds=trial.seconds, cost=self._cost(trial))

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Write what is left, for ``seconds`` at most. What is not written by then comes when the search goes on."""
        self._writer.queue.put(None)
        self._writer.join(seconds)
        if self._writer.is_alive():
            self._writer.warn("is not up to date")
