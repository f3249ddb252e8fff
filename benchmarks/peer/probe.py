"""The linear evaluation of the official codes: the frozen backbone runs for every batch of every epoch."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from benchmarks.peer.augment import Array

# What CrosSCLR's code publishes: SGD at this rate, so many epochs, a pass over the test clips after every fifth.
EPOCHS, TEST_EVERY, RATE = 100, 5, 3.0


class Labelled(Dataset[tuple[Array, int]]):
    """Clips as they are, with their labels: what the probe's loader gives."""

    def __init__(self, data: Array, labels: NDArray[np.int64], index: NDArray[np.int64]) -> None:
        self.data, self.labels, self.index = data, labels, index

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, i: int) -> tuple[Array, int]:
        return np.array(self.data[self.index[i]]), int(self.labels[self.index[i]])


def probe_epoch(
    backbone: nn.Module,
    head: nn.Linear,
    solver: torch.optim.Optimizer,
    loader: Iterable[tuple[Tensor, Tensor]],
    device: torch.device,
) -> list[float]:
    """One epoch of linear evaluation: the frozen backbone, in evaluation mode, runs for every batch again."""
    backbone.eval()
    losses = []
    for clips, labels in loader:
        loss = nn.functional.cross_entropy(head(backbone(clips.float().to(device))), labels.long().to(device))
        solver.zero_grad()
        loss.backward()
        solver.step()
        losses.append(loss.item())
    return losses


@torch.no_grad()
def probe_test(
    backbone: nn.Module, head: nn.Linear, loader: Iterable[tuple[Tensor, Tensor]], device: torch.device
) -> Tensor:
    """Logits (n, classes) of the test clips."""
    backbone.eval()
    return torch.cat([head(backbone(clips.float().to(device))) for clips, _ in loader])
