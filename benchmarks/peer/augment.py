"""What the official feeders do to one clip with numpy, for peers: crop, shear, and whatever else a family adds."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[np.float32]


def crop(clip: Array, rho: float, start: int | None = None) -> Array:
    """Mirror T/rho frames at both ends of (C, T, V, M), keep T frames from a random start."""
    frames = clip.shape[1]
    pad = int(frames / rho)
    if start is None:
        start = int(np.random.randint(0, 2 * pad + 1))
    head, tail = clip[:, :pad][:, ::-1], clip[:, frames - pad :][:, ::-1]
    return np.concatenate([head, clip, tail], axis=1)[:, start : start + frames]


def shear(clip: Array, amplitude: float, six: list[float] | None = None) -> NDArray[np.float64]:
    """x' = S x for each joint; S has ones and six random entries. Comes out as float64, as numpy has it."""
    a, b, c, d, e, f = six or [random.uniform(-amplitude, amplitude) for _ in range(6)]
    matrix = np.array([[1, a, b], [c, 1, d], [e, f, 1]])
    moved: NDArray[np.float64] = np.dot(clip.transpose(1, 2, 3, 0), matrix.T).transpose(3, 0, 1, 2)
    return moved


# --- AimCLR's extreme view: what follows its crop and shear ---

Clip = NDArray[np.floating[Any]]


def flip(clip: Clip, order: Sequence[int], reflect: bool = False) -> Clip:
    """Swap left and right joints of (C, T, V, M) by ``order``; ``reflect`` also negates x (published: no)."""
    swapped = clip[:, :, list(order), :]
    if reflect:
        swapped[0] = -swapped[0]
    return swapped


def rotate(clip: Clip, largest: float, both_ways: bool = False, angles: Sequence[float] | None = None) -> Clip:
    """Turn the coordinates about x, then y, then z: one of them by up to ``largest`` degrees, the others by up to 1.

    ``angles``: the three in radians, where they are not to be drawn. ``both_ways``: of either sign (published: no).
    """
    if angles is None:
        main = random.randint(0, 2)
        limits = [largest if axis == main else 1.0 for axis in range(3)]
        angles = [math.radians(random.uniform(-limit if both_ways else 0.0, limit)) for limit in limits]
    turned: Clip = clip.transpose(1, 2, 3, 0)
    for axis, angle in enumerate(angles):
        turned = np.dot(turned, _turn(axis, angle).T)
    return turned.transpose(3, 0, 1, 2)


def _turn(axis: int, angle: float) -> NDArray[np.float64]:
    """R (3, 3) with x' = R x: it is the axes that turn by ``angle``, not the points."""
    cos, sin = math.cos(angle), math.sin(angle)
    if axis == 0:
        return np.array([[1, 0, 0], [0, cos, sin], [0, -sin, cos]])
    if axis == 1:
        return np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]])
    return np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])


def noise(clip: Clip, deviation: float, present: NDArray[np.bool_] | None = None, drawn: Clip | None = None) -> Clip:
    """Add N(0, deviation^2) to every number; with ``present`` (M,) only to bodies that are there (published: all)."""
    added = np.random.normal(0, deviation, size=clip.shape) if drawn is None else drawn
    return clip + (added if present is None else added * present)


def blur(clip: Clip, normalise: bool = False, sigma: float | None = None) -> Clip:
    """Smooth over time with 15 taps exp(-k^2 / 2 sigma^2), sigma in [0.1, 2], zeros beyond both ends.

    The published taps are not divided by their sum (``normalise``), so that coordinates grow with sigma.
    """
    sigma = random.uniform(0.1, 2.0) if sigma is None else sigma
    channels, frames, joints, persons = clip.shape
    taps = np.exp(-(np.arange(-7, 8) ** 2) / (2 * sigma**2))
    if normalise:
        taps = taps / taps.sum()
    weight = torch.from_numpy(taps).to(torch.as_tensor(clip).dtype).expand(channels, 1, 1, 15)
    rows = torch.from_numpy(np.ascontiguousarray(clip.transpose(0, 2, 3, 1))).view(1, channels, -1, frames)
    smooth = torch.nn.functional.conv2d(rows, weight, padding=(0, 7), groups=channels)
    out: Clip = smooth.view(channels, joints, persons, frames).permute(0, 3, 1, 2).numpy()
    return out


def mask_axis(clip: Clip, axis: int | None = None) -> Clip:
    """All of one coordinate axis zero."""
    masked = clip.copy()
    masked[random.randint(0, 2) if axis is None else axis] = 0
    return masked


def reverse_time(clip: Clip) -> Clip:
    """The clip played backwards."""
    return clip[:, ::-1].copy()


# --- SCD-Net, CMD, PSTL, CRRL: crop-resize, masks, corrupted joints; and what a code's feeder has no op for ---

_OFF = {  # the value at which an op does nothing, for all that a feeder may lack
    "strength": 1.0,
    "crop": 0.0,
    "crop_resize": 0.0,
    "shear": 0.0,
    "shear_probability": 1.0,
    "corrupt": 0.0,
    "flip": 0.0,
    "rotate": 0.0,
    "rotate_probability": 1.0,
    "noise": 0.0,
    "blur": 0.0,
    "axis_mask": 0.0,
    "time_flip": 0.0,
    "joint_mask": 0.0,
    "segment_mask": 0.0,
    "repeat": False,
    "per_batch": False,
}


