"""Machines over ssh: a command, files, a tunnel to what listens on their loopback. No prompt ever: keys or nothing."""

from __future__ import annotations

import contextlib
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from methods.errors import InputError, WorkFailed
from tuning.launch.kinds import ClusterFile

CONNECT_S = 10
DROPPED_S = 1.5  # for so long a tunnel's other end may drop every connection before nobody is said to listen there
SSH_FAILED = 255  # ssh's exit code for its own failures
RSYNC_PARTIAL = 23  # rsync's, when some of the files are not there
RSYNC_STREAM = 12  # rsync's, when ssh ended under it before its own exit code was seen

# What ssh says, and what it means for whom: True where the user can mend it.
_FAULTS = (
    ("REMOTE HOST IDENTIFICATION HAS CHANGED", "its ssh host key is not the one in known_hosts", True),
    ("Host key verification failed", "its ssh host key is not the one in known_hosts", True),
    ("Permission denied", "it takes none of the keys offered (auth.ssh_user, auth.ssh_private_key)", True),
    ("Could not resolve hostname", "no such host", True),
    ("Connection refused", "no ssh server answers", False),
    ("timed out", "it does not answer", False),
    ("No route to host", "it does not answer", False),
    ("Network is unreachable", "it does not answer", False),
    ("Connection closed", "the connection broke", False),
    ("Connection reset", "the connection broke", False),
)


class NobodyListens(WorkFailed):
    """The machine is there and takes us, but nothing listens on that port of its loopback."""


@dataclass(frozen=True)
class Host:
    """A machine that can be reached by ssh; without ``key`` ssh finds one by itself."""

    address: str
    user: str
    key: Path | None = None
    port: int = 22

    def __str__(self) -> str:
        return self.address


def hosts_of(cluster: ClusterFile) -> tuple[Host, list[Host]]:
    """The head and the workers of a cluster of given machines (``provider: {type: local}``).

    Raises ``InputError`` if its keys are not there.
    """
    provider = cluster.plain["provider"]
    head = str(provider.get("external_head_ip") or provider["head_ip"])
    return _host(cluster, head), [_host(cluster, str(address)) for address in provider["worker_ips"]]


