"""Frozen features of un-augmented clips, with batch-norm statistics that fit them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from methods.losses import feature_spread
from methods.training.branches import Branches
from methods.training.clips import ClipStore

CPU_BATCH, GPU_BATCH = 64, 512
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def _batch_norms(model: nn.Module) -> list[nn.BatchNorm1d | nn.BatchNorm2d]:
    return [m for m in model.modules() if isinstance(m, BATCH_NORMS)]


@contextmanager
def _inference(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; the model leaves exactly as it came, its buffers and modes included."""
    modes = {name: m.training for name, m in model.named_modules()}
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    norms = [(m, m.momentum, m.track_running_stats) for m in _batch_norms(model)]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for m, momentum, track in norms:
            m.momentum, m.track_running_stats = momentum, track
        for name, b in model.named_buffers():
            b.copy_(buffers[name])
        for name, m in model.named_modules():
            m.training = modes[name]


def _encoders(model: Branches) -> nn.ModuleList:
    return nn.ModuleList(model.encoders())


def _settle(model: Branches, store: ClipStore, index: Tensor, batch: int) -> None:
    """Replace running statistics by their plain average over ``index``: early in training the moving ones lag behind.

    The statistics are those of un-augmented clips, which is what a probe sees.
    """
    for m in _batch_norms(_encoders(model)):
        m.reset_running_stats()
        m.momentum = None  # cumulative average
        m.train()
    # The average counts every part alike, so parts are of equal size; and they are interleaved, since a part of one
    # action only (datasets are often sorted) would know nothing of how actions differ.
    parts = max(1, -(-len(index) // batch))
    for i in range(parts):
        model.embed(store.take(index[i::parts]))
    for m in _batch_norms(_encoders(model)):
        m.eval()


def extract(
    model: Branches,
    store: ClipStore,
    index: Tensor,
    settle_on: Tensor | None,
    batch: int | None = None,
    settle_clips: int = 2048,
) -> dict[str, Tensor]:
    """Stream -> features (n, D) float32 of clips ``index``; the model is left untouched.

    ``settle_on``: indices of training clips from which batch-norm statistics are averaged first (at most
    ``settle_clips`` of them, evenly spaced), or None to use the running statistics as they stand. ``batch``: clips a
    pass; by default what suits the device (a CPU's caches hold a small batch, a GPU wants a large one).
    """
    batch = batch or (CPU_BATCH if store.device.type == "cpu" else GPU_BATCH)
    with _inference(model):
        if settle_on is not None:
            stride = max(1, -(-len(settle_on) // settle_clips))
            # The same parts on every device: statistics are averaged over them.
            _settle(model, store, settle_on[::stride], min(batch, CPU_BATCH))
        parts = [model.embed(store.take(part)) for part in index.split(batch)]
    return {name: torch.cat([p[name] for p in parts]).float() for name in parts[0]}


def spread(model: Branches, store: ClipStore, index: Tensor) -> dict[str, float]:
    """Stream -> spread of features (1 healthy, 0 collapsed) over clips ``index``, by the batch's own statistics."""
    with _inference(model):
        for m in _batch_norms(_encoders(model)):
            m.track_running_stats = False
            m.train()
        features = model.embed(store.take(index))
    return {name: float(feature_spread(z)) for name, z in features.items()}
