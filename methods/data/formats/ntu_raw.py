"""NTU RGB+D 60 and 120 as they are downloaded: one ``.skeleton`` text a clip, in folders or still in the zip archives.

A file's name says all about the clip: SsssCcccPpppRrrrAaaa is setup, camera, performer, replication and action, each
counted from 1 (README of github.com/shahroudy/NTURGB-D). Left out and listed: files of other names, actions beyond
A120, the second file of a name, names on the list of missing skeletons (``--missing``, officially 302 clips of NTU-60
and 535 of NTU-120), and clips without a body in any frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from methods.data.layouts.layout import get_layout
from methods.data.reading import ntu_facts
from methods.data.reading.actors import PERSONS, as_listed, by_id
from methods.data.reading.ntu_facts import NtuName, parse_name
from methods.data.reading.skeleton_files import Found, find, first_names, read_bytes, relation, stem
from methods.data.reading.skeleton_text import read_bodies
from methods.data.reading.sources import Clip, Item, ReadOptions, Skipped, Source
from methods.errors import InputError, did_you_mean

OPTIONS = frozenset({"tracking", "missing"})
TRACKINGS = ("by_id", "as_listed")

OTHER_NAME = "name is not of the form SsssCcccPpppRrrrAaaa"
OTHER_ACTION = "action is none of A001 to A120"
SAME_NAME = "same name as another file"
ON_THE_LIST = "on the list of missing skeletons"
NO_BODY = "no body in any frame"

_COMPARED = 200  # pairs of files of one name whose bytes are compared; somebody keeps folder and archive side by side
_LONGEST_LIST = 16 << 20  # bytes
_CHUNK = 128  # clips of 80 frames are 6 MB


def recognises(source: Path) -> str | None:
    """By the name of a ``.skeleton`` file among the first that are met."""
    found = next((name for name in first_names(source) if _clip_name(name.rpartition(".")[0]) is not None), None)
    if found is None:
        return None
    return f"{'archive' if source.name.lower().endswith('.zip') else 'folder'} with {found} and more like it"


def plan(source: Path, options: ReadOptions, scratch: Path) -> Source:
    """List the files and what their names say; ``scratch`` is not used, archives are read as they are.

    Raises InputError for an unknown tracking, a faulty list of missing skeletons, a source that cannot be read or
    holds no ``.skeleton`` file.
    """
    faults: list[str] = []
    tracking = options.tracking or TRACKINGS[0]
    if tracking not in TRACKINGS:
        faults.append(f"unknown tracking '{tracking}'{did_you_mean(tracking, TRACKINGS)}")
    missing: frozenset[str] = frozenset()
    found = Found()
    try:
        missing = read_missing(options.missing) if options.missing is not None else missing
    except InputError as error:
        faults += error.faults
    try:
        found = find(source)
    except InputError as error:
        faults += error.faults
    if faults:
        raise InputError(*faults)
    if not found.items:
        told = "; ".join(f"{skip.name} {skip.detail}" for skip in found.unreadable[:3])
        raise InputError(f"{source}: no .skeleton file in it" + (f" (not readable: {told})" if told else ""))
    named, items, skipped = _sorted_out(found, missing)
    version = ntu_facts.version_of(
        max((name.setup for name in named), default=0), max((name.action for name in named), default=0)
    )
    return Source(
        layout=get_layout("ntu25"),
        class_names=ntu_facts.class_names(version),
        persons=PERSONS,
        items=items,
        read=partial(read, tracking=tracking),
        splits=partial(ntu_facts.splits, version=version),
        notes={"unit": "m", "version": version, "tracking": tracking, "missing_list": _file_name(options.missing)},
        published=ntu_facts.PUBLISHED[version],
        skipped=tuple(skipped),
        remarks=tuple(_remarks(version, found, named, options.missing, missing)),
        chunk=_CHUNK,
    )


def _clip_name(text: str) -> NtuName | None:
    """What a file's stem says; None for one with more in it than a clip's name."""
    return None if "." in text else parse_name(text)


def _sorted_out(found: Found, missing: frozenset[str]) -> tuple[list[NtuName], list[Item], list[Skipped]]:
    """What the names of all clips say, each name once; the items to read; what is left out and why."""
    named: list[NtuName] = []
    items: list[Item] = []
    skipped = list(found.unreadable)
    before: tuple[str, Item] | None = None
    compared = 0
    for item in found.items:
        text = stem(item)
        name = _clip_name(text)
        if name is None:
            skipped.append(Skipped(item.key, OTHER_NAME))
        elif not 0 <= name.label < len(ntu_facts.CLASS_NAMES):
            skipped.append(Skipped(item.key, OTHER_ACTION))
        elif before is not None and text == before[0]:
            skipped.append(Skipped(item.key, SAME_NAME, relation(item, before[1], compare=compared < _COMPARED)))
            compared += 1
        else:
            before = (text, item)
            named.append(name)
            if text in missing:
                skipped.append(Skipped(text, ON_THE_LIST, asked=True))
            else:
                items.append(item)
    return named, items, skipped


def _remarks(
    version: str, found: Found, named: list[NtuName], file: Path | None, missing: frozenset[str]
) -> Iterable[str]:
    title = f"NTU RGB+D {version.removeprefix('ntu')}"
    whole, official = ntu_facts.CLIPS[version], ntu_facts.MISSING[version]
    complete = len(named) == whole
    yield f"{title}: {len(named):,} of its {whole:,} clips are there" + (" (complete)" if complete else "")
    there = {stem(item) for item in found.items} & missing
    beside = f"; officially {official} of {title} are left out" if complete else ""
    if file is not None:
        yield (
            f"missing skeletons: {len(missing):,} names in {file.name}, {len(there):,} of them are in the source and "
            f"left out, {len(missing) - len(there):,} are not in it{beside}; clips without any body are left out too "
            f"('{NO_BODY}')"
        )
    else:
        yield (
            f"missing skeletons: no list was given (--missing), so only clips without any body are left out "
            f"('{NO_BODY}'){beside}"
        )
    if found.others:
        yield f"{found.others:,} other files in the source are no .skeleton files and were not looked at"


def _file_name(path: Path | None) -> str:
    return "" if path is None else path.name


def read_missing(path: Path) -> frozenset[str]:
    """The clip names in a list, one a line, with or without ``.skeleton``.

    Lines before the first name are a heading (the official lists begin with three). Raises InputError, file:line, for
    a line further down that is no name, and for a list without any.
    """
    try:
        if path.stat().st_size > _LONGEST_LIST:
            raise InputError(f"{path}: too large for a list of names")
        lines = path.read_bytes().decode("utf-8-sig", errors="replace").splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    names, faults = set(), []
    for number, line in enumerate(lines, start=1):
        text = line.strip().removesuffix(".skeleton")
        if _clip_name(text) is not None:
            names.add(text.replace("\\", "/").rpartition("/")[2])
        elif text and names:
            faults.append(f"{path}:{number}: '{text[:60]}' is no clip name (SsssCcccPpppRrrrAaaa)")
    if not names:
        faults = [f"{path}: holds no clip name (SsssCcccPpppRrrrAaaa, one a line)"]
    if faults:
        raise InputError(*faults)
    return frozenset(names)


def read(item: Item, tracking: str) -> Iterator[Clip | Skipped]:
    """The clip of a file; raises InputError, file:line, for a damaged one."""
    text = stem(item)
    name = parse_name(text)
    if name is None:
        raise InputError(f"{item.path}: {OTHER_NAME}")
    bodies = read_bodies(read_bytes(item), item.path)
    frames, mended = by_id(bodies) if tracking == "by_id" else (as_listed(bodies), "")
    if not frames.any():
        yield Skipped(text, NO_BODY, f"{item.path}: {bodies.frames} frames")
        return
    yield Clip(
        frames, name.label, text, subjects=(name.performer,), camera=name.camera, setup=name.setup, mended=mended
    )
