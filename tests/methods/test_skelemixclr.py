"""SkeleMixCLR: what is mixed with what, which side belongs to which key, and what is left where nothing is mixed."""

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
from torch import Tensor

from methods.augment.mix import segments_of
from methods.augment.policy import AugmentConfig, Policy
from methods.base import Stage, Views
from methods.data.layouts import KINECT20, NTU25, OPENNI15, Layout
from methods.data.streams import derive
from methods.errors import InputError
from methods.official.skelemixclr import skelemixclr as place
from methods.skelemixclr import SkeleMixCLR, SkeleMixCLRConfig, SkeleMixCLRPlusConfig
from methods.training import checkpoint
from methods.training.branches import Branches
from methods.training.config import StreamsConfig, published
from methods.training.pretrain import pretrain, start

BOTH = ("skelemixclr", "skelemixclr_plus")
every_mixer = pytest.mark.parametrize("name", BOTH)
MIX = ("mix_shift", "mix_joints", "mix_start", "mix_length")
STILL = AugmentConfig(strength=0.0)  # views that are the clips themselves


def batch(count: int = 6, frames: int = 16, layout: Layout = NTU25, seed: int = 0) -> Tensor:
    return torch.from_numpy(movements(count, frames, layout, seed=seed)[0])


def mixer(name: str = "skelemixclr", layout: Layout = NTU25, **own: Any) -> SkeleMixCLR:
    method = make_method(name, layout, encoder=dataclasses.replace(ENCODER, init="torch"), **own)
    assert isinstance(method, SkeleMixCLR)
    return method


def views_of(method: SkeleMixCLR, clips: Tensor, layout: Layout = NTU25, seed: int = 0) -> Views:
    return method.make_views(clips, policy("skelemixclr", layout), generator(seed))


def mixtures(method: SkeleMixCLR, views: Views, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, Tensor]]:
    """What a loss gave to the encoder's last map: mixed clips, and who is there."""
    seen: list[tuple[Tensor, Tensor]] = []
    features = method.encoder.features

    def watched(x: Tensor, present: Tensor) -> Tensor:
        seen.append((x.clone(), present.clone()))
        return features(x, present)

    monkeypatch.setattr(method.encoder, "features", watched)
    method.loss(views, 0.0)
    return seen


def terms(method: SkeleMixCLR, views: Views) -> tuple[float, float, float]:
    """Loss, and its two parts, from one state: nothing is left behind."""
    before = copy_state(method)
    out = method.loss(views, 0.0)
    method.load_state_dict(before)
    return out.loss.item(), out.logs["instance"].item(), out.logs["regional"].item()


# --- what the loss is made of ---------------------------------------------------------------------------------------


@every_mixer
def test_without_weight_it_is_skeletonclr_to_the_bit(name: str) -> None:
    """Over steps: loss, gradients, queue and both networks; only batch norms have seen more batches."""
    mine = mixer(name, regional_weight=0.0, repeats=1, momentum=0.9, temperature=0.1)
    plain = make_method("skeletonclr", projector_norm=True, momentum=0.9, temperature=0.1)
    plain.load_state_dict(mine.state_dict())
    solvers = [torch.optim.SGD([p for p in m.parameters() if p.requires_grad], lr=0.1) for m in (mine, plain)]
    for seed in range(3):
        views = views_of(mine, batch(seed=seed), seed=seed)
        losses = mine.loss(views, 0.0).loss, plain.loss(views, 0.0).loss
        assert torch.equal(*losses)
        for loss, solver in zip(losses, solvers, strict=True):
            solver.zero_grad()
            loss.backward()
            solver.step()
    other = plain.state_dict()
    assert all(torch.equal(v, other[k]) for k, v in mine.named_parameters())
    assert torch.equal(mine.queue.keys, other["queue.keys"])
    assert int(mine.projector[1].num_batches_tracked) == 3 * int(other["projector.1.num_batches_tracked"])


@pytest.mark.parametrize("repeats", [1, 2, 4])
def test_mixtures_are_added_up_or_averaged(repeats: int) -> None:
    summed, mean = (mixer(repeats=repeats, reduce=how, regional_weight=0.7) for how in ("sum", "mean"))
    views = views_of(summed, batch())
    assert all(len(views.extra[part]) == repeats for part in MIX)
    total, instance, regional = terms(summed, views)
    assert total == pytest.approx(instance + 0.7 * regional, rel=1e-6)
    assert terms(mean, views) == pytest.approx((instance + 0.7 * regional / repeats, instance, regional / repeats))
    parts = []
    for i in range(repeats):
        one = Views(views.clips, views.present, {part: views.extra[part][i : i + 1] for part in MIX})
        parts.append(terms(summed, one)[2])
    assert sum(parts) == pytest.approx(regional, rel=1e-5)
    assert len({round(part, 4) for part in parts}) == repeats, "mixtures cannot be told apart here"


