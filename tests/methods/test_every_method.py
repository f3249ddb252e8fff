"""One contract, kept by every registered method: whoever adds a method adds no test here, only a row of PUBLISHED."""

from __future__ import annotations

import dataclasses
import inspect
import io
from typing import Any

import numpy as np
import pytest
import torch
from tiny import BUSH15, ENCODER, copy_state, generator, make_clips, make_config, make_method, movements, own_config

from tiny import policy, same  # isort: skip

from methods.augment.policy import Policy
from methods.base import Method, Views
from methods.data.layouts import KINECT20, NTU25, Layout
from methods.fields import field_table
from methods.nn.ema import Ema
from methods.registry import get_method, list_methods
from methods.training.features import extract
from methods.training.pretrain import pretrain, start
from methods.training.probe import weighted_knn

METHODS = list_methods()
every_method = pytest.mark.parametrize("name", METHODS)

# method -> what its paper or public code uses. Sections are those of the specification that the project was built from.
PUBLISHED: dict[str, dict[str, dict[str, Any]]] = {
    "skeletonclr": {  # section 8.1: head 256-256-128, InfoNCE, K 32768, tau .07, m .999; optimiser as 7.4
        "params": {"temperature": 0.07, "momentum": 0.999, "queue": 32768, "hidden": 256, "projection": 128,
                   "projector_norm": False,
                   "momentum_schedule": "constant", "ema_buffers": "own"},
        "encoder": {"name": "stgcn", "width": 16, "dim": 256, "depth": 10, "dropout": 0.5},  # 1.1
        "augment": {"strength": 1.0, "crop": 6.0, "shear": 0.5, "flip": 0.0, "rotate": 0.0, "noise": 0.0, "blur": 0.0,
                    "axis_mask": 0.0, "time_flip": 0.0},  # "two normal views": 7.2
        "optim": {"name": "sgd", "lr": 0.1, "sgd_momentum": 0.9, "weight_decay": 1e-4, "nesterov": False, "batch": 128,
                  "schedule": "step", "step_at": 250 / 300, "step_factor": 0.1},  # 7.4: x0.1 after 250 of 300
        "run": {"frames": 50, "epochs": 300},
    },
    "skeletonbyol": {  # section 2.1: g 512-2048-512, h 512-2048-512, m .996 fixed
        "params": {"momentum": 0.996, "momentum_schedule": "constant", "hidden": 2048, "projection": 512,
                   "ema_buffers": "own"},
        "encoder": {"name": "stgcn", "width": 16, "dim": 512, "depth": 10, "dropout": 0.5},  # 2.1
        "augment": {"strength": 1.0, "crop": 6.0, "shear": 0.5, "flip": 0.0, "rotate": 0.0, "noise": 0.0, "blur": 0.0,
                    "axis_mask": 0.0, "time_flip": 0.0},  # 2.2
        "optim": {"name": "sgd", "lr": 0.1, "sgd_momentum": 0.9, "weight_decay": 1e-4, "nesterov": False, "batch": 128,
                  "schedule": "constant"},  # 2.4
        "run": {"frames": 50, "epochs": 60},  # 2.3, NTU60 single stream
    },
}  # fmt: skip

# When the slow copy moves: before the key's pass (1.5) or after the optimiser's step (2.1).
MOVES_IN_LOSS = {"skeletonclr": True, "skeletonbyol": False}


def batch(layout: Layout = NTU25, frames: int = 16, persons: int = 2, count: int = 5, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(movements(count, frames, layout, persons, seed=seed)[0])


def views_of(method: Method, name: str, clips: torch.Tensor, layout: Layout = NTU25, seed: int = 0) -> Views:
    return method.make_views(clips, policy(name, layout), generator(seed))


def slow_copies(method: Method) -> dict[str, Ema]:
    return {n: m for n, m in method.named_modules() if isinstance(m, Ema)}


def online_of(method: Method, slow: str) -> torch.nn.Module:
    """By the room's convention ``slow_x`` is the slow copy of ``x``."""
    return method.get_submodule(slow.removeprefix("slow_"))


def sgd(method: Method, lr: float = 0.05) -> torch.optim.SGD:
    return torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=lr, momentum=0.9)


def step(method: Method, name: str, solver: torch.optim.Optimizer, seed: int, count: int = 5) -> float:
    loss = method.loss(views_of(method, name, batch(seed=seed, count=count), seed=seed), 0.0).loss
    solver.zero_grad()
    loss.backward()
    solver.step()
    method.after_step(0.0)
    return loss.item()


