"""The benchmark of the engine itself at its smallest: rows have their shape, nothing is timed."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def controller(monkeypatch):
    """The package is no part of the distribution: it is run from the checkout."""
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import controller

    return controller


def test_a_whole_search_is_weighed(controller):
    row = controller.measure(controller.Job("random", 40, "promote", 4, profile=True))
    assert list(row["ask_ms"]) == ["40"] and row["peak_mib"] >= row["start_mib"] > 0
    assert row["journal_lines"] > 40 + row["scores"] and row["journal_bytes"] > 60 * row["journal_lines"]
    told = controller.table([row])
    assert told[2].startswith("| random | promote | 40 |") and len(row["profile"]) == controller.SHOWN


def test_asks_beside_known_trials_are_those_of_the_sampler(controller):
    row = controller.measure(controller.Job("tpe", 30, "promote", 4, asks=6))
    assert list(row["ask_ms"]) == ["30"] and 1 <= row["modelled_asks"] <= 6
    assert controller.table([row])[-1].startswith("| tpe | 30 |")


def test_what_is_measured(controller):
    def jobs(*words):
        return [(j.sampler, j.trials, j.asks) for j in controller.jobs_of(controller.parse(words))]

    assert jobs() == [("random", 1000, 0), ("tpe", 1000, 0)]
    assert jobs("--samplers", "tpe", "--at", "50,90", "--asks", "3") == [("tpe", 50, 3), ("tpe", 90, 3)]
    assert jobs("--samplers", "gp", "--simulated", "20", "--at", "9") == [("gp", 20, 0), ("gp", 9, 30)]


def test_wrong_words_are_told_at_once(controller, capsys):
    assert controller.main(["--samplers", "tpe,tp", "--at", "x", "--asks", "0"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert [line.split(":")[1].split()[0] for line in said] == ["--samplers", "--at", "--asks"]
