"""Clusters and searches on Kubernetes: kubectl's commands, printed or run. The token is only ever named by its file."""

from __future__ import annotations

import datetime
import itertools
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from methods.errors import InputError, WorkFailed
from tuning.files import write_text
from tuning.launch.jobs import default_runs as shared_runs
from tuning.launch.kinds import ClusterFile
from tuning.launch.kube_job import OF, PART, RUN, SEARCH, cluster_metadata, label_of, rayjob
from tuning.launch.native import answer, need, perform, word

Say = Callable[[str], None]
ENDED = ("Complete", "Failed", "Suspended")  # states of a RayJob in which nothing of it runs
_LOGS = "/tmp/ray/session_latest/logs"


def up(cluster: ClusterFile, *, run: bool, say: Say) -> None:
    """Print or run: the Secret with the token, where the file names one, and the documents of the cluster."""
    if run:
        need("kubectl")
    perform(up_lines(cluster), run=run, say=say)


def up_lines(cluster: ClusterFile) -> list[str]:
    """The commands of ``up``; the token's file is made where there is none."""
    lines = []
    secret = _secret(cluster)
    if secret:
        token = _token_file(cluster.name)
        there = shlex.join(_kubectl(cluster, "get", "secret", secret, "--output=name"))
        made = shlex.join(_kubectl(cluster, "create", "secret", "generic", secret, f"--from-file=auth_token={token}"))
        lines.append(f"{there} >/dev/null 2>&1 || {made}")
    return [*lines, shlex.join(_kubectl(cluster, "apply", "-f", word(cluster.path), *_part(cluster)))]


def submit(
    cluster: ClusterFile,
    space: Path,
    *,
    runs: str | None = None,
    store: str | None = None,
    data_from: str | None = None,
    env: Mapping[str, str] | None = None,
    out: Path | None = None,
    run: bool = False,
    now: datetime.datetime | None = None,
    say: Say = print,
) -> str:
    """Make the RayJob of a search; to ``out``, or printed, or with ``run`` applied. Returns the search's name.

    With ``run`` it is written beside the cluster's file where there is no ``out``. Raises ``InputError`` for a wrong
    space, or where the same search runs there (seen only with ``run``).
    """
    from tuning.launch.check import grown

    now = now or datetime.datetime.now(datetime.UTC)
    manifest, name, search = rayjob(
        cluster,
        space,
        runs=runs or default_runs(cluster),
        store=store,
        data_from=data_from,
        env=env or {},
        expect=grown(cluster),
        now=now,
    )
    if out is None and not run:
        say(manifest.rstrip("\n"))
        return search
    if run:
        need("kubectl")
        active = [job for job in _jobs(cluster, search) if _active(job)]
        if active:
            raise InputError(f"search '{search}' runs on '{cluster.name}' already, as {_name(active[0])}")
    target = out or cluster.path.with_name(f"{name}.yaml")
    try:
        write_text(target, manifest)
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror})") from error
    say(f"{target}")
    perform([shlex.join(_kubectl(cluster, "apply", "-f", word(target)))], run=run, say=say)
    return search


def default_runs(cluster: ClusterFile) -> str:
    """Where the file's own RayJob has searches lie, else in a folder that the pods share."""
    for document in cluster.plain:
        spec = document.get("spec")
        if document.get("kind") == "RayJob" and isinstance(spec, dict):
            words = _words(str(spec.get("entrypoint") or ""))
            for before, after in itertools.pairwise(words):
                if before == "--runs":
                    return after
    return shared_runs(cluster)


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return []


def status(cluster: ClusterFile, search: str | None, *, run: bool, say: Say) -> None:
    """Print or run `kubectl get` for the cluster, its pods and its searches."""
    if run:
        need("kubectl")
    selector = _selector(cluster, search)
    lines = [
        shlex.join(_kubectl(cluster, "get", "rayclusters", cluster.name)),
        shlex.join(_kubectl(cluster, "get", "pods", f"--selector=ray.io/cluster={cluster.name}")),
        shlex.join(_kubectl(cluster, "get", "rayjobs", selector)),
    ]
    perform(lines, run=run, say=say)


