"""PSTL and SkeletonBT as PSTL's public code trains them: views made of a whole batch, the D x D matrix of Barlow Twins.

The views are made in the step, with one draw for all clips of a batch; with ``augment.per_batch`` off every clip has
its own draws, for the same operations. Written anew from the published description (arXiv:2302.09018); the head bears
the official names. N clips, C channels, T frames, V joints, M persons, D projection width; n draws, 1 or N.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.peer import augment
from benchmarks.peer.augment import Array
from benchmarks.peer.base import Peer, Views
from benchmarks.peer.moco import derived
from benchmarks.peer.stgcn import STGCN
from methods.data.layouts import Layout
from methods.nn.graph import adjacency
from methods.training.config import TrialConfig

OPS = ("crop", "shear", "rotate", "flip", "per_batch")
ONLY = {
    "encoder.depth": (10,),
    "encoder.input_norm": ("joint",),
    "encoder.segments": (1,),
    "encoder.init": ("torch",),
    "encoder.bodies": ("all",),
    "encoder.precision": ("fp32",),
    "streams.use": (("joint",), ("motion",), ("bone",)),
    "optim.name": ("adam",),
    "optim.order": ("shuffled",),
}


# --- the ops, on a batch (N, C, T, V, M) ---


def crop(x: Tensor, rho: float, starts: Sequence[int]) -> Tensor:
    """Mirror T/rho frames at both ends, keep T frames from a start in 0..2 T/rho, one for all or one for each clip."""
    frames = x.shape[2]
    pad = int(frames / rho)
    padded = torch.cat([x[:, :, :pad].flip(2), x, x[:, :, frames - pad :].flip(2)], dim=2)
    if len(starts) == 1:
        return padded[:, :, starts[0] : starts[0] + frames]
    return torch.stack([clip[:, s : s + frames] for clip, s in zip(padded, starts, strict=True)])


def shear(x: Tensor, matrices: Tensor) -> Tensor:
    """x' = S^T x; ``matrices`` (n, 3, 3)."""
    if len(matrices) == 1:
        return torch.einsum("nctvm,cd->ndtvm", x, matrices[0])
    return torch.einsum("nctvm,ncd->ndtvm", x, matrices)


def rotate(x: Tensor, angles: Sequence[Sequence[float]]) -> Tensor:
    """Turn the coordinates about x, then y, then z by n times three angles in radians."""
    for axis in range(3):
        turns = torch.tensor([_turn(axis, three[axis]) for three in angles], dtype=x.dtype, device=x.device)
        x = (
            torch.einsum("nctvm,dc->ndtvm", x, turns[0])
            if len(turns) == 1
            else (torch.einsum("nctvm,ndc->ndtvm", x, turns))
        )
    return x


def _turn(axis: int, angle: float) -> list[list[float]]:
    """R with x' = R x: it is the axes that turn, not the points."""
    cos, sin = math.cos(angle), math.sin(angle)
    if axis == 0:
        return [[1.0, 0.0, 0.0], [0.0, cos, sin], [0.0, -sin, cos]]
    if axis == 1:
        return [[cos, 0.0, -sin], [0.0, 1.0, 0.0], [sin, 0.0, cos]]
    return [[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]]


def flip(x: Tensor, chosen: Sequence[bool], mirror: Sequence[int], reflect: bool) -> Tensor:
    """Swap left and right joints of all clips, or of those ``chosen``; ``reflect`` also negates x (published: no)."""
    if not any(chosen):
        return x
    swapped = x[:, :, :, list(mirror)]
    if reflect:
        swapped = torch.cat([-swapped[:, :1], swapped[:, 1:]], dim=1)
    if len(chosen) == 1:
        return swapped
    return torch.where(torch.tensor(chosen, device=x.device)[:, None, None, None, None], swapped, x)


def motion_attention(x: Tensor) -> Tensor:
    """(N, T) minus the mean square of a frame's step to the next; 0 for the last frame."""
    motion = torch.zeros_like(x)
    motion[:, :, :-1] = x[:, :, 1:] - x[:, :, :-1]
    return -motion.pow(2).mean(dim=(1, 3, 4))


