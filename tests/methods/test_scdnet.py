"""SCD-Net: what is held against what, what a stream's views are made of, and how its heads start."""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import copy_state, generator, make_clips, make_config, make_method, movements, own_config, policy, same
from torch import Tensor, nn

from methods.augment.policy import AugmentConfig, Policy
from methods.base import Views
from methods.data.layouts import KINECT20, NTU25, OPENNI15, Layout
from methods.data.streams import derive
from methods.errors import InputError
from methods.losses import info_nce
from methods.nn.ema import slow_copy
from methods.nn.encoder import Encoder
from methods.official.scdnet import scdnet as place
from methods.scdnet import LEVELS, TERMS, SCDNet, SCDNetConfig
from methods.training import checkpoint
from methods.training.branches import Branches
from methods.training.config import StreamsConfig, published
from methods.training.pretrain import pretrain, start


def batch(frames: int = 16, layout: Layout = NTU25, persons: int = 2, count: int = 5, seed: int = 0) -> Tensor:
    return torch.from_numpy(movements(count, frames, layout, persons, seed=seed)[0])


def pair(seed: int = 0) -> Views:
    return Views({"a": batch(seed=seed), "b": batch(seed=seed + 1)}, torch.ones(5, 2, dtype=torch.bool))


class Given(Encoder):
    """Features are what the clip holds: its time vector, then its space and its instance vector in one."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.time_dim, self.space_dim, self.dim = dim, 2 * dim, 3 * dim

    def forward(self, clips: Tensor, present: Tensor | None = None) -> Tensor:
        return clips.flatten(1)


class Columns(nn.Module):
    """Some columns of a feature."""

    def __init__(self, first: int, last: int) -> None:
        super().__init__()
        self.span = slice(first, last)

    def forward(self, x: Tensor) -> Tensor:
        return x[:, self.span]


def given_vectors(dim: int, **own: Any) -> SCDNet:
    """A method that compares the three vectors which each clip holds: no weights at all."""
    method = SCDNet(SCDNetConfig(hidden=1, projection=dim, **own), Given(dim))
    heads = {"time": Columns(0, dim), "space": Columns(0, dim), "instance": Columns(2 * dim, 3 * dim)}
    method.projectors = nn.ModuleDict(heads)
    method.slow_projectors = nn.ModuleDict({level: slow_copy(head, method.config) for level, head in heads.items()})
    return method


def vectors(query: dict[str, Tensor], key: dict[str, Tensor]) -> Views:
    """Clips of :class:`Given` that hold the levels' vectors (N, D)."""
    clips = {
        name: torch.cat([x[level] for level in LEVELS], 1)[:, :, None, None, None]
        for name, x in (("a", query), ("b", key))
    }
    return Views(clips, torch.ones(len(query["time"]), 1, dtype=torch.bool))


def unit_vectors(seed: int, count: int = 4, dim: int = 6) -> dict[str, Tensor]:
    rows = torch.randn(3, count, dim, generator=generator(seed), dtype=torch.float64)
    return dict(zip(LEVELS, nn.functional.normalize(rows, dim=2), strict=True))


# --- the loss -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("queue", "tau"), [(1, 1.0), (4, 0.5), (7, 0.2)])
def test_right_angles(queue: int, tau: float) -> None:
    """Every negative at a right angle. Own keys alike: log(1 + K e^(-1/tau)); at a right angle too: log(1 + K)."""
    dim = queue + 2
    one, other = (torch.eye(dim)[i].repeat(3, 1) for i in (0, 1))
    method = given_vectors(dim, queue=queue, temperature=tau)
    for level in LEVELS:
        method.queue[level].copy_(torch.eye(dim)[2:])
    # Time asks for the instance's vector, which holds `other`: at a right angle. Space has what the instance has.
    query, key = {"time": one, "space": 2 * other, "instance": other}, {"time": one, "space": other, "instance": other}
    out = method.loss(vectors(query, key), 0.0)
    alike, apart = math.log1p(queue * math.exp(-1 / tau)), math.log1p(queue)
    expected = {
        "time_to_instance": apart,
        "space_to_instance": alike,
        "instance_to_time": apart,
        "instance_to_space": alike,
    }
    assert {name: out.logs[name].item() for name in TERMS} == pytest.approx(expected, rel=1e-5)
    assert out.loss.item() == pytest.approx(2 * alike + 2 * apart, rel=1e-5)


