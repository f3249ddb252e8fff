"""A laboratory of machines on one machine, so that ssh, Ray's launcher, SLURM and a power cut are real in tests.

A host is a set of namespaces (network, processes, mounts, name, IPC) with an address, an sshd, and a /tmp, a home and a
/dev/shm of its own; the rest of the file system is the one of this machine. Nothing has a name outside (no `ip netns`),
so that labs do not meet, and everything dies with the process that made it. Needs root.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

CLIENT = "client"  # the machine that a person sits at: no part of the cluster, and no route to elsewhere
NEEDED = ("ip", "sshd", "ssh-keygen", "rsync", "nsenter", "unshare", "setpriv", "mount", "ss")
OWN = ("/tmp", "/root")  # what each host has for itself; `private` adds to it

SSHD = """Port 22
ListenAddress {address}
HostKey {base}/hostkey
AuthorizedKeysFile {base}/key.pub
PermitRootLogin prohibit-password
PasswordAuthentication no
StrictModes no
UsePAM no
PidFile none
MaxStartups 100
Subsystem sftp internal-sftp
"""

# Process 1 of a host. It waits for a line on its input: by then the network stands. Bash reaps what nobody waits for.
INIT = """set -e
hostname {name}
mount --make-rprivate /
read -r go
mount --bind {folder}/resolv.conf /etc/resolv.conf
mount --bind {base}/hosts /etc/hosts
{binds}
mount -t tmpfs -o size=2g tmpfs /dev/shm
mkdir -p /run/sshd
cd /root
/usr/sbin/sshd -D -e -f {folder}/sshd_config 2>>{folder}/sshd.log &
exec 0</dev/null
sleep infinity
"""


def missing() -> str:
    """Why no lab can stand here, or nothing."""
    if os.geteuid() != 0:
        return "needs root"
    absent = [tool for tool in NEEDED if _which(tool) is None]
    return f"needs {', '.join(absent)}" if absent else ""


def _which(tool: str) -> str | None:
    return shutil.which(tool, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def wait_for(true: Callable[[], object], seconds: float, what: str, every: float = 0.1) -> None:
    """Ask again and again until it is true; AssertionError that names ``what`` after ``seconds``."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(every)


@dataclass(frozen=True)
class Process:
    """A process of a host: its number outside (``/proc`` of this machine) and inside, and its title."""

    pid: int
    inner: int
    title: str


@dataclass
class _Host:
    name: str
    address: str
    folder: Path
    boot: subprocess.Popen[bytes] | None = None
    pid: int = 0  # of the host's process 1, outside
    away: set[str] = field(default_factory=set)


