"""Tables of search efficiency: mean regrets, paired differences and speed-ups, each with a 95 % bootstrap interval.

Cells (problem x seed) are resampled, so an interval speaks of these problems with other seeds and a like mix of them.

    python -m benchmarks.efficiency_table cells.jsonl more.jsonl
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cells import read_cells

RESAMPLES, SEED, LEVEL = 10_000, 9_500, 0.95
BASES = ("random-asha", "stock")
GOAL = "stock"  # whose final value is to be reached
MISSED = 1 / 1.5  # the speed-up that is counted where it was not reached
EPOCHS = 52  # of a full training: the grid of the mean curves
NOTHING_YET = 1.0  # the regret while no trial has been scored
SAME = 1e-9
KINDS = {"regret": "regret of the incumbent if trained in full", "in_hand": "regret of the best score in hand"}

Told = Mapping[str, Any]


@dataclass(frozen=True)
class Interval:
    """An estimate and the ends of its bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Group:
    """Cells that are compared: engine -> (problem, seed) -> record."""

    group: str
    workers: int
    budget: int
    cost: str
    engines: Mapping[str, Mapping[tuple[str, int], Told]]

    def paired(self, engine: str, base: str) -> list[tuple[Told, Told]]:
        """The cells that both engines ran."""
        mine, theirs = self.engines[engine], self.engines[base]
        return [(mine[key], theirs[key]) for key in mine if key in theirs]


@lru_cache(maxsize=8)
def weights(cells: int) -> np.ndarray:
    """(resamples, cells): how much each cell counts in each resample; rows sum to 1. The same at every call."""
    drawn = np.random.default_rng(SEED).multinomial(cells, np.full(cells, 1 / cells), size=RESAMPLES)
    return drawn / cells


def mean(values: Sequence[float] | np.ndarray) -> Interval:
    """The mean over cells."""
    found = np.asarray(values, float)
    return _interval(float(found.mean()), weights(len(found)) @ found)


def geometric_mean(values: Sequence[float]) -> Interval:
    """The geometric mean over cells of positive numbers."""
    found = mean(np.log(values))
    return Interval(*(float(np.exp(x)) for x in (found.value, found.low, found.high)))


def _interval(value: float, resampled: np.ndarray) -> Interval:
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Interval(value, float(low), float(high))


def speed_up(told: Told, goal: Told, kind: str) -> tuple[float, bool]:
    """Goal's whole budget over the budget at which ``told`` first reaches goal's final value; whether it does."""
    column, target = _column(kind), goal[kind][-1] + SAME
    for point in told["curve"]:
        if point[column] <= target:
            return goal["budget"] / point[0], True
    return MISSED, False


def steps(told: Told, kind: str) -> np.ndarray:
    """The regret after each epoch spent, from the first to the last of the budget."""
    found = np.full(told["budget"] * EPOCHS + 1, NOTHING_YET)
    for point in told["curve"]:
        found[round(point[0] * EPOCHS) :] = point[_column(kind)]
    return found[1:]


def speed_up_of_means(pairs: Sequence[tuple[Told, Told]], kind: str) -> Interval:
    """Goal's whole budget over the budget at which the mean curve first falls to goal's final mean."""
    curves = np.stack([steps(told, kind) for told, _ in pairs])
    finals = np.array([goal[kind][-1] for _, goal in pairs])
    whole = pairs[0][1]["budget"]
    once = np.full((1, len(pairs)), 1 / len(pairs))
    value = _first(once, curves, finals, whole)[0]
    drawn = weights(len(pairs))
    parts = [_first(drawn[i : i + 1000], curves, finals, whole) for i in range(0, len(drawn), 1000)]
    return _interval(float(value), np.concatenate(parts))


def _first(drawn: np.ndarray, curves: np.ndarray, finals: np.ndarray, whole: float) -> np.ndarray:
    under = drawn @ curves <= (drawn @ finals)[:, None] + SAME
    ratio: np.ndarray = whole * EPOCHS / (1 + under.argmax(axis=1))
    return np.where(under.any(axis=1), ratio, MISSED)


def _column(kind: str) -> int:
    return 1 if kind == "regret" else 2


def groups(cells: Iterable[Told]) -> list[Group]:
    """Cells by kind of problem, workers, budget and cost, in this order; engines as they came."""
    found: dict[tuple[str, int, int, str], dict[str, dict[tuple[str, int], Told]]] = {}
    for told in cells:
        key = (told["group"], told["workers"], told["budget"], told["cost"])
        found.setdefault(key, {}).setdefault(told["engine"], {})[told["problem"], told["seed"]] = told
    flat_first = sorted(found, key=lambda key: (key[0] != "flat", key))
    return [Group(group, w, budget, cost, found[group, w, budget, cost]) for group, w, budget, cost in flat_first]


def tables(cells: Iterable[Told]) -> list[str]:
    """Everything as Markdown."""
    lines: list[str] = []
    for group in groups(cells):
        lines += _group_tables(group)
    return lines


