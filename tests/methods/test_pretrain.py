"""Pretraining: the same seed gives the same bits, a resumed run too, and what cannot go on ends by name."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from tiny import BUSH15, copy_state, generator, make_clips, make_config, own_config, same
from torch import Tensor, nn

from methods import registry
from methods.augment.policy import AugmentConfig
from methods.base import JointMethod, Method, StepOutput, Views
from methods.data.streams import derive
from methods.errors import InputError
from methods.fields import tunable
from methods.recipe import OptimConfig
from methods.registry import list_methods, register
from methods.training import checkpoint
from methods.training.branches import Branches
from methods.training.config import StreamsConfig, TrialConfig
from methods.training.optim import learning_rate, make_optimiser
from methods.training.pretrain import COLLAPSE_MIN_STEPS, Collapsed, Diverged, Epoch, Run, pretrain, start
from methods.training.seeds import derive_seed
from methods.training.seeds import generator as seeded

every_method = pytest.mark.parametrize("name", list_methods())
CLIPS = make_clips(28, frames=8, layout=BUSH15)  # three batches of 8 and a rest of 4


def small(method: str = "skeletonbyol", epochs: int = 3, **changes: Any) -> TrialConfig:
    return make_config(method, epochs, **({"frames": 8} | changes))


def begin(config: TrialConfig, seed: int = 0, count: int = 28) -> Run:
    return start(config, CLIPS, np.arange(count), seed=seed)


def dropping(config: TrialConfig) -> TrialConfig:
    """With dropout, two streams and every augmentation on: all that draws."""
    return dataclasses.replace(
        config,
        encoder=dataclasses.replace(config.encoder, dropout=0.3),
        augment=AugmentConfig(flip=0.5, rotate=20.0, noise=0.01, blur=0.3, axis_mask=0.2, time_flip=0.2),
        streams=StreamsConfig(registry.get_method(config.method).cls.only_streams or ("joint", "motion")),
    )


# --- the same bits --------------------------------------------------------------------------------------------------


@every_method
def test_same_seed_same_weights(name: str) -> None:
    config = dropping(small(name, epochs=2))
    runs = [begin(config), begin(config)]
    torch.manual_seed(1)
    first = list(pretrain(runs[0]))
    torch.manual_seed(2)  # torch's global state must not matter
    torch.rand(7)
    second = list(pretrain(runs[1]))
    assert same(copy_state(runs[0].model), copy_state(runs[1].model))
    assert [(e.loss, e.spread, e.logs) for e in first] == [(e.loss, e.spread, e.logs) for e in second]
    other = begin(config, seed=1)
    list(pretrain(other))
    assert not same(copy_state(other.model), copy_state(runs[0].model))


def test_pretraining_leaves_torchs_global_state_alone() -> None:
    state = torch.get_rng_state()
    list(pretrain(begin(dropping(small(epochs=1)))))
    assert torch.equal(torch.get_rng_state(), state)


@every_method
@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_resumed_equals_uninterrupted(name: str, solver: str, tmp_path) -> None:
    """Four epochs, or two, a file, another process's fresh model, and two more: the same bits, optimiser and queue."""
    config = dropping(small(name, epochs=4))
    optim = dataclasses.replace(config.optim, name=solver, lr=0.01, schedule="cosine", warmup=0.3)
    config = dataclasses.replace(config, optim=optim)
    whole = begin(config)
    whole_epochs = list(pretrain(whole))

    half = begin(config)
    list(pretrain(half, until=2))
    checkpoint.save(tmp_path / "x.pt", half)
    resumed = begin(config, seed=99)  # the stored seed counts
    checkpoint.restore(checkpoint.read(tmp_path / "x.pt"), resumed)
    rest = list(pretrain(resumed))

    assert [e.epoch for e in rest] == [3, 4]
    assert [(e.loss, e.spread, e.lr, e.step) for e in rest] == [
        (e.loss, e.spread, e.lr, e.step) for e in whole_epochs[2:]
    ]
    assert same(copy_state(resumed.model), copy_state(whole.model))
    mine, theirs = resumed.optimiser.state_dict()["state"], whole.optimiser.state_dict()["state"]
    assert mine.keys() == theirs.keys() and len(mine) > 10
    assert all(same(mine[k], theirs[k]) for k in mine)


