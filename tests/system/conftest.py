"""A search small enough for a test: generated skeletons, tiny encoders, real Ray in real processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from methods.data.synthetic import SyntheticConfig, write_synthetic

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode keeps helpers off the path
from tests_system_helpers import command, environment

SPACE = """
format: 1
name: tiny
seed: 3
data: {{set: {data}, split: xsub, validate_on: auto, frames: 8}}
search:
  method:
    one_of:
      skeletonclr:
        temperature: {{log: [0.05, 0.5]}}
        queue: 32
        hidden: 8
        projection: 8
        projector_norm: true
      skeletonbyol: {{momentum: {{near_one: [0.9, 0.99]}}, hidden: 8, projection: 8}}
  augment: {{strength: {{uniform: [0.1, 1.0]}}}}
  encoder: {{width: 2, dim: 8, depth: 3, dropout: 0.0, init: torch, bodies: real}}
  optim: {{name: adam, lr: {{log: [0.0005, 0.01]}}, batch: 8, schedule: cosine}}
  streams: {{use: {streams}, fuse: {fuse}}}
probe: {{l2: 0.01}}
schedule: {{max: {top}, asha: {{min: 1, eta: 2}}}}
start_from: [published]
budget: {{trials: {trials}, per_trial: {{gpu: 0, cpu: 1}}, on_end: {on_end}}}
finish: {{rerun: {{top: 2, seeds: 2}}, retrain: {{seeds: 2}}}}
"""


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "small"
    actions = ("walk", "wave", "squat", "clap")
    write_synthetic(path, SyntheticConfig(clips_per_cell=1, subjects=5, cameras=2, actions=actions, max_frames=40))
    return path


@pytest.fixture
def space(dataset: Path, tmp_path: Path):
    """Write a tiny search space; what is not said stays small."""

    def write(trials=4, top=4, on_end="finish", streams="[joint]", fuse="equal", **replaced) -> Path:
        text = SPACE.format(data=dataset, trials=trials, top=top, on_end=on_end, streams=streams, fuse=fuse)
        for old, new in replaced.items():
            text = text.replace(old, new)
        path = tmp_path / "tiny.yaml"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def begin():
    """Start a command in the background; what still runs when the test ends is killed."""
    started: list[subprocess.Popen] = []

    def start(*arguments: object, **streams) -> subprocess.Popen:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | streams
        started.append(subprocess.Popen(command(*arguments), env=environment(), start_new_session=True, **quiet))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
