"""One .npz for one protocol: ``x_train``, ``y_train``, ``x_test``, ``y_test``, as CTR-GCN and MAMP write it.

``x`` (N, T, M*V*3): the coordinates of person 0's joints, then person 1's, zeros after the end of a clip. ``y`` one
row a clip with a 1 at its class, (N, K); also labels (N,). The archives have gigabytes: they are mapped, or unpacked
once into the scratch folder where they are compressed, and never read into memory as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from methods.data.layouts.layout import Layout
from methods.data.npyfiles import Header, map_member, member_header, member_keys
from methods.data.reading.arrays import NO_COUNT, NO_LABEL, Form, Part, Rows, in_line, items_of, keep_rows, read_clips
from methods.data.reading.benches import split_name
from methods.data.reading.clip_names import NameFacts, rules_for
from methods.data.reading.label_files import as_labels
from methods.data.reading.sources import Ints, ReadOptions, Source, layout_for
from methods.data.skeletons import TEST, TRAIN
from methods.errors import InputError

KEYS = ("x_train", "y_train", "x_test", "y_test")
_BODIES = {150: (2, 25), 75: (1, 25), 120: (2, 20), 60: (1, 20)}  # numbers a frame -> persons, joints
_BLOCK = 4096  # rows of y looked at together


@dataclass(frozen=True, eq=False)
class Archive:
    """What such an archive holds: ``labels`` of all clips, those that train first, NO_LABEL where a row has no class.

    ``classes`` is the number of columns of y, 0 where y has plain labels.
    """

    path: Path
    train: Header
    test: Header
    labels: Ints
    classes: int

    @property
    def counts(self) -> tuple[int, int]:
        """Clips that train, clips that test."""
        return self.train.shape[0], self.test.shape[0]

    @property
    def sides(self) -> NDArray[np.int8]:
        """1 for the clips that train, 2 for those that test."""
        return np.repeat(np.array([TRAIN, TEST], dtype=np.int8), self.counts)

    def clip(self, index: int) -> str:
        """Where a clip is, for a message."""
        train = self.counts[0]
        return f"clip {index} of x_train" if index < train else f"clip {index - train} of x_test"


def archive_shapes(source: Path) -> Mapping[str, tuple[int, ...]]:
    """The shapes of x_train and y_train of an .npz with all four arrays; empty for any other source. Never raises.

    Reads the table of contents and the arrays' headers alone.
    """
    try:
        if source.suffix.lower() != ".npz" or not source.is_file() or not set(KEYS) <= set(member_keys(source)):
            return {}
        return {key: member_header(source, key).shape for key in KEYS}
    except (InputError, OSError):
        return {}


def read_archive(source: Path, scratch: Path) -> Archive:
    """Read all about an archive but its clips; raises InputError, all faults at once."""
    keys = member_keys(source)
    missing = [key for key in KEYS if key not in keys]
    if missing:
        raise InputError(*(f"{source}: array '{key}' is missing" for key in missing))
    headers: list[Header] = []
    labels: list[tuple[Ints, int]] = []
    faults: list[str] = []
    for side in ("train", "test"):
        try:
            headers.append(_clips_header(source, f"x_{side}"))
        except InputError as error:
            faults += error.faults
        try:
            labels.append(_labels(map_member(source, f"y_{side}", scratch), f"{source}: array 'y_{side}'"))
        except InputError as error:
            faults += error.faults
    if not faults:
        faults = _disagreements(source, headers, labels)
    if faults:
        raise InputError(*faults)
    return Archive(source, headers[0], headers[1], np.concatenate([found for found, _ in labels]), labels[0][1])


def _clips_header(source: Path, key: str) -> Header:
    header = member_header(source, key)
    shape, dtype = header.shape, header.dtype
    if len(shape) != 3 or dtype.kind not in "fiu" or not shape[1]:
        raise InputError(f"{source}: array '{key}': holds {dtype} {shape}, wanted numbers (clips, frames, joints)")
    return header


def _disagreements(source: Path, headers: Sequence[Header], labels: Sequence[tuple[Ints, int]]) -> list[str]:
    """What does not fit together among four arrays that are whole."""
    faults = [
        f"{source}: {header.shape[0]:,} clips in x_{side}, but {len(found):,} labels in y_{side}"
        for side, header, (found, _) in zip(("train", "test"), headers, labels, strict=True)
        if header.shape[0] != len(found)
    ]
    if headers[0].shape[2] != headers[1].shape[2]:
        faults.append(f"{source}: x_train has {headers[0].shape[2]} numbers a frame, x_test {headers[1].shape[2]}")
    if labels[0][1] != labels[1][1]:
        faults.append(f"{source}: y_train has {labels[0][1]} classes, y_test {labels[1][1]}")
    if not sum(len(found) for found, _ in labels):
        faults.append(f"{source}: holds no clip")
    return faults


def _labels(table: NDArray[Any], where: str) -> tuple[Ints, int]:
    """Labels (N,) and the number of classes, from one-hot rows (N, K > 1) or labels (N,) or (N, 1)."""
    if table.ndim != 2 or table.shape[1] < 2:
        return as_labels(table, where), 0
    if table.dtype.kind not in "biuf":
        raise InputError(f"{where}: holds {table.dtype} {table.shape}, wanted numbers (clips, classes)")
    labels = np.full(len(table), NO_LABEL, dtype=np.int64)
    for start in range(0, len(table), _BLOCK):
        rows = np.asarray(table[start : start + _BLOCK])
        good = ((rows == 0) | (rows == 1)).all(axis=1) & ((rows == 1).sum(axis=1) == 1)
        labels[start : start + len(rows)][good] = rows.argmax(axis=1)[good]
    return labels, table.shape[1]


def split_of(source: Path) -> str:
    """The split that a part of the file's name stands for ('NTU60_CS' is xsub), '' where none does."""
    words = re.split(r"[^A-Za-z]+", source.stem)
    parts = [*words, *(f"{one}{other}" for one, other in pairwise(words))]
    return next((split for part in reversed(parts) if (split := split_name(part))), "")


