"""Ray's launcher (`ray up`, `ray down`) as a command of its own: its words go to a file, its failures to one line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from methods.errors import WorkFailed
from tuning.launch.home import NODE_HOME, cluster_home, write_secret
from tuning.launch.kinds import ClusterFile


def is_local(cluster: ClusterFile) -> bool:
    """True for given machines, False for a cloud's."""
    return bool(cluster.plain["provider"]["type"] == "local")


def run_ray(cluster: ClusterFile, words: Sequence[str], timeout_s: float) -> None:
    """Run one of the launcher's commands on the file; its output goes to NAME.log beside the cluster's folder."""
    log = cluster_home(cluster.name).with_suffix(".log")
    file = file_for_ray(cluster)
    unwanted = ("RAY_ADDRESS", "RAY_AUTH_TOKEN")
    environment = {key: value for key, value in os.environ.items() if key not in unwanted}
    environment |= {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONUNBUFFERED": "1"}
    if is_local(cluster):
        environment["RAY_UP_enable_autoscaler_v2"] = "0"  # version 2 brings only some of the given machines up
    command = [sys.executable, "-m", "ray.scripts.scripts", *words, str(file)]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, errors="replace", env=environment, timeout=timeout_s, check=False)  # fmt: skip
    except subprocess.TimeoutExpired as error:
        write_secret(log, (error.stdout or b"").decode("utf-8", "replace"))
        raise WorkFailed(f"'ray {words[0]}' did not end within {timeout_s:.0f} s; its words are in {log}") from None
    write_secret(log, done.stdout)
    if done.returncode:
        last = [line.strip() for line in done.stdout.splitlines() if line.strip()][-3:]
        raise WorkFailed(f"'ray {words[0]}' failed: {' / '.join(last)[-500:]} (all of it: {log})")


def file_for_ray(cluster: ClusterFile) -> Path:
    """The file, or where ``$SKELTUNE_HOME`` moves the keys a copy beside them whose ``file_mounts`` begin there."""
    home, usual = cluster_home(cluster.name), f"{NODE_HOME}/{cluster.name}"
    if home == Path(usual).expanduser():
        return cluster.path
    tree = yaml.safe_load(cluster.text)
    tree["file_mounts"] = {
        target: str(home) if str(source).rstrip("/") == usual else source
        for target, source in (tree.get("file_mounts") or {}).items()
    }
    copy = home.with_suffix(".yaml")
    write_secret(copy, yaml.safe_dump(tree, sort_keys=False))
    return copy
