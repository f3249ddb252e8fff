"""A bound space: drawing, resolving, inverting, starting, and being a value."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import numpy as np
import pytest

from methods.errors import InputError
from methods.training.config import TrialConfig, published
from tuning.config.errors import ConfigError
from tuning.config.schema import SearchSpec
from tuning.space import Space, check_text

Bound = tuple[SearchSpec, Space]
HEAD = "format: 1\nname: a\ndata: {set: synthetic}\n"


def alike(a: TrialConfig, b: TrialConfig) -> bool:
    """Equal, the weights of a simplex up to rounding."""
    assert a.streams.fuse == pytest.approx(b.streams.fuse, abs=1e-12)
    same_weights = dataclasses.replace(b, streams=dataclasses.replace(b.streams, fuse=a.streams.fuse))
    return a == same_weights


class FakeTrial:
    """Answers as an Optuna trial would, and remembers what it was asked."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.asked: dict[str, tuple[Any, ...]] = {}

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        self.asked[name] = ("float", low, high, log)
        return float(self.rng.uniform(low, high))

    def suggest_int(self, name: str, low: int, high: int) -> int:
        self.asked[name] = ("int", low, high)
        return int(self.rng.integers(low, high + 1))

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        self.asked[name] = ("categorical", *choices)
        return choices[int(self.rng.integers(len(choices)))]


def test_suggest_asks_for_one_branch(bound: Bound) -> None:
    _, space = bound
    for seed in range(20):
        trial = FakeTrial(seed)
        draws = space.suggest(trial)
        assert draws.keys() == trial.asked.keys()
        assert trial.asked["method"] == ("categorical", "skeletonclr", "skeletonbyol")
        if draws["method"] == "skeletonbyol":
            assert trial.asked["method/skeletonbyol/momentum/gap"] == ("float", 1 - 0.999, 1 - 0.9, True)
            assert trial.asked["method/skeletonbyol/hidden"] == ("int", 32, 64)
            assert trial.asked["optim/lr"] == ("float", 0.01, 0.3, True)
            assert trial.asked["encoder/width"] == ("categorical", 8, 16)
        assert space.resolve(draws).method == draws["method"]


def test_draws_and_configs_go_there_and_back(bound: Bound) -> None:
    _, space = bound
    rng = np.random.default_rng(0)
    met = set()
    for _ in range(200):
        draws = space.sample(rng)
        config = space.resolve(draws)
        back = space.invert(config)
        assert back.keys() == draws.keys()
        assert alike(space.resolve(back), config)
        met.add(config.method)
        assert set(draws) <= set(space.draw_names)
    assert met == set(space.methods)


def test_a_config_is_what_the_file_says(bound: Bound) -> None:
    spec, space = bound
    config = space.resolve(
        {
            "method": "skeletonbyol",
            "method/skeletonbyol/momentum/gap": 0.01,
            "method/skeletonbyol/hidden": 40,
            "augment/strength": 0.5,
            "encoder/width": 8,
            "optim/lr": 0.02,
            "optim/nesterov": True,
            "streams/fuse/0": 0.75,
            "streams/fuse/1": 0.5,
        }
    )
    assert config.params.momentum == 0.99 and config.params.hidden == 40 and config.params.projection == 512
    assert (config.epochs, config.frames, config.preprocess) == (spec.schedule.max, 32, ("trim", "centre", "resize"))
    assert (config.augment.strength, config.encoder.width, config.encoder.dim) == (0.5, 8, 512)
    assert (config.optim.lr, config.optim.batch, config.optim.nesterov) == (0.02, 64, True)
    assert config.streams.use == ("joint", "motion", "bone")
    fuse = next(slot for slot in space.branch("skeletonbyol").slots if slot.label == "streams.fuse")
    assert fuse.domain.describe() == "simplex [joint, motion, bone]"  # in the order of `use`, not as written
    assert config.streams.fuse == pytest.approx((0.5, 0.25, 0.25))


def test_wrong_draws_are_input_errors(bound: Bound) -> None:
    _, space = bound
    draws = space.sample(np.random.default_rng(1))
    name = next(n for n in draws if n != "method")
    for change, says in (
        ({"method": "skeletonblr"}, "did you mean"),
        ({"nonsense": 1}, "has no draw 'nonsense'"),
        ({name: "x"}, f"draw '{name}'"),
        ({name: 1e9}, f"draw '{name}'"),
    ):
        with pytest.raises(InputError, match=says):
            space.resolve({**draws, **change})
    with pytest.raises(InputError, match=f"draw '{name}' of method .* is missing"):
        space.resolve({k: v for k, v in draws.items() if k != name})
    with pytest.raises(InputError, match="draw 'method' is missing"):
        space.resolve({k: v for k, v in draws.items() if k != "method"})


def test_invert_names_everything_that_is_out_of_reach(bound: Bound) -> None:
    _, space = bound
    config = space.resolve(space.start_draws()[0])
    far = dataclasses.replace(
        config,
        epochs=3,
        params=dataclasses.replace(config.params, momentum=0.5, projection=7),
        optim=dataclasses.replace(config.optim, batch=32),
    )
    with pytest.raises(InputError) as caught:
        space.invert(far)
    assert sorted(caught.value.faults) == [
        "epochs is 3, and this space has it fixed at 27",
        "momentum is 0.5, and this space has it drawn from near_one [0.9, 0.999]",
        "optim.batch is 32, and this space has it fixed at 64",
        "projection is 7, and this space has it fixed at 512",
    ]


