"""Small datasets for the tests of the data room; imported by path, for the tests are no package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from methods.data import NTU25, DatasetWriter, Layout, SkeletonDataset, layout_from_parts

STICK = layout_from_parts(
    "stick",
    ("hip", "neck", "left_shoulder", "right_shoulder", "head"),
    (-1, 0, 1, 1, 1),
)


def write(
    path: Path,
    clips: Sequence[np.ndarray],
    labels: Sequence[int],
    subjects: Sequence[int | Sequence[int]],
    splits: Mapping[str, Sequence[int]] | None = None,
    layout: Layout = STICK,
    cameras: Sequence[int] | None = None,
    classes: int = 2,
) -> SkeletonDataset:
    names = [f"class {index}" for index in range(classes)]
    with DatasetWriter(path, layout, names, clips[0].shape[1], channels=clips[0].shape[3]) as writer:
        for index, clip in enumerate(clips):
            camera = -1 if cameras is None else cameras[index]
            writer.append(clip, labels[index], subjects[index], camera=camera, name=f"c{index}")
        return writer.finish(splits)


def random_clips(count: int, persons: int = 1, layout: Layout = STICK, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [
        rng.normal(size=(3 + index % 4, persons, layout.num_joints, 3)).astype(np.float32) for index in range(count)
    ]


def people_dataset(path: Path, subjects: int, classes: int = 2, cameras: bool = False) -> SkeletonDataset:
    """Each subject does each class once; odd subjects train and even ones test in the split 'xsub'."""
    who = [s for s in range(1, subjects + 1) for _ in range(classes)]
    labels = list(range(classes)) * subjects
    split = [1 if s % 2 else 2 for s in who]
    return write(
        path,
        random_clips(len(who)),
        labels,
        who,
        {"xsub": split},
        cameras=[1 + s % 3 for s in who] if cameras else None,
        classes=classes,
    )


__all__ = ["NTU25", "STICK", "people_dataset", "random_clips", "write"]
