"""SkeleMixCLR and SkeleMixCLR+: a block of one clip is pasted into another, and either side must find its own clip.

Objective   Chen et al. (SkeleMixCLR), arXiv:2207.03065, and its public code. InfoNCE of query and key views against a
            momentum encoder's queue. Beside it clips are mixed: some joints over some time of the query view come from
            another clip of the batch. The cells of the last feature map that were pasted, and the others, are pooled
            apart; each side has to tell the key of its clip from the queue and from the mixture's other side.
            SkeleMixCLR+ mixes a batch three times and adds the terms up, SkeleMixCLR once.
Mixing      Drawn in ``make_views``, done in ``loss``: after a stream has been taken, as in the public code, so that no
            bone joins two people. Time is cut into G = ceil(T / 4) segments, one for each frame of the feature map;
            counts are published for 16 segments and 25 joints, and scaled to the clips at hand. T need not be a
            multiple of 4: the last segment is then shorter.
Departures  Every clip draws a block of its own (``mix_per_batch``), only the distance to the partner is one for all;
            the key encoder starts as a copy of the query encoder (``init_sync``). The query has one length: the views
            of 48, 32 and 16 frames that a shipped configuration adds are left out.
Shapes      N clips, C channels, T frames, V joints, M persons, D projection width, R mixtures, G segments.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from methods.augment.draws import Draws
from methods.augment.mix import (
    FILLS,
    Mix,
    draw_any_joints,
    draw_mix,
    draw_parts,
    part_table,
    partners,
    scaled,
    segments_of,
    skelemix,
)
from methods.augment.policy import AugmentConfig
from methods.base import Method, StepOutput, Views, tunable, two_views
from methods.fields import require
from methods.losses import feature_spread, info_nce
from methods.nn.ema import check_momentum, slow_copy
from methods.nn.encoder import EncoderConfig
from methods.nn.heads import mlp
from methods.nn.queue import MemoryQueue
from methods.nn.stgcn import STGCN, normal_init
from methods.recipe import OptimConfig, Recipe
from methods.registry import register

if TYPE_CHECKING:
    from methods.augment.policy import Policy

SEGMENTS = 16  # what the published counts are counted in: 64 frames of NTU's 25 joints
JOINTS = 25


@dataclass(frozen=True)
class SkeleMixCLRConfig:
    """Everything a YAML may set under ``method: {skelemixclr: ...}``."""

    temperature: float = tunable(0.07, log=(0.05, 0.5), doc="tau of all losses")
    momentum: float = tunable(0.999, near_one=(0.95, 0.9999), doc="m of the key encoder")
    momentum_schedule: str = tunable("constant", choice=("constant", "cosine"), doc="cosine lets m rise to 1")
    queue: int = tunable(32768, choice=(256, 1024, 4096, 16384, 32768, 65536), doc="K, number of keys remembered")
    hidden: int = tunable(256, choice=(128, 256, 512), doc="hidden width of the projector")
    projection: int = tunable(128, choice=(64, 128, 256), doc="D, width of the compared vectors")
    projector_norm: bool = tunable(True, choice=(True, False), doc="batch norm inside the projector")
    regional_weight: float = tunable(1.0, log=(0.1, 4.0), doc="alpha: weight of the mixtures' loss beside the query's")
    repeats: int = tunable(1, int=(1, 4), doc="R, how often a batch is mixed")
    reduce: str = tunable("mean", choice=("mean", "sum"), doc="what is made of R mixtures' losses")
    extra_negative: bool = tunable(True, choice=(True, False), doc="a mixture's other side is a negative too")
    joints: str = tunable("parts", choice=("parts", "any"), doc="paste whole parts of the body, or joints anywhere")
    parts_least: int = tunable(1, int=(1, 4), doc="least number of parts pasted (never all there are)")
    parts_more: int = tunable(3, int=(0, 3), doc="up to so many parts more")
    joints_least: int = tunable(10, int=(5, 15), doc="least number of joints pasted with joints: any, of 25")
    joints_more: int = tunable(5, int=(0, 10), doc="up to so many joints more")
    segments_least: int = tunable(1, int=(1, 15), doc="least number of segments of time pasted, of 16 (never all)")
    segments_more: int = tunable(14, int=(0, 14), doc="up to so many segments more")
    fill: str = tunable("swap", choice=FILLS, doc="what a block is filled with; swap: from another clip")
    mix_per_batch: bool = tunable(False, doc="one block for all clips of a batch (the public code: true)")
    init_sync: bool = tunable(True, doc="key encoder starts equal to the query encoder (the public code: false)")
    ema_buffers: str = tunable("own", choice=("own", "copy"), doc="key encoder's running statistics")

    def __post_init__(self) -> None:
        check_momentum(self)
        require(
            0 <= self.regional_weight < math.inf,
            f"regional_weight must be finite, not negative, got {self.regional_weight}",
        )
        require(self.repeats >= 1, f"repeats must be at least 1, got {self.repeats}")
        for kind in ("parts", "joints", "segments"):
            least, more = getattr(self, f"{kind}_least"), getattr(self, f"{kind}_more")
            require(least >= 1, f"{kind}_least must be at least 1, got {least}")
            require(more >= 0, f"{kind}_more must not be negative, got {more}")
        for name, words in _WORDS.items():
            value = getattr(self, name)
            require(value in words, f"{name} must be one of {', '.join(words)}, got {value!r}")


_WORDS = {
    "momentum_schedule": ("constant", "cosine"),
    "reduce": ("mean", "sum"),
    "joints": ("parts", "any"),
    "fill": FILLS,
    "ema_buffers": ("own", "copy"),
}


@dataclass(frozen=True)
class SkeleMixCLRPlusConfig(SkeleMixCLRConfig):
    """Everything a YAML may set under ``method: {skelemixclr_plus: ...}``: as above, other defaults."""

    temperature: float = tunable(0.2, log=(0.05, 0.5), doc="tau of all losses")
    repeats: int = tunable(3, int=(1, 4), doc="R, how often a batch is mixed")
    reduce: str = tunable("sum", choice=("mean", "sum"), doc="what is made of R mixtures' losses")
    parts_least: int = tunable(2, int=(1, 4), doc="least number of parts pasted (never all there are)")
    parts_more: int = tunable(1, int=(0, 3), doc="up to so many parts more")
    segments_least: int = tunable(7, int=(1, 15), doc="least number of segments of time pasted, of 16 (never all)")
    segments_more: int = tunable(4, int=(0, 14), doc="up to so many segments more")


RECIPE = Recipe(
    frames=64,
    epochs=300,
    encoder=EncoderConfig(width=16, dim=256, partition="inward_outward"),
    augment=AugmentConfig(crop=6.0, shear=0.5),
    optim=OptimConfig(name="sgd", lr=0.1, batch=128, schedule="constant", weight_decay=1e-4),
    source="SkeleMixCLR's public code: its configuration of SkeleMixCLR+ (none is shipped of SkeleMixCLR)",
    paper_code={
        "init_sync": False,
        "augment.repeat": True,
        "mix_per_batch": True,
        "preprocess": ("trim_paper", "centre", "resize", "rotate_y_paper"),
    },
)


@register("skelemixclr", config=SkeleMixCLRConfig, recipe=RECIPE)
class SkeleMixCLR(Method):
    """Query encoder + projector, their momentum copy, and a queue of the copy's outputs."""

    encoder: STGCN  # whose last map is pooled by cells

    def __init__(self, config: SkeleMixCLRConfig, encoder: STGCN) -> None:
        super().__init__(config, encoder)
        self.projector = mlp(encoder.dim, config.hidden, config.projection, batch_norm=config.projector_norm)
        self.projector.apply(normal_init)
        self.slow_encoder = slow_copy(encoder, config)
        self.slow_projector = slow_copy(self.projector, config)
        self.queue = MemoryQueue(config.queue, config.projection)

    @property
    def mixes_bodies(self) -> bool:
        """A pasted block may hold a body that only the partner has."""
        return bool(self.config.fill == "swap")

    @property
    def not_captured(self) -> str:
        real = self.encoder.config.bodies == "real"
        return "how many bodies its mixtures have is read back" if real and self.mixes_bodies else ""

    def make_views(self, clips: Tensor, policy: Policy, generator: Generator) -> Views:
        """Views ``a`` (query) and ``b`` (key) of clips (N, C, T, V, M), and what is to be mixed.

        In ``extra``, one row a mixture: ``mix_shift`` (R,), ``mix_joints`` (R, N, V) bool, ``mix_start`` and
        ``mix_length`` (R, N) in segments; with ``fill: gaussian`` also ``mix_noise`` (R, N, C, T, V, M).
        """
        views = two_views(clips, policy, generator)
        draw = Draws.like(clips, generator, self.config.mix_per_batch)
        table = part_table(policy.layout.parts, clips.shape[3], clips.device)
        mixes = [self._drawn(draw, table, clips.shape[2]) for _ in range(self.config.repeats)]
        extra = {
            "mix_shift": torch.stack([mix.shift for mix in mixes]),
            "mix_joints": torch.stack([mix.joints for mix in mixes]),
            "mix_start": torch.stack([mix.start for mix in mixes]),
            "mix_length": torch.stack([mix.length for mix in mixes]),
        }
        if self.config.fill == "gaussian":
            extra["mix_noise"] = torch.stack([draw.normal(clips.shape) for _ in mixes])
        return Views(views.clips, views.present, extra)

    def _drawn(self, draw: Draws, table: Tensor, frames: int) -> Mix:
        """One mixture of clips with V joints (``table``: (P, V), the parts) and T frames."""
        c = self.config
        v, segments = table.shape[1], segments_of(frames, self.encoder.temporal_stride)
        if c.joints == "parts":
            joints = draw_parts(draw, table, c.parts_least, c.parts_least + c.parts_more)
        else:
            joints = draw_any_joints(
                draw, v, scaled(c.joints_least, JOINTS, v), scaled(c.joints_least + c.joints_more, JOINTS, v)
            )
        least = scaled(c.segments_least, SEGMENTS, segments)
        most = scaled(c.segments_least + c.segments_more, SEGMENTS, segments)
        return draw_mix(draw, joints, segments, least, most)

    def loss(self, views: Views, progress: float) -> StepOutput:
        """InfoNCE of ``a`` against ``b``, and of both sides of every mixture against the keys of their clips."""
        c = self.config
        query = self.projector(self.encoder(views["a"], views.present))  # (N, D)
        sides = [self._sides(views, mix, noise) for mix, noise in _mixes(views)]
        # The key encoder moves before its pass, as in MoCo: it follows the weights of the step before.
        self.slow_encoder.update(self.encoder, progress)
        self.slow_projector.update(self.projector, progress)
        key = F.normalize(self.slow_projector(self.slow_encoder(views["b"], views.present)), dim=1)  # (N, D)
        # A copy of the queue: the rows written below would otherwise change under the backward pass.
        queue = self.queue.keys.clone()
        instance = info_nce(query, key, queue, c.temperature)
        regional = torch.stack([self._regional(pasted, context, key, queue, order) for pasted, context, order in sides])
        combined = regional.sum() if c.reduce == "sum" else regional.mean()
        self.queue.enqueue(key)
        logs = {
            "projection_spread": feature_spread(query),
            "instance": instance.detach(),
            "regional": combined.detach(),
        }
        return StepOutput(instance + c.regional_weight * combined, logs)

    def _sides(self, views: Views, mix: Mix, noise: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Projections of the pasted cells and of the others, each (N, D), and whose clip was pasted (N,)."""
        x, present, stride = views["a"], views.present, self.encoder.temporal_stride
        order = partners(len(x), mix.shift)
        if self.config.fill == "swap":
            present = present | present[order]  # a pasted block may hold a body that only the partner has
        maps = self.encoder.features(skelemix(x, mix, stride, self.config.fill, noise), present)
        pasted, context = self.encoder.masked_pool(maps, mix.cells(maps.shape[3]), present)
        # Two passes, not one of both: the projector's batch norm sees either side by itself, as in the public code.
        return self.projector(pasted), self.projector(context), order

    def _regional(self, pasted: Tensor, context: Tensor, key: Tensor, queue: Tensor, order: Tensor) -> Tensor:
        """Half of either side's InfoNCE: the pasted one belongs to the partner's key, the context to its own."""
        tau, beside = self.config.temperature, self.config.extra_negative
        of_partner = info_nce(pasted, key[order], queue, tau, context if beside else None)
        of_itself = info_nce(context, key, queue, tau, pasted if beside else None)
        return (of_partner + of_itself) / 2


@register("skelemixclr_plus", config=SkeleMixCLRPlusConfig, recipe=RECIPE)
class SkeleMixCLRPlus(SkeleMixCLR):
    """SkeleMixCLR with its own defaults: three mixtures, fewer parts and segments to choose from, a milder softmax."""


def _mixes(views: Views) -> Iterator[tuple[Mix, Tensor | None]]:
    """The mixtures that :meth:`SkeleMixCLR.make_views` drew, each with its noise where there is any."""
    drawn = zip(*(views.extra[f"mix_{part}"] for part in ("shift", "joints", "start", "length")), strict=True)
    noise = views.extra.get("mix_noise")
    for i, (shift, joints, start, length) in enumerate(drawn):
        yield Mix(shift, joints, start, length), None if noise is None else noise[i]
