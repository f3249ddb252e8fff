"""What the codes of the CrosSCLR family (CrosSCLR, AimCLR, SkeleMixCLR, CMCS) share, and MoCo's parts in three of them.

Every encoder carries its head inside, a queue lies as columns (D, K), its batches must divide it, and a stream is taken
from the augmented clips of a batch, bone by bone. Settings that the codes have no counterpart of are refused by name.
N clips, C channels, T frames, V joints, M persons, D projection width, K queued keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.peer.augment import Array
from benchmarks.peer.base import Peer, Views, follow, frozen_copy
from benchmarks.peer.skeletonclr import TwoViews, published_init
from benchmarks.peer.stgcn import STGCN
from methods.data.layouts import Layout
from methods.nn.graph import adjacency
from methods.training.config import TrialConfig

# --- settings -------------------------------------------------------------------------------------------------------

_STEP: Mapping[str, Any] = {
    "encoder.depth": 10,
    "encoder.input_norm": "joint",
    "encoder.segments": 1,
    "encoder.init": "normal",
    "encoder.bodies": "all",
    "encoder.precision": "fp32",
    "optim.name": "sgd",
    "optim.nesterov": False,
    "params.momentum_schedule": "constant",
    "params.ema_buffers": "own",
}
_VIEWS: Mapping[str, Any] = {
    "augment.strength": 1.0,
    "augment.crop_resize": 0.0,
    "augment.shear_probability": 1.0,
    "augment.corrupt": 0.0,
    "augment.joint_mask": 0.0,
    "augment.segment_mask": 0.0,
    "augment.per_batch": False,
    "augment.repeat": False,  # comes of the seeds of worker processes, and a peer's loader has none
}
_NORMAL: Mapping[str, Any] = {
    "augment.flip": 0.0,
    "augment.rotate": 0.0,
    "augment.noise": 0.0,
    "augment.blur": 0.0,
    "augment.axis_mask": 0.0,
    "augment.time_flip": 0.0,
}
_EXTREME: Mapping[str, Any] = {"augment.rotate_probability": 1.0}


def _others(config: TrialConfig, only: Mapping[str, Any]) -> list[str]:
    """A clause for each setting that is not as in ``only``; a setting that a method lacks is."""
    faults = []
    for name, wanted in only.items():
        part, _, field = name.partition(".")
        value = getattr(getattr(config, part), field, wanted)
        if value != wanted:
            faults.append(f"{name} is {value!r}, here it can only be {wanted!r}")
    return faults


def _refuse(config: TrialConfig, faults: list[str]) -> None:
    if faults:
        raise NotImplementedError(f"the peer of {config.method} does not do this: {'; '.join(faults)}")


def check_step(config: TrialConfig, joint_method: bool = False) -> None:
    """Raise ``NotImplementedError`` naming each setting of networks and optimiser that the official code does not have.

    ``joint_method``: the code trains several streams at once.
    """
    faults = _others(config, _STEP)
    use, weights = config.streams.use, config.streams.loss_weights()
    if any(abs(weight - 1) > 1e-12 for weight in weights):
        faults.append(f"streams.loss is {config.streams.loss!r}, here it can only be 'equal'")
    if len(use) > 1 and not joint_method:
        faults.append(f"streams.use is {', '.join(use)}, here it can only be one stream")
    _refuse(config, faults)


def check_views(config: TrialConfig, extreme: bool = False) -> None:
    """The same for the views; ``extreme``: the code has the ops of AimCLR's extreme view."""
    faults = _others(config, dict(_VIEWS) | dict(_EXTREME if extreme else _NORMAL))
    if config.augment.crop == 0:
        faults.append("augment.crop is 0, here every view is cropped")
    _refuse(config, faults)


# --- views and streams ----------------------------------------------------------------------------------------------


def derived(view: Tensor, stream: str, layout: Layout) -> Tensor:
    """Joints, their motion, or the bones between them, all (N, C, T, V, M); the root is paired with itself."""
    if stream == "joint":
        return view
    out = torch.zeros_like(view)
    if stream == "motion":
        out[:, :, :-1] = view[:, :, 1:] - view[:, :, :-1]
        return out
    for joint, parent in enumerate(layout.parents):
        out[:, :, :, joint] = view[:, :, :, joint] - view[:, :, :, parent if parent >= 0 else joint]
    return out


# --- networks -------------------------------------------------------------------------------------------------------


def make_backbone(config: TrialConfig, layout: Layout) -> STGCN:
    """The ST-GCN of the configuration: clips -> pooled features (N, dim)."""
    e = config.encoder
    return STGCN(adjacency(layout, e.partition), e.width, e.dim, e.dropout)


def head(width: int, hidden: int, out: int, batch_norm: bool = False) -> nn.Sequential:
    """Linear, batch norm where wanted, ReLU, linear."""
    norm = [nn.BatchNorm1d(hidden)] if batch_norm else []
    return nn.Sequential(nn.Linear(width, hidden), *norm, nn.ReLU(), nn.Linear(hidden, out))


