"""PYSKL's pickles (also MMAction2's): ``ntu60_3danno.pkl``, ``ntu120_hrnet.pkl``, ``gym_hrnet.pkl`` and so on.

A dict of ``split``, names of sides -> lists of ids, and ``annotations``, a list of dicts: ``frame_dir`` (the id),
``label``, ``total_frames``, ``keypoint`` (M, T, V, C), mostly float16 (3D: metres in camera space, NTU's 25 joints,
about 1 mm of rounding at 2 m; 2D: pixels, COCO's 17), ``keypoint_score`` and ``img_shape`` for 2D, not read.
``X_train`` with ``X_val`` or ``X_test`` make the split X. Of more than two persons the two with most movement are kept.

The pickle is gone through once, by our own interpreter (methods.data.reading.pickles), which leaves the keypoints where
they lie in the file: memory takes some kilobytes an annotation, not the arrays, and they are read from there in
ranges, by several processes. Source: kennymckormick/pyskl tools/data/README.md, tools/data/ntu_preproc.py,
pyskl/datasets/pose_dataset.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from methods.data.reading.arrays import NO_COUNT, Rows, clips_an_item, keep_rows, rows_in
from methods.data.reading.clip_names import classes_of, facts_of, rules_for
from methods.data.reading.label_files import MOST_CLASSES
from methods.data.reading.pickled_arrays import Piece, StoredArray
from methods.data.reading.pickles import first_texts, load_outline
from methods.data.reading.pyskl_splits import clip_id, read_splits
from methods.data.reading.sources import Clip, Frames, Item, ReadOptions, Skipped, Source, layout_for, stamp
from methods.errors import InputError

OPTIONS = frozenset({"layout"})
PERSONS = 2
CROWD = "more than two persons, the two with most movement kept"
OTHER_COUNT = "total_frames is not the length of the keypoints, which are kept"
_ENDINGS = (".pkl", ".pickle")


def recognises(source: Path) -> str | None:
    """A pickle that begins with split or annotations, or is a list of such annotations."""
    if source.suffix.lower() not in _ENDINGS or not source.is_file():
        return None
    texts = first_texts(source)
    if texts and texts[0] in ("split", "annotations"):
        return f"a pickle that begins with '{texts[0]}'"
    return "a pickle of annotations with 'keypoint'" if {"frame_dir", "keypoint", "label"} <= set(texts) else None


@dataclass(frozen=True)
class _Annotation:
    """What one annotation says; ``array`` is (M, T, V, C)."""

    name: str
    label: int
    array: StoredArray
    counts_differ: bool


@dataclass(frozen=True)
class _Form:
    """What reading a range needs beside the item; the rest is in the rows kept in ``scratch``."""

    scratch: str
    rows: int
    short: str
    dtypes: tuple[str, ...]
    splits: tuple[str, ...]
    persons: int


def plan(source: Path, options: ReadOptions, scratch: Path) -> Source:
    """Go through the pickle and plan the reading of its keypoints; raises InputError."""
    raw, split = _contents(source)
    skipped: list[Skipped] = []
    kept = _agreeing(list(_annotations(raw, skipped)), skipped)
    if not kept:
        reasons = ", ".join(f"{count:,} x {reason}" for reason, count in Counter(s.reason for s in skipped).items())
        raise InputError(f"{source}: no annotation can be used ({reasons or 'it holds none'})")
    joints, channels = kept[0].array.shape[2:]
    layout = layout_for(joints, options.layout, str(source))
    persons = min(PERSONS, max(one.array.shape[0] for one in kept))
    names = tuple(one.name for one in kept)
    facts, labels = facts_of(names), np.array([one.label for one in kept], dtype=np.int64)
    sides, remarks = read_splits(source, split, names, {skip.name for skip in skipped})
    classes, about_classes = classes_of(facts, labels)
    rules = rules_for(facts, sides)
    more, short, dtypes = _places(kept, scratch)
    lengths = np.full(len(kept), NO_COUNT, dtype=np.int64)
    rows = Rows(names, labels, lengths, facts.subjects, facts.cameras, facts.setups, sides, more)
    mark = keep_rows(rows, scratch)
    form = _Form(str(scratch), mark, str(short), dtypes, tuple(sides), persons)
    sizes = np.array([one.array.shape[1] for one in kept]) * persons * joints * channels * 4
    return Source(
        layout=layout,
        class_names=classes,
        persons=persons,
        channels=channels,
        items=_items(source, len(kept), clips_an_item(int(sizes.mean())), mark),
        read=partial(_read, form),
        splits=rules,
        published=rules.published,
        notes={
            "unit": "m" if channels == 3 else "px",
            "applied": ["denoised", "frames without anybody dropped"] if facts.kind == "ntu" and channels == 3 else [],
            "stored_as": list(dtypes),
        },
        skipped=tuple(skipped),
        remarks=(*remarks, *about_classes, *rules.remarks),
        chunk=1,
    )


def _contents(source: Path) -> tuple[Sequence[Any], Mapping[Any, Any]]:
    """The list of annotations and the dict of splits of a pickle (empty where it is a list alone)."""
    found = load_outline(source)
    if isinstance(found, list):
        return found, {}
    if not isinstance(found, dict) or not isinstance(found.get("annotations"), (list, tuple)):
        raise InputError(
            f"{source}: wanted a dict with 'split' and a list 'annotations', holds a {type(found).__name__}"
        )
    split = found.get("split", {})
    if not isinstance(split, dict):
        raise InputError(f"{source}: 'split' is a {type(split).__name__}, wanted a dict of lists of ids")
    return found["annotations"], split


def _annotations(raw: Sequence[Any], skipped: list[Skipped]) -> Iterator[_Annotation]:
    """The annotations that are whole; the rest goes to ``skipped``."""
    for number, entry in enumerate(raw):
        name, where = f"annotation {number}", f"annotation {number}"
        if not isinstance(entry, dict):
            skipped.append(Skipped(name, "no annotation", f"{where}: a {type(entry).__name__}"))
            continue
        called = entry.get("frame_dir", entry.get("filename"))
        if not isinstance(called, str) or not called.strip():
            skipped.append(Skipped(name, "no frame_dir", where))
            continue
        name, label, array = clip_id(called), entry.get("label"), entry.get("keypoint")
        if isinstance(label, bool) or not isinstance(label, (int, np.integer)) or not 0 <= label < MOST_CLASSES:
            skipped.append(Skipped(name, "no label", f"{where}: its label is no whole number from 0"))
        elif not isinstance(array, StoredArray):
            skipped.append(Skipped(name, "no keypoint array", where))
        elif len(array.shape) != 4 or array.dtype.kind not in "fiu" or array.shape[3] not in (2, 3) or 0 in array.shape:
            detail = f"{where}: {array.dtype} {array.shape}, wanted (persons, frames, joints, 2 or 3 coordinates)"
            skipped.append(Skipped(name, "keypoints of another shape", detail))
        else:
            total = entry.get("total_frames", array.shape[1])
            same = isinstance(total, (int, np.integer)) and int(total) == array.shape[1]
            yield _Annotation(name, int(label), array, not same)


def _agreeing(found: list[_Annotation], skipped: list[Skipped]) -> list[_Annotation]:
    """Those with as many joints and coordinates as most have; the rest goes to ``skipped``."""
    usual = Counter(one.array.shape[2:] for one in found).most_common(1)
    for one in found:
        if one.array.shape[2:] != usual[0][0]:
            detail = f"{one.array.shape}, most have {usual[0][0]} joints and coordinates"
            skipped.append(Skipped(one.name, "keypoints of another shape", detail))
    return [one for one in found if one.array.shape[2:] == usual[0][0]]


def _places(kept: Sequence[_Annotation], scratch: Path) -> tuple[NDArray[np.int64], Path, tuple[str, ...]]:
    """Where the keypoints of N annotations lie: (N, 12) numbers, the file of those that are not in the pickle, dtypes.

    Short arrays do not stay in the pickle; they are put one behind the other into a file in the scratch folder.
    """
    dtypes = sorted({one.array.dtype.str for one in kept})
    short, rows = scratch / "short.bin", []
    with short.open("wb") as file:
        for one in kept:
            raw, array = one.array.raw, one.array
            piece = raw if isinstance(raw, Piece) else Piece(file.tell(), len(raw), len(raw), False)
            if isinstance(raw, bytes):
                file.write(raw)
            flags = [piece.text, isinstance(raw, bytes), array.fortran, one.counts_differ]
            rows.append([piece.start, piece.size, piece.length, *flags, dtypes.index(array.dtype.str), *array.shape])
    return np.array(rows, dtype=np.int64), short, tuple(dtypes)


def _items(source: Path, count: int, step: int, mark: int) -> tuple[Item, ...]:
    spans = [(start, min(start + step, count)) for start in range(0, count, step)]
    facts = (*stamp(source), mark)
    return tuple(Item(f"clips {start}-{end - 1}", str(source), facts, (start, end)) for start, end in spans)


def _read(form: _Form, item: Item) -> Iterator[Clip]:
    """Read a range of annotations from where they lie; raises InputError where the pickle has changed."""
    names, numbers = rows_in(form.scratch, form.rows)
    with Path(item.path).open("rb") as pickle, Path(form.short).open("rb") as short:
        for index in range(*item.span):
            label, _, subject, camera, setup, *rest = (int(value) for value in numbers[index])
            sides, (start, size, length, text, inline, fortran, differ, dtype, *shape) = (
                rest[: len(form.splits)],
                rest[len(form.splits) :],
            )
            piece = Piece(start, size, length, bool(text))
            array = StoredArray(np.dtype(form.dtypes[dtype]), tuple(shape), bool(fortran), piece)
            frames, mended = _frames(array.read(short if inline else pickle), form.persons)
            yield Clip(
                frames=frames,
                label=label,
                name=str(names[index]),
                subjects=(subject,),
                camera=camera,
                setup=setup,
                sides=dict(zip(form.splits, sides, strict=True)),
                mended=", ".join([*mended, *([OTHER_COUNT] if differ else [])]),
            )


@np.errstate(over="ignore", invalid="ignore")  # what is not finite in float32 costs the clip, told once, later
def _frames(keypoints: NDArray[Any], persons: int) -> tuple[Frames, list[str]]:
    """Keypoints (M, T, V, C) as frames (T, persons, V, C), and what was mended."""
    bodies = keypoints.astype(np.float32)
    mended = []
    if len(bodies) > persons:
        there = np.asarray(bodies.any(axis=(2, 3)))
        movement = np.array(
            [body[seen].var(axis=0).sum() if seen.any() else -1.0 for body, seen in zip(bodies, there, strict=True)]
        )
        keep = np.sort(np.argsort(-movement, kind="stable")[:persons])
        mended = [CROWD] if there.any(axis=1).sum() > persons else []
        bodies = bodies[keep]
    frames = np.zeros((bodies.shape[1], persons, *bodies.shape[2:]), dtype=np.float32)
    frames[:, : len(bodies)] = bodies.transpose(1, 0, 2, 3)
    return frames, mended
