"""A configuration is whole: it survives dicts and JSON, refuses what it does not know, and weighs its streams."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import make_config, own_config

from methods.augment.policy import AugmentConfig
from methods.errors import InputError
from methods.fields import field_table, tunable
from methods.nn.encoder import EncoderConfig
from methods.recipe import OptimConfig
from methods.registry import get_method, list_methods
from methods.training.config import StreamsConfig, TrialConfig, from_dict, published
from methods.training.probe import ProbeConfig

every_method = pytest.mark.parametrize("name", list_methods())


@st.composite
def streams(draw: st.DrawFn, use: tuple[str, ...] = ()) -> StreamsConfig:
    any_of = st.lists(st.sampled_from(["joint", "motion", "bone"]), min_size=1, max_size=3, unique=True)
    use = use or tuple(draw(any_of))
    weights = st.tuples(*[st.floats(0.01, 10)] * len(use))
    return StreamsConfig(use, draw(st.just("equal") | weights), draw(st.sampled_from(["equal", "fitted"]) | weights))


@st.composite
def configs(draw: st.DrawFn) -> TrialConfig:
    name = draw(st.sampled_from(list_methods()))
    momentum = draw(st.floats(0, 1))
    entry = get_method(name)
    use = [s for s in ("joint", "motion", "bone") if not entry.cls.only_streams or s in entry.cls.only_streams]
    chosen = draw(st.permutations(use))[: draw(st.integers(entry.cls.least_streams, len(use)))]
    encoder = entry.recipe.encoder
    if isinstance(encoder, EncoderConfig):
        encoder = EncoderConfig(width=draw(st.integers(1, 64)), dropout=draw(st.floats(0, 0.9)))
    return TrialConfig(
        method=name,
        params=own_config(
            name, momentum=momentum, temperature=draw(st.floats(0.01, 1)), projection=draw(st.integers(1, 99))
        ),
        epochs=draw(st.integers(1, 500)),
        frames=draw(st.integers(4, 300)),
        preprocess=draw(st.sampled_from([("trim", "centre", "resize"), ("trim_paper", "resize"), ("resize",)])),
        encoder=encoder,
        augment=AugmentConfig(strength=draw(st.floats(0, 3)), flip_reflect=draw(st.booleans())),
        streams=draw(streams(tuple(chosen))),
        optim=OptimConfig(lr=draw(st.floats(1e-6, 10)), name=draw(st.sampled_from(["sgd", "adam"]))),
    )


@settings(max_examples=60, deadline=None)
@given(configs())
def test_through_json_and_back(config: TrialConfig) -> None:
    plain = config.to_dict()
    text = json.dumps(plain, allow_nan=False)
    assert from_dict(json.loads(text)) == config
    assert from_dict(plain) == config
    assert json.loads(text) == plain  # nothing in it that JSON would change, tuples above all


@every_method
def test_published_survives_the_round_trip(name: str) -> None:
    config = published(name)
    assert from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert hash(config) == hash(from_dict(config.to_dict()))
    assert published(name, 7).epochs == 7
    assert published(name, 7).optim == config.optim


@pytest.mark.parametrize("epochs", [0, -3])
def test_published_refuses_senseless_lengths(epochs: int) -> None:
    with pytest.raises(InputError, match=f"epochs .*{epochs}"):
        published("skeletonbyol", epochs)


def test_what_is_left_out_is_the_default() -> None:
    config = from_dict({"method": "skeletonclr", "epochs": 5})
    assert config == TrialConfig("skeletonclr", own_config("skeletonclr", queue=32768, hidden=256, projection=128), 5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epocs": 3}, "unknown setting 'config.epocs'; did you mean 'epochs'?"),
        ({"encoder": {"witdh": 3}}, "unknown setting 'encoder.witdh'; did you mean 'width'?"),
        ({"augment": {"strenght": 3}}, "unknown setting 'augment.strenght'; did you mean 'strength'?"),
        ({"optim": {"learning": 3}}, "unknown setting 'optim.learning'; known: batch, lr, name"),
        ({"params": {"momentun": 3}}, "unknown setting 'params.momentun'; did you mean 'momentum'?"),
        ({"streams": {"fuze": 3}}, "unknown setting 'streams.fuze'; did you mean 'fuse'?"),
        ({"method": "skeletonbiol"}, "unknown method 'skeletonbiol'; did you mean 'skeletonbyol'?"),
    ],
)
def test_unknown_keys_are_named_with_the_nearest(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        from_dict(make_config().to_dict() | change)
    assert message in str(caught.value)


def test_several_unknown_keys_are_several_faults() -> None:
    with pytest.raises(InputError) as caught:
        from_dict(make_config().to_dict() | {"encoder": {"witdh": 1, "dropuot": 0.1}})
    assert len(caught.value.faults) == 2


@pytest.mark.parametrize("wrong", ["missing epochs", "encoder no table", "frames a text"])
def test_a_mutilated_dict_is_an_input_error(wrong: str) -> None:
    values = make_config().to_dict()
    if wrong == "missing epochs":
        del values["epochs"]
    else:
        values |= {"encoder": 3} if wrong == "encoder no table" else {"frames": "many"}
    with pytest.raises(InputError):
        from_dict(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs .*0"),
        ({"frames": 3}, "frames .*3"),
        ({"preprocess": ("trimm",)}, "trimm"),
        ({"method": "nosuch"}, "nosuch"),
        ({"params": OptimConfig()}, "SkeletonBYOLConfig, got OptimConfig"),
    ],
)
def test_trial_says_what_is_wrong(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dataclasses.replace(make_config(), **change)


# --- streams --------------------------------------------------------------------------------------------------------

THREE = ("joint", "motion", "bone")


def test_equal_streams_are_the_published_sum() -> None:
    """L = S * sum of w_s L_s with w_s = 1/S: every stream's loss counts once. Fused they share 1."""
    config = StreamsConfig(THREE)
    assert config.loss_weights() == pytest.approx((1, 1, 1))
    assert config.fuse_weights() == pytest.approx((1 / 3, 1 / 3, 1 / 3))


