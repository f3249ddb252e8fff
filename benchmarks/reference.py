"""The plain side: SkeletonCLR's step and linear probe the way the official repositories of the CrosSCLR family do them.

Written anew from their published description: clips augmented one by one with numpy inside a ``Dataset``, a loader, an
encoder that runs every body, a momentum update parameter by parameter, ``loss.item()`` after each step, and a linear
probe that sends every clip through the frozen backbone in every epoch. It uses nothing of ``methods``, so that a change
there shows in the ratio.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

Array = NDArray[np.float32]


def crop(clip: Array, rho: float, start: int | None = None) -> Array:
    """Mirror T/rho frames at both ends of (C, T, V, M), keep T frames from a random start."""
    frames = clip.shape[1]
    pad = int(frames / rho)
    if start is None:
        start = int(np.random.randint(0, 2 * pad + 1))
    head, tail = clip[:, :pad][:, ::-1], clip[:, frames - pad :][:, ::-1]
    return np.concatenate([head, clip, tail], axis=1)[:, start : start + frames]


def shear(clip: Array, amplitude: float, six: list[float] | None = None) -> NDArray[np.float64]:
    """x' = S x for each joint; S has ones and six random entries. Comes out as float64, as numpy has it."""
    a, b, c, d, e, f = six or [random.uniform(-amplitude, amplitude) for _ in range(6)]
    matrix = np.array([[1, a, b], [c, 1, d], [e, f, 1]])
    moved: NDArray[np.float64] = np.dot(clip.transpose(1, 2, 3, 0), matrix.T).transpose(3, 0, 1, 2)
    return moved


class TwoViews(Dataset[tuple[NDArray[np.float64], NDArray[np.float64]]]):
    """Two augmented copies of each clip of a memory map (N, C, T, V, M)."""

    def __init__(self, data: Array, index: NDArray[np.int64], rho: float, amplitude: float) -> None:
        self.data, self.index, self.rho, self.amplitude = data, index, rho, amplitude

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, i: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        clip = np.array(self.data[self.index[i]])
        return self._view(clip), self._view(clip)

    def _view(self, clip: Array) -> NDArray[np.float64]:
        return shear(crop(clip, self.rho), self.amplitude)


class Labelled(Dataset[tuple[Array, int]]):
    """Clips as they are, with their labels: what the probe's loader gives."""

    def __init__(self, data: Array, labels: NDArray[np.int64], index: NDArray[np.int64]) -> None:
        self.data, self.labels, self.index = data, labels, index

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, i: int) -> tuple[Array, int]:
        return np.array(self.data[self.index[i]]), int(self.labels[self.index[i]])


def pair_loader(dataset: TwoViews, batch: int) -> DataLoader[tuple[Tensor, Tensor]]:
    return DataLoader(dataset, batch_size=batch, shuffle=True, drop_last=True, num_workers=0)  # type: ignore[arg-type]


