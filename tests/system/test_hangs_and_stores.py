"""A worker that hangs; a head that lost its disk. Real Ray, real processes."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
from tests_system_helpers import events, nothing_twice, skeltune, trial_workers, wait_for

from tuning.engine.journal import replay

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to find the worker processes"),
]


def test_a_worker_that_hangs_is_killed_and_its_trial_goes_on(space, tmp_path, begin):
    """SIGSTOP: the process is there, and says nothing any more."""
    runs = tmp_path / "runs"
    folder, journal = runs / "tiny", runs / "tiny" / "journal.jsonl"
    path = space(trials=4, top=8, on_end="stop", **{"budget: {": "budget: {hung_after: 0.3, "})
    process = begin("search", path, "--runs", runs)

    def at_work() -> bool:
        ripe = journal.is_file() and b'"e":"report"' in journal.read_bytes() and bool(trial_workers(process.pid))
        return ripe or process.poll() is not None

    wait_for(at_work, process)
    for worker in trial_workers(process.pid):
        os.kill(worker, signal.SIGSTOP)  # all: one of them has a trial
    assert process.wait(timeout=300) == 0
    failures = [event["cause"] for event in events(folder, "fail")]
    assert failures, "nobody noticed"
    assert set(failures) == {"hung"}
    nothing_twice(folder)
    state = replay(journal)
    assert all(t.ended is not None or t.paused for t in state.trials.values())
    assert "failed" not in {t.ended for t in state.trials.values()}
    told = skeltune("status", "tiny", "--runs", runs)
    assert f"failures of workers: {len(failures)} hung" in told.stdout


def test_a_head_that_lost_its_disk_goes_on_from_the_store(space, tmp_path, monkeypatch):
    """The run folder and the node's cache are gone; the same command takes journal and weights from the store."""
    cache, runs, store = tmp_path / "cache", tmp_path / "runs", tmp_path / "store"
    monkeypatch.setenv("SKELTUNE_CACHE", str(cache))
    before = skeltune("search", space(trials=4, on_end="stop"), "--runs", runs, "--store", f"file://{store}")
    assert before.returncode == 0, before.stdout + before.stderr
    known = replay(runs / "tiny" / "journal.jsonl")
    assert any(trial.paused for trial in known.trials.values()), "somebody must have weights to go on with"
    assert not list((runs / "tiny").rglob("checkpoint.pt")), "checkpoints belong into the store"
    shutil.rmtree(runs)
    shutil.rmtree(cache, ignore_errors=True)

    after = skeltune("search", space(trials=6), "--runs", runs, "--store", f"file://{store}")
    assert after.returncode == 0, after.stdout + after.stderr
    assert "the journal was not here" in after.stdout
    nothing_twice(runs / "tiny")
    state = replay(runs / "tiny" / "journal.jsonl")
    for number, trial in known.trials.items():
        assert trial.reports.items() <= state.trials[number].reports.items()
    assert state.count == 6
    assert (runs / "tiny" / "best.yaml").is_file()
    assert (runs / "tiny" / "best.pt").is_file()
    assert (store / "tiny" / "best.yaml").read_text() == (runs / "tiny" / "best.yaml").read_text()
    left = list((store / "tiny" / "checkpoints").rglob("t*.pt"))
    assert not [path for path in left if path.parent.name.startswith("t")], "ended trials leave nothing"
