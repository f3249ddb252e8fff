"""UTD-MHAD: one MATLAB file a sequence, ``a1_s1_t1_skeleton.mat`` with the array d_skel (20, 3, frames) in metres.

Chen, Jafari, Kehtarnavaz, UTD-MHAD, ICIP 2015: 27 actions, 8 subjects, 4 trials, 861 sequences after three damaged ones
were removed; subjects 1, 3, 5, 7 train and 2, 4, 6, 8 test. The files list Kinect v1's joints head first (head,
shoulder centre, spine, hip centre, then the limbs as everywhere); here they are put into the order of kinect20.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from methods.data.layouts.layout import KINECT20
from methods.data.reading.mat_files import read_array
from methods.data.reading.sources import Clip, ClipTable, Item, ReadOptions, Source, Splits, stamp
from methods.data.reading.tables import all_files, first_match
from methods.data.skeletons import TEST, TRAIN
from methods.errors import InputError

OPTIONS: frozenset[str] = frozenset()

ORDER = (3, 2, 1, 0, *range(4, 20))  # the joints of kinect20 in a file: hip centre, spine, shoulder centre, head, limbs
PUBLISHED = {"xsub": (431, 430)}

_NAME = re.compile(r"(?:.*/)?(a(\d{1,2})_s(\d)_t(\d))_skeleton\.mat", re.IGNORECASE)


def recognises(source: Path) -> str | None:
    """A folder with a1_s1_t1_skeleton.mat or the like."""
    found = first_match(source, _NAME)
    return f"folder with {found}" if found else None


def plan(source: Path, options: ReadOptions, scratch: Path) -> Source:
    """Find the sequences; raises InputError where there is none."""
    files = all_files(source, _NAME)
    if not files:
        raise InputError(f"{source}: no file like a1_s1_t1_skeleton.mat")
    return Source(
        layout=KINECT20,
        class_names=CLASS_NAMES,
        persons=1,
        items=[Item(path.relative_to(source).as_posix(), str(path), stamp(path)) for path in files],
        read=_read,
        splits=_splits,
        notes={"unit": "m", "joints": "put from UTD-MHAD's order, head first, into that of kinect20"},
        published=PUBLISHED,
        chunk=256,
    )


def _read(item: Item) -> Iterator[Clip]:
    path = Path(item.path)
    found = _NAME.fullmatch(path.name)
    if found is None:
        raise InputError(f"{path}: not called like a1_s1_t1_skeleton.mat")
    values = read_array(path, "d_skel")
    if values.ndim == 2:
        values = values[:, :, None]  # MATLAB drops the last dimension of a single frame
    if values.ndim != 3 or values.shape[:2] != (20, 3):
        raise InputError(f"{path}: d_skel is {' x '.join(map(str, values.shape))}, wanted 20 x 3 x frames")
    with np.errstate(over="ignore"):  # whoever asked refuses what is not finite
        frames = values.transpose(2, 0, 1)[:, None, list(ORDER)].astype(np.float32)
    action, subject = int(found[2]), int(found[3])
    yield Clip(frames, action - 1, found[1].lower(), (subject,))


def _splits(table: ClipTable) -> Splits:
    """xsub: odd subjects train, even ones test."""
    return {"xsub": np.where(table.subjects[:, 0] % 2 == 1, TRAIN, TEST).astype(np.int8)}


CLASS_NAMES = (
    *("swipe left", "swipe right", "wave", "clap", "throw", "arm cross", "basketball shoot", "draw x"),
    *("draw circle (clockwise)", "draw circle (counter clockwise)", "draw triangle", "bowling", "boxing"),
    *("baseball swing", "tennis swing", "arm curl", "tennis serve", "push", "knock", "catch", "pickup and throw"),
    *("jog", "walk", "sit to stand", "stand to sit", "lunge", "squat"),
)
