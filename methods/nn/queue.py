"""A memory queue of past keys: the negatives of MoCo (He et al., arXiv:1911.05722, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MemoryQueue(nn.Module):
    """First in, first out, ``size`` unit vectors of width ``dim``; starts as random directions, as published.

    Any batch size: a write wraps round the end, and of a batch larger than the queue the last ``size`` rows stay.
    (The public code asserts that the batch divides the queue; departing from it changes nothing where it does.)
    """

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.keys: Tensor
        self.pointer: Tensor
        self.register_buffer("keys", F.normalize(torch.randn(size, dim), dim=1))  # (K, D)
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Overwrite the oldest rows by ``keys`` (N, D)."""
        size = self.keys.shape[0]
        skipped = max(0, keys.shape[0] - size)
        kept = keys.detach()[skipped:].to(self.keys.dtype)
        rows = (self.pointer + skipped + torch.arange(kept.shape[0], device=self.keys.device)) % size
        self.keys.index_copy_(0, rows, kept)
        self.pointer.copy_((self.pointer + keys.shape[0]) % size)
