"""How a conversion is shown, on standard error: a bar on a terminal, a line now and then in a log file."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from tuning.words import duration

if TYPE_CHECKING:
    from methods.data import Progress as Done

_SECONDS = 10.0  # between two lines in a log file
_QUIET = 2.0  # seconds under which a log file is told nothing at all


def told(done: Done) -> str:
    """`12,800 of 114,480 read, 12,790 clips, 10 left out, 3 min to go`."""
    text = f"{done.done:,} of {done.items:,} read, {done.clips:,} clips, {done.skipped:,} left out"
    if done.done == done.items:
        return f"{text}, putting together"
    return text if done.remaining is None else f"{text}, {duration(done.remaining)} to go"


@contextlib.contextmanager
def conversion_progress(title: str) -> Iterator[Callable[[Done], None]]:
    """Give what a conversion may call with its progress."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield _lines(title)
        return
    with Progress(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}"), console=console
    ) as bar:
        task = bar.add_task(title, total=None, told="")

        def show(done: Done) -> None:
            bar.update(task, total=done.items, completed=done.done, told=told(done))

        yield show


def _lines(title: str) -> Callable[[Done], None]:
    last = time.monotonic() - _SECONDS + _QUIET

    def say(done: Done) -> None:
        nonlocal last
        if time.monotonic() - last >= _SECONDS:
            last = time.monotonic()
            print(f"{title}: {told(done)}", file=sys.stderr, flush=True)

    return say


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