def head_of(cluster: ClusterFile) -> Host:
    """The head: from the file, or for a cloud from ``ray get-head-ip``, which asks the cloud.

    Raises ``WorkFailed`` if the cloud knows of none.
    """
    if cluster.plain["provider"]["type"] == "local":
        return hosts_of(cluster)[0]
    command = [sys.executable, "-m", "ray.scripts.scripts", "get-head-ip", str(cluster.path)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    lines = done.stdout.split()
    if done.returncode or not lines:
        raise WorkFailed(f"cluster '{cluster.name}' has no head: {_last_line(done.stderr) or 'the cloud shows none'}")
    return _host(cluster, lines[-1])


def _host(cluster: ClusterFile, address: str) -> Host:
    auth = cluster.plain.get("auth") or {}
    key = Path(auth["ssh_private_key"]).expanduser() if auth.get("ssh_private_key") else None
    if key is not None and not key.is_file():
        raise InputError(f"auth.ssh_private_key: there is no file {key}")
    return Host(address, str(auth.get("ssh_user", "root")), key, int(auth.get("ssh_port", 22)))


def ssh_command(host: Host) -> list[str]:
    """ssh with its options, up to but without the target."""
    options = {
        "BatchMode": "yes",
        "ConnectTimeout": CONNECT_S,
        "StrictHostKeyChecking": "accept-new",  # a host that changed its key is refused
        "ServerAliveInterval": 10,
        "ServerAliveCountMax": 3,
        "ForwardAgent": "no",
        "ControlPath": "none",
        "LogLevel": "ERROR",
    }
    flags = [part for key, value in options.items() for part in ("-o", f"{key}={value}")]
    if host.key is not None:
        flags += ["-o", "IdentitiesOnly=yes", "-i", str(host.key)]
    return ["ssh", "-T", "-p", str(host.port), *flags]


def run_on(
    host: Host, command: str | Sequence[str], *, input: str | None = None, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run a command (text: by the login shell there) and return how it ended and what it printed.

    Raises ``InputError`` or ``WorkFailed``, one line, if the machine cannot be reached or the command lasts longer
    than ``timeout`` seconds.
    """
    text = command if isinstance(command, str) else shlex.join(command)
    argv = [*ssh_command(host), f"{host.user}@{host.address}", "--", text]
    stdin = {"input": input} if input is not None else {"stdin": subprocess.DEVNULL}
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, errors="replace", timeout=timeout, check=False, **stdin
        )  # type: ignore[call-overload]
    except subprocess.TimeoutExpired:
        raise WorkFailed(f"{host}: '{text[:60]}' did not end within {timeout:g} s") from None
    if done.returncode == SSH_FAILED:
        raise _fault(host, done.stderr)
    return done  # type: ignore[no-any-return]


def copy_from(host: Host, paths: Sequence[str], to: Path, *, missing_ok: bool = False, timeout: float = 600) -> None:
    """Copy files and folders into the folder ``to``, which is made. Links and devices are left: they are not asked for.

    Files appear by rename and keep their times; what is here and newer in the same state is not sent again. Raises
    ``InputError`` or ``WorkFailed``; with ``missing_ok`` not for files that are not there.
    """
    to.mkdir(parents=True, exist_ok=True)
    address = f"[{host.address}]" if ":" in host.address else host.address
    sources = [f"{host.user}@{address}:{path}" for path in paths]
    flags = ["-rt", "--protect-args", "--no-links", "--chmod=D755,F644", "-e", shlex.join(ssh_command(host))]
    try:
        done = subprocess.run(["rsync", *flags, "--", *sources, str(to)], capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=timeout, check=False)  # fmt: skip
    except FileNotFoundError:
        raise InputError("this machine has no rsync: files come from the cluster by it") from None
    except subprocess.TimeoutExpired:
        raise WorkFailed(f"{host}: copying {paths[0]} did not end within {timeout:g} s") from None
    if done.returncode in (SSH_FAILED, RSYNC_STREAM):
        raise _fault(host, done.stderr)
    if done.returncode and not (missing_ok and done.returncode == RSYNC_PARTIAL):
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise WorkFailed(f"{host}: rsync: {lines[0] if lines else f'exit {done.returncode}'}")


@contextlib.contextmanager
def tunnel(host: Host, remote_port: int, *, timeout: float = 30) -> Iterator[int]:
    """A port of this machine's loopback that leads to ``remote_port`` of the host's loopback.

    Raises ``InputError`` or ``WorkFailed`` if the host cannot be reached, or if nothing listens there.
    """
    process, port = _open_tunnel(host, remote_port)
    try:
        _wait_for_tunnel(host, process, port, remote_port, time.monotonic() + timeout)
        yield port
    finally:
        process.terminate()
        try:
            process.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def _open_tunnel(host: Host, remote_port: int) -> tuple[subprocess.Popen[str], int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    forward = ["-N", "-o", "ExitOnForwardFailure=yes", "-L", f"127.0.0.1:{port}:127.0.0.1:{remote_port}"]
    argv = [*ssh_command(host), *forward, f"{host.user}@{host.address}"]
    process = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace"
    )
    return process, port


def _wait_for_tunnel(host: Host, process: subprocess.Popen[str], port: int, remote_port: int, end: float) -> None:
    dropped = 0.0  # when a connection was dropped first
    while True:
        if process.poll() is not None:
            raise _fault(host, process.stderr.read() if process.stderr else "")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.settimeout(0.5)
            try:  # ssh takes every connection and drops it at once where nobody listens at the other end
                connection.recv(1)
            except TimeoutError:
                return
            dropped = dropped or time.monotonic()
            if time.monotonic() > dropped + DROPPED_S:
                raise NobodyListens(f"{host}: nothing listens on port {remote_port} of its loopback")
        if time.monotonic() > end:
            raise WorkFailed(f"{host}: no tunnel to port {remote_port} in time")
        time.sleep(0.05)


def _fault(host: Host, said: str) -> InputError | WorkFailed:
    """One line for what ssh said."""
    for text, meaning, theirs in _FAULTS:
        if text in said:
            return (InputError if theirs else WorkFailed)(f"{host}: {meaning} (ssh {host.user}@{host})")
    own = "\n".join(line for line in said.splitlines() if not line.startswith("rsync"))
    return WorkFailed(f"{host}: ssh failed: {_last_line(own) or 'no reason given'}")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
