"""What one clip shows: what is wrong with it whatever the others are like, and the numbers the others are judged by.

All limits are in parts of the person's own summed bone length, so metres, millimetres and pixels are judged alike. They
were set on UTD-MHAD (861 clips) and SBU (282); what they flag there is noted beside them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from methods.data.layouts.layout import Layout
from methods.data.preprocess.recipes import present

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

KINDS: Mapping[str, str] = {
    "not_finite": "hold NaN or infinite coordinates",
    "empty_clip": "hold nobody at all",
    "one_frame": "have one frame",
    "first_absent": "have a person, but not as the first",
    "gap": "lose a person for some frames",
    "frozen_person": "hold a person who never moves",
    "frozen_run": "repeat one pose for a long time",
    "zero_joint": "have a joint at exactly zero",
    "joint_jump": "have a joint that jumps",
    "body_jump": "have a whole person who jumps",
    "swap": "swap persons from one frame to the next",
    "twin": "hold one person twice",
    "bone_spread": "have a bone that changes its length",
    "size": "have a person of another size than the dataset's",
}

# A joint moves against the body (less the median joint's step). An arm is 0.13 to 0.15 of an adult's bones; 0.2 is
# about 0.8 m, at 30 frames a second 24 m/s, twice a boxer's hand. Flags 4 of UTD-MHAD, none of SBU.
JOINT_JUMP = 0.2
# The median joint's step: 0.4 m, at 30 frames a second a sprinter's 12 m/s. The largest of UTD-MHAD is 0.078, of SBU
# 0.052.
BODY_JUMP = 0.1
JUMP_TIMES = 3.0  # times the median clip's largest step, where that is more: low frame rates, fast sports
# But never more than this: at no frame rate does a joint get so far against the body (an arm span is 0.45), and a body
# that gets 4 m has no second frame to be compared with. Else a set in which every clip jumps would seem in order.
JOINT_MOST, BODY_MOST = 0.75, 1.0
# A person's mean joint goes on a third as far from the other's place as from its own, and its own is 0.04 (16 cm) away.
SWAP_RATIO = 1 / 3
SWAP_LEAST = 0.04
# One pose for five frames (a sixth of a second), and for a fifth of the person's frames. No sensor gives one frame
# twice bit for bit (SBU has one such repeat, UTD-MHAD none); padding and a tracker that has stopped do.
FROZEN_FRAMES = 5
FROZEN_SHARE = 0.2
# Two persons whose poses, each about its own mean, differ by less than a sensor's noise in half of their frames. The
# nearest two persons of SBU differ by 0.027.
TWIN = 0.005

_KEPT = 16  # jumps of one person in one clip, largest first


@dataclass(frozen=True)
class Finding:
    """Something wrong in clip ``clip``: ``text`` is one sentence, ``value`` the number that was too large or small.

    ``kind`` is one of :data:`KINDS`. Frames, persons and joints count from 0; None where it concerns no single one.
    A clip has at most one finding of a kind for each person, the worst place.
    """

    kind: str
    clip: int
    frame: int | None
    person: int | None
    joint: int | None
    value: float
    text: str


Place = tuple[int, int, float]  # frame, joint (-1: all of them), how large


@dataclass
class PersonFacts:
    """One person in one clip; ``size`` is the median summed bone length, steps are in parts of it."""

    person: int
    size: float
    bones: NDArray[np.float32]  # (2, B): mean length and spread, NaN where unknown
    farthest: NDArray[np.int32]  # (B,): the frame in which the bone is furthest from its mean
    zeros: dict[int, tuple[int, int]]  # joint -> first frame, frames
    fixed: set[int]  # joints at zero in all of the person's frames, or in the first alone: the origin of the data
    joint_jumps: list[Place] = field(default_factory=list)  # above the floor, largest first
    body_jumps: list[Place] = field(default_factory=list)
    joint_step: float = 0.0  # the largest
    body_step: float = 0.0


@dataclass
class Look:
    """What one clip is remembered by until all have been seen."""

    clip: int
    found: list[Finding] = field(default_factory=list)
    persons: list[PersonFacts] = field(default_factory=list)


def look(index: int, clip: NDArray[np.float32], layout: Layout) -> Look:
    """Look at clip ``index`` (t, M, V, C) alone."""
    out = Look(index)
    if len(clip) == 1:
        out.found.append(Finding("one_frame", index, 0, None, None, 1, "the clip has one frame"))
    bad = np.argwhere(~np.isfinite(clip))
    if len(bad):
        frame, person, joint = (int(at) for at in bad[0][:3])
        text = f"{layout.joints[joint]} of person {person} is NaN or infinite in frame {frame}; {len(bad)} numbers are"
        out.found.append(Finding("not_finite", index, frame, person, joint, len(bad), text))
        return out
    there = present(clip)
    if not there.any():
        out.found.append(Finding("empty_clip", index, 0, None, None, len(clip), "nobody is there in any frame"))
        return out
    if not there[:, 0].any():
        first = int(there.any(axis=0).argmax())
        text = f"person 0 is never there, person {first} is"
        out.found.append(Finding("first_absent", index, int(there[:, first].argmax()), 0, None, first, text))
    frames = clip.astype(np.float64)
    sizes = {}
    for person in np.flatnonzero(there.any(axis=0)).tolist():
        out.found += _presence(index, frames[:, person], there[:, person], person)
        told = _measure(frames[:, person], there[:, person], person, layout)
        sizes[person] = told.size
        out.persons.append(told)
    swapped = list(_swaps(index, frames, there, sizes))
    out.found += [*swapped, *_twins(index, frames, there, sizes)]
    steps = {(found.person, found.frame) for found in swapped}
    for told in out.persons:  # a swap is no jump as well
        told.joint_jumps = [jump for jump in told.joint_jumps if (told.person, jump[0]) not in steps]
        told.body_jumps = [jump for jump in told.body_jumps if (told.person, jump[0]) not in steps]
    out.found = _one_each(out.found)
    return out


def _presence(index: int, body: Array, there: Mask, person: int) -> Iterator[Finding]:
    """Gaps and frozen poses of one person (t, V, C)."""
    at = np.flatnonzero(there)
    lost = np.flatnonzero(np.diff(at) > 1)
    if len(lost):
        frame, count = int(at[lost[0]]) + 1, int(at[-1] - at[0] + 1 - len(at))
        text = f"person {person} is gone in {count} frames between others, first in frame {frame}"
        yield Finding("gap", index, frame, person, None, count, text)
    if len(at) < 2:
        return
    same = (body[at[1:]] == body[at[:-1]]).all(axis=(1, 2))
    if same.all():
        text = f"person {person} does not move in any of {len(at)} frames"
        yield Finding("frozen_person", index, int(at[0]), person, None, len(at), text)
        return
    begin, run = _longest_run(same)
    if run + 1 >= max(FROZEN_FRAMES, FROZEN_SHARE * len(at)):
        frame = int(at[begin])
        text = f"person {person} has one and the same pose in {run + 1} of {len(at)} frames, from frame {frame}"
        yield Finding("frozen_run", index, frame, person, None, run + 1, text)


def _longest_run(same: Mask) -> tuple[int, int]:
    """Begin and length of the longest run of True; the first such."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], same, [False]])))
    if not len(edges):
        return 0, 0
    runs = edges[1::2] - edges[::2]
    best = int(runs.argmax())
    return int(edges[2 * best]), int(runs[best])


