"""CRRL as its public code trains it: packed sequences of different lengths; contrast first, then reconstruction.

Its three runs are told apart by ``progress``, as ``params.fuse_start`` says: the contrastive motion learner before it,
the information fuser after it; at 0 there is the sequence reconstructor alone. Written anew from the published
description (arXiv:2111.11051); submodules bear the official names. N clips, T frames, L the longest clip's, F features
a frame, D width of the encoder, K queued keys.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.peer import augment
from benchmarks.peer.augment import Array
from benchmarks.peer.base import Peer, Views, follow, frozen_copy
from benchmarks.peer.gru import PackedGRU, average, bidirectional, flat_frames
from benchmarks.peer.moco import against_queue, dequeue_and_enqueue, first_is_right, head, move_pointer, new_queue
from methods.data.layouts import Layout
from methods.training.config import TrialConfig

ONLY = {
    "encoder.input_norm": ("none",),
    "encoder.pool": ("mean",),
    "encoder.bidirectional": (True,),
    "encoder.stepwise": (False,),
    "encoder.init": ("torch",),
    "encoder.precision": ("fp32",),
    "params.momentum_schedule": ("constant",),
    "params.key": ("velocity",),
    "optim.name": ("sgd",),
    "optim.nesterov": (False,),
    "optim.order": ("shuffled",),
}


class Sequences(Views):
    """A clip's frames (T, F), the same backwards, the velocities of both, and its valid frames; no augmentation.

    The official code reads all of it from files, so here it is made once, before the first item; the velocities of the
    backward clip are never used. A batch comes by descending length, as the code's collation sorts it.
    """

    def __init__(self, config: TrialConfig, data: Array, index: NDArray[np.int64]) -> None:
        valid, frames = config.encoder.lengths == "valid", data.shape[2]
        self.lengths = [augment.valid_frames(data[i]) if valid else frames for i in index]
        clips = torch.from_numpy(np.array(data[index]))
        self.forward = flat_frames(clips).numpy()
        self.backward, self.velocity, self.velocity_back = (np.zeros_like(self.forward) for _ in range(3))
        for i, length in enumerate(self.lengths):
            self.backward[i, :length] = self.forward[i, :length][::-1]
            self.velocity[i, : length - 1] = np.diff(self.forward[i, :length], axis=0)
            self.velocity_back[i, : length - 1] = np.diff(self.backward[i, :length], axis=0)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, i: int) -> tuple[NDArray[Any], ...]:
        each = self.forward[i], self.backward[i], self.velocity[i], self.velocity_back[i]
        return *each, np.array(self.lengths[i])

    def __getitems__(self, indices: list[int]) -> list[tuple[NDArray[Any], ...]]:
        """What a loader asks for: the items of a batch."""
        return [self[i] for i in sorted(indices, key=lambda i: self.lengths[i], reverse=True)]


class Headed(PackedGRU):
    """The encoder and its head: (N, T, F) -> (N, projection)."""

    def __init__(self, gru: nn.GRU, fc: nn.Module) -> None:
        super().__init__(gru)
        self.fc = fc

    def forward(self, x: Tensor, lengths: list[int]) -> Tensor:
        projected: Tensor = self.fc(average(super().forward(x, lengths), lengths))
        return projected


class Learner(nn.Module):
    """The contrastive motion learner: query network, key network, queue."""

    queue: Tensor
    queue_ptr: Tensor

    def __init__(self, config: TrialConfig, features: int) -> None:
        super().__init__()
        e, p = config.encoder, config.params
        self.params = p
        self.encoder_fc_q, self.encoder_fc_k = (
            Headed(bidirectional(e, features), head(2 * e.hidden, p.hidden, p.projection)) for _ in range(2)
        )
        frozen_copy(self.encoder_fc_k.gru, self.encoder_fc_q.gru)
        if not p.key_head_frozen:
            frozen_copy(self.encoder_fc_k.fc, self.encoder_fc_q.fc)
        self.encoder_fc_k.requires_grad_(False)
        self.register_buffer("queue", new_queue(p.projection, p.queue))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))

    def forward(self, positions: Tensor, velocities: Tensor, lengths: list[int]) -> Tensor:
        """Logits (N, 1+K) of the positions against their velocities."""
        q = F.normalize(self.encoder_fc_q(positions, lengths), dim=1)
        with torch.no_grad():
            follow(self.encoder_fc_k.gru, self.encoder_fc_q.gru, self.params.momentum)
            if not self.params.key_head_frozen:
                follow(self.encoder_fc_k.fc, self.encoder_fc_q.fc, self.params.momentum)
            k = F.normalize(self.encoder_fc_k(velocities, lengths), dim=1)
        cosines = torch.cat(against_queue(q, k, self.queue), dim=1)
        dequeue_and_enqueue(self.queue, self.queue_ptr, k)
        move_pointer(self.queue, self.queue_ptr, len(k))
        logits: Tensor = cosines / self.params.temperature
        return logits


class StudentHead(nn.Module):
    """Two linear maps that lead to the teacher's features."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.classifier_ = head(dim, hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        led: Tensor = self.classifier_(x)
        return led


