"""What methods do to views beside the shared recipe: crops in time, masks; by slow loops, bounds and counts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import BUSH15, generator, tree
from torch.nn import functional as F

from methods.augment import crops, mask, mix, ops
from methods.augment.draws import Draws
from methods.data.layouts import LAYOUTS, NTU25, Layout
from methods.filled import valid_lengths

PAIR = tree([-1, 0])  # the smallest skeleton that there can be
EVERY = [*LAYOUTS.values(), BUSH15, PAIR]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def draws(n: int, seed: int = 0, per_batch: bool = False) -> Draws:
    return Draws(n, generator(seed), torch.float64, per_batch)


def numbered(n: int, frames: int, joints: int = 2) -> torch.Tensor:
    """Every entry of a clip is its frame's number."""
    return torch.arange(frames, dtype=torch.float64)[None, None, :, None, None].expand(n, 3, frames, joints, 1).clone()


# --- random numbers -------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(lows=st.lists(st.integers(-5, 50), min_size=1, max_size=6), span=st.integers(0, 50), seed=st.integers(0, 99))
def test_integers_between_ends_of_their_own(lows: list[int], span: int, seed: int) -> None:
    low = torch.tensor(lows)
    high = low + torch.arange(len(lows)) + span
    drawn = draws(len(lows), seed).between(low, high)
    assert ((low <= drawn) & (drawn <= high)).all()


def test_integers_between_reach_every_value_alike() -> None:
    """4000 draws of 4 values: 1000 of each, four standard deviations are 110."""
    counts = torch.bincount(draws(4000).between(3, 6))
    assert counts.tolist()[:3] == [0, 0, 0] and len(counts) == 7
    assert all(abs(int(count) - 1000) < 110 for count in counts[3:])


@pytest.mark.parametrize("size", [0, 1, 4, 7])
def test_subsets_have_their_size_and_no_favourite(size: int) -> None:
    chosen = draws(3000).subset(7, size)
    assert (chosen.sum(1) == size).all()
    torch.testing.assert_close(chosen.double().mean(0), torch.full((7,), size / 7).double(), atol=0.04, rtol=0)


def test_subsets_of_different_sizes() -> None:
    sizes = torch.tensor([0, 3, 5, 1])
    assert torch.equal(draws(4).subset(5, sizes).sum(1), sizes)


def test_a_batch_may_share_its_draws() -> None:
    for shared in (True, False):
        draw = draws(6, per_batch=shared)
        for rows in (draw.uniform(0, 1, 3), draw.subset(9, 4), draw.integers(1000), draw.ranking(9)):
            assert len(rows) == 6
            assert (len({tuple(np.atleast_1d(row.numpy()).tolist()) for row in rows}) == 1) == shared
        assert len({float(x) for x in draw.normal(torch.Size((6, 1)))}) == 6  # noise is never shared


def test_ops_read_no_number_back_to_the_host() -> None:
    """On torch's meta device a tensor has a shape but no numbers: whoever looks at one, or mixes devices, fails."""
    x = torch.empty(4, 3, 20, 25, 2, device="meta")

    def like(*shape: int, kind: torch.dtype = torch.int64) -> torch.Tensor:
        return torch.empty(4, *shape, dtype=kind, device="meta")

    yes, joints = like(kind=torch.bool), like(25, kind=torch.bool)
    drawn = mix.Mix(torch.empty((), dtype=torch.int64, device="meta"), joints, like(), like())
    for out in (
        crops.crop_resize(x, like(), like(), 20),
        ops.reverse_time(x, yes, like()),
        ops.velocity(x, like()),
        ops.take_frames(x, mask.slowest_frames(mask.motion_attention(x), 20)),
        mask.zero_joints(x, mask.joint_table(like(8), 25)),
        mask.zero_joints(x, mask.structural_joints(torch.empty(25, 25, device="meta"), like(5), 8)),
        mask.zero_frames(x, mask.segment_frames(like(16, kind=torch.bool), 20)),
        mask.corrupt_joints(x, joints, like(3, 3, kind=torch.float32)),
        mix.skelemix(x, drawn),
    ):
        assert out.shape == x.shape and out.device.type == "meta"
    assert valid_lengths(x).shape == crops.centre_crop(like())[1].shape == (4,)


