"""A cluster of three machines: up, up again, down; what is left behind, and what is told to whom."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator

import pytest
from hosts import CLIENT, Lab, wait_for
from onprem import VERBS, Onprem

USUAL = re.compile(r"bash .*init\.sh|sshd: .*|sleep infinity|ssh: .*\[mux\]")  # Ray's ssh stays for 10 s


@pytest.fixture(scope="module")
def cluster(lab: Lab) -> Iterator[Onprem]:
    cluster = Onprem(lab)
    begin = time.monotonic()
    cluster.verb("up")
    print(f"up: {time.monotonic() - begin:.1f} s")
    yield cluster
    cluster.verb("down", check=False)


def token(cluster: Onprem) -> str:
    return cluster.lab.folder(CLIENT, f"/root/.skeltune/clusters/{cluster.name}/token").read_text()


def others(lab: Lab, host: str) -> list[str]:
    """Titles of what runs on a host besides what the laboratory itself needs there."""
    return [process.title for process in lab.processes(host) if not USUAL.fullmatch(process.title)]


def test_all_nodes_are_there_and_a_second_up_changes_nothing(cluster: Onprem) -> None:
    lab, before = cluster.lab, token(cluster)
    assert cluster.alive() == {"h1", "h2", "h3"}
    rays = {host: {p.pid for p in lab.processes(host) if "raylet/raylet" in p.title} for host in lab.hosts}
    assert all(len(pids) == 1 for pids in rays.values())
    said = cluster.verb("up").stdout
    assert "its token stays" in said and "3 of 3 nodes" in said
    assert token(cluster) == before and cluster.alive() == {"h1", "h2", "h3"}
    assert rays == {host: {p.pid for p in lab.processes(host) if "raylet/raylet" in p.title} for host in lab.hosts}


def test_the_token_lies_in_one_file_a_machine_and_nowhere_else(cluster: Onprem) -> None:
    lab, secret = cluster.lab, token(cluster)
    for host in (CLIENT, *cluster.hosts):
        home = f"/root/.skeltune/clusters/{cluster.name}"
        facts = lab.run(host, f"stat -c %a {home} {home}/token").stdout.split()
        assert facts == ["700", "600"]
        found = lab.run(
            host, ["grep", "-rlsF", secret, "/root/.skeltune", "/root/.ray", "/tmp", "/dev/shm"], check=False
        )
        assert found.stdout.split() == [f"{home}/token"]
    for host in cluster.hosts:
        assert lab.run(host, f"stat -c %a {cluster.temp_dir}").stdout == "700\n"
        for process in lab.processes(host):
            assert secret not in process.title
            with open(f"/proc/{process.pid}/environ", "rb") as environment:
                assert secret.encode() not in environment.read()


def test_a_cluster_of_another_launcher_is_left_alone(cluster: Onprem) -> None:
    elsewhere = {"SKELTUNE_HOME": "/tmp/elsewhere"}  # another launcher, which knows nothing of this cluster's token
    command = ["python", str(VERBS), "up", str(cluster.file)]
    done = cluster.lab.run(CLIENT, command, env=elsewhere, check=False, timeout=120)
    assert done.returncode == 2 and "does not take the token" in done.stderr
    assert cluster.alive() == {"h1", "h2", "h3"}


def test_a_worker_that_lost_power_is_named_and_joins_again(cluster: Onprem) -> None:
    lab = cluster.lab
    begin = time.monotonic()
    lab.power_off("h3")
    wait_for(lambda: cluster.alive() == {"h1", "h2"}, 90, "the dead node is noticed", every=1)
    print(f"noticed: {time.monotonic() - begin:.1f} s")
    assert time.monotonic() - begin > 25  # a hiccup of 20 s is survived
    done = cluster.verb("up", check=False)
    assert done.returncode == 1
    assert f"{lab.address('h3')}: it does not answer" in done.stderr and "Traceback" not in done.stderr
    lab.power_on("h3")
    begin = time.monotonic()
    cluster.verb("up")
    print(f"joined again: {time.monotonic() - begin:.1f} s")
    assert cluster.alive() == {"h1", "h2", "h3"}
    assert sum("raylet/raylet" in title for title in others(lab, "h3")) == 1


def test_a_head_whose_dashboard_died_is_not_restarted_under_a_search(cluster: Onprem) -> None:
    lab, before = cluster.lab, token(cluster)
    for process in lab.processes("h1"):
        if "dashboard/dashboard.py" in process.title:
            os.kill(process.pid, signal.SIGKILL)
    servers = [process for process in lab.processes("h1") if "gcs/gcs_server" in process.title]
    done = cluster.verb("up", check=False)
    assert done.returncode == 2 and "dashboard does not answer" in done.stderr
    assert [process for process in lab.processes("h1") if "gcs/gcs_server" in process.title] == servers
    assert token(cluster) == before


def test_down_leaves_nothing_of_it_and_all_of_others(cluster: Onprem) -> None:
    lab = cluster.lab
    foreign = "ray start --head --port=7777 --temp-dir=/tmp/skeltune-lab2 --num-cpus=1 --object-store-memory=80000000"
    foreign += " --include-dashboard=false --ray-client-server-port=20001 --dashboard-agent-listen-port=52399"
    lab.run("h2", foreign, env={"RAY_AUTH_MODE": "disabled"}, timeout=90)
    theirs = {process.pid for process in lab.processes("h2") if "/tmp/skeltune-lab2/" in process.title}
    assert len(theirs) >= 3
    lab.unplug("h3")
    done = cluster.verb("down", check=False, timeout=120)
    assert done.returncode == 1 and f"{lab.address('h3')}: it does not answer" in done.stderr
    lab.plug("h3")
    begin = time.monotonic()
    cluster.verb("down", timeout=120)
    print(f"second down: {time.monotonic() - begin:.1f} s")
    assert [title for host in ("h1", "h3") for title in others(lab, host)] == []
    left = lab.processes("h2")
    assert theirs <= {process.pid for process in left}
    assert not [process.title for process in left if "/tmp/skeltune-lab/" in process.title]
    for host in cluster.hosts:
        assert not lab.folder(host, f"/root/.skeltune/clusters/{cluster.name}/token").exists()
    begin = time.monotonic()
    cluster.verb("up")
    assert cluster.alive() == {"h1", "h2", "h3"}
    begin = time.monotonic()
    cluster.verb("down")
    print(f"down: {time.monotonic() - begin:.1f} s")
    assert theirs <= {process.pid for process in lab.processes("h2")}
