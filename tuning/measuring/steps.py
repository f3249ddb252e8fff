"""The steps of a run by the clock: samples a second, and the share of each part of a step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from methods.training.features import spread
from methods.training.pretrain import SPREAD_CLIPS, order_of, views_seed
from methods.training.run import Run
from methods.training.seeds import derive_seed
from methods.training.step import PARTS, Mark, take_step


@dataclass(frozen=True)
class StageTime:
    """One stage of a method: it begins at the share ``start`` of a run; seconds of one step, and of each part of it."""

    name: str
    start: float
    steps: int
    seconds: float
    parts: dict[str, float]


class Stepper:
    """Takes steps as training does, on the batches of the first epoch, for ever; always at the same progress."""

    def __init__(self, run: Run, start: float = 0.0) -> None:
        self.run = run
        self._at = min(math.ceil(start * run.total_steps), run.total_steps - 1)
        self._order = order_of(run)
        self._views = torch.Generator(run.device).manual_seed(views_seed(run))
        self._next = 0
        run.model.train()

    @property
    def batch(self) -> int:
        """Clips of one step."""
        return self.run.config.optim.batch

    def take(self, mark: Mark | None = None) -> None:
        """One step; it leaves nothing on the host."""
        index: Tensor = self._order[self._next % len(self._order)]
        self._next += 1
        self.run.step = self._at
        take_step(self.run, index.to(self.run.store.home), self._views, mark)


def settled(device: torch.device) -> float:
    """The time when all that was asked of ``device`` is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def time_stage(run: Run, name: str, start: float, steps: int, seconds: float) -> StageTime:
    """Up to ``steps`` steps, or as many as begin within ``seconds``, at least one; a first one is not counted.

    A GPU is asked for whole steps, and then again for their parts: waiting for each part would slow the step down.
    """
    stepper = Stepper(run, start)
    with torch.random.fork_rng(devices=[run.device] if run.device.type == "cuda" else []):
        torch.manual_seed(derive_seed(run.seed, "dropout", 0))
        stepper.take()
        parts = dict.fromkeys(PARTS, 0.0)
        taken, whole = _for_a_while(stepper, steps, seconds, _adding(run.device, parts))
        if run.device.type == "cuda":
            taken, whole = _for_a_while(stepper, steps, seconds, None)
    summed = sum(parts.values()) or 1.0
    return StageTime(name, start, taken, whole / taken, {p: s / summed * whole / taken for p, s in parts.items()})


def _for_a_while(
    stepper: Stepper, steps: int, seconds: float, marks: Callable[[float], Mark] | None
) -> tuple[int, float]:
    """Steps taken, and the seconds they took."""
    device = stepper.run.device
    begun = settled(device)
    taken = 0
    while taken < steps and (not taken or time.perf_counter() - begun < seconds):
        stepper.take(marks(time.perf_counter()) if marks is not None else None)
        taken += 1
    return taken, settled(device) - begun


def _adding(device: torch.device, parts: dict[str, float]) -> Callable[[float], Mark]:
    """Marks that add what passed since the last one to its part; a step begins at the time given."""

    def begin(last: float) -> Mark:
        def mark(part: str) -> None:
            nonlocal last
            now = settled(device)
            parts[part] += now - last
            last = now

        return mark

    return begin


def time_spread(run: Run) -> float:
    """Seconds of the look at the features' spread at the end of every epoch."""
    begun = settled(run.device)
    spread(run.model, run.store, run.index[:SPREAD_CLIPS])
    return settled(run.device) - begun


def samples_within(stepper: Stepper, seconds: float) -> tuple[int, float]:
    """Samples trained on in about ``seconds``, and the seconds it really took."""
    taken, spent = _for_a_while(stepper, 10**9, seconds, None)
    return taken * stepper.batch, spent
