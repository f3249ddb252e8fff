"""What a reader of a foreign format makes of a source: a plan of items that can be read one by one, in any process.

A reader (methods.data.formats, one a file) looks at a source without reading its clips and returns a
:class:`Source`: what the dataset will be (layout, classes, persons), which items there are (files, or ranges of an
array), and a function from one item to its clips. :mod:`methods.data.conversion` does the rest for all readers alike:
workers, progress, going on after a kill, checks of every clip, skips, the summary.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from methods.data.layouts.layout import Layout, get_layout
from methods.errors import InputError

Frames = NDArray[np.float32]
Ints = NDArray[np.int64]

BY_JOINTS: Mapping[int, str] = {
    25: "ntu25",
    20: "kinect20",
    15: "openni15",
    31: "cmu31",
    17: "coco17",
    18: "openpose18",
}


@dataclass(frozen=True, eq=False)
class Clip:
    """One clip as it was read: frames (t, M, V, C) in the source's unit, t > 0; zeros where nobody is.

    ``subjects`` has one id a person or one for the clip, -1 for unknown, like ``camera`` and ``setup``. ``name`` is
    the clip's own, unique in a dataset (a second clip of one name is skipped and listed). ``sides`` says where the
    source itself puts the clip in a split (1 train, 2 test, 0 unused). ``mended`` names in a few words what had to be
    put right, for counting; empty where nothing had.
    """

    frames: Frames
    label: int
    name: str
    subjects: tuple[int, ...] = (-1,)
    camera: int = -1
    setup: int = -1
    sides: Mapping[str, int] = field(default_factory=dict)
    mended: str = ""


@dataclass(frozen=True)
class Skipped:
    """A clip or file that is left out by rule.

    ``reason`` is a short phrase, the same for all of a kind, fit for counting; ``detail`` is one line that points
    (file:line: what). ``asked`` says that the user wanted it so (a list of names to leave out): no fault then, not
    even a strict one.
    """

    name: str
    reason: str
    detail: str = ""
    asked: bool = False


@dataclass(frozen=True)
class Item:
    """The unit of reading: a file, or a range of an array. Plain values, for it travels to other processes.

    ``key`` names it (a relative path, 'clips 0-255'); ``path`` and ``span`` say where it is; ``stamp`` changes when
    its content does (size and modification time): work that a killed conversion left behind is used again by it.
    """

    key: str
    path: str
    stamp: tuple[int, ...] = ()
    span: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class ClipTable:
    """What a rule for splits may look at, over the N clips that were kept: labels, ids and names."""

    labels: Ints
    subjects: Ints
    cameras: Ints
    setups: Ints
    names: NDArray[np.str_]


Splits = Mapping[str, NDArray[np.int8]]
Reading = Iterable[Clip | Skipped]


def no_splits(_table: ClipTable) -> Splits:
    """The rule of a source that has no protocol of its own (or says its sides clip by clip)."""
    return {}


@dataclass(frozen=True, eq=False)
class Source:
    """A source as its reader understands it.

    ``read`` turns one item into its clips; it may raise InputError, which skips the whole item. It and the items are
    pickled when ``parallel`` holds. ``chunk`` items are read and kept together: choose it so that their frames make a
    few to some tens of MB. ``splits`` makes the official protocols from what is known about the clips, beside the
    sides that the clips carry. ``notes`` is recorded in the dataset (unit, steps that had been applied before, rules).
    ``published`` gives the official counts (train, test) of a split, to be printed beside what was found. ``skipped``
    is what planning left out; ``remarks`` are lines for the summary.
    """

    layout: Layout
    class_names: tuple[str, ...]
    persons: int
    items: Sequence[Item]
    read: Callable[[Item], Reading]
    splits: Callable[[ClipTable], Splits] = no_splits
    notes: Mapping[str, object] = field(default_factory=dict)
    published: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    skipped: tuple[Skipped, ...] = ()
    remarks: tuple[str, ...] = ()
    channels: int = 3
    parallel: bool = True
    chunk: int = 64


@dataclass(frozen=True)
class ReadOptions:
    """What a user may tell a reader; None where nothing was said. Readers name in OPTIONS those that they obey."""

    tracking: str | None = None  # how persons are followed through a clip: by_id or as_listed
    missing: Path | None = None  # a list of clip names to leave out
    names: Path | None = None  # the names of the clips of an array that has none, one a line
    table: Path | None = None  # a CSV about the clips: file, action, subject, fold, ...
    splits: Path | None = None  # a file or folder with the official protocol's lists
    layout: Layout | None = None  # where the joint count alone does not say it

    def given(self) -> list[str]:
        """Names of the options that were given."""
        return [item.name for item in fields(self) if getattr(self, item.name) is not None]


class Format(Protocol):
    """What a reader's module offers."""

    OPTIONS: frozenset[str]

    def recognises(self, source: Path) -> str | None:
        """Say in a few words by what the source shows to be of this format, or None; never raises, never reads much."""

    def plan(self, source: Path, options: ReadOptions, scratch: Path) -> Source:
        """Look at the source and plan its reading; ``scratch`` is an existing folder for what must be unpacked.

        Raises InputError, all faults at once, for what makes the source as a whole unreadable. What is in ``scratch``
        already, a killed conversion left there.
        """


def stamp(path: Path) -> tuple[int, ...]:
    """Size and modification time (ns) of a file, for :class:`Item`."""
    facts = path.stat()
    return facts.st_size, facts.st_mtime_ns


def tree_stamp(source: Path) -> tuple[tuple[str, ...], ...]:
    """Names, sizes and times of a file, or of all files under a folder: what tells one state of a source from another.

    A folder is walked without reading a file; 114,480 files take about a second.
    """
    if source.is_file():
        return (("", *map(str, stamp(source))),)
    found = []
    for folder, _, files in os.walk(source):
        for name in files:
            path = Path(folder, name)
            with contextlib.suppress(OSError):  # a link that leads nowhere: its reader will say so
                found.append((str(path.relative_to(source)), *map(str, stamp(path))))
    return tuple(sorted(found))


def spans(count: int, path: Path, step: int = 256) -> tuple[Item, ...]:
    """Items for an array of ``count`` clips in one file: ranges of ``step``."""
    mark = stamp(path)
    return tuple(
        Item(f"clips {start}-{min(start + step, count) - 1}", str(path), mark, (start, min(start + step, count)))
        for start in range(0, count, step)
    )


def layout_for(joints: int, given: Layout | None, where: str) -> Layout:
    """The layout given, or the field's usual one for that many joints. Raises InputError where neither fits."""
    if given is not None:
        if given.num_joints != joints:
            raise InputError(f"{where}: has {joints} joints, layout '{given.name}' has {given.num_joints}")
        return given
    if joints not in BY_JOINTS:
        known = ", ".join(f"{count} ({name})" for count, name in BY_JOINTS.items())
        raise InputError(f"{where}: no known layout has {joints} joints (known: {known}); give one with --layout")
    return get_layout(BY_JOINTS[joints])


def table_of(rows: Mapping[str, Any]) -> ClipTable:
    """A ClipTable from plain lists."""
    ints = {key: np.asarray(rows[key], dtype=np.int64) for key in ("labels", "subjects", "cameras", "setups")}
    return ClipTable(names=np.asarray(rows["names"], dtype=np.str_), **ints)
