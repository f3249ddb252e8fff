"""cluster/slurm.sh under a real SLURM: Debian's slurm-wlm and munge on two hosts of the laboratory.

The file is taken as it is; what differs here (two processors, little memory) stands on sbatch's command line.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hosts import Lab, Process, wait_for
from slurm import Slurm, missing

from methods.data.synthetic import SyntheticConfig, write_synthetic

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

ROOT = Path(__file__).resolve().parents[2]
OF_SLURM = ("slurmd", "munged", "sshd", "sleep infinity", "init.sh")
SIZE = "--cpus-per-task=2 --mem=3G --time=10"
SECONDS = 240  # a job of half a minute, on a machine that others use


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"of_slurm_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


sys.path.insert(0, str(ROOT / "tests/system"))
from tests_system_helpers import events, nothing_twice  # noqa: E402

SPACE = _load(ROOT / "tests/system/conftest.py").SPACE


class Site:
    """Two nodes with SLURM, and a user who submits searches there."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self.folder = lab, folder
        self.slurm = Slurm(lab, folder)
        self.runs = folder / "runs"
        shutil.copy(ROOT / "cluster/slurm.sh", folder / "slurm.sh")
        actions = ("walk", "wave", "squat", "clap")
        write_synthetic(folder / "data", SyntheticConfig(clips_per_cell=1, subjects=5, cameras=2, actions=actions))
        self.env = {"SKELTUNE_VENV": sys.prefix, "PYTHONPATH": str(ROOT), "SKELTUNE_CACHE": str(folder / "cache")}

    def space(self, name: str, trials: int = 4, top: int = 4) -> Path:
        text = SPACE.format(
            data=self.folder / "data", trials=trials, top=top, on_end="finish", streams="[joint]", fuse="equal"
        )
        path = self.folder / f"{name}.yaml"
        path.write_text(text.replace("name: tiny", f"name: {name}"))
        return path

    def submit(self, space: Path, options: str = SIZE, **env: str) -> int:
        command = f"{options} slurm.sh {space.name} --runs {self.runs}"
        return self.slurm.submit(command, env=self.env | env)

    def log(self, job: int) -> str:
        path = self.folder / f"skeltune-{job}.log"
        return path.read_text() if path.exists() else ""

    def reports(self, name: str) -> int:
        return len(events(self.runs / name, "report")) if (self.runs / name / "journal.jsonl").exists() else 0

    def until(self, true, job: int, what: str) -> None:
        def asked() -> bool:
            assert self.slurm.job(job)["JobState"] in ("PENDING", "RUNNING", "COMPLETING"), self.log(job)
            return bool(true())

        wait_for(asked, SECONDS, what, 0.2)

    def end(self, job: int) -> dict[str, str]:
        found = self.slurm.wait(job, SECONDS)
        assert "Traceback" not in self.log(job), self.log(job)
        return found

    def jobs_processes(self, host: str) -> list[Process]:
        """What runs on a node that is neither SLURM's nor the machine's own."""
        return [p for p in self.lab.processes(host) if not any(word in p.title for word in OF_SLURM)]

    def nothing_left(self, job: int, cancelled: bool = False) -> None:
        for host in self.lab.hosts:
            assert self.jobs_processes(host) == []
            if not cancelled or host == self.lab.hosts[0]:  # SLURM kills the steps of a cancelled job
                assert not self.lab.folder(host, f"/tmp/skeltune-{job}").exists()
        assert list(self.slurm.home.glob(".skeltune/clusters/*")) == []
        assert list(self.runs.glob(".*")) == []


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("slurm")
    with Lab(2, prefix="n", net="10.79.0", shared=[folder], venv=sys.prefix) as lab:
        yield Site(lab, folder)


def test_a_job_takes_a_search_to_its_end_on_all_nodes(site: Site) -> None:
    job = site.submit(site.space("whole"))
    titles: dict[str, str] = dict.fromkeys(site.lab.hosts, "")

    def both_work() -> bool:
        for host in site.lab.hosts:
            titles[host] += "\n".join(process.title for process in site.lab.processes(host))
        return all(re.search(r"ray::.*Trainable", title) for title in titles.values())

    site.until(both_work, job, "trials on both nodes")
    (token,) = site.slurm.home.glob(".skeltune/clusters/*/token")
    secret = token.read_text()
    assert re.fullmatch(r"[0-9a-f]{64}", secret) and token.stat().st_mode & 0o777 == 0o600
    seen = [*titles.values(), site.slurm.run("squeue -o %all"), site.slurm.run(f"scontrol -o show job {job} -d")]
    for host in site.lab.hosts:
        for process in site.lab.processes(host):
            path = Path(f"/proc/{process.pid}/environ")
            seen.append(path.read_bytes().decode(errors="replace") if path.exists() else "")
    found = site.end(job)
    log = site.log(job)
    assert (found["JobState"], found["ExitCode"]) == ("COMPLETED", "0:0"), log
    assert not any(secret in text for text in [*seen, log])
    assert "2 of 2 nodes have joined: n1 n2 (4 CPU, 2 GPU)" in log
    assert (site.runs / "whole/best.yaml").is_file()
    nothing_twice(site.runs / "whole")
    site.nothing_left(job)


