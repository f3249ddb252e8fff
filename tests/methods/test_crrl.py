"""CRRL: what each stage learns and leaves alone, which encoder is probed when, and that padding changes nothing."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import copy_state, generator, make_clips, make_config, movements, own_config, policy, same, small_encoder
from torch import Tensor, nn

from methods.augment.policy import AugmentConfig, Policy
from methods.base import Views
from methods.crrl import CRRL, RECIPE, CRRLConfig, drawn_anew
from methods.data.layouts import KINECT20, NTU25, Layout
from methods.errors import InputError
from methods.nn.build import build_encoder
from methods.nn.encoder import Encoder
from methods.official.crrl import crrl as place
from methods.training import checkpoint
from methods.training.branches import Branches
from methods.training.config import StreamsConfig, published, with_settings
from methods.training.features import extract
from methods.training.pretrain import pretrain, start

CONTRAST, FUSE = 0.5 - 1e-9, 0.5  # either side of the published fuse_start
LENGTHS = (12, 7, 1, 12, 5)  # of the clips below, in frames; 12 are the longest
LEARNER = ("encoder.", "projector.")
FUSER = ("student.", "student_head.", "decoder.")


def clips(seed: int = 0, layout: Layout = NTU25, persons: int = 2, padding: int = 0) -> Tensor:
    """Five clips of :data:`LENGTHS` frames, zeros behind; the second body of every other one is absent."""
    x = torch.from_numpy(movements(5, 12, layout, persons, seed=seed)[0])
    for clip, length in zip(x, LENGTHS, strict=True):
        clip[:, length:] = 0
    return torch.cat([x, x.new_zeros(*x.shape[:2], padding, *x.shape[3:])], 2)


def make(
    seed: int = 0, layout: Layout = NTU25, persons: int = 2, shape: dict[str, Any] | None = None, **own: Any
) -> CRRL:
    """Small and apart: the key networks differ from the query's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = build_encoder(small_encoder("crrl", **(shape or {})), layout, persons=persons)
        method = CRRL(own_config("crrl", **own), encoder)
        for p in method.parameters():
            p.data += 0.2 * torch.randn_like(p)
    return method.train()


def two(method: CRRL, x: Tensor) -> Views:
    return method.make_views(x, policy("crrl"), generator())


def solver(method: CRRL) -> torch.optim.SGD:
    trained = [p for p in method.parameters() if p.requires_grad]
    return torch.optim.SGD(trained, lr=0.05, momentum=0.9, weight_decay=1e-2)


def step(method: CRRL, sgd: torch.optim.SGD, progress: float, seed: int = 0) -> float:
    loss = method.loss(two(method, clips(seed)), progress).loss
    sgd.zero_grad()
    loss.backward()
    sgd.step()
    return loss.item()


def moved(method: CRRL, before: dict[str, Any]) -> set[str]:
    """The parts of the state that are no longer as they were."""
    now = method.state_dict()
    return {key.split(".")[0] for key in now if not torch.equal(now[key], before[key])}


# --- the views ------------------------------------------------------------------------------------------------------


def test_the_key_is_the_velocity_of_each_clips_own_frames() -> None:
    x, method = clips(), make()
    views = two(method, x)
    assert torch.equal(views["a"], x)
    assert views.extra["key_lengths"].tolist() == list(LENGTHS)
    expected = np.zeros_like(x.numpy())
    for i, length in enumerate(LENGTHS):
        expected[i, :, : length - 1] = np.diff(x.numpy()[i, :, :length], axis=1)
    np.testing.assert_array_equal(views["b"].numpy(), expected)


def test_the_key_may_be_a_view_and_views_may_be_augmented() -> None:
    x = clips()
    shear = Policy(AugmentConfig(crop=0.0, shear=0.5), NTU25)
    views = make(key="view").make_views(x, shear, generator())
    first, second = (shear(x, g) for g in [generator()] * 2)
    assert torch.equal(views["a"], first) and torch.equal(views["b"], second)
    velocities = make().make_views(x, shear, generator())
    assert torch.equal(velocities["a"], first)
    torch.testing.assert_close(velocities["b"][0, :, 3], second[0, :, 4] - second[0, :, 3])


# --- contrast -------------------------------------------------------------------------------------------------------


def alone(net: Any, x: Tensor, length: int) -> Tensor:
    """Features (D,) of one clip (C, T, V, M) from its first ``length`` frames and nothing else."""
    flat = x[:, :length].permute(1, 2, 0, 3).flatten(1)
    states: Tensor = net.gru(flat[None])[0][0]
    return states.mean(0)


