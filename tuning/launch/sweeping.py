"""Sweeping a cluster's machines over ssh: nothing of it runs there afterwards, and none of its secrets lies there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from methods.errors import InputError, WorkFailed
from tuning.launch.home import NODE_HOME
from tuning.launch.kinds import ClusterFile
from tuning.launch.node_list import temp_dir
from tuning.launch.remote import Host, run_on

Say = Callable[[str], None]
Result = TypeVar("Result")
SWEEP_S = 60  # a sweep ends by itself after 8 s; the rest is ssh


def sweep_hosts(cluster: ClusterFile, hosts: Sequence[Host], say: Say) -> dict[str, str]:
    """End the cluster's processes on ``hosts`` and take its secrets away from there; what went wrong, by address."""
    script = Path(__file__).with_name("sweep.py").read_text(encoding="utf-8")
    folder = f"{NODE_HOME}/{cluster.name}"
    secrets = f"rm -f {folder}/token {folder}/tls/node.key /tmp/ray/cluster-{cluster.name}.state"
    command = f"python3 - {temp_dir(cluster)}; status=$?; {secrets}; exit $status"

    def one(host: Host) -> tuple[str, str, str]:
        try:
            done = run_on(host, command, input=script, timeout=SWEEP_S)
        except (InputError, WorkFailed) as error:
            return host.address, "", f"{error}: not swept; run 'skeltune cluster down' again when it is back"
        said = done.stdout.strip()
        return host.address, said, "" if done.returncode == 0 else said or done.stderr.strip() or "the sweep failed"

    faults = {}
    for address, said, fault in each_host(one, hosts):
        if fault:
            faults[address] = fault
        else:
            say(f"{address}: {said.removeprefix(temp_dir(cluster) + ': ')}")
    return faults


def each_host(work: Callable[[Host], Result], hosts: Sequence[Host]) -> list[Result]:
    """``work`` on all hosts at a time, its results in their order."""
    with ThreadPoolExecutor(max_workers=16) as pool:
        return list(pool.map(work, hosts))


def as_lines(faults: dict[str, str]) -> list[str]:
    """One line for each machine, beginning with its address."""
    return [text if text.startswith(address) else f"{address}: {text}" for address, text in faults.items()]
