"""An exported config is a search space with nothing left to search."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.errors import InputError
from methods.training.config import TrialConfig, published
from tuning.config.schema import SearchSpec
from tuning.space import Space, check_text
from tuning.space.export import dump

PROVENANCE = {
    "top1": 0.1 + 0.2,
    "words": ["yes", "no", "1e-3", "012", "2026-01-02", "null", "~", "a: b # c", "", "two\nlines", "é"],
    "lost": math.nan,
    "nested": {"1e-3": True, "none": None},
}


def test_every_sampled_config_comes_back_equal(bound: tuple[SearchSpec, Space]) -> None:
    spec, space = bound
    rng = np.random.default_rng(0)
    for _ in range(12):
        config = space.resolve(space.sample(rng))
        again, fixed = check_text(dump(spec, config, PROVENANCE))
        assert fixed.resolve({}) == config
        assert fixed.free == {config.method: 0}
        assert fixed.invert(config) == {"method": config.method}
        assert again.provenance["words"] == PROVENANCE["words"]
        assert again.provenance["top1"] == 0.1 + 0.2 and again.provenance["lost"] is None
        assert again.provenance["nested"] == {"1e-3": True, "none": None}
        assert (again.name, again.seed, again.probe, again.schedule) == (
            spec.name,
            spec.seed,
            spec.probe,
            spec.schedule,
        )


def test_an_export_of_an_export_says_the_same(bound: tuple[SearchSpec, Space]) -> None:
    spec, space = bound
    once = dump(spec, space.resolve(space.start_draws()[0]), {"a": 1})
    again, fixed = check_text(once)
    assert dump(again, fixed.resolve({}), again.provenance) == once


def test_everything_is_written_out(bound: tuple[SearchSpec, Space]) -> None:
    spec, space = bound
    config = space.resolve(space.start_draws()[0])
    document = yaml.safe_load(dump(spec, config))
    search = document["search"]
    assert search["method"].keys() == {config.method}
    assert set(search["method"][config.method]) == {"frames", *(f.name for f in dataclasses.fields(config.params))}
    for part in ("augment", "encoder", "optim", "streams"):
        assert set(search[part]) == {f.name for f in dataclasses.fields(getattr(config, part))}
    assert search["streams"]["fuse"].keys() == {"joint", "motion", "bone"}
    assert "provenance" not in document and "start_from" not in document


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.floats(1e-300, 1e300), st.floats(0, 1, exclude_max=True))
def test_floats_come_back_to_the_last_bit(lr: float, momentum: float) -> None:
    spec, _ = check_text("format: 1\nname: a\ndata: {set: synthetic}\nsearch: {method: skeletonclr}\n")
    base = published("skeletonclr", 27)
    config = dataclasses.replace(
        base,
        optim=dataclasses.replace(base.optim, lr=lr),
        params=dataclasses.replace(base.params, momentum=momentum),
    )
    assert check_text(dump(spec, config))[1].resolve({}) == config


def test_a_config_with_its_own_length_keeps_it(bound: tuple[SearchSpec, Space]) -> None:
    spec, space = bound
    config = dataclasses.replace(space.resolve(space.start_draws()[0]), epochs=2)
    again, fixed = check_text(dump(spec, config))
    assert fixed.resolve({}) == config and (again.schedule.max, again.schedule.asha.min) == (2, 2)


def test_provenance_must_be_plain(bound: tuple[SearchSpec, Space]) -> None:
    spec, space = bound
    config: TrialConfig = space.resolve(space.start_draws()[0])
    with pytest.raises(InputError, match="'when' cannot be written as YAML: set"):
        dump(spec, config, {"when": {1}})