def test_contrast_is_info_nce_of_positions_and_velocities() -> None:
    """One clip at a time, unpadded; the key has as many frames as its positions, the last of them at rest."""
    method = make(momentum=1.0)
    x, tau = clips(), method.config.temperature
    views, queue = two(method, x), method.queue.keys.double().numpy().copy()
    expected = []
    with torch.no_grad():
        for i, length in enumerate(LENGTHS):
            q = method.projector(alone(method.encoder, views["a"][i], length))
            k = method.slow_projector(alone(method.slow_encoder.target, views["b"][i], length))
            q, k = ((v / v.norm()).double().numpy() for v in (q, k))
            terms = np.exp(np.concatenate([[q @ k], queue @ q]) / tau)
            expected.append(-math.log(terms[0] / terms.sum()))
    assert method.loss(views, CONTRAST).loss.item() == pytest.approx(np.mean(expected), rel=1e-5)
    assert int(method.queue.pointer) == 5


def test_a_frozen_key_head_is_a_random_one_that_stays() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        frozen = CRRL(own_config("crrl", key_head_frozen=True), build_encoder(small_encoder("crrl"), NTU25))
    assert same(copy_state(frozen.slow_encoder.target), copy_state(frozen.encoder))
    heads = [list(m.parameters()) for m in (frozen.slow_projector, frozen.projector)]
    assert all(p.shape == q.shape and not torch.equal(p, q) for p, q in zip(*heads, strict=True))
    spans = [max(p.abs().max().item() for p in head) for head in heads]
    assert spans[0] == pytest.approx(spans[1], rel=0.1)  # drawn by the same rule
    for held, parts in ((True, {"slow_encoder"}), (False, {"slow_encoder", "slow_projector"})):
        method = make(key_head_frozen=held, momentum=0.9)
        before = copy_state(method)
        method.loss(two(method, clips()), 0.0)
        assert moved(method, before) == parts | {"queue"}


def test_a_rising_momentum_is_at_one_where_contrast_ends() -> None:
    """Half a run long: at 0.25 of the run it is half way up."""
    before = dict(make().slow_encoder.target.named_parameters())["gru.bias_ih_l0"].clone()
    apart = {}
    for progress in (0.0, 0.25, CONTRAST):
        method = make(momentum=0.5, momentum_schedule="cosine")
        method.loss(two(method, clips()), progress)
        apart[progress] = (method.slow_encoder.target.gru.bias_ih_l0 - before).norm().item()
    assert apart[0.25] == pytest.approx(apart[0.0] / 2, rel=1e-4)
    assert apart[CONTRAST] == pytest.approx(0, abs=1e-6)


# --- reconstruction and distillation --------------------------------------------------------------------------------


def slow_playback(method: CRRL, x: Tensor) -> dict[str, float]:
    """Section 4.3, one clip at a time, unpadded: sum of squares over a clip divided by its frames, mean over clips."""
    way = {"forward": 0.0, "reverse": 0.0}
    for clip, length in zip(x, LENGTHS, strict=True):
        flat = clip[:, :length].permute(1, 2, 0, 3).flatten(1)  # (L, V*C*M)
        states = method.student.gru(flat[None])[0][0]
        for name, held, target in (("forward", states[0], flat), ("reverse", states[-1], flat.flip(0))):
            played = method.decoder(held.repeat(length, 1)[None])[0][0]
            way[name] += ((played - target).double() ** 2).sum().item() / length / len(x)
    return way


@pytest.mark.parametrize("reconstruct", ["both", "forward", "reverse"])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_fuse_plays_the_clip_both_ways_and_follows_the_teacher(reconstruct: str, reduction: str) -> None:
    method = make(reconstruct=reconstruct, reduction=reduction, distill_weight=0.7)
    x = clips()
    with torch.no_grad():
        way, distance = slow_playback(method, x), 0.0
        for clip, length in zip(x, LENGTHS, strict=True):
            student = method.student_head(alone(method.student, clip, length))
            distance += ((student - alone(method.encoder, clip, length)) ** 2).sum().item() / len(x)
    if reduction == "mean":
        way = {name: loss / (25 * 3 * 2) for name, loss in way.items()}
    out = method.loss(two(method, x), FUSE)
    chosen = {name: loss for name, loss in way.items() if reconstruct in (name, "both")}
    assert out.loss.item() == pytest.approx(sum(chosen.values()) + 0.7 * distance, rel=1e-5)
    assert out.logs.keys() == {*chosen, "distillation"}
    assert all(out.logs[name].item() == pytest.approx(loss, rel=1e-5) for name, loss in chosen.items())


