"""How many trials share a GPU, from what was measured on it. Pure numbers; :mod:`tuning.measuring.crowd` measures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

GAIN = 0.10  # all together have to be so much faster than fewer of them, or the fewer stay
MARGIN = 0.10  # of a GPU's memory, kept free: the allocator's gaps, and configurations a little dearer than measured
MOST = 100  # trials that anybody puts on a GPU
_GIB = 2.0**30


@dataclass(frozen=True)
class Measured:
    """One GPU, and the configuration that takes the most memory of it.

    Bytes: ``total`` of the GPU, ``available`` of it to processes of ours, ``need`` of one process at its peak.
    ``cores``: CPU cores that come with the GPU; ``cpu``: those that a trial holds. ``rates``: (processes side by side,
    samples a second of all of them), ascending from one process. ``stopped``: why no more were tried, where that was
    neither memory, cores nor too small a gain.
    """

    total: float
    available: float
    need: float
    cores: float
    cpu: float
    rates: tuple[tuple[int, float], ...] = ()
    stopped: str = ""

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Measured:
        """What :func:`dataclasses.asdict` and JSON made of one."""
        rates = tuple((int(count), float(rate)) for count, rate in values["rates"])
        numbers = {name: float(values[name]) for name in ("total", "available", "need", "cores", "cpu")}
        return cls(**numbers, rates=rates, stopped=str(values.get("stopped", "")))


@dataclass(frozen=True)
class Packing:
    """``gpu``: the share of a GPU that a trial asks Ray for, so that ``trials_per_gpu`` of them fit. ``words``: why."""

    trials_per_gpu: int
    gpu: float
    words: str


def packing_of(trials: int, words: str) -> Packing:
    """``trials`` a GPU. Ray counts GPUs in ten-thousandths: a third is 0.3333, of which three fit."""
    return Packing(trials, 1.0 if trials == 1 else math.floor(10_000 / trials) / 10_000, words)


def most_by_memory(m: Measured) -> int:
    """Processes that fit into the GPU's memory beside the margin; at least one, which is always tried."""
    room = m.available - MARGIN * m.total
    return _whole(room / m.need) if m.need > 0 and math.isfinite(room) else 1


def most_by_cores(m: Measured) -> int:
    """Trials that the GPU's share of the CPU cores feeds; at least one."""
    return _whole(m.cores / m.cpu + 1e-9) if m.cpu > 0 and math.isfinite(m.cores) else 1


def _whole(fit: float) -> int:
    return math.floor(max(1.0, min(fit, float(MOST))))


def most(m: Measured, wanted: int | None = None) -> int:
    """The most trials worth trying on the GPU. ``wanted``: no more than these would ever be at work on it."""
    return min(most_by_memory(m), most_by_cores(m), max(1, wanted) if wanted is not None else MOST)


def levels(limit: int) -> tuple[int, ...]:
    """How many processes to try: 1, 2, 4, ... and ``limit`` itself."""
    found, count = [], 1
    while count < limit:
        found.append(count)
        count *= 2
    return (*found, max(1, limit))


def grew(before: float, now: float) -> bool:
    """Whether ``now`` samples a second are enough more than ``before`` to be worth more trials on the GPU."""
    return math.isfinite(now) and math.isfinite(before) and before > 0 and now / before >= 1 + GAIN - 1e-9


def choose_packing(m: Measured, wanted: int | None = None) -> Packing:
    """The largest number of trials at which each step up from one was worth it (:func:`grew`), and that fits.

    ``wanted``: how many trials a GPU would ever be given (``budget.parallel``). Without rates it is one trial a GPU.
    """
    if not m.rates or m.rates[0][0] != 1:
        return packing_of(1, "one trial a GPU: its speed alone was not measured")
    limit, best, rate, why = most(m, wanted), 1, m.rates[0][1], ""
    for count, now in m.rates[1:]:
        if count <= best or count > limit:
            continue
        if not grew(rate, now):
            why = f"{count} side by side {_too_little(rate, now)}"
            break
        best, rate = count, now
    why = why or (_limit(m, limit, wanted) if best >= limit else m.stopped or "more were not tried")
    alone = m.rates[0][1]
    many = f"{best} trials a GPU ({rate:,.0f} samples/s together, {alone:,.0f} alone)"
    return packing_of(best, f"{many if best > 1 else 'one trial a GPU'}: {why}")


def _too_little(before: float, now: float) -> str:
    if not (math.isfinite(before) and math.isfinite(now) and before > 0):
        return "bring nothing that could be measured"
    more = 100 * (now / before - 1)
    return f"bring {more:.1f} % more, below {100 * GAIN:.0f} %" if more >= 0 else f"are {-more:.1f} % slower together"


def _limit(m: Measured, limit: int, wanted: int | None) -> str:
    """What ``limit`` comes from, the tightest first."""
    if wanted is not None and limit == max(1, wanted):
        return "no more are at work at once"
    if limit == most_by_memory(m):
        free = f"{100 * MARGIN:.0f} % of the GPU's memory stays free"
        return f"one takes {m.need / _GIB:.1f} of {m.available / _GIB:.1f} GiB, and {free}"
    return f"CPU cores a GPU: {m.cores:g}, of which a trial holds {m.cpu:g}"
