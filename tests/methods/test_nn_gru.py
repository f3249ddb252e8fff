"""The GRU encoder against its formula, cell by cell, and against what the published code does with it."""

from __future__ import annotations

import dataclasses
import re

import pytest
import torch
from tiny import BUSH15, generator, movements
from torch import Tensor, nn

from methods.data.layouts import CMU31, KINECT20, NTU25, Layout
from methods.errors import InputError
from methods.fields import field_table
from methods.filled import valid_lengths
from methods.nn.build import build_encoder
from methods.nn.ema import Ema
from methods.nn.gru import POOLS, GruConfig, GruEncoder
from methods.nn.stgcn import ScaleNorm

SMALL = GruConfig(hidden=4, layers=2)


def encoder(layout: Layout = BUSH15, persons: int = 2, **changes: object) -> GruEncoder:
    torch.manual_seed(0)
    built = build_encoder(dataclasses.replace(SMALL, **changes), layout, persons=persons)
    assert isinstance(built, GruEncoder)
    return built


def batch(frames: int = 7, layout: Layout = BUSH15, persons: int = 2, count: int = 3) -> Tensor:
    return torch.from_numpy(movements(count, frames, layout, persons)[0])


def padded(frames: int = 7, lengths: tuple[int, ...] = (7, 4, 1)) -> tuple[Tensor, Tensor]:
    """Clips that end early, with zeros behind their end."""
    x = torch.randn(len(lengths), 3, frames, 15, 2, generator=generator()).double()
    for clip, length in zip(x, lengths, strict=True):
        clip[:, length:] = 0
    return x, torch.tensor(lengths)