def logs(cluster: ClusterFile, search: str, *, follow: bool, run: bool, say: Say) -> None:
    """Print or run the command that shows what the newest job of a search has printed, on the head."""
    if run:
        need("kubectl")
    newest = shlex.join(
        _kubectl(
            cluster,
            "get",
            "rayjobs",
            _selector(cluster, search),
            "--sort-by=.metadata.creationTimestamp",
            "--output=jsonpath={.items[-1:].status.jobId}",
        )
    )
    show = ["tail", "-n", "+1", "-F"] if follow else ["cat"]
    head = shlex.join(_kubectl(cluster, "exec", f"service/{cluster.name}-head-svc", *_container(cluster), "--", *show))
    perform([f'{head} "{_LOGS}/job-driver-$({newest}).log"'], run=run, say=say)


def down(cluster: ClusterFile, *, force: bool, run: bool, say: Say) -> None:
    """Print or run `kubectl delete`; ``InputError`` while a search runs (seen with ``run``), unless ``force``."""
    if run:
        need("kubectl")
        active = [_search(job) for job in _jobs(cluster) if _active(job)]
        if active and not force:
            raise InputError(
                f"{', '.join(active)} runs on cluster '{cluster.name}': wait, or use --force "
                "(the search can then go on from its journal)"
            )
    perform(down_lines(cluster), run=run, say=say)


def down_lines(cluster: ClusterFile) -> list[str]:
    """The commands of ``down``: searches, cluster, Secret."""
    searches = _kubectl(cluster, "delete", "rayjobs", _selector(cluster))
    files = _kubectl(cluster, "delete", "-f", word(cluster.path), *_part(cluster), "--ignore-not-found")
    secret = _secret(cluster)
    last = [_kubectl(cluster, "delete", "secret", secret, "--ignore-not-found")] if secret else []
    return [shlex.join(words) for words in (searches, files, *last)]


def _selector(cluster: ClusterFile, search: str | None = None) -> str:
    return f"--selector={OF}={cluster.name}" + (f",{SEARCH}={label_of(search)}" if search else "")


def _kubectl(cluster: ClusterFile, *words: str) -> list[str]:
    namespace = cluster_metadata(cluster).get("namespace")
    return ["kubectl", *([f"--namespace={namespace}"] if namespace else []), *words]


def _part(cluster: ClusterFile) -> list[str]:
    """The selector of the cluster's own documents, where they are marked; ``InputError`` where they must be."""
    labels = cluster_metadata(cluster).get("labels") or {}
    if labels.get(PART) == "cluster":
        return [f"--selector={PART}=cluster"]
    if any(document.get("kind") == "RayJob" for document in cluster.plain):
        raise InputError(
            f"{cluster.path}: a RayJob stands in the file too; mark what belongs to the cluster with "
            f"'labels: {{{PART}: cluster}}', the RayJob with '{PART}: search'"
        )
    return []


def _secret(cluster: ClusterFile) -> str:
    """The Secret that the RayCluster takes its token from, or empty where the operator makes one."""
    for document in cluster.plain:
        spec = document.get("spec")
        if document.get("kind") == "RayCluster" and isinstance(spec, dict):
            return str((spec.get("authOptions") or {}).get("secretName") or "")
    return ""


def _container(cluster: ClusterFile) -> list[str]:
    """Ray's container of the head's pod, which may hold others: the first one."""
    for document in cluster.plain:
        try:
            return [f"--container={document['spec']['headGroupSpec']['template']['spec']['containers'][0]['name']}"]
        except (KeyError, IndexError, TypeError):
            continue
    return []


def _token_file(name: str) -> Path:
    from tuning.launch.home import cluster_home, make_keys, token_path

    if not (cluster_home(name) / "token").exists():
        make_keys(name, tls=False)
    return token_path(name).absolute()


def _jobs(cluster: ClusterFile, search: str | None = None) -> Sequence[dict[str, Any]]:
    selector = _selector(cluster, search)
    text = answer(shlex.join(_kubectl(cluster, "get", "rayjobs", selector, "--output=json")))
    try:
        items = json.loads(text)["items"]
    except (ValueError, KeyError, TypeError) as error:
        raise WorkFailed(f"kubectl's list of RayJobs cannot be read ({error!r})") from error
    return [item for item in items if isinstance(item, dict)]


def _active(job: Mapping[str, Any]) -> bool:
    return (job.get("status") or {}).get("jobDeploymentStatus") not in ENDED


def _name(job: Mapping[str, Any]) -> str:
    return str((job.get("metadata") or {}).get("name"))


def _search(job: Mapping[str, Any]) -> str:
    return str(((job.get("metadata") or {}).get("annotations") or {}).get(RUN) or _name(job))
