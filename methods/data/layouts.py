"""Joint layouts: what each of the V joints is called, which joint it hangs from, and which is its mirror image."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from methods.errors import InputError, did_you_mean

# Joints between the shoulders, best first: the published graphs and centrings use this joint (NTU's 21st).
_CENTRES = ("spine_shoulder", "shoulder_center", "shoulder_centre", "neck", "thorax", "chest", "torso", "spine")
_SIDES = {"left": "left", "l": "left", "right": "right", "r": "right"}


@dataclass(frozen=True)
class Layout:
    """A tree of V named joints.

    ``parents[v]`` is the index of the joint that joint v hangs from, -1 for the one root; ``centre`` the joint that
    centring subtracts and that a graph measures its hops to; ``mirror[v]`` the joint that v becomes in a mirror;
    ``shoulders`` (left, right), None where the layout has none. Raises InputError with every fault at once.
    """

    name: str
    joints: tuple[str, ...]
    parents: tuple[int, ...]
    centre: int
    mirror: tuple[int, ...]
    shoulders: tuple[int, int] | None

    def __post_init__(self) -> None:
        faults = [*_name_faults(self), *_tree_faults(self), *_pairing_faults(self)]
        if faults:
            raise InputError(*faults)

    @property
    def num_joints(self) -> int:
        """V, the number of joints."""
        return len(self.joints)

    @property
    def root(self) -> int:
        """Index of the joint without a parent."""
        return self.parents.index(-1)

    @property
    def bones(self) -> tuple[tuple[int, int], ...]:
        """The V-1 bones as (child, parent) indices, by child."""
        return tuple((child, parent) for child, parent in enumerate(self.parents) if parent >= 0)

    def to_dict(self) -> dict[str, object]:
        """Return a plain dict for JSON, read back by :meth:`from_dict`."""
        return {
            "name": self.name,
            "joints": list(self.joints),
            "parents": list(self.parents),
            "centre": self.centre,
            "mirror": list(self.mirror),
            "shoulders": None if self.shoulders is None else list(self.shoulders),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> Layout:
        """Read a layout; ``centre``, ``mirror`` and ``shoulders`` may be left out and are then derived from the names.

        Joints may be given by index or by name everywhere. Raises InputError on anything else.
        """
        known = ("name", "joints", "parents", "centre", "mirror", "shoulders")
        faults = [f"layout: unknown key '{key}'{did_you_mean(str(key), known)}" for key in data if key not in known]
        faults += [f"layout: key '{key}' is missing" for key in known[:3] if key not in data]
        if faults:
            raise InputError(*faults)
        joints = _strings(data["joints"])
        base = layout_from_parts(_string(data["name"], "name"), joints, _indices(data["parents"], joints, "parents"))
        centre, mirror, shoulders = (data.get(key) for key in known[3:])
        pair = base.shoulders if shoulders is None else _indices(shoulders, joints, "shoulders")
        if pair is not None and len(pair) != 2:
            raise InputError(f"layout '{base.name}': shoulders must be two joints (left, right), got {shoulders!r}")
        return cls(
            name=base.name,
            joints=base.joints,
            parents=base.parents,
            centre=base.centre if centre is None else _index(centre, joints, "centre"),
            mirror=base.mirror if mirror is None else _indices(mirror, joints, "mirror"),
            shoulders=None if pair is None else (pair[0], pair[1]),
        )


def _name_faults(layout: Layout) -> list[str]:
    where = f"layout '{layout.name}'"
    faults = []
    if not layout.name:
        faults.append("layout: the name is empty")
    if len(layout.joints) < 2:
        faults.append(f"{where}: needs at least two joints, has {len(layout.joints)}")
    twice = sorted({joint for joint in layout.joints if layout.joints.count(joint) > 1})
    if twice:
        faults.append(f"{where}: joint names occur twice: {', '.join(twice)}")
    return faults


def _tree_faults(layout: Layout) -> list[str]:
    where, count, parents = f"layout '{layout.name}'", len(layout.joints), layout.parents
    if len(parents) != count:
        return [f"{where}: {count} joints but {len(parents)} parents"]
    outside = [parent for parent in parents if not -1 <= parent < count]
    if outside:
        return [f"{where}: parents {outside} are no joint index (0 to {count - 1}, -1 for the root)"]
    roots = [index for index, parent in enumerate(parents) if parent == -1]
    if len(roots) != 1:
        return [f"{where}: exactly one joint must have parent -1, {len(roots)} have"]
    for joint in range(count):
        at = joint
        for _ in range(count):  # a path to the root is shorter than V; anything longer is a circle
            at = parents[at] if at >= 0 else at
        if at >= 0:
            return [f"{where}: the parents of joint '{layout.joints[joint]}' run in a circle"]
    return []


def _pairing_faults(layout: Layout) -> list[str]:
    where, count, mirror = f"layout '{layout.name}'", len(layout.joints), layout.mirror
    faults = []
    if not 0 <= layout.centre < count:
        faults.append(f"{where}: centre {layout.centre} is no joint index (0 to {count - 1})")
    if sorted(mirror) != list(range(count)):
        faults.append(f"{where}: mirror must name each of the {count} joints once, got {list(mirror)}")
    elif any(mirror[mirror[joint]] != joint for joint in range(count)):
        faults.append(f"{where}: mirror applied twice must give the joint itself")
    pair = layout.shoulders
    if pair is not None and (pair[0] == pair[1] or not all(0 <= joint < count for joint in pair)):
        faults.append(f"{where}: shoulders {pair} must be two different joint indices")
    return faults


def _string(value: object, key: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"layout: '{key}' must be a text, got {value!r}")
    return value


def _strings(value: object) -> tuple[str, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str) or not all(isinstance(item, str) for item in value):
        raise InputError("layout: 'joints' must be a list of joint names")
    return tuple(value)


def _index(value: object, joints: Sequence[str], key: str) -> int:
    if isinstance(value, str):
        if value not in joints:
            raise InputError(f"layout: {key}: no joint '{value}'{did_you_mean(value, joints)}")
        return joints.index(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"layout: {key}: {value!r} is neither a joint's index nor its name")
    return value


def _indices(value: object, joints: Sequence[str], key: str) -> tuple[int, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise InputError(f"layout: '{key}' must be a list, got {value!r}")
    return tuple(-1 if item is None else _index(item, joints, key) for item in value)


def _side_and_part(joint: str) -> tuple[str | None, str]:
    """Split 'left_hand_tip', 'HandTipLeft' or 'l-hand tip' into ('left', 'hand_tip'); (None, ...) in the middle."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", joint.strip())
    words = [word for word in re.split(r"[^a-z0-9]+", spaced.lower()) if word]
    sides = [_SIDES[word] for word in words if word in _SIDES]
    part = "_".join(word for word in words if word not in _SIDES)
    return (sides[0] if len(sides) == 1 else None), part


