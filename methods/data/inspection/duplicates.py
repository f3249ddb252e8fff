"""Clips that are there twice, byte for byte or nearly (methods.data.inspection.copies), and splits without them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from methods.data.inspection.copies import CROWD, TOLERANCE, find_copies
from methods.data.skeletons import TEST, TRAIN, UNUSED, SkeletonDataset
from methods.errors import InputError

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

_LARGEST = 0.1  # of the summed bone length; beyond, everybody who stands still is a copy of everybody else


@dataclass(frozen=True)
class Duplicates:
    """Which of ``clips`` = N clips are there more than once; indices are those of the dataset.

    ``identical``: groups of byte-identical clips, each sorted, by first member. ``near``: near-identical pairs
    (i, j, distance), i < j, between clips of different bytes; a group of identical clips stands there with its first
    member alone. ``crowds``: sets of more than :data:`CROWD` clips that hang together by such pairs, such as frozen
    default poses or clips that hold nobody, again by first members; their pairs are not in ``near``.
    """

    clips: int
    tolerance: float
    identical: tuple[tuple[int, ...], ...] = ()
    near: tuple[tuple[int, int, float], ...] = ()
    crowds: tuple[tuple[int, ...], ...] = ()

    def firsts(self) -> Ints:
        """(N,): the first clip of the same bytes, which is the clip itself where there is none before it."""
        out = np.arange(self.clips)
        for group in self.identical:
            out[list(group)] = group[0]
        return out


class Across(NamedTuple):
    """A test clip and the training clip that it repeats; ``distance`` is 0 for equal bytes, NaN within a crowd."""

    train: int
    test: int
    distance: float
    identical: bool


@dataclass(frozen=True, eq=False)
class CleanSplit:
    """A split without repetition in test: ``table`` (N,) int8, and how the counts changed.

    ``repeats_train`` test clips had a copy in train, ``repeats_test`` one earlier in test; ``lost`` counts them by
    class, ``vanished`` names the classes of which test has no clip left.
    """

    table: NDArray[np.int8]
    before: int
    repeats_train: int
    repeats_test: int
    lost: Mapping[str, int]
    vanished: tuple[str, ...]

    @property
    def after(self) -> int:
        """Test clips that are left."""
        return self.before - self.repeats_train - self.repeats_test

    def line(self, name: str) -> str:
        """Say it in one line of plain text; ``name`` is that of the split it was made from."""
        out = f"split {name}: test {self.before:,} -> {self.after:,} clips"
        if self.lost:
            out += f" ({self.repeats_train:,} repeat a training clip, {self.repeats_test:,} another test clip); lost: "
            out += ", ".join(f"{label} {count}" for label, count in self.lost.items())
        if self.vanished:
            out += f"; no test clip is left of {', '.join(self.vanished)}"
        return out


@dataclass(frozen=True, eq=False)
class CleanSplits:
    """What :func:`clean_splits` made of every stored split, by its name."""

    report: Mapping[str, CleanSplit]

    @property
    def splits(self) -> dict[str, NDArray[np.int8]]:
        """The new tables (N,), by the names of the old ones."""
        return {name: split.table for name, split in self.report.items()}

    def lines(self) -> list[str]:
        """How the counts changed, one line a split."""
        return [split.line(name) for name, split in self.report.items()]


def find_duplicates(dataset: SkeletonDataset, tolerance: float = TOLERANCE) -> Duplicates:
    """Find the byte-identical and near-identical clips of a dataset, over all clips whatever their split.

    Reads every clip twice and candidates again; memory holds 9 x 12 float32 numbers and one hash a clip. 114,480 clips
    (the size of NTU RGB+D 120) take 80 seconds of one core and 300 MB. Raises InputError for a tolerance that is none,
    and for NaN in the frames.
    """
    if not 0 <= tolerance <= _LARGEST:
        raise InputError(f"tolerance: want 0 to {_LARGEST:g} of the summed bone length, got {tolerance!r}")
    groups, empty = _by_bytes(dataset)
    near, crowds = find_copies(dataset, [group[0] for group in groups if group[0] not in empty], tolerance)
    if len(empty) > CROWD:  # clips of nobody are one thing, of whatever length
        crowds.append(empty)
    else:
        near.update(dict.fromkeys(combinations(sorted(empty), 2), 0.0))
    return Duplicates(
        clips=len(dataset),
        tolerance=tolerance,
        identical=tuple(tuple(group) for group in groups if len(group) > 1),
        near=tuple((a, b, distance) for (a, b), distance in sorted(near.items())),
        crowds=tuple(tuple(sorted(crowd)) for crowd in _merged(crowds)),
    )


def pairs_across(found: Duplicates, train: Mask, test: Mask) -> tuple[Across, ...]:
    """For every test clip that repeats a training clip, in order: the nearest such training clip (identical first).

    ``train`` and ``test`` are masks (N,). One pair a test clip, so that their number is the number of clips to mend.
    """
    firsts, partners, crowds = found.firsts().tolist(), _partners(found), _crowds_of(found)
    trained: dict[int, int] = {}
    for index in np.flatnonzero(train).tolist():
        trained.setdefault(firsts[index], index)
    crowded = [sorted({trained[clip] for clip in crowd if clip in trained}) for crowd in found.crowds]
    out = []
    for index in np.flatnonzero(test).tolist():
        first = firsts[index]
        near = [(distance, trained[other]) for other, distance in partners.get(first, ()) if other in trained]
        if first in trained:
            out.append(Across(trained[first], index, 0.0, True))
        elif near:
            distance, other = min(near)
            out.append(Across(other, index, distance, False))
        elif any(crowded[crowd] for crowd in crowds.get(first, ())):
            other = min(crowded[crowd][0] for crowd in crowds[first] if crowded[crowd])
            out.append(Across(other, index, math.nan, False))
    return tuple(out)


def clean_splits(dataset: SkeletonDataset, found: Duplicates | None = None) -> CleanSplits:
    """For each stored split a table without repetition in test; ``found`` is searched for where it is not given.

    A test clip that is byte- or near-identical to a training clip becomes unused, for it measures memory. Of test clips
    that repeat each other the first stays: a clip that is there n times would weigh n times in the accuracy, and which
    clips a publisher stored twice is no property of the classes. Train is untouched, whatever it repeats, so that what
    is trained stays comparable. Nothing is written.
    """
    found = found or find_duplicates(dataset)
    labels = np.asarray(dataset.labels)
    return CleanSplits(
        {name: clean_split(table, labels, dataset.class_names, found) for name, table in dataset.splits.items()}
    )


def clean_split(table: NDArray[np.int8], labels: Ints, class_names: Sequence[str], found: Duplicates) -> CleanSplit:
    """One table (N,) of 0 unused, 1 train, 2 test by the rule of :func:`clean_splits`."""
    test = np.asarray(table == TEST)
    repeats_train = [pair.test for pair in pairs_across(found, np.asarray(table == TRAIN), test)]
    left = test.copy()
    left[repeats_train] = False
    repeats_test = _repeated(found, left)
    out = np.array(table, dtype=np.int8)
    out[repeats_train + repeats_test] = UNUSED
    lost = np.bincount(labels[repeats_train + repeats_test], minlength=len(class_names)).tolist()
    gone = np.setdiff1d(labels[test], labels[out == TEST]).tolist()
    return CleanSplit(
        table=out,
        before=int(test.sum()),
        repeats_train=len(repeats_train),
        repeats_test=len(repeats_test),
        lost={name: count for name, count in zip(class_names, lost, strict=True) if count},
        vanished=tuple(class_names[label] for label in gone),
    )


def _repeated(found: Duplicates, among: Mask) -> list[int]:
    """The clips of a mask (N,) that repeat an earlier one which is kept."""
    firsts, partners, crowds = found.firsts().tolist(), _partners(found), _crowds_of(found)
    kept: set[int] = set()
    kept_crowds: set[int] = set()
    out = []
    for index in np.flatnonzero(among).tolist():
        first = firsts[index]
        seen = first in kept or not kept_crowds.isdisjoint(crowds.get(first, ()))
        if seen or any(other in kept for other, _ in partners.get(first, ())):
            out.append(index)
        else:
            kept.add(first)
            kept_crowds.update(crowds.get(first, ()))
    return out


def label_conflicts(found: Duplicates, labels: Ints) -> tuple[tuple[int, int], ...]:
    """Pairs (i, j) of byte- or near-identical clips that carry different labels; each clip j at most once.

    A byte-identical clip is held against the first of its group, and within a crowd nothing is said.
    """
    pairs = [(group[0], other) for group in found.identical for other in group[1:]]
    pairs += [(a, b) for a, b, _ in found.near]
    out: dict[int, int] = {}
    for a, b in pairs:
        if labels[a] != labels[b]:
            out.setdefault(b, a)
    return tuple((a, b) for b, a in sorted(out.items()))


def _by_bytes(dataset: SkeletonDataset) -> tuple[list[list[int]], set[int]]:
    """Clips of the same bytes together, and which of the groups' first clips hold nobody."""
    groups: dict[bytes, list[int]] = {}
    empty = set()
    for index in range(len(dataset)):
        clip = np.ascontiguousarray(dataset.clip(index))
        group = groups.setdefault(hashlib.blake2b(clip.data, digest_size=16).digest(), [])
        if not group and not clip.any():
            empty.add(index)
        group.append(index)
    return list(groups.values()), empty


def _partners(found: Duplicates) -> dict[int, list[tuple[int, float]]]:
    out: dict[int, list[tuple[int, float]]] = {}
    for a, b, distance in found.near:
        out.setdefault(a, []).append((b, distance))
        out.setdefault(b, []).append((a, distance))
    return out


def _crowds_of(found: Duplicates) -> dict[int, list[int]]:
    out: dict[int, list[int]] = {}
    for number, crowd in enumerate(found.crowds):
        for clip in crowd:
            out.setdefault(clip, []).append(number)
    return out


def _merged(sets: Sequence[set[int]]) -> list[set[int]]:
    """Unite sets that share a clip; linear in their total size."""
    home: dict[int, int] = {}
    out: dict[int, set[int]] = {}
    for number, members in enumerate(sets):
        shared = {home[clip] for clip in members if clip in home}
        out[number] = members.union(*(out.pop(other) for other in shared))
        home.update(dict.fromkeys(out[number], number))
    return sorted(out.values(), key=min)
