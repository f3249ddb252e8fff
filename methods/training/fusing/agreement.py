"""Which runs can be trained as one batched model, and up to which epoch: a loss is traced once for all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from methods.fields import field_table
from methods.registry import get_method
from methods.training.run import Run

# Method -> those of its settings, beside its numbers, that only views are made by: every run makes its own.
_MIXING = [f"{what}_{end}" for what in ("parts", "joints", "segments") for end in ("least", "more")]
FUSES: dict[str, frozenset[str]] = {
    **dict.fromkeys(("skeletonclr", "skeletonbyol", "cmal", "aimclr", "skeletonbt", "cmcs", "crossclr"), frozenset()),
    **dict.fromkeys(("skelemixclr", "skelemixclr_plus"), frozenset(["joints", "mix_per_batch", *_MIXING])),
}
DOES_NOT = {
    "pstl": "how many joints it cuts out differs from step to step",
    "cmd": "its recurrent encoder has no batched rule",
    "crrl": "its recurrent encoder has no batched rule",
    "scdnet": "its encoder views tensors that are no longer in one piece",
}
READ_BY_HOST = frozenset(("momentum_schedule", "init_sync"))  # by the slow copies, each for itself
OPTIM = ("name", "batch", "nesterov")  # its numbers, schedule and order are the host's


def faults(runs: Sequence[Run]) -> list[str]:
    """Why ``runs`` cannot be fused as they stand, one line each; empty where they can."""
    if not runs:
        return ["there is no run to fuse"]
    if len({id(run) for run in runs}) < len(runs):
        return ["a run is named twice"]
    method = runs[0].config.method
    if any(run.config.method != method for run in runs):
        return [_differs("method", [run.config.method for run in runs])]
    if method not in FUSES:
        return [f"method '{method}' cannot be fused: {DOES_NOT.get(method, 'nobody has shown that it is equal')}"]
    found = [_differs(name, values) for name, values in _must_agree(runs) if any(v != values[0] for v in values)]
    return found or _bodies(runs)


def _differs(name: str, values: Sequence[Any]) -> str:
    return f"{name} differs between the runs: {', '.join(str(value) for value in values)}"


def _must_agree(runs: Sequence[Run]) -> Iterator[tuple[str, list[Any]]]:
    """Name -> each run's value, of everything that shapes the batched model or decides which way it goes."""
    configs = [run.config for run in runs]
    for name in ("epochs", "frames"):
        yield name, [getattr(config, name) for config in configs]
    yield "streams.use", [config.streams.use for config in configs]
    yield from ((f"optim.{name}", [getattr(config.optim, name) for config in configs]) for name in OPTIM)
    encoder = [f.name for f in dataclasses.fields(configs[0].encoder)]
    yield from ((f"encoder.{name}", [getattr(config.encoder, name) for config in configs]) for name in encoder)
    free = FUSES[configs[0].method] | READ_BY_HOST
    for name, info in field_table(type(configs[0].params)).items():
        if info.annotation != "float" and name not in free:
            yield name, [getattr(config.params, name) for config in configs]
    yield "the shape of the clips", [run.store.clips.data.shape[1:] for run in runs]
    yield "the number of steps an epoch", [run.steps_per_epoch for run in runs]
    yield "the epoch reached", [run.epoch for run in runs]
    yield "the step reached", [run.step for run in runs]
    yield "the device", [run.device for run in runs]
    yield "the type of the weights", [next(run.model.parameters()).dtype for run in runs]


def _bodies(runs: Sequence[Run]) -> list[str]:
    """``bodies: real`` needs as many bodies in every batch, and the same rows with as many in every run."""
    first = runs[0]
    if getattr(first.config.encoder, "bodies", "all") != "real" or first.store.clips.data.shape[4] == 1:
        return []
    if any(run.strata is None for run in runs):
        return ["encoder.bodies: real can be fused with optim.order: stratified only: a shuffled batch has any number"]
    if any(branch.mixes_bodies for branch in first.model.branches.values()):
        return [f"encoder.bodies: real cannot be fused where clips are mixed, as {first.config.method} does"]
    batch = first.config.optim.batch
    rows = [run.strata.bodies_of_rows(batch) for run in runs if run.strata is not None]
    if any(not torch.equal(each, rows[0]) for each in rows):
        return ["the runs' clips have different shares of two-person clips, so that their batches differ in bodies"]
    return []


def differing_numbers(runs: Sequence[Run]) -> dict[str, list[float]]:
    """Setting -> each run's value, of the method's numbers that differ and that a loss reads as numbers."""
    params = [run.config.params for run in runs]
    numbers = [name for name, info in field_table(type(params[0])).items() if info.annotation == "float"]
    values = {name: [float(getattr(p, name)) for p in params] for name in numbers}
    switches = _switches(runs)
    return {name: each for name, each in values.items() if name not in switches and any(v != each[0] for v in each)}


def _switches(runs: Sequence[Run]) -> list[str]:
    """The method's numbers that differ between the runs and decide when a stage begins."""
    stages = get_method(runs[0].config.method).cls.stages
    params, found = [run.config.params for run in runs], []
    for name, info in field_table(type(params[0])).items():
        if info.annotation == "float":
            swapped = [dataclasses.replace(params[0], **{name: getattr(p, name)}) for p in params]
            if any(stages(each) != stages(params[0]) for each in swapped):
                found.append(name)
    return found


def together_until(runs: Sequence[Run]) -> int:
    """The last epoch that ``runs``, which agree otherwise, can end together: none is in another stage before it ends.

    A setting that decides when a stage begins (``mining_start``, ``cross_start``) may differ: until then the runs take
    the same way.
    """
    stages = get_method(runs[0].config.method).cls.stages
    plans = [stages(run.config.params) for run in runs]
    first = runs[0]
    if any(plan != plans[0] for plan in plans):
        for step in range(first.step, first.total_steps):
            now = {[s.name for s in plan if s.start <= step / first.total_steps][-1] for plan in plans}
            if len(now) > 1:
                return step // first.steps_per_epoch
    return first.config.epochs


def parting(runs: Sequence[Run]) -> str:
    """What an ``InputError`` says of runs that do not stay together."""
    until = together_until(runs)
    named = "; ".join(_differs(name, [getattr(run.config.params, name) for run in runs]) for name in _switches(runs))
    return f"{named}: the runs are in different stages after epoch {until}, so train them together until then only"
