"""SCD-Net's encoder: CTR-GCN's blocks against loops over joints and frames, tokens, pooling, and what it refuses."""

from __future__ import annotations

import dataclasses
import re

import pytest
import torch
from tiny import BUSH15, generator, movements, tree
from torch import Tensor, nn

from methods.data.layouts import CMU31, KINECT20, NTU25, Layout
from methods.errors import InputError
from methods.fields import field_table
from methods.nn.build import build_encoder
from methods.nn.ctrgcn import CTRGCN, Relation, SpatialUnit, TemporalUnit, relation_width
from methods.nn.graph import PARTITIONS, adjacency
from methods.nn.twopath import TwoPath, TwoPathConfig, frame_tokens, joint_tokens

SMALL = TwoPathConfig(base=4, d_model=8, heads=2, dropout=0.0)


def encoder(layout: Layout = BUSH15, frames: int = 7, persons: int = 2, **changes: object) -> TwoPath:
    torch.manual_seed(0)
    built = build_encoder(dataclasses.replace(SMALL, **changes), layout, frames=frames, persons=persons)
    assert isinstance(built, TwoPath)
    return built


def batch(frames: int = 7, layout: Layout = BUSH15, persons: int = 2, count: int = 3) -> Tensor:
    return torch.from_numpy(movements(count, frames, layout, persons)[0])


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def awake(net: nn.Module) -> nn.Module:
    """The graph networks start asleep: no relation between joints, hardly any graph. Wake them."""
    for unit in (part for part in net.modules() if isinstance(part, SpatialUnit)):
        with torch.no_grad():
            unit.alpha.fill_(0.7), unit.norm.weight.fill_(0.9)
    return net


# --- CTR-GCN --------------------------------------------------------------------------------------------------------


