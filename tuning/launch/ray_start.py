"""How a file starts Ray on its nodes: with its cluster's token, in its own folder, leaving other people's Ray alone."""

from __future__ import annotations

import re

from tuning.config.errors import Place
from tuning.config.yaml_source import Report, Table
from tuning.launch.kinds import ClusterFile
from tuning.launch.tables import find, items, word

_START = re.compile(r"\bray\s+start\b")
_STOP = re.compile(r"\bray\s+stop\b")
_PORT = re.compile(r"--port[=\s]+(\d+)")
_ADDRESS = re.compile(r"--address[=\s]+[\"']?(?P<host>[^\s:\"']+)(?::(?P<port>\d+))?")
_NODE_ADDRESS = re.compile(r"--node-ip-address[=\s]+[\"']?(?P<host>[^\s\"']+)")
_TEMP = re.compile(r"--temp-dir[=\s]+[\"']?(?P<folder>[^\s\"']+)")


def check_start_commands(file: ClusterFile, tree: Table, provider: str, report: Report) -> None:
    """Report what is missing from, or wrong with, the commands that start Ray."""
    ports: dict[str, str] = {}
    for role in ("head", "worker"):
        key = f"{role}_start_ray_commands"
        node, place = find(tree, key), tree.key_place(key)
        if node is None:
            report.add(
                place, f"the file needs '{key}': Ray's own ones start it without a token, and end other people's Ray"
            )
            continue
        commands = [(word(item), item.place) for item in items(node)]
        for text, at in commands:
            if _STOP.search(text):
                report.add(at, "`ray stop` ends every Ray on the machine, other people's too: sweep.py ends this one's")
        starts = [(text, at) for text, at in commands if _START.search(text)]
        if not starts:
            report.add(place, f"no command of '{key}' runs `ray start`")
        for text, at in starts:
            _one(file, role, text, at, report)
            _by_role(role, provider, text, at, tree, ports, report)
        _swept(file, key, commands, place, report)
    if len(set(ports.values())) > 1:
        place = tree.key_place("worker_start_ray_commands")
        report.add(place, f"the head listens on port {ports['head']}, the workers look for it on {ports['worker']}")


def _one(file: ClusterFile, role: str, text: str, at: Place, report: Report) -> None:
    """What holds for head and workers alike."""
    ours = f"~/.skeltune/clusters/{file.name}/env.sh"
    sourced = re.search(rf"(?:^|[;&\s])(?:\.|source)\s+{re.escape(ours)}(?P<then>\s*&&)?", text)
    if sourced is None:
        report.add(at, f"the {role}'s `ray start` must begin with '. {ours} &&': without it Ray runs without a token")
    elif sourced["then"] is None or sourced.start() > (_START.search(text) or sourced).start():
        report.add(
            at, f"'. {ours}' must be followed by && and `ray start`: else Ray starts though the token is missing"
        )
    temp = _TEMP.search(text)
    if temp is None or temp["folder"] != f"/tmp/skeltune-{file.name}/ray":  # in a folder that env.sh shuts to others
        got = "" if temp is None else f", got {temp['folder']}"
        message = (
            f"the {role}'s `ray start` needs --temp-dir=/tmp/skeltune-{file.name}/ray: `down` knows its processes by it"
        )
        report.add(at, message + got)
    if re.search(r"--include-dashboard[=\s]+[\"']?false", text, re.IGNORECASE) and role == "head":
        report.add(at, "without a dashboard there is no job API, and `submit` cannot submit")


def _by_role(
    role: str, provider: str, text: str, at: Place, tree: Table, ports: dict[str, str], report: Report
) -> None:
    address, port = _ADDRESS.search(text), _PORT.search(text)
    if role == "worker":
        if address is None:
            report.add(at, "the workers' `ray start` needs --address=$RAY_HEAD_IP:6379")
        else:
            ports["worker"] = address["port"] or "6379"
        if re.search(r"--head\b", text):
            report.add(at, "--head is for the head: each worker would be a cluster of its own")
        return
    ports["head"] = port[1] if port else "6379"
    if not re.search(r"--head\b", text):
        report.add(at, "the head's `ray start` needs --head")
    if not re.search(r"--autoscaling-config[=\s]+[\"']?~/ray_bootstrap_config\.yaml", text):
        message = "the head's `ray start` needs --autoscaling-config=~/ray_bootstrap_config.yaml: it starts the workers"
        report.add(at, message)
    if provider != "local":
        return
    named = _NODE_ADDRESS.search(text)
    head = word(find(tree, "provider", "head_ip"))
    if named is None:
        report.add(
            at, "the head's `ray start` needs --node-ip-address: Ray may otherwise listen where no worker finds it"
        )
    elif re.fullmatch(r"[\d.]+", named["host"]) and re.fullmatch(r"[\d.]+", head) and named["host"] != head:
        report.add(at, f"--node-ip-address is {named['host']}, but provider.head_ip is {head}")


def _swept(file: ClusterFile, key: str, commands: list[tuple[str, Place]], place: Place, report: Report) -> None:
    sweep = f"~/.skeltune/clusters/{file.name}/sweep.py"
    for text, _ in commands:
        found, start = text.find(sweep), _START.search(text)
        if found >= 0 and (start is None or found < start.start()):
            return
        if start is not None:
            break
    report.add(place, f"'{key}' needs 'python3 {sweep}' before Ray starts, so that `up` may be repeated")
