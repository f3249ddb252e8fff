"""CrosSCLR: what a stream learns from the others, when that begins, who moves whom, and that rows stay aligned."""

from __future__ import annotations

import copy
import dataclasses
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import ENCODER, copy_state, generator, make_clips, make_config, movements, own_config, policy, same
from torch import Tensor, nn

from methods.base import Views
from methods.crossclr import CrosSCLR, CrosSCLRConfig
from methods.data.layouts import NTU25
from methods.data.streams import derive
from methods.errors import InputError
from methods.losses import cross_stream_logits
from methods.nn.build import build_encoder
from methods.nn.ema import Ema
from methods.nn.encoder import Encoder
from methods.official.crossclr import crossclr as place
from methods.training import checkpoint
from methods.training.config import StreamsConfig, published
from methods.training.pretrain import pretrain, start

STREAMS = ("joint", "motion", "bone")
ALONE, ACROSS = 0.5 - 1e-9, 0.5  # either side of the published cross_start
PAPER = {"share_head": True, "cross_ema": "motion_only"}


def streamed(seed: int = 0, use: tuple[str, ...] = STREAMS, count: int = 5) -> dict[str, Views]:
    clips = torch.from_numpy(movements(count, 12, seed=seed)[0])
    pair = [policy("crossclr")(clips, generator(seed + k)) for k in (1, 2)]
    views = Views({"a": pair[0], "b": pair[1]}, torch.ones(count, 2, dtype=torch.bool))
    return {stream: views.map(partial(derive, stream=stream, layout=NTU25)) for stream in use}


def make(use: tuple[str, ...] = STREAMS, seed: int = 0, **own: Any) -> CrosSCLR:
    """Small and apart: the key encoders differ from the query encoders, weights are of torch's own size."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        shape = dataclasses.replace(ENCODER, init="torch")
        method = CrosSCLR(own_config("crossclr", **own), {stream: build_encoder(shape, NTU25) for stream in use})
        for p in method.parameters():
            p.data += 0.2 * torch.randn_like(p)
    return method.train()


class Given(Encoder):
    """Features are what the clip holds: (N, D, 1, 1, 1) -> (N, D)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, clips: Tensor, present: Tensor | None = None) -> Tensor:
        return clips.flatten(1)


def given_vectors(dim: int, use: tuple[str, ...] = STREAMS, **own: Any) -> CrosSCLR:
    """A method that compares the vectors which its clips hold: no weights at all."""
    method = CrosSCLR(CrosSCLRConfig(projection=dim, **own), {stream: Given(dim) for stream in use})
    method.projectors = nn.ModuleDict({stream: nn.Identity() for stream in use})
    method.slow_projectors = nn.ModuleDict({stream: Ema(nn.Identity(), 0.9) for stream in use})
    return method


def vectors(query: Tensor, key: Tensor) -> Views:
    clips = {name: x[:, :, None, None, None] for name, x in (("a", query), ("b", key))}
    return Views(clips, torch.ones(len(query), 1, dtype=torch.bool))


def unit(x: Tensor) -> np.ndarray:
    rows = x.detach().double().numpy()
    return rows / np.sqrt((rows**2).sum(1, keepdims=True))


def slow_cosines(method: CrosSCLR, views: dict[str, Views]) -> dict[str, np.ndarray]:
    """Stream -> (N, 1+K), from projectors that are not shared and a key encoder that does not move."""
    found = {}
    for s, own in views.items():
        q = unit(method.projectors[s](method.encoders[s](own["a"])))
        k = unit(method.slow_projectors[s](method.slow_encoders[s](own["b"])))
        found[s] = np.concatenate([(q * k).sum(1, keepdims=True), q @ method.queue[s].double().numpy().T], 1)
    return found


def slow_losses(method: CrosSCLR, views: dict[str, Views], across: bool) -> dict[str, float]:
    """Section 8.2, a clip and a pair of streams at a time."""
    c, cosines = method.config, slow_cosines(method, views)
    losses = {}
    for u in views:
        others: list[str | None] = [v for v in views if v != u] if across else [None]
        terms = []
        for v in others:
            for i, own in enumerate(cosines[u]):
                logits, positives = list(own), [0]
                if v is not None:
                    neighbours = np.argsort(-cosines[v][i, 1:])[: c.topk]
                    positives += [1 + j for j in neighbours]
                    if c.context:
                        logits += [x * y for x, y in zip(own[1:], cosines[v][i, 1:], strict=True)]
                        positives += [len(own) + j for j in neighbours]
                below = math.log(sum(math.exp(x / c.temperature) for x in logits))
                terms.append(np.mean([below - logits[p] / c.temperature for p in positives]))
        losses[u] = float(np.mean(terms))  # equally many clips a pair: the mean of means
    return losses


