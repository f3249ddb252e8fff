"""AimCLR: what the three views are, what each is compared with, which neighbours count from when on."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import ENCODER, copy_state, generator, make_clips, make_config, movements, own_config, policy, same
from torch import Tensor, nn

from methods.aimclr import RECIPE, AimCLR, AimCLRConfig, normal_part
from methods.augment.policy import AugmentConfig, Policy
from methods.base import Views
from methods.data.layouts import NTU25
from methods.errors import InputError
from methods.nn.build import build_encoder
from methods.nn.ema import Ema
from methods.nn.encoder import Encoder
from methods.official.aimclr import aimclr as place
from methods.training import checkpoint
from methods.training.config import StreamsConfig, published
from methods.training.pretrain import pretrain, start

ALONE, MINING = 0.5 - 1e-9, 0.5  # either side of the published mining_start


def clips(seed: int = 0, count: int = 5) -> Tensor:
    return torch.from_numpy(movements(count, 12, seed=seed)[0])


def make(seed: int = 0, bodies: str = "all", **own: Any) -> AimCLR:
    """Small and apart: the key encoder differs from the query encoder, weights are of torch's own size."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        shape = dataclasses.replace(ENCODER, init="torch", bodies=bodies)
        method = AimCLR(own_config("aimclr", **own), build_encoder(shape, NTU25))
        for p in method.parameters():
            p.data += 0.2 * torch.randn_like(p)
    return method.train()


def three(method: AimCLR, seed: int = 0) -> Views:
    return method.make_views(clips(seed), policy("aimclr"), generator(seed))


class Given(Encoder):
    """Features are what the clip holds, (N, D, 1, 1, 1); dropping takes away its last coordinate."""

    dim = 4

    def features(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        return x

    def pool(self, maps: Tensor, present: Tensor | None = None) -> Tensor:
        return maps.flatten(1)

    def drop_attended(self, maps: Tensor, threshold: float, present: Tensor | None = None) -> Tensor:
        return torch.cat([maps[:, :-1], torch.zeros_like(maps[:, -1:])], 1)

    def forward(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        return x.flatten(1)


def given_vectors(queue: Tensor, **own: Any) -> AimCLR:
    """A method that compares the vectors (N, 4) which its clips hold with ``queue`` (K, 4): no weights at all."""
    method = AimCLR(AimCLRConfig(projection=4, queue=len(queue), **own), Given())
    method.projector, method.slow_projector = nn.Identity(), Ema(nn.Identity(), 0.9)
    method.queue.keys.copy_(queue)
    return method


def vectors(query: list[float], key: list[float], extreme: list[float]) -> Views:
    named = {"a": query, "b": key, "extreme": extreme}
    held = {name: torch.tensor([row])[:, :, None, None, None] for name, row in named.items()}
    return Views(held, torch.ones(1, 1, dtype=torch.bool))


# --- the views ------------------------------------------------------------------------------------------------------


def everything_but_crop_and_shear() -> AugmentConfig:
    """Every op that is off unless asked for, those that AimCLR never asks for too, fully on."""
    off = [f.name for f in dataclasses.fields(AugmentConfig) if f.type == "float" and f.default == 0.0]
    assert {"flip", "rotate", "noise", "blur", "axis_mask", "time_flip"} <= set(off)
    own = {name: 1.0 for name in off if name != "crop_resize"}
    return AugmentConfig(crop=0.0, shear=0.0, **own)


def test_normal_views_are_touched_by_crop_and_shear_alone() -> None:
    x, loud = clips(), Policy(everything_but_crop_and_shear(), NTU25)
    views = make().make_views(x, loud, generator())
    assert list(views.clips) == ["a", "b", "extreme"]
    assert torch.equal(views["a"], x) and torch.equal(views["b"], x)
    assert not torch.equal(views["extreme"], x)
    assert loud.config == everything_but_crop_and_shear()  # the caller's policy is still the extreme one


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.3])
def test_normal_views_have_the_recipes_crop_and_shear_and_strength(strength: float) -> None:
    recipe = dataclasses.replace(RECIPE.augment, strength=strength, crop=4.0, shear=0.9)
    mild = AugmentConfig(strength=strength, crop=4.0, shear=0.9)
    assert normal_part(recipe) == mild
    x, draws = clips(), generator(3)
    views = make().make_views(x, Policy(recipe, NTU25), generator(3))
    for name, config in (("a", mild), ("b", mild), ("extreme", recipe)):
        assert torch.equal(views[name], Policy(config, NTU25)(x, draws)), name
        assert torch.equal(views[name], x) == (strength == 0)


