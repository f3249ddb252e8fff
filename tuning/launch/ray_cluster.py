"""A Ray cluster from its file: up, who is there, down. Ray's launcher does the work; this says what came of it.

`ray stop` is never used, and neither is `ray down` on given machines (it runs `ray stop` there): both end other
people's Ray. ``sweep.py`` ends this cluster's processes instead, and this module looks that none is left.
"""

from __future__ import annotations

import contextlib
import fcntl
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from methods.errors import InputError, WorkFailed
from tuning.launch.home import cluster_home, make_keys
from tuning.launch.joining import join_strangers
from tuning.launch.kinds import ClusterFile
from tuning.launch.launcher import is_local, run_ray
from tuning.launch.node_list import DASHBOARD_PORT, Answer, NodeInfo, address_of, ask, nodes, temp_dir
from tuning.launch.remote import Host, head_of, hosts_of, run_on
from tuning.launch.sweeping import Say, as_lines, each_host, sweep_hosts

__all__ = ["NodeInfo", "down", "nodes", "sweep_hosts", "up"]


def up(cluster: ClusterFile, *, tls: bool = False, want: int | None = None, timeout_s: float = 600, say: Say) -> None:
    """Start the cluster, or what is missing of it, and wait for ``want`` nodes (all that the file promises).

    A cluster that runs keeps its token and is not restarted. Raises ``InputError`` for what the user can mend and
    ``WorkFailed`` with one line for each machine that is not there.
    """
    end = time.monotonic() + timeout_s
    local = is_local(cluster)
    if tls and not local:
        raise InputError("--tls needs nodes whose addresses are known beforehand: 'provider: {type: local}'")
    with _alone(cluster.name):
        faults = _unreachable(cluster) if local else {}
        state = ask(cluster) if _head_may_run(cluster, faults) else Answer.NOBODY
        _refuse(cluster, state)
        if state is Answer.OURS:
            say(f"cluster '{cluster.name}' runs; its token stays")
            if tls and not (cluster_home(cluster.name) / "tls").is_dir():
                raise InputError(f"cluster '{cluster.name}' runs without TLS: take it down first, then 'up --tls'")
        else:
            _fresh_keys(cluster, tls, faults, say)
        _ray_up(cluster, restart=state is Answer.NOBODY, end=end, say=say)
        if local and state is Answer.OURS:
            faults = {**faults, **join_strangers(cluster, faults, say)}
        _wait(cluster, want, faults, end, say)
    _say_way_in(cluster, say)


def _say_way_in(cluster: ClusterFile, say: Say) -> None:
    """How to look at the dashboard, which listens on the head's loopback only."""
    head = head_of(cluster)
    key = f"-i {shlex.quote(str(head.key))} " if head.key is not None else ""
    tunnel = f"ssh -N -L {DASHBOARD_PORT}:127.0.0.1:{DASHBOARD_PORT} -p {head.port} {key}{head.user}@{head.address}"
    say(f"dashboard: {tunnel}")
    token = cluster_home(cluster.name) / "token"
    say(f"           then http://localhost:{DASHBOARD_PORT}; it asks for what is in {token}")


def down(cluster: ClusterFile, *, force: bool = False, running: Callable[[], Sequence[str]], say: Say) -> None:
    """End the cluster; on given machines look on each that no process of it is left.

    ``running`` names the searches that run: with any, ``force`` is needed. Raises ``InputError`` for that, and
    ``WorkFailed`` with one line for each machine where something is left or that cannot be reached (the same command
    ends those later).
    """
    searches = list(running()) if not force else []
    if searches:
        raise InputError(
            f"{', '.join(searches)} runs on cluster '{cluster.name}': wait, or stop it, or use --force "
            "(the search can then go on from its journal on another cluster)"
        )
    with _alone(cluster.name):
        if not is_local(cluster):
            _ray_down(cluster, say)
            return
        head, workers = hosts_of(cluster)
        faults = sweep_hosts(cluster, [head], say)  # first: its autoscaler would start the workers again
        faults |= sweep_hosts(cluster, workers, say)
        _forget(cluster)
        if faults:
            raise WorkFailed("\n".join(as_lines(faults)))
        say(f"cluster '{cluster.name}' is down: no process of it is left on {1 + len(workers)} machines")


# -- parts of `up` ---------------------------------------------------------------------------------------------------


def _unreachable(cluster: ClusterFile) -> dict[str, str]:
    """Machines that cannot be used, and why; the head among them ends it here."""
    head, workers = hosts_of(cluster)

    def one(host: Host) -> tuple[str, str]:
        try:
            done = run_on(
                host, "command -v rsync >/dev/null || echo rsync; command -v python3 >/dev/null || echo python3"
            )
        except (InputError, WorkFailed) as error:
            return host.address, str(error)
        return host.address, f"{host}: has no {' and no '.join(done.stdout.split())}" if done.stdout.split() else ""

    faults = {address: fault for address, fault in each_host(one, [head, *workers]) if fault}
    if head.address in faults:
        raise WorkFailed("\n".join(["the head cannot be used", *faults.values()]))
    return faults


def _head_may_run(cluster: ClusterFile, faults: dict[str, str]) -> bool:
    if is_local(cluster):
        return True
    try:
        head_of(cluster)
    except WorkFailed:
        return False
    return True


