"""MAMP's archives of PKU-MMD: ``PKUv1_XSub.npz``, ``PKUv2_XView.npz`` and so on.

As CTR-GCN's, with y one-hot (N, 51) in both parts: x (N, 300, 150) float32, metres in camera space, not centred; the
first 300 frames of a clip, which has been cut out of its video without the frame at ``start``. No names: subjects and
cameras are unknown. ``names`` may give them, one a clip in the archive's order.
Source: maoyunyao/MAMP data/pku_v1/pku_gendata.py, data/pku_v2/pku_gendata.py.
"""

from __future__ import annotations

import re
from pathlib import Path

from methods.data.reading.clip_names import facts_of, numbered
from methods.data.reading.npz_arrays import archive_shapes, counted_names, read_archive, source_of, split_of
from methods.data.reading.npz_names import Found, find_names
from methods.data.reading.pku_facts import CLASS_NAMES, PUBLISHED, is_pku
from methods.data.reading.sources import ReadOptions, Source

OPTIONS = frozenset({"names", "layout"})
_NOTES = {
    "unit": "m",
    "applied": ["cut to the first 300 frames"],
    "persons": "the two bodies of PKU-MMD's text files",
    "cutting": "rows [start, end) of the video, one fewer than AimCLR's",
}


def recognises(source: Path) -> str | None:
    """An .npz with x_train (N, T, 150) and the rest, and 51 classes or PKU in its name."""
    shapes = archive_shapes(source)
    if len(shapes.get("x_train", ())) != 3 or not is_pku(source, shapes["y_train"]):
        return None
    return f"an .npz with x_train {shapes['x_train']}, y_train {shapes['y_train']} ({len(CLASS_NAMES)} classes or PKU)"


def plan(source: Path, options: ReadOptions, scratch: Path) -> Source:
    """Plan the reading of an archive; raises InputError, all faults at once."""
    archive = read_archive(source, scratch)
    split = split_of(source)
    found = Found(names := counted_names(archive), facts_of(names), split)
    if options.names is not None:
        found = find_names(archive, options.names, split)
    remarks = list(found.remarks)
    if not split:
        remarks.append(f"the name {source.name} tells no protocol: its split is called official")
    count = archive.classes or int(archive.labels.max(initial=0)) + 1
    classes = CLASS_NAMES if count <= len(CLASS_NAMES) and archive.classes in (0, len(CLASS_NAMES)) else numbered(count)
    part = re.search(r"pku[^0-9]*([12])", source.stem.lower())
    published = PUBLISHED["I" * int(part[1])] if part else {}
    name = split or "official"
    return source_of(archive, options, scratch, name, found.names, found.facts, classes, published, _NOTES, remarks)