def refuse(config: Any, only: Mapping[str, Sequence[Any]] | None = None, ops: Sequence[str] | None = None) -> None:
    """Raise ``NotImplementedError`` that names every setting of a ``TrialConfig`` that an official code has nothing of.

    ``only``: dotted name -> the values that the code knows; a field that the configuration lacks is passed over.
    ``ops``: the fields of ``augment`` that its feeder has, so that all others must be off; None to leave views alone.
    """
    known = dict(only or {})
    if ops is not None:
        known |= {f"augment.{name}": (off,) for name, off in _OFF.items() if name not in ops}
    faults = []
    for name, values in known.items():
        part, _, field = name.partition(".")
        value = getattr(getattr(config, part), field, values[0])
        if value not in values:
            faults.append(f"{name} is {value!r}, the official code has {' or '.join(map(repr, values))}")
    if faults:
        raise NotImplementedError(f"the peer of {config.method} does not do this: {'; '.join(faults)}")


def valid_frames(clip: Clip) -> int:
    """Frames up to the last that is not all zero, at least 1: the count that the official data come with."""
    filled = np.flatnonzero(clip.any(axis=(0, 2, 3)))
    return int(filled[-1]) + 1 if len(filled) else 1


def crop_resize(
    clip: Clip, valid: int, least: float, shortest: int, frames: int, piece: tuple[int, int] | None = None
) -> Clip:
    """A piece of the ``valid`` frames of (C, T, V, M), linearly stretched to ``frames``.

    Its length is a share in [``least``, 1) of them but no fewer than ``shortest``; ``piece``: start and length, where
    they are not to be drawn.
    """
    if piece is None:
        share = np.random.rand() * (1 - least) + least
        length = min(max(int(np.floor(valid * share)), shortest), valid)
        piece = int(np.random.randint(0, valid - length + 1)), length
    start, length = piece
    channels, _, joints, persons = clip.shape
    rows = torch.tensor(clip[:, start : start + length], dtype=torch.float)
    rows = rows.permute(0, 2, 3, 1).contiguous().view(1, channels * joints * persons, length, 1)
    stretched = torch.nn.functional.interpolate(rows, size=(frames, 1), mode="bilinear", align_corners=False)
    out: Clip = stretched.view(channels, joints, persons, frames).permute(0, 3, 1, 2).contiguous().numpy()
    return out


def stream_of(clip: Clip, stream: str, parents: Sequence[int]) -> Clip:
    """Joints, their motion, or the bones between them, all (C, T, V, M); the root is paired with itself."""
    if stream == "joint":
        return clip
    out = np.zeros_like(clip)
    if stream == "motion":
        out[:, :-1] = clip[:, 1:] - clip[:, :-1]
        return out
    for joint, parent in enumerate(parents):
        out[:, :, joint] = clip[:, :, joint] - clip[:, :, parent if parent >= 0 else joint]
    return out


def joint_reach(parents: Sequence[int]) -> NDArray[np.float64]:
    """(V, V) the square of (In + Out + I): in how many ways a joint is reached over at most two bones."""
    step = np.eye(len(parents))
    for joint, parent in enumerate(parents):
        if parent >= 0:
            step[joint, parent] = step[parent, joint] = 1
    return step @ step


def joint_scores(reach: NDArray[np.float64], seeds: int, drawn: Sequence[int] | None = None) -> NDArray[np.float64]:
    """(V,) how well each joint is reached from ``seeds`` random ones, drawn with replacement."""
    chosen = np.random.randint(0, len(reach), seeds) if drawn is None else list(drawn)
    scores: NDArray[np.float64] = reach[chosen].sum(axis=0)
    return scores


def mask_joints(clip: Clip, scores: NDArray[np.float64], count: int, fair: bool = False) -> Clip:
    """Zero the ``count`` joints of highest score in all of the clip; of equal ones the sort's choice, or ``fair``."""
    order = np.lexsort((np.random.rand(len(scores)), scores)) if fair else np.argsort(scores)
    masked = clip.copy()
    masked[:, :, order[len(scores) - count :]] = 0
    return masked


def mask_segments(clip: Clip, share: float, segments: int = 16, drawn: Sequence[int] | None = None) -> Clip:
    """Zero a ``share`` of equal segments of time (published: 6 of 16)."""
    frames = clip.shape[1]
    segments = min(segments, frames)
    chosen = np.random.choice(segments, int(share * segments + 0.5), replace=False) if drawn is None else list(drawn)
    masked = clip.copy()
    masked[:, np.isin(np.arange(frames) * segments // frames, chosen)] = 0
    return masked


def corrupt(
    clip: Clip, count: int, joints: Sequence[int] | None = None, matrix: NDArray[np.float64] | None = None
) -> Clip:
    """Zero ``count`` random joints or, every other time, send them through x' = R^T x with R of entries in [-1, 1]."""
    if joints is None or matrix is None:
        joints = random.sample(range(clip.shape[2]), count)
        matrix = np.zeros((3, 3)) if random.random() < 0.5 else np.random.uniform(-1, 1, (3, 3))
    out = clip.copy()
    out[:, :, list(joints)] = np.dot(clip[:, :, list(joints)].transpose(1, 2, 3, 0), matrix).transpose(3, 0, 1, 2)
    return out
