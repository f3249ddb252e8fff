"""What a rung costs: the features of all clips, and the probe on them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from methods.data import Split
from methods.training.evaluate import validate
from methods.training.features import CPU_BATCH, GPU_BATCH, SETTLE_CLIPS
from methods.training.probe import ProbeConfig
from methods.training.run import Run
from methods.training.seeds import generator
from tuning.measuring.steps import settled

GROWTH = 4  # by how much more clips the probe is tried on the next time
NOISE = 0.1  # of stand-in features, in their standard deviations: no two clips are the same


@dataclass(frozen=True)
class RungTime:
    """Seconds of a rung with all ``of`` clips, scaled up from the ``clips`` whose features were really computed, and
    from the ``probed`` that the probe was really run on."""

    features: float
    probe: float
    clips: int
    probed: int
    of: int


def time_rung(run: Run, split: Split, probe: ProbeConfig, seconds: float, below_top: bool = False) -> RungTime:
    """A rung as a trial has it, of all clips where that takes ``seconds``, else of every so manieth of them.

    The probe is then run on more clips, as many as ``seconds`` allow, which borrow the features of those: what a probe
    costs does not grow with the clips as features do, and scaled up from a few it would be many times too much.
    ``below_top``: a rung below the last, as :func:`methods.training.evaluate.validate` has it.
    """
    whole = _Part(split, probe, 1, below_top, run.store.clips.num_classes)
    few = _few(whole, GPU_BATCH if run.device.type == "cuda" else CPU_BATCH)
    _Pass(run, few).real()  # the first pass pays for what is done once
    first = _Pass(run, few)
    first.real()
    affordable = math.ceil(first.features * whole.passed / few.passed / max(seconds, 1e-9))
    part = whole if affordable <= 1 else few if affordable >= few.stride else whole.every(affordable)
    done = first if part is few else _Pass(run, part)
    if part is not few:
        done.real()
    probed = _probed(run, done, part, whole, few, seconds)
    return RungTime(
        features=done.features * whole.passed / part.passed,
        probe=probed.probe * len(whole) / len(probed.part),
        clips=len(part),
        probed=len(probed.part),
        of=len(whole),
    )


def _probed(run: Run, done: _Pass, part: _Part, whole: _Part, few: _Part, seconds: float) -> _Pass:
    """A pass whose probe was run on as many clips as ``seconds`` allow: ``done``, or one on stand-in features."""
    if part is whole:
        return done
    stride, last = few.stride, done
    while stride > 1 and GROWTH * last.probe <= seconds:
        stride = max(1, stride // GROWTH)
        larger = _Pass(run, whole.every(stride))
        larger.on_stand_ins(done)
        last = larger
    return last


class _Pass:
    """A rung of ``run`` with a part of the clips. ``features``: seconds in which clips are fetched and embedded;
    ``probe``: all others."""

    def __init__(self, run: Run, part: _Part) -> None:
        self.run, self.part = run, part
        self.features = self.probe = 0.0
        self.seen: list[tuple[np.ndarray, dict[str, Tensor]]] = []

    def real(self) -> None:
        """With the encoder; its features are kept."""
        fetched: list[np.ndarray] = []
        take, embed = self.run.store.take, self.run.model.embed

        def took(index: Tensor) -> Tensor:
            fetched.append(index.numpy(force=True))
            return take(index)

        def embedded(clips: Tensor) -> dict[str, Tensor]:
            self.seen.append((fetched[-1], embed(clips)))
            return self.seen[-1][1]

        self._run(took, embedded)

    def on_stand_ins(self, done: _Pass) -> None:
        """Without it: a clip has the features of the nearest that ``done`` has seen, and a little noise."""
        # What settled the statistics came first, with others: the last features of a clip are those of the probe.
        index = np.concatenate([index for index, _ in done.seen])[::-1]
        known, rows = np.unique(index, return_index=True)
        back = torch.as_tensor(len(index) - 1 - rows)
        streams = list(done.seen[0][1])
        features = {
            name: torch.cat([found[name] for _, found in done.seen])[back.to(self.run.device)] for name in streams
        }
        noise = generator(self.run.device, self.run.seed, "stand-ins")

        def stood_in(index: Tensor) -> dict[str, Tensor]:
            at = torch.as_tensor(np.searchsorted(known, index.numpy(force=True)).clip(max=len(known) - 1))
            near = {name: found[at.to(found.device)].float() for name, found in features.items()}
            return {
                name: z + NOISE * z.std() * torch.randn(z.shape, generator=noise, device=z.device)
                for name, z in near.items()
            }

        self._run(lambda index: index, stood_in)

    def _run(self, take: Callable[[Tensor], Tensor], embed: Callable[[Tensor], dict[str, Tensor]]) -> None:
        run, part = self.run, self.part

        def timed(call: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
            def inner(given: Tensor) -> Any:
                begun = settled(run.device)
                out = call(given)
                self.features += settled(run.device) - begun
                return out

            return inner

        vars(run.model)["embed"], vars(run.store)["take"] = timed(embed), timed(take)
        try:
            begun = settled(run.device)
            validate(run.model, run.store, part.split, part.probe, run.seed, below_top=part.below_top)
            self.probe = settled(run.device) - begun - self.features
        finally:
            del vars(run.model)["embed"], vars(run.store)["take"]


class _Part:
    """Every ``stride``-th clip of a rung, as a split and a probe of their own."""

    def __init__(self, split: Split, probe: ProbeConfig, stride: int, below_top: bool, classes: int) -> None:
        self.stride, self.below_top = stride, below_top
        self.every: Callable[[int], _Part] = partial(_Part, split, probe, below_top=below_top, classes=classes)
        few = max(classes, probe.subset // stride)  # a probe on fewer clips than classes there is none
        self.probe = dataclasses.replace(probe, subset=few) if probe.subset else probe
        self.split = dataclasses.replace(
            split,
            train=split.train[::stride],
            validation=split.validation[::stride],
            folds=None if split.folds is None else split.folds[::stride],
        )

    @property
    def folds(self) -> int:
        """How many folds there are; one of held-out clips."""
        return 2 if self.split.folds is None else len(np.unique(self.split.folds[self.split.folds >= 0]))

    @property
    def fitted(self) -> int:
        """Clips that the probe is fitted on; with folds, those of all folds."""
        if self.split.folds is not None:
            return int((self.split.folds >= 0).sum())
        most = len(self.split.train)
        return min(self.probe.subset, most) if self.below_top and self.probe.subset else most

    def __len__(self) -> int:
        return self.fitted + len(self.split.validation)

    @property
    def passed(self) -> int:
        """Clips that go through the encoder, those that settle its statistics too."""
        settle_on = len(self.split.train) if self.split.folds is not None else self.fitted
        settled_on = -(-settle_on // max(1, -(-settle_on // SETTLE_CLIPS))) if self.probe.settle else 0
        return len(self) + settled_on


def _few(whole: _Part, batch: int) -> _Part:
    """About a batch of clips; all of them where a part would be of one fold only, and no probe could be fitted."""
    part = whole.every(-(-len(whole) // batch))
    return part if part.folds > 1 else whole
