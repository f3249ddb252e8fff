"""A method from somebody else's package, found by its entry point: listed, explained, searched; skeltune unchanged."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests_system_helpers import skeltune

from methods.data.synthetic import SyntheticConfig, write_synthetic
from tuning.engine.journal import replay

pytestmark = pytest.mark.system

METHOD = '''"""Stillness: a clip's feature is to be that of the clip played backwards."""

from dataclasses import dataclass

from torch.nn import functional as F

from methods.base import Method, Stage, StepOutput, tunable
from methods.recipe import Recipe
from methods.registry import register


@dataclass(frozen=True)
class StillnessConfig:
    weight: float = tunable(1.0, log=(0.1, 10.0), doc="how much it counts")
    late: float = tunable(0.5, uniform=(0.2, 0.8), doc="share of the run before it counts twice")


@register("stillness", config=StillnessConfig, recipe=Recipe(frames=16, epochs=4, source="nobody"))
class Stillness(Method):
    @classmethod
    def stages(cls, config):
        return (Stage("once", 0.0), Stage("twice", config.late))

    def loss(self, views, progress):
        x = views["a"]
        apart = F.mse_loss(self.encoder(x, views.present), self.encoder(x.flip(2), views.present))
        factor = 2.0 if progress >= self.config.late else 1.0
        return StepOutput(factor * self.config.weight * apart)
'''
SPACE = """format: 1
name: outside
data: {{set: {data}, split: xsub, validate_on: {{held_out_subjects: [2]}}, frames: 16}}
search:
  method:
    one_of:
      stillness: {{weight: {{log: [0.5, 2.0]}}}}
      skeletonclr: {{queue: 16, hidden: 8, projection: 8}}
  encoder: {{width: 4, dim: 16, depth: 3}}
  optim: {{batch: 8}}
schedule: {{max: 2, asha: {{min: 1, eta: 2}}}}
start_from: [published]
budget: {{trials: 2, per_trial: {{cpu: 1, gpu: 0}}}}
finish: {{rerun: {{top: 1, seeds: 1}}, retrain: {{seeds: 1}}}}
"""


def test_a_method_from_outside(tmp_path: Path, monkeypatch):
    package = tmp_path / "site"
    (package / "stillness-1.0.dist-info").mkdir(parents=True)
    (package / "stillness.py").write_text(METHOD)
    (package / "stillness-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: stillness\nVersion: 1.0\n"
    )
    entry = "[skeltune.methods]\nstillness = stillness:Stillness\n"
    (package / "stillness-1.0.dist-info" / "entry_points.txt").write_text(entry)
    monkeypatch.setattr("tests_system_helpers.environment", with_path(package))

    listed = skeltune("methods")
    assert "stillness" in listed.stdout and "played backwards" in listed.stdout
    data = tmp_path / "data"
    actions = ("walk", "wave", "squat")
    write_synthetic(data, SyntheticConfig(clips_per_cell=1, subjects=4, cameras=2, actions=actions, max_frames=40))
    space = tmp_path / "space.yaml"
    space.write_text(SPACE.format(data=data))
    told = skeltune("explain", space)
    assert told.returncode == 0, told.stderr
    assert "stillness" in told.stdout and "stages once, twice" in told.stdout
    done = skeltune("search", space, "--runs", tmp_path / "runs")
    assert done.returncode == 0, done.stdout + done.stderr
    state = replay(tmp_path / "runs" / "outside" / "journal.jsonl")
    assert {trial.draws["method"] for trial in state.trials.values()} == {"stillness", "skeletonclr"}
    assert (tmp_path / "runs" / "outside" / "best.yaml").is_file()


def with_path(package: Path):
    from tests_system_helpers import environment

    def changed() -> dict[str, str]:
        found = environment()
        return found | {"PYTHONPATH": f"{found['PYTHONPATH']}:{package}"}

    return changed
