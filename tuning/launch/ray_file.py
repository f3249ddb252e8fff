"""What is wrong with a file for Ray's launcher: keys, limits, addresses, machines, and how Ray is started."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from methods.errors import did_you_mean
from tuning.config.yaml_source import Leaf, Listing, Node, Report, Table
from tuning.launch.kinds import ClusterFile
from tuning.launch.node_config import check_aws, check_gcp
from tuning.launch.ray_schema_check import check_by_ray, check_schema
from tuning.launch.ray_start import check_start_commands
from tuning.launch.tables import entries, find, items, show, unknown_key, whole, word
from tuning.launch.text_rules import check_text

_COMMON = ("type", "disable_node_updaters", "use_internal_ips", "worker_liveness_check", "worker_rpc_drain", "module")
_PROVIDER = {
    "local": ("head_ip", "worker_ips", "external_head_ip"),
    "aws": (
        "region", "availability_zone", "cache_stopped_nodes", "key_pair", "security_group",
        "aws_credentials", "cloudwatch",
    ),
    "gcp": ("region", "availability_zone", "project_id", "gcp_credentials", "cache_stopped_nodes"),
}  # fmt: skip
_NEEDED = {
    "local": ("head_ip", "worker_ips"),
    "aws": ("region",),
    "gcp": ("region", "availability_zone", "project_id"),
}
_RESOURCES = ("CPU", "GPU", "memory", "object_store_memory", "TPU")
_NOTES = ("shared",)
LONGEST_NAME = 24  # a socket's path has at most 107 characters, and all of Ray's but the name take 82


def check_ray_file(file: ClusterFile, report: Report) -> list[str]:
    """Report every fault of ``file``; returns what is worth saying though it is no fault."""
    tree = file.tree
    if tree is None:
        return []
    check_text(file.text, report)
    if len(file.name) > LONGEST_NAME:
        place = tree.key_place("cluster_name")
        report.add(
            place, f"'cluster_name' has {len(file.name)} characters, at most {LONGEST_NAME}: sockets are named by it"
        )
    note = check_schema(tree, report)
    notes = [note] if note else []
    provider = find(tree, "provider")
    kind = word(find(provider, "type"))
    if isinstance(provider, Table):
        notes += _provider(provider, kind, report)
    if kind == "local":
        _addresses(tree, report)
    else:
        notes += _node_types(tree, kind, report)
    _auth(tree, report)
    _mounts(file, tree, report)
    _metadata(tree, report)
    check_start_commands(file, tree, kind, report)
    if not report.faults:
        check_by_ray(file.text, tree, report)
    return notes


def shared_folders(tree: Node | None) -> tuple[str, ...]:
    """The folders that the file says all nodes see at the same path: ``metadata.shared``."""
    return tuple(word(item) for item in items(find(tree, "metadata", "shared")) if word(item))


def _provider(provider: Table, kind: str, report: Report) -> list[str]:
    if kind not in _PROVIDER:
        return [f"provider '{kind}': only Ray's own rules were applied{did_you_mean(kind, _PROVIDER)}"]
    known_keys = (*_COMMON, *_PROVIDER[kind])
    for key, place, node in provider.entries:
        if key == "coordinator_address":
            report.add(place, "Ray's coordinator of machines is not supported: give head_ip and worker_ips")
        elif key not in known_keys:
            report.add(place, unknown_key(key, "provider", dict.fromkeys(known_keys)))
        elif key == "security_group":
            _open_ports(node, report)
    for key in _NEEDED[kind]:
        if key not in provider.words:
            report.add(provider.place, f"'provider' needs '{key}'")
    region, zones = word(find(provider, "region")), find(provider, "availability_zone")
    for zone in word(zones).split(","):
        if (
            zones is not None
            and region
            and zone
            and "EDIT" not in zone + region
            and not zone.strip().startswith(region)
        ):
            report.add(zones.place, f"the zone {zone.strip()!r} is not in the region {region!r}")
    return []


def _open_ports(node: Node, report: Report) -> None:
    """Nothing but ssh from addresses outside private networks."""
    for rule in items(find(node, "IpPermissions")):
        ssh_only = whole(find(rule, "FromPort")) == 22 and whole(find(rule, "ToPort")) == 22
        for ranges, key in (("IpRanges", "CidrIp"), ("Ipv6Ranges", "CidrIpv6")):
            for entry in items(find(rule, ranges)):
                cidr = find(entry, key)
                try:
                    private = ipaddress.ip_network(word(cidr), strict=False).is_private
                except ValueError:
                    private = False
                if cidr is not None and not ssh_only and (not private or word(cidr).endswith("/0")):
                    message = (
                        f"{word(cidr)!r} may reach more than ssh: Ray's ports must be open inside the cluster only"
                    )
                    report.add(cidr.place, message)


def _addresses(tree: Table, report: Report) -> None:
    for key in ("available_node_types", "head_node_type"):
        if key in tree.words:
            report.add(tree.key_place(key), f"'{key}' is for clouds: machines of your own are found by worker_ips")
    head, workers = find(tree, "provider", "head_ip"), find(tree, "provider", "worker_ips")
    if head is not None and not word(head):
        report.add(head.place, f"'provider.head_ip' must be an address or a name, got {show(head)}")
    seen: dict[str, Node] = {word(head): head} if head is not None and word(head) else {}
    for item in items(workers):
        address = word(item)
        if not address:
            report.add(item.place, f"'provider.worker_ips' must hold addresses or names, got {show(item)}")
        elif address in seen:
            what = "is the head's, which works as well" if seen[address] is head else "is given twice"
            report.add(item.place, f"the address {address} {what}: each machine is listed once")
        else:
            seen[address] = item
    count = len(items(workers))
    least, most = (whole(find(tree, key)) for key in ("min_workers", "max_workers"))
    if least is not None and isinstance(workers, Listing) and not 0 <= least <= count:
        report.add((find(tree, "min_workers") or tree).place, f"'min_workers' is {least}, but worker_ips has {count}")
    if most is not None and isinstance(workers, Listing) and most != count:
        place = (find(tree, "max_workers") or tree).place
        more = "there are no more" if most > count else "the others would never be started"
        report.add(place, f"'max_workers' is {most}, but worker_ips has {count}: {more}; leave it out")


def _node_types(tree: Table, kind: str, report: Report) -> list[str]:
    notes: list[str] = []
    types, head = find(tree, "available_node_types"), find(tree, "head_node_type")
    if not isinstance(types, Table) or not types.entries:
        report.add(
            tree.key_place("available_node_types"), "the file needs 'available_node_types': what machines there are"
        )
        return notes
    if head is None:
        report.add(types.place, "the file needs 'head_node_type': which of its node types is the head's")
    elif word(head) not in types.words:
        report.add(head.place, f"there is no node type {show(head)}{did_you_mean(word(head), types.words)}")
    total = whole(find(tree, "max_workers"))
    if total is None:
        report.add(tree.key_place("max_workers"), "the file needs 'max_workers': the most machines beside the head")
    smallest = 0
    for name, place, node in types.entries:
        trail = f"available_node_types.{name}"
        low, high = whole(find(node, "min_workers")) or 0, whole(find(node, "max_workers"))
        smallest += max(0, low)
        for key in ("min_workers", "max_workers"):
            limit = find(node, key)
            if limit is not None and (whole(limit) or 0) < 0:
                report.add(limit.place, f"'{trail}.{key}' must be at least 0, got {show(limit)}")
        if high is not None and low > high:
            report.add(
                (find(node, "min_workers") or node).place, f"'{trail}': min_workers {low} is above max_workers {high}"
            )
        if total is not None and high is not None and high > total:
            notes.append(
                f"{report.file}:{place.line}: at most {total} of {high} '{name}' machines: max_workers is {total}"
            )
        _resources(find(node, "resources"), trail, report)
        config = find(node, "node_config")
        if config is not None and kind in ("aws", "gcp"):
            (check_aws if kind == "aws" else check_gcp)(config, report, f"{trail}.node_config")
    if total is not None and smallest > total:
        at = (find(tree, "max_workers") or tree).place
        report.add(
            at, f"'max_workers' is {total}, but the node types want at least {smallest} (the sum of min_workers)"
        )
    return notes


def _resources(node: Node | None, trail: str, report: Report) -> None:
    for name, place, amount in entries(node):
        near = {known.lower(): known for known in _RESOURCES}.get(name.lower())
        if near is not None and near != name:
            report.add(place, f"'{trail}.resources' calls it '{name}', Ray calls it '{near}'")
        if name == "memory" and 0 < (whole(amount) or 0) < 2**20:
            report.add(amount.place, f"'{trail}.resources.memory' is in bytes, got {show(amount)}")


def _auth(tree: Table, report: Report) -> None:
    if not word(find(tree, "auth", "ssh_user")):
        report.add(tree.key_place("auth"), "'auth' needs 'ssh_user': the name to log in with on the nodes")
    key = find(tree, "auth", "ssh_private_key")
    if key is not None and word(key) and "EDIT" not in word(key) and not _is_there(word(key)):
        report.add(key.place, f"'auth.ssh_private_key': there is no {word(key)} here")


def _is_there(path: str) -> bool:
    try:
        return Path(path).expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # no name of a file, or of nobody's home
        return False


def _mounts(file: ClusterFile, tree: Table, report: Report) -> None:
    mounts = find(tree, "file_mounts")
    ours = f"~/.skeltune/clusters/{file.name}"
    known = {path.rstrip("/"): node for path, _, node in entries(mounts)}
    if ours not in known:
        message = f"'file_mounts' needs '{ours}: {ours}', which carries the cluster's token to the nodes"
        report.add(tree.key_place("file_mounts"), message)
    for path, node in known.items():
        source = word(node)
        if not source:
            report.add(node.place, f"'file_mounts' must say which folder here goes to {path}, got {show(node)}")
        elif path == ours and source.rstrip("/") != ours:
            report.add(node.place, f"{ours} must come from the same place here, where `up` makes it, got {source!r}")
        elif path != ours and "EDIT" not in source and not _is_there(source):
            report.add(node.place, f"'file_mounts': there is no {source} here to send to {path}")


def _metadata(tree: Table, report: Report) -> None:
    for key, place, node in entries(find(tree, "metadata")):
        if key not in _NOTES:
            near = did_you_mean(key, _NOTES)
            if "mean" in near:
                report.add(place, f"'metadata' has an unknown key '{key}'{near}")
        elif not isinstance(node, Listing):
            report.add(node.place, f"'metadata.shared' must be a list of folders, got {show(node)}")
        else:
            for item in node.items:
                value = item.value if isinstance(item, Leaf) else None
                if not isinstance(value, str) or not (value.startswith("/") or "EDIT" in value):
                    report.add(item.place, f"'metadata.shared' must hold absolute paths on the nodes, got {show(item)}")
