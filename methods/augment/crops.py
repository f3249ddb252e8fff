"""Crop a clip in time and stretch the piece to a fixed length, each clip by its own valid frames.

Source: the feeders of SCD-Net (arXiv:2309.05834) and CMD (arXiv:2208.12448), which share this code.
"""

from __future__ import annotations

import torch
from torch import Tensor

from methods.augment.draws import Draws
from methods.augment.ops import take_frames


def crop_resize(x: Tensor, start: Tensor, length: Tensor, frames: int) -> Tensor:
    """Frames ``start`` to ``start + length`` of each clip, linearly resampled to ``frames``: (N, C, frames, V, M).

    ``start``, ``length``: (N,), whole and inside the clip. Frame i is read at (i + 1/2) length / frames - 1/2, held
    inside the piece: torch's ``interpolate`` with ``align_corners=False``. A length equal to ``frames`` copies.
    """
    length = length.to(x.device)[:, None]
    # Positions in float64: in float32 the share between two frames would be off by 1e-5 at frame 300.
    at = (torch.arange(frames, device=x.device, dtype=torch.float64) + 0.5)[None] * (length.double() / frames) - 0.5
    at = at.clamp(min=0)  # (N, frames)
    before = torch.minimum(at.long(), length - 1)
    after = torch.minimum(before + 1, length - 1)
    share = (at - before).clamp(0, 1).to(x.dtype)[:, None, :, None, None]
    first = start.to(x.device)[:, None]
    return torch.lerp(take_frames(x, first + before), take_frames(x, first + after), share)


def draw_crop(draw: Draws, lengths: Tensor, low: float, high: float = 1.0, shortest: int = 1) -> tuple[Tensor, Tensor]:
    """Start and length (N,) of a piece: a share in [low, high) of the ``lengths`` (N,) valid frames, anywhere in them.

    Never fewer than ``shortest`` frames, if the clip has as many. Published: shares 0.1 to 1 for pretraining and 0.5 to
    1 for CMD's classifiers, at least 64 frames of the clip as it was recorded.
    """
    share = low + (high - low) * draw.uniform(0.0, 1.0, 1)[:, 0].double()
    length = (lengths * share).floor().long().clamp(min=max(1, shortest))
    length = torch.minimum(length, lengths)
    return draw.between(0, lengths - length), length


def centre_crop(lengths: Tensor, share: float = 0.95) -> tuple[Tensor, Tensor]:
    """Start and length (N,) of the middle ``share`` of the ``lengths`` (N,) valid frames: as much off either end.

    Both codes test so, at 0.95; (1 - share) / 2 of the frames, rounded down, go at each end.
    """
    start = ((1 - share) * lengths.double() / 2).long()
    start = torch.minimum(start, (lengths - 1) // 2)
    return start, lengths - 2 * start