# --- the loss -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("progress", [ALONE, ACROSS])
@pytest.mark.parametrize("use", [STREAMS, ("joint", "bone"), ("motion", "joint")], ids="+".join)
@pytest.mark.parametrize(("topk", "context"), [(1, True), (3, True), (2, False)])
def test_loss_is_its_formula(progress: float, use: tuple[str, ...], topk: int, context: bool) -> None:
    """InfoNCE below cross_start; from there on the mean over the other streams (with two: the one other)."""
    method = make(use, momentum=1.0, topk=topk, context=context)
    views = streamed(use=use)
    alone, across = (slow_losses(method, views, across) for across in (False, True))
    assert all(abs(alone[s] - across[s]) > 0.1 for s in use), "the stages cannot be told apart here"
    expected = across if progress >= 0.5 else alone
    found = method.losses(views, progress)
    assert list(found) == list(use)
    for s in use:
        assert found[s].loss.item() == pytest.approx(expected[s], rel=1e-4)
        assert set(found[s].logs) == {"projection_spread"}


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize(("queue", "tau"), [(1, 1.0), (4, 0.5)])
def test_right_angles(count: int, queue: int, tau: float) -> None:
    """q = k and every negative at a right angle: the logits are 1/tau once, else 0.

    Alone log(1 + K e^(-1/tau)). Across a third of the positives (with context; else half) has the 1/tau:
    log(e^(1/tau) + 2K) - 1/(3 tau), and log(e^(1/tau) + K) - 1/(2 tau).
    """
    use, dim = STREAMS[:count], queue + 1
    q = torch.zeros(3, dim)
    q[:, 0] = 2.0
    high = math.exp(1 / tau)
    expected = {
        (0.0, True): math.log1p(queue / high),
        (1.0, True): math.log(high + 2 * queue) - 1 / (3 * tau),
        (1.0, False): math.log(high + queue) - 1 / (2 * tau),
    }
    for (progress, context), value in expected.items():
        method = given_vectors(dim, use, queue=queue, temperature=tau, context=context)
        for s in use:
            method.queue[s].copy_(torch.eye(dim)[1:])
        found = method.losses({s: vectors(q, 3 * q) for s in use}, progress)
        assert [out.loss.item() for out in found.values()] == pytest.approx([value] * count, rel=1e-5)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 9), st.integers(1, 4), st.booleans(), st.integers(0, 99))
def test_sizes_of_what_is_compared(queue: int, topk: int, context: bool, seed: int) -> None:
    """Width 1 + K, or 1 + 2K; positives 1 + topk, or 1 + 2 topk: the same neighbours in both blocks."""
    own, other = (torch.rand(4, 1 + queue, generator=generator(seed + k)) for k in (0, 1))
    logits, positives = cross_stream_logits(own, other, 0.1, topk, context)
    blocks, chosen = 2 if context else 1, min(topk, queue)
    assert logits.shape == positives.shape == (4, 1 + blocks * queue)
    assert positives[:, 0].all() and (positives.sum(1) == 1 + blocks * chosen).all()
    assert torch.equal(positives[:, 1 : 1 + queue], positives[:, -queue:])


def test_the_key_is_made_before_it_is_enqueued() -> None:
    """A clip's own key must not be among its negatives: with K = N the queue then holds nothing but the last keys."""
    method = make(queue=5, topk=1, momentum=1.0)
    first = {s: out.loss.item() for s, out in method.losses(streamed(), 0.0).items()}
    again = slow_losses(method, streamed(), False)  # now own key and queued copy of it
    assert all(abs(first[s] - again[s]) > 0.1 for s in STREAMS)


# --- who learns, who moves ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("context", [True, False])
@pytest.mark.parametrize("progress", [ALONE, ACROSS])
def test_others_learn_through_the_context_alone(progress: float, context: bool) -> None:
    method = make(context=context)
    method.losses(streamed(), progress)["bone"].loss.backward()
    for name, p in method.named_parameters():
        if name.startswith("slow_"):
            assert not p.requires_grad and p.grad is None, name
        elif ".bone." in name or (context and progress == ACROSS):
            assert p.grad is not None and torch.isfinite(p.grad).all(), name
            assert p.grad.abs().sum() > 0 or name.endswith("bias"), name
        else:
            assert p.grad is None, name


