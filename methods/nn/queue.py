"""Memory queues of past keys: the negatives of MoCo (He et al., arXiv:1911.05722, section 3.2), alone or aligned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _random_directions(size: int, dim: int) -> Tensor:
    return F.normalize(torch.randn(size, dim), dim=1)


@torch.no_grad()
def _overwrite(held: Tensor, pointer: Tensor, keys: Tensor) -> None:
    """Write ``keys`` (N, D) over the rows of ``held`` (K, D) from ``pointer`` on, round the end; the last K stay."""
    size = held.shape[0]
    skipped = max(0, keys.shape[0] - size)
    kept = keys.detach()[skipped:].to(held.dtype)
    rows = (pointer + skipped + torch.arange(kept.shape[0], device=held.device)) % size
    held.index_copy_(0, rows, kept)


class MemoryQueue(nn.Module):
    """First in, first out, ``size`` unit vectors of width ``dim``; starts as random directions, as published.

    Any batch size: a write wraps round the end, and of a batch larger than the queue the last ``size`` rows stay.
    (The public code asserts that the batch divides the queue; departing from it changes nothing where it does.)
    """

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.keys: Tensor
        self.pointer: Tensor
        self.register_buffer("keys", _random_directions(size, dim))  # (K, D)
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Overwrite the oldest rows by ``keys`` (N, D)."""
        _overwrite(self.keys, self.pointer, keys)
        self.pointer.copy_((self.pointer + keys.shape[0]) % self.keys.shape[0])


class QueueGroup(nn.Module):
    """Queues that move together: row r of each holds the same clip, seen by another stream (or another head).

    CrosSCLR, CMD and SCD-Net need that: a neighbour found in one queue is looked up in another by its row.
    ``names`` -> ``size`` unit vectors of width ``dim`` each, under one pointer; batches as in :class:`MemoryQueue`.
    """

    def __init__(self, names: Iterable[str], size: int, dim: int) -> None:
        super().__init__()
        self.names = tuple(names)
        self.pointer: Tensor
        for name in self.names:
            self.register_buffer(f"keys_{name}", _random_directions(size, dim))  # (K, D)
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))

    def __getitem__(self, name: str) -> Tensor:
        """The keys (K, D) of one queue; later writes change them, so a loss that comes to be differentiated clones."""
        return self.get_buffer(f"keys_{name}")

    @torch.no_grad()
    def enqueue(self, keys: Mapping[str, Tensor]) -> None:
        """Overwrite the oldest rows of every queue; ``keys`` has (N, D) for each name. Raises ``ValueError`` if not."""
        counts = {name: len(rows) for name, rows in keys.items()}
        if set(counts) != set(self.names) or len(set(counts.values())) != 1:
            raise ValueError(f"queues {self.names} stay aligned only if all get as many keys, got {counts}")
        for name in self.names:
            _overwrite(self[name], self.pointer, keys[name])
        self.pointer.copy_((self.pointer + next(iter(counts.values()))) % self[self.names[0]].shape[0])
