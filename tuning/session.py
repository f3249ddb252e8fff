"""One configuration at work: train an epoch, probe where asked, keep a checkpoint, go on after any interruption.

Free of Ray: `tuning/trial.py` wraps it for a cluster, `tuning/train.py` runs it in this process.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from methods.errors import InputError
from methods.training import checkpoint, evaluate
from methods.training.config import from_dict
from methods.training.pretrain import Epoch, TrialEnded, pretrain, start
from methods.training.probe import ProbeConfig, ProbeResult
from tuning.datasets import DataSource

CHECKPOINT = "checkpoint.pt"
CHECKPOINT_EVERY_S = 120.0


@dataclass(frozen=True)
class Task:
    """What is to be done, in plain values that travel.

    ``config``: a ``TrialConfig`` as a dict. ``probe_at``: epochs to score at. ``train_on``: ``train`` (a search) or
    ``whole`` (train and validation subjects together). ``score``: ``validation`` or ``test``. ``folder``: where the
    checkpoint lives; all nodes must see it.
    """

    key: str
    config: Mapping[str, Any]
    seed: int
    probe_at: tuple[int, ...]
    folder: str
    train_on: str = "train"
    score: str = "validation"
    keep: bool = False


def pick_device(want: str = "auto") -> torch.device:
    """``auto``: the GPU if this process has one."""
    if want == "auto":
        want = "cuda" if torch.cuda.is_available() else "cpu"
    if want.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"device '{want}' was asked for, but PyTorch sees no GPU here")
    return torch.device(want)


class Session:
    """A task in progress. Each :meth:`step` is one epoch and gives one plain dict of results."""

    def __init__(self, task: Task, source: DataSource, probe: ProbeConfig, device: str = "auto") -> None:
        self.task, self.probe = task, probe
        config = from_dict(task.config)
        self.split = source.split()
        clips = source.clips(config.frames, config.preprocess)
        index = self.split.train if task.train_on == "train" else evaluate.whole_training(self.split)
        self.run = start(config, clips, index, seed=task.seed, device=pick_device(device))
        self.path = Path(task.folder) / CHECKPOINT
        self._again: dict[str, Any] | None = None
        self._saved = time.monotonic()
        if self.path.is_file():
            self._resume()
        self._epochs = pretrain(self.run)

    def _resume(self) -> None:
        state = checkpoint.read(self.path, self.run.device)
        checkpoint.restore(state, self.run)
        # The result of that epoch may have been lost between the checkpoint and whoever listens: give it again.
        self._again = state["extra"].get("result")

    def step(self) -> dict[str, Any]:
        """One epoch, or the stored result of the last one before an interruption.

        Keys: ``epoch, rung, seconds, train_loss, spread, lr, logs, done``; where probed ``top1, loss, streams, fuse``;
        where the run cannot go on ``ended`` and ``detail`` instead of a score.
        """
        if self._again is not None:
            again, self._again = self._again, None
            return again
        try:
            epoch = next(self._epochs)
        except TrialEnded as end:
            return {"epoch": self.run.epoch, "rung": False, "ended": end.reason, "detail": end.detail, "done": True}
        except StopIteration:
            raise InputError(f"{self.task.key} is already trained to epoch {self.run.epoch}") from None
        result = self._result(epoch)
        overdue = time.monotonic() - self._saved > CHECKPOINT_EVERY_S
        if result["rung"] or overdue or result["done"]:
            checkpoint.save(self.path, self.run, result=result)
            self._saved = time.monotonic()
        return result

    def _result(self, epoch: Epoch) -> dict[str, Any]:
        begun = time.perf_counter()
        rung = epoch.epoch in self.task.probe_at
        result: dict[str, Any] = {
            "epoch": epoch.epoch,
            "rung": rung,
            "train_loss": epoch.loss,
            "spread": epoch.spread,
            "lr": epoch.lr,
            "logs": dict(epoch.logs),
            "done": epoch.epoch >= self.run.config.epochs,
        }
        if rung:
            found = self.score()
            result |= {
                "top1": found.top1,
                "loss": found.loss,
                "streams": {name: list(pair) for name, pair in found.streams.items()},
                "fuse": list(found.fuse),
                "clips": len(found.clips),
            }
        result["seconds"] = epoch.seconds + time.perf_counter() - begun
        return result

    def score(self) -> ProbeResult:
        """Probe the model as it stands, on what the task says."""
        judge = evaluate.test if self.task.score == "test" else evaluate.validate
        return judge(self.run.model, self.run.store, self.split, self.probe, seed=self.task.seed)