def test_bodies_are_looked_for_before_an_axis_goes() -> None:
    """Noise and masks of the extreme view neither make bodies nor hide them."""
    x = clips()
    loud = dataclasses.replace(RECIPE.augment, noise_probability=1.0, noise_absent=True, axis_mask=1.0)
    views = make().make_views(x, Policy(loud, NTU25), generator())
    assert views.present.tolist() == [[True, i % 2 == 0] for i in range(5)]


# --- the loss -------------------------------------------------------------------------------------------------------


def unit(x: Tensor) -> np.ndarray:
    rows = x.detach().double().numpy()
    return rows / np.sqrt((rows**2).sum(1, keepdims=True))


def slow_drop(maps: Tensor, kappa: float) -> Tensor:
    """Section 7.1 on (B, C, T, V): joints by their mean attention, then cells by their own, each scaled up."""
    x = maps.detach().double().numpy()
    seen = np.empty_like(x)
    for b, c in np.ndindex(*x.shape[:2]):
        square = (x[b, c] - x[b, c].mean()) ** 2
        seen[b, c] = 1 / (1 + np.exp(-(square / (4 * (square.sum() / (square.size - 1) + 1e-4)) + 0.5)))
    joints = (seen.mean((1, 2)) < kappa).astype(float)
    cells = (seen < kappa).astype(float)
    assert 0 < joints.mean() < 1 and 0 < cells.mean() < 1
    dropped = x * joints[:, None, None, :] / joints.mean() * cells / cells.mean()
    return torch.from_numpy(dropped).to(maps.dtype)


def slow_loss(method: AimCLR, views: Views, mining: bool) -> float:
    """Section 7.3, clip by clip, from a key encoder that does not move."""
    c = method.config
    maps = method.encoder.features(views["extreme"])
    dropped = slow_drop(maps.flatten(0, 1), c.drop_threshold).view_as(maps)
    pooled = (method.encoder(views["a"]), *(method.encoder.pool(each) for each in (maps, dropped)))
    k = unit(method.slow_projector(method.slow_encoder(views["b"])))
    queue = method.queue.keys.double().numpy()
    rows = [unit(method.projector(each)) for each in pooled]
    cosines = [np.concatenate([(q * k).sum(1, keepdims=True), q @ queue.T], 1) for q in rows]
    total = 0.0
    for i in range(len(k)):
        log_p = [m[i] / c.temperature - math.log(sum(math.exp(x / c.temperature) for x in m[i])) for m in cosines]
        positives = {0}
        for m in cosines if mining else ():
            positives |= {1 + int(j) for j in np.argsort(-m[i, 1:])[: c.topk]}
        contrast = -np.mean([log_p[0][j] for j in sorted(positives)])
        match = [-sum(math.exp(t) * s for t, s in zip(log_p[0], student, strict=True)) for student in log_p[1:]]
        total += contrast + c.d3m_weight * sum(match) / 2
    return total / len(k)


@pytest.mark.parametrize(("topk", "weight", "kappa"), [(1, 1.0, 0.7), (3, 0.4, 0.65)])
def test_loss_is_its_formula_on_either_side_of_mining_start(topk: int, weight: float, kappa: float) -> None:
    own = {"momentum": 1.0, "topk": topk, "d3m_weight": weight, "drop_threshold": kappa}
    views = three(make())
    alone, mining = (slow_loss(make(**own), views, stage) for stage in (False, True))
    assert abs(alone - mining) > 0.05, "the stages cannot be told apart here"
    for progress, expected in ((0.0, alone), (ALONE, alone), (MINING, mining), (0.99, mining)):
        out = make(**own).loss(views, progress)
        assert out.loss.item() == pytest.approx(expected, rel=1e-4)
        assert (out.logs["nce"] + weight * out.logs["d3m"]).item() == pytest.approx(out.loss.item(), rel=1e-6)


