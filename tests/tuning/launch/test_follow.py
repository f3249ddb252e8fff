"""How a search on a cluster is told of: live, from an old copy, after its driver's death, over a broken connection."""

from __future__ import annotations

import json
import os
import time

import pytest

from methods.errors import InputError, WorkFailed
from tuning.engine.journal import encode
from tuning.launch import follow, ray_cluster, remote
from tuning.launch.memory import remember, runs_of
from tuning.launch.ray_cluster import NodeInfo
from tuning.launch.standing import age_text
from tuning.report import read_run

SPACE = """format: 1
name: tiny
data: {set: synthetic}
search: {method: skeletonclr, optim: {lr: {log: [0.0001, 0.1]}}}
schedule: {max: 9, asha: {min: 1, eta: 3, repeats: 0}}
budget: {trials: 3}
"""
AGAIN = "skeltune cluster submit lab.yaml tiny.yaml --runs /shared/runs"


def journal() -> str:
    events = [
        {"e": "open", "format": 1, "space": "-", "data": "-", "name": "tiny"},
        {"e": "ask", "trial": 0, "draws": {"method": "skeletonclr", "optim/lr": 0.01}, "origin": "random"},
    ]
    return b"".join(encode(event) for event in events).decode()


@pytest.fixture
def there(tmp_path, monkeypatch):
    """The head's disk: ``there / 'shared/runs/tiny'``; copies are made from it, as rsync would."""

    def copy_from(host, paths, to, *, missing_ok=False, timeout=600):
        assert (str(host), missing_ok) == ("10.0.0.1", True)
        to.mkdir(parents=True, exist_ok=True)
        for path in paths:
            source = tmp_path / "disk" / path.lstrip("/")
            if source.is_file():
                (to / source.name).write_bytes(source.read_bytes())

    monkeypatch.setattr(remote, "copy_from", copy_from)
    monkeypatch.setattr(ray_cluster, "nodes", lambda cluster: [
        NodeInfo("10.0.0.1", True, 8, 0, "", head=True), NodeInfo("10.0.0.2", True, 8, 2, ""),
        NodeInfo("10.0.0.3", False, 8, 2, "the machine does not answer"),
        NodeInfo("10.0.0.2", False, 8, 2, "an earlier life"),
    ])  # fmt: skip
    run = tmp_path / "disk" / "shared" / "runs" / "tiny"
    run.mkdir(parents=True)
    (run / "journal.jsonl").write_text(journal())
    (run / "space.yaml").write_text(SPACE)
    return run


@pytest.fixture(autouse=True)
def _plain_path(monkeypatch):
    monkeypatch.delenv("SKELTUNE_DATA", raising=False)


def test_a_running_search(head, lab, there, golden):
    head.add("tiny", "FAILED", started=1)
    head.add("tiny", "RUNNING", started=2)
    head.jobs.append(
        {"type": "SUBMISSION", "submission_id": "notebook", "status": "RUNNING", "entrypoint": "x", "metadata": {}}
    )
    standing = follow.status(lab)
    golden("status.txt", "\n".join(standing.lines()) + "\n")
    told = standing.as_json()
    assert json.loads(json.dumps(told))["runs"][0]["summary"]["trials"] == 3
    assert [run.job for run in standing.runs] == ["tiny-2"]
    assert head.token not in json.dumps(told)
    assert read_run("tiny", runs_of("lab")).spec.name == "tiny"  # `skeltune report tiny --runs` works on the copy


def test_a_driver_that_died_is_said_with_the_command_that_goes_on(head, lab, there):
    text = "Job entrypoint command failed with exit code 137, last available logs (truncated to 20,000 chars):\nxyz"
    head.add("tiny", "FAILED", message=text)
    (run,) = follow.status(lab).runs
    assert run.remark == (
        "its driver is gone: Job entrypoint command failed with exit code 137; this goes on: skeltune cluster submit X"
    )
    head.jobs[0]["status"] = "SUCCEEDED"
    assert "it ended before its best.yaml" in follow.status(lab).runs[0].remark
    (there / "best.yaml").write_text("x: 1\n")
    (run,) = follow.status(lab).runs
    assert (run.remark, run.line.endswith("best.yaml")) == ("", True)


def test_a_head_that_forgot_its_jobs(head, lab, there):
    remember("lab", "tiny", {"job": "tiny-1", "runs": "/shared/runs", "again": AGAIN})
    (run,) = follow.status(lab, "tiny").runs
    assert run.line.startswith("tiny: 0 of 3 trials ended")
    assert run.remark == f"no job of it is there: the head was started anew since; this goes on: {AGAIN}"


