"""Which clip of CTR-GCN's archive is which: the names that it does not keep, found again from a list of them.

CTR-GCN (data/ntu/seq_transformation.py and data/ntu120/seq_transformation.py, get_indices) takes the list of all clips
(statistics/skes_available_name.txt) and puts those of the first training subject first, in the order of the list, then
those of the next one; likewise by camera (cross-view) and by setup (cross-setup), and likewise the clips that test.
The ids ascend on either side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from methods.data.reading import ntu_facts
from methods.data.reading.clip_names import NameFacts, facts_of
from methods.data.reading.label_files import first_difference, read_name_list
from methods.data.reading.npz_arrays import Archive
from methods.data.reading.sources import Ints, table_of
from methods.data.skeletons import TEST, TRAIN
from methods.errors import InputError


@dataclass(frozen=True, eq=False)
class Found:
    """The names of an archive's clips, the split that its two sides are ('' where that stays unknown), and remarks."""

    names: tuple[str, ...]
    facts: NameFacts
    split: str
    remarks: tuple[str, ...] = ()


def find_names(archive: Archive, file: Path, split: str) -> Found:
    """Match a list of names with an archive's clips: in the archive's own order, or by CTR-GCN's grouping.

    ``split`` is what the archive is of ('' where that is unknown: every protocol is then tried). The names must fit
    the sides and the labels of all clips. Raises InputError that says at which clip the best try fails.
    """
    listed = read_name_list(file)
    facts = facts_of(listed)
    if facts.kind != "ntu":
        return _as_listed(archive, file, listed, facts, split)
    if archive.classes == ntu_facts.NTU60_CLASSES and facts.version == "ntu120":  # the list of both parts of NTU
        listed = tuple(
            name for name, setup in zip(listed, facts.setups, strict=True) if setup <= ntu_facts.NTU60_SETUPS
        )
        facts = facts_at(facts, np.flatnonzero(facts.setups <= ntu_facts.NTU60_SETUPS))
        if not listed:
            raise InputError(
                f"{file}: no name of NTU-60 (setups 1 to {ntu_facts.NTU60_SETUPS}), which {archive.path} is"
            )
    rows = {"labels": facts.labels, "subjects": facts.subjects[:, None], "cameras": facts.cameras}
    official = ntu_facts.splits(table_of({**rows, "setups": facts.setups, "names": listed}), facts.version)
    tries = []
    for name, sides in official.items():
        if split in ("", name):
            orders = {"names as listed": np.arange(len(listed)), "names grouped": _grouped(facts, name, sides)}
            tries += [(name, how, order, _fault(archive, listed, facts, sides, order)) for how, order in orders.items()]
    for name, how, order, fault in tries:
        if not fault:
            told = f"the names of {file.name} fit every clip (split {name}, {how})"
            return Found(tuple(listed[index] for index in order), facts_at(facts, order), name, (told,))
    if not tries:
        raise InputError(f"{file}: these are names of {facts.version}, which has no split {split}")
    raise InputError(*dict.fromkeys(f"{file}: {fault} (split {name}, {how})" for name, how, _, fault in tries))


def facts_at(facts: NameFacts, order: Ints) -> NameFacts:
    """The same facts in another order."""
    return NameFacts(facts.kind, *(part[order] for part in (facts.labels, facts.subjects, facts.cameras, facts.setups)))


def _as_listed(archive: Archive, file: Path, listed: Sequence[str], facts: NameFacts, split: str) -> Found:
    """Names of which no protocol is known: one a clip, in the archive's order."""
    if len(listed) != sum(archive.counts):
        train, test = archive.counts
        raise InputError(f"{file}: {len(listed):,} names, but {train:,} + {test:,} clips in {archive.path}")
    clip = first_difference(facts.labels, archive.labels)
    if clip >= 0:
        raise InputError(
            f"{file}: {archive.clip(clip)} has label {archive.labels[clip]}, its name '{listed[clip]}' says "
            f"{facts.labels[clip]}"
        )
    known = int((facts.labels >= 0).sum())
    remark = f"the names of {file.name} are taken in their order; {known:,} of {len(listed):,} could be checked"
    return Found(tuple(listed), facts, split, (remark,))


def _grouped(facts: NameFacts, split: str, sides: NDArray[np.int8]) -> Ints:
    """CTR-GCN's order of a list: a side's clips by subject, camera or setup, and as listed within each."""
    ids = {"xsub": facts.subjects, "xview": facts.cameras, "xset": facts.setups}[split]
    return np.concatenate(
        [at[np.argsort(ids[at], kind="stable")] for at in (np.flatnonzero(sides == side) for side in (TRAIN, TEST))]
    )


def _fault(archive: Archive, listed: Sequence[str], facts: NameFacts, sides: NDArray[np.int8], order: Ints) -> str:
    """Why a list in this order is not that of the archive; empty where it fits."""
    counts = int((sides == TRAIN).sum()), int((sides == TEST).sum())
    if counts != archive.counts:
        return f"{counts[0]:,} + {counts[1]:,} names, but {archive.counts[0]:,} + {archive.counts[1]:,} clips"
    clip = first_difference(sides[order].astype(np.int64), archive.sides.astype(np.int64))
    if clip >= 0:
        return f"{archive.clip(clip)} would be '{listed[order[clip]]}', which is not on that side"
    told = facts.labels[order]
    clip = first_difference(told, archive.labels)
    if clip >= 0:
        name = listed[order[clip]]
        return f"{archive.clip(clip)} has label {archive.labels[clip]}, its name '{name}' says {told[clip]}"
    return ""
