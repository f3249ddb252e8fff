"""CMD: what a stream learns from the others' neighbours, that rows stay aligned, and its published networks."""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import (
    copy_state,
    generator,
    make_clips,
    make_config,
    make_method,
    movements,
    own_config,
    policy,
    same,
    small_encoder,
)
from torch import Tensor, nn

from methods.augment.policy import Policy
from methods.base import Views
from methods.cmd import CMD, CMDConfig
from methods.data.layouts import KINECT20, NTU25, OPENNI15, Layout
from methods.data.streams import derive
from methods.errors import InputError
from methods.nn.build import build_encoder
from methods.nn.ema import Ema
from methods.nn.encoder import Encoder
from methods.official.cmd import cmd as place
from methods.training import checkpoint
from methods.training.config import StreamsConfig, published
from methods.training.pretrain import pretrain, start

STREAMS = ("joint", "motion", "bone")
USES = [STREAMS, ("joint", "bone"), ("motion",)]


def make(use: tuple[str, ...] = STREAMS, seed: int = 0, **own: Any) -> CMD:
    """Small and apart: the key encoders differ from the query encoders."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        shape = small_encoder("cmd")
        method = CMD(own_config("cmd", **own), {stream: build_encoder(shape, NTU25) for stream in use})
        for p in method.parameters():
            p.data += 0.2 * torch.randn_like(p)
    return method.train()


def streamed(use: tuple[str, ...] = STREAMS, count: int = 5, seed: int = 0) -> dict[str, Views]:
    clips = [torch.from_numpy(movements(count, 10, seed=seed + k)[0]) for k in (0, 1)]
    views = Views(dict(zip("ab", clips, strict=True)), torch.ones(count, 2, dtype=torch.bool))
    return {stream: views.map(partial(derive, stream=stream, layout=NTU25)) for stream in use}


class Given(Encoder):
    """Features are what the clip holds: (N, D, 1, 1, 1) -> (N, D)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, clips: Tensor, present: Tensor | None = None) -> Tensor:
        return clips.flatten(1)


def given_vectors(dim: int, use: tuple[str, ...] = STREAMS, **own: Any) -> CMD:
    """A method that compares the vectors which its clips hold: no weights at all."""
    method = CMD(CMDConfig(projection=dim, hidden=1, **own), {stream: Given(dim) for stream in use})
    method.projectors = nn.ModuleDict({stream: nn.Identity() for stream in use})
    method.slow_projectors = nn.ModuleDict({stream: Ema(nn.Identity(), 0.9) for stream in use})
    return method


def vectors(query: Tensor, key: Tensor) -> Views:
    clips = {name: x[:, :, None, None, None] for name, x in (("a", query), ("b", key))}
    return Views(clips, torch.ones(len(query), 1, dtype=torch.bool))


def unit(x: Tensor) -> np.ndarray:
    rows = x.detach().double().numpy()
    return rows / np.sqrt((rows**2).sum(1, keepdims=True))


def slow_losses(method: CMD, views: dict[str, Views]) -> dict[str, tuple[float, float]]:
    """Section 9.3, a clip and a pair of streams at a time: stream -> its InfoNCE, what it is taught."""
    c, q, k, queue, found = method.config, {}, {}, {}, {}
    for s, own in views.items():
        q[s] = unit(method.projectors[s](method.encoders[s](own["a"])))
        k[s] = unit(method.slow_projectors[s](method.slow_encoders[s](own["b"])))
        queue[s] = method.queue[s].double().numpy()
    for b in views:
        nce = taught = 0.0
        for i in range(len(q[b])):
            own = math.exp(q[b][i] @ k[b][i] / c.temperature)
            nce -= math.log(own / (own + sum(math.exp(q[b][i] @ row / c.temperature) for row in queue[b])))
            for a in (a for a in views if a != b):
                seen = queue[a] @ k[a][i]
                kept = sorted(range(len(seen)), key=lambda j, seen=seen: -seen[j])[: c.neighbours]
                p = [math.exp(seen[j] / c.teacher_temperature) for j in kept]
                r = [math.exp(q[b][i] @ queue[b][j] / c.student_temperature) for j in kept]
                taught += sum(x / sum(p) * math.log(x / sum(p) / (y / sum(r))) for x, y in zip(p, r, strict=True))
        found[b] = nce / len(q[b]), taught / len(q[b])
    return found


