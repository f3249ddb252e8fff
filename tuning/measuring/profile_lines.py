"""A profile for people, and for scripts."""

from __future__ import annotations

from typing import Any

from tuning.arithmetic import budget_lines
from tuning.config.schema import PACKED
from tuning.measuring.cost import MethodTime
from tuning.measuring.profile import DEAREST, Profile, Row
from tuning.space.cautions import plural
from tuning.words import duration

_MIB, _GIB = 2.0**20, 2.0**30
_SHORT = {"optimiser": "optim", "momentum": "moment"}


def lines(found: Profile) -> list[str]:
    """The table, the packing, the cost, and what of it is estimated."""
    return [*_head(found), "", *_table(found), "", *_packing(found), *_cost(found), "", *_notes(found)]


def _head(found: Profile) -> list[str]:
    threads = found.slots.threads
    alone = f"{found.plan.spec.name}: one process on {found.device}, {threads} {plural('thread', threads)}, alone"
    seed = found.plan.spec.seed
    told = [
        alone,
        f"a method's row: its first configuration of `skeltune sample SPACE --seed {seed}`, at the mean of its stages",
    ]
    gpu = found.device != "cpu"
    told.append(f"memory: {'the peak of all tensors on the GPU' if gpu else 'what the process grew by at most'}")
    if any(row.which == DEAREST for row in found.rows):
        told.append("dearest: the same with every size that the space draws at its largest (batch, frames, ...)")
    return told


def _table(found: Profile) -> list[str]:
    parts = next(list(row.shares) for row in found.measured)
    head = ["method", "samples/s", "step", "memory", *(_SHORT.get(part, part) for part in parts)]
    head += ["epoch", "a rung: features", "probe"]
    table = [head]
    for row in found.rows:
        name = f"  {DEAREST}" if row.which == DEAREST else row.method
        table.append([name, row.failed] if row.failed else [name, *_cells(row)])
    # What failed is a sentence, not a column.
    widths = [max(len(cells[i]) for cells in table if len(cells) == len(head)) for i in range(len(head))]
    widths[0] = max(len(cells[0]) for cells in table)
    told = []
    for name, *cells in table:
        aligned = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=False)]
        told.append("  ".join([name.ljust(widths[0]), *(aligned if len(cells) > 1 else cells)]))
    return told


def _cells(row: Row) -> list[str]:
    time, rung = MethodTime.from_row(row.found), row.found["rung"]
    shares = [f"{100 * share:.0f} %" for share in row.shares.values()]
    memory = _bytes(row.found["memory"]["peak"])
    whole = {"features": rung["clips"] == rung["of"], "probe": rung["probed"] == rung["of"]}
    rungs = [("" if exact else "~") + _seconds(rung[name]) for name, exact in whole.items()]
    return [f"{row.rate:,.0f}", _seconds(row.step), memory, *shares, _seconds(time.epoch()), *rungs]


def _packing(found: Profile) -> list[str]:
    told = []
    for row in found.rows:
        if row.packing is not None:
            told.append(f"packing {row.method}: {row.packing.words}")
    wish, slots = found.plan.spec.budget.per_trial.gpu, found.slots
    side = f"{slots.count} {plural('trial', slots.count)} side by side"
    if found.packing is None:
        return [f"packing: none on the CPU, {side} on {slots.cpu:g} CPU {plural('core', int(slots.cpu))} each"]
    if wish == PACKED:
        return [*told, f"the search (gpu: auto) goes by the method that takes the most memory: {side}"]
    return [
        *told,
        f"the search has per_trial: {{gpu: {wish}}}, and so {side}; with gpu: auto it would put "
        f"{found.packing.trials_per_gpu} on a GPU",
    ]


