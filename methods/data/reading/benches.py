"""Bench folders (``xsub``, ``xview``, ``xset``): one protocol each, an array and labels for either side of it.

CrosSCLR's family and AGCN's keep a dataset once for every protocol. The frames are taken from one bench; the others
give their sides by the names of the clips. ``val`` (also ``test``) is the side that tests.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from methods.data.npyfiles import Header, foreign_header
from methods.data.reading.clip_names import NameFacts, facts_of
from methods.data.reading.label_files import (
    Labels,
    first_difference,
    read_label_array,
    read_label_pickle,
    read_name_list,
)
from methods.data.reading.sources import Ints
from methods.data.skeletons import TEST, TRAIN, UNUSED
from methods.errors import InputError

SIDES: Mapping[str, tuple[str, ...]] = {"train": ("train",), "test": ("val", "test")}
_SPLITS = {  # what a bench is called, without anything but letters -> the split's name here
    **dict.fromkeys(("xsub", "cs", "csub", "crosssubject", "subject"), "xsub"),
    **dict.fromkeys(("xview", "cv", "cview", "crossview", "view"), "xview"),
    **dict.fromkeys(("xset", "cset", "xsetup", "crosssetup", "setup"), "xset"),
}
_ORDER = ("xsub", "xview", "xset")
_MOST_LOOKS = 64  # folders that are looked into for benches


def split_name(text: str) -> str | None:
    """The split that a folder or a part of a file's name stands for ('CSub' is xsub); None where it is no usual one."""
    return _SPLITS.get(re.sub(r"[^a-z]", "", text.lower()))


def bench_folders(source: Path, endings: Sequence[str]) -> list[Path]:
    """The folders with arrays of such endings ('position' for train_position.npy): the source, or some just in it.

    Those of a usual name come first. Never raises; looks into a few folders only.
    """
    try:
        if _array_of(source, "train", endings) or _array_of(source, "test", endings):
            return [source]
        found = []
        with os.scandir(source) as entries:
            for number, entry in enumerate(entries):
                if number >= _MOST_LOOKS:
                    break
                folder = Path(entry.path)
                if entry.is_dir() and (_array_of(folder, "train", endings) or _array_of(folder, "test", endings)):
                    found.append(folder)
    except OSError:
        return []
    known = {name: place for place, name in enumerate(_ORDER)}
    return sorted(found, key=lambda folder: (known.get(_split_of(folder) or "", len(known)), folder.name))


def _split_of(folder: Path) -> str | None:
    return split_name(folder.resolve().name)


def _array_of(folder: Path, side: str, endings: Sequence[str]) -> Path | None:
    """The array of a side of a bench; the first ending that is there."""
    names = [f"{prefix}_{ending}.npy" for ending in endings for prefix in SIDES[side]]
    return next((folder / name for name in names if (folder / name).is_file()), None)


@dataclass(frozen=True, eq=False)
class Side:
    """One side of a bench: its array and what it says of itself, and the labels of its clips."""

    array: Path
    header: Header
    labels: Labels


@dataclass(frozen=True, eq=False)
class Bench:
    """A bench folder: the split that it stands for, and its two sides."""

    folder: Path
    split: str
    train: Side
    test: Side

    @property
    def names(self) -> tuple[str, ...] | None:
        """Names of all clips, those that train first; None where one side has none."""
        both = (self.train.labels.names, self.test.labels.names)
        return None if both[0] is None or both[1] is None else both[0] + both[1]

    @property
    def labels(self) -> Ints:
        """Labels of all clips in the same order."""
        return np.concatenate([self.train.labels.labels, self.test.labels.labels])

    @property
    def sides(self) -> NDArray[np.int8]:
        """1 for the clips that train, 2 for those that test."""
        counts = [len(self.train.labels.labels), len(self.test.labels.labels)]
        return np.repeat(np.array([TRAIN, TEST], dtype=np.int8), counts)


