"""SkeletonCLR as CrosSCLR's public code trains it; its two views serve the family."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.peer.augment import Array, crop, shear
from benchmarks.peer.base import Peer, Views, follow, frozen_copy
from benchmarks.peer.stgcn import STGCN
from methods.data.layouts import Layout
from methods.nn.graph import adjacency
from methods.training.config import TrialConfig


class TwoViews(Views):
    """Two copies of each clip of a memory map (N, C, T, V, M), each cropped in time and sheared."""

    def __init__(self, data: Array, index: NDArray[np.int64], rho: float, amplitude: float) -> None:
        self.data, self.index, self.rho, self.amplitude = data, index, rho, amplitude

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, i: int) -> tuple[NDArray[Any], ...]:
        clip = np.array(self.data[self.index[i]])
        return self._view(clip), self._view(clip)

    def _view(self, clip: Array) -> NDArray[np.float64]:
        return shear(crop(clip, self.rho), self.amplitude)


class Network(STGCN):
    """The encoder with its projector ``fc`` behind it, as one module."""

    def __init__(self, graph: Tensor, width: int, dim: int, dropout: float, hidden: int, out: int) -> None:
        super().__init__(graph, width, dim, dropout)
        self.fc = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, out))

    def forward(self, x: Tensor) -> Tensor:
        projected: Tensor = self.fc(super().forward(x))
        return projected


def published_init(module: nn.Module) -> None:
    """What the code applies to every module: N(0, 0.02), biases 0, gains of batch norms N(1, 0.02)."""
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


class SkeletonCLR(Peer):
    """Query network, key network, and a queue of keys as columns: cross-entropy over [positive, negatives]."""

    method = "skeletonclr"

    def __init__(self, config: TrialConfig, layout: Layout, persons: int = 2) -> None:
        super().__init__(config, layout, persons)
        p, e = config.params, config.encoder
        if p.projector_norm or p.momentum_schedule != "constant" or p.ema_buffers != "own":
            raise NotImplementedError("the official code has no projector_norm, momentum_schedule or ema_buffers")
        graph = adjacency(layout, e.partition)
        self.encoder_q, self.encoder_k = (
            Network(graph, e.width, e.dim, e.dropout, p.hidden, p.projection) for _ in range(2)
        )
        if p.init_sync:
            self.encoder_q.apply(published_init)
        frozen_copy(self.encoder_k, self.encoder_q)
        if not p.init_sync:  # the code draws the weights after it has copied them
            self.apply(published_init)
        self.queue: Tensor
        self.queue_ptr: Tensor
        self.register_buffer("queue", F.normalize(torch.randn(p.projection, p.queue), dim=0))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))

    @classmethod
    def views(cls, config: TrialConfig, layout: Layout, data: Array, index: NDArray[np.int64]) -> Views:
        return TwoViews(data, index, config.augment.crop, config.augment.shear)

    def backbone(self) -> STGCN:
        e, state = self.config.encoder, self.encoder_q.state_dict()
        fresh = STGCN(self.encoder_q.graph.clone(), e.width, e.dim, e.dropout).to(self.encoder_q.graph)
        fresh.load_state_dict({name: value for name, value in state.items() if not name.startswith("fc.")})
        return fresh.requires_grad_(False)

    @torch.no_grad()
    def remember(self, keys: Tensor) -> None:
        """Write the keys (N, D) over the oldest columns; the batch divides the queue, as the code asserts."""
        n, size, at = len(keys), self.queue.shape[1], int(self.queue_ptr)
        if size % n:
            raise ValueError(f"the queue ({size}) must be a multiple of the batch ({n})")
        self.queue[:, at : at + n] = keys.T
        self.queue_ptr[0] = (at + n) % size

    def loss(self, batch: tuple[Tensor, ...], progress: float) -> Tensor:
        view_q, view_k = batch
        p = self.config.params
        q = F.normalize(self.encoder_q(view_q), dim=1)
        with torch.no_grad():
            follow(self.encoder_k, self.encoder_q, p.momentum)
            k = F.normalize(self.encoder_k(view_k), dim=1)
        positive = torch.einsum("nc,nc->n", q, k).unsqueeze(-1)
        negative = torch.einsum("nc,ck->nk", q, self.queue.clone().detach())
        logits = torch.cat([positive, negative], dim=1) / p.temperature
        self.remember(k)
        return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))
