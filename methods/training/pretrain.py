"""Pretraining as a generator of epochs: a for-loop that a reader can follow, with no callbacks.

run = start(config, clips, index, seed=0)
for epoch in pretrain(run):
    ...                                   # probe, save, stop: the caller decides
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from methods.errors import InputError
from methods.training.branches import Branches
from methods.training.clips import Clips, ClipStore
from methods.training.config import TrialConfig
from methods.training.features import spread
from methods.training.optim import learning_rate, make_optimiser, set_learning_rate
from methods.training.seeds import derive_seed, generator

COLLAPSE_SPREAD = 0.01
COLLAPSE_MIN_STEPS = 50
SPREAD_CLIPS = 128


class TrialEnded(Exception):
    """A run that cannot go on; ``reason`` is one word, ``detail`` the sentence that a log shows."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class Diverged(TrialEnded):
    """The loss became NaN or infinite."""

    def __init__(self, step: int) -> None:
        super().__init__("diverged", f"diverged at step {step}")


class Collapsed(TrialEnded):
    """All clips got the same feature."""

    def __init__(self, epoch: int, stream: str, value: float) -> None:
        super().__init__("collapsed", f"collapsed at epoch {epoch}: spread of {stream} features {value:.4f}")


@dataclass(frozen=True)
class Epoch:
    """One epoch's account: ``epoch`` counts those done, ``loss`` is its mean, ``spread`` the least over streams."""

    epoch: int
    step: int
    loss: float
    spread: float
    lr: float
    seconds: float
    logs: dict[str, float]


@dataclass
class Run:
    """All that changes while a configuration trains. Made by :func:`start`; stored by ``checkpoint``."""

    config: TrialConfig
    model: Branches
    optimiser: torch.optim.Optimizer
    store: ClipStore
    index: Tensor
    seed: int
    device: torch.device
    epoch: int = 0
    step: int = 0
    low_spread: int = 0

    @property
    def steps_per_epoch(self) -> int:
        """Full batches only, as published; what is left over differs from epoch to epoch."""
        return len(self.index) // self.config.optim.batch

    @property
    def total_steps(self) -> int:
        return self.steps_per_epoch * self.config.epochs


def start(
    config: TrialConfig, clips: Clips, index: np.ndarray, *, seed: int, device: torch.device | str = "cpu"
) -> Run:
    """Build model and optimiser for the training clips ``index`` of ``clips``. Same seed, same weights.

    Raises ``InputError`` when the batch is larger than the data, or the clips do not fit the config's frames.
    """
    device = torch.device(device)
    if config.optim.batch > len(index):
        raise InputError(f"optim.batch is {config.optim.batch} but there are only {len(index)} training clips")
    if clips.data.shape[2] != config.frames:
        raise InputError(f"the clips have {clips.data.shape[2]} frames, the configuration asks for {config.frames}")
    _, channels, _, _, persons = clips.data.shape
    model = Branches(config, clips.layout, seed, persons=persons, channels=channels).to(device)
    optimiser = make_optimiser(config.optim, model.parameters())
    return Run(config, model, optimiser, ClipStore(clips, device), torch.as_tensor(index), seed, device)


def pretrain(run: Run, until: int | None = None) -> Iterator[Epoch]:
    """Train ``run`` epoch by epoch, up to and including epoch ``until`` (default: the config's last).

    Raises :class:`Diverged` or :class:`Collapsed` when going on makes no sense.
    """
    last = run.config.epochs if until is None else min(until, run.config.epochs)
    watched = run.index[torch.randperm(len(run.index), generator=generator("cpu", run.seed, "watch"))[:SPREAD_CLIPS]]
    while run.epoch < last:
        begun = time.perf_counter()
        losses, logs = _one_epoch(run)
        _check_finite(run, losses)
        spreads = spread(run.model, run.store, watched)
        _check_spread(run, spreads)
        yield Epoch(
            epoch=run.epoch,
            step=run.step,
            loss=float(losses.mean()),
            spread=min(spreads.values()),
            lr=learning_rate(run.config.optim, (run.step - 1) / run.total_steps),
            seconds=time.perf_counter() - begun,
            logs=logs | {f"{stream}/spread": value for stream, value in spreads.items()},
        )


def _one_epoch(run: Run) -> tuple[Tensor, dict[str, float]]:
    """Take one epoch's steps; losses (steps,) are read from the device once, at its end."""
    run.model.train()
    batch = run.config.optim.batch
    order = run.index[torch.randperm(len(run.index), generator=generator("cpu", run.seed, "order", run.epoch))]
    views = generator(run.device, run.seed, "views", 0 if run.config.augment.repeat else run.epoch)
    losses: list[Tensor] = []
    logs: dict[str, list[Tensor]] = {}
    cuda = [run.device] if run.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(derive_seed(run.seed, "dropout", run.epoch))  # dropout has no generator of its own
        for i in range(run.steps_per_epoch):
            progress = run.step / run.total_steps
            set_learning_rate(run.optimiser, learning_rate(run.config.optim, progress))
            out = run.model(run.store.take(order[i * batch : (i + 1) * batch]), views, progress)
            run.optimiser.zero_grad(set_to_none=True)
            out.loss.backward()  # type: ignore[no-untyped-call]  # torch's own annotation is missing
            run.optimiser.step()
            run.model.after_step(progress)
            run.step += 1
            losses.append(out.loss.detach())
            for name, value in out.logs.items():
                logs.setdefault(name, []).append(value)
    run.epoch += 1
    return torch.stack(losses).cpu(), {name: float(torch.stack(values).mean()) for name, values in logs.items()}


def _check_finite(run: Run, losses: Tensor) -> None:
    bad = (~torch.isfinite(losses)).nonzero()
    if len(bad):
        raise Diverged(run.step - len(losses) + int(bad[0]) + 1)


def _check_spread(run: Run, spreads: dict[str, float]) -> None:
    """Two epoch ends in a row below the limit are a collapse, but never before 50 steps."""
    stream, value = min(spreads.items(), key=lambda item: -math.inf if math.isnan(item[1]) else item[1])
    if math.isnan(value):
        raise Diverged(run.step)
    low = value < COLLAPSE_SPREAD and run.step >= COLLAPSE_MIN_STEPS
    run.low_spread = run.low_spread + 1 if low else 0
    if run.low_spread >= 2:
        raise Collapsed(run.epoch, stream, value)
