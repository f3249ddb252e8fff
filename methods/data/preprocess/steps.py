"""What a step of preprocessing is, and our own steps; those that repeat published code are in `steps_published`.

A step takes a clip at any length and returns one. A person who is not there is zero everywhere and stays so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from methods.data.layouts.layout import Layout

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Clip:
    """What a step receives and returns: frames (t, M, V, C), how many are valid, and the length T to reach."""

    frames: Array
    valid: int
    layout: Layout
    length: int


@dataclass(frozen=True)
class Step:
    """One named step, a pure function of a clip."""

    name: str
    doc: str
    run: Callable[[Clip], Clip]
    shoulders: bool = False  # needs a layout that has shoulders
    spine: bool = False  # needs a layout that has a spine
    xyz: bool = False  # needs three coordinates
    lengthens: bool = False  # changes the number of frames, so may not come after what ends at T
    ends: bool = False  # ends at T frames, the length that training reads


def present(frames: Array) -> NDArray[np.bool_]:
    """Return (t, M): where a person is there at all, that is, has a coordinate other than zero."""
    return np.asarray((frames != 0).any(axis=(2, 3)))


def _trim(clip: Clip) -> Clip:
    """Drop every frame in which person 0 is all zero, wherever it stands.

    A clip without person 0 keeps the frames of any other person, and an empty clip its first frame.
    """
    there = present(clip.frames)
    keep = np.array(there[:, 0] if there[:, 0].any() else there.any(axis=1))
    if not keep.any():
        keep[0] = True
    return replace(clip, frames=clip.frames[keep], valid=int(keep.sum()))


def shifted(frames: Array, origin: Array) -> Array:
    """Subtract an origin (broadcast against (t, M, V, C)) from the persons that are there."""
    return np.asarray(np.where(present(frames)[:, :, None, None], frames - origin, frames), dtype=np.float32)


def first_frame(clip: Clip) -> int:
    """The first frame in which person 0 is there; 0 where there is none."""
    return int(present(clip.frames)[:, 0].argmax())


def _centre(clip: Clip) -> Clip:
    centre = clip.layout.centre
    return replace(clip, frames=shifted(clip.frames, clip.frames[:, :, centre : centre + 1, :]))


def _centre_first(clip: Clip) -> Clip:
    return replace(clip, frames=shifted(clip.frames, clip.frames[first_frame(clip), 0, clip.layout.centre]))


def shoulder_lines(clip: Clip) -> NDArray[np.float64]:
    """(t, M, C): from the left to the right shoulder, zero for a person who is not there."""
    left, right = clip.layout.shoulders or (0, 0)
    return np.asarray(clip.frames[:, :, right].astype(np.float64) - clip.frames[:, :, left])


def rotated(frames: Array, angle: NDArray[np.float64]) -> Array:
    """Turn about the y axis by angles that broadcast against (t, M): x' = x cos - z sin, z' = x sin + z cos."""
    cos, sin = np.cos(angle)[..., None], np.sin(angle)[..., None]
    out = np.array(frames)
    x, z = frames[..., 0].astype(np.float64), frames[..., 2].astype(np.float64)
    out[..., 0] = x * cos - z * sin
    out[..., 2] = x * sin + z * cos
    return out


_LEAST_NET_LINE = 0.1  # of the summed lengths; below, the person turned right round and the sum says nothing


def _rotate_y(clip: Clip) -> Clip:
    """Turn the whole clip once, all persons alike, so that person 0's shoulder line points along +x.

    Once a clip, not once a frame: turning round is a movement that the classes may need, and two persons keep how
    they face each other. The angle is atan2 of the shoulder line summed over the frames, which averages noise; where
    that sum nearly cancels (a full turn), it is the first line that is there.
    """
    lines = shoulder_lines(clip)[:, 0][:, (0, 2)]
    sizes = np.hypot(lines[:, 0], lines[:, 1])
    if not sizes.any():
        return clip
    line = lines.sum(axis=0)
    if np.hypot(*line) < _LEAST_NET_LINE * sizes.sum():
        line = lines[int((sizes > 0).argmax())]
    angle = np.full((1, 1), -np.arctan2(line[1], line[0]))
    return replace(clip, frames=rotated(clip.frames, angle))


def _align_body(clip: Clip) -> Clip:
    """Turn the whole clip once so that person 0's spine points along +z and the shoulders lie in the x-z plane, +x.

    As AGCN's two turns, but exact in one: there the second tilts the spine again. Taken from the first frame in which
    both lines have a length and do not coincide; a clip without such a frame stays as it is.
    """
    low, high = clip.layout.spine or (0, 0)
    spines = clip.frames[:, 0, high].astype(np.float64) - clip.frames[:, 0, low]
    across = np.cross(spines, shoulder_lines(clip)[:, 0])
    sizes = np.linalg.norm(across, axis=-1)
    if not sizes.any():
        return clip
    frame = int((sizes > 0).argmax())
    up, ahead = spines[frame] / np.linalg.norm(spines[frame]), across[frame] / sizes[frame]
    axes = np.stack((np.cross(ahead, up), ahead, up))
    return replace(clip, frames=(clip.frames @ axes.T).astype(np.float32))


def _bones(clip: Clip) -> tuple[Array, NDArray[np.float32]]:
    """Bone vectors (t, M, V, C), zero at the root, and their lengths (t, M, V)."""
    parents = [joint if parent < 0 else parent for joint, parent in enumerate(clip.layout.parents)]
    bones = clip.frames - clip.frames[:, :, parents]
    return bones, np.linalg.norm(bones, axis=-1)


def _mean_size(clip: Clip, lengths: NDArray[np.float32]) -> float:
    """Summed bone lengths of a person, averaged over the frames and persons that are there; 1 where nobody is."""
    there = present(clip.frames)
    size = float(lengths.sum(axis=-1)[there].mean()) if there.any() else 0.0
    return size if size > 0 else 1.0


def _unit_scale(clip: Clip) -> Clip:
    """Divide the clip by its mean summed bone length: a child and an adult get one size, proportions stay."""
    return replace(clip, frames=np.asarray(clip.frames / np.float32(_mean_size(clip, _bones(clip)[1]))))


def _bone_lengths(clip: Clip) -> Clip:
    """Give every bone the length 1/(V-1) and keep its direction, so that nothing of a subject's build is left.

    The root keeps its way through space, divided by the clip's mean summed bone length. A bone of length zero stays
    at zero. Place it before ``centre``: joints move against each other.
    """
    bones, lengths = _bones(clip)
    joints = clip.layout.num_joints
    unit = bones / np.where(lengths > 0, lengths, 1)[..., None] / (joints - 1)
    frames = _ancestry(clip.layout) @ unit + clip.frames[:, :, [clip.layout.root]] / _mean_size(clip, lengths)
    return replace(clip, frames=np.where(present(clip.frames)[:, :, None, None], frames, 0).astype(np.float32))


def _ancestry(layout: Layout) -> Array:
    """(V, V): 1 where column u lies on the way from the root to row v, so that it sums bones into positions."""
    out = np.eye(layout.num_joints, dtype=np.float32)
    for joint in range(layout.num_joints):
        at = layout.parents[joint]
        while at >= 0:
            out[joint, at] = 1
            at = layout.parents[at]
    return out


def resize(frames: Array, length: int) -> Array:
    """Resize (t, ...) to (length, ...) by linear interpolation over time.

    Half-pixel centres, edges replicated, no smoothing when shrinking: as cv2.resize in CrosSCLR and as
    ``torch.nn.functional.interpolate(mode="linear", align_corners=False)``.
    """
    count = len(frames)
    if count == length:
        return frames
    at = np.clip((np.arange(length) + 0.5) * (count / length) - 0.5, 0, count - 1)
    low = np.floor(at).astype(np.int64)
    high = np.minimum(low + 1, count - 1)
    share = (at - low).astype(np.float32).reshape(-1, *[1] * (frames.ndim - 1))
    return np.asarray(frames[low] * (1 - share) + frames[high] * share, dtype=np.float32)


def _resize(clip: Clip) -> Clip:
    return replace(clip, frames=resize(clip.frames, clip.length), valid=clip.length)


OWN = (
    Step("trim", "drop the frames in which person 0 is all zero", _trim, lengthens=True),
    Step("centre", "subtract the centre joint of the same person and frame", _centre),
    Step("centre_first", "subtract person 0's centre joint of the first valid frame", _centre_first),
    Step("rotate_y", "turn the clip: person 0's shoulders parallel to x", _rotate_y, shoulders=True, xyz=True),
    Step("align_body", "turn the clip: person 0's spine along z, shoulders along x", _align_body,
         shoulders=True, spine=True, xyz=True),
    Step("bone_lengths", "one length for all bones, directions kept", _bone_lengths),
    Step("unit_scale", "divide by the clip's mean summed bone length", _unit_scale),
    Step("resize", "linear interpolation to T frames", _resize, lengthens=True, ends=True),
)  # fmt: skip
