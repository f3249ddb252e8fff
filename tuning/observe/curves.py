"""TensorBoard: one run a trial, with its hyperparameters, under ``trials/<id>/tb`` of the run folder."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuning.engine.state import Report, TrialState
from tuning.run_files import trial_key

logging.getLogger("tensorboard").setLevel(logging.ERROR)
HOLD_S = 30.0  # how long the epochs between two rungs are kept back, so that a file is opened less often


class Curves:
    """Writes scalars as they come and the hyperparameters with the final score; `tensorboard --logdir RUN` shows both.

    A file is open only while it is written to: a writer of PyTorch's keeps a thread for each trial that has not ended,
    and thousands of trials wait at a rung. A search that goes on writes further event files beside the old ones; the
    journal never sends an epoch twice.
    """

    def __init__(self, folder: Path) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter
        from torch.utils.tensorboard import summary

        self._event, self._record, self._summary = Event, RecordWriter, summary
        self._folder, self._name = folder, f"events.out.tfevents.{time.time_ns() // 10**9:010d}.search"
        self._held: dict[int, list[Any]] = {}
        self._written: dict[int, float] = {}

    def begun(self, trial: TrialState) -> None:
        """Nothing to draw yet."""

    def reported(self, trial: TrialState, report: Report) -> None:
        logs: Mapping[str, Any] = report.logs
        points = {f"pretrain/{name}": logs.get(name) for name in ("train_loss", "spread", "lr")}
        points["pretrain/seconds"] = report.seconds
        points |= {f"streams/{name}": value for name, value in (logs.get("logs") or {}).items()}
        if report.rung and report.top1 is not None:
            points |= {"probe/top1": report.top1, "probe/loss": report.loss}
            points |= {f"probe/top1_{name}": top1 for name, (top1, _) in (logs.get("streams") or {}).items()}
        self._hold(trial, points, report.epoch)
        if report.rung or time.monotonic() - self._written.setdefault(trial.trial, time.monotonic()) > HOLD_S:
            self._write(trial.trial)

    def faltered(self, trial: TrialState, error: str) -> None:
        """A curve has no word for it."""

    def ended(self, trial: TrialState) -> None:
        last = trial.last_rung
        values = {name: value for name, value in trial.draws.items() if isinstance(value, bool | int | float | str)}
        metrics = {"hparam/epochs": float(max(trial.reports, default=0))}
        if last is not None and last.top1 is not None:
            metrics["hparam/top1"] = last.top1
        held = self._held.setdefault(trial.trial, [])
        for summary in self._summary.hparams(values | {"ended": trial.ended or ""}, metrics):
            held.append(self._event(wall_time=time.time(), summary=summary))
        self._hold(trial, metrics, 0)
        self._write(trial.trial)
        self._written.pop(trial.trial, None)

    def _hold(self, trial: TrialState, points: Mapping[str, Any], step: int) -> None:
        values = [self._value(tag, value) for tag, value in points.items() if isinstance(value, float)]
        event = self._event(wall_time=time.time(), step=step, summary={"value": values})
        self._held.setdefault(trial.trial, []).append(event)

    @staticmethod
    def _value(tag: str, value: float) -> dict[str, Any]:
        return {"tag": tag, "simple_value": value}

    def _write(self, number: int) -> None:
        """What is held of a trial, into its file."""
        held = self._held.pop(number, [])
        if not held:
            return
        self._written[number] = time.monotonic()
        path = self._folder / "trials" / trial_key(number) / "tb" / self._name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            records = self._record(file)
            if file.tell() == 0:
                records.write(self._event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
            for event in held:
                records.write(event.SerializeToString())

    def close(self) -> None:
        for number in list(self._held):
            self._write(number)