def _measure(body: Array, there: Mask, person: int, layout: Layout) -> PersonFacts:
    """Bones and steps of one person (t, V, C)."""
    children, parents = (list(side) for side in zip(*layout.bones, strict=True))
    zero = (body == 0).all(axis=-1) & there[:, None]
    zeros = {int(v): (int(zero[:, v].argmax()), int(zero[:, v].sum())) for v in np.flatnonzero(zero.any(axis=0))}
    # A joint that is at zero throughout is the origin of centred data: it is there, and so are its bones.
    known = there[:, None] & ~(zero & (zero.sum(axis=0) < there.sum()))
    lengths = np.sqrt(((body[:, children] - body[:, parents]) ** 2).sum(axis=-1))
    size = float(np.median(lengths[there].sum(axis=1)))
    bones, farthest = _spread(lengths, known[:, children] & known[:, parents])
    first, count = int(there.argmax()), int(there.sum())
    fixed = {joint for joint, where in zeros.items() if where in ((first, count), (first, 1))}
    told = PersonFacts(person, size, bones, farthest, zeros, fixed)
    both = known[1:] & known[:-1]
    if size > 0 and both.any():
        steps = body[1:] - body[:-1]
        whole = np.median(steps, axis=1)
        own = np.sqrt(((steps - whole[:, None]) ** 2).sum(axis=-1)) * both / size
        all_of_it = np.sqrt((whole**2).sum(axis=-1)) * both.any(axis=1) / size
        told.joint_step, told.body_step = float(own.max()), float(all_of_it.max())
        told.joint_jumps = _places(own, JOINT_JUMP)
        told.body_jumps = [(frame, -1, value) for frame, _, value in _places(all_of_it[:, None], BODY_JUMP)]
    return told


