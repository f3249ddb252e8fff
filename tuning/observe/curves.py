"""TensorBoard: one run a trial, with its hyperparameters, under ``trials/<id>/tb`` of the run folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuning.engine.state import Report, TrialState
from tuning.run_files import trial_key

logging.getLogger("tensorboard").setLevel(logging.ERROR)


class Curves:
    """Writes scalars as they come and the hyperparameters with the final score; `tensorboard --logdir RUN` shows both.

    A search that goes on writes further event files beside the old ones; the journal never sends an epoch twice.
    """

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._make = SummaryWriter
        self._folder = folder
        self._open: dict[int, Any] = {}

    def _writer(self, trial: TrialState) -> Any:
        if trial.trial not in self._open:
            where = self._folder / "trials" / trial_key(trial.trial) / "tb"
            self._open[trial.trial] = self._make(log_dir=str(where), flush_secs=30)
        return self._open[trial.trial]

    def begun(self, trial: TrialState) -> None:
        """Nothing to draw yet."""

    def reported(self, trial: TrialState, report: Report) -> None:
        writer = self._writer(trial)
        logs: Mapping[str, Any] = report.logs
        for name in ("train_loss", "spread", "lr"):
            if isinstance(logs.get(name), float):
                writer.add_scalar(f"pretrain/{name}", logs[name], report.epoch)
        writer.add_scalar("pretrain/seconds", report.seconds, report.epoch)
        for name, value in (logs.get("logs") or {}).items():
            if isinstance(value, float):
                writer.add_scalar(f"streams/{name}", value, report.epoch)
        if report.rung and report.top1 is not None:
            writer.add_scalar("probe/top1", report.top1, report.epoch)
            if report.loss is not None:
                writer.add_scalar("probe/loss", report.loss, report.epoch)
            for name, (top1, _) in (logs.get("streams") or {}).items():
                writer.add_scalar(f"probe/top1_{name}", top1, report.epoch)
            writer.flush()

    def faltered(self, trial: TrialState, error: str) -> None:
        """A curve has no word for it."""

    def ended(self, trial: TrialState) -> None:
        writer = self._writer(trial)
        last = trial.last_rung
        values = {name: value for name, value in trial.draws.items() if isinstance(value, bool | int | float | str)}
        metrics = {"hparam/epochs": float(max(trial.reports, default=0))}
        if last is not None and last.top1 is not None:
            metrics["hparam/top1"] = last.top1
        writer.add_hparams(values | {"ended": trial.ended or ""}, metrics, run_name=".")
        writer.close()
        del self._open[trial.trial]

    def close(self) -> None:
        for writer in self._open.values():
            writer.close()
        self._open.clear()
