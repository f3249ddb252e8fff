"""CTR-GCN's archives: ``NTU60_CS.npz``, ``NTU60_CV.npz``, ``NTU120_CSub.npz``, ``NTU120_CSet.npz``.

One protocol each: x (N, 300, 150) float32, y one-hot (N, 60) or (N, 120). Metres, from joint 2 of the first person's
first frame; persons have been told apart from noise and put in two tracks, frames without anybody dropped. Where
there is one person alone, the second is zeros (NTU-60) or a copy of the first (NTU-120), which is zeroed here. The
archive has no names: subjects are unknown, unless ``names`` gives a list of them (methods.data.reading.npz_names).
Source: Uason-Chen/CTR-GCN data/ntu/seq_transformation.py, data/ntu120/seq_transformation.py, feeders/feeder_ntu.py.
"""

from __future__ import annotations

import re
from pathlib import Path

from methods.data.reading import ntu_facts
from methods.data.reading.clip_names import facts_of, numbered
from methods.data.reading.npz_arrays import Archive, archive_shapes, counted_names, read_archive, source_of, split_of
from methods.data.reading.npz_names import Found, find_names
from methods.data.reading.pku_facts import is_pku
from methods.data.reading.sources import ReadOptions, Source

OPTIONS = frozenset({"names", "layout"})
_NOTES = {
    "unit": "m",
    "applied": ["denoised", "frames without anybody dropped", "joint 2 of the first person's first frame at 0"],
    "persons": "two tracks of actors, by bodyID and movement",
}


def recognises(source: Path) -> str | None:
    """An .npz with x_train (N, T, 150) and the rest, that is not MAMP's of PKU-MMD."""
    shapes = archive_shapes(source)
    if len(shapes.get("x_train", ())) != 3 or is_pku(source, shapes["y_train"]):
        return None
    return f"an .npz with x_train {shapes['x_train']}, y_train {shapes['y_train']}"


def plan(source: Path, options: ReadOptions, scratch: Path) -> Source:
    """Plan the reading of an archive; raises InputError, all faults at once."""
    archive = read_archive(source, scratch)
    split = split_of(source)
    found = Found(names := counted_names(archive), facts_of(names), split)
    if options.names is not None:
        found = find_names(archive, options.names, split)
    remarks = list(found.remarks)
    if options.names is None:
        remarks.append(
            "the archive names no clips, so subjects are unknown; --names with CTR-GCN's skes_available_name.txt "
            "brings them back"
        )
    if not found.split:
        remarks.append(f"the name {source.name} tells no protocol: its split is called official")
    classes = classes_of(archive, source)
    published = ntu_facts.PUBLISHED.get({60: "ntu60", 120: "ntu120"}.get(len(classes), ""), {})
    name = found.split or "official"
    return source_of(archive, options, scratch, name, found.names, found.facts, classes, published, _NOTES, remarks)


def classes_of(archive: Archive, source: Path) -> tuple[str, ...]:
    """NTU's class names for 60 and 120 columns, else numbers."""
    if archive.classes in (ntu_facts.NTU60_CLASSES, len(ntu_facts.CLASS_NAMES)):
        return ntu_facts.CLASS_NAMES[: archive.classes]
    most = int(archive.labels.max(initial=0)) + 1
    named = re.search(r"ntu[^0-9]*(60|120)", source.stem.lower())
    if not archive.classes and named and most <= int(named[1]):
        return ntu_facts.CLASS_NAMES[: int(named[1])]
    return numbered(archive.classes or most)
