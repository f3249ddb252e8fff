"""Joint layouts: what each of the V joints is called, which joint it hangs from, and which is its mirror image.

Built in, each in the joint order of :mod:`methods.data.layouts.known`:

- ``ntu25``: Kinect v2, as in NTU RGB+D and PKU-MMD
- ``kinect20``: Kinect v1, as in NW-UCLA; UTD-MHAD and MSR Action3D have the same joints in other orders
- ``openni15``: the OpenNI tracker, as in SBU Kinect Interaction; Florence 3D Actions in the same order with other
  names, CAD-60 in another order
- ``cmu31``: CMU mocap, the root and the 30 bones of an .asf file
- ``coco17``: COCO keypoints, a tree from the nose
- ``openpose18``: OpenPose's COCO keypoints with a neck
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from methods.data.layouts import joint_names
from methods.data.layouts.known import KNOWN
from methods.data.layouts.plain import MOST_JOINTS, Found, LayoutError, read_layout
from methods.errors import InputError, did_you_mean

__all__ = ["CMU31", "COCO17", "KINECT20", "LAYOUTS", "MOST_JOINTS", "NTU25", "OPENNI15", "OPENPOSE18", "Layout",
           "LayoutError", "get_layout", "layout_from_parts", "load_layout"]  # fmt: skip

_DERIVE = (-1, -1)  # a spine that nobody gave; None says that there is none


@dataclass(frozen=True)
class Layout:
    """A tree of V named joints.

    ``parents[v]`` is the index of the joint that joint v hangs from, -1 for the one root; ``centre`` the joint that
    centring subtracts and that a graph measures its hops to; ``mirror[v]`` the joint that v becomes in a mirror;
    ``shoulders`` (left, right) and ``spine`` (lower, upper end of the lower back), None where the layout has none.
    ``parts`` puts each joint into one group: trunk, left_arm, right_arm, left_leg and right_leg, as far as there are
    such joints; where the names have no sides, part1 (with the root) to at most part5, connected and of about equal
    size; or whatever groups the maker gave. A ``spine`` or ``parts`` left out follow from names and tree. Raises
    :class:`LayoutError`, an InputError, with every fault at once.
    """

    name: str
    joints: tuple[str, ...]
    parents: tuple[int, ...]
    centre: int
    mirror: tuple[int, ...]
    shoulders: tuple[int, int] | None
    spine: tuple[int, int] | None = _DERIVE
    parts: Mapping[str, tuple[int, ...]] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        found = _name_faults(self)
        if len(self.joints) <= MOST_JOINTS:
            found += [*_tree_faults(self), *_pairing_faults(self), *_part_faults(self)]
        if found:
            raise LayoutError(*found)
        if self.spine == _DERIVE:
            object.__setattr__(self, "spine", self.derived_spine)
        parts = {name: tuple(sorted(group)) for name, group in self.parts.items()}
        object.__setattr__(self, "parts", parts or self.derived_parts)

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

    @property
    def derived_spine(self) -> tuple[int, int] | None:
        """What ``spine`` is where nobody gave one."""
        return joint_names.spine_of(joint_names.split_sides(self.joints))

    @property
    def derived_parts(self) -> dict[str, tuple[int, ...]]:
        """What ``parts`` are where nobody gave any."""
        return joint_names.parts_of(joint_names.split_sides(self.joints), self.parents)

    def to_dict(self) -> dict[str, object]:
        """Return a plain dict for JSON, read back by :meth:`from_dict`.

        ``spine`` and ``parts`` are in it only where they are not what is derived: a dataset's fingerprint holds this
        dict, and the datasets that were written first know neither.
        """
        out: dict[str, object] = {
            "name": self.name,
            "joints": list(self.joints),
            "parents": list(self.parents),
            "centre": self.centre,
            "mirror": list(self.mirror),
            "shoulders": None if self.shoulders is None else list(self.shoulders),
        }
        if self.spine != self.derived_spine:
            out["spine"] = None if self.spine is None else list(self.spine)
        if self.parts != self.derived_parts:
            out["parts"] = {name: list(group) for name, group in self.parts.items()}
        return out

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> Layout:
        """Read a layout from ``name``, ``joints`` and ``parents``; whatever else is left out follows from the names.

        ``centre`` is a joint, ``mirror`` V joints, ``shoulders`` and ``spine`` two joints or None for none, ``parts``
        name -> joints. A joint may be given by index or by name everywhere; ``parents`` (None or -1 for the root) also
        as a mapping of each joint but the root to its parent. Raises :class:`LayoutError`.
        """
        given, found = read_layout(data)
        if "joints" not in given:
            raise LayoutError(*found)
        joints = given["joints"]
        facts = {
            "name": "?",
            "parents": (-1, *[0] * len(joints))[: len(joints)],
        } | given  # stand-ins, to find other faults
        try:
            layout = cls(**(_from_names(joints, facts["parents"]) | facts))
        except LayoutError as error:
            raise LayoutError(*found, *error.found) from None
        if found:
            raise LayoutError(*found)
        return layout


def _from_names(joints: Sequence[str], parents: Sequence[int]) -> dict[str, Any]:
    sides = joint_names.split_sides(joints)
    return {
        "centre": joint_names.centre_of(sides, parents),
        "mirror": joint_names.mirror_of(sides),
        "shoulders": joint_names.shoulders_of(sides),
    }


def _name_faults(layout: Layout) -> list[Found]:
    where, count = f"layout '{layout.name}'", len(layout.joints)
    found: list[Found] = []
    if not layout.name:
        found.append((("name",), "layout: the name is empty"))
    if not 2 <= count <= MOST_JOINTS:
        found.append((("joints",), f"{where}: needs at least two joints and at most {MOST_JOINTS}, has {count}"))
    twice = sorted({joint for joint in layout.joints[:MOST_JOINTS] if layout.joints.count(joint) > 1})
    if twice:
        found.append((("joints",), f"{where}: joint names occur twice: {', '.join(twice)}"))
    return found


def _tree_faults(layout: Layout) -> list[Found]:
    where, count, parents = f"layout '{layout.name}'", len(layout.joints), layout.parents
    if len(parents) != count:
        return [(("parents",), f"{where}: {count} joints but {len(parents)} parents")]
    outside = [joint for joint, parent in enumerate(parents) if not -1 <= parent < count]
    if outside:
        wrong = [parents[joint] for joint in outside]
        message = f"{where}: parents {wrong} are no joint index (0 to {count - 1}, -1 for the root)"
        return [(("parents", outside[0]), message)]
    roots = [index for index, parent in enumerate(parents) if parent == -1]
    if len(roots) != 1:
        which = f": {', '.join(layout.joints[root] for root in roots)}" if roots else ""
        return [(("parents",), f"{where}: exactly one joint must have parent -1, {len(roots)} have{which}")]
    for joint in range(count):
        at = joint
        for _ in range(count):  # a path to the root is shorter than V; anything longer is a circle
            at = parents[at] if at >= 0 else at
        if at >= 0:
            return [
                (("parents", joint), f"{where}: the parents of joint '{layout.joints[joint]}' run in a circle"),
            ]
    return []


def _pairing_faults(layout: Layout) -> list[Found]:
    where, count, mirror = f"layout '{layout.name}'", len(layout.joints), layout.mirror
    found: list[Found] = []
    if not 0 <= layout.centre < count:
        found.append((("centre",), f"{where}: centre {layout.centre} is no joint index (0 to {count - 1})"))
    if sorted(mirror) != list(range(count)):
        found.append((("mirror",), f"{where}: mirror must name each of the {count} joints once, got {list(mirror)}"))
    elif any(mirror[mirror[joint]] != joint for joint in range(count)):
        found.append((("mirror",), f"{where}: mirror applied twice must give the joint itself"))
    for key, pair in (("shoulders", layout.shoulders), ("spine", layout.spine)):
        if pair is None or (key == "spine" and pair == _DERIVE):
            continue
        if pair[0] == pair[1] or not all(0 <= joint < count for joint in pair):
            found.append(((key,), f"{where}: {key} {pair} must be two different joint indices"))
    return found


def _part_faults(layout: Layout) -> list[Found]:
    where, count = f"layout '{layout.name}'", len(layout.joints)
    found: list[Found] = [
        (("parts", name), f"{where}: part '{name}' has no joint") for name, group in layout.parts.items() if not group
    ]
    joints = sorted(joint for group in layout.parts.values() for joint in group)
    if joints and joints != list(range(count)):
        known = set(range(count))
        faults = {
            "are in no part": known - set(joints),
            "are in more than one": {joint for joint in set(joints) & known if joints.count(joint) > 1},
        }
        what = [f"{', '.join(layout.joints[j] for j in sorted(group))} {why}" for why, group in faults.items() if group]
        what += [f"{joint} is no joint index (0 to {count - 1})" for joint in sorted(set(joints) - known)]
        found.append((("parts",), f"{where}: parts must hold each joint once: {'; '.join(what)}"))
    return found


def layout_from_parts(name: str, joints: Sequence[str], parents: Sequence[int]) -> Layout:
    """Build a layout from names and parents alone; everything else follows from the names.

    A joint 'left_x' (also 'x_left', 'XLeft', 'l_x'; 'lx' where there is an 'rx') mirrors 'right_x'; a joint without a
    partner mirrors itself. The centre is the joint between the shoulders if one has a known name, else the root.
    Raises InputError.
    """
    joints, parents = tuple(str(joint) for joint in joints), tuple(int(parent) for parent in parents)
    return Layout.from_dict({"name": name, "joints": joints, "parents": parents})


LAYOUTS: Mapping[str, Layout] = {name: layout_from_parts(name, *table) for name, table in KNOWN.items()}
NTU25, KINECT20 = LAYOUTS["ntu25"], LAYOUTS["kinect20"]
OPENNI15, CMU31 = LAYOUTS["openni15"], LAYOUTS["cmu31"]
COCO17, OPENPOSE18 = LAYOUTS["coco17"], LAYOUTS["openpose18"]


def load_layout(path: str | Path) -> Layout:
    """Read a layout from a JSON file with the keys of :meth:`Layout.from_dict`; raises InputError, naming the file."""
    path = Path(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot read the layout: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
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