def _spread(lengths: Array, known: Mask) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """(2, B) mean and coefficient of variation of bones (t, B) over the frames in which they are known."""
    count = known.sum(axis=0)
    mean = np.where(known, lengths, 0.0).sum(axis=0) / np.maximum(count, 1)
    off = np.where(known, np.abs(lengths - mean), 0.0)
    spread = np.sqrt((off**2).sum(axis=0) / np.maximum(count, 1)) / np.where(mean > 0, mean, 1.0)
    out = np.stack([mean, spread])
    out[:, count == 0] = np.nan
    return out.astype(np.float32), off.argmax(axis=0).astype(np.int32)


def _places(values: Array, floor: float) -> list[Place]:
    """The largest values (t - 1, V) above a floor, with the later one of the two frames."""
    if values.max() <= floor:
        return []
    steps, joints = np.nonzero(values > floor)
    order = np.argsort(-values[steps, joints], kind="stable")[:_KEPT]
    return [(int(steps[at]) + 1, int(joints[at]), float(values[steps[at], joints[at]])) for at in order]


def _swaps(index: int, frames: Array, there: Mask, sizes: Mapping[int, float]) -> Iterator[Finding]:
    """Persons who go on in each other's place, or in an empty one's while their own falls empty."""
    for person, other in combinations(sizes, 2):
        size = min(sizes[person], sizes[other])
        if len(frames) < 2 or size <= 0:
            continue
        ways = {(a, b): _way(frames, there, a, b) for a in (person, other) for b in (person, other)}
        for now, before in ((person, other), (other, person)):
            # `now` comes from where `before` was, and `before` either comes from here or is gone.
            comes = ways[now, before] <= np.minimum(SWAP_RATIO * ways[now, now], BODY_JUMP * size)
            comes &= ways[now, now] > SWAP_LEAST * size
            goes = ways[before, now] <= np.minimum(SWAP_RATIO * ways[before, before], BODY_JUMP * size)
            goes &= ways[before, before] > SWAP_LEAST * size
            for step in np.flatnonzero(comes & (goes | ~there[1:, before])).tolist():
                apart = ways[now, now][step] / size
                text = f"person {now} goes on in frame {step + 1} where person {before} was in frame {step}"
                value = float(apart) if np.isfinite(apart) else 0.0
                yield Finding("swap", index, step + 1, now, None, value, text)


def _way(frames: Array, there: Mask, now: int, before: int) -> Array:
    """(t - 1,): mean distance of a person's joints from another's one frame earlier; infinite where one is absent."""
    way = np.sqrt(((frames[1:, now] - frames[:-1, before]) ** 2).sum(axis=-1)).mean(axis=-1)
    return np.where(there[1:, now] & there[:-1, before], way, np.inf)


def _twins(index: int, frames: Array, there: Mask, sizes: Mapping[int, float]) -> Iterator[Finding]:
    """Two persons of one pose, at one place or moved."""
    for person, other in combinations(sizes, 2):
        both = there[:, person] & there[:, other]
        size = min(sizes[person], sizes[other])
        if not both.any() or size <= 0:
            continue
        apart = frames[both, other] - frames[both, person]
        moved = apart.mean(axis=1, keepdims=True)
        off = np.sqrt(((apart - moved) ** 2).sum(axis=-1).mean(axis=-1)) / size
        alike = off <= TWIN
        if alike.mean() >= 0.5:
            far = float(np.sqrt((moved**2).sum(axis=-1)).mean()) / size
            text = f"person {other} has the pose of person {person} in {alike.sum()} of {len(off)} frames, " + (
                "at the same place" if far <= TWIN else f"{far:.2g} of the bones' sum away"
            )
            frame = int(np.flatnonzero(both)[alike.argmax()])
            yield Finding("twin", index, frame, other, None, float(np.median(off)), text)


def _one_each(found: Sequence[Finding]) -> list[Finding]:
    """The first finding of each kind and person, told how many more there are."""
    groups: dict[tuple[str, int | None], list[Finding]] = {}
    for finding in found:
        groups.setdefault((finding.kind, finding.person), []).append(finding)
    return [and_more(group[0], len(group) - 1) for group in groups.values()]


def and_more(finding: Finding, more: int) -> Finding:
    """The finding, told that there are more of its kind and person."""
    return replace(finding, text=f"{finding.text}; and {more} more such") if more else finding