def test_going_on_with_the_same_run_equals_one_go() -> None:
    config = dropping(small("skeletonclr", epochs=3))
    pieces, whole = begin(config), begin(config)
    for until in (1, 2, 3):
        assert [e.epoch for e in pretrain(pieces, until=until)] == [until]
    assert list(pretrain(pieces)) == []
    list(pretrain(whole))
    assert same(copy_state(pieces.model), copy_state(whole.model))


def test_looking_at_features_between_epochs_changes_nothing() -> None:
    from methods.training.features import extract

    config = dropping(small("skeletonclr", epochs=2))
    watched, plain = begin(config), begin(config)
    for _ in pretrain(watched):
        extract(watched.model, watched.store, torch.arange(10), torch.arange(20))
    list(pretrain(plain))
    assert same(copy_state(watched.model), copy_state(plain.model))


def test_a_streams_start_does_not_depend_on_the_others() -> None:
    config = small()
    both = Branches(dataclasses.replace(config, streams=StreamsConfig(("joint", "bone"))), CLIPS.layout, 3)
    alone = Branches(dataclasses.replace(config, streams=StreamsConfig(("bone",))), CLIPS.layout, 3)
    assert same(copy_state(both.branches["bone"]), copy_state(alone.branches["bone"]))
    assert not same(copy_state(both.branches["bone"]), copy_state(both.branches["joint"]))


def test_seeds_are_63_bits_and_far_apart() -> None:
    seeds = {derive_seed(a, b) for a in range(20) for b in ("init", "views", 3)}
    assert len(seeds) == 60 and all(0 <= s < 2**63 for s in seeds)
    assert derive_seed(1, "x") == derive_seed(1, "x")
    assert derive_seed(1, 23) != derive_seed(12, 3)


# --- epochs, steps, progress ----------------------------------------------------------------------------------------


def test_epochs_are_told_in_full() -> None:
    run = begin(small(epochs=2))
    epochs = list(pretrain(run))
    assert (run.steps_per_epoch, run.total_steps) == (3, 6)
    assert [(e.epoch, e.step) for e in epochs] == [(1, 3), (2, 6)]
    for e in epochs:
        assert isinstance(e, Epoch) and math.isfinite(e.loss) and e.spread > 0 and e.seconds > 0
        assert e.loss == pytest.approx(e.logs["joint/loss"]) and e.spread == e.logs["joint/spread"]
        assert "joint/projection_spread" in e.logs


def test_only_the_given_clips_are_seen() -> None:
    data = CLIPS.data.copy()
    data[16:] = np.nan
    blind = dataclasses.replace(CLIPS, data=data)
    run = start(small(epochs=2), blind, np.arange(16), seed=0)
    assert all(math.isfinite(e.loss) and math.isfinite(e.spread) for e in pretrain(run))


def test_labels_change_nothing() -> None:
    config = small("skeletonclr", epochs=1)
    other = start(config, dataclasses.replace(CLIPS, labels=CLIPS.labels[::-1].copy()), np.arange(28), seed=0)
    plain = begin(config)
    list(pretrain(plain)), list(pretrain(other))
    assert same(copy_state(plain.model), copy_state(other.model))


class Recorder(Method):
    """Descends |w|^2 and writes down what it is given."""

    def __init__(self, config: Any, encoder: Any) -> None:
        super().__init__(config, encoder)
        self.weight = nn.Parameter(torch.ones(2))
        self.seen: list[tuple[str, float]] = []
        self.views: list[Views] = []

    def loss(self, views: Views, progress: float) -> StepOutput:
        self.seen.append(("loss", progress))
        self.views.append(views)
        return StepOutput(self.weight.square().sum())

    def after_step(self, progress: float) -> None:
        self.seen.append(("after", progress))


class Early(Recorder):
    """As PSTL: its streams are derived before the views."""

    streams_derived = "before_views"


class Together(JointMethod):
    """Two streams with one weight; each stream's loss is its own multiple of |w|^2, so the sum can be read off."""

    def __init__(self, config: Any, encoders: Any) -> None:
        super().__init__(config, encoders)
        self.weight = nn.Parameter(torch.ones(2))
        self.views: list[dict[str, Views]] = []

    def losses(self, views: Any, progress: float) -> dict[str, StepOutput]:
        self.views.append(dict(views))
        each = {name: (k + 1) * self.weight.square().sum() for k, name in enumerate(self.streams)}
        return {name: StepOutput(loss, {"own": loss.detach()}) for name, loss in each.items()}


