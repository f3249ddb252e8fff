"""The benchmark of a driver with many workers at its smallest: rows have their shape, nothing is timed."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def scale(monkeypatch):
    """The package is no part of the distribution: it is run from the checkout."""
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import scale

    return scale


@pytest.fixture
def small(scale):
    return scale.Cluster(16, per_node=8, clips=64, fails=0.2)


def test_a_search_through_the_whole_driver(scale, small):
    row = scale.measure(scale.Job(trials=40, cluster=small, rungs=(1, 9), verbs=False))
    assert row["broke"] == "" and row["trials_asked"] == 40 and list(row["marks"]) == [40]
    assert row["calls"]["ask"]["n"] >= 40 < row["calls"]["rung"]["n"] and row["calls"]["failure"]["n"] > 0
    assert row["journal_lines"] > row["journal_synced"] > 80 and row["journal_bytes"] > 60 * row["journal_lines"]
    assert set(row["observers_s"]) == set(scale.PARTS) and row["event_files"] >= 40
    assert row["resume_s"] >= row["resume_read_s"] > 0 and row["concluded"] > 0
    assert any(line.startswith("| 40 |") for line in scale.table([row]))


def test_asks_beside_the_trials_of_a_driver_that_was_killed(scale, small):
    bare = scale.Job("rank_gp", 10, beside=30, cluster=small, rungs=(1, 9), without=scale.PARTS, verbs=False)
    row = scale.measure(bare)
    assert row["trials_asked"] == 40 and row["observers_s"] == {} and row["event_files"] == 0
    assert row["calls"]["ask"]["n"] >= 10


def test_waiting_for_one_driver(scale):
    def calls(service, think=8.0, workers=2):
        return [scale.Call(w, think, "rung", 9.9, service, 0.0, 1) for _ in range(200) for w in range(workers)]

    waits, busy = scale.idle_share(calls(0.0))
    assert waits == 0 and busy == 0
    waits, busy = scale.idle_share(calls(2.0))  # the second of two is served after the first, once; then they alternate
    assert waits == pytest.approx(0.2, abs=0.01) and busy == pytest.approx(0.4, abs=0.01)
    waits, busy = scale.idle_share(calls(8.0, workers=4))  # one at work always, so that a round takes 32 s
    assert waits == pytest.approx(0.75, abs=0.01) and busy == pytest.approx(1.0, abs=0.01)
    assert scale.idle_share(calls(1.0), extra_s=1.0) == scale.idle_share(calls(2.0))


def test_what_is_measured(scale):
    def jobs(*words):
        return [(j.sampler, j.trials, j.without) for j in scale.jobs_of(scale.parse(words))]

    assert jobs() == [("random", 1000, ())]
    assert jobs("--trials", "9,30", "--samplers", "tpe", "--without", "lines") == [
        ("tpe", 9, ("lines",)),
        ("tpe", 30, ("lines",)),
    ]


def test_wrong_words_are_told_at_once(scale, capsys):
    assert scale.main(["--trials", "x", "--without", "line", "--rungs", "3", "--workers", "0"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert [line.split(":")[1].split()[0] for line in said] == ["--without", "--trials", "--rungs", "--workers"]