def slowest(attention: Tensor, keep: int) -> Tensor:
    """(N, keep) the frames of highest ``attention`` (N, T), in order of time; ties are the sort's affair."""
    return torch.sort(torch.topk(attention, keep, dim=1).indices, dim=1).values


def frames_of(x: Tensor, index: Tensor) -> Tensor:
    """Frames ``index`` (N, t) of each clip: (N, C, t, V, M)."""
    n, c, _, v, m = x.shape
    return torch.gather(x, 2, index.view(n, 1, -1, 1, 1).expand(n, c, index.shape[1], v, m))


# --- networks ---


class DroppingSTGCN(STGCN):
    """The ST-GCN, from whose clips and graphs some joints can be cut."""

    def forward(self, x: Tensor, ignore: Sequence[int] = ()) -> Tensor:
        """Clips (N, C, T, V, M) -> (N, D_h); ``ignore``: the joints to leave out, some perhaps twice, or none."""
        n, c, t, v, m = x.shape
        kept = [joint for joint in range(v) if joint not in ignore]
        x = x.permute(0, 4, 3, 1, 2).contiguous().view(n * m, v * c, t)
        x = self.data_bn(x).view(n, m, v, c, t).permute(0, 1, 3, 4, 2).contiguous().view(n * m, c, t, v)
        x = x[:, :, :, kept]
        for block, importance in zip(self.blocks, self.importance, strict=True):
            x = block(x, (self.graph * importance)[:, kept, :][:, :, kept])
        pooled: Tensor = nn.functional.avg_pool2d(x, x.shape[2:]).view(n, m, -1).mean(1)
        return pooled


