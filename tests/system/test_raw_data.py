"""A search on skeletons as people have them: no conversion in between, and the second run finds it done."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from tests_system_helpers import skeltune

from methods.data.layouts import NTU25
from methods.data.synthetic import SyntheticConfig, generate_clips

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "methods" / "data" / "formats"))

pytestmark = pytest.mark.system

SPACE = """format: 1
name: raw
data: {{set: {data}, split: xsub, validate_on: {{held_out_subjects: [{held}]}}, frames: 16, preprocess: {steps}}}
search:
  method: {{skeletonclr: {{temperature: {{log: [0.05, 0.5]}}, queue: 32, hidden: 16, projection: 8}}}}
  encoder: {{width: 4, dim: 16, depth: 3}}
  optim: {{batch: 8}}
schedule: {{max: 2, asha: {{min: 1, eta: 2}}}}
budget: {{trials: 2, per_trial: {{cpu: 1, gpu: 0}}}}
finish: {{rerun: {{top: 1, seeds: 1}}, retrain: {{seeds: 1}}}}
"""


@pytest.fixture(scope="module")
def clips():
    config = SyntheticConfig(clips_per_cell=1, subjects=4, cameras=2, actions=("walk", "wave", "squat"), max_frames=40)
    return list(generate_clips(config))


def search(tmp_path, monkeypatch, data: Path, steps: str) -> dict:
    monkeypatch.setenv("SKELTUNE_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "space.yaml"
    path.write_text(SPACE.format(data=data, held=2, steps=steps))
    done = skeltune("search", path, "--runs", tmp_path / "runs")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "converting to" in done.stderr and "split      xsub" in done.stderr
    again = skeltune("check", path)
    assert again.returncode == 0 and "converting" not in again.stderr
    (found,) = (tmp_path / "cache" / "datasets").iterdir()
    best = (tmp_path / "runs" / "raw" / "best.yaml").read_text()
    assert "made_from" in best
    return json.loads((found / "meta.json").read_text()) | {"best": best}


def test_an_ntu_folder(clips, tmp_path, monkeypatch):
    from writers_ntu import write_skeleton_files

    write_skeleton_files(tmp_path / "nturgb", clips)
    meta = search(tmp_path, monkeypatch, tmp_path / "nturgb", "crossclr")
    assert meta["source"]["converter"] == "ntu_raw" and meta["clips"] == len(clips)
    assert meta["layout"] == NTU25.to_dict()
    assert "rotate_y" in meta["best"]  # the steps of the recipe, written out


def test_a_crossclr_folder(clips, tmp_path, monkeypatch):
    from writers_arrays import ntu_clip, write_crossclr

    made = [ntu_clip(clip.frames, clip.label, clip.subject, clip.camera, setup=1 + k) for k, clip in enumerate(clips)]
    write_crossclr(tmp_path / "xsub", made)
    meta = search(tmp_path, monkeypatch, tmp_path / "xsub", "[resize]")
    assert meta["source"]["converter"] == "crossclr" and meta["clips"] == len(clips)