def test_the_other_side_is_one_negative_more() -> None:
    """It raises either side's loss by log(1 + e^{p c / tau} / (e^{p k / tau} + sum_j e^{p q_j / tau}))."""
    apart = mixer(extra_negative=False, temperature=0.5)
    beside = mixer(extra_negative=True, temperature=0.5)
    views = views_of(apart, batch())
    seen: list[np.ndarray] = []
    hook = apart.projector.register_forward_hook(lambda _m, _i, out: seen.append(unit(out)))
    key = unit(apart.slow_projector(apart.slow_encoder(views["b"])))
    queue = apart.queue.keys.numpy().astype(float)
    loss = terms(apart, views)[2]
    hook.remove()
    _, p, c = seen
    own = key[(np.arange(6) + int(views.extra["mix_shift"])) % 6]
    raised = 0.0
    for side, k, other in ((p, own, c), (c, key, p)):
        below = np.exp((side * k).sum(1) / 0.5) + np.exp(side @ queue.T / 0.5).sum(1)
        raised += np.log(1 + np.exp((side * other).sum(1) / 0.5) / below).mean() / 2
    assert raised > 0.01
    assert terms(beside, views)[2] - loss == pytest.approx(raised, rel=1e-3)


def unit(x: Tensor) -> np.ndarray:
    rows = x.detach().double().numpy()
    return rows / np.sqrt((rows**2).sum(1, keepdims=True))


def test_where_all_clips_are_one_a_mixture_is_that_clip() -> None:
    """Then the pasted side may as well belong to any key: the loss does not depend on the partner."""
    method = mixer(fill="swap").eval()
    clips = batch(1).repeat(5, 1, 1, 1, 1)
    views = method.make_views(clips, Policy(STILL, NTU25), generator())
    losses = set()
    for shift in (1, 2, 3):
        extra = {**views.extra, "mix_shift": torch.tensor([shift])}
        losses.add(terms(method, Views(views.clips, views.present, extra)))
    assert len(losses) == 1
    other = method.make_views(batch(5), Policy(STILL, NTU25), generator())
    found = [terms(method, Views(other.clips, other.present, {**other.extra, "mix_shift": torch.tensor([s])}))
             for s in (1, 2)]  # fmt: skip
    assert found[0][1] == found[1][1] and found[0][2] != found[1][2]


@every_mixer
def test_a_batch_has_no_first_clip(name: str) -> None:
    """Rolled round, draws with clips, the loss is the same: partners are a distance away, not a number."""
    method, turn = mixer(name), 2
    views = views_of(method, batch())
    extra = {k: v.roll(turn, 1) if v.dim() > 1 else v for k, v in views.extra.items()}
    rolled = Views({k: v.roll(turn, 0) for k, v in views.clips.items()}, views.present.roll(turn, 0), extra)
    assert terms(method, rolled) == pytest.approx(terms(method, views), rel=1e-4)