def read_benches(source: Path, endings: Sequence[str], names: Path | None) -> list[Bench]:
    """Read all about the benches of a source but their clips; the first is the one to take the frames from.

    ``names`` is where labels with names lie if not beside the arrays: a ``*_label.pkl``, the folder of it, the parent
    of such folders, or for a single bench a list of names, those that train first. Raises InputError, all faults at
    once: files that are missing or damaged, arrays and labels of different lengths, several benches without names.
    """
    folders = bench_folders(source, endings)
    if not folders:
        wanted = " or ".join(f"train_{ending}.npy" for ending in endings)
        raise InputError(f"{source}: neither holds {wanted} nor has a folder like xsub that does")
    if names is not None and not names.exists():
        raise InputError(f"{names}: no such file or folder")
    common = Counter(_split_of(folder) for folder in folders)
    benches: list[Bench] = []
    faults: list[str] = []
    for folder in folders:
        usual = _split_of(folder)
        split = usual if usual and common[usual] == 1 else "official" if len(folders) == 1 else folder.name
        try:
            benches.append(_read_bench(folder, split, endings, names, alone=len(folders) == 1))
        except InputError as error:
            faults += error.faults
    if not faults and len(benches) > 1:
        faults = [
            f"{bench.folder}: has labels without names, so it cannot be matched with {others}; name one of the folders "
            "alone, or give --names"
            for bench in benches
            if bench.names is None
            for others in [", ".join(other.folder.name for other in benches if other is not bench)]
        ]
    if faults:
        raise InputError(*faults)
    return benches


def _read_bench(folder: Path, split: str, endings: Sequence[str], names: Path | None, alone: bool) -> Bench:
    listed = read_name_list(names) if names is not None and _is_list(names) else None
    if listed is not None and not alone:
        raise InputError(f"{names}: a list of names fits one bench; name the folder {folder} alone")
    ending = next(ending for ending in endings if any(_array_of(folder, side, (ending,)) for side in SIDES))
    sides: list[Side] = []
    faults: list[str] = []
    for side in SIDES:
        try:
            sides.append(_read_side(folder, side, ending, None if listed else names, alone))
        except InputError as error:
            faults += error.faults
    if faults:
        raise InputError(*faults)
    train, test = sides
    if not len(train.labels.labels) + len(test.labels.labels):
        raise InputError(f"{folder}: holds no clip")
    if listed is not None and names is not None:
        train, test = _with_names(names, listed, train, test)
    return Bench(folder, split, train, test)


def _is_list(names: Path) -> bool:
    return names.is_file() and names.suffix.lower() not in (".pkl", ".pickle")


def _read_side(folder: Path, side: str, ending: str, names: Path | None, alone: bool) -> Side:
    array = _array_of(folder, side, (ending,))
    if array is None:
        raise InputError(f"{folder / f'{SIDES[side][0]}_{ending}.npy'}: no such file")
    header = foreign_header(array)
    labels = _read_labels(folder, side, names, alone)
    count = header.shape[0] if header.shape else 0
    if count != len(labels.labels):
        raise InputError(f"{array}: {count:,} clips, but {len(labels.labels):,} labels in {labels.file}")
    return Side(array, header, labels)


def _read_labels(folder: Path, side: str, names: Path | None, alone: bool) -> Labels:
    """Labels with names where there are any: from where the user says, else beside the array."""
    if names is not None:
        named = read_label_pickle(_named_pickle(folder, side, names, alone))
        plain = _first_file(folder, [f"{prefix}_label.npy" for prefix in SIDES[side]])
        if plain is not None:
            _check_against(named, read_label_array(plain))
        return named
    pickled = _first_file(folder, [f"{prefix}_label.pkl" for prefix in SIDES[side]])
    if pickled is not None:
        return read_label_pickle(pickled)
    plain = _first_file(folder, [f"{prefix}_label.npy" for prefix in SIDES[side]])
    if plain is not None:
        return read_label_array(plain)
    raise InputError(
        f"{folder / f'{SIDES[side][0]}_label.pkl'}: no such file (and no .npy of that name); say with --names where "
        "the labels lie"
    )


