"""Validation clips that are not chosen by subject: by camera, by setup, or by chance where nothing is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from methods.data.skeletons import SkeletonDataset
from methods.errors import InputError

Mask = NDArray[np.bool_]

BY_PLACE = ("held_out_cameras", "held_out_setups")
BY_CHANCE = "held_out_share"


def by_place(
    dataset: SkeletonDataset, train: Mask, key: str, ids: Sequence[int]
) -> tuple[Mask, Mask, tuple[int, ...], list[str]]:
    """Hold out the training clips of some cameras or setups.

    Returns who fits, who validates, the ids and notes. Raises InputError for ids that no training clip has.
    """
    what = key.removeprefix("held_out_")
    values = np.asarray(getattr(dataset, what))
    known = np.unique(values[train & (values >= 0)])
    given = np.unique(np.asarray(list(ids), dtype=np.int64))
    strangers = np.setdiff1d(given, known)
    if len(strangers) or not len(given):
        listed = ", ".join(map(str, strangers)) or "an empty list"
        there = ", ".join(map(str, known)) or "none is known"
        raise InputError(f"{key}: {listed}: not among the {what} of the training clips ({there})")
    hit = np.isin(values, given)
    notes = [f"validation: {what} {', '.join(map(str, given))} of the training clips"]
    shared = np.intersect1d(dataset.subjects[train & hit], dataset.subjects[train & ~hit])
    if (shared >= 0).any():
        notes.append(f"train and validation share {(shared >= 0).sum()} subjects")
    lost = int((train & (values < 0)).sum())
    if lost:
        notes.append(f"{lost} clips with unknown {what} are left out")
    return train & (values >= 0) & ~hit, train & hit, tuple(map(int, given)), notes


def by_chance(dataset: SkeletonDataset, train: Mask, share: float, seed: int) -> tuple[Mask, Mask, list[str]]:
    """Hold out a share of the training clips of every class, drawn by ``seed``.

    Only for data that does not say who is who: clips of one person then stand on both sides, and the score flatters.
    Returns who fits, who validates and notes. Raises InputError for a share outside (0, 0.5].
    """
    if not 0 < share <= 0.5:
        raise InputError(f"{BY_CHANCE}: {share} is not above 0 and up to 0.5")
    rng = np.random.default_rng(seed)
    validation = np.zeros_like(train)
    for label in np.unique(dataset.labels[train]):
        clips = np.flatnonzero(train & (dataset.labels == label))
        validation[rng.permutation(clips)[: max(1, round(share * len(clips)))]] = True
    note = (
        f"validation: {share:.0%} of the training clips of every class, drawn by seed {seed}; the same persons train, "
        "so the score flatters"
    )
    return train & ~validation, validation, [note]


def chance_of(validate_on: str | Mapping[str, object]) -> float | None:
    """The share of ``{held_out_share: 0.15}``, None for any other rule; raises InputError for what is no number."""
    if not isinstance(validate_on, Mapping) or list(validate_on) != [BY_CHANCE]:
        return None
    share = validate_on[BY_CHANCE]
    if isinstance(share, bool) or not isinstance(share, int | float):
        raise InputError(f"{BY_CHANCE} must be a number, got {share!r}")
    return float(share)
