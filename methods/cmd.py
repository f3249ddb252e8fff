"""CMD: three recurrent networks learn a stream each, and each to see its neighbours as the other two do.

Objective   Mao et al. (CMD), arXiv:2208.12448, and its public code: InfoNCE against a momentum encoder's queue in every
            stream and, for every ordered pair of streams, the divergence of the student's query from the teacher's key:
            both as distributions over the clips in the queue that the teacher finds most alike, the teacher's sharper.
            All terms are added up, from the first step on.
Views       Both alike: crop-resize, then either a shear or a corruption of some joints.
Departures  The two directions of the GRU run against each other and are read where each ends; in the public code, which
            hands over one frame at a time, both run forward and are read at the last frame (``paper_code``). Clips come
            at T frames, so that the crop is a share of those and the published floor of 64 recorded frames cannot hold;
            the least share is 0.8 here, which that floor is of NTU's usual 80 frames. Any streams: with one alone the
            method is MoCo with a GRU. The neighbours are a share of the queue (published: 8192 of 16384). Any batch
            size fits the queue.
Shapes      N clips, C channels, T frames, V joints, M persons, D projection width, K queued keys a stream.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.augment.policy import AugmentConfig
from methods.base import JointMethod, StepOutput, Views, tunable
from methods.fields import require
from methods.losses import feature_spread, info_nce, similarity_distillation
from methods.nn.ema import Ema, check_momentum, slow_copy
from methods.nn.encoder import Encoder
from methods.nn.gru import GruConfig
from methods.nn.heads import mlp
from methods.nn.queue import QueueGroup
from methods.recipe import OptimConfig, Recipe
from methods.registry import register

Streams = Mapping[str, Tensor]  # stream -> (N, D) vectors or (K, D) queued ones


@dataclass(frozen=True)
class CMDConfig:
    """Everything a YAML may set under ``method: {cmd: ...}``."""

    temperature: float = tunable(0.07, log=(0.03, 0.3), doc="tau of InfoNCE")
    momentum: float = tunable(0.999, near_one=(0.95, 0.9999), doc="m of the key encoders")
    momentum_schedule: str = tunable("constant", choice=("constant", "cosine"), doc="cosine lets m rise to 1")
    queue: int = tunable(16384, choice=(256, 1024, 4096, 16384, 32768), doc="K, keys remembered a stream")
    hidden: int = tunable(2048, choice=(256, 512, 1024, 2048), doc="hidden width of the projectors")
    projection: int = tunable(128, choice=(64, 128, 256), doc="D, width of the compared vectors")
    # The suggested ranges of both temperatures do not meet, so that no draw of a search is refused.
    teacher_temperature: float = tunable(0.05, log=(0.02, 0.07), doc="tau of the teacher, below the student's")
    student_temperature: float = tunable(0.1, log=(0.08, 0.3), doc="tau of the student")
    topk: float = tunable(0.5, log=(0.02, 1.0), doc="share of the queue, the teacher's nearest, that is compared over")
    cmd_weight: float = tunable(1.0, log=(0.1, 10.0), doc="weight of the sum over pairs of streams; 0 = none")
    ema_buffers: str = tunable("own", choice=("own", "copy"), doc="key encoders' running statistics")

    def __post_init__(self) -> None:
        check_momentum(self)
        for name in ("temperature", "teacher_temperature", "student_temperature"):
            require(getattr(self, name) > 0, f"{name} must be positive, got {getattr(self, name)}")
        require(
            self.teacher_temperature < self.student_temperature,
            f"teacher_temperature must be below student_temperature ({self.student_temperature}), or the teacher "
            f"teaches nothing that is sharper, got {self.teacher_temperature}",
        )
        require(0 < self.topk <= 1, f"topk is a share of the queue in (0, 1], got {self.topk}")
        require(0 <= self.cmd_weight < math.inf, f"cmd_weight must be finite, not negative, got {self.cmd_weight}")

    @property
    def neighbours(self) -> int:
        """``topk`` as a number of queued clips, at least 1."""
        return max(1, round(self.topk * self.queue))


RECIPE = Recipe(
    frames=64,
    epochs=451,
    encoder=GruConfig(hidden=1024, layers=3, stepwise=False, pool="ends", input_norm="joint", init="xavier"),
    augment=AugmentConfig(crop=0.0, crop_resize=0.8, shear=1.0, corrupt=0.5, corrupt_joints=0.6),
    optim=OptimConfig(name="sgd", lr=0.01, batch=64, schedule="step", step_at=351 / 451, weight_decay=1e-4),
    source="CMD's public code, NTU configuration",
    paper_code={
        "augment.crop_resize": 0.1,
        "encoder.stepwise": True,
        "encoder.pool": "last",
        "preprocess": ("agcn_paper",),
    },
    use=("joint", "motion", "bone"),
)


@register("cmd", config=CMDConfig, recipe=RECIPE)
class CMD(JointMethod):
    """For each stream a query encoder, a projector and their momentum copies; queues whose rows are the same clips."""

    def __init__(self, config: CMDConfig, encoders: Mapping[str, Encoder]) -> None:
        super().__init__(config, encoders)
        self.projectors = nn.ModuleDict({name: self._head(encoder.dim) for name, encoder in encoders.items()})
        self.slow_encoders = nn.ModuleDict({name: slow_copy(module, config) for name, module in self.encoders.items()})
        self.slow_projectors = nn.ModuleDict(
            {name: slow_copy(module, config) for name, module in self.projectors.items()}
        )
        self.queue = QueueGroup(encoders, config.queue, config.projection)

    def _head(self, width: int) -> nn.Sequential:
        """Of a projector only the last matrix is drawn by Xavier's rule: in the code the rest comes after that."""
        head = mlp(width, self.config.hidden, self.config.projection)
        nn.init.xavier_uniform_(cast(nn.Linear, head[-1]).weight)
        return head

    def losses(self, views: Mapping[str, Views], progress: float) -> dict[str, StepOutput]:
        """Of each stream view ``a`` is the query and view ``b`` the key, each (N, C, T, V, M).

        A stream's loss is its InfoNCE and ``cmd_weight`` times what the others teach it.
        """
        query = {s: self.projectors[s](self.encoders[s](views[s]["a"], views[s].present)) for s in self.streams}
        self._follow(progress)
        key = {s: self._key(views[s], s) for s in self.streams}
        # Copies of the queues: the rows written below would otherwise change under the backward pass.
        queued = {s: self.queue[s].clone() for s in self.streams}
        taught = self._taught(query, key, queued)
        self.queue.enqueue(key)
        found = {}
        for s in self.streams:
            contrast = info_nce(query[s], key[s], queued[s], self.config.temperature)
            logs = {"nce": contrast.detach(), "distillation": taught[s].detach()}
            logs["projection_spread"] = feature_spread(query[s])
            found[s] = StepOutput(contrast + self.config.cmd_weight * taught[s], logs)
        return found

    def _taught(self, query: Streams, key: Streams, queued: Streams) -> dict[str, Tensor]:
        """Student -> the sum over its teachers of the divergence; no gradient reaches keys or queues."""
        c = self.config
        student = {s: F.normalize(query[s], dim=1) @ queued[s].T for s in query}  # (N, K) each
        teacher = {s: key[s] @ queued[s].T for s in query}
        taught = {s: query[s].new_zeros(()) for s in query}
        for a, b in permutations(query, 2):
            taught[b] = taught[b] + similarity_distillation(
                student[b], teacher[a], c.neighbours, c.teacher_temperature, c.student_temperature
            )
        return taught

    @torch.no_grad()
    def _key(self, views: Views, stream: str) -> Tensor:
        """Unit keys (N, D) of view ``b``."""
        features = self.slow_encoders[stream](views["b"], views.present)
        return F.normalize(self.slow_projectors[stream](features), dim=1)

    def _follow(self, progress: float) -> None:
        """Move the copies before their pass, as in MoCo: they follow the weights of the step before."""
        for slow, online in ((self.slow_encoders, self.encoders), (self.slow_projectors, self.projectors)):
            for name, target in slow.items():
                cast(Ema, target).update(online[name], progress)