# --- crops ----------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(data=st.data(), frames=st.integers(1, 40), out=st.integers(1, 40))
def test_crop_resize_is_interpolate(data: st.DataObject, frames: int, out: int) -> None:
    """torch's own resampling of the piece alone: what the official feeders call."""
    lengths = data.draw(st.lists(st.integers(1, frames), min_size=1, max_size=4))
    starts = [data.draw(st.integers(0, frames - length)) for length in lengths]
    x = noise(len(lengths), 3, frames, 2, 2)
    ours = crops.crop_resize(x, torch.tensor(starts), torch.tensor(lengths), out)
    for n, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        piece = x[n, :, start : start + length].permute(0, 2, 3, 1).reshape(1, -1, length)
        theirs = F.interpolate(piece, size=out, mode="linear", align_corners=False)
        torch.testing.assert_close(ours[n].permute(0, 2, 3, 1).reshape(1, -1, out), theirs, atol=1e-12, rtol=1e-12)


def test_crop_resize_by_hand() -> None:
    """Four frames 0 1 2 3 to two: read at 0.5 and 2.5. Two frames 0 1 to four: at -0.25 (held), 0.25, 0.75, 1.25."""
    x = numbered(1, 4)
    whole, zero = torch.tensor([4]), torch.tensor([0])
    assert crops.crop_resize(x, zero, whole, 2)[0, 0, :, 0, 0].tolist() == [0.5, 2.5]
    half = crops.crop_resize(x, zero, torch.tensor([2]), 4)[0, 0, :, 0, 0]
    assert half.tolist() == pytest.approx([0, 0.25, 0.75, 1])


def test_crop_resize_to_the_same_length_is_a_copy_and_of_rest_is_rest() -> None:
    x = noise(3, 3, 20, 4, 2)
    start = torch.tensor([0, 4, 11])
    out = crops.crop_resize(x, start, torch.full((3,), 9), 9)
    assert all(torch.equal(out[n], x[n, :, int(s) : int(s) + 9]) for n, s in enumerate(start))
    still = torch.full((2, 3, 20, 4, 1), 1.7)
    out = crops.crop_resize(still, torch.tensor([3, 0]), torch.tensor([5, 20]), 64)
    torch.testing.assert_close(out, torch.full((2, 3, 64, 4, 1), 1.7))


@pytest.mark.parametrize(("low", "shortest"), [(0.1, 64), (0.1, 1), (0.5, 64), (1.0, 1)])
def test_drawn_crops_lie_inside_their_clips(low: float, shortest: int) -> None:
    lengths = torch.tensor([300, 64, 30, 1, 100] * 200)
    start, length = crops.draw_crop(draws(1000), lengths, low, shortest=shortest)
    assert (start >= 0).all() and (length >= 1).all() and (start + length <= lengths).all()
    assert (length >= torch.minimum(lengths, torch.tensor(shortest))).all()
    assert (length >= (lengths * low).floor()).all()
    if shortest == 64:
        assert (length[lengths <= 64] == lengths[lengths <= 64]).all()
    long = lengths == 300
    if low < 1:
        assert length[long].max() > 280 and length[long].min() < 60 + max(shortest, 300 * low)
        assert start[long].min() == 0 and start[long].max() > 100


@pytest.mark.parametrize(("frames", "start"), [(187, 4), (200, 5), (40, 1), (39, 0), (1, 0), (2, 0)])
def test_centre_crop_takes_as_much_off_either_end(frames: int, start: int) -> None:
    """A twentieth in all: 187 * 0.05 / 2 = 4.675, so 4 frames at each end."""
    first, length = crops.centre_crop(torch.tensor([frames]))
    assert (int(first), int(length)) == (start, frames - 2 * start)
    nothing = crops.centre_crop(torch.tensor([frames]), 0.0)
    assert int(nothing[1]) >= 1 and int(nothing[0]) + int(nothing[1]) <= frames


def test_valid_lengths_end_at_the_last_frame_that_holds_anything() -> None:
    x = torch.zeros(4, 3, 9, 5, 2)
    x[0, 2, 8, 4, 1] = 1
    x[1, 0, 3, 0, 0], x[1, 0, 1, 0, 0] = -1, 1
    x[2] = 1
    assert valid_lengths(x).tolist() == [9, 4, 9, 1]


# --- CRRL: backwards, and how fast ----------------------------------------------------------------------------------


def test_reversal_and_velocity_know_where_a_clip_ends() -> None:
    x, lengths = numbered(3, 6) + 1, torch.tensor([6, 4, 1])
    yes = torch.ones(3, dtype=torch.bool)
    back = ops.reverse_time(x, yes, lengths)
    assert back[:, 0, :, 0, 0].tolist() == [[6, 5, 4, 3, 2, 1], [4, 3, 2, 1, 5, 6], [1, 2, 3, 4, 5, 6]]
    assert torch.equal(ops.reverse_time(back, yes, lengths), x)
    assert torch.equal(ops.reverse_time(x, yes, torch.full((3,), 6)), ops.reverse_time(x, yes))
    assert torch.equal(ops.reverse_time(x, ~yes, lengths), x)
    speed = ops.velocity(x, lengths)
    assert speed[:, 0, :, 0, 0].tolist() == [[1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0], [0] * 6]
    assert ops.velocity(x)[2, 0, :, 0, 0].tolist() == [1, 1, 1, 1, 1, 0]


