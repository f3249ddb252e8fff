"""CMAL and CMCS: online views attract, the slow copy repels; CMCS then lets streams name each other's neighbours.

Objective   Liu et al. (CMCS), arXiv:2307.07791, and its public code. CMAL, cross-model adversarial learning of one
            stream: both views' online predictions draw together while each is pushed off the target network's output
            for its own view. CMCS trains CMAL on every stream and, from ``cross_start`` of the run on, adds CSCL,
            cross-stream collaborative learning: clips of a batch that streams agree to be alike are positives of one
            another.
Departures  The target starts as a copy of the online network (``init_sync``; the public code draws it anew after
            copying), and goes on moving through CSCL (``freeze_target_in_cross``; there the update is commented out).
            Any streams: with three a label needs two votes as published, with two both, with one its own.
Shapes      N clips, C channels, T frames, V joints, M persons, D projection width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from methods.augment.policy import AugmentConfig
from methods.base import JointMethod, Method, Stage, StepOutput, Views, tunable
from methods.fields import require
from methods.losses import (
    collaborative_labels,
    collaborative_loss,
    cosine_matrix,
    cross_model_adversarial,
    feature_spread,
)
from methods.nn.ema import Ema, check_momentum, slow_copy
from methods.nn.encoder import Encoder, EncoderConfig
from methods.nn.heads import mlp
from methods.nn.stgcn import normal_init
from methods.recipe import OptimConfig, Recipe
from methods.registry import register


@dataclass(frozen=True)
class CMALConfig:
    """Everything a YAML may set under ``method: {cmal: ...}``."""

    momentum: float = tunable(0.996, near_one=(0.98, 0.999), doc="m of the target network")
    momentum_schedule: str = tunable("constant", choice=("constant", "cosine"), doc="cosine lets m rise to 1")
    hidden: int = tunable(2048, choice=(512, 1024, 2048, 4096), doc="hidden width of projector and predictor")
    projection: int = tunable(512, choice=(128, 256, 512), doc="D, width of the compared vectors")
    repulsion: float = tunable(0.5, uniform=(0.1, 1.0), doc="weight of the push off each view's target")
    init_sync: bool = tunable(True, doc="target starts equal to the online network (the public code: false)")
    ema_buffers: str = tunable("own", choice=("own", "copy"), doc="target's running statistics")

    def __post_init__(self) -> None:
        check_momentum(self)
        require(
            self.repulsion > 0,
            f"repulsion must be positive (without it all clips fall together), got {self.repulsion}",
        )


@dataclass(frozen=True)
class CMCSConfig(CMALConfig):
    """Everything a YAML may set under ``method: {cmcs: ...}``: CMAL's settings, and those of the streams' exchange."""

    cross_start: float = tunable(0.6, uniform=(0.4, 0.9), doc="share of the run after which streams name neighbours")
    topk: int = tunable(2, int=(1, 8), doc="how many of a batch a stream counts as alike, the clip itself included")
    cross_weight: float = tunable(10.0, log=(0.1, 30.0), doc="lambda of the cross-stream loss")
    temperature: float = tunable(1.0, log=(0.05, 1.0), doc="tau of the cross-stream loss (published without, so 1)")
    freeze_target_in_cross: bool = tunable(
        False, choice=(False, True), doc="the target stands still from cross_start on (the public code: true)"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.cross_start <= 1, f"cross_start is a fraction in [0, 1], got {self.cross_start}")
        require(self.topk >= 1, f"topk must be at least 1, got {self.topk}")
        require(self.cross_weight >= 0, f"cross_weight must not be negative, got {self.cross_weight}")


ENCODER = EncoderConfig(width=16, dim=512)
AUGMENT = AugmentConfig(crop=6.0, shear=0.5)
OPTIM = OptimConfig(name="sgd", lr=0.1, batch=128, schedule="constant", weight_decay=1e-4)
PAPER_CODE = {
    "init_sync": False,
    "augment.repeat": True,
    "encoder.partition": "spatial_degenerate",
    "preprocess": ("trim_paper", "centre", "resize", "rotate_y_paper"),
}


@dataclass(frozen=True)
class Outputs:
    """What a stream's two networks make of its two views ``a`` and ``b``; each tensor (N, D), targets no gradient."""

    projections: tuple[Tensor, Tensor]
    predictions: tuple[Tensor, Tensor]
    targets: tuple[Tensor, Tensor]

    def cosines(self) -> tuple[Tensor, Tensor]:
        """(N, N) of each view's predictions with the other view's targets, ``a`` first."""
        return (
            cosine_matrix(self.predictions[0], self.targets[1]),
            cosine_matrix(self.predictions[1], self.targets[0]),
        )


def _outputs(
    views: Views,
    encoder: nn.Module,
    projector: nn.Module,
    predictor: nn.Module,
    slow_encoder: nn.Module,
    slow_projector: nn.Module,
) -> Outputs:
    """One pass a view through either network: a batch norm sees ``a`` and ``b`` as two batches, in that order."""
    first, second = (projector(encoder(views[v], views.present)) for v in "ab")
    slow_first, slow_second = (slow_projector(slow_encoder(views[v], views.present)) for v in "ab")
    return Outputs((first, second), (predictor(first), predictor(second)), (slow_first, slow_second))