def test_the_last_copy_is_told_and_said_to_be_old(head, lab, there, monkeypatch):
    head.add("tiny", "RUNNING")
    remember("lab", "tiny", {"job": "tiny-1", "runs": "/shared/runs", "again": AGAIN})
    follow.status(lab)
    stamp = runs_of("lab") / "tiny" / follow._STAMP
    os.utime(stamp, (time.time() - 7200, time.time() - 7200))

    def gone(cluster):
        raise WorkFailed("10.0.0.1: it does not answer\nsecond line")

    monkeypatch.setattr(ray_cluster, "nodes", gone)
    standing = follow.status(lab)
    assert standing.trouble == "10.0.0.1: it does not answer"
    assert standing.lines()[:3] == [
        "lab: cannot be asked: 10.0.0.1: it does not answer",
        "what follows is what was last copied here",
        "tiny: 0 of 3 trials ended, 1 running or to continue   [as of 2 h ago]",
    ]
    assert standing.runs[0].remark == ""  # it may well run
    assert 7190 < standing.as_json()["runs"][0]["age"] < 7300


def test_nothing_known_and_nobody_there(head, lab, there, monkeypatch):
    head.port = 9
    with pytest.raises(WorkFailed, match="does not answer"):
        follow.status(lab)


def test_a_run_of_another_machine_is_found_by_its_folder(head, lab, there):
    with pytest.raises(InputError, match="no search 'tiny' on cluster 'lab'"):
        follow.status(lab, "tiny")
    (run,) = follow.status(lab, "tiny", runs="/shared/runs").runs
    assert run.line.startswith("tiny: 0 of 3 trials ended")


def test_before_the_first_word_and_after_a_broken_one(head, lab, there):
    head.add("tiny", "PENDING")
    (there / "journal.jsonl").unlink()
    assert follow.status(lab).runs[0].line == "tiny: has not written anything yet"
    (there / "journal.jsonl").write_text(journal() + '{"e": "rep')  # copied in the middle of a line
    assert follow.status(lab).runs[0].line.startswith("tiny: 0 of 3 trials ended, 1 running")
    (there / "space.yaml").write_text("format: 9\n")
    assert "cannot be read" in follow.status(lab).runs[0].line


def test_names_that_are_no_names_touch_nothing(head, lab, there, tmp_path):
    head.add("../../evil", "RUNNING")
    (run,) = follow.status(lab).runs
    assert "is no name of a search" in run.line
    assert not list(tmp_path.rglob("evil"))


def test_the_home_of_the_head(head, lab, there, monkeypatch):
    asked: list[str] = []
    monkeypatch.setattr(remote, "copy_from", lambda host, paths, to, **_: asked.extend(paths))
    head.add("tiny", "RUNNING", runs="~/my runs")
    follow.status(lab)
    assert asked[0] == "my runs/tiny/journal.jsonl"


def test_logs_at_once(head, lab):
    head.add("tiny", "RUNNING")
    head.log = ["one\n", "two\n"]
    shown: list[str] = []
    job = follow.logs(lab, "tiny", echo=shown.append, say=shown.append)
    assert (job.id, "".join(shown)) == ("tiny-1", "one\ntwo\n")


def test_logs_until_the_end_over_broken_connections(head, lab):
    head.add("tiny", "RUNNING")
    head.log, head.breaks, head.after_log = [f"line {n}\n" for n in range(20)], 3, "FAILED"
    shown: list[str] = []
    said: list[str] = []
    job = follow.logs(lab, "tiny", follow=True, echo=shown.append, say=said.append, wait=lambda s: None)
    assert "".join(shown) == "".join(head.log)
    assert job.state == "FAILED"
    assert len(said) == 1 and said[0].endswith("trying again")  # not once for each attempt


def test_patience_ends(head, lab, monkeypatch):
    head.add("tiny", "RUNNING")
    waited: list[float] = []

    def wait(seconds):
        waited.append(seconds)
        head.port = 9

    head.breaks = 1
    with pytest.raises(WorkFailed, match="does not answer"):
        follow.logs(lab, "tiny", follow=True, echo=lambda t: None, say=lambda t: None, wait=wait)
    assert sum(waited) == pytest.approx(follow.PATIENCE_S, abs=2 * follow.AGAIN_S)


def test_a_closed_pipe_is_ours_and_ends_it(head, lab):
    head.add("tiny", "RUNNING")
    head.log = ["one\n"]

    def echo(text):
        raise BrokenPipeError(32, "Broken pipe")

    with pytest.raises(BrokenPipeError):
        follow.logs(lab, "tiny", follow=True, echo=echo, say=lambda t: None, wait=lambda s: None)


def test_age():
    assert [age_text(s) for s in (40, 720, 3 * 3600, 5 * 86400)] == ["40 s", "12 min", "3 h", "5 days"]
