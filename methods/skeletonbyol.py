"""SkeletonBYOL: each of two augmented views predicts the other's slow copy; no negatives.

Objective   Grill et al. (BYOL), arXiv:2006.07733, equation 2, symmetrised; networks and settings of the skeleton
            baseline as in the public code of CMCS (its CMAL shares them; plain BYOL ships there as no class).
Departures  The target starts as a copy of the online network (``init_sync``; CMCS draws it anew after copying).
Shapes      N clips, C channels, T frames, V joints, M persons, D projection width.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from methods.augment.policy import AugmentConfig
from methods.base import Method, StepOutput, Views, tunable
from methods.losses import cosine_regression, feature_spread
from methods.nn.ema import check_momentum, slow_copy
from methods.nn.encoder import Encoder, EncoderConfig
from methods.nn.heads import mlp
from methods.nn.stgcn import normal_init
from methods.recipe import OptimConfig, Recipe
from methods.registry import register


@dataclass(frozen=True)
class SkeletonBYOLConfig:
    """Everything a YAML may set under ``method: {skeletonbyol: ...}``."""

    momentum: float = tunable(0.996, near_one=(0.95, 0.9999), doc="m of the target network")
    momentum_schedule: str = tunable("constant", choice=("constant", "cosine"), doc="cosine lets m rise to 1")
    hidden: int = tunable(2048, choice=(512, 1024, 2048, 4096), doc="hidden width of projector and predictor")
    projection: int = tunable(512, choice=(128, 256, 512), doc="D, width of the compared vectors")
    init_sync: bool = tunable(True, doc="target starts equal to the online network (the public code: false)")
    ema_buffers: str = tunable("own", choice=("own", "copy"), doc="target's running statistics")

    def __post_init__(self) -> None:
        check_momentum(self)


RECIPE = Recipe(
    frames=50,
    epochs=60,
    encoder=EncoderConfig(width=16, dim=512),
    augment=AugmentConfig(crop=6.0, shear=0.5),
    optim=OptimConfig(name="sgd", lr=0.1, batch=128, schedule="constant", weight_decay=1e-4),
    source="CMCS's public code, NTU-60 single-stream configuration",
    paper_code={
        "init_sync": False,
        "augment.repeat": True,
        "encoder.partition": "spatial_degenerate",
        "preprocess": ("trim_paper", "centre", "resize", "rotate_y_paper"),
    },
)


@register("skeletonbyol", config=SkeletonBYOLConfig, recipe=RECIPE)
class SkeletonBYOL(Method):
    """Online encoder + projector + predictor, and a target copy of the first two."""

    def __init__(self, config: SkeletonBYOLConfig, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        self.projector = mlp(encoder.dim, config.hidden, config.projection, batch_norm=True)
        self.predictor = mlp(config.projection, config.hidden, config.projection, batch_norm=True)
        self.projector.apply(normal_init)
        self.predictor.apply(normal_init)
        self.slow_encoder = slow_copy(encoder, config)
        self.slow_projector = slow_copy(self.projector, config)

    def _online(self, x: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        projected = self.projector(self.encoder(x, present))
        return projected, self.predictor(projected)

    def loss(self, views: Views, progress: float) -> StepOutput:
        """d(h(g(f(a))), target(b)) + d(h(g(f(b))), target(a)); views (N, C, T, V, M)."""
        z_a, p_a = self._online(views["a"], views.present)  # (N, D)
        _, p_b = self._online(views["b"], views.present)
        t_a = self.slow_projector(self.slow_encoder(views["a"], views.present))  # (N, D), no gradient
        t_b = self.slow_projector(self.slow_encoder(views["b"], views.present))
        loss = cosine_regression(p_a, t_b) + cosine_regression(p_b, t_a)
        return StepOutput(loss, {"projection_spread": feature_spread(z_a)})

    def after_step(self, progress: float) -> None:
        """Move the target after the optimiser's step, as in CMCS."""
        self.slow_encoder.update(self.encoder, progress)
        self.slow_projector.update(self.projector, progress)
