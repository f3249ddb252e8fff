"""Trials' checkpoints where nodes share no folder: on the node that trains, with a copy in the store.

In the store: `checkpoints/<key>-<digest>/<epoch>-<life>.pt`, ``life`` being the number of the driver that it was
trained under. The digest is of what is trained (configuration, seed, clips, data), so that a trial number that is given
a second time, after a disk was lost, never meets the weights of the first.
Files are only moved here; what reads them is :func:`methods.training.checkpoint.read`, which unpickles nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import queue
import re
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from methods.errors import WorkFailed
from tuning.files import write_text
from tuning.storage.patience import FOR_S, in_words, patiently
from tuning.storage.scratch import cache_root
from tuning.storage.store import Store, open_store

CHECKPOINT = "checkpoint.pt"  # as tuning.session, which needs torch
NOTE_FILE = "epoch"  # beside it: its epoch and life, noted after it was saved
FOLDER = "checkpoints"
PUSH_FOR_S = 60.0  # a GPU waits no longer than this for a copy that a later one replaces
OLD_S = 7 * 86_400.0
_NAME = re.compile(r".*/(\d{6,9})-(\d{1,9})\.pt")


@dataclass(frozen=True, order=True)
class Saved:
    """One checkpoint: the later epoch is the better one, whoever's it is."""

    epoch: int
    life: int

    @property
    def file(self) -> str:
        return f"{self.epoch:06d}-{self.life}.pt"


class Trained(Protocol):
    """What of a :class:`tuning.session.Task` decides which weights come out."""

    @property
    def key(self) -> str: ...
    @property
    def config(self) -> Mapping[str, Any]: ...
    @property
    def seed(self) -> int: ...
    @property
    def train_on(self) -> str: ...
    @property
    def folder(self) -> str: ...


