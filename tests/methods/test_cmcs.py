"""CMAL and CMCS: what each loss is, when the streams begin to meet, who learns from whom, when the target stands."""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import (
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

from methods.base import Views
from methods.cmcs import CMAL, CMCS, CMALConfig, CMCSConfig
from methods.data.layouts import NTU25
from methods.data.streams import derive
from methods.errors import InputError
from methods.fields import field_table
from methods.nn.build import build_encoder
from methods.official.cmcs import cmal as cmal_place
from methods.official.cmcs import cmcs as cmcs_place
from methods.training import checkpoint
from methods.training.config import StreamsConfig, published
from methods.training.pretrain import pretrain, start

STREAMS = ("joint", "motion", "bone")
ALONE, TOGETHER = 0.6 - 1e-9, 0.6  # either side of the published cross_start
every_use = pytest.mark.parametrize("use", [STREAMS, STREAMS[:2], STREAMS[:1]], ids="+".join)


def joint_views(seed: int = 0, count: int = 6) -> Views:
    """Two views of a batch; the later clips are near copies of the first ones, so that some are neighbours."""
    clips = torch.from_numpy(movements(count, 12, seed=seed)[0])
    clips[count // 2 :] = clips[: count - count // 2] + 0.02 * clips[count // 2 :]
    pair = [policy("cmcs")(clips, generator(seed + k)) for k in (1, 2)]
    return Views({"a": pair[0], "b": pair[1]}, torch.ones(count, 2, dtype=torch.bool))


def streamed(views: Views, use: tuple[str, ...] = STREAMS) -> dict[str, Views]:
    return {stream: views.map(partial(derive, stream=stream, layout=NTU25)) for stream in use}


def make_cmcs(use: tuple[str, ...] = STREAMS, seed: int = 0, **own: Any) -> CMCS:
    """Small and apart: the target differs from the online network, weights are of torch's own size."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        shape = dataclasses.replace(ENCODER, init="torch")
        method = CMCS(own_config("cmcs", **own), {stream: build_encoder(shape, NTU25) for stream in use})
        for p in method.parameters():
            p.data += 0.2 * torch.randn_like(p)
    return method.train()


def total(method: CMCS, views: Views, progress: float) -> Tensor:
    return sum(out.loss for out in method.losses(streamed(views, method.streams), progress).values())


def unit(x: Tensor) -> np.ndarray:
    rows = x.detach().double().numpy()
    return rows / np.sqrt((rows**2).sum(1, keepdims=True))


def slow_outputs(method: CMCS, views: Views) -> dict[str, tuple[np.ndarray, ...]]:
    """Stream -> unit rows p_a, p_b, t_a, t_b."""
    found = {}
    for s, view in streamed(views, method.streams).items():
        online = [method.predictors[s](method.projectors[s](method.encoders[s](view[v]))) for v in "ab"]
        target = [method.slow_projectors[s](method.slow_encoders[s](view[v])) for v in "ab"]
        found[s] = tuple(unit(x) for x in (*online, *target))
    return found


def slow_cmal(p_a: np.ndarray, p_b: np.ndarray, t_a: np.ndarray, t_b: np.ndarray, repulsion: float) -> float:
    def d(x: np.ndarray, y: np.ndarray) -> float:
        return float(np.mean([2 - 2 * float(i @ j) for i, j in zip(x, y, strict=True)]))

    return d(p_a, p_b) - repulsion * (d(p_a, t_a) + d(p_b, t_b))


def slow_labels(cosines: dict[str, tuple[np.ndarray, np.ndarray]], topk: int) -> np.ndarray:
    """Entry by entry: j is like i if enough streams have it among the best of row i in both their matrices."""
    count = len(next(iter(cosines.values()))[0])
    labels = np.eye(count)
    for i in range(count):
        for j in range(count):
            votes = sum(all(j in np.argsort(-m[i])[:topk] for m in pair) for pair in cosines.values())
            if votes >= min(2, len(cosines)):
                labels[i, j] = 1
    return labels


def slow_losses(method: CMCS, views: Views) -> tuple[dict[str, float], np.ndarray]:
    """Stream -> L_CMAL + lambda L_CSCL, and the labels, from the definitions of section 2.3."""
    c, outputs = method.config, slow_outputs(method, views)
    cosines = {s: (p_a @ t_b.T, p_b @ t_a.T) for s, (p_a, p_b, t_a, t_b) in outputs.items()}
    labels, losses = slow_labels(cosines, c.topk), {}
    for s, pair in cosines.items():
        across = 0.0
        for m in pair:
            for i, row in enumerate(m / c.temperature):
                below = math.log(sum(math.exp(x) for x in row))
                across += sum(below - x for x, label in zip(row, labels[i], strict=True) if label) / len(m)
        losses[s] = slow_cmal(*outputs[s], c.repulsion) + c.cross_weight * across
    return losses, labels


# --- CMAL -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("repulsion", [0.5, 0.2, 1.0])
def test_cmal_before_its_first_step_only_draws_views_together(repulsion: float) -> None:
    """Target = online and no predictor: p = t in either view, nothing is pushed; what is left is d(z_a, z_b)."""
    method = make_method("cmal", repulsion=repulsion)
    method.predictor = nn.Identity()
    views = joint_views()
    z_a, z_b = (unit(method.projector(method.encoder(views[v]))) for v in "ab")
    assert method.loss(views, 0.0).loss.item() == pytest.approx(float(((z_a - z_b) ** 2).sum(1).mean()), rel=1e-4)
    same_view = Views({"a": views["a"], "b": views["a"]}, views.present)
    assert method.loss(same_view, 0.0).loss.item() == pytest.approx(0, abs=1e-6)


def test_cmal_is_cmcs_of_one_stream_that_never_meets_another() -> None:
    """Bit for bit, over steps and moves of the target; and its networks are SkeletonBYOL's, name for name."""
    alone, joint = make_method("cmal", repulsion=0.3), make_cmcs(("joint",), cross_start=1.0, repulsion=0.3)
    assert isinstance(alone, CMAL)
    alone.load_state_dict(
        {k.replace("s.joint.", ".", 1).replace("s.joint.", ".", 1): v for k, v in joint.state_dict().items()}
    )
    solvers = [torch.optim.SGD([p for p in m.parameters() if p.requires_grad], lr=0.1) for m in (alone, joint)]
    for seed, progress in enumerate((0.0, 0.7, 0.99)):
        views = joint_views(seed)
        losses = alone.loss(views, progress).loss, total(joint, views, progress)
        assert torch.equal(*losses)
        for loss, solver, method in zip(losses, solvers, (alone, joint), strict=True):
            solver.zero_grad()
            loss.backward()
            solver.step()
            method.after_step(progress)
    byol = make_method("skeletonbyol").state_dict()
    assert {k: v.shape for k, v in alone.state_dict().items()} == {k: v.shape for k, v in byol.items()}


# --- CSCL -----------------------------------------------------------------------------------------------------------


@every_use
@pytest.mark.parametrize("own", [{}, {"topk": 1, "temperature": 0.1}, {"topk": 3, "cross_weight": 0.5, "repulsion": 1}])
def test_loss_across_streams_is_its_definition(use: tuple[str, ...], own: dict[str, Any]) -> None:
    method, views = make_cmcs(use, **own), joint_views()
    expected, labels = slow_losses(method, views)
    out = method.losses(streamed(views, use), TOGETHER)
    assert list(out) == list(use)
    for stream, value in expected.items():
        assert out[stream].loss.item() == pytest.approx(value, rel=1e-5)
        assert out[stream].logs["neighbours"].item() == pytest.approx(labels.sum(1).mean() - 1)
        assert all(not v.requires_grad and v.shape == () for v in out[stream].logs.values())


def test_clips_that_streams_agree_on_are_found() -> None:
    """Or the tests above would compare sums over the diagonal alone."""
    labels = [slow_losses(make_cmcs(topk=topk), joint_views())[1] for topk in (1, 3, 6)]
    sums = [int(each.sum()) for each in labels]
    assert 6 <= sums[0] < sums[1] < sums[2] == 36, sums


def test_when_every_clip_is_alike_the_loss_is_a_sum_over_the_batch() -> None:
    """topk = N: all labels 1, so CSCL of a view is N log sum_j e^{s_ij} - sum_j s_ij, a mean over i."""
    method, views = make_cmcs(topk=6, cross_weight=1.0), joint_views()
    for stream, (p_a, p_b, t_a, t_b) in slow_outputs(method, views).items():
        pair = (p_a @ t_b.T, p_b @ t_a.T)
        closed = sum(float((6 * np.log(np.exp(s).sum(1)) - s.sum(1)).mean()) for s in pair)
        out = method.losses(streamed(views), TOGETHER)[stream]
        assert out.logs["collaborative"].item() == pytest.approx(closed, rel=1e-5)
        assert (out.loss - out.logs["adversarial"]).item() == pytest.approx(closed, rel=1e-4)


@pytest.mark.parametrize("progress", [ALONE, TOGETHER])
def test_loss_does_not_depend_on_order_or_length(progress: float) -> None:
    """Of clips, of views, of streams; and cosines know no length."""
    method, views = make_cmcs(), joint_views()
    each = {s: out.loss.item() for s, out in method.losses(streamed(views), progress).items()}
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    others = {
        "clips": streamed(views.map(lambda x: x[order])),
        "views": streamed(Views({"a": views["b"], "b": views["a"]}, views.present)),
        "streams": dict(reversed(streamed(views).items())),
    }
    for what, other in others.items():
        assert {s: out.loss.item() for s, out in method.losses(other, progress).items()} == pytest.approx(
            each, rel=1e-4
        ), what
    with torch.no_grad():
        for stream in STREAMS:
            for head in (method.predictors[stream][-1], method.slow_projectors[stream].target[-1]):
                head.weight.mul_(3)
                head.bias.mul_(3)
    assert {s: out.loss.item() for s, out in method.losses(streamed(views), progress).items()} == pytest.approx(
        each, rel=1e-4
    )


def test_every_end_of_a_range_gives_a_loss_across_streams() -> None:
    for setting, info in field_table(CMCSConfig).items():
        if info.range is not None and setting not in ("hidden", "projection"):
            for end in info.range.ends():
                loss = total(make_cmcs(**{setting: end}), joint_views(), 0.95)
                assert torch.isfinite(loss), f"{setting} = {end}"


# --- the two stages -------------------------------------------------------------------------------------------------


def test_streams_meet_exactly_at_cross_start() -> None:
    """Below, the loss is the CMAL of each stream to the bit, whatever lambda; from there on lambda counts."""
    plain, heavy = make_cmcs(cross_weight=0.0), make_cmcs(cross_weight=50.0)
    plain.load_state_dict(heavy.state_dict())
    views = joint_views()
    for progress in (0.0, 0.3, ALONE):
        assert torch.equal(total(plain, views, progress), total(heavy, views, progress))
    for progress in (TOGETHER, 0.99):
        assert total(heavy, views, progress) > total(plain, views, progress) + 50


@pytest.mark.parametrize(("epochs", "first"), [(5, 4), (3, 3)])
def test_the_switch_falls_on_the_published_epoch(epochs: int, first: int) -> None:
    """60 of 100 epochs alone: of 5 epochs the fourth is the first together; of 3 the third (2 / 3 > 0.6)."""
    config = make_config("cmcs", epochs)
    run = start(config, make_clips(8), np.arange(8), seed=0)
    together = [epoch.epoch for epoch in pretrain(run) if "joint/collaborative" in epoch.logs]
    assert together == list(range(first, epochs + 1))


def test_stages_are_named() -> None:
    def named(**own: Any) -> list[tuple[str, float]]:
        return [(stage.name, stage.start) for stage in CMCS.stages(CMCSConfig(**own))]

    assert named() == [("adversarial", 0.0), ("collaborative", 0.6)]
    assert named(cross_start=0.0) == [("collaborative", 0.0)]
    assert named(cross_start=1.0) == [("adversarial", 0.0)]
    assert [stage.start for stage in CMAL.stages(CMALConfig())] == [0.0]


@pytest.mark.parametrize("freeze", [True, False])
@pytest.mark.parametrize("progress", [ALONE, TOGETHER])
def test_target_stands_still_only_where_it_is_frozen(freeze: bool, progress: float) -> None:
    """Its weights; its batch statistics move in either case, as with the public code."""
    method = make_cmcs(freeze_target_in_cross=freeze, momentum=0.9)
    slow = nn.ModuleDict({"encoders": method.slow_encoders, "projectors": method.slow_projectors})
    before = copy_state(slow)
    total(method, joint_views(), progress)
    method.after_step(progress)
    after, online = slow.state_dict(), method.state_dict()
    weights = {name for name, _ in slow.named_parameters()}
    still = freeze and progress >= 0.6
    for name in weights:
        expected = before[name] if still else 0.9 * before[name] + 0.1 * online[name.replace(".target", "")]
        torch.testing.assert_close(after[name], expected, rtol=0 if still else 1e-5, atol=0 if still else 1e-7)
    assert any(not torch.equal(after[n], before[n]) for n in weights) is not still
    statistics = [name for name in before if name.endswith("running_mean")]
    assert statistics and all(not torch.equal(after[name], before[name]) for name in statistics)


@pytest.mark.parametrize("progress", [ALONE, TOGETHER])
def test_gradients_stay_within_a_stream(progress: float) -> None:
    """Streams meet in the labels, through which none runs; all of a stream's own online network gets one."""
    method, views = make_cmcs(), joint_views()
    method.losses(streamed(views), progress)["motion"].loss.backward()
    for name, p in method.named_parameters():
        if name.startswith("slow_"):
            assert not p.requires_grad and p.grad is None, name
        elif ".motion." in name:
            assert p.grad is not None and torch.isfinite(p.grad).all(), name
            assert p.grad.abs().sum() > 0 or name.endswith("bias"), name
        else:
            assert p.grad is None, name


@pytest.mark.parametrize(("done", "freeze"), [(2, True), (4, True), (4, False)])
def test_a_checkpoint_in_either_stage_goes_on_bit_for_bit(tmp_path: Path, done: int, freeze: bool) -> None:
    """Saved after 2 of 3 epochs alone, or 1 of 2 together, of 5; restored into a run of other weights."""
    config = make_config("cmcs", 5, params=own_config("cmcs", freeze_target_in_cross=freeze))
    run, other = (start(config, make_clips(8), np.arange(8), seed=3) for _ in range(2))
    list(pretrain(run, until=done))
    checkpoint.save(tmp_path / "x.pt", run)
    list(pretrain(other, until=1))
    checkpoint.restore(checkpoint.read(tmp_path / "x.pt"), other)
    assert same(copy_state(other.model), copy_state(run.model))
    ends = [[(e.loss, e.logs) for e in pretrain(r)] for r in (run, other)]
    assert len(ends[0]) == 5 - done and ends[0] == ends[1]
    assert same(copy_state(other.model), copy_state(run.model))


# --- settings and official names ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"repulsion": 0.0}, "repulsion must be positive"),
        ({"cross_start": 1.2}, r"cross_start is a fraction in \[0, 1\], got 1.2"),
        ({"topk": 0}, "topk must be at least 1, got 0"),
        ({"cross_weight": -1.0}, "cross_weight must not be negative, got -1"),
        ({"temperature": 0.0}, "temperature must be positive, got 0"),
        ({"momentum": 1.5}, "momentum must lie in"),
        ({"ema_buffers": "mine"}, "ema_buffers must be own or copy, got 'mine'"),
        ({"momentum_schedule": "linear"}, "momentum_schedule must be constant or cosine"),
    ],
)
def test_impossible_settings_are_refused(own: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        CMCSConfig(**own)


def test_a_published_run_with_every_quirk() -> None:
    config = published("cmcs", preset="paper_code")
    assert config.params == CMCSConfig(init_sync=False, freeze_target_in_cross=True)
    assert config.encoder.partition == "spatial_degenerate" and config.streams == StreamsConfig(STREAMS)
    assert not published("cmcs").params.freeze_target_in_cross
    assert published("cmal", preset="paper_code").params == CMALConfig(init_sync=False)


@pytest.mark.parametrize(
    ("official", "single", "triple"),
    [
        ("online_backbone.data_bn.weight", "encoder.norm.weight", None),
        ("target_backbone.st_gcn_networks.4.gcn.conv.bias", "slow_encoder.target.blocks.4.spatial.conv.bias", None),
        ("target_projector.net.1.running_var", "slow_projector.target.1.running_var", None),
        ("online_predictor.net.3.weight", "predictor.3.weight", None),
        ("online_backbone_bone.A", None, "encoders.bone.graph"),
        ("online_projector_motion.net.0.bias", None, "projectors.motion.0.bias"),
        ("online_predictor_joint.net.0.bias", None, "predictors.joint.0.bias"),
        ("target_projector_joint.net.3.weight", None, "slow_projectors.joint.target.3.weight"),
        ("target_backbone_bone.edge_importance.2", None, "slow_encoders.bone.target.edge_importance.2"),
        ("online_projector.weight", None, None),  # a linear evaluation's classifier
        ("online_projector_joint.bias", None, None),
        ("online_backbone_gru.weight", None, None),
        ("queue", None, None),
    ],
)
def test_official_names(official: str, single: str | None, triple: str | None) -> None:
    assert [p and p.name for p in (cmal_place(official), cmcs_place(official))] == [single, triple]