# --- the loss -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("use", USES, ids="+".join)
@pytest.mark.parametrize("own", [{}, {"topk": 1.0, "cmd_weight": 0.3}, {"topk": 0.25, "teacher_temperature": 0.02}])
def test_loss_is_its_formula(use: tuple[str, ...], own: dict[str, Any]) -> None:
    method = make(use, momentum=1.0, **own)
    views = streamed(use)
    expected = slow_losses(method, views)
    found = method.losses(views, 0.0)
    assert list(found) == list(use)
    for s in use:
        nce, taught = expected[s]
        assert found[s].logs["nce"].item() == pytest.approx(nce, rel=1e-4)
        assert found[s].logs["distillation"].item() == pytest.approx(taught, rel=1e-4, abs=1e-6)
        assert found[s].loss.item() == pytest.approx(nce + method.config.cmd_weight * taught, rel=1e-4)
        assert (taught > 0.01) == (len(use) > 1)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(("queue", "tau"), [(1, 1.0), (5, 0.5)])
def test_right_angles(count: int, queue: int, tau: float) -> None:
    """q = k and every negative at a right angle: log(1 + K e^(-1/tau)) a stream, and nothing to teach."""
    use, dim = STREAMS[:count], queue + 1
    q = torch.zeros(3, dim)
    q[:, 0] = 2.0
    method = given_vectors(dim, use, queue=queue, temperature=tau, topk=1.0)
    for s in use:
        method.queue[s].copy_(torch.eye(dim)[1:])
    found = method.losses({s: vectors(q, 3 * q) for s in use}, 0.0)
    assert [out.loss.item() for out in found.values()] == pytest.approx([math.log1p(queue / math.exp(1 / tau))] * count)
    assert all(abs(out.logs["distillation"].item()) < 1e-6 for out in found.values())


@pytest.mark.parametrize(("count", "teachers"), [(1, 0), (2, 1), (3, 2)])
def test_a_student_that_knows_nothing(count: int, teachers: int) -> None:
    """Two in the queue; the teacher sees one as itself, the other at a right angle, the student none: log 2 - H(p).

    p = 1 / (1 + e^(-1/tau)) with the teacher's tau, once for each teacher.
    """
    use, tau = STREAMS[:count], 0.4
    method = given_vectors(3, use, queue=2, topk=1.0, teacher_temperature=tau, student_temperature=0.5)
    for s in use:
        method.queue[s].copy_(torch.eye(3)[:2])
    views = {s: vectors(torch.eye(3)[2:].repeat(4, 1), torch.eye(3)[:1].repeat(4, 1)) for s in use}
    p = 1 / (1 + math.exp(-1 / tau))
    expected = teachers * (math.log(2) + p * math.log(p) + (1 - p) * math.log(1 - p))
    found = method.losses(views, 0.0)
    assert [out.logs["distillation"].item() for out in found.values()] == pytest.approx([expected] * count, abs=1e-6)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 30), st.floats(0.001, 1.0), st.integers(0, 99))
def test_what_is_taught_is_never_negative_and_one_neighbour_teaches_nothing(queue: int, topk: float, seed: int) -> None:
    method = given_vectors(4, queue=queue, topk=topk)
    draw = generator(seed)
    views = {s: vectors(torch.randn(3, 4, generator=draw), torch.randn(3, 4, generator=draw)) for s in STREAMS}
    taught = [out.logs["distillation"].item() for out in method.losses(views, 0.0).values()]
    assert 1 <= method.config.neighbours <= queue
    assert min(taught) > -1e-5
    if method.config.neighbours == 1:
        assert max(taught) < 1e-5


@pytest.mark.parametrize(
    ("topk", "queue", "count"), [(0.5, 16384, 8192), (1.0, 7, 7), (0.02, 16384, 328), (0.001, 64, 1), (0.4, 5, 2)]
)
def test_neighbours_are_a_share_of_the_queue(topk: float, queue: int, count: int) -> None:
    assert CMDConfig(topk=topk, queue=queue).neighbours == count


@pytest.mark.parametrize("progress", [0.0, 0.99])
def test_only_the_student_learns(progress: float) -> None:
    method = make()
    method.losses(streamed(), progress)["bone"].loss.backward()
    for name, p in method.named_parameters():
        if name.startswith("slow_"):
            assert not p.requires_grad and p.grad is None, name
        elif ".bone." in name:
            assert p.grad is not None and torch.isfinite(p.grad).all(), name
            assert p.grad.abs().sum() > 0 or "bias" in name, name
        else:
            assert p.grad is None, name


def test_what_is_taught_reaches_the_student() -> None:
    """Without weight a stream has the gradient of its InfoNCE alone."""
    grads = {}
    for weight in (0.0, 1.0, 2.0):
        method = make(cmd_weight=weight)
        method.losses(streamed(), 0.0)["joint"].loss.backward()
        grads[weight] = method.projectors["joint"][0].weight.grad
    first, second = grads[1.0] - grads[0.0], grads[2.0] - grads[0.0]
    assert first.norm() > 0.01 * grads[0.0].norm()
    torch.testing.assert_close(second, 2 * first, rtol=1e-3, atol=1e-5)


