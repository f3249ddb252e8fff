"""cluster/slurm.sh without SLURM and without Ray: stand-ins for both write down how they are called.

What the real ones make of it is tested in tests/cluster.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tuning.launch.env import CLOSED, HEALTH

SCRIPT = Path(__file__).resolve().parents[3] / "cluster/slurm.sh"
SEARCH = Path(__file__).resolve().parents[3] / "tuning/search.py"

NOTE = """
import json, os, sys
from pathlib import Path
here = Path(__file__).resolve().parent.parent
kept = {k: v for k, v in os.environ.items() if k.startswith(("RAY_", "AUTOSCALER_", "DASHBOARD_"))}
def note():
    with (here / "calls").open("a") as calls:
        calls.write(json.dumps({"tool": Path(sys.argv[0]).name, "argv": sys.argv[1:], "env": kept}) + "\\n")
"""
TOOLS = {
    # a step runs here and now, under the node's name; a node that is down refuses
    "srun": """
note()
node = next(a for a in sys.argv if a.startswith("--nodelist=")).partition("=")[2]
if (here / f"down-{node}").exists():
    sys.exit("srun: error: node is not responding")
if (here / f"blind-{node}").exists():
    for seen in here.glob("runs/.*"):
        seen.unlink()
os.environ["SLURMD_NODENAME"] = node
os.execvp("bash", sys.argv[sys.argv.index("bash"):])
""",
    "scontrol": """
note()
if sys.argv[1:3] == ["show", "hostnames"]:
    print("h1\\nh2")
""",
    "ip": 'print("1: lo    inet 127.0.0.1/8 scope host lo")',
    "ray": """
import signal, socket
note()
(here / "token").write_text(Path(os.environ["RAY_AUTH_TOKEN_PATH"]).read_text())
port = [a.partition("=")[2] for a in sys.argv if a.startswith("--port=")]
if port:
    listening = socket.create_server(("127.0.0.1", int(port[0])))
(here / f"up-{os.environ['SLURMD_NODENAME']}").touch()
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
while True:
    signal.pause()
""",
    "skeltune": """
import signal, time
note()
behaviour = (here / "search").read_text()
if behaviour.startswith("wait"):
    signal.signal(signal.SIGINT, lambda *_: sys.exit(print(behaviour.partition(" ")[2], flush=True)))
    (here / "searching").touch()
    while True:
        signal.pause()
sys.exit(int(behaviour))
""",
}
RAY_MODULE = """
from pathlib import Path
here = Path(__file__).resolve().parent.parent
def init(**_): pass
def nodes(): return [{"NodeName": p.name[3:], "Alive": True} for p in here.glob("up-*")]
def cluster_resources(): return {"CPU": 4.0 * len(nodes()), "GPU": 1.0}
"""

ENVIRONMENT = {
    "SLURM_JOB_NAME": "my search/1",
    "SLURM_JOB_NODELIST": "h[1-2]",
    "SLURM_CPUS_ON_NODE": "4",
    "SLURM_GPUS_ON_NODE": "1",
    "SLURM_MEM_PER_NODE": "16384",
    "SKELTUNE_INTERFACE": "lo",
    "RAY_AUTH_TOKEN": "of-another-cluster",
    "RAY_ADDRESS": "10.0.0.1:6379",
}


class Site:
    """A place with stand-ins for SLURM's and Ray's commands, where the script is run as SLURM would run it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "job.log"
        self.job = zlib.crc32(str(folder).encode())  # tests at the same time are jobs on the same node
        self.temp = Path(f"/tmp/skeltune-{self.job}")
        (folder / "bin").mkdir()
        for name, body in TOOLS.items():
            tool = folder / "bin" / name
            tool.write_text(f"#!{sys.executable} -S\n{NOTE}\n{body}")
            tool.chmod(0o755)
        (folder / "bin/python3").symlink_to(sys.executable)
        (folder / "modules").mkdir()
        (folder / "modules/ray.py").write_text(RAY_MODULE)
        self.home = folder / "home"
        self.home.mkdir()
        self.search("0")
        self.started: list[subprocess.Popen[bytes]] = []

    def search(self, behaviour: str) -> None:
        """What the search does: end with a number, or ``wait`` for Ctrl-C and say the rest."""
        (self.folder / "search").write_text(behaviour)

    def start(self, *arguments: str, **settings: str) -> subprocess.Popen[bytes]:
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        env = {"PATH": path, "HOME": str(self.home), "PYTHONPATH": str(self.folder / "modules")}
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                ["bash", str(SCRIPT), *arguments],
                env=env | ENVIRONMENT | {"SLURM_JOB_ID": str(self.job)} | settings,
                cwd=self.folder,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def run(self, *arguments: str, **settings: str) -> int:
        return self.start(*arguments, **settings).wait(60)

    def calls(self, tool: str) -> list[dict]:
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [call for call in map(json.loads, lines) if call["tool"] == tool]

    def left(self) -> list[str]:
        """What a job that is over has left: files, and processes of its session."""
        empty = ".skeltune", "clusters"
        files = [str(p) for p in self.home.rglob("*") if p.name not in empty]
        files += [str(p) for p in [*self.folder.glob("runs/.*"), self.temp] if p.exists()]
        sessions = {str(process.pid) for process in self.started}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[3] in sessions and fields[0] != "Z":
                files.append((stat.parent / "cmdline").read_text())
        return files


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    here = Site(tmp_path)
    yield here
    for process in here.started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def until(true: Callable[[], object], log: Path) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.02)


