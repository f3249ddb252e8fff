"""AimCLR: SkeletonCLR with a third, extreme view that has to see the queue as the normal view does.

Objective   Guo et al. (AimCLR), arXiv:2112.03590, section 3, and its public code. Query and key are normal views, with
            InfoNCE; the extreme view and the same view after the attention drop (EADM) learn the query's distribution
            over own key and queue (D3M, the mean of two cross entropies); from half of the run on the queue's
            neighbours of all three are positives of the query too (NNM).
Views       ``augment`` is the recipe of the *extreme* view; of it the normal views take the crop and the shear alone.
            ``augment.strength`` scales all three. Time flip is an option of the public code that it leaves off.
Departures  The key encoder starts as a copy of the query encoder (``init_sync``). Flips mirror x, rotations turn both
            ways, the blur keeps its scale and noise leaves absent bodies empty (the published ones: ``paper_code``).
            ``projector_norm``, off as published, as in SkeletonCLR.
Shapes      N clips, C channels, T frames, V joints, M persons, D projection width, K queued keys.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from methods.augment.policy import AugmentConfig
from methods.base import Method, Stage, StepOutput, Views, tunable, two_views
from methods.fields import require
from methods.losses import (
    distribution_match,
    feature_spread,
    multi_positive_nce,
    nearest,
    similarities,
    with_own_key,
)
from methods.nn.attention_drop import LOWEST
from methods.nn.ema import check_momentum, slow_copy
from methods.nn.encoder import EncoderConfig
from methods.nn.heads import mlp
from methods.nn.queue import MemoryQueue
from methods.nn.stgcn import STGCN, normal_init
from methods.recipe import OptimConfig, Recipe
from methods.registry import register

if TYPE_CHECKING:
    from methods.augment.policy import Policy


@dataclass(frozen=True)
class AimCLRConfig:
    """Everything a YAML may set under ``method: {aimclr: ...}``."""

    temperature: float = tunable(0.07, log=(0.03, 0.3), doc="tau of all losses")
    momentum: float = tunable(0.999, near_one=(0.95, 0.9999), doc="m of the key encoder")
    momentum_schedule: str = tunable("constant", choice=("constant", "cosine"), doc="cosine lets m rise to 1")
    queue: int = tunable(32768, choice=(256, 1024, 4096, 16384, 32768), doc="K, number of keys remembered")
    hidden: int = tunable(256, choice=(128, 256, 512), doc="hidden width of the projector")
    projection: int = tunable(128, choice=(64, 128, 256), doc="D, width of the compared vectors")
    projector_norm: bool = tunable(False, doc="batch norm inside the projector (published: false)")
    drop_threshold: float = tunable(0.7, uniform=(0.63, 0.85), doc="kappa: cells with more attention are dropped")
    d3m_weight: float = tunable(1.0, log=(0.1, 3.0), doc="weight of the extreme views' loss beside the query's")
    mining_start: float = tunable(0.5, uniform=(0.3, 0.8), doc="share of the run before mining; 1 = never")
    topk: int = tunable(1, int=(1, 10), doc="neighbours that each of the three views contributes as positives")
    init_sync: bool = tunable(True, doc="key encoder starts equal to the query encoder (the public code: false)")
    ema_buffers: str = tunable("own", choice=("own", "copy"), doc="key encoder's running statistics")

    def __post_init__(self) -> None:
        check_momentum(self)
        require(
            LOWEST < self.drop_threshold < 1,
            f"drop_threshold must lie between {LOWEST:.4f}, where everything goes, and 1, got {self.drop_threshold}",
        )
        require(0 <= self.d3m_weight < math.inf, f"d3m_weight must be finite, not negative, got {self.d3m_weight}")
        require(0 <= self.mining_start <= 1, f"mining_start is a share of the run in [0, 1], got {self.mining_start}")
        require(1 <= self.topk <= self.queue, f"topk must lie in 1..queue ({self.queue}), got {self.topk}")


RECIPE = Recipe(
    frames=50,
    epochs=300,
    encoder=EncoderConfig(width=16, dim=256),
    augment=AugmentConfig(
        crop=6.0, shear=0.5, flip=0.5, rotate=30.0, noise=0.01, noise_probability=0.5, blur=0.5, axis_mask=0.5
    ),
    optim=OptimConfig(name="sgd", lr=0.1, batch=128, schedule="step", step_at=250 / 300, weight_decay=1e-4),
    source="AimCLR's public code, NTU-60 configuration",
    paper_code={
        "init_sync": False,
        "augment.repeat": True,
        "augment.flip_reflect": False,
        "augment.rotate_both_ways": False,
        "augment.noise_absent": True,
        "augment.blur_normalise": False,
        "encoder.partition": "spatial_degenerate",
        "preprocess": ("trim_paper", "centre", "resize", "rotate_y_paper"),
    },
)


def normal_part(config: AugmentConfig) -> AugmentConfig:
    """The crops and shears of an extreme recipe, at its strength: what the query's and the key's views are made by."""
    return AugmentConfig(
        strength=config.strength,
        crop=config.crop,
        crop_resize=config.crop_resize,
        crop_resize_frames=config.crop_resize_frames,
        shear=config.shear,
        shear_probability=config.shear_probability,
        per_batch=config.per_batch,
    )


@register("aimclr", config=AimCLRConfig, recipe=RECIPE)
class AimCLR(Method):
    """Query encoder + projector, their momentum copy, and a queue of the copy's outputs."""

    encoder: STGCN  # whose last map is dropped from before it is pooled

    def __init__(self, config: AimCLRConfig, encoder: STGCN) -> None:
        super().__init__(config, encoder)
        self.projector = mlp(encoder.dim, config.hidden, config.projection, batch_norm=config.projector_norm)
        self.projector.apply(normal_init)
        self.slow_encoder = slow_copy(encoder, config)
        self.slow_projector = slow_copy(self.projector, config)
        self.queue = MemoryQueue(config.queue, config.projection)

    @classmethod
    def stages(cls, config: AimCLRConfig) -> tuple[Stage, ...]:
        """One positive a clip up to ``mining_start``, then its neighbours too; a stage of no length is left out."""
        alone, mining = Stage("contrast", 0.0), Stage("mining", config.mining_start)
        if config.mining_start == 0:
            return (mining,)
        return (alone, mining) if config.mining_start < 1 else (alone,)

    def make_views(self, clips: Tensor, policy: Policy, generator: Generator) -> Views:
        """Normal views ``a`` (query) and ``b`` (key), and ``extreme``, of clips (N, C, T, V, M)."""
        normal = copy.copy(policy)
        normal.config = normal_part(policy.config)
        views = two_views(clips, normal, generator)
        return Views({**views.clips, "extreme": policy(clips, generator)}, views.present)

    def loss(self, views: Views, progress: float) -> StepOutput:
        """InfoNCE or NNM of ``a`` against ``b``, and D3M of ``extreme`` with and without the drop."""
        c = self.config
        students = self._queries(views)
        # The key encoder moves before its pass, as in MoCo: it follows the weights of the step before.
        self.slow_encoder.update(self.encoder, progress)
        self.slow_projector.update(self.projector, progress)
        key = F.normalize(self.slow_projector(self.slow_encoder(views["b"], views.present)), dim=1)  # (N, D)
        # A copy of the queue: the rows written below would otherwise change under the backward pass.
        queue = self.queue.keys.clone()
        cosines = [similarities(student, key, queue) for student in students]  # (N, 1+K) each
        query, extreme, dropped = (each / c.temperature for each in cosines)
        contrast = multi_positive_nce(query, self._positives(cosines, progress))
        match = (distribution_match(extreme, query) + distribution_match(dropped, query)) / 2
        self.queue.enqueue(key)
        logs = {"projection_spread": feature_spread(students[0]), "nce": contrast.detach(), "d3m": match.detach()}
        return StepOutput(contrast + c.d3m_weight * match, logs)

    def _queries(self, views: Views) -> tuple[Tensor, Tensor, Tensor]:
        """Projections (N, D) of the query, of the extreme view, and of that view after the drop, from one pass."""
        present = views.present
        query = self.projector(self.encoder(views["a"], present))
        maps = self.encoder.features(views["extreme"], present)
        dropped = self.encoder.drop_attended(maps, self.config.drop_threshold, present)
        extreme, hidden = (self.projector(self.encoder.pool(each, present)) for each in (maps, dropped))
        return query, extreme, hidden

    def _positives(self, cosines: list[Tensor], progress: float) -> Tensor:
        """(N, 1+K) bool: the own key, and in the mining stage the queued neighbours of any of the three views."""
        queued = [each[:, 1:].detach() for each in cosines]
        if progress < self.config.mining_start:
            return with_own_key(torch.zeros_like(queued[0], dtype=torch.bool))
        return with_own_key(nearest(*queued, topk=self.config.topk))