@pytest.mark.parametrize(("layout", "persons"), [(NTU25, 2), (KINECT20, 1), (KINECT20, 3)])
def test_a_silent_decoder_pays_the_energy_of_the_clip_twice(layout: Layout, persons: int) -> None:
    """Weights of zero keep a GRU at zero; a student's head of zero is as far off as the teacher's features are long."""
    method = make(layout=layout, persons=persons)
    for module in (method.decoder, method.student_head):
        for p in module.parameters():
            nn.init.zeros_(p)
    x = clips(layout=layout, persons=persons)
    energy = np.mean([(clip.double() ** 2).sum().item() / n for clip, n in zip(x, LENGTHS, strict=True)])
    length = np.mean((method.encoder(x).detach().double().numpy() ** 2).sum(1))
    out = method.loss(two(method, x), FUSE)
    assert out.loss.item() == pytest.approx(2 * energy + method.config.distill_weight * length, rel=1e-5)


def test_forward_starts_from_the_first_frame_and_reverse_from_the_last() -> None:
    """Only where a state is read does it get a gradient: at either end of a clip's own frames."""
    for way, at in (("forward", [0] * 5), ("reverse", [n - 1 for n in LENGTHS])):
        method = make(reconstruct=way)
        states = torch.randn(5, 12, method.student.dim, generator=generator(), requires_grad=True)
        losses = method._reconstruct(states, clips(), torch.tensor(LENGTHS))
        losses[way].backward()
        assert states.grad is not None
        read = [frames.any(1).nonzero().flatten().tolist() for frames in states.grad]
        assert read == [[frame] for frame in at]


def test_the_teacher_teaches_without_dropout_unless_asked() -> None:
    """It is handed back in the mode it came in; the paper's code leaves its dropout on."""
    x, lengths = clips(), torch.tensor(LENGTHS)
    for noisy in (False, True):
        method = make(shape={"dropout": 0.5, "input_norm": "joint"}, teacher_dropout=noisy)
        before = copy_state(method.encoder)
        first, second = (method._taught(x, lengths) for _ in range(2))
        assert torch.equal(first, second) != noisy
        assert all(m.training for m in method.modules())
        assert same(copy_state(method.encoder), before)  # the norm's statistics too
        assert not first.requires_grad
        method.eval()
        assert torch.equal(method._taught(x, lengths), method.encoder(x))
        assert not any(m.training for m in method.modules())


def test_the_student_is_drawn_like_its_teacher_and_not_equal_to_it() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for init in ("torch", "xavier"):
            encoder = build_encoder(small_encoder("crrl", init=init), NTU25)
            pairs = list(zip(encoder.gru.parameters(), drawn_anew(encoder).gru.parameters(), strict=True))
            assert all(not torch.equal(p, q) for p, q in pairs)
            for p, q in pairs:
                assert p.abs().max().item() == pytest.approx(q.abs().max().item(), rel=0.3)
        method = CRRL(own_config("crrl"), encoder)
        assert not torch.equal(method.embed(clips()), method.student(clips()))


# --- padding --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("progress", [CONTRAST, FUSE])
def test_padding_changes_nothing(progress: float) -> None:
    """Eight more frames of zeros: the same loss, the same gradients, the same features."""
    found = []
    for padding in (0, 8):
        method = make().double()
        x = clips(padding=padding).double()
        loss = method.loss(two(method, x), progress).loss
        loss.backward()
        grads = {name: p.grad for name, p in method.named_parameters() if p.grad is not None}
        found.append({"loss": loss.detach(), "features": method.embed(x).detach(), **grads})
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("progress", [CONTRAST, FUSE])
def test_with_all_lengths_padding_counts_as_frames(progress: float) -> None:
    full = torch.from_numpy(movements(5, 12)[0])
    for x, alike in ((clips(), False), (full, True)):
        pair = make(), make(shape={"lengths": "all"})
        assert same(*(copy_state(m) for m in pair))
        valid, counted = (m.loss(two(m, x), progress).loss.item() for m in pair)
        assert (valid == pytest.approx(counted, rel=1e-6)) == alike


