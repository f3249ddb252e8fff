"""The library in three calls, as the README shows it."""

from __future__ import annotations

import dataclasses

import pytest

import methods
from methods.data import make_split
from methods.data.synthetic import SyntheticConfig, write_synthetic
from methods.errors import InputError
from methods.nn.encoder import EncoderConfig


def test_pretrain_and_probe(tmp_path):
    actions = ("walk", "wave", "squat")
    config = SyntheticConfig(clips_per_cell=1, subjects=4, cameras=2, actions=actions, max_frames=40)
    dataset = write_synthetic(tmp_path / "d", config)
    split = make_split(dataset, "xsub", "auto", seed=0)
    small = dataclasses.replace(
        methods.published("skeletonclr", epochs=2),
        frames=8,
        encoder=EncoderConfig(width=2, dim=8, depth=3),
        optim=dataclasses.replace(methods.published("skeletonclr").optim, batch=6),
    )
    seen = []
    run = methods.pretrain(small, dataset, split, seed=1, each_epoch=seen.append)
    assert [e.epoch for e in seen] == [1, 2]
    on_validation = methods.linear_probe(run, split)
    assert len(on_validation.clips) == len(split.validation)
    assert 0 <= on_validation.top1 <= 1
    assert len(methods.linear_probe(run, split, on="test").clips) == len(split.test)
    with pytest.raises(InputError, match="tset"):
        methods.linear_probe(run, split, on="tset")


def test_public_names_are_there():
    for name in methods.__all__:
        assert getattr(methods, name) is not None
    assert set(dir(methods)) == set(methods.__all__)