# --- what is mixed --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fill", ["swap", "zeros", "gaussian"])
@pytest.mark.parametrize("frames", [16, 18, 5])
def test_a_mixture_is_the_query_and_the_block(fill: str, frames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frame by frame and joint by joint, also where four does not divide T."""
    method = mixer(fill=fill, repeats=2)
    views = views_of(method, batch(4, frames))
    seen = mixtures(method, views, monkeypatch)
    assert len(seen) == 2
    for r, (mixed, present) in enumerate(seen):
        shift, joints, begin, length = (views.extra[part][r] for part in MIX)
        pasted = 0
        for i in range(4):
            partner = (i + int(shift)) % 4
            for t in range(frames):
                inside = begin[i] <= t // 4 < begin[i] + length[i]
                for v in range(25):
                    found = mixed[i, :, t, v]
                    if not (inside and joints[i, v]):
                        assert torch.equal(found, views["a"][i, :, t, v])
                        continue
                    pasted += 1
                    if fill == "swap":
                        assert torch.equal(found, views["a"][partner, :, t, v])
                    elif fill == "zeros":
                        assert not found.any()
                    else:
                        assert torch.equal(found, views.extra["mix_noise"][r, i, :, t, v])
            guest = views.present[i] | views.present[partner] if fill == "swap" else views.present[i]
            assert torch.equal(present[i], guest)
        assert 0 < pasted < 4 * frames * 25


def test_noise_is_standard_and_new_for_each_mixture() -> None:
    noise = views_of(mixer(fill="gaussian", repeats=2), batch(8)).extra["mix_noise"]
    assert noise.shape == (2, 8, 3, 16, 25, 2) and not torch.equal(noise[0], noise[1])
    assert abs(float(noise.mean())) < 0.02 and float(noise.std()) == pytest.approx(1, abs=0.02)


def test_no_bone_joins_two_people(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stream is taken before clips are mixed: a pasted bone is the partner's own, and streams share their draws."""
    config = make_config("skelemixclr", streams=StreamsConfig(("joint", "bone", "motion")))
    model = Branches(config, NTU25, seed=0)
    views = model.views(batch(4), generator())
    shared = [view.extra for view in views.values()]
    assert all(torch.equal(shared[0][part], extra[part]) for extra in shared[1:] for part in MIX)
    shift, joints, begin, length = (shared[0][part][0] for part in MIX)
    cells = torch.zeros(4, 16, 25, dtype=torch.bool)
    for i in range(4):
        cells[i, 4 * begin[i] : 4 * (begin[i] + length[i]), joints[i]] = True
    crossing = False
    for stream in ("bone", "motion"):
        branch = model.branches[stream]
        assert isinstance(branch, SkeleMixCLR)
        own = derive(views["joint"]["a"], stream, NTU25)
        expected = torch.where(cells[:, None, :, :, None], own.roll(-int(shift), 0), own)
        (mixed, _), = mixtures(branch, views[stream], monkeypatch)  # fmt: skip
        assert torch.equal(mixed, expected)
        late = torch.where(cells[:, None, :, :, None], views["joint"]["a"].roll(-int(shift), 0), views["joint"]["a"])
        crossing |= not torch.equal(derive(late, stream, NTU25), expected)
    assert crossing, "the order cannot be told here"


# --- how a block is drawn -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("frames", "segments", "lengths"), [
    (64, 16, {7, 8, 9, 10, 11}), (50, 13, {6, 7, 8, 9}), (32, 8, {4, 5, 6}), (6, 2, {1}), (4, 1, {1}),
])  # fmt: skip
def test_lengths_are_the_published_share_of_time(frames: int, segments: int, lengths: set[int]) -> None:
    method = mixer("skelemixclr_plus")
    drawn = views_of(method, batch(200, frames)).extra
    assert set(drawn["mix_length"].flatten().tolist()) == lengths
    assert segments == segments_of(frames, 4) == method.encoder.features(batch(2, frames)).shape[3]
    assert (drawn["mix_start"] >= 0).all()
    assert int((drawn["mix_start"] + drawn["mix_length"]).max()) == segments


@pytest.mark.parametrize("layout", [NTU25, KINECT20, OPENNI15, BUSH15], ids=lambda layout: layout.name)
@every_mixer
def test_blocks_are_whole_parts_of_any_layout(name: str, layout: Layout) -> None:
    method = mixer(name, layout, repeats=2)
    joints = views_of(method, batch(60, 8, layout), layout).extra["mix_joints"].flatten(0, 1)
    table = torch.tensor([[v in part for v in range(layout.num_joints)] for part in layout.parts.values()])
    taken = (joints[:, None] & table).sum(2)
    assert ((taken == 0) | (taken == table.sum(1))).all()
    counts = set((taken > 0).sum(1).tolist())
    config = method.config
    assert counts == set(range(config.parts_least, min(config.parts_least + config.parts_more, len(table) - 1) + 1))


@pytest.mark.parametrize(
    ("layout", "counts"), [(NTU25, range(10, 16)), (KINECT20, range(8, 13)), (BUSH15, range(6, 10))]
)
def test_joints_anywhere(layout: Layout, counts: range) -> None:
    """10 to 15 of 25, and as many of a layout of another size as its size has it."""
    method = mixer(layout=layout, joints="any")
    joints = views_of(method, batch(200, 8, layout), layout).extra["mix_joints"][0]
    assert set(joints.sum(1).tolist()) == set(counts)
    assert torch.isfinite(method.loss(views_of(method, batch(4, 8, layout), layout), 0.0).loss)


@pytest.mark.parametrize("per_batch", [True, False])
def test_one_block_for_the_batch_only_if_asked(per_batch: bool) -> None:
    drawn = views_of(mixer("skelemixclr_plus", mix_per_batch=per_batch), batch(30, 64)).extra
    for part in MIX[1:]:
        alike = [bool((each == each[:1]).all()) for each in drawn[part]]
        assert alike == [per_batch] * 3, part
        assert not torch.equal(drawn[part][0], drawn[part][1]) or not torch.equal(drawn[part][0], drawn[part][2])