def test_weights_are_shares_of_the_number_of_streams() -> None:
    """Weights 1:1:2 are shares 1/4, 1/4, 1/2; times S = 3 they are 3/4, 3/4, 3/2. AimCLR's fusion is 0.6, 0.4, 0.6."""
    config = StreamsConfig(THREE, loss=(1, 1, 2), fuse=(0.6, 0.4, 0.6))
    assert config.loss_weights() == pytest.approx((0.75, 0.75, 1.5))
    assert config.fuse_weights() == pytest.approx((0.375, 0.25, 0.375))


def test_fitted_weights_are_not_known_yet() -> None:
    assert StreamsConfig(THREE, fuse="fitted").fuse_weights() is None


@settings(max_examples=40, deadline=None)
@given(streams())
def test_weights_always_sum_up(config: StreamsConfig) -> None:
    assert sum(config.loss_weights()) == pytest.approx(len(config.use))
    fuse = config.fuse_weights()
    assert fuse is None or sum(fuse) == pytest.approx(1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"use": ()}, "no stream"),
        ({"use": ("join",)}, "unknown stream 'join'; did you mean 'joint'?"),
        ({"use": ("joint", "joint")}, "twice: joint, joint"),
        ({"loss": "fitted"}, "streams.loss must be equal or weights, got 'fitted'"),
        ({"fuse": "mean"}, "streams.fuse must be equal or fitted or weights, got 'mean'"),
        ({"use": THREE, "fuse": (0.5, 0.5)}, "2 weights for 3 streams"),
        ({"use": THREE, "loss": (1.0, -0.5, 1.0)}, "not negative"),
        ({"use": THREE, "loss": (0.0, 0.0, 0.0)}, "all zero"),
        ({"use": THREE, "loss": (1.0, float("nan"), 1.0)}, "nan"),
        ({"use": THREE, "loss": (1.0, float("inf"), 1.0)}, "inf"),
    ],
)
def test_streams_say_what_is_wrong(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        StreamsConfig(**wrong)
    assert message in str(caught.value)


# --- the optimiser's and the probe's settings; tunable -------------------------------------------------------------


@pytest.mark.parametrize("cls", [OptimConfig, ProbeConfig])
def test_ranges_construct_at_both_ends(cls: type) -> None:
    for name, info in field_table(cls).items():
        assert info.doc, name
        for end in info.range.ends() if info.range else ():
            assert getattr(cls(**{name: end}), name) == end


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "lion"}, {"lr": 0.0}, {"lr": -1.0}, {"lr": float("nan")}, {"batch": 1}, {"weight_decay": -1e-9},
        {"sgd_momentum": 1.0}, {"schedule": "linear"}, {"warmup": 1.0}, {"step_at": 0.0}, {"step_factor": 0.0},
        {"lr": float("inf")},
        {"weight_decay": float("inf")},
    ],
)  # fmt: skip
def test_optim_says_what_is_wrong(wrong: dict[str, object]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(InputError, match=f"optim.{name} .*{value}"):
        OptimConfig(**wrong)


def test_nesterov_needs_momentum() -> None:
    with pytest.raises(InputError, match="nesterov"):
        OptimConfig(nesterov=True, sgd_momentum=0.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "svm"}, {"metric": "f1"}, {"solver": "newton"}, {"l2": 0.0}, {"sgd_lr": 0.0}, {"sgd_epochs": 0},
        {"sgd_batch": 0}, {"knn_k": 0}, {"knn_temperature": 0.0}, {"precision": "fp16"}, {"subset": -1},
    ],
)  # fmt: skip
def test_probe_says_what_is_wrong(wrong: dict[str, object]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(InputError, match=f"probe.{name} .*{value}"):
        ProbeConfig(**wrong)


def test_a_probe_in_bf16_settles_first() -> None:
    with pytest.raises(InputError, match=r"bf16 needs probe\.settle: true"):
        ProbeConfig(precision="bf16", settle=False)
    assert ProbeConfig(precision="bf16").settle


def test_a_field_takes_one_range() -> None:
    with pytest.raises(TypeError, match="one range"):
        tunable(1.0, doc="x", uniform=(0, 1), log=(0.1, 1))


def test_field_table_says_all_there_is() -> None:
    @dataclasses.dataclass(frozen=True)
    class Own:
        rate: float = tunable(0.5, doc="how fast", near_one=(0.9, 0.99))
        word: str = tunable("a", doc="which", choice=("a", "b", "c"))
        plain: int = tunable(3, doc="fixed")

    table = field_table(Own)
    assert list(table) == ["rate", "word", "plain"]
    rate, word = table["rate"], table["word"]
    assert (rate.annotation, rate.default, rate.doc) == ("float", 0.5, "how fast")
    assert rate.range is not None and (rate.range.kind, rate.range.bounds) == ("near_one", (0.9, 0.99))
    assert word.range is not None and word.range.ends() == ("a", "c")
    assert table["plain"].range is None
