"""From a model and a split to a score: validation during a search, test once at its end."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from methods.data.splits import Split
from methods.training.branches import Branches
from methods.training.clips import Clips, ClipStore
from methods.training.features import extract
from methods.training.probe import ProbeConfig, ProbeResult, probe_cross_validated, probe_held_out


def pretraining_index(split: Split) -> np.ndarray:
    """The clips that pretraining may see during a search: never a held-out validation subject's, never the test's."""
    return split.train


def validate(
    model: Branches, store: ClipStore, split: Split, config: ProbeConfig, seed: int = 0, batch: int | None = None
) -> ProbeResult:
    """Probe on validation: held-out subjects, or folds of the training subjects where the split has ``folds``."""
    clips = store.clips
    fuse = model.config.streams.fuse_weights()
    if split.folds is not None:
        # Fold -1: persons of two folds in one clip; it may be pretrained on, but its label serves no fold.
        used = split.folds >= 0
        scored, folds = split.train[used], split.folds[used]
        features = _features(model, store, scored, split.train, config, batch)
        here = np.arange(len(scored))
        labels = clips.labels[scored]
        result = probe_cross_validated(features, labels, here, folds, clips.num_classes, config, fuse, seed)
        return _with_clips(result, scored)
    return _held_out(model, store, split.train, split.validation, config, fuse, seed, batch)


def test(
    model: Branches, store: ClipStore, split: Split, config: ProbeConfig, seed: int = 0, batch: int | None = None
) -> ProbeResult:
    """Fit the probe on the whole training part and score the test part. A search calls this once, for its winner."""
    whole = whole_training(split)
    fuse = model.config.streams.fuse_weights()
    return _held_out(model, store, whole, split.test, config, fuse, seed, batch)


def whole_training(split: Split) -> np.ndarray:
    """Training and validation clips together, in order: what the winner is retrained on."""
    return np.sort(np.concatenate([split.train, split.validation]))


def _held_out(
    model: Branches,
    store: ClipStore,
    train: np.ndarray,
    held: np.ndarray,
    config: ProbeConfig,
    fuse: tuple[float, ...] | None,
    seed: int,
    batch: int | None,
) -> ProbeResult:
    both = np.concatenate([train, held])
    features = _features(model, store, both, train, config, batch)
    clips: Clips = store.clips
    here = np.arange(len(both))
    result = probe_held_out(
        features,
        clips.labels[both],
        here[: len(train)],
        here[len(train) :],
        inner_folds(clips.subjects[train]),
        clips.num_classes,
        config,
        fuse,
        seed,
    )
    return _with_clips(result, held)


def inner_folds(subjects: np.ndarray, most: int = 5) -> np.ndarray:
    """One of at most ``most`` fold ids a clip, a subject's clips together; for fitting fusion weights out of fold."""
    _, number = np.unique(subjects[:, 0] if subjects.ndim > 1 else subjects, return_inverse=True)
    folds: np.ndarray = number % most
    return folds


def _features(
    model: Branches, store: ClipStore, index: np.ndarray, train: np.ndarray, config: ProbeConfig, batch: int | None
) -> dict[str, Tensor]:
    settle_on = torch.as_tensor(train) if config.settle else None
    return extract(model, store, torch.as_tensor(index), settle_on, batch)


def _with_clips(result: ProbeResult, clips: np.ndarray) -> ProbeResult:
    return ProbeResult(result.top1, result.loss, result.streams, result.fuse, result.correct, np.asarray(clips))
