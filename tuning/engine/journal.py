"""The journal: an append-only file in which a search remembers everything. Nothing else is needed to go on.

One JSON object a line, closed by a checksum; decisions are flushed to the disk before anybody acts on them. State is a
pure replay of the lines, idempotent by (trial, epoch). A last line that a crash tore is cut off and said so; a damaged
line in the middle is an error, since what follows it rests on it. Two drivers on one journal exclude each other.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from methods.errors import InputError

FORMAT = 1
CULLED = "culled"
TOP = "top"
FAILED = "failed"
DIVERGED = "diverged"
COLLAPSED = "collapsed"


@dataclass(frozen=True)
class Report:
    """One epoch of one trial. ``top1`` and ``loss`` (the probe's) are there at rungs only; ``seconds`` is its cost."""

    epoch: int
    rung: bool
    top1: float | None
    loss: float | None
    seconds: float
    logs: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class TrialState:
    """What the journal knows of one trial: its draws, its reports by epoch, and how it ended (None: it has not)."""

    trial: int
    draws: dict[str, Any]
    origin: str
    reports: dict[int, Report] = field(default_factory=dict)
    ended: str | None = None
    detail: str = ""

    def at(self, rung: int) -> Report | None:
        """The scored report at ``rung`` epochs, if there is one."""
        report = self.reports.get(rung)
        return report if report is not None and report.rung and report.top1 is not None else None

    @property
    def last_rung(self) -> Report | None:
        """The scored report of the highest rung reached."""
        scored = [r for r in self.reports.values() if r.rung and r.top1 is not None]
        return max(scored, key=lambda r: r.epoch, default=None)

    @property
    def seconds(self) -> float:
        """Training and probing time, all epochs together."""
        return sum(r.seconds for r in self.reports.values())


@dataclass
class JournalState:
    """The replayed journal. ``jobs``: results of the finish, by job name; ``facts``: other single entries by name."""

    header: dict[str, Any] = field(default_factory=dict)
    trials: dict[int, TrialState] = field(default_factory=dict)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    order: list[tuple[int, int]] = field(default_factory=list)  # (trial, epoch) of scored reports, as they came

    @property
    def ended(self) -> list[TrialState]:
        return [t for t in self.trials.values() if t.ended is not None]

    @property
    def pending(self) -> list[TrialState]:
        return [t for t in self.trials.values() if t.ended is None]

    def apply(self, event: Mapping[str, Any]) -> None:
        """Take one event in. Repeated events change nothing. Raises ``InputError`` for an event that makes no sense."""
        kind = event.get("e")
        if kind == "open":
            self.header = dict(event)
        elif kind == "ask":
            number = int(event["trial"])
            self.trials.setdefault(number, TrialState(number, dict(event["draws"]), str(event["origin"])))
        elif kind == "report":
            self._report(event)
        elif kind == "end":
            trial = self._trial(event)
            if trial.ended is None:
                trial.ended, trial.detail = str(event["reason"]), str(event.get("detail", ""))
        elif kind == "job":
            self.jobs.setdefault(str(event["job"]), dict(event["result"]))
        elif kind == "fact":
            self.facts.setdefault(str(event["name"]), dict(event["value"]))
        else:
            raise InputError(f"unknown event {kind!r}")

    def _trial(self, event: Mapping[str, Any]) -> TrialState:
        trial = self.trials.get(int(event["trial"]))
        if trial is None:
            raise InputError(f"trial {event['trial']} was never asked for")
        return trial

    def _report(self, event: Mapping[str, Any]) -> None:
        trial = self._trial(event)
        epoch = int(event["epoch"])
        if epoch in trial.reports:
            return
        report = Report(
            epoch, bool(event["rung"]), event["top1"], event["loss"], float(event["seconds"]), event.get("logs", {})
        )
        trial.reports[epoch] = report
        if report.rung and report.top1 is not None:
            self.order.append((trial.trial, epoch))


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
    lines = path.read_bytes().splitlines(keepends=True)
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


class Journal:
    """An open journal: append events, keep the replayed ``state`` in step. One process at a time.

    ``torn``: whether a torn last line was cut off on opening.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        """Open or create. Raises ``InputError`` when another process holds it or it belongs to another search."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            self._lock()
            events, whole = read_events(path)
            self.torn = whole < path.stat().st_size
            if self.torn:
                os.ftruncate(self._fd, whole)
            self.state = JournalState()
            for event in events:
                self.state.apply(event)
            self._open(dict(header))
        except BaseException:
            os.close(self._fd)
            raise

    def _lock(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"{self.path}: another process is running this search") from error

    def _open(self, header: dict[str, Any]) -> None:
        known = self.state.header
        if not known:
            self.append({"e": "open", "format": FORMAT, "time": time.time(), **header})
            return
        if known.get("format") != FORMAT:
            raise InputError(f"{self.path}: journal format {known.get('format')}, this version reads {FORMAT}")
        for key, what in (("space", "search space"), ("data", "dataset")):
            if known.get(key) != header.get(key):
                raise InputError(
                    f"{self.path.parent}: this run folder holds another {what} "
                    f"({str(known.get(key))[:12]}, now {str(header.get(key))[:12]}); give the search another name"
                )

    def append(self, event: Mapping[str, Any], *, sync: bool = True) -> None:
        """Write one event and take it into ``state``; with ``sync`` it is on the disk when this returns."""
        line = encode(event)
        while line:  # a full disk may take a part only; the rest raises, and the torn line is cut off at the next start
            line = line[os.write(self._fd, line) :]
        if sync:
            os.fsync(self._fd)
        self.state.apply(event)

    def ask(self, draws: Mapping[str, Any], origin: str) -> int:
        """Give a new trial its number."""
        number = max(self.state.trials, default=-1) + 1
        self.append({"e": "ask", "trial": number, "draws": dict(draws), "origin": origin, "time": time.time()})
        return number

    def report(self, trial: int, report: Report) -> bool:
        """Keep one epoch's report; False when that epoch was known already."""
        if report.epoch in self.state.trials[trial].reports:
            return False
        event = {
            "e": "report",
            "trial": trial,
            "epoch": report.epoch,
            "rung": report.rung,
            "top1": finite(report.top1),
            "loss": finite(report.loss),
            "seconds": round(report.seconds, 3),
            "logs": {k: finite(v) if isinstance(v, float) else v for k, v in report.logs.items()},
            "time": time.time(),
        }
        self.append(event, sync=report.rung)
        return True

    def end(self, trial: int, reason: str, detail: str = "") -> bool:
        """Keep how a trial ended; False when it had ended already."""
        if self.state.trials[trial].ended is not None:
            return False
        self.append({"e": "end", "trial": trial, "reason": reason, "detail": detail, "time": time.time()})
        return True

    def job(self, name: str, result: Mapping[str, Any]) -> None:
        """Keep the result of one job of the finish (a re-run or a retraining)."""
        if name not in self.state.jobs:
            self.append({"e": "job", "job": name, "result": dict(result), "time": time.time()})

    def fact(self, name: str, value: Mapping[str, Any]) -> None:
        """Keep a single fact under a name, once."""
        if name not in self.state.facts:
            self.append({"e": "fact", "name": name, "value": dict(value), "time": time.time()})

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def scored(state: JournalState) -> Iterator[tuple[TrialState, Report]]:
    """Scored reports in the order in which they came."""
    for trial, epoch in state.order:
        yield state.trials[trial], state.trials[trial].reports[epoch]
