"""CrosSCLR as its public code trains it: a query and a key network for each stream, and queues that lie side by side.

The streams are taken inside the model from the augmented joints. From ``cross_start`` on every stream learns from every
other one's nearest neighbour, pair by pair. With ``share_head`` the other streams' heads run through the joint stream's
whole head, one module that each of the momentum updates moves; with ``cross_ema: motion_only`` but the motion stream's
key network still moves then. Two streams or three, as configured.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.peer.augment import Array
from benchmarks.peer.base import Peer, Views, follow
from benchmarks.peer.moco import (
    HeadedSTGCN,
    against_queue,
    check_step,
    check_views,
    dequeue_and_enqueue,
    derived,
    first_is_right,
    head,
    move_pointer,
    nearest,
    new_queue,
    over_positives,
    same_or_fresh,
)
from benchmarks.peer.skeletonclr import TwoViews, published_init
from methods.data.layouts import Layout
from methods.training.config import TrialConfig

ENDING = {"joint": "", "motion": "_motion", "bone": "_bone"}  # of the official names

Cosines = Mapping[str, tuple[Tensor, Tensor]]  # stream -> with the own keys (N, 1), with the queue (N, K)


class CrosSCLR(Peer):
    """Networks ``encoder_q``, ``encoder_k``, ``queue`` and ``queue_ptr`` for each stream, by the official names."""

    method = "crossclr"

    def __init__(self, config: TrialConfig, layout: Layout, persons: int = 2) -> None:
        super().__init__(config, layout, persons)
        check_step(config, joint_method=True)
        p, self.streams = config.params, config.streams.use
        if p.cross_ema == "motion_only" and "motion" not in self.streams:
            raise NotImplementedError(f"cross_ema: motion_only without the motion stream, with {self.streams}")
        owner = "joint" if "joint" in self.streams else self.streams[0]
        for side in "qk":
            for stream in sorted(self.streams, key=lambda s: s != owner):  # the owner of a shared head goes first
                fc = head(config.encoder.dim, p.hidden, p.projection, p.projector_norm)
                if p.share_head and stream != owner:
                    before = nn.Linear(config.encoder.dim, config.encoder.dim)
                    fc = nn.Sequential(before, nn.ReLU(), self.encoder(side, owner).fc)
                setattr(self, f"encoder_{side}{ENDING[stream]}", HeadedSTGCN(config, layout, fc))
        self.apply(published_init)
        for stream in self.streams:
            same_or_fresh(self.encoder("k", stream), self.encoder("q", stream), p.init_sync)
            self.register_buffer(f"queue{ENDING[stream]}", new_queue(p.projection, p.queue))
            self.register_buffer(f"queue_ptr{ENDING[stream]}", torch.zeros(1, dtype=torch.long))

    @classmethod
    def views(cls, config: TrialConfig, layout: Layout, data: Array, index: NDArray[np.int64]) -> Views:
        check_views(config)
        return TwoViews(data, index, config.augment.crop, config.augment.shear)

    def encoder(self, side: str, stream: str) -> HeadedSTGCN:
        """The query (``q``) or key (``k``) network of a stream."""
        found = self.get_submodule(f"encoder_{side}{ENDING[stream]}")
        assert isinstance(found, HeadedSTGCN)
        return found

    def queue_of(self, stream: str) -> Tensor:
        """(D, K)."""
        return self.get_buffer(f"queue{ENDING[stream]}")

    def loss(self, batch: tuple[Tensor, ...], progress: float) -> Tensor:
        crossing = progress >= self.config.params.cross_start
        losses = self.losses(batch[0], batch[1], crossing)
        return torch.stack(list(losses.values())).sum()

    def losses(self, view_q: Tensor, view_k: Tensor, crossing: bool) -> dict[str, Tensor]:
        """Stream -> its loss; the views (N, C, T, V, M) are of joints."""
        p = self.config.params
        views = {s: (derived(view_q, s, self.layout), derived(view_k, s, self.layout)) for s in self.streams}
        q = {s: F.normalize(self.encoder("q", s)(views[s][0]), dim=1) for s in self.streams}
        with torch.no_grad():
            for stream in self.streams:
                if stream == "motion" or not crossing or p.cross_ema == "all":
                    follow(self.encoder("k", stream), self.encoder("q", stream), p.momentum)
            k = {s: F.normalize(self.encoder("k", s)(views[s][1]), dim=1) for s in self.streams}
        cosines = {s: against_queue(q[s], k[s], self.queue_of(s)) for s in self.streams}
        for stream in self.streams:
            queue, pointer = self.queue_of(stream), self.get_buffer(f"queue_ptr{ENDING[stream]}")
            dequeue_and_enqueue(queue, pointer, k[stream])
            move_pointer(queue, pointer, len(k[stream]))
        if crossing:
            return self._across(cosines)
        return {s: first_is_right(torch.cat(cosines[s], dim=1) / p.temperature) for s in self.streams}

    def _across(self, cosines: Cosines) -> dict[str, Tensor]:
        """Stream u -> the mean over the other streams v of its loss with the neighbours that v finds."""
        p = self.config.params
        chosen = {s: nearest(negative, p.topk) for s, (_, negative) in cosines.items()}
        losses = {s: torch.zeros_like(positive[0, 0]) for s, (positive, _) in cosines.items()}
        for u, v in permutations(self.streams, 2):
            logits, positives = self.pair(cosines[u], cosines[v], chosen[v])
            losses[u] = losses[u] + over_positives(logits, positives) / (len(self.streams) - 1)
        return losses

    def pair(self, own: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor], chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and positives (N, 1+2K) of u <- v, (N, 1+K) without the context; ``chosen`` (N, K) by v."""
        context = self.config.params.context
        parts = [*own, own[1] * other[1]] if context else [*own]
        positives = [torch.ones_like(own[0]), chosen, chosen] if context else [torch.ones_like(own[0]), chosen]
        return torch.cat(parts, dim=1) / self.config.params.temperature, torch.cat(positives, dim=1)