# --- stages ---------------------------------------------------------------------------------------------------------


def test_stages_are_named_and_the_second_says_what_is_probed() -> None:
    def named(**own: Any) -> list[tuple[str, float, bool]]:
        return [(stage.name, stage.start, "student" in stage.probed) for stage in CRRL.stages(CRRLConfig(**own))]

    assert named() == [("contrast", 0.0, False), ("fuse", 0.5, True)]
    assert named(fuse_start=0.8) == [("contrast", 0.0, False), ("fuse", 0.8, True)]
    assert named(fuse_start=1.0) == [("contrast", 0.0, False)]
    assert named(fuse_start=0.0) == [("reconstruct", 0.0, False)]


def test_each_stage_trains_its_own_and_leaves_the_other_alone() -> None:
    """Momentum and weight decay of the optimiser do not go on either: the teacher is frozen from the first step on."""
    method = make(momentum=0.9)
    sgd = solver(method)
    for progress, parts in ((0.0, {"encoder", "projector", "slow_encoder", "slow_projector", "queue"}),
                            (CONTRAST, {"encoder", "projector", "slow_encoder", "slow_projector", "queue"}),
                            (FUSE, {"student", "student_head", "decoder", "fused"}),
                            (0.9, {"student", "student_head", "decoder"})):  # fmt: skip
        before = copy_state(method)
        step(method, sgd, progress)
        assert moved(method, before) == parts, progress


@pytest.mark.parametrize(("progress", "trained"), [(CONTRAST, LEARNER), (FUSE, FUSER)])
def test_gradients_of_each_stage(progress: float, trained: tuple[str, ...]) -> None:
    method = make()
    method.loss(two(method, clips()), progress).loss.backward()
    for name, p in method.named_parameters():
        assert (p.grad is not None and bool(p.grad.any())) == name.startswith(trained), name


def test_reconstruction_alone_has_no_teacher() -> None:
    """``fuse_start: 0`` whatever the weight, or a weight of 0: the untrained encoder is never asked."""
    method = make(fuse_start=0.0, distill_weight=5.0)
    x = clips()
    with torch.no_grad():
        expected = sum(slow_playback(method, x).values())
    for other in (method, make(distill_weight=0.0)):
        out = other.loss(two(other, x), FUSE)
        assert out.loss.item() == pytest.approx(expected, rel=1e-5)
        assert out.logs.keys() == {"forward", "reverse"}
    assert method.fused and torch.equal(make(fuse_start=0.0).embed(x), method.student(x))


def test_the_probed_encoder_is_the_student_from_its_stage_on() -> None:
    method, x = make().eval(), clips()
    seen: list[Encoder] = []
    for progress in (0.0, CONTRAST, FUSE, 0.9):
        method.loss(two(method, x), progress)
        seen.append(method.probed)
        assert torch.equal(method.embed(x), seen[-1](x))
    assert [encoder is method.student for encoder in seen] == [False, False, True, True]
    assert not torch.equal(method.encoder(x), method.student(x))


def fused_of(model: Branches) -> bool:
    (branch,) = model.branches.values()
    assert isinstance(branch, CRRL)
    (settled,) = model.encoders()
    assert settled is (branch.student if branch.fused else branch.encoder)
    return bool(branch.fused)


@pytest.mark.parametrize("done", [1, 2, 3])
def test_a_checkpoint_in_either_stage_goes_on_bit_for_bit(tmp_path: Path, done: int) -> None:
    """Saved before, at and after the change of stage; restored into a run that has got further, or not as far."""
    config = with_settings(make_config("crrl", 4), {"encoder.dropout": 0.2, "encoder.input_norm": "joint"})
    run, other = (start(config, make_clips(16), np.arange(16), seed=3) for _ in range(2))
    list(pretrain(run, until=done))
    assert fused_of(run.model) == (done > 2)
    checkpoint.save(tmp_path / "x.pt", run)
    list(pretrain(other, until=4 if done < 3 else 1))
    checkpoint.restore(checkpoint.read(tmp_path / "x.pt"), other)
    assert same(copy_state(other.model), copy_state(run.model))
    everything = torch.arange(16)
    features = [extract(r.model, r.store, everything, everything)["joint"] for r in (run, other)]
    assert torch.equal(*features) and fused_of(other.model) == (done > 2)
    ends = [[(e.loss, e.spread, e.logs) for e in pretrain(r)] for r in (run, other)]
    assert len(ends[0]) == 4 - done and ends[0] == ends[1]
    assert same(copy_state(other.model), copy_state(run.model)) and fused_of(other.model)


