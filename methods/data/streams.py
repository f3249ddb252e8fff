"""The three input streams of a clip: joint positions, their motion, and the bones between them."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from methods.data.layouts.layout import Layout
from methods.errors import InputError, did_you_mean

STREAMS = ("joint", "motion", "bone")


@lru_cache(maxsize=64)
def _parent_index(parents: tuple[int, ...], device: torch.device) -> Tensor:
    """(V,) parent of every joint on the device; the root is its own parent, which makes its bone zero."""
    return torch.tensor([joint if parent < 0 else parent for joint, parent in enumerate(parents)], device=device)


def derive(x: Tensor, stream: str, layout: Layout) -> Tensor:
    """Derive one stream from joint positions x (N, C, T, V, M); returns (N, C, T, V, M), differentiable.

    joint: x itself (not a copy). motion: x[t+1] - x[t], the last frame zero. bone: x[v] - x[parent of v], the root
    zero. As in CrosSCLR, AimCLR and CMD (there the root is paired with itself). Raises InputError for an unknown
    stream or a tensor whose V is not the layout's.
    """
    if stream not in STREAMS:
        raise InputError(f"unknown stream '{stream}'{did_you_mean(stream, STREAMS)}")
    if x.dim() != 5 or x.shape[3] != layout.num_joints:
        raise InputError(
            f"streams need (N, C, T, {layout.num_joints}, M) for layout '{layout.name}', got {tuple(x.shape)}"
        )
    if stream == "joint":
        return x
    if stream == "motion":
        return torch.cat((x[:, :, 1:] - x[:, :, :-1], torch.zeros_like(x[:, :, :1])), dim=2)
    return x - x.index_select(3, _parent_index(layout.parents, x.device))
