"""PSTL and SkeletonBT: when two views agree, which frames and joints a partial view lacks, and what is refused."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import (
    BUSH15,
    ENCODER,
    copy_state,
    generator,
    make_clips,
    make_config,
    make_method,
    movements,
    own_config,
    policy,
    same,
)
from torch import Tensor, nn

from methods.augment.policy import AugmentConfig, Policy
from methods.base import Views
from methods.data.layouts import KINECT20, NTU25, OPENNI15, Layout
from methods.data.streams import derive
from methods.errors import InputError
from methods.official.pstl import pstl as place
from methods.pstl import PSTL, PSTLConfig, SkeletonBT, SkeletonBTConfig
from methods.training import checkpoint
from methods.training.branches import Branches
from methods.training.config import StreamsConfig, published
from methods.training.pretrain import pretrain, start

STILL = AugmentConfig(strength=0.0)  # views that are the clips themselves


def batch(count: int = 6, frames: int = 16, layout: Layout = NTU25, seed: int = 0) -> Tensor:
    return torch.from_numpy(movements(count, frames, layout, seed=seed)[0])


def twins(layout: Layout = NTU25, **own: Any) -> SkeletonBT:
    method = make_method("skeletonbt", layout, encoder=dataclasses.replace(ENCODER, init="torch"), **own)
    assert isinstance(method, SkeletonBT)
    return method


def partial_twins(layout: Layout = NTU25, **own: Any) -> PSTL:
    method = make_method("pstl", layout, encoder=dataclasses.replace(ENCODER, init="torch"), **own)
    assert isinstance(method, PSTL)
    return method


def views_of(
    method: PSTL, clips: Tensor, config: AugmentConfig | None = None, seed: int = 0, layout: Layout = NTU25
) -> Views:
    """By the published recipe or by ``config``."""
    recipe = policy("pstl", layout) if config is None else Policy(config, layout)
    return method.make_views(clips, recipe, generator(seed))


def pair(seed: int = 0, count: int = 6) -> Views:
    present = torch.ones(count, 2, dtype=torch.bool)
    return Views({"a": batch(count, seed=seed), "b": batch(count, seed=seed + 1)}, present)


def loss_of(method: SkeletonBT, views: Views) -> float:
    return method.loss(views, 0.0).loss.item()


# --- the loss -------------------------------------------------------------------------------------------------------


def test_whitened_features_that_agree_cost_nothing() -> None:
    """Without head and norm, features of unit variance and no correlation: C is the identity, in either direction."""
    method = twins(projection=16, off_diagonal=1.0).double()
    method.projector, method.norm = nn.Identity(), nn.Identity()  # type: ignore[assignment]
    white, _ = torch.linalg.qr(torch.randn(20, 16, generator=generator(), dtype=torch.float64))
    white = white * 20**0.5
    loss, _ = method._agree(white, white)
    assert loss.item() == pytest.approx(0, abs=1e-24)
    assert method._agree(white, -white)[0].item() == pytest.approx(4 * 16)  # (-1 - 1)^2 for each of 16
    turned = white.roll(1, 1)  # each unit agrees with another one's: nothing on the diagonal, a one beside each
    assert method._agree(white, turned)[0].item() == pytest.approx(16 + 16)


def test_a_view_agrees_with_itself_but_for_what_it_says_twice() -> None:
    """The diagonal is 1 (but for the norm's epsilon), so the loss is lambda times the rest."""
    views = pair()
    itself = Views({"a": views["a"], "b": views["a"]}, views.present)
    method = twins(projection=8, off_diagonal=0.0)
    with torch.no_grad():
        method.projector[-1].weight.mul_(100)
    assert loss_of(method, itself) == pytest.approx(0, abs=1e-6)
    redundant = dataclasses.replace(method.config, off_diagonal=0.3)
    method.config = redundant
    z = method.projector(method.encoder(views["a"])).detach().double().numpy()
    correlated = np.corrcoef(z.T) ** 2
    assert loss_of(method, itself) == pytest.approx(0.3 * (correlated.sum() - 8), rel=1e-3)


def test_either_view_may_be_the_first_and_any_clip() -> None:
    method, views = twins(off_diagonal=0.1), pair()
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    swapped = Views({"a": views["b"], "b": views["a"]}, views.present)
    shuffled = views.map(lambda x: x[order])
    assert loss_of(method, swapped) == pytest.approx(loss_of(method, views), rel=1e-5)
    assert loss_of(method, shuffled) == pytest.approx(loss_of(method, views), rel=1e-5)
    apart = Views({"a": views["a"], "b": views["b"][order]}, views.present)
    assert abs(loss_of(method, apart) - loss_of(method, views)) > 0.01


def test_a_batch_norm_of_its_own_knows_no_scale() -> None:
    method, views = twins(off_diagonal=0.1), pair()
    before = loss_of(method, views)
    with torch.no_grad():
        method.projector[-1].weight.mul_(3)
    assert loss_of(method, views) == pytest.approx(before, rel=1e-3)


def test_with_nothing_masked_it_is_twice_skeletonbt() -> None:
    """The same weights, one view for both partial ones: loss and gradients; and the whole graph is kept."""
    whole, plain = partial_twins(mask_joints=0, mask_frames=0), twins()
    plain.load_state_dict(whole.state_dict())
    clips = batch()
    views = views_of(whole, clips, STILL)
    assert all(torch.equal(view, clips) for view in views.clips.values())
    assert torch.equal(views.extra["joints"], torch.arange(25))
    a, b = pair()["a"], pair(3)["b"]
    thrice = Views({"anchor": a, "temporal": b, "spatial": b}, views.present, views.extra)
    loss, half = whole.loss(thrice, 0.0).loss, plain.loss(Views({"a": a, "b": b}, views.present), 0.0).loss
    assert loss.item() == pytest.approx(2 * half.item(), rel=1e-6)
    loss.backward()
    half.backward()
    twice = dict(plain.named_parameters())
    for name, p in whole.named_parameters():
        torch.testing.assert_close(p.grad, 2 * twice[name].grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_shares_weigh_the_two_terms(share: float) -> None:
    """One half and one half are the published plain sum, to the bit."""
    method = partial_twins(spatial_share=share)
    out = method.loss(views_of(method, batch()), 0.0)
    in_time, in_space = out.logs["temporal"], out.logs["spatial"]
    assert abs(in_time - in_space) > 0.01
    assert out.loss.item() == pytest.approx(2 * float((1 - share) * in_time + share * in_space), rel=1e-6)
    assert torch.equal(out.loss, in_time + in_space) == (share == 0.5)


def test_each_view_is_a_batch_of_its_own_to_every_norm() -> None:
    """Three through the encoder; through the head four, for the anchor goes once with each partial view."""
    method = partial_twins()
    method.loss(views_of(method, batch()), 0.0)
    counted = {k: int(v) for k, v in method.state_dict().items() if k.endswith("num_batches_tracked")}
    assert counted
    for name, count in counted.items():
        assert count == (3 if name.startswith("encoder.") else 4), name
    assert not [name for name, _ in method.named_parameters() if name.startswith("norm.")]
    assert [name for name, _ in method.projector.named_parameters() if name.endswith("bias")] == ["1.bias", "4.bias"]


# --- fewer frames ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("frames", "left"), [(50, 30), (64, 38), (100, 60), (16, 10), (8, 4), (5, 3), (4, 2)])
def test_frames_left(frames: int, left: int) -> None:
    """50 -> 40 -> 30, and the same share of any length; whatever is left comes from the clip, in its order."""
    method = partial_twins()
    clips = batch(4, frames)
    view = views_of(method, clips, STILL)["temporal"]
    assert view.shape == (4, 3, left, 25, 2)
    for clip, short in zip(clips, view, strict=True):
        at = [next(t for t in range(frames) if torch.equal(clip[:, t], short[:, i])) for i in range(left)]
        assert at == sorted(set(at))
    assert method.config.masked_frames(frames) == (frames - left) // 2


def test_the_fastest_frames_are_gone() -> None:
    """Ten frames of fifty leap; the step to the next is what counts, so each leap is gone, and ten of the rest."""
    clips = torch.zeros(8, 3, 50, 25, 2)
    clips += torch.arange(50)[:, None, None] * 0.01
    leaps = torch.stack([torch.randperm(49, generator=generator(i))[:10] for i in range(8)])
    for clip, each in zip(clips, leaps, strict=True):
        for t in each:
            clip[:, t + 1 :] += 5
    view = views_of(partial_twins(), clips, STILL)["temporal"]
    seen = [[[bool(torch.equal(clip[:, t], x)) for t in range(50)].index(True) for x in short.unbind(1)]
            for clip, short in zip(clips, view, strict=True)]  # fmt: skip
    for frames, gone in zip(seen, leaps.tolist(), strict=True):
        assert len(set(frames)) == 30 and not set(frames) & set(gone)
    assert len({tuple(frames) for frames in seen}) == 8


def test_draws_are_one_for_the_batch_only_if_asked() -> None:
    clips = batch(1, 50).repeat(6, 1, 1, 1, 1)
    for per_batch in (True, False):
        config = dataclasses.replace(policy("pstl").config, per_batch=per_batch)
        views = views_of(partial_twins(), clips, config)
        for view in views.clips.values():
            assert bool((view == view[:1]).all()) == per_batch
        still = views_of(partial_twins(), clips, dataclasses.replace(STILL, per_batch=per_batch))["temporal"]
        assert bool((still == still[:1]).all()) == per_batch


def test_too_many_frames_are_refused_with_the_sum() -> None:
    method = partial_twins(mask_frames=20)
    with pytest.raises(InputError, match=r"20 of 50 are 2 of 4 frames, taken out twice: 4 - 2 \* 2 leaves none"):
        views_of(method, batch(2, 4))
    assert views_of(method, batch(2, 5))["temporal"].shape[2] == 1
    for frames in range(10, 120):  # the suggested range never leaves nothing of a clip that is no stub
        assert frames - 2 * method.config.masked_frames(frames) >= frames // 5 - 1


# --- fewer joints ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "drawn"), [(NTU25, 8), (KINECT20, 6), (OPENNI15, 5), (BUSH15, 5)], ids=lambda x: getattr(x, "name", x)
)
def test_joints_left(layout: Layout, drawn: int) -> None:
    """At most as many go as ends of bones were drawn; the others in their order, the same for all clips of a batch."""
    method, counts = partial_twins(layout), set()
    for seed in range(60):
        joints = views_of(method, batch(2, 8, layout), STILL, seed, layout).extra["joints"]
        assert joints.tolist() == sorted(set(joints.tolist()))
        counts.add(layout.num_joints - len(joints))
    assert max(counts) == drawn and len(counts) > 1
    views = views_of(method, batch(4, 8, layout), STILL, layout=layout)
    assert views["spatial"].shape[3] == layout.num_joints  # cut out by the encoder, after its input norm
    assert math.isfinite(loss_of(method, views))


def test_what_the_cut_joints_do_is_not_seen() -> None:
    """But for the input norm, which is of all joints (in evaluation mode a joint's own)."""
    method = partial_twins().eval()
    views = views_of(method, batch())
    left = set(views.extra["joints"].tolist())
    gone = [v for v in range(25) if v not in left]
    moved = views["spatial"].clone()
    moved[:, :, :, gone] += 7
    other = Views({**views.clips, "spatial": moved}, views.present, views.extra)
    assert loss_of(method, other) == loss_of(method, views)
    moved[:, :, :, min(left)] += 7
    assert loss_of(method, other) != loss_of(method, views)


def test_streams_are_taken_first_and_lack_the_same_joints() -> None:
    config = make_config("pstl", streams=StreamsConfig(("joint", "bone", "motion")), augment=STILL)
    model, clips = Branches(config, NTU25, seed=0), batch(4)
    views = model.views(clips, generator())
    for stream, each in views.items():
        own = derive(clips, stream, NTU25)
        assert torch.equal(each["anchor"], own) and torch.equal(each["spatial"], own)
        assert torch.equal(each.extra["joints"], views["joint"].extra["joints"])
    assert not torch.equal(views["motion"]["temporal"], derive(views["joint"]["temporal"], "motion", NTU25))


# --- state, settings and official names -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["skeletonbt", "pstl"])
def test_a_checkpoint_goes_on_bit_for_bit(name: str, tmp_path: Path) -> None:
    """With the published optimiser's kind and schedule: Adam's moments and the warm-up come back too."""
    config = make_config(name, 3)
    assert (config.optim.name, config.optim.schedule) == ("adam", "cosine")
    config = dataclasses.replace(config, optim=dataclasses.replace(config.optim, warmup=0.5))
    run, other = (start(config, make_clips(16), np.arange(16), seed=3) for _ in range(2))
    list(pretrain(run, until=1))
    checkpoint.save(tmp_path / "x.pt", run)
    list(pretrain(other, until=2))
    checkpoint.restore(checkpoint.read(tmp_path / "x.pt"), other)
    ends = [[(e.loss, e.lr, e.logs) for e in pretrain(r)] for r in (run, other)]
    assert len(ends[0]) == 2 and ends[0] == ends[1]
    assert same(copy_state(other.model), copy_state(run.model))


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"mask_joints": 25}, r"mask_joints counts of 25 joints, so 0\.\.24, got 25"),
        ({"mask_joints": -1}, "mask_joints counts of 25 joints"),
        ({"mask_frames": 25}, r"mask_frames are taken out of 50 frames twice, so 0\.\.24, got 25"),
        ({"mask_frames": -1}, "mask_frames are taken out"),
        ({"spatial_share": 1.1}, r"spatial_share must lie in \[0, 1\], got 1.1"),
        ({"projection": 0}, "projection must be at least 1, got 0"),
        ({"off_diagonal": -1e-3}, "off_diagonal must be finite, not negative, got -0.001"),
        ({"off_diagonal": math.inf}, "off_diagonal must be finite"),
    ],
)
def test_impossible_settings_are_refused(own: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        PSTLConfig(**own)


@pytest.mark.parametrize(("name", "config"), [("pstl", PSTLConfig), ("skeletonbt", SkeletonBTConfig)])
def test_a_published_run_with_every_quirk(name: str, config: type[SkeletonBTConfig]) -> None:
    quirky, clean = published(name, preset="paper_code"), published(name)
    assert quirky.params == clean.params == config()
    assert quirky.augment == dataclasses.replace(
        clean.augment, per_batch=True, flip_reflect=False, rotate_both_ways=False
    )
    assert quirky.encoder == dataclasses.replace(clean.encoder, partition="spatial_degenerate")
    assert quirky.preprocess == ("trim_paper", "centre", "resize", "rotate_y_paper")
    assert own_config(name).projection == 8  # or the tests here would train a head of 6144


@pytest.mark.parametrize(
    ("official", "ours"),
    [
        ("encoder.data_bn.weight", "encoder.norm.weight"),
        ("encoder.A", "encoder.graph"),
        ("data_bn.running_var", "encoder.norm.running_var"),  # its stored file holds the encoder alone
        ("edge_importance.2", "encoder.edge_importance.2"),
        ("st_gcn_networks.1.tcn.2.weight", "encoder.blocks.1.temporal.2.weight"),
        ("head.projector.4.running_mean", "projector.4.running_mean"),
        ("head.projector.6.weight", "projector.6.weight"),
        ("head.bn.num_batches_tracked", "norm.num_batches_tracked"),
        ("classifier.weight", None),
        ("head.classifier.weight", None),
    ],
)
def test_official_names(official: str, ours: str | None) -> None:
    found = place(official)
    assert (found and found.name) == ours
    assert ours is None or ours in partial_twins().state_dict()
