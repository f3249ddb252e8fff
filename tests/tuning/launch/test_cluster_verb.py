"""`skeltune cluster ...` as one types it: words on the right stream, exit codes, and no token anywhere."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from methods.errors import InputError, WorkFailed
from tuning.cli import _run, app
from tuning.cli import cluster as verb
from tuning.launch import check, follow, jobs, package, ray_cluster
from tuning.launch.jobs import Job
from tuning.launch.ray_cluster import NodeInfo
from tuning.launch.standing import RunState, Standing
from tuning.resources import shipped

SPACE = """format: 1
name: tiny
data: {set: synthetic}
search: {method: skeletonclr, optim: {lr: {log: [0.0001, 0.1]}}}
budget: {trials: 3}
"""


@pytest.fixture(autouse=True)
def _place(tmp_path, monkeypatch):
    monkeypatch.setenv("SKELTUNE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LOGNAME", "me")
    monkeypatch.setattr(package, "code_files", lambda: iter(()))
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(SPACE)
    shutil.copy(shipped("cluster") / "slurm.sh", "slurm.sh")


@pytest.fixture
def ray(lab, monkeypatch):
    """The file of 'lab', of which the check has one thing to note."""
    monkeypatch.setattr(check, "check_cluster", lambda file, space=None, **_: ["look at the disk"])
    return str(lab.path)


def test_each_verb_has_help_with_an_example():
    for command in verb.app.registered_commands:
        shown = CliRunner().invoke(app, ["cluster", command.callback.__name__, "--help"])
        assert shown.exit_code == 0
        assert "Example" in shown.output, command.callback.__name__
    assert len(verb.app.registered_commands) == 6


def test_check(ray, capsys):
    assert _run(["cluster", "check", ray]) == 0
    assert capsys.readouterr().out == f"note: look at the disk\n{ray}: fine\n"


def test_check_of_a_wrong_file_says_where(capsys):
    Path("wrong.yaml").write_text("cluster_name: Lab!\nprovider: {type: local}\n")
    assert _run(["cluster", "check", "wrong.yaml"]) == 2
    assert capsys.readouterr().err.startswith("wrong.yaml:1:15: ")
    assert _run(["cluster", "check", "none.yaml"]) == 2
    assert "there is no such file" in capsys.readouterr().err


def test_up_and_down_pass_on_what_was_said(ray, capsys, monkeypatch):
    called = []
    monkeypatch.setattr(ray_cluster, "up", lambda cluster, **words: called.append((cluster.name, words)))
    assert _run(["cluster", "up", ray, "--nodes", "3", "--timeout", "90", "--tls"]) == 0
    say = called[0][1].pop("say")
    say("1 of 3 nodes are there")
    assert called[0] == ("lab", {"tls": True, "want": 3, "timeout_s": 90.0})
    out, err = capsys.readouterr()
    assert (out, err) == ("1 of 3 nodes are there\n", "note: look at the disk\n")

    def end(cluster, *, force, running, say):
        if not force:
            raise InputError(f"{running()[0]} runs")
        raise WorkFailed("10.0.0.2: it does not answer")

    monkeypatch.setattr(ray_cluster, "down", end)
    monkeypatch.setattr(jobs, "running", lambda cluster: ["tiny"])
    assert _run(["cluster", "down", ray]) == 2
    assert capsys.readouterr().err == "skeltune: tiny runs\n"
    assert _run(["cluster", "down", ray, "--force"]) == 1
    assert "it does not answer" in capsys.readouterr().err


def test_submit_to_ray(ray, head, capsys, monkeypatch):
    monkeypatch.setenv("FROM_HERE", "1")
    command = ["cluster", "submit", ray, "tiny.yaml", "--runs", "/my runs", "--env", "FROM_HERE", "--env", "A=b=c"]
    assert _run(command) == 0
    out, err = capsys.readouterr()
    (request,) = head.submitted
    assert out.splitlines()[1:] == [
        f"tiny: submitted as {request['submission_id']}",
        f"skeltune cluster status {ray} tiny",
        f"skeltune cluster logs {ray} tiny --follow",
    ]
    assert request["runtime_env"]["env_vars"] == {"OMP_NUM_THREADS": "1", "FROM_HERE": "1", "A": "b=c"}
    assert request["metadata"]["skeltune_again"] == (
        f"skeltune cluster submit {ray} tiny.yaml --runs '/my runs' --env FROM_HERE --env A=b=c"
    )
    assert head.token not in out + err + json.dumps(request)
    head.add("tiny", "RUNNING")
    assert _run(command) == 2
    assert "runs on cluster 'lab' already" in capsys.readouterr().err


def test_submit_says_what_is_wrong_before_anything_is_sent(ray, head, capsys):
    assert _run(["cluster", "submit", ray, "tiny.yaml", "--env", "NOT_HERE"]) == 2
    assert "--env NOT_HERE: there is no such variable here" in capsys.readouterr().err
    assert _run(["cluster", "submit", ray, "quikstart"]) == 2
    Path("wrong.yaml").write_text(SPACE.replace("optim", "opitm"))
    assert _run(["cluster", "submit", ray, "wrong.yaml"]) == 2
    assert "wrong.yaml:4:" in capsys.readouterr().err
    assert head.requests == []


def test_submit_elsewhere_prints_only_the_command_on_standard_output(capsys):
    assert _run(["cluster", "submit", "slurm.sh", "tiny.yaml", "--runs", "/shared/runs"]) == 0
    out, err = capsys.readouterr()
    assert out == "sbatch --parsable slurm.sh tiny.yaml --runs /shared/runs\n"
    assert err.splitlines()[-2:] == [
        "skeltune cluster status slurm.sh tiny --run", "skeltune cluster logs slurm.sh tiny --follow --run",
    ]  # fmt: skip
    assert _run(["cluster", "up", "slurm.sh"]) == 0
    assert "nothing to bring up" in capsys.readouterr().out
    assert _run(["cluster", "down", "slurm.sh"]) == 0
    assert capsys.readouterr().out == "scancel --user=me --name=skeltune\n"
    assert _run(["cluster", "status", "slurm.sh", "--json"]) == 2


def test_kubernetes(capsys):
    text = (shipped("cluster") / "kuberay.yaml").read_text()
    for word in ("image", "claim", "space"):
        text = text.replace(f"EDIT-{word}", word)
    Path("kuberay.yaml").write_text(text)
    assert _run(["cluster", "up", "kuberay.yaml"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        "kubectl apply -f kuberay.yaml --selector=skeltune/part=cluster"
    )
    assert _run(["cluster", "submit", "kuberay.yaml", "tiny.yaml"]) == 0
    out, _ = capsys.readouterr()
    assert out.startswith("apiVersion: ray.io/v1\nkind: RayJob\n")
    assert "--runs /shared/runs --address auto --expect " in out


NODE = NodeInfo("10.0.0.1", True, 8, 2, "", head=True)
RUN = RunState("tiny", "RUNNING", "tiny-1", "tiny: 0 of 3 trials ended", {"trials": 3}, 4.0, "/copy", "")


def test_status(ray, capsys, monkeypatch):
    standing = Standing("lab", "", (NODE,), (RUN,))
    monkeypatch.setattr(follow, "status", lambda cluster, run, runs: standing)
    assert _run(["cluster", "status", ray]) == 0
    out = capsys.readouterr().out
    assert out == "lab: 1 node, 8 CPU, 2 GPU\ntiny: 0 of 3 trials ended\n  running tiny-1\n"
    assert _run(["cluster", "status", ray, "tiny", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told) == {"cluster", "trouble", "nodes", "runs", "others"}
    assert told["runs"][0]["summary"] == {"trials": 3}
    standing = Standing("lab", "it does not answer", (), (RUN,))
    assert _run(["cluster", "status", ray]) == 1
    assert "cannot be asked: it does not answer" in capsys.readouterr().out


@pytest.mark.parametrize(("state", "code"), [("SUCCEEDED", 0), ("FAILED", 1), ("STOPPED", 1)])
def test_logs(ray, capsys, monkeypatch, state, code):
    def show(cluster, run, *, follow, echo, say):
        echo("one\ntwo")
        return Job("tiny-1", state, "", 1.0, run=run)

    monkeypatch.setattr(follow, "logs", show)
    assert _run(["cluster", "logs", ray, "tiny", "--follow"]) == code
    assert capsys.readouterr().out == "one\ntwo"
    assert _run(["cluster", "logs", ray, "tiny"]) == 0


def test_help_brings_in_neither_torch_nor_ray():
    code = (
        "import sys, tuning.cli, tuning.launch.slurm, tuning.launch.kuberay, tuning.launch.jobs, tuning.launch.follow\n"
        "print([name for name in ('ray', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
