"""What the readers of motion capture files share: where a tree of turned bones has its joints, and which clip is where.

ASF/AMC and BVH both give a tree of bones with a rest vector each and, frame by frame, angles about named axes. They
differ in whether a bone's own rotation turns its vector (ASF: a joint is the far end of its bone) or only those of its
children (BVH: a joint is where its children's bones begin).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from methods.data.layouts.layout import LAYOUTS, Layout, layout_from_parts
from methods.data.reading.sources import Clip, Skipped
from methods.data.reading.tables import ActionTable, Row
from methods.errors import InputError

Floats = NDArray[np.float64]

# http://mocap.cs.cmu.edu/faqs.php: lengths and positions of an .asf/.amc pair are inches, multiplied by the `length` of
# the .asf file (0.45 there), so (1 / 0.45) * 2.54 / 100 makes metres of them.
INCH = 0.0254
CMU_LENGTH = 0.45
CMU_FPS = 120

FRAME_RULE = "start and end of the table count the frames of a file from 1, both included"

_CMU_NAME = re.compile(r"([0-9]{1,3})_[0-9]{1,3}")
_AXES = {"x": 0, "y": 1, "z": 2}


def rotation(axes: str, angles: Floats) -> Floats:
    """Rotation matrices (t, 3, 3) for ``angles`` (t, n) in radians about the n ``axes`` ('zyx').

    The product is written in the order of ``axes``: 'zyx' is Rz Ry Rx, which turns a column about x first.
    """
    whole = np.broadcast_to(np.eye(3), (len(angles), 3, 3))
    for column, axis in enumerate(axes):
        first, second = (_AXES[axis] + 1) % 3, (_AXES[axis] + 2) % 3
        cos, sin = np.cos(angles[:, column]), np.sin(angles[:, column])
        one = np.zeros((len(angles), 3, 3))
        one[:, _AXES[axis], _AXES[axis]] = 1
        one[:, first, first] = one[:, second, second] = cos
        one[:, first, second], one[:, second, first] = -sin, sin
        whole = whole @ one
    return whole


def place_joints(parents: Sequence[int], turns: Sequence[Floats], steps: Sequence[Floats], own: bool) -> Floats:
    """Positions (t, J, 3) of J joints from rotations and rest vectors, all frames at once.

    ``parents[j]`` comes before j; -1 for the root. ``turns[j]`` (t, 3, 3) is joint j's rotation in its parent's frame;
    ``steps[j]`` (3,) or (t, 3) the way from its parent to it, in its own frame where ``own`` holds (ASF), else in its
    parent's (BVH). The root stands at its step.
    """
    frames = len(turns[0])
    whole: list[Floats] = []
    out = np.zeros((frames, len(parents), 3))
    for joint, parent in enumerate(parents):
        above = whole[parent] if parent >= 0 else np.broadcast_to(np.eye(3), (frames, 3, 3))
        whole.append(above @ turns[joint])
        turned = whole[joint] if own and parent >= 0 else above
        before = out[:, parent] if parent >= 0 else 0.0
        out[:, joint] = before + (turned @ steps[joint][..., None])[..., 0]
    return out


@dataclass(frozen=True)
class Tree:
    """The joints of a skeleton in the order of its file: unique names, and parents by index (-1 for the one root)."""

    joints: tuple[str, ...]
    parents: tuple[int, ...]

    @property
    def edges(self) -> frozenset[tuple[str, str]]:
        """(joint, parent) by name, '' above the root: what two trees share whatever the order of their joints."""
        above = ("", *self.joints)
        return frozenset((joint, above[parent + 1]) for joint, parent in zip(self.joints, self.parents, strict=True))


def unique_names(names: Sequence[str]) -> tuple[str, ...]:
    """The names, with _2, _3, ... behind those that were there before."""
    out: list[str] = []
    for name in names:
        number, own = 1, name
        while own in out:
            number += 1
            own = f"{name}_{number}"
        out.append(own)
    return tuple(out)


def shared_layout(trees: Mapping[Path, Tree], name: str) -> tuple[Layout, dict[Path, tuple[int, ...]]]:
    """The layout that most files share, and for each of those the order of its joints in it.

    ``order[path]`` indexes the joints of the file, in the order of the layout. A built-in layout is taken where joints
    and tree are its own, else one of the first such file's order. Raises InputError where a layout cannot be made.
    """
    counts = Counter(tree.edges for tree in trees.values())
    common = max(counts, key=lambda edges: counts[edges])
    where, first = next((path, tree) for path, tree in trees.items() if tree.edges == common)
    known = (layout for layout in LAYOUTS.values() if Tree(layout.joints, layout.parents).edges == common)
    try:
        layout = next(known, None) or layout_from_parts(name, first.joints, first.parents)
    except InputError as error:
        raise InputError(*(f"{where}: {fault}" for fault in error.faults)) from None
    order = {
        path: tuple(tree.joints.index(joint) for joint in layout.joints)
        for path, tree in trees.items()
        if tree.edges == common
    }
    return layout, order


def difference(tree: Tree, layout: Layout) -> str:
    """What a tree has or lacks beside a layout, in a few words."""
    own, wanted = set(tree.joints), set(layout.joints)
    sides = (("has", sorted(own - wanted)), ("lacks", sorted(wanted - own)))
    told = [f"{what} {', '.join(names[:5])}" for what, names in sides if names]
    return "; ".join(told) or "the same joints, hung up otherwise"


@dataclass(frozen=True)
class Listed:
    """Which rows of a table belong to which file, by path; what has no partner is skipped."""

    rows: Mapping[Path, tuple[Row, ...]]
    skipped: tuple[Skipped, ...]


def match_rows(source: Path, files: Sequence[Path], table: ActionTable) -> Listed:
    """Find the file of each row: by its name, and by its folders where the row gives some.

    A row without a file, or with several, is left out, and so are files without a row (as asked).
    """
    keys = {path: path.relative_to(source).with_suffix("").as_posix().lower() for path in files}
    by_name: dict[str, list[Path]] = {}
    for path, key in keys.items():
        by_name.setdefault(key.rpartition("/")[2], []).append(path)
    rows: dict[Path, list[Row]] = {}
    skipped = []
    for row in table.rows:
        near = by_name.get(row.key.rpartition("/")[2], [])
        found = [path for path in near if f"/{keys[path]}".endswith(f"/{row.key}")]
        where = f"{table.path}:{row.line}"
        if len(found) == 1:
            rows.setdefault(found[0], []).append(row)
        elif found:
            told = ", ".join(path.relative_to(source).as_posix() for path in found[:3])
            skipped.append(Skipped(row.key, "several files of the name in the table", f"{where}: {told}"))
        else:
            skipped.append(Skipped(row.key, "no file for a line of the table", f"{where}: no file '{row.key}'"))
    strangers = [path for path in files if path not in rows]
    skipped += [Skipped(keys[path], "not in the table", str(path), asked=True) for path in strangers]
    return Listed({path: tuple(found) for path, found in rows.items()}, tuple(skipped))


def clip_names(source: Path, files: Sequence[Path]) -> dict[Path, str]:
    """A name for each file: its stem, or its path in ``source`` where another has the same stem."""
    counts = Counter(path.stem.lower() for path in files)
    return {
        path: path.stem if counts[path.stem.lower()] == 1 else path.relative_to(source).with_suffix("").as_posix()
        for path in files
    }


@dataclass(frozen=True)
class Cuts:
    """The clips of one file: its name, its rows of the table, and each row's subject and sides."""

    name: str
    rows: tuple[Row, ...]
    subjects: tuple[int, ...]
    sides: tuple[Mapping[str, int], ...]