# --- the queues -----------------------------------------------------------------------------------------------------


def turned(method: CMD, names: tuple[str, ...]) -> dict[str, tuple[float, float]]:
    """Stream -> InfoNCE and distillation, with the rows of the queues of ``names`` in another order."""
    for s in names:
        method.queue[s].copy_(method.queue[s].roll(5, 0))
    found = method.losses(streamed(), 0.0)
    return {s: (out.logs["nce"].item(), out.logs["distillation"].item()) for s, out in found.items()}


def test_rows_of_all_queues_stand_for_the_same_clips() -> None:
    """Another order of all rows changes nothing; of one stream's alone it breaks what that one teaches and learns."""
    plain, all_turned, one_turned = (turned(make(momentum=1.0), names) for names in ((), STREAMS, ("motion",)))
    for s in STREAMS:
        assert all_turned[s] == pytest.approx(plain[s], rel=1e-4, abs=1e-5)
        assert one_turned[s][0] == pytest.approx(plain[s][0], rel=1e-4, abs=1e-5)
        assert abs(one_turned[s][1] - plain[s][1]) > 0.01


def test_rows_stay_aligned_round_the_end() -> None:
    """A clip's key is its number on a circle, turned by a third a stream."""

    def on_circle(number: Tensor, stream: str) -> Tensor:
        angle = number * 0.1 + 2 * math.pi / 3 * STREAMS.index(stream)
        return torch.stack([angle.cos(), angle.sin()], 1)

    method, seen = given_vectors(2, queue=7), 0
    for step, count in enumerate((3, 3, 5, 2, 9, 4)):
        numbers = torch.arange(seen, seen + count).float()
        method.losses({s: vectors(on_circle(numbers, s), 2 * on_circle(numbers, s)) for s in STREAMS}, step / 6)
        seen += count
    last = torch.arange(seen - 7, seen).float()
    for s in STREAMS:
        placed = method.queue[s][(int(method.queue.pointer) + torch.arange(7)) % 7]  # from the oldest on
        torch.testing.assert_close(placed, on_circle(last, s))


def test_own_keys_are_not_among_the_negatives() -> None:
    method = make(queue=5, momentum=1.0)
    first = {s: out.loss.item() for s, out in method.losses(streamed(), 0.0).items()}
    again = {s: nce for s, (nce, _) in slow_losses(method, streamed()).items()}  # now own key and queued copy of it
    assert all(abs(first[s] - again[s]) > 0.1 for s in STREAMS)


# --- views ----------------------------------------------------------------------------------------------------------


def test_a_clip_is_sheared_or_corrupted() -> None:
    """Of a clip at rest a crop shows nothing. One linear map for all joints, or 15 of 25 joints changed."""
    pose = torch.randn(400, 3, 1, 25, 1, generator=generator()).expand(400, 3, 16, 25, 2).clone()
    view = policy("cmd")(pose, generator(1))
    torch.testing.assert_close(view, view[:, :, :1].expand_as(view), atol=1e-6, rtol=0)
    changed = ((view - pose).abs() > 1e-4).any(4).any(2).any(1).sum(1)
    assert set(changed.tolist()) == {15, 25}
    assert 0.42 < float((changed == 15).float().mean()) < 0.58


def test_strength_zero_leaves_a_clip_alone() -> None:
    method, x = make_method("cmd"), torch.from_numpy(movements(5)[0])
    views = method.make_views(
        x, Policy(dataclasses.replace(published("cmd").augment, strength=0.0), NTU25), generator()
    )
    assert all(torch.equal(view, x) for view in views.clips.values())


# --- networks -------------------------------------------------------------------------------------------------------


def test_heads_are_as_wide_as_published_and_only_the_last_matrix_is_xaviers() -> None:
    torch.manual_seed(0)
    method = CMD(CMDConfig(hidden=96, projection=64), {"joint": build_encoder(small_encoder("cmd"), NTU25)})
    first, _, last = method.projectors["joint"]
    assert (first.weight.shape, last.weight.shape) == ((96, 16), (64, 96))
    for weight, bound in ((first.weight, 1 / 4), (last.weight, math.sqrt(6 / (96 + 64)))):
        assert 0.95 * bound < weight.abs().max().item() <= bound


def test_streams_start_apart_and_copies_equal() -> None:
    method = make_method("cmd")
    for a, b in permutations(STREAMS, 2):
        assert not torch.equal(method.encoders[a].gru.weight_ih_l0, method.encoders[b].gru.weight_ih_l0)
    for s in STREAMS:
        assert same(copy_state(method.slow_encoders[s].target), copy_state(method.encoders[s]))


