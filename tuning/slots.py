"""How many trials run side by side, and on what: a space's wishes against what the cluster has."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from methods.errors import InputError
from tuning.config.schema import ONE, PACKED, BudgetSpec

_AMOUNT = re.compile(r"\d{1,9}(\.\d{1,6})?", re.ASCII)


@dataclass(frozen=True)
class Slots:
    """``count`` trials at a time, each with ``cpu`` cores and ``gpu`` (a fraction of) GPUs; ``threads`` for torch."""

    count: int
    cpu: float
    gpu: float

    @property
    def threads(self) -> int:
        return max(1, int(self.cpu))


def read_expected(text: str) -> dict[str, float]:
    """`CPU=64,GPU=8` as Ray's resource totals. Raises ``InputError`` for anything else."""
    found: dict[str, float] = {}
    for part in filter(None, text.split(",")):
        name, _, amount = part.strip().partition("=")
        if name not in ("CPU", "GPU") or not _AMOUNT.fullmatch(amount) or name in found:
            raise InputError(f"--expect takes CPU=64,GPU=8 or one of them, got '{text}'")
        found[name] = float(amount)
    return found


def find_slots(budget: BudgetSpec, cluster: Mapping[str, float], packed: float = 1.0) -> Slots:
    """Slots for ``cluster`` (Ray's resource totals). ``gpu: one`` is a GPU where there is one, else none.

    ``packed``: the share of a GPU that ``gpu: auto`` stands for where there is one, as a calibration found it
    (:mod:`tuning.measuring`). How many fit on the GPUs is not the user's to know there, so ``parallel`` is a bound.
    Raises ``InputError`` when not even one trial fits.
    """
    cpus, gpus = cluster.get("CPU", 0.0), cluster.get("GPU", 0.0)
    want = budget.per_trial.gpu
    words = {ONE: 1.0, PACKED: packed}
    gpu = (words[want] if gpus >= 1 else 0.0) if isinstance(want, str) else float(want)
    cpu = float(budget.per_trial.cpu)
    faults = []
    if cpu > cpus:
        faults.append(f"budget.per_trial.cpu is {cpu:g}, but the cluster has {cpus:g} CPUs")
    if gpu > gpus:
        faults.append(f"budget.per_trial.gpu is {gpu:g}, but the cluster has {gpus:g} GPUs")
    if gpu > 1 and not gpu.is_integer():
        faults.append(f"budget.per_trial.gpu must be at most 1 or a whole number, got {gpu:g}")
    if faults:
        raise InputError(*faults)
    most = fitting(Slots(0, cpu, gpu), cluster)
    count = most if budget.parallel == "auto" else int(budget.parallel)
    known = fitting(Slots(0, cpu, 0.0), cluster) if want == PACKED else most
    if count > known:
        raise InputError(
            f"budget.parallel is {count}, but only {known} trials fit on the cluster; if it grows, say what it grows "
            "to: --expect CPU=64,GPU=8"
        )
    return Slots(min(count, most), cpu, gpu)


def fitting(slots: Slots, cluster: Mapping[str, float]) -> int:
    """How many trials of such size fit on ``cluster`` (Ray's resource totals), however many are wanted."""
    many = math.floor(cluster.get("CPU", 0.0) / slots.cpu + 1e-9)
    if not slots.gpu:
        return many
    gpus, gpu = cluster.get("GPU", 0.0), slots.gpu
    # Fractions do not add up across GPUs: two trials of 0.6 need two of them.
    on_gpus = math.floor(1 / gpu + 1e-9) * math.floor(gpus) if gpu <= 1 else math.floor(gpus / gpu)
    return min(many, on_gpus)
