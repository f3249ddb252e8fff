"""The journal: an append-only file in which a search remembers everything. Nothing else is needed to go on.

One JSON object a line, closed by a checksum; decisions are flushed to the disk before anybody acts on them. State is a
pure replay of the lines, idempotent by (trial, epoch). A last line that a crash tore is cut off and said so; a damaged
line in the middle is an error, since what follows it rests on it. Two drivers on one journal exclude each other.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from methods.errors import InputError, WorkFailed
from tuning.engine.state import GO, Failure, JournalState, Report

FORMAT = 1
Patiently = Callable[[Callable[[], None]], None]


def once(call: Callable[[], None]) -> None:
    """No patience at all."""
    call()


def encode(event: Mapping[str, Any]) -> bytes:
    """One line: the object's JSON with a checksum of it as last member. Raises ``ValueError`` for NaN or infinity."""
    body = json.dumps(event, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    if body == "{}":
        raise ValueError("an empty event")
    return f'{body[:-1]},"crc":"{zlib.crc32(body.encode()):08x}"}}\n'.encode()


def decode(line: bytes) -> dict[str, Any]:
    """The event of one line. Raises ``ValueError`` when the line is not whole."""
    text = line.decode("ascii")
    body, mark, tail = text.rpartition(',"crc":"')
    if not mark or not text.endswith('"}\n') or len(tail) != 11:
        raise ValueError("no checksum")
    body += "}"
    if f"{zlib.crc32(body.encode()):08x}" != tail[:8]:
        raise ValueError("wrong checksum")
    event = json.loads(body)
    if not isinstance(event, dict):
        raise ValueError("not an object")
    return event


def read_events(path: Path) -> tuple[list[dict[str, Any]], int]:
    """All whole events and the length in bytes of what they take; a torn last line is not counted.

    Raises ``InputError`` naming file and line when a line before the last is damaged.
    """
    events: list[dict[str, Any]] = []
    whole = 0
    with path.open("rb") as file:
        lines = list(file)  # split at newlines alone: a torn line may hold any other byte
    for number, line in enumerate(lines, start=1):
        try:
            events.append(decode(line))
        except ValueError as error:
            if number == len(lines):
                break
            raise InputError(
                f"{path}:{number}: damaged line ({error}); restore the file from a copy, or start a new run folder"
            ) from error
        whole += len(line)
    return events, whole


def replay(path: Path) -> JournalState:
    """The state that a journal file holds, read without locking (for `status` and reports)."""
    state = JournalState()
    for event in read_events(path)[0]:
        state.apply(event)
    return state


def finite(value: float | None) -> float | None:
    """A float for the journal; NaN and infinity, which JSON has no word for, become None."""
    return None if value is None or not math.isfinite(value) else float(value)


class Events:
    """A search's memory: every call is one event, taken into ``state``. This base keeps them nowhere else.

    ``clock``: seconds since this driver began, by a clock that never jumps.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.state = JournalState()
        self._clock = clock
        self._begun = clock()

    @property
    def elapsed(self) -> float:
        """Seconds that this driver has run."""
        return self._clock() - self._begun

    def append(self, event: Mapping[str, Any], *, sync: bool = True) -> None:
        """Take one event into ``state``."""
        self.state.apply(event)

    def _add(self, kind: str, *, sync: bool = True, **rest: Any) -> None:
        """``time`` is for people; ``at`` is what budgets count, for clocks of machines are set back and forth."""
        self.append({"e": kind, **rest, "time": round(time.time(), 3), "at": round(self.elapsed, 3)}, sync=sync)

    def ask(self, draws: Mapping[str, Any], origin: str, bracket: int = 0, of: int | None = None) -> int:
        """Give a new trial its number. ``of``: the trial that it repeats with a new seed."""
        number = len(self.state.trials)
        rest: dict[str, Any] = {} if of is None else {"of": of}
        if bracket:
            rest["bracket"] = bracket
        self._add("ask", trial=number, draws=dict(draws), origin=origin, **rest)
        return number

    def report(self, trial: int, report: Report) -> bool:
        """Keep one epoch's report; False when that epoch was known already."""
        if report.epoch in self.state.trials[trial].reports:
            return False
        self._add(
            "report",
            sync=report.rung,
            trial=trial,
            epoch=report.epoch,
            rung=report.rung,
            top1=finite(report.top1),
            loss=finite(report.loss),
            seconds=round(report.seconds, 3),
            logs=_plain(report.logs),
            **({"node": report.node} if report.node else {}),
        )
        return True

    def decide(self, trial: int, epoch: int, verdict: str) -> bool:
        """Keep a verdict on a scored report; False when it was known."""
        if self.state.trials[trial].verdicts.get(epoch) in (verdict, GO):
            return False
        self._add("decide", trial=trial, epoch=epoch, verdict=verdict)
        return True

    def fail(self, trial: int, failure: Failure) -> None:
        """Keep one failure of a trial's worker."""
        known = len(self.state.trials[trial].failures)
        rest: dict[str, Any] = {"node": failure.node} if failure.node else {}
        if not failure.counted:
            rest["counted"] = False
        self._add("fail", trial=trial, number=known, error=failure.error[:500], cause=failure.kind, **rest)

    def end(self, trial: int, reason: str, detail: str = "") -> bool:
        """Keep how a trial ended; False when it had ended already."""
        if self.state.trials[trial].ended is not None:
            return False
        self._add("end", trial=trial, reason=reason, detail=detail)
        return True

    def grow(self, top: int) -> None:
        """Raise the highest rung of a growing ladder."""
        if top > (self.state.top or 0):
            self._add("grow", top=top)

    def job(self, name: str, result: Mapping[str, Any]) -> None:
        """Keep the result of one job of the finish (a re-run or a retraining)."""
        if name not in self.state.jobs:
            self._add("job", job=name, result=dict(result))

    def fact(self, name: str, value: Mapping[str, Any]) -> None:
        """Keep a single fact under a name, once."""
        if name not in self.state.facts:
            self._add("fact", name=name, value=dict(value))

    def command(self, key: str, verb: str, **what: Any) -> bool:
        """Keep what somebody asked of the running search; False when that was known."""
        if key in self.state.commands:
            return False
        self._add("command", id=key, verb=verb, **what)
        return True


def _plain(value: Any) -> Any:
    """Logs as JSON may have them: what is not finite becomes None, at any depth."""
    if isinstance(value, float):
        return finite(value)
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


class Journal(Events):
    """An open journal: append events, keep the replayed ``state`` in step. One process at a time.

    ``torn``: whether a torn last line was cut off on opening.
    """

    def __init__(self, path: Path, header: Mapping[str, Any], patiently: Patiently = once) -> None:
        """Open or create. Raises ``InputError`` when another process holds it or it belongs to another search.

        ``patiently``: calls what it is given, again and again while the storage is away.
        """
        super().__init__()
        self._patiently = patiently
        self.failure: WorkFailed | None = None  # why the last line could not be written
        self._doubtful = False  # whether the handle may be dead
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            self._lock()
            events, whole = read_events(path)
            self.torn = whole < path.stat().st_size
            for event in events:
                self.state.apply(event)
            self._check(dict(header))
            if self.torn:
                os.ftruncate(self._fd, whole)
            self._length = whole
            self._known = dict(header)
            if not self.state.header:
                self._add("open", format=FORMAT, **self._known)
        except BaseException:
            os.close(self._fd)
            raise

    def _lock(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"{self.path}: another process is running this search") from error

    def _check(self, header: dict[str, Any]) -> None:
        known = self.state.header
        if not known:
            return
        if known.get("format") != FORMAT:
            raise InputError(f"{self.path}: journal format {known.get('format')}, this version reads {FORMAT}")
        for key, what in (("space", "search space"), ("data", "dataset"), ("engine", "engine's search")):
            if key in known and known.get(key) != header.get(key):
                raise InputError(
                    f"{self.path.parent}: this run folder holds another {what} "
                    f"({str(known.get(key))[:12]}, now {str(header.get(key))[:12]}); give the search another name"
                )

    def drive(self) -> None:
        """Write that a driver begins to run trials: from here its seconds are counted."""
        self._begun = self._clock()
        self._add("drive")

    def append(self, event: Mapping[str, Any], *, sync: bool = True) -> None:
        """Write one event and take it into ``state``; with ``sync`` it is on the disk when this returns.

        Raises ``WorkFailed`` when the disk does not take it: then it is neither in the file nor in ``state``.
        """
        line = encode(event)
        try:
            self._patiently(lambda: self._put(line, sync))
        except (InputError, WorkFailed) as error:
            self.failure = WorkFailed(str(error))
            raise self.failure from error
        except OSError as error:
            self.failure = WorkFailed(
                f"{self.path}: {error.strerror or error}; its lines are kept: make room, and the same command goes on"
            )
            raise self.failure from error
        self._length += len(line)
        self.state.apply(event)

    def _put(self, line: bytes, sync: bool) -> None:
        if self._doubtful:
            self._reopen(line)
        try:
            self._write(line)
            if sync:
                os.fsync(self._fd)
        except OSError:
            with contextlib.suppress(OSError):  # a full disk took a part: whatever is written next must not follow it
                self._cut(self._fd, line)
            self._doubtful = True
            raise

    def _reopen(self, line: bytes) -> None:
        """After a failure: a file server that was restarted has forgotten this handle, and with it the lock."""
        fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        old, self._fd = self._fd, fd
        with contextlib.suppress(OSError):
            os.close(old)  # first: a lock of our own would keep us out
        self._lock()
        self._cut(fd, line)
        self._doubtful = False

    def _cut(self, fd: int, line: bytes) -> None:
        """Take back what was written of ``line``. Raises ``WorkFailed`` where that is not all that came since."""
        beyond = os.pread(fd, len(line) + 1, self._length)
        if os.fstat(fd).st_size < self._length or not line.startswith(beyond):
            raise WorkFailed(f"{self.path}: another process has written to it while the storage was away")
        os.ftruncate(fd, self._length)

    def _write(self, line: bytes) -> None:
        while line:
            line = line[os.write(self._fd, line) :]

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
