"""KubeRay: the manifests that are made, the commands, and the token, which is in none of them."""

from __future__ import annotations

import datetime
import json
import subprocess
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.errors import InputError, WorkFailed
from tuning.launch import kuberay
from tuning.launch.home import make_keys, token_of
from tuning.launch.kinds import parse_cluster_text
from tuning.launch.kube_job import job_name, label_of, rayjob

NOW = datetime.datetime(2026, 3, 1, 12, 30, 5, tzinfo=datetime.UTC)
CLUSTER = """apiVersion: ray.io/v1
kind: RayCluster
metadata: {name: lab, namespace: search, labels: {skeltune/part: cluster}}
spec:
  rayVersion: "2.60.0"
  authOptions: {mode: token, secretName: lab-token}
  headGroupSpec:
    rayStartParams: {}
    template:
      spec:
        containers:
          - name: ray-head
            image: lab/skeltune:1
            resources: {limits: {cpu: "4", memory: 16Gi}}
  workerGroupSpecs:
    - groupName: gpu
      minReplicas: 0
      maxReplicas: 8
      template:
        spec:
          containers:
            - name: ray-worker
              image: lab/skeltune:1
              resources: {limits: {cpu: "8", memory: 32Gi, nvidia.com/gpu: 1}}
"""
JOB = """---
apiVersion: ray.io/v1
kind: RayJob
metadata: {name: lab-search, namespace: search, labels: {skeltune/part: search, team: a}}
spec:
  clusterSelector: {ray.io/cluster: lab}
  submissionMode: K8sJobMode
  entrypoint: python -m tuning search /shared/x.yaml --runs /shared/runs --address auto
  entrypointNumCpus: 1
  jobId: mine
  backoffLimit: 3
  runtimeEnvYAML: |
    env_vars: {HTTPS_PROXY: "http://proxy:1"}
"""
SPACE = """# it's mine: "$HOME" `date` \\
format: 1
name: tiny
data: {set: synthetic}
search: {method: skeletonclr, optim: {lr: {log: [0.0001, 0.1]}}}
budget: {trials: 3}
"""


