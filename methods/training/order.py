"""Which clips meet in which batch of an epoch: any, or so that every batch has as many bodies as every other.

With ``bodies: real`` an encoder runs the recorded bodies only, so that a shuffled batch has another number of them each
time: shapes that a graph cannot hold, and a number that the host has to read back. A stratified order takes the same
number of one-person and of two-person clips into every batch, those with more bodies first.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Generator, Tensor

from methods.errors import InputError
from methods.training.clips import Clips

AT_ONCE = 1024  # clips looked at in one pass: bounds what of a memory map is held


@dataclass(frozen=True)
class Strata:
    """``clips``: for each number of bodies, most first, the indices (n,) of the clips that have so many."""

    clips: tuple[tuple[int, Tensor], ...]

    @property
    def total(self) -> int:
        return sum(len(rows) for _, rows in self.clips)

    def quotas(self, batch: int) -> tuple[int, ...]:
        """How many clips of each stratum a batch holds: its share of all clips, rounded to add up to ``batch``."""
        exact = [batch * len(rows) / self.total for _, rows in self.clips]
        whole = [int(share) for share in exact]
        by_remainder = sorted(range(len(exact)), key=lambda i: whole[i] - exact[i])
        for i in by_remainder[: batch - sum(whole)]:
            whole[i] += 1
        return tuple(whole)

    def bodies_of_rows(self, batch: int) -> Tensor:
        """(batch,) the number of bodies that each row of every batch has."""
        counts = [count for count, _ in self.clips]
        return torch.tensor(counts).repeat_interleave(torch.tensor(self.quotas(batch)))


def bodies_of_clips(clips: Clips) -> np.ndarray:
    """(N,) how many bodies of each clip are not empty, at least 1 (a clip without any runs its first)."""
    return _counted(_Whole(clips))


@dataclass(frozen=True)
class _Whole:
    """Clips as a key: the same array object is counted once a process."""

    clips: Clips

    def __hash__(self) -> int:
        return id(self.clips.data)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Whole) and other.clips.data is self.clips.data


@lru_cache(maxsize=4)
def _counted(whole: _Whole) -> np.ndarray:
    data = whole.clips.data
    parts = [
        (data[i : i + AT_ONCE] != 0).any(axis=(1, 2, 3)).sum(1)  # (n, M) -> (n,)
        for i in range(0, len(data), AT_ONCE)
    ]
    return np.maximum(np.concatenate(parts), 1) if parts else np.zeros(0, dtype=np.int64)


def strata_of(clips: Clips, index: Tensor) -> Strata:
    """The training clips ``index`` (n,) by their number of bodies."""
    counts = torch.from_numpy(bodies_of_clips(clips))[index]
    found = sorted(set(counts.tolist()), reverse=True)
    return Strata(tuple((count, index[counts == count]) for count in found))


def check_order(strata: Strata, batch: int) -> None:
    """Raise ``InputError`` where some clips would never be trained on, as a batch has no place for one of them."""
    for (count, rows), quota in zip(strata.clips, strata.quotas(batch), strict=True):
        if quota == 0:
            raise InputError(
                f"optim.order: stratified cannot serve batches of {batch}: only {len(rows)} of {strata.total} training "
                f"clips have {count} bodies, less than half a clip a batch; use order: shuffled, or a larger batch"
            )


def epoch_order(index: Tensor, strata: Strata | None, batch: int, steps: int, draws: Generator) -> Tensor:
    """(steps, batch) indices of one epoch. No clip comes twice, but for what a stratified quota rounds up."""
    if strata is None:
        return index[torch.randperm(len(index), generator=draws)][: steps * batch].view(steps, batch)
    parts = []
    for (_, rows), quota in zip(strata.clips, strata.quotas(batch), strict=True):
        rounds = -(-steps * quota // len(rows))
        many = torch.cat([rows[torch.randperm(len(rows), generator=draws)] for _ in range(rounds)])
        parts.append(many[: steps * quota].view(steps, quota))
    return torch.cat(parts, 1)
