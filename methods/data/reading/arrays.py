"""Clips that lie in large arrays: what is known of each beforehand, and reading a range of them through a memory map.

Two forms: 'split' (N, C, T, V, M), as CrosSCLR and AGCN write it, and 'flat' (N, T, M*V*C), as CTR-GCN does. Clips
are counted from 0 over all arrays of a source, one array behind the other. What is known of them (:class:`Rows`) is
kept in two small files in the scratch folder, so that a function that travels to other processes stays small.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from methods.data.npyfiles import map_foreign, map_member
from methods.data.reading.sources import Clip, Frames, Ints, Item, Skipped, stamp
from methods.errors import InputError

NO_COUNT = -1  # of frames: where the padding begins is seen from the zeros alone
NO_LABEL = -1
DOUBLED = "duplicated second person zeroed"
WRONG_COUNT = "frame count outside the array, ended at the last frame with anybody"
_LONGEST_NAME = 600  # longer than a clip may have, so that it is left out for it
_ITEM_BYTES = 1 << 25  # of frames in an item, before padding is cut off


@dataclass(frozen=True, eq=False)
class Rows:
    """What is known about N clips before they are read.

    ``labels`` with NO_LABEL where the source gives none; ``lengths`` the source's own count of frames, NO_COUNT where
    it has none; ``subjects``, ``cameras``, ``setups`` -1 where unknown; ``sides`` a split's name -> (N,) int8;
    ``more`` (N, K) whatever else the reader wants to know of a clip.
    """

    names: Sequence[str]
    labels: Ints
    lengths: Ints
    subjects: Ints
    cameras: Ints
    setups: Ints
    sides: Mapping[str, NDArray[np.int8]]
    more: Ints | None = None


@dataclass(frozen=True)
class Part:
    """One array of a source: its clips count from ``first``; ``key`` names it in an .npz, '' where it is a .npy."""

    path: str
    count: int
    first: int = 0
    key: str = ""


@dataclass(frozen=True)
class Form:
    """All that reading a range needs beside the item; small, for it is sent with every item.

    ``flat`` tells the two forms apart, ``trim`` cuts off the frames after the last one with anybody (where the rows
    have no count of frames), ``undouble`` zeroes a second person that is a copy of the first. ``rows`` is the
    checksum of the rows that :func:`keep_rows` has kept in ``scratch``.
    """

    parts: tuple[Part, ...]
    scratch: str
    rows: int
    splits: tuple[str, ...]
    persons: int
    joints: int
    flat: bool = False
    trim: bool = True
    undouble: bool = False


def in_line(parts: Sequence[Part]) -> tuple[Part, ...]:
    """The parts one behind the other: ``first`` is the sum of the counts before."""
    firsts = np.cumsum([0, *(part.count for part in parts)])
    return tuple(Part(part.path, part.count, int(first), part.key) for part, first in zip(parts, firsts, strict=False))


def clips_an_item(clip_bytes: int) -> int:
    """How many clips of so many bytes are read together."""
    return max(1, min(256, _ITEM_BYTES // max(1, clip_bytes)))


def items_of(parts: Sequence[Part], clip_bytes: int, rows: int) -> tuple[Item, ...]:
    """Ranges of clips, none across two arrays; an item changes with its file and with the rows."""
    step = clips_an_item(clip_bytes)
    items = []
    for part in parts:
        mark = (*stamp(Path(part.path)), rows)
        end = part.first + part.count
        for start in range(part.first, end, step):
            last = min(start + step, end)
            items.append(Item(f"clips {start}-{last - 1}", part.path, mark, (start, last)))
    return tuple(items)


def keep_rows(rows: Rows, scratch: Path) -> int:
    """Keep what is known of the clips in the scratch folder; returns its checksum, by which it is found again."""
    columns: list[NDArray[Any]] = [rows.labels, rows.lengths, rows.subjects, rows.cameras, rows.setups]
    columns += [*rows.sides.values(), *([] if rows.more is None else rows.more.T)]
    numbers = np.stack(columns, axis=1).astype(np.int64)
    longest = min(_LONGEST_NAME, max(map(len, rows.names), default=1) or 1)  # of one long name, all would take the room
    names = np.asarray([name[:longest] for name in rows.names], dtype=f"<U{longest}")
    told = zlib.crc32("\n".join([*rows.sides, *rows.names]).encode("utf-8", "surrogatepass"))
    mark = zlib.crc32(np.ascontiguousarray(numbers).data, told)
    for path, values in zip(_rows_files(scratch, mark), (names, numbers), strict=True):
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            np.lib.format.write_array(file, values, allow_pickle=False)
        os.replace(part, path)
    return mark


def _rows_files(scratch: Path, mark: int) -> tuple[Path, Path]:
    return scratch / f"rows-{mark:08x}-names.npy", scratch / f"rows-{mark:08x}-numbers.npy"


@lru_cache(maxsize=2)
def rows_in(scratch: str, mark: int) -> tuple[NDArray[np.str_], Ints]:
    """The kept names (N,) and numbers (N, ...): label, length, subject, camera, setup, a side a split, and ``more``."""
    names, numbers = (map_foreign(path) for path in _rows_files(Path(scratch), mark))
    return names, numbers


@lru_cache(maxsize=4)
def _opened(path: str, key: str, scratch: str, _stamp: tuple[int, ...]) -> NDArray[Any]:
    return np.asarray(map_member(Path(path), key, Path(scratch)) if key else map_foreign(Path(path)))


def read_clips(form: Form, item: Item) -> Iterator[Clip | Skipped]:
    """Read the clips of one item; raises InputError where the array is no longer what it was."""
    names, numbers = rows_in(form.scratch, form.rows)
    part = next(part for part in form.parts if part.first <= item.span[0] < part.first + part.count)
    array = _opened(part.path, part.key, form.scratch, item.stamp)
    if len(array) != part.count:
        raise InputError(f"{part.path}: {len(array)} clips, there were {part.count}")
    for index in range(*item.span):
        name = str(names[index])
        label, length, subject, camera, setup, *sides = (int(value) for value in numbers[index])
        if label == NO_LABEL:
            where = f"{part.path}: clip {index - part.first}" + (f" of {part.key}" if part.key else "")
            yield Skipped(name, "no label", f"{where}: its row names not exactly one class")
            continue
        frames, mended = _frames(form, array[index - part.first], length)
        yield Clip(
            frames=frames,
            label=label,
            name=name,
            subjects=(subject,),
            camera=camera,
            setup=setup,
            sides=dict(zip(form.splits, sides, strict=True)),
            mended=mended,
        )


@np.errstate(over="ignore", invalid="ignore")  # what is not finite in float32 costs the clip, told once, later
def _frames(form: Form, values: NDArray[Any], length: int) -> tuple[Frames, str]:
    """One clip (t, M, V, C) without padding, and what was mended."""
    if form.flat:
        frames = values.reshape(len(values), form.persons, form.joints, -1).astype(np.float32)
    else:
        frames = values.transpose(1, 3, 2, 0).astype(np.float32, order="C")
    mended = []
    if length == NO_COUNT or not 1 <= length <= len(frames):
        mended += [] if length == NO_COUNT else [WRONG_COUNT]
        frames = frames[: _end(frames)] if form.trim else frames
    else:
        frames = frames[:length]
    if form.undouble and frames[:, 1].any() and np.array_equal(frames[:, 0], frames[:, 1]):
        frames[:, 1] = 0
        mended.append(DOUBLED)
    return frames, ", ".join(mended)


def _end(frames: Frames) -> int:
    """Where the frames after the last one with anybody begin; 1 for a clip without anybody, which is not empty."""
    there = np.flatnonzero(frames.any(axis=(1, 2, 3)))
    return int(there[-1]) + 1 if len(there) else 1
