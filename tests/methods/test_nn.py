"""The parts that networks are made of: graph, ST-GCN, heads, the momentum copy, the queue."""

from __future__ import annotations

import dataclasses
import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import BUSH15, ENCODER, generator, movements, tree
from torch import nn

from methods.data.layouts import KINECT20, NTU25, Layout
from methods.errors import InputError
from methods.fields import field_table
from methods.nn.attention_drop import LOWEST, attention, attention_drop, kept_cells
from methods.nn.build import build_encoder
from methods.nn.ema import Ema
from methods.nn.encoder import EncoderConfig
from methods.nn.graph import PARTITIONS, adjacency, hop_distance
from methods.nn.gru import GruConfig
from methods.nn.heads import mlp
from methods.nn.queue import MemoryQueue
from methods.nn.stgcn import STGCN, ScaleNorm, SpatialConv, block_plan, normal_init
from methods.nn.twopath import TwoPathConfig


@st.composite
def trees(draw: st.DrawFn) -> Layout:
    """Any tree of 2 to 12 joints, its joints in any order, any joint the centre."""
    count = draw(st.integers(2, 12))
    order = draw(st.permutations(range(count)))
    parents = [-1] * count
    for i in range(1, count):
        parents[order[i]] = order[draw(st.integers(0, i - 1))]
    return tree(parents, draw(st.integers(0, count - 1)))


def neighbours(layout: Layout, joint: int) -> set[int]:
    return {a for a, b in layout.bones if b == joint} | {b for a, b in layout.bones if a == joint}


def walk(layout: Layout, start: int) -> dict[int, int]:
    """Bones from ``start`` to each joint, by going outwards ring by ring."""
    found, ring = {start: 0}, {start}
    while ring:
        ring = {n for joint in ring for n in neighbours(layout, joint)} - found.keys()
        found |= {n: max(found.values()) + 1 for n in ring}
    return found


# --- graph ----------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(trees())
def test_hop_distance_is_a_walk(layout: Layout) -> None:
    distance = hop_distance(layout)
    for joint in range(layout.num_joints):
        assert distance[joint].tolist() == [walk(layout, joint)[i] for i in range(layout.num_joints)]


@settings(max_examples=40, deadline=None)
@given(trees())
def test_spatial_partition_of_any_tree(layout: Layout) -> None:
    """Joint w averages itself and its neighbours; each is in one part: itself, outward of w, or towards the centre."""
    count = layout.num_joints
    a = adjacency(layout, "spatial")
    to_centre = walk(layout, layout.centre)
    for w in range(count):
        near = neighbours(layout, w)
        share = 1 / (1 + len(near))
        for v in range(count):
            expected = [0.0, 0.0, 0.0]
            if v == w:
                expected[0] = share
            elif v in near:
                expected[2 if to_centre[v] < to_centre[w] else 1] = share
            assert a[:, v, w].tolist() == pytest.approx(expected, abs=1e-7)
    assert a.sum((0, 1)).tolist() == pytest.approx([1.0] * count, abs=1e-6)  # columns: A D^-1
    assert int((a[2] > 0).sum()) == count - 1  # every joint but the centre has one way in


@settings(max_examples=40, deadline=None)
@given(trees())
def test_cut_off_partition_moves_edges_but_loses_none(layout: Layout) -> None:
    full, cut = adjacency(layout, "spatial"), adjacency(layout, "spatial_degenerate")
    torch.testing.assert_close(full.sum(0), cut.sum(0))
    assert torch.equal(full[0], cut[0])
    assert ((cut > 0).sum(0) <= 1).all()
    for w in range(layout.num_joints):  # only edges that touch the centre's own neighbours can still tell
        near = walk(layout, layout.centre)[w]
        inward = set((cut[2, :, w] > 0).nonzero().flatten().tolist())
        if near == 1:
            assert inward == {layout.centre}
        elif near == 2:
            assert len(inward) == 1
        else:
            assert not inward


