"""Several processes side by side on one GPU: how much memory one takes, and what more of them bring."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from methods.errors import InputError
from tuning.measuring import packing
from tuning.measuring.crew import Asked, MeasuringFailed, Worker, ask, closing_all
from tuning.measuring.packing import Measured

if TYPE_CHECKING:
    from tuning.config.schema import BudgetSpec
    from tuning.plan import Plan

WITHIN_S = 60.0  # all of it
TURN_S = 3.0  # seconds that every number of processes trains side by side
WEIGH_SHARE = 0.4  # of the time, for finding out which configuration takes the most memory


@dataclass(frozen=True)
class Order:
    """What is to be measured, in plain values that travel.

    ``opening``: what :meth:`tuning.measuring.worker.Bench.open` takes. ``configs``: method -> a configuration as a
    dict, the dearest of that method. ``cores``: CPU cores that come with the GPU; ``cpu``: those that a trial holds.
    ``wanted``: no more trials than these would be at work on one GPU.
    """

    opening: dict[str, Any]
    configs: dict[str, dict[str, Any]]
    cores: float
    cpu: float
    wanted: int | None = None
    within_s: float = WITHIN_S


def opening_of(plan: Plan, device: str, threads: int) -> dict[str, Any]:
    """What a process has to know to work as the trials of ``plan`` do."""
    source, probe = asdict(plan.source), asdict(plan.probe)
    return {"source": source, "probe": probe, "device": device, "threads": threads, "seed": plan.spec.seed}


def wanted(budget: BudgetSpec, gpus: float) -> int | None:
    """How many trials would ever be at work on one of ``gpus``; None where the budget does not say."""
    return math.ceil(budget.parallel / max(1.0, gpus)) if isinstance(budget.parallel, int) else None


@dataclass(frozen=True)
class Found:
    """``method``: whose configuration took the most memory; ``weighed``: how many of them were looked at."""

    measured: Measured
    device: str
    method: str
    weighed: int
    of: int


class Clock:
    """What is left of a time."""

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self._now, self._end, self._begun = now, now() + seconds, now()

    @property
    def left(self) -> float:
        """Seconds; never less than the one that an answer may take which is just coming."""
        return max(1.0, self._end - self._now())

    @property
    def spent(self) -> float:
        return self._now() - self._begun


def measure(
    order: Order,
    make: Callable[[], Asked] = Worker,
    say: Callable[[str], None] = lambda line: None,
    now: Callable[[], float] = time.monotonic,
) -> Found:
    """Find what takes the most memory, then how many of it are worth having side by side. Call it where the GPU is.

    Raises :class:`MeasuringFailed` where not even one process could be measured, ``InputError`` as trials would.
    """
    clock, crew = Clock(order.within_s, now), [make()]
    with closing_all(crew):
        device = str(ask(crew[0], {"do": "open", **order.opening}, clock.left)["device"])
        method, memory, weighed = _heaviest(order, crew[0], clock)
        bare = Measured(
            memory["total"], memory["available"], memory["need"], order.cores, order.cpu, ((1, _turn(crew, clock)),)
        )
        rates, stopped = list(bare.rates), ""
        for count in packing.levels(packing.most(bare, order.wanted))[1:]:
            begun = clock.spent
            say(f"{method}: {count} side by side")
            try:
                _grow(crew, count, make, order, method, clock)
                rates.append((count, _turn(crew, clock)))
            except (MeasuringFailed, InputError) as error:
                stopped = f"{count} side by side failed: {error}"
                break
            if not packing.grew(rates[-2][1], rates[-1][1]):
                break
            if clock.left < 2 * (clock.spent - begun):
                stopped = f"more than {count} were not tried within {order.within_s:.0f} s"
                break
        measured = Measured(**{**asdict(bare), "rates": tuple(rates), "stopped": stopped})
    return Found(measured, device, method, weighed, len(order.configs))


def _heaviest(order: Order, worker: Asked, clock: Clock) -> tuple[str, Mapping[str, float], int]:
    """The method whose configuration takes the most memory, that memory, and how many were looked at in time.

    It is held at the end. Raises :class:`MeasuringFailed` for one that does not even fit alone.
    """
    found: dict[str, Mapping[str, float]] = {}
    until = clock.spent + WEIGH_SHARE * clock.left
    for method, config in order.configs.items():
        if found and clock.spent > until:
            break
        try:
            found[method] = _held(worker, config, clock)
        except MeasuringFailed as error:
            raise MeasuringFailed(f"{method}: {error}", error.memory) from error
    heaviest = max(found, key=lambda name: found[name]["need"])
    if heaviest != list(found)[-1]:
        found[heaviest] = _held(worker, order.configs[heaviest], clock)
    return heaviest, found[heaviest], len(found)


def _held(worker: Asked, config: Mapping[str, Any], clock: Clock) -> Mapping[str, float]:
    memory: Mapping[str, float] = ask(worker, {"do": "hold", "config": config}, clock.left)["memory"]
    return memory


def _grow(crew: list[Asked], count: int, make: Callable[[], Asked], order: Order, method: str, clock: Clock) -> None:
    """More processes, until there are ``count``, each with the configuration held; they start at the same time."""
    already = len(crew)
    while len(crew) < count:
        crew.append(make())
    fresh = crew[already:]
    for what in ({"do": "open", **order.opening}, {"do": "hold", "config": order.configs[method]}):
        for worker in fresh:
            worker.tell(what)
        for worker in fresh:
            worker.hear(clock.left)


def _turn(crew: Sequence[Asked], clock: Clock) -> float:
    """Samples a second of all of them, who train at the same time."""
    for worker in crew:
        worker.tell({"do": "turn", "seconds": TURN_S})
    heard = [worker.hear(max(clock.left, 3 * TURN_S)) for worker in crew]
    return float(sum(answer["samples"] / answer["seconds"] for answer in heard))


def measured_plainly(order: Order) -> dict[str, Any]:
    """:func:`measure` for a task far away: plain values, and what went wrong in a sentence."""
    try:
        return asdict(measure(order))
    except (MeasuringFailed, InputError) as error:
        return {"failed": str(error)}
