"""What a CPU runs in its own way: the ST-GCN's block, its norm and dropout, a GRU layer. Equal to the plain modules."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from methods.data.layouts import NTU25
from methods.nn import stgcn
from methods.nn.dropout import factors
from methods.nn.encoder import EncoderConfig
from methods.nn.norm import batch_norm, moments
from methods.nn.recurrence import gru_layer
from methods.nn.stgcn import STGCN, Block


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def slopes(y: Tensor, *of: Tensor) -> list[Tensor]:
    """The gradients of a weighted sum of ``y``."""
    return list(torch.autograd.grad((y * random(*y.shape, seed=9, dtype=y.dtype)).sum(), of))


# channels in and out, stride, residual
KINDS = [(3, 8, 1, False), (8, 8, 1, True), (8, 16, 2, True), (16, 4, 1, True), (1, 1, 2, True)]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("channels", "out", "stride", "residual"), KINDS)
def test_block_on_a_cpu_is_the_plain_block(
    channels: int, out: int, stride: int, residual: bool, training: bool
) -> None:
    torch.manual_seed(0)
    block = Block(channels, out, stride, 0.0, residual, 3).double().train(training)
    other = copy.deepcopy(block)
    x, graph = random(3, channels, 9, 5).requires_grad_(), random(3, 5, 5, seed=1).requires_grad_()
    plain, fast = block.plain(x, graph), other.on_cpu(x, graph)
    torch.testing.assert_close(fast, plain, rtol=0, atol=1e-12)
    far = zip(slopes(plain, x, graph, *block.parameters()), slopes(fast, x, graph, *other.parameters()), strict=True)
    for theirs, mine in far:
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-11)
    for (name, theirs), mine in zip(block.named_buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12, msg=name)


@pytest.mark.parametrize("time_last", [True, False])
def test_either_order_gathers_the_same(time_last: bool) -> None:
    conv = stgcn.SpatialConv(6, 4, 3).double()
    x, graph = random(2, 6, 7, 5), random(3, 5, 5, seed=1)
    turned = (x.transpose(2, 3) if time_last else x).contiguous(memory_format=torch.channels_last)
    y = conv.channels_last(turned, graph, time_last)
    torch.testing.assert_close(y.transpose(2, 3) if time_last else y, conv(x, graph), rtol=0, atol=1e-13)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("bodies", ["all", "real"])
def test_encoder_with_joints_cut_and_bodies_left_out(
    bodies: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    config = EncoderConfig(width=4, dim=16, dropout=0.0, bodies=bodies, precision=precision, init="torch")
    net = STGCN(config, NTU25).train()
    x, joints = random(3, 3, 13, 25, 2, dtype=torch.float32), torch.arange(0, 25, 3)
    x[1, ..., 1] = 0
    fast = [net(x), net.pool(net.features(x, joints=joints))]
    monkeypatch.setattr(Block, "forward", Block.plain)
    plain = [net(x), net.pool(net.features(x, joints=joints))]
    for mine, theirs in zip(fast, plain, strict=True):
        assert not torch.equal(mine, theirs)  # two ways indeed
        torch.testing.assert_close(mine, theirs, rtol=0, atol=2e-6 if precision == "fp32" else 3e-2)


def test_many_blocks_at_once_run_the_plain_form(monkeypatch: pytest.MonkeyPatch) -> None:
    block, graph = Block(4, 4, 1, 0.0, True, 3).eval(), torch.rand(3, 5, 5)
    monkeypatch.setattr(Block, "on_cpu", lambda *_: pytest.fail("the other form under vmap"))
    x = torch.randn(2, 3, 4, 9, 5)
    rows = torch.func.vmap(lambda clips: block(clips, graph))(x)
    torch.testing.assert_close(rows[1], block.plain(x[1], graph))


def test_dropout_lies_between_the_last_norm_and_the_shortcut(monkeypatch: pytest.MonkeyPatch) -> None:
    keep = torch.arange(2 * 4 * 9 * 5).remainder(3).clamp(max=1).double()
    asked: list[float] = []

    def known(like: Tensor, p: float) -> Tensor:
        asked.append(p)
        return keep.view(2, 4, 9, 5).reshape(like.shape) * 2

    monkeypatch.setattr(stgcn, "factors", known)
    for residual in (True, False):
        block = Block(4, 4, 1, 0.25, residual, 3).double()
        x, graph = random(2, 4, 9, 5), random(3, 5, 5, seed=1)
        normed = block.temporal[:4](block.spatial(x, graph))
        mask = keep.view(2, 4, 9, 5).reshape(2, 4, 5, 9).transpose(2, 3) * 2
        expected = torch.relu(normed * mask + (x if residual else 0))
        torch.testing.assert_close(block(x, graph), expected, rtol=0, atol=1e-12)
        block.eval()
        assert torch.equal(block(x, graph), block(x, graph))
    assert asked == [0.25, 0.25]


# --- batch norm -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 4, 5, 6), (2, 1, 5, 6), (2, 3, 1, 4), (4, 3, 4, 1)])
def test_batch_norm_is_torchs(shape: tuple[int, ...]) -> None:
    norm = nn.BatchNorm2d(shape[1], momentum=0.3).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    other = copy.deepcopy(norm)
    for seed in (1, 2):
        x = random(*shape, seed=seed).add(2).contiguous(memory_format=torch.channels_last).requires_grad_()
        theirs, mine = norm(x), batch_norm(other, x)
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)
        wanted, found = (slopes(y, x, n.weight, n.bias) for y, n in ((theirs, norm), (mine, other)))
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-11)
    torch.testing.assert_close(dict(other.named_buffers()), dict(norm.named_buffers()), rtol=0, atol=1e-12)
    x = random(*shape)
    assert torch.equal(batch_norm(other.eval(), x), other(x))


def test_other_norms_run_as_they_are() -> None:
    x = random(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    for norm in (nn.BatchNorm2d(3, momentum=None), nn.BatchNorm2d(3, affine=False), nn.GroupNorm(1, 3)):
        other = copy.deepcopy(norm.double())
        assert torch.equal(batch_norm(norm, x), other(x))
        assert all(torch.equal(a, b) for a, b in zip(norm.buffers(), other.buffers(), strict=True))
    with pytest.raises(ValueError, match="more than 1 value"):
        batch_norm(nn.BatchNorm2d(3).double(), x[:1, :, :1, :1])


def test_statistics_of_long_maps_stay_exact() -> None:
    """A channel's values added up one by one in float32, as torch does in this format, miss by more than 1e-5."""
    x = random(160, 16, 25, 50, dtype=torch.float32).contiguous(memory_format=torch.channels_last)
    mean, var = moments(x)
    exact = x.double()
    torch.testing.assert_close(mean.double(), exact.mean((0, 2, 3)), rtol=0, atol=1e-7)
    torch.testing.assert_close(var.double(), exact.var((0, 2, 3), unbiased=False), rtol=3e-6, atol=0)


