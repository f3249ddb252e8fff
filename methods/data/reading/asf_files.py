"""Acclaim's mocap files: a skeleton (.asf) and a motion of it (.amc), as text, and where its joints are.

An .asf names bones with a rest direction, a length, an axis (a rotation C to the bone's own axes) and degrees of
freedom; an .amc gives their angles frame by frame. With R the rotation by those angles, a bone's frame is its parent's
times C R C^-1, and its far end, which is the joint called after it, lies at its parent's joint plus that frame times
direction times length (description of the startup code of CMU 15-464, http://graphics.cs.cmu.edu/nsp/course/15-464;
Acclaim Skeleton File Definition 1.10). 'axis XYZ' turns about x first. Lengths and positions are inches times the
file's ``length`` (http://mocap.cs.cmu.edu/faqs.php: CMU's 0.45 makes 0.0564 m of a unit).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from methods.data.reading.mocap import INCH, Floats, Tree, place_joints, rotation
from methods.data.reading.tables import read_lines
from methods.errors import InputError

_TURNS, _SHIFTS = ("rx", "ry", "rz"), ("tx", "ty", "tz")
Line = tuple[int, list[str]]  # its number, its words


@dataclass(frozen=True, eq=False)
class Bone:
    """``vector`` (3,) from its parent's joint to its own at rest, in the file's unit; ``own`` (3, 3) is C.

    ``order`` names the axes in the order in which they turn ('xyz': x first), ``dof`` the angles that an .amc gives.
    """

    name: str
    vector: Floats
    own: Floats
    order: str
    dof: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Skeleton:
    """A skeleton file: the root (whose vector is its position) and the bones, in the order of ``tree``."""

    tree: Tree
    bones: tuple[Bone, ...]
    metres: float  # of one unit of length
    degrees: bool


def joints_of(skeleton: Skeleton, values: Mapping[str, Floats]) -> Floats:
    """Positions (t, J, 3) in metres of the root and the far ends of the bones, from what :func:`parse_amc` read."""
    frames = len(values["root"])
    turns: list[Floats] = []
    steps: list[Floats] = []
    for joint, bone in enumerate(skeleton.bones):
        angles, shift = np.zeros((frames, 3)), np.zeros((frames, 3))
        for column, name in enumerate(bone.dof):
            into = angles if name in _TURNS else shift
            into[:, "xyz".index(name[1])] = values[bone.name][:, column]
        columns = ["xyz".index(axis) for axis in bone.order[::-1]]
        turned = rotation(bone.order[::-1], angles[:, columns])
        turns.append(turned @ bone.own if joint == 0 else bone.own @ turned @ bone.own.T)
        steps.append(bone.vector + shift)
    return place_joints(skeleton.tree.parents, turns, steps, own=True) * skeleton.metres


def parse_amc(path: Path, skeleton: Skeleton) -> dict[str, Floats]:
    """The values (t, n) of each bone that has degrees of freedom, angles in radians; raises InputError (file:line)."""
    widths = {bone.name: len(bone.dof) for bone in skeleton.bones if bone.dof or bone.name == "root"}
    found: dict[str, list[str]] = {name: [] for name in widths}
    lines, degrees, frame, here = read_lines(path), skeleton.degrees, 0, set(widths)
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if words[0].startswith(":"):
            degrees = {":degrees": True, ":radians": False}.get(words[0].lower(), degrees)
        elif len(words) == 1 and words[0].isdecimal():
            _check_whole(path, number, frame, here, widths)
            frame, here = frame + 1, set()
        else:
            name = words[0]
            if name not in widths or len(words) - 1 != widths[name] or name in here or not frame:
                raise InputError(f"{path}:{number}: {_amc_fault(words, widths, frame, name in here)}")
            here.add(name)
            found[name] += words[1:]
    _check_whole(path, len(lines), frame, here, widths)
    if not frame:
        raise InputError(f"{path}: holds no frame")
    moving = [bone for bone in skeleton.bones if bone.name in widths]
    return {bone.name: _radians(path, lines, found[bone.name], bone, frame, degrees) for bone in moving}


def _check_whole(path: Path, number: int, frame: int, here: set[str], widths: Mapping[str, int]) -> None:
    missing = sorted(widths.keys() - here)
    if missing:
        raise InputError(f"{path}:{number}: frame {frame} ends without {', '.join(missing[:5])}")


def _amc_fault(words: Sequence[str], widths: Mapping[str, int], frame: int, twice: bool) -> str:
    if words[0] not in widths:
        return f"'{words[0][:40]}' is no bone that the skeleton lets move"
    if not frame:
        return f"'{words[0]}' before the first frame's number"
    if twice:
        return f"'{words[0]}' is there twice in frame {frame}"
    return f"'{words[0]}' has {len(words) - 1} values, wanted {widths[words[0]]}"


def _radians(path: Path, lines: Sequence[str], words: list[str], bone: Bone, frames: int, degrees: bool) -> Floats:
    try:
        values = np.array(words, dtype=np.float64).reshape(frames, len(bone.dof))
    except ValueError:
        raise InputError(_no_number(path, lines)) from None
    turning = np.array([name in _TURNS for name in bone.dof], dtype=bool)
    return np.where(turning, np.deg2rad(values), values) if degrees else values


def _no_number(path: Path, lines: Sequence[str]) -> str:
    for number, line in enumerate(lines, 1):
        if line.lstrip()[:1] not in ("#", ":"):
            for word in line.split()[1:]:
                try:
                    np.array([word], dtype=np.float64)
                except ValueError:
                    return f"{path}:{number}: '{word[:40]}' is no number"
    return f"{path}: holds something that is no number"


def parse_asf(path: Path) -> Skeleton:
    """Read a skeleton; raises InputError (file:line) for what cannot be read or does not fit together."""
    parts = _sections(path)
    missing = [f":{name}" for name in ("root", "bonedata", "hierarchy") if name not in parts]
    if missing:
        raise InputError(f"{path}: no section {', '.join(missing)}; truncated, or no .asf file")
    length, degrees = _units(path, parts.get("units", []))
    bones = {"root": _root(path, parts["root"], degrees)}
    for number, bone in _bones(path, parts["bonedata"], degrees):
        if bone.name in bones:
            raise InputError(f"{path}:{number}: '{bone.name[:40]}' is there twice")
        bones[bone.name] = bone
    tree = _tree(path, parts["hierarchy"], bones)
    return Skeleton(tree, tuple(bones[name] for name in tree.joints), INCH / length, degrees)


def _sections(path: Path) -> dict[str, list[Line]]:
    """Section -> its lines without comments; what stands behind the section's name is its first line."""
    parts: dict[str, list[Line]] = {}
    here: list[Line] = []
    for number, line in enumerate(read_lines(path), 1):
        words = line.partition("#")[0].split()
        if words and words[0].startswith(":"):
            here = parts.setdefault(words[0][1:].lower(), [])
            words = words[1:]
        if words:
            here.append((number, words))
    return parts


