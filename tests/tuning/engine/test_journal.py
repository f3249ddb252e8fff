"""The journal: pure replay, checksums, torn lines, one driver at a time, another search refused."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.errors import InputError
from tuning.engine.journal import Journal, decode, encode, finite, read_events, replay
from tuning.engine.state import JournalState, Report, scored

HEADER = {"space": "a" * 64, "data": "b" * 64, "name": "x"}


def report(epoch, top1=None, rung=False, loss=None):
    return Report(epoch, rung, top1, loss, 1.5, {"train_loss": 0.25})


def plain(state: JournalState):
    """All of a state, comparable."""
    return (
        {k: v for k, v in state.header.items() if k != "time"},
        {n: (t.draws, t.origin, dict(t.reports), t.ended, t.detail) for n, t in state.trials.items()},
        state.jobs,
        state.facts,
        state.order,
    )


def fill(journal):
    a = journal.ask({"method": "m", "x": 0.1}, "sampler")
    b = journal.ask({"method": "m", "x": 0.2}, "start")
    journal.report(a, report(1))
    journal.report(a, report(3, 0.5, True, 1.25))
    journal.report(b, report(3, 0.7, True, 0.75))
    journal.end(a, "culled", "50.0 < 70.0")
    journal.job("rerun-0", {"top1": 0.6})
    journal.fact("note", {"text": "hello"})
    return a, b


def test_replay_gives_the_same_state(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path, HEADER) as journal:
        fill(journal)
        lived = plain(journal.state)
    with Journal(path, HEADER) as again:
        assert plain(again.state) == lived
        assert not again.torn
    assert plain(replay(path)) == lived
    state = replay(path)
    assert [t.trial for t in state.pending] == [1]
    assert [t.trial for t in state.ended] == [0]
    assert [(t.trial, r.top1) for t, r in scored(state)] == [(0, 0.5), (1, 0.7)]
    assert state.trials[0].last_rung.epoch == 3
    assert state.trials[0].at(1) is None
    assert state.trials[0].seconds == 3.0


def test_every_event_counts_once(tmp_path):
    with Journal(tmp_path / "j", HEADER) as journal:
        a, _ = fill(journal)
        size = (tmp_path / "j").stat().st_size
        assert journal.report(a, report(3, 0.9, True)) is False
        assert journal.end(a, "top") is False
        journal.job("rerun-0", {"top1": 0.1})
        journal.fact("note", {"text": "again"})
        assert (tmp_path / "j").stat().st_size == size
        assert journal.state.trials[a].reports[3].top1 == 0.5
        assert journal.state.trials[a].ended == "culled"


def test_applying_all_events_twice_changes_nothing(tmp_path):
    path = tmp_path / "j"
    with Journal(path, HEADER) as journal:
        fill(journal)
    once, twice = JournalState(), JournalState()
    events, _ = read_events(path)
    for event in events:
        once.apply(event)
    for event in [*events, *events]:
        twice.apply(event)
    assert plain(once) == plain(twice)


@given(cut=st.integers(1, 10_000))
@settings(max_examples=60, deadline=None)
def test_a_tear_anywhere_loses_only_what_was_torn(tmp_path_factory, cut):
    """Cutting the file at any byte leaves the whole lines before it; the search goes on and numbers stay unique."""
    path = tmp_path_factory.mktemp("torn") / "j"
    with Journal(path, HEADER) as journal:
        fill(journal)
    whole = path.read_bytes()
    cut = cut % len(whole)
    path.write_bytes(whole[:cut])
    kept = whole[:cut].count(b"\n")
    with Journal(path, HEADER) as journal:
        at_line_end = cut == 0 or whole[cut - 1 : cut] == b"\n"
        assert journal.torn is not at_line_end
        number = journal.ask({"method": "m"}, "sampler")
        assert number == len(journal.state.trials) - 1
    events, length = read_events(path)
    assert length == path.stat().st_size
    assert len(events) == max(kept, 1) + 1  # what was whole (or a new header), and the new ask


def test_a_damaged_line_in_the_middle_is_named(tmp_path):
    path = tmp_path / "j"
    with Journal(path, HEADER) as journal:
        fill(journal)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b"0.2", b"0.3")
    path.write_bytes(b"".join(lines))
    with pytest.raises(InputError, match=r"j:3: damaged line \(wrong checksum\)"):
        Journal(path, HEADER)
    assert path.read_bytes() == b"".join(lines)  # and nothing was changed


def test_another_search_is_refused(tmp_path):
    Journal(tmp_path / "j", HEADER).close()
    with pytest.raises(InputError, match="holds another search space"):
        Journal(tmp_path / "j", HEADER | {"space": "c" * 64})
    with pytest.raises(InputError, match="holds another dataset"):
        Journal(tmp_path / "j", HEADER | {"data": "c" * 64})
    Journal(tmp_path / "j", HEADER | {"name": "renamed"}).close()  # a name is no part of a search


def test_two_drivers_exclude_each_other(tmp_path):
    path = tmp_path / "j"
    code = f"from tuning.engine.journal import Journal\nJournal(__import__('pathlib').Path({str(path)!r}), {HEADER!r})"
    with Journal(path, HEADER):
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "another process is running this search" in other.stderr
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_failed_opening_gives_the_lock_back(tmp_path):
    Journal(tmp_path / "j", HEADER).close()
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(3):
        with pytest.raises(InputError):
            Journal(tmp_path / "j", HEADER | {"space": "c" * 64})
    after = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    assert after == before
    Journal(tmp_path / "j", HEADER).close()


def test_decisions_are_on_the_disk_when_the_call_returns(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    with Journal(tmp_path / "j", HEADER) as journal:
        count = len(synced)
        a = journal.ask({}, "sampler")
        assert len(synced) == count + 1
        journal.report(a, report(1))  # a heartbeat may be lost
        assert len(synced) == count + 1
        journal.report(a, report(2, 0.5, True))
        assert len(synced) == count + 2
        journal.end(a, "top")
        assert len(synced) == count + 3


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text().filter(lambda k: k != "crc"), JSON, min_size=1, max_size=4))
@settings(max_examples=200, deadline=None)
def test_lines_round_trip(event):
    line = encode(event)
    assert line.count(b"\n") == 1
    back = decode(line)
    back.pop("crc", None)
    assert back == event
    json.loads(line)  # plain JSON lines for other tools


@given(st.dictionaries(st.text(), JSON, min_size=1, max_size=3), st.integers(0, 10_000), st.integers(1, 255))
@settings(max_examples=200, deadline=None)
def test_any_flipped_byte_is_noticed(event, where, flip):
    line = bytearray(encode({"e": "x", **event}))
    where %= len(line)
    line[where] ^= flip
    try:
        back = decode(bytes(line))
    except ValueError:
        return
    back.pop("crc", None)
    assert back == {"e": "x", **event}  # only the checksum's own text may differ and still be read


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_json_has_no_word_for_nan(tmp_path, value):
    assert finite(value) is None
    with Journal(tmp_path / "j", HEADER) as journal:
        a = journal.ask({}, "sampler")
        journal.report(a, report(1, value, True, value))
        assert journal.state.trials[a].last_rung is None  # no score, and not on any rung
        assert journal.state.order == []