def _refuse(cluster: ClusterFile, state: Answer) -> None:
    where = "the dashboard of the head"
    if state is Answer.OPEN:
        raise InputError(
            f"{where} answers without a token: anybody who reaches it can run commands there. End that Ray first; "
            "a cluster that 'skeltune cluster up' starts asks for its token"
        )
    if state is Answer.FOREIGN:
        raise InputError(
            f"{where} answers, but does not take the token that this machine has for '{cluster.name}': it belongs to "
            "somebody else, or was started from another machine (take it down from there)"
        )


def _fresh_keys(cluster: ClusterFile, tls: bool, faults: dict[str, str], say: Say) -> None:
    addresses: list[str] = []
    if is_local(cluster):
        head, workers = hosts_of(cluster)
        # In the title an option follows the program after a zero byte; the brackets keep grep from finding itself.
        found = f"LC_ALL=C grep -lsa '[g]cs_server.--log_dir={temp_dir(cluster)}/' /proc/[0-9]*/cmdline"
        if run_on(head, found).stdout.strip():
            raise InputError(
                f"{head}: the head of '{cluster.name}' runs, but its dashboard does not answer: 'skeltune cluster down "
                "--force' ends it, and a search goes on from its journal; or wait, if it has only just been started"
            )
        there = [host for host in (head, *workers) if host.address not in faults]
        left = sweep_hosts(cluster, there, lambda line: None)  # what a head that died has left on workers
        if left:
            raise WorkFailed("\n".join(as_lines(left)))
        provider = cluster.plain["provider"]
        addresses = [str(provider["head_ip"]), *(host.address for host in (head, *workers))]
        addresses += [address_of(address) for address in addresses]
    make_keys(cluster.name, tls=tls, addresses=addresses)
    say(f"a fresh token lies in {cluster_home(cluster.name)}")


def _ray_up(cluster: ClusterFile, *, restart: bool, end: float, say: Say) -> None:
    say("Ray's launcher is at work" if restart else "Ray's launcher looks for what is missing")
    options = ["-y", "--no-config-cache", *([] if restart else ["--no-restart"])]
    run_ray(cluster, ["up", *options], max(30.0, end - time.monotonic()))


def _wait(cluster: ClusterFile, want: int | None, faults: dict[str, str], end: float, say: Say) -> None:
    """Until the wanted nodes are there; WorkFailed says which are not, and why."""
    expected = _expected(cluster)
    goal = want if want is not None else len(expected) if expected else 1 + _least(cluster)
    reachable = goal - sum(address in faults for address in expected)
    there: list[NodeInfo] = []
    shown = -1
    while True:
        with contextlib.suppress(WorkFailed):
            there = [node for node in nodes(cluster) if node.alive]
        if len(there) != shown:
            shown = len(there)
            say(f"{shown} of {goal} nodes are there")
        if len(there) >= max(1, reachable) or time.monotonic() > end:
            break
        time.sleep(1)
    if len(there) >= goal:
        return
    here = {node.address for node in there}
    lines = [f"{len(there)} of {goal} nodes are there"]
    for address in expected:
        if address_of(address) not in here:
            lines.append(faults.get(address) or _why(cluster, address))
    raise WorkFailed("\n".join(lines))


def _expected(cluster: ClusterFile) -> list[str]:
    """Addresses of all nodes, the head first; empty for clouds."""
    if not is_local(cluster):
        return []
    provider = cluster.plain["provider"]
    return [str(provider["head_ip"]), *(str(address) for address in provider["worker_ips"])]


def _least(cluster: ClusterFile) -> int:
    """How many workers a cloud cluster begins with."""
    types = cluster.plain.get("available_node_types") or {}
    head = cluster.plain.get("head_node_type")
    return sum(int(each.get("min_workers") or 0) for name, each in types.items() if name != head)


def _why(cluster: ClusterFile, address: str) -> str:
    head, workers = hosts_of(cluster)
    for host in (head, *workers):
        if host.address == address:
            try:
                run_on(host, "true", timeout=20)
            except (InputError, WorkFailed) as error:
                return str(error)
    log = f"{temp_dir(cluster)}/ray/session_latest/logs/monitor.out"
    return f"{address}: ssh reaches it, but its Ray has not joined; the launcher's words: {head}:{log}"


# -- parts of `down` -------------------------------------------------------------------------------------------------


def _ray_down(cluster: ClusterFile, say: Say) -> None:
    """Machines of a cloud are the cluster's alone: Ray's launcher terminates them."""
    run_ray(cluster, ["down", "-y"], 1800)
    say(f"cluster '{cluster.name}' is down: the cloud was told to terminate its machines")


def _forget(cluster: ClusterFile) -> None:
    """Ray's launcher remembers given machines as running in a file of this machine; the next `up` begins anew."""
    from ray.autoscaler._private.local.config import get_lock_path, get_state_path

    for path in (get_state_path(cluster.name), get_lock_path(cluster.name)):
        with contextlib.suppress(OSError):
            Path(path).unlink()


@contextlib.contextmanager
def _alone(name: str) -> Iterator[None]:
    """One `up` or `down` of a cluster at a time on this machine."""
    home = cluster_home(name)
    home.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with home.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise WorkFailed(f"another 'skeltune cluster up' or 'down' of '{name}' is at work") from None
        yield
