"""Drop what a feature map attends to: AimCLR's energy-based, attention-guided drop (EADM). No random draws.

Source      Guo et al. (AimCLR), arXiv:2112.03590, and its public code; the attention is SimAM's energy (Yang et al.,
            ICML 2021): a cell far from its channel's mean stands out.
Departures  A map of which nothing would be left stays whole (the public code divides by zero).
Shapes      B bodies, C channels, T frames, V joints, of the encoder's last map.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Where a cell equals its channel's mean the energy is 1/2: a threshold at or below sigmoid(1/2) drops everything.
LOWEST = 1 / (1 + math.exp(-0.5))
_LAMBDA = 1e-4


def attention(maps: Tensor) -> Tensor:
    """How much each cell of ``maps`` (B, C, T, V) stands out from its channel, in [sigmoid(1/2), 1)."""
    square = (maps - maps.mean((2, 3), keepdim=True)).square()
    variance = square.sum((2, 3), keepdim=True) / max(1, maps.shape[2] * maps.shape[3] - 1)
    return torch.sigmoid(square / (4 * (variance + _LAMBDA)) + 0.5)


@torch.no_grad()
def kept_cells(maps: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """What is kept of ``maps`` (B, C, T, V): joints (B, V) and single cells (B, C, T, V), both bool.

    A joint goes when its attention, averaged over channels and frames, reaches ``threshold``; a cell when its own does.
    """
    seen = attention(maps)
    return seen.mean((1, 2)) < threshold, seen < threshold


def attention_drop(maps: Tensor, threshold: float = 0.7) -> Tensor:
    """``maps`` (B, C, T, V) without the joints and the cells that stand out, scaled up for what is gone.

    Each of the two steps scales by (all / kept), counted over the whole batch. What is dropped is a constant to the
    gradient. ``threshold``: kappa, above :data:`LOWEST`, below 1.
    """
    joints, cells = kept_cells(maps, threshold)
    return maps * _scaled(joints, maps.dtype)[:, None, None, :] * _scaled(cells, maps.dtype)


def _scaled(keep: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where something is dropped, all / kept elsewhere; ones where nothing would be kept."""
    keep = keep | ~keep.any()
    return keep.to(dtype) * (keep.numel() / keep.sum().to(dtype))