def _numbers(path: Path, line: Line, count: int, first: int = 1) -> Floats:
    """The ``count`` numbers of a line from its word ``first`` on."""
    number, words = line
    try:
        found = np.array(words[first : first + count], dtype=np.float64)
    except ValueError:
        found = np.zeros(0)
    if len(found) != count or not np.isfinite(found).all():
        raise InputError(f"{path}:{number}: '{words[0]}' needs {count} numbers")
    return found


def _units(path: Path, lines: Sequence[Line]) -> tuple[float, bool]:
    length, degrees = 1.0, True
    for line in lines:
        if line[1][0].lower() == "length":
            length = float(_numbers(path, line, 1)[0])
            if length <= 0:
                raise InputError(f"{path}:{line[0]}: length {length} is not above 0")
        elif line[1][0].lower() == "angle":
            degrees = not line[1][1:2] or line[1][1].lower().startswith("deg")
    return length, degrees


def _order(path: Path, number: int, word: str) -> str:
    order = word.lower()
    if sorted(order) != ["x", "y", "z"]:
        raise InputError(f"{path}:{number}: '{word[:40]}' is no order of the axes x, y and z")
    return order


def _dof(path: Path, line: Line, known: tuple[str, ...]) -> tuple[str, ...]:
    names = tuple(word.lower() for word in line[1][1:])
    strange = [name for name in names if name not in known]
    if strange or len(set(names)) < len(names):
        what = f"'{strange[0][:40]}' cannot be read" if strange else "one is there twice"
        raise InputError(f"{path}:{line[0]}: degrees of freedom: {what} (known: {', '.join(known)})")
    return names


