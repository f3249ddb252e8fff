"""What `up` and `down` decide, with Ray's launcher and the machines played by functions."""

from __future__ import annotations

import http.server
import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from methods.errors import InputError, WorkFailed
from tuning.launch import home, joining, launcher, node_list, ray_cluster, sweeping
from tuning.launch.kinds import ClusterFile, parse_cluster_text
from tuning.launch.node_list import Answer, NodeInfo
from tuning.launch.remote import Host, NobodyListens

HEAD, ONE, TWO = "10.0.0.1", "10.0.0.2", "10.0.0.3"
TEXT = """
cluster_name: a
provider: {type: local, head_ip: 10.0.0.1, worker_ips: [10.0.0.2, 10.0.0.3]}
auth: {ssh_user: me}
file_mounts: {~/.skeltune/clusters/a: ~/.skeltune/clusters/a, ~/data: ~/data}
"""
CLOUD = """
cluster_name: a
provider: {type: aws, region: x}
head_node_type: head
available_node_types: {head: {resources: {}}, worker: {min_workers: 2, resources: {}}}
"""


class World:
    """Three machines: who is switched off, who answers at the head, what was done to whom, in order."""

    def __init__(self) -> None:
        self.off: set[str] = set()
        self.left: set[str] = set()  # machines where a sweep leaves something
        self.answer = Answer.NOBODY
        self.joined = [HEAD, ONE, TWO]
        self.known = [HEAD, ONE, TWO]  # to the head that runs
        self.done: list[str] = []
        self.headless = ""  # what shows that a head runs though nothing answers

    def run_on(self, host: Host, command: str, *, input: str | None = None, timeout: float = 0):
        if host.address in self.off:
            raise WorkFailed(f"{host}: it does not answer (ssh me@{host})")
        if command.startswith("cat "):
            assert host.address == HEAD and command == "cat /tmp/ray/cluster-a.state"
            return subprocess.CompletedProcess(command, 0, json.dumps(dict.fromkeys(self.known)), "")
        if input is None:
            return subprocess.CompletedProcess(command, 0, self.headless if "cs_server" in command else "", "")
        assert "def sweep(" in input and command.startswith("python3 - /tmp/skeltune-a;")
        self.done.append(f"sweep {host}")
        code, ended = (1, "left: 7 raylet") if host.address in self.left else (0, "4 ended, 0 left")
        return subprocess.CompletedProcess(command, code, f"/tmp/skeltune-a: {ended}\n", "")

    def run_ray(self, cluster: ClusterFile, words: list[str], timeout_s: float) -> None:
        self.done.append(" ".join(words))

    def nodes(self, cluster: ClusterFile) -> list[NodeInfo]:
        return [NodeInfo(address, True, 1, 0, "") for address in self.joined if address not in self.off]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("SKELTUNE_HOME", str(tmp_path / "own"))
    world = World()
    for name in ("run_on", "run_ray", "nodes"):
        monkeypatch.setattr(ray_cluster, name, getattr(world, name))
    monkeypatch.setattr(sweeping, "run_on", world.run_on)
    monkeypatch.setattr(joining, "run_on", world.run_on)
    monkeypatch.setattr(joining, "join", lambda cluster, host: world.done.append(f"join {host}"))
    monkeypatch.setattr(ray_cluster, "ask", lambda cluster: world.answer)
    monkeypatch.setattr(ray_cluster, "_forget", lambda cluster: world.done.append("forget"))
    return world


@pytest.fixture
def cluster(tmp_path: Path) -> ClusterFile:
    return parse_cluster_text(TEXT, tmp_path / "a.yaml")


def up(cluster: ClusterFile, **options) -> list[str]:
    said: list[str] = []
    ray_cluster.up(cluster, say=said.append, **({"timeout_s": 0.1} | options))
    return said


def test_a_new_cluster_gets_a_fresh_token_after_all_machines_are_swept(world: World, cluster: ClusterFile) -> None:
    home.make_keys("a", tls=False)
    old = home.token_of("a")
    assert "3 of 3 nodes are there" in up(cluster)
    assert home.token_of("a") != old
    assert sorted(world.done[:3]) == [f"sweep {HEAD}", f"sweep {ONE}", f"sweep {TWO}"]
    assert world.done[3:] == ["up -y --no-config-cache"]


def test_a_cluster_that_runs_keeps_its_token_and_is_not_restarted(world: World, cluster: ClusterFile) -> None:
    home.make_keys("a", tls=False)
    old, world.answer = home.token_of("a"), Answer.OURS
    up(cluster)
    assert home.token_of("a") == old and world.done == ["up -y --no-config-cache --no-restart"]
    with pytest.raises(InputError, match="runs without TLS"):
        up(cluster, tls=True)


def test_the_way_to_the_dashboard_is_told_and_the_token_is_not(world: World, cluster: ClusterFile) -> None:
    said = up(cluster)
    assert f"dashboard: ssh -N -L 8265:127.0.0.1:8265 -p 22 me@{HEAD}" in said
    assert home.token_of("a") not in "".join(said)