@settings(max_examples=40, deadline=None)
@given(trees())
def test_inward_outward_partition_of_any_tree(layout: Layout) -> None:
    """Identity; from the parent; the mean over the children. Columns of a joint without parent or children are 0."""
    itself, inward, outward = adjacency(layout, "inward_outward")
    assert torch.equal(itself, torch.eye(layout.num_joints))
    for w in range(layout.num_joints):
        children = [a for a, b in layout.bones if b == w]
        parent = layout.parents[w]
        assert {v for v in range(layout.num_joints) if inward[v, w] > 0} == ({parent} - {-1})
        assert {v for v in range(layout.num_joints) if outward[v, w] > 0} == set(children)
        assert float(inward[:, w].sum()) == (0 if parent < 0 else 1)
        assert float(outward[:, w].sum()) == pytest.approx(1 if children else 0)


def test_published_numbers_of_edges() -> None:
    """Counted in the public codes: 25 + 40 + 8 for the cut-off partition, 25 + 24 + 24 for inward/outward."""
    assert [int((k > 0).sum()) for k in adjacency(NTU25, "spatial_degenerate")] == [25, 40, 8]
    assert [int((k > 0).sum()) for k in adjacency(NTU25, "inward_outward")] == [25, 24, 24]
    assert [int((k > 0).sum()) for k in adjacency(NTU25, "spatial")] == [25, 24, 24]


def test_unknown_partition() -> None:
    with pytest.raises(InputError, match=r"spatail.*did you mean 'spatial'"):
        adjacency(NTU25, "spatail")


def test_spatial_conv_is_its_formula() -> None:
    """y[n,o,t,w] = sum over k, v of (W_k x + b_k)[n,o,t,v] A[k,v,w], as loops."""
    conv = SpatialConv(2, 3, 2).double()
    x = torch.randn(2, 2, 3, 4, generator=generator(), dtype=torch.float64)
    graph = torch.randn(2, 4, 4, generator=generator(1), dtype=torch.float64)
    weight, bias = conv.conv.weight.view(2, 3, 2), conv.conv.bias.view(2, 3)
    slow = torch.zeros(2, 3, 3, 4, dtype=torch.float64)
    for k in range(2):
        for v in range(4):
            mixed = torch.einsum("oc,nct->not", weight[k], x[..., v]) + bias[k][None, :, None]
            for w in range(4):
                slow[..., w] += mixed * graph[k, v, w]
    torch.testing.assert_close(conv(x, graph), slow)


# --- ST-GCN ---------------------------------------------------------------------------------------------------------


def encoder(layout: Layout = NTU25, **changes: object) -> STGCN:
    torch.manual_seed(0)
    built = build_encoder(dataclasses.replace(ENCODER, **changes), layout)
    assert isinstance(built, STGCN)
    return built


def batch(frames: int = 16, persons: int = 2, layout: Layout = NTU25, count: int = 4) -> torch.Tensor:
    return torch.from_numpy(movements(count, frames, layout, persons)[0])


def trained(**changes: object) -> STGCN:
    """In evaluation mode, with running statistics that are not the initial ones."""
    net = encoder(**changes).train()
    for _ in range(3):
        net(batch())
    return net.eval()


@pytest.mark.parametrize(("width", "dim", "millions"), [(16, 256, 0.82), (16, 512, 2.66), (64, 256, 3.08)])
@pytest.mark.parametrize("change", [{}, {"input_norm": "scale"}, {"partition": "spatial"}, {"segments": 4}])
def test_published_parameter_counts(width: int, dim: int, millions: float, change: dict[str, object]) -> None:
    """0.82, 2.66 and 3.08 million; and exactly the sum over the published table of blocks, none of it from our code.

    A block c -> o has 3o(c + 1) in the graph convolution, 2 * 2o in batch norms, o(9o + 1) in time, 3 * 25 * 25 edge
    weights, and o(c + 1) + 2o in the shortcut where channels or stride change.
    """
    w = width
    table = [(3, w, 0), *[(w, w, 0)] * 3, (w, 2 * w, 1), *[(2 * w, 2 * w, 0)] * 2, (2 * w, 4 * w, 1), (4 * w, 4 * w, 0)]
    table.append((4 * w, dim, int(4 * w != dim)))
    total = 2 * 75
    for c, o, shortcut in table:
        total += 3 * o * (c + 1) + 4 * o + o * (9 * o + 1) + 3 * 25 * 25 + shortcut * (o * (c + 1) + 2 * o)
    net = STGCN(EncoderConfig(width=width, dim=dim, **{"partition": "spatial_degenerate"} | change), NTU25)
    count = sum(p.numel() for p in net.parameters() if p.requires_grad)
    assert count == total
    assert round(count / 1e6, 2) == millions