def _own_axes(angles: Floats, order: str, degrees: bool) -> Floats:
    """C (3, 3) for the angles about x, y and z, turning in ``order``."""
    radians = np.deg2rad(angles) if degrees else angles
    return np.asarray(rotation(order[::-1], radians[None, ["xyz".index(axis) for axis in order[::-1]]])[0])


def _root(path: Path, lines: Sequence[Line], degrees: bool) -> Bone:
    dof: tuple[str, ...] = (*_SHIFTS, *_TURNS)
    order, position, orientation = "xyz", np.zeros(3), np.zeros(3)
    for line in lines:
        number, words = line
        what = words[0].lower()
        if what == "order":
            dof = _dof(path, line, _SHIFTS + _TURNS)
        elif what == "axis" and len(words) > 1:
            order = _order(path, number, words[1])
        elif what == "position":
            position = _numbers(path, line, 3)
        elif what == "orientation":
            orientation = _numbers(path, line, 3)
    return Bone("root", position, _own_axes(orientation, order, degrees), order, dof)


def _bones(path: Path, lines: Sequence[Line], degrees: bool) -> Iterator[tuple[int, Bone]]:
    """The bones, each with the line where it ends."""
    block: dict[str, Line] | None = None
    for line in lines:
        number, words = line
        what = words[0].lower()
        if what == "begin":
            block = {what: line}
        elif block is None:
            raise InputError(f"{path}:{number}: '{what[:40]}' outside of begin and end")
        elif what == "end":
            yield number, _bone(path, block, degrees)
            block = None
        else:
            block.setdefault(what, line)  # further lines of limits begin with a bracket
    if block is not None:
        raise InputError(f"{path}:{block['begin'][0]}: a bone without end; truncated")


def _bone(path: Path, block: Mapping[str, Line], degrees: bool) -> Bone:
    at = block["begin"][0]
    missing = [name for name in ("name", "direction", "length") if len(block.get(name, (0, []))[1]) < 2]
    if missing:
        raise InputError(f"{path}:{at}: a bone without {', '.join(missing)}")
    length = float(_numbers(path, block["length"], 1)[0])
    order, own = "xyz", np.eye(3)
    if "axis" in block:
        number, words = block["axis"]
        order = _order(path, number, words[4]) if len(words) > 4 else order
        own = _own_axes(_numbers(path, block["axis"], 3), order, degrees)
    dof = _dof(path, block["dof"], _TURNS) if "dof" in block else ()
    return Bone(block["name"][1][1], _numbers(path, block["direction"], 3) * length, own, order, dof)


def _tree(path: Path, lines: Sequence[Line], bones: Mapping[str, Bone]) -> Tree:
    """The bones below the root, each after its parent, children in the order of the file."""
    children: dict[str, list[str]] = {}
    parent_of: dict[str, str] = {}
    for number, words in lines:
        if len(words) == 1 and words[0].lower() in ("begin", "end"):
            continue
        for name in words:
            if name not in bones:
                raise InputError(f"{path}:{number}: no bone '{name[:40]}' in the bone data")
        for child in words[1:]:
            if child in parent_of or child == "root":
                raise InputError(f"{path}:{number}: '{child}' hangs from two bones, or is the root")
            parent_of[child] = words[0]
        children.setdefault(words[0], []).extend(words[1:])
    joints, waiting = [], ["root"]
    while waiting:
        joints.append(waiting.pop())
        waiting += reversed(children.get(joints[-1], []))
    loose = sorted(bones.keys() - set(joints))
    if loose:
        raise InputError(f"{path}: hang from nothing: {', '.join(loose[:5])}; truncated")
    return Tree(tuple(joints), tuple(joints.index(parent_of[name]) if name != "root" else -1 for name in joints))
