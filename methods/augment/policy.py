"""One ``strength`` for a whole recipe of augmentations: 0 is the identity, 1 the method's published recipe.

Continuous ops scale their amplitude, either-or ops their probability; above 1 both go on growing (probabilities to 1).
Order: crop-resize, crop, shear or joint corruption, flip, rotation, noise, blur, axis mask, time flip (AimCLR's public
code), joint mask, segment mask. (SCD-Net's and PSTL's codes shear and rotate in other orders, from the same draws.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor

from methods.augment import crops, mask, ops
from methods.augment.draws import Draws
from methods.fields import require, tunable
from methods.filled import present_bodies, valid_lengths

if TYPE_CHECKING:
    from methods.data.layouts import Layout

SEGMENTS = 16  # of time, for the segment mask: four frames each of SCD-Net's 64; of shorter clips every frame
_PROBABILITIES = (
    "shear_probability",
    "corrupt",
    "flip",
    "rotate_probability",
    "noise_probability",
    "blur",
    "axis_mask",
    "time_flip",
    "joint_mask",
    "segment_mask",
)


@dataclass(frozen=True)
class AugmentConfig:
    """Everything a YAML may set under ``augment``; each op at its amplitude for strength 1, and 0 where it is off."""

    strength: float = tunable(1.0, uniform=(0.2, 1.4), doc="0 identity, 1 the recipe below, above 1 stronger")
    crop: float = tunable(6.0, uniform=(3.0, 10.0), doc="rho: mirror-pad T/rho frames at both ends, crop T; 0 = off")
    crop_resize: float = tunable(0.0, uniform=(0.1, 0.9), doc="least share of a clip kept and stretched to T; 0 = off")
    crop_resize_frames: int = tunable(1, doc="crop-resize keeps at least as many frames (published: 64, of raw clips)")
    shear: float = tunable(0.5, uniform=(0.1, 1.2), doc="amplitude of six random off-diagonal entries")
    shear_probability: float = tunable(1.0, uniform=(0.0, 1.0), doc="share of clips that get a shear")
    corrupt: float = tunable(0.0, uniform=(0.0, 0.5), doc="probability of corrupting joints in place of the shear")
    corrupt_joints: float = tunable(0.6, uniform=(0.2, 0.8), doc="share of joints that a corruption hits (15 of 25)")
    flip: float = tunable(0.0, uniform=(0.0, 0.5), doc="probability of swapping left and right joints")
    flip_reflect: bool = tunable(True, doc="a flip also mirrors the x coordinate (published: false)")
    rotate: float = tunable(0.0, uniform=(5.0, 60.0), doc="largest angle about a random main axis, degrees")
    rotate_probability: float = tunable(1.0, uniform=(0.0, 1.0), doc="share of clips that get a rotation")
    rotate_both_ways: bool = tunable(True, doc="angles of both signs (published: false)")
    noise: float = tunable(0.0, log=(1e-3, 5e-2), doc="standard deviation of Gaussian noise, in data units")
    noise_probability: float = tunable(0.5, uniform=(0.0, 1.0), doc="share of clips that get noise")
    noise_absent: bool = tunable(False, doc="noise also fills absent bodies (published: true)")
    blur: float = tunable(0.0, uniform=(0.0, 0.5), doc="probability of temporal smoothing, sigma in [0.1, 2] frames")
    blur_normalise: bool = tunable(True, doc="divide the blur kernel by its sum (published: false)")
    axis_mask: float = tunable(0.0, uniform=(0.0, 0.5), doc="probability of zeroing one coordinate axis")
    time_flip: float = tunable(0.0, uniform=(0.0, 0.5), doc="probability of playing a clip backwards")
    joint_mask: float = tunable(0.0, uniform=(0.0, 0.5), doc="probability of zeroing a patch of joints (SCD-Net's)")
    joint_mask_joints: float = tunable(0.32, uniform=(0.16, 0.48), doc="share of joints in that patch (8 of 25)")
    joint_mask_seeds: int = tunable(5, int=(1, 8), doc="random joints that the patch grows around")
    joint_mask_fair: bool = tunable(True, doc="ties in growing it are broken by lot (published: false)")
    segment_mask: float = tunable(0.0, uniform=(0.0, 0.5), doc="probability of zeroing some of 16 segments of time")
    segment_mask_share: float = tunable(0.375, uniform=(0.125, 0.625), doc="share of segments zeroed (6 of 16)")
    repeat: bool = tunable(
        False, doc="the same draws in every epoch (CrosSCLR family's code, by its worker seeds: true)"
    )
    per_batch: bool = tunable(False, doc="one draw for all clips of a batch (PSTL's public code: true)")

    def __post_init__(self) -> None:
        for name in ("strength", "crop", "shear", "rotate", "noise"):
            value = getattr(self, name)
            require(value >= 0 and math.isfinite(value), f"augment.{name} must not be negative, got {value}")
        for name in _PROBABILITIES:
            value = getattr(self, name)
            require(0 <= value <= 1, f"augment.{name} is a probability in [0, 1], got {value}")
        for name in ("crop_resize", "corrupt_joints", "joint_mask_joints", "segment_mask_share"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"augment.{name} is a share in [0, 1], got {value}")
        for name in ("crop_resize_frames", "joint_mask_seeds"):
            value = getattr(self, name)
            require(value >= 1, f"augment.{name} must be at least 1, got {value}")


class Policy:
    """A config bound to a layout: ``policy(clips, generator)`` is one augmented copy of ``clips`` (N, C, T, V, M).

    Every clip of the batch draws its own parameters from ``generator``, which lives on the clips' device. A method that
    takes its stream in between (SCD-Net) calls the two halves, :meth:`in_time` and :meth:`in_space`, by itself.
    """

    def __init__(self, config: AugmentConfig, layout: Layout) -> None:
        self.config = config
        self.layout = layout
        self._mirror = torch.tensor(layout.mirror)
        self._reach = mask.structural_reach(layout)

    def __call__(self, x: Tensor, generator: Generator) -> Tensor:
        present = present_bodies(x) if self.config.noise else None  # seen before a crop can cut a body out
        return self.in_space(self.in_time(x, generator), generator, present)

    def in_time(self, x: Tensor, generator: Generator) -> Tensor:
        """The ops that choose frames: crop-resize to as many frames as came, and the mirror-padded crop."""
        c, s = self.config, self.config.strength
        if s == 0:
            return x
        draw = Draws.like(x, generator, c.per_batch)
        frames = x.shape[2]
        if c.crop_resize:
            low = max(0.0, 1 - (1 - c.crop_resize) * s)
            start, length = crops.draw_crop(draw, valid_lengths(x), low, shortest=c.crop_resize_frames)
            x = crops.crop_resize(x, start, length, frames)
        pad = min(int(frames / c.crop * s), frames) if c.crop else 0
        return ops.temporal_crop(x, draw.integers(2 * pad + 1), pad) if pad else x

    def in_space(self, x: Tensor, generator: Generator, present: Tensor | None = None) -> Tensor:
        """All other ops. ``present`` (N, M): the bodies that noise may move; by default those that ``x`` shows."""
        c, s = self.config, self.config.strength
        if s == 0:
            return x
        draw = Draws.like(x, generator, c.per_batch)
        original = x
        x = self._sheared(x, draw)
        if c.flip:
            chosen = draw.chance(c.flip * s)
            self._mirror = self._mirror.to(x.device)  # stays there: the next batch comes on the same device
            x = ops.mirror(x, chosen, self._mirror, c.flip_reflect)
        if c.rotate:
            angles = self._angles(draw) * _some(draw, c.rotate_probability)
            x = ops.linear_map(x, ops.rotation_matrix(angles))
        if c.noise:
            chosen = draw.chance(c.noise_probability)
            noise = draw.normal(x.shape) * (c.noise * s) * chosen[:, None, None, None, None]
            bodies = present_bodies(original) if present is None else present
            x = ops.add_noise(x, noise, None if c.noise_absent else bodies)
        if c.blur:
            chosen = draw.chance(c.blur * s)
            x = ops.temporal_blur(x, draw.uniform(0.1, 2.0, 1)[:, 0], chosen, c.blur_normalise)
        if c.axis_mask:
            axis = torch.where(draw.chance(c.axis_mask * s), draw.integers(x.shape[1]), -1)
            x = ops.mask_axis(x, axis)
        if c.time_flip:
            x = ops.reverse_time(x, draw.chance(c.time_flip * s))
        return self._hidden(x, draw)

    def _sheared(self, x: Tensor, draw: Draws) -> Tensor:
        """Shear, or for some clips a corruption of joints in its place (CMD draws one of the two)."""
        c, s = self.config, self.config.strength
        sheared = x
        if c.shear:
            offsets = draw.uniform(-c.shear * s, c.shear * s, 6) * _some(draw, c.shear_probability)
            sheared = ops.linear_map(x, ops.shear_matrix(offsets))
        if not c.corrupt:
            return sheared
        v = x.shape[3]
        chosen = draw.chance(c.corrupt * s)
        joints, matrix = mask.draw_corruption(draw, v, int(c.corrupt_joints * v + 0.5), x.shape[1])
        return ops.select(chosen, mask.corrupt_joints(x, joints, matrix), sheared)

    def _hidden(self, x: Tensor, draw: Draws) -> Tensor:
        """SCD-Net's two masks: a patch of joints through all time, and segments of time for all joints."""
        c, s = self.config, self.config.strength
        if c.joint_mask:
            chosen, count = draw.chance(c.joint_mask * s), int(c.joint_mask_joints * x.shape[3] + 0.5)
            self._reach = self._reach.to(x.device)
            joints = mask.draw_structural(draw, self._reach, count, c.joint_mask_seeds, c.joint_mask_fair)
            x = mask.zero_joints(x, joints & chosen[:, None])
        if c.segment_mask:
            chosen, count = draw.chance(c.segment_mask * s), min(SEGMENTS, x.shape[2])
            segments = mask.draw_segments(draw, int(c.segment_mask_share * count + 0.5), count)
            x = mask.zero_frames(x, mask.segment_frames(segments, x.shape[2]) & chosen[:, None])
        return x

    def _angles(self, draw: Draws) -> Tensor:
        """(N, 3) radians: up to ``rotate`` degrees about a random main axis, up to 1 about the other two."""
        c = self.config
        main = draw.integers(3)[:, None] == torch.arange(3, device=draw.device)[None, :]
        largest = torch.where(main, c.rotate, 1.0) * c.strength
        low = -1.0 if c.rotate_both_ways else 0.0
        return torch.deg2rad(largest * draw.uniform(low, 1.0, 3))


def _some(draw: Draws, probability: float) -> Tensor | float:
    """(N, 1): 1 for a share of the clips, else 0; no number is drawn where all are meant."""
    return 1.0 if probability >= 1 else draw.chance(probability)[:, None]
