"""Frozen features of un-augmented clips, with batch-norm statistics that fit them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from methods.filled import present_bodies
from methods.losses import feature_spread
from methods.nn.encoder import Encoder
from methods.nn.stgcn import STGCN
from methods.training.branches import Branches
from methods.training.clips import ClipStore

CPU_BATCH, GPU_BATCH = 32, 512  # clips a pass: what a core's cache holds; what a GPU is busy with
SETTLE_PART, SETTLE_CLIPS = 64, 2048  # on every device: settled statistics are an average over such parts
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)

_Norm = nn.BatchNorm1d | nn.BatchNorm2d


def _batch_norms(model: nn.Module) -> list[_Norm]:
    return [m for m in model.modules() if isinstance(m, BATCH_NORMS)]


def _encoders(model: Branches) -> nn.ModuleList:
    return nn.ModuleList(model.encoders())


@contextmanager
def _inference(model: Branches) -> Iterator[None]:
    """Evaluation mode without gradients; the model leaves exactly as it came, its modes and buffers included.

    Only the encoders' buffers are put by: nothing here writes to others, and queues are large.
    """
    encoders = _encoders(model)
    modes = {name: m.training for name, m in model.named_modules()}
    buffers = {name: b.clone() for name, b in encoders.named_buffers()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for name, b in encoders.named_buffers():
            b.copy_(buffers[name])
        for name, m in model.named_modules():
            m.training = modes[name]


@contextmanager
def _in_bf16(model: Branches, device: torch.device) -> Iterator[None]:
    """Every encoder's pass under autocast: an encoder with a setting of its own follows that, any other the outside."""
    own: list[tuple[Any, Any]] = [(e, e.config) for e in model.encoders() if hasattr(e, "config")]
    for encoder, config in own:
        if hasattr(config, "precision"):
            encoder.config = dataclasses.replace(config, precision="bf16")
    try:
        with torch.autocast(device.type, torch.bfloat16):
            yield
    finally:
        for encoder, config in own:
            encoder.config = config


# --- batch-norm statistics --------------------------------------------------------------------------------------------


