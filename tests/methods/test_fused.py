"""Several runs as one batched model: the numbers of each alone, in float64 to 1e-9 after twenty steps and more."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import BUSH15, make_clips, make_config

from methods import registry
from methods.errors import InputError
from methods.fields import field_table
from methods.training import checkpoint
from methods.training.config import StreamsConfig, TrialConfig, with_settings
from methods.training.fusing import Fused, faults, together_until
from methods.training.fusing.agreement import DOES_NOT, FUSES
from methods.training.fusing.solver import Row, make_solver
from methods.training.pretrain import Diverged, Epoch, Run, pretrain, start
from methods.training.pretrain import _one_epoch as epoch_alone

CLIPS = make_clips(16, frames=8, layout=BUSH15)  # four batches of 4; every second clip has one body
WIDE, TWICE = (
    dataclasses.replace(clips, data=clips.data.astype(np.float64))
    for clips in (CLIPS, make_clips(32, frames=8, layout=BUSH15))
)
EPOCHS = 5
NEAR = 1e-9
SPREAD = 1e-5  # of features, which is taken in float32 whatever the weights are

# What three runs have for each number of a method: a run's own value, or what its published one is multiplied by.
OWN: dict[str, tuple[float, ...]] = {"momentum": (0.9, 0.99, 0.7), "drop_threshold": (0.7, 0.75, 0.8)}
TIMES: dict[str, tuple[float, ...]] = {
    "temperature": (1.0, 2.0, 3.0),
    "d3m_weight": (1.0, 0.5, 2.0),
    "repulsion": (1.0, 0.5, 0.8),
    "off_diagonal": (1.0, 3.0, 10.0),
    "regional_weight": (1.0, 0.5, 2.0),
    "cross_weight": (1.0, 0.5, 0.1),
}
SWITCHES = {"mining_start": 0.4, "cross_start": 0.4}  # the same in all: they say when a stage begins
OF_VIEWS = {"parts_least": (1, 2, 1), "segments_more": (14, 1, 5), "mix_per_batch": (False, True, False)}
OF_RUNS = {  # what does not belong to the method
    "optim.lr": (0.01, 0.02, 0.005),
    "optim.weight_decay": (1e-4, 0.0, 1e-2),
    "optim.sgd_momentum": (0.9, 0.5, 0.0),
    "optim.schedule": ("constant", "cosine", "step"),
    "optim.step_at": (0.5, 0.5, 0.5),
    "augment.strength": (1.0, 0.5, 0.7),
    "augment.repeat": (False, True, False),
}
SMALLER = {"queue": 10, "repeats": 1}  # the queue wraps amid a batch
every_fused = pytest.mark.parametrize("method", sorted(FUSES))


def configuration(method: str, k: int = 0, **changes: Any) -> TrialConfig:
    """The ``k``-th of three runs that differ in all that may differ. SGD, as of Adam: see below."""
    base = make_config(method, EPOCHS, frames=8)
    own = {name: values[k] for name, values in OF_RUNS.items()} | {"optim.name": "sgd", "optim.warmup": 0.0}
    own["optim.batch"] = 4
    if method == "skeletonbt":  # its norms over four clips turn a unit in the last place into 1e-6 in twenty steps
        own |= {"optim.batch": 8, "optim.lr": own["optim.lr"] / 10}
    if len(base.streams.use) > 1:
        own["streams"] = StreamsConfig(use=("joint", "motion"), loss=((0.5, 0.5), (0.8, 0.2), (0.3, 0.7))[k])
    for name in field_table(type(base.params)):
        if name in OWN or name in OF_VIEWS:
            own[name] = {**OWN, **OF_VIEWS}[name][k]
        elif name in TIMES:
            own[name] = getattr(base.params, name) * TIMES[name][k]
        elif name in SWITCHES:
            own[name] = SWITCHES[name]
        elif name in SMALLER:
            own[name] = SMALLER[name]
    if k == 1 and "momentum_schedule" in field_table(type(base.params)):
        own["momentum_schedule"] = "cosine"
    return with_settings(base, own | changes)


def begin(config: TrialConfig, seed: int = 0, clips: Any = None) -> Run:
    """A run in float64 where its clips are; by default on four batches."""
    clips = clips or (TWICE if config.optim.batch == 8 else WIDE)
    run = start(config, clips, np.arange(len(clips)), seed=seed)
    run.model.to(torch.float64 if clips.data.dtype == np.float64 else torch.float32)
    return run


def three(method: str, **changes: Any) -> list[Run]:
    return [begin(configuration(method, k, **changes), seed=k) for k in range(3)]


def apart(one: Run, other: Run, ignore: tuple[str, ...] = ("-",)) -> float:
    """The largest :func:`difference` of any weight, buffer or state of the optimiser; all else has to be the same."""
    assert (one.epoch, one.step) == (other.epoch, other.step)
    mine, theirs = one.optimiser.state_dict(), other.optimiser.state_dict()
    assert mine["param_groups"] == theirs["param_groups"]
    assert {i: set(held) for i, held in mine["state"].items()} == {i: set(held) for i, held in theirs["state"].items()}
    pairs = [(held[key], theirs["state"][i][key]) for i, held in mine["state"].items() for key in held]
    known = other.model.state_dict()
    pairs += [
        (value, known[name]) for name, value in one.model.state_dict().items() if not name.endswith(ignore or "-")
    ]
    return max(difference(a, b) for a, b in pairs)


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest one, relative where numbers are above 1."""
    one, other = one.detach().double(), other.detach().double()
    return float(((one - other).abs() / other.abs().clamp(min=1)).max())


