"""A search space that uses the whole language, for the tests of this folder."""

from __future__ import annotations

import pytest

from tuning.config.schema import SearchSpec
from tuning.space import Space, check_text

WHOLE = """\
format: 1
name: quickstart
seed: 0
data: {set: synthetic, split: xsub, validate_on: auto, preprocess: [trim, centre, resize], frames: 32}
search:
  method:
    one_of:
      skeletonclr:
        temperature: {log: [0.05, 0.5]}
        queue: 512
        frames: 24
        encoder: {width: 16}
        augment: {shear: {uniform: [0, 1]}}
        optim: {lr: {log: [0.01, 0.1]}}
      skeletonbyol: {momentum: {near_one: [0.9, 0.999]}, hidden: {int: [32, 64]}}
  augment: {strength: {uniform: [0.2, 1.4]}}
  encoder: {width: {choice: [8, 16]}}
  optim: {lr: {log: [0.01, 0.3]}, batch: 64, nesterov: {choice: [true, false]}}
  streams: {use: [joint, motion, bone], loss: equal, fuse: {simplex: [joint, bone, motion]}}
probe: {kind: linear, metric: top1, solver: lbfgs, l2: 1e-3, knn_k: 20}
schedule: {unit: epoch, max: 27, asha: {min: 3, eta: 3, rule: stop, ladder: shared, brackets: 1, grow: false}}
sampler: {name: tpe, startup_trials: 10, random_share: 0.0}
objectives: [top1]
start_from: [{method: {skeletonbyol: {momentum: 0.99}}}, published]
warm_start: []
budget: {trials: 24, gpu_hours: null, minutes: null, on_end: finish, parallel: auto, per_trial: {gpu: one, cpu: 1}}
finish: {rerun: {top: 3, seeds: 3}, retrain: {seeds: 1}, export: null}
"""


@pytest.fixture(scope="session")
def whole() -> str:
    """The text of a space that uses every word."""
    return WHOLE


@pytest.fixture(scope="session")
def bound() -> tuple[SearchSpec, Space]:
    """That text, read and bound."""
    return check_text(WHOLE, "whole.yaml")