def linear(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A 1x1 convolution of one position: (C,) -> (C',)."""
    return conv.weight[:, :, 0, 0] @ x + conv.bias


def slow_relation(part: Relation, x: Tensor, graph: Tensor, alpha: float) -> Tensor:
    """One body's (C, T, V): y[c,t,u] = sum_v (A[u,v] + alpha R[c,u,v]) value[c,t,v]; R from the means over time."""
    _, t, v = x.shape
    receiver = [torch.stack([linear(part.receiver, x[:, i, j]) for i in range(t)]).mean(0) for j in range(v)]
    sender = [torch.stack([linear(part.sender, x[:, i, j]) for i in range(t)]).mean(0) for j in range(v)]
    out = x.new_zeros(part.value.out_channels, t, v)
    for u in range(v):
        for j in range(v):
            weight = graph[u, j] + alpha * linear(part.relation, torch.tanh(receiver[u] - sender[j]))
            for i in range(t):
                out[:, i, u] += weight * linear(part.value, x[:, i, j])
    return out


def test_relation_is_its_formula() -> None:
    torch.manual_seed(0)
    part, x, graph = Relation(3, 4).double(), random(2, 3, 3, 4), random(4, 4, seed=1)
    expected = torch.stack([slow_relation(part, body, graph, 0.6) for body in x])
    torch.testing.assert_close(part(x, graph, torch.tensor([0.6]).double()), expected)


def test_spatial_unit_sums_graphs_and_adds_a_shortcut() -> None:
    torch.manual_seed(0)
    graph = adjacency(tree([-1, 0, 1, 1]), "inward_outward")
    unit, x = awake(SpatialUnit(3, 4, graph)).double().eval(), random(2, 3, 3, 4)
    assert torch.equal(unit.graph, graph.double())
    summed = sum(slow_relation(part, x[0], graph.double()[k], 0.7) for k, part in enumerate(unit.relations))
    scale = 1 / (1 + 1e-5) ** 0.5  # batch norms that have seen nothing
    short = torch.einsum("oc,ctv->otv", unit.shortcut[0].weight[:, :, 0, 0], x[0])
    short = (short + unit.shortcut[0].bias[:, None, None]) * scale
    torch.testing.assert_close(unit(x)[0], (0.9 * summed * scale + short).clamp(min=0))


def test_temporal_unit_is_its_four_branches() -> None:
    """Kernels of 5 frames at distances 1 and 2, a maximum of 3 frames, and a 1x1; zeros beyond the ends."""
    torch.manual_seed(0)
    unit, x = TemporalUnit(4).double().eval(), random(1, 4, 6, 2)
    scale, expected = 1 / (1 + 1e-5) ** 0.5, []
    for k, branch in enumerate(unit.branches):
        narrow = torch.stack([torch.stack([linear(branch[0], x[0, :, i, j]) for j in range(2)]) for i in range(6)])
        narrow = narrow[..., 0] * scale  # (T, V), one channel a branch
        if k < 3:
            narrow = narrow.clamp(min=0)
        for i in range(6):
            if k < 2:
                near = [i + (k + 1) * (tap - 2) for tap in range(5)]
                taps = branch[3].weight[0, 0, :, 0]
                y = sum(taps[n] * narrow[f] for n, f in enumerate(near) if 0 <= f < 6) + branch[3].bias
                expected.append(y * scale)
            else:
                expected.append(narrow[max(0, i - 1) : i + 2].amax(0) * scale if k == 2 else narrow[i])
    torch.testing.assert_close(unit(x)[0], torch.stack(expected).view(4, 6, 2))


def test_relation_widths() -> None:
    """8 for coordinates, else an eighth, and never none."""
    assert [relation_width(c) for c in (1, 2, 3, 4, 9, 12, 16, 64, 256)] == [8, 8, 8, 1, 8, 1, 2, 8, 32]


def test_published_widths_and_residuals() -> None:
    net = CTRGCN(BUSH15, 3, 2, 16, "inward_outward")
    widths = [(u.spatial.relations[0].value.in_channels, u.spatial.norm.num_features) for u in net.units]
    assert widths == [(3, 16), (16, 64), (64, 16)]
    assert [u.shortcut is None for u in net.units] == [True, False, False]
    assert net.norm.num_features == 2 * 15 * 3


def test_graph_network_keeps_bodies_joints_and_frames_apart() -> None:
    """A body's map depends on that body only; the norm before it pairs statistics with body, joint and axis."""
    net = awake(CTRGCN(BUSH15, 3, 2, 4, "inward_outward")).eval()
    x = batch()
    x[0, ..., 1] = batch(count=4)[3, ..., 0]
    other = x.clone()
    other[0, ..., 1] += 1
    assert net(x).shape == (3, 2, 4, 7, 15)
    assert torch.equal(net(x)[:, 0], net(other)[:, 0]) and not torch.equal(net(x)[0, 1], net(other)[0, 1])
    seen: list[Tensor] = []
    net.units.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        net.norm.weight.zero_(), net.norm.bias.zero_()
        net.norm.bias[(1 * 15 + 7) * 3 + 2] = 5.0  # body 1, joint 7, axis z
    net(x)
    assert set(map(tuple, seen[0].nonzero()[:, [0, 1, 3]].tolist())) == {(n, 2, 7) for n in (1, 3, 5)}


# --- two paths ------------------------------------------------------------------------------------------------------


def test_tokens_are_read_off_the_map() -> None:
    maps = random(2, 2, 3, 4, 5)  # N, M, C, T, V
    frames, joints = frame_tokens(maps), joint_tokens(maps)
    assert frames.shape == (2, 4, 30) and joints.shape == (2, 10, 12)
    for m in range(2):
        for c in range(3):
            for t in range(4):
                for v in range(5):
                    assert torch.equal(frames[:, t, (m * 5 + v) * 3 + c], maps[:, m, c, t, v])
                    assert torch.equal(joints[:, m * 5 + v, t * 3 + c], maps[:, m, c, t, v])


def test_feature_is_the_largest_over_tokens_of_each_path() -> None:
    net, x = encoder().eval(), batch()
    time, space = net.time(x), net.space(x)
    assert time.shape == (3, 7, 8) and space.shape == (3, 30, 8)
    torch.testing.assert_close(net(x), torch.cat([time.max(1).values, space.max(1).values], 1))
    assert (net.dim, net.time_dim, net.space_dim) == (16, 8, 8)


def test_segments_pool_frames_by_parts() -> None:
    net, x = encoder(segments=3).eval(), batch()
    assert (net.dim, net.time_dim, net.space_dim) == (32, 24, 8)
    frames = net.time(x)
    parts = [frames[:, a:b].max(1).values for a, b in ((0, 3), (2, 5), (4, 7))]  # 7 frames, parts may share one
    torch.testing.assert_close(net.paths(x)[0], torch.cat(parts, 1))
    assert encoder(segments=4, frames=2).eval()(batch(2)).shape == (3, 40)


def test_the_order_of_tokens_does_not_matter() -> None:
    """No positions: the layers give each token the same, wherever it stands."""
    net, rows = encoder(layers=2).eval(), random(2, 9, 8).float()
    turned = torch.randperm(9, generator=generator())
    torch.testing.assert_close(net.time.attention(rows)[:, turned], net.time.attention(rows[:, turned]))


@pytest.mark.parametrize("layout", [NTU25, KINECT20, CMU31])
@pytest.mark.parametrize(("frames", "persons"), [(1, 2), (5, 1), (8, 3)])
def test_shape_of_features(layout: Layout, frames: int, persons: int) -> None:
    assert encoder(layout, frames, persons).eval()(batch(frames, layout, persons)).shape == (3, 16)


def test_channels_and_partitions_are_any() -> None:
    for partition in PARTITIONS:
        net = build_encoder(dataclasses.replace(SMALL, partition=partition), BUSH15, 2, frames=5, persons=1)
        assert net(torch.randn(3, 2, 5, 15, 1)).shape == (3, 16)


@pytest.mark.parametrize("init", ["xavier", "torch"])
def test_every_weight_learns(init: str) -> None:
    net = awake(encoder(init=init, layers=2)).train()
    net(batch()).square().sum().backward()
    before_a_norm = re.compile(r"(shortcut|branches\.\d)\.0\.bias|branches\.\d\.3\.bias|value\.bias")
    for name, p in net.named_parameters():
        # A shift that a batch norm takes away again, or a key's that softmax does, has a gradient of 0.
        assert p.grad is not None and (p.grad.any() or before_a_norm.search(name)), name


def test_published_initialisation() -> None:
    net = encoder(base=32, d_model=64)
    unit = net.time.graph.units[1]
    for conv in (unit.spatial.relations[0].value, unit.shortcut[0], unit.temporal.branches[0][3]):
        fan_out = conv.out_channels * conv.kernel_size[0]
        assert float(conv.weight.detach().std()) == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)
        assert not conv.bias.any()
    assert bool((unit.spatial.norm.weight == 1e-6).all()) and not unit.spatial.alpha.any()
    assert torch.equal(unit.spatial.graph, adjacency(BUSH15, "inward_outward"))
    gains = torch.cat([p for n, p in net.time.graph.named_parameters() if re.search(r"branches.\d.[14].weight", n)])
    assert float(gains.detach().std()) == pytest.approx(0.02, rel=0.2)
    for matrix in (net.time.tokens[0].weight, net.space.attention[0].self_attn.in_proj_weight):
        bound = (6 / sum(matrix.shape)) ** 0.5
        assert 0.9 * bound < float(matrix.detach().abs().max()) <= bound
    assert not torch.equal(net.time.attention[0].linear1.weight, net.space.attention[0].linear1.weight)


def test_published_size() -> None:
    """74.69 million with a linear classifier of 60 classes, of which 50.4 in the two transformers."""
    with torch.device("meta"):
        net = TwoPath(TwoPathConfig(), NTU25, frames=64)

    def millions(*parts: nn.Module) -> float:
        return sum(p.numel() for part in parts for p in part.parameters()) / 1e6

    assert round(millions(net.time.attention, net.space.attention), 1) == 50.4
    assert round(millions(net.time.tokens, net.space.tokens), 1) == 23.3
    assert net.dim == 4096
    assert round(millions(net) + (4096 + 1) * 60 / 1e6, 2) == 74.69


def test_dropout_in_training_only() -> None:
    net = encoder(dropout=0.5)
    before = {name: b.clone() for name, b in net.named_buffers()}
    assert not torch.equal(net.train()(batch()), net(batch()))
    net.load_state_dict(before, strict=False)
    torch.testing.assert_close(net.eval()(batch()), encoder().eval()(batch()))


def test_bf16_is_near_fp32() -> None:
    with torch.no_grad():
        exact, rough = encoder().eval()(batch()), encoder(precision="bf16").eval()(batch())
    assert rough.dtype == torch.float32 and not torch.equal(exact, rough)
    assert float((exact - rough).norm() / exact.norm()) < 0.05


def test_clips_of_another_size_are_refused() -> None:
    with pytest.raises(InputError, match="9 frames, not 7, 1 persons, not 2"):
        encoder()(batch(9, persons=1))


def test_ranges_construct_at_both_ends() -> None:
    for name, info in field_table(TwoPathConfig).items():
        assert info.doc
        for end in info.range.ends() if info.range else ():
            assert getattr(TwoPathConfig(**{name: end}), name) == end


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "onepath"}, {"base": 6}, {"base": 0}, {"d_model": 0}, {"heads": 0}, {"heads": 3}, {"layers": 0},
        {"dropout": 1.0}, {"segments": 0}, {"partition": "ring"}, {"init": "he"}, {"precision": "fp16"},
    ],
)  # fmt: skip
def test_config_says_what_is_wrong(wrong: dict[str, object]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(InputError, match=f"encoder.{name} .*{value}"):
        TwoPathConfig(**wrong)