def assert_same_epochs(one: Epoch, other: Epoch) -> None:
    assert (one.epoch, one.step, one.lr) == (other.epoch, other.step, other.lr)
    assert one.loss == pytest.approx(other.loss, abs=NEAR)
    assert one.spread == pytest.approx(other.spread, abs=SPREAD)
    assert one.logs.keys() == other.logs.keys()
    for name, value in one.logs.items():
        assert value == pytest.approx(other.logs[name], abs=SPREAD if "spread" in name else NEAR), name


# --- equality ---------------------------------------------------------------------------------------------------------


@every_fused
def test_three_runs_as_one_are_the_three_runs(method: str) -> None:
    """Twenty steps, with everything different that may be: rates, temperatures, momenta, views, weights, order."""
    fused, alone = three(method), three(method)
    told = list(Fused(fused).train())
    assert len(told) == EPOCHS and fused[0].step == 20
    for k, run in enumerate(alone):
        for results, epoch in zip(told, pretrain(run), strict=True):
            assert results[k][0] is fused[k]
            assert_same_epochs(results[k][1], epoch)
        assert apart(fused[k], run) < NEAR
    assert apart_weights(alone[0], alone[1]) > 1e-3  # or the test would hold of one run three times


def apart_weights(one: Run, other: Run) -> float:
    return max(difference(a, b) for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True))


@every_fused
def test_every_number_of_a_method_differs_in_the_test_above(method: str) -> None:
    params = registry.get_method(method).config
    numbers = {name for name, info in field_table(params).items() if info.annotation == "float"}
    assert numbers <= {*OWN, *TIMES, *SWITCHES}


@settings(max_examples=4, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**31),
    lr=st.floats(0.001, 0.05),
    temperature=st.floats(0.05, 1.0),
    momentum=st.floats(0.5, 1.0),
    strength=st.floats(0.0, 1.4),
)
def test_a_group_of_one_is_the_run_alone(
    seed: int, lr: float, temperature: float, momentum: float, strength: float
) -> None:
    own = {"optim.lr": lr, "temperature": temperature, "momentum": momentum, "augment.strength": strength}
    config = configuration("skeletonclr", **own)
    fused, alone = begin(config, seed), begin(config, seed)
    (losses,), _ = Fused([fused]).one_epoch()
    torch.testing.assert_close(losses, epoch_alone(alone)[0], rtol=0, atol=NEAR)
    assert apart(fused, alone) < NEAR


