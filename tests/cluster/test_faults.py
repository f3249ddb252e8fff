"""What clusters do to a search: machines that die, networks that break, nodes that come. Nothing is lost, and how long
each takes to notice is printed.

One search on three machines goes through all of it; figures are printed at the end (`-s` shows them).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hosts import CLIENT, Lab, wait_for
from onprem import Onprem

from methods.data.synthetic import SyntheticConfig, write_synthetic
from tuning.engine.journal import read_events, replay
from tuning.engine.state import JournalState

SPACE = """
format: 1
name: faulty
seed: 3
data: {{set: {data}, split: xsub, validate_on: auto, frames: 32}}
search:
  method:
    one_of:
      skeletonclr: {{temperature: {{log: [0.05, 0.5]}}, queue: 64, hidden: 8, projection: 8, projector_norm: true}}
      skeletonbyol: {{momentum: {{near_one: [0.9, 0.99]}}, hidden: 8, projection: 8}}
  encoder: {{width: 4, dim: 16, depth: 3, dropout: 0.0, init: torch, bodies: real}}
  optim: {{name: adam, lr: {{log: [0.0005, 0.01]}}, batch: 8, schedule: cosine}}
  streams: {{use: [joint], fuse: equal}}
probe: {{l2: 0.01}}
schedule: {{max: 9, asha: {{min: 3, eta: 3}}}}
budget: {{trials: {trials}, per_trial: {{gpu: 0, cpu: 1}}, hung_after: {hung}, on_end: stop}}
"""
FIGURES: list[str] = []


class World:
    """A cluster on a lab's hosts, and a search on it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.cluster = Onprem(lab, "faults")
        self.shared = Path(lab.shared[0])
        self.runs = self.shared / "runs"
        self.folder = self.runs / "faulty"
        data = self.shared / "data"
        actions = ("walk", "wave", "squat", "clap")
        write_synthetic(data, SyntheticConfig(clips_per_cell=6, subjects=5, cameras=2, actions=actions, max_frames=60))
        self.space = self.shared / "faulty.yaml"
        self.write_space(trials=1000)

    def write_space(self, trials: int, hung: str = "auto") -> None:
        self.space.write_text(SPACE.format(data=self.shared / "data", trials=trials, hung=hung))

    def skeltune(self, *words: object, check: bool = True, timeout: float = 200) -> str:
        done = self.lab.run(CLIENT, ["python", "-m", "tuning", *map(str, words)], check=check, timeout=timeout)
        assert "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
        return done.stdout + done.stderr

    def submit(self) -> str:
        return self.skeltune("cluster", "submit", self.cluster.file, self.space, "--runs", self.runs)

    @property
    def state(self) -> JournalState:
        return replay(self.folder / "journal.jsonl")

    def events(self, kind: str) -> list[dict]:
        return [event for event in read_events(self.folder / "journal.jsonl")[0] if event["e"] == kind]

    def nodes_now(self) -> set[str]:
        file = self.folder / "nodes.json"
        names = {self.lab.address(host): host for host in self.lab.hosts}
        return {names[row["node"]] for row in json.loads(file.read_text())["nodes"]} if file.is_file() else set()

    def at_work_on(self, host: str) -> bool:
        """Whether a trial has lately reported from there."""
        reports = self.events("report") if (self.folder / "journal.jsonl").is_file() else []
        return self.lab.address(host) in {event.get("node") for event in reports[-6:]}

    def until(self, true: Callable[[], object], seconds: float, what: str) -> float:
        begun = time.monotonic()
        wait_for(true, seconds, f"{what}\n{self.tell()}", every=0.25)
        return time.monotonic() - begun

    def tell(self) -> str:
        return self.lab.run(CLIENT, f"tail -n 40 {self.shared}/*.log 2>/dev/null; true", check=False).stdout


@pytest.fixture(scope="module")
def world(lab: Lab) -> Iterator[World]:
    found = World(lab)
    found.skeltune("cluster", "up", found.cluster.file, "--timeout", 150)
    found.submit()
    found.until((found.folder / "journal.jsonl").is_file, 90, "the search has begun")
    yield found
    print("\n" + "\n".join(FIGURES))
    found.skeltune("cluster", "down", found.cluster.file, "--force", check=False)


def lost_on(world: World, host: str, since: int) -> list[dict]:
    return [e for e in world.events("fail")[since:] if e["cause"] == "lost"]


def note_redone(world: World, what: str, seconds: float) -> None:
    """Epochs trained again: from the last checkpoint (at a rung, or younger than two minutes) to where it broke."""
    redone = []
    for trial in world.state.trials.values():
        for failure in trial.failures:
            if not failure.counted:
                last = max((e for e in (0, 3, 9) if e <= failure.epochs), default=0)
                redone.append(failure.epochs - last)
    FIGURES.append(f"{what}: noticed after {seconds:.1f} s; epochs redone by those lost so far {redone}")


def test_all_three_machines_work(world: World) -> None:
    for host in world.cluster.hosts:
        world.until(lambda host=host: world.at_work_on(host), 180, f"{host} trains")
    assert len(world.nodes_now()) == 3