def test_published_plan_of_blocks() -> None:
    plan = block_plan(EncoderConfig(width=16, dim=256, depth=10))
    assert plan == [
        *((3, 16, 1), (16, 16, 1), (16, 16, 1), (16, 16, 1)),
        *((16, 32, 2), (32, 32, 1), (32, 32, 1)),
        *((32, 64, 2), (64, 64, 1), (64, 256, 1)),
    ]
    drops = [block.temporal[-1].p for block in STGCN(EncoderConfig(), NTU25).blocks]
    assert drops == [0.0] + [0.5] * 9


@pytest.mark.parametrize("depth", range(3, 11))
def test_any_depth_strides_time_by_four(depth: int) -> None:
    plan = block_plan(EncoderConfig(width=4, dim=10, depth=depth))
    assert len(plan) == depth
    assert math.prod(stride for _, _, stride in plan) == STGCN.temporal_stride == 4
    assert all(a[1] == b[0] for a, b in pairwise(plan))
    assert plan[0][0] == 3 and plan[-1][1] == 10


@pytest.mark.parametrize("frames", [4, 5, 8, 9, 13, 17, 30, 50, 64])
def test_time_shrinks_to_a_quarter_rounded_up(frames: int) -> None:
    net = encoder().eval()
    seen: list[torch.Size] = []
    net.blocks[-1].register_forward_hook(lambda _m, _i, out: seen.append(out.shape))
    net(batch(frames, persons=1, count=2))
    assert seen == [torch.Size([2, 16, math.ceil(frames / 4), 25])]


@pytest.mark.parametrize("layout", [NTU25, KINECT20, BUSH15])
@pytest.mark.parametrize("persons", [1, 2, 3])
@pytest.mark.parametrize("partition", PARTITIONS)
def test_shape_of_features(layout: Layout, persons: int, partition: str) -> None:
    net = encoder(layout, partition=partition, segments=2)
    assert net.dim == 32
    assert net(batch(9, persons, layout)).shape == (4, 32)


def test_all_bodies_are_averaged_the_empty_ones_too() -> None:
    """As published: the feature is the mean of each body's own, in evaluation mode."""
    net, x = trained(), batch()
    alone = torch.stack([net(x[..., m : m + 1]) for m in range(2)])
    torch.testing.assert_close(net(x), alone.mean(0))


def test_real_bodies_are_encoded_alone_and_averaged() -> None:
    net, x = trained(bodies="real"), batch()
    x[2] = 0  # nobody at all: its first body stands in
    x[3, ..., 0] = 0
    x[3, ..., 1] = x[1, ..., 0]  # only the second place is taken
    expected = []
    for clip in x:
        there = [m for m in range(2) if clip[..., m].any()] or [0]
        expected.append(torch.stack([net(clip[None, ..., m : m + 1])[0] for m in there]).mean(0))
    torch.testing.assert_close(net(x), torch.stack(expected))
    present = (x != 0).flatten(1, 3).any(1)
    assert torch.equal(net(x, present), net(x))


def test_present_says_who_is_real_when_a_view_filled_the_empty() -> None:
    net, x = trained(bodies="real"), batch()
    present = (x != 0).flatten(1, 3).any(1)
    filled = torch.where(present[:, None, None, None, :], x, torch.ones(()))
    torch.testing.assert_close(net(filled, present), net(x))
    assert not torch.allclose(net(filled), net(x))


