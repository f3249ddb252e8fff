"""SkeleMix: a mixture is its two clips, cell by cell, and neither side of it is ever empty."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import BUSH15, generator, tree

from methods.augment import mix
from methods.augment.draws import Draws
from methods.data.layouts import KINECT20, LAYOUTS, NTU25, Layout

EVERY = [*LAYOUTS.values(), BUSH15, tree([-1, 0])]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def draws(n: int, seed: int = 0, per_batch: bool = False) -> Draws:
    return Draws(n, generator(seed), torch.float64, per_batch)


@settings(max_examples=50, deadline=None)
@given(n=st.integers(1, 9), frames=st.integers(1, 21), seed=st.integers(0, 999), stride=st.sampled_from([1, 2, 4]))
def test_a_mixture_is_its_two_clips_cell_by_cell(n: int, frames: int, seed: int, stride: int) -> None:
    x, draw = noise(n, 3, frames, 25, 2, seed=seed), draws(n, seed)
    segments = mix.segments_of(frames, stride)
    joints = mix.draw_parts(draw, mix.part_table(NTU25.parts, 25), 1, 4)
    drawn = mix.draw_mix(draw, joints, segments, 1, 15)
    mixed, cells = mix.skelemix(x, drawn, stride), drawn.cells(segments)
    assert cells.shape == (n, segments, 25) and segments == math.ceil(frames / stride)
    assert torch.equal(cells.sum((1, 2)), drawn.length * joints.sum(1))
    for i in range(n):
        other = x[(i + int(drawn.shift)) % n]
        for t in range(frames):
            taken = cells[i, t // stride]
            assert torch.equal(mixed[i, :, t, taken], other[:, t, taken])
            assert torch.equal(mixed[i, :, t, ~taken], x[i, :, t, ~taken])


@pytest.mark.parametrize("layout", EVERY, ids=lambda layout: layout.name)
@pytest.mark.parametrize("segments", [1, 2, 13, 16])
def test_neither_side_of_a_mixture_is_empty(layout: Layout, segments: int) -> None:
    """Any ends of the ranges, even beyond what there is: mask pooling divides by both areas."""
    v = layout.num_joints
    for least, most in ((1, 4), (2, 3), (9, 99), (0, 0)):
        draw = draws(40, seed=most)
        joints = mix.draw_parts(draw, mix.part_table(layout.parts, v), least, most)
        drawn = mix.draw_mix(draw, joints, segments, least, most)
        cells = drawn.cells(segments).flatten(1)
        assert cells.any(1).all()
        assert (drawn.start + drawn.length <= segments).all()
        if len(layout.parts) > 1 or segments > 1:
            assert not cells.all(1).any()


@pytest.mark.parametrize(("n", "shifts"), [(1, {0}), (2, {1}), (3, {1}), (6, {1, 2, 3, 4})])
def test_nobody_is_their_own_partner(n: int, shifts: set[int]) -> None:
    joints = torch.ones(n, 5, dtype=torch.bool)
    found = {int(mix.draw_mix(draws(n, seed), joints, 4, 1, 3).shift) for seed in range(60)}
    assert found == shifts
    for shift in shifts:
        order = mix.partners(n, torch.tensor(shift))
        assert sorted(order.tolist()) == list(range(n))
        assert n == 1 or (order != torch.arange(n)).all()


def test_parts_are_whole_and_of_the_published_numbers() -> None:
    table = mix.part_table(NTU25.parts, 25)
    joints = mix.draw_parts(draws(300), table, 2, 3)
    whole = (joints[:, None] & table[None]).sum(2)
    assert ((whole == 0) | (whole == table.sum(1))).all()
    counts = (whole > 0).sum(1)
    assert set(counts.tolist()) == {2, 3}
    drawn = mix.draw_mix(draws(300), joints, 16, 7, 11)
    assert set(drawn.length.tolist()) == set(range(7, 12))
    assert int((drawn.start + drawn.length).max()) == 16 and int(drawn.start.min()) == 0
    anywhere = mix.draw_any_joints(draws(300), 25, 10, 15).sum(1)
    assert set(anywhere.tolist()) == set(range(10, 16))


def test_other_fills() -> None:
    x, joints = noise(3, 3, 16, 25, 2), torch.ones(3, 25, dtype=torch.bool)
    drawn = mix.draw_mix(draws(3), joints, 4, 1, 3)
    block = drawn.cells(4).repeat_interleave(4, 1)[:, None, :, :, None].expand_as(x)
    static = noise(3, 3, 16, 25, 2, seed=7)
    for fill, source in (("zeros", torch.zeros_like(x)), ("gaussian", static)):
        mixed = mix.skelemix(x, drawn, fill=fill, noise=static)
        assert torch.equal(mixed[block], source[block]) and torch.equal(mixed[~block], x[~block])
    with pytest.raises(ValueError, match="swap, zeros, gaussian"):
        mix.skelemix(x, drawn, fill="swop")


@pytest.mark.parametrize(("count", "to", "expected"), [(8, 15, 5), (15, 20, 12), (1, 2, 1), (99, 9, 9), (8, 25, 8)])
def test_counts_scale_to_other_skeletons(count: int, to: int, expected: int) -> None:
    """8 of 25 are 4.8 of 15; 15 of 25 are 12 of 20; never none and never more than there are."""
    assert mix.scaled(count, 25, to) == expected


@pytest.mark.parametrize("per_batch", [True, False])
def test_a_batch_may_share_its_mixture(per_batch: bool) -> None:
    draw = draws(12, per_batch=per_batch)
    joints = mix.draw_parts(draw, mix.part_table(KINECT20.parts, 20), 2, 3)
    cells = mix.draw_mix(draw, joints, 16, 7, 11).cells(16)
    assert (len({tuple(row.flatten().tolist()) for row in cells}) == 1) == per_batch
