"""SCD-Net: a clip seen as frames and as joints, each view of it held against the whole clip's other embedding.

Objective   Wu et al. (SCD-Net), arXiv:2309.05834, and its public code. Three embeddings a clip: of its frames (time),
            of its joints (space), of both (instance), each with a projector and a queue of its momentum copy's.
            Four InfoNCE terms, all across levels: time and space queries against instance keys, instance queries
            against time and against space keys; none within a level, none between time and space.
Views       Both alike: crop-resize, then the stream, then rotation, flip, shear and two masks (a patch of joints,
            segments of time), each for every other clip.
Departures  Clips come at T frames, so that the crop is a share of those and the published floor of 64 recorded frames
            cannot hold; the least share is 0.8 here, which that floor is of NTU's usual 80 frames. Shear comes before
            flip and rotation, not after; ties in the joint mask are broken by lot, flips mirror x, rotations turn both
            ways (the published ones: ``paper_code``). The four terms can be weighed. Any batch size fits the queue.
Shapes      N clips, C channels, T frames, V joints, M persons, D projection width, K queued keys a level.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from methods.augment.policy import AugmentConfig
from methods.base import Method, StepOutput, Views, tunable
from methods.fields import require
from methods.filled import present_bodies
from methods.losses import feature_spread, info_nce
from methods.nn.ema import Ema, check_momentum, slow_copy
from methods.nn.heads import mlp
from methods.nn.queue import QueueGroup
from methods.nn.twopath import TwoPath, TwoPathConfig
from methods.recipe import OptimConfig, Recipe
from methods.registry import register

if TYPE_CHECKING:
    from methods.augment.policy import Policy

# The field that weighs a term -> the level of its query, and that of its key and queue.
TERMS = {
    "time_to_instance": ("time", "instance"),
    "space_to_instance": ("space", "instance"),
    "instance_to_time": ("instance", "time"),
    "instance_to_space": ("instance", "space"),
}
LEVELS = ("time", "space", "instance")


@dataclass(frozen=True)
class SCDNetConfig:
    """Everything a YAML may set under ``method: {scdnet: ...}``; the masks are the ``augment`` section's."""

    temperature: float = tunable(0.2, log=(0.05, 0.5), doc="tau of all four terms")
    momentum: float = tunable(0.999, near_one=(0.99, 0.9999), doc="m of the key encoder")
    momentum_schedule: str = tunable("constant", choice=("constant", "cosine"), doc="cosine lets m rise to 1")
    queue: int = tunable(8192, choice=(2048, 4096, 8192, 16384, 32768), doc="K, keys remembered a level")
    hidden: int = tunable(2048, choice=(256, 512, 1024, 2048), doc="hidden width of the three projectors")
    projection: int = tunable(128, choice=(64, 128, 256), doc="D, width of the compared vectors")
    time_to_instance: float = tunable(1.0, uniform=(0.0, 2.0), doc="weight of time queries against instance keys")
    space_to_instance: float = tunable(1.0, uniform=(0.0, 2.0), doc="weight of space queries against instance keys")
    instance_to_time: float = tunable(1.0, uniform=(0.0, 2.0), doc="weight of instance queries against time keys")
    instance_to_space: float = tunable(1.0, uniform=(0.0, 2.0), doc="weight of instance queries against space keys")
    ema_buffers: str = tunable("own", choice=("own", "copy"), doc="key encoder's running statistics")

    def __post_init__(self) -> None:
        check_momentum(self)
        for name, weight in self.weights().items():
            require(0 <= weight < math.inf, f"{name} must be finite, not negative, got {weight}")
        require(any(self.weights().values()), f"{', '.join(TERMS)} are all 0: nothing would be learnt")

    def weights(self) -> dict[str, float]:
        """Term -> what it is multiplied by before the four are added up."""
        return {name: getattr(self, name) for name in TERMS}


