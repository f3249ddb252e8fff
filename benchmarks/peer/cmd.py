"""CMD as its public code trains it: three recurrent networks that get a clip frame by frame, three queues, six KLDs.

Written anew from the published description (arXiv:2208.12448); submodules bear the official names. N clips, C channels,
T frames, V joints, M persons, D projection width, K queued keys.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.peer import augment
from benchmarks.peer.augment import Array, Clip
from benchmarks.peer.base import Peer, Views, follow, frozen_copy
from benchmarks.peer.gru import FrameGRU, flat_frames
from benchmarks.peer.moco import (
    against_queue,
    dequeue_and_enqueue,
    derived,
    first_is_right,
    head,
    move_pointer,
    new_queue,
)
from methods.data.layouts import Layout
from methods.training.config import TrialConfig

OPS = ("crop_resize", "shear", "corrupt")
ONLY = {
    "encoder.input_norm": ("joint",),
    "encoder.pool": ("last", "ends"),
    "encoder.bidirectional": (True,),
    "encoder.lengths": ("all",),
    "encoder.precision": ("fp32",),
    "params.momentum_schedule": ("constant",),
    "params.ema_buffers": ("own",),
    "streams.use": (("joint", "motion", "bone"),),
    "streams.loss": ("equal",),
    "optim.name": ("sgd",),
    "optim.nesterov": (False,),
    "optim.order": ("shuffled",),
}
END = {"joint": "", "motion": "_motion", "bone": "_bone"}  # stream -> the ending of an official name
PAIRS = tuple((a, b) for a in END for b in END if a != b)  # teacher, student


class Feeder(Views):
    """Two views of each clip: crop-resize, then either corrupted joints or a shear."""

    def __init__(self, config: TrialConfig, data: Array, index: NDArray[np.int64]) -> None:
        self.config, self.data, self.index = config, data, index
        self.valid = [augment.valid_frames(data[i]) for i in index]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, i: int) -> tuple[NDArray[Any], ...]:
        clip = np.array(self.data[self.index[i]])
        return self.view(clip, self.valid[i]).astype("float32"), self.view(clip, self.valid[i]).astype("float32")

    def view(self, clip: Clip, valid: int) -> Clip:
        """One augmented copy of a clip (C, T, V, M) of ``valid`` frames."""
        a = self.config.augment
        if a.crop_resize:
            clip = augment.crop_resize(clip, valid, a.crop_resize, a.crop_resize_frames, self.config.frames)
        if random.random() < a.corrupt:
            return augment.corrupt(clip, int(a.corrupt_joints * clip.shape[2] + 0.5))
        return augment.shear(clip, a.shear) if a.shear else clip


class Network(nn.Module):
    """Batch norm of the features of a frame, the GRU, a head: clips (N, C, T, V, M) -> (N, D)."""

    def __init__(self, config: TrialConfig, layout: Layout, persons: int) -> None:
        super().__init__()
        e, p, features = config.encoder, config.params, layout.num_joints * 3 * persons
        self.input_norm = nn.BatchNorm1d(features)
        self.encoder = FrameGRU(e, features)
        self.fc = head(2 * e.hidden, p.hidden, p.projection)
        if e.init == "xavier":  # of the head the last map alone: the rest is put in after the drawing
            for weight in (*self.encoder.parameters(), *self.fc[-1].parameters()):
                if weight.dim() == 2:
                    nn.init.xavier_uniform_(weight)

    def forward(self, x: Tensor) -> Tensor:
        frames = self.input_norm(flat_frames(x).permute(0, 2, 1).contiguous()).permute(0, 2, 1).contiguous()
        projected: Tensor = self.fc(self.encoder(frames))
        return projected


class CMD(Peer):
    """For each stream a query network, a key network and a queue; every stream's key teaches the other two queries."""

    method = "cmd"

    def __init__(self, config: TrialConfig, layout: Layout, persons: int = 2) -> None:
        super().__init__(config, layout, persons)
        augment.refuse(config, ONLY)
        p = config.params
        for end in END.values():
            query, key = Network(config, layout, persons), Network(config, layout, persons)
            setattr(self, f"encoder_q{end}", query)
            setattr(self, f"encoder_k{end}", frozen_copy(key, query))
            self.register_buffer(f"queue{end}", new_queue(p.projection, p.queue))
            self.register_buffer(f"queue_ptr{end}", torch.zeros(1, dtype=torch.long))

    @classmethod
    def views(cls, config: TrialConfig, layout: Layout, data: Array, index: NDArray[np.int64]) -> Views:
        augment.refuse(config, ops=OPS)
        return Feeder(config, data, index)

    def compare(self, view_q: Tensor, view_k: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Logits (N, 1+K) of each stream, and the sum of the six divergences."""
        inputs_q = {stream: derived(view_q, stream, self.layout) for stream in END}
        inputs_k = {stream: derived(view_k, stream, self.layout) for stream in END}
        q = {s: F.normalize(self.get_submodule(f"encoder_q{end}")(inputs_q[s]), dim=1) for s, end in END.items()}
        with torch.no_grad():
            for end in END.values():
                slow, online = self.get_submodule(f"encoder_k{end}"), self.get_submodule(f"encoder_q{end}")
                follow(slow, online, self.config.params.momentum)
            k = {s: F.normalize(self.get_submodule(f"encoder_k{end}")(inputs_k[s]), dim=1) for s, end in END.items()}
        queues = {s: self.get_buffer(f"queue{end}") for s, end in END.items()}
        cosines = {s: against_queue(q[s], k[s], queues[s]) for s in END}
        logits = {s: torch.cat(both, dim=1) / self.config.params.temperature for s, both in cosines.items()}
        taught = self.taught({s: negative for s, (_, negative) in cosines.items()}, k, queues)
        for stream, end in END.items():
            pointer = self.get_buffer(f"queue_ptr{end}")
            dequeue_and_enqueue(queues[stream], pointer, k[stream])
            move_pointer(queues[stream], pointer, len(k[stream]))
        return logits, taught

    def taught(self, student: dict[str, Tensor], keys: dict[str, Tensor], queues: dict[str, Tensor]) -> Tensor:
        """The sum over ordered pairs of streams of KL(teacher || student), over the teacher's nearest in the queue."""
        p, nearest = self.config.params, {}
        with torch.no_grad():
            for stream in END:
                teacher = torch.einsum("nc,ck->nk", keys[stream], queues[stream].clone().detach())
                nearest[stream] = torch.topk(teacher, p.neighbours, dim=1)
        total = torch.zeros((), dtype=keys["joint"].dtype, device=keys["joint"].device)
        for a, b in PAIRS:
            kept, index = nearest[a]
            log_student = F.log_softmax(torch.gather(student[b], 1, index) / p.student_temperature, dim=1)
            share = F.softmax(kept / p.teacher_temperature, dim=1)
            total = total + F.kl_div(log_student, share, reduction="batchmean")
        return total

    def loss(self, batch: tuple[Tensor, ...], progress: float) -> Tensor:
        logits, taught = self.compare(*batch)
        joint, motion, bone = (first_is_right(logits[stream]) for stream in END)
        total: Tensor = joint + motion + bone + self.config.params.cmd_weight * taught
        return total
