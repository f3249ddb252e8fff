"""The library in three calls, without a search: pretrain a configuration on a dataset, probe it, save it.

dataset = open_dataset("data/ntu60")
split = make_split(dataset, "xsub", "auto", seed=0)
run = pretrain(published("skeletonclr", epochs=30), dataset, split)
print(linear_probe(run, split).top1)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from methods.data import SkeletonDataset, Split, fixed_length
from methods.errors import InputError
from methods.training import evaluate
from methods.training.clips import Clips
from methods.training.config import TrialConfig
from methods.training.pretrain import Epoch, Run, start
from methods.training.pretrain import pretrain as epochs
from methods.training.probe import ProbeConfig, ProbeResult


def clips_of(dataset: SkeletonDataset, frames: int, steps: Sequence[str]) -> Clips:
    """The dataset as training reads it: ``frames`` = T after the named steps, from the cache or built now."""
    return Clips(
        data=fixed_length(dataset, frames, steps),
        labels=np.asarray(dataset.labels),
        subjects=np.asarray(dataset.subjects),
        layout=dataset.layout,
        num_classes=dataset.num_classes,
        fingerprint=f"{dataset.fingerprint}:t{frames}:{'+'.join(steps)}",
    )


def pretrain(
    config: TrialConfig,
    dataset: SkeletonDataset,
    split: Split,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    each_epoch: Callable[[Epoch], None] | None = None,
) -> Run:
    """Train ``config`` on the split's training clips to its last epoch and return the finished run.

    ``each_epoch`` is told of every epoch. For anything more between epochs, loop over
    :func:`methods.training.pretrain.pretrain` yourself. Raises ``Diverged``, ``Collapsed`` and ``InputError``.
    """
    run = start(config, clips_of(dataset, config.frames, config.preprocess), split.train, seed=seed, device=device)
    for epoch in epochs(run):
        if each_epoch is not None:
            each_epoch(epoch)
    return run


def linear_probe(run: Run, split: Split, *, on: str = "validation", config: ProbeConfig | None = None) -> ProbeResult:
    """Probe a run's frozen encoder on the split's validation (default) or test clips."""
    if on not in ("validation", "test"):
        raise InputError(f"linear_probe: on must be validation or test, got '{on}'")
    judge = evaluate.test if on == "test" else evaluate.validate
    return judge(run.model, run.store, split, config or ProbeConfig(), seed=run.seed)