@pytest.mark.parametrize("tau", [1.0, 0.3])
def test_right_angles(tau: float) -> None:
    """q = k = e1, the queue e2 and e3: P = (h, 1, 1) / (h + 2) with h = e^(1/tau).

    InfoNCE: log(1 + 2/h). D3M of an extreme view that is e1 too: the entropy of P; of one that is e4, which the drop
    makes nothing of: log 3. Mining: every view's best in the queue is worth 0, so of two positives one is the key.
    """
    h = math.exp(1 / tau)
    p = [h / (h + 2), 1 / (h + 2), 1 / (h + 2)]
    entropy = -sum(x * math.log(x) for x in p)
    e1, e2, e4 = [1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 0, 1.0]
    queue = torch.eye(4)[1:3]

    def found(extreme: list[float], progress: float = 0.0) -> tuple[float, float]:
        logs = given_vectors(queue, temperature=tau).loss(vectors(e1, e1, extreme), progress).logs
        return logs["nce"].item(), logs["d3m"].item()

    nce = math.log(1 + 2 / h)
    assert found(e1) == pytest.approx((nce, entropy), rel=1e-5)
    assert found(e4) == pytest.approx((nce, math.log(3)), rel=1e-5)
    # an extreme view that is e2: P' = (1, h, 1) / (h + 2), so -sum P log P' = log(h + 2) - P_2 / tau
    swapped = math.log(h + 2) - 1 / (h + 2) / tau
    assert found(e2) == pytest.approx((nce, swapped), rel=1e-5)
    # mining: the key's -log share is log(h + 2) - 1/tau, a neighbour's log(h + 2); e2's own best is e2
    own, other = math.log(h + 2) - 1 / tau, math.log(h + 2)
    assert found(e1, MINING)[0] == pytest.approx((own + other) / 2, rel=1e-5)
    assert found(e1, MINING)[1] == pytest.approx(entropy, rel=1e-5)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 9), st.integers(1, 4), st.integers(0, 99))
def test_mined_sets(queue: int, topk: int, seed: int) -> None:
    """Own key and the union of three times the topk best: from 1 + topk (2) to 1 + 3 topk (4 for one neighbour)."""
    topk = min(topk, queue)
    method = given_vectors(torch.eye(4)[torch.arange(queue) % 4], topk=topk)
    cosines = [torch.rand(6, 1 + queue, generator=generator(seed + k)) for k in range(3)]
    positives = method._positives(cosines, MINING)
    sizes = positives.sum(1)
    assert positives[:, 0].all() and sizes.min() >= 1 + topk and sizes.max() <= min(1 + 3 * topk, 1 + queue)
    for i in range(6):
        best = {0} | {1 + int(j) for m in cosines for j in np.argsort(-m[i, 1:].numpy())[:topk]}
        assert set(positives[i].nonzero().flatten().tolist()) == best
    alone = method._positives(cosines, ALONE)
    assert alone[:, 0].all() and alone.sum() == 6


@pytest.mark.parametrize(
    ("extreme", "size"), [([0, 0.9, 0, 0], 2), ([0, 0, 0.9, 0], 3), ([0, 0, 0.5, 0.9], 4)], ids=["same", "two", "three"]
)
def test_sizes_two_to_four(extreme: list[float], size: int) -> None:
    """The query's neighbour is e2, the extreme view's e2, e3 or e4; without e4 the dropped view's is e3 again."""
    method = given_vectors(torch.eye(4)[1:])
    seen = []
    positives = method._positives
    method._positives = lambda *x: seen.append(positives(*x)) or seen[-1]
    method.loss(vectors([0.5, 0.9, 0, 0], [1.0, 0, 0, 0], extreme), MINING)
    assert seen[0].sum().item() == size


# --- who learns -----------------------------------------------------------------------------------------------------


def test_the_query_teaches_and_does_not_learn_from_the_extreme_view() -> None:
    """The gradient at view ``a`` is that of InfoNCE alone, that at ``extreme`` of D3M alone, scaled by its weight."""
    grads = {}
    for weight in (0.0, 1.0, 3.0):
        method = make(d3m_weight=weight).double()
        views = three(method).map(lambda x: x.double().requires_grad_())
        method.loss(views, MINING).loss.backward()
        grads[weight] = {name: x.grad for name, x in views.clips.items()}
    assert all(g["b"] is None for g in grads.values())
    for weight in (1.0, 3.0):
        assert torch.equal(grads[weight]["a"], grads[0.0]["a"])
        torch.testing.assert_close(grads[weight]["extreme"], weight * grads[1.0]["extreme"], rtol=1e-7, atol=1e-14)
    assert not grads[0.0]["extreme"].any() and grads[1.0]["extreme"].any()


def test_two_passes_through_the_query_encoder_one_through_the_keys() -> None:
    """Normal and extreme batches mix in the running statistics; the dropped view costs no pass of its own."""
    method = make()
    method.loss(three(method), 0.0)
    assert method.encoder.norm.num_batches_tracked == 2 and method.slow_encoder.target.norm.num_batches_tracked == 1


