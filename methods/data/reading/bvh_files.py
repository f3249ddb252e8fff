"""BVH mocap files: a tree of joints with offsets and channels, and a row of channel values for each frame, as text.

A joint lies at its parent's place plus its OFFSET, turned by all rotations above it; its own rotation is the product of
its rotation channels in the order of the file ('Zrotation Yrotation Xrotation' is Rz Ry Rx). Position channels of the
root are added to its OFFSET (J. Lander, Working with Motion Capture File Formats, Game Developer, January 1998; the
format's description at https://research.cs.wisc.edu/graphics/Courses/cs-838-1999/Jeff/BVH.html); those of a joint
stand in place of its OFFSET, as the programs that write six channels a joint mean them (so does Blender's importer).
End sites are no joints. Angles are degrees; a BVH file says nothing about its unit of length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from methods.data.layouts.plain import MOST_JOINTS
from methods.data.reading.mocap import Floats, Tree, place_joints, rotation, unique_names
from methods.data.reading.tables import number_rows, read_lines
from methods.errors import InputError

_CHANNELS = {f"{axis}{what}": (axis, what) for axis in "xyz" for what in ("rotation", "position")}
_HEADER_SIZES = (1 << 15, 1 << 22)  # bytes: what nearly all headers fit into, and what any does


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """The joints of a file: tree, offsets (J, 3) in its unit, channels ('zrotation') in order; ``motion``: its line."""

    tree: Tree
    offsets: Floats
    channels: tuple[tuple[str, ...], ...]
    motion: int

    @property
    def width(self) -> int:
        """Values of a frame."""
        return sum(map(len, self.channels))


class _Words:
    """The words of the lines one by one, braces apart, each with its line's number."""

    def __init__(self, path: Path, lines: Sequence[str]) -> None:
        self.path, self.at, self.number = path, 0, 1
        self.words = [
            (number, word)
            for number, line in enumerate(lines, 1)
            for word in line.replace("{", " { ").replace("}", " } ").split()
        ]

    def next(self) -> str:
        if self.at == len(self.words):
            raise InputError(f"{self.path}:{self.number}: ends inside the hierarchy; truncated")
        self.number, word = self.words[self.at]
        self.at += 1
        return word

    def rest_of_line(self) -> str:
        """What stands before a brace or the end of the line, with _ between."""
        out = []
        while self.at < len(self.words) and self.words[self.at][0] == self.number and self.words[self.at][1] != "{":
            out.append(self.next())
        return "_".join(out)

    def expect(self, *wanted: str) -> str:
        word = self.next()
        if word.lower() not in [want.lower() for want in wanted]:
            raise self.fault(f"'{word[:40]}' where {' or '.join(wanted)} was expected")
        return word.lower()

    def number_of(self, what: str) -> float:
        word = self.next()
        value = _number(word)
        if value is None:
            raise self.fault(f"{what} '{word[:40]}' is no number")
        return value

    def fault(self, what: str) -> InputError:
        return InputError(f"{self.path}:{self.number}: {what}")


def parse_hierarchy(path: Path, lines: Sequence[str]) -> Hierarchy:
    """Read what stands before MOTION; raises InputError (file:line)."""
    head = next((index for index, line in enumerate(lines) if line.strip().lower() == "motion"), None)
    words = _Words(path, lines if head is None else lines[:head])
    words.expect("HIERARCHY")
    words.expect("ROOT")
    names, parents, offsets, channels = [words.rest_of_line()], [-1], [np.zeros(3)], [tuple[str, ...]()]
    words.expect("{")
    open_joints = [0]  # -1 for an end site
    while open_joints:
        here = open_joints[-1]
        word = words.expect("OFFSET", "CHANNELS", "JOINT", "End", "}")
        if word == "}":
            open_joints.pop()
        elif word == "offset":
            offset = np.array([words.number_of("offset") for _ in range(3)])
            if here >= 0:
                offsets[here] = offset
        elif here < 0:
            raise words.fault(f"'{word}' in an end site")
        elif word == "channels":
            channels[here] = _channels(words)
        elif word == "end":
            words.expect("Site")
            words.rest_of_line()
            words.expect("{")
            open_joints.append(-1)
        else:
            names.append(words.rest_of_line())
            words.expect("{")
            parents.append(here)
            offsets.append(np.zeros(3))
            channels.append(())
            open_joints.append(len(names) - 1)
            if len(names) > MOST_JOINTS:
                raise words.fault(f"more than {MOST_JOINTS} joints")
    if words.at < len(words.words):
        words.next()
        raise words.fault("something behind the last brace; more than one root cannot be read")
    if head is None:
        raise InputError(f"{path}:{len(lines)}: ends without MOTION; truncated")
    if not any(channels):
        raise InputError(f"{path}: no joint has a channel")
    tree = Tree(unique_names([name or "joint" for name in names]), tuple(parents))
    return Hierarchy(tree, np.array(offsets), tuple(channels), head + 1)