def test_bash_can_read_it_and_slurm_its_head() -> None:
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)
    lines = SCRIPT.read_text().splitlines()
    first = next(n for n, line in enumerate(lines) if line and not line.startswith("#"))
    options = [n for n, line in enumerate(lines) if line.startswith("#SBATCH")]
    assert max(options) < first  # SLURM reads no further than the first command
    told = " ".join(lines[n] for n in options)
    for word in ("--requeue", "--no-kill", "--signal=B:USR1@120", "--open-mode=append", "--ntasks-per-node=1"):
        assert word in told


def test_what_it_asks_of_slurm_and_ray(site: Site) -> None:
    assert site.run("my.yaml", "--runs", "runs") == 0, site.log.read_text()
    steps = [call["argv"] for call in site.calls("srun")]
    shared = ["--overlap", "--nodes=1", "--ntasks=1"]
    assert [step[: step.index("bash")] for step in steps] == [
        [*shared, f"--nodelist={node}", "--export=ALL", "--cpu-bind=none"] for node in ("h1", "h2")
    ]
    head, worker = (call["argv"] for call in site.calls("ray"))
    port = int(next(word for word in head if word.startswith("--port=")).partition("=")[2])
    assert 20000 <= port < 32000
    mine = [
        *("start", "--block", "--disable-usage-stats", "--node-ip-address=127.0.0.1"),
        *("--node-name=NODE", "--num-cpus=4", "--num-gpus=1"),
        *(f"--memory={15 * 2**30}", f"--object-store-memory={2**30}"),
        *(f"--temp-dir={site.temp}/ray", "--include-log-monitor=false"),
    ]
    of_head = ["--head", f"--port={port}", "--include-dashboard=false", f"--ray-client-server-port={port + 1}"]
    assert head == [word.replace("NODE", "h1") for word in mine] + of_head
    assert worker == [word.replace("NODE", "h2") for word in mine] + [f"--address=127.0.0.1:{port}"]
    (search,) = site.calls("skeltune")
    assert search["argv"] == ["search", "my.yaml", "--runs", "runs", "--address", f"127.0.0.1:{port}"]
    assert "2 of 2 nodes have joined: h1 h2 (8 CPU, 1 GPU)" in site.log.read_text()
    assert site.left() == []


def test_the_token_is_a_fresh_secret_that_only_a_file_holds(site: Site) -> None:
    tokens = set()
    for _ in range(2):
        site.search("wait done")
        job = site.start("my.yaml", "--runs", "runs")
        until((site.folder / "searching").exists, site.log)
        (folder,) = site.home.glob(".skeltune/clusters/*")
        assert folder.name == f"my_search_1-{site.job}" and folder.stat().st_mode & 0o777 == 0o700
        assert (folder / "token").stat().st_mode & 0o777 == 0o600
        tokens.add((site.folder / "token").read_text())
        for call in [*site.calls("srun"), *site.calls("ray"), *site.calls("skeltune")]:
            assert call["env"]["RAY_AUTH_MODE"] == "token"
            assert call["env"]["RAY_AUTH_TOKEN_PATH"] == str(folder / "token")
            assert not call["env"].keys() & {"RAY_AUTH_TOKEN", "RAY_ADDRESS"}
        os.kill(job.pid, signal.SIGTERM)
        assert job.wait(30) == 143 and site.left() == []
        (site.folder / "searching").unlink()
    assert len(tokens) == 2 and all(re.fullmatch(r"[0-9a-f]{64}", token) for token in tokens)
    written = (site.folder / "calls").read_text() + site.log.read_text()
    assert not any(token in written for token in tokens)


def test_rays_settings_are_those_of_other_clusters_unless_the_user_has_others(site: Site) -> None:
    own = {"RAY_health_check_period_ms": "1000"}
    assert site.run("my.yaml", **own) == 0
    for call in [*site.calls("ray"), *site.calls("skeltune")]:
        assert call["env"].items() >= (dict(HEALTH) | dict(CLOSED) | own).items()


def test_the_jobs_exit_code_is_the_searchs(site: Site) -> None:
    site.search("2")
    assert site.run("my.yaml") == 2 and site.left() == []
    assert not any("requeue" in call["argv"] for call in site.calls("scontrol"))


