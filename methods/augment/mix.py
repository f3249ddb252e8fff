"""SkeleMix: paste a block of some joints and some time from one clip of a batch into another.

A clip's time is cut into G segments of ``stride`` frames, the encoder's temporal stride, so that a block is a set of
whole cells of the feature map (G, V), G = ceil(T / stride) as the strided convolutions have it. Source: SkeleMixCLR,
arXiv:2207.03065, and its public code, which draws one block for the whole batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from methods.augment.draws import Draws

FILLS = ("swap", "zeros", "gaussian")


@dataclass(frozen=True)
class Mix:
    """What one mixing drew: ``shift`` (), ``joints`` (N, V) bool, ``start`` and ``length`` (N,) in segments."""

    shift: Tensor
    joints: Tensor
    start: Tensor
    length: Tensor

    def cells(self, segments: int) -> Tensor:
        """(N, G, V) bool: the cells that are pasted; what mask pooling takes (its negation is the clip's own part)."""
        at = torch.arange(segments, device=self.start.device)[None, :]
        when = (at >= self.start[:, None]) & (at < (self.start + self.length)[:, None])
        return when[:, :, None] & self.joints[:, None, :]


def scaled(count: int, of: int, to: int) -> int:
    """``count`` of ``of`` as the nearest number of ``to``, at least 1: 8 of 25 joints become 5 of 15."""
    return max(1, min(to, int(count * to / of + 0.5)))


def segments_of(frames: int, stride: int) -> int:
    """G, the number of segments of ``stride`` frames; the last may be shorter."""
    return -(-frames // stride)


def part_table(parts: Mapping[str, Sequence[int]], num_joints: int, device: torch.device | str | None = None) -> Tensor:
    """(P, V) bool: which joints each part of the body has, in the mapping's order; made once a device."""
    return _part_table(tuple(tuple(joints) for joints in parts.values()), num_joints, torch.device(device or "cpu"))


@lru_cache(maxsize=64)
def _part_table(parts: tuple[tuple[int, ...], ...], num_joints: int, device: torch.device) -> Tensor:
    table = torch.zeros(len(parts), num_joints, dtype=torch.bool)
    for row, joints in zip(table, parts, strict=True):
        row[list(joints)] = True
    return table.to(device)


def draw_parts(draw: Draws, table: Tensor, least: int, most: int) -> Tensor:
    """(N, V) bool: the joints of ``least`` to ``most`` whole parts of ``table`` (P, V), but never of all P.

    Published: 2 to 3 of 5 parts (SkeleMixCLR+), 1 to 4 by default.
    """
    count = len(table)
    chosen = draw.subset(count, draw.between(*_inside(least, most, count)))  # (N, P)
    return (chosen[:, :, None] & table.to(draw.device)[None]).any(1)


def draw_any_joints(draw: Draws, num_joints: int, least: int, most: int) -> Tensor:
    """(N, V) bool: ``least`` to ``most`` joints, wherever they are. Published ablation: 10 to 15 of 25."""
    return draw.subset(num_joints, draw.between(*_inside(least, most, num_joints)))


def draw_mix(draw: Draws, joints: Tensor, segments: int, least: int, most: int) -> Mix:
    """A block of ``joints`` (N, V) over ``least`` to ``most`` of the G segments, never all, and the partner's shift.

    Published: 7 to 11 of 16 segments (SkeleMixCLR+), 1 to 15 by default. The shift is one for the batch, so that every
    clip is pasted once: 1..N-2 as published (1 where N is 2; a lone clip is its own partner).
    """
    length = draw.between(*_inside(least, most, segments))
    start = draw.between(0, segments - length)
    first = min(1, draw.n - 1)
    last = max(first, draw.n - 2)
    shift = torch.randint(first, last + 1, (), generator=draw.generator, device=draw.device)
    return Mix(shift, joints, start, length)


def _inside(least: int, most: int, count: int) -> tuple[int, int]:
    """Both ends inside 1..count-1 (1 where there is but one), so that neither side of a mixture is empty."""
    top = max(1, count - 1)
    low = min(max(1, least), top)
    return low, max(low, min(most, top))


def partners(n: int, shift: Tensor) -> Tensor:
    """(N,) the clip that each gets its block from: (i + shift) mod N."""
    return (torch.arange(n, device=shift.device) + shift) % n


def paste(x: Tensor, source: Tensor, cells: Tensor, stride: int) -> Tensor:
    """``x`` (N, C, T, V, M) with ``source`` (as x, or broadcast to it) in the ``cells`` (N, G, V) bool, all persons."""
    frames = cells.repeat_interleave(stride, 1)[:, : x.shape[2]]  # (N, T, V)
    return torch.where(frames[:, None, :, :, None], source, x)


def skelemix(x: Tensor, drawn: Mix, stride: int = 4, fill: str = "swap", noise: Tensor | None = None) -> Tensor:
    """``x`` (N, C, T, V, M) with the drawn block of each clip from its partner, or empty, or of ``noise`` (as x).

    The cells that went in are ``drawn.cells(segments_of(T, stride))``; ``noise`` is for ``fill='gaussian'``, and both
    other fills are the published ablations. Where a block holds a body that only the partner has, it is there in the
    mixture: who is present is ``present | present[partners(N, drawn.shift)]``.
    """
    cells = drawn.cells(segments_of(x.shape[2], stride))
    if fill == "swap":
        return paste(x, x[partners(x.shape[0], drawn.shift)], cells, stride)
    if fill == "gaussian" and noise is not None:
        return paste(x, noise, cells, stride)
    if fill == "zeros":
        return paste(x, x.new_zeros(()), cells, stride)
    raise ValueError(f"fill is one of {', '.join(FILLS)} (gaussian with noise), got {fill!r}")
