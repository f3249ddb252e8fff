"""The copied journal: whatever breaks off, what comes back is a prefix of whole lines, never a mix."""

from __future__ import annotations

import errno
import threading
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from methods.errors import InputError, WorkFailed
from tuning.engine.journal import Journal, encode
from tuning.storage.chain import Segment, read_chain, restore
from tuning.storage.segments import EVERY_S, Segments


class Killed(BaseException):
    """The process ends here."""


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def at_once(work):
    work()
    return lambda seconds: None


def line(number: int, what: str = "a") -> bytes:
    return encode({"e": "x", "n": number, "what": what * (number % 7)})


def add(journal: Path, *lines: bytes) -> None:
    with journal.open("ab") as file:
        file.write(b"".join(lines))


def driver(box, journal: Path, clock=None, said=None, **options) -> Segments:
    found = Segments(
        box,
        journal,
        who=options.pop("who", "host-1"),
        say=(said if said is not None else []).append,
        clock=clock or Clock(),
        start=options.pop("start", at_once),
        **options,
    )
    found.begin()
    return found


@pytest.fixture
def journal(tmp_path) -> Path:
    path = tmp_path / "run" / "journal.jsonl"
    path.parent.mkdir()
    add(path, line(0), line(1))
    return path


def pieces(box) -> list[str]:
    return box.names("journal")


def test_pieces_go_out_when_it_is_time(box, journal):
    clock = Clock()
    copier = driver(box, journal, clock)
    copier.poll()
    assert [n.split("-")[:3] for n in pieces(box)] == [["journal/000001", "0", str(journal.stat().st_size)]]
    add(journal, line(2), line(3)[:-4])  # the last one is still being written
    clock.now = EVERY_S - 1
    copier.poll()
    assert len(pieces(box)) == 1
    assert copier.behind_s == EVERY_S - 1
    clock.now = EVERY_S
    copier.poll()
    copier.poll()
    assert [box.files[n] for n in pieces(box)] == [line(0) + line(1), line(2)]
    add(journal, line(3)[-4:])
    copier.close()
    assert b"".join(box.files[n] for n in pieces(box)) == journal.read_bytes()
    assert copier.behind_s == 0


def test_a_lost_disk_goes_on_and_numbers_go_on(box, journal, tmp_path):
    copier = driver(box, journal)
    copier.poll()
    add(journal, line(2))
    copier.close()
    before = journal.read_bytes()
    other = tmp_path / "elsewhere" / "run" / "journal.jsonl"
    found = restore(box, other)
    assert (found.lines, found.before) == (3, 0)
    assert "3 lines" in found.text
    assert other.read_bytes() == before
    assert restore(box, other) is None
    second = driver(box, other)
    add(other, line(3))
    second.close()
    assert [s.number for s in read_chain(box)] == [1, 2, 3]
    assert [s.driver for s in read_chain(box)] == [1, 1, 2]


def test_an_empty_store_gives_nothing(box, tmp_path):
    assert restore(box, tmp_path / "run" / "journal.jsonl") is None
    assert not (tmp_path / "run" / "journal.jsonl").exists()


@pytest.mark.parametrize("left", [0, 10, 60, 75, 100])
def test_a_journal_that_lost_its_end_gets_it_back(box, journal, left):
    """A power cut takes lines that were copied already, and leaves half of one."""
    driver(box, journal).close()
    add(journal, line(2), line(3))
    driver(box, journal).close()
    whole = journal.read_bytes()
    journal.write_bytes(whole[:left])
    found = restore(box, journal)
    assert journal.read_bytes() == whole
    assert found.lines + whole[: found.before].count(b"\n") == 4


def test_other_histories_are_refused(box, journal, tmp_path):
    driver(box, journal).close()
    add(journal, line(2), line(3))
    driver(box, journal).close()
    for lines in ([line(0, "b"), line(1, "b"), line(2)], [line(0), line(1), line(2, "c")], [line(5)]):
        other = tmp_path / "other.jsonl"
        other.write_bytes(b"".join(lines))
        before = other.read_bytes()
        with pytest.raises(InputError, match="different histories"):
            restore(box, other)
        assert other.read_bytes() == before


def test_a_local_journal_beyond_the_store_is_kept(box, journal):
    driver(box, journal).close()
    add(journal, line(2))
    before = journal.read_bytes()
    assert restore(box, journal) is None
    assert journal.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f, n: f.pop(n[1]), "piece 2 of the journal is missing, journal/000003"),
        (lambda f, n: f.pop(n[0]), "piece 1 of the journal is missing"),
        (lambda f, n: f.update({n[1]: f[n[1]][:-5]}), "journal/000002.* holds"),
        (lambda f, n: f.update({n[1]: f[n[1]].replace(b'"n":2', b'"n":9')}), "journal/000002.* does not fit"),
        (lambda f, n: f.update({n[1].replace("000002-", "000002-9"): f.pop(n[1])}), "000002-9.* does not follow"),
    ],
)
def test_a_damaged_copy_is_told_by_its_piece(box, journal, tmp_path, change, words):
    driver(box, journal).close()
    for number in (2, 3):
        add(journal, line(number))
        driver(box, journal).close()
    change(box.files, pieces(box))
    with pytest.raises(InputError, match=words):
        restore(box, tmp_path / "new" / "journal.jsonl")
    assert not (tmp_path / "new" / "journal.jsonl").exists()