def cuts_of(name: str, rows: tuple[Row, ...], table: ActionTable) -> Cuts:
    """What :func:`cut` needs; where the table says no subject, CMU's names do ('01_02' is subject 1)."""
    found = _CMU_NAME.fullmatch(name.rpartition("/")[2])
    own = int(found[1]) if found else -1
    subjects = tuple(own if row.subject < 0 else row.subject for row in rows)
    return Cuts(name, rows, subjects, tuple(table.sides(row) for row in rows))


def cut(path: Path, frames: NDArray[np.float32], cuts: Cuts, rest: int = 0) -> Iterator[Clip | Skipped]:
    """Cut the frames (t, 1, J, 3) of a file into the clips of the table.

    ``rest`` first frames are no motion; a row that begins there without having said so begins after them.
    """
    for row, subject, sides in zip(cuts.rows, cuts.subjects, cuts.sides, strict=True):
        start, end = row.start or 1 + rest, row.end or len(frames)
        name = cuts.name if not row.start and not row.end else f"{cuts.name}:{start}-{end}"
        if not 1 <= start <= end <= len(frames):
            what = f"{path}: frames {start} to {end} (line {row.line} of the table), it has {len(frames)}"
            yield Skipped(name, "frames that the file does not have", what)
            continue
        mended = "the rest pose in its first frame left out" if rest and not row.start else ""
        yield Clip(frames[start - 1 : end], row.label, name, (subject,), sides=sides, mended=mended)
