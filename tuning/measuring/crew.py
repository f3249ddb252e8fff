"""Processes that measure: each is asked one thing at a time over a pipe, and may die without taking the rest along.

A process of its own, because peaks of memory belong to a process, and because several trials on a GPU *are* several
processes. One that runs out of memory, is killed or hangs is a :class:`MeasuringFailed`, in a sentence.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from methods.errors import InputError
from tuning.words import duration

MODULE = "tuning.measuring.worker"


class MeasuringFailed(Exception):
    """Nothing came of it, and why. ``memory``: it was memory that lacked."""

    def __init__(self, words: str, memory: bool = False) -> None:
        super().__init__(words)
        self.memory = memory


class Asked(Protocol):
    """Somebody who measures; a process, or a test's stand-in."""

    def tell(self, what: Mapping[str, Any]) -> None:
        """Ask for something, without waiting for it."""

    def hear(self, within_s: float) -> dict[str, Any]:
        """Wait for the answer. Raises :class:`MeasuringFailed`, or ``InputError`` for what the user can mend."""

    def close(self) -> None:
        """It is not needed any longer."""


def ask(worker: Asked, what: Mapping[str, Any], within_s: float) -> dict[str, Any]:
    """Tell and hear."""
    worker.tell(what)
    return worker.hear(within_s)


class Worker:
    """A Python process that runs :mod:`tuning.measuring.worker`."""

    def __init__(self) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # open as long as the process
        path = os.pathsep.join(entry or "." for entry in sys.path)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", MODULE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env={**os.environ, "PYTHONPATH": path},  # what is imported here is imported there
            )
        except OSError as error:
            self._errors.close()
            raise MeasuringFailed(f"no process could be started ({error.strerror})") from error
        self._come = b""

    def tell(self, what: Mapping[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):  # it has died: hearing it says how
            self._stdin.write(json.dumps(what).encode() + b"\n")
            self._stdin.flush()

    def hear(self, within_s: float) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self._line(within_s))
        if "faults" in answer:
            raise InputError(*answer["faults"])
        if "failed" in answer:
            raise MeasuringFailed(answer["failed"], bool(answer.get("memory")))
        return answer

    def _line(self, within_s: float) -> bytes:
        end, out = time.monotonic() + within_s, self._stdout.fileno()
        with selectors.DefaultSelector() as ready:
            ready.register(out, selectors.EVENT_READ)
            while b"\n" not in self._come:
                if not ready.select(max(0.0, end - time.monotonic())):
                    raise MeasuringFailed(f"no answer within {duration(within_s)}")
                more = os.read(out, 1 << 16)
                if not more:
                    raise MeasuringFailed(*self._how_it_ended())
                self._come += more
        line, _, self._come = self._come.partition(b"\n")
        return line

    def _how_it_ended(self) -> tuple[str, bool]:
        code = self._process.wait()
        if code < 0:
            name = signal.Signals(-code).name
            killed = -code == signal.SIGKILL
            return f"the process was ended by {name}" + (" (out of memory?)" if killed else ""), killed
        self._errors.seek(0)
        last = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"the process ended ({last[-1][:200] if last else f'exit code {code}'})", False

    def close(self) -> None:
        """End the process, whatever it does."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                with contextlib.suppress(OSError):  # what was buffered for a process that is gone
                    stream.close()

    @property
    def _stdin(self) -> Any:
        return self._process.stdin

    @property
    def _stdout(self) -> Any:
        return self._process.stdout


@contextlib.contextmanager
def closing_all(workers: Sequence[Asked]) -> Iterator[None]:
    """``workers`` are closed at the end, those too that come to the list meanwhile."""
    try:
        yield
    finally:
        for worker in workers:
            worker.close()
