"""From bench folders to a Source: what the readers of CrosSCLR's and AGCN's arrays have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from methods.data.reading.arrays import NO_COUNT, Form, Part, Rows, in_line, items_of, keep_rows, read_clips
from methods.data.reading.benches import Bench, clip_names, sides_of
from methods.data.reading.clip_names import classes_of, rules_for
from methods.data.reading.sources import Ints, ReadOptions, Source, layout_for
from methods.errors import InputError

_AXES = "clips, coordinates, frames, joints, persons"


def source_of(
    benches: Sequence[Bench],
    options: ReadOptions,
    scratch: Path,
    notes: Mapping[str, object],
    remarks: Sequence[str] = (),
    lengths: Ints | None = None,
    trim: bool = True,
) -> Source:
    """Plan the reading of the first bench's arrays, (N, C, T, V, M), with the sides of all.

    ``lengths`` (N,) are the frames of each clip where a file counts them; else, with ``trim``, a clip ends at its last
    frame with anybody. Raises InputError for arrays of another form and joints without a layout.
    """
    first = benches[0]
    channels, joints, persons = _sizes(first)
    layout = layout_for(joints, options.layout, str(first.train.array))
    names, facts = clip_names(first)
    sides, unmatched = sides_of(benches)
    classes, about_classes = classes_of(facts, first.labels)
    rules = rules_for(facts, sides)
    counts = np.full(len(names), NO_COUNT, dtype=np.int64) if lengths is None else lengths
    rows = Rows(names, first.labels, counts, facts.subjects, facts.cameras, facts.setups, sides)
    mark = keep_rows(rows, scratch)
    parts = in_line([Part(str(side.array), side.header.shape[0]) for side in (first.train, first.test)])
    form = Form(parts, str(scratch), mark, tuple(sides), persons, joints, trim=trim)
    frames = max(side.header.shape[2] for side in (first.train, first.test))
    unusual = f"the folder's name {first.folder.resolve().name} tells no protocol: its split is called {first.split}"
    return Source(
        layout=layout,
        class_names=classes,
        persons=persons,
        channels=channels,
        items=items_of(parts, channels * frames * joints * persons * 4, mark),
        read=partial(read_clips, form),
        splits=rules,
        published=rules.published,
        notes={
            **notes,
            "frames_from": first.train.array.name.replace("train", "*"),
            "benches": [bench.folder.name for bench in benches],
        },
        remarks=(
            *remarks,
            *unmatched,
            *about_classes,
            *rules.remarks,
            *([unusual] if first.split == "official" else []),
        ),
        chunk=1,
    )


def _sizes(bench: Bench) -> tuple[int, int, int]:
    """Coordinates, joints and persons of a bench's two arrays, which must agree."""
    faults = []
    for side in (bench.train, bench.test):
        shape, dtype = side.header.shape, side.header.dtype
        if len(shape) != 5 or dtype.kind not in "fiu" or shape[1] not in (2, 3) or 0 in shape[2:]:
            faults.append(f"{side.array}: holds {dtype} {shape}, wanted numbers ({_AXES}) with 2 or 3 coordinates")
    one, other = bench.train.header.shape, bench.test.header.shape
    if not faults and (one[1], *one[3:]) != (other[1], *other[3:]):
        faults.append(f"{bench.test.array}: has the shape {other}, {bench.train.array.name} {one}: not the same bodies")
    if faults:
        raise InputError(*faults)
    return one[1], one[3], one[4]
