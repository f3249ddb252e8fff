"""The RayJob of a search, made from a cluster's KubeRay file: what `kubectl apply` takes."""

from __future__ import annotations

import datetime
import hashlib
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from methods.errors import InputError
from tuning.config.yaml_source import Report, Table, parse_node, plain
from tuning.launch.beside import referred
from tuning.launch.jobs import check_runs, entrypoint, expectation
from tuning.launch.kinds import ClusterFile
from tuning.launch.package import read_space
from tuning.launch.variables import check_environment

LONGEST_NAME = 47  # KubeRay's limit for a RayJob
LONGEST_COMMAND = 100_000  # bytes; Linux gives a command of the shell 131072
PART, OF, SEARCH = "skeltune/part", "skeltune/cluster", "skeltune/run"  # labels, by which searches are found
RUN = "skeltune/name"  # an annotation: the search's own name
_DRIVER_ELSEWHERE = (
    "entrypointNumCpus",
    "entrypointNumGpus",
    "entrypointResources",
)  # with these Ray may take a worker
_LABEL = re.compile(r"[^a-z0-9-]+")


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as literal blocks; no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def rayjob(
    cluster: ClusterFile,
    space: Path,
    *,
    runs: str,
    store: str | None,
    data_from: str | None,
    env: Mapping[str, str],
    expect: Mapping[str, float],
    now: datetime.datetime,
) -> tuple[str, str, str]:
    """``(manifest, name of the RayJob, name of the search)``.

    The space file travels in the command itself: pods that run already can be given no new volume. Raises
    ``InputError`` for a space that cannot be searched, needs files beside it, or is too long for that.
    """
    path, spec, _ = read_space(space)
    beside, _ = referred(spec)
    faults = [
        f"warm_start {name}: files beside the space are not sent to Kubernetes; put it on a volume that the pods mount "
        "and name it by its absolute path"
        for name in beside
    ]
    command = _with_space(
        path,
        entrypoint("SPACE", runs=check_runs(runs), store=store, data_from=data_from, expect=expectation(expect)),
    )
    if len(command.encode()) > LONGEST_COMMAND:
        faults.append(f"{path}: too long to travel in a RayJob ({len(command)} characters, at most {LONGEST_COMMAND})")
    if faults:
        raise InputError(*faults)
    document = _template(cluster)
    job = document["spec"]
    for key in (*_DRIVER_ELSEWHERE, "jobId"):
        job.pop(key, None)
    job["submissionMode"] = "HTTPMode"  # the other ways take the command apart at blanks
    job["entrypoint"] = command
    job["runtimeEnvYAML"] = _runtime_env(cluster, job.get("runtimeEnvYAML"), check_environment(env))
    name = job_name(cluster.name, spec.name, now)
    metadata = document["metadata"]
    metadata["name"] = name
    metadata["labels"] = {**metadata.get("labels", {}), **labels_of(cluster.name, spec.name)}
    metadata["annotations"] = {**metadata.get("annotations", {}), RUN: spec.name}
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True), name, spec.name


def _with_space(path: Path, command: str) -> str:
    """A shell command that writes the space file on the head and searches it."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    file = f'"$folder"/{shlex.quote(path.name)}'
    before, _, after = command.partition(" SPACE ")
    return f"folder=$(mktemp -d) &&\nprintf %s {shlex.quote(text)} > {file} &&\n{before} {file} {after}\n"


def _template(cluster: ClusterFile) -> dict[str, Any]:
    """The file's own RayJob, or one that runs on its RayCluster."""
    for document in cluster.plain:
        if document.get("kind") == "RayJob":
            found: dict[str, Any] = _lists(document)
            if isinstance(found.get("spec"), dict) and isinstance(found.get("metadata"), dict):
                return found
    metadata = {"name": "", **{k: v for k, v in cluster_metadata(cluster).items() if k == "namespace"}}
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": metadata,
        "spec": {"clusterSelector": {"ray.io/cluster": cluster.name}},
    }


def cluster_metadata(cluster: ClusterFile) -> dict[str, Any]:
    """``metadata`` of the document that names the cluster."""
    found = plain(cluster.tree)["metadata"] if isinstance(cluster.tree, Table) else {}
    return dict(found)


def _lists(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _lists(inner) for key, inner in value.items()}
    return [_lists(inner) for inner in value] if isinstance(value, tuple | list) else value


def _runtime_env(cluster: ClusterFile, given: Any, env: Mapping[str, str]) -> str:
    """The user's runtime environment with our variables in it."""
    found: dict[str, Any] = {}
    if given:
        report = Report(f"{cluster.path}: runtimeEnvYAML", str(given))
        node = parse_node(str(given), report)
        report.raise_if_any()
        if not isinstance(node, Table):
            raise InputError(f"{cluster.path}: runtimeEnvYAML must be a mapping")
        found = _lists(plain(node))
    theirs = found.get("env_vars")
    found["env_vars"] = {"OMP_NUM_THREADS": "1", **(theirs if isinstance(theirs, dict) else {}), **env}
    return yaml.dump(found, Dumper=_Dumper, sort_keys=False, width=120)


def labels_of(cluster: str, run: str) -> dict[str, str]:
    """The labels of a search's RayJob."""
    return {PART: "search", OF: cluster, SEARCH: label_of(run)}


def label_of(run: str) -> str:
    """A search's name as a Kubernetes label: small letters, digits, hyphens; with a hash where that loses something."""
    plain_name = _LABEL.sub("-", run.lower()).strip("-")[:30].strip("-")
    if plain_name == run:
        return run
    return f"{plain_name or 'run'}-{hashlib.sha256(run.encode()).hexdigest()[:6]}"


def job_name(cluster: str, run: str, now: datetime.datetime) -> str:
    """`lab-quickstart-1121190210`: within KubeRay's limit, and one of its own each time."""
    stamp = f"{now:%m%d%H%M%S}"
    name = f"{cluster}-{label_of(run)}"
    if not name[0].isalpha():
        name = f"r-{name}"
    longest = LONGEST_NAME - len(stamp) - 1
    if len(name) > longest:
        name = f"{name[: longest - 7].rstrip('-')}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
    return f"{name}-{stamp}"
