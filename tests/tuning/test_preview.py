"""What is said of a search before it starts: where its pace is known from, and the dry run of the quickstart."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from tuning.arithmetic import Pace
from tuning.cli import app
from tuning.engine.journal import Journal
from tuning.engine.state import Report
from tuning.preview import known_pace
from tuning.resources import find_space
from tuning.space import load_search


@pytest.fixture(scope="module")
def quickstart():
    return load_search(find_space("quickstart"))


def ran(runs: Path) -> None:
    """Two epochs of an earlier run of the same name."""
    with Journal(runs / "quickstart" / "journal.jsonl", {"space": "s", "data": "d"}) as journal:
        number = journal.ask({"method": "skeletonclr"}, "startup")
        journal.report(number, Report(1, False, None, None, 4.0))
        journal.report(number, Report(2, False, None, None, 6.0))


def test_an_earlier_run_tells_the_pace(quickstart, tmp_path, monkeypatch):
    monkeypatch.setattr("tuning.preview.this_machine", lambda: {"CPU": 4.0, "GPU": 0.0})
    assert known_pace(*quickstart, tmp_path) == Pace({}, "measured in its journal", 4, 0.0)
    ran(tmp_path)
    assert known_pace(*quickstart, tmp_path).seconds == {"skeletonclr": 5.0}
    assert set(known_pace(*quickstart, tmp_path, 2.0).seconds.values()) == {2.0}


def test_a_journal_that_cannot_be_read_tells_nothing(quickstart, tmp_path):
    (tmp_path / "quickstart").mkdir()
    (tmp_path / "quickstart" / "journal.jsonl").write_text("no journal\nat all\n")
    assert known_pace(*quickstart, tmp_path).seconds == {}


def test_wishes_beyond_this_machine_are_no_fault_here(quickstart, tmp_path, monkeypatch):
    monkeypatch.setattr("tuning.preview.this_machine", lambda: {"CPU": 0.0})
    assert known_pace(*quickstart, tmp_path).slots == 1


@pytest.mark.parametrize("verb", ["check", "explain"])
def test_the_verbs_show_the_arithmetic(verb, tmp_path):
    ran(tmp_path)
    shown = CliRunner().invoke(app, [verb, "quickstart", "--no-data", "--runs", str(tmp_path)])
    assert shown.exit_code == 0
    assert (
        "budget: 10 trials ~ 10x1 + 4x1 + 2x2 + 1x2 = 20 epochs (33 % of 10 full runs); 1 of 10 runs in full"
        in shown.output
    )
    assert "time: at 5 s an epoch (measured in its journal)" in shown.output
    known = CliRunner().invoke(app, [verb, "quickstart", "--no-data", "--seconds-per-epoch", "2"])
    assert "time: at 2 s an epoch (as given)" in known.output
