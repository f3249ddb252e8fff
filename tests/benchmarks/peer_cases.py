"""A peer held against the official code's numbers: load a recorded state, take its steps in float64, compare."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.peer.base import Peer, train_step

ROOT = Path(os.environ.get("SKELTUNE_REFERENCE", "../shared/reference"))
Naming = Callable[[str], str | None]  # official name -> the peer's; None for an entry that the peer does not have

# (relative, absolute). A bias before a batch norm has the gradient 0, of which the official code recorded its rounding.
LOSS, GRADIENT, NORM, STATE, SECOND = (1e-8, 1e-11), (1e-7, 1e-10), (1e-7, 1e-9), (1e-8, 1e-11), (1e-7, 1e-10)


def cases(method: str) -> list[Path]:
    """The files of a method, of other seeds too; empty where there are none."""
    found = sorted(ROOT.glob("*.npz")) if ROOT.is_dir() else []
    return [path for path in found if path.stem == method or re.fullmatch(rf"{method}_(?!plus).*", path.stem)]


class Case:
    """What the official code did: configuration, state, inputs, and what came of them."""

    def __init__(self, path: Path) -> None:
        with np.load(path, allow_pickle=False) as archive:
            self.numbers = {key: archive[key] for key in archive.files}

    def config(self, name: str) -> Any:
        return self.numbers[f"config/{name}"].item()

    def tensor(self, key: str) -> Tensor:
        """An entry as it lies there, real numbers as float64."""
        value = torch.as_tensor(self.numbers[key])
        return value.double() if value.is_floating_point() else value

    def under(self, prefix: str) -> dict[str, Tensor]:
        """Official name -> tensor of the entries ``prefix<name>``."""
        return {key.removeprefix(prefix): self.tensor(key) for key in self.numbers if key.startswith(prefix)}


def stgcn_name(name: str) -> str:
    """What ``benchmarks.peer.stgcn.STGCN`` calls an entry of the official ST-GCN; other names come back as they are."""
    if name == "A":
        return "graph"
    name = re.sub(r"^st_gcn_networks\.(\d+)\.(gcn)\.conv\.", r"blocks.\1.\2.", name)
    name = re.sub(r"^st_gcn_networks\.", "blocks.", name)
    return re.sub(r"^edge_importance\.", "importance.", name)


def load(peer: Peer, case: Case, naming: Naming, prefix: str = "state/") -> Peer:
    """``peer`` in float64 with a recorded state; raises unless that fills it wholly and nothing named is left over."""
    named = {naming(name): value for name, value in case.under(prefix).items()}
    peer.double().load_state_dict({name: value for name, value in named.items() if name is not None})
    return peer


def one_step(
    peer: Peer, solver: torch.optim.Optimizer, case: Case, naming: Naming, batch: tuple[Tensor, ...],
    prefix: str = "", progress: float = 0.0,
) -> list[str]:  # fmt: skip
    """A whole iteration in training mode: what of loss, gradients and state is not as recorded under ``prefix``."""
    peer.train()
    found: dict[str, tuple[Tensor, tuple[float, float]]] = {}
    loss = train_step(peer, solver, batch, progress)
    found[f"{prefix}out/loss"] = torch.tensor(loss, dtype=torch.float64), LOSS
    parameters, state = dict(peer.named_parameters()), peer.state_dict()

    def gradient(name: str) -> Tensor:
        parameter = parameters[str(naming(name))]
        return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad

    for name in case.under(f"{prefix}grad/"):
        found[f"{prefix}grad/{name}"] = gradient(name), GRADIENT
    for name in case.under(f"{prefix}after/"):
        if naming(name) is not None:
            found[f"{prefix}after/{name}"] = state[str(naming(name))], STATE
    names = case.numbers.get(f"{prefix}gradnorm/names", np.zeros(0, dtype=str)).tolist()
    if names:
        found[f"{prefix}gradnorm/values"] = torch.stack([gradient(name).norm() for name in names]), NORM
    names = case.numbers.get(f"{prefix}afternorm/names", np.zeros(0, dtype=str)).tolist()
    theirs = case.numbers.get(f"{prefix}afternorm/values", np.zeros(0))
    here = [i for i, name in enumerate(names) if naming(name) is not None]
    if here:
        ours = torch.stack([state[str(naming(names[i]))].double().norm() for i in here])
        return [*differences(case, found), *_apart(f"{prefix}afternorm", ours, theirs[here], STATE)]
    return differences(case, found)


def second_loss(
    peer: Peer, solver: torch.optim.Optimizer, case: Case, batch: tuple[Tensor, ...], prefix: str = "",
    progress: float = 0.0,
) -> list[str]:  # fmt: skip
    """The same for the loss of one more iteration."""
    loss = torch.tensor(train_step(peer, solver, batch, progress), dtype=torch.float64)
    return differences(case, {f"{prefix}step2/loss": (loss, SECOND)})


def differences(case: Case, found: dict[str, tuple[Tensor, tuple[float, float]]]) -> list[str]:
    """One line for each key whose value is further from the recorded one than (relative, absolute) allows."""
    return [line for key, (ours, limits) in found.items() for line in _apart(key, ours, case.numbers[key], limits)]


def _apart(key: str, ours: Tensor, theirs: Any, limits: tuple[float, float]) -> list[str]:
    value = ours.detach().cpu().numpy()
    if value.shape != theirs.shape:
        return [f"{key}: shape {value.shape}, theirs {theirs.shape}"]
    if np.allclose(value, theirs, rtol=limits[0], atol=limits[1]):
        return []
    return [f"{key}: off by {float(np.abs(value.astype(float) - theirs).max()):.3g}"]