def test_each_term_is_across_levels() -> None:
    """The official code's two letters for a term: whose query, and whose key and queue."""
    method = given_vectors(6, queue=9).double()
    q, k = unit_vectors(0), unit_vectors(1)
    queue = {level: method.queue[level].clone() for level in LEVELS}
    out = method.loss(vectors(q, k), 0.0)
    for name, (asks, answers) in {"ti": (0, 2), "si": (1, 2), "it": (2, 0), "is": (2, 1)}.items():
        ask, answer = LEVELS[asks], LEVELS[answers]
        expected = info_nce(q[ask], k[answer], queue[answer], 0.2)
        assert out.logs[f"{ask}_to_{answer}"].item() == pytest.approx(expected.item(), rel=1e-9), name
    assert set(out.logs) == {*TERMS, *(f"{level}_spread" for level in LEVELS)}


@pytest.mark.parametrize("level", LEVELS)
def test_a_queue_serves_only_the_terms_that_ask_for_its_level(level: str) -> None:
    plain, changed = given_vectors(6, queue=9).double(), given_vectors(6, queue=9).double()
    changed.load_state_dict(plain.state_dict())
    changed.queue[level].neg_()
    views = vectors(unit_vectors(0), unit_vectors(1))
    before, after = (method.loss(views, 0.0).logs for method in (plain, changed))
    different = {name for name in TERMS if before[name] != after[name]}
    assert different == {name for name, (_, answer) in TERMS.items() if answer == level}


def test_terms_are_weighed() -> None:
    weights = {"time_to_instance": 0.5, "space_to_instance": 2.0, "instance_to_time": 0.0, "instance_to_space": 3.0}
    plain, weighed = (make_method("scdnet", **own) for own in ({}, weights))
    terms = plain.loss(pair(), 0.0).logs
    total = weighed.loss(pair(), 0.0).loss.item()
    assert total == pytest.approx(sum(w * terms[name].item() for name, w in weights.items()), rel=1e-5)


@pytest.mark.parametrize("term", TERMS)
def test_one_term_alone_trains_its_own_query(term: str) -> None:
    method = make_method("scdnet", **{name: float(name == term) for name in TERMS})
    method.loss(pair(), 0.0).loss.backward()
    asks = TERMS[term][0]
    for level, head in method.projectors.items():
        learns = any(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())
        assert learns == (level == asks)
    for part in ("time", "space"):
        grads = [p.grad for p in getattr(method.encoder, part).tokens.parameters() if p.grad is not None]
        assert any(g.abs().sum() > 0 for g in grads) == (asks in (part, "instance"))


def test_at_first_all_four_are_near_chance() -> None:
    """log(1 + K): the levels' projectors know nothing of one another."""
    method = make_method("scdnet", queue=1024, projection=128, hidden=64, temperature=0.5)
    logs = method.loss(pair(), 0.0).logs
    for name in TERMS:
        assert logs[name].item() == pytest.approx(math.log(1025), abs=0.6), name


def test_own_keys_are_not_among_the_negatives() -> None:
    """With K = N the queue holds the last keys: the same batch again has each clip's own key in it, twice."""
    method = given_vectors(6, queue=4).double()
    views = vectors(unit_vectors(0), unit_vectors(1))
    first = method.loss(views, 0.0)
    for level in LEVELS:
        torch.testing.assert_close(method.queue[level], unit_vectors(1)[level])
    assert abs(method.loss(views, 0.0).loss.item() - first.loss.item()) > 0.01


# --- views ----------------------------------------------------------------------------------------------------------


def ramp(frames: int, count: int = 40) -> Tensor:
    """Every entry of a clip is its frame's number, from 1 on."""
    rows = torch.arange(1, frames + 1, dtype=torch.float64)[None, None, :, None, None]
    return rows.expand(count, 3, frames, NTU25.num_joints, 2).clone()


def test_views_are_crops_in_time_and_nothing_else() -> None:
    """Of a steady movement: as steady, between the least share of its speed and all of it, never beyond its ends."""
    x = ramp(64)
    views = make_method("scdnet", frames=64).make_views(x, policy("scdnet"), generator())
    assert list(views.clips) == ["a", "b"]
    shares = []
    for view in views.clips.values():
        rows = view[:, 0, :, 0, 0]
        assert torch.equal(view, rows[:, None, :, None, None].expand_as(view))
        steps = rows.diff(dim=1)
        speed = steps[:, 32]
        assert (steps >= 0).all() and ((rows >= 1) & (rows <= 64)).all()
        middle = steps[:, 6:-6]
        torch.testing.assert_close(middle, speed[:, None].expand_as(middle))
        shares.append(speed)
    share = torch.stack(shares)
    least = policy("scdnet").config.crop_resize
    assert least - 1 / 64 <= float(share.min()) < least + 0.1 and 0.95 < float(share.max()) <= 1
    assert (views["a"] != views["b"]).flatten(1).any(1).float().mean() > 0.9