@every_mixer
@pytest.mark.parametrize("frames", [4, 5, 7, 18])
def test_any_length_of_clip_is_learned_from(name: str, frames: int) -> None:
    """A last segment may be short; with one segment only joints tell the sides apart."""
    method = mixer(name)
    out = method.loss(views_of(method, batch(4, frames)), 0.0)
    out.loss.backward()
    assert torch.isfinite(out.loss)
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.grad is not None)


# --- state, settings and official names -----------------------------------------------------------------------------


@every_mixer
def test_a_checkpoint_goes_on_bit_for_bit(name: str, tmp_path: Path) -> None:
    config = make_config(name, 3, params=own_config(name, fill="gaussian"))
    run, other = (start(config, make_clips(8), np.arange(8), seed=3) for _ in range(2))
    list(pretrain(run, until=2))
    checkpoint.save(tmp_path / "x.pt", run)
    list(pretrain(other, until=1))
    checkpoint.restore(checkpoint.read(tmp_path / "x.pt"), other)
    ends = [[(e.loss, e.logs) for e in pretrain(r)] for r in (run, other)]
    assert len(ends[0]) == 1 and ends[0] == ends[1]
    assert same(copy_state(other.model), copy_state(run.model))


def test_at_the_start_both_parts_are_near_the_log_of_what_there_is() -> None:
    """Keys and queue still random: log(1 + K) of the query, log(2 + K) of a side, at a mild temperature."""
    method = mixer(queue=4096, temperature=5.0)
    _, instance, regional = terms(method, views_of(method, batch()))
    assert instance == pytest.approx(math.log(4097), abs=0.25)
    assert regional == pytest.approx(math.log(4098), abs=0.25)


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"temperature": 0.0}, "temperature must be positive, got 0"),
        ({"momentum": 1.5}, "momentum must lie in"),
        ({"queue": 0}, "queue must hold at least one key, got 0"),
        ({"regional_weight": -1.0}, "regional_weight must be finite, not negative, got -1"),
        ({"regional_weight": math.inf}, "regional_weight must be finite"),
        ({"repeats": 0}, "repeats must be at least 1, got 0"),
        ({"parts_least": 0}, "parts_least must be at least 1, got 0"),
        ({"joints_least": 0}, "joints_least must be at least 1, got 0"),
        ({"segments_more": -1}, "segments_more must not be negative, got -1"),
        ({"joints": "all"}, "joints must be one of parts, any, got 'all'"),
        ({"reduce": "max"}, "reduce must be one of mean, sum, got 'max'"),
        ({"fill": "swop"}, "fill must be one of swap, zeros, gaussian, got 'swop'"),
        ({"ema_buffers": "mine"}, "ema_buffers must be own or copy, got 'mine'"),
        ({"momentum_schedule": "linear"}, "momentum_schedule must be constant or cosine"),
    ],
)
def test_impossible_settings_are_refused(own: dict[str, Any], said: str) -> None:
    for config in (SkeleMixCLRConfig, SkeleMixCLRPlusConfig):
        with pytest.raises(InputError, match=said):
            config(**own)


@pytest.mark.parametrize(
    ("name", "config"), [("skelemixclr", SkeleMixCLRConfig), ("skelemixclr_plus", SkeleMixCLRPlusConfig)]
)
def test_a_published_run_with_every_quirk(name: str, config: type[SkeleMixCLRConfig]) -> None:
    quirky = published(name, preset="paper_code")
    assert type(quirky.params) is config
    assert quirky.params == config(init_sync=False, mix_per_batch=True)
    assert quirky.preprocess == ("trim_paper", "centre", "resize", "rotate_y_paper")
    assert quirky.encoder == published(name).encoder and quirky.encoder.partition == "inward_outward"
    assert SkeleMixCLR.stages(quirky.params) == (Stage("train", 0.0),)


@pytest.mark.parametrize(
    ("official", "ours"),
    [
        ("encoder_q.fc.1.running_mean", "projector.1.running_mean"),
        ("encoder_k.fc.3.weight", "slow_projector.target.3.weight"),
        ("encoder_q.data_bn.bias", "encoder.norm.bias"),
        ("encoder_k.st_gcn_networks.4.residual.1.weight", "slow_encoder.target.blocks.4.shortcut.1.weight"),
        ("queue", "queue.keys"),
        ("queue_ptr", "queue.pointer"),
        ("queue_label", None),
    ],
)
def test_official_names(official: str, ours: str | None) -> None:
    found = place(official)
    assert (found and found.name) == ours
    assert ours is None or ours in mixer().state_dict() or "shortcut" in ours