class BarlowHead(nn.Module):
    """Three linear maps, a batch norm without weights, and the redundancy of two batches of features (N, D_h)."""

    def __init__(self, dim: int, width: int, off_diagonal: float) -> None:
        super().__init__()
        self.off_diagonal = off_diagonal
        self.projector = nn.Sequential(
            nn.Linear(dim, width, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(inplace=True),
            nn.Linear(width, width, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(inplace=True),
            nn.Linear(width, width, bias=False),
        )
        self.bn = nn.BatchNorm1d(width, affine=False)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        a, b = self.projector(first), self.projector(second)
        on, off = redundancy(self.bn(a), self.bn(b))
        return on + self.off_diagonal * off


def redundancy(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The two sums over the D x D matrix a^T b / N: of (C_ii - 1)^2, and of C_ij^2 off the diagonal."""
    correlation = (a.T @ b).div_(len(a))
    d = len(correlation)
    on = torch.diagonal(correlation).add_(-1).pow_(2).sum()
    rest = correlation.flatten()[:-1].view(d - 1, d + 1)  # rows one longer: the diagonal is their first column
    off = rest[:, 1:].flatten().pow_(2).sum()
    return on, off


# --- methods ---


class Clips(Views):
    """Clips as they are: the step makes the views."""

    def __init__(self, data: Array, index: NDArray[np.int64]) -> None:
        self.data, self.index = data, index

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, i: int) -> tuple[NDArray[Any], ...]:
        return (np.array(self.data[self.index[i]]),)


class SkeletonBT(Peer):
    """One Barlow Twins term between two ordinary views."""

    method = "skeletonbt"

    def __init__(self, config: TrialConfig, layout: Layout, persons: int = 2) -> None:
        super().__init__(config, layout, persons)
        augment.refuse(config, ONLY, OPS)
        e, p = config.encoder, config.params
        self.encoder = DroppingSTGCN(adjacency(layout, e.partition), e.width, e.dim, e.dropout)
        self.head = BarlowHead(e.dim, p.projection, p.off_diagonal)

    @classmethod
    def views(cls, config: TrialConfig, layout: Layout, data: Array, index: NDArray[np.int64]) -> Views:
        return Clips(data, index)

    def solver(self) -> torch.optim.Optimizer:
        o = self.config.optim
        return torch.optim.Adam(self.parameters(), lr=o.lr, weight_decay=o.weight_decay, foreach=False)

    def loss(self, batch: tuple[Tensor, ...], progress: float) -> Tensor:
        clips = self.of_stream(batch)
        return self.one_term(self.ordinary(clips), self.ordinary(clips))

    def one_term(self, first: Tensor, second: Tensor) -> Tensor:
        """Barlow Twins of two whole views, each (N, C, T, V, M)."""
        term: Tensor = self.head(self.encoder(first), self.encoder(second))
        return term

    def of_stream(self, batch: tuple[Tensor, ...]) -> Tensor:
        """The stream of a batch of clips (N, C, T, V, M), before all else."""
        (stream,) = self.config.streams.use
        return derived(batch[0], stream, self.layout)

    def draws(self, clips: Tensor) -> range:
        """As many as are drawn for a batch."""
        return range(1 if self.config.augment.per_batch else len(clips))

    def ordinary(self, clips: Tensor) -> Tensor:
        """One view of all clips: crop, shear, rotation, flip."""
        a, x = self.config.augment, clips
        if a.crop:
            pad = int(x.shape[2] / a.crop)
            x = crop(x, a.crop, [int(torch.randint(0, 2 * pad + 1, (1,))) for _ in self.draws(clips)])
        if a.shear:
            drawn = torch.tensor([_shear_matrix(a.shear) for _ in self.draws(clips)])
            x = shear(x, drawn.to(x.device, x.dtype))
        if a.rotate:
            x = rotate(x, [_angles(a.rotate, a.rotate_both_ways) for _ in self.draws(clips)])
        return flip(x, [random.random() < a.flip for _ in self.draws(clips)], self.layout.mirror, a.flip_reflect)


class PSTL(SkeletonBT):
    """Two terms: a whole view against one short of frames, and against one short of joints."""

    method = "pstl"

    def loss(self, batch: tuple[Tensor, ...], progress: float) -> Tensor:
        clips = self.of_stream(batch)
        anchor, moving, spatial = self.ordinary(clips), self.ordinary(clips), self.ordinary(clips)
        in_time, in_space = self.two_terms(anchor, self.slow(moving), spatial, self.central())
        share = self.config.params.spatial_share
        total: Tensor = 2 * (1 - share) * in_time + 2 * share * in_space
        return total

    def two_terms(
        self, anchor: Tensor, temporal: Tensor, spatial: Tensor, ignore: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Barlow Twins of ``anchor`` with the view of fewer frames, and with that of fewer joints."""
        features = self.encoder(anchor)
        in_time = self.encoder(temporal)
        in_space = self.encoder(spatial, ignore)
        return self.head(features, in_time), self.head(features, in_space)

    def slow(self, x: Tensor) -> Tensor:
        """``x`` without its fastest frames, and without as many of the others by lot."""
        frames = x.shape[2]
        count = self.config.params.masked_frames(frames)
        left = frames - count
        kept = slowest(motion_attention(x), left)
        lots = torch.tensor([sorted(random.sample(range(left), left - count)) for _ in self.draws(x)], device=x.device)
        return frames_of(x, kept.gather(1, lots.expand(len(x), -1)))

    def central(self) -> list[int]:
        """Ends of bones drawn from all of them: the joints to ignore, the best connected most often."""
        urn = [joint for bone in self.layout.bones for joint in bone]
        count = int(self.config.params.mask_joints * self.layout.num_joints / 25 + 0.5)
        return random.sample(urn, min(max(count, 1), len(urn) // 2)) if self.config.params.mask_joints else []


def _shear_matrix(r: float) -> list[list[float]]:
    a, b, c, d, e, f = (random.uniform(-r, r) for _ in range(6))
    return [[1.0, a, b], [c, 1.0, d], [e, f, 1.0]]


def _angles(largest: float, both_ways: bool) -> list[float]:
    """Three in radians: up to ``largest`` degrees about a random axis, up to 1 about the others."""
    main = random.randint(0, 2)
    limits = [largest if axis == main else 1.0 for axis in range(3)]
    return [math.radians(random.uniform(-limit if both_ways else 0.0, limit)) for limit in limits]
