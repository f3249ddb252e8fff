"""SGD and Adam over stacked weights (R, ...), each of the R rows with the rate and the decay of its own run.

The rules are those of ``torch.optim`` as :func:`methods.training.optim.make_optimiser` sets it up. State is read from
the runs' own optimisers and written back to them, so that any of them goes on alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from methods.training.fusing.rows import broadcast
from methods.training.run import Run


@dataclass(frozen=True)
class Row:
    """One row of the stack: the run that it belongs to, and that run's own tensors by the names of the stack."""

    run: Run
    parameters: Mapping[str, nn.Parameter]
    buffers: Mapping[str, Tensor]


class Solver:
    """The optimisers of all rows: ``names`` and ``weights`` (R, ...) of what is trained."""

    keys: tuple[str, ...]  # what torch.optim calls the state of one weight

    def __init__(self, rows: Sequence[Row], weights: Mapping[str, Tensor]) -> None:
        self.rows = rows
        self.names, self.weights = list(weights), list(weights.values())
        self.decay = self._each(lambda group: group["weight_decay"])
        self.state = {key: [self._read(key, name) for name in self.names] for key in self.keys}

    def _each(self, read: Callable[[dict[str, Any]], float]) -> Tensor:
        """(R,) a setting of each row's optimiser, which has one group."""
        values = [float(read(row.run.optimiser.param_groups[0])) for row in self.rows]
        return torch.tensor(values, dtype=self.weights[0].dtype, device=self.weights[0].device)

    def _read(self, key: str, name: str) -> Tensor:
        """(R, ...) of a state; zero where there is none yet, from which the rules below start as torch's do."""
        own = [row.parameters[name] for row in self.rows]
        held = [row.run.optimiser.state.get(p, {}).get(key) for row, p in zip(self.rows, own, strict=True)]
        return torch.stack([torch.zeros_like(p) if h is None else h for h, p in zip(held, own, strict=True)]).detach()

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], rates: Tensor) -> None:
        """Move the weights by ``gradients`` (R, ...), in their order, with ``rates`` (R,)."""
        decay = broadcast(self.decay, self.weights)
        self._move(torch._foreach_addcmul(list(gradients), self.weights, decay), rates)

    def _move(self, gradients: Sequence[Tensor], rates: Tensor) -> None:
        raise NotImplementedError

    @torch.no_grad()
    def write_back(self) -> None:
        """Give every run's optimiser its row of the state."""
        for k, row in enumerate(self.rows):
            group = row.run.optimiser.param_groups[0]
            if not self._has_state(group):
                continue
            for i, name in enumerate(self.names):
                held = row.run.optimiser.state[row.parameters[name]]
                for key, states in self.state.items():
                    if held.get(key) is None:
                        held[key] = states[i][k].clone()
                    else:
                        held[key].copy_(states[i][k])  # in its place: a recorded step may read it there
                self._count(held, group, row)

    def _has_state(self, group: Mapping[str, Any]) -> bool:
        return True

    def _count(self, held: dict[str, Any], group: Mapping[str, Any], row: Row) -> None:
        """Write what is not a tensor of the stack."""


class StackedSGD(Solver):
    """v <- m v + g + d w; w <- w - r v, or with Nesterov's form w <- w - r (g + d w + m v)."""

    keys = ("momentum_buffer",)

    def __init__(self, rows: Sequence[Row], weights: Mapping[str, Tensor]) -> None:
        super().__init__(rows, weights)
        self.momentum = self._each(lambda group: group["momentum"])
        self.nesterov = bool(rows[0].run.optimiser.param_groups[0]["nesterov"])

    def _move(self, gradients: Sequence[Tensor], rates: Tensor) -> None:
        velocity, momentum = self.state["momentum_buffer"], broadcast(self.momentum, self.weights)
        torch._foreach_mul_(velocity, momentum)
        torch._foreach_add_(velocity, list(gradients))
        way = torch._foreach_addcmul(list(gradients), velocity, momentum) if self.nesterov else velocity
        torch._foreach_addcmul_(self.weights, way, broadcast(-rates, self.weights))

    def _has_state(self, group: Mapping[str, Any]) -> bool:
        return bool(group["momentum"])  # as torch has it


class StackedAdam(Solver):
    """Kingma and Ba, arXiv:1412.6980, algorithm 1, with decay in the gradient."""

    keys = ("exp_avg", "exp_avg_sq")

    def __init__(self, rows: Sequence[Row], weights: Mapping[str, Tensor]) -> None:
        super().__init__(rows, weights)
        group = rows[0].run.optimiser.param_groups[0]
        self.betas, self.eps = group["betas"], group["eps"]
        held = rows[0].run.optimiser.state.get(rows[0].parameters[self.names[0]], {})
        self.steps = int(held.get("step", 0))  # of all rows: they go in lock-step

    def _move(self, gradients: Sequence[Tensor], rates: Tensor) -> None:
        self.steps += 1
        mean, square = self.state["exp_avg"], self.state["exp_avg_sq"]
        torch._foreach_lerp_(mean, list(gradients), 1 - self.betas[0])
        torch._foreach_mul_(square, self.betas[1])
        torch._foreach_addcmul_(square, list(gradients), list(gradients), 1 - self.betas[1])
        root = torch._foreach_sqrt(square)
        torch._foreach_div_(root, (1 - self.betas[1] ** self.steps) ** 0.5)
        torch._foreach_add_(root, self.eps)
        way = torch._foreach_div(mean, root)
        torch._foreach_addcmul_(self.weights, way, broadcast(-rates / (1 - self.betas[0] ** self.steps), self.weights))

    def _count(self, held: dict[str, Any], group: Mapping[str, Any], row: Row) -> None:
        if "step" not in held:
            on_device = group.get("capturable") or group.get("fused")
            held["step"] = torch.zeros((), dtype=torch.float32, device=row.run.device if on_device else "cpu")
        held["step"].fill_(self.steps)


def make_solver(rows: Sequence[Row], weights: Mapping[str, Tensor]) -> Solver:
    """The stacked form of the optimiser that the rows' runs have."""
    kinds = {torch.optim.SGD: StackedSGD, torch.optim.Adam: StackedAdam}
    return kinds[type(rows[0].run.optimiser)](rows, weights)
