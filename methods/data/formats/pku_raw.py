"""PKU-MMD I and II: long videos as text, one row a frame (2 persons x 25 joints x xyz), and their labels.

Liu et al., PKU-MMD: A Large Scale Benchmark for Continuous Multi-Modal Human Action Understanding, 2017. Anywhere in
the source lies a folder of ``<video>.txt`` with 150 numbers a row (skeleton, PKU_Skeleton_Renew, ...) and one of
``<video>.txt`` with rows class,start,end,confidence (label, Train_Label_PKU_final, ...), and, if wanted, the official
lists (cross-subject.txt, cross_view_v2.txt, ...). Videos of part I are '0002-L' to '0364-R', of part II 'A01N02-L':
scene 1, performer 2, seen from the left (the validation list of cross_subject_v2 is all videos of N02, N03 and N07).
A clip is the rows [start - 1, end): frames count from 1, both included. Part II begins some labels at frame 0, which
is read as 1. Coordinates are metres, joints those of ntu25. Part II uses 41 of the 51 classes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from methods.data.layouts.layout import NTU25
from methods.data.reading.pku_facts import CAMERAS, CLASS_NAMES, PUBLISHED, TEST_PERFORMERS
from methods.data.reading.sources import Clip, ClipTable, Item, ReadOptions, Skipped, Source, Splits, stamp
from methods.data.reading.tables import all_files, first_match, number_rows, read_lines, read_text, whole
from methods.data.skeletons import TEST, TRAIN
from methods.errors import InputError

OPTIONS = frozenset({"splits"})

_PERSONS, _JOINTS = 2, 25
_WIDTH = _PERSONS * _JOINTS * 3
_VIDEO_TEXT = r"(?:\d{4}|A\d\dN(\d\d))-([LMR])"
_VIDEO = re.compile(_VIDEO_TEXT, re.IGNORECASE)
_NAME = re.compile(rf"(?:.*/)?{_VIDEO_TEXT}\.txt", re.IGNORECASE)
_LIST = re.compile(r"(?:.*/)?cross[-_ ]?(subject|view)([-_ ]?v[12])?\.txt", re.IGNORECASE)
_SPLITS = {"subject": "xsub", "view": "xview"}


def recognises(source: Path) -> str | None:
    """A folder with a video's text and a part of its labels or joints in the first line."""
    found = first_match(source, _NAME)
    role = _role(source / found) if found else None
    return f"folder with {found}, a video's {role}" if role else None


def _role(path: Path) -> str | None:
    """'joints' or 'labels', by the first line of a file; None for anything else."""
    try:
        words = read_text(path, 1 << 14).strip().partition("\n")[0].replace(",", " ").split()
    except InputError:
        return None
    return "joints" if len(words) == _WIDTH else "labels" if len(words) in (3, 4) else None


def part_of(video: str) -> str:
    """'I' or 'II', by the name of a video."""
    return "II" if video[:1].lower() == "a" else "I"


def plan(source: Path, options: ReadOptions, scratch: Path) -> Source:
    """Find the videos, their labels and the official lists.

    Raises InputError where there are no joints or no labels, several folders of one role, or lists that are damaged
    or of other videos. A video without labels, or labels without a video, are left out.
    """
    folders = _folders(source)
    skeletons, labels = folders["joints"], folders["labels"]
    videos = sorted(skeletons.keys() & labels.keys())
    if not videos:
        raise InputError(f"{source}: no video has both joints and labels")
    lonely = sorted(skeletons.keys() ^ labels.keys())
    parts = sorted({part_of(video) for video in videos})
    lists = _lists(options.splits or source, parts, videos, given=options.splits is not None)
    items = [Item(name, str(skeletons[name]), (*stamp(skeletons[name]), *stamp(labels[name]))) for name in videos]
    return Source(
        layout=NTU25,
        class_names=CLASS_NAMES,
        persons=_PERSONS,
        items=items,
        read=partial(_read, {name: str(labels[name]) for name in videos}),
        splits=partial(_splits, lists),
        notes={
            "unit": "m",
            "part": " and ".join(parts),
            "clips": "rows [start - 1, end), a start of 0 as 1",
        },
        published=PUBLISHED[parts[0]] if len(parts) == 1 else {},
        skipped=tuple(_without_partner(name, skeletons, labels) for name in lonely),
        remarks=tuple(_remarks(lists, parts)),
        chunk=8,
    )


def _folders(source: Path) -> dict[str, dict[str, Path]]:
    """Role ('joints', 'labels') -> video -> file; raises InputError where a role has no folder, or several."""
    folders: dict[Path, dict[str, Path]] = {}
    for path in all_files(source, _NAME):
        folders.setdefault(path.parent, {})[path.stem.upper()] = path
    found: dict[str, list[Path]] = {"joints": [], "labels": []}
    for folder, files in folders.items():
        role = next((role for path in list(files.values())[:5] if (role := _role(path))), None)
        if role:
            found[role].append(folder)
    what = {"joints": "rows of 150 numbers (skeleton)", "labels": "rows class,start,end,confidence (label)"}
    faults = []
    for role, there in found.items():
        if not there:
            faults.append(f"{source}: no folder of <video>.txt with {what[role]}; point at the folder that holds both")
        elif len(there) > 1:
            told = ", ".join(path.relative_to(source).as_posix() for path in there[:4])
            faults.append(f"{source}: several folders hold {role} ({told}); point at one part of the dataset")
    if faults:
        raise InputError(*faults)
    return {role: folders[there[0]] for role, there in found.items()}