def test_an_empty_body_changes_nothing_where_only_real_ones_count() -> None:
    one = batch(persons=1)
    empty = torch.cat([one, torch.zeros_like(one)], -1)
    real, every = trained(bodies="real"), trained()
    torch.testing.assert_close(real(empty), real(one))
    assert not torch.allclose(every(empty), every(one))
    assert torch.isfinite(every(empty)).all()
    # and it stays out of the batch statistics
    a, b = encoder(bodies="real").train(), encoder(bodies="real").train()
    a(empty), b(one)
    for mine, theirs in zip(a.buffers(), b.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_bf16_is_near_fp32() -> None:
    net = trained(init="torch")
    low = trained(init="torch", precision="bf16")
    low.load_state_dict(net.state_dict())
    exact, rough = net(batch()).detach(), low(batch()).detach()
    assert rough.dtype == torch.float32 and not torch.equal(exact, rough)
    assert float((exact - rough).norm() / exact.norm()) < 0.03
    low.train()(batch()).sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in low.parameters())


def test_one_segment_is_the_plain_mean_and_more_average_to_it() -> None:
    net, x = trained(), batch(16)
    maps = net.features(x)  # (N, M, D, T', V'): of every body, the empty ones too
    plain = maps.mean((3, 4)).mean(1)
    torch.testing.assert_close(net(x), plain)
    parts = trained(segments=4)
    parts.load_state_dict(net.state_dict())
    four = parts(x).view(4, 16, 4)  # T' = 4: a segment is a frame
    torch.testing.assert_close(four.mean(2), plain)
    torch.testing.assert_close(four, maps.mean(4).mean(1))


