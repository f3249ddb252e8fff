"""What is wrong with a KubeRay file: fields, the token, open doors, numbers of workers, volumes, the search's job."""

from __future__ import annotations

import re
from collections.abc import Iterator

from methods.errors import did_you_mean
from tuning.config.yaml_source import Node, Report, Table
from tuning.launch.kinds import ClusterFile
from tuning.launch.kube_schema import DOCUMENTS
from tuning.launch.tables import check_node, entries, find, items, show, whole, word
from tuning.launch.text_rules import check_text

_SECRET_NAME = re.compile(r"(?:TOKEN|PASSWORD|PASSWD|SECRET|API_KEY|ACCESS_KEY)$")
_UNKNOWN = " (a real field that this check does not know can be added with `kubectl patch`)"
_TOKENS_SINCE = (2, 52)


def check_kube_file(file: ClusterFile, report: Report) -> list[str]:
    """Report every fault of ``file``; returns what is worth saying though it is no fault."""
    notes: list[str] = []
    check_text(file.text, report)
    for document in file.documents:
        kind, version = word(document.get("kind")), word(document.get("apiVersion"))
        table = DOCUMENTS.get((version, kind))
        if table is not None:
            check_node(document, table, report, ignored=_UNKNOWN)
        else:
            notes += _unknown(document, kind, version, report)
        if kind == "Secret":
            for key in ("data", "stringData"):
                if document.get(key) is not None:
                    message = "no secret in a file: `kubectl create secret generic NAME --from-file=auth_token=FILE`"
                    report.add(document.key_place(key), message)
        if kind == "RayJob":
            _job(file, document, report)
    for holder, spec in clusters_in(file):
        notes += _cluster(holder, spec, report)
    return notes


def clusters_in(file: ClusterFile) -> list[tuple[Table, Table]]:
    """``(document, what describes a cluster in it)``: RayClusters first, then those inside RayJobs."""
    found: list[tuple[Table, Table]] = []
    ways: dict[str, tuple[str, ...]] = {"RayCluster": ("spec",), "RayJob": ("spec", "rayClusterSpec")}
    for kind, way in ways.items():
        for document in file.documents:
            spec = find(document, *way)
            if word(document.get("kind")) == kind and isinstance(spec, Table):
                found.append((document, spec))
    return found


def shared_mounts(file: ClusterFile) -> tuple[str, ...]:
    """The folders that head and workers mount from the same claim or server."""
    seen: list[set[tuple[str, str]]] = []
    for _, spec in clusters_in(file)[:1]:
        for _, group in _groups(spec):
            seen.append(set(_mounted(group)))
    return tuple(sorted(path for path, _ in set.intersection(*seen))) if seen else ()


def _mounted(group: Node) -> Iterator[tuple[str, str]]:
    pod = find(group, "template", "spec")
    sources = {}
    for volume in items(find(pod, "volumes")):
        source = word(find(volume, "persistentVolumeClaim", "claimName"))
        nfs = f"{word(find(volume, 'nfs', 'server'))}:{word(find(volume, 'nfs', 'path'))}"
        sources[word(find(volume, "name"))] = source or nfs.strip(":") or word(find(volume, "csi", "driver"))
    for mount in items(find(pod, "containers", 0, "volumeMounts")):
        shared = sources.get(word(find(mount, "name")))
        if shared:
            yield word(find(mount, "mountPath")), f"{shared}/{word(find(mount, 'subPath'))}"


def _groups(spec: Node) -> list[tuple[str, Node]]:
    head = find(spec, "headGroupSpec")
    found = [] if head is None else [("head", head)]
    return found + [(word(find(group, "groupName")), group) for group in items(find(spec, "workerGroupSpecs"))]


def _unknown(document: Table, kind: str, version: str, report: Report) -> list[str]:
    right = [known for known, name in DOCUMENTS if name == kind]
    if right:
        place = (document.get("apiVersion") or document).place
        report.add(place, f"a {kind} has apiVersion {right[0]}, got {version!r}")
        return []
    near = did_you_mean(kind, [name for _, name in DOCUMENTS])
    if not kind or "mean" in near:
        report.add((document.get("kind") or document).place, f"unknown kind {kind!r}{near}")
        return []
    return [f"{report.file}:{document.place.line}: a {kind} was not checked: this check does not know its fields"]


def _cluster(holder: Table, spec: Table, report: Report) -> list[str]:
    notes: list[str] = []
    mode = find(spec, "authOptions", "mode")
    if mode is None:
        at = holder.key_place("spec") if holder.get("spec") is spec else spec.place
        report.add(at, "the cluster has no token: it needs 'authOptions: {mode: token, secretName: ...}'")
    elif word(mode) != "token":
        report.add(mode.place, f"'authOptions.mode' must be token, got {show(mode)}: everybody could run commands")
    version = find(spec, "rayVersion")
    numbers = re.match(r"(\d{1,4})\.(\d{1,4})", word(version))
    if version is None or numbers is None or (int(numbers[1]), int(numbers[2])) < _TOKENS_SINCE:
        at = version.place if version is not None else spec.place
        report.add(
            at, f"'rayVersion' must be said and at least 2.52: older ones know no token; got {show(version or spec)}"
        )
    service, ingress = find(spec, "headGroupSpec", "serviceType"), find(spec, "headGroupSpec", "enableIngress")
    if service is not None and word(service) != "ClusterIP":
        report.add(
            service.place, f"'serviceType' {show(service)} shows the job API to the outside; it must be ClusterIP"
        )
    if ingress is not None and show(ingress) == "true":
        report.add(ingress.place, "'enableIngress' shows the job API to the outside; use `kubectl port-forward`")
    names: set[str] = set()
    for name, group in _groups(spec):
        if name in names:
            report.add((find(group, "groupName") or group).place, f"there are two groups called '{name}'")
        names.add(name)
        _replicas(name, group, report)
        notes += _pod(name, group, word(find(spec, "autoscalerOptions", "version")) == "v2", report)
    return notes


