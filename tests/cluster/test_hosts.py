"""The laboratory itself: if it lies, every other test here does."""

from __future__ import annotations

from pathlib import Path

from hosts import CLIENT, Lab

SSH = "ssh -o BatchMode=yes -o StrictHostKeyChecking=accept-new -o ConnectTimeout=2"


def test_hosts_reach_each_other_and_share_only_what_they_should(lab: Lab) -> None:
    lab.run("h1", "echo one > /tmp/own; echo all > $S/all; touch /dev/shm/own", env={"S": lab.shared[0]})
    assert lab.run(CLIENT, f"{SSH} h2 'hostname; cat {lab.shared[0]}/all'").stdout == "h2\nall\n"
    assert lab.run("h2", "ls /tmp/own /dev/shm/own", check=False).returncode != 0
    assert lab.folder("h1", "/tmp/own").read_text() == "one\n"
    assert {process.title.split()[0] for process in lab.processes("h1")} <= {"bash", "sleep", "sshd:"}


def test_power_cuts_cables_and_storage(lab: Lab) -> None:
    reach = f"{SSH} h3 hostname"
    running = lab.popen("h3", "exec sleep 1000")
    lab.power_off("h3")
    assert running.wait(10) != 0 and lab.processes("h3") == []
    assert lab.run(CLIENT, reach, check=False).returncode == 255
    lab.power_on("h3")
    assert lab.run(CLIENT, reach).stdout == "h3\n"
    lab.unplug("h3")
    assert lab.run(CLIENT, reach, check=False).returncode == 255
    assert lab.run("h3", "hostname").stdout == "h3\n"  # it lives, only its cable is out
    lab.plug("h3")
    assert lab.run(CLIENT, reach).stdout == "h3\n"
    kept = Path(lab.shared[0]) / "kept"
    kept.write_text("x")
    lab.storage_away("h3")
    assert lab.run("h3", f"cat {kept}", check=False).returncode == 1 and lab.run("h2", f"cat {kept}").stdout == "x"
    assert lab.run("h3", f"touch {kept}", check=False).returncode == 1
    lab.storage_back("h3")
    assert lab.run("h3", f"cat {kept}").stdout == "x"


def test_two_labs_do_not_meet_and_leave_nothing(lab: Lab) -> None:
    with Lab(1, net=lab.net) as other:
        name = other.add_host()
        assert other.run("h1", f"{SSH} {name} hostname").stderr.count("Permanently") == 1
        base, pids = other.base, [process.pid for host in ("h1", name) for process in other.processes(host)]
        assert lab.run(CLIENT, f"{SSH} h1 hostname").stdout == "h1\n"
    assert not base.exists() and not any(Path(f"/proc/{pid}").exists() for pid in pids)
