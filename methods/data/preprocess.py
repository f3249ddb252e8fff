"""Named steps from a clip at its original length to the fixed length that training reads.

A list of step names is applied in its order; ``resize`` is put at the end where it is not named. The published
preprocessing of CrosSCLR, AimCLR, SkeletonBYOL/CMCS and SkeleMixCLR is :data:`PAPER_STEPS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from methods.data.layouts import Layout
from methods.errors import InputError, did_you_mean

Array = NDArray[np.float32]

DEFAULT_STEPS = ("trim", "centre", "resize")
PAPER_STEPS = ("trim_paper", "centre", "resize", "rotate_y_paper")


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
    lengthens: bool = False  # may not come after resize, for it changes the number of frames


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


def _trim_paper(clip: Clip) -> Clip:
    """CrosSCLR: keep the first ``valid`` frames, where valid is a count; a gap therefore costs frames at the end."""
    return replace(clip, frames=clip.frames[: max(1, clip.valid)])


def _shift(frames: Array, origin: Array) -> Array:
    """Subtract an origin (broadcast against (t, M, V, C)) from the persons that are there."""
    return np.asarray(np.where(present(frames)[:, :, None, None], frames - origin, frames), dtype=np.float32)


def _centre(clip: Clip) -> Clip:
    centre = clip.layout.centre
    return replace(clip, frames=_shift(clip.frames, clip.frames[:, :, centre : centre + 1, :]))


def _centre_first(clip: Clip) -> Clip:
    there = present(clip.frames)[:, 0]
    first = int(there.argmax())
    return replace(clip, frames=_shift(clip.frames, clip.frames[first, 0, clip.layout.centre]))


def _shoulder_lines(clip: Clip) -> NDArray[np.float64]:
    """(t, M, 3): from the left to the right shoulder, zero for a person who is not there."""
    left, right = clip.layout.shoulders or (0, 0)
    return np.asarray(clip.frames[:, :, right].astype(np.float64) - clip.frames[:, :, left])


def _rotated(frames: Array, angle: NDArray[np.float64]) -> Array:
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
    lines = _shoulder_lines(clip)[:, 0][:, (0, 2)]
    sizes = np.hypot(lines[:, 0], lines[:, 1])
    if not sizes.any():
        return clip
    line = lines.sum(axis=0)
    if np.hypot(*line) < _LEAST_NET_LINE * sizes.sum():
        line = lines[int((sizes > 0).argmax())]
    angle = np.full((1, 1), -np.arctan2(line[1], line[0]))
    return replace(clip, frames=_rotated(clip.frames, angle))


def _rotate_y_paper(clip: Clip) -> Clip:
    """CrosSCLR: each frame and person by arccos(w_x / (|w| + 1e-4)) of its own shoulder line w with w_y = 0.

    The sign is one for all frames of a person, that of the summed w_z: where the line crosses z within a clip, a
    part of it is turned the wrong way.
    """
    lines = _shoulder_lines(clip)
    lines[..., 1] = 0
    angle = np.arccos(lines[..., 0] / (np.linalg.norm(lines, axis=-1) + 1e-4))
    angle = np.where(lines[..., 2].sum(axis=0) >= 0, -angle, angle)
    return replace(clip, frames=_rotated(clip.frames, angle))


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


STEPS: Mapping[str, Step] = {
    step.name: step
    for step in (
        Step("trim", "drop the frames in which person 0 is all zero", _trim, lengthens=True),
        Step("trim_paper", "keep as many first frames as there are valid ones (CrosSCLR)", _trim_paper, lengthens=True),
        Step("centre", "subtract the centre joint of the same person and frame", _centre),
        Step("centre_first", "subtract person 0's centre joint of the first valid frame", _centre_first),
        Step("rotate_y", "turn the clip so that person 0's shoulders are parallel to x", _rotate_y, shoulders=True),
        Step("rotate_y_paper", "turn each frame and person, CrosSCLR's rule", _rotate_y_paper, shoulders=True),
        Step("bone_lengths", "one length for all bones, directions kept", _bone_lengths),
        Step("unit_scale", "divide by the clip's mean summed bone length", _unit_scale),
        Step("resize", "linear interpolation to T frames", _resize, lengthens=True),
    )
}


def parse_steps(names: Sequence[str]) -> tuple[Step, ...]:
    """Turn step names into steps, with ``resize`` appended where it is not named.

    Raises InputError, all faults at once, for unknown or repeated names and for a trimming after ``resize``.
    """
    if isinstance(names, str):
        raise InputError(f"preprocessing steps must be a list of names, got the text '{names}'")
    faults = [
        f"unknown preprocessing step '{name}'{did_you_mean(str(name), STEPS)}" for name in names if name not in STEPS
    ]
    steps = [STEPS[name] for name in names if name in STEPS]
    faults += [f"preprocessing step '{name}' is named twice" for name in dict.fromkeys(names) if names.count(name) > 1]
    if STEPS["resize"] not in steps:
        steps.append(STEPS["resize"])
    last = steps[steps.index(STEPS["resize"]) + 1 :]
    faults += [
        f"preprocessing step '{step.name}' must come before 'resize'"
        for step in last
        if step.lengthens and step.name != "resize"
    ]
    if faults:
        raise InputError(*faults)
    return tuple(steps)


def check_steps(steps: Sequence[Step], layout: Layout, frames: int) -> None:
    """Raise InputError where the layout lacks what a step needs, or T is no positive number of frames."""
    faults = [
        f"step '{step.name}' needs shoulders, and layout '{layout.name}' names none"
        for step in steps
        if step.shoulders and layout.shoulders is None
    ]
    if frames < 1:
        faults.append(f"cannot resize to {frames} frames; T must be 1 or more")
    if faults:
        raise InputError(*faults)


def apply_steps(clip: Array, valid: int, layout: Layout, steps: Sequence[Step], frames: int) -> Array:
    """Apply steps to one clip (t, M, V, C); returns (C, T, V, M) float32 with T = ``frames``.

    ``valid`` is the clip's count of valid frames, which only ``trim_paper`` reads. The unit stays the source's unless
    a step rescales. Raises InputError as :func:`check_steps`, and for three-coordinate steps on other data.
    """
    check_steps(steps, layout, frames)
    if clip.ndim != 4 or not len(clip) or clip.shape[2] != layout.num_joints:
        raise InputError(f"a clip must be (t, M, {layout.num_joints}, C) with t > 0, got {clip.shape}")
    if clip.shape[3] != 3 and any(step.shoulders for step in steps):
        raise InputError(f"rotation about y needs x, y and z; the clip has {clip.shape[3]} coordinates")
    state = Clip(np.asarray(clip, dtype=np.float32), int(valid), layout, frames)
    for step in steps:
        state = step.run(state)
    return np.array(state.frames.transpose(3, 0, 2, 1), order="C")  # a copy: without steps it is the map itself
