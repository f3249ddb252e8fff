"""Who drives a search that has a store: one numbered mark for each start of a driver, the highest one drives.

Needs of the store only that what was written is listed by everybody from then on, as object stores and file systems
promise; no locks, no conditional writes.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import time
from collections.abc import Callable

from methods.errors import WorkFailed
from tuning.storage.patience import patiently
from tuning.storage.store import Store

FOLDER = "drivers"
_NAME = re.compile(rf"{FOLDER}/(\d{{6,9}})-.*\.json")


class TakenOver(WorkFailed):
    """A later driver writes this search's journal to the store."""


def this_process() -> str:
    """Host and process id."""
    return f"{socket.gethostname()}-{os.getpid()}"


class Mark:
    """This driver's mark. ``number``: higher than that of every driver before it."""

    def __init__(self, store: Store, who: str, say: Callable[[str], None]) -> None:
        """Take the next number. Raises ``WorkFailed`` when another driver takes it at the same moment.

        Of two that take the same one, at least whoever writes second sees the other, and leaves.
        """
        self._store = store
        self._who = re.sub(r"[^A-Za-z0-9.-]+", "_", who)
        self.number = 0
        patiently(self._write, what=f"writing to {store.url}", say=say, root=store.folder)
        for name, number in self._drivers().items():
            if number >= self.number and name != self.name:
                self.remove()
                raise WorkFailed(f"{store.url}: another driver began at the same moment ({self._about(name)})")

    @property
    def name(self) -> str:
        return f"{FOLDER}/{self.number:06d}-{self._who}.json"

    def _write(self) -> None:
        self.number = max(self._drivers().values(), default=0) + 1
        mark = {"who": self._who, "time": time.strftime("%Y-%m-%d %H:%M:%S %z")}
        self._store.put_bytes(json.dumps(mark).encode() + b"\n", self.name)

    def _drivers(self) -> dict[str, int]:
        return {n: int(found[1]) for n in self._store.names(FOLDER) if (found := _NAME.fullmatch(n)) is not None}

    def check(self) -> None:
        """Look whether this driver still is the last. Raises :class:`TakenOver`; ``WorkFailed`` in an emptied store."""
        drivers = self._drivers()
        later = {number: name for name, number in drivers.items() if number > self.number}
        if later:
            raise TakenOver(f"another driver took over this search at {self._about(later[max(later)])}; this one stops")
        if self.name not in drivers:
            raise WorkFailed("the mark of this driver is gone: somebody emptied the store")

    def _about(self, name: str) -> str:
        """When and who, as a driver's own file tells; that file's name where it does not."""
        try:
            told = json.loads(self._store.read(name) or b"{}")
            return f"{told['time']} by {told['who']}"
        except Exception:  # whatever it is, another driver is there, and that is what counts
            return name

    def remove(self) -> None:
        """Give the number back: who does not drive must not keep another from it."""
        with contextlib.suppress(Exception):
            self._store.remove(self.name)
