"""What each machine of a cluster did for a search, as the journal tells it, and which one to keep trials away from."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tuning.engine.mishaps import NOBODYS_FAULT
from tuning.engine.state import JournalState

SLOW = 2.0  # times what the other machines take for an epoch of the same method
ENOUGH = 5  # epochs on either side before a machine is called slow
BAD = 3  # different trials in a row that failed on a machine, without an epoch in between
CLOCK_OFF_S = 30.0  # from where a machine's clock is told to be off


@dataclass
class NodeRow:
    """One machine. ``pace``: how many times longer its epochs take than those of the others, None if not known.

    ``clock_off``: seconds by which its clock is ahead of the driver's, 0.0 where it is right.
    """

    node: str
    epochs: int = 0
    trials: set[int] = field(default_factory=set)
    failures: Counter[str] = field(default_factory=Counter)
    pace: float | None = None
    clock_off: float = 0.0

    @property
    def slow(self) -> bool:
        """Whether its epochs take at least twice as long as elsewhere."""
        return self.pace is not None and self.pace >= SLOW


def node_rows(state: JournalState) -> list[NodeRow]:
    """What every machine did, by address. Empty for journals that do not say where trials ran."""
    rows: dict[str, NodeRow] = {}
    seconds: dict[tuple[str, bool], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for trial in state.trials.values():
        for report in trial.reports.values():
            if report.node:
                row = rows.setdefault(report.node, NodeRow(report.node))
                row.epochs += 1
                row.trials.add(trial.trial)
                row.clock_off = float(report.logs.get("clock_off", row.clock_off))
                seconds[str(trial.draws.get("method", "")), report.rung][report.node].append(report.seconds)
        for failure in trial.failures:
            if failure.node:
                row = rows.setdefault(failure.node, NodeRow(failure.node))
                row.trials.add(trial.trial)
                row.failures[failure.kind] += 1
    for row in rows.values():
        row.pace = _pace(row.node, seconds.values())
    return [rows[node] for node in sorted(rows)]


def _pace(node: str, kinds: Iterable[Mapping[str, list[float]]]) -> float | None:
    """The median of an epoch's seconds over those of the same kind elsewhere; None for too few on either side."""
    ratios, here, there = [], 0, 0
    for found in kinds:
        mine = found.get(node, [])
        others = [value for other, values in found.items() if other != node for value in values]
        if not mine or not others:
            continue
        usual = statistics.median(others)
        here, there = here + len(mine), there + len(others)
        if usual > 0:
            ratios += [value / usual for value in mine]
    return statistics.median(ratios) if ratios and here >= ENOUGH and there >= ENOUGH else None


class BadNodes:
    """Which machines fail whatever they are given: new work goes elsewhere while there is an elsewhere.

    A machine whose GPU is broken, or that lacks the data, ends every trial at once, is free at once, and would in turn
    be given all the others.
    """

    def __init__(self) -> None:
        self._row: dict[str, set[int]] = {}

    def worked(self, node: str) -> None:
        """An epoch was done there."""
        self._row.pop(node, None)

    def failed(self, node: str, trial: int, kind: str) -> bool:
        """A trial failed there; whether this is what makes the machine a bad one."""
        if not node or kind in NOBODYS_FAULT:
            return False
        before = len(self._row.setdefault(node, set()))
        self._row[node].add(trial)
        return before < BAD <= len(self._row[node])

    def unfit(self, node: str) -> None:
        """It was looked at before it was given anything, and cannot work for this search."""
        self._row[node] = set(range(-BAD, 0))

    def came_back(self, node: str) -> None:
        """It was started anew: what was is forgotten."""
        self._row.pop(node, None)

    @property
    def bad(self) -> frozenset[str]:
        """Their addresses."""
        return frozenset(node for node, trials in self._row.items() if len(trials) >= BAD)


def node_lines(rows: Iterable[NodeRow]) -> list[str]:
    """A table for people; nothing where all went on one machine without a word to say about it."""
    rows = list(rows)
    if len(rows) < 2 and not any(row.failures or row.clock_off for row in rows):
        return []
    lines = ["node               epochs  trials  pace   remarks"]
    for row in rows:
        pace = "-" if row.pace is None else f"{row.pace:.1f}x"
        lines.append(f"{row.node:<18} {row.epochs:>6}  {len(row.trials):>6}  {pace:<5}  {remarks(row)}".rstrip())
    return lines


def remarks(row: NodeRow) -> str:
    """What is to be said about a machine."""
    said = [f"{count} {kind}" for kind, count in sorted(row.failures.items())]
    if row.slow:
        said.append(f"slow: {row.pace:.1f} times the others' seconds an epoch")
    if row.clock_off:
        said.append(f"its clock is {abs(row.clock_off):.0f} s {'ahead' if row.clock_off > 0 else 'behind'}")
    return ", ".join(said)