def test_only_machines_new_to_the_running_head_are_set_up_from_here(world: World, cluster: ClusterFile) -> None:
    up(cluster)
    world.answer, world.known = Answer.OURS, [HEAD, ONE]
    world.done.clear()
    said = up(cluster)
    assert world.done == ["up -y --no-config-cache --no-restart", f"join {TWO}"]
    assert f"{TWO}: is new to the running head, and set up from here" in said
    world.known = [HEAD, ONE, TWO]
    world.done.clear()
    up(cluster)
    assert "join" not in " ".join(world.done)


def test_a_new_machine_gets_files_set_up_and_start(cluster: ClusterFile, tmp_path, monkeypatch) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    ran: list[str] = []

    def run_on(host: Host, command: str, *, timeout: float = 0):
        ran.append(command)
        return subprocess.CompletedProcess(command, 7 if "fails" in command else 0, "", "no such thing\n")

    def rsync(argv, **_):
        ran.append(" ".join([argv[0], *argv[-2:]]))
        return subprocess.CompletedProcess(argv, 0, "", "")

    monkeypatch.setattr(joining, "run_on", run_on)
    monkeypatch.setattr(joining.subprocess, "run", rsync)
    text = TEXT.replace("~/.skeltune/clusters/a: ~/.skeltune/clusters/a, ", "") + (
        "setup_commands: [echo one]\nworker_start_ray_commands: ['. env.sh && ray start --address=$RAY_HEAD_IP']\n"
    )
    joining.join(parse_cluster_text(text, tmp_path / "a.yaml"), Host(TWO, "me", None))
    assert ran[:2] == ["mkdir -p ~/data", f"rsync {tmp_path}/data/ me@{TWO}:data/"]
    assert "echo one" in ran[2] and "RAY_HEAD_IP=10.0.0.1" in ran[3] and "ray start" in ran[3]
    with pytest.raises(WorkFailed, match="it fails' failed: no such thing"):
        joining.join(
            parse_cluster_text(text + "worker_setup_commands: [it fails]\n", tmp_path / "a.yaml"), Host(TWO, "me", None)
        )


@pytest.mark.parametrize(("answer", "told"), [(Answer.OPEN, "without a token"), (Answer.FOREIGN, "somebody else")])
def test_a_ray_that_is_open_or_anothers_is_not_touched(
    world: World, cluster: ClusterFile, answer: Answer, told: str
) -> None:
    world.answer = answer
    with pytest.raises(InputError, match=told):
        up(cluster)
    assert world.done == [] and not home.cluster_home("a").exists()


def test_a_machine_that_is_off_is_named_and_the_rest_comes_up(world: World, cluster: ClusterFile) -> None:
    world.off = {ONE}
    with pytest.raises(WorkFailed) as failed:
        up(cluster, timeout_s=60)  # and it does not wait for what cannot come
    assert str(failed.value) == f"2 of 3 nodes are there\n{ONE}: it does not answer (ssh me@{ONE})"
    assert world.done == [f"sweep {HEAD}", f"sweep {TWO}", "up -y --no-config-cache"]
    world.off = {HEAD}
    with pytest.raises(WorkFailed, match="head cannot be used"):
        up(cluster)


def test_a_machine_that_ssh_reaches_but_that_does_not_join(world: World, cluster: ClusterFile) -> None:
    world.joined = [HEAD, TWO]
    with pytest.raises(WorkFailed, match=rf"2 of 3.*\n{ONE}: ssh reaches it, but its Ray has not joined.*monitor\.out"):
        up(cluster)


def test_what_cannot_be_swept_away_stops_a_new_cluster(world: World, cluster: ClusterFile) -> None:
    world.left = {TWO}
    with pytest.raises(WorkFailed, match=f"^{TWO}: .*left: 7 raylet"):
        up(cluster)
    assert not any(line.startswith("up") for line in world.done)


def test_a_head_that_runs_is_not_ended_because_its_dashboard_died(world: World, cluster: ClusterFile) -> None:
    world.headless = "/proc/7/cmdline"
    with pytest.raises(InputError, match=f"^{HEAD}: the head of 'a' runs.*--force"):
        up(cluster)
    assert world.done == []


def test_tls_needs_known_addresses(world: World, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="addresses are known"):
        up(parse_cluster_text(CLOUD, tmp_path / "a.yaml"), tls=True)


def test_one_up_at_a_time(world: World, cluster: ClusterFile) -> None:
    with ray_cluster._alone("a"), pytest.raises(WorkFailed, match="is at work"):
        up(cluster)


def down(cluster: ClusterFile, running: tuple[str, ...] = (), force: bool = False) -> list[str]:
    said: list[str] = []
    ray_cluster.down(cluster, force=force, running=lambda: running, say=said.append)
    return said


def test_down_sweeps_the_head_first_and_never_calls_ray(world: World, cluster: ClusterFile) -> None:
    said = down(cluster)
    assert world.done[0] == f"sweep {HEAD}" and sorted(world.done[1:3]) == [f"sweep {ONE}", f"sweep {TWO}"]
    assert world.done[3:] == ["forget"]
    assert said[0] == f"{HEAD}: 4 ended, 0 left" and "no process of it is left on 3 machines" in said[-1]


