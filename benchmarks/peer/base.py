"""What a peer is: one method's training step done the way its official code does it, so that both sides run anywhere.

Clips are augmented one by one with numpy inside a ``Dataset`` and come through a loader; every network runs once a
view; the momentum copy moves parameter by parameter; ``loss.item()`` follows each step. Written anew from the published
description; a peer uses nothing of ``methods`` but settings and graphs, so that a change there shows in the ratio. That
a peer computes what the official code computes is tested against the official code's numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.peer.augment import Array
from methods.data.layouts import Layout
from methods.training.config import TrialConfig

Views = Dataset[tuple[NDArray[Any], ...]]


class Peer(nn.Module):
    """The networks of one method's official code, and its step. Settings are read from a :class:`TrialConfig`.

    Submodules bear the official names wherever that costs nothing, so that an official state loads by its keys.
    """

    method: ClassVar[str]

    def __init__(self, config: TrialConfig, layout: Layout, persons: int = 2) -> None:
        super().__init__()
        self.config, self.layout, self.persons = config, layout, persons

    @classmethod
    def views(cls, config: TrialConfig, layout: Layout, data: Array, index: NDArray[np.int64]) -> Views:
        """The official feeder over clips ``data[index]`` (N, C, T, V, M): item -> the views of one clip, as numpy."""
        raise NotImplementedError

    def solver(self) -> torch.optim.Optimizer:
        """The official optimiser; SGD over all trainable parameters unless a peer says otherwise."""
        o = self.config.optim
        trainable = [p for p in self.parameters() if p.requires_grad]
        return torch.optim.SGD(trainable, lr=o.lr, momentum=o.sgd_momentum, weight_decay=o.weight_decay, foreach=False)

    def loss(self, batch: tuple[Tensor, ...], progress: float) -> Tensor:
        """The scalar to descend for the views of a batch; momentum copies and queues move as in the official code.

        ``progress`` in [0, 1): the share of the whole run that lies behind (some losses change on the way).
        """
        raise NotImplementedError

    def after_step(self, progress: float) -> None:
        """What the official code does after the optimiser's step."""

    def backbone(self) -> nn.Module:
        """A frozen copy of the encoder that is evaluated: clips (N, C, T, V, M) -> features (N, D).

        Only a peer whose linear evaluation is timed has one.
        """
        raise NotImplementedError(f"the peer of {self.config.method} is not evaluated")


def loader(dataset: Views, batch: int) -> DataLoader[Any]:
    """The official loader, without worker processes (the ratio is of work done, by one process on either side)."""
    return DataLoader(dataset, batch_size=batch, shuffle=True, drop_last=True, num_workers=0)


def train_step(peer: Peer, solver: torch.optim.Optimizer, batch: tuple[Tensor, ...], progress: float) -> float:
    """One iteration on the views of a batch; the loss is read at once, as the official loops do."""
    loss = peer.loss(batch, progress)
    solver.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    solver.step()
    peer.after_step(progress)
    return loss.item()


def train_epoch(
    peer: Peer, solver: torch.optim.Optimizer, batches: Iterable[Any], device: torch.device, progress: float
) -> list[float]:
    """All batches of a loader, real numbers moved to the device as float32."""
    peer.train()
    losses = []
    for views in batches:
        moved = tuple(v.float().to(device) if v.is_floating_point() else v.to(device) for v in views)
        losses.append(train_step(peer, solver, moved, progress))
    return losses


@torch.no_grad()
def follow(slow: nn.Module, online: nn.Module, momentum: float) -> None:
    """The official momentum update: parameter by parameter, a new tensor each."""
    for kept, fresh in zip(slow.parameters(), online.parameters(), strict=True):
        kept.data = kept.data * momentum + fresh.data * (1.0 - momentum)


def frozen_copy(slow: nn.Module, online: nn.Module) -> nn.Module:
    """``slow`` with the parameters of ``online`` and no gradients."""
    for kept, fresh in zip(slow.parameters(), online.parameters(), strict=True):
        kept.data.copy_(fresh.data)
        kept.requires_grad = False
    return slow
