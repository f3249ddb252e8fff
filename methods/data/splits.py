"""Who trains, who validates, who tests: index arrays over a dataset, with the persons kept apart.

Validation subjects always come out of the training subjects, whatever the protocol. The search never reads ``test``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from methods.data.holdouts import BY_CHANCE, BY_PLACE, by_chance, by_place, chance_of
from methods.data.skeletons import TEST, TRAIN, SkeletonDataset
from methods.errors import InputError, did_you_mean

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

AUTO_SHARE = 0.15  # of the training subjects, held out by `auto`
_DRAWS = 64  # tries of `auto` for each number of subjects, until every class is on both sides
_MOST_SINGLE = 8  # up to so many training subjects, `cv` leaves one out at a time
_GROUPS = 5  # folds of `cv` with more subjects than that
_MOST_BISECTED = 12  # subjects up to which all divisions into two are tried
_PROTOCOLS = ("test_subjects", "train_subjects", "test_cameras", "train_cameras", "test_setups", "train_setups")


@dataclass(frozen=True, eq=False)
class Split:
    """Index arrays (int64, sorted) of one split; no two share a clip, and train and validation share no person.

    ``test`` is for the one reading at the end: **the search never reads it**. With ``validate_on: cv``,
    ``validation`` is empty and ``folds`` (len(train),) gives each training clip its fold; -1 marks a clip that joins
    persons of different folds, or whose persons are unknown: its label is used in no fold, its frames may be
    pretrained on. ``held_out`` are the ids of the validation subjects (cameras, setups, where those were held out: then
    persons may stand on both sides, and the note says so); ``note`` says in words what was done.
    """

    name: str
    train: Ints
    validation: Ints
    test: Ints = field(repr=False)
    folds: Ints | None
    held_out: tuple[int, ...]
    note: str


class _People:
    """Persons of each clip; -1 is nobody or unknown."""

    def __init__(self, dataset: SkeletonDataset) -> None:
        self.subjects = np.asarray(dataset.subjects)
        self.known = np.asarray((self.subjects >= 0).any(axis=1))

    def ids(self, mask: Mask) -> Ints:
        found = np.unique(self.subjects[mask])
        return np.asarray(found[found >= 0])

    def within(self, ids: Sequence[int] | Ints) -> tuple[Mask, Mask]:
        """Return which clips hold only persons among ``ids``, and which hold any of them."""
        hit = np.isin(self.subjects, ids)
        inside = self.known & (hit | (self.subjects < 0)).all(axis=1)
        return np.asarray(inside), np.asarray(hit.any(axis=1))


def make_split(
    dataset: SkeletonDataset,
    protocol: str | Mapping[str, Sequence[int]],
    validate_on: str | Mapping[str, Sequence[int] | float] = "auto",
    seed: int = 0,
) -> Split:
    """Divide a dataset by a protocol and take validation subjects out of the training side.

    ``protocol``: a split stored in the dataset, or one of ``test_subjects``, ``train_subjects``, ``test_cameras``,
    ``train_cameras``, ``test_setups``, ``train_setups`` with a list of ids; the rest is the other side.
    ``validate_on``: ``auto`` (about 15 % of the training subjects, at least one, drawn by ``seed`` so that every class
    is on both sides), ``cv`` (leave one subject out; with more than 8 subjects 5 groups of subjects),
    ``{held_out_subjects: [...]}``, ``{held_out_cameras: [...]}``, ``{held_out_setups: [...]}``, or, for data that does
    not say who is who, ``{held_out_share: 0.15}``: clips of every class by chance. A clip whose persons stand on both
    sides is used on neither, and the note counts it. Raises InputError for unknown names and ids, empty sides, and a
    class that a side lacks.
    """
    name, train, test, notes = protocol_sides(dataset, protocol)
    _check_side(dataset, train | test, {"train": train, "test": test}, name)
    people, shared = _People(dataset), _shared(dataset, train, test)
    if shared:
        notes.append(f"train and test share {shared} subjects")
    if isinstance(validate_on, Mapping) and list(validate_on) != ["held_out_subjects"]:
        fit, validation, held, told = _other_hold_out(dataset, train, validate_on, seed)
        _check_side(dataset, train | test, {"train": fit, "validation": validation}, name)
        return _split(name, (fit, validation, test), None, held, [*notes, *told])
    if not people.known[train].any():
        raise InputError(
            f"{dataset.path}: no subject is known in the training clips of split '{name}' (all -1), so no validation "
            "subjects can be held out; convert the source with its subjects, or say validate_on: {held_out_share: "
            "0.15} and mind that the same persons then train and validate"
        )
    if validate_on == "cv":
        folds, fold_note = _cross_validation(dataset, people, train, seed, name)
        return _split(name, (train, np.zeros_like(train), test), folds, (), [*notes, fold_note])
    held_out = _held_out(dataset, people, train, validate_on, seed)
    fit, validation, left_out = _hold_out(people, train, held_out)
    _check_side(dataset, train | test, {"train": fit, "validation": validation}, name)
    how = f"validation: subjects {_listed(held_out)} ({len(held_out)} of {len(people.ids(train))} training subjects)"
    how += f", drawn by seed {seed}" if validate_on == "auto" else ""
    notes += [how, *left_out]
    return _split(name, (fit, validation, test), None, tuple(int(subject) for subject in held_out), notes)


def _split(
    name: str, sides: tuple[Mask, Mask, Mask], folds: Ints | None, held_out: tuple[int, ...], notes: list[str]
) -> Split:
    train, validation, test = sides
    counts = f"{name}: {train.sum()} train, {validation.sum()} validation, {test.sum()} test clips"
    return Split(
        name=name,
        train=np.flatnonzero(train).astype(np.int64),
        validation=np.flatnonzero(validation).astype(np.int64),
        test=np.flatnonzero(test).astype(np.int64),
        folds=folds,
        held_out=held_out,
        note="; ".join([counts, *notes]) + ".",
    )


def _listed(ids: Sequence[int] | Ints) -> str:
    return ", ".join(str(int(value)) for value in ids)


def protocol_sides(
    dataset: SkeletonDataset, protocol: str | Mapping[str, Sequence[int]]
) -> tuple[str, Mask, Mask, list[str]]:
    """Name, train, test, notes of a protocol, before validation is taken out."""
    if isinstance(protocol, str):
        if protocol not in dataset.splits:
            stored = f"; stored: {', '.join(dataset.splits)}" if dataset.splits else "; it stores none"
            hint = did_you_mean(protocol, dataset.splits)
            hint = hint if "mean" in hint else ""
            raise InputError(f"{dataset.path}: unknown split '{protocol}'{hint}{stored}")
        table = dataset.splits[protocol]
        return protocol, np.asarray(table == TRAIN), np.asarray(table == TEST), []
    if len(protocol) != 1:
        raise InputError(f"a protocol names exactly one of {', '.join(_PROTOCOLS)}; got {list(protocol)}")
    key, ids = next(iter(protocol.items()))
    if key not in _PROTOCOLS:
        raise InputError(f"unknown protocol '{key}'{did_you_mean(key, _PROTOCOLS)}")
    side, what = key.split("_")
    values = _People(dataset).subjects if what == "subjects" else np.asarray(getattr(dataset, what))[:, None]
    known = np.unique(values[values >= 0])
    if not len(known):
        raise InputError(f"{dataset.path}: {key} needs {what}, and none is known (all -1)")
    strangers = sorted({int(value) for value in ids} - set(known.tolist()))
    if strangers or not len(ids):
        raise InputError(f"{key}: {what} {strangers or '[]'} do not occur in {dataset.path}; known: {_listed(known)}")
    hit, there = np.isin(values, ids), values >= 0
    some = np.asarray(there.any(axis=1))
    named = some & np.asarray((hit | ~there).all(axis=1))
    other = some & ~np.asarray(hit.any(axis=1))
    notes = _left_out(some & ~named & ~other, ~some, "train and test", what)
    train, test = (other, named) if side == "test" else (named, other)
    return f"{key}({_listed(sorted(int(value) for value in ids))})", train, test, notes


def _left_out(straddling: Mask, unknown: Mask, sides: str, what: str) -> list[str]:
    notes = []
    if straddling.any():
        notes.append(f"{straddling.sum()} clips with persons of both {sides} are left out")
    if unknown.any():
        notes.append(f"{unknown.sum()} clips with unknown {what} are left out")
    return notes


def _shared(dataset: SkeletonDataset, train: Mask, test: Mask) -> int:
    people = _People(dataset)
    return len(np.intersect1d(people.ids(train), people.ids(test)))


def _check_side(dataset: SkeletonDataset, used: Mask, sides: Mapping[str, Mask], name: str) -> None:
    """Raise InputError for an empty side, or one without a class that occurs in the protocol at all."""
    faults = []
    occurring = np.unique(dataset.labels[used])
    for side, mask in sides.items():
        if not mask.any():
            faults.append(f"split '{name}': {side} has no clip")
            continue
        lacking = np.setdiff1d(occurring, dataset.labels[mask])
        if len(lacking):
            faults.append(f"split '{name}': {side} has no clip of class {_class_list(dataset, lacking)}")
    if faults:
        raise InputError(*faults)


def _class_list(dataset: SkeletonDataset, classes: Ints) -> str:
    shown = [f"'{dataset.class_names[int(label)]}'" for label in classes[:10]]
    return ", ".join(shown) + (f" and {len(classes) - 10} more" if len(classes) > 10 else "")


def _hold_out(people: _People, train: Mask, held_out: Sequence[int] | Ints) -> tuple[Mask, Mask, list[str]]:
    inside, touched = people.within(held_out)
    validation, fit = train & inside, train & people.known & ~touched
    notes = _left_out(train & touched & ~inside, train & ~people.known, "train and validation", "subjects")
    return fit, validation, notes


def _other_hold_out(
    dataset: SkeletonDataset, train: Mask, validate_on: Mapping[str, Sequence[int] | float], seed: int
) -> tuple[Mask, Mask, tuple[int, ...], list[str]]:
    """Validation clips by camera, setup or chance."""
    share = chance_of(validate_on)
    if share is not None:
        fit, validation, notes = by_chance(dataset, train, share, seed)
        return fit, validation, (), notes
    key = next(iter(validate_on), "")
    ids = validate_on.get(key)
    if len(validate_on) != 1 or key not in BY_PLACE or not isinstance(ids, Sequence):
        known = ("held_out_subjects", *BY_PLACE, BY_CHANCE)
        raise InputError(f"validate_on takes auto, cv or one of {', '.join(known)}; got {dict(validate_on)}")
    return by_place(dataset, train, key, ids)


def _held_out(
    dataset: SkeletonDataset,
    people: _People,
    train: Mask,
    validate_on: str | Mapping[str, Sequence[int] | float],
    seed: int,
) -> Ints:
    """The validation subjects, given or drawn."""
    subjects = people.ids(train)
    if isinstance(validate_on, Mapping):
        given = np.unique(np.asarray(validate_on["held_out_subjects"], dtype=np.int64))
        strangers = np.setdiff1d(given, subjects)
        if len(strangers) or not len(given):
            raise InputError(
                f"held_out_subjects: {_listed(strangers) or 'an empty list'}: not among the training subjects "
                f"({_listed(subjects)}); validation subjects come out of the training subjects"
            )
        return given
    if validate_on != "auto":
        raise InputError(f"unknown validate_on '{validate_on}'{did_you_mean(validate_on, ('auto', 'cv'))}")
    if len(subjects) < 2:
        raise InputError(
            f"{dataset.path}: validate_on auto needs at least two training subjects, there is {len(subjects)}"
        )
    return _draw(dataset, people, train, subjects, seed)


def _draw(dataset: SkeletonDataset, people: _People, train: Mask, subjects: Ints, seed: int) -> Ints:
    """Draw validation subjects until every class is on both sides; more subjects than 15 % only where fewer fail."""
    rng = np.random.default_rng(seed)
    classes = len(np.unique(dataset.labels[train]))
    least = max(1, round(AUTO_SHARE * len(subjects)))
    best, best_missing = subjects[:least], 2 * classes + 1
    for count in range(least, max(least, len(subjects) // 2) + 1):
        for _ in range(_DRAWS):
            drawn = np.sort(rng.choice(subjects, size=count, replace=False))
            fit, validation, _ = _hold_out(people, train, drawn)
            missing = 2 * classes - sum(len(np.unique(dataset.labels[side])) for side in (fit, validation))
            if missing < best_missing:
                best, best_missing = drawn, missing
            if not missing:
                return drawn
    return best  # the caller names the classes that even this one lacks


def _cross_validation(dataset: SkeletonDataset, people: _People, train: Mask, seed: int, name: str) -> tuple[Ints, str]:
    """One fold id for each training clip, and a sentence about it."""
    subjects = people.ids(train)
    if len(subjects) < 2:
        raise InputError(f"{dataset.path}: validate_on cv needs at least two training subjects, got {len(subjects)}")
    groups = _groups(people, train, subjects, np.random.default_rng(seed))
    folds = np.full(len(train), -1, dtype=np.int64)
    for fold, group in enumerate(groups):
        folds[train & people.within(group)[0]] = fold
    _check_folds(dataset, folds, len(groups), train, name)
    note = f"validation: {len(groups)} folds over {len(subjects)} training subjects, for labels only"
    lost = int((folds[train] < 0).sum())
    if lost:
        note += f"; {lost} clips with persons of different folds, or unknown ones, are in no fold"
    return folds[train], note


def _check_folds(dataset: SkeletonDataset, folds: Ints, count: int, train: Mask, name: str) -> None:
    classes, faults = np.unique(dataset.labels[train]), []
    for fold in range(count):
        if not (folds == fold).any():
            faults.append(f"split '{name}': fold {fold} of cv has no clip of its own persons alone")
        lacking = np.setdiff1d(classes, dataset.labels[(folds >= 0) & (folds != fold)])
        if len(lacking):
            faults.append(f"split '{name}': outside fold {fold} of cv no clip of class {_class_list(dataset, lacking)}")
    if faults:
        raise InputError(*faults)


def _groups(people: _People, train: Mask, subjects: Ints, rng: np.random.Generator) -> list[Ints]:
    """Groups of subjects, one a fold; persons who share clips stay together where that leaves more than one group."""
    units = _connected(people.subjects[train], subjects)
    if len(units) == 1:
        if len(subjects) <= _MOST_BISECTED:
            return _bisected(people, train, subjects)
        units = [subjects[index : index + 1] for index in range(len(subjects))]
    if len(units) <= _MOST_SINGLE:
        return units
    sizes = np.array([int((train & people.within(unit)[1]).sum()) for unit in units])
    order = rng.permutation(len(units))
    groups: list[list[int]] = [[] for _ in range(_GROUPS)]
    loads = np.zeros(_GROUPS, dtype=np.int64)
    for index in order[np.argsort(-sizes[order], kind="stable")]:  # largest first, to the lightest fold
        lightest = int(loads.argmin())
        groups[lightest].extend(units[index].tolist())
        loads[lightest] += sizes[index]
    return [np.array(sorted(group), dtype=np.int64) for group in groups]


def _connected(rows: Ints, subjects: Ints) -> list[Ints]:
    """Sets of subjects that no clip joins with a subject of another set."""
    home = {int(subject): int(subject) for subject in subjects}

    def find(subject: int) -> int:
        while home[subject] != subject:
            subject = home[subject]
        return subject

    for row in np.unique(rows, axis=0):
        known = [int(subject) for subject in row if subject >= 0]
        for other in known[1:]:
            home[find(other)] = find(known[0])
    roots = np.array([find(int(subject)) for subject in subjects])
    return [subjects[roots == root] for root in np.unique(roots)]


def _bisected(people: _People, train: Mask, subjects: Ints) -> list[Ints]:
    """The division in two whose smaller side keeps the most clips: for pairs of persons that all hang together."""
    best: tuple[int, list[Ints]] = (-1, [])
    first, rest = subjects[0], subjects[1:]
    for size in range(len(rest)):
        for chosen in combinations(rest, size):
            one = np.array([first, *chosen], dtype=np.int64)
            two = np.setdiff1d(subjects, one)
            kept = min(int((train & people.within(side)[0]).sum()) for side in (one, two))
            if kept > best[0]:
                best = (kept, [one, two])
    return best[1]
