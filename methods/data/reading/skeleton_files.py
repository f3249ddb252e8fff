"""Where a recording's ``.skeleton`` files are: in folders of any depth, and in zip archives, read without unpacking."""

from __future__ import annotations

import lzma
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from methods.data.reading.sources import Item, Skipped
from methods.errors import InputError

ENDING = ".skeleton"
_INSIDE = "::"  # between an archive and its member
_LARGEST = 256 << 20  # bytes; 300 frames of six bodies are 7 MB
_LOOKED_AT = 64  # entries of a folder that :func:`first_names` looks at
_DEPTH = 3  # folders in folders that it looks into
# What zipfile and its decompressors make of damage.
_BROKEN = (
    *(OSError, EOFError, ValueError, KeyError, RuntimeError, ArithmeticError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
)
_MEMBER = re.compile(r"(.*?\.zip)::(.*)", re.IGNORECASE | re.DOTALL)


@dataclass
class Found:
    """What lies in a source: items by name, then by place; what could not be looked into; how many other files."""

    items: list[Item] = field(default_factory=list)
    unreadable: list[Skipped] = field(default_factory=list)
    others: int = 0


def stem(item: Item) -> str:
    """The file's name without its ending."""
    return item.key.replace("\\", "/").rpartition("/")[2].rpartition(_INSIDE)[2][: -len(ENDING)]


def find(source: Path) -> Found:
    """All ``.skeleton`` files of a folder or zip archive; one stat a file.

    Of two that have one name, one outside of archives comes first. Raises InputError where the source itself, or a
    folder in it, cannot be read; a damaged archive in a folder is listed.
    """
    found = Found()
    if os.path.isdir(source):  # noqa: PTH112  Path.is_dir raises where it may not look
        _look_into(source, found)
    else:
        try:
            _open_up(str(source), source.name, found)
        except _BROKEN as error:
            raise InputError(f"{source}: neither a folder nor a readable .zip archive ({_why(error)})") from error
    found.items.sort(key=lambda item: (stem(item), _INSIDE in item.key, item.key))
    return found


def _look_into(source: Path, found: Found) -> None:
    for entry, key in _entries(source):
        name = entry.name.lower()
        if name.startswith(".") or not name.endswith((ENDING, ".zip")):
            found.others += 1
            continue
        try:
            facts = entry.stat()
            if not stat.S_ISREG(facts.st_mode):
                raise OSError("not a plain file")  # a pipe, say: reading it would wait for ever
            if name.endswith(ENDING):
                found.items.append(Item(key, entry.path, (facts.st_size, facts.st_mtime_ns)))
            else:
                _open_up(entry.path, key, found)
        except _BROKEN as error:
            found.unreadable.append(Skipped(key, "cannot be read", f"{entry.path}: {_why(error)}"))


def _entries(source: Path) -> Iterator[tuple[os.DirEntry[str], str]]:
    """Everything but folders, with its path from the source on; links are followed, a circle of them once."""
    waiting, seen = [(str(source), "")], set()
    while waiting:
        folder, prefix = waiting.pop()
        try:
            facts = os.stat(folder)  # noqa: PTH116  as fast as it gets: this may run over many folders
            if (facts.st_dev, facts.st_ino) in seen:
                continue
            seen.add((facts.st_dev, facts.st_ino))
            with os.scandir(folder) as entries:
                for entry in entries:
                    if _is_folder(entry):
                        waiting.append((entry.path, f"{prefix}{entry.name}/"))
                    else:
                        yield entry, prefix + entry.name
        except OSError as error:
            raise InputError(f"{folder}: cannot be read: {error.strerror}") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _is_archive(name: str) -> bool:
    return name.lower().endswith(".zip")


def _open_up(path: str, key: str, found: Found) -> None:
    """Add the members of a zip archive; its checksums tell whether a member has changed."""
    if not _is_archive(path):
        raise zipfile.BadZipFile("its name does not end in .zip")
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            name = info.filename
            if name.lower().endswith(ENDING) and not name.rpartition("/")[2].startswith("."):
                place = f"{_INSIDE}{name}"
                found.items.append(Item(key + place, path + place, (info.file_size, info.CRC)))
            elif not info.is_dir():
                found.others += 1


def first_names(source: Path) -> Iterator[str]:
    """Some names of ``.skeleton`` files in a source, quickly: of the first entries only; never raises."""
    if os.path.isdir(source):  # noqa: PTH112
        yield from _first_of_folder(source, _DEPTH)
    elif _is_archive(source.name):
        yield from _first_of_archive(source)


def _first_of_folder(folder: Path, depth: int) -> Iterator[str]:
    folders, archives = [], []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry, _ in zip(entries, range(_LOOKED_AT), strict=False):
            if _is_folder(entry):
                folders.append(Path(entry.path))
            elif entry.name.lower().endswith(ENDING):
                yield entry.name
            elif _is_archive(entry.name):
                archives.append(Path(entry.path))
    for archive in sorted(archives)[:2]:
        yield from _first_of_archive(archive)
    for inner in sorted(folders)[:8] if depth else ():
        yield from _first_of_folder(inner, depth - 1)


def _first_of_archive(path: Path) -> Iterator[str]:
    names = []
    with suppress(*_BROKEN):
        if os.path.isfile(path):  # noqa: PTH113
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()[:_LOOKED_AT]
    yield from (name.rpartition("/")[2] for name in names if name.lower().endswith(ENDING))


def read_bytes(item: Item) -> bytes:
    """The content of an item; raises InputError for what no skeleton file can be, OSError where it is gone."""
    if item.stamp and item.stamp[0] > _LARGEST:
        raise InputError(f"{item.path}: {item.stamp[0] >> 20} MiB are too many for a skeleton file")
    member = _MEMBER.fullmatch(item.path)
    if member is None:
        return Path(item.path).read_bytes()
    facts = Path(member[1]).stat()
    try:
        return _archive(member[1], (facts.st_size, facts.st_mtime_ns), os.getpid()).read(member[2])
    except _BROKEN as error:
        raise InputError(f"{item.path}: cannot be read: {_why(error)}") from error


@lru_cache(maxsize=4)
def _archive(path: str, _stamp: tuple[int, int], _process: int) -> zipfile.ZipFile:
    """An archive kept open: its directory is long. Not across processes, which would share one place in the file."""
    return zipfile.ZipFile(path)


def relation(second: Item, first: Item, *, compare: bool = True) -> str:
    """How a file relates to another of its name: by size, then (only if ``compare``) byte by byte."""
    if first.stamp[:1] != second.stamp[:1]:
        return f"differs from {first.key}"
    if not compare:
        return f"as large as {first.key}, not compared"
    try:
        same = read_bytes(first) == read_bytes(second)
    except (InputError, OSError):
        return f"not comparable with {first.key}"
    return f"{'identical to' if same else 'differs from'} {first.key}"


def _why(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