def _named_pickle(folder: Path, side: str, names: Path, alone: bool) -> Path:
    """The label file that goes with a side of a bench, near what the user named."""
    bench = folder.resolve().name
    if names.is_dir():
        places = [names / bench, *([names] if alone else [])]
    else:
        places = [names.parent] if alone else [names.parent.parent / bench]
    for place in places:
        found = _first_file(place, [f"{prefix}_label.pkl" for prefix in SIDES[side]])
        if found is not None:
            return found
    raise InputError(f"{names}: no {SIDES[side][0]}_label.pkl for {folder} in {' or '.join(map(str, places))}")


def _first_file(folder: Path, names: Sequence[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _check_against(named: Labels, plain: Labels) -> None:
    """Whether labels from elsewhere are those of the array: its own count from the smallest."""
    if len(named.labels) != len(plain.labels):
        raise InputError(f"{named.file}: {len(named.labels):,} labels, but {len(plain.labels):,} in {plain.file}")
    smallest = int(named.labels.min()) if len(named.labels) else 0
    for shift in (0, smallest):
        clip = first_difference(named.labels - shift, plain.labels)
        if clip < 0:
            return
    raise InputError(
        f"{named.file}: clip {clip} has label {named.labels[clip]}, {plain.file} says {plain.labels[clip]}: these are "
        "not the names of this array"
    )


def _with_names(names: Path, listed: Sequence[str], train: Side, test: Side) -> tuple[Side, Side]:
    """Give a bench the names of a list, checked against its labels where the names tell theirs."""
    counts = len(train.labels.labels), len(test.labels.labels)
    if len(listed) != sum(counts):
        raise InputError(
            f"{names}: {len(listed):,} names, but {counts[0]:,} + {counts[1]:,} clips in {train.array.parent}"
        )
    told = facts_of(listed).labels
    clip = first_difference(told, np.concatenate([train.labels.labels, test.labels.labels]))
    if clip >= 0:
        raise InputError(
            f"{names}: name {clip} is '{listed[clip]}', but clip {clip} of {train.array.parent} has another label: "
            "these are not the names of these arrays"
        )
    cut = counts[0]
    return (
        Side(train.array, train.header, Labels(train.labels.file, tuple(listed[:cut]), train.labels.labels)),
        Side(test.array, test.header, Labels(test.labels.file, tuple(listed[cut:]), test.labels.labels)),
    )


def sides_of(benches: Sequence[Bench]) -> tuple[dict[str, NDArray[np.int8]], tuple[str, ...]]:
    """The sides (N,) that every bench gives to the clips of the first, and remarks on what does not match.

    A clip that another bench lacks is unused there. Raises InputError where two benches give a clip different labels.
    """
    first, remarks = benches[0], []
    sides = {first.split: first.sides}
    for other in benches[1:]:
        place = {name: index for index, name in enumerate(other.names or ())}
        at = np.array([place.get(name, -1) for name in first.names or ()], dtype=np.int64)
        both = at >= 0
        clip = first_difference(first.labels[both], other.labels[at[both]])
        if clip >= 0:
            name = (first.names or ())[int(np.flatnonzero(both)[clip])]
            raise InputError(f"{other.folder}: clip '{name}' has another label than in {first.folder}")
        sides[other.split] = np.where(both, other.sides[at], UNUSED).astype(np.int8)
        lacking, beyond = int((~both).sum()), len(place) - len(set(at[both].tolist()))
        if lacking or beyond:
            remarks.append(
                f"split {other.split}: {lacking:,} clips of {first.folder.name} are not in {other.folder.name} and "
                f"unused there; {beyond:,} clips are in {other.folder.name} alone and left out"
            )
    return sides, tuple(remarks)


def clip_names(bench: Bench) -> tuple[tuple[str, ...], NameFacts]:
    """The names of a bench's clips, made by counting where it has none, and what they tell."""
    made = [f"{side}-{number:06d}" for side, count in _counts(bench).items() for number in range(1, count + 1)]
    names = bench.names or tuple(made)
    return names, facts_of(names)


def _counts(bench: Bench) -> dict[str, int]:
    return {"train": len(bench.train.labels.labels), "test": len(bench.test.labels.labels)}