def test_input_scale_is_one_number_for_all() -> None:
    """y = (x - mean) / sqrt(var + eps) with the mean and variance of every number of the batch."""
    norm = ScaleNorm(6).train()
    x = 5 + 3 * torch.randn(4, 6, 7, generator=generator())
    expected = (x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(norm(x), expected)
    ratio = norm(x)[:, 0].std() / norm(x)[:, 1].std()
    torch.testing.assert_close(ratio, x[:, 0].std() / x[:, 1].std())  # joints keep their relative size
    with torch.no_grad():
        norm.weight[2], norm.bias[2] = 2.0, 1.0
    torch.testing.assert_close(norm(x)[:, 2], 2 * expected[:, 2] + 1)


def test_joint_input_norm_is_per_joint_and_axis() -> None:
    net = encoder().train()
    seen: list[torch.Tensor] = []
    net.norm.register_forward_hook(lambda _m, _i, out: seen.append(out))
    with torch.no_grad():
        net.norm.weight.fill_(1), net.norm.bias.zero_()
    net(torch.randn(4, 3, 16, 25, 2, generator=generator()) * torch.linspace(0.5, 9, 25)[:, None])
    assert seen[0].shape == (8, 75, 16)
    torch.testing.assert_close(seen[0].mean((0, 2)), torch.zeros(75), atol=1e-4, rtol=0)
    torch.testing.assert_close(seen[0].var((0, 2), correction=0), torch.ones(75), atol=1e-2, rtol=0)


def test_input_norm_pairs_axes_with_joints_in_both_forms() -> None:
    """A gain on one (joint, axis) of the norm reaches that joint and axis of the first block and no other."""
    for kind in ("joint", "scale"):
        net = encoder(input_norm=kind).eval()
        with torch.no_grad():
            net.norm.weight.zero_(), net.norm.bias.zero_()
            net.norm.bias[7 * 3 + 1] = 5.0  # joint 7, axis y
        seen: list[torch.Tensor] = []
        net.blocks[0].register_forward_pre_hook(lambda _m, inputs, seen=seen: seen.append(inputs[0]))
        net.features(batch())
        assert seen[0].shape == (8, 3, 16, 25)
        assert set(map(tuple, seen[0].nonzero()[:, [1, 3]].tolist())) == {(1, 7)}


@pytest.mark.parametrize("kind", ["joint", "scale"])
def test_a_clip_reaches_the_first_block_unscrambled(kind: str) -> None:
    """With a norm that changes nothing, block one sees x[n, c, t, v, m] as [n * M + m, c, t, v]."""
    net, x = encoder(input_norm=kind).eval(), batch()
    with torch.no_grad():
        net.norm.weight.fill_(1), net.norm.bias.zero_()
    seen: list[torch.Tensor] = []
    net.blocks[0].register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    net.features(x)
    for n in range(4):
        for m in range(2):
            torch.testing.assert_close(seen[0][2 * n + m], x[n, ..., m], atol=1e-4, rtol=1e-4)


# --- ST-GCN: what methods take from its last map --------------------------------------------------------------------


def who(x: torch.Tensor) -> torch.Tensor:
    return (x != 0).flatten(1, 3).any(1)


@pytest.mark.parametrize("bodies", ["all", "real"])
@pytest.mark.parametrize("segments", [1, 3])
def test_pooled_features_are_the_forward_pass(bodies: str, segments: int) -> None:
    net, x = trained(bodies=bodies, segments=segments), batch(13)
    x[2] = 0
    maps = net.features(x)
    assert maps.shape == (4, 2, 16, 4, 25)
    torch.testing.assert_close(net.pool(maps), net(x))
    torch.testing.assert_close(net.pool(net.features(x, who(x)), who(x)), net(x))
    present = torch.tensor([[True, True], [False, True], [True, False], [True, True]])
    torch.testing.assert_close(net.pool(net.features(x, present), present), net(x, present))
    if bodies == "real":
        assert not maps[1, 1].any() and maps[2, 0].any() and not maps[2, 1].any()


def slow_mean(maps: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
    """One body's map (D, T', V') -> (D,), the plain mean over the cells that are True; 0 over none."""
    found = [maps[:, t, v] for t in range(maps.shape[1]) for v in range(maps.shape[2]) if cells[t, v]]
    return torch.stack(found).mean(0) if found else torch.zeros(len(maps), dtype=maps.dtype)


@pytest.mark.parametrize("bodies", ["all", "real"])
def test_masked_pooling_is_a_mean_over_cells(bodies: str) -> None:
    net, x = trained(bodies=bodies).double(), batch(13).double()
    maps, mask = net.features(x), torch.rand(4, 4, 25, generator=generator()) < 0.3
    mask[2] = False
    inside, outside = net.masked_pool(maps, mask, who(x))
    for n in range(4):
        own = [m for m in range(2) if bodies == "all" or who(x)[n, m]]
        torch.testing.assert_close(inside[n], sum(slow_mean(maps[n, m], mask[n]) for m in own) / len(own))
        torch.testing.assert_close(outside[n], sum(slow_mean(maps[n, m], ~mask[n]) for m in own) / len(own))
    assert not inside[2].any()
    torch.testing.assert_close(outside[2], net(x)[2])  # a mask of everything is the plain mean
    shared = net.masked_pool(maps, mask[:1])  # one mask for all clips
    torch.testing.assert_close(shared, net.masked_pool(maps, mask[:1].repeat(4, 1, 1)))


def test_masked_pooling_by_parts_of_time() -> None:
    """Each part the mean over its own cells; a part without any takes the mean over all of the mask's cells."""
    net, x = trained(segments=2).double(), batch(20, persons=1).double()
    maps, mask = net.features(x), torch.zeros(1, 5, 25, dtype=torch.bool)  # T' = 5: frames 0 to 2 and 2 to 4
    mask[0, :2, 4:9] = True
    inside, outside = (pooled.view(4, 16, 2) for pooled in net.masked_pool(maps, mask))
    for n in range(4):
        body, rest = maps[n, 0], ~mask[0]
        torch.testing.assert_close(inside[n, :, 0], slow_mean(body, mask[0]))
        torch.testing.assert_close(inside[n, :, 1], slow_mean(body, mask[0]))
        torch.testing.assert_close(outside[n, :, 0], slow_mean(body[:, :3], rest[:3]))
        torch.testing.assert_close(outside[n, :, 1], slow_mean(body[:, 2:], rest[2:]))
    everything = net.masked_pool(maps, torch.ones(1, 5, 25, dtype=torch.bool))
    torch.testing.assert_close(everything[0], net(x))
    assert not everything[1].any()


@pytest.mark.parametrize("bodies", ["all", "real"])
def test_joints_that_are_left_hear_nothing_of_the_others(bodies: str) -> None:
    """The same as a graph in which no edge leads out of a joint that is gone, seen at those that are left."""
    net, x = trained(bodies=bodies), batch()
    kept = torch.tensor([0, 1, 2, 4, 5, 8, 11, 20, 24])
    with torch.no_grad():
        for p in net.edge_importance:
            p.copy_(torch.rand(p.shape, generator=generator()))
    fewer = net.features(x, joints=kept)
    assert fewer.shape == (4, 2, 16, 4, 9)
    assert torch.equal(net.features(x, joints=torch.arange(25)), net.features(x))
    gone = [v for v in range(25) if v not in kept]
    net.graph[:, gone] = 0
    torch.testing.assert_close(fewer, net.features(x)[..., kept])
    torch.testing.assert_close(net.pool(fewer), net.features(x)[..., kept].mean((3, 4)).sum(1) / (
        who(x).sum(1, keepdim=True) if bodies == "real" else 2))  # fmt: skip


def slow_drop(maps: torch.Tensor, threshold: float) -> torch.Tensor:
    """AimCLR's drop on (B, C, T, V), cell by cell."""
    b, c, t, v = maps.shape
    seen = torch.zeros_like(maps)
    for i in range(b):
        for k in range(c):
            mean = maps[i, k].sum() / (t * v)
            spread = ((maps[i, k] - mean) ** 2).sum() / (t * v - 1)
            seen[i, k] = 1 / (1 + torch.exp(-((maps[i, k] - mean) ** 2 / (4 * (spread + 1e-4)) + 0.5)))
    joints = torch.tensor([[float(seen[i, :, :, j].mean() < threshold) for j in range(v)] for i in range(b)])
    cells = (seen < threshold).double()
    out = torch.zeros_like(maps)
    for i in range(b):
        for j in range(v):
            out[i, :, :, j] = maps[i, :, :, j] * joints[i, j] * joints.numel() / joints.sum()
    return out * cells * cells.numel() / cells.sum()


@pytest.mark.parametrize("threshold", [0.66, 0.7, 0.9])
def test_attention_drop_is_its_formula(threshold: float) -> None:
    maps = torch.randn(3, 4, 5, 6, generator=generator(), dtype=torch.float64)
    maps[0, :, :, 2] *= 4  # a joint that stands out goes whole
    joints, cells = kept_cells(maps, threshold)
    torch.testing.assert_close(attention_drop(maps, threshold), slow_drop(maps, threshold))
    assert cells.any() and not cells.all() and bool(joints[0, 2]) == (threshold == 0.9)
    assert threshold > LOWEST and float(attention(maps).min()) >= LOWEST


def test_attention_drop_that_would_leave_nothing_leaves_all() -> None:
    maps = torch.randn(2, 3, 4, 5, generator=generator(), dtype=torch.float64)
    assert torch.equal(attention_drop(maps, LOWEST - 1e-3), maps)
    assert torch.equal(attention_drop(maps, 1.0), maps)
    assert torch.isfinite(attention_drop(torch.ones(1, 1, 1, 1), 0.7)).all()


def test_attention_drop_is_a_constant_to_the_gradient() -> None:
    maps = torch.randn(2, 3, 4, 5, generator=generator(), dtype=torch.float64, requires_grad=True)
    out = attention_drop(maps, 0.7)
    out.sum().backward()
    torch.testing.assert_close(maps.grad * maps, out)


@pytest.mark.parametrize("bodies", ["all", "real"])
def test_drop_counts_the_bodies_that_count(bodies: str) -> None:
    net, x = trained(bodies=bodies, init="torch").double(), batch().double()
    maps, counted = net.features(x), who(x) if bodies == "real" else torch.ones(4, 2, dtype=torch.bool)
    for present in (None, who(x)):
        dropped = net.drop_attended(maps, 0.65, present)
        torch.testing.assert_close(dropped[counted], slow_drop(maps[counted], 0.65))
        assert not dropped[~counted].any()


def test_every_weight_learns_through_the_map() -> None:
    net, x = encoder(init="torch").train(), batch()
    maps = net.features(x, joints=torch.arange(1, 25))
    pasted, context = net.masked_pool(net.drop_attended(maps, 0.7), torch.rand(1, 4, 24, generator=generator()) < 0.5)
    (pasted.square() + 2 * context.square()).sum().backward()
    before_a_norm = ("spatial.conv.bias", "temporal.2.bias", "shortcut.0.bias")  # a shift that the norm takes away
    for name, p in net.named_parameters():
        assert p.grad is not None and (p.grad.any() or name.endswith(before_a_norm)), name


# --- ST-GCN: weights and settings -----------------------------------------------------------------------------------


def test_published_initialisation() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(30, 100, 1), nn.BatchNorm2d(100), nn.Linear(100, 200)).apply(normal_init)
    net.requires_grad_(False)
    for layer in (net[0], net[2]):
        assert float(layer.weight.std()) == pytest.approx(0.02, rel=0.1)
        assert float(layer.weight.mean()) == pytest.approx(0, abs=2e-3)
        assert not layer.bias.any()
    assert float(net[1].weight.mean()) == pytest.approx(1, abs=0.01) and not net[1].bias.any()
    assert float(net[1].weight.std()) == pytest.approx(0.02, rel=0.4)
    assert all(bool((e == 1).all()) for e in encoder().edge_importance)


def test_encoder_ranges_construct_at_both_ends() -> None:
    for name, info in field_table(EncoderConfig).items():
        assert info.doc
        for end in info.range.ends() if info.range else ():
            assert getattr(EncoderConfig(**{name: end}), name) == end


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "transformer"}, {"width": 0}, {"dim": 0}, {"depth": 2}, {"dropout": 1.0}, {"dropout": -0.1},
        {"dropout": float("nan")}, {"input_norm": "none"}, {"segments": 0}, {"partition": "ring"}, {"init": "he"},
        {"bodies": "two"}, {"precision": "fp16"},
    ],
)  # fmt: skip
def test_encoder_says_what_is_wrong(wrong: dict[str, object]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(InputError, match=f"encoder.{name} .*{value}"):
        EncoderConfig(**wrong)


# --- heads ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_norm", [False, True])
def test_mlp_is_two_layers(batch_norm: bool) -> None:
    head = mlp(3, 5, 2, batch_norm=batch_norm).eval()
    assert [type(m) for m in head] == [nn.Linear, *([nn.BatchNorm1d] if batch_norm else []), nn.ReLU, nn.Linear]
    x = torch.randn(4, 3, generator=generator())
    hidden = x @ head[0].weight.T + head[0].bias
    if batch_norm:
        hidden = hidden / math.sqrt(1 + 1e-5)
    torch.testing.assert_close(head(x), hidden.clamp(min=0) @ head[-1].weight.T + head[-1].bias)


def test_mlp_of_more_layers() -> None:
    """PSTL's head: three maps without biases, a batch norm after each but the last."""
    head = mlp(3, 5, 2, batch_norm=True, layers=3, bias=False)
    assert [type(m).__name__ for m in head] == ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear"]
    assert [tuple(m.weight.shape) for m in head if isinstance(m, nn.Linear)] == [(5, 3), (5, 5), (2, 5)]
    assert all(m.bias is None for m in head if isinstance(m, nn.Linear))
    assert [type(m).__name__ for m in mlp(3, 5, 2, layers=1)] == ["Linear"]


# --- config -> encoder ----------------------------------------------------------------------------------------------


def test_the_type_of_the_config_says_which_encoder() -> None:
    def built(config: object) -> str:
        return type(build_encoder(config, BUSH15, frames=6, persons=1)).__name__

    assert built(ENCODER) == "STGCN"
    assert built(GruConfig(hidden=4)) == "GruEncoder"
    assert built(TwoPathConfig(base=4, d_model=8)) == "TwoPath"
    with pytest.raises(InputError, match=r"no encoder takes a dict; known: EncoderConfig, GruConfig, TwoPathConfig"):
        build_encoder({}, BUSH15)


# --- the momentum copy ----------------------------------------------------------------------------------------------


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.999, 1.0])
def test_ema_moves_by_its_formula(momentum: float) -> None:
    net = small_net()
    ema = Ema(net, momentum)
    old = [p.clone() for p in ema.target.parameters()]
    with torch.no_grad():
        for p in net.parameters():
            p.add_(torch.randn(p.shape, generator=generator()))
    ema.update(net, 0.5)
    for mine, was, online in zip(ema.target.parameters(), old, net.parameters(), strict=True):
        torch.testing.assert_close(mine, momentum * was + (1 - momentum) * online, rtol=1e-5, atol=1e-7)
        if momentum in (0, 1):
            assert torch.equal(mine, was if momentum else online)


