"""Which waiting trial gets a freed worker."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tuning.places import PlacedScheduler, first_without_place


@pytest.mark.parametrize(
    ("places", "running", "waiting", "first"),
    [
        (3, 2, 1, 0),  # nothing is starting: the one that was just asked for
        (4, 2, 2, 1),  # one is starting on a new node, the other was just asked for
        (4, 2, 1, 0),  # only the one that is starting waits: better now than later
        (8, 7, 57, 0),  # 56 wait for nodes to come: the oldest of them
        (64, 7, 57, 56),  # they have come, and all the others are starting
        (0, 5, 3, 0),  # the cluster is not known
    ],
)
def test_those_that_are_starting_are_left_alone(places, running, waiting, first) -> None:
    assert first_without_place(places, running, waiting) == first


def test_the_scheduler_counts_by_status_and_forgets_those_that_ended() -> None:
    scheduler = PlacedScheduler(lambda: 4)
    trials = [SimpleNamespace(status=status) for status in ("TERMINATED", "RUNNING", "RUNNING", "PENDING", "PENDING")]
    for trial in trials:
        scheduler.on_trial_add(None, trial)
    assert scheduler.choose_trial_to_run(None) is trials[4]
    trials[4].status = "RUNNING"
    assert scheduler.choose_trial_to_run(None) is trials[3]
    trials[3].status = "ERROR"
    assert scheduler.choose_trial_to_run(None) is None
    assert len(scheduler._live) == 3