class PlainBlock(nn.Module):
    """Graph convolution, temporal convolution 9 x 1, residual."""

    def __init__(self, channels: int, out: int, stride: int, dropout: float, residual: bool, partitions: int) -> None:
        super().__init__()
        self.gcn = nn.Conv2d(channels, out * partitions, 1)
        self.tcn = nn.Sequential(
            nn.BatchNorm2d(out),
            nn.ReLU(inplace=True),
            nn.Conv2d(out, out, (9, 1), (stride, 1), (4, 0)),
            nn.BatchNorm2d(out),
            nn.Dropout(dropout, inplace=True),
        )
        self.residual: nn.Module | None = None
        if residual and (stride != 1 or channels != out):
            self.residual = nn.Sequential(nn.Conv2d(channels, out, 1, (stride, 1)), nn.BatchNorm2d(out))
        elif residual:
            self.residual = nn.Identity()

    def forward(self, x: Tensor, graph: Tensor) -> Tensor:
        skip = self.residual(x) if self.residual is not None else 0
        mixed = self.gcn(x)
        n, kc, t, v = mixed.shape
        mixed = mixed.view(n, graph.shape[0], kc // graph.shape[0], t, v)
        gathered = torch.einsum("nkctv,kvw->nctw", mixed, graph).contiguous()
        return torch.relu_(self.tcn(gathered) + skip)


class PlainSTGCN(nn.Module):
    """Ten blocks of width c, 2c, 4c and a last one of ``dim``; every body is run, absent ones too, and averaged."""

    def __init__(self, graph: Tensor, width: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.graph: Tensor
        self.register_buffer("graph", graph)
        partitions, joints, _ = graph.shape
        self.data_bn = nn.BatchNorm1d(3 * joints)
        widths = [width] * 4 + [2 * width] * 3 + [4 * width] * 2 + [dim]
        blocks = []
        for i, out in enumerate(widths):
            channels = 3 if i == 0 else widths[i - 1]
            blocks.append(PlainBlock(channels, out, 2 if i in (4, 7) else 1, dropout if i else 0.0, i > 0, partitions))
        self.blocks = nn.ModuleList(blocks)
        self.importance = nn.ParameterList(nn.Parameter(torch.ones_like(graph)) for _ in widths)

    def forward(self, x: Tensor) -> Tensor:
        n, c, t, v, m = x.shape
        x = x.permute(0, 4, 3, 1, 2).contiguous().view(n * m, v * c, t)
        x = self.data_bn(x).view(n, m, v, c, t).permute(0, 1, 3, 4, 2).contiguous().view(n * m, c, t, v)
        for block, importance in zip(self.blocks, self.importance, strict=True):
            x = block(x, self.graph * importance)
        pooled: Tensor = torch.nn.functional.avg_pool2d(x, x.shape[2:]).view(n, m, -1).mean(1)
        return pooled


class PlainSkeletonCLR(nn.Module):
    """Query network, key network, and a queue of keys as columns: logits and targets for cross-entropy."""

    def __init__(self, query: nn.Module, key: nn.Module, dim: int, queue: int, momentum: float, tau: float) -> None:
        super().__init__()
        self.query, self.key, self.momentum, self.tau = query, key, momentum, tau
        for slow, fast in zip(key.parameters(), query.parameters(), strict=True):
            slow.data.copy_(fast.data)
            slow.requires_grad = False
        self.queue: Tensor
        self.register_buffer("queue", nn.functional.normalize(torch.randn(dim, queue), dim=0))
        self.pointer = 0

    @torch.no_grad()
    def _move_key(self) -> None:
        for slow, fast in zip(self.key.parameters(), self.query.parameters(), strict=True):
            slow.data = slow.data * self.momentum + fast.data * (1.0 - self.momentum)

    @torch.no_grad()
    def _remember(self, keys: Tensor) -> None:
        n, size = len(keys), self.queue.shape[1]
        if size % n:
            raise ValueError(f"the queue ({size}) must be a multiple of the batch ({n})")
        self.queue[:, self.pointer : self.pointer + n] = keys.T
        self.pointer = (self.pointer + n) % size

    def forward(self, view_q: Tensor, view_k: Tensor) -> tuple[Tensor, Tensor]:
        q = nn.functional.normalize(self.query(view_q), dim=1)
        with torch.no_grad():
            self._move_key()
            k = nn.functional.normalize(self.key(view_k), dim=1)
        positive = torch.einsum("nc,nc->n", q, k).unsqueeze(-1)
        negative = torch.einsum("nc,ck->nk", q, self.queue.clone().detach())
        logits = torch.cat([positive, negative], dim=1) / self.tau
        self._remember(k)
        return logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device)


def projector(dim: int, hidden: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, out))


def train_step(model: PlainSkeletonCLR, solver: torch.optim.Optimizer, view_q: Tensor, view_k: Tensor) -> float:
    """One step on two views of a batch; the loss is read at once."""
    logits, target = model(view_q, view_k)
    loss = nn.functional.cross_entropy(logits, target)
    solver.zero_grad()
    loss.backward()
    solver.step()
    return loss.item()


def train_epoch(
    model: PlainSkeletonCLR,
    solver: torch.optim.Optimizer,
    loader: Iterable[tuple[Tensor, Tensor]],
    device: torch.device,
) -> list[float]:
    """All batches of a loader, each moved to the device as float32."""
    model.train()
    return [
        train_step(model, solver, a.float().to(device, non_blocking=True), b.float().to(device, non_blocking=True))
        for a, b in loader
    ]


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
