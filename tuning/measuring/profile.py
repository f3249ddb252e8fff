"""`skeltune profile`: a few steps of every method of a space, each in a process of its own, and what a search costs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from methods.errors import InputError, WorkFailed
from tuning.config.schema import PACKED
from tuning.driver import this_machine
from tuning.measuring.candidates import Candidate, dearest, first_drawn
from tuning.measuring.cost import Estimate, MethodTime, estimate
from tuning.measuring.crew import Asked, MeasuringFailed, Worker, ask, closing_all
from tuning.measuring.crowd import Found, Order, measure, opening_of, wanted
from tuning.measuring.packing import Packing, choose_packing, packing_of
from tuning.plan import Plan, plan_search
from tuning.session import pick_device
from tuning.slots import Slots, find_slots

FIRST, DEAREST = "first drawn", "dearest"
PATIENCE_S = 1800.0  # for one configuration, beside the seconds asked for: a step on a CPU may take minutes


@dataclass(frozen=True)
class Wishes:
    """What the user says. ``methods``: these alone; none for all of the space."""

    steps: int = 5
    seconds: float = 10.0
    methods: tuple[str, ...] = ()
    device: str = "auto"


@dataclass(frozen=True)
class Row:
    """One configuration of one method, measured, or why not. ``packing``: on a GPU, of its dearest configuration."""

    method: str
    which: str
    draws: Mapping[str, Any]
    found: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    failed: str = ""
    packing: Packing | None = None
    crowd: Found | None = None

    @property
    def step(self) -> float:
        """Seconds of a step, on the average of a full run."""
        return _by_stage(self.found, lambda stage: float(stage["seconds"]))

    @property
    def rate(self) -> float:
        """Samples a second."""
        return float(self.found["batch"]) / self.step

    @property
    def shares(self) -> dict[str, float]:
        """Part of a step -> its share, on the average of a full run."""
        parts: list[str] = list(self.found["stages"][0]["parts"])
        return {part: _by_stage(self.found, _seconds_of(part)) / self.step for part in parts}


def _by_stage(found: Mapping[str, Any], value: Callable[[Mapping[str, Any]], float]) -> float:
    """The mean of ``value`` over the stages, each by its share of a run."""
    stages = found["stages"]
    ends = [*(stage["start"] for stage in stages[1:]), 1.0]
    return float(sum(value(stage) * (end - stage["start"]) for stage, end in zip(stages, ends, strict=True)))


def _seconds_of(part: str) -> Callable[[Mapping[str, Any]], float]:
    return lambda stage: float(stage["parts"][part])


@dataclass(frozen=True)
class Profile:
    """All that was measured. ``other``: why the search as written would not run on this machine.

    ``packing``: of the whole search on a GPU, that of the method that takes the most memory; ``crowded``: how much
    longer its steps take then.
    """

    plan: Plan
    device: str
    rows: tuple[Row, ...]
    slots: Slots
    other: str
    packing: Packing | None
    crowded: float
    cost: Estimate

    @property
    def measured(self) -> list[Row]:
        return [row for row in self.rows if not row.failed]


def profile(
    space_file: Path,
    wishes: Wishes,
    say: Callable[[str], None],
    make: Callable[[], Asked] = Worker,
) -> Profile:
    """Measure every method of a space, one after the other. ``say`` is told which one is at work.

    Raises ``InputError`` for a space, a dataset, a method or a device that is not there, ``WorkFailed`` where not one
    method could be measured.
    """
    plan, device = plan_search(space_file, Path("runs")), pick_device(wishes.device)
    methods = wishes.methods or plan.space.methods
    for name in methods:
        plan.space.branch(name)
    machine = this_machine() if device.type == "cuda" else {**this_machine(), "GPU": 0.0}
    slots, other = _slots(plan, machine)
    opening = opening_of(plan, str(device), slots.threads)
    first = first_drawn(plan.space, plan.spec.seed)
    rows: list[Row] = []
    for number, method in enumerate(dict.fromkeys(methods), 1):
        say(f"{method} ({number} of {len(set(methods))})")
        if method not in first:
            rows.append(Row(method, FIRST, {}, failed="no configuration of it could be drawn"))
            continue
        some = {FIRST: first[method], DEAREST: dearest(plan.space, first[method])}
        if some[DEAREST].config == some[FIRST].config:
            del some[DEAREST]
        rows += [_row(method, which, one, opening, wishes, make) for which, one in some.items()]
        if device.type == "cuda" and not rows[-1].failed:
            config = list(some.values())[-1].config.to_dict()
            cores, most = machine["CPU"] / max(1.0, machine["GPU"]), wanted(plan.spec.budget, machine["GPU"])
            order = Order(opening, {method: config}, cores, slots.cpu, most)
            rows[-1] = _packed(rows[-1], order, say, make)
    if not any(not row.failed for row in rows):
        raise WorkFailed("; ".join(f"{row.method}: {row.failed}" for row in rows))
    return _whole(plan, str(device), rows, slots, machine, other)


def _slots(plan: Plan, machine: Mapping[str, float]) -> tuple[Slots, str]:
    """What a trial takes of this machine; one that cannot be had here is measured as far as it goes, and why."""
    try:
        return find_slots(plan.spec.budget, machine), ""
    except InputError as error:
        cpu = min(float(plan.spec.budget.per_trial.cpu), machine["CPU"])
        return Slots(1, cpu, min(1.0, machine["GPU"])), "; ".join(error.faults)


def _row(
    method: str, which: str, one: Candidate, opening: dict[str, Any], wishes: Wishes, make: Callable[[], Asked]
) -> Row:
    """One configuration in one process."""
    worker = make()
    with closing_all([worker]):
        try:
            ask(worker, {"do": "open", **opening}, PATIENCE_S)
            wish = {"do": "profile", "config": one.config.to_dict(), "steps": wishes.steps, "seconds": wishes.seconds}
            return Row(method, which, one.draws, ask(worker, wish, PATIENCE_S + 10 * wishes.seconds))
        except (MeasuringFailed, InputError) as error:
            return Row(method, which, one.draws, failed=str(error))


def _packed(row: Row, order: Order, say: Callable[[str], None], make: Callable[[], Asked]) -> Row:
    try:
        found = measure(order, make, say)
    except (MeasuringFailed, InputError) as error:
        return dataclasses.replace(row, packing=packing_of(1, f"one trial a GPU: not measured ({error})"))
    return dataclasses.replace(row, packing=choose_packing(found.measured, order.wanted), crowd=found)


def _whole(
    plan: Plan, device: str, rows: Sequence[Row], slots: Slots, machine: Mapping[str, float], other: str
) -> Profile:
    """The rows, and what the search comes to."""
    heaviest = max(
        (row for row in rows if row.packing is not None),
        key=lambda row: row.crowd.measured.need if row.crowd is not None else math.inf,
        default=None,
    )
    packing, crowded = (heaviest.packing, _crowded(heaviest)) if heaviest is not None else (None, 1.0)
    if plan.spec.budget.per_trial.gpu != PACKED or packing is None or other:
        crowded = 1.0
    else:
        slots = find_slots(plan.spec.budget, machine, packing.gpu)
    times: dict[str, list[MethodTime]] = {}
    for row in rows:
        if not row.failed:
            times.setdefault(row.method, []).append(MethodTime.from_row(row.found))
    cost = estimate(plan.spec, plan.space, times, slots, crowded)
    return Profile(plan, device, tuple(rows), slots, other, packing, crowded, cost)


def _crowded(row: Row) -> float:
    """How much longer a step takes when as many as were chosen share the GPU."""
    if row.packing is None or row.crowd is None:
        return 1.0
    rates = dict(row.crowd.measured.rates)
    return row.packing.trials_per_gpu * rates[1] / rates[row.packing.trials_per_gpu]