def test_a_second_submit_of_a_running_search_is_refused(world: World) -> None:
    said = world.skeltune("cluster", "submit", world.cluster.file, world.space, "--runs", world.runs, check=False)
    assert "runs on cluster" in said


def test_a_worker_loses_power(world: World) -> None:
    world.until(lambda: world.at_work_on("h2"), 120, "h2 trains")
    known, before = len(world.events("fail")), dict(world.state.trials)
    world.lab.power_off("h2")
    seconds = world.until(lambda: lost_on(world, "h2", known), 150, "the loss of h2 is noticed")
    note_redone(world, "power cut of a worker", seconds)
    trial = world.state.trials[lost_on(world, "h2", known)[0]["trial"]]
    assert all(not failure.counted for failure in trial.failures)
    world.until(
        lambda: world.state.trials[trial.trial].epochs > trial.epochs or world.state.trials[trial.trial].ended,
        240,
        "its trial goes on elsewhere",
    )
    for number, old in before.items():
        assert old.reports.items() <= world.state.trials[number].reports.items()
    assert "h2" not in world.nodes_now()
    assert "lost" in world.skeltune("cluster", "status", world.cluster.file, "faulty")


def test_it_comes_back_and_a_fresh_one_joins(world: World) -> None:
    world.lab.power_on("h2")
    fresh = world.lab.add_host()
    world.cluster.hosts = world.lab.hosts
    world.cluster.write()
    begun = time.monotonic()
    world.skeltune("cluster", "up", world.cluster.file, "--timeout", 150)
    FIGURES.append(f"up with one machine rebooted and one new: {time.monotonic() - begun:.1f} s")
    seconds = world.until(lambda: {"h2", fresh} <= world.nodes_now(), 60, "both are seen by the search")
    world.until(lambda: world.at_work_on(fresh), 180, "the fresh one trains")
    FIGURES.append(f"joined machines seen by the search after {seconds:.1f} s")


def test_a_worker_is_cut_off_and_comes_back(world: World) -> None:
    world.until(lambda: world.at_work_on("h3"), 180, "h3 trains")
    known = len(world.events("fail"))
    world.lab.unplug("h3")
    seconds = world.until(lambda: lost_on(world, "h3", known), 180, "the cut is noticed")
    note_redone(world, "network partition of a worker", seconds)
    world.lab.plug("h3")
    world.skeltune("cluster", "up", world.cluster.file, "--timeout", 150)
    world.until(lambda: "h3" in world.nodes_now(), 60, "h3 is back")
    world.until(lambda: world.at_work_on("h3"), 180, "h3 trains again")


def test_the_shared_folder_is_away_for_a_while(world: World) -> None:
    """Checkpoints wait for it; the trial goes on, and nothing is written beneath the mount."""
    world.until(lambda: world.at_work_on("h2"), 180, "h2 trains")
    known = len(world.events("fail"))
    world.lab.storage_away("h2")
    seen = len(world.events("report"))
    world.until(lambda: len(world.events("report")) > seen + 10, 120, "the others go on")
    world.lab.storage_back("h2")
    seen = len([e for e in world.events("report") if e.get("node") == world.lab.address("h2")])
    world.until(
        lambda: len([e for e in world.events("report") if e.get("node") == world.lab.address("h2")]) > seen + 2,
        120,
        "h2 goes on",
    )
    assert not [e for e in world.events("fail")[known:] if e.get("node") == world.lab.address("h2")]


def test_the_head_loses_power_and_the_search_goes_on(world: World) -> None:
    before = world.state
    world.lab.power_off("h1")
    world.lab.power_on("h1")
    begun = time.monotonic()
    world.skeltune("cluster", "up", world.cluster.file, "--timeout", 200, timeout=260)
    up = time.monotonic() - begun
    assert "goes on" in world.skeltune("cluster", "status", world.cluster.file, "faulty", check=False)
    world.write_space(trials=before.count + 8)
    world.submit()
    known = len(world.events("report"))
    world.until(lambda: len(world.events("report")) > known, 180, "it goes on")
    FIGURES.append(
        f"power cut of the head: up again in {up:.1f} s, trials report {time.monotonic() - begun:.1f} s later"
    )
    for number, old in before.trials.items():
        now = world.state.trials[number]
        assert old.reports.items() <= now.reports.items(), "a finished result was lost"
        assert old.ended is None or old.ended == now.ended


def test_it_comes_to_its_end_with_nothing_lost_or_counted_twice(world: World) -> None:
    world.skeltune("cluster", "logs", world.cluster.file, "faulty", "--follow", timeout=900)
    state = world.state
    for kind, key in (("ask", ("trial",)), ("report", ("trial", "epoch")), ("end", ("trial",))):
        found = [tuple(event[k] for k in key) for event in world.events(kind)]
        assert len(found) == len(set(found)), kind
    assert state.count >= 16
    assert "failed" not in {trial.ended for trial in state.trials.values()}
    for trial in state.trials.values():
        assert sorted(trial.reports) == list(range(1, len(trial.reports) + 1)), "an epoch is missing"
    FIGURES.append(f"at the end: {len(state.ended)} trials ended, {state.epochs} epochs, results lost: 0")
