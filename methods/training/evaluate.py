"""From a model and a split to a score: validation during a search, test once at its end."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from methods.data.splits import Split
from methods.training.branches import Branches
from methods.training.clips import Clips, ClipStore
from methods.training.features import extract
from methods.training.probe import Few, ProbeConfig, ProbeResult, probe_cross_validated, probe_held_out
from methods.training.seeds import derive_seed


def pretraining_index(split: Split) -> np.ndarray:
    """The clips that pretraining may see during a search: never a held-out validation subject's, never the test's."""
    return split.train


def validate(
    model: Branches,
    store: ClipStore,
    split: Split,
    config: ProbeConfig,
    seed: int = 0,
    batch: int | None = None,
    *,
    below_top: bool = False,
) -> ProbeResult:
    """Probe on validation: held-out subjects, or folds of the training subjects where the split has ``folds``.

    ``below_top``: a rung below the last, where the probe is fitted on ``config.subset`` clips; what is scored is the
    same everywhere. With folds so many clips of each fold's fit are taken.
    """
    clips = store.clips
    fuse = model.config.streams.fuse_weights()
    few = few_of(clips, config) if below_top else None
    if split.folds is not None:
        # Fold -1: persons of two folds in one clip; it may be pretrained on, but its label serves no fold.
        used = split.folds >= 0
        scored, folds = split.train[used], split.folds[used]
        features = _features(model, store, scored, split.train, config, batch)
        here = np.arange(len(scored))
        labels = clips.labels[scored]
        result = probe_cross_validated(features, labels, here, folds, clips.num_classes, config, fuse, seed, few)
        return dataclasses.replace(result, clips=scored)
    fit = split.train if few is None else split.train[few.of(clips.labels[split.train])]
    return _held_out(model, store, fit, split.validation, config, fuse, seed, batch)


def few_of(clips: Clips, config: ProbeConfig) -> Few | None:
    """The clips that every rung below the top fits on, drawn by the dataset and by nothing of a trial; None for all."""
    if not config.subset:
        return None
    dataset = clips.fingerprint.partition(":")[0]  # what follows are T and preprocessing, which trials may differ in
    return Few(config.subset, derive_seed(dataset))


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
    return dataclasses.replace(result, clips=np.asarray(held))


def inner_folds(subjects: np.ndarray, most: int = 5) -> np.ndarray:
    """One of at most ``most`` fold ids a clip, a subject's clips together; for fitting fusion weights out of fold."""
    _, number = np.unique(subjects[:, 0] if subjects.ndim > 1 else subjects, return_inverse=True)
    folds: np.ndarray = number % most
    return folds


def _features(
    model: Branches, store: ClipStore, index: np.ndarray, train: np.ndarray, config: ProbeConfig, batch: int | None
) -> dict[str, Tensor]:
    settle_on = torch.as_tensor(train) if config.settle else None
    return extract(model, store, torch.as_tensor(index), settle_on, batch, precision=config.precision)
