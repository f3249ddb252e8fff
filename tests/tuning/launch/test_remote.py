"""ssh as the launcher uses it, with a stand-in for `ssh` that does what a server would."""

from __future__ import annotations

import socket
import stat
import sys
import threading
from pathlib import Path

import pytest

from methods.errors import InputError, WorkFailed
from tuning.launch.kinds import parse_cluster_text
from tuning.launch.remote import Host, copy_from, hosts_of, run_on, tunnel

HOST = Host("node", "me")

# Options that take a value are -o -p -i -L; what follows the target is the command, run here instead of there.
STAND_IN = """#!{python}
import os, re, socket, sys, threading, time
words, options, target = sys.argv[1:], [], None
while words:
    word = words.pop(0)
    if word in ("-o", "-p", "-i", "-L", "-l"): options += [word, words.pop(0)]
    elif word.startswith("-") and word != "--": options.append(word)
    elif target is None: target = word
    else: words = [word, *words]; break
if "-l" in options: target = options[options.index("-l") + 1] + "@" + target
with open({log!r}, "a") as file: print(options, target, words, file=file)
said = open({says!r}).read() if os.path.exists({says!r}) else ""
if said:
    print(said, file=sys.stderr); sys.exit(255)
if "-L" in options:
    _, port, _, there = options[options.index("-L") + 1].split(":")
    server = socket.create_server(("127.0.0.1", int(port)))
    while True:
        here, _ = server.accept()
        try: far = socket.create_connection(("127.0.0.1", int(there)))
        except OSError: here.close(); continue
        def pump(a, b):
            while data := a.recv(9999): b.sendall(data)
            b.close()
        for pair in ((here, far), (far, here)): threading.Thread(target=pump, args=pair, daemon=True).start()
os.execvp("sh", ["sh", "-c", " ".join(word for word in words if word != "--")])
"""


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with ``log`` (how ssh was called) and ``says`` (what it fails with, if it is there)."""
    folder = tmp_path / "bin"
    folder.mkdir()
    log, says = str(folder / "log"), str(folder / "says")
    (folder / "ssh").write_text(STAND_IN.format(python=sys.executable, log=log, says=says))
    (folder / "ssh").chmod((folder / "ssh").stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def cluster(tmp_path: Path, key: str):
    text = f"""
cluster_name: a
provider: {{type: local, head_ip: 10.0.0.1, worker_ips: [10.0.0.2, 10.0.0.3]}}
auth: {{ssh_user: me, ssh_private_key: {key}}}
"""
    return parse_cluster_text(text, tmp_path / "a.yaml")


def test_hosts_come_from_the_file(tmp_path: Path) -> None:
    key = tmp_path / "key"
    with pytest.raises(InputError, match=f"no file {key}"):
        hosts_of(cluster(tmp_path, str(key)))
    key.touch()
    head, workers = hosts_of(cluster(tmp_path, str(key)))
    assert head == Host("10.0.0.1", "me", key) and [host.address for host in workers] == ["10.0.0.2", "10.0.0.3"]


def test_a_command_runs_there_without_ever_asking(ssh: Path) -> None:
    done = run_on(HOST, ["cat", "-", "/no such file"], input="hello")
    assert (done.returncode, done.stdout) == (1, "hello") and "/no such file" in done.stderr
    called = (ssh / "log").read_text()
    for option in ("BatchMode=yes", "ConnectTimeout=10", "StrictHostKeyChecking=accept-new", "'me@node'"[1:-1]):
        assert option in called
    assert run_on(HOST, "exit 7").returncode == 7


@pytest.mark.parametrize(
    ("says", "kind", "told"),
    [
        ("me@node: Permission denied (publickey).", InputError, "takes none of the keys"),
        ("@@@ REMOTE HOST IDENTIFICATION HAS CHANGED! @@@\nHost key verification failed.", InputError, "host key"),
        ("ssh: Could not resolve hostname node: Name or service not known", InputError, "no such host"),
        ("ssh: connect to host node port 22: Connection refused", WorkFailed, "no ssh server"),
        ("ssh: connect to host node port 22: Connection timed out", WorkFailed, "does not answer"),
        ("something new", WorkFailed, "something new"),
    ],
)
def test_what_ssh_says_becomes_one_line(ssh: Path, tmp_path: Path, says: str, kind: type, told: str) -> None:
    (ssh / "says").write_text(says)
    with pytest.raises(kind) as one:
        run_on(HOST, "true")
    with pytest.raises(kind) as two, tunnel(HOST, 8265):
        pass
    with pytest.raises(kind) as three:
        copy_from(HOST, ["/x"], tmp_path / "to")
    for error in (one, two, three):
        assert told in str(error.value) and str(error.value).startswith("node: ") and "\n" not in str(error.value)


def test_a_command_that_hangs(ssh: Path) -> None:
    with pytest.raises(WorkFailed, match=r"node: 'exec sleep 60' did not end within 0\.5 s"):
        run_on(HOST, "exec sleep 60", timeout=0.5)


def test_files_come_without_links(ssh: Path, tmp_path: Path) -> None:
    there = tmp_path / "there with space"
    there.mkdir()
    (there / "journal.jsonl").write_text("{}\n")
    (there / "passwd").symlink_to("/etc/passwd")
    copy_from(HOST, [f"{there}/"], tmp_path / "to")
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["journal.jsonl"]
    paths = [f"{there}/journal.jsonl", f"{there}/best.yaml"]
    with pytest.raises(WorkFailed, match=r"best\.yaml"):
        copy_from(HOST, paths, tmp_path / "two")
    copy_from(HOST, paths, tmp_path / "two", missing_ok=True)
    assert (tmp_path / "two/journal.jsonl").read_text() == "{}\n"


def test_a_tunnel_leads_to_a_loopback_and_ends(ssh: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=lambda c=connection: c.sendall(c.recv(99).upper()), daemon=True).start()

        threading.Thread(target=answer, daemon=True).start()
        with tunnel(HOST, server.getsockname()[1]) as port, socket.create_connection(("127.0.0.1", port), 5) as there:
            there.sendall(b"hello")
            assert there.recv(99) == b"HELLO"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5)


def test_a_tunnel_to_nobody_says_so(ssh: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    with pytest.raises(WorkFailed, match=f"node: nothing listens on port {free}"), tunnel(HOST, free):
        pass
