"""R branches of the same architecture as one model: stacked tensors, and one vmap over the method's own loss.

A row of the stack is a branch: one stream of one run, or, where a method trains its streams together, a whole run.
Shapes: R rows, S streams of a row, N clips, C channels, T frames, V joints, M persons.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from methods.base import JointMethod, Method, Views
from methods.nn.ema import Ema
from methods.training.fusing.agreement import differing_numbers
from methods.training.fusing.rows import SlowRow, take_rows
from methods.training.fusing.solver import Row, make_solver
from methods.training.run import Run

# A row's views of one stream as plain containers, which vmap can look into.
Plain = tuple[dict[str, Tensor], Tensor, dict[str, Tensor]]


@dataclass(frozen=True)
class Branch:
    """A row: whose it is, which streams it trains, and what each of their losses is multiplied by."""

    run: Run
    streams: tuple[str, ...]
    method: Method

    @property
    def weights(self) -> list[float]:
        return [self.run.model.weights[name] for name in self.streams]


def branches_of(runs: Sequence[Run]) -> list[Branch]:
    """The rows of a stack of ``runs``, run by run."""
    found = []
    for run in runs:
        for name, method in run.model.branches.items():
            if isinstance(method, Method):
                streams = run.config.streams.use if isinstance(method, JointMethod) else (name,)
                found.append(Branch(run, streams, method))
    return found


class Stack:
    """The rows' tensors, stacked, and what is done with them; the runs' own are read here and written back on request.

    Raises nothing: :func:`methods.training.fusing.agreement.faults` has been asked before.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self.branches = branches_of(runs)
        methods = [branch.method for branch in self.branches]
        self.rows = [
            Row(branch.run, dict(method.named_parameters()), dict(method.named_buffers()))
            for branch, method in zip(self.branches, methods, strict=True)
        ]
        first = self.rows[0]
        with torch.no_grad():
            self.buffers = {name: torch.stack([row.buffers[name] for row in self.rows]) for name in first.buffers}
            self.parameters = {n: torch.stack([row.parameters[n] for row in self.rows]) for n in first.parameters}
        for name, own in first.parameters.items():
            self.parameters[name].requires_grad_(own.requires_grad)
        self.trained = {name: p for name, p in self.parameters.items() if p.requires_grad}
        self.solver = make_solver(self.rows, self.trained)
        self.settings = {k: self.tensor(v) for k, v in differing_numbers([b.run for b in self.branches]).items()}
        self.weights = self.tensor([branch.weights for branch in self.branches])  # (R, S)
        self.copies = [{n: m for n, m in method.named_modules() if isinstance(m, Ema)} for method in methods]
        self._traced = _Traced(methods[0])

    def tensor(self, values: Sequence[Any]) -> Tensor:
        some = next(iter(self.trained.values()))
        return torch.tensor(values, dtype=some.dtype, device=some.device)

    def shares(self, progress: Sequence[float]) -> list[dict[str, Tensor]]:
        """For every step, slow copy -> (R,) the share of the online weights that it takes on, 1 - m."""
        table = {
            name: self.tensor([[1 - float(copies[name].rate(p)) for copies in self.copies] for p in progress])
            for name in self.copies[0]
        }
        return [{name: rows[step] for name, rows in table.items()} for step in range(len(progress))]

    def step(
        self, views: Sequence[Sequence[Views]], rates: Tensor, shares: dict[str, Tensor], progress: float
    ) -> tuple[Tensor, list[dict[str, Tensor]]]:
        """One step of all rows on ``views``, S for each row: losses (R, S), and for each stream its logs (R,).

        ``rates`` (R,): learning rates. ``shares``: an item of :meth:`shares`.
        """
        outs = self._call(self._traced.LOSS, shares, progress, [_stacked(each) for each in zip(*views, strict=True)])
        losses = torch.stack([loss for loss, _ in outs], 1)
        # Rows share nothing, so the gradient of the sum is each row's own.
        gradients = torch.autograd.grad((losses * self.weights).sum(), list(self.trained.values()))
        self.solver.step(gradients, rates)
        if self._traced.acts_after_step:
            self._call(self._traced.AFTER, shares, progress, [])
        return losses.detach(), [logs for _, logs in outs]

    def _call(self, what: str, shares: dict[str, Tensor], progress: float, views: list[Plain]) -> Any:
        def one(
            parameters: dict[str, Tensor],
            buffers: dict[str, Tensor],
            settings: dict[str, Tensor],
            shares: dict[str, Tensor],
            views: list[Plain],
        ) -> Any:
            tensors = {f"method.{name}": t for name, t in (parameters | buffers).items()}
            given = (what, settings, shares, views, progress)
            return functional_call(self._traced, tensors, given, strict=True)

        with _quietly():
            return vmap(one, randomness="different")(self.parameters, self.buffers, self.settings, shares, views)

    @torch.no_grad()
    def write_back(self) -> None:
        """Give every run its weights, buffers and optimiser state: from here it can be probed, stored, go on alone."""
        for k, row in enumerate(self.rows):
            for name, own in (*row.parameters.items(), *row.buffers.items()):
                own.copy_((self.parameters if name in self.parameters else self.buffers)[name][k])
        self.solver.write_back()


class _Traced(nn.Module):
    """A copy of one row's method whose tensors are lent by the stack, and whose settings may be tensors."""

    LOSS, AFTER = "loss", "after_step"

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = copy.deepcopy(method).train()
        self.config = method.config
        self.acts_after_step = type(method).after_step is not Method.after_step
        take_rows(self.method)
        self.slow = {name: module for name, module in self.method.named_modules() if isinstance(module, SlowRow)}

    def forward(
        self, what: str, settings: dict[str, Tensor], shares: dict[str, Tensor], views: list[Plain], progress: float
    ) -> Any:
        """For each stream its loss and its logs; after a step nothing of interest."""
        self.method.config = _with_numbers(self.config, settings)
        for name, module in self.slow.items():
            module.share = shares[name]
        if what == self.AFTER:
            self.method.after_step(progress)
            return torch.zeros(())
        given = [Views(*each) for each in views]
        if isinstance(self.method, JointMethod):
            outs = list(self.method.losses(dict(zip(self.method.streams, given, strict=True)), progress).values())
        else:
            outs = [self.method.loss(given[0], progress)]
        return [(out.loss, dict(out.logs)) for out in outs]


def _with_numbers(config: Any, numbers: Mapping[str, Tensor]) -> Any:
    """A frozen config that holds tensors where ``numbers`` says so; its own checks, made of numbers, are past."""
    made = copy.copy(config)
    for name, value in numbers.items():
        object.__setattr__(made, name, value)
    return made


def _stacked(views: Sequence[Views]) -> Plain:
    """One stream's views of all rows; each tensor gets the rows as its first dimension."""
    first = views[0]
    return (
        {name: torch.stack([v[name] for v in views]) for name in first.clips},
        torch.stack([v.present for v in views]),
        {name: torch.stack([v.extra[name] for v in views]) for name in first.extra},
    )


@contextmanager
def _quietly() -> Iterator[None]:
    """Without torch's warning that vmap takes an operation row by row: few are, and those are small."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="There is a performance drop because we have not yet implemented")
        yield