class Between(Recorder):
    """Noise after the stream has been taken."""

    streams_derived = "between"

    def make_views(self, clips: Any, policy: Any, generator: Any) -> Views:
        return Views({"a": policy(clips, generator)}, (clips != 0).flatten(1, 3).any(1))

    def finish_views(self, views: Views, policy: Any, generator: Any) -> Views:
        return views.map(lambda x: x + torch.rand(x.shape, generator=generator))


class Nanny(Recorder):
    """Returns NaN from its fifth step on."""

    def loss(self, views: Views, progress: float) -> StepOutput:
        out = super().loss(views, progress)
        return StepOutput(out.loss * float("nan")) if len(self.views) >= 5 else out


class Collapsing(Recorder):
    """All clips get one feature, from the step ``config.after`` on."""

    def embed(self, clips: Tensor, present: Tensor | None = None) -> Tensor:
        return torch.ones(len(clips), 4) if self.config.low(len(self.views)) else clips.flatten(1)


class NanFeatures(Recorder):
    def embed(self, clips: Tensor, present: Tensor | None = None) -> Tensor:
        return super().embed(clips, present) * float("nan")


@dataclasses.dataclass(frozen=True)
class OwnConfig:
    """Settings of the methods above; ``low`` says at which number of steps the features are collapsed."""

    temper: float = tunable(0.1, doc="nothing")
    low: Any = None


@pytest.fixture(autouse=True)
def _registered():
    before = {name: registry.get_method(name) for name in registry.BUILT_IN}  # imported, for a module registers once
    for cls in (Recorder, Early, Between, Together, Nanny, Collapsing, NanFeatures):
        register(cls.__name__.lower(), config=OwnConfig)(cls)
    yield
    registry._entries.clear()
    registry._entries.update(before)


def own(name: str, epochs: int, low: Any = None, **changes: Any) -> TrialConfig:
    return dataclasses.replace(small("skeletonbyol", epochs), method=name, params=OwnConfig(low=low), **changes)


def epochs_views(augment: AugmentConfig, index: np.ndarray) -> list[Tensor]:
    """View ``a`` of the one batch of each of two epochs."""
    run = start(own("recorder", 2, augment=augment), CLIPS, index, seed=0)
    list(pretrain(run))
    return [views["a"] for views in run.model.branches["joint"].views]


def test_every_epoch_has_its_own_order_and_draws() -> None:
    first, second = epochs_views(AugmentConfig(strength=0.0), np.arange(8))  # unchanged clips: only the order differs
    assert not torch.equal(first, second)
    assert sorted(first.flatten(1).sum(1).tolist()) == sorted(second.flatten(1).sum(1).tolist())
    first, second = epochs_views(AugmentConfig(crop=0.0), np.zeros(8, dtype=np.int64))  # one clip: only the draws do
    assert not torch.equal(first, second)


@pytest.mark.parametrize("until", [None, 2])
def test_progress_is_of_the_whole_run(until: int | None) -> None:
    """Step i of 4 epochs of 3 steps has i/12 behind it, however soon the rung ends; loss and after_step agree."""
    run = begin(own("recorder", 4))
    list(pretrain(run, until=until))
    steps = 12 if until is None else 6
    expected = [(what, i / 12) for i in range(steps) for what in ("loss", "after")]
    assert run.model.branches["joint"].seen == expected


def test_learning_rate_is_of_the_whole_run() -> None:
    """A cosine over 12 steps; at the rung after 6 the last step was the sixth: lr/2 (1 + cos(pi 5/12))."""
    config = own("recorder", 4, optim=OptimConfig(batch=8, lr=0.2, schedule="cosine"))
    run = begin(config)
    *_, last = pretrain(run, until=2)
    expected = 0.1 * (1 + math.cos(math.pi * 5 / 12))
    assert last.lr == pytest.approx(expected)
    assert run.optimiser.param_groups[0]["lr"] == pytest.approx(expected)