# --- PSTL -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", EVERY, ids=lambda layout: layout.name)
def test_the_urn_holds_each_joint_as_often_as_it_has_bones(layout: Layout) -> None:
    counts = torch.bincount(mask.central_entries(layout), minlength=layout.num_joints)
    ends = [joint for bone in layout.bones for joint in bone]
    assert counts.tolist() == [ends.count(joint) for joint in range(layout.num_joints)]
    dropped = mask.joint_table(mask.draw_central_joints(draws(50), mask.central_entries(layout), 99), layout.num_joints)
    assert (dropped.sum(1) < layout.num_joints).all(), "a joint must be left"


def test_central_joints_are_drawn_without_putting_back() -> None:
    """8 of 48 entries: a joint of d bones is missed with probability C(48-d, 8) / C(48, 8); 7.35 joints on average."""
    entries = mask.central_entries(NTU25)
    drawn = mask.draw_central_joints(draws(4000), entries, 8)
    assert drawn.shape == (4000, 8)
    bones = torch.bincount(entries)
    most = torch.zeros(25, dtype=torch.long)
    for row in drawn:
        most = torch.maximum(most, torch.bincount(row, minlength=25))
    assert (most <= bones).all()
    dropped = mask.joint_table(drawn, 25).double()
    expected = torch.tensor([1 - math.comb(48 - int(d), 8) / math.comb(48, 8) for d in bones]).double()
    torch.testing.assert_close(dropped.mean(0), expected, atol=0.032, rtol=0)  # four standard deviations at most
    assert float(dropped.sum(1).mean()) == pytest.approx(7.35, abs=0.05)
    assert dropped.sum(1).min() >= 4 and dropped.sum(1).max() == 8
    nothing = mask.joint_table(mask.draw_central_joints(draws(5), entries, 0), 25)
    assert not nothing.any()


def test_motion_attention_is_highest_at_rest_and_last() -> None:
    x = noise(3, 3, 8, 4, 2)
    x[1, :, 3] = x[1, :, 2]
    slow = torch.zeros(3, 8).double()
    for n in range(3):
        for t in range(7):
            slow[n, t] = -np.mean((x[n, :, t + 1] - x[n, :, t]).numpy() ** 2)
    torch.testing.assert_close(mask.motion_attention(x), slow)
    assert slow[1, 2] == 0 and (slow[:, 7] == 0).all()


@settings(max_examples=50, deadline=None)
@given(data=st.data(), frames=st.integers(1, 12))
def test_slowest_frames_are_the_highest_in_order_and_of_equals_the_first(data: st.DataObject, frames: int) -> None:
    rows = data.draw(st.lists(st.lists(st.integers(-3, 0), min_size=frames, max_size=frames), min_size=1, max_size=3))
    keep = data.draw(st.integers(0, frames + 2))
    ours = mask.slowest_frames(torch.tensor(rows, dtype=torch.float64), keep)
    wanted = max(1, min(keep, frames))
    for row, got in zip(rows, ours.tolist(), strict=True):
        assert got == sorted(sorted(range(frames), key=lambda t: (-row[t], t))[:wanted])


def test_drawn_frames_are_different_and_in_order() -> None:
    drawn = mask.draw_frames(draws(500), 10, 6)
    assert drawn.shape == (500, 6) and (drawn[:, 1:] > drawn[:, :-1]).all()
    torch.testing.assert_close(torch.bincount(drawn.flatten()) / 500, torch.full((10,), 0.6), atol=0.1, rtol=0)
    taken = ops.take_frames(numbered(500, 10), drawn)
    assert torch.equal(taken[:, 1, :, 1, 0], drawn.double())


# --- SCD-Net --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", EVERY, ids=lambda layout: layout.name)
def test_structural_reach_counts_ways_of_at_most_two_bones(layout: Layout) -> None:
    """One way to each neighbour and to itself, standing still allowed at either step."""
    joints = range(layout.num_joints)
    near = [{j, *(a for a, b in layout.bones if b == j), *(b for a, b in layout.bones if a == j)} for j in joints]
    slow = [[len(near[u] & near[v]) for v in joints] for u in joints]
    assert mask.structural_reach(layout).tolist() == slow


