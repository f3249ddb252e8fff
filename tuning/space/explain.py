"""What a search space means, in plain lines: every parameter, every branch, the ladder, and what to be wary of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from methods.errors import InputError
from tuning.config.schema import SearchSpec
from tuning.space.cautions import plural, schedule_warnings
from tuning.space.domains import Domain, Fixed, number_text, value_text
from tuning.space.space import Branch, Slot, Space
from tuning.space.stages import probed_notes, stage_notes, stages_at_rungs, stages_of

FEWEST_STEPS = 200  # before the first rung: below, a score says more of the start than of the configuration


@dataclass(frozen=True)
class Facts:
    """What only the data and the machine can tell: pretraining clips, and seconds an epoch of each method."""

    n_train: int | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)


def explain(spec: SearchSpec, space: Space, facts: Facts | None = None) -> list[str]:
    """Lines for people: the table of parameters, free dimensions, the ladder, caveats and warnings."""
    facts = facts or Facts()
    lines = [
        f"{spec.name}: {len(space.branches)} {plural('method', len(space.branches))}, seed {spec.seed}, "
        f"data {spec.data.set}, space {spec.space_hash()[:12]}",
        "",
    ]
    lines += _table(space)
    lines.append("")
    for branch in space.branches:
        free = len(branch.draws)
        lines.append(
            f"{branch.method}: {free} free {plural('dimension', free)}; the rest as published, "
            f"T = {_span_text(branch, '', 'frames')}, {_size(branch)}"
        )
    lines += ["", *_ladder(spec, space, facts), *_probe(spec)]
    told = [note for branch in space.branches for note in probed_notes(branch)]
    notes = [*_caveats(space), *told, *warnings(spec, space, facts.n_train), *space.start_notes]
    return [*lines, "", *(f"note: {note}" for note in notes)] if notes else lines


def _size(branch: Branch) -> str:
    encoder = branch.base.encoder
    first = next(f.name for f in fields(encoder) if f.name != "name")  # which says its size, of every architecture
    return (
        f"encoder {encoder.name} {first} {_span_text(branch, 'encoder', first)}, "
        f"optimiser {_span_text(branch, 'optim', 'name')} lr {_span_text(branch, 'optim', 'lr')}, "
        f"batch {_span_text(branch, 'optim', 'batch')}"
    )


def _table(space: Space) -> list[str]:
    rows = [("parameter", "where", "drawn from", "published", "inside")]
    for slot, methods in _by_slot(space):
        published = {method: s.published for method, s in methods.items()}
        domains = {method: s.domain for method, s in methods.items()}
        where = "all methods" if len(methods) == len(space.branches) > 1 else ", ".join(methods)
        rows.append(
            (
                slot.label,
                where,
                slot.domain.describe(),
                _each(published, value_text),
                _each({m: _inside(domains[m], v) for m, v in published.items()}, str),
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _inside(domain: Domain, published: Any) -> str:
    if isinstance(domain, Fixed):
        return "as published" if domain.contains(published) else "fixed elsewhere"
    return "yes" if domain.contains(published) else "NO"


def _by_slot(space: Space) -> list[tuple[Slot, dict[str, Slot]]]:
    """Each parameter of the file once, with the methods that it reaches."""
    found: dict[str, tuple[Slot, dict[str, Slot]]] = {}
    for branch in space.branches:
        for slot in branch.slots:
            found.setdefault(slot.prefix, (slot, {}))[1][branch.method] = slot
    return list(found.values())


def _each(values: Mapping[str, Any], show: Callable[[Any], str]) -> str:
    """One text where all methods agree, else ``method: text`` of each."""
    shown = {method: show(value) for method, value in values.items()}
    if len(set(shown.values())) == 1:
        return next(iter(shown.values()))
    return ", ".join(f"{method}: {text}" for method, text in shown.items())


def _domain(branch: Branch, part: str, name: str) -> Domain:
    """What a parameter may be in a branch, written or not."""
    for slot in branch.slots:
        if (slot.part, slot.field) == (part, name):
            return slot.domain
    return Fixed(getattr(getattr(branch.base, part) if part else branch.base, name))


def _span(branch: Branch, part: str, name: str) -> tuple[Any, Any]:
    """The lowest and the highest value of a numeric parameter."""
    ends = _domain(branch, part, name).extremes()
    return min(ends), max(ends)


def _span_text(branch: Branch, part: str, name: str) -> str:
    ends = sorted(set(_domain(branch, part, name).extremes()))
    return value_text(ends[0]) if len(ends) == 1 else f"{value_text(ends[0])} to {value_text(ends[-1])}"


def _steps(n_train: int, batch: int) -> int:
    """Optimiser steps an epoch: whole batches only."""
    return max(1, n_train // batch)


def _ladder(spec: SearchSpec, space: Space, facts: Facts) -> list[str]:
    rungs = spec.schedule.rungs()
    lines = [f"ladder: probed after {', '.join(map(str, rungs))} epochs; {_climbing(spec, space)}"]
    for branch in space.branches:
        parts = []
        if facts.n_train is not None:
            most, fewest = (_steps(facts.n_train, b) for b in _span(branch, "optim", "batch"))
            parts.append("steps " + ", ".join(_range(fewest * r, most * r) for r in rungs))
        if branch.method in facts.seconds:
            parts.append(f"{facts.seconds[branch.method]:.1f} s an epoch")
        if len(stages_of(branch)) > 1:
            names = [" or ".join(found) for found in stages_at_rungs(branch, rungs)]
            parts.append("stages " + ", ".join(names))
        if parts:
            lines.append(f"  {branch.method}: {'; '.join(parts)}")
    return lines


def _probe(spec: SearchSpec) -> list[str]:
    """What a score is of, where it is not what everybody expects."""
    parts = []
    if spec.probe.subset and len(spec.schedule.rungs()) > 1:
        parts.append(
            f"below the top rung fitted on {spec.probe.subset:,} training clips, drawn by class and the same for every "
            "trial (with cv: of each fold's); the top rung on all; all held-out clips are scored at each"
        )
    if spec.probe.precision == "bf16":
        parts.append("features in bf16, after batch norm was settled in full precision")
    return [f"probe: {'; '.join(parts)}"] if parts else []


def _climbing(spec: SearchSpec, space: Space) -> str:
    """Who goes on at a rung, and what becomes of the others."""
    asha = spec.schedule.asha
    if len(spec.schedule.rungs()) == 1:
        return "every trial is a full run"
    others = "wait and may go on later" if asha.rule == "promote" else "end there"
    whose = " of each method" if asha.ladder == "per_method" and len(space.branches) > 1 else ""
    parts = [f"at each rung but the last about one in {asha.eta}{whose} goes on, the others {others}"]
    if asha.brackets > 1:
        parts.append(
            f"{min(asha.brackets, len(spec.schedule.rungs()))} brackets, each a rung later than the one before"
        )
    if asha.grow:
        parts.append("the highest rung in use rises only while the order of the best changes")
    return "; ".join(parts)


def _range(low: int, high: int) -> str:
    return f"{low:,}" if low == high else f"{low:,}-{high:,}"


def _caveats(space: Space) -> list[str]:
    """Sentences about what the results will and will not say."""
    from methods.registry import get_method

    notes = []
    batches = {m: _domain(space.branch(m), "optim", "batch") for m in space.methods}
    fixed = sorted({b.fixed for b in batches.values() if isinstance(b, Fixed)})
    if fixed:
        notes.append(f"the batch is fixed: conclusions hold for batch {' and '.join(map(str, fixed))}")
    for branch in space.branches:
        if (
            _domain(branch, "streams", "loss").extremes() == ("equal",)
            or get_method(branch.method).cls.shares_across_streams
        ):
            continue
        names = _domain(branch, "optim", "name").extremes()
        sgd = f"the learning rate of that stream's branch ({'under SGD' if 'adam' in names else 'SGD'})"
        says = [sgd] if "sgd" in names else []
        says += ["nothing under Adam"] if "adam" in names else []
        notes.append(
            f"{branch.method} shares nothing between streams, so a weight in streams.loss is {' and '.join(says)}; "
            "`loss: equal` saves those dimensions"
        )
    return notes


def warnings(spec: SearchSpec, space: Space, n_train: int | None) -> list[str]:
    """Sentences about ranges that this ladder and this much data cannot judge.

    ``n_train`` is the number of pretraining clips; without it only what needs no data is said. Raises ``InputError``
    where a batch is larger than the data.
    """
    notes = schedule_warnings(spec, len(space.branches))
    for branch in space.branches:
        notes += stage_notes(branch, spec.schedule.rungs())
    notes += [
        f"{branch.method}: the published {slot.label}, {value_text(slot.published)}, "
        f"lies outside {slot.domain.describe()}"
        for branch in space.branches
        for slot in branch.slots
        if slot.domain.draws("") and not slot.domain.contains(slot.published)
    ]
    if n_train is None:
        return notes
    _check_batches(space, n_train)
    for branch in space.branches:
        notes += _step_warnings(spec, branch, n_train)
        notes += _queue_warnings(branch, n_train)
    return notes


def _check_batches(space: Space, n_train: int) -> None:
    faults = []
    for branch in space.branches:
        largest = _span(branch, "optim", "batch")[1]
        if largest > n_train:
            faults.append(
                f"{branch.method}: optim.batch up to {largest}, but there are only {n_train} clips to "
                f"pretrain on; choose a batch of at most {n_train}"
            )
    if faults:
        raise InputError(*faults)


def _step_warnings(spec: SearchSpec, branch: Branch, n_train: int) -> list[str]:
    rungs = spec.schedule.rungs()
    an_epoch = _steps(n_train, _span(branch, "optim", "batch")[0])  # the smallest batch makes the most steps
    first, total = an_epoch * rungs[0], an_epoch * rungs[-1]
    notes = []
    if first < FEWEST_STEPS:
        notes.append(
            f"{branch.method}: the first rung comes after {first} steps; under {FEWEST_STEPS} it says little "
            f"(asha.min of {-(-FEWEST_STEPS // an_epoch)} would reach them)"
        )
    for name in _momenta(branch):
        low, high = _span(branch, "params", name)
        if total < _memory(low):
            notes.append(
                f"{branch.method}: even at {name} {number_text(low)} the slow copy remembers "
                f"{_memory(low):,.0f} steps, and a full run has {total:,}: it barely moves"
            )
        elif total < _memory(high):
            notes.append(
                f"{branch.method}: at {name} {number_text(high)} the slow copy remembers {_memory(high):,.0f} "
                f"steps, and a full run has {total:,}: that end of the range barely moves"
            )
        elif first < _memory(high):
            notes.append(
                f"{branch.method}: at {name} {number_text(high)} the slow copy remembers {_memory(high):,.0f} "
                f"steps, and the first rung comes after {first:,}: high values are judged early"
            )
    return notes


def _momenta(branch: Branch) -> Sequence[str]:
    """The fields that are rates of a slow copy: those whose suggested range is ``near_one``."""
    return [
        f.name
        for f in fields(branch.base.params)
        if f.metadata.get("range") is not None and f.metadata["range"].kind == "near_one"
    ]


def _memory(momentum: float) -> float:
    """1 / (1 - m) steps."""
    return 1 / (1 - momentum) if momentum < 1 else float("inf")


def _queue_warnings(branch: Branch, n_train: int) -> list[str]:
    if not hasattr(branch.base.params, "queue"):
        return []
    longest = _span(branch, "params", "queue")[1]
    if longest <= n_train:
        return []
    return [
        f"{branch.method}: a queue of {longest:,} is longer than the data ({n_train:,} clips), so a clip meets "
        "its own older copies among the negatives"
    ]