def slow_cell(gru: nn.GRU, cell: str, inputs: list[Tensor], state: Tensor) -> list[Tensor]:
    """Cho et al., arXiv:1406.1078: reset and update gates, a candidate, frame after frame."""
    w, u, b, c = (getattr(gru, f"{name}_{cell}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    out = []
    for x in inputs:
        from_input, from_state = (w @ x + b).chunk(3), (u @ state + c).chunk(3)
        reset, update = ((p + q).sigmoid() for p, q in zip(from_input[:2], from_state[:2], strict=True))
        state = (1 - update) * (from_input[2] + reset * from_state[2]).tanh() + update * state
        out.append(state)
    return out


def slow_states(net: GruEncoder, flat: Tensor, stepwise: bool) -> Tensor:
    """One clip's (T, F) -> (T, D), layer by layer; a backward cell gets the frames from the last to the first."""
    rows = list(flat)
    for layer in range(net.config.layers):
        start = flat.new_zeros(net.config.hidden)
        ahead = slow_cell(net.gru, f"l{layer}", rows, start)
        if stepwise:
            other = slow_cell(net.gru, f"l{layer}_reverse", rows, start)
        else:
            other = slow_cell(net.gru, f"l{layer}_reverse", rows[::-1], start)[::-1]
        rows = [torch.cat(pair) for pair in zip(ahead, other, strict=True)]
    return torch.stack(rows)


def slow_flat(clip: Tensor) -> Tensor:
    """(C, T, V, M) -> (T, V*C*M): joints outermost, then axes, then bodies."""
    c, t, v, m = clip.shape
    return torch.stack([torch.stack([clip[k, i, j, b] for j in range(v) for k in range(c) for b in range(m)])
                        for i in range(t)])  # fmt: skip


@pytest.mark.parametrize("stepwise", [True, False])
def test_states_are_the_formula(stepwise: bool) -> None:
    net, x = encoder(stepwise=stepwise, input_norm="none").double(), batch().double()
    expected = torch.stack([slow_states(net, slow_flat(clip), stepwise) for clip in x])
    torch.testing.assert_close(net.states(x), expected)


@pytest.mark.parametrize("stepwise", [True, False])
def test_a_shorter_clip_is_as_if_it_were_alone(stepwise: bool) -> None:
    net, (x, lengths) = encoder(stepwise=stepwise, input_norm="none").double(), padded()
    states = net.states(x, lengths)
    assert states.shape == (3, 7, 8)
    for clip, state, length in zip(x, states, lengths.tolist(), strict=True):
        torch.testing.assert_close(state[:length], slow_states(net, slow_flat(clip[:, :length]), stepwise))
        assert not state[length:].any()


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_stepwise_is_handing_over_frame_by_frame(layers: int, bidirectional: bool) -> None:
    """The published loop: the whole GRU on one frame at a time, its state carried on."""
    net = encoder(stepwise=True, layers=layers, bidirectional=bidirectional).double().eval()
    x, state, expected = batch().double(), None, []
    flat = net.norm(torch.stack([slow_flat(clip) for clip in x]).transpose(1, 2)).transpose(1, 2)
    for frame in flat.split(1, 1):
        out, state = net.gru(frame, state)
        expected.append(out)
    torch.testing.assert_close(net.states(x), torch.cat(expected, 1))


def test_stepwise_never_looks_ahead_and_the_other_does() -> None:
    x = batch()
    for stepwise in (True, False):
        net, changed = encoder(stepwise=stepwise).eval(), x.clone()
        changed[:, :, 5:] += 1
        assert torch.allclose(net.states(x)[:, :5], net.states(changed)[:, :5]) == stepwise


@pytest.mark.parametrize("stepwise", [True, False])
def test_pools_are_their_loops(stepwise: bool) -> None:
    x, lengths = padded()
    for pool in POOLS:
        net = encoder(stepwise=stepwise, pool=pool, lengths="valid", input_norm="none").double()
        expected = []
        for state, length in zip(net.states(x, lengths), lengths.tolist(), strict=True):
            own = state[:length]
            ends = own[-1] if stepwise else torch.cat([own[-1, :4], own[0, 4:]])
            expected.append({"last": own[-1], "mean": own.mean(0), "max": own.max(0).values, "ends": ends}[pool])
        torch.testing.assert_close(net(x), torch.stack(expected))
        torch.testing.assert_close(net(x[:1]), encoder(stepwise=stepwise, pool=pool, input_norm="none").double()(x[:1]))


def test_valid_lengths() -> None:
    x = torch.zeros(4, 3, 6, 15, 2)
    x[0, 2, 5, 14, 1] = -1e-9  # one number in the last frame
    x[1, 0, 2, 3, 0] = 1  # a gap before a last frame counts
    x[1, 0, 0, 3, 0] = 1
    x[2, 1, 0] = 1
    assert valid_lengths(x).tolist() == [6, 3, 1, 1]  # a clip of zeros has one frame


def test_names_are_those_of_a_gru() -> None:
    """So that official weights are a rename, and one run's weights serve either kind of pass."""
    names = set(nn.GRU(90, 4, 2, bidirectional=True).state_dict())
    for stepwise in (True, False):
        net = encoder(stepwise=stepwise)
        assert {name.removeprefix("gru.") for name in net.state_dict() if name.startswith("gru.")} == names
        assert {name.split(".")[0] for name in net.state_dict()} == {"gru", "norm"}


def test_input_norm_is_over_clips_and_frames() -> None:
    net, x = encoder().train(), 3 + 2 * torch.randn(4, 3, 9, 15, 2, generator=generator())
    seen: list[Tensor] = []
    net.norm.register_forward_hook(lambda _m, _i, out: seen.append(out))
    net(x)
    expected = (x - x.mean((0, 2), keepdim=True)) / (x.var((0, 2), correction=0, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(seen[0].transpose(1, 2), torch.stack([slow_flat(clip) for clip in expected]))
    assert isinstance(encoder(input_norm="scale").norm, ScaleNorm)
    assert not list(encoder(input_norm="none").norm.parameters())


@pytest.mark.parametrize("layout", [NTU25, KINECT20, CMU31])
@pytest.mark.parametrize(("frames", "persons"), [(1, 2), (5, 1), (8, 3)])
def test_shape_of_features(layout: Layout, frames: int, persons: int) -> None:
    for bidirectional in (True, False):
        net = encoder(layout, persons, bidirectional=bidirectional, pool="ends").eval()
        assert net.dim == (8 if bidirectional else 4)
        assert net(batch(frames, layout, persons)).shape == (3, net.dim)


def test_channels_are_any_number() -> None:
    net = build_encoder(SMALL, BUSH15, 2, persons=1)
    assert net(torch.randn(3, 2, 5, 15, 1)).shape == (3, 8)


def test_every_weight_learns() -> None:
    for stepwise in (True, False):
        for lengths in ("all", "valid"):
            net = encoder(stepwise=stepwise, lengths=lengths, input_norm="scale").train()
            net(batch()).square().sum().backward()
            assert all(p.grad is not None and p.grad.any() for p in net.parameters())


def test_dropout_is_between_layers_and_in_training_only() -> None:
    for stepwise in (True, False):
        net, x = encoder(stepwise=stepwise, dropout=0.5, input_norm="none"), batch()
        same = encoder(stepwise=stepwise, input_norm="none")
        assert torch.equal(net.eval()(x), same(x))
        assert not torch.equal(net.train()(x), net(x))
        single = encoder(stepwise=stepwise, layers=1, dropout=0.5, input_norm="none").train()
        assert torch.equal(single(x), single(x))


def test_xavier_initialisation() -> None:
    """U(-a, a) with a = sqrt(6 / (fan in + fan out)) for matrices; biases as torch draws them."""
    net = encoder(init="xavier", hidden=32)
    for name, p in net.gru.named_parameters():
        bound = (6 / sum(p.shape)) ** 0.5 if p.dim() == 2 else 32**-0.5
        assert 0.9 * bound < float(p.detach().abs().max()) <= bound, name
    assert float(encoder(hidden=32).gru.weight_ih_l0.detach().abs().max()) <= 32**-0.5


def test_a_momentum_copy_is_its_own_and_follows() -> None:
    for stepwise in (True, False):
        net, x = encoder(stepwise=stepwise, input_norm="none"), batch()
        copy, before = Ema(net, 0.0), net(x).detach()
        with torch.no_grad():
            for p in net.parameters():
                p.mul_(1.5)
        torch.testing.assert_close(copy(x), before)
        assert not torch.allclose(net(x), before)
        copy.update(net, 0.0)
        torch.testing.assert_close(copy(x), net(x).detach())


@torch.no_grad()
def test_bf16_is_near_fp32() -> None:
    for stepwise in (True, False):
        exact = encoder(stepwise=stepwise, input_norm="none")(batch())
        rough = encoder(stepwise=stepwise, input_norm="none", precision="bf16")(batch())
        assert rough.dtype == torch.float32 and not torch.equal(exact, rough)
        assert float((exact - rough).norm() / exact.norm()) < 0.03


def test_clips_of_another_size_are_refused() -> None:
    with pytest.raises(InputError, match="1 persons, not 2"):
        encoder()(batch(persons=1))
    with pytest.raises(InputError, match="25 joints, not 15"):
        encoder()(batch(layout=NTU25))


def test_ranges_construct_at_both_ends() -> None:
    for name, info in field_table(GruConfig).items():
        assert info.doc
        for end in info.range.ends() if info.range else ():
            assert getattr(GruConfig(**{name: end}), name) == end


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "lstm"}, {"hidden": 0}, {"layers": 0}, {"dropout": 1.0}, {"dropout": float("nan")},
        {"input_norm": "layer"}, {"pool": "first"}, {"lengths": "some"}, {"init": "he"}, {"precision": "fp16"},
    ],
)  # fmt: skip
def test_config_says_what_is_wrong(wrong: dict[str, object]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(InputError, match=f"encoder.{name} .*{re.escape(str(value))}"):
        GruConfig(**wrong)
