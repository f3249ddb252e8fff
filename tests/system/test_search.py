"""A real search through the command line: to its end, killed and continued, interrupted, failing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from tests_system_helpers import nothing_twice, skeltune, wait_for

from tuning.engine.journal import replay
from tuning.space import load_search

pytestmark = pytest.mark.system


def test_search_finish_train_and_evaluate(space, tmp_path):
    """One command to best.yaml; best.yaml alone gives the same model and the same test accuracy again."""
    runs = tmp_path / "runs"
    path = space(trials=5, streams="[joint, motion]", fuse="{simplex: [joint, motion]}")
    done = skeltune("search", path, "--runs", runs)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = runs / "tiny"
    state = replay(folder / "journal.jsonl")
    nothing_twice(folder)
    assert state.count == 5
    assert not state.pending
    assert {t.ended for t in state.ended} <= {"top", "culled", "diverged", "collapsed", "repeated"}
    assert any(t.ended == "top" for t in state.ended)
    assert {t.draws["method"] for t in list(state.trials.values())[:2]} == {"skeletonclr", "skeletonbyol"}  # published
    rungs = {r.epoch for t in state.trials.values() for r in t.reports.values() if r.rung}
    assert rungs <= {1, 2, 4}
    assert not list((folder / "trials").glob("*/checkpoint.pt"))  # nothing is left that nobody will continue
    assert all(list((folder / "trials" / f"t{n:04d}" / "tb").glob("events*")) for n in state.trials)
    assert list(Path(folder).glob("finish")) == []

    spec, best = load_search(folder / "best.yaml")
    assert not any(best.free.values())
    told = spec.provenance
    assert told["search"]["space"] == load_search(path)[0].space_hash()
    assert len(told["test"]["values"]) == 2
    assert told["test"]["spread"] is not None
    assert told["seeds"]["retrain"] == told["test"]["seeds"]
    assert set(told["versions"]) >= {"skeltune", "torch", "ray", "optuna"}
    assert json.loads((folder / "test.json").read_text())["mean"] == told["test"]["mean"]

    trained = skeltune("train", folder / "best.yaml", "--out", tmp_path / "again")
    assert trained.returncode == 0, trained.stderr
    result = json.loads((tmp_path / "again" / "result.json").read_text())
    assert result["top1"] == pytest.approx(told["test"]["values"][0], abs=1e-9)

    probed = skeltune("evaluate", folder / "best.pt", "--config", folder / "best.yaml", "--json")
    assert json.loads(probed.stdout)["top1"] == pytest.approx(result["top1"], abs=1e-9)
    other = skeltune("train", folder / "best.yaml", "--out", tmp_path / "b", "--epochs", 1, "--stream", "motion")
    assert other.returncode == 0, other.stderr
    assert list(json.loads((tmp_path / "b" / "result.json").read_text())["streams"]) == ["motion"]

    # the same command once more finds everything done and changes nothing
    before = (folder / "journal.jsonl").read_bytes()
    again = skeltune("search", path, "--runs", runs)
    assert again.returncode == 0, again.stderr
    assert (folder / "journal.jsonl").read_bytes() == before


def test_interrupted_finish_goes_on(space, tmp_path, begin):
    """Killed between two re-runs of the finish: those that are journalled are not run again."""
    runs = tmp_path / "runs"
    folder = runs / "tiny"
    path = space(trials=2, top=2)
    process = begin("search", path, "--runs", runs)
    wait_for(lambda: (folder / "journal.jsonl").is_file() and bool(replay(folder / "journal.jsonl").jobs), process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    jobs = replay(folder / "journal.jsonl").jobs
    assert not (folder / "best.yaml").exists()
    done = skeltune("search", path, "--runs", runs)
    assert done.returncode == 0, done.stdout + done.stderr
    nothing_twice(folder)
    after = replay(folder / "journal.jsonl").jobs
    assert all(after[name] == result for name, result in jobs.items())
    assert (folder / "best.yaml").is_file()


def test_ctrl_c_once_ends_cleanly(space, tmp_path, begin):
    runs = tmp_path / "runs"
    path = space(trials=4, top=16)
    process = begin("search", path, "--runs", runs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    journal = runs / "tiny" / "journal.jsonl"
    wait_for(lambda: journal.is_file() and any(t.reports for t in replay(journal).trials.values()), process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    assert "the same command goes on" in err
    assert "Traceback" not in out + err
    assert "not finished yet" in out
    assert len(replay(journal).trials) < 4  # no new trial began
    assert not (runs / "tiny" / "best.yaml").exists()


def test_a_trial_that_diverges_is_named_and_the_search_goes_on(space, tmp_path):
    """A learning rate that no loss survives: every trial ends by name, the driver says so, exit code 1."""
    runs = tmp_path / "runs"
    path = space(trials=2, **{"name: adam, lr: {log: [0.0005, 0.01]}": "name: sgd, lr: 1e30"})
    done = skeltune("search", path, "--runs", runs)
    state = replay(runs / "tiny" / "journal.jsonl")
    assert [t.ended for t in state.ended] == ["diverged", "diverged"], done.stdout + done.stderr
    assert "diverged at step" in done.stdout
    assert done.returncode == 1
    assert "no trial reached the top rung" in done.stderr
