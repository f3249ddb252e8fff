"""Steps as published code does them, with its oddities, for numbers that can be held against published ones.

Sources: the public code of CrosSCLR (shared by AimCLR, SkeletonBYOL and SkeleMixCLR), of SCD-Net and CMD (AGCN's
pre-normalisation), and of CTR-GCN (NTU RGB+D and NW-UCLA).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from methods.data.preprocess.steps import Array, Clip, Step, first_frame, present, rotated, shifted, shoulder_lines

_LEAST = 1e-6  # AGCN: a vector whose absolute values sum to less has no direction


def _trim_paper(clip: Clip) -> Clip:
    """CrosSCLR: keep the first ``valid`` frames, where valid is a count; a gap therefore costs frames at the end."""
    return replace(clip, frames=clip.frames[: max(1, clip.valid)])


def _rotate_y_paper(clip: Clip) -> Clip:
    """CrosSCLR: each frame and person by arccos(w_x / (|w| + 1e-4)) of its own shoulder line w with w_y = 0.

    The sign is one for all frames of a person, that of the summed w_z: where the line crosses z within a clip, a
    part of it is turned the wrong way.
    """
    lines = shoulder_lines(clip)
    lines[..., 1] = 0
    angle = np.arccos(lines[..., 0] / (np.linalg.norm(lines, axis=-1) + 1e-4))
    angle = np.where(lines[..., 2].sum(axis=0) >= 0, -angle, angle)
    return replace(clip, frames=rotated(clip.frames, angle))


def _shift_persons(clip: Clip) -> Clip:
    """AGCN: a person who is not there in the first frame loses all empty frames, inner ones too; zeros follow.

    Each person by itself, so that two who came at different times no longer act at the same time.
    """
    there, frames = present(clip.frames), np.array(clip.frames)
    for person in np.flatnonzero(~there[0]):
        kept = clip.frames[there[:, person], person]
        frames[: len(kept), person] = kept
        frames[len(kept) :, person] = 0
    return replace(clip, frames=frames)


def _loop_persons(clip: Clip) -> Clip:
    """AGCN: a person's empty frames at the end are filled by playing the frames before again, from the first."""
    there, frames = present(clip.frames), np.array(clip.frames)
    for person in np.flatnonzero(there.any(axis=0)):
        length = int(np.flatnonzero(there[:, person])[-1]) + 1
        frames[:, person] = clip.frames[np.arange(len(frames)) % length, person]
    return replace(clip, frames=frames, valid=len(frames) if there[:, 0].any() else clip.valid)


def _upper_spine(clip: Clip) -> int:
    return clip.layout.spine[1] if clip.layout.spine is not None else clip.layout.centre


def _centre_spine(clip: Clip) -> Clip:
    """AGCN: subtract person 0's spine joint from all persons, frame by frame; a joint at exactly zero stays there."""
    there = (clip.frames != 0).any(axis=-1, keepdims=True)
    origin = clip.frames[:, :1, _upper_spine(clip)][:, :, None]
    return replace(clip, frames=np.where(there, clip.frames - origin, 0).astype(np.float32))


def _centre_first_spine(clip: Clip) -> Clip:
    """CTR-GCN: subtract person 0's spine joint of its first frame from everybody, so that ways and distances stay."""
    return replace(clip, frames=shifted(clip.frames, clip.frames[first_frame(clip), 0, _upper_spine(clip)]))


def least_turn(line: NDArray[np.floating], target: NDArray[np.floating]) -> NDArray[np.float64]:
    """(3, 3) rotation by the smallest angle that takes the direction of ``line`` (3,) to the unit vector ``target``.

    The identity for a line without a direction and, as published, for one that points the opposite way.
    """
    line = np.asarray(line, dtype=np.float64)
    axis = np.cross(line, target)
    if np.abs(line).sum() < _LEAST or np.abs(axis).sum() < _LEAST:
        return np.eye(3)
    sin, cos = np.linalg.norm(axis) / np.linalg.norm(line), (line @ target) / np.linalg.norm(line)
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray(np.eye(3) + sin * cross + (1 - cos) * cross @ cross)


def _turned(clip: Clip, line: NDArray[np.floating], target: tuple[int, int, int]) -> Clip:
    turn = least_turn(line, np.array(target, dtype=np.float64))
    return replace(clip, frames=(clip.frames @ turn.T).astype(np.float32))


def _spine_z(clip: Clip) -> Clip:
    """AGCN: turn the clip by the least turn that takes person 0's spine in the first frame to +z."""
    low, high = clip.layout.spine or (0, 0)
    return _turned(clip, clip.frames[0, 0, high] - clip.frames[0, 0, low], (0, 0, 1))


def _shoulders_x(clip: Clip) -> Clip:
    """AGCN: the same for the shoulder line, left to right, to +x; a spine that was at +z leaves it a little."""
    return _turned(clip, shoulder_lines(clip)[0, 0], (1, 0, 0))


def _trim_empty(clip: Clip) -> Clip:
    """CTR-GCN: drop the frames in which nobody is there; an empty clip keeps its first frame."""
    there = present(clip.frames)
    keep = np.array(there.any(axis=1))
    if not keep.any():
        keep[0] = True
    return replace(clip, frames=clip.frames[keep], valid=int(there[keep, 0].sum()))


def _minmax(clip: Clip) -> Clip:
    """CTR-GCN, NW-UCLA: each axis to [-1, 1] over all joints, frames and persons that are there; a constant axis to 0.

    The proportions between width, height and depth are lost.
    """
    there = present(clip.frames)
    if not there.any():
        return clip
    points = clip.frames[there].astype(np.float64)
    low = points.min(axis=(0, 1))
    span = points.max(axis=(0, 1)) - low
    frames: Array = np.zeros_like(clip.frames)
    frames[there] = np.where(span > 0, (points - low) / np.where(span > 0, span, 1) * 2 - 1, 0)
    return replace(clip, frames=frames)


def _sample(clip: Clip) -> Clip:
    """CTR-GCN, NW-UCLA: T frames at equal steps from the first to the last, no interpolation; short clips repeat."""
    index = np.linspace(0, len(clip.frames) - 1, clip.length).astype(np.int64)
    return replace(clip, frames=clip.frames[index], valid=clip.length)


PUBLISHED = (
    Step("trim_paper", "keep as many first frames as there are valid ones (CrosSCLR)", _trim_paper, lengthens=True),
    Step("rotate_y_paper", "turn each frame and person, CrosSCLR's rule", _rotate_y_paper, shoulders=True, xyz=True),
    Step("shift_persons", "who is not there at first loses all empty frames (AGCN)", _shift_persons),
    Step("loop_persons", "fill a person's empty end by playing the clip again (AGCN)", _loop_persons),
    Step("centre_spine", "subtract person 0's spine joint of the same frame (AGCN)", _centre_spine, spine=True),
    Step("spine_z", "turn the clip: person 0's spine to +z (AGCN)", _spine_z, spine=True, xyz=True),
    Step("shoulders_x", "turn the clip: person 0's shoulders to +x (AGCN)", _shoulders_x, shoulders=True, xyz=True),
    Step("trim_empty", "drop the frames in which nobody is there (CTR-GCN)", _trim_empty, lengthens=True),
    Step("centre_first_spine", "subtract person 0's spine joint of its first frame (CTR-GCN)", _centre_first_spine,
         spine=True),
    Step("minmax", "each axis to [-1, 1] over the clip (CTR-GCN, NW-UCLA)", _minmax),
    Step("sample", "T frames at equal steps, as they are (CTR-GCN, NW-UCLA)", _sample, lengthens=True, ends=True),
)  # fmt: skip