class HeadedSTGCN(STGCN):
    """The backbone with its head inside, as ``fc``: clips -> projections (N, D)."""

    def __init__(self, config: TrialConfig, layout: Layout, fc: nn.Module) -> None:
        e = config.encoder
        super().__init__(adjacency(layout, e.partition), e.width, e.dim, e.dropout)
        self.fc = fc

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.pool(self.maps(x), len(x)))

    def maps(self, x: Tensor) -> Tensor:
        """The last feature map (N M, dim, T', V) of clips (N, C, T, V, M)."""
        n, c, t, v, m = x.shape
        x = x.permute(0, 4, 3, 1, 2).contiguous().view(n * m, v * c, t)
        x = self.data_bn(x).view(n, m, v, c, t).permute(0, 1, 3, 4, 2).contiguous().view(n * m, c, t, v)
        for block, importance in zip(self.blocks, self.importance, strict=True):
            x = block(x, self.graph * importance)
        return x

    def pool(self, maps: Tensor, n: int) -> Tensor:
        """(N M, dim, T', V) -> (N, dim): the mean over time and joints, then over bodies."""
        return nn.functional.avg_pool2d(maps, maps.shape[2:]).view(n, len(maps) // n, -1).mean(1)

    def project(self, features: Tensor) -> Tensor:
        """(N, dim) -> (N, D)."""
        projected: Tensor = self.fc(features)
        return projected


def same_or_fresh(slow: nn.Module, online: nn.Module, same: bool) -> None:
    """Give ``slow`` no gradients, and the weights of ``online``, or, as in the codes, leave it its own draws."""
    if same:
        frozen_copy(slow, online)
    slow.requires_grad_(False)


# --- MoCo -----------------------------------------------------------------------------------------------------------


def new_queue(dim: int, size: int) -> Tensor:
    """(D, K) random unit columns."""
    return nn.functional.normalize(torch.randn(dim, size), dim=0)


@torch.no_grad()
def dequeue_and_enqueue(queue: Tensor, pointer: Tensor, keys: Tensor) -> None:
    """Overwrite the oldest columns of ``queue`` (D, K) by ``keys`` (N, D); the pointer (1,) stays where it is."""
    batch, size = keys.shape[0], queue.shape[1]
    if size % batch:
        raise ValueError(f"the queue ({size}) must be a multiple of the batch ({batch})")
    at = int(pointer)
    queue[:, at : at + batch] = keys.T


@torch.no_grad()
def move_pointer(queue: Tensor, pointer: Tensor, batch: int) -> None:
    """Forward by a batch, round the end."""
    pointer[0] = (pointer[0] + batch) % queue.shape[1]


def against_queue(q: Tensor, k: Tensor, queue: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines of unit queries with their own keys (N, 1) and with the queue (N, K)."""
    positive = torch.einsum("nc,nc->n", q, k).unsqueeze(-1)
    negative = torch.einsum("nc,ck->nk", q, queue.clone().detach())
    return positive, negative


def first_is_right(logits: Tensor) -> Tensor:
    """Cross entropy of ``logits`` (N, L) whose first column is the positive."""
    return nn.functional.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))


def nearest(cosines: Tensor, topk: int) -> Tensor:
    """(N, K) of 0 and 1: the ``topk`` largest of every row."""
    _, index = torch.topk(cosines, topk, dim=1)
    return torch.zeros_like(cosines).scatter_(1, index, 1)


def over_positives(logits: Tensor, positives: Tensor) -> Tensor:
    """-log softmax of ``logits`` (N, L), the mean over a row's ``positives`` (N, L) of 0 and 1, then over N."""
    return -((nn.functional.log_softmax(logits, dim=1) * positives).sum(1) / positives.sum(1)).mean()


class MoCo(Peer):
    """A query encoder, a key encoder, and a queue of keys: what AimCLR and SkeleMixCLR build on."""

    encoder_class: ClassVar[type[HeadedSTGCN]] = HeadedSTGCN
    encoder_q: HeadedSTGCN
    encoder_k: HeadedSTGCN
    queue: Tensor
    queue_ptr: Tensor

    def __init__(self, config: TrialConfig, layout: Layout, persons: int = 2) -> None:
        super().__init__(config, layout, persons)
        check_step(config)
        p, width = config.params, config.encoder.dim
        (self.stream,) = config.streams.use
        for name in ("encoder_q", "encoder_k"):
            fc = head(width, p.hidden, p.projection, p.projector_norm)
            setattr(self, name, self.encoder_class(config, layout, fc).apply(published_init))
        same_or_fresh(self.encoder_k, self.encoder_q, p.init_sync)
        self.register_buffer("queue", new_queue(p.projection, p.queue))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))

    @classmethod
    def views(cls, config: TrialConfig, layout: Layout, data: Array, index: NDArray[np.int64]) -> Views:
        check_views(config)
        return TwoViews(data, index, config.augment.crop, config.augment.shear)

    def of_stream(self, view: Tensor) -> Tensor:
        """The stream of a view (N, C, T, V, M) that this run trains on."""
        return derived(view, self.stream, self.layout)

    def key(self, view: Tensor) -> Tensor:
        """Move the key encoder, then run it: unit keys (N, D), no gradient."""
        with torch.no_grad():
            follow(self.encoder_k, self.encoder_q, self.config.params.momentum)
            return nn.functional.normalize(self.encoder_k(view), dim=1)

    def remember(self, keys: Tensor) -> None:
        """Write a batch of keys (N, D) into the queue and move on."""
        dequeue_and_enqueue(self.queue, self.queue_ptr, keys)
        move_pointer(self.queue, self.queue_ptr, len(keys))
