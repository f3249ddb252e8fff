"""Random numbers for a batch: one row a clip, on the generator's device, with nothing read back to the host."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor


@dataclass(frozen=True)
class Draws:
    """Draws for ``n`` clips; with ``per_batch`` all get the same, as in the public code of PSTL and SkeleMixCLR.

    Counts that differ from clip to clip are tensors (N,) or (N, 1) on the same device.
    """

    n: int
    generator: Generator
    dtype: torch.dtype = torch.float32
    per_batch: bool = False

    @classmethod
    def like(cls, x: Tensor, generator: Generator, per_batch: bool = False) -> Draws:
        """For clips ``x`` (N, ...), whose floating type the uniform and normal numbers take."""
        return cls(x.shape[0], generator, x.dtype, per_batch)

    @property
    def device(self) -> torch.device:
        """Where the numbers are made."""
        return self.generator.device

    @property
    def rows(self) -> int:
        """How many rows are really drawn."""
        return 1 if self.per_batch else self.n

    def _unit(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Uniform in [0, 1), (N, *shape)."""
        unit = torch.rand(self.rows, *shape, generator=self.generator, device=self.device, dtype=dtype)
        return unit.expand(self.n, *shape)

    def uniform(self, low: float, high: float, k: int) -> Tensor:
        """(N, k) in [low, high)."""
        return low + (high - low) * self._unit(k, dtype=self.dtype)

    def integers(self, below: int, *shape: int) -> Tensor:
        """(N, *shape) in 0..below-1, with replacement."""
        drawn = torch.randint(below, (self.rows, *shape), generator=self.generator, device=self.device)
        return drawn.expand(self.n, *shape)

    def between(self, low: Tensor | int, high: Tensor | int) -> Tensor:
        """(N,) integers in low..high, both included; each end a number or one a clip (N,)."""
        span = high - low + 1
        # Float64, so that the last of many values is as likely as the first; the product may still round up to span.
        offset = (self._unit(dtype=torch.float64) * span).long()
        offset = torch.minimum(offset, span - 1) if isinstance(span, Tensor) else offset.clamp(max=span - 1)
        return low + offset

    def chance(self, probability: float) -> Tensor:
        """(N,) bool, true with ``probability``."""
        return self._unit() < probability

    def normal(self, shape: torch.Size) -> Tensor:
        """Standard normal numbers of ``shape``: never shared, a clip's noise is its own."""
        return torch.randn(shape, generator=self.generator, device=self.device, dtype=self.dtype)

    def ranking(self, of: int) -> Tensor:
        """(N, of) a random order of 0..of-1 in each row, every order equally likely."""
        return self._unit(of, dtype=torch.float64).argsort(1)

    def subset(self, of: int, size: Tensor | int) -> Tensor:
        """(N, of) bool with exactly ``size`` (a number or (N,)) true in each row, every choice equally likely."""
        return self.ranking(of) < (size[:, None] if isinstance(size, Tensor) else size)