def _without_partner(video: str, skeletons: Mapping[str, Path], labels: Mapping[str, Path]) -> Skipped:
    if video in skeletons:
        return Skipped(video, "a video without labels", str(skeletons[video]))
    return Skipped(video, "labels without a video", str(labels[video]))


def _read(labels: Mapping[str, str], item: Item) -> Iterator[Clip | Skipped]:
    """The clips of a video, in the order of its label file; a bad line costs its clip alone."""
    path, where = Path(item.path), Path(labels[item.key])
    lines = read_lines(where)
    with np.errstate(over="ignore"):  # whoever asked refuses what is not finite
        rows = number_rows(path, read_lines(path), _WIDTH).astype(np.float32)
    frames = rows.reshape(-1, _PERSONS, _JOINTS, 3)
    found = _VIDEO.fullmatch(item.key)
    performer, side = (found[1], found[2].lower()) if found else (None, "")
    if not any(line.strip() for line in lines):
        yield Skipped(item.key, "a video without a label line", str(where))
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        mark = _mark(where, number, line, len(frames))
        if isinstance(mark, Skipped):
            yield mark
            continue
        action, start, end = mark
        yield Clip(
            frames[max(start, 1) - 1 : end],
            label=action - 1,
            name=f"{item.key}_L{number:03d}_A{action:03d}",
            subjects=(int(performer) if performer else -1,),
            camera=CAMERAS.get(side, -1),
            mended="" if start else "a clip that begins at frame 0, read from frame 1 on",
        )


def _mark(path: Path, number: int, line: str, frames: int) -> tuple[int, int, int] | Skipped:
    """Class, first and last frame of a line, or why it marks no clip of a video of so many frames."""
    name, where = f"{path.stem}:{number}", f"{path}:{number}"
    values = [whole(word) for word in line.replace(",", " ").split()]
    if len(values) not in (3, 4) or None in values[:3]:
        return Skipped(name, "a label line that cannot be read", f"{where}: '{line.strip()[:60]}'")
    action, start, end = (value or 0 for value in values[:3])
    if not 1 <= action <= len(CLASS_NAMES):
        return Skipped(name, f"a class outside 1 to {len(CLASS_NAMES)}", f"{where}: class {action}")
    if start > end:
        return Skipped(name, "a clip that ends before it starts", f"{where}: from {start} to {end}")
    if start < 0 or not 1 <= end <= frames:
        return Skipped(name, "a clip outside its video", f"{where}: from {start} to {end}, it has {frames} frames")
    return action, start, end


Lists = Mapping[str, frozenset[str]]  # split -> its training videos


def _lists(source: Path, parts: list[str], videos: list[str], given: bool) -> Lists:
    """The official lists in a folder, or in a file; of several for a split, that of the part ('_v2' for II).

    Raises InputError for damaged ones; also, where they were ``given``, for none and for those of other videos.
    """
    files = all_files(source, _LIST) if source.is_dir() else [source]
    chosen: dict[str, Path] = {}
    for path in files:
        found = _LIST.fullmatch(path.name)
        if found is None:
            raise InputError(f"{path}: not called cross-subject.txt, cross_view_v2.txt or the like")
        split, second = _SPLITS[found[1].lower()], (found[2] or "").endswith("2")
        if split not in chosen or second == (parts == ["II"]):
            chosen[split] = path
    if given and not chosen:
        raise InputError(f"{source}: no list called cross-subject.txt, cross_view_v2.txt or the like")
    lists = {split: _training(path) for split, path in sorted(chosen.items())}
    strange = [split for split, train in lists.items() if train.isdisjoint(videos)]
    if given and strange:
        what = "none of its training videos is in the source; is it of the other part?"
        raise InputError(*(f"{chosen[split]}: {what}" for split in strange))
    return {split: train for split, train in lists.items() if split not in strange}


def _training(path: Path) -> frozenset[str]:
    """The training videos of a list: those behind a word that begins with Train, up to one that begins with Valid."""
    train, side = set(), ""
    for number, line in enumerate(read_lines(path), 1):
        head = re.match(r"\s*(train|valid|test)", line, re.IGNORECASE)
        side = head[1].lower() if head else side
        names = [found[0].upper() for found in _VIDEO.finditer(line)]
        if names and not side:
            raise InputError(f"{path}:{number}: videos before a line that says training or validation")
        if side == "train":
            train.update(names)
    if not train:
        raise InputError(f"{path}: no training videos in it")
    return frozenset(train)


def _splits(lists: Lists, table: ClipTable) -> Splits:
    """Training videos train and all others test; part II has its performers where there is no list."""
    videos = np.array([str(name).partition("_")[0] for name in table.names])
    out = {}
    for split, train in lists.items():
        out[split] = np.where(np.isin(videos, list(train)), TRAIN, TEST).astype(np.int8)
    performers = table.subjects[:, 0]
    if "xsub" not in out and (performers > 0).all():
        out["xsub"] = np.where(np.isin(performers, TEST_PERFORMERS), TEST, TRAIN).astype(np.int8)
    return out


def _remarks(lists: Lists, parts: list[str]) -> Iterator[str]:
    for split, file in (("xsub", "cross-subject"), ("xview", "cross-view")):
        if split not in lists and not (split == "xsub" and parts == ["II"]):
            yield f"split {split} is not stored: it needs the official list ({file}.txt); put it there, or --splits"
        elif split not in lists:
            yield "split xsub by rule, without the official list: performers 2, 3 and 7 test"