@pytest.mark.parametrize("use", [STREAMS, ("joint", "motion")], ids="+".join)
@pytest.mark.parametrize("progress", [ALONE, ACROSS])
@pytest.mark.parametrize("own", [{}, PAPER])
def test_which_key_encoders_move_and_how_far(use: tuple[str, ...], progress: float, own: dict[str, Any]) -> None:
    """A weight moves once, the shared head once for each stream that moves it (m^3); frozen ones not at all."""
    m = 0.9
    method = make(use, momentum=m, **own)
    before = copy_state(method)
    method.losses(streamed(use=use), progress)
    after = method.state_dict()
    moving = ("motion",) if "cross_ema" in own and progress == ACROSS else use
    slow = [name for name, _ in method.named_parameters() if name.startswith("slow_")]
    for name in slow:
        stream = name.split(".")[1]
        times = int(stream in moving)
        if "share_head" in own and stream == "joint" and name.startswith("slow_projectors"):
            times = len(moving)
        online = before[name.removeprefix("slow_").replace(".target", "")]
        expected = m**times * before[name] + (1 - m**times) * online
        torch.testing.assert_close(after[name], expected, rtol=1e-5, atol=1e-6)
        assert torch.equal(after[name], before[name]) == (times == 0), name
    statistics = [name for name in before if name.startswith("slow_") and name.endswith("running_mean")]
    assert all(not torch.equal(after[name], before[name]) for name in statistics)  # those of frozen ones move, too


@pytest.mark.parametrize(
    ("use", "owner"), [(STREAMS, "joint"), (("bone", "joint"), "joint"), (("bone", "motion"), "bone")]
)
def test_shared_head_ends_in_its_owners(use: tuple[str, ...], owner: str) -> None:
    method = make(use, share_head=True, momentum=1.0)
    views = streamed(use=use)
    head, slow = method.projectors[owner], method.slow_projectors[owner]
    with torch.no_grad():
        for s in use:
            q, k = method.encoders[s](views[s]["a"]), method.slow_encoders[s](views[s]["b"])
            if s != owner:
                assert [tuple(p.shape) for p in method.projectors[s].parameters()] == [(16, 16), (16,)]
                q, k = method.projectors[s](q), method.slow_projectors[s](k)
            own = (unit(head(q)) * unit(slow(k))).sum(1, keepdims=True)
            negatives = unit(head(q)) @ method.queue[s].double().numpy().T
            likeness = np.exp(np.concatenate([own, negatives], 1) / 0.07)
            expected = -np.log(likeness[:, 0] / likeness.sum(1)).mean()
            found = copy.deepcopy(method).losses(views, 0.0)[s].loss.item()
            assert found == pytest.approx(expected, rel=1e-4)


# --- the queues -----------------------------------------------------------------------------------------------------


def test_rows_of_all_queues_are_the_same_clips() -> None:
    """A clip's key is its number on a circle, turned by a third a stream; batches wrap round, and cross the stages."""

    def on_circle(number: Tensor, stream: str) -> Tensor:
        angle = number * 0.1 + 2 * math.pi / 3 * STREAMS.index(stream)
        return torch.stack([angle.cos(), angle.sin()], 1)

    method, seen = given_vectors(2, queue=7), 0
    for step, count in enumerate((3, 3, 5, 2, 9, 4)):
        numbers = torch.arange(seen, seen + count).float()
        rows = {s: on_circle(numbers, s) for s in STREAMS}
        method.losses({s: vectors(x, 2 * x) for s, x in rows.items()}, step / 6)
        seen += count
    last = torch.arange(seen - 7, seen).float()
    for s in STREAMS:
        placed = method.queue[s][(int(method.queue.pointer) + torch.arange(7)) % 7]  # from the oldest on
        torch.testing.assert_close(placed, on_circle(last, s))


# --- stages ---------------------------------------------------------------------------------------------------------


def test_stages_are_named() -> None:
    def named(**own: Any) -> list[tuple[str, float]]:
        return [(stage.name, stage.start) for stage in CrosSCLR.stages(CrosSCLRConfig(**own))]

    assert named() == [("contrast", 0.0), ("cross", 0.5)]
    assert named(cross_start=0.3) == [("contrast", 0.0), ("cross", 0.3)]
    assert named(cross_start=0.0) == [("cross", 0.0)]
    assert named(cross_start=1.0) == [("contrast", 0.0)]