def test_down_while_a_search_runs_needs_force(world: World, cluster: ClusterFile) -> None:
    with pytest.raises(InputError, match=r"mysearch runs.*--force"):
        down(cluster, ("mysearch",))
    assert world.done == []
    down(cluster, ("mysearch",), force=True)
    assert world.done


def test_down_names_who_is_away_and_where_something_is_left(world: World, cluster: ClusterFile) -> None:
    world.off, world.left = {ONE}, {TWO}
    with pytest.raises(WorkFailed) as failed:
        down(cluster)
    first, second, *more = str(failed.value).splitlines()
    assert first.startswith(f"{ONE}: it does not answer") and "again when it is back" in first
    assert second.startswith(f"{TWO}: ") and "left: 7 raylet" in second and not more


def test_a_cloud_is_told_to_terminate(world: World, tmp_path: Path) -> None:
    down(parse_cluster_text(CLOUD, tmp_path / "a.yaml"))
    assert world.done == ["down -y"]


def test_ray_gets_the_file_or_a_copy_that_begins_where_the_keys_are(
    cluster: ClusterFile, tmp_path, monkeypatch
) -> None:
    monkeypatch.delenv("SKELTUNE_HOME", raising=False)
    assert launcher.file_for_ray(cluster) == cluster.path
    monkeypatch.setenv("SKELTUNE_HOME", str(tmp_path / "own"))
    folder = home.make_keys("a", tls=False)
    copy = yaml.safe_load(launcher.file_for_ray(cluster).read_text())
    assert copy["file_mounts"] == {"~/.skeltune/clusters/a": str(folder), "~/data": "~/data"}


def test_what_ray_says_is_kept_and_its_failure_is_one_line(cluster: ClusterFile, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SKELTUNE_HOME", str(tmp_path / "own"))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    folder = home.make_keys("a", tls=False)
    fake = tmp_path / "python"
    fake.write_text('#!/bin/sh\necho "$@"\necho v2=$RAY_UP_enable_autoscaler_v2 t=$RAY_AUTH_TOKEN\nexit 3\n')
    fake.chmod(0o755)
    monkeypatch.setattr(launcher.sys, "executable", str(fake))
    with pytest.raises(WorkFailed, match=r"^'ray up' failed: .*v2=0 t= \(all of it: .*a\.log\)$"):
        launcher.run_ray(cluster, ["up", "-y"], 10)
    assert (folder.parent / "a.log").stat().st_mode & 0o777 == 0o600


@contextmanager
def dashboard(token: str | None, nodes: list[dict]) -> Iterator[int]:
    """The head's job API as far as it is asked here."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            given = self.headers.get("Authorization")
            code = 200 if token is None or given == f"Bearer {token}" else 403 if given else 401
            self.send_response(code)
            self.end_headers()
            self.wfile.write(json.dumps({"data": {"result": {"result": nodes}}}).encode() if code == 200 else b"no")

        def log_message(self, *words: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def through(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    @contextmanager
    def tunnel(host: Host, remote_port: int) -> Iterator[int]:
        assert (host.address, remote_port) == (HEAD, 8265)
        yield port

    monkeypatch.setattr(node_list, "tunnel", tunnel)


def test_nodes_and_who_answers(cluster: ClusterFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKELTUNE_HOME", str(tmp_path / "own"))
    rows = [
        {"node_ip": ONE, "state": "DEAD", "state_message": "health check\n failed", "resources_total": {"CPU": 2.0}},
        {"node_ip": ONE, "state": "ALIVE", "resources_total": {"CPU": 2.0, "GPU": 1.0}},
        {"node_ip": HEAD, "state": "ALIVE", "is_head_node": True, "resources_total": {}},
    ]
    with dashboard("ab" * 32, rows) as port:
        through(monkeypatch, port)
        assert node_list.ask(cluster) is Answer.FOREIGN  # no token here
        home.make_keys("a", tls=False)
        assert node_list.ask(cluster) is Answer.FOREIGN
        with pytest.raises(InputError, match="does not take the token"):
            node_list.nodes(cluster)
        home.write_secret(home.cluster_home("a") / "token", "ab" * 32)
        assert node_list.ask(cluster) is Answer.OURS
        assert node_list.nodes(cluster) == [
            NodeInfo(HEAD, True, 0, 0, "", head=True),
            NodeInfo(ONE, True, 2, 1, ""),
            NodeInfo(ONE, False, 2, 0, "health check failed"),
        ]
    with dashboard(None, [{"node": "nonsense"}]) as port:
        through(monkeypatch, port)
        assert node_list.ask(cluster) is Answer.OPEN
        with pytest.raises(WorkFailed, match="cannot be read"):
            node_list.nodes(cluster)

    def nobody(host: Host, port: int) -> None:
        raise NobodyListens("x")

    monkeypatch.setattr(node_list, "tunnel", nobody)
    assert node_list.ask(cluster) is Answer.NOBODY
