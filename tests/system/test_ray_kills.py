"""Kills in the middle of a real search on real Ray: nothing is lost, nothing is done twice, no value changes.

One instant a kind; ``SKELTUNE_KILLS=10`` (as `make test-system` sets it) gives ten, all within one search each.
"""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest
from tests_system_helpers import nothing_twice, skeltune, trial_workers, wait_for

from tuning.engine.journal import replay
from tuning.engine.state import JournalState
from tuning.plan import plan_search
from tuning.session import Session, Task

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to find the worker processes"),
]

KILLS = int(os.environ.get("SKELTUNE_KILLS", "1"))


def lines_of(journal: Path) -> int:
    return journal.read_bytes().count(b"\n") if journal.is_file() else 0


def trained(state: JournalState) -> int:
    return sum(1 for t in state.trials.values() if t.reports)


def judged_undisturbed(space_file: Path, state: JournalState, folder: Path, count: int = 2) -> None:
    """Train some trials again in this process, never interrupted: every score is the same to the last bit."""
    plan = plan_search(space_file, folder)
    from tuning.engine.choices import choices_of
    from tuning.engine.journal import Events
    from tuning.engine.virtual import Setting, make_engine
    from tuning.floor import Floor

    setting = Setting(plan.ladder, plan.spec.sampler, plan.spec.budget, plan.spec.seed)
    floor = Floor(make_engine(Events(), choices_of(plan.space), setting), plan.space, folder, plan.spec.seed)
    longest = sorted(state.trials.values(), key=lambda t: (-t.epochs, t.trial))[:count]
    for trial in longest:
        task: Task = floor.task(trial)
        session = Session(task, plan.source, plan.probe, "cpu")
        for epoch in range(1, trial.epochs + 1):
            result = session.step()
            known = trial.reports[epoch]
            assert (known.top1, known.loss) == (result.get("top1"), result.get("loss")), (trial.trial, epoch)


@pytest.mark.parametrize("kind", ["driver", "trial", "both"])
def test_killed_and_gone_on(kind, space, tmp_path, begin):
    """SIGKILL of the driver, of a trial's worker, of both; then the same command goes on to its end."""
    rng = random.Random(f"kills {kind}")
    runs = tmp_path / "runs"
    folder, journal = runs / "tiny", runs / "tiny" / "journal.jsonl"
    path = space(trials=6, top=8, on_end="stop")
    process = begin("search", path, "--runs", runs)
    known: dict[int, dict] = {}
    killed = 0
    while killed < KILLS:
        wanted = lines_of(journal) + rng.randint(2, 9)

        workers: list[int] = []

        def ripe(process=process, wanted=wanted, workers=workers) -> bool:
            workers[:] = trial_workers(process.pid)  # a worker's title changes from call to call: it is looked at once
            there = lines_of(journal) >= wanted and (kind == "driver" or bool(workers))
            return there or process.poll() is not None

        wait_for(ripe, process)
        if process.poll() is not None:
            break  # it came to its end before
        if kind != "driver":
            os.kill(rng.choice(workers), signal.SIGKILL)
        if kind != "trial":
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            state = replay(journal)
            for number, reports in known.items():
                assert reports.items() <= dict(state.trials[number].reports).items()  # nothing known was lost
            known = {t.trial: dict(t.reports) for t in state.trials.values()}
            process = begin("search", path, "--runs", runs)
        killed += 1
    assert killed >= 1
    assert process.wait(timeout=240) == 0

    last = skeltune("search", path, "--runs", runs)  # once more: everything is done
    assert last.returncode == 0, last.stdout + last.stderr
    state = replay(journal)
    nothing_twice(folder)
    assert state.count == 6
    assert all(t.ended is not None or t.paused for t in state.trials.values())
    assert "failed" not in {t.ended for t in state.trials.values()} or KILLS > 2  # a trial survives two failures
    for trial in state.trials.values():
        assert sorted(trial.reports) == list(range(1, len(trial.reports) + 1))  # no epoch is missing
    if kind == "trial":
        assert any(trial.failures for trial in state.trials.values())
    judged_undisturbed(path, state, tmp_path / "again")
