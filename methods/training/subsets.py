"""Which training labels a semi-supervised protocol may see: so many of each class, drawn by seed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from methods.fields import require
from methods.training.seeds import derive_seed

Ints = NDArray[np.int64]


def labelled_part(labels: NDArray[np.integer], share: float, seed: int, *, balanced: bool = True) -> Ints:
    """Positions (sorted) in ``labels`` (N,) of the ``share`` of clips whose labels are used.

    ``balanced``: of each class the nearest whole number to its share, halves rounded up, and at least one clip (CMCS,
    SkeleMixCLR); otherwise of all clips together, rounded down, at least one, so that classes may be missing (CMD). A
    smaller share with the same seed is a part of a larger one. Raises ``InputError`` for a share outside (0, 1].
    """
    require(0 < share <= 1, f"the share of labels must lie in (0, 1], got {share}")
    labels = np.asarray(labels)
    if not balanced:
        order = np.random.default_rng(derive_seed(seed, "labels")).permutation(len(labels))
        return np.sort(order[: max(1, int(len(labels) * share + 1e-9))]).astype(np.int64)
    kept = [_some(np.flatnonzero(labels == label), share, seed, int(label)) for label in np.unique(labels)]
    return np.sort(np.concatenate(kept)).astype(np.int64)


def _some(clips: NDArray[np.integer], share: float, seed: int, label: int) -> NDArray[np.integer]:
    """The first of a class's clips in an order of its own."""
    order = np.random.default_rng(derive_seed(seed, "labels", label)).permutation(len(clips))
    return clips[order[: max(1, int(len(clips) * share + 0.5 + 1e-9))]]
