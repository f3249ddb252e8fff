"""A journal whose storage is away for a while."""

from __future__ import annotations

import errno
import fcntl
import os

import pytest

from methods.errors import WorkFailed
from tuning.engine.journal import Journal, read_events

HEADER = {"space": "s", "data": "d", "engine": "e"}


def again(call) -> None:
    """Try until it works, as often as a test may need."""
    for _ in range(5):
        try:
            return call()
        except OSError as error:
            last = error
    raise WorkFailed(f"gave up: {last}")


def test_a_line_is_written_once_however_often_it_was_tried(tmp_path, monkeypatch) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path, HEADER, again)
    journal.ask({"method": "a"}, "sampler")
    real, faults = os.write, [errno.EIO, errno.ESTALE]

    def flaky(fd: int, data: bytes) -> int:
        if faults:
            real(fd, data[: len(data) // 2])  # half of it got there
            raise OSError(faults.pop(), "away")
        return real(fd, data)

    monkeypatch.setattr(os, "write", flaky)
    journal.ask({"method": "b"}, "sampler")
    monkeypatch.undo()
    journal.ask({"method": "c"}, "sampler")
    events, whole = read_events(path)
    assert [event["draws"]["method"] for event in events if event["e"] == "ask"] == ["a", "b", "c"]
    assert whole == path.stat().st_size
    with path.open("rb") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the new handle holds the lock
    journal.close()


def test_a_storage_that_stays_away_ends_the_search_in_one_line(tmp_path, monkeypatch) -> None:
    journal = Journal(tmp_path / "journal.jsonl", HEADER, again)

    def dead(fd: int, data: bytes) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "write", dead)
    with pytest.raises(WorkFailed, match="gave up"):
        journal.ask({"method": "a"}, "sampler")
    monkeypatch.undo()
    assert journal.failure is not None
    assert journal.state.trials == {}
    journal.close()
    assert Journal(tmp_path / "journal.jsonl", HEADER).state.trials == {}


def test_another_driver_that_wrote_meanwhile_is_not_cut_off(tmp_path, monkeypatch) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path, HEADER, again)
    real = os.write

    def away(fd: int, data: bytes) -> int:
        monkeypatch.setattr(os, "write", real)
        with path.open("ab") as file:
            file.write(b"a line of somebody else's\n")
        raise OSError(errno.ESTALE, "away")

    monkeypatch.setattr(os, "write", away)
    with pytest.raises(WorkFailed, match="another process has written"):
        journal.ask({"method": "a"}, "sampler")
    assert path.read_bytes().endswith(b"a line of somebody else's\n")
    assert journal.failure is not None
    journal.close()