def test_ema_after_k_steps_remembers_m_to_the_k() -> None:
    """Towards a constant online weight w from 0: w (1 - m^k)."""
    net = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(net.weight)
    ema = Ema(net, 0.9)
    nn.init.constant_(net.weight, 2.0)
    for _ in range(10):
        ema.update(net, 0.0)
    assert ema.target.weight.item() == pytest.approx(2 * (1 - 0.9**10), rel=1e-5)


@pytest.mark.parametrize(("progress", "expected"), [(0, 0.9), (0.5, 0.95), (1 / 3, 0.925), (1, 1.0)])
def test_rising_momentum(progress: float, expected: float) -> None:
    """1 - (1 - m)(cos(pi p) + 1)/2: at p = 0, 1/3, 1/2, 1 the bracket halves are 1, 3/4, 1/2, 0."""
    assert Ema(small_net(), 0.9, schedule="cosine").rate(progress) == pytest.approx(expected)
    assert Ema(small_net(), 0.9).rate(progress) == 0.9


@pytest.mark.parametrize("buffers", ["own", "copy"])
def test_ema_buffers(buffers: str) -> None:
    net = small_net().train()
    ema = Ema(net, 0.5, buffers=buffers).train()
    net(torch.randn(8, 3, generator=generator()))
    ema.update(net, 0.0)
    assert torch.equal(ema.target[1].running_mean, net[1].running_mean) == (buffers == "copy")
    before = ema.target[1].running_mean.clone()
    ema(torch.ones(8, 3))
    assert not torch.equal(ema.target[1].running_mean, before)  # runs in train mode, on its own batch statistics


