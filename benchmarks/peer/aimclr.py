"""AimCLR as its public code trains it: a third, extreme view, whose encoder pass gives a second, dropped embedding.

Query, extreme view and key each run by themselves; the extreme pass pools its last map twice, whole and after the drop
of what it attends to (EADM). D3M compares softmax distributions over the own key and the queue; from ``mining_start``
on the queue's neighbours of all three are positives as well. As in the code, a drop of everything divides by zero (at
no threshold above 0.68: an average cell's attention is lower).
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from benchmarks.peer import augment
from benchmarks.peer.augment import Array
from benchmarks.peer.base import Views
from benchmarks.peer.moco import (
    HeadedSTGCN,
    MoCo,
    against_queue,
    check_views,
    first_is_right,
    nearest,
    over_positives,
)
from methods.data.layouts import Layout
from methods.training.config import TrialConfig


class TripleViews(Views):
    """An extreme view and two normal ones of each clip of a memory map (N, C, T, V, M)."""

    def __init__(self, config: TrialConfig, layout: Layout, data: Array, index: NDArray[np.int64]) -> None:
        self.how, self.order, self.data, self.index = config.augment, layout.mirror, data, index

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, i: int) -> tuple[NDArray[Any], ...]:
        clip = np.array(self.data[self.index[i]])
        return self._extreme(clip), self._normal(clip), self._normal(clip)

    def _normal(self, clip: Array) -> NDArray[Any]:
        return augment.shear(augment.crop(clip, self.how.crop), self.how.shear)

    def _extreme(self, clip: Array) -> NDArray[Any]:
        a = self.how
        view = self._normal(clip)
        if random.random() < a.flip:
            view = augment.flip(view, self.order, a.flip_reflect)
        if a.rotate:
            view = augment.rotate(view, a.rotate, a.rotate_both_ways)
        if a.noise and random.random() < a.noise_probability:
            view = augment.noise(view, a.noise, None if a.noise_absent else (clip != 0).any(axis=(0, 1, 2)))
        if random.random() < a.blur:
            view = augment.blur(view, a.blur_normalise)
        if random.random() < a.axis_mask:
            view = augment.mask_axis(view)
        if random.random() < a.time_flip:
            view = augment.reverse_time(view)
        return view


def attention(maps: Tensor) -> Tensor:
    """How far each cell of (B, C, T', V) lies from its channel's mean: a sigmoid of SimAM's energy."""
    cells = maps.shape[2] * maps.shape[3] - 1
    square = (maps - maps.mean(dim=[2, 3], keepdim=True)).pow(2)
    spread = square.sum(dim=[2, 3], keepdim=True) / cells
    return torch.sigmoid(square / (4 * (spread + 1e-4)) + 0.5)


@torch.no_grad()
def keep_masks(maps: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """1 where something stays: joints (B, V), and single cells as (B, C V, T')."""
    seen = attention(maps)
    b, c, t, v = seen.shape
    joints = (seen.mean(dim=[1, 2]) < threshold).to(maps.dtype)
    cells = (seen.permute(0, 1, 3, 2).contiguous().view(b, c * v, t) < threshold).to(maps.dtype)
    return joints, cells


def attention_drop(maps: Tensor, threshold: float) -> Tensor:
    """(B, C, T', V) without the joints, then without the cells that stand out, each scaled up by what is gone."""
    b, c, t, v = maps.shape
    joints, cells = keep_masks(maps, threshold)
    left = maps * joints.view(b, 1, 1, v) * joints.numel() / joints.sum()
    rows = left.permute(0, 1, 3, 2).contiguous().view(b, c * v, t)
    rows = rows * cells * cells.numel() / cells.sum()
    return rows.view(b, c, v, t).permute(0, 1, 3, 2)


class DroppingSTGCN(HeadedSTGCN):
    """The encoder, which can also give what it sees after the drop."""

    def whole_and_dropped(self, x: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
        """Projections (N, D) of one pass over clips (N, C, T, V, M): of the whole map, and of what the drop leaves."""
        maps = self.maps(x)
        whole = self.project(self.pool(maps, len(x)))
        return whole, self.project(self.pool(attention_drop(maps, threshold).contiguous(), len(x)))


class AimCLR(MoCo):
    """SkeletonCLR's networks and queue; two more students of the same queue."""

    method = "aimclr"
    encoder_class = DroppingSTGCN
    encoder_q: DroppingSTGCN

    @classmethod
    def views(cls, config: TrialConfig, layout: Layout, data: Array, index: NDArray[np.int64]) -> Views:
        check_views(config, extreme=True)
        return TripleViews(config, layout, data, index)

    def loss(self, batch: tuple[Tensor, ...], progress: float) -> Tensor:
        extreme, view_q, view_k = (self.of_stream(view) for view in batch)
        p = self.config.params
        q = F.normalize(self.encoder_q(view_q), dim=1)
        others = self.encoder_q.whole_and_dropped(extreme, p.drop_threshold)
        q_extreme, q_dropped = (F.normalize(each, dim=1) for each in others)
        k = self.key(view_k)
        cosines = [against_queue(each, k, self.queue) for each in (q, q_extreme, q_dropped)]
        logits, *others_logits = (torch.cat(each, dim=1) / p.temperature for each in cosines)
        teacher = torch.softmax(logits.clone().detach(), dim=1)
        students = [torch.softmax(each, dim=1) for each in others_logits]
        self.remember(k)
        if progress < p.mining_start:
            contrast = first_is_right(logits)
        else:
            contrast = over_positives(logits, self.mined([negative for _, negative in cosines]))
        first, second = (-torch.mean(torch.sum(torch.log(each) * teacher, dim=1)) for each in students)
        weight: float = p.d3m_weight
        return contrast + weight * (first + second) / 2.0

    def mined(self, queued: list[Tensor]) -> Tensor:
        """(N, 1+K) of 0 and 1: the own key, and the nearest queued ones of any of the three (N, K)."""
        found = torch.zeros_like(queued[0])
        for each in queued:
            found = torch.maximum(found, nearest(each, self.config.params.topk))
        return torch.cat([torch.ones_like(found[:, :1]), found], dim=1)
