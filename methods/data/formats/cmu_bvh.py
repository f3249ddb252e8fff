"""Motion capture in BVH files, above all B. Hahne's conversion of CMU mocap, with a table of your own (CSV).

Which file shows which action the table says, as for :mod:`methods.data.formats.cmu_asf`. All files must have the same
joints in the same tree; lengths may differ. A BVH file says nothing about its unit, so coordinates stay as they are,
but for the MotionBuilder release of CMU mocap (www.cgspeed.com, 2008), which is known by its 31 joints: its offsets
and positions are those of CMU's files, 1 / 0.45 inches, and become metres; and its first frame is a T-pose that was
put there (its read-me; whole degrees at the place of the second frame), which is left out where the table names no
first frame. Its joints are where bones begin: not those of cmu31.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from methods.data.reading.bvh_files import Hierarchy, joints_of, read_bvh, read_header
from methods.data.reading.mocap import (
    CMU_LENGTH,
    FRAME_RULE,
    INCH,
    Cuts,
    Floats,
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

_MOTION = re.compile(r"(.*/)?[^/.][^/]*\.bvh", re.IGNORECASE)


def _side(side: str) -> tuple[str, ...]:
    leg = (f"{side[0]}HipJoint", *(side + part for part in ("UpLeg", "Leg", "Foot", "ToeBase")))
    arm = (
        *(side + part for part in ("Shoulder", "Arm", "ForeArm", "Hand", "FingerBase", "HandIndex1")),
        f"{side[0]}Thumb",
    )
    return (*leg, *arm)


CGSPEED_JOINTS = frozenset(
    {"Hips", "LowerBack", "Spine", "Spine1", "Neck", "Neck1", "Head", *_side("Left"), *_side("Right")}
)


@dataclass(frozen=True)
class Motion:
    """What reading a file needs beside it: the order of its joints, and its clips."""

    order: tuple[int, ...]
    cuts: Cuts


def recognises(source: Path) -> str | None:
    """A folder with a .bvh file."""
    found = first_match(source, _MOTION)
    return f"folder with {found}" if found else None


def plan(source: Path, options: ReadOptions, scratch: Path) -> Source:
    """Find the files of the table and read their trees.

    Raises InputError without a good table, or a readable file of it. Files with another tree than most are left out.
    """
    table = read_table(table_path(source, options.table))
    files = all_files(source, _MOTION)
    if not files:
        raise InputError(f"{source}: no .bvh file")
    listed, names = match_rows(source, files, table), clip_names(source, files)
    trees, times, damaged = _trees(sorted(listed.rows))
    skipped = [*listed.skipped, *damaged]
    if not trees:
        raise InputError(*([f"{source}: no file of {table.path} can be read", *(skip.detail for skip in damaged)][:20]))
    layout, order = shared_layout(trees, "bvh")
    items, jobs = [], {}
    for path in trees:
        key = path.relative_to(source).as_posix()
        if path in order:
            items.append(Item(key, str(path), (*stamp(path), *stamp(table.path))))
            jobs[str(path)] = Motion(order[path], cuts_of(names[path], listed.rows[path], table))
        else:
            what = difference(trees[path], layout)
            skipped.append(Skipped(key, "another skeleton than the rest", f"{path}: {what}"))
    cgspeed = set(layout.joints) == CGSPEED_JOINTS
    scale = INCH / CMU_LENGTH if cgspeed else 1.0
    rates = sorted({round(1 / times[path], 3) for path in order if times[path] > 0})
    return Source(
        layout=layout,
        class_names=table.actions,
        persons=1,
        items=items,
        read=partial(_read, jobs, scale),
        notes={
            "unit": "m" if cgspeed else "as in the files",
            "scale": scale,
            "fps": rates[0] if len(rates) == 1 else rates[:20],
            "table": table.path.name,
            "frames": FRAME_RULE,
        },
        skipped=tuple(skipped),
        remarks=(*table.remarks, *_rate_remarks(rates)),
        chunk=16,
    )


def _trees(files: list[Path]) -> tuple[dict[Path, Tree], dict[Path, float], list[Skipped]]:
    """The tree and the seconds of a frame of each file, and those that cannot be read."""
    trees, times, damaged = {}, {}, []
    for path in files:
        try:
            hierarchy, times[path] = read_header(path)
            trees[path] = hierarchy.tree
        except InputError as error:
            damaged.append(Skipped(path.name, "damaged", error.faults[0]))
    return trees, times, damaged


def _rate_remarks(rates: list[float]) -> Iterator[str]:
    if len(rates) > 1:
        told = ", ".join(f"{rate:g}" for rate in rates[:5])
        yield f"the files have {len(rates)} different frame rates ({told} a second); nothing has been resampled"


def _read(jobs: Mapping[str, Motion], scale: float, item: Item) -> Iterator[Clip | Skipped]:
    path, motion = Path(item.path), jobs[item.path]
    hierarchy, values = read_bvh(path)
    with np.errstate(invalid="ignore", over="ignore"):  # whoever asked refuses what is not finite
        frames = (joints_of(hierarchy, values)[:, None, list(motion.order)] * scale).astype(np.float32)
    yield from cut(path, frames, motion.cuts, rest=_rest_pose(hierarchy, values))


def _rest_pose(hierarchy: Hierarchy, values: Floats) -> int:
    """1 where the first frame is the T-pose of the cgspeed release, else 0."""
    if set(hierarchy.tree.joints) != CGSPEED_JOINTS or len(values) < 2:
        return 0
    names = [name for channels in hierarchy.channels for name in channels]
    turns = np.array([name.endswith("rotation") for name in names])
    first, second = values[0], values[1]
    whole = bool((first[turns] == np.round(first[turns])).all()) and bool((first[turns] == 0).mean() > 0.5)
    same_place = bool(np.allclose(first[~turns], second[~turns], atol=1e-3))
    return int(whole and same_place and not (second[turns] == np.round(second[turns])).all())