def test_a_damaged_line_under_a_right_checksum_is_refused(box, tmp_path, journal):
    bad = line(0)[:-6] + b'00"}\n'
    box.files[Segment(1, 0, len(bad), 1, zlib.crc32(bad)).name] = bad
    with pytest.raises(InputError, match="damaged line 1"):
        restore(box, tmp_path / "new.jsonl")


def test_an_open_journal_is_not_touched(box, tmp_path):
    path = tmp_path / "run" / "journal.jsonl"
    with Journal(path, {"space": "s"}):
        driver(box, path).close()
        with pytest.raises(InputError, match="another process is running this search"):
            restore(box, path)


# --- a store that is away -------------------------------------------------------------------------------------------


def away(step, name):
    raise OSError(errno.EHOSTUNREACH, "No route to host")


def test_a_store_that_is_away_is_told_once_and_catches_up(box, journal):
    clock, said = Clock(), []
    copier = driver(box, journal, clock, said)
    copier.poll()
    box.fate = away
    for step in range(1, 20):
        add(journal, line(step + 1))
        clock.now = 30.0 * step
        copier.poll()
    assert len(said) == 1
    assert "is 60 s behind: No route to host; the search goes on" in said[0]
    assert copier.behind_s == 30.0 * 19
    box.fate = lambda step, name: None
    for step in range(20, 24):
        clock.now = 30.0 * step
        copier.poll()
    assert said[1:] == ["the copy of the journal in box://b has caught up"]
    assert copier.behind_s == 0
    assert b"".join(box.files[n] for n in pieces(box)) == journal.read_bytes()


def test_a_piece_whose_answer_was_lost_is_sent_again_as_it_was(box, journal):
    """Never a second, longer one under the same number."""
    clock = Clock()
    copier = driver(box, journal, clock)
    box.fate = lambda step, name: away(step, name) if step == "after" else None
    for step in range(3):
        clock.now = 30.0 * step
        copier.poll()
        add(journal, line(2 + step))
    box.fate = lambda step, name: None
    copier.close()
    assert len(pieces(box)) == len(read_chain(box)) == 2
    assert b"".join(box.files[n] for n in pieces(box)) == journal.read_bytes()


def test_a_store_that_stays_away_is_told_at_the_end(box, journal):
    clock, said = Clock(), []
    copier = driver(box, journal, clock, said)
    box.fate = away
    clock.now = 12.0
    copier.close(for_s=0)
    assert len(said) == 1
    assert said[0].startswith("the last 12 s of the journal are not in box://b:")
    assert str(journal) in said[0]


def test_an_upload_runs_beside_the_search_one_at_a_time(box, journal):
    """With the real thread: polls go through while a write hangs, and close waits for it."""
    gate, seen = threading.Event(), []

    def hang(step, name):
        if step == "before" and name.startswith("journal/"):
            seen.append(name)
            assert gate.wait(10)

    clock = Clock()
    copier = Segments(box, journal, who="h-1", say=seen.append, clock=clock)
    copier.begin()
    box.fate = hang
    for step in range(5):
        clock.now = 100.0 * step
        copier.poll()
    assert pieces(box) == []
    add(journal, line(2))
    gate.set()
    copier.close()
    assert len(seen) == 2
    assert b"".join(box.files[n] for n in pieces(box)) == journal.read_bytes()


# --- two drivers ----------------------------------------------------------------------------------------------------


def test_a_later_driver_stops_the_older(box, journal, tmp_path):
    old = driver(box, journal, every_s=0.0)
    old.poll()
    other = tmp_path / "b" / "journal.jsonl"
    restore(box, other)
    new = driver(box, other, who="other-2")
    add(journal, line(2))
    old.poll()
    with pytest.raises(WorkFailed, match=r"another driver took over this search at 20.* by other-2; this one stops"):
        old.poll()
    old.close()
    add(other, line(2, "b"))
    new.close()
    assert b"".join(box.files[n] for n in pieces(box)) == other.read_bytes()


