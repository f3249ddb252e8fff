"""What machines did, and which of them fail whatever they are given."""

from __future__ import annotations

import time

import pytest

from tuning.engine.mishaps import ERROR, KILLED, LOST
from tuning.engine.state import Failure, JournalState, Report, TrialState
from tuning.recorder import report_of
from tuning.watching.nodes import BadNodes, node_lines, node_rows


def state_of(*trials: TrialState) -> JournalState:
    state = JournalState()
    state.trials = {trial.trial: trial for trial in trials}
    return state


def trial(number: int, node: str, seconds: float, epochs: int = 6, method: str = "crrl", **logs) -> TrialState:
    found = TrialState(number, {"method": method}, "sampler")
    for epoch in range(1, epochs + 1):
        found.reports[epoch] = Report(epoch, False, None, None, seconds, logs, node)
    return found


def test_a_slow_machine_is_told_by_epochs_of_the_same_method() -> None:
    rows = node_rows(state_of(trial(0, "a", 1.0), trial(1, "b", 3.5), trial(2, "a", 100.0, method="pstl")))
    assert [(row.node, row.epochs, row.pace, row.slow) for row in rows] == [
        ("a", 12, pytest.approx(1 / 3.5), False),
        ("b", 6, 3.5, True),
    ]
    assert "slow: 3.5 times" in "\n".join(node_lines(rows))


def test_few_epochs_or_no_other_machine_tell_no_pace() -> None:
    assert [r.pace for r in node_rows(state_of(trial(0, "a", 1.0), trial(1, "b", 3.0, epochs=4)))] == [None, None]
    assert [r.pace for r in node_rows(state_of(trial(0, "a", 1.0)))] == [None]
    assert node_lines(node_rows(state_of(trial(0, "a", 1.0)))) == []
    assert node_lines(node_rows(state_of(trial(0, "", 1.0)))) == []


def test_failures_and_clocks_are_told() -> None:
    broken = trial(0, "a", 1.0, clock_off=3600)
    broken.failures = [Failure("x", KILLED, "b"), Failure("x", KILLED, "b"), Failure("x", LOST, "b", False)]
    lines = node_lines(node_rows(state_of(broken)))
    assert any("2 killed, 1 lost" in line for line in lines)
    assert any("its clock is 3600 s ahead" in line for line in lines)


@pytest.mark.parametrize(("off", "told"), [(0.0, None), (5.0, None), (3600.0, 3600), (-3600.0, -3600)])
def test_a_result_tells_its_node_and_a_clock_that_is_off(off, told) -> None:
    result = {"epoch": 1, "rung": False, "seconds": 1.0, "node": "10.0.0.9", "clock": time.time() + off}
    report = report_of(result)
    assert report.node == "10.0.0.9"
    assert report.logs.get("clock_off") == (told if told is None else pytest.approx(told, abs=2))
    assert "clock" not in report.logs


def test_three_different_trials_in_a_row_make_a_bad_node() -> None:
    nodes = BadNodes()
    assert not nodes.failed("a", 1, ERROR)
    assert not nodes.failed("a", 1, ERROR), "the same trial says nothing more about the machine"
    assert not nodes.failed("a", 2, KILLED)
    assert not nodes.failed("a", 3, LOST), "a lost machine is not a bad one"
    assert nodes.failed("a", 3, ERROR)
    assert not nodes.failed("a", 4, ERROR), "told once"
    assert nodes.bad == {"a"}
    nodes.worked("a")
    assert nodes.bad == frozenset()


def test_an_epoch_in_between_and_a_restart_forgive() -> None:
    nodes = BadNodes()
    for number in (1, 2):
        nodes.failed("a", number, ERROR)
    nodes.worked("a")
    assert not nodes.failed("a", 3, ERROR)
    nodes.unfit("b")
    assert nodes.bad == {"b"}
    nodes.came_back("b")
    assert nodes.bad == frozenset()
    assert not nodes.failed("", 9, ERROR)