@pytest.fixture
def lab(tmp_path, monkeypatch):
    monkeypatch.setenv("SKELTUNE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(SPACE)
    (tmp_path / "lab.yaml").write_text(CLUSTER + JOB)
    return parse_cluster_text(CLUSTER + JOB, tmp_path / "lab.yaml")


def printed(work) -> list[str]:
    said: list[str] = []
    work(said.append)
    return said


def test_the_manifest_from_the_users_own_rayjob(lab, golden):
    said = printed(lambda say: kuberay.submit(lab, Path("tiny.yaml"), env={"SKELTUNE_DATA": "/d"}, now=NOW, say=say))
    golden("rayjob.yaml", said[0] + "\n")
    document = yaml.safe_load(said[0])
    assert len(said) == 1
    assert yaml.safe_load(document["spec"]["runtimeEnvYAML"])["env_vars"] == {
        "OMP_NUM_THREADS": "1", "HTTPS_PROXY": "http://proxy:1", "SKELTUNE_DATA": "/d",
    }  # fmt: skip


def test_the_manifest_without_one(tmp_path, lab, golden):
    cluster = parse_cluster_text(CLUSTER, tmp_path / "lab.yaml")
    options = {"runs": "~/my runs", "store": "s3://lab/runs", "data_from": "s3://lab/ntu60"}
    said = printed(lambda say: kuberay.submit(cluster, Path("tiny.yaml"), now=NOW, say=say, **options))
    golden("rayjob_plain.yaml", said[0] + "\n")


def test_the_manifest_is_what_our_own_check_accepts(lab, tmp_path):
    """The strict table of fields, which knows KubeRay's, finds nothing to say."""
    from tuning.launch.check import check_cluster

    text, _, _ = rayjob(
        lab, Path("tiny.yaml"), runs="/shared/runs", store=None, data_from=None, env={}, expect={}, now=NOW
    )
    whole = parse_cluster_text(f"{CLUSTER}---\n{text}", tmp_path / "both.yaml")
    faults: tuple[str, ...] = ()
    try:
        check_cluster(whole)
    except InputError as error:  # the cluster above is short of what a real one needs; the job must be without fault
        faults = error.faults
    assert [fault for fault in faults if int(fault.split(":")[1]) > CLUSTER.count("\n") + 1] == []


def test_commands(lab, golden, tmp_path):
    make_keys("lab", tls=False)
    lines = printed(lambda say: kuberay.up(lab, run=False, say=say))
    for search in (None, "Tiny_Search"):
        lines += printed(lambda say: kuberay.status(lab, search, run=False, say=say))  # noqa: B023
    for follow in (False, True):
        lines += printed(lambda say: kuberay.logs(lab, "tiny", follow=follow, run=False, say=say))  # noqa: B023
    lines += printed(lambda say: kuberay.down(lab, force=False, run=False, say=say))
    text = "\n".join(lines) + "\n"
    assert token_of("lab") not in text
    golden("kubectl.txt", text.replace(str(tmp_path), "/lab"))


def test_up_makes_the_token_where_there_is_none_and_keeps_it(lab):
    kuberay.up(lab, run=False, say=lambda line: None)
    first = token_of("lab")
    kuberay.up(lab, run=False, say=lambda line: None)
    assert token_of("lab") == first


def test_what_is_run(lab, stubs, tmp_path):
    stubs("kubectl", '{"items": []}')
    kuberay.submit(lab, Path("tiny.yaml"), run=True, now=NOW, say=print)
    target = tmp_path / "lab-tiny-0301123005.yaml"
    assert yaml.safe_load(target.read_text())["metadata"]["name"] == "lab-tiny-0301123005"
    assert stubs.calls() == [
        ["kubectl", "--namespace=search", "get", "rayjobs", "--selector=skeltune/cluster=lab,skeltune/run=tiny",
         "--output=json"],
        ["kubectl", "--namespace=search", "apply", "-f", str(target)],
    ]  # fmt: skip
    kuberay.up(lab, run=True, say=print)
    assert token_of("lab") not in str(stubs.calls())
    assert token_of("lab") not in target.read_text()


def test_a_secret_that_is_not_there_is_made_from_the_file(lab, stubs, tmp_path):
    stubs("kubectl", "", 1)
    with pytest.raises(WorkFailed):
        kuberay.up(lab, run=True, say=print)
    token = tmp_path / "home" / "clusters" / "lab" / "token"
    assert stubs.calls()[1][1:] == [
        "--namespace=search", "create", "secret", "generic", "lab-token", f"--from-file=auth_token={token}",
    ]  # fmt: skip


def test_one_search_runs_once_and_down_waits(lab, stubs):
    def answer(*states):
        items = [
            {
                "metadata": {"name": f"lab-{n}", "annotations": {"skeltune/name": "tiny"}},
                "status": {"jobDeploymentStatus": state},
            }
            for n, state in enumerate(states)
        ]
        stubs("kubectl", json.dumps({"items": items}))

    answer("Complete", "Running")
    with pytest.raises(InputError, match="search 'tiny' runs on 'lab' already, as lab-1"):
        kuberay.submit(lab, Path("tiny.yaml"), run=True, now=NOW)
    with pytest.raises(InputError, match=r"^tiny runs on cluster 'lab': wait, or use --force"):
        kuberay.down(lab, force=False, run=True, say=print)
    kuberay.down(lab, force=True, run=True, say=print)
    assert stubs.calls()[-1] == ["kubectl", "--namespace=search", "delete", "secret", "lab-token", "--ignore-not-found"]
    answer("Complete", "Failed")
    kuberay.submit(lab, Path("tiny.yaml"), run=True, now=NOW, say=print)


def test_without_kubectl_nothing_is_run(lab, stubs, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for work in (
        lambda: kuberay.up(lab, run=True, say=print),
        lambda: kuberay.submit(lab, Path("tiny.yaml"), run=True),
        lambda: kuberay.status(lab, None, run=True, say=print),
        lambda: kuberay.logs(lab, "tiny", follow=False, run=True, say=print),
        lambda: kuberay.down(lab, force=False, run=True, say=print),
    ):
        with pytest.raises(InputError, match="no kubectl on the PATH"):
            work()
    assert not list(tmp_path.glob("lab-*.yaml"))


def test_a_file_by_rename_or_a_line(lab, tmp_path):
    said = printed(lambda say: kuberay.submit(lab, Path("tiny.yaml"), out=tmp_path / "my job.yaml", now=NOW, say=say))
    assert said == [f"{tmp_path}/my job.yaml", f"kubectl --namespace=search apply -f '{tmp_path}/my job.yaml'"]
    with pytest.raises(InputError, match="cannot be written"):
        kuberay.submit(lab, Path("tiny.yaml"), out=tmp_path / "no" / "x.yaml", now=NOW)


def test_what_cannot_travel_is_refused(lab, tmp_path):
    (tmp_path / "near.yaml").write_text("x")
    (tmp_path / "tiny.yaml").write_text(f"{SPACE}warm_start: [near.yaml]\n")
    with pytest.raises(InputError, match=r"near\.yaml: files beside the space are not sent to Kubernetes"):
        kuberay.submit(lab, Path("tiny.yaml"), now=NOW)
    (tmp_path / "tiny.yaml").write_text(SPACE + "# x\n" * 30_000)
    with pytest.raises(InputError, match="too long to travel in a RayJob"):
        kuberay.submit(lab, Path("tiny.yaml"), now=NOW)


def test_unmarked_documents_beside_a_rayjob_are_not_applied_by_guess(tmp_path, lab):
    text = (CLUSTER + JOB).replace(", labels: {skeltune/part: cluster}", "")
    with pytest.raises(InputError, match="mark what belongs to the cluster"):
        kuberay.up_lines(parse_cluster_text(text, tmp_path / "lab.yaml"))


def test_names_fit_kubernetes():
    assert label_of("quickstart") == "quickstart"
    assert label_of("A.b_c") == "a-b-c-" + label_of("A.b_c")[-6:]
    assert label_of("a.b") != label_of("a_b")
    assert job_name("lab", "quickstart", NOW) == "lab-quickstart-0301123005"
    long = {job_name("l" * 40, run * 90, NOW) for run in "ab"}
    assert len(long) == 2 and all(len(name) <= 47 for name in long)
    assert job_name("9lab", "x", NOW).startswith("r-9lab-x-")


words = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=12)


@settings(max_examples=12, deadline=None)
@given(runs=words, file=words, comment=words)
def test_the_space_and_every_word_survive_yaml_and_the_shell(tmp_path_factory, runs, file, comment):
    folder = tmp_path_factory.getbasetemp() / "pod"
    if not folder.exists():
        folder.mkdir()
        (folder / "python").write_text('#!/bin/sh\nprintf "%s\\0" "$@"; cat "$4"\n')
        (folder / "python").chmod(0o755)
    space = folder / f"{file.replace('/', '_')}.yaml"
    space.write_text(f"# {comment}\n{SPACE}", encoding="utf-8")
    runs = "/" + runs
    cluster = parse_cluster_text(CLUSTER + JOB, folder / "lab.yaml")
    text, _, _ = rayjob(cluster, space, runs=runs, store=None, data_from=None, env={}, expect={"CPU": 1}, now=NOW)
    command = yaml.safe_load(text)["spec"]["entrypoint"]
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        env={"PATH": f"{folder}:/bin:/usr/bin", "TMPDIR": str(folder)}, capture_output=True, check=True,
    )  # fmt: skip
    *told, sent = done.stdout.decode().split("\0")
    assert Path(told.pop(3)).name == space.name
    assert told == ["-m", "tuning", "search", "--runs", runs, "--address", "auto", "--expect", "CPU=1"]
    assert sent == space.read_text(encoding="utf-8")
    space.unlink()