def test_ema_gives_and_takes_no_gradient() -> None:
    net = small_net()
    ema = Ema(net, 0.5)
    x = torch.randn(4, 3, requires_grad=True)
    assert not ema(x).requires_grad
    assert not any(p.requires_grad for p in ema.parameters())
    assert all(p.requires_grad for p in net.parameters())


def test_ema_does_not_hold_the_online_network() -> None:
    net = small_net()
    ema = Ema(net, 0.5)
    assert {id(p) for p in ema.parameters()}.isdisjoint({id(p) for p in net.parameters()})
    assert sum(1 for _ in ema.parameters()) == sum(1 for _ in net.parameters())


# --- the queue ------------------------------------------------------------------------------------------------------


def rows(first: int, count: int) -> torch.Tensor:
    return torch.arange(first, first + count, dtype=torch.float32)[:, None].expand(count, 3)


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 9), batches=st.lists(st.integers(1, 25), min_size=1, max_size=8))
def test_queue_keeps_the_last_keys(size: int, batches: list[int]) -> None:
    """After n keys the queue holds exactly the last min(n, size), whatever the batches were."""
    queue = MemoryQueue(size, 3)
    sent = 0
    for count in batches:
        queue.enqueue(rows(1000 + sent, count))
        sent += count
    held = {round(float(k)) for k in queue.keys[:, 0] if float(k) >= 1000}
    assert held == set(range(1000 + max(0, sent - size), 1000 + sent))
    assert int(queue.pointer) == sent % size
    # the row at the pointer is the oldest: the next to go
    if sent >= size:
        oldest = 1000 + sent - size
        assert queue.keys[:, 0].roll(-int(queue.pointer)).tolist() == list(range(oldest, oldest + size))


def test_queue_starts_as_unit_directions_and_is_state() -> None:
    torch.manual_seed(3)
    queue = MemoryQueue(50, 8)
    torch.testing.assert_close(queue.keys.norm(dim=1), torch.ones(50))
    assert float(queue.keys.mean().abs()) < 0.05
    assert {"keys", "pointer"} <= queue.state_dict().keys() and not list(queue.parameters())


def test_queue_takes_no_gradient_and_its_own_type() -> None:
    queue = MemoryQueue(4, 3)
    keys = torch.ones(2, 3, dtype=torch.bfloat16, requires_grad=True)
    queue.enqueue(keys)
    assert queue.keys.dtype == torch.float32 and not queue.keys.requires_grad
