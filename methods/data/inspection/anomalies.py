"""What is wrong inside single clips: persons who freeze, vanish, swap or jump, joints at zero, bones that stretch.

One pass, memory of one clip and a few numbers for each (`looks` beside this has the limits that hold for any clip). The
frame rate is nowhere stored: what moves too fast is measured against what is physically possible at 30 frames a second
*and* against the dataset itself, so that a set of 5 frames a second is not all jumps. Bones and sizes are measured
against the dataset's medians.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from methods.data.inspection.looks import (
    BODY_JUMP,
    BODY_MOST,
    JOINT_JUMP,
    JOINT_MOST,
    JUMP_TIMES,
    KINDS,
    Finding,
    Look,
    PersonFacts,
    and_more,
    look,
)
from methods.data.layouts.layout import Layout
from methods.data.skeletons import SkeletonDataset

__all__ = ["KINDS", "Anomalies", "BoneFacts", "Finding", "find_anomalies"]

Array = NDArray[np.float64]

# Coefficient of variation of one bone within a clip, and standard deviation in parts of the body. 0.4 of a thigh is
# 16 cm. A hand's bone is noise in Kinect data (median 0.33), hence also a multiple of the bone's own median; a bone of
# 8 cm needs no more than a joint lost for a few frames, hence the least: 0.02 is 8 cm. Flags 3 of UTD-MHAD, 4 of
# SBU, and 69 of the 900 generated clips, in which joints are lost on purpose.
BONE_SPREAD = 0.4
BONE_TIMES = 4.0
BONE_LEAST = 0.02
SIZE_TIMES = 2.0  # adults and children of school age differ by less than 1.7; metres and millimetres by more
# A joint at zero in all frames, or in the first alone, of more of the clips than this is the origin of the data
# (centred in every frame, or in the first), not lost; said once.
CONVENTION = 0.5


@dataclass(frozen=True)
class BoneFacts:
    """How long a bone is in the dataset and how much that varies within a clip (coefficient of variation).

    ``length`` in the source's unit, mean over clips and persons; ``spread`` is the median clip's, ``most`` the largest,
    in clip ``clip``.
    """

    child: str
    parent: str
    length: float
    spread: float
    most: float
    clip: int


@dataclass(frozen=True)
class Anomalies:
    """What :func:`find_anomalies` found: findings by kind and clip, and the facts they were judged by.

    ``origins`` are joints at exactly zero in more than half of the clips by the way the data was centred.
    ``joint_limit`` and ``body_limit`` are what counted as a jump here, ``size`` the median summed bone length.
    """

    findings: tuple[Finding, ...] = ()
    bones: tuple[BoneFacts, ...] = ()
    origins: tuple[str, ...] = ()
    joint_limit: float = JOINT_JUMP
    body_limit: float = BODY_JUMP
    size: float = 0.0

    def by_kind(self) -> dict[str, list[Finding]]:
        """The findings of each kind that occurs, in the order of :data:`KINDS`."""
        out: dict[str, list[Finding]] = {kind: [] for kind in KINDS}
        for finding in self.findings:
            out[finding.kind].append(finding)
        return {kind: found for kind, found in out.items() if found}


def find_anomalies(dataset: SkeletonDataset) -> Anomalies:
    """Read a dataset once, clip by clip, and say what is wrong in which; see the constants for the limits."""
    layout = dataset.layout
    return _judge([look(index, dataset.clip(index), layout) for index in range(len(dataset))], layout)


def _judge(looks: Sequence[Look], layout: Layout) -> Anomalies:
    persons = [(seen.clip, told) for seen in looks for told in seen.persons]
    found = [finding for seen in looks for finding in seen.found]
    if not persons:
        return Anomalies(_sorted(found))
    joint_limit, body_limit = _jump_limits(looks)
    size = float(np.median([told.size for _, told in persons]))
    bones = np.stack([told.bones for _, told in persons])
    usual = _column_medians(bones[:, 1])
    origins = _origins(looks, layout.num_joints)
    for clip, told in persons:
        found += _jumped(clip, told, joint_limit, body_limit, layout)
        found += _zeroed(clip, told, origins, layout)
        found += _stretched(clip, told, usual, layout)
        found += _sized(clip, told, size)
    return Anomalies(
        findings=_sorted(found),
        bones=_bone_facts([clip for clip, _ in persons], bones, usual, layout),
        origins=tuple(layout.joints[joint] for joint in sorted(origins)),
        joint_limit=joint_limit,
        body_limit=body_limit,
        size=size,
    )


def _sorted(found: Sequence[Finding]) -> tuple[Finding, ...]:
    order = {kind: at for at, kind in enumerate(KINDS)}
    return tuple(sorted(found, key=lambda finding: (order[finding.kind], finding.clip, finding.person or 0)))


def _jump_limits(looks: Sequence[Look]) -> tuple[float, float]:
    usual = [
        float(np.median([max(getattr(told, step) for told in seen.persons) for seen in looks if seen.persons]))
        for step in ("joint_step", "body_step")
    ]
    joint, body = (JUMP_TIMES * step for step in usual)
    return min(JOINT_MOST, max(JOINT_JUMP, joint)), min(BODY_MOST, max(BODY_JUMP, body))


def _origins(looks: Sequence[Look], joints: int) -> set[int]:
    clips = np.zeros(joints, dtype=np.int64)
    for seen in looks:
        clips[sorted({joint for told in seen.persons for joint in told.fixed})] += 1
    return set(np.flatnonzero(clips > CONVENTION * sum(bool(seen.persons) for seen in looks)).tolist())


def _column_medians(values: NDArray[np.float32]) -> Array:
    """(B,): medians over rows without NaN; NaN where a column has nothing else."""
    known = [column[np.isfinite(column)] for column in values.T]
    return np.array([np.median(column) if len(column) else np.nan for column in known])


def _jumped(clip: int, told: PersonFacts, joint_limit: float, body_limit: float, layout: Layout) -> Iterator[Finding]:
    who, limit = f"person {told.person}", "of the bones' sum, %.2f is the limit"
    for kind, jumps, most in (
        ("body_jump", told.body_jumps, body_limit),
        ("joint_jump", told.joint_jumps, joint_limit),
    ):
        over = [jump for jump in jumps if jump[2] > most]
        if over:
            # A joint that is away for one frame jumps twice, there and back: the frame in question is the first.
            frame, joint, value = min(jump for jump in over if jump[1] == over[0][1] and jump[2] > 0.8 * over[0][2])
            what = who if joint < 0 else f"{layout.joints[joint]} of {who}"
            text = f"{what} moves {value * told.size:.3g} from frame {frame - 1} to {frame}: {value:.2f} {limit % most}"
            yield and_more(
                Finding(kind, clip, frame, told.person, None if joint < 0 else joint, value, text), len(over) - 1
            )


def _zeroed(clip: int, told: PersonFacts, origins: set[int], layout: Layout) -> Iterator[Finding]:
    zeros = {joint: where for joint, where in told.zeros.items() if joint not in origins}
    if zeros:
        joint, (frame, count) = max(zeros.items(), key=lambda item: item[1][1])
        text = f"{layout.joints[joint]} of person {told.person} is at zero in {count} frames, first in frame {frame}"
        others = [layout.joints[other] for other in zeros if other != joint]
        text += f"; so are {', '.join(others)}" if others else ""
        yield Finding("zero_joint", clip, frame, told.person, joint, count, text)


def _stretched(clip: int, told: PersonFacts, usual: Array, layout: Layout) -> Iterator[Finding]:
    spread = told.bones[1].astype(np.float64)
    over = np.nan_to_num(spread / np.maximum(BONE_SPREAD, BONE_TIMES * usual))
    over[np.nan_to_num(told.bones[0] * spread) <= BONE_LEAST * told.size] = 0
    bone = int(over.argmax())
    if over[bone] > 1:
        child, parent = layout.bones[bone]
        text = (
            f"{layout.joints[parent]} to {layout.joints[child]} of person {told.person} varies by {spread[bone]:.0%} "
            f"of its length (usual here: {usual[bone]:.0%}), most in frame {told.farthest[bone]}"
        )
        yield and_more(
            Finding("bone_spread", clip, int(told.farthest[bone]), told.person, child, float(spread[bone]), text),
            int((over > 1).sum()) - 1,
        )


def _sized(clip: int, told: PersonFacts, usual: float) -> Iterator[Finding]:
    ratio = told.size / usual if usual > 0 else 1.0
    if not 1 / SIZE_TIMES <= ratio <= SIZE_TIMES:
        text = f"person {told.person}'s bones sum up to {told.size:.3g}, the dataset's median is {usual:.3g}"
        yield Finding("size", clip, None, told.person, None, ratio, text)


def _bone_facts(
    clips: Sequence[int], bones: NDArray[np.float32], usual: Array, layout: Layout
) -> tuple[BoneFacts, ...]:
    out = []
    for at, (child, parent) in enumerate(layout.bones):
        mean, spread = bones[:, 0, at], bones[:, 1, at]
        known = np.isfinite(spread)
        if known.any():
            worst = int(np.where(known, spread, -1).argmax())
            out.append(
                BoneFacts(
                    child=layout.joints[child],
                    parent=layout.joints[parent],
                    length=float(mean[known].mean(dtype=np.float64)),
                    spread=float(usual[at]),
                    most=float(spread[worst]),
                    clip=clips[worst],
                )
            )
    return tuple(out)
