"""The same command from a laptop: over Ray's client, killed, gone on with over the client and on the laptop alone."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import CLIENT, Lab, wait_for
from onprem import Onprem

from methods.data.synthetic import SyntheticConfig, write_synthetic
from tuning.engine.journal import read_events, replay

SPACE = """
format: 1
name: laptop
seed: 3
data: {{set: {data}, split: xsub, validate_on: auto, frames: 8}}
search:
  method: {{skeletonbyol: {{momentum: {{near_one: [0.9, 0.99]}}, hidden: 8, projection: 8}}}}
  encoder: {{width: 2, dim: 8, depth: 3, dropout: 0.0, init: torch, bodies: real}}
  optim: {{name: adam, lr: {{log: [0.0005, 0.01]}}, batch: 8, schedule: cosine}}
  streams: {{use: [joint], fuse: equal}}
probe: {{l2: 0.01}}
schedule: {{max: 8, asha: {{min: 2, eta: 2}}}}
budget: {{trials: 10, per_trial: {{gpu: 0, cpu: 1}}}}
finish: {{rerun: {{top: 2, seeds: 1}}, retrain: {{seeds: 1}}}}
"""


@pytest.fixture(scope="module")
def cluster(lab: Lab) -> Iterator[Onprem]:
    found = Onprem(lab, "ray", hosts=lab.hosts[:2])
    found.verb("up", "--timeout", "150")
    yield found
    found.verb("down", "--force", check=False)


def test_the_search_runs_here_and_its_trials_there(lab: Lab, cluster: Onprem) -> None:
    shared = Path(lab.shared[0])
    actions = ("walk", "wave", "squat", "clap")
    small = SyntheticConfig(clips_per_cell=1, subjects=5, cameras=2, actions=actions, max_frames=40)
    write_synthetic(shared / "small", small)
    space = shared / "laptop.yaml"
    space.write_text(SPACE.format(data=shared / "small"))
    runs = "/root/runs"  # the laptop's own disk: no node sees it
    journal = lab.folder(CLIENT, f"{runs}/laptop/journal.jsonl")
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "/root/.skeltune/clusters/ray/token"}
    command = ["python", "-m", "tuning", "search", str(space), "--runs", runs, "--store", f"file://{shared}/store"]
    far = [*command, "--address", f"ray://{lab.address('h1')}:10001"]

    first = lab.popen(CLIENT, far, env=token, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def reported() -> bool:
        return (journal.is_file() and b'"node"' in journal.read_bytes()) or first.poll() is not None

    wait_for(reported, 180, "reports")
    assert first.poll() is None, first.stdout.read() if first.stdout else ""
    lab.run(CLIENT, ["pkill", "-KILL", "-f", "tuning search"], check=False)
    first.send_signal(signal.SIGKILL)
    first.wait()
    known = replay(journal)

    done = lab.run(CLIENT, far, env=token, timeout=400)
    assert "Traceback" not in done.stdout + done.stderr
    assert "going on in" in done.stdout
    state = replay(journal)
    for number, trial in known.trials.items():
        assert trial.reports.items() <= state.trials[number].reports.items()
    asked = [event["trial"] for event in read_events(journal)[0] if event["e"] == "ask"]
    assert len(asked) == len(set(asked))
    addresses = {lab.address(host) for host in lab.hosts}
    assert {r.node for t in state.trials.values() for r in t.reports.values()} <= addresses, "trained on the laptop"
    assert lab.folder(CLIENT, f"{runs}/laptop/best.yaml").is_file()
    assert lab.folder(CLIENT, f"{runs}/laptop/best.pt").is_file()

    again = lab.run(CLIENT, command, timeout=120)
    assert "nothing is left to do" in again.stdout, "the same run folder without a cluster"


def test_a_wrong_token_is_one_line(lab: Lab, cluster: Onprem) -> None:
    lab.run(CLIENT, "umask 077; printf '%064d' 0 > /root/wrong")
    env = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "/root/wrong"}
    space = Path(lab.shared[0]) / "laptop.yaml"
    address = f"ray://{lab.address('h1')}:10001"
    command = ["python", "-m", "tuning", "search", str(space), "--runs", "/root/other", "--address", address]
    done = lab.run(CLIENT, command, env=env, check=False, timeout=120)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert f"no Ray cluster at '{address}'" in done.stderr
