"""The ``split`` of PYSKL's pickles: lists of ids by names such as xsub_train, xsub_val, train1, test1."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from methods.data.reading.benches import split_name
from methods.data.reading.pickled_arrays import StoredArray
from methods.data.skeletons import TEST, TRAIN, UNUSED
from methods.errors import InputError

_SIDE = re.compile(r"(?P<split>.*?)[_\-. ]?(?P<side>train|val|valid|test)(?P<fold>\d*)", re.IGNORECASE)
_FILE = re.compile(r"\.(skeleton|avi|mp4|mkv|webm|mov|flv|npy|pkl)$", re.IGNORECASE)


def clip_id(text: str) -> str:
    """An id without the ending of a file, for ids are written with and without."""
    return _FILE.sub("", text.encode("utf-8", "replace").decode("utf-8").strip().replace("\\", "/"))


def read_splits(
    source: Path, split: Mapping[Any, Any], names: Sequence[str], left_out: set[str]
) -> tuple[dict[str, NDArray[np.int8]], tuple[str, ...]]:
    """Sides (N,) of each split for the clips called ``names``, and remarks.

    Where a split has val and test, test tests and val is in no side. Ids of clips that were ``left_out`` and ids of
    nobody are no fault. Raises InputError for ids that are no texts and for clips that train and test.
    """
    lists, strange = _lists(source, split)
    place = {name: index for index, name in enumerate(names)}
    sides: dict[str, NDArray[np.int8]] = {}
    faults, remarks = [], [f"'{key}' in split names no side and is not read" for key in strange]
    for name, by_side in lists.items():
        tests = by_side.get("test", by_side.get("val", set()))
        both = by_side.get("train", set()) & tests
        if both:
            faults.append(f"{source}: split {name}: {len(both):,} clips train and test, e.g. {min(both)}")
        if "test" in by_side and "val" in by_side:
            remarks.append(f"split {name}: its test clips test, its {len(by_side['val']):,} val clips are in no side")
        table = np.full(len(names), UNUSED, dtype=np.int8)
        for ids, side in ((by_side.get("train", set()), TRAIN), (tests, TEST)):
            table[[place[one] for one in ids if one in place]] = side
        unknown = sum(one not in place and one not in left_out for ids in by_side.values() for one in ids)
        if unknown:
            remarks.append(f"split {name}: {unknown:,} of its ids have no annotation")
        sides[name] = table
    if faults:
        raise InputError(*faults)
    return sides, tuple(remarks)


def _lists(source: Path, split: Mapping[Any, Any]) -> tuple[dict[str, dict[str, set[str]]], list[str]]:
    """Ids by split and side ('train', 'val', 'test'), and the keys that name no side."""
    lists: dict[str, dict[str, set[str]]] = {}
    strange, faults = [], []
    for key, values in split.items():
        found = _SIDE.fullmatch(key) if isinstance(key, str) else None
        if found is None:
            strange.append(str(key)[:40])
            continue
        told, fold = found["split"], found["fold"]
        name = split_name(told) or told.lower() or ("" if fold else "official")
        name = f"{name or 'split'}{fold}"
        side = "val" if found["side"].lower().startswith("val") else found["side"].lower()
        ids = _texts(source, values)
        if ids is None:
            faults.append(f"{source}: split '{key}': wanted a list of ids, got a {type(values).__name__}")
        else:
            lists.setdefault(name, {}).setdefault(side, set()).update(clip_id(one) for one in ids)
    if faults:
        raise InputError(*faults)
    return lists, strange


def _texts(source: Path, values: Any) -> list[str] | None:
    """A list of texts from whatever holds them; None where it holds something else."""
    if isinstance(values, StoredArray) and values.dtype.kind == "U":
        with source.open("rb") as file:
            values = values.read(file).reshape(-1).tolist()
    if not isinstance(values, (list, tuple, set, frozenset)) or not all(isinstance(one, str) for one in values):
        return None
    return list(values)