class Lab:
    """``n`` hosts ``<prefix>1``... and a ``client`` at ``<net>.1``; hosts have ``<net>.11``, ``<net>.12``...

    ``shared`` folders are the same in every host, like a file server's (those under a host's own folders are bound
    back). ``private`` folders are each host's own and begin empty. ``venv`` is on every host's PATH.
    """

    def __init__(
        self,
        n: int,
        prefix: str = "h",
        net: str = "10.77.0",
        shared: Sequence[str | Path] = (),
        private: Sequence[str | Path] = (),
        venv: str | Path | None = None,
    ) -> None:
        self.prefix, self.net = prefix, net
        self.shared = [str(Path(path).resolve()) for path in shared]
        self.private = [*OWN, *(str(path) for path in private)]
        self.venv = Path(venv).absolute() if venv else None
        self.base = Path(tempfile.mkdtemp(prefix="lab-", dir="/var/tmp"))
        self.base.chmod(0o755)
        self._hosts: dict[str, _Host] = {}
        self._running: set[subprocess.Popen[str]] = set()
        self._switch: subprocess.Popen[bytes] | None = None
        try:
            self._lay_out()
            for name in [CLIENT, *(f"{prefix}{number}" for number in range(1, n + 1))]:
                self._add(name)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Lab:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def hosts(self) -> list[str]:
        """Names of the hosts, without the client."""
        return [name for name in self._hosts if name != CLIENT]

    def address(self, host: str) -> str:
        return self._hosts[host].address

    def folder(self, host: str, path: str) -> Path:
        """Where ``path`` of a host's own folders (/tmp, /root, ...) lies on this machine."""
        own = max((top for top in self.private if Path(path).is_relative_to(top)), key=len)
        return self._hosts[host].folder / own.strip("/") / Path(path).relative_to(own)

    # -- commands ------------------------------------------------------------------------------------------------

    def popen(
        self, host: str, command: str | Sequence[str], *, env: Mapping[str, str] | None = None, **streams: object
    ) -> subprocess.Popen[str]:
        """Start a command (text: by bash) in a host, in a session of its own; ``streams`` as for subprocess.Popen."""
        argv = ["bash", "-c", command] if isinstance(command, str) else list(command)
        settings = [f"{key}={value}" for key, value in (self._environment() | dict(env or {})).items()]
        enter = [
            "nsenter",
            "-t",
            str(self._hosts[host].pid),
            *("-n", "-p", "-m", "-u", "-i"),
            "env",
            "-i",
            "--chdir=/root",
        ]
        process = subprocess.Popen(
            [*enter, *settings, *argv],
            text=True,
            start_new_session=True,
            **({"stdin": subprocess.DEVNULL} | streams),  # type: ignore[call-overload]
        )
        self._running = {each for each in self._running if each.poll() is None} | {process}
        return process

    def run(
        self,
        host: str,
        command: str | Sequence[str],
        *,
        input: str | None = None,
        env: Mapping[str, str] | None = None,
        check: bool = True,
        timeout: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a host to its end; ``check``: AssertionError with what it printed unless it ends with 0."""
        pipe, stdin = subprocess.PIPE, subprocess.DEVNULL if input is None else subprocess.PIPE
        process = self.popen(host, command, env=env, stdin=stdin, stdout=pipe, stderr=pipe)
        try:
            out, err = process.communicate(input, timeout)
        except BaseException:
            _end(process)
            raise
        done = subprocess.CompletedProcess(command, process.returncode, out, err)
        if check and done.returncode:
            shown = command if isinstance(command, str) else shlex.join(command)
            raise AssertionError(f"{host}: {shown}: exit {done.returncode}\n{out}\n{err}")
        return done

    def processes(self, host: str) -> list[Process]:
        """Everything that runs in a host, process 1 and sshd included."""
        space, found = self._space(self._hosts[host].pid), []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and space and self._space(int(entry.name)) == space:
                with contextlib.suppress(OSError, IndexError, ValueError):
                    status = (entry / "status").read_text()
                    inner = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[-1]
                    title = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                    found.append(Process(int(entry.name), int(inner), title))
        return sorted(found, key=lambda process: process.inner)

    # -- what goes wrong -----------------------------------------------------------------------------------------

    def power_off(self, host: str) -> None:
        """The plug is pulled: nothing says good-bye (the link goes first, so that no reset reaches a peer)."""
        self.unplug(host)
        this = self._hosts[host]
        assert this.boot is not None
        self._halt(this)

    def power_on(self, host: str) -> None:
        """The machine boots: same address and disk, no processes, an empty /dev/shm."""
        self._boot(self._hosts[host])

    def unplug(self, host: str) -> None:
        """The network cable is out."""
        self._in_switch("ip", "link", "set", f"v-{host}", "down")

    def plug(self, host: str) -> None:
        """The network cable is in again; returns when the client reaches the host."""
        self._in_switch("ip", "link", "set", f"v-{host}", "up")
        self._until_reached(host)

    def storage_away(self, host: str, path: str | Path | None = None) -> None:
        """The file server is gone for this host: the shared folders (or one) are empty and not writable.

        Files that are open stay so.
        """
        for each in [str(path)] if path else self.shared:
            self.run(host, ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", each])
            self._hosts[host].away.add(each)

    def storage_back(self, host: str) -> None:
        """The file server answers again."""
        for each in sorted(self._hosts[host].away):
            self.run(host, ["umount", "-l", each])
        self._hosts[host].away.clear()

    def add_host(self) -> str:
        """One more machine; returns its name."""
        name = f"{self.prefix}{len(self.hosts) + 1}"
        self._add(name)
        return name

    def close(self) -> None:
        """End everything and take the folders away."""
        for process in self._running:
            _end(process)
        for host in self._hosts.values():
            self._halt(host)
        if self._switch is not None:
            self._switch.kill()
            self._switch.wait()
        shutil.rmtree(self.base, ignore_errors=True)

    # -- how it is built -----------------------------------------------------------------------------------------

    def _environment(self) -> dict[str, str]:
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        path = f"{self.venv}/bin:{path}" if self.venv else path
        return {"HOME": "/root", "PATH": path, "TERM": "dumb", "LANG": "C.UTF-8", "RAY_USAGE_STATS_ENABLED": "0"}

    def _lay_out(self) -> None:
        for key in ("key", "hostkey"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.base / key)], check=True)
        (self.base / "hosts").write_text("127.0.0.1 localhost\n")
        die_with_us = ["setpriv", "--pdeathsig", "KILL"]
        self._switch = subprocess.Popen([*die_with_us, "unshare", "--net", "sleep", "infinity"])
        here = os.stat("/proc/self/ns/net").st_ino
        wait_for(lambda: os.stat(f"/proc/{self._switch.pid}/ns/net").st_ino != here, 10, "the switch's namespace", 0.01)
        self._in_switch("ip", "link", "add", "br0", "type", "bridge")
        self._in_switch("ip", "link", "set", "br0", "up")

    def _add(self, name: str) -> None:
        number = 1 if name == CLIENT else 10 + len(self._hosts)
        host = _Host(name, f"{self.net}.{number}", self.base / name)
        self._hosts[name] = host
        for own in self.private:
            (host.folder / own.strip("/")).mkdir(parents=True)
        (host.folder / "tmp").chmod(0o1777)
        (host.folder / "root").chmod(0o700)
        (host.folder / "resolv.conf").write_text("options timeout:1 attempts:1\n")  # nobody to ask: no time-outs
        (host.folder / "sshd_config").write_text(SSHD.format(address=host.address, base=self.base))
        ssh = host.folder / "root/.ssh"
        ssh.mkdir(mode=0o700)
        shutil.copy(self.base / "key", ssh / "id_ed25519")
        (ssh / "id_ed25519").chmod(0o600)
        exports = "".join(f"export {key}={value}\n" for key, value in self._environment().items())
        for profile in (".bashrc", ".profile"):  # commands over ssh find the virtual environment too
            (host.folder / "root" / profile).write_text(exports)
        with (self.base / "hosts").open("a") as hosts:  # in place: it is bound into the hosts that stand already
            hosts.write(f"{host.address} {name}\n")
        self._boot(host)

    def _binds(self, host: _Host) -> str:
        """Commands that give a host its own folders, with the shared ones and Python bound back into them."""
        back = list(self.shared)
        if self.venv:
            python = (self.venv / "bin/python").resolve().parent.parent  # behind the link, as pyenv and uv keep it
            back += [str(path) for path in (self.venv, python)]
        lines = []
        for path in back:
            own = max((top for top in self.private if Path(path).is_relative_to(top)), key=len, default=None)
            if own is not None:
                inside = host.folder / own.strip("/") / Path(path).relative_to(own)
                inside.mkdir(parents=True, exist_ok=True)
                lines.append(f"mount --rbind {shlex.quote(path)} {shlex.quote(str(inside))}")
        for own in self.private:
            folder = shlex.quote(str(host.folder / own.strip("/")))
            lines.append(f"mkdir -p {shlex.quote(own)}; mount --rbind {folder} {shlex.quote(own)}")
        return "\n".join(lines)

    def _boot(self, host: _Host) -> None:
        script = INIT.format(name=host.name, folder=host.folder, base=self.base, binds=self._binds(host))
        (host.folder / "init.sh").write_text(script)
        spaces = ["--net", "--pid", "--fork", "--mount", "--mount-proc", "--uts", "--ipc", "--kill-child"]
        clean = ["env", "-i", *(f"{key}={value}" for key, value in self._environment().items())]
        with (host.folder / "init.log").open("ab") as log:
            host.boot = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "unshare", *spaces, *clean, "bash", str(host.folder / "init.sh")],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )
        boot = host.boot
        children = Path(f"/proc/{boot.pid}/task/{boot.pid}/children")
        wait_for(lambda: children.read_text().strip(), 10, f"process 1 of {host.name}", 0.01)
        host.pid = int(children.read_text())
        self._wire(host)
        assert boot.stdin is not None
        boot.stdin.write(b"go\n")
        boot.stdin.close()
        answers = f"exec 3<>/dev/tcp/{host.address}/22"
        wait_for(lambda: self.run(host.name, answers, check=False).returncode == 0, 10, f"sshd of {host.name}")
        if host.name != CLIENT:
            self._until_reached(host.name)

    def _until_reached(self, host: str) -> None:
        """A link that has come up carries nothing for some moments more."""
        address = self._hosts[host].address if host != CLIENT else f"{self.net}.11"
        reach = f"timeout 1 bash -c 'exec 3<>/dev/tcp/{address}/22'"
        wait_for(lambda: self.run(CLIENT, reach, check=False).returncode == 0, 20, f"{host} can be reached")

    def _wire(self, host: _Host) -> None:
        here, link = ["nsenter", "-t", str(host.pid), "-n", "ip"], f"v-{host.name}"
        with contextlib.suppress(subprocess.CalledProcessError):
            self._in_switch("ip", "link", "del", link)  # what a power cut has left
        card = f"02:00:00:00:00:{int(host.address.rsplit('.', 1)[1]):02x}"  # a machine keeps its own when it boots
        self._in_switch(*f"ip link add {link} type veth peer name eth0 address {card} netns {host.pid}".split())
        self._in_switch(*f"ip link set {link} master br0 up".split())
        for command in (f"addr add {host.address}/24 dev eth0", "link set eth0 up", "link set lo up"):
            subprocess.run([*here, *command.split()], check=True)
        if host.name != CLIENT:  # Ray finds its own address by the default route
            subprocess.run([*here, *f"route add default via {self.net}.1".split()], check=True)

    def _in_switch(self, *command: str) -> None:
        assert self._switch is not None
        subprocess.run(["nsenter", "-t", str(self._switch.pid), "-n", *command], check=True, capture_output=True)

    def _space(self, pid: int) -> int:
        try:
            return os.stat(f"/proc/{pid}/ns/pid").st_ino if pid else 0
        except OSError:
            return 0

    def _halt(self, host: _Host) -> None:
        if host.boot is None:
            return
        if host.pid and host.boot.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(host.pid, signal.SIGKILL)  # the kernel ends all that is in its process namespace
        else:
            host.boot.kill()
        host.boot.wait()  # unshare ends when process 1 has, and that when all others have
        host.boot, host.pid = None, 0


def _end(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()
