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

import torch
from torch import Generator, Tensor

from methods.training import captured
from methods.training.features import spread
from methods.training.optim import learning_rate
from methods.training.order import epoch_order
from methods.training.run import Run, start
from methods.training.seeds import derive_seed, generator
from methods.training.step import take_step

__all__ = [
    "Collapsed",
    "Diverged",
    "Epoch",
    "Run",
    "TrialEnded",
    "account",
    "order_of",
    "pretrain",
    "start",
    "views_seed",
]

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


def pretrain(run: Run, until: int | None = None) -> Iterator[Epoch]:
    """Train ``run`` epoch by epoch, up to and including epoch ``until`` (default: the config's last).

    Raises :class:`Diverged` or :class:`Collapsed` when going on makes no sense.
    """
    last = run.config.epochs if until is None else min(until, run.config.epochs)
    while run.epoch < last:
        begun = time.perf_counter()
        losses, logs = _one_epoch(run)
        yield account(run, losses, logs, begun)


def account(run: Run, losses: Tensor, logs: dict[str, float], begun: float) -> Epoch:
    """What is told of an epoch that ``run`` has just finished, begun at ``begun`` by ``time.perf_counter``.

    ``losses``: (steps,) on the host. Looks at the features' spread. Raises :class:`Diverged` or :class:`Collapsed`.
    """
    _check_finite(run, losses)
    drawn = torch.randperm(len(run.index), generator=generator("cpu", run.seed, "watch"))
    spreads = spread(run.model, run.store, run.index[drawn[:SPREAD_CLIPS]])
    _check_spread(run, spreads)
    return Epoch(
        epoch=run.epoch,
        step=run.step,
        loss=float(losses.mean()),
        spread=min(spreads.values()),
        lr=learning_rate(run.config.optim, (run.step - 1) / run.total_steps),
        seconds=time.perf_counter() - begun,
        logs=logs | {f"{stream}/spread": value for stream, value in spreads.items()},
    )


def order_of(run: Run) -> Tensor:
    """(steps, batch) indices of the run's next epoch, where its store wants them."""
    draws = generator("cpu", run.seed, "order", run.epoch)
    order = epoch_order(run.index, run.strata, run.config.optim.batch, run.steps_per_epoch, draws)
    return order.to(run.store.home)


def views_seed(run: Run) -> int:
    """What the views of the run's next epoch are drawn from."""
    return derive_seed(run.seed, "views", 0 if run.config.augment.repeat else run.epoch)


def _one_epoch(run: Run) -> tuple[Tensor, dict[str, float]]:
    """Take one epoch's steps; losses (steps,) and logs are read from the device once, at its end."""
    run.model.train()
    order, seed = order_of(run), views_seed(run)
    cuda = [run.device] if run.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(derive_seed(run.seed, "dropout", run.epoch))  # dropout has no generator of its own
        if run.captured and run.device.type == "cuda" and not captured.why_not(run):
            losses, logs = captured.epoch(run, order, seed)
        else:
            losses, logs = _plain_epoch(run, order, Generator(run.device).manual_seed(seed))
    run.epoch += 1
    read = torch.cat([losses.double(), *(value.double()[None] for value in logs.values())]).cpu()
    return read[: len(losses)], dict(zip(logs, read[len(losses) :].tolist(), strict=True))


def _plain_epoch(run: Run, order: Tensor, views: Generator) -> tuple[Tensor, dict[str, Tensor]]:
    """The steps of ``order`` (steps, batch), one by one: losses (steps,), and the mean of each log that came up."""
    losses: list[Tensor] = []
    logs: dict[str, list[Tensor]] = {}
    for index in order:
        out = take_step(run, index, views)
        losses.append(out.loss.detach())
        for name, value in out.logs.items():
            logs.setdefault(name, []).append(value)
    return torch.stack(losses), {name: torch.stack(values).mean() for name, values in logs.items()}


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