def test_cancelled_in_the_middle_it_goes_on(site: Site) -> None:
    space = site.space("cut", trials=6)
    job = site.submit(space)
    site.until(lambda: site.reports("cut") >= 2, job, "two reports")
    site.slurm.run(f"scancel {job}")
    assert site.end(job)["JobState"] == "CANCELLED"
    site.nothing_left(job, cancelled=True)
    before = site.reports("cut")
    assert not (site.runs / "cut/best.yaml").exists()
    job = site.submit(space)
    assert site.end(job)["JobState"] == "COMPLETED"
    assert "going on in" in site.log(job) and (site.runs / "cut/best.yaml").is_file()
    assert site.reports("cut") > before
    nothing_twice(site.runs / "cut")
    site.nothing_left(job)


def test_when_the_time_is_nearly_over_it_queues_itself_and_goes_on(site: Site) -> None:
    job = site.submit(site.space("again", trials=6))
    site.until(lambda: site.reports("again") >= 2, job, "two reports")
    site.slurm.run(f"scancel --batch --signal=USR1 {job}")  # as --signal=B:USR1 does
    site.until(lambda: site.slurm.job(job)["Restarts"] == "1", job, "queued again")
    assert not (site.runs / "again/best.yaml").exists()
    assert site.end(job)["JobState"] == "COMPLETED"
    log = site.log(job)
    assert log.index("not finished yet") < log.index("queued again") < log.index("going on in") < log.index("best conf")
    nothing_twice(site.runs / "again")
    site.nothing_left(job)


def test_two_jobs_share_a_node_and_a_node_that_does_not_see_the_files_is_told(site: Site) -> None:
    one = "--nodes=1 --nodelist=n1 --cpus-per-task=1 --mem=1500M --gpus-per-node=0 --time=10"
    jobs = [site.submit(site.space(name, trials=2, top=2), one) for name in ("left", "right")]
    site.until(lambda: all(site.reports(name) for name in ("left", "right")), jobs[0], "both at work")
    for job in jobs:
        assert site.end(job)["JobState"] == "COMPLETED", site.log(job)
        assert "1 of 1 nodes have joined: n1 (1 CPU, 0 GPU)" in site.log(job)
    job = site.submit(site.space("right", trials=2, top=2), SKELTUNE_HOME="/tmp/own")  # each node has its own /tmp
    assert site.end(job)["JobState"] == "COMPLETED"
    log = site.log(job)
    assert "n2 has not joined" in log and "n2: sees no /tmp/own" in log and "nothing is left to do" in log


def test_a_node_that_loses_its_power_costs_no_search(site: Site) -> None:
    fast = {"RAY_health_check_period_ms": "1000", "RAY_health_check_timeout_ms": "2000"}
    job = site.submit(site.space("power", trials=8), **fast)
    site.until(lambda: site.reports("power") >= 2, job, "two reports")
    site.lab.power_off("n2")
    found = site.end(job)
    assert (found["JobState"], found["ExitCode"]) == ("COMPLETED", "0:0"), site.log(job)
    assert (site.runs / "power/best.yaml").is_file()
    nothing_twice(site.runs / "power")
    assert site.jobs_processes("n1") == []
    site.lab.power_on("n2")
    site.slurm.boot("n2")
    wait_for(lambda: site.slurm.states() == {"idle"}, 60, "n2 back", 0.5)


def test_when_the_node_with_the_script_dies_the_job_is_queued_again(site: Site) -> None:
    """By itself SLURM would keep the other node for the job, idle, until the job's time is over."""
    job = site.submit(site.space("head", trials=6), SKELTUNE_WATCH_S="5")
    site.until(lambda: site.reports("head") >= 2, job, "two reports")
    site.lab.power_off("n1")
    site.until(lambda: site.slurm.job(job)["Restarts"] == "1", job, "queued again")
    site.lab.power_on("n1")
    site.slurm.boot("n1")
    assert site.end(job)["JobState"] == "COMPLETED", site.log(job)
    assert "going on in" in site.log(job) and (site.runs / "head/best.yaml").is_file()
    nothing_twice(site.runs / "head")
    site.nothing_left(job)