def test_a_run_of_plain_sgd_is_computed_by_hand() -> None:
    """d|w|^2 = 2w; with momentum 0.5, decay 0.1, lr 0.1: v <- .5 v + 2.1 w, w <- w - .1 v, from w = 1, v = 0."""
    optim = OptimConfig(batch=8, lr=0.1, sgd_momentum=0.5, weight_decay=0.1)
    run = begin(own("recorder", 1, optim=optim))
    list(pretrain(run))
    w, v = 1.0, 0.0
    for _ in range(3):
        v = 0.5 * v + 2 * w + 0.1 * w
        w -= 0.1 * v
    assert run.model.branches["joint"].weight.tolist() == pytest.approx([w, w], rel=1e-6)


def test_loss_weights_multiply_the_streams() -> None:
    """Weights 1:3 of two streams: L = 2 (L_joint/4 + 3 L_bone/4); each branch's gradient is 2w times that."""
    run = begin(own("recorder", 1, streams=StreamsConfig(("joint", "bone"), loss=(1.0, 3.0))))
    out = run.model(run.store.take(torch.arange(8)), generator(), 0.0)
    assert out.loss.item() == pytest.approx(2 * 2 / 4 + 2 * 2 * 3 / 4)
    out.loss.backward()
    grads = [run.model.branches[s].weight.grad.tolist() for s in ("joint", "bone")]
    assert grads == [pytest.approx([1.0, 1.0]), pytest.approx([3.0, 3.0])]


@pytest.mark.parametrize("name", ["recorder", "early"])
def test_where_streams_are_derived(name: str) -> None:
    """After the views: the bone of the very views that the joint branch sees. Before: the views of the bone, by the
    same draws. With a flip that mirrors nothing (shear only) both are linear, so only noise tells them apart."""
    augment = AugmentConfig(crop=0.0, shear=0.3, noise=0.5, noise_probability=1.0)
    run = begin(own(name, 1, augment=augment, streams=StreamsConfig(("joint", "bone"))))
    clips = run.store.take(torch.arange(8))
    run.model(clips, generator(3), 0.0)
    joint, bone = (run.model.branches[s].views[0] for s in ("joint", "bone"))
    derived = derive(joint["a"], "bone", CLIPS.layout)
    if name == "recorder":
        assert all(torch.equal(derive(joint[k], "bone", CLIPS.layout), bone[k]) for k in ("a", "b"))
    else:
        expected = run.model.policy(derive(clips, "bone", CLIPS.layout), generator(3))
        assert torch.equal(bone["a"], expected) and not torch.allclose(derived, bone["a"])
        assert torch.equal(joint["a"], run.model.policy(clips, generator(3)))
    there = torch.from_numpy((CLIPS.data[:8] != 0).any((1, 2, 3)))
    assert torch.equal(joint.present, there) and torch.equal(bone.present, there)


def test_views_that_are_finished_after_the_stream_was_taken() -> None:
    """Both streams get the same noise, on top of the stream of the one view."""
    augment = AugmentConfig(crop=0.0, shear=0.3)
    run = begin(own("between", 1, augment=augment, streams=StreamsConfig(("joint", "bone"))))
    clips = run.store.take(torch.arange(8))
    run.model(clips, generator(3), 0.0)
    joint, bone = (run.model.branches[s].views[0]["a"] for s in ("joint", "bone"))
    draws = generator(3)
    view = run.model.policy(clips, draws)
    noise = torch.rand(view.shape, generator=draws)
    torch.testing.assert_close(joint, view + noise)
    torch.testing.assert_close(bone, derive(view, "bone", CLIPS.layout) + noise)