class CRRL(Peer):
    """The learner (``moco``), and what reconstructs: ``encoder``, ``decoder``, and ``mlp`` towards the teacher."""

    method = "crrl"

    def __init__(self, config: TrialConfig, layout: Layout, persons: int = 2) -> None:
        super().__init__(config, layout, persons)
        augment.refuse(config, ONLY)
        e, features, dim = config.encoder, layout.num_joints * 3 * persons, 2 * config.encoder.hidden
        self.moco = Learner(config, features)
        self.encoder = PackedGRU(bidirectional(e, features))
        dropout = e.dropout if e.layers > 1 else 0.0
        self.decoder = PackedGRU(nn.GRU(dim, features, e.layers, batch_first=True, dropout=dropout))
        self.mlp = StudentHead(dim, config.params.hidden)

    @classmethod
    def views(cls, config: TrialConfig, layout: Layout, data: Array, index: NDArray[np.int64]) -> Views:
        augment.refuse(config, ops=())
        return Sequences(config, data, index)

    def loss(self, batch: tuple[Tensor, ...], progress: float) -> Tensor:
        """``batch``: frames, backward frames, velocities of both (N, T, F), and descending lengths (N,)."""
        positions, backward, velocities, _, sizes = batch
        lengths = sizes.tolist()
        if progress < self.config.params.fuse_start:
            return first_is_right(self.moco(positions, velocities, lengths))
        return self.fuse(positions, backward, lengths)

    def fuse(self, positions: Tensor, backward: Tensor, lengths: list[int]) -> Tensor:
        """What the encoder holds at the first frame played as the clip, at the last as the clip backwards."""
        p = self.config.params
        states = self.encoder(positions, lengths)  # (N, L, D)
        total: Tensor = states.new_zeros(())
        if p.reconstruct != "reverse":
            total = total + self.reconstruction(states[:, 0], positions, lengths)
        if p.reconstruct != "forward":
            last = states[list(range(len(lengths))), [length - 1 for length in lengths]]
            total = total + self.reconstruction(last, backward, lengths)
        if p.fuse_start > 0 and p.distill_weight > 0:
            student = self.mlp(average(states, lengths))
            distance = (self.teach(positions, lengths) - student).pow(2).sum(1).mean()
            total = total + p.distill_weight * distance
        return total

    def reconstruction(self, held: Tensor, target: Tensor, lengths: list[int]) -> Tensor:
        """Squared error of ``held`` (N, D), decoded at every frame, to ``target`` (N, T, F), zero after each end."""
        longest = max(lengths)
        played = self.decoder(held.repeat(longest, 1, 1).permute(1, 0, 2), lengths)
        each = (played - target[:, :longest]).pow(2).sum((1, 2))
        error: Tensor = (each / torch.tensor(lengths, dtype=each.dtype, device=each.device)).mean()
        return error if self.config.params.reduction == "sum" else error / target.shape[2]

    @torch.no_grad()
    def teach(self, positions: Tensor, lengths: list[int]) -> Tensor:
        """The learner's features (N, D); in the public code with its dropout on."""
        teacher = self.moco.encoder_fc_q
        teacher.train(self.training and self.config.params.teacher_dropout)
        features = average(PackedGRU.forward(teacher, positions, lengths), lengths)
        teacher.train(self.training)
        return features
