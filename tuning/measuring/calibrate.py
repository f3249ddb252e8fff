"""The packing of a search with ``per_trial: {gpu: auto}``: measured once, at its start, and kept in its journal."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import ray

from methods.errors import InputError
from tuning.config.schema import PACKED
from tuning.engine.journal import Journal
from tuning.engine.objectives import SLOTS
from tuning.engine.state import JournalState
from tuning.measuring.candidates import dearest, first_drawn
from tuning.measuring.crew import MeasuringFailed
from tuning.measuring.crowd import WITHIN_S, Found, Order, opening_of, wanted
from tuning.measuring.packing import Measured, Packing, choose_packing, packing_of
from tuning.slots import find_slots, fitting
from tuning.words import duration

if TYPE_CHECKING:
    from tuning.ground import Ground
    from tuning.plan import Plan

PACKING = "packing"  # the journal's fact
START_S = 120.0  # until a process of ours runs on the GPU's node, beside the measuring itself
_KINDS = "accelerator_type:"

Measure = Callable[[Order], Found]


def packed(
    ground: Ground,
    plan: Plan,
    journal: Journal,
    say: Callable[[str], None],
    measure: Measure | None = None,
) -> Ground:
    """``ground`` with as many trials on a GPU as were found worth it; as it is without `gpu: auto`, or without a GPU.

    A search that goes on keeps its packing. ``measure``: by default a task on the cluster. Where it fails, for whatever
    reason, it is one trial a GPU, and that is said.
    """
    if plan.spec.budget.per_trial.gpu != PACKED or not ground.slots.gpu:
        return ground
    chosen = recorded(journal.state)
    if chosen is None:
        chosen, found = _calibrated(ground, plan, say, measure or on_the_cluster)
        journal.fact(PACKING, {**dataclasses.asdict(chosen), "measured": found})
    say(f"packing: {chosen.words}")
    slots = find_slots(plan.spec.budget, ground.view.resources, chosen.gpu)
    return dataclasses.replace(ground, slots=slots, fits=lambda cluster: fitting(slots, cluster))


def recorded(state: JournalState) -> Packing | None:
    """The packing that a search began with; of one that is older than packings, what its trials hold."""
    fact = state.facts.get(PACKING)
    if fact is not None:
        return Packing(int(fact["trials_per_gpu"]), float(fact["gpu"]), f"{fact['words']} (as this search began)")
    gpu = float(state.facts.get(SLOTS, {}).get("gpu", 0.0))
    if gpu <= 0:
        return None
    trials = max(1, math.floor(1 / gpu + 1e-9))
    return Packing(trials, gpu, f"{gpu:g} GPU a trial (as this search began)")


def _calibrated(
    ground: Ground, plan: Plan, say: Callable[[str], None], measure: Measure
) -> tuple[Packing, dict[str, Any] | None]:
    """The packing, and what it was chosen by as plain values."""
    if ground.view.now.get("GPU", 0.0) < 1:
        return packing_of(1, "one trial a GPU: no GPU has joined yet that could be measured"), None
    try:
        order = order_of(ground, plan)
        say(f"packing: measuring how many trials a GPU is worth sharing among, at most about {duration(WITHIN_S)}")
        found = measure(order)
    except (MeasuringFailed, InputError) as error:
        return packing_of(1, f"one trial a GPU: the calibration failed ({error})"), None
    chosen = choose_packing(found.measured, order.wanted)
    weighed = f"{found.weighed} of {found.of} methods were weighed in time; " if found.weighed < found.of else ""
    words = f"{chosen.words} ({weighed}measured on {found.device} with {found.method}{_other_kinds(ground.view.now)})"
    return dataclasses.replace(chosen, words=words), dataclasses.asdict(found)


def _other_kinds(resources: Mapping[str, float]) -> str:
    kinds = sorted(name.removeprefix(_KINDS) for name in resources if name.startswith(_KINDS))
    return f"; the cluster has GPUs of several kinds: {', '.join(kinds)}" if len(kinds) > 1 else ""


def order_of(ground: Ground, plan: Plan) -> Order:
    """What is to be measured for ``plan`` on the cluster. Raises ``MeasuringFailed`` where no method can be drawn."""
    first = first_drawn(plan.space, plan.spec.seed)
    if not first:
        raise MeasuringFailed("no configuration could be drawn")
    configs = {method: dearest(plan.space, one).config.to_dict() for method, one in first.items()}
    return Order(
        opening_of(plan, "cuda", ground.slots.threads),
        configs,
        cores=cores_per_gpu(ray.nodes()),
        cpu=ground.slots.cpu,
        wanted=wanted(plan.spec.budget, ground.view.resources.get("GPU", 1.0)),
    )


def cores_per_gpu(nodes: list[Mapping[str, Any]]) -> float:
    """CPU cores that come with a GPU, on the machine that has the fewest; 0 where no machine has a GPU."""
    has = [node.get("Resources", {}) for node in nodes if node.get("Alive")]
    return min((one.get("CPU", 0.0) / one["GPU"] for one in has if one.get("GPU", 0.0) >= 1), default=0.0)


def on_the_cluster(order: Order) -> Found:
    """:func:`tuning.measuring.crowd.measure` in a task that holds a GPU. Raises ``MeasuringFailed``."""

    @ray.remote(num_gpus=1, num_cpus=order.cpu, max_retries=0)
    def there(order: Order) -> dict[str, Any]:
        from tuning.measuring.crowd import measured_plainly

        return measured_plainly(order)

    answer = there.remote(order)
    limit = START_S + order.within_s
    ready, _ = ray.wait([answer], timeout=limit)
    if not ready:
        with contextlib.suppress(Exception):  # whatever Ray has against it: nobody waits for this task any longer
            ray.cancel(answer, force=True)
        raise MeasuringFailed(f"no answer within {duration(limit)}")
    try:
        plain: dict[str, Any] = ray.get(answer)
    except Exception as error:  # whatever Ray raises: the task could not run, or its process died
        lines = str(error).strip().splitlines()
        raise MeasuringFailed(lines[-1][:200] if lines else type(error).__name__) from error
    if "failed" in plain:
        raise MeasuringFailed(plain["failed"])
    return Found(**{**plain, "measured": Measured.from_plain(plain["measured"])})
