"""The loop of :mod:`methods.training.pretrain` for several runs at once."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from methods.errors import InputError
from methods.training.fusing.agreement import faults, parting, together_until
from methods.training.fusing.stack import Stack
from methods.training.optim import learning_rate, set_learning_rate
from methods.training.pretrain import Epoch, TrialEnded, account, order_of, views_seed
from methods.training.run import Run
from methods.training.seeds import derive_seed

Result = tuple[Run, Epoch | TrialEnded]


class Fused:
    """Runs in lock-step; ``runs`` are those still in it. Between epochs every run is whole, as if it trained alone.

    Raises ``InputError``, all faults at once, where the runs cannot be fused. A run's ``captured`` is not asked: the
    batched step is no recording.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        found = faults(runs)
        if found:
            raise InputError(*found)
        self.runs = list(runs)
        self._stack: Stack | None = None
        self._step = self.runs[0].step  # of the stack, which is the runs' own as long as nobody trains one of them

    def leave(self, run: Run) -> None:
        """Take a run out between two epochs; it can go on alone, the others go on together."""
        if not any(each is run for each in self.runs):
            raise InputError("this run is not in the group")
        self.runs = [each for each in self.runs if each is not run]
        self._stack = None

    def train(self, until: int | None = None) -> Iterator[list[Result]]:
        """Epoch by epoch up to and including ``until`` (default: the last): each run with its account of the epoch.

        A run that diverges or collapses is given with its :class:`TrialEnded` and leaves; the caller may let others
        :meth:`leave` between epochs. Raises ``InputError`` before the first step where stages would part the runs.
        """
        while self.runs:
            last = self.runs[0].config.epochs if until is None else min(until, self.runs[0].config.epochs)
            if self.runs[0].epoch >= last:
                return
            if together_until(self.runs) < last:
                raise InputError(parting(self.runs))
            begun = time.perf_counter()
            losses, logs = self.one_epoch()
            share = (time.perf_counter() - begun) / len(self.runs)
            results = [(run, _account(run, losses[k], logs[k], share)) for k, run in enumerate(self.runs)]
            for run, result in results:
                if isinstance(result, TrialEnded):
                    self.leave(run)
            yield results

    def one_epoch(self) -> tuple[list[Tensor], list[dict[str, float]]]:
        """Take one epoch's steps and write them back: for each run its losses (steps,) and the means of its logs."""
        if any(run.step != self._step for run in self.runs):
            raise InputError("a run of the group was trained on its own: take it out before")
        if self._stack is None:
            self._stack = Stack(self.runs)
        stack, first = self._stack, self.runs[0]
        steps, owners = first.steps_per_epoch, [branch.run for branch in stack.branches]
        progress = [(first.step + i) / first.total_steps for i in range(steps)]
        rates = stack.tensor([[learning_rate(run.config.optim, p) for run in owners] for p in progress])
        shares = stack.shares(progress)
        orders = [order_of(run) for run in self.runs]
        draws = [torch.Generator(run.device).manual_seed(views_seed(run)) for run in self.runs]
        losses: list[Tensor] = []
        logs: list[list[dict[str, Tensor]]] = []
        cuda = [first.device] if first.device.type == "cuda" else []
        for run in self.runs:
            run.model.train()
        with torch.random.fork_rng(devices=cuda):
            torch.manual_seed(derive_seed(*(run.seed for run in self.runs), "dropout", first.epoch))
            for i in range(steps):
                views = []
                for run, order, own in zip(self.runs, orders, draws, strict=True):
                    made = run.model.views(run.store.take(order[i]), own)
                    views += [[made[name] for name in b.streams] for b in stack.branches if b.run is run]
                loss, logged = stack.step(views, rates[i], shares[i], progress[i])
                losses.append(loss)
                logs.append(logged)
        stack.write_back()
        self._step += steps
        for run in self.runs:
            run.epoch += 1
            run.step += steps
            set_learning_rate(run.optimiser, learning_rate(run.config.optim, progress[-1]))
        return _by_run(self.runs, stack, torch.stack(losses), logs)


def _by_run(
    runs: Sequence[Run], stack: Stack, losses: Tensor, logs: Sequence[Sequence[dict[str, Tensor]]]
) -> tuple[list[Tensor], list[dict[str, float]]]:
    """Losses (steps, R, S) and every step's logs of S streams, each (R,), as each run would tell them; read back."""
    totals = (losses * stack.weights).sum(2).double().cpu()
    means: list[dict[str, Tensor]] = []  # stream by stream, (R,) each
    for s, steps in enumerate(zip(*logs, strict=True)):
        series: dict[str, list[Tensor]] = {"loss": list(losses[:, :, s])}
        for step in steps:
            for name, value in step.items():
                series.setdefault(name, []).append(value)
        means.append({name: torch.stack(values).double().mean(0).cpu() for name, values in series.items()})
    rows = [[k for k, branch in enumerate(stack.branches) if branch.run is run] for run in runs]
    told = [
        {
            f"{stream}/{name}": float(values[k])
            for k in own
            for stream, mean in zip(stack.branches[k].streams, means, strict=True)
            for name, values in mean.items()
        }
        for own in rows
    ]
    return [totals[:, own].sum(1) for own in rows], told


def _account(run: Run, losses: Tensor, logs: dict[str, float], seconds: float) -> Epoch | TrialEnded:
    """What :func:`methods.training.pretrain.pretrain` says of an epoch; its share of the group's time is the run's."""
    try:
        return account(run, losses, logs, time.perf_counter() - seconds)
    except TrialEnded as end:
        return end
