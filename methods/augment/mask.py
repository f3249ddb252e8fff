"""Hide joints or frames: each op a function of clips and of what was drawn, and beside it what draws.

N clips (N, C, T, V, M). A published count (8 of 25 joints) is for the published skeleton; callers scale it with
:func:`methods.augment.mix.scaled`. No drawer here ever takes the last joint or the last frame.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from methods.augment.draws import Draws
from methods.augment.ops import linear_map, velocity

if TYPE_CHECKING:
    from methods.data.layouts import Layout


def zero_joints(x: Tensor, joints: Tensor) -> Tensor:
    """Zero the chosen ``joints`` (N, V) bool in every frame and of every person."""
    return x.masked_fill(_of_all(joints, x), 0)


def _of_all(joints: Tensor, x: Tensor) -> Tensor:
    """(N, V) bool as a mask of ``x`` (N, C, T, V, M) that has its persons: rows of V * M numbers, not of M."""
    return joints[:, None, None, :, None].expand(-1, 1, 1, -1, x.shape[4]).contiguous()


def zero_frames(x: Tensor, frames: Tensor) -> Tensor:
    """Zero the chosen ``frames`` (N, T) bool whole."""
    return x.masked_fill(frames[:, None, :, None, None], 0)


def joint_table(entries: Tensor, num_joints: int) -> Tensor:
    """(N, V) bool: the joints that ``entries`` (N, k) name, however often."""
    table = torch.zeros(len(entries), num_joints, dtype=torch.bool, device=entries.device)
    return table.scatter_(1, entries, True)


# --- PSTL: central joints, slow frames (arXiv:2302.09018 and its public code) ---------------------------------------


def central_entries(layout: Layout, device: torch.device | str | None = None) -> Tensor:
    """(2(V-1),) every joint as often as it has bones: the urn of central spatial masking; made once a device."""
    return _entries(layout.bones, torch.device("cpu" if device is None else device))


@lru_cache(maxsize=64)
def _entries(bones: tuple[tuple[int, int], ...], device: torch.device) -> Tensor:
    return torch.tensor(sorted(joint for bone in bones for joint in bone), device=device)


def draw_central_joints(draw: Draws, entries: Tensor, count: int) -> Tensor:
    """(N, count) joints from the urn without putting back, so the best connected come most often, some twice.

    Published: 8 of 48 entries, 7.35 different joints of 25 on average, one draw for the whole batch.
    """
    count = max(0, min(count, len(entries) // 2))  # V-1 bones in a tree: fewer than V joints, so one is always left
    order = draw.ranking(len(entries))[:, :count]
    return entries.to(draw.device)[order]


def motion_attention(x: Tensor) -> Tensor:
    """(N, T) minus the mean square of a frame's step to the next: 0, the highest, for the last frame and at rest."""
    return -velocity(x).square().mean((1, 3, 4))


def slowest_frames(attention: Tensor, keep: int) -> Tensor:
    """(N, keep) the frames of highest ``attention`` (N, T), in order of time; of equal ones the earlier.

    The public code leaves ties to torch.topk, and a mirror-padded crop makes many; this rule is the same on any device.
    """
    keep = max(1, min(keep, attention.shape[1]))
    order = attention.argsort(dim=1, descending=True, stable=True)
    return order[:, :keep].sort(1).values


def draw_frames(draw: Draws, frames: int, keep: int) -> Tensor:
    """(N, keep) different frames of 0..frames-1, in order of time, every choice equally likely."""
    keep = max(1, min(keep, frames))
    return draw.ranking(frames)[:, :keep].sort(1).values


# --- SCD-Net: a patch of the skeleton, segments of time (arXiv:2309.05834 and its public code) -----------------------


def structural_reach(layout: Layout) -> Tensor:
    """(V, V) float64 B = (In + Out + I)^2: in how many ways one joint is reached from another in at most two bones."""
    one = torch.eye(layout.num_joints, dtype=torch.float64)
    for child, parent in layout.bones:
        one[child, parent] = one[parent, child] = 1
    return one @ one


def structural_joints(reach: Tensor, seeds: Tensor, count: int, ties: Tensor | None = None) -> Tensor:
    """(N, V) bool: the ``count`` joints that the ``seeds`` (N, s) together reach in most ways, by ``reach`` (V, V).

    Scores are whole numbers, so ties abound: ``ties`` (N, V) in [0, 1) decides them, the higher wins; without it the
    joint of higher number, near to what the public code's sort does, and a bias to those joints.
    """
    v = reach.shape[0]
    score = reach.to(seeds.device)[seeds].sum(1)  # (N, V)
    rule = torch.arange(v, device=seeds.device, dtype=score.dtype) / v if ties is None else ties.to(score.dtype)
    return joint_table((score + rule).topk(max(0, min(count, v - 1)), dim=1).indices, v)


def draw_structural(draw: Draws, reach: Tensor, count: int, seeds: int, fair: bool = True) -> Tensor:
    """(N, V) bool, :func:`structural_joints` of random seeds with replacement; ``fair`` breaks ties by lot.

    Published: 8 joints of 25 from 5 seeds, ties not by lot.
    """
    v = reach.shape[0]
    drawn = draw.integers(v, max(1, seeds))
    ties = draw.uniform(0.0, 1.0, v) if fair else None
    return structural_joints(reach, drawn, count, ties)


def segment_frames(segments: Tensor, frames: int) -> Tensor:
    """(N, T) bool: the frames of the chosen ``segments`` (N, S) bool, S groups that divide T as evenly as can be."""
    count = segments.shape[1]
    group = torch.arange(frames, device=segments.device) * count // frames
    return segments[:, group]


def draw_segments(draw: Draws, masked: int, segments: int = 16) -> Tensor:
    """(N, segments) bool with ``masked`` of them chosen. Published: 6 of 16, four frames each."""
    return draw.subset(segments, max(0, min(masked, segments - 1)))


# --- CMD: joints corrupted (arXiv:2208.12448 and its public code) ---------------------------------------------------


def corrupt_joints(x: Tensor, joints: Tensor, matrix: Tensor) -> Tensor:
    """x' = R^T x for the chosen ``joints`` (N, V) bool, R = ``matrix`` (N, C, C); a zero matrix wipes them out."""
    return torch.where(_of_all(joints, x), linear_map(x, matrix.transpose(1, 2)), x)


def draw_corruption(draw: Draws, num_joints: int, count: int, channels: int = 3) -> tuple[Tensor, Tensor]:
    """Joints (N, V) bool, ``count`` of them, and matrices (N, C, C): entries in [-1, 1), or all zero every other time.

    Published: 15 joints of 25.
    """
    joints = draw.subset(num_joints, max(0, min(count, num_joints - 1)))
    matrix = draw.uniform(-1.0, 1.0, channels * channels).view(draw.n, channels, channels)
    return joints, matrix * draw.chance(0.5)[:, None, None]
