"""Where the engine meets those who train and those who watch: tasks go out, results come in, observers are told.

Free of Ray: the adapters in `tuning/adapters.py` call it, and so may any other driver.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from methods.training.seeds import derive_seed
from tuning.engine.engine import Engine
from tuning.engine.mishaps import ERROR
from tuning.engine.state import GO, TrialState
from tuning.recorder import Observer, report_of
from tuning.run_files import trial_key
from tuning.session import CHECKPOINT, Task
from tuning.space import Space


class Floor:
    """One engine at work. Every call may come twice."""

    def __init__(
        self,
        engine: Engine,
        space: Space,
        folder: Path,
        seed: int,
        observers: Sequence[Observer] = (),
        drop: Callable[[Task], None] | None = None,
    ) -> None:
        """``drop``: removes what a store has of a trial that ended."""
        self.engine, self.space, self.folder, self.seed = engine, space, folder, seed
        self.observers, self._drop = observers, drop
        self._sweep()
        self._tell_ends()  # of what a killed driver had left undecided

    def ask(self) -> Task | None:
        """The next piece of work; None while there is none."""
        segment = self.engine.ask()
        self._tell_ends()
        if segment is None:
            return None
        trial = self.engine.state.trials[segment.trial]
        self._tell(lambda observer: observer.begun(trial))
        return self.task(trial)

    def task(self, trial: TrialState) -> Task:
        """What a worker needs to train a trial on from wherever its checkpoint is."""
        folder = self.trial_folder(trial.trial)
        return trial_task(self.space, trial, self.seed, self.engine.ladder.rungs, folder)

    def trial_folder(self, trial: int) -> Path:
        return self.folder / "trials" / trial_key(trial)

    def result(self, number: int, result: Mapping[str, Any]) -> bool:
        """Take in one result of :meth:`Session.step`; whether the worker trains on."""
        trial = self.engine.state.trials[number]
        if trial.ended is not None:  # cancelled or pruned: its worker has just written a checkpoint that nobody needs
            with contextlib.suppress(OSError):
                (self.trial_folder(number) / CHECKPOINT).unlink(missing_ok=True)
        if "ended" in result:
            self.engine.ended(number, str(result["ended"]), str(result.get("detail", "")))
            self._tell_ends()
            return False
        report = report_of(result)
        new = report.epoch not in trial.reports and trial.ended is None
        verdict = self.engine.report(number, report)
        if new:
            self._tell(lambda observer: observer.reported(trial, report))
        self._tell_ends()
        return verdict.word == GO

    def failed(self, number: int, error: str, kind: str = ERROR, node: str = "") -> bool:
        """A worker died or raised; whether the trial will be tried again. ``kind`` as in :meth:`Engine.failed`."""
        said = f"{error} (on {node})" if node else error
        self._tell(lambda observer: observer.faltered(self.engine.state.trials[number], said))
        again = self.engine.failed(number, error, kind, node)
        self._tell_ends()
        return again

    def conclude(self) -> None:
        """The search is over: those who waited to go on end."""
        self.engine.conclude()
        self._tell_ends()

    def _tell_ends(self) -> None:
        for trial in self.engine.news():
            self._tell(partial(_ended, trial))
            with contextlib.suppress(OSError):  # a storage that is away: the next start's sweep finds it
                (self.trial_folder(trial.trial) / CHECKPOINT).unlink(missing_ok=True)
            if self._drop is not None:
                self._drop(self.task(trial))

    def _sweep(self) -> None:
        """Drop checkpoints of trials that ended, and halves of checkpoints: a kill may have come before."""
        for path in (self.folder / "trials").glob(f"t*/{CHECKPOINT}*"):
            number = path.parent.name[1:]
            trial = self.engine.state.trials.get(int(number)) if number.isdigit() else None
            if path.name != CHECKPOINT or (trial is not None and trial.ended is not None):
                path.unlink(missing_ok=True)

    def _tell(self, what: Callable[[Observer], None]) -> None:
        """What observers cannot write ends no search: the journal has it, and everything is drawn from that again."""
        for observer in self.observers:
            with contextlib.suppress(OSError):
                what(observer)

    def close(self) -> None:
        for observer in self.observers:
            observer.close()


def _ended(trial: TrialState, observer: Observer) -> None:
    observer.ended(trial)


def trial_task(space: Space, trial: TrialState, seed: int, probe_at: tuple[int, ...], folder: Path) -> Task:
    """What a worker needs to train a trial of a search with ``seed``; ``folder`` is where its checkpoint lies."""
    return Task(
        key=trial_key(trial.trial),
        config=space.resolve(trial.draws).to_dict(),
        seed=derive_seed(seed, "trial", trial.trial),
        probe_at=probe_at,
        upto=next((rung for rung in probe_at if trial.at(rung) is None), None),
        folder=str(folder.absolute()),
    )