def _heads(config: CMALConfig, dim: int) -> tuple[nn.Module, nn.Module]:
    """Projector (N, dim) -> (N, D) and predictor (N, D) -> (N, D), each with one batch-normed hidden layer."""
    projector = mlp(dim, config.hidden, config.projection, batch_norm=True)
    predictor = mlp(config.projection, config.hidden, config.projection, batch_norm=True)
    return projector.apply(normal_init), predictor.apply(normal_init)


@register(
    "cmal",
    config=CMALConfig,
    recipe=Recipe(
        frames=50,
        epochs=60,
        encoder=ENCODER,
        augment=AUGMENT,
        optim=OPTIM,
        source="CMCS's public code, NTU-60 single-stream configuration",
        paper_code=PAPER_CODE,
    ),
)
class CMAL(Method):
    """Online encoder + projector + predictor, and a target copy of the first two: SkeletonBYOL's networks."""

    def __init__(self, config: CMALConfig, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        self.projector, self.predictor = _heads(config, encoder.dim)
        self.slow_encoder = slow_copy(encoder, config)
        self.slow_projector = slow_copy(self.projector, config)

    def loss(self, views: Views, progress: float) -> StepOutput:
        """d(p_a, p_b) - repulsion (d(p_a, t_a) + d(p_b, t_b)), d = 2 - 2 cos; views (N, C, T, V, M)."""
        out = _outputs(views, self.encoder, self.projector, self.predictor, self.slow_encoder, self.slow_projector)
        loss = cross_model_adversarial(out.predictions, out.targets, self.config.repulsion)
        return StepOutput(loss, {"projection_spread": feature_spread(out.projections[0])})

    def after_step(self, progress: float) -> None:
        """Move the target after the optimiser's step."""
        self.slow_encoder.update(self.encoder, progress)
        self.slow_projector.update(self.projector, progress)


@register(
    "cmcs",
    config=CMCSConfig,
    recipe=Recipe(
        frames=50,
        epochs=100,
        encoder=ENCODER,
        augment=AUGMENT,
        optim=OPTIM,
        source="CMCS's public code, NTU-60 three-stream configuration",
        paper_code=PAPER_CODE | {"freeze_target_in_cross": True},
        use=("joint", "motion", "bone"),
    ),
)
class CMCS(JointMethod):
    """CMAL's two networks for each stream; the streams meet in the labels alone, through which no gradient runs."""

    def __init__(self, config: CMCSConfig, encoders: Mapping[str, Encoder]) -> None:
        super().__init__(config, encoders)
        heads = {name: _heads(config, encoder.dim) for name, encoder in encoders.items()}
        self.projectors = nn.ModuleDict({name: projector for name, (projector, _) in heads.items()})
        self.predictors = nn.ModuleDict({name: predictor for name, (_, predictor) in heads.items()})
        self.slow_encoders = nn.ModuleDict({name: slow_copy(online, config) for name, online in self.encoders.items()})
        self.slow_projectors = nn.ModuleDict(
            {name: slow_copy(online, config) for name, online in self.projectors.items()}
        )

    @classmethod
    def stages(cls, config: CMCSConfig) -> tuple[Stage, ...]:
        """Each stream for itself up to ``cross_start``, then together; a stage of no length is left out."""
        alone, across = Stage("adversarial", 0.0), Stage("collaborative", config.cross_start)
        if config.cross_start == 0:
            return (across,)
        return (alone, across) if config.cross_start < 1 else (alone,)

    def losses(self, views: Mapping[str, Views], progress: float) -> Mapping[str, StepOutput]:
        """A stream's CMAL, and from ``cross_start`` on ``cross_weight`` times its CSCL over both pairs of views."""
        c = self.config
        parts = (self.encoders, self.projectors, self.predictors, self.slow_encoders, self.slow_projectors)
        seen = {name: _outputs(views[name], *(part[name] for part in parts)) for name in self.streams}
        losses = {n: cross_model_adversarial(out.predictions, out.targets, c.repulsion) for n, out in seen.items()}
        logs = {n: {"projection_spread": feature_spread(out.projections[0])} for n, out in seen.items()}
        if progress >= c.cross_start:
            cosines = {name: out.cosines() for name, out in seen.items()}
            labels = collaborative_labels(list(cosines.values()), c.topk)
            for name, (first, second) in cosines.items():
                across = collaborative_loss(first, labels, c.temperature)
                across = across + collaborative_loss(second, labels, c.temperature)
                logs[name] |= {"adversarial": losses[name].detach(), "collaborative": across.detach()}
                logs[name]["neighbours"] = labels.sum(1).mean() - 1  # other clips that a clip is held to be like
                losses[name] = losses[name] + c.cross_weight * across
        return {name: StepOutput(losses[name], logs[name]) for name in seen}

    def after_step(self, progress: float) -> None:
        """Move the targets after the optimiser's step, unless they are frozen by now."""
        if self.config.freeze_target_in_cross and progress >= self.config.cross_start:
            return
        for slow, online in ((self.slow_encoders, self.encoders), (self.slow_projectors, self.projectors)):
            for name, target in slow.items():
                cast(Ema, target).update(online[name], progress)
