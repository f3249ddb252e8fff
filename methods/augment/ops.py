"""One augmentation, one batched function: clips (N, C, T, V, M) and per-clip parameters in, clips out. No randomness.

Source: the transform library shared by SkeletonCLR, AimCLR and their kin (public code); what departs from it is said at
the function. The draws live in :mod:`methods.augment.policy`.
"""

from __future__ import annotations

import torch
from torch import Tensor


def temporal_crop(x: Tensor, start: Tensor, pad: int) -> Tensor:
    """Mirror ``pad`` frames at both ends (edge frames doubled), then keep T frames from ``start`` (N,) in 0..2 pad."""
    t = x.shape[2]
    index = torch.arange(t, device=x.device)[None, :] + start[:, None] - pad  # (N, T), from -pad to T + pad - 1
    index = torch.where(index < 0, -index - 1, index)
    index = torch.where(index >= t, 2 * t - 1 - index, index)
    return take_frames(x, index)


def linear_map(x: Tensor, matrix: Tensor) -> Tensor:
    """x' = S x for every joint: shears and rotations alike. ``matrix``: (N, 3, 3).

    Clips of two coordinates get its upper left block: what one sees of points without depth.
    """
    n, c = x.shape[:2]
    return torch.bmm(matrix[:, :c, :c].to(x.dtype), x.reshape(n, c, -1)).view_as(x)


def shear_matrix(offsets: Tensor) -> Tensor:
    """(N, 6) off-diagonal entries, row by row -> (N, 3, 3) with a unit diagonal."""
    a = offsets
    one = torch.ones_like(a[:, 0])
    rows = [one, a[:, 0], a[:, 1], a[:, 2], one, a[:, 3], a[:, 4], a[:, 5], one]
    return torch.stack(rows, 1).view(-1, 3, 3)


def rotation_matrix(angles: Tensor) -> Tensor:
    """(N, 3) radians about x, y, z -> R = Rz Ry Rx (N, 3, 3): a turn of coordinates, as in the public code."""
    cos, sin = angles.cos(), angles.sin()
    zero, one = torch.zeros_like(cos[:, 0]), torch.ones_like(cos[:, 0])

    def matrix(*entries: Tensor) -> Tensor:
        return torch.stack(entries, 1).view(-1, 3, 3)

    about_x = matrix(one, zero, zero, zero, cos[:, 0], sin[:, 0], zero, -sin[:, 0], cos[:, 0])
    about_y = matrix(cos[:, 1], zero, -sin[:, 1], zero, one, zero, sin[:, 1], zero, cos[:, 1])
    about_z = matrix(cos[:, 2], sin[:, 2], zero, -sin[:, 2], cos[:, 2], zero, zero, zero, one)
    return about_z @ about_y @ about_x


def mirror(x: Tensor, chosen: Tensor, permutation: Tensor, reflect: bool) -> Tensor:
    """Swap left and right joints of the ``chosen`` (N,) bool clips; ``reflect`` also negates x (published: no)."""
    swapped = x.index_select(3, permutation)
    if reflect:
        swapped = torch.cat([-swapped[:, :1], swapped[:, 1:]], 1)
    return select(chosen, swapped, x)


def add_noise(x: Tensor, noise: Tensor, present: Tensor | None = None) -> Tensor:
    """x + noise; with ``present`` (N, M) the bodies that were not recorded stay empty (published: they do not)."""
    if present is not None:
        noise = noise * present[:, None, None, None, :]
    return x + noise


def temporal_blur(x: Tensor, sigma: Tensor, chosen: Tensor, normalise: bool, taps: int = 15) -> Tensor:
    """Gaussian smoothing over time, zero-padded, of the ``chosen`` (N,) clips; ``sigma`` (N,) in frames.

    The published kernel exp(-k^2 / 2 sigma^2) is not normalised and so also scales coordinates, up to fivefold at
    sigma 2; ``normalise`` divides by its sum.
    """
    n, c, t, v, m = x.shape
    offset = torch.arange(taps, device=x.device, dtype=x.dtype) - taps // 2
    kernel = torch.exp(-(offset[None, :] ** 2) / (2 * sigma[:, None].to(x.dtype) ** 2))  # (N, taps)
    if normalise:
        kernel = kernel / kernel.sum(1, keepdim=True)
    # As a banded matrix from the left, one a clip: a convolution of a group a clip takes several times as long.
    frame = torch.arange(t, device=x.device)
    apart = frame[None, :] - frame[:, None] + taps // 2  # (T, T): which tap a frame takes of another
    band = torch.where((apart >= 0) & (apart < taps), kernel[:, apart.clamp(0, taps - 1)], 0)  # (N, T, T)
    smooth = (band[:, None] @ x.reshape(n, c, t, v * m)).view_as(x)
    return select(chosen, smooth, x)


def mask_axis(x: Tensor, axis: Tensor) -> Tensor:
    """Zero coordinate ``axis`` (N,) of each clip; -1 leaves the clip alone."""
    keep = torch.arange(x.shape[1], device=x.device)[None, :] != axis[:, None]  # (N, C)
    return x * keep[:, :, None, None, None]


def reverse_time(x: Tensor, chosen: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Play the ``chosen`` (N,) bool clips backwards; with ``lengths`` (N,) valid frames the padding stays behind."""
    if lengths is None:
        return select(chosen, x.flip(2), x)
    at = torch.arange(x.shape[2], device=x.device)[None, :]
    backwards = torch.where(at < lengths[:, None], lengths[:, None] - 1 - at, at)  # (N, T)
    return select(chosen, take_frames(x, backwards), x)


def velocity(x: Tensor, lengths: Tensor | None = None) -> Tensor:
    """x[t+1] - x[t], zero in the last frame, so T stays; with ``lengths`` (N,) zero from the last valid frame on.

    What CRRL (arXiv:2111.11051) takes as its key, and what PSTL measures motion by.
    """
    step = torch.cat([x[:, :, 1:] - x[:, :, :-1], torch.zeros_like(x[:, :, :1])], dim=2)
    if lengths is None:
        return step
    beyond = torch.arange(x.shape[2], device=x.device)[None, :] >= lengths[:, None] - 1
    return step.masked_fill(beyond[:, None, :, None, None], 0)


def take_frames(x: Tensor, index: Tensor) -> Tensor:
    """Frames ``index`` (N, t) of each clip, in that order: (N, C, t, V, M)."""
    n, c, t, v, m = x.shape
    # Whole rows of joints and bodies: a gather element by element takes five times as long on a CPU.
    first = torch.arange(n * c, device=x.device).view(n, c, 1) * t
    rows = (first + index[:, None, :]).flatten()
    return x.reshape(n * c * t, v * m).index_select(0, rows).view(n, c, index.shape[1], v, m)


def select(chosen: Tensor, changed: Tensor, x: Tensor) -> Tensor:
    """``changed`` where a clip is ``chosen`` (N,) bool, else ``x``."""
    return torch.where(chosen[:, None, None, None, None], changed, x)