def counted_names(archive: Archive) -> tuple[str, ...]:
    """Names for clips that have none: 'train-000001' and so on."""
    pairs = zip(("train", "test"), archive.counts, strict=True)
    return tuple(f"{side}-{number:06d}" for side, count in pairs for number in range(1, count + 1))


def bodies(archive: Archive, given: Layout | None) -> tuple[Layout, int]:
    """Layout and number of persons, by the numbers a frame has; raises InputError where they do not fit."""
    width = archive.train.shape[2]
    if given is not None and width and width % (3 * given.num_joints) == 0:
        return given, width // (3 * given.num_joints)
    if width not in _BODIES:
        known = ", ".join(f"{count} ({persons} x {joints} joints)" for count, (persons, joints) in _BODIES.items())
        raise InputError(f"{archive.path}: {width} numbers a frame, known are {known}; give a layout with --layout")
    persons, joints = _BODIES[width]
    return layout_for(joints, given, str(archive.path)), persons


def source_of(
    archive: Archive,
    options: ReadOptions,
    scratch: Path,
    split: str,
    names: Sequence[str],
    facts: NameFacts,
    class_names: tuple[str, ...],
    published: Mapping[str, tuple[int, int]],
    notes: Mapping[str, object],
    remarks: Sequence[str],
) -> Source:
    """Plan the reading of an archive whose clips are called ``names``; raises InputError."""
    layout, persons = bodies(archive, options.layout)
    sides = {split: archive.sides}
    rules = rules_for(facts, sides)
    unknown = np.full(len(names), NO_COUNT, dtype=np.int64)
    rows = Rows(names, archive.labels, unknown, facts.subjects, facts.cameras, facts.setups, sides)
    mark = keep_rows(rows, scratch)
    for key in ("x_train", "x_test"):  # unpacked here once where that is needed, not by every process
        map_member(archive.path, key, scratch)
    pairs = zip(("x_train", "x_test"), archive.counts, strict=True)
    parts = in_line([Part(str(archive.path), count, key=key) for key, count in pairs])
    form = Form(parts, str(scratch), mark, (split,), persons, layout.num_joints, flat=True, undouble=persons == 2)
    frames = max(archive.train.shape[1], archive.test.shape[1])
    return Source(
        layout=layout,
        class_names=class_names,
        persons=persons,
        items=items_of(parts, frames * archive.train.shape[2] * 4, mark),
        read=partial(read_clips, form),
        splits=rules,
        published=rules.published or {name: counts for name, counts in published.items() if name == split},
        notes=notes,
        remarks=(*remarks, *rules.remarks),
        chunk=1,
    )
