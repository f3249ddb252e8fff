"""SLURM's commands: as printed, as run, and through the shell."""

from __future__ import annotations

import getpass
import shlex
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.errors import InputError, WorkFailed
from tuning.launch import slurm
from tuning.launch.kinds import parse_cluster_text
from tuning.launch.memory import remembered

SCRIPT = """#!/bin/bash
#SBATCH --job-name=lab
#SBATCH --output=logs/%x-%j.log
skeltune search "$@"
"""
SPACE = """format: 1
name: tiny
data: {set: synthetic}
search: {method: skeletonclr, optim: {lr: {log: [0.0001, 0.1]}}}
schedule: {max: 9, asha: {min: 1, eta: 3, repeats: 0}}
budget: {trials: 3}
"""


@pytest.fixture
def lab(tmp_path, monkeypatch):
    monkeypatch.setenv("SKELTUNE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LOGNAME", "me")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(SPACE)
    (tmp_path / "slurm.sh").write_text(SCRIPT)
    from pathlib import Path

    return parse_cluster_text(SCRIPT, Path("slurm.sh"))


def printed(work) -> list[str]:
    said: list[str] = []
    work(said.append)
    return said


def test_what_is_printed(lab, golden, tmp_path):
    space = tmp_path / "tiny.yaml"
    lines = printed(lambda say: slurm.submit(lab, space.relative_to(tmp_path), runs="/shared/my runs", say=say))
    more = {"store": "s3://lab/runs", "data_from": "s3://lab/ntu60", "env": {"SKELTUNE_DATA": "/d a"}}
    lines += printed(lambda say: slurm.submit(lab, space.relative_to(tmp_path), say=say, **more))
    lines += printed(lambda say: slurm.status(lab, None, runs=None, run=False, say=say))
    for follow in (False, True):
        lines += printed(lambda say: slurm.logs(lab, "tiny", follow=follow, run=False, say=say))  # noqa: B023
    lines += printed(lambda say: slurm.down(lab, force=False, run=False, say=say))
    golden("slurm.txt", "\n".join(lines) + "\n")


def test_what_is_run_and_remembered(lab, stubs, tmp_path):
    stubs("sbatch", "4711;here\n")
    stubs("squeue", "JOBID\n")
    stubs("tail")
    space = tmp_path / "tiny.yaml"
    said = printed(lambda say: slurm.submit(lab, space, runs="runs", again="A", run=True, say=say))
    log = f"{tmp_path}/logs/lab-4711.log"
    assert said == [f"tiny: job 4711, its words come to {log}"]
    assert remembered("lab")["tiny"] == {"job": "4711", "runs": f"{tmp_path}/runs", "log": log, "again": "A"}
    slurm.logs(lab, "tiny", follow=True, run=True, say=print)
    told = printed(lambda say: slurm.status(lab, "tiny", runs=None, run=True, say=say))
    assert stubs.calls() == [
        ["sbatch", "--parsable", "slurm.sh", str(space), "--runs", "runs"],
        ["tail", "-n", "+1", "-F", log],
        ["squeue", "--jobs=4711"],
    ]
    assert told[0].startswith("tiny: no run 'tiny' under")


def test_the_run_is_told_where_its_folder_is_seen(lab, tmp_path):
    from tuning.engine.journal import encode

    run = tmp_path / "runs" / "tiny"
    run.mkdir(parents=True)
    (run / "space.yaml").write_text(SPACE)
    (run / "journal.jsonl").write_bytes(encode({"e": "open", "format": 1, "space": "-", "data": "-", "name": "tiny"}))
    told = printed(lambda say: slurm.status(lab, "tiny", runs=str(tmp_path / "runs"), run=False, say=say))
    assert told == ["squeue --user=me --name=lab", "tiny: 0 of 3 trials ended"]


def test_down_is_not_done_by_accident(lab, stubs):
    stubs("scancel")
    stubs("squeue", "12\n13\n")
    with pytest.raises(InputError, match=r"2 jobs of 'lab' are queued or run \(12, 13\): --force cancels them"):
        slurm.down(lab, force=False, run=True, say=print)
    slurm.down(lab, force=True, run=True, say=print)
    assert stubs.calls()[-1] == ["scancel", f"--user={getpass.getuser()}", "--name=lab"]
    stubs("squeue", "")
    assert printed(lambda say: slurm.down(lab, force=False, run=True, say=say)) == ["no job of 'lab' is queued or runs"]


def test_without_slurm_nothing_is_run(lab, stubs, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for work in (
        lambda: slurm.submit(lab, tmp_path / "tiny.yaml", run=True),
        lambda: slurm.status(lab, None, runs=None, run=True, say=print),
        lambda: slurm.down(lab, force=False, run=True, say=print),
    ):
        with pytest.raises(InputError, match="on the PATH of this machine; without --run the commands are printed"):
            work()


def test_a_refusal_of_slurm_is_one_line(lab, stubs, tmp_path):
    stubs("sbatch", "", 1)
    with pytest.raises(WorkFailed, match=r"^exit code 1 \(of: sbatch "):
        slurm.submit(lab, tmp_path / "tiny.yaml", run=True, say=print)
    stubs("sbatch", "Submitted\n")
    with pytest.raises(WorkFailed, match="did not answer with a job's number"):
        slurm.submit(lab, tmp_path / "tiny.yaml", run=True, say=print)
    assert remembered("lab") == {}


def test_a_wrong_space_is_told_first(lab, tmp_path):
    (tmp_path / "wrong.yaml").write_text(SPACE.replace("optim", "opitm"))
    with pytest.raises(InputError, match=r"wrong\.yaml:4"):
        slurm.submit(lab, tmp_path / "wrong.yaml", say=print)


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("#SBATCH --output=%x-%j.log", "lab-7.log"), ("#SBATCH -o /logs/%u/%5A.%%.txt", "/logs/me/7.%.txt"),
        ("#SBATCH --output '%N-%j'", "*-7"), ("#SBATCH --mem=1", "slurm-7.out"),
    ],
)  # fmt: skip
def test_where_a_job_writes(lab, monkeypatch, line, name):
    from pathlib import Path

    script = f"#!/bin/bash\n#SBATCH --job-name=lab\n{line}\n"
    assert slurm.log_name(parse_cluster_text(script, Path("s.sh")), "7") == name


words = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=12)


@settings(max_examples=15, deadline=None)
@given(runs=words, value=words, file=words)
def test_every_word_survives_the_shell(tmp_path_factory, runs, value, file):
    folder = tmp_path_factory.getbasetemp() / "words"
    if not folder.exists():
        folder.mkdir()
        (folder / "sbatch").write_text('#!/bin/sh\nprintf "%s\\0" "$VALUE" "$@"\n')
        (folder / "sbatch").chmod(0o755)
    from pathlib import Path

    runs, file = f"/{runs}", file.replace("/", "_")
    cluster = parse_cluster_text(SCRIPT, Path("slurm.sh"))
    line = slurm.submit_line(cluster, Path(f"-{file}"), runs=runs, store=None, data_from=None, env={"VALUE": value})
    env = {"PATH": f"{folder}:/bin:/usr/bin"}
    done = subprocess.run(["/bin/sh", "-c", line], env=env, capture_output=True, check=True)
    assert done.stdout.decode().split("\0")[:-1] == [
        value, "--parsable", "slurm.sh", f"./-{file}", "--runs", str(Path(runs)),
    ]  # fmt: skip
    assert shlex.split(line)[0] == "env"