# --- the published values -------------------------------------------------------------------------------------------


@every_method
def test_defaults_are_the_published_ones(name: str) -> None:
    entry = get_method(name)
    assert name in PUBLISHED, f"write what '{name}' was published with into PUBLISHED"
    recipe = entry.recipe
    found = {
        "params": entry.config(),
        "encoder": recipe.encoder,
        "augment": recipe.augment,
        "optim": recipe.optim,
        "run": recipe,
    }
    for part, values in PUBLISHED[name].items():
        assert {k: getattr(found[part], k) for k in values} == values, part
    assert recipe.source and entry.summary


@every_method
def test_every_suggested_range_constructs_at_both_ends(name: str) -> None:
    for setting, info in field_table(get_method(name).config).items():
        assert info.doc, f"{setting} has no line of doc"
        if info.range is not None:
            for end in info.range.ends():
                config = dataclasses.replace(get_method(name).config(), **{setting: end})
                assert getattr(config, setting) == end


@every_method
def test_every_end_of_a_range_gives_a_loss(name: str) -> None:
    for setting, info in field_table(get_method(name).config).items():
        if info.range is None or setting in ("hidden", "projection"):  # those only make the heads wide
            continue
        for end in info.range.ends():
            method = make_method(name, **{setting: end})
            assert torch.isfinite(method.loss(views_of(method, name, batch()), 0.5).loss), f"{setting} = {end}"


# --- loss and gradients ---------------------------------------------------------------------------------------------


@every_method
def test_gradients_reach_what_is_trained_and_nothing_else(name: str) -> None:
    method = make_method(name)
    out = method.loss(views_of(method, name, batch()), 0.0)
    assert out.loss.shape == () and torch.isfinite(out.loss)
    assert all(not v.requires_grad and v.shape == () for v in out.logs.values())
    out.loss.backward()
    slow = {id(p) for ema in slow_copies(method).values() for p in ema.parameters()}
    for key, p in method.named_parameters():
        if id(p) in slow:
            assert not p.requires_grad and p.grad is None, key
        else:
            assert p.grad is not None and torch.isfinite(p.grad).all(), key
            # A bias before a batch norm has no effect but must at least be in the graph.
            assert p.grad.abs().sum() > 0 or key.endswith("bias"), key
    assert all(b.grad is None and not b.requires_grad for b in method.buffers())


@every_method
def test_features_are_the_encoders(name: str) -> None:
    method = make_method(name).eval()
    x = batch()
    assert torch.equal(method.embed(x), method.encoder(x))
    assert method.embed(x).shape == (5, method.encoder.dim)


@every_method
@pytest.mark.parametrize(
    ("layout", "frames", "persons"), [(NTU25, 17, 1), (BUSH15, 9, 2), (KINECT20, 16, 3), (NTU25, 8, 2)]
)
def test_any_layout_length_and_number_of_persons(name: str, layout: Layout, frames: int, persons: int) -> None:
    method = make_method(name, layout)
    x = batch(layout, frames, persons)
    out = method.loss(views_of(method, name, x, layout), 0.3)
    out.loss.backward()
    assert torch.isfinite(out.loss)
    assert method.embed(x).shape == (5, method.encoder.dim)


@every_method
def test_bf16_and_real_bodies_give_nearly_the_same_kind_of_loss(name: str) -> None:
    for change in ({"precision": "bf16"}, {"bodies": "real"}, {"segments": 2}, {"input_norm": "scale"}):
        encoder = dataclasses.replace(ENCODER, **change)
        method = make_method(name, encoder=encoder)
        loss = method.loss(views_of(method, name, batch()), 0.0).loss
        loss.backward()
        assert torch.isfinite(loss) and loss.dtype == torch.float32, change


# --- each loss by its own formula -----------------------------------------------------------------------------------


def unit_rows(x: torch.Tensor) -> np.ndarray:
    rows = x.detach().double().numpy()
    return rows / np.sqrt((rows**2).sum(1, keepdims=True))


def loss_of_skeletonclr(method: Any, views: Views) -> float:
    """Query from view a, key from view b by the slow copy; -log of the own key's share among itself and the queue."""
    q = unit_rows(method.projector(method.encoder(views["a"])))
    k = unit_rows(method.slow_projector(method.slow_encoder(views["b"])))
    queue = method.queue.keys.double().numpy()
    own = np.exp((q * k).sum(1) / method.config.temperature)
    others = np.exp(q @ queue.T / method.config.temperature).sum(1)
    return float(-np.log(own / (own + others)).mean())