RECIPE = Recipe(
    frames=64,
    epochs=451,
    encoder=TwoPathConfig(),
    augment=AugmentConfig(
        crop=0.0,
        crop_resize=0.8,  # what [0.1, 1] with a floor of 64 frames is on NTU's clips of 80
        rotate=30.0,
        rotate_probability=0.5,
        flip=0.5,
        shear=1.0,
        shear_probability=0.5,
        joint_mask=0.5,
        segment_mask=0.5,
    ),
    optim=OptimConfig(name="sgd", lr=0.01, batch=64, schedule="step", step_at=351 / 451, weight_decay=1e-4),
    source="SCD-Net's public code, the run of its README on NTU-60",
    paper_code={
        "augment.crop_resize": 0.1,
        "augment.flip_reflect": False,
        "augment.rotate_both_ways": False,
        "augment.joint_mask_fair": False,
        "preprocess": ("agcn_paper",),
    },
)


@register("scdnet", config=SCDNetConfig, recipe=RECIPE)
class SCDNet(Method):
    """Two-path encoder + three projectors, their momentum copy, and three queues whose rows are the same clips."""

    streams_derived = "between"
    encoder: TwoPath  # whose feature is both paths' side by side

    def __init__(self, config: SCDNetConfig, encoder: TwoPath) -> None:
        super().__init__(config, encoder)
        widths = (encoder.time_dim, encoder.space_dim, encoder.dim)
        self.projectors = nn.ModuleDict({level: self._head(width) for level, width in zip(LEVELS, widths, strict=True)})
        self.slow_encoder = slow_copy(encoder, config)
        self.slow_projectors = nn.ModuleDict(
            {level: slow_copy(head, config) for level, head in self.projectors.items()}
        )
        self.queue = QueueGroup(LEVELS, config.queue, config.projection)

    def _head(self, width: int) -> nn.Sequential:
        head = mlp(width, self.config.hidden, self.config.projection)
        for weight in head.parameters():
            if weight.dim() == 2:
                nn.init.xavier_uniform_(weight)
        return head

    def make_views(self, clips: Tensor, policy: Policy, generator: Generator) -> Views:
        """Two crops in time, ``a`` and ``b``, of clips (N, C, T, V, M); from them the stream is taken."""
        present = present_bodies(clips)
        return Views({name: policy.in_time(clips, generator) for name in "ab"}, present)

    def finish_views(self, views: Views, policy: Policy, generator: Generator) -> Views:
        """Transforms and masks of a stream's clips (N, C, T, V, M)."""
        clips = {name: policy.in_space(x, generator, views.present) for name, x in views.clips.items()}
        return Views(clips, views.present, views.extra)

    def loss(self, views: Views, progress: float) -> StepOutput:
        """The four terms of view ``a`` (queries) against view ``b`` (keys), each (N, C, T, V, M)."""
        c = self.config
        query = self._embedded(self.encoder(views["a"], views.present), self.projectors)
        self._follow(progress)
        key = self._keys(views)
        # Copies of the queues: the rows written below would otherwise change under the backward pass.
        queued = {level: self.queue[level].clone() for level in LEVELS}
        terms = {name: info_nce(query[q], key[k], queued[k], c.temperature) for name, (q, k) in TERMS.items()}
        self.queue.enqueue(key)
        total = torch.stack([weight * terms[name] for name, weight in c.weights().items()]).sum()
        logs = {f"{level}_spread": feature_spread(query[level]) for level in LEVELS}
        return StepOutput(total, logs | {name: term.detach() for name, term in terms.items()})

    def _embedded(self, features: Tensor, heads: nn.ModuleDict) -> dict[str, Tensor]:
        """Level -> (N, D), from both paths' features (N, dim)."""
        time, space = features.split([self.encoder.time_dim, self.encoder.space_dim], dim=1)
        return {level: heads[level](x) for level, x in zip(LEVELS, (time, space, features), strict=True)}

    @torch.no_grad()
    def _keys(self, views: Views) -> dict[str, Tensor]:
        """Level -> unit keys (N, D) of view ``b``."""
        embedded = self._embedded(self.slow_encoder(views["b"], views.present), self.slow_projectors)
        return {level: F.normalize(each, dim=1) for level, each in embedded.items()}

    def _follow(self, progress: float) -> None:
        """Move the copy before its pass, as in MoCo: it follows the weights of the step before."""
        self.slow_encoder.update(self.encoder, progress)
        for level, slow in self.slow_projectors.items():
            cast(Ema, slow).update(self.projectors[level], progress)