def layout_from_parts(name: str, joints: Sequence[str], parents: Sequence[int]) -> Layout:
    """Build a layout from names and parents alone; centre, mirror and shoulders follow from the names.

    A joint 'left_x' (also 'x_left', 'XLeft', 'l_x') mirrors 'right_x'; a joint without a partner mirrors itself. The
    centre is the joint between the shoulders if one has a known name, else the root. Raises InputError.
    """
    sided = [_side_and_part(joint) for joint in joints]
    mirror = list(range(len(joints)))
    for index, (side, part) in enumerate(sided):
        partner = ("right", part) if side == "left" else ("left", part)
        if side is not None and sided.count(partner) == 1 and sided.count((side, part)) == 1:
            mirror[index] = sided.index(partner)
    middle = {part: index for index, (side, part) in enumerate(sided) if side is None}
    root = next((index for index, parent in enumerate(parents) if parent == -1), 0)
    centre = next((middle[part] for part in _CENTRES if part in middle), root)
    pair = [sided.index((side, "shoulder")) for side in ("left", "right") if (side, "shoulder") in sided]
    return Layout(
        name=name,
        joints=tuple(str(joint) for joint in joints),
        parents=tuple(int(parent) for parent in parents),
        centre=centre,
        mirror=tuple(mirror),
        shoulders=(pair[0], pair[1]) if len(pair) == 2 else None,
    )


def _arm_and_leg(side: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    arm = tuple(f"{side}_{part}" for part in ("shoulder", "elbow", "wrist", "hand"))
    leg = tuple(f"{side}_{part}" for part in ("hip", "knee", "ankle", "foot"))
    return arm, leg


_LEFT_ARM, _LEFT_LEG = _arm_and_leg("left")
_RIGHT_ARM, _RIGHT_LEG = _arm_and_leg("right")

# Kinect v2 as in NTU RGB+D. The bone list is that of the CrosSCLR family and AGCN; its root and centre is joint 21
# (spine-shoulder). A hand tip hangs from the thumb there, as published.
NTU25 = layout_from_parts(
    "ntu25",
    (
        *("spine_base", "spine_mid", "neck", "head"),
        *(*_LEFT_ARM, *_RIGHT_ARM, *_LEFT_LEG, *_RIGHT_LEG),
        *("spine_shoulder", "left_hand_tip", "left_thumb", "right_hand_tip", "right_thumb"),
    ),
    (1, 20, 20, 2, 20, 4, 5, 6, 20, 8, 9, 10, 0, 12, 13, 14, 0, 16, 17, 18, -1, 22, 7, 24, 11),
)

# Kinect v1 in NW-UCLA's joint order and with CTR-GCN's bones: root and centre is joint 3 (shoulder centre).
KINECT20 = layout_from_parts(
    "kinect20",
    (
        *("hip_center", "spine", "shoulder_center", "head"),
        *(*_LEFT_ARM, *_RIGHT_ARM, *_LEFT_LEG, *_RIGHT_LEG),
    ),
    (1, 2, -1, 2, 2, 4, 5, 6, 2, 8, 9, 10, 0, 12, 13, 14, 0, 16, 17, 18),
)

LAYOUTS: Mapping[str, Layout] = {layout.name: layout for layout in (NTU25, KINECT20)}


def load_layout(path: str | Path) -> Layout:
    """Read a layout from a JSON file with ``name``, ``joints``, ``parents`` and, if wanted, what is derived else.

    Raises InputError, naming the file.
    """
    path = Path(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot read the layout: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path}: no valid JSON: {error}") from error
    if not isinstance(data, dict):
        raise InputError(f"{path}: a layout is a JSON object with name, joints and parents")
    try:
        return Layout.from_dict(data)
    except InputError as error:
        raise InputError(*(f"{path}: {fault}" for fault in error.faults)) from error


def get_layout(name_or_path: str | Path) -> Layout:
    """Return a built-in layout by name ('ntu25', also 'NTU-25') or read one from a JSON file; raises InputError."""
    key = re.sub(r"[^a-z0-9]", "", str(name_or_path).lower())
    if key in LAYOUTS:
        return LAYOUTS[key]
    if str(name_or_path).endswith(".json") or Path(name_or_path).is_file():
        return load_layout(name_or_path)
    hint = did_you_mean(key, LAYOUTS)
    raise InputError(f"unknown layout '{name_or_path}'{hint}; or give the path of a layout's .json file")