# --- settings and official names ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"fuse_start": 1.1}, r"fuse_start is a share of the run in \[0, 1\], got 1.1"),
        ({"fuse_start": -0.1}, "fuse_start is a share"),
        ({"temperature": 0.0}, "temperature must be positive, got 0"),
        ({"momentum": 1.5}, "momentum must lie in"),
        ({"momentum_schedule": "linear"}, "momentum_schedule must be constant or cosine, got 'linear'"),
        ({"queue": 0}, "queue must hold at least one key, got 0"),
        ({"hidden": 0}, "hidden and projection must be at least 1"),
        ({"key": "speed"}, "key must be velocity or view, got 'speed'"),
        ({"distill_weight": -1.0}, "distill_weight must be finite, not negative, got -1"),
        ({"distill_weight": math.nan}, "distill_weight must be finite"),
        ({"reconstruct": "none"}, "reconstruct must be one of both, forward, reverse, got 'none'"),
        ({"reduction": "max"}, "reduction must be sum or mean, got 'max'"),
    ],
)
def test_impossible_settings_are_refused(own: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        CRRLConfig(**own)


def test_an_encoder_that_has_seen_one_frame_cannot_play_the_clip() -> None:
    for shape, said in (({"bidirectional": False}, "bidirectional: false"), ({"stepwise": True}, "stepwise: true")):
        with pytest.raises(InputError, match=f"encoder.{said} has seen no other frame"):
            make(shape=shape)
        for own in ({"reconstruct": "reverse"}, {"fuse_start": 1.0}):
            method = make(shape=shape, **own)
            assert torch.isfinite(method.loss(two(method, clips()), 0.9).loss)


def test_other_streams_are_refused() -> None:
    with pytest.raises(InputError, match="method 'crrl' knows the stream joint only, not motion"):
        dataclasses.replace(published("crrl"), streams=StreamsConfig(("motion",)))


def test_a_published_run_with_every_quirk() -> None:
    config = published("crrl", preset="paper_code")
    assert config.params == CRRLConfig(key_head_frozen=True, teacher_dropout=True)
    assert config.encoder == RECIPE.encoder and config.augment == RECIPE.augment
    assert config.streams == StreamsConfig(("joint",)) and published("crrl").params == CRRLConfig()


def test_the_published_networks_have_the_published_sizes() -> None:
    """Section 4.1 for two bodies of 25 joints: 1.81 M in the encoder; heads 512-512-512; a decoder of 150."""
    method = CRRL(CRRLConfig(), build_encoder(RECIPE.encoder, NTU25))
    assert round(sum(p.numel() for p in method.student.parameters()) / 1e6, 2) == 1.81
    for head in (method.projector, method.student_head):
        assert [m.weight.shape for m in head if isinstance(m, nn.Linear)] == [(512, 512)] * 2
    decoder = method.decoder
    assert (decoder.input_size, decoder.hidden_size, decoder.num_layers, decoder.dropout) == (512, 150, 2, 0.2)
    assert not decoder.bidirectional


@pytest.mark.parametrize(
    ("official", "ours"),
    [
        ("moco.queue", "queue.keys"),
        ("moco_model.queue_ptr", "queue.pointer"),
        ("moco.encoder_fc_q.gru.weight_ih_l0", "encoder.gru.weight_ih_l0"),
        ("moco.encoder_fc_k.gru.bias_hh_l1_reverse", "slow_encoder.target.gru.bias_hh_l1_reverse"),
        ("moco.encoder_fc_q.fc.2.bias", "projector.2.bias"),
        ("moco.encoder_fc_k.fc.0.weight", "slow_projector.target.0.weight"),
        ("encoder.gru.weight_hh_l0", "student.gru.weight_hh_l0"),
        ("gru.weight_hh_l0", "student.gru.weight_hh_l0"),
        ("decoder.gru.bias_ih_l1", "decoder.bias_ih_l1"),
        ("mlp.classifier_.2.weight", "student_head.2.weight"),
        ("classifier_.weight", None),  # a linear evaluation's
        ("encoder.fc.weight", None),
    ],
)
def test_official_names(official: str, ours: str | None) -> None:
    found = place(official)
    assert (found and found.name) == ours
    if found:
        assert found.name in make().state_dict()