def test_the_drop_is_part_of_the_loss_and_leaves_out_who_is_not_there() -> None:
    """Another threshold, another loss; of ``bodies: real`` no absent body takes part in it."""
    losses = [make(drop_threshold=kappa).loss(three(make()), 0.0).loss.item() for kappa in (0.65, 0.7)]
    assert abs(losses[0] - losses[1]) > 1e-4
    method, views = make(bodies="real"), three(make())
    filled = {name: x.clone() for name, x in views.clips.items()}
    filled["extreme"][1::2, ..., 1] = 5.0  # absent by ``present``
    found = [make(bodies="real").loss(Views(x, views.present), 0.0).loss.item() for x in (views.clips, filled)]
    assert found[0] == found[1]
    assert abs(found[0] - method.loss(Views(filled, torch.ones(5, 2, dtype=torch.bool)), 0.0).loss.item()) > 1e-4


# --- stages ---------------------------------------------------------------------------------------------------------


def test_stages_are_named() -> None:
    def named(**own: Any) -> list[tuple[str, float]]:
        return [(stage.name, stage.start) for stage in AimCLR.stages(AimCLRConfig(**own))]

    assert named() == [("contrast", 0.0), ("mining", 0.5)]
    assert named(mining_start=0.8) == [("contrast", 0.0), ("mining", 0.8)]
    assert named(mining_start=0.0) == [("mining", 0.0)]
    assert named(mining_start=1.0) == [("contrast", 0.0)]


@pytest.mark.parametrize("done", [1, 3])
def test_a_checkpoint_in_either_stage_goes_on_bit_for_bit(tmp_path: Path, done: int) -> None:
    """Saved after 1 of 2 epochs without mining, or 1 of 2 with it; restored into a run of other weights."""
    config = make_config("aimclr", 4)
    run, other = (start(config, make_clips(16), np.arange(16), seed=3) for _ in range(2))
    list(pretrain(run, until=done))
    checkpoint.save(tmp_path / "x.pt", run)
    list(pretrain(other, until=2 if done == 1 else 1))
    checkpoint.restore(checkpoint.read(tmp_path / "x.pt"), other)
    assert same(copy_state(other.model), copy_state(run.model))
    ends = [[(e.loss, e.logs) for e in pretrain(r)] for r in (run, other)]
    assert len(ends[0]) == 4 - done and ends[0] == ends[1]
    assert same(copy_state(other.model), copy_state(run.model))


# --- settings and official names ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"temperature": 0.0}, "temperature must be positive, got 0"),
        ({"momentum": 1.5}, "momentum must lie in"),
        ({"momentum_schedule": "linear"}, "momentum_schedule must be constant or cosine"),
        ({"queue": 0}, "queue must hold at least one key, got 0"),
        ({"drop_threshold": 0.62}, r"drop_threshold must lie between 0.6225, .* got 0.62"),
        ({"drop_threshold": 1.0}, "drop_threshold must lie between"),
        ({"d3m_weight": -1.0}, "d3m_weight must be finite, not negative, got -1"),
        ({"d3m_weight": math.nan}, "d3m_weight must be finite"),
        ({"mining_start": 1.1}, r"mining_start is a share of the run in \[0, 1\], got 1.1"),
        ({"topk": 0}, r"topk must lie in 1..queue \(32768\), got 0"),
        ({"topk": 5, "queue": 4}, r"topk must lie in 1..queue \(4\), got 5"),
        ({"ema_buffers": "mine"}, "ema_buffers must be own or copy, got 'mine'"),
    ],
)
def test_impossible_settings_are_refused(own: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        AimCLRConfig(**own)


def test_a_published_run_with_every_quirk() -> None:
    config = published("aimclr", preset="paper_code")
    quirks = {
        "flip_reflect": False,
        "rotate_both_ways": False,
        "noise_absent": True,
        "blur_normalise": False,
        "repeat": True,
    }
    assert config.params == AimCLRConfig(init_sync=False)
    assert config.augment == dataclasses.replace(RECIPE.augment, **quirks)
    assert config.encoder.partition == "spatial_degenerate" and config.streams == StreamsConfig(("joint",))
    assert published("aimclr").augment == RECIPE.augment and published("aimclr").params == AimCLRConfig()


@pytest.mark.parametrize(
    ("official", "ours"),
    [
        ("queue", "queue.keys"),
        ("queue_ptr", "queue.pointer"),
        ("encoder_q.data_bn.weight", "encoder.norm.weight"),
        ("encoder_k.st_gcn_networks.4.tcn.3.bias", "slow_encoder.target.blocks.4.temporal.3.bias"),
        ("encoder_q.fc.2.bias", "projector.2.bias"),
        ("encoder_k.fc.0.weight", "slow_projector.target.0.weight"),
        ("fc.weight", None),  # a linear evaluation's classifier
    ],
)
def test_official_names(official: str, ours: str | None) -> None:
    found = place(official)
    assert (found and found.name) == ours
