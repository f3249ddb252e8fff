"""CrosSCLR: each stream's contrastive learning takes its positives also from what another stream finds alike.

Objective   Li et al. (CrosSCLR), arXiv:2104.14087, sections 3.1-3.3, and its public code: SkeletonCLR (InfoNCE against
            a momentum encoder's queue) in every stream; from half of the run on, for every ordered pair u <- v, the
            nearest neighbours that v finds in its queue are positives of u too, in u's own similarities and in the
            products of both streams' (the context). A stream's loss is the mean over the others.
Departures  Every stream has a projector of its own. In the public code the other streams' heads run through the whole
            head of the joint stream, which is then moved once for each (``share_head``), and from the cross stage on
            only the motion stream's key encoder moves at all (``cross_ema: motion_only``). The key encoder starts as a
            copy of the query encoder (``init_sync``). ``projector_norm``, off as published, as in SkeletonCLR.
Shapes      N clips, C channels, T frames, V joints, M persons, D projection width, K queued keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.augment.policy import AugmentConfig
from methods.base import JointMethod, Stage, StepOutput, Views, tunable
from methods.errors import InputError
from methods.fields import require
from methods.losses import cross_stream_nce, feature_spread, info_nce, similarities
from methods.nn.ema import Ema, check_momentum, slow_copy
from methods.nn.encoder import Encoder, EncoderConfig
from methods.nn.heads import mlp
from methods.nn.queue import QueueGroup
from methods.nn.stgcn import normal_init
from methods.recipe import OptimConfig, Recipe
from methods.registry import register

Streams = Mapping[str, Tensor]  # stream -> (N, D) vectors or (K, D) queued ones


@dataclass(frozen=True)
class CrosSCLRConfig:
    """Everything a YAML may set under ``method: {crossclr: ...}``."""

    temperature: float = tunable(0.07, log=(0.03, 0.3), doc="tau of both losses")
    momentum: float = tunable(0.999, near_one=(0.95, 0.9999), doc="m of the key encoders")
    momentum_schedule: str = tunable("constant", choice=("constant", "cosine"), doc="cosine lets m rise to 1")
    queue: int = tunable(32768, choice=(256, 1024, 4096, 16384, 32768), doc="K, keys remembered a stream")
    hidden: int = tunable(256, choice=(128, 256, 512), doc="hidden width of the projectors")
    projection: int = tunable(128, choice=(64, 128, 256), doc="D, width of the compared vectors")
    projector_norm: bool = tunable(False, doc="batch norm inside the projectors (published: false)")
    cross_start: float = tunable(0.5, uniform=(0.3, 0.8), doc="share of the run before streams look across; 1 = never")
    topk: int = tunable(1, int=(1, 10), doc="neighbours that the other stream contributes as positives")
    context: bool = tunable(True, choice=(True, False), doc="K more logits: products of both streams' similarities")
    init_sync: bool = tunable(True, doc="key encoders start equal to the query encoders (the public code: false)")
    ema_buffers: str = tunable("own", choice=("own", "copy"), doc="key encoders' running statistics")
    share_head: bool = tunable(
        False, choice=(False, True), doc="all heads end in the joint stream's (the public code: true)"
    )
    cross_ema: str = tunable(
        "all", doc="all or motion_only: key encoders that still move then (the public code: the 2nd)"
    )

    def __post_init__(self) -> None:
        check_momentum(self)
        require(0 <= self.cross_start <= 1, f"cross_start is a share of the run in [0, 1], got {self.cross_start}")
        require(1 <= self.topk <= self.queue, f"topk must lie in 1..queue ({self.queue}), got {self.topk}")
        require(
            self.cross_ema in ("all", "motion_only"), f"cross_ema must be all or motion_only, got {self.cross_ema!r}"
        )


RECIPE = Recipe(
    frames=50,
    epochs=300,
    encoder=EncoderConfig(width=16, dim=256),
    augment=AugmentConfig(crop=6.0, shear=0.5),
    optim=OptimConfig(name="sgd", lr=0.1, batch=128, schedule="step", step_at=250 / 300, weight_decay=1e-4),
    source="CrosSCLR's public code, three-stream configuration on NTU-60",
    paper_code={
        "init_sync": False,
        "augment.repeat": True,
        "share_head": True,
        "cross_ema": "motion_only",
        "encoder.partition": "spatial_degenerate",
        "preprocess": ("trim_paper", "centre", "resize", "rotate_y_paper"),
    },
    use=("joint", "motion", "bone"),
)


@register("crossclr", config=CrosSCLRConfig, recipe=RECIPE)
class CrosSCLR(JointMethod):
    """For each stream a query encoder, a projector and their momentum copies; queues whose rows are the same clips."""

    least_streams = 2
    for_one_stream = "skeletonclr"

    def __init__(self, config: CrosSCLRConfig, encoders: Mapping[str, Encoder]) -> None:
        super().__init__(config, encoders)
        _check_streams(config, self.streams)
        self.head_owner = "joint" if "joint" in encoders else next(iter(encoders))
        self.projectors = nn.ModuleDict({name: self._head(name, encoder.dim) for name, encoder in encoders.items()})
        self.projectors.apply(normal_init)
        self.slow_encoders = nn.ModuleDict({name: slow_copy(module, config) for name, module in self.encoders.items()})
        self.slow_projectors = nn.ModuleDict(
            {name: slow_copy(module, config) for name, module in self.projectors.items()}
        )
        self.queue = QueueGroup(encoders, config.queue, config.projection)

    def _head(self, stream: str, width: int) -> nn.Sequential:
        """A stream's projector; with ``share_head`` only what comes before the owner's, for all but the owner."""
        if self.config.share_head and stream != self.head_owner:
            return nn.Sequential(nn.Linear(width, width), nn.ReLU())
        c = self.config
        return mlp(width, c.hidden, c.projection, batch_norm=c.projector_norm)

    @classmethod
    def stages(cls, config: CrosSCLRConfig) -> tuple[Stage, ...]:
        """Each stream for itself up to ``cross_start``, then across; a stage of no length is left out."""
        alone, across = Stage("contrast", 0.0), Stage("cross", config.cross_start)
        if config.cross_start == 0:
            return (across,)
        return (alone, across) if config.cross_start < 1 else (alone,)

    def _query(self, views: Views, stream: str) -> Tensor:
        return self._projected(self.encoders[stream](views["a"], views.present), stream, self.projectors)

    @torch.no_grad()
    def _key(self, views: Views, stream: str) -> Tensor:
        features = self.slow_encoders[stream](views["b"], views.present)
        return F.normalize(self._projected(features, stream, self.slow_projectors), dim=1)

    def _projected(self, features: Tensor, stream: str, heads: nn.ModuleDict) -> Tensor:
        projected: Tensor = heads[stream](features)
        if self.config.share_head and stream != self.head_owner:
            projected = heads[self.head_owner](projected)
        return projected

    def _follow(self, stream: str, progress: float) -> None:
        """Move a stream's key encoder and its head; a shared part moves once for each stream that moves it."""
        moved = {stream, self.head_owner} if self.config.share_head else {stream}
        pairs = [(self.slow_encoders[stream], self.encoders[stream])]
        pairs += [(self.slow_projectors[name], self.projectors[name]) for name in sorted(moved)]
        for slow, online in pairs:
            cast(Ema, slow).update(online, progress)

    def losses(self, views: Mapping[str, Views], progress: float) -> dict[str, StepOutput]:
        """Of each stream view ``a`` is the query and view ``b`` the key, each (N, C, T, V, M)."""
        crossing = progress >= self.config.cross_start
        query = {name: self._query(views[name], name) for name in self.streams}  # (N, D) each
        for name in self.streams:  # before the keys, as in MoCo: they follow the weights of the step before
            if name == "motion" or not crossing or self.config.cross_ema == "all":
                self._follow(name, progress)
        key = {name: self._key(views[name], name) for name in self.streams}  # (N, D) each, no gradient
        # Copies of the queues: the rows written below would otherwise change under the backward pass.
        queued = {name: self.queue[name].clone() for name in self.streams}
        loss = self._across(query, key, queued) if crossing else self._alone(query, key, queued)
        self.queue.enqueue(key)
        return {name: StepOutput(loss[name], {"projection_spread": feature_spread(query[name])}) for name in loss}

    def _alone(self, query: Streams, key: Streams, queued: Streams) -> dict[str, Tensor]:
        tau = self.config.temperature
        return {name: info_nce(query[name], key[name], queued[name], tau) for name in query}

    def _across(self, query: Streams, key: Streams, queued: Streams) -> dict[str, Tensor]:
        """Stream u -> the mean over the other streams v of the loss with the neighbours that v finds."""
        c, count = self.config, len(query) - 1
        cosines = {name: similarities(query[name], key[name], queued[name]) for name in query}  # (N, 1+K) each
        loss = {name: query[name].new_zeros(()) for name in query}
        for u, v in permutations(cosines, 2):
            loss[u] = loss[u] + cross_stream_nce(cosines[u], cosines[v], c.temperature, c.topk, c.context) / count
        return loss


def _check_streams(config: CrosSCLRConfig, streams: tuple[str, ...]) -> None:
    faults, use = [], ", ".join(streams)
    if len(streams) < 2:
        faults.append(f"crossclr needs two streams or more, streams.use has {use}; its method for one is skeletonclr")
    if config.cross_ema == "motion_only" and "motion" not in streams:
        faults.append(f"cross_ema: motion_only needs the motion stream, streams.use has {use}; cross_ema: all does not")
    if faults:
        raise InputError(*faults)
