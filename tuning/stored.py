"""A search that keeps copies in a store: its journal, its checkpoints and its result, beside the run folder."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from methods.errors import WorkFailed
from tuning.engine.journal import Journal
from tuning.plan import Plan
from tuning.run_files import BEST_FILE, JOURNAL_FILE, SPACE_FILE
from tuning.session import CHECKPOINT, Task
from tuning.storage.chain import restore
from tuning.storage.checkpoints import Checkpoints, Drops
from tuning.storage.patience import in_words, patiently
from tuning.storage.segments import Segments
from tuning.storage.store import Store, open_store

_OF_A_TRIAL = re.compile(r"t\d+-")


class Stored:
    """One driver's use of a store: :meth:`begin` with the open journal, :meth:`poll` at every step, :meth:`close`."""

    def __init__(self, url: str, plan: Plan, say: Callable[[str], None]) -> None:
        """Open the store and bring what this disk lacks of the journal. Raises ``InputError``, ``WorkFailed``."""
        self.store: Store = open_store(url).under(plan.spec.name)
        self.store.check()
        self._plan, self._say = plan, say
        restored = restore(self.store, plan.folder / JOURNAL_FILE)
        if restored is not None:
            say(restored.text)
        self.checkpoints = Checkpoints(self.store.url, plan.source.fingerprint)
        self.life = 0
        self._drops: Drops | None = None
        self._segments: Segments | None = None

    def begin(self, journal: Journal) -> None:
        """Become the driver that writes to the store. Raises ``WorkFailed`` when there is another one."""
        self._segments = Segments(self.store, journal.path, say=self._say)
        self._segments.begin()
        self.life = self._segments.driver
        self.checkpoints = dataclasses.replace(self.checkpoints, life=self.life)
        self._drops = Drops(self.checkpoints)
        self._put(SPACE_FILE)

    def poll(self) -> None:
        """Copy what is new of the journal; never waits. Raises ``WorkFailed`` when another driver took over."""
        if self._segments is not None:
            self._segments.poll()

    def sweep(self, unfinished: Iterable[Task]) -> None:
        """Remove checkpoints that no unfinished trial needs: a kill may have come between an end and the removal.

        Those of the finish's jobs are left alone.
        """
        keep = {self.checkpoints.name(task) for task in unfinished}
        self.checkpoints.sweep(lambda name: name in keep or not _OF_A_TRIAL.match(name))

    def drop(self, task: Task) -> None:
        """Remove a task's checkpoint: it ended."""
        if self._drops is not None:
            self._drops.drop(task)

    def bring(self, task: Task) -> None:
        """Put a task's checkpoint into its folder here, where the export looks for it."""
        target = Path(task.folder) / CHECKPOINT
        if target.is_file():
            return
        self.checkpoints.fetch(task)
        if not (self.checkpoints.local(task) / CHECKPOINT).is_file():
            raise WorkFailed(f"{self.store.url}: the weights of {task.key} are not there; somebody removed them")
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{CHECKPOINT}.part")
        shutil.copyfile(self.checkpoints.local(task) / CHECKPOINT, part)
        part.replace(target)
        self.checkpoints.forget(task)

    def close(self) -> None:
        """Copy the rest of the journal and the result; waits no longer than a minute or two."""
        if self._drops is not None:
            self._drops.close()
        if self._segments is not None:
            self._put(BEST_FILE)
            self._segments.close()

    def _put(self, name: str) -> None:
        local = self._plan.folder / name
        if not local.is_file():
            return
        what, root = f"copying {name} to {self.store.url}", self.store.folder
        try:
            patiently(lambda: self.store.put(local, name), what=what, for_s=60.0, root=root)
        except Exception as error:  # each library refuses with errors of its own, and the file is here anyway
            self._say(f"note: {what}: {in_words(error)}; it is in {self._plan.folder}")