@pytest.mark.parametrize("fair", [True, False])
def test_structural_joints_are_those_of_highest_score(fair: bool) -> None:
    reach = mask.structural_reach(NTU25)
    seeds, ties = draws(40).integers(25, 5), draws(40, seed=1).uniform(0, 1, 25)
    chosen = mask.structural_joints(reach, seeds, 8, ties if fair else None)
    for n in range(40):
        score = [sum(float(reach[s, v]) for s in seeds[n]) for v in range(25)]
        rank = sorted(range(25), key=lambda v: (score[v], float(ties[n, v]) if fair else v))
        assert set(torch.nonzero(chosen[n]).flatten().tolist()) == set(rank[-8:])


@pytest.mark.parametrize("layout", EVERY, ids=lambda layout: layout.name)
@pytest.mark.parametrize("count", [0, 1, 8, 99])
def test_structural_mask_leaves_a_joint(layout: Layout, count: int) -> None:
    v = layout.num_joints
    joints = mask.draw_structural(draws(6), mask.structural_reach(layout), count, 5)
    assert joints.shape == (6, v) and (joints.sum(1) == min(count, v - 1)).all()


def test_fair_ties_take_away_the_bias_to_high_joints() -> None:
    """Joints 22 and 24 (thumbs' ends of the hands) are mirror images: with ties by lot they are hidden alike."""
    reach = mask.structural_reach(NTU25)
    pairs = [(a, b) for a, b in enumerate(NTU25.mirror) if a < b]
    shares = {}
    for fair in (True, False):
        share = mask.draw_structural(draws(6000), reach, 8, 5, fair).double().mean(0)
        shares[fair] = max(abs(float(share[a] - share[b])) for a, b in pairs)
    assert shares[True] < 0.04 < shares[False]


@pytest.mark.parametrize(("frames", "segments"), [(64, 16), (50, 16), (7, 16), (16, 4), (5, 5)])
def test_segments_divide_time(frames: int, segments: int) -> None:
    one = torch.eye(segments, dtype=torch.bool)
    table = mask.segment_frames(one, frames)
    assert (table.sum(0) == 1).all()  # each frame belongs to one segment
    sizes = table.sum(1)
    assert int(sizes.max() - sizes.min()) <= 1
    if (frames, segments) == (64, 16):
        assert torch.equal(table, one.repeat_interleave(4, 1))
    hidden = mask.draw_segments(draws(20), 6, segments)
    assert (hidden.sum(1) == min(6, segments - 1)).all()


def test_zeroing_touches_what_is_chosen_and_nothing_else() -> None:
    x = noise(2, 3, 6, 5, 2)
    joints, frames = torch.rand(2, 5, generator=generator()) < 0.4, torch.rand(2, 6, generator=generator(1)) < 0.4
    without, still = mask.zero_joints(x, joints), mask.zero_frames(x, frames)
    for n in range(2):
        for v in range(5):
            assert torch.equal(without[n, :, :, v], torch.zeros(3, 6, 2) if joints[n, v] else x[n, :, :, v])
        for t in range(6):
            assert torch.equal(still[n, :, t], torch.zeros(3, 5, 2) if frames[n, t] else x[n, :, t])
    assert joints.any() and frames.any() and not joints.all() and not frames.all()


# --- CMD ------------------------------------------------------------------------------------------------------------


def test_corruption_multiplies_from_the_right() -> None:
    x, matrix = noise(2, 3, 4, 5, 2), noise(2, 3, 3, seed=1)
    joints = torch.tensor([[True, False, True, False, False], [False] * 5])
    out = mask.corrupt_joints(x, joints, matrix)
    assert torch.equal(out[1], x[1]) and torch.equal(out[0, :, :, 1], x[0, :, :, 1])
    np.testing.assert_allclose(out[0, :, 2, 0, 1], x[0, :, 2, 0, 1].numpy() @ matrix[0].numpy(), rtol=1e-12)
    assert not mask.corrupt_joints(x, joints, torch.zeros_like(matrix))[0, :, :, 2].any()


def test_corruptions_are_of_both_kinds() -> None:
    joints, matrix = mask.draw_corruption(draws(600), 25, 15)
    assert (joints.sum(1) == 15).all()
    wiped = ~matrix.flatten(1).any(1)
    assert 0.42 < float(wiped.double().mean()) < 0.58
    kept = matrix[~wiped]
    assert -1 <= float(kept.min()) < -0.99 and 0.99 < float(kept.max()) < 1 and abs(float(kept.mean())) < 0.05
    assert (mask.draw_corruption(draws(3), 2, 9)[0].sum(1) == 1).all()