def test_a_crop_ends_where_the_clip_ends() -> None:
    """Empty frames behind a clip are no part of a view, unless the whole clip is empty."""
    x = ramp(16)
    x[:, :, 9:] = 0
    views = make_method("scdnet").make_views(x, policy("scdnet"), generator())
    assert all((view > 0).all() and (view <= 9).all() for view in views.clips.values())


@pytest.mark.parametrize("stream", ["joint", "motion", "bone"])
def test_masks_come_after_the_stream(stream: str) -> None:
    """In a stream's own clips 8 of 25 joints are empty, and 6 of 16 segments: whole, and nothing beside them."""
    method, frames = make_method("scdnet", frames=32), 32
    how = Policy(AugmentConfig(crop=0.0, shear=0.0, joint_mask=1.0, segment_mask=1.0), NTU25)
    x = torch.randn(6, 3, frames, 25, 2, generator=generator())
    whole = method.make_views(x, how, generator()).map(partial(derive, stream=stream, layout=NTU25))
    masked = method.finish_views(whole, how, generator(1))
    # What a stream leaves empty by itself: motion its last frame, bones the root.
    t = slice(frames - 1 if stream == "motion" else frames)
    v = [joint for joint in range(25) if stream != "bone" or joint != NTU25.root]
    for name, view in masked.clips.items():
        seen = (view[:, :, t, v] != 0).all(4).all(1)  # (N, T, V)
        still, gone = ~seen.any(2), ~seen.any(1)  # frames and joints that are hidden throughout
        assert torch.equal(seen, ~still[:, :, None] & ~gone[:, None, :])
        assert torch.equal(view[:, :, t, v], whole[name][:, :, t, v] * seen[:, None, :, :, None])
        assert ((still.sum(1) >= 11) & (still.sum(1) <= 12)).all()  # two frames a segment
        assert ((gone.sum(1) >= 7) & (gone.sum(1) <= 8)).all()
        if stream == "joint":
            assert (still.sum(1) == 12).all() and (gone.sum(1) == 8).all()


def test_streams_of_a_batch_are_hidden_alike() -> None:
    config = make_config("scdnet", streams=StreamsConfig(("joint", "bone")))
    config = dataclasses.replace(config, augment=AugmentConfig(crop=0.0, shear=0.0, joint_mask=1.0))
    model = Branches(config, NTU25, seed=0)
    views = model.views(torch.randn(4, 3, 16, 25, 2, generator=generator()), generator(1))
    hidden = {name: (own["a"] == 0).all(4).all(2).all(1) for name, own in views.items()}  # (N, V)
    assert (hidden["joint"].sum(1) == 8).all()
    others = [joint for joint in range(25) if joint != NTU25.root]  # the root is no end of a bone: always empty
    assert torch.equal(hidden["joint"][:, others], hidden["bone"][:, others])


def test_strength_zero_leaves_a_clip_alone() -> None:
    method, x = make_method("scdnet"), batch()
    still = Policy(dataclasses.replace(published("scdnet").augment, strength=0.0), NTU25)
    done = method.finish_views(method.make_views(x, still, generator()), still, generator())
    assert all(torch.equal(view, x) for view in done.clips.values())


# --- networks -------------------------------------------------------------------------------------------------------


def test_heads_are_as_wide_as_published_and_start_by_xaviers_rule() -> None:
    torch.manual_seed(0)
    encoder = make_method("scdnet").encoder
    method = SCDNet(SCDNetConfig(hidden=96, projection=64), encoder)
    widths = {"time": 8, "space": 8, "instance": 16}
    for level, head in method.projectors.items():
        shapes = [tuple(p.shape) for p in head.parameters()]
        assert shapes == [(96, widths[level]), (96,), (64, 96), (64,)]
        for weight in (p for p in head.parameters() if p.dim() == 2):
            bound = math.sqrt(6 / sum(weight.shape))
            assert 0.95 * bound < weight.abs().max().item() <= bound
    assert method.embed(batch()).shape == (5, 16)


@pytest.mark.parametrize("layout", [KINECT20, OPENNI15], ids=lambda layout: layout.name)
def test_one_person_of_another_layout(layout: Layout) -> None:
    clips = make_clips(12, frames=8, layout=layout, persons=1)
    config = make_config("scdnet", 2, frames=8, streams=StreamsConfig(("motion",)))
    run = start(config, clips, np.arange(12), seed=0)
    assert all(math.isfinite(epoch.loss) for epoch in pretrain(run))


def test_clips_of_another_length_are_refused() -> None:
    with pytest.raises(InputError, match="12 frames, not 16"):
        make_method("scdnet").embed(batch(frames=12))


