"""CMU mocap as it is published: a skeleton (.asf) for each subject, motions (.amc), and a table of your own (CSV).

The database (http://mocap.cs.cmu.edu) says in free text what a motion shows; which of them are the classes of a
benchmark, which frames and which folds, the table says (:func:`methods.data.reading.tables.read_table`): ``--table``,
or ``actions.csv`` in the folder. Joints are the root and the far ends of the 30 bones, in metres; 120 frames a second.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from methods.data.reading.asf_files import Skeleton, joints_of, parse_amc, parse_asf
from methods.data.reading.mocap import (
    CMU_FPS,
    FRAME_RULE,
    Cuts,
    Tree,
    clip_names,
    cut,
    cuts_of,
    difference,
    match_rows,
    shared_layout,
)
from methods.data.reading.sources import Clip, Item, ReadOptions, Skipped, Source, stamp
from methods.data.reading.tables import all_files, first_match, read_table, table_path
from methods.errors import InputError

OPTIONS = frozenset({"table"})

_SKELETON = re.compile(r"(.*/)?[^/.][^/]*\.asf", re.IGNORECASE)
_MOTION = re.compile(r"(.*/)?[^/.][^/]*\.amc", re.IGNORECASE)


@dataclass(frozen=True)
class Motion:
    """What reading a motion needs beside it: its skeleton, the order of its joints, its clips."""

    skeleton: str
    order: tuple[int, ...]
    cuts: Cuts


def recognises(source: Path) -> str | None:
    """A folder with an .asf file."""
    found = first_match(source, _SKELETON)
    return f"folder with {found}" if found else None


def plan(source: Path, options: ReadOptions, scratch: Path) -> Source:
    """Find the motions of the table and their skeletons.

    Raises InputError without a good table, a readable skeleton, or a motion. Motions whose skeleton has other bones
    than most are left out.
    """
    table = read_table(table_path(source, options.table))
    skeletons, motions = all_files(source, _SKELETON), all_files(source, _MOTION)
    faults = [f"{source}: no {end} file" for end, there in ((".asf", skeletons), (".amc", motions)) if not there]
    trees, damaged = _trees(skeletons)
    if faults or not trees:
        raise InputError(*faults, *list(damaged.values())[:20])
    layout, order = shared_layout(trees, "asf")
    listed, names = match_rows(source, motions, table), clip_names(source, motions)
    items, jobs, skipped = [], {}, list(listed.skipped)
    for path, rows in sorted(listed.rows.items()):
        key, skeleton = path.relative_to(source).as_posix(), _skeleton_of(path, skeletons)
        if skeleton is None:
            skipped.append(Skipped(key, "no skeleton (.asf) for it", f"{path}: none is called as it begins"))
        elif skeleton in damaged:
            skipped.append(Skipped(key, "its skeleton (.asf) is damaged", damaged[skeleton]))
        elif skeleton not in order:
            what = difference(trees[skeleton], layout)
            skipped.append(Skipped(key, "another skeleton than the rest", f"{skeleton}: {what}"))
        else:
            items.append(Item(key, str(path), (*stamp(path), *stamp(skeleton), *stamp(table.path))))
            jobs[str(path)] = Motion(str(skeleton), order[skeleton], cuts_of(names[path], rows, table))
    return Source(
        layout=layout,
        class_names=table.actions,
        persons=1,
        items=items,
        read=partial(_read, jobs),
        notes={"unit": "m", "fps": CMU_FPS, "table": table.path.name, "frames": FRAME_RULE},
        skipped=tuple(skipped),
        remarks=table.remarks,
        chunk=16,
    )


def _trees(skeletons: Sequence[Path]) -> tuple[dict[Path, Tree], dict[Path, str]]:
    """The tree of each skeleton, and what is wrong with those that cannot be read."""
    trees, damaged = {}, {}
    for path in skeletons:
        try:
            trees[path] = parse_asf(path).tree
        except InputError as error:
            damaged[path] = error.faults[0]
    return trees, damaged


def _skeleton_of(motion: Path, skeletons: Sequence[Path]) -> Path | None:
    """The skeleton that is called as a motion begins ('01.asf' for '01_02.amc'), beside it or elsewhere.

    Where none is, the only one beside it.
    """
    subject = motion.stem.partition("_")[0].lower()
    beside = [path for path in skeletons if path.parent == motion.parent]
    named = [path for path in beside if path.stem.lower() == subject]
    elsewhere = [path for path in skeletons if path.stem.lower() == subject]
    return next((paths[0] for paths in (named, beside, elsewhere) if len(paths) == 1), None)


def _read(jobs: Mapping[str, Motion], item: Item) -> Iterator[Clip | Skipped]:
    path, motion = Path(item.path), jobs[item.path]
    skeleton = _skeleton(motion.skeleton, item.stamp)
    with np.errstate(invalid="ignore", over="ignore"):  # whoever asked refuses what is not finite
        joints = joints_of(skeleton, parse_amc(path, skeleton))
        frames = joints[:, None, list(motion.order)].astype(np.float32)
    yield from cut(path, frames, motion.cuts)


@lru_cache(maxsize=4)
def _skeleton(path: str, _: tuple[int, ...]) -> Skeleton:
    return parse_asf(Path(path))