def test_invert_of_a_method_that_is_not_there() -> None:
    _, space = check_text(HEAD + "search: {method: skeletonclr}\n")
    with pytest.raises(InputError, match="method 'skeletonbyol' is not in this space"):
        space.invert(published("skeletonbyol"))


def test_a_space_is_a_value(bound: Bound, whole: str) -> None:
    _, space = bound
    assert pickle.loads(pickle.dumps(space)) == space
    assert hash(space) == hash(check_text(whole)[1])
    with pytest.raises(dataclasses.FrozenInstanceError):
        space.branches = ()  # type: ignore[misc]


def test_free_dimensions_are_counted_by_branch(bound: Bound) -> None:
    _, space = bound
    assert space.free == {"skeletonclr": 7, "skeletonbyol": 8}
    assert space.draw_names[0] == "method" and len(set(space.draw_names)) == len(space.draw_names)


def test_a_lone_method_is_not_asked_for_and_a_fixed_space_asks_nothing() -> None:
    _, space = check_text(HEAD + "search: {method: skeletonclr}\nschedule: {max: 300}\n")
    trial = FakeTrial(0)
    assert space.suggest(trial) == {"method": "skeletonclr"} and trial.asked == {}
    assert space.resolve({}) == space.resolve({"method": "skeletonclr"}) == published("skeletonclr")
    assert space.free == {"skeletonclr": 0}


def test_sets_of_streams_are_drawn_by_index() -> None:
    text = HEAD + "search: {method: skeletonclr, streams: {use: {choice: [[joint], [joint, bone]]}, fuse: fitted}}\n"
    _, space = check_text(text)
    assert space.branches[0].draws[0].choices == (0, 1)
    config = space.resolve({"streams/use": 1})
    assert config.streams.use == ("joint", "bone") and space.invert(config)["streams/use"] == 1


def test_starts_fill_in_published_values_else_the_middle() -> None:
    text = HEAD + (
        "search:\n"
        "  method:\n"
        "    one_of:\n"
        "      skeletonclr: {temperature: {log: [0.1, 0.4]}}\n"
        "      skeletonbyol: {momentum: {near_one: [0.9, 0.999]}}\n"
        "  optim: {lr: {log: [0.01, 0.3]}}\n"
        "start_from:\n"
        "  - {method: {skeletonbyol: {momentum: 0.99}}}\n"
        "  - published\n"
        "  - {method: skeletonclr, optim: {lr: 0.02}}\n"
    )
    _, space = check_text(text)
    first, clr, byol, last = (space.resolve(draws) for draws in space.start_draws())
    assert (first.method, first.params.momentum, first.optim.lr) == ("skeletonbyol", 0.99, 0.1)
    assert (clr.method, clr.params.temperature, clr.optim.lr) == ("skeletonclr", pytest.approx(0.2), 0.1)
    assert (byol.method, byol.params.momentum) == ("skeletonbyol", 0.996)
    assert (last.params.temperature, last.optim.lr) == (pytest.approx(0.2), 0.02)
    assert space.start_notes[0] == (
        "start_from: skeletonclr temperature: the published 0.07 lies outside log [0.1, 0.4]; 0.2 is used"
    )


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("{method: {skeletonclr: {temperature: 2}}}", "'temperature' is drawn from log [0.1, 0.4] in this space"),
        ("{method: {skeletonclr: {queue: 7}}}", "'queue' is fixed at 32768 in this space, so it cannot start at 7"),
        ("{method: {skeletonclr: {temperature: {log: [0.1, 0.2]}}}}", "start_from takes values, not domains"),
        ("{method: {skeletonclr: {temprature: 2}}}", "did you mean 'temperature'?"),
        ("{method: skeletonbyol}", "method 'skeletonbyol' is not in this space, which has skeletonclr"),
        ("{method: {one_of: {skeletonclr: {}, skeletonbyol: {}}}}", "a start is one method"),
        ("{optim: {lr: 0.1}, sampler: 3}", "unknown key 'sampler'"),
        ("publishd", "the word published, or a partial config"),
        ("[]", "the word published, or a partial config"),
    ],
)
def test_wrong_starts(entry: str, says: str) -> None:
    text = HEAD + "search: {method: {skeletonclr: {temperature: {log: [0.1, 0.4]}}}}\nstart_from: [" + entry + "]\n"
    with pytest.raises(ConfigError) as caught:
        check_text(text)
    assert len(caught.value.where) == 1 and says in caught.value.where[0].message
    assert caught.value.where[0].line == 5


def test_a_start_needs_a_method_only_where_there_are_several() -> None:
    one = "search: {method: {skeletonclr: {temperature: {log: [0.1, 0.4]}}}}\n"
    _, space = check_text(HEAD + one + "start_from: [{optim: {lr: 0.1}}, {streams: {use: [joint]}}]\n")
    assert len(space.starts) == 1  # both say what is fixed anyway
    two = "search: {method: {one_of: {skeletonclr: , skeletonbyol: }}}\n"
    with pytest.raises(ConfigError, match="say which method this starts with"):
        check_text(HEAD + two + "start_from: [{optim: {lr: 0.1}}]\n")
