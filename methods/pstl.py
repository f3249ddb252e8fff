"""SkeletonBT: two views whose features agree one by one and say nothing twice; and PSTL, where two are only partial.

Objective   SkeletonBT: one Barlow Twins term (Zbontar et al., arXiv:2103.03230) between two ordinary views. Zhou et
            al. (PSTL), arXiv:2302.09018, and its public code: the sum of two such terms between a whole view and two
            partial ones, one short of frames and one of joints.
Partial     Frames (motion-attentive masking): the ``mask_frames`` fastest go, then as many at random, 50 -> 40 -> 30.
            Joints (central masking): ``mask_joints`` ends of bones are drawn, well-connected joints most often, and
            the joints they belong to are cut out of clip and graph. Both counts are published for 50 frames and 25
            joints, and scaled to the clips at hand.
Departures  Every clip draws for itself (``augment.per_batch``), but for the joints: one draw serves the batch, as
            published, since a graph is cut for all. Flips mirror x, rotations turn both ways (the published ones:
            ``paper_code``). The learning rate warms up step by step, from a hundredth; the public code's is 0 for all
            of the first epoch. Of equally slow frames the earlier stays; the public code leaves that to a sort.
Shapes      N clips, C channels, T frames, V joints, M persons, D projection width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor, nn

from methods.augment.draws import Draws
from methods.augment.mask import (
    central_entries,
    draw_central_joints,
    draw_frames,
    joint_table,
    motion_attention,
    slowest_frames,
)
from methods.augment.mix import scaled
from methods.augment.ops import take_frames
from methods.augment.policy import AugmentConfig
from methods.base import Method, StepOutput, Views, tunable
from methods.errors import InputError
from methods.fields import require
from methods.filled import present_bodies
from methods.losses import barlow_twins, feature_spread
from methods.nn.encoder import Encoder, EncoderConfig
from methods.nn.heads import mlp
from methods.nn.stgcn import STGCN
from methods.recipe import OptimConfig, Recipe
from methods.registry import register

if TYPE_CHECKING:
    from methods.augment.policy import Policy

FRAMES, JOINTS = 50, 25  # what the published counts are counted in


@dataclass(frozen=True)
class SkeletonBTConfig:
    """Everything a YAML may set under ``method: {skeletonbt: ...}``."""

    projection: int = tunable(
        6144, choice=(512, 1024, 2048, 4096, 6144, 8192), doc="D, width of the compared vectors and all of the head"
    )
    off_diagonal: float = tunable(2e-4, log=(1e-5, 1e-2), doc="lambda of redundancy; goes with 1 / projection")

    def __post_init__(self) -> None:
        require(self.projection >= 1, f"projection must be at least 1, got {self.projection}")
        require(
            0 <= self.off_diagonal < math.inf, f"off_diagonal must be finite, not negative, got {self.off_diagonal}"
        )


@dataclass(frozen=True)
class PSTLConfig(SkeletonBTConfig):
    """Everything a YAML may set under ``method: {pstl: ...}``."""

    mask_joints: int = tunable(8, int=(2, 14), doc="ends of bones drawn, whose joints are cut out, for 25 joints")
    mask_frames: int = tunable(10, int=(2, 20), doc="frames taken out by motion, and again at random, of 50")
    spatial_share: float = tunable(
        0.5, uniform=(0.1, 0.9), doc="share of the loss that the view short of joints has (0.5: as published)"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            0 <= self.mask_joints < JOINTS, f"mask_joints counts of {JOINTS} joints, so 0..24, got {self.mask_joints}"
        )
        require(
            0 <= 2 * self.mask_frames < FRAMES,
            f"mask_frames are taken out of {FRAMES} frames twice, so 0..24, got {self.mask_frames}",
        )
        require(0 <= self.spatial_share <= 1, f"spatial_share must lie in [0, 1], got {self.spatial_share}")

    def masked_frames(self, frames: int) -> int:
        """How many of T = ``frames`` go at each of the two steps. Raises ``InputError`` where none would be left."""
        count = scaled(self.mask_frames, FRAMES, frames) if self.mask_frames else 0
        if 2 * count >= frames:
            raise InputError(
                f"mask_frames: {self.mask_frames} of {FRAMES} are {count} of {frames} frames, taken out twice: "
                f"{frames} - 2 * {count} leaves none; mask fewer, or give longer clips"
            )
        return count


RECIPE = Recipe(
    frames=50,
    epochs=150,
    encoder=EncoderConfig(width=16, dim=256, init="torch"),
    augment=AugmentConfig(crop=6.0, shear=1.0, rotate=30.0, flip=0.5),
    optim=OptimConfig(name="adam", lr=5e-3, batch=128, schedule="cosine", warmup=10 / 150, weight_decay=1e-5),
    source="PSTL's public code (SkeletonBT, its baseline, ships there as no script: its views, head and optimiser)",
    paper_code={
        "augment.per_batch": True,
        "augment.flip_reflect": False,
        "augment.rotate_both_ways": False,
        "encoder.partition": "spatial_degenerate",
        "preprocess": ("trim_paper", "centre", "resize", "rotate_y_paper"),
    },
)


@register("skeletonbt", config=SkeletonBTConfig, recipe=RECIPE)
class SkeletonBT(Method):
    """Encoder, a projector of three layers without biases, and a batch norm without weights of their own."""

    streams_derived = "before_views"

    def __init__(self, config: SkeletonBTConfig, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        width = config.projection
        self.projector = mlp(encoder.dim, width, width, batch_norm=True, layers=3, bias=False)
        self.norm = nn.BatchNorm1d(width, affine=False)

    def loss(self, views: Views, progress: float) -> StepOutput:
        """Barlow Twins of views ``a`` and ``b``, each (N, C, T, V, M)."""
        features = self.encoder(views["a"], views.present)
        loss, spread = self._agree(features, self.encoder(views["b"], views.present))
        return StepOutput(loss, {"projection_spread": spread})

    def _agree(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Barlow Twins of two views' features, each (N, D_h), and the spread of the first one's projections."""
        a, b = self.projector(first), self.projector(second)  # (N, D); each a batch of its own to every norm
        return barlow_twins(self.norm(a), self.norm(b), self.config.off_diagonal), feature_spread(a)