def _group_tables(group: Group) -> list[str]:
    lines = [f"## {_title(group)}", ""]
    if len({frozenset(cells) for cells in group.engines.values()}) > 1:
        lines += ["The engines did not run the same cells: trust the paired tables, not the means side by side.", ""]
    for kind in KINDS:
        lines += _means(group, kind)
    for base in BASES:
        if base in group.engines and len(group.engines) > 1:
            for kind in KINDS:
                lines += _differences(group, base, kind)
    if GOAL in group.engines:
        lines += _reach(group)
    return [*lines, *_work(group), *_problems(group)]


def _title(group: Group) -> str:
    keys = {key for cells in group.engines.values() for key in cells}
    problems = len({problem for problem, _ in keys})
    cost = "" if group.cost == "epoch" else f", cost: {group.cost}"
    return (
        f"{group.group}: {problems} problem{'s' * (problems != 1)}, {len(keys)} cells, {group.workers} workers, "
        f"budget {group.budget} full trainings{cost}"
    )


def _budgets(group: Group) -> list[str]:
    first = next(iter(next(iter(group.engines.values())).values()))
    return [f"@{b:g}" for b in first["budgets"]]


def _means(group: Group, kind: str) -> list[str]:
    rows = []
    for engine, cells in group.engines.items():
        values = np.array([told[kind] for told in cells.values()])
        rows.append([engine, str(len(cells)), *(_signed(mean(column)) for column in values.T)])
    return _table(f"Mean {KINDS[kind]}", ["engine", "cells", *_budgets(group)], rows)


def _differences(group: Group, base: str, kind: str) -> list[str]:
    rows = []
    for engine in group.engines:
        pairs = group.paired(engine, base)
        if engine == base or not pairs:
            continue
        values = np.array([np.subtract(told[kind], other[kind]) for told, other in pairs])
        rows.append([engine, str(len(pairs)), *(_signed(mean(column), "+") for column in values.T)])
    title = f"Paired difference to {base} (below 0: better), {KINDS[kind]}"
    return _table(title, ["engine", "cells", *_budgets(group)], rows)


def _reach(group: Group) -> list[str]:
    rows = []
    for engine in group.engines:
        pairs = group.paired(engine, GOAL)
        if not pairs:
            continue
        row = [engine, str(len(pairs))]
        for kind in KINDS:
            found = [speed_up(told, goal, kind) for told, goal in pairs]
            row += [_ratio(geometric_mean([ratio for ratio, _ in found])), str(sum(there for _, there in found))]
            row.append(_ratio(speed_up_of_means(pairs, kind)))
        rows.append(row)
    title = (
        f"Reach: {GOAL}'s whole budget over the budget at which its final value is reached "
        f"(geometric mean; a miss counts {MISSED:.2f}; {GOAL}'s own row: when it first got there itself)"
    )
    heads = [f"{name}, {what}" for name in ("in full", "in hand") for what in ("per cell", "reached", "mean curves")]
    return _table(title, ["engine", "cells", *heads], rows)


def _work(group: Group) -> list[str]:
    rows = []
    for engine, cells in group.engines.items():
        told = list(cells.values())
        trials, full, cpu = (float(np.mean([t[key] for t in told])) for key in ("trials", "full", "cpu"))
        rows.append([engine, f"{trials:.0f}", f"{full:.1f}", f"{cpu:.2f}", f"{1000 * cpu / max(trials, 1):.1f}"])
    return _table("Work of a search (means)", ["engine", "trials", "in full", "CPU s", "CPU ms a trial"], rows)


def _problems(group: Group) -> list[str]:
    problems = list(dict.fromkeys(problem for cells in group.engines.values() for problem, _ in cells))
    if len(problems) < 2:
        return []
    rows = []
    for problem in problems:
        found = [
            [told["regret"][-1] for (name, _), told in cells.items() if name == problem]
            for cells in group.engines.values()
        ]
        rows.append([problem, *(f"{np.mean(values):.3f}" if values else "" for values in found)])
    return _table("Final regret of each problem (trained in full; mean over seeds)", ["problem", *group.engines], rows)


def _table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    marks = ["---", *("---:" for _ in heads[1:])]
    return [f"**{title}**", "", *(f"| {' | '.join(row)} |" for row in (heads, marks, *rows)), ""]


def _signed(found: Interval, sign: str = "") -> str:
    return f"{found.value:{sign}.3f} [{found.low:{sign}.3f}, {found.high:{sign}.3f}]"


def _ratio(found: Interval) -> str:
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


def main(arguments: Sequence[str] | None = None) -> int:
    """The tables of all cells in the files that are named."""

    paths = [Path(name) for name in (sys.argv[1:] if arguments is None else arguments)]
    missing = [str(path) for path in paths if not path.is_file()]
    if missing or not paths:
        print("error: no such file: " + ", ".join(missing) if missing else "error: name the files", file=sys.stderr)
        return 2
    print("\n".join(tables([told for path in paths for told in read_cells(path)])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
