"""One configuration at work: train an epoch, probe where asked, keep a checkpoint, go on after any interruption.

Free of Ray: `tuning/trial.py` wraps it for a cluster, `tuning/train.py` runs it in this process.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch

from methods.data import SkeletonDataset, Split
from methods.errors import InputError
from methods.training import checkpoint, evaluate
from methods.training.branches import Branches
from methods.training.config import from_dict
from methods.training.pretrain import Epoch, TrialEnded, pretrain, start
from methods.training.probe import ProbeConfig, ProbeResult
from tuning.datasets import DataSource
from tuning.engine.noise import Probed, clips_mark, encode_correct
from tuning.storage.checkpoints import Checkpoints
from tuning.storage.patience import patiently

T = TypeVar("T")
IN_ITS_FOLDER = Checkpoints(None)  # no store

CHECKPOINT = "checkpoint.pt"
CHECKPOINT_EVERY_S = 120.0
AWAY_S = 300.0  # so long a storage may be away before the trial is given up here, and tried again


@dataclass(frozen=True)
class Task:
    """What is to be done, in plain values that travel.

    ``config``: a ``TrialConfig`` as a dict. ``probe_at``: epochs to score at. ``train_on``: ``train`` (a search) or
    ``whole`` (train and validation subjects together). ``score``: ``validation`` or ``test``. ``folder``: where the
    checkpoint lives; all nodes must see it, unless there is a store. ``upto``: the first epoch whose score is not known
    yet; a checkpoint from beyond it is of no use, as it holds the score of its own epoch only.
    """

    key: str
    config: Mapping[str, Any]
    seed: int
    probe_at: tuple[int, ...]
    folder: str
    train_on: str = "train"
    score: str = "validation"
    keep: bool = False
    upto: int | None = None


def pick_device(want: str = "auto") -> torch.device:
    """``auto``: the GPU if this process has one."""
    if want == "auto":
        want = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(want)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"'{want}' is no device that trials run on; say auto, cpu, cuda or cuda:1")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device '{want}' was asked for, but PyTorch sees no GPU here")
    return device


class Session:
    """A task in progress. Each :meth:`step` is one epoch and gives one plain dict of results."""

    def __init__(
        self,
        task: Task,
        source: DataSource,
        probe: ProbeConfig,
        device: str = "auto",
        checkpoints: Checkpoints = IN_ITS_FOLDER,
        there: Callable[[], bool] = lambda: True,
        graphs: bool = False,
    ) -> None:
        """``graphs``: replay steps as CUDA graphs where the device and the method can.

        ``there``: whether the storage with the task's folder is there (an unmounted one looks like an empty one).
        """
        self.task, self.probe, self.checkpoints, self._there = task, probe, checkpoints, there
        self._patiently(lambda: None)
        config = from_dict(task.config)
        self.split = source.split()
        index = self.split.train if task.train_on == "train" else evaluate.whole_training(self.split)
        where = pick_device(device)
        store = source.store(config.frames, config.preprocess, where)
        self.run = start(config, store.clips, index, seed=task.seed, device=where, store=store, captured=graphs)
        checkpoints.fetch(task, task.upto)
        self.path = checkpoints.local(task) / CHECKPOINT
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

        Keys: ``epoch, rung, seconds, train_loss, spread, lr, logs, done``; where probed ``top1, loss, streams, fuse,
        clips, fitted_on, parameters`` (:func:`kept_parameters`), on validation ``correct, probed`` too
        (:func:`per_clip`); where the run cannot go on ``ended`` and ``detail`` instead of a score.
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
            self._patiently(lambda: checkpoint.save(self.path, self.run, result=result))
            self.checkpoints.push(self.task, self.run.epoch)
            self._saved = time.monotonic()
        return result

    def _patiently(self, call: Callable[[], T]) -> T:
        """A storage that is away for a minute holds a trial up, and does not end it. Raises ``WorkFailed``."""

        def attempt() -> T:
            if not self._there():
                raise OSError(errno.ENODEV, f"the run folder is away ({self.task.folder})")
            return call()

        return patiently(attempt, what=f"the checkpoint of {self.task.key}", for_s=AWAY_S)

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
                "fitted_on": found.fitted_on,
                "parameters": kept_parameters(self.run.model),
            }
            if self.task.score == "validation":  # of the test split only the means leave this process
                result |= per_clip(found)
        result["seconds"] = epoch.seconds + time.perf_counter() - begun
        return result

    def close(self) -> None:
        """Let go of what a device holds for this run: recordings refer to the run that refers to them."""
        self.run.replayer = None

    def score(self) -> ProbeResult:
        """Probe the model as it stands, on what the task says; below the top rung on ``probe.subset`` clips only."""
        run, seed = self.run, self.task.seed
        if self.task.score == "test":
            return evaluate.test(run.model, run.store, self.split, self.probe, seed=seed)
        below_top = run.epoch < min(run.config.epochs, max(self.task.probe_at, default=run.config.epochs))
        return evaluate.validate(run.model, run.store, self.split, self.probe, seed=seed, below_top=below_top)


def kept_parameters(model: Branches) -> int:
    """The numbers in the encoders that are probed, and kept after pretraining; heads and momentum copies are not."""
    return sum(p.numel() for p in torch.nn.ModuleList(model.encoders()).parameters())


def per_clip(found: ProbeResult) -> dict[str, Any]:
    """``correct``: which clips were classified rightly, by ascending index, as text; ``probed``: which clips they are.

    Text of 6,000 clips takes 1 kB (:func:`tuning.engine.noise.encode_correct`).
    """
    order = np.argsort(found.clips, kind="stable")
    return {"correct": encode_correct(found.correct[order]), "probed": clips_mark(found.clips)}


def probed(source: DataSource) -> Probed:
    """The validation clips that trials are scored on, and the subject of each, in the order of :func:`per_clip`."""
    clips = probed_clips(source.split())
    return Probed(clips_mark(clips), probe_subjects(source.dataset(), clips))


def probed_clips(split: Split) -> np.ndarray:
    """Ascending indices of the clips that validation scores: the held-out ones, or those in a fold of ``cv``."""
    return np.sort(split.validation if split.folds is None else split.train[split.folds >= 0])


def probe_subjects(dataset: SkeletonDataset, clips: np.ndarray) -> np.ndarray:
    """A group (n,) for each of ``clips``, int64 from 0: its subject.

    A clip of several persons belongs to the lowest id that is known, so that a pair is one group whoever is listed
    first; clips that share only another person still count as independent. Where no person is known, as in some
    archives, each clip is its own group, and the noise of such data is understated.
    """
    persons = np.asarray(dataset.subjects)[clips]
    nobody = np.iinfo(persons.dtype).max
    lowest = np.where(persons >= 0, persons, nobody).min(axis=1)
    unknown = lowest == nobody
    _, group = np.unique(lowest, return_inverse=True)
    group[unknown] = len(lowest) + np.arange(unknown.sum())
    return np.asarray(np.unique(group, return_inverse=True)[1], dtype=np.int64)
