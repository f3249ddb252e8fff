"""Copies of a running search's journal in a store, so that a head that lost its disk goes on from there.

Every ``every_s`` seconds the lines that are new go out as one piece (:mod:`tuning.storage.chain`), in the background,
one upload at a time. A store that is away never stops the search: the copy falls behind, is told once, and catches up.

What a lost disk costs at most: the lines of the last :data:`EVERY_S` seconds and of one upload. Trials that were asked
for in that time are asked for again, with other draws under the same numbers; checkpoints in a store are therefore
named by what they are (:mod:`tuning.storage.checkpoints`), not by a number alone.

Only one driver writes. Each takes a number (`drivers/<number>-<host>-<pid>.json`) and looks before every upload whether
a later one is there: then it stops. Between that look and the end of its upload (one request to the store, plus
whatever time the process is frozen there) an older driver may still write one piece after the later one has read the
store. No history is mixed by it: the later driver's piece of the same number counts, and a piece whose checksum does
not prove the one before it is refused. What is lost is that one piece.
"""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from methods.errors import WorkFailed
from tuning.engine.journal import decode
from tuning.storage.chain import START, Segment, agreement, read_chain
from tuning.storage.drivers import Mark, TakenOver, this_process
from tuning.storage.patience import in_words, patiently
from tuning.storage.store import Store

EVERY_S = 30.0  # a lost disk costs at most the lines of so many seconds, and of one upload
RETRY_S = 15.0  # after an upload that failed

Work = Callable[[], None]
Join = Callable[[float], None]


@dataclass(frozen=True)
class _Piece:
    segment: Segment
    data: bytes
    taken: float  # by the clock: when the journal held no more than this


def in_background(work: Work) -> Join:
    """Run ``work`` in a thread that does not keep the process alive; the result waits for it, that many seconds."""
    thread = threading.Thread(target=work, daemon=True, name="journal-copy")
    thread.start()
    return thread.join


class Segments:
    """The copier of one driver. :meth:`begin` once the journal is open, :meth:`poll` at every step, :meth:`close`.

    ``say`` is only called within these, never from the thread of an upload. ``who``: host and process.
    """

    def __init__(
        self,
        store: Store,
        journal: Path,
        *,
        every_s: float = EVERY_S,
        who: str = "",
        say: Callable[[str], None] = print,
        clock: Callable[[], float] = time.monotonic,
        start: Callable[[Work], Join] = in_background,
    ) -> None:
        self._store, self._journal, self._every_s, self._say = store, journal, every_s, say
        self._who = who or this_process()
        self._clock, self._start = clock, start
        self._mark: Mark | None = None
        self._at = START
        self._pending: _Piece | None = None
        self._busy = False
        self._join: Join = lambda seconds: None
        self._outcome: Literal[True] | Exception | None = None  # of the last upload, until it is taken in
        self._taken_over: TakenOver | None = None
        self._told = False
        self._known_until = self._due = clock()

    def begin(self) -> None:
        """Become the driver that writes. The journal has been restored and opened, so it is this search's and locked.

        Raises ``WorkFailed`` when another driver began at the same moment or wrote meanwhile, ``InputError`` when the
        local journal and the store's part.
        """
        self._mark = mark = Mark(self._store, self._who, self._say)
        try:
            chain = read_chain(self._store)
            have = self._journal.read_bytes()
            if agreement(self._store, self._journal, have, chain) < len(chain):
                raise WorkFailed(
                    f"{self._store.url}: another driver of this search added to its journal just now; make sure that "
                    "it has ended, then the same command goes on"
                )
        except BaseException:
            mark.remove()
            raise
        self._at = chain[-1] if chain else START
        self._known_until = self._due = self._clock()

    @property
    def driver(self) -> int:
        """This driver's number, once it has begun: higher than that of every driver before."""
        return self._begun().number

    @property
    def behind_s(self) -> float:
        """Seconds of journal that the store does not have yet; 0 when it has every line."""
        if self._pending is None and self._size() <= self._at.end:
            return 0.0
        return self._clock() - self._known_until

    def _size(self) -> int:
        try:
            return self._journal.stat().st_size
        except OSError:
            return 0

    def poll(self) -> None:
        """Copy what is new, if it is time; never waits. Raises ``WorkFailed`` when a later driver took over."""
        if self._taken_over is not None:
            raise self._taken_over
        if self._busy:
            return
        self._settle()
        if self._clock() < self._due:
            return
        piece = self._pending = self._pending or self._next()
        if piece is None:
            return
        self._busy = True
        self._join = self._start(partial(self._work, partial(self._upload, piece)))

    def _next(self) -> _Piece | None:
        """The whole lines that lie beyond what was copied. Read in the driver's own thread: no line is half there."""
        now = self._clock()
        if self._size() <= self._at.end:
            self._known_until, self._due = now, now + self._every_s
            return None
        with self._journal.open("rb") as file:
            file.seek(self._at.end)
            data = file.read()
        whole = 0
        for line in data.splitlines(keepends=True):
            try:
                decode(line)
            except ValueError:
                break
            whole += len(line)
        if not whole:
            self._due = now + self._every_s
            return None
        data, at = data[:whole], self._at
        crc = zlib.crc32(data, at.crc)
        return _Piece(Segment(at.number + 1, at.end, at.end + whole, self._begun().number, crc), data, now)

    def _work(self, upload: Work) -> None:
        try:
            upload()
            self._outcome = True
        except TakenOver as error:
            self._taken_over = error
        except Exception as error:  # told at the next poll: a copy that fails never stops the search
            self._outcome = error
        finally:
            self._busy = False

    def _upload(self, piece: _Piece) -> None:
        self._begun().check()
        self._store.put_bytes(piece.data, piece.segment.name)

    def _begun(self) -> Mark:
        if self._mark is None:
            raise RuntimeError("poll before begin")
        return self._mark

    def _settle(self) -> None:
        """Take in how the last upload went, if one ended since."""
        outcome, self._outcome, piece = self._outcome, None, self._pending
        if outcome is None or piece is None:
            return
        if outcome is True:
            self._at, self._pending = piece.segment, None
            self._known_until, self._due = piece.taken, piece.taken + self._every_s
            if self._told:
                self._say(f"the copy of the journal in {self._store.url} has caught up")
            self._told = False
            return
        self._due = self._clock() + min(RETRY_S, self._every_s)
        if not self._told:
            self._say(
                f"the copy of the journal in {self._store.url} is {self.behind_s:.0f} s behind: {in_words(outcome)}; "
                "the search goes on, and so do the tries"
            )
        self._told = True

    def close(self, flush: bool = True, for_s: float = 60.0) -> None:
        """End, after copying the rest (``flush``), for which the store has ``for_s`` seconds. Raises nothing."""
        until = self._clock() + for_s
        self._join(for_s)
        why: object = "it does not answer"
        while flush and not self._busy and self._taken_over is None:
            self._settle()
            piece = self._pending = self._pending or self._next()
            if piece is None:
                return
            left = max(until - self._clock(), 0.0)
            self._busy = True
            self._start(partial(self._work, partial(self._flush, piece, left)))(left + 1.0)
            if isinstance(self._outcome, Exception):
                why = in_words(self._outcome)
                break
        if self._taken_over is not None:
            self._say(str(self._taken_over))
        elif flush:
            self._say(
                f"the last {self.behind_s:.0f} s of the journal are not in {self._store.url}: {why}; they are in "
                f"{self._journal}, and the same command copies them"
            )

    def _flush(self, piece: _Piece, for_s: float) -> None:
        patiently(lambda: self._upload(piece), what="copying", for_s=for_s, root=self._store.folder)