def test_a_method_that_trains_its_streams_together() -> None:
    """Weights 1:3 of L_joint = 2, L_bone = 4: L = 2 (2/4 + 4 * 3/4); features come from every stream's own encoder."""
    run = begin(own("together", 1, streams=StreamsConfig(("joint", "bone"), loss=(1.0, 3.0))))
    out = run.model(run.store.take(torch.arange(8)), generator(), 0.0)
    assert out.loss.item() == pytest.approx(2 * (2 / 4 + 4 * 3 / 4))
    assert {name: value.item() for name, value in out.logs.items()} == {
        "joint/loss": 2.0,
        "joint/own": 2.0,
        "bone/loss": 4.0,
        "bone/own": 4.0,
    }
    (branch,) = run.model.branches.values()
    views = branch.views[0]
    assert torch.equal(derive(views["joint"]["a"], "bone", CLIPS.layout), views["bone"]["a"])
    clips = run.store.take(torch.arange(8))
    run.model.eval()
    features = run.model.embed(clips)
    torch.testing.assert_close(features["bone"], branch.encoders["bone"](derive(clips, "bone", CLIPS.layout)))
    assert len(run.model.encoders()) == 2
    first, again = list(pretrain(begin(own("together", 2)))), list(pretrain(begin(own("together", 2))))
    assert [e.loss for e in first] == [e.loss for e in again]


# --- ends -----------------------------------------------------------------------------------------------------------


def test_nan_loss_ends_with_its_step() -> None:
    """The fifth step is the second of the second epoch (three steps each)."""
    run = begin(own("nanny", 4))
    epochs = pretrain(run)
    assert next(epochs).epoch == 1
    with pytest.raises(Diverged, match="diverged at step 5") as caught:
        next(epochs)
    assert caught.value.reason == "diverged"


@every_method
def test_an_enormous_rate_diverges(name: str) -> None:
    config = small(name, epochs=30)
    config = dataclasses.replace(config, optim=dataclasses.replace(config.optim, lr=1e30))
    with pytest.raises(Diverged) as caught:
        list(pretrain(begin(config)))
    assert 2 <= int(caught.value.detail.rsplit(" ", 1)[1]) <= 9


def test_nan_features_are_divergence() -> None:
    with pytest.raises(Diverged, match="step 3"):
        next(pretrain(begin(own("nanfeatures", 3))))


def collapse_epoch(low: Any, epochs: int = 40) -> int | None:
    """The epoch in which a run of three steps an epoch collapses."""
    run = begin(own("collapsing", epochs, low))
    said = ""
    try:
        list(pretrain(run))
    except Collapsed as end:
        said = f"{end.reason}: {end.detail}"
    if not said:
        return None
    assert said == f"collapsed: collapsed at epoch {run.epoch}: spread of joint features 0.0000"
    return run.epoch


def test_collapse_is_never_called_before_fifty_steps() -> None:
    """Collapsed from the start, three steps an epoch: epoch 17 is the first end at 50 or more (51), 18 the second."""
    assert COLLAPSE_MIN_STEPS == 50
    assert collapse_epoch(lambda steps: True) == 18
    assert collapse_epoch(lambda steps: True, epochs=17) is None