def test_a_piece_that_came_too_late_is_no_part_of_the_history(box, journal, tmp_path):
    """The old driver was frozen between its look and its upload: the window that is left."""
    old = driver(box, journal, every_s=0.0)
    old.poll()
    other = tmp_path / "b" / "journal.jsonl"
    new: list[Segments] = []

    def take_over(step, name):
        if name.startswith("journal/") and step == "before" and not new:
            new.append(new_driver())

    def new_driver():
        restore(box, other)
        return driver(box, other, who="other-2")

    box.fate = take_over
    add(journal, line(2), line(3))
    old.poll()
    assert len(pieces(box)) == 2
    add(other, line(2, "b"))
    new[0].close()
    assert len(pieces(box)) == 3
    again = tmp_path / "c" / "journal.jsonl"
    restore(box, again)
    assert again.read_bytes() == other.read_bytes()
    assert len(read_chain(box)) == 2


def test_what_a_driver_that_was_taken_over_wrote_beyond_is_ignored(box, journal, tmp_path):
    driver(box, journal).close()
    add(journal, line(2))
    driver(box, journal).close()
    end = journal.stat().st_size
    box.files[Segment(3, end, end + len(line(9)), 1, 7).name] = line(9)
    restore(box, tmp_path / "new.jsonl")
    assert (tmp_path / "new.jsonl").read_bytes() == journal.read_bytes()


def test_drivers_that_begin_together_do_not_both_go_on(box, journal, tmp_path):
    """Both list before either writes."""
    other = tmp_path / "b.jsonl"
    other.write_bytes(journal.read_bytes())
    inner = []

    def second(step, name):
        if step == "before" and name.startswith("drivers/") and not inner:
            inner.append(1)
            driver(box, other, who="other-2")

    box.fate = second
    with pytest.raises(WorkFailed, match="another driver began at the same moment"):
        driver(box, journal)
    assert box.names("drivers") == ["drivers/000001-other-2.json"]


def test_lines_that_another_driver_added_meanwhile_stop_the_start(box, journal, tmp_path):
    old = driver(box, journal)
    old.poll()
    other = tmp_path / "b.jsonl"
    restore(box, other)
    add(journal, line(2))
    old.close()
    with pytest.raises(WorkFailed, match="added to its journal just now"):
        driver(box, other, who="other-2")
    assert box.names("drivers") == ["drivers/000001-host-1.json"]  # the old one is not stopped by it


def test_an_emptied_store_is_told_and_not_filled_with_a_torso(box, journal):
    said = []
    copier = driver(box, journal, said=said)
    copier.poll()
    box.files.clear()
    add(journal, line(2))
    copier.close(for_s=0)
    assert box.files == {}
    assert "somebody emptied the store" in said[-1]


# --- any order of things --------------------------------------------------------------------------------------------

EVENT = st.sampled_from(["lines", "poll", "poll", "close", "away", "killed before", "killed after", "lost after"])
DISK = st.sampled_from(["kept", "lost", "torn"])


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=st.lists(st.tuples(EVENT, DISK, st.integers(0, 4)), max_size=25))
def test_whatever_breaks_off_a_prefix_of_whole_lines_comes_back(events, new_box, tmp_path_factory):
    """`lost after`: the write arrived and its answer did not. Each kill is followed by a start, the disk as drawn."""
    box, journal = new_box(), tmp_path_factory.mktemp("s") / "journal.jsonl"
    serial, history, life = 0, [], 0
    add(journal)

    def begin() -> Segments:
        return driver(box, journal, every_s=0.0, who=f"h-{life}")

    def copied() -> int:
        return sum(box.files[s.name].count(b"\n") for s in read_chain(box))

    copier = begin()
    for event, disk, amount in events:
        box.fate = lambda step, name: None
        if event == "lines":
            new = [line(serial + i, f"{life % 10}") for i in range(amount)]
            serial += amount
            history += new
            add(journal, *new)
        elif event in ("poll", "close"):
            copier.poll() if event == "poll" else copier.close()
        elif event == "away":
            box.fate = away
            copier.poll()
        elif event == "lost after":
            box.fate = lambda step, name: away(step, name) if step == "after" else None
            copier.poll()
        else:
            when, life, known = event.split()[1], life + 1, copied()

            def kill(step, name, when=when):
                if step == when:
                    raise Killed

            box.fate = kill
            try:
                copier.poll()
                copier.poll()
            except Killed:
                pass
            box.fate = lambda step, name: None
            if disk == "lost":
                journal.unlink()
            elif disk == "torn":
                whole = journal.read_bytes()
                journal.write_bytes(whole[: max(len(whole) - 11 * amount, 0)])
            restore(box, journal)
            if not journal.exists():
                add(journal)
            cut = journal.read_bytes()
            journal.write_bytes(cut[: cut.rfind(b"\n") + 1])  # as opening the journal does
            left = journal.read_bytes().splitlines(keepends=True)
            assert left == history[: len(left)]
            assert len(left) >= known
            history = left
            copier = begin()
    box.fate = lambda step, name: None
    copier.close()
    other = journal.with_name("other.jsonl")
    restore(box, other)
    assert (other.read_bytes() if other.exists() else b"") == b"".join(history)
