"""SkeletonCLR: a clip's two views agree among a queue of other clips.

Objective   InfoNCE against a momentum encoder's queue: He et al. (MoCo), arXiv:1911.05722, equations 1-2; for skeletons
            Li et al. (CrosSCLR), arXiv:2104.14087, section 3.1 (SkeletonCLR), and its public code.
Departures  The key encoder starts as a copy of the query encoder (``init_sync``; the public code draws it anew);
            any batch size fits the queue. ``projector_norm`` (off, as published) puts a batch norm into the
            projector: without it a short run at a high rate sends all clips in one direction while the queue still
            holds random ones, and seldom comes back.
Shapes      N clips, C channels, T frames, V joints, M persons, D projection width.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch.nn import functional as F

from methods.augment.policy import AugmentConfig
from methods.base import Method, StepOutput, Views, tunable
from methods.losses import feature_spread, info_nce
from methods.nn.ema import check_momentum, slow_copy
from methods.nn.encoder import Encoder, EncoderConfig
from methods.nn.heads import mlp
from methods.nn.queue import MemoryQueue
from methods.nn.stgcn import normal_init
from methods.recipe import OptimConfig, Recipe
from methods.registry import register


@dataclass(frozen=True)
class SkeletonCLRConfig:
    """Everything a YAML may set under ``method: {skeletonclr: ...}``."""

    temperature: float = tunable(0.07, log=(0.03, 0.5), doc="tau of InfoNCE")
    momentum: float = tunable(0.999, near_one=(0.95, 0.9999), doc="m of the key encoder")
    momentum_schedule: str = tunable("constant", choice=("constant", "cosine"), doc="cosine lets m rise to 1")
    queue: int = tunable(32768, choice=(256, 1024, 4096, 16384, 32768), doc="K, number of negatives remembered")
    hidden: int = tunable(256, choice=(128, 256, 512), doc="hidden width of the projector")
    projection: int = tunable(128, choice=(64, 128, 256), doc="D, width of the compared vectors")
    projector_norm: bool = tunable(False, doc="batch norm inside the projector (published: false; SkeleMixCLR: true)")
    init_sync: bool = tunable(True, doc="key encoder starts equal to the query encoder (the public code: false)")
    ema_buffers: str = tunable("own", choice=("own", "copy"), doc="key encoder's running statistics")

    def __post_init__(self) -> None:
        check_momentum(self)


RECIPE = Recipe(
    frames=50,
    epochs=300,
    encoder=EncoderConfig(width=16, dim=256),
    augment=AugmentConfig(crop=6.0, shear=0.5),
    optim=OptimConfig(name="sgd", lr=0.1, batch=128, schedule="step", step_at=250 / 300, weight_decay=1e-4),
    source="CrosSCLR's public code (SkeletonCLR ships no YAML of its own; AimCLR's optimiser settings)",
    paper_code={
        "init_sync": False,
        "augment.repeat": True,
        "encoder.partition": "spatial_degenerate",
        "preprocess": ("trim_paper", "centre", "resize", "rotate_y_paper"),
    },
)


@register("skeletonclr", config=SkeletonCLRConfig, recipe=RECIPE)
class SkeletonCLR(Method):
    """Query encoder + projector, their momentum copy, and a queue of the copy's outputs."""

    def __init__(self, config: SkeletonCLRConfig, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        self.projector = mlp(encoder.dim, config.hidden, config.projection, batch_norm=config.projector_norm)
        self.projector.apply(normal_init)
        self.slow_encoder = slow_copy(encoder, config)
        self.slow_projector = slow_copy(self.projector, config)
        self.queue = MemoryQueue(config.queue, config.projection)

    def loss(self, views: Views, progress: float) -> StepOutput:
        """InfoNCE of view ``a`` (query) against view ``b`` (key), each (N, C, T, V, M)."""
        query = self.projector(self.encoder(views["a"], views.present))  # (N, D)
        # The key encoder moves before its pass, as in MoCo: it follows the weights of the step before.
        self.slow_encoder.update(self.encoder, progress)
        self.slow_projector.update(self.projector, progress)
        key = self.slow_projector(self.slow_encoder(views["b"], views.present))  # (N, D), no gradient
        key = F.normalize(key, dim=1)
        # A copy of the queue: the rows written below would otherwise change under the backward pass.
        loss = info_nce(query, key, self.queue.keys.clone(), self.config.temperature)
        self.queue.enqueue(key)
        return StepOutput(loss, {"projection_spread": feature_spread(query)})
