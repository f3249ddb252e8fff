"""SCD-Net as its public code trains it: masked views of each clip, two encoders of two paths, three queues.

Written anew from the published description (arXiv:2309.05834); submodules bear the official names. N clips, C channels,
T frames, V joints, M persons, d width of a token, D projection width, K queued keys.
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
from benchmarks.peer.ctrgcn import CTRGCN
from benchmarks.peer.moco import against_queue, dequeue_and_enqueue, first_is_right, head, move_pointer, new_queue
from methods.data.layouts import Layout
from methods.nn.graph import adjacency
from methods.training.config import TrialConfig

OPS = (
    "crop_resize",
    "rotate",
    "rotate_probability",
    "flip",
    "shear",
    "shear_probability",
    "joint_mask",
    "segment_mask",
)
STREAMS = (("joint",), ("motion",), ("bone",))  # one a run
ONLY = {
    "encoder.segments": (1,),
    "encoder.partition": ("inward_outward",),
    "encoder.init": ("xavier",),
    "encoder.precision": ("fp32",),
    "params.momentum_schedule": ("constant",),
    "params.ema_buffers": ("own",),
    "streams.use": STREAMS,
    "optim.name": ("sgd",),
    "optim.nesterov": (False,),
    "optim.order": ("shuffled",),
}


class Feeder(Views):
    """Two views of each clip: crop-resize, the stream, then each of five ops every other time."""

    def __init__(self, config: TrialConfig, layout: Layout, data: Array, index: NDArray[np.int64]) -> None:
        self.config, self.layout, self.data, self.index = config, layout, data, index
        self.valid = [augment.valid_frames(data[i]) for i in index]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, i: int) -> tuple[NDArray[Any], ...]:
        clip = np.array(self.data[self.index[i]])
        return self.view(clip, self.valid[i]), self.view(clip, self.valid[i])

    def view(self, clip: Clip, valid: int) -> Clip:
        """One augmented copy of a clip (C, T, V, M) of ``valid`` frames."""
        a, (stream,) = self.config.augment, self.config.streams.use
        if a.crop_resize:
            clip = augment.crop_resize(clip, valid, a.crop_resize, a.crop_resize_frames, self.config.frames)
        clip = augment.stream_of(clip, stream, self.layout.parents)
        if a.rotate and random.random() < a.rotate_probability:
            clip = augment.rotate(clip, a.rotate, a.rotate_both_ways)
        if random.random() < a.flip:
            clip = augment.flip(clip, self.layout.mirror, a.flip_reflect)
        if a.shear and random.random() < a.shear_probability:
            clip = augment.shear(clip, a.shear)
        if random.random() < a.joint_mask:
            reach = augment.joint_reach(self.layout.parents)  # anew for every clip, as in the code
            scores = augment.joint_scores(reach, a.joint_mask_seeds)
            clip = augment.mask_joints(clip, scores, int(a.joint_mask_joints * len(scores) + 0.5), a.joint_mask_fair)
        if random.random() < a.segment_mask:
            clip = augment.mask_segments(clip, a.segment_mask_share)
        return clip


class TwoPath(nn.Module):
    """Clips (N, C, T, V, M) -> what the path of frames and the path of joints say, each (N, d)."""

    def __init__(self, config: TrialConfig, layout: Layout, persons: int) -> None:
        super().__init__()
        e, d, self.persons = config.encoder, config.encoder.d_model, persons
        graph = adjacency(layout, e.partition)
        self.gcn_t, self.gcn_s = CTRGCN(graph, persons, e.base), CTRGCN(graph, persons, e.base)
        layer = nn.TransformerEncoderLayer(d, e.heads, d, e.dropout, batch_first=True)
        self.t_encoder = nn.TransformerEncoder(layer, e.layers)  # each holds copies of the one layer
        self.s_encoder = nn.TransformerEncoder(layer, e.layers)

        def tokens(width: int) -> nn.Sequential:
            return nn.Sequential(nn.Linear(width, d), nn.LayerNorm(d), nn.ReLU(inplace=True), nn.Linear(d, d))

        self.channel_t = tokens(persons * layout.num_joints * e.base)
        self.channel_s = tokens(config.frames * e.base)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        frames = self._bodies(self.gcn_t(x)).permute(0, 3, 1, 4, 2).flatten(2)  # (N, T, M*V*C)
        vt = self.t_encoder(self.channel_t(frames)).amax(dim=1)
        joints = self._bodies(self.gcn_s(x)).permute(0, 1, 4, 3, 2).flatten(3).flatten(1, 2)  # (N, M*V, T*C)
        vs = self.s_encoder(self.channel_s(joints)).amax(dim=1)
        return vt, vs

    def _bodies(self, maps: Tensor) -> Tensor:
        """(N*M, C, T, V) -> (N, M, C, T, V)."""
        return maps.view(-1, self.persons, *maps.shape[1:])


class Network(nn.Module):
    """The encoder and its three projectors: clips -> embeddings of frames, of joints and of both, each (N, D)."""

    def __init__(self, config: TrialConfig, layout: Layout, persons: int) -> None:
        super().__init__()
        p, d = config.params, config.encoder.d_model
        self.encoder = TwoPath(config, layout, persons)
        self.t_proj = head(d, p.hidden, p.projection)
        self.s_proj = head(d, p.hidden, p.projection)
        self.i_proj = head(2 * d, p.hidden, p.projection)
        for weight in self.parameters():
            if weight.dim() == 2:
                nn.init.xavier_uniform_(weight)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        vt, vs = self.encoder(x)
        return self.t_proj(vt), self.s_proj(vs), self.i_proj(torch.cat([vt, vs], dim=1))


class SCDNet(Peer):
    """Query network, key network, a queue for each of the three embeddings; four terms, all across levels."""

    method = "scdnet"
    t_queue: Tensor
    s_queue: Tensor
    i_queue: Tensor

    def __init__(self, config: TrialConfig, layout: Layout, persons: int = 2) -> None:
        super().__init__(config, layout, persons)
        augment.refuse(config, ONLY)
        p = config.params
        self.encoder_q, self.encoder_k = Network(config, layout, persons), Network(config, layout, persons)
        frozen_copy(self.encoder_k, self.encoder_q)
        for level in "tsi":
            self.register_buffer(f"{level}_queue", new_queue(p.projection, p.queue))
            self.register_buffer(f"{level}_queue_ptr", torch.zeros(1, dtype=torch.long))

    @classmethod
    def views(cls, config: TrialConfig, layout: Layout, data: Array, index: NDArray[np.int64]) -> Views:
        augment.refuse(config, {"streams.use": STREAMS}, OPS)
        return Feeder(config, layout, data, index)

    def logits(self, view_q: Tensor, view_k: Tensor) -> dict[str, Tensor]:
        """Logits (N, 1+K) of the four terms, each named by the level of its query and that of its key."""
        qt, qs, qi = (F.normalize(each, dim=1) for each in self.encoder_q(view_q))
        with torch.no_grad():
            follow(self.encoder_k, self.encoder_q, self.config.params.momentum)
            kt, ks, ki = (F.normalize(each, dim=1) for each in self.encoder_k(view_k))
        logits = {
            "ti": self._logits(qt, ki, self.i_queue),
            "si": self._logits(qs, ki, self.i_queue),
            "it": self._logits(qi, kt, self.t_queue),
            "is": self._logits(qi, ks, self.s_queue),
        }
        for level, keys in zip("tsi", (kt, ks, ki), strict=True):
            queue, pointer = getattr(self, f"{level}_queue"), getattr(self, f"{level}_queue_ptr")
            dequeue_and_enqueue(queue, pointer, keys)
            move_pointer(queue, pointer, len(keys))
        return logits

    def _logits(self, q: Tensor, k: Tensor, queue: Tensor) -> Tensor:
        logits: Tensor = torch.cat(against_queue(q, k, queue), dim=1) / self.config.params.temperature
        return logits

    def loss(self, batch: tuple[Tensor, ...], progress: float) -> Tensor:
        p, logits = self.config.params, self.logits(*batch)
        in_time, in_space = first_is_right(logits["ti"]), first_is_right(logits["si"])
        to_time, to_space = first_is_right(logits["it"]), first_is_right(logits["is"])
        whole: Tensor = p.time_to_instance * in_time + p.space_to_instance * in_space
        parts: Tensor = p.instance_to_time * to_time + p.instance_to_space * to_space
        return whole + parts
