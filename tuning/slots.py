"""How many trials run side by side, and on what: a space's wishes against what the cluster has."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from methods.errors import InputError
from tuning.config.schema import BudgetSpec


@dataclass(frozen=True)
class Slots:
    """``count`` trials at a time, each with ``cpu`` cores and ``gpu`` (a fraction of) GPUs; ``threads`` for torch."""

    count: int
    cpu: float
    gpu: float

    @property
    def threads(self) -> int:
        return max(1, int(self.cpu))

    @property
    def resources(self) -> dict[str, float]:
        return {"cpu": self.cpu, **({"gpu": self.gpu} if self.gpu else {})}


def find_slots(budget: BudgetSpec, cluster: Mapping[str, float]) -> Slots:
    """Slots for ``cluster`` (Ray's resource totals). ``gpu: auto`` is one GPU where there is one, else none.

    Raises ``InputError`` when not even one trial fits.
    """
    cpus, gpus = cluster.get("CPU", 0.0), cluster.get("GPU", 0.0)
    want = budget.per_trial.gpu
    gpu = (1.0 if gpus >= 1 else 0.0) if want == "auto" else float(want)
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
    fitting = math.floor(cpus / cpu + 1e-9)
    if gpu:
        # Fractions do not add up across GPUs: two trials of 0.6 need two of them.
        on_gpus = math.floor(1 / gpu + 1e-9) * math.floor(gpus) if gpu <= 1 else math.floor(gpus / gpu)
        fitting = min(fitting, on_gpus)
    count = fitting if budget.parallel == "auto" else int(budget.parallel)
    if count > fitting:
        raise InputError(f"budget.parallel is {count}, but only {fitting} trials fit on the cluster")
    return Slots(count, cpu, gpu)
