"""A dataset folder of skeltune itself, e.g. to store splits without duplicates beside its own."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from methods.data.reading.sources import Clip, Item, ReadOptions, Source, spans
from methods.data.skeletons import SkeletonDataset, open_dataset
from methods.errors import InputError

OPTIONS = frozenset({"layout"})


def recognises(source: Path) -> str | None:
    """A folder with the files of a dataset."""
    there = (source / "meta.json").is_file() and (source / "frames.npy").is_file()
    return "a folder with meta.json and frames.npy" if there else None


def plan(source: Path, options: ReadOptions, scratch: Path) -> Source:
    """Take over everything; raises InputError for a folder that is no dataset, or another layout of other joints."""
    data = open_dataset(source)
    if options.layout is not None and options.layout.num_joints != data.layout.num_joints:
        raise InputError(
            f"{source}: has {data.layout.num_joints} joints, layout '{options.layout.name}' has "
            f"{options.layout.num_joints}"
        )
    return Source(
        layout=options.layout or data.layout,
        class_names=data.class_names,
        persons=data.num_persons,
        channels=data.num_channels,
        items=spans(len(data), source / "frames.npy"),
        read=_read,
        notes={**data.source, "converter_before": data.source.get("converter", "")},
        chunk=1,
    )


def _read(item: Item) -> Iterator[Clip]:
    data = _opened(str(Path(item.path).parent), item.stamp)
    for index in range(*item.span):
        yield Clip(
            frames=data.clip(index),
            label=int(data.labels[index]),
            name=str(data.names[index]),
            subjects=tuple(data.subjects[index].tolist()),
            camera=int(data.cameras[index]),
            setup=int(data.setups[index]),
            sides={name: int(table[index]) for name, table in data.splits.items()},
        )


@lru_cache(maxsize=2)
def _opened(path: str, _: tuple[int, ...]) -> SkeletonDataset:
    return open_dataset(path)