def _channels(words: _Words) -> tuple[str, ...]:
    count = words.number_of("number of channels")
    names = tuple(words.rest_of_line().lower().split("_"))
    if count != len(names) - (names == ("",)) or any(name not in _CHANNELS for name in names if name):
        raise words.fault(f"CHANNELS {count:g} is followed by '{' '.join(names)[:80]}'")
    return names if names != ("",) else ()


def frame_header(path: Path, lines: Sequence[str], hierarchy: Hierarchy) -> tuple[int, float, int]:
    """(frames, seconds of one, lines up to the first) as the file says; raises InputError (file:line)."""
    at, out = hierarchy.motion, []
    for wanted in ("Frames", "Frame Time"):
        while at < len(lines) and not lines[at].strip():
            at += 1
        text = lines[at] if at < len(lines) else ""
        name, _, value = text.partition(":")
        found = _number(value)
        if " ".join(name.split()).lower() != wanted.lower() or found is None or found < 0:
            raise InputError(f"{path}:{at + 1}: '{text.strip()[:40]}' where '{wanted}: number' was expected")
        out.append(found)
        at += 1
    return int(out[0]), out[1], at


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def read_header(path: Path) -> tuple[Hierarchy, float]:
    """The hierarchy and the seconds of a frame, without reading the frames; raises InputError (file:line)."""
    for most in _HEADER_SIZES:
        lines = read_lines(path, most)
        if any(line.strip().lower().startswith("frame time") for line in lines):
            break
    hierarchy = parse_hierarchy(path, lines)
    return hierarchy, frame_header(path, lines, hierarchy)[1]


def read_bvh(path: Path) -> tuple[Hierarchy, Floats]:
    """The hierarchy and the values (t, channels) of a file; raises InputError (file:line)."""
    lines = read_lines(path)
    hierarchy = parse_hierarchy(path, lines)
    frames, _, at = frame_header(path, lines, hierarchy)
    while at < len(lines) and not lines[at].strip():
        at += 1
    rows = lines[at:]
    if len(rows) != frames:
        state = "truncated: " if len(rows) < frames else ""
        raise InputError(f"{path}:{len(lines)}: {state}{len(rows)} frames, the file says {frames}")
    return hierarchy, number_rows(path, rows, hierarchy.width, at + 1)


def joints_of(hierarchy: Hierarchy, values: Floats) -> Floats:
    """Positions (t, J, 3) of the joints in the file's unit from the values (t, channels) of the frames."""
    turns: list[Floats] = []
    steps: list[Floats] = []
    column = 0
    for joint, names in enumerate(hierarchy.channels):
        own = values[:, column : column + len(names)]
        column += len(names)
        kinds = [_CHANNELS[name] for name in names]
        axes = "".join(axis for axis, what in kinds if what == "rotation")
        turns.append(rotation(axes, np.deg2rad(own[:, [what == "rotation" for _, what in kinds]])))
        step = np.tile(hierarchy.offsets[joint], (len(values), 1))
        for index, (axis, what) in enumerate(kinds):
            if what == "position":
                at = "xyz".index(axis)
                step[:, at] = own[:, index] + (hierarchy.offsets[joint, at] if joint == 0 else 0.0)
        steps.append(step)
    return place_joints(hierarchy.tree.parents, turns, steps, own=False)