def loss_of_skeletonbyol(method: Any, views: Views) -> float:
    """Section 2.3: d(p_1, t_2) + d(p_2, t_1), d(a, b) = |a/|a| - b/|b||^2, the mean over clips."""
    p1, p2 = (unit_rows(method.predictor(method.projector(method.encoder(views[v])))) for v in "ab")
    t1, t2 = (unit_rows(method.slow_projector(method.slow_encoder(views[v]))) for v in "ab")
    return float(((p1 - t2) ** 2).sum(1).mean() + ((p2 - t1) ** 2).sum(1).mean())


BY_HAND = {"skeletonclr": loss_of_skeletonclr, "skeletonbyol": loss_of_skeletonbyol}


@every_method
def test_loss_is_its_formula(name: str) -> None:
    """After a step that set the slow copy apart, with a momentum of 1 that leaves it there. By batch statistics."""
    method = make_method(name, momentum=1.0, encoder=dataclasses.replace(ENCODER, init="torch"))
    step(method, name, sgd(method, lr=0.5), 0)
    present = torch.ones(5, 2, dtype=torch.bool)
    a, b = batch(seed=4), batch(seed=5).roll(1, 0)  # a clip's second view is of another movement
    views = Views({"a": a, "b": b}, present)
    expected = BY_HAND[name](method, views)
    same_view = BY_HAND[name](method, Views({"a": a, "b": a}, present))
    assert abs(same_view - expected) > 0.02, "the two views cannot be told apart here"
    assert method.loss(views, 0.0).loss.item() == pytest.approx(expected, rel=1e-4)


# --- the slow copy --------------------------------------------------------------------------------------------------


@every_method
@pytest.mark.parametrize("momentum", [0.9, 1.0, 0.0])
def test_slow_copies_move_by_exactly_the_stated_rate(name: str, momentum: float) -> None:
    """slow <- m slow + (1 - m) online, once a step, with the online weights of the published moment."""
    method = make_method(name, momentum=momentum)
    if not slow_copies(method):
        pytest.skip(f"{name} has no slow copy")
    solver = sgd(method, lr=0.5)
    step(method, name, solver, 0)  # now the online weights and the copy's differ
    before = {n: [p.clone() for p in ema.parameters()] for n, ema in slow_copies(method).items()}
    online_before = {n: [p.detach().clone() for p in online_of(method, n).parameters()] for n in before}
    step(method, name, solver, 1)
    for n, ema in slow_copies(method).items():
        seen = online_before[n] if MOVES_IN_LOSS[name] else [p.detach() for p in online_of(method, n).parameters()]
        for slow, old, new in zip(ema.parameters(), before[n], seen, strict=True):
            expected = momentum * old.double() + (1 - momentum) * new.double()
            torch.testing.assert_close(slow.double(), expected, rtol=1e-6, atol=1e-8)
            if momentum in (0, 1):
                assert torch.equal(slow, old if momentum else new)
        moved = any(not torch.equal(p, q) for p, q in zip(ema.parameters(), before[n], strict=True))
        assert moved == (momentum < 1)


@every_method
def test_rising_momentum_stops_the_copy_at_the_end(name: str) -> None:
    method = make_method(name, momentum=0.5, momentum_schedule="cosine")
    if not slow_copies(method):
        pytest.skip(f"{name} has no slow copy")
    step(method, name, sgd(method), 0)
    before = {n: copy_state(ema) for n, ema in slow_copies(method).items()}
    method.eval()  # so that batch norm keeps still
    with torch.no_grad():
        method.loss(views_of(method, name, batch()), 1.0)
        method.after_step(1.0)
    for n, ema in slow_copies(method).items():
        parameters = {k for k, _ in ema.named_parameters()}
        assert all(torch.equal(v, before[n][k]) for k, v in ema.state_dict().items() if k in parameters)


@every_method
@pytest.mark.parametrize("sync", [True, False])
def test_slow_copy_starts_equal_only_if_asked(name: str, sync: bool) -> None:
    method = make_method(name, init_sync=sync)
    for n, ema in slow_copies(method).items():
        pairs = list(zip(ema.parameters(), online_of(method, n).parameters(), strict=True))
        assert all(torch.equal(p, q) for p, q in pairs) == sync


# --- state ----------------------------------------------------------------------------------------------------------