def test_a_checkpoint_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """With dropout, and the pointer amid the queue: 12 keys, batches of 8."""
    config = make_config("scdnet", 3, streams=StreamsConfig(("bone",)), frames=8)
    config = dataclasses.replace(config, encoder=dataclasses.replace(config.encoder, dropout=0.3))
    run, other = (start(config, make_clips(8, frames=8), np.arange(8), seed=3) for _ in range(2))
    list(pretrain(run, until=1))
    checkpoint.save(tmp_path / "x.pt", run)
    list(pretrain(other, until=2))
    checkpoint.restore(checkpoint.read(tmp_path / "x.pt"), other)
    assert same(copy_state(other.model), copy_state(run.model))
    ends = [[(e.loss, e.logs) for e in pretrain(r)] for r in (run, other)]
    assert len(ends[0]) == 2 and ends[0] == ends[1]
    assert same(copy_state(other.model), copy_state(run.model))


# --- settings and official names ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"temperature": 0.0}, "temperature must be positive, got 0"),
        ({"momentum": 1.5}, "momentum must lie in"),
        ({"momentum_schedule": "linear"}, "momentum_schedule must be constant or cosine"),
        ({"queue": 0}, "queue must hold at least one key, got 0"),
        ({"hidden": 0}, "hidden and projection must be at least 1"),
        ({"time_to_instance": -0.1}, "time_to_instance must be finite, not negative, got -0.1"),
        ({"instance_to_space": math.inf}, "instance_to_space must be finite, not negative, got inf"),
        ({"instance_to_time": math.nan}, "instance_to_time must be finite, not negative, got nan"),
        (dict.fromkeys(TERMS, 0.0), "time_to_instance, .* are all 0: nothing would be learnt"),
        ({"ema_buffers": "mine"}, "ema_buffers must be own or copy, got 'mine'"),
    ],
)
def test_impossible_settings_are_refused(own: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        SCDNetConfig(**own)


def test_a_published_run_with_every_quirk() -> None:
    config = published("scdnet", preset="paper_code")
    assert config.params == own_config("scdnet", queue=8192, hidden=2048, projection=128)
    changed = {f: getattr(config.augment, f) for f in ("flip_reflect", "rotate_both_ways", "joint_mask_fair")}
    assert changed == dict.fromkeys(changed, False)
    assert config.encoder == published("scdnet").encoder
    assert config.preprocess[:2] == ("shift_persons", "loop_persons") and config.preprocess[-1] == "resize"


STATE = make_method("scdnet").state_dict()


@pytest.mark.parametrize(
    ("official", "ours"),
    [
        ("t_queue", "queue.keys_time"),
        ("i_queue", "queue.keys_instance"),
        ("s_queue_ptr", "queue.pointer"),
        ("encoder_q.t_proj.0.weight", "projectors.time.0.weight"),
        ("encoder_k.i_proj.2.bias", "slow_projectors.instance.target.2.bias"),
        ("encoder_q.encoder.gcn_t.data_bn.running_var", "encoder.time.graph.norm.running_var"),
        ("encoder_k.encoder.gcn_s.l1.gcn1.PA", "slow_encoder.target.space.graph.units.0.spatial.graph"),
        (
            "encoder_q.encoder.gcn_s.l3.gcn1.convs.2.conv4.bias",
            "encoder.space.graph.units.2.spatial.relations.2.relation.bias",
        ),
        ("encoder_q.encoder.gcn_t.l2.gcn1.down.1.weight", "encoder.time.graph.units.1.spatial.shortcut.1.weight"),
        ("encoder_q.encoder.gcn_t.l2.residual.conv.weight", "encoder.time.graph.units.1.shortcut.0.weight"),
        (
            "encoder_q.encoder.gcn_t.l2.tcn1.branches.1.3.bn.weight",
            "encoder.time.graph.units.1.temporal.branches.1.4.weight",
        ),
        (
            "encoder_q.encoder.gcn_t.l1.tcn1.branches.2.4.weight",
            "encoder.time.graph.units.0.temporal.branches.2.4.weight",
        ),
        ("encoder_q.encoder.channel_s.3.weight", "encoder.space.tokens.3.weight"),
        (
            "encoder_k.encoder.s_encoder.layers.0.self_attn.in_proj_weight",
            "slow_encoder.target.space.attention.0.self_attn.in_proj_weight",
        ),
        ("encoder_q.fc.weight", None),  # a linear evaluation's classifier
        ("u_queue", None),
    ],
)
def test_official_names(official: str, ours: str | None) -> None:
    found = place(official)
    assert (found and found.name) == ours
    assert ours is None or ours in STATE