@dataclasses.dataclass
class _Crowd:
    """Of how many bodies the rows of a pass speak: ``rows`` of them, the last of which stands for ``last`` bodies."""

    rows: int = 0
    last: int = 1

    def count(self, _encoder: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Look at clips (N, C, T, V, M) on their way into an ST-GCN, which runs one empty body for all of them."""
        there = int(present_bodies(inputs[0]).sum())
        self.rows, self.last = there + 1, inputs[0].shape[0] * inputs[0].shape[4] - there

    def behind_last(self, rows: int) -> int:
        """How many bodies the last of ``rows`` rows stands for."""
        return self.last if rows == self.rows else 1


class _Settled:
    """A norm on its way through the parts: its buffers hold one part's statistics, ``total`` (2, C) the sum of all."""

    def __init__(self, mean: Tensor, var: Tensor, crowd: _Crowd) -> None:
        self.mean, self.var, self.crowd = mean, var, crowd
        self.parts, self.total = 0, torch.zeros_like(torch.stack([mean, var]))

    def look(self, _norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Before the norm runs in evaluation mode: give it the statistics of its own input."""
        mean, var, count = moments(inputs[0], self.crowd.behind_last(len(inputs[0])))
        self.mean.copy_(mean)
        self.var.copy_(var)
        self.parts += 1
        self.total += torch.stack([mean, var * (count / max(1, count - 1))])  # as training mode keeps them: unbiased

    def settle(self) -> None:
        """Once all parts went through."""
        if self.parts:
            mean, var = self.total / self.parts
            self.mean.copy_(mean)
            self.var.copy_(var)


def moments(x: Tensor, last: int = 1) -> tuple[Tensor, Tensor, int]:
    """Mean and variance (C,) over all but the channels of ``x`` (B, C, ...), and how many values each is of.

    The last row counts ``last`` times. In float32 at least.
    """
    x = (x if x.dtype == torch.float64 else x.float()).reshape(x.shape[0], x.shape[1], -1)
    count = (len(x) - 1 + last) * x.shape[2]

    def mean_of(values: Tensor) -> Tensor:
        rows = values.sum(2)  # (B, C)
        return (rows.sum(0) + (last - 1) * rows[-1]) / count

    mean = mean_of(x)
    return mean, mean_of((x - mean[:, None]).square_()), count


@contextmanager
def _own_statistics(model: Branches) -> Iterator[list[_Settled]]:
    """Each norm of the encoders is given its input's own statistics just before it runs, as in training mode.

    All stays in evaluation mode, so that an encoder may leave out what is needless there.
    """
    found: list[_Settled] = []
    with ExitStack() as hooks:
        for encoder in model.encoders():
            crowd = _Crowd()
            if _folds_all_bodies(encoder):
                hooks.callback(encoder.register_forward_pre_hook(crowd.count).remove)
            for norm in _batch_norms(encoder):
                if norm.running_mean is not None and norm.running_var is not None:
                    found.append(_Settled(norm.running_mean, norm.running_var, crowd))
                    hooks.callback(norm.register_forward_pre_hook(found[-1].look).remove)
        yield found


def _settle(model: Branches, store: ClipStore, index: Tensor, part: int) -> None:
    """Replace running statistics by their plain average over ``index``: early in training the moving ones lag behind.

    The statistics are those of un-augmented clips, which is what a probe sees.
    """
    # The average counts every part alike, so parts are of equal size; and they are interleaved, since a part of one
    # action only (datasets are often sorted) would know nothing of how actions differ.
    parts = max(1, -(-len(index) // part))
    with _own_statistics(model) as norms:
        for i in range(parts if norms else 0):
            model.embed(store.take(index[i::parts]))
    for norm in norms:
        norm.settle()


def _folds_all_bodies(encoder: Encoder) -> bool:
    """Whether rows of the encoder's pass are bodies, empty ones too, of which evaluation runs one for all."""
    return isinstance(encoder, STGCN) and encoder.config.bodies == "all"


# --- features ---------------------------------------------------------------------------------------------------------


def extract(
    model: Branches,
    store: ClipStore,
    index: Tensor,
    settle_on: Tensor | None,
    batch: int | None = None,
    settle_clips: int = SETTLE_CLIPS,
    precision: str = "fp32",
) -> dict[str, Tensor]:
    """Stream -> features (n, D) float32 of clips ``index``; the model is left untouched.

    ``settle_on``: indices of training clips from which batch-norm statistics are averaged first (at most
    ``settle_clips`` of them, evenly spaced), or None to use the running statistics as they stand. ``batch``: clips a
    pass; by default what suits the device. ``precision``: bf16 runs the encoders under autocast, but never while
    statistics settle; unsettled ones can leave so little spread in the features that bf16 rounds it away.
    """
    part = min(batch or SETTLE_PART, SETTLE_PART)
    batch = batch or (CPU_BATCH if store.device.type == "cpu" else GPU_BATCH)
    with _inference(model):
        if settle_on is not None:
            stride = max(1, -(-len(settle_on) // settle_clips))
            _settle(model, store, settle_on[::stride], part)
        lower: Any = partial(_in_bf16, model, store.device) if precision == "bf16" else ExitStack
        with lower():
            parts = [model.embed(store.take(part)) for part in index.split(batch)]
    return {name: torch.cat([p[name].float() for p in parts]) for name in parts[0]}


def spread(model: Branches, store: ClipStore, index: Tensor) -> dict[str, float]:
    """Stream -> spread of features (1 healthy, 0 collapsed) over clips ``index``, by the batch's own statistics."""
    with _inference(model), _own_statistics(model):
        features = model.embed(store.take(index))
    return {name: float(feature_spread(z)) for name, z in features.items()}
