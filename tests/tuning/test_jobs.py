"""Full runs of the finish: what comes again, and what is given up."""

from __future__ import annotations

from tuning.engine.mishaps import KILLED, LOST, MEMORY
from tuning.jobs import JobSearcher
from tuning.session import Task
from tuning.watching.mishap import Mishap
from tuning.watching.view import ClusterView

TASK = Task("rerun-t0001-0", {"method": "x"}, 1, (9,), "/runs")


def searcher(given_up: list[str], retries: int = 2) -> JobSearcher:
    return JobSearcher([TASK], lambda: True, lambda task, error: given_up.append(error), retries, ClusterView())


def fail(jobs: JobSearcher, kind: str, node: str = "") -> dict | str | None:
    """A worker fails as Ray tells it: the scheduler first, then the searcher; what is handed out next."""
    jobs.faltered(TASK, Mishap(kind, f"{kind} it was", node))
    jobs.on_trial_complete("id", error=True)
    return jobs.suggest("id")


def test_a_failed_job_comes_again_until_it_has_failed_too_often() -> None:
    given_up: list[str] = []
    jobs = searcher(given_up)
    assert isinstance(jobs.suggest("id"), dict)
    assert isinstance(fail(jobs, KILLED), dict)
    assert isinstance(fail(jobs, KILLED), dict)
    assert fail(jobs, KILLED) == "FINISHED"
    assert given_up == ["killed it was"]


def test_lost_machines_do_not_count() -> None:
    given_up: list[str] = []
    jobs = searcher(given_up, retries=0)
    jobs.suggest("id")
    for epoch in range(1, 9):
        assert isinstance(fail(jobs, LOST), dict)
        jobs.worked(TASK, epoch, "10.0.0.1")
    assert given_up == []
    assert fail(jobs, KILLED) == "FINISHED"
    assert given_up == ["killed it was"]


def test_out_of_memory_it_comes_again_alone() -> None:
    jobs = searcher([])
    first = jobs.suggest("id")
    assert isinstance(first, dict)
    assert first["place"]["alone"] is False
    again = fail(jobs, MEMORY)
    assert isinstance(again, dict)
    assert again["place"]["alone"] is True


def test_while_a_job_is_at_work_that_may_come_again_it_is_not_over() -> None:
    jobs = searcher([])
    jobs.suggest("id")
    assert jobs.suggest("other") is None
    jobs.on_trial_complete("id")
    assert jobs.suggest("other") == "FINISHED"