@every_method
def test_state_survives_saving_in_the_middle_of_the_queue(name: str) -> None:
    """Batches of 5 into a queue of 12: after three steps the pointer stands at 3, past one wrap."""
    method = make_method(name)
    solver = sgd(method)
    for seed in range(3):
        step(method, name, solver, seed)
    if hasattr(method, "queue"):
        assert int(method.queue.pointer) == 3
    file = io.BytesIO()
    torch.save({"model": method.state_dict(), "optimiser": solver.state_dict()}, file)
    file.seek(0)
    stored = torch.load(file, weights_only=True)
    other = make_method(name, seed=5)
    assert not same(copy_state(other), copy_state(method))
    other.load_state_dict(stored["model"])
    again = sgd(other)
    again.load_state_dict(stored["optimiser"])
    assert same(copy_state(other), copy_state(method))
    for seed in (3, 4):
        assert step(other, name, again, seed) == step(method, name, solver, seed)
    assert same(copy_state(other), copy_state(method))


@every_method
def test_batch_larger_than_the_queue_and_batch_of_two(name: str) -> None:
    method = make_method(name)
    solver = sgd(method)
    for seed, count in enumerate((13, 2, 12, 7)):
        assert np.isfinite(step(method, name, solver, seed, count))


# --- views ----------------------------------------------------------------------------------------------------------


def test_views_have_no_place_for_labels() -> None:
    assert {f.name for f in dataclasses.fields(Views)} == {"clips", "present", "extra"}


@every_method
def test_views_take_no_labels(name: str) -> None:
    assert list(inspect.signature(get_method(name).cls.make_views).parameters) == [
        "self",
        "clips",
        "policy",
        "generator",
    ]
    assert list(inspect.signature(get_method(name).cls.loss).parameters) == ["self", "views", "progress"]


@every_method
def test_views_are_a_function_of_clips_and_generator(name: str) -> None:
    method = make_method(name)
    x = batch()
    kept = x.clone()
    first, second, other = (views_of(method, name, x, seed=s) for s in (1, 1, 2))
    assert torch.equal(x, kept), "the clips themselves were changed"
    assert first.clips.keys() == second.clips.keys()
    assert all(torch.equal(first[k], second[k]) for k in first.clips)
    assert any(not torch.equal(first[k], other[k]) for k in first.clips)
    keys = list(first.clips)
    assert len(keys) < 2 or not torch.equal(first[keys[0]], first[keys[1]]), "two views got the same draws"
    expected = np.array([[body.any() for body in np.moveaxis(clip, -1, 0)] for clip in x.numpy()])
    assert np.array_equal(first.present.numpy(), expected)


@every_method
def test_a_clips_views_do_not_depend_on_the_other_clips(name: str) -> None:
    method = make_method(name)
    x, y = batch(seed=1), batch(seed=2)
    y[2] = x[2]
    strong = Policy(dataclasses.replace(get_method(name).recipe.augment, noise=0.1, blur=0.5, rotate=30.0), NTU25)
    first, second = (method.make_views(clips, strong, generator()) for clips in (x, y))
    for k in first.clips:
        assert torch.equal(first[k][2], second[k][2])
        assert not torch.equal(first[k][1], second[k][1])


# --- learning -------------------------------------------------------------------------------------------------------


@every_method
def test_thirty_steps_teach_something(name: str) -> None:
    """32 clips of four movements, 30 steps: neighbours share a class far above the chance of 1/4."""
    clips = make_clips(32)
    config = make_config(name, epochs=8, params=own_config(name, momentum=0.9, queue=64, hidden=64, projection=32))
    config = dataclasses.replace(config, optim=dataclasses.replace(config.optim, name="adam", lr=3e-3))
    run = start(config, clips, np.arange(32), seed=0)
    epochs = list(pretrain(run))
    assert run.step == 32
    everything = torch.arange(32)
    z = extract(run.model, run.store, everything, everything)["joint"]
    labels = torch.from_numpy(clips.labels)
    similarity = torch.nn.functional.normalize(z, dim=1)
    hits = 0
    for i in range(32):
        rest = everything[everything != i]
        hits += int(weighted_knn(similarity[rest], labels[rest], similarity[i : i + 1], 4, 3, 0.1).argmax()) == int(
            labels[i]
        )
    assert hits / 32 > 0.6
    if name == "skeletonbyol":  # a queue's loss first rises while real keys replace the random ones
        assert epochs[-1].loss < 0.6 * epochs[0].loss
