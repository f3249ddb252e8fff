"""One ``strength`` for a whole recipe of augmentations: 0 is the identity, 1 the method's published recipe.

Continuous ops scale their amplitude, either-or ops their probability; above 1 both go on growing (probabilities to 1).
Order: crop, shear, flip, rotation, noise, blur, axis mask, time flip (AimCLR's public code).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor

from methods.augment import ops
from methods.fields import require, tunable

if TYPE_CHECKING:
    from methods.data.layouts import Layout


@dataclass(frozen=True)
class AugmentConfig:
    """Everything a YAML may set under ``augment``; each op at its amplitude for strength 1, and 0 where it is off."""

    strength: float = tunable(1.0, uniform=(0.2, 1.4), doc="0 identity, 1 the recipe below, above 1 stronger")
    crop: float = tunable(6.0, uniform=(3.0, 10.0), doc="rho: mirror-pad T/rho frames at both ends, crop T; 0 = off")
    shear: float = tunable(0.5, uniform=(0.1, 1.2), doc="amplitude of six random off-diagonal entries")
    flip: float = tunable(0.0, uniform=(0.0, 0.5), doc="probability of swapping left and right joints")
    flip_reflect: bool = tunable(True, doc="a flip also mirrors the x coordinate (published: false)")
    rotate: float = tunable(0.0, uniform=(5.0, 60.0), doc="largest angle about a random main axis, degrees")
    rotate_both_ways: bool = tunable(True, doc="angles of both signs (published: false)")
    noise: float = tunable(0.0, log=(1e-3, 5e-2), doc="standard deviation of Gaussian noise, in data units")
    noise_probability: float = tunable(0.5, uniform=(0.0, 1.0), doc="share of clips that get noise")
    noise_absent: bool = tunable(False, doc="noise also fills absent bodies (published: true)")
    blur: float = tunable(0.0, uniform=(0.0, 0.5), doc="probability of temporal smoothing, sigma in [0.1, 2] frames")
    blur_normalise: bool = tunable(True, doc="divide the blur kernel by its sum (published: false)")
    axis_mask: float = tunable(0.0, uniform=(0.0, 0.5), doc="probability of zeroing one coordinate axis")
    time_flip: float = tunable(0.0, uniform=(0.0, 0.5), doc="probability of playing a clip backwards")

    def __post_init__(self) -> None:
        for name in ("strength", "crop", "shear", "rotate", "noise"):
            value = getattr(self, name)
            require(value >= 0 and math.isfinite(value), f"augment.{name} must not be negative, got {value}")
        for name in ("flip", "noise_probability", "blur", "axis_mask", "time_flip"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"augment.{name} is a probability in [0, 1], got {value}")


class Policy:
    """A config bound to a layout: ``policy(clips, generator)`` is one augmented copy of ``clips`` (N, C, T, V, M).

    Every clip of the batch draws its own parameters from ``generator``, which lives on the clips' device.
    """

    def __init__(self, config: AugmentConfig, layout: Layout) -> None:
        self.config = config
        self._mirror = torch.tensor(layout.mirror)

    def __call__(self, x: Tensor, generator: Generator) -> Tensor:
        c, s = self.config, self.config.strength
        if s == 0:
            return x
        draw = _Draws(x, generator)
        original = x
        pad = min(int(x.shape[2] / c.crop * s), x.shape[2]) if c.crop else 0
        if pad:
            x = ops.temporal_crop(x, draw.integers(2 * pad + 1), pad)
        if c.shear:
            x = ops.linear_map(x, ops.shear_matrix(draw.uniform(-c.shear * s, c.shear * s, 6)))
        if c.flip:
            chosen = draw.chance(c.flip * s)
            x = ops.mirror(x, chosen, self._mirror.to(x.device), c.flip_reflect)
        if c.rotate:
            x = ops.linear_map(x, ops.rotation_matrix(self._angles(draw)))
        if c.noise:
            chosen = draw.chance(c.noise_probability)
            noise = draw.normal(x.shape) * (c.noise * s) * chosen[:, None, None, None, None]
            present = None if c.noise_absent else (original != 0).flatten(1, 3).any(1)
            x = ops.add_noise(x, noise, present)
        if c.blur:
            chosen = draw.chance(c.blur * s)
            x = ops.temporal_blur(x, draw.uniform(0.1, 2.0, 1)[:, 0], chosen, c.blur_normalise)
        if c.axis_mask:
            axis = torch.where(draw.chance(c.axis_mask * s), draw.integers(3), -1)
            x = ops.mask_axis(x, axis)
        if c.time_flip:
            x = ops.reverse_time(x, draw.chance(c.time_flip * s))
        return x

    def _angles(self, draw: _Draws) -> Tensor:
        """(N, 3) radians: up to ``rotate`` degrees about a random main axis, up to 1 about the other two."""
        c = self.config
        main = draw.integers(3)[:, None] == torch.arange(3, device=draw.device)[None, :]
        largest = torch.where(main, c.rotate, 1.0) * c.strength
        low = -1.0 if c.rotate_both_ways else 0.0
        return torch.deg2rad(largest * draw.uniform(low, 1.0, 3))


class _Draws:
    """Per-clip random numbers for one batch."""

    def __init__(self, x: Tensor, generator: Generator) -> None:
        self.n, self.device, self.dtype, self.generator = x.shape[0], x.device, x.dtype, generator

    def uniform(self, low: float, high: float, k: int) -> Tensor:
        unit = torch.rand(self.n, k, generator=self.generator, device=self.device, dtype=self.dtype)
        return low + (high - low) * unit

    def integers(self, below: int) -> Tensor:
        return torch.randint(below, (self.n,), generator=self.generator, device=self.device)

    def chance(self, probability: float) -> Tensor:
        return torch.rand(self.n, generator=self.generator, device=self.device) < probability

    def normal(self, shape: torch.Size) -> Tensor:
        return torch.randn(shape, generator=self.generator, device=self.device, dtype=self.dtype)
