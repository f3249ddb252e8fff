"""Searches as jobs: what Ray's own client sends to the head, over which way, and what comes of refusals."""

from __future__ import annotations

import datetime
import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.errors import InputError, WorkFailed
from tuning.launch import job_client, jobs, package
from tuning.launch.memory import remembered

SPACE = """format: 1
name: tiny
data: {set: synthetic}
search: {method: skeletonclr, optim: {lr: {log: [0.0001, 0.1]}}}
budget: {trials: 3}
"""
NOW = datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.UTC)


@pytest.fixture
def space(tmp_path, monkeypatch):
    monkeypatch.setattr(package, "code_files", lambda: iter(()))
    monkeypatch.setattr(jobs, "_now", lambda: NOW)
    path = tmp_path / "it's my space.yaml"
    path.write_text(SPACE)
    return path


def test_the_request(head, lab, space, golden, tmp_path):
    said: list[str] = []
    job = jobs.submit(
        lab,
        space,
        store="s3://lab/runs",
        data_from="s3://lab/ntu60",
        env={"SKELTUNE_DATA": "/my data"},
        again="skeltune cluster submit lab.yaml x.yaml",
        say=said.append,
    )
    assert job == "tiny-20260301T120000Z"
    (request,) = head.submitted
    text = json.dumps(request, indent=2, sort_keys=True) + "\n"
    text = re.sub(r"_ray_pkg_[0-9a-f]+\.zip", "_ray_pkg_HASH.zip", text)
    golden("job_request.json", re.sub(r'"skeltune_space": "[0-9a-f]{64}"', '"skeltune_space": "HASH"', text))
    assert said == ["sending 1 files, 0.0 MB (nothing where they are there already)"]
    facts = remembered("lab")["tiny"]
    assert (facts["job"], facts["runs"]) == (job, "/shared/runs")
    told = [text, *said, *map(str, head.requests), json.dumps(facts)]
    assert not [t for t in told if head.token in t]


def test_the_code_is_sent_once(head, lab, space, monkeypatch):
    for second in (0, 1):
        monkeypatch.setattr(jobs, "_now", lambda: NOW.replace(second=second))  # noqa: B023
        jobs.submit(lab, space, say=lambda line: None)
    assert [method for method, path in head.requests if "/packages/" in path] == ["GET", "PUT", "GET"]
    assert len({str(r["runtime_env"]["working_dir"]) for r in head.submitted}) == 1


def test_one_search_runs_once(head, lab, space):
    head.add("tiny", "RUNNING", started=7)
    with pytest.raises(InputError, match="'tiny' runs on cluster 'lab' already, as tiny-7"):
        jobs.submit(lab, space, say=lambda line: None)
    assert head.submitted == []
    head.jobs[0]["status"] = "FAILED"
    jobs.submit(lab, space, say=lambda line: None)


def test_nothing_of_the_users_environment_leads_elsewhere(head, lab, monkeypatch, tmp_path):
    login = tmp_path / "netrc"
    login.write_text("default login somebody password else\n")
    login.chmod(0o600)
    for name, value in {
        "RAY_ADDRESS": "http://10.9.9.9:8265", "RAY_API_SERVER_ADDRESS": "http://10.9.9.9:8265", "NETRC": str(login),
        "http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9", "RAY_AUTH_TOKEN": "f" * 64,
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    head.add("one", "RUNNING")
    head.jobs.append({"type": "DRIVER", "job_id": "02000000", "status": "RUNNING", "entrypoint": "x", "metadata": None})
    head.add("two", "SUCCEEDED")
    assert sorted(jobs.running(lab)) == ["02000000", "one"]
    assert dict(os.environ) == before
    assert head.token not in str(before)


def test_stop(head, lab):
    head.add("one", "RUNNING")
    head.add("two", "SUCCEEDED")
    assert jobs.stop(lab, "one") is True
    assert ("POST", "/api/jobs/one-1/stop") in head.requests
    assert jobs.stop(lab, "two") is False
    with pytest.raises(InputError, match=r"no job of a search 'oen' on cluster 'lab'; did you mean 'one'\?"):
        jobs.stop(lab, "oen")


def test_refusals_are_one_line(head, lab, space):
    head.refusal = "Traceback (most recent call last):\n  File 'x.py'\nValueError: no room for the job\n"
    with pytest.raises(WorkFailed) as caught:
        jobs.submit(lab, space, say=lambda line: None)
    assert str(caught.value) == "cluster 'lab': ValueError: no room for the job"
    head.token = "0" * 64
    with pytest.raises(WorkFailed) as caught:
        jobs.jobs_of(lab)
    assert str(caught.value).startswith("cluster 'lab': its job server does not take this machine's token")
    head.port = 9
    with pytest.raises(WorkFailed, match=r"^cluster 'lab': its job server does not answer$"):
        jobs.jobs_of(lab)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (RuntimeError("Request failed with status code 500: boom\nmore."), "boom"),
        (RuntimeError(""), "RuntimeError"),
        (ValueError(f"strange {'ab' * 32} thing"), "strange *** thing"),
    ],
)
def test_errors_in_a_line(error, line):
    assert job_client.in_a_line(error) == line


