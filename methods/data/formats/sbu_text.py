"""SBU Kinect Interaction (the clean set): ``s01s02/01/001/skeleton_pos.txt``, participants / action / run.

Yun et al., Two-person Interaction Detection Using Body-Pose Features and Multiple Instance Learning, CVPRW 2012, and
the dataset's README (http://vision.cs.stonybrook.edu/~kiwon/Datasets/SBU_Kinect_Interactions/README.txt): a line holds
the frame's number and two persons of 15 joints, normalised; x = 1280 - 2560 x', y = 960 - 1920 y' and
z = 10000 / 7.8125 z' undo that. These are millimetres (a shin comes out as 0.41 m); here they become metres, y up.
's03s01' and 's01s03' are sets of their own: the first acts, the second reacts. Public codes disagree on which number
is which action; the order here is the one in which kicks lift a foot, hands shake and bodies meet in hugs. The five
folds are those that the field uses (sets of participants; persons occur on both sides).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from methods.data.layouts.layout import OPENNI15
from methods.data.reading.sources import Clip, ClipTable, Item, ReadOptions, Source, Splits, stamp
from methods.data.reading.tables import all_files, first_match, number_rows, read_lines
from methods.data.skeletons import TEST, TRAIN
from methods.errors import InputError

OPTIONS: frozenset[str] = frozenset()

CLASS_NAMES = (
    *("approaching", "departing", "kicking", "pushing"),
    *("shaking hands", "hugging", "exchanging object", "punching"),
)
FOLDS = (
    ("s01s02", "s03s04", "s05s02", "s06s04"),
    ("s02s03", "s02s07", "s03s05", "s05s03"),
    ("s01s03", "s01s07", "s07s01", "s07s03"),
    ("s02s01", "s02s06", "s03s02", "s03s06"),
    ("s04s02", "s04s03", "s04s06", "s06s02", "s06s03"),
)
SCALE = np.array([-2.56, -1.92, 10 / 7.8125])  # metres for one unit of x', y', z'
SHIFT = np.array([1.28, 0.96, 0.0])

_PERSONS, _JOINTS = 2, 15
_NAME = re.compile(r"(?:.*/)?((s(\d\d)s(\d\d))/(\d\d)/(\d{3}))/skeleton_pos\.txt", re.IGNORECASE)


def recognises(source: Path) -> str | None:
    """A folder with s01s02/01/001/skeleton_pos.txt or the like."""
    found = first_match(source, _NAME)
    return f"folder with {found}" if found else None


def plan(source: Path, options: ReadOptions, scratch: Path) -> Source:
    """Find the sequences; raises InputError where there is none."""
    files = all_files(source, _NAME)
    if not files:
        raise InputError(f"{source}: no file like s01s02/01/001/skeleton_pos.txt")
    return Source(
        layout=OPENNI15,
        class_names=CLASS_NAMES,
        persons=_PERSONS,
        items=[Item(path.relative_to(source).as_posix(), str(path), stamp(path)) for path in files],
        read=_read,
        splits=_splits,
        notes={"unit": "m", "normalisation": "undone by the formula of the dataset's README, millimetres to metres"},
        chunk=256,
    )


def _read(item: Item) -> Iterator[Clip]:
    path = Path(item.path)
    found = _NAME.fullmatch(path.as_posix())
    if found is None:
        raise InputError(f"{path}: not called like s01s02/01/001/skeleton_pos.txt")
    rows = number_rows(path, read_lines(path), 1 + _PERSONS * _JOINTS * 3)[:, 1:].reshape(-1, _PERSONS, _JOINTS, 3)
    there = rows.any(axis=(2, 3), keepdims=True)  # a person of nothing but zeros is nobody
    with np.errstate(over="ignore"):  # whoever asked refuses what is not finite
        frames = np.where(there, rows * SCALE + SHIFT, 0).astype(np.float32)
    yield Clip(frames, int(found[5]) - 1, found[1].lower(), (int(found[3]), int(found[4])))


def _splits(table: ClipTable) -> Splits:
    """fold1 to fold5: the sets of that fold test, all others train."""
    sets = [str(name).partition("/")[0] for name in table.names]
    return {
        f"fold{number}": np.array([TEST if own in fold else TRAIN for own in sets], dtype=np.int8)
        for number, fold in enumerate(FOLDS, 1)
    }
