"""How large a cluster is at first, and how large it can grow: from its file alone; {} where the file does not say."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from tuning.config.yaml_source import Leaf, Node
from tuning.launch.kinds import ClusterFile
from tuning.launch.kube_file import clusters_in
from tuning.launch.slurm_file import options_of
from tuning.launch.tables import entries, find, items, whole, word

_SUFFIX = {
    "m": 1e-3,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
    "": 1.0,
}


@dataclass(frozen=True)
class Machines:
    """One sort of machine: ``least`` to ``most`` of them, each with ``resources`` as Ray counts them ({}: unknown)."""

    name: str
    least: int
    most: int
    resources: Mapping[str, float]


def machines(file: ClusterFile) -> tuple[Machines, ...]:
    """The sorts of machines of a cluster, its head first."""
    return {"ray": _ray, "kuberay": _kuberay, "slurm": _slurm}[file.kind](file)


def grown(file: ClusterFile) -> dict[str, float]:
    """What the cluster has when it has grown as far as its file lets it, head included; {} where that is unknown.

    Where the sorts of machines together could be more than the file's ``max_workers``, those with most GPUs count.
    """
    sorts = machines(file)
    if not sorts or not all(sort.resources for sort in sorts):
        return {}
    head, workers = sorts[0], list(sorts[1:])
    counts = [sort.least for sort in workers]
    total = whole(find(file.tree, "max_workers")) if file.kind == "ray" else None
    left = math.inf if total is None else max(0, total - sum(counts))
    order = sorted(range(len(workers)), key=lambda k: [-workers[k].resources.get(name, 0.0) for name in ("GPU", "CPU")])
    for k in order:
        more = min(workers[k].most - counts[k], left)
        counts[k] += int(max(0, more))
        left -= max(0, more)
    found: dict[str, float] = {}
    for sort, count in [(head, head.most), *zip(workers, counts, strict=True)]:
        for name, amount in sort.resources.items():
            found[name] = found.get(name, 0.0) + amount * count
    return found


def smallest(file: ClusterFile) -> int:
    """How many nodes must be there once `up` is done: the head and the least number of workers."""
    return sum(sort.least for sort in machines(file))


def _ray(file: ClusterFile) -> tuple[Machines, ...]:
    tree = file.tree
    if word(find(tree, "provider", "type")) == "local":
        workers = len(items(find(tree, "provider", "worker_ips")))
        least = whole(find(tree, "min_workers"))
        return (Machines("head", 1, 1, {}), Machines("workers", workers if least is None else least, workers, {}))
    head = word(find(tree, "head_node_type"))
    total = whole(find(tree, "max_workers")) or 0
    heads, others = [], []
    for name, _, node in entries(find(tree, "available_node_types")):
        has = {key: float(whole(value) or 0) for key, _, value in entries(find(node, "resources"))}
        most = whole(find(node, "max_workers"))
        if name == head:
            heads.append(Machines(name, 1, 1, has))
            most = 0 if most is None else most
        if name != head or most:
            least = max(0, whole(find(node, "min_workers")) or 0)
            others.append(Machines(name, least, max(0, total if most is None else most), has))
    return (*heads, *others)


def _kuberay(file: ClusterFile) -> tuple[Machines, ...]:
    found: list[Machines] = []
    for _, spec in clusters_in(file)[:1]:
        head = find(spec, "headGroupSpec")
        found.append(Machines("head", 1, 1, _pod(head)))
        for group in items(find(spec, "workerGroupSpecs")):
            least, most = (whole(find(group, key)) or 0 for key in ("minReplicas", "maxReplicas"))
            hosts = whole(find(group, "numOfHosts")) or 1
            found.append(
                Machines(word(find(group, "groupName")), max(0, least) * hosts, max(0, most) * hosts, _pod(group))
            )
    return tuple(found)


def _pod(group: Node | None) -> dict[str, float]:
    """What Ray counts in a pod: the first container's limits, unless ``rayStartParams`` says otherwise."""
    container = find(group, "template", "spec", "containers", 0)
    limits, requests = (find(container, "resources", key) for key in ("limits", "requests"))
    cpu = amount(find(limits, "cpu") or find(requests, "cpu"))
    gpus = sum(amount(node) or 0.0 for name, _, node in entries(limits) if name.endswith("/gpu"))
    said = {key: amount(find(group, "rayStartParams", key)) for key in ("num-cpus", "num-gpus")}
    cpu = cpu if said["num-cpus"] is None else said["num-cpus"]
    gpus = gpus if said["num-gpus"] is None else said["num-gpus"]
    return {} if cpu is None else {"CPU": float(math.ceil(cpu)), "GPU": float(gpus)}


def amount(node: Node | None) -> float | None:
    """A quantity of Kubernetes ("500m", "16Gi", 8) as a number; None for anything else."""
    if not isinstance(node, Leaf):
        return None
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?)(m|k|M|G|T|Ki|Mi|Gi|Ti|)", str(node.value))
    return float(match[1]) * _SUFFIX[match[2]] if match else None


def _slurm(file: ClusterFile) -> tuple[Machines, ...]:
    """What the #SBATCH lines ask for; the command line of sbatch may ask for other things."""
    said = {option.name: option.value for option in options_of(file.text)}
    nodes = _number(said.get("nodes", "1").split("-")[-1]) or 1
    cpu = (_number(said.get("ntasks-per-node", "1")) or 1) * (_number(said.get("cpus-per-task", "1")) or 1)
    gpu = _number(said.get("gpus-per-node", said.get("gpus-per-task", "0")).split(":")[-1]) or 0
    if not gpu and "gres" in said:
        asked = re.search(r"gpu(?::[^:,]+)?:(\d{1,4})|(gpu)(?:,|$)", said["gres"])
        gpu = (int(asked[1]) if asked[1] else 1) if asked else 0
    has = {"CPU": float(cpu), "GPU": float(gpu)}
    return (Machines("node", 1, 1, has), Machines("node", nodes - 1, nodes - 1, has))


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"\d{1,9}", text) else None