@pytest.mark.parametrize("runs", ["runs", "~", "~/", "~you/x", "/a\nb", "s3://x"])
def test_folders_that_would_be_lost_are_refused(lab, space, runs):
    with pytest.raises(InputError, match="absolute path on the cluster's nodes"):
        jobs.submit(lab, space, runs=runs, say=lambda line: None)


@pytest.mark.parametrize("name", ["RAY_AUTH_TOKEN", "RAY_AUTH_MODE", "RAY_TLS_CA_CERT", "1x", "a b", ""])
def test_variables_that_are_none_or_not_the_users(lab, space, name):
    with pytest.raises(InputError, match="--env"):
        jobs.submit(lab, space, env={name: "x"}, say=lambda line: None)


def test_without_a_token_nothing_is_asked(lab, tmp_path, monkeypatch):
    monkeypatch.setenv("SKELTUNE_HOME", str(tmp_path / "empty"))
    with pytest.raises(InputError, match="has no token"):
        jobs.running(lab)


def test_a_long_upload_is_not_silent():
    said: list[str] = []
    arrived = jobs.threading.Event()

    def say(line):
        said.append(line)
        arrived.set()

    with jobs._told("still sending", say, every_s=0.01):
        assert arrived.wait(5)
    assert re.fullmatch(r"still sending, \d+ s so far", said[0])


def test_expectation():
    assert jobs.expectation({"GPU": 8.0, "CPU": 64.5, "memory": 1e9, "TPU": 0}) == "CPU=64.5,GPU=8"
    assert jobs.expectation({"GPU": 0.0}) == ""


words = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=12)


@settings(max_examples=15, deadline=None)
@given(folder=words, space=words, store=words, home=st.booleans())
def test_every_word_survives_the_shell(tmp_path_factory, folder, space, store, home):
    bin_folder = tmp_path_factory.getbasetemp() / "echo"
    if not bin_folder.exists():
        bin_folder.mkdir()
        (bin_folder / "python").write_text('#!/bin/sh\nprintf "%s\\0" "$@"\n')
        (bin_folder / "python").chmod(0o755)
    runs = ("~/" if home else "/") + folder.lstrip("/~")
    if runs == "~/":
        return
    line = jobs.entrypoint(f"search/{space}", runs=jobs.check_runs(runs), store=store, data_from=None, expect="CPU=1")
    done = subprocess.run(
        ["/bin/sh", "-c", line],
        env={"PATH": f"{bin_folder}:/bin:/usr/bin", "HOME": "/my home"},
        capture_output=True,
        check=True,
    )
    there = runs.replace("~/", "/my home/", 1) if home else runs
    assert done.stdout.decode().split("\0")[:-1] == [
        "-m", "tuning", "search", f"search/{space}", "--runs", there, "--address", "auto", "--store", store,
        "--expect", "CPU=1",
    ]  # fmt: skip


def test_a_plain_command_reads_plainly():
    assert jobs.entrypoint("search/a.yaml", runs="~/runs", store=None, data_from=None, expect="") == (
        "python -m tuning search search/a.yaml --runs ~/runs --address auto"
    )
    assert shlex.split(jobs.home_quoted("~/a b")) == ["~/a b"]
    assert Path(package.FOLDER) == Path("search")