@dataclass(frozen=True)
class Checkpoints:
    """Where a search's checkpoints lie; plain values that travel to the nodes.

    ``store_url``: the search's own store (:attr:`Store.url`), or None where all nodes see the run folder: then every
    call leaves things as they are. ``data``: the dataset's fingerprint. ``life``: the driver's number
    (:attr:`tuning.storage.segments.Segments.driver`).
    """

    store_url: str | None
    data: str = ""
    life: int = 0

    def name(self, task: Trained) -> str:
        """What the checkpoints of a task are called: the same for the same work, another one for any other."""
        facts = [task.key, dict(task.config), task.seed, task.train_on, self.data]
        return f"{task.key}-{hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]}"

    def local(self, task: Trained) -> Path:
        """The folder on this node that the task's checkpoint is read from and saved to."""
        if self.store_url is None:
            return Path(task.folder)
        return cache_root() / FOLDER / self.name(task)

    def fetch(self, task: Trained, upto: int | None = None, for_s: float = FOR_S) -> None:
        """Before a task begins here: bring the store's checkpoint, if it is a later one than this node's.

        ``upto``: the first rung that the journal had no score of when the task was made. A checkpoint from beyond it is
        taken if it was trained under this driver, which has had every score since. One of an earlier driver is not, and
        is removed here: it holds the score of its own epoch only, and a head that was lost may have taken those between
        along. Raises ``WorkFailed`` when the store does not answer for ``for_s`` seconds.
        """
        if self.store_url is None:
            return
        store, folder = _opened(self.store_url), self.local(task)
        _sweep_old(folder.parent)
        here = _noted(folder)
        if here is None or not self._serves(here, upto):
            if upto is not None:
                (folder / CHECKPOINT).unlink(missing_ok=True)
            here = None
        patiently(
            lambda: self._fetch(store, task, folder, here, upto),
            what=f"fetching the checkpoint of {task.key} from {store.url}",
            for_s=for_s,
            root=store.folder,
        )

    def _serves(self, saved: Saved, upto: int | None) -> bool:
        return upto is None or saved.epoch <= upto or saved.life == self.life

    def _fetch(self, store: Store, task: Trained, folder: Path, here: Saved | None, upto: int | None) -> None:
        while True:
            there = [saved for saved in self._saved(store, task) if self._serves(saved, upto)]
            if not there or (here is not None and max(there) <= here):
                return
            best = max(there)
            if store.get(f"{FOLDER}/{self.name(task)}/{best.file}", folder / CHECKPOINT):
                write_text(folder / NOTE_FILE, f"{best.epoch} {best.life}\n")
                return  # else a later one has just replaced it: look again

    def push(self, task: Trained, epoch: int, for_s: float = PUSH_FOR_S) -> bool:
        """After the checkpoint of ``epoch`` was saved: copy it to the store, then remove the one before it.

        False when the store was away for ``for_s`` seconds: nothing is lost but epochs, should this node be. Raises
        ``WorkFailed`` when the store refuses it for good (no right, no room).
        """
        if self.store_url is None:
            return True
        store, folder = _opened(self.store_url), self.local(task)
        what = f"copying the checkpoint of {task.key} to {store.url}"
        now = Saved(epoch, self.life)
        write_text(folder / NOTE_FILE, f"{epoch} {self.life}\n")
        place = f"{FOLDER}/{self.name(task)}"
        try:
            patiently(
                lambda: store.put(folder / CHECKPOINT, f"{place}/{now.file}"), what=what, for_s=for_s, root=store.folder
            )
        except WorkFailed:
            return False
        except Exception as error:  # each library refuses with errors of its own
            raise WorkFailed(f"{what}: {in_words(error)}") from error
        with contextlib.suppress(Exception):  # the next push removes it, or the sweep
            for other in self._saved(store, task):
                if (other.life, other.epoch) < (now.life, now.epoch):  # a driver that was taken over replaces nothing
                    store.remove(f"{place}/{other.file}")
        return True

    def _saved(self, store: Store, task: Trained) -> list[Saved]:
        found = (_NAME.fullmatch(name) for name in store.names(f"{FOLDER}/{self.name(task)}"))
        return [Saved(int(match[1]), int(match[2])) for match in found if match is not None]

    def forget(self, task: Trained) -> None:
        """On the node: remove this node's copy of a task that is done with."""
        if self.store_url is not None:
            shutil.rmtree(self.local(task), ignore_errors=True)

    def drop(self, task: Trained) -> None:
        """On the driver: remove a task's checkpoints, for it ended. One try; :meth:`sweep` finds what is left."""
        if self.store_url is None:
            (Path(task.folder) / CHECKPOINT).unlink(missing_ok=True)
            return
        with contextlib.suppress(Exception):
            _remove_all(_opened(self.store_url), f"{FOLDER}/{self.name(task)}")

    def sweep(self, keep: Callable[[str], bool]) -> int:
        """On the driver, at its start: remove from the store all tasks' but those that ``keep`` names; how many went.

        Raises nothing: a store that is away keeps them until the next start.
        """
        removed = 0
        with contextlib.suppress(Exception):
            store = _opened(self.store_url) if self.store_url is not None else None
            for folder in store.folders(FOLDER) if store is not None else ():
                if store is not None and not keep(folder.rpartition("/")[2]):
                    _remove_all(store, folder)
                    removed += 1
        return removed


@lru_cache(maxsize=4)
def _opened(url: str) -> Store:
    return open_store(url)


def _remove_all(store: Store, folder: str) -> None:
    for name in store.names(folder):
        store.remove(name)


def _noted(folder: Path) -> Saved | None:
    """What this node has; None for nothing, and for a checkpoint that was saved after its epoch was noted."""
    try:
        noted, saved = (folder / NOTE_FILE).stat().st_mtime_ns, (folder / CHECKPOINT).stat().st_mtime_ns
        epoch, life = (folder / NOTE_FILE).read_text().split()
        return Saved(int(epoch), int(life)) if saved <= noted else None
    except (OSError, ValueError):
        return None


def _sweep_old(root: Path, now: Callable[[], float] = time.time) -> None:
    """Remove from this node what nobody touched for a week: trials that went on, and ended, on another one."""
    for folder in root.glob("*"):
        with contextlib.suppress(OSError):
            if now() - folder.stat().st_mtime > OLD_S:
                shutil.rmtree(folder, ignore_errors=True)


class Drops:
    """Removes checkpoints behind the driver's back: its loop never waits for a store."""

    def __init__(self, checkpoints: Checkpoints) -> None:
        self._checkpoints = checkpoints
        self._tasks: queue.SimpleQueue[Trained | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True, name="checkpoint-drops")
        self._thread.start()

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            self._checkpoints.drop(task)

    def drop(self, task: Trained) -> None:
        self._tasks.put(task)

    def close(self, for_s: float = 15.0) -> None:
        """Wait for what is still to be removed, no longer than ``for_s`` seconds."""
        self._tasks.put(None)
        self._thread.join(for_s)
