"""Where results arrive: into the journal first, then to whoever watches. The one place that writes trials down."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tuning.engine.journal import Journal
from tuning.engine.state import FAILED, Report, TrialState
from tuning.run_files import trial_key
from tuning.session import CHECKPOINT
from tuning.watching.nodes import CLOCK_OFF_S

SCORED = ("epoch", "rung", "top1", "loss", "seconds", "done", "ended", "detail", "node", "clock")


class Observer(Protocol):
    """Somebody who watches a search. All calls come after the journal has the entry."""

    def begun(self, trial: TrialState) -> None:
        """A trial was drawn and starts, or goes on where it was interrupted."""

    def reported(self, trial: TrialState, report: Report) -> None:
        """A trial finished an epoch."""

    def faltered(self, trial: TrialState, error: str) -> None:
        """A trial's process failed; it is retried unless it ends now."""

    def ended(self, trial: TrialState) -> None:
        """A trial is over, for the reason in ``trial.ended``."""

    def close(self) -> None:
        """The search is over or interrupted."""


class Recorder:
    """Journal and observers behind four calls, each safe to repeat."""

    def __init__(self, journal: Journal, folder: Path, observers: Sequence[Observer] = ()) -> None:
        self.journal = journal
        self.folder = folder
        self.observers = observers
        self._errors: dict[int, str] = {}

    def trial_folder(self, trial: int) -> Path:
        return self.folder / "trials" / trial_key(trial)

    def asked(self, draws: Mapping[str, Any], origin: str) -> TrialState:
        """A new trial: number it, write it down."""
        return self.begun(self.journal.state.trials[self.journal.ask(draws, origin)])

    def begun(self, trial: TrialState) -> TrialState:
        """A trial starts, or goes on after an interruption: nothing to write down, but something to say."""
        for observer in self.observers:
            observer.begun(trial)
        return trial

    def reported(self, trial: int, result: Mapping[str, Any]) -> bool:
        """Keep one epoch's result (of :meth:`Session.step`); False when it was known, or is no result of an epoch."""
        if "ended" in result:
            return False
        report = report_of(result)
        new = self.journal.report(trial, report)
        if new:
            state = self.journal.state.trials[trial]
            for observer in self.observers:
                observer.reported(state, report)
        return new

    def faltered(self, trial: int, error: str) -> None:
        """A trial's process failed. Whether it is retried is Ray's to say; the error is kept for the case that not."""
        self._errors[trial] = error
        for observer in self.observers:
            observer.faltered(self.journal.state.trials[trial], error)

    def failed(self, trial: int) -> None:
        """A trial failed once more than it may be retried."""
        self.ended(trial, FAILED, self._errors.get(trial, ""))

    def ended(self, trial: int, reason: str, detail: str = "") -> None:
        """A trial is over: write it down, and drop its checkpoint, which nothing will continue."""
        if self.journal.end(trial, reason, detail):
            state = self.journal.state.trials[trial]
            for observer in self.observers:
                observer.ended(state)
        (self.trial_folder(trial) / CHECKPOINT).unlink(missing_ok=True)

    def close(self) -> None:
        for observer in self.observers:
            observer.close()


def report_of(result: Mapping[str, Any]) -> Report:
    """One epoch's result as the journal keeps it."""
    logs = {key: value for key, value in result.items() if key not in SCORED}
    off = float(result.get("clock", time.time())) - time.time()
    if abs(off) >= CLOCK_OFF_S:  # nothing rests on a node's clock, but people compare the logs of two
        logs["clock_off"] = round(off)
    return Report(
        int(result["epoch"]),
        bool(result["rung"]),
        result.get("top1"),
        result.get("loss"),
        result["seconds"],
        logs,
        str(result.get("node", "")),
    )