def _replicas(name: str, group: Node, report: Report) -> None:
    low, now, high = (whole(find(group, key)) for key in ("minReplicas", "replicas", "maxReplicas"))
    for value, key in ((low, "minReplicas"), (now, "replicas"), (high, "maxReplicas")):
        if value is not None and value < 0:
            report.add((find(group, key) or group).place, f"'{key}' must be at least 0, got {value}")
    if high is None and name != "head":
        report.add(group.place, f"'{name}' needs 'maxReplicas': without it the cluster may grow, and cost, without end")
    if low is not None and high is not None and low > high:
        report.add(
            (find(group, "minReplicas") or group).place, f"'{name}': minReplicas {low} is above maxReplicas {high}"
        )
    elif now is not None and not (low or 0) <= now <= (now if high is None else high):
        message = f"'{name}': replicas {now} is not between minReplicas {low or 0} and maxReplicas {high}"
        report.add((find(group, "replicas") or group).place, message)


def _pod(name: str, group: Node, restarts_never: bool, report: Report) -> list[str]:
    pod = find(group, "template", "spec")
    if not isinstance(pod, Table):
        return []
    if restarts_never and word(pod.get("restartPolicy")) != "Never":
        report.add(pod.key_place("restartPolicy"), f"'{name}': the autoscaler v2 needs 'restartPolicy: Never'")
    if show(pod.get("hostNetwork") or pod) == "true":
        report.add(pod.key_place("hostNetwork"), f"'{name}': hostNetwork opens Ray's ports on the machine itself")
    volumes = {word(find(volume, "name")) for volume in items(pod.get("volumes"))}
    for container in (*items(pod.get("containers")), *items(pod.get("initContainers"))):
        for mount in items(find(container, "volumeMounts")):
            at = find(mount, "name")
            if at is not None and word(at) not in volumes:
                near = did_you_mean(word(at), volumes)
                report.add(at.place, f"'{name}': no volume is called {show(at)}{near}")
        for variable in items(find(container, "env")):
            value = find(variable, "value")
            if value is not None and _SECRET_NAME.search(word(find(variable, "name")).upper()) and word(value):
                report.add(value.place, "a secret does not belong into this file: use valueFrom.secretKeyRef")
            if value is not None and word(find(variable, "name")) == "RAY_AUTH_MODE" and word(value) == "disabled":
                report.add(value.place, "RAY_AUTH_MODE=disabled lets everybody who reaches a port run commands")
        _limits(name, container, report)
    first = find(pod, "containers", 0)
    if first is not None and not any(
        word(find(m, "mountPath")) == "/dev/shm" for m in items(find(first, "volumeMounts"))
    ):
        return [
            f"{report.file}:{first.place.line}: '{name}' mounts no memory at /dev/shm: Ray's object store gets 64 MiB"
        ]
    return []


def _limits(name: str, container: Node, report: Report) -> None:
    limits, requests = (find(container, "resources", key) for key in ("limits", "requests"))
    for key, _, node in entries(requests):
        limit = find(limits, key)
        if key.endswith("/gpu") and limit is None:
            report.add(node.place, f"'{name}': {key} is requested but not limited; Kubernetes wants the same of both")
        elif key.endswith("/gpu") and limit is not None and show(limit).strip("'") != show(node).strip("'"):
            report.add(
                node.place, f"'{name}': {key} is requested {show(node)} and limited to {show(limit)}: must be equal"
            )


def _job(file: ClusterFile, document: Table, report: Report) -> None:
    spec = document.get("spec")
    if not isinstance(spec, Table):
        return
    if spec.get("entrypoint") is None and word(spec.get("submissionMode")) != "InteractiveMode":
        report.add(document.key_place("spec"), "the RayJob needs 'entrypoint': the command of the search")
    own, selector = spec.get("rayClusterSpec"), spec.get("clusterSelector")
    if (own is None) == (selector is None):
        report.add(document.key_place("spec"), "the RayJob needs either 'clusterSelector' or 'rayClusterSpec'")
    chosen = find(selector, "ray.io/cluster")
    here = [word(find(d, "metadata", "name")) for d in file.documents if word(d.get("kind")) == "RayCluster"]
    if chosen is not None and here and word(chosen) not in here:
        report.add(
            chosen.place, f"no RayCluster of this file is called {show(chosen)}{did_you_mean(word(chosen), here)}"
        )
    if selector is not None and show(spec.get("shutdownAfterJobFinishes") or spec) == "true":
        at = spec.key_place("shutdownAfterJobFinishes")
        report.add(at, "'shutdownAfterJobFinishes' is for a cluster of the job's own (rayClusterSpec)")
