"""The journal as numbered pieces in a store: what they are called, how they join, and the journal made of them again.

`journal/<number>-<first byte>-<end byte>-<driver>-<checksum>.jsonl` holds whole lines, the journal's bytes from first
up to end, and never changes. ``driver`` is the number of the driver that wrote it; ``checksum`` is the CRC-32 of the
whole journal up to end, so that a piece proves all that lie before it, and a local journal is compared without being
fetched. Where a driver that was taken over wrote one more piece too late, that of the later driver counts.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from methods.errors import InputError
from tuning.engine.journal import decode, read_events
from tuning.storage.patience import patiently
from tuning.storage.scratch import beside
from tuning.storage.store import Store

FOLDER = "journal"
_NAME = re.compile(rf"{FOLDER}/(\d{{6,9}})-(\d{{1,15}})-(\d{{1,15}})-(\d{{1,9}})-([0-9a-f]{{8}})\.jsonl")


@dataclass(frozen=True)
class Segment:
    """One piece, as its name tells. ``number`` counts from 1."""

    number: int
    first: int
    end: int
    driver: int
    crc: int

    @property
    def name(self) -> str:
        return f"{FOLDER}/{self.number:06d}-{self.first}-{self.end}-{self.driver}-{self.crc:08x}.jsonl"


START = Segment(0, 0, 0, 0, 0)  # what lies before the first piece


def segment_of(name: str) -> Segment | None:
    """What a name tells; None for a name of something else."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    number, first, end, driver = (int(part) for part in found.groups()[:4])
    return Segment(number, first, end, driver, int(found[5], 16))


def read_chain(store: Store) -> list[Segment]:
    """The pieces that make the journal, in order. Raises ``InputError`` naming the piece at which they do not join."""
    names = patiently(lambda: store.names(FOLDER), what=f"reading {store.url}", root=store.folder)
    numbered: dict[int, list[Segment]] = {}
    for segment in filter(None, map(segment_of, names)):
        numbered.setdefault(segment.number, []).append(segment)
    chain = [START]
    for number in count(1):
        # A lower driver than before is one that was taken over: what it still wrote is no part of the history.
        there = [s for s in numbered.pop(number, []) if s.driver >= chain[-1].driver]
        if not there:
            break
        best = max(there, key=lambda s: (s.driver, s.end))
        if best.first != chain[-1].end or best.end <= best.first:
            raise InputError(
                f"{store.url}: {best.name} does not follow on byte {chain[-1].end}, where the journal before it ends; "
                "the copy is damaged: move that file and the later ones away, or give another --store"
            )
        chain.append(best)
    beyond = [s for rest in numbered.values() for s in rest if s.driver >= chain[-1].driver]
    if beyond:
        raise InputError(
            f"{store.url}: piece {chain[-1].number + 1} of the journal is missing, {min(beyond, key=_order).name} is "
            "there; restore it, or give another --store"
        )
    return chain[1:]


def _order(segment: Segment) -> int:
    return segment.number


def fetch_piece(store: Store, segment: Segment, before: int) -> bytes:
    """The lines of one piece, checked; ``before`` is the checksum of the journal up to it. Raises ``InputError``."""
    data = patiently(lambda: store.read(segment.name), what=f"fetching {segment.name}", root=store.folder)
    fault = "is gone" if data is None else ""
    if data is not None:
        if len(data) != segment.end - segment.first:
            fault = f"holds {len(data)} bytes, its name says {segment.end - segment.first}"
        elif zlib.crc32(data, before) != segment.crc:
            fault = "does not fit its checksum: it was changed, or belongs to another history"
        else:
            fault = _line_fault(data)
    if fault or data is None:
        raise InputError(f"{store.url}: {segment.name} {fault}; restore that file, or give another --store")
    return data


def _line_fault(data: bytes) -> str:
    for number, line in enumerate(data.splitlines(keepends=True), start=1):
        try:
            decode(line)
        except ValueError as error:
            return f"has a damaged line {number} ({error})"
    return ""


@dataclass(frozen=True)
class Restored:
    """What the store gave: ``lines`` that the local journal did not have; ``before``: bytes that it had."""

    lines: int
    before: int
    url: str

    @property
    def text(self) -> str:
        """One line for people."""
        if self.before:
            return f"{self.lines} lines that the local journal had lost were taken from {self.url}"
        return f"the journal was not here; {self.lines} lines of it were taken from {self.url}"


def restore(store: Store, journal: Path) -> Restored | None:
    """Bring what the store has of ``journal`` and this disk has not; None when nothing was missing.

    To be called before the journal is opened. Raises ``InputError`` for pieces that do not join or are damaged, for a
    journal that is another one than the store's, and while another process here has it open.
    """
    chain = read_chain(store)
    with _alone(journal):
        have = journal.read_bytes()[: read_events(journal)[1]] if journal.exists() else b""
        step = agreement(store, journal, have, chain)
        missing = bytearray()
        for segment, before in zip(chain[step:], [START, *chain][step:], strict=False):
            missing += fetch_piece(store, segment, before.crc)
        known = len(have) - (chain[step - 1].end if step else 0)
        if bytes(missing[:known]) != have[len(have) - known :][: len(missing)]:
            raise _other_history(store, journal, chain[step].name)
        added = bytes(missing[known:])
        if not added:
            return None
        if journal.exists():
            _extend(journal, len(have), added)
        else:
            _create(journal, added)
    return Restored(added.count(b"\n"), len(have), store.url)


def agreement(store: Store, journal: Path, have: bytes, chain: list[Segment]) -> int:
    """How many pieces of ``chain`` lie wholly in ``have``, the local lines. Raises ``InputError`` if they differ."""
    crc, at, step = 0, 0, 0
    view = memoryview(have)
    for segment in chain:
        if segment.end > len(have):
            break
        crc, at, step = zlib.crc32(view[at : segment.end], crc), segment.end, step + 1
        if crc != segment.crc:
            raise _other_history(store, journal, segment.name)
    return step


def _other_history(store: Store, journal: Path, name: str) -> InputError:
    return InputError(
        f"{journal} and {store.url} hold different histories (they part in {name}): another search, or a run folder "
        f"that went on without its store; to go on with the store's move {journal} away, with the local one give "
        "another --store"
    )


@contextlib.contextmanager
def _alone(journal: Path) -> Iterator[None]:
    """Keep others on this machine from restoring or opening the journal meanwhile."""
    journal.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        for path, flags in ((journal.parent, os.O_RDONLY), (journal, os.O_RDWR)):
            if path.exists():
                handle = os.open(path, flags | os.O_CLOEXEC)
                held.callback(os.close, handle)
                _lock(handle, journal)
        yield


def _lock(handle: int, journal: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InputError(f"{journal}: another process is running this search") from error
    except OSError:  # a file system that locks no folders: opening the journal excludes others by itself
        pass


def _create(journal: Path, data: bytes) -> None:
    """Whole, and only where there is still none."""
    with beside(journal) as temporary:
        temporary.touch(0o644)
        _append(temporary, data)
        try:
            os.link(temporary, journal)
        except FileExistsError as error:
            raise InputError(f"{journal}: another process is running this search") from error
        except OSError:  # a file system without hard links
            os.replace(temporary, journal)


def _extend(journal: Path, whole: int, data: bytes) -> None:
    """In place, for the lock is on that file; a kill leaves a torn last line, which is cut off like any other."""
    os.truncate(journal, whole)
    _append(journal, data)


def _append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