# --- dropout ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.5, 0.25, 0.1, 0.3127, 0.6])
def test_factors_are_those_of_dropout(p: float) -> None:
    torch.manual_seed(0)
    like = torch.empty(16, 8, 25, 50).contiguous(memory_format=torch.channels_last)
    made = factors(like, p)
    assert made.stride() == like.stride()
    assert made.unique().tolist() == pytest.approx([0, 1 / (1 - p)])
    dropped = (made == 0).permute(0, 2, 3, 1).flatten().double() - p  # in the order of memory
    sigma = (p * (1 - p) / dropped.numel()) ** 0.5
    assert abs(dropped.mean()) < 4 * sigma
    for apart in (1, 2, 4, 7, 8, 400):  # neighbours of one draw, and of two
        together = (dropped[apart:] * dropped[:-apart]).mean() / (p * (1 - p))
        assert abs(together) < 4 / dropped.numel() ** 0.5
    torch.manual_seed(0)
    assert torch.equal(factors(like, p), made)
    assert not torch.equal(factors(like, p), made)


@pytest.mark.parametrize("count", [1, 7, 8, 9])
def test_factors_of_a_few_numbers(count: int) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        made = factors(torch.empty(count, dtype=dtype), 0.3)
        assert made.shape == (count,) and made.dtype == dtype
    assert torch.equal(factors(torch.empty(count), 0.0), torch.ones(count))
    assert not factors(torch.empty(count), 1 - 1e-12).any()


# --- the recurrence ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", [[6, 6, 6], [6, 4, 4, 1], [1]])
def test_a_gru_layer_is_torchs(lengths: list[int]) -> None:
    """Both directions over clips of different lengths, and every gradient."""
    torch.manual_seed(0)
    gru = nn.GRU(5, 4, bidirectional=True).double()
    x = random(max(lengths), len(lengths), 5).requires_grad_()
    wanted = gru(pack_padded_sequence(x, torch.tensor(lengths)))[0].data
    sides = ("", "_reverse")
    weights = [[getattr(gru, f"{n}_l0{side}") for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
               for side in sides]  # fmt: skip

    def ours() -> Tensor:
        rows, sizes = pack_padded_sequence(x, torch.tensor(lengths))[:2]
        each = [gru_layer(rows, sizes.tolist(), w, bool(side)) for w, side in zip(weights, sides, strict=True)]
        return torch.cat(each, 1)

    torch.testing.assert_close(ours(), wanted, rtol=0, atol=1e-14)
    torch.testing.assert_close(
        slopes(ours(), x, *gru.parameters()), slopes(wanted, x, *gru.parameters()), rtol=0, atol=1e-13
    )
    with torch.no_grad():
        alone = ours()
    assert torch.equal(alone, ours())