@pytest.mark.parametrize(("done", "own"), [(1, {}), (3, PAPER)])
def test_a_checkpoint_in_either_stage_goes_on_bit_for_bit(tmp_path: Path, done: int, own: dict[str, Any]) -> None:
    """Saved after 1 of 2 epochs alone, or 1 of 2 across; restored into a run of other weights."""
    config = make_config("crossclr", 4, params=own_config("crossclr", **own))
    run, other = (start(config, make_clips(8), np.arange(8), seed=3) for _ in range(2))
    list(pretrain(run, until=done))
    checkpoint.save(tmp_path / "x.pt", run)
    list(pretrain(other, until=2 if done == 1 else 1))
    checkpoint.restore(checkpoint.read(tmp_path / "x.pt"), other)
    assert same(copy_state(other.model), copy_state(run.model))
    ends = [[(e.loss, e.logs) for e in pretrain(r)] for r in (run, other)]
    assert len(ends[0]) == 4 - done and ends[0] == ends[1]
    assert same(copy_state(other.model), copy_state(run.model))


# --- settings and official names ------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", STREAMS)
def test_one_stream_is_refused_and_pointed_elsewhere(stream: str) -> None:
    with pytest.raises(InputError, match=f"two streams or more, streams.use has {stream}; .* skeletonclr"):
        make((stream,))
    with pytest.raises(InputError, match=r"needs 2 streams or more, .* for fewer is skeletonclr"):
        make_config("crossclr", 1, streams=StreamsConfig((stream,)))


def test_motion_only_needs_motion() -> None:
    with pytest.raises(InputError, match=r"motion_only needs the motion stream, .* has joint, bone"):
        make(("joint", "bone"), cross_ema="motion_only")
    with pytest.raises(InputError) as raised:
        make(("bone",), cross_ema="motion_only")
    assert len(raised.value.faults) == 2


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"temperature": 0.0}, "temperature must be positive, got 0"),
        ({"momentum": 1.5}, "momentum must lie in"),
        ({"momentum_schedule": "linear"}, "momentum_schedule must be constant or cosine"),
        ({"queue": 0}, "queue must hold at least one key, got 0"),
        ({"cross_start": -0.1}, r"cross_start is a share of the run in \[0, 1\], got -0.1"),
        ({"topk": 0}, r"topk must lie in 1..queue \(32768\), got 0"),
        ({"topk": 5, "queue": 4}, r"topk must lie in 1..queue \(4\), got 5"),
        ({"ema_buffers": "mine"}, "ema_buffers must be own or copy, got 'mine'"),
        ({"cross_ema": "bone"}, "cross_ema must be all or motion_only, got 'bone'"),
    ],
)
def test_impossible_settings_are_refused(own: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        CrosSCLRConfig(**own)


def test_a_published_run_with_every_quirk() -> None:
    config = published("crossclr", preset="paper_code")
    assert config.params == CrosSCLRConfig(init_sync=False, **PAPER)
    assert config.encoder.partition == "spatial_degenerate" and config.streams == StreamsConfig(STREAMS)
    assert published("crossclr").params == CrosSCLRConfig()


SHARED = make(share_head=True).state_dict()


@pytest.mark.parametrize(
    ("official", "ours"),
    [
        ("queue", "queue.keys_joint"),
        ("queue_bone", "queue.keys_bone"),
        ("queue_ptr", "queue.pointer"),
        ("queue_ptr_motion", "queue.pointer"),
        ("encoder_q.data_bn.weight", "encoders.joint.norm.weight"),
        ("encoder_q_bone.A", "encoders.bone.graph"),
        ("encoder_k_motion.st_gcn_networks.4.gcn.conv.bias", "slow_encoders.motion.target.blocks.4.spatial.conv.bias"),
        ("encoder_q.fc.2.bias", "projectors.joint.2.bias"),
        ("encoder_q_motion.fc.0.weight", "projectors.motion.0.weight"),
        ("encoder_q_motion.fc.2.0.weight", "projectors.joint.0.weight"),
        ("encoder_k_bone.fc.2.2.weight", "slow_projectors.joint.target.2.weight"),
        ("encoder_k.edge_importance.2", "slow_encoders.joint.target.edge_importance.2"),
        ("encoder_q_depth.fc.0.weight", None),
        ("fc.weight", None),  # a linear evaluation's classifier
    ],
)
def test_official_names(official: str, ours: str | None) -> None:
    found = place(official)
    assert (found and found.name) == ours
    if ours is not None:
        assert ours.replace("blocks.4", "blocks.2") in SHARED  # three blocks there