WAYS = {
    "real bodies, stratified": ("skeletonclr", {"encoder.bodies": "real", "optim.order": "stratified"}),
    "the drop over real bodies": (
        "aimclr",
        {"encoder.bodies": "real", "optim.order": "stratified", "topk": 2, "mining_start": 0.1},
    ),
    "segments, one scale, noise": (
        "skelemixclr",
        {"encoder.segments": 2, "encoder.input_norm": "scale", "fill": "gaussian", "repeats": 2},
    ),
    "statistics that follow": ("skeletonclr", {"ema_buffers": "copy", "projector_norm": True}),
    "a head that is shared": ("crossclr", {"share_head": True, "cross_ema": "motion_only", "cross_start": 0.1}),
    "Nesterov": ("skeletonbyol", {"optim.nesterov": True, "optim.sgd_momentum": 0.9}),
    "a rate that warms up": ("cmal", {"optim.warmup": 0.3, "optim.schedule": "cosine"}),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_other_ways_of_a_step(way: str) -> None:
    method, changes = WAYS[way]
    fused, alone = three(method, **changes)[:2], three(method, **changes)[:2]
    Fused(fused).one_epoch()
    for run in alone:
        epoch_alone(run)
    assert max(apart(one, other) for one, other in zip(fused, alone, strict=True)) < NEAR


def test_the_streams_of_a_trial_as_one_pass_are_the_loop() -> None:
    streams = StreamsConfig(use=("joint", "motion", "bone"), loss=(0.5, 0.2, 0.3))
    config = dataclasses.replace(configuration("skeletonclr"), streams=streams)
    fused, alone = begin(config), begin(config)
    for [(_, epoch)], other in zip(Fused([fused]).train(), pretrain(alone), strict=True):
        assert isinstance(epoch, Epoch)
        assert_same_epochs(epoch, other)
    assert alone.step == 20
    assert apart(fused, alone) < NEAR


def test_runs_of_several_streams() -> None:
    """Whose streams are taken before the views, so that each makes its own from the same draws."""
    weighed = [StreamsConfig(use=("joint", "bone"), loss=loss) for loss in ("equal", (0.8, 0.2))]
    fused, alone = (
        [begin(dataclasses.replace(configuration("skeletonbt", k), streams=weighed[k]), seed=k) for k in range(2)]
        for _ in range(2)
    )
    Fused(fused).one_epoch()
    for one, other in zip(fused, alone, strict=True):
        epoch_alone(other)
        assert apart(one, other) < NEAR


def test_float32_stays_in_a_band() -> None:
    """Grouped kernels round otherwise, and every step enlarges it; here to 5e-6 in what was seen: the band is wider."""
    fused, alone = ([begin(configuration("skeletonclr", k), k, CLIPS) for k in range(3)] for _ in range(2))
    group = Fused(fused)
    for _ in range(3):
        for losses, run in zip(group.one_epoch()[0], alone, strict=True):
            torch.testing.assert_close(losses, epoch_alone(run)[0], rtol=0, atol=1e-3)
    assert max(apart_weights(one, other) for one, other in zip(fused, alone, strict=True)) < 1e-3


def test_bf16_stays_in_a_band() -> None:
    fused, alone = (begin(configuration("skeletonclr", **{"encoder.precision": "bf16"}), 0, CLIPS) for _ in range(2))
    (losses,), _ = Fused([fused]).one_epoch()
    torch.testing.assert_close(losses, epoch_alone(alone)[0], rtol=0, atol=2e-2)


# --- Adam: what has no effect is moved by rounding --------------------------------------------------------------------


def test_adam_gives_the_same_losses_and_all_weights_that_have_an_effect() -> None:
    """A bias in front of a batch norm has no gradient but rounding, which Adam divides by its own size."""
    changes = {"optim.name": "adam", "optim.lr": 5e-3, "optim.weight_decay": 0.0}
    fused, alone = three("skeletonbt", **changes)[:2], three("skeletonbt", **changes)[:2]
    group = Fused(fused)
    for _ in range(2):
        for losses, run in zip(group.one_epoch()[0], alone, strict=True):
            torch.testing.assert_close(losses, epoch_alone(run)[0], rtol=0, atol=NEAR)
    without = ("temporal.2.bias", "shortcut.0.bias", "temporal.3.running_mean", "shortcut.1.running_mean")
    assert max(apart(one, other, without) for one, other in zip(fused, alone, strict=True)) < 1e-7


@pytest.mark.parametrize(
    "changes",
    [
        {"optim.name": "adam"},
        {"optim.sgd_momentum": 0.8},
        {"optim.sgd_momentum": 0.8, "optim.nesterov": True},
        {"optim.sgd_momentum": 0.0},
        {},
    ],
)
def test_the_stacked_optimiser_is_torchs(changes: dict[str, Any]) -> None:
    """Five steps on given gradients, the first two by torch itself: state is read, used and written back."""
    stacked, alone = three("skeletonclr", **changes), three("skeletonclr", **changes)
    draws = torch.Generator().manual_seed(0)
    own = [{n: p for n, p in run.model.named_parameters() if p.requires_grad} for run in stacked]
    theirs = [{n: p for n, p in run.model.named_parameters() if p.requires_grad} for run in alone]
    gradients = [
        [{n: torch.randn(p.shape, generator=draws, dtype=p.dtype) for n, p in own[0].items()} for _ in range(3)]
        for _ in range(5)
    ]

    def by_torch(run: Run, weights: dict[str, Any], gradient: dict[str, torch.Tensor]) -> None:
        for name, weight in weights.items():
            weight.grad = gradient[name].clone()
        run.optimiser.step()

    for step in gradients[:2]:
        for run, weights, gradient in zip(stacked + alone, own + theirs, step + step, strict=True):
            by_torch(run, weights, gradient)
    stack = {n: torch.stack([weights[n].detach() for weights in own]) for n in own[0]}
    solver = make_solver([Row(run, weights, {}) for run, weights in zip(stacked, own, strict=True)], stack)
    rates = torch.tensor([run.config.optim.lr for run in stacked], dtype=torch.float64)
    for step in gradients[2:]:
        solver.step([torch.stack([gradient[n] for gradient in step]) for n in stack], rates)
        for run, weights, gradient in zip(alone, theirs, step, strict=True):
            by_torch(run, weights, gradient)
    solver.write_back()
    for k, (run, other) in enumerate(zip(stacked, alone, strict=True)):
        with torch.no_grad():
            for name, weight in own[k].items():
                weight.copy_(stack[name][k])
        assert apart(run, other) < 1e-12


# --- joining and leaving ----------------------------------------------------------------------------------------------


def test_a_run_leaves_and_goes_on_alone_and_so_do_the_others() -> None:
    """All begin alone, for the state of an optimiser has to come along; then one stops early, and goes on later."""
    fused, alone = three("skeletonclr"), three("skeletonclr")
    for run in fused:
        list(pretrain(run, until=1))
    group = Fused(fused)
    for results in group.train(until=4):
        assert [run for run, _ in results] == group.runs
        if fused[0].epoch == 2:
            group.leave(fused[1])
    assert [run.epoch for run in fused] == [4, 2, 4]
    assert [id(run) for run in group.runs] == [id(fused[0]), id(fused[2])]
    for run in fused:
        list(pretrain(run))
    for run, other in zip(fused, alone, strict=True):
        list(pretrain(other))
        assert apart(run, other) < NEAR
    with pytest.raises(InputError, match="not in the group"):
        group.leave(fused[1])


def test_a_run_that_is_trained_behind_the_groups_back_is_noticed() -> None:
    runs = three("skeletonclr")[:2]
    group = Fused(runs)
    group.one_epoch()
    epoch_alone(runs[1])
    with pytest.raises(InputError, match="trained on its own"):
        group.one_epoch()


def test_a_run_that_diverges_leaves_and_touches_no_other() -> None:
    def runs() -> list[Run]:
        return [begin(configuration("skeletonclr", k, **({"optim.lr": 1e300} if k == 1 else {})), k) for k in range(3)]

    fused, alone = runs(), runs()
    told = list(Fused(fused).train(until=3))
    with pytest.raises(Diverged) as end:
        list(pretrain(alone[1]))
    ends = [result for results in told for run, result in results if run is fused[1] and not isinstance(result, Epoch)]
    assert [str(each) for each in ends] == [end.value.detail]
    assert fused[1].epoch == alone[1].epoch < 3
    for k in (0, 2):
        list(pretrain(alone[k], until=3))
        assert apart(fused[k], alone[k]) < NEAR


def test_a_run_that_collapses_is_told_as_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("methods.training.pretrain.COLLAPSE_SPREAD", 10.0)
    monkeypatch.setattr("methods.training.pretrain.COLLAPSE_MIN_STEPS", 5)
    group = Fused(three("skeletonclr"))
    told = list(group.train())
    assert [type(result).__name__ for results in told for _, result in results] == [*["Epoch"] * 6, *["Collapsed"] * 3]
    assert not group.runs


def test_a_checkpoint_of_a_fused_run_is_one_of_its_own(tmp_path: Path) -> None:
    fused, alone = three("skeletonclr"), three("skeletonclr")
    list(Fused(fused).train(until=2))
    checkpoint.save(tmp_path / "run.pt", fused[1])
    restored = begin(fused[1].config, seed=1)
    checkpoint.restore(checkpoint.read(tmp_path / "run.pt"), restored)
    list(pretrain(restored))
    list(pretrain(alone[1]))
    assert apart(restored, alone[1]) < NEAR
    held = [*fused[1].model.state_dict().values()]
    held += [value for state in fused[1].optimiser.state.values() for value in state.values()]
    assert all(tensor.untyped_storage().nbytes() == tensor.nbytes for tensor in held)  # and not the group's


def test_stages_may_begin_apart_as_long_as_no_run_is_there() -> None:
    """Of five epochs one run mines from the middle on, the other later: until epoch 2 they are the same to a loss."""

    def runs() -> list[Run]:
        return [begin(configuration("aimclr", k, mining_start=(0.5, 0.9)[k]), seed=k) for k in range(2)]

    fused, alone = runs(), runs()
    assert together_until(fused) == 2
    group = Fused(fused)
    with pytest.raises(InputError, match=r"mining_start differs between the runs: 0.5, 0.9: .* after epoch 2"):
        next(group.train())
    assert fused[0].step == 0
    list(group.train(until=2))
    for run, other in zip(fused, alone, strict=True):
        list(pretrain(other, until=2))
        assert apart(run, other) < NEAR
    group.leave(fused[1])
    assert [epoch for [(_, epoch)] in group.train() if isinstance(epoch, Epoch)][-1].epoch == EPOCHS


def test_dropout_draws_for_every_row_and_is_repeated_by_the_seed() -> None:
    """Twice the same run: the same views and weights, so only dropout can tell them apart."""

    def losses() -> list[torch.Tensor]:
        config = configuration("skeletonclr", **{"encoder.dropout": 0.5})
        return Fused([begin(config), begin(config)]).one_epoch()[0]

    first, again = losses(), losses()
    assert float((first[0] - first[1]).abs().min()) > 1e-6
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


def test_the_global_generator_is_left_alone() -> None:
    group = Fused([begin(configuration("skeletonclr", **{"encoder.dropout": 0.5}))])
    torch.manual_seed(5)
    before = torch.get_rng_state()
    group.one_epoch()
    assert torch.equal(before, torch.get_rng_state())


# --- what cannot be fused ---------------------------------------------------------------------------------------------


def test_every_built_in_method_is_known_to_fuse_or_not_to() -> None:
    assert {*FUSES, *DOES_NOT} == set(registry.BUILT_IN)
    assert not {*FUSES} & {*DOES_NOT}


@pytest.mark.parametrize("method", sorted(DOES_NOT))
def test_methods_that_do_not_fuse_are_named(method: str) -> None:
    run = start(make_config(method, frames=16), make_clips(16, frames=16), np.arange(16), seed=0)
    with pytest.raises(InputError, match=f"method '{method}' cannot be fused: {DOES_NOT[method]}"):
        Fused([run])


PAIRS: dict[str, tuple[dict[str, Any], str]] = {
    "architecture": ({"encoder.width": 8}, "encoder.width differs between the runs: 4, 8"),
    "dropout": ({"encoder.dropout": 0.1}, "encoder.dropout differs between the runs: 0.0, 0.1"),
    "batch": ({"optim.batch": 8}, "optim.batch differs between the runs: 4, 8"),
    "optimiser": ({"optim.name": "adam"}, "optim.name differs between the runs: sgd, adam"),
    "epochs": ({"epochs": 7}, "epochs differs between the runs: 5, 7"),
    "queue": ({"queue": 16}, "queue differs between the runs: 10, 16"),
    "buffers": ({"ema_buffers": "copy"}, "ema_buffers differs between the runs: own, copy"),
    "streams": (
        {"streams": StreamsConfig(use=("bone",))},
        r"streams.use differs between the runs: \('joint',\), \('bone',\)",
    ),
}


@pytest.mark.parametrize("what", PAIRS)
def test_what_must_not_differ_is_named(what: str) -> None:
    changes, words = PAIRS[what]
    with pytest.raises(InputError, match=words):
        Fused([begin(configuration("skeletonclr")), begin(configuration("skeletonclr", **changes))])


def test_all_faults_come_at_once() -> None:
    runs = [begin(configuration("skeletonclr")), begin(configuration("skeletonclr", queue=16, **{"encoder.dim": 8}))]
    assert faults(runs) == ["encoder.dim differs between the runs: 16, 8", "queue differs between the runs: 10, 16"]
    with pytest.raises(InputError) as refusal:
        Fused(runs)
    assert list(refusal.value.faults) == faults(runs)


def test_runs_of_different_places_are_refused() -> None:
    run = begin(configuration("skeletonclr"))
    assert faults([]) == ["there is no run to fuse"]
    assert faults([run, run]) == ["a run is named twice"]
    assert faults([run, begin(configuration("skeletonbyol"))]) == [
        "method differs between the runs: skeletonclr, skeletonbyol"
    ]
    narrow = begin(configuration("skeletonclr"), clips=CLIPS)
    assert faults([run, narrow]) == ["the type of the weights differs between the runs: torch.float64, torch.float32"]
    short = start(configuration("skeletonclr"), WIDE, np.arange(11), seed=0)
    short.model.double()
    assert faults([run, short]) == ["the number of steps an epoch differs between the runs: 4, 2"]
    ahead = begin(configuration("skeletonclr"))
    epoch_alone(ahead)
    assert [fault.split(" differs")[0] for fault in faults([run, ahead])] == ["the epoch reached", "the step reached"]


def test_bodies_whose_number_differs_are_refused() -> None:
    real = {"encoder.bodies": "real"}
    assert "optim.order: stratified only" in faults([begin(configuration("skeletonclr", **real))])[0]
    stratified = real | {"optim.order": "stratified"}
    assert "cannot be fused where clips are mixed" in faults([begin(configuration("skelemixclr", **stratified))])[0]
    other = dataclasses.replace(WIDE, data=WIDE.data.copy())
    other.data[:8, ..., 1:] = 0  # half as many clips of two bodies
    runs = [begin(configuration("skeletonclr", **stratified), clips=clips) for clips in (WIDE, other)]
    assert "different shares of two-person clips" in faults(runs)[0]