def test_time_nearly_over(site: Site) -> None:
    """The search gets a Ctrl-C; the job queues itself again if the search says that it has not finished."""
    told = "not finished yet; the same command goes on"
    assert told in SEARCH.read_text()  # the very words that the script looks for
    for words, requeued in ((told, 1), ("best configuration: runs/tiny/best.yaml", 1)):
        site.search(f"wait {words}")
        job = site.start("my.yaml")
        until((site.folder / "searching").exists, site.log)
        os.kill(job.pid, signal.SIGUSR1)
        assert job.wait(30) == 0, site.log.read_text()
        assert [c["argv"] for c in site.calls("scontrol")].count(["requeue", str(site.job)]) == requeued
        assert site.left() == []
        (site.folder / "searching").unlink()


def test_epochs_that_take_longer_than_the_time_left_are_not_waited_for(site: Site) -> None:
    site.search("wait")
    tool = site.folder / "bin/skeltune"
    tool.write_text(tool.read_text().replace("sys.exit(print", "(print"))  # the first Ctrl-C changes nothing
    tool.write_text(
        tool.read_text().replace("flush=True))", "flush=True), signal.signal(2, lambda *_: sys.exit(130)))")
    )
    job = site.start("my.yaml", SKELTUNE_STOP_S="1")
    until((site.folder / "searching").exists, site.log)
    os.kill(job.pid, signal.SIGUSR1)
    assert job.wait(30) == 0, site.log.read_text()
    assert site.calls("scontrol")[-1]["argv"] == ["requeue", str(site.job)]
    until(lambda: site.left() == [], site.log)


def test_a_node_that_does_not_come_is_named_and_done_without(site: Site) -> None:
    (site.folder / "down-h2").touch()
    assert site.run("my.yaml") == 0
    told = site.log.read_text()
    assert "1 of 2 nodes have joined: h1" in told and "h2 has not joined; the search goes on without it" in told
    assert "h2: srun: error: node is not responding" in told
    assert site.calls("skeltune") and site.left() == []


def test_a_node_that_does_not_see_the_run_folder_does_not_take_part(site: Site) -> None:
    (site.folder / "blind-h2").touch()
    assert site.run("my.yaml", "--runs=runs") == 0
    told = site.log.read_text()
    assert f"h2: does not see {site.folder}/runs: --runs must be a folder that all nodes share" in told
    for up in site.folder.glob("up-*"):
        up.unlink()
    assert site.run("my.yaml", "--runs=runs", "--store", "s3://trials") == 0  # copies of what trials leave: no need
    assert site.log.read_text().count("has not joined") == 1


def test_no_search_without_a_head(site: Site) -> None:
    (site.folder / "down-h1").touch()
    assert site.run("my.yaml") == 1
    assert "Ray did not start on h1" in site.log.read_text() and not site.calls("skeltune") and site.left() == []


def test_ports_that_are_taken_are_passed_over(site: Site) -> None:
    first, after = (20000 + 2 * ((site.job + k) % 6000) for k in (0, 1))
    with socket.create_server(("", first + 1)):  # the second of the two
        assert site.run("my.yaml") == 0
    assert f"--port={after}" in site.calls("ray")[0]["argv"]


def test_a_folder_of_somebody_elses_is_not_used(site: Site, tmp_path: Path) -> None:
    site.temp.symlink_to(tmp_path)
    try:
        assert site.run("my.yaml") == 1
        assert "somebody else's" in site.log.read_text() and not site.calls("ray")
    finally:
        site.temp.unlink()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"SLURM_MEM_PER_NODE": "0", "SLURM_MEM_PER_CPU": "500"}, [f"--memory={(2000 - 250) * 2**20}"]),
        ({"SLURM_GPUS_ON_NODE": "", "CUDA_VISIBLE_DEVICES": "0,1"}, ["--num-gpus=0"]),  # not given by SLURM
        (
            {"SLURM_GPUS_ON_NODE": "", "CUDA_VISIBLE_DEVICES": "0,1", "SLURM_STEP_GPUS": "2,3"},
            ["--num-gpus=2"],
        ),
    ],
)
def test_what_slurm_gave_is_what_ray_has(site: Site, settings: dict[str, str], words: list[str]) -> None:
    assert site.run("my.yaml", **settings) == 0
    for call in site.calls("ray"):
        assert set(words) <= set(call["argv"])


def test_wrong_use_is_told(site: Site) -> None:
    assert site.run() == 2 and "SPACE.yaml" in site.log.read_text()
    assert site.run("my.yaml", SLURM_JOB_ID="") == 2 and "this file is for SLURM" in site.log.read_text()
    (site.folder / "bin/skeltune").unlink()
    assert site.run("my.yaml", PATH=f"{site.folder / 'bin'}:/usr/bin:/bin") == 2
    assert "no skeltune on the PATH" in site.log.read_text()
