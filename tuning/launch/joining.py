"""Bringing a machine to a cluster that runs already, when the head's own launcher does not.

The head reads the list of given machines once, when it starts: it brings back those that it knows, and never sees one
that was written into the file later. Such a machine is set up from here as Ray would do it: files, setup, start.
"""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path

from methods.errors import InputError, WorkFailed
from tuning.launch.home import NODE_HOME, cluster_home
from tuning.launch.kinds import ClusterFile
from tuning.launch.remote import Host, hosts_of, run_on, ssh_command
from tuning.launch.sweeping import Say, each_host

SETUP_S = 1800.0  # a first setup installs torch


def join_strangers(cluster: ClusterFile, faults: Mapping[str, str], say: Say) -> dict[str, str]:
    """Set up the file's workers that the running head does not know; what went wrong, by address.

    ``faults``: machines that cannot be reached. Those that the head knows are left to it: two set-ups of one machine at
    a time would spoil it.
    """
    head, workers = hosts_of(cluster)
    known = _known(cluster, head)
    new = [] if known is None else [host for host in workers if host.address not in {*known, *faults}]

    def one(host: Host) -> tuple[str, str]:
        try:
            join(cluster, host)
        except (InputError, WorkFailed) as error:
            return host.address, str(error)
        return host.address, ""

    for host in new:
        say(f"{host.address}: is new to the running head, and set up from here")
    return {address: fault for address, fault in each_host(one, new) if fault}


def _known(cluster: ClusterFile, head: Host) -> set[str] | None:
    """Addresses in the file in which Ray's launcher on the head keeps its machines; None where that cannot be read."""
    try:
        found = json.loads(run_on(head, f"cat /tmp/ray/cluster-{cluster.name}.state").stdout)
    except (InputError, WorkFailed, ValueError):
        return None
    return set(found) if isinstance(found, dict) else None


def join(cluster: ClusterFile, host: Host) -> None:
    """Send the files, run the setup, start Ray. Raises ``InputError`` or ``WorkFailed``: one line with the machine."""
    for target, source in (cluster.plain.get("file_mounts") or {}).items():
        usual = f"{NODE_HOME}/{cluster.name}"
        here = cluster_home(cluster.name) if str(source).rstrip("/") == usual else Path(str(source)).expanduser()
        _send(host, here, str(target))
    keys = ("initialization_commands", "setup_commands", "worker_setup_commands", "worker_start_ray_commands")
    for command in [str(each) for key in keys for each in cluster.plain.get(key) or []]:
        done = run_on(host, _in_shell(command, str(cluster.plain["provider"]["head_ip"])), timeout=SETUP_S)
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip() or f"exit {done.returncode}").splitlines()[-1]
            raise WorkFailed(f"{host}: '{command[:60]}' failed: {said[:300]}")


def _in_shell(command: str, head: str) -> str:
    """As Ray's launcher runs a command: by a login shell that also reads ~/.bashrc."""
    script = f"true && source ~/.bashrc; export RAY_HEAD_IP={shlex.quote(head)}; ({command})"
    return f"bash --login -c {shlex.quote(script)}"


def _send(host: Host, here: Path, target: str) -> None:
    """Copy a file or a folder with its modes; ``target`` may begin with ~."""
    folder = here.is_dir()
    made = target.rstrip("/") if folder else str(Path(target).parent)
    done = run_on(host, f"mkdir -p {_path(made)}")
    if done.returncode:
        raise WorkFailed(f"{host}: {made} cannot be made: {done.stderr.strip()[:200]}")
    address = f"[{host.address}]" if ":" in host.address else host.address
    to = target.removeprefix("~/").rstrip("/") + ("/" if folder else "")
    argv = ["rsync", "-a", "--protect-args", "-e", shlex.join(ssh_command(host))]
    argv += ["--", f"{here}/" if folder else str(here), f"{host.user}@{address}:{to}"]
    sent = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False, timeout=SETUP_S)
    if sent.returncode:
        lines = [line for line in sent.stderr.splitlines() if line.strip()]
        raise WorkFailed(f"{host}: {here} could not be sent: {lines[0] if lines else f'exit {sent.returncode}'}")


def _path(path: str) -> str:
    """Quoted for a shell, but for a ~ in front."""
    return f"~/{shlex.quote(path[2:])}" if path.startswith("~/") else shlex.quote(path)