def test_collapse_takes_two_epoch_ends_in_a_row() -> None:
    assert collapse_epoch(lambda steps: steps >= 60) == 21  # low at 60 and 63
    assert collapse_epoch(lambda steps: steps >= 60 and steps // 3 % 2 == 0, epochs=26) is None  # every other one
    assert collapse_epoch(lambda steps: steps == 60, epochs=24) is None


def test_a_first_low_epoch_is_remembered_in_the_checkpoint(tmp_path) -> None:
    config = own("recorder", 30)
    run = begin(config)
    list(pretrain(run, until=1))
    run.low_spread = 1
    checkpoint.save(tmp_path / "x.pt", run)
    again = begin(config)
    checkpoint.restore(checkpoint.read(tmp_path / "x.pt"), again)
    assert again.low_spread == 1


def test_one_collapsed_stream_of_two_is_enough() -> None:
    run = begin(own("collapsing", 30, low=lambda steps: steps > 0, streams=StreamsConfig(("joint", "motion"))))
    run.model.branches["joint"].config = OwnConfig(low=lambda steps: False)
    with pytest.raises(Collapsed, match="spread of motion features"):
        list(pretrain(run))


# --- what a user gives ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "changes", "message"),
    [
        (7, {}, "optim.batch is 8 but there are only 7 training clips"),
        (28, {"frames": 20}, "the clips have 8 frames, the configuration asks for 20"),
    ],
)
def test_what_does_not_fit_is_said_at_the_start(count: int, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        begin(small(**changes), count=count)


def test_batch_of_exactly_the_data() -> None:
    run = begin(small(epochs=1), count=8)
    assert [e.step for e in pretrain(run)] == [1]


def test_other_layouts_train() -> None:
    clips = make_clips(16, frames=17, persons=1)
    run = start(small("skeletonclr", 1, frames=17), clips, np.arange(16), seed=0)
    assert [e.step for e in pretrain(run)] == [2]


# --- the optimiser and its rate -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "warmup", "values"),
    [
        ("constant", 0.0, {0.0: 1.0, 0.5: 1.0, 0.999: 1.0}),
        ("step", 0.0, {0.0: 1.0, 0.79: 1.0, 0.8: 0.1, 0.99: 0.1}),
        ("cosine", 0.0, {0.0: 1.0, 1 / 3: 0.75, 0.5: 0.5, 2 / 3: 0.25, 1.0: 0.0}),
        ("cosine", 0.2, {0.0: 0.01, 0.1: 0.5, 0.2: 1.0, 0.6: 0.5, 1.0: 0.0}),
        ("constant", 0.5, {0.0: 0.01, 0.25: 0.5, 0.5: 1.0, 0.9: 1.0}),
        ("step", 0.1, {0.05: 0.5, 0.1: 1.0, 0.8: 0.1}),
    ],
)
def test_learning_rate_at_chosen_points(schedule: str, warmup: float, values: dict[float, float]) -> None:
    """Cosine: (1 + cos(pi p))/2 is 3/4, 1/2, 1/4 at p = 1/3, 1/2, 2/3 of what follows the warm-up."""
    config = OptimConfig(lr=3.0, schedule=schedule, warmup=warmup, step_at=0.8, step_factor=0.1)
    for progress, share in values.items():
        assert learning_rate(config, progress) == pytest.approx(3 * share, abs=1e-9), progress


def test_published_step_falls_after_epoch_250_of_300() -> None:
    optim = registry.get_method("skeletonclr").recipe.optim
    for per_epoch in (1, 7, 313):
        total = 300 * per_epoch
        assert learning_rate(optim, (250 * per_epoch - 1) / total) == pytest.approx(0.1)
        assert learning_rate(optim, 250 * per_epoch / total) == pytest.approx(0.01)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_optimiser_holds_what_is_trained_with_its_settings(name: str) -> None:
    model = begin(small("skeletonclr")).model
    config = OptimConfig(name=name, lr=0.3, weight_decay=0.02, sgd_momentum=0.7, nesterov=True)
    solver = make_optimiser(config, model.parameters())
    held = {id(p) for group in solver.param_groups for p in group["params"]}
    assert held == {id(p) for p in model.parameters() if p.requires_grad}
    group = solver.param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (0.3, 0.02)
    if name == "sgd":
        assert (group["momentum"], group["nesterov"]) == (0.7, True)


def test_momentum_of_the_target_follows_the_whole_run() -> None:
    """A rising momentum read at progress 2/3 of the run, though the rung ends there."""
    config = small(
        "skeletonbyol", epochs=3, params=own_config("skeletonbyol", momentum=0.5, momentum_schedule="cosine")
    )
    run = begin(config)
    list(pretrain(run, until=2))
    branch = run.model.branches["joint"]
    assert branch.slow_encoder.rate(run.step / run.total_steps) == pytest.approx(
        1 - 0.5 * (math.cos(math.pi * 2 / 3) + 1) / 2
    )


@pytest.mark.parametrize("repeat", [False, True])
def test_draws_repeat_in_every_epoch_only_if_asked(repeat: bool) -> None:
    """The order of the clips differs from epoch to epoch; the first shear of an epoch tells whether the draws do."""
    augment = AugmentConfig(crop=0.0, shear=0.5, repeat=repeat)
    run = begin(own("recorder", 2, augment=augment))
    steps = run.steps_per_epoch
    list(pretrain(run))
    views = run.model.branches["joint"].views
    shears = []
    for epoch in (0, 1):
        order = torch.randperm(len(run.index), generator=seeded("cpu", run.seed, "order", epoch))[:8]
        clip = run.store.take(run.index[order])[0].flatten(1)  # (C, T*V*M) of the first clip
        shears.append(views[epoch * steps]["a"][0].flatten(1) @ torch.linalg.pinv(clip))
    assert torch.allclose(*shears, atol=1e-4) == repeat