@pytest.mark.parametrize("use", USES, ids="+".join)
@pytest.mark.parametrize("layout", [KINECT20, OPENNI15], ids=lambda layout: layout.name)
def test_one_person_of_another_layout(layout: Layout, use: tuple[str, ...]) -> None:
    clips = make_clips(12, frames=8, layout=layout, persons=1)
    run = start(make_config("cmd", 1, frames=8, streams=StreamsConfig(use)), clips, np.arange(12), seed=0)
    (epoch,) = pretrain(run)
    assert math.isfinite(epoch.loss)


def test_the_published_encoder_has_our_weights() -> None:
    """Frame by frame or whole: the same parameters, other features."""
    ours, theirs = (published("cmd", preset=preset).encoder for preset in ("clean", "paper_code"))
    assert (theirs.stepwise, theirs.pool) == (True, "last")
    assert dataclasses.replace(theirs, stepwise=False, pool="ends") == ours
    nets = []
    for config in (ours, theirs):
        torch.manual_seed(0)
        nets.append(build_encoder(dataclasses.replace(config, hidden=8), NTU25))
    assert same(*(copy_state(net) for net in nets))
    x = streamed(("joint",))["joint"]["a"]
    assert not torch.allclose(nets[0](x), nets[1](x), atol=1e-3)


@pytest.mark.parametrize("use", [STREAMS, ("bone", "joint")], ids="+".join)
def test_a_checkpoint_goes_on_bit_for_bit(tmp_path: Path, use: tuple[str, ...]) -> None:
    config = make_config("cmd", 4, streams=StreamsConfig(use))
    config = dataclasses.replace(config, encoder=dataclasses.replace(config.encoder, dropout=0.3))
    run, other = (start(config, make_clips(8), np.arange(8), seed=3) for _ in range(2))
    list(pretrain(run, until=2))
    checkpoint.save(tmp_path / "x.pt", run)
    list(pretrain(other, until=1))
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
        ({"teacher_temperature": 0.0}, "teacher_temperature must be positive, got 0"),
        ({"teacher_temperature": 0.1}, r"teacher_temperature must be below student_temperature \(0.1\), .* got 0.1"),
        ({"student_temperature": 0.04}, r"below student_temperature \(0.04\), .* got 0.05"),
        ({"momentum": 1.5}, "momentum must lie in"),
        ({"momentum_schedule": "linear"}, "momentum_schedule must be constant or cosine"),
        ({"queue": 0}, "queue must hold at least one key, got 0"),
        ({"projection": 0}, "hidden and projection must be at least 1"),
        ({"topk": 0.0}, r"topk is a share of the queue in \(0, 1\], got 0"),
        ({"topk": 8192}, r"topk is a share of the queue in \(0, 1\], got 8192"),
        ({"cmd_weight": -1.0}, "cmd_weight must be finite, not negative, got -1"),
        ({"cmd_weight": math.nan}, "cmd_weight must be finite, not negative, got nan"),
        ({"ema_buffers": "mine"}, "ema_buffers must be own or copy, got 'mine'"),
    ],
)
def test_impossible_settings_are_refused(own: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        CMDConfig(**own)


def test_a_published_run_with_every_quirk() -> None:
    config = published("cmd", preset="paper_code")
    assert config.params == CMDConfig() and config.streams == StreamsConfig(STREAMS)
    assert config.preprocess[:2] == ("shift_persons", "loop_persons") and config.preprocess[-1] == "resize"


STATE = make_method("cmd").state_dict()


@pytest.mark.parametrize(
    ("official", "ours"),
    [
        ("queue", "queue.keys_joint"),
        ("queue_motion", "queue.keys_motion"),
        ("queue_ptr_bone", "queue.pointer"),
        ("encoder_q.input_norm.running_var", "encoders.joint.norm.running_var"),
        ("encoder_q_motion.encoder.gru.weight_hh_l1_reverse", "encoders.motion.gru.weight_hh_l1_reverse"),
        ("encoder_k_bone.encoder.gru.bias_ih_l0", "slow_encoders.bone.target.gru.bias_ih_l0"),
        ("encoder_q_bone.fc.0.weight", "projectors.bone.0.weight"),
        ("encoder_k.fc.2.bias", "slow_projectors.joint.target.2.bias"),
        ("encoder_q_depth.fc.0.weight", None),
        ("encoder_q.encoder.lstm.weight_ih_l0", None),
        ("fc.weight", None),  # a linear evaluation's classifier
    ],
)
def test_official_names(official: str, ours: str | None) -> None:
    found = place(official)
    assert (found and found.name) == ours
    assert ours is None or ours in STATE
