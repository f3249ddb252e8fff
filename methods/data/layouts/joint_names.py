"""What joint names and a tree say by themselves: sides, mirror image, centre, shoulders, spine, and body parts.

Nothing here knows a layout: lists of names and parents (index of the joint that each hangs from, -1 for the root) in,
indices out. A :class:`methods.data.layouts.layout.Layout` takes from here what its maker did not give.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

Sided = tuple[str | None, str]  # ("left", "hand_tip"), (None, "head")

PARTS = ("trunk", "left_arm", "right_arm", "left_leg", "right_leg")
MOST_PARTS = len(PARTS)

# Joints between the shoulders, best first: the published graphs and centrings use this joint (NTU's 21st).
_CENTRES = ("spine_shoulder", "shoulder_center", "shoulder_centre", "neck", "thorax", "chest", "torso", "spine")
# The two ends of the lower back, best first; NTU's are spine_base and spine_mid.
_LOW_SPINES = ("spine_base", "hip_center", "hip_centre", "mid_hip", "pelvis", "hips", "hip", "root", "torso", "spine")
_HIGH_SPINES = ("spine_mid", "spine", "spine1", "spine_1", "torso", "abdomen", "upperback", "chest", "thorax",
                "spine_shoulder", "shoulder_center", "shoulder_centre", "neck")  # fmt: skip
_SHOULDERS = ("shoulder", "clavicle", "collar")  # a mocap bone `lclavicle` ends at the shoulder
_SIDES = {"left": "left", "l": "left", "right": "right", "r": "right"}
_PREFIXES = (("left", "right"), ("l", "r"))
_ARM = re.compile("shoulder|clavicle|collar|arm|elbow|humerus|radius|ulna|wrist|hand|palm|finger|thumb")
_LEG = re.compile("hip|buttock|leg|thigh|femur|knee|tibia|shin|calf|ankle|foot|feet|heel|toe")


def split_sides(joints: Sequence[str]) -> list[Sided]:
    """Split each name into side and part: 'left_hand_tip', 'HandTipLeft', 'l-hand tip' -> ('left', 'hand_tip').

    A side without a separator counts where the partner exists: 'lhumerus' is left beside an 'rhumerus', while
    'lowerback' is nobody's left 'owerback'.
    """
    split = [_by_words(joint) for joint in joints]
    unsided = [part for side, part in split if side is None]
    return [_by_partner(part, unsided) if side is None else (side, part) for side, part in split]


def _by_words(joint: str) -> Sided:
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", joint.strip())
    words = [word for word in re.split(r"[^a-z0-9]+", spaced.lower()) if word]
    sides = [_SIDES[word] for word in words if word in _SIDES]
    part = "_".join(word for word in words if word not in _SIDES)
    return (sides[0] if len(sides) == 1 else None), part


def _by_partner(part: str, unsided: Sequence[str]) -> Sided:
    for left, right in _PREFIXES:
        for side, own, other in (("left", left, right), ("right", right, left)):
            rest = part.removeprefix(own)
            if rest not in (part, "") and unsided.count(part) == unsided.count(other + rest) == 1:
                return side, rest
    return None, part


def mirror_of(sides: Sequence[Sided]) -> tuple[int, ...]:
    """Left x <-> right x; a joint without a single partner mirrors itself."""
    mirror = list(range(len(sides)))
    for index, (side, part) in enumerate(sides):
        partner = ("right", part) if side == "left" else ("left", part)
        if side is not None and sides.count(partner) == sides.count((side, part)) == 1:
            mirror[index] = sides.index(partner)
    return tuple(mirror)


def centre_of(sides: Sequence[Sided], parents: Sequence[int]) -> int:
    """The joint between the shoulders if one has a known name, else the root (0 where there is none)."""
    root = next((index for index, parent in enumerate(parents) if parent == -1), 0)
    return next(iter(_middle(sides, _CENTRES)), root)


def _middle(sides: Sequence[Sided], names: Sequence[str]) -> list[int]:
    """Those joints without a side that are called one of ``names``, in the order of ``names``."""
    known = {part: index for index, (side, part) in enumerate(sides) if side is None}
    return [known[name] for name in names if name in known]


def shoulders_of(sides: Sequence[Sided]) -> tuple[int, int] | None:
    """(left, right), None where the names have no such pair."""
    for part in _SHOULDERS:
        if ("left", part) in sides and ("right", part) in sides:
            return sides.index(("left", part)), sides.index(("right", part))
    return None


def spine_of(sides: Sequence[Sided]) -> tuple[int, int] | None:
    """(lower, upper) end of the lower back: the first known name of each; None where there are no two joints."""
    low = next(iter(_middle(sides, _LOW_SPINES)), None)
    high = next((joint for joint in _middle(sides, _HIGH_SPINES) if joint != low), None)
    return None if low is None or high is None else (low, high)


def parts_of(sides: Sequence[Sided], parents: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Cut a sound tree into body parts, each joint in one: :data:`PARTS` by name, else by :func:`cut_tree`.

    A joint with a side is of the arm or leg that its name says, else of the limb of that side that it hangs from;
    everything else is trunk (so are eyes and ears). Parts without a joint are left out. The names do not count where
    they do not give a limb on either side.
    """
    of: dict[int, str] = {}
    for joint in _downwards(parents):
        side = sides[joint][0]
        above = of.get(parents[joint], "trunk")
        of[joint] = _own_part(sides[joint]) or (above if above.partition("_")[0] == side else "trunk")
    groups = _groups([of[joint] for joint in range(len(parents))], PARTS)
    limbs = {name.partition("_")[0] for name in groups}
    return groups if {"left", "right"} <= limbs else cut_tree(parents)


def _downwards(parents: Sequence[int]) -> list[int]:
    """All joints, each after its parent."""
    order = [joint for joint, parent in enumerate(parents) if parent < 0]
    for joint in order:  # grows while it is walked
        order.extend(child for child, parent in enumerate(parents) if parent == joint)
    return order


def _own_part(sided: Sided) -> str | None:
    side, name = sided
    if side is None:
        return "trunk"
    limb = "arm" if _ARM.search(name) else "leg" if _LEG.search(name) else None
    return limb and f"{side}_{limb}"


def _groups(names: Sequence[str], order: Sequence[str]) -> dict[str, tuple[int, ...]]:
    return {
        name: tuple(joint for joint, own in enumerate(names) if own == name) for name in order if name in set(names)
    }


def cut_tree(parents: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Cut a sound tree into connected groups of about equal size, 'part1' (with the root) to at most 'part5'.

    From what is left, the subtree whose size is nearest to an equal share is cut off, until five parts are there.
    """
    owner = [1] * len(parents)
    wanted = min(MOST_PARTS, len(parents))
    upwards = _downwards(parents)[::-1]
    for number in range(wanted, 1, -1):
        sizes = [int(part == 1) for part in owner]  # of each subtree, as far as it is still uncut
        for joint in upwards[:-1]:
            sizes[parents[joint]] += sizes[joint]
        share = sizes[upwards[-1]] / number
        uncut = [joint for joint in upwards[:-1] if owner[joint] == 1]
        top = min(uncut, key=lambda joint: (abs(sizes[joint] - share), joint))
        owner[top] = number
        for joint in upwards[::-1]:
            if owner[joint] == 1 and parents[joint] >= 0 and owner[parents[joint]] == number:
                owner[joint] = number
    names = [f"part{part}" for part in owner]
    return _groups(names, [f"part{number}" for number in range(1, wanted + 1)])
