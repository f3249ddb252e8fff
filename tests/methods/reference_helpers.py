"""What the parity cases share: the numbers of the official codes, one official step, and a record of what passes by."""

from __future__ import annotations

import contextlib
import fnmatch
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from methods.official.places import Placing

ROOT = Path(os.environ.get("SKELTUNE_REFERENCE", "../shared/reference"))


class Reference:
    """The numbers of one case; every size, seed and length of a test comes from here."""

    def __init__(self, path: Path) -> None:
        with np.load(path, allow_pickle=False) as archive:
            self.numbers = {key: archive[key] for key in archive.files}

    def __getitem__(self, key: str) -> np.ndarray:
        return self.numbers[key]

    def __contains__(self, key: str) -> bool:
        return key in self.numbers

    def config(self, name: str) -> Any:
        """A scalar of the official configuration."""
        return self.numbers[f"config/{name}"].item()

    def tensor(self, key: str) -> Tensor:
        """An entry as it lies there, real numbers as float64."""
        value = torch.as_tensor(self.numbers[key])
        return value.double() if value.is_floating_point() else value

    def keys(self, pattern: str) -> list[str]:
        """All keys that a shell pattern fits, in the file's order."""
        return [key for key in self.numbers if fnmatch.fnmatchcase(key, pattern)]

    def under(self, prefix: str) -> dict[str, Tensor]:
        """Official name -> tensor of all entries ``prefix/<name>``."""
        start = prefix + "/"
        return {key.removeprefix(start): self.tensor(key) for key in self.numbers if key.startswith(start)}


def load_state(module: nn.Module, official: Mapping[str, Tensor], place: Placing) -> None:
    """Put an official state into ``module`` (float64); every parameter and buffer of it must be filled."""
    state = {}
    for name, value in official.items():
        where = place(name)
        if where is not None:
            state[where.name] = where.ours(value)
    module.load_state_dict(state)


@contextlib.contextmanager
def passing(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, list[Any]]]:
    """Record the outputs of some modules, call by call, detached."""
    seen: dict[str, list[Any]] = {name: [] for name in modules}
    handles = [
        module.register_forward_hook(lambda _m, _i, out, name=name: seen[name].append(_detached(out)))
        for name, module in modules.items()
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _detached(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    return tuple(_detached(v) for v in value) if isinstance(value, tuple | list) else value


def sgd(ref: Reference, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
    """The official optimiser of all cases but PSTL's."""
    return torch.optim.SGD(
        [p for p in parameters if p.requires_grad],
        lr=ref.config("lr"),
        momentum=ref.config("sgd_momentum"),
        weight_decay=ref.config("weight_decay"),
    )


def one_step(
    ref: Reference,
    module: nn.Module,
    place: Placing,
    optimiser: torch.optim.Optimizer,
    loss: Callable[[], Tensor],
    after_step: Callable[[], None] = lambda: None,
    prefix: str = "",
) -> dict[str, Tensor]:
    """One official training iteration: gradients and the state after it, under the official keys of ``prefix``.

    ``loss`` computes the scalar to descend (and may record whatever else the case wants to compare).
    """
    module.train()
    total = loss()
    optimiser.zero_grad()
    total.backward()
    parameters = dict(module.named_parameters())
    found: dict[str, Tensor] = {}

    def gradient(name: str) -> Tensor:
        where = place(name)
        assert where is not None, f"{name}: a trained parameter without a place"
        grad = parameters[where.name].grad
        return where.theirs(torch.zeros_like(parameters[where.name]) if grad is None else grad.clone())

    for key in ref.keys(f"{prefix}grad/*"):
        found[key] = gradient(key.removeprefix(f"{prefix}grad/"))
    if f"{prefix}gradnorm/names" in ref:
        names = ref[f"{prefix}gradnorm/names"].tolist()
        found[f"{prefix}gradnorm/values"] = torch.stack([gradient(name).norm() for name in names])
    optimiser.step()
    after_step()
    state = module.state_dict()

    def now(name: str) -> Tensor | None:
        where = place(name)
        return None if where is None else where.theirs(state[where.name])

    for key in ref.keys(f"{prefix}after/*"):
        value = now(key.removeprefix(f"{prefix}after/"))
        if value is not None:
            found[key] = value.clone()
    if f"{prefix}afternorm/names" in ref:
        found[f"{prefix}afternorm/values"] = _norms(ref, f"{prefix}afternorm", now)
    return found


def _norms(ref: Reference, prefix: str, now: Callable[[str], Tensor | None]) -> Tensor:
    """Norms of our state in the order of the official names; what has no place with us keeps the official norm."""
    values = []
    for name, official in zip(ref[f"{prefix}/names"].tolist(), ref[f"{prefix}/values"].tolist(), strict=True):
        value = now(name)
        values.append(torch.tensor(official, dtype=torch.float64) if value is None else value.double().norm())
    return torch.stack(values)
