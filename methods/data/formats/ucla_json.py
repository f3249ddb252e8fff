"""NW-UCLA as the field passes it on: ``all_sqe/a01_s01_e00_v01.json``, key ``skeletons``: T x 20 x 3 (Kinect v1).

Wang et al., Cross-view Action Modeling, Learning and Recognition, CVPR 2014: 10 actions (numbered 1-6, 8, 9, 11, 12),
10 subjects, 3 views; views 1 and 2 train and view 3 tests. The joints are in the order of kinect20 (CTR-GCN's graph).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from methods.data.layouts.layout import KINECT20
from methods.data.reading.sources import Clip, ClipTable, Item, ReadOptions, Skipped, Source, Splits, stamp
from methods.data.reading.tables import all_files, first_match, read_text
from methods.data.skeletons import TEST, TRAIN, UNUSED
from methods.errors import InputError

OPTIONS: frozenset[str] = frozenset()

ACTIONS = {
    **{1: "pick up with one hand", 2: "pick up with two hands", 3: "drop trash", 4: "walk around", 5: "sit down"},
    **{6: "stand up", 8: "donning", 9: "doffing", 11: "throw", 12: "carry"},
}
TRAIN_VIEWS, TEST_VIEWS = (1, 2), (3,)

_NAME = re.compile(r"(?:.*/)?(a(\d\d)_s(\d\d)_e(\d\d)_v(\d\d))\.json", re.IGNORECASE)
_ANY = re.compile(r"(?:.*/)?[^/.][^/]*\.json", re.IGNORECASE)


def recognises(source: Path) -> str | None:
    """A folder with a01_s01_e00_v01.json or the like."""
    found = first_match(source, _NAME)
    return f"folder with {found}" if found else None


def plan(source: Path, options: ReadOptions, scratch: Path) -> Source:
    """Find the sequences; raises InputError where there is none. Other .json files are left out."""
    files = all_files(source, _ANY)
    clips = [path for path in files if _NAME.fullmatch(path.name)]
    if not clips:
        raise InputError(f"{source}: no file like a01_s01_e00_v01.json")
    strangers = [path for path in files if not _NAME.fullmatch(path.name)]
    return Source(
        layout=KINECT20,
        class_names=tuple(ACTIONS.values()),
        persons=1,
        items=[Item(path.relative_to(source).as_posix(), str(path), stamp(path)) for path in clips],
        read=_read,
        splits=_splits,
        notes={"unit": "as in the files"},
        skipped=tuple(
            Skipped(path.relative_to(source).as_posix(), "a .json file that is not called like a clip", str(path))
            for path in strangers
        ),
        chunk=256,
    )


def _read(item: Item) -> Iterator[Clip | Skipped]:
    path = Path(item.path)
    found = _NAME.fullmatch(path.name)
    if found is None:
        raise InputError(f"{path}: not called like a01_s01_e00_v01.json")
    action, subject, camera = int(found[2]), int(found[3]), int(found[5])
    if action not in ACTIONS:
        known = ", ".join(map(str, ACTIONS))
        yield Skipped(found[1].lower(), "an action that NW-UCLA does not have", f"{path}: action {action} ({known})")
        return
    frames = _skeletons(path)[:, None]
    yield Clip(frames, list(ACTIONS).index(action), found[1].lower(), (subject,), camera)


def _skeletons(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """The joints (T, 20, 3) of a file; raises InputError for what is no such file."""
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: no valid JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: no valid JSON: {error}") from None
    if not isinstance(content, dict) or "skeletons" not in content:
        raise InputError(f"{path}: holds no 'skeletons'")
    with np.errstate(over="ignore"):  # whoever asked refuses what is not finite
        try:
            values = np.asarray(content["skeletons"], dtype=np.float64).astype(np.float32)
        except (ValueError, TypeError, OverflowError):
            raise InputError(f"{path}: 'skeletons' is no table of T x 20 x 3 numbers") from None
    if values.ndim != 3 or values.shape[1:] != (20, 3):
        raise InputError(f"{path}: 'skeletons' is {' x '.join(map(str, values.shape))}, wanted T x 20 x 3")
    return values


def _splits(table: ClipTable) -> Splits:
    """xview: views 1 and 2 train, view 3 tests."""
    train, test = np.isin(table.cameras, TRAIN_VIEWS), np.isin(table.cameras, TEST_VIEWS)
    return {"xview": np.where(train, TRAIN, np.where(test, TEST, UNUSED)).astype(np.int8)}
