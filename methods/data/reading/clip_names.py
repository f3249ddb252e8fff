"""What the names of the clips of an array tell: dataset, class, subject, camera, setup, official splits.

NTU RGB+D: methods.data.reading.ntu_facts. PKU-MMD cut into clips is named in two ways: ``FfffVvvvCcccLlll`` (part I)
and ``AaaaNnnnVvvvCcccLlll`` (part II) by AimCLR (tools/pku_part1_skeleton.py, pku_part2_skeleton.py), with view 1 for
L, 2 for M and 3 for R and the class from 1; ``0002-L.txt_0`` and ``A01N01-L.txt_0``, which do not tell the class, by
CMD (data_gen/pku_gendata.py). N is the subject of part II: its cross-subject protocol tests on N02, N03 and N07.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from methods.data.reading import ntu_facts, pku_facts
from methods.data.reading.sources import ClipTable, Ints, Splits, no_splits, table_of
from methods.data.skeletons import UNUSED

_PKU_NAMES = (
    re.compile(r"F\d{3}V(?P<view>\d{3})C(?P<action>\d{3})L\d{3}"),
    re.compile(r"A\d{3}N(?P<subject>\d{3})V(?P<view>\d{3})C(?P<action>\d{3})L\d{3}"),
    re.compile(r"\d{4}-(?P<letter>[LMR])(?:\.txt)?_\d+"),
    re.compile(r"A\d{2}N(?P<subject>\d{2})-(?P<letter>[LMR])(?:\.txt)?_\d+"),
)
_VIEWS = {"L": 1, "M": 2, "R": 3}


@dataclass(frozen=True, eq=False)
class NameFacts:
    """What N names tell; -1 where one does not tell. ``kind`` is 'ntu' or 'pku' where all names are of it, else ''."""

    kind: str
    labels: Ints
    subjects: Ints
    cameras: Ints
    setups: Ints

    @property
    def version(self) -> str:
        """'ntu60' or 'ntu120' for NTU names, else ''."""
        largest = int(self.setups.max(initial=0)), int(self.labels.max(initial=0)) + 1
        return ntu_facts.version_of(*largest) if self.kind == "ntu" else ""


def own_name(text: str) -> str:
    """A clip's name without folders and the ending .skeleton; what is no text in it is replaced by '?'."""
    stem = text.encode("utf-8", "replace").decode("utf-8").strip().replace("\\", "/").rpartition("/")[2]
    return stem[: -len(".skeleton")] if stem.lower().endswith(".skeleton") else stem


def facts_of(names: Sequence[str]) -> NameFacts:
    """Read every name; a stranger's tells nothing."""
    rows = [_ntu(name) or _pku(name) or ("", -1, -1, -1, -1) for name in names]
    kinds = {row[0] for row in rows}
    table = np.array([row[1:] for row in rows], dtype=np.int64).reshape(-1, 4)
    return NameFacts(kinds.pop() if len(kinds) == 1 else "", *table.T.copy())


def _ntu(name: str) -> tuple[str, int, int, int, int] | None:
    found = ntu_facts.parse_name(name)
    return None if found is None else ("ntu", found.label, found.performer, found.camera, found.setup)


def _pku(name: str) -> tuple[str, int, int, int, int] | None:
    for pattern in _PKU_NAMES:
        found = pattern.fullmatch(name)
        if found:
            told = found.groupdict()
            camera = _VIEWS[told["letter"]] if "letter" in told else int(told["view"])
            return "pku", int(told.get("action", 0)) - 1, int(told.get("subject", -1)), camera, -1
    return None


def classes_of(facts: NameFacts, labels: Ints) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Class names for the labels (N,), -1 where one is unknown, and remarks.

    The dataset's own where the names say which it is and bear the labels out; else 'action 1' and so on.
    """
    told = (labels >= 0) & (facts.labels >= 0)
    wrong = int((labels[told] != facts.labels[told]).sum())
    count = max(1, int(labels.max(initial=-1)) + 1)
    if facts.kind == "ntu" and not wrong and count <= len(ntu_facts.class_names(facts.version)):
        return ntu_facts.class_names(facts.version), ()
    if facts.kind == "pku" and not wrong and count <= len(pku_facts.CLASS_NAMES):
        return pku_facts.CLASS_NAMES, ()
    if not wrong:
        return numbered(count), ()
    return numbered(count), (
        f"{wrong:,} labels are not what the clips' names say: the labels are kept, classes numbered",
    )


def numbered(count: int) -> tuple[str, ...]:
    """Names for classes of which only the number is known."""
    return tuple(f"action {index}" for index in range(1, count + 1))


@dataclass(frozen=True)
class Rules:
    """The official protocols that the names of all clips allow to make: for a Source's splits and published."""

    splits: partial[Splits] | None
    published: Mapping[str, tuple[int, int]]
    remarks: tuple[str, ...]

    def __call__(self, table: ClipTable) -> Splits:
        return no_splits(table) if self.splits is None else self.splits(table)


def rules_for(facts: NameFacts, sides: Mapping[str, NDArray[np.int8]]) -> Rules:
    """The official splits by rule, beside those that the source has itself (``sides``, (N,) each), which prevail.

    Where the source's own split is not the official one of its name, a remark says for how many clips.
    """
    if facts.kind == "pku":
        return Rules(None, pku_facts.PUBLISHED["II" if facts.subjects.max(initial=-1) >= 0 else "I"], ())
    if facts.kind != "ntu":
        return Rules(None, {}, ())
    rows = {"labels": facts.labels, "subjects": facts.subjects[:, None], "cameras": facts.cameras}
    official = ntu_facts.splits(
        table_of({**rows, "setups": facts.setups, "names": [""] * len(facts.labels)}), facts.version
    )
    remarks = []
    for name, side in sides.items():
        other = int(((side != official[name]) & (side != UNUSED)).sum()) if name in official else 0
        if other:
            remarks.append(f"split {name}: {other:,} clips are on another side than the official rule says; kept so")
    rule = partial(_official, facts.version, frozenset(sides))
    return Rules(rule, ntu_facts.PUBLISHED[facts.version], tuple(remarks))


def _official(version: str, own: frozenset[str], table: ClipTable) -> Splits:
    return {name: side for name, side in ntu_facts.splits(table, version).items() if name not in own}