@register("pstl", config=PSTLConfig, recipe=RECIPE)
class PSTL(SkeletonBT):
    """The same networks; the encoder sees one view whole, one in fewer frames and one with fewer joints."""

    encoder: STGCN  # whose graph can be cut

    def __init__(self, config: PSTLConfig, encoder: STGCN) -> None:
        super().__init__(config, encoder)

    @property
    def not_captured(self) -> str:
        return "how many joints are cut out is read back" if self.config.mask_joints else ""

    def make_views(self, clips: Tensor, policy: Policy, generator: Generator) -> Views:
        """Views ``anchor``, ``spatial`` and ``temporal`` of clips (N, C, T, V, M); the last is short of frames.

        ``extra``: ``joints`` (V',), those left of the spatial view. Raises ``InputError`` where no frame would be left.
        """
        count = self.config.masked_frames(clips.shape[2])
        present = present_bodies(clips)
        anchor, moving, spatial = (policy(clips, generator) for _ in range(3))
        draw = Draws.like(clips, generator, policy.config.per_batch)
        views = {"anchor": anchor, "temporal": _slow_frames(draw, moving, count), "spatial": spatial}
        whole = Draws.like(clips, generator, per_batch=True)
        return Views(views, present, {"joints": _joints_left(whole, policy, self.config.mask_joints)})

    def loss(self, views: Views, progress: float) -> StepOutput:
        """Barlow Twins of ``anchor`` with ``temporal`` and with ``spatial``; each weighs 1 at half a share."""
        anchor = self.encoder(views["anchor"], views.present)  # (N, D_h)
        temporal = self.encoder(views["temporal"], views.present)
        maps = self.encoder.features(views["spatial"], views.present, views.extra["joints"])
        # The anchor goes through the head once for each term, as in the public code: a norm's statistics count it.
        in_time, spread = self._agree(anchor, temporal)
        in_space, _ = self._agree(anchor, self.encoder.pool(maps, views.present))
        share = self.config.spatial_share
        logs = {"projection_spread": spread, "temporal": in_time.detach(), "spatial": in_space.detach()}
        return StepOutput(2 * ((1 - share) * in_time + share * in_space), logs)


def _slow_frames(draw: Draws, x: Tensor, count: int) -> Tensor:
    """``x`` (N, C, T, V, M) without its ``count`` fastest frames and without as many of the others, by lot."""
    frames = x.shape[2] - count
    kept = slowest_frames(motion_attention(x), frames)  # (N, T - count)
    return take_frames(x, kept.gather(1, draw_frames(draw, frames, frames - count)))


def _joints_left(draw: Draws, policy: Policy, mask_joints: int) -> Tensor:
    """(V',) the joints that central masking leaves; how many it hits is read back to the host, once a step."""
    v = policy.layout.num_joints
    count = scaled(mask_joints, JOINTS, v) if mask_joints else 0
    drawn = draw_central_joints(draw, central_entries(policy.layout, draw.device), count)
    if not count:  # drawn all the same, so that what follows meets the same numbers
        return torch.arange(v, device=draw.device)
    return torch.nonzero(~joint_table(drawn, v)[0])[:, 0]