def _cost(found: Profile) -> list[str]:
    """The arithmetic of the budget as `check` tells it, and between which bounds the hours lie."""
    spec, cost = found.plan.spec, found.cost
    told = budget_lines(spec, found.plan.space, cost.pace)
    if cost.search is None:
        return told
    what, each = ("GPU-hours", found.slots.gpu) if found.slots.gpu else ("CPU-hours", found.slots.cpu)
    line = f"{what} of the search: about {_hours(cost.search * each)}"
    if cost.least is not None and cost.most is not None and cost.most > 1.01 * cost.least:
        line += (
            f"; {_hours(cost.least * each)} to {_hours(cost.most * each)} if every trial were as the cheapest or the "
            "dearest row"
        )
    return [*told, line]


def _notes(found: Profile) -> list[str]:
    measured = {row.method for row in found.measured}
    rest = [name for name in found.plan.space.methods if name not in measured]
    told = []
    if found.other:
        told.append(f"this machine could not run the search as it is written: {found.other}")
    if rest:
        told.append(f"not measured, counted as the others' mean: {', '.join(rest)}")
    if any(row.found["rung"][n] < row.found["rung"]["of"] for row in found.measured for n in ("clips", "probed")):
        told.append("~ scaled up from some of the clips")
    subset = found.plan.spec.probe.subset
    if subset:
        first = {row.method: row for row in reversed(found.measured)}
        each = [f"{name} {_seconds(MethodTime.from_row(row.found).below)}" for name, row in reversed(first.items())]
        told.append(f"a rung below the top (probe.subset {subset}), features and probe: {', '.join(each)}")
    told.append("estimated: the methods share the trials, and of m trials at a rung m // eta go on, repeats included")
    told.append("not counted: trials that fail or end early (less); starting processes, waiting for data (more)")
    if not found.slots.gpu and found.slots.count > 1:
        told.append("side by side, trials share caches and memory: each may be slower than one alone")
    told.append("one process a trial: trials that train on several GPUs (data-parallel) are left out")
    return told


def to_json(found: Profile) -> dict[str, Any]:
    """The whole profile as plain values: seconds, bytes, shares of 1."""
    cost, slots = found.cost, found.slots
    return {
        "space": found.plan.spec.name,
        "seed": found.plan.spec.seed,
        "device": found.device,
        "threads": slots.threads,
        "methods": [_row_json(row) for row in found.rows],
        "packing": None if found.packing is None else found.packing.trials_per_gpu,
        "slots": {"count": slots.count, "cpu": slots.cpu, "gpu": slots.gpu},
        "search": {
            "trials": cost.trials,
            "epochs": cost.epochs,
            "seconds_per_epoch": dict(cost.pace.seconds),
            "slot_seconds": {"about": cost.search, "least": cost.least, "most": cost.most},
        },
        "data_parallel": "left out",
    }


def _row_json(row: Row) -> dict[str, Any]:
    told: dict[str, Any] = {"method": row.method, "which": row.which, "draws": dict(row.draws)}
    if row.failed:
        return {**told, "failed": row.failed}
    told |= {"samples_per_s": row.rate, "step_s": row.step, "shares": row.shares}
    told |= {"epoch_s": MethodTime.from_row(row.found).epoch(), **row.found}
    if row.packing is not None:
        told["packing"] = {"trials_per_gpu": row.packing.trials_per_gpu, "words": row.packing.words}
        told["rates"] = row.crowd.measured.rates if row.crowd is not None else None
    return told


def _seconds(seconds: float) -> str:
    """0.0042 as `4.2 ms`, 0.31 as `0.31 s`, from a minute and a half on in minutes."""
    if seconds < 0.1:
        return f"{1000 * seconds:.2g} ms" if seconds < 0.01 else f"{1000 * seconds:.0f} ms"
    return f"{seconds:.2g} s" if seconds < 10 else duration(seconds)


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.2g}" if seconds < 36_000 else f"{seconds / 3600:,.0f}"


def _bytes(count: float) -> str:
    return f"{count / _MIB:.0f} MiB" if count < 10 * _GIB else f"{count / _GIB:.1f} GiB"


__all__ = ["lines", "to_json"]
