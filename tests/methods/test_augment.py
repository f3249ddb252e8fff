"""Augmentations, one by one: what each does to a clip."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import BUSH15, generator

from methods.augment import ops
from methods.data.layouts import KINECT20, NTU25, Layout


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def numbered(count: int, frames: int) -> torch.Tensor:
    """Every entry of a clip is its frame's number."""
    return torch.arange(frames, dtype=torch.float64)[None, None, :, None, None].expand(count, 3, frames, 2, 1).clone()


def yes(count: int) -> torch.Tensor:
    return torch.ones(count, dtype=torch.bool)


# --- crop -----------------------------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(st.data(), st.integers(1, 20))
def test_crop_is_a_window_of_the_mirrored_clip(data: st.DataObject, frames: int) -> None:
    pad = data.draw(st.integers(0, frames))
    starts = data.draw(st.lists(st.integers(0, 2 * pad), min_size=1, max_size=4))
    out = ops.temporal_crop(numbered(len(starts), frames), torch.tensor(starts), pad)[:, 0, :, 0, 0]
    line = list(range(frames))
    padded = line[:pad][::-1] + line + line[frames - pad :][::-1]  # edge frames doubled, as in the public code
    for row, start in zip(out.tolist(), starts, strict=True):
        assert row == padded[start : start + frames]
        assert set(row) <= set(line)


@settings(max_examples=30, deadline=None)
@given(frames=st.integers(1, 20), share=st.floats(0, 1))
def test_crop_in_the_middle_gives_the_clip_back(frames: int, share: float) -> None:
    pad = int(share * frames)
    x = noise(3, 3, frames, 4, 2)
    assert torch.equal(ops.temporal_crop(x, torch.full((3,), pad), pad), x)


# --- linear maps ----------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-7, 7), min_size=3, max_size=3))
def test_rotation_keeps_lengths_and_handedness(angles: list[float]) -> None:
    turn = ops.rotation_matrix(torch.tensor([angles], dtype=torch.float64))
    torch.testing.assert_close(turn[0] @ turn[0].T, torch.eye(3, dtype=torch.float64))
    assert float(torch.det(turn[0])) == pytest.approx(1)
    x = noise(1, 3, 4, 5, 2)
    torch.testing.assert_close(ops.linear_map(x, turn).norm(dim=1), x.norm(dim=1))


def test_rotation_by_a_right_angle_about_each_axis() -> None:
    """A turn of coordinates by 90 degrees about z: x -> -y, y -> x; and cyclically for x and y."""
    quarter = math.pi / 2
    for axis, pair in enumerate(((1, 2), (2, 0), (0, 1))):
        angles = torch.zeros(1, 3, dtype=torch.float64)
        angles[0, axis] = quarter
        turn = ops.rotation_matrix(angles)[0]
        first, second = (torch.eye(3, dtype=torch.float64)[i] for i in pair)
        torch.testing.assert_close(turn @ first, -second)
        torch.testing.assert_close(turn @ second, first)


def test_shear_has_a_unit_diagonal_and_zero_is_nothing() -> None:
    offsets = noise(4, 6)
    matrix = ops.shear_matrix(offsets)
    assert torch.equal(torch.diagonal(matrix, dim1=1, dim2=2), torch.ones(4, 3, dtype=torch.float64))
    assert sorted(matrix[0].flatten().tolist()) == sorted([*offsets[0].tolist(), 1, 1, 1])
    x = noise(4, 3, 5, 6, 2)
    assert torch.equal(ops.linear_map(x, ops.shear_matrix(torch.zeros(4, 6, dtype=torch.float64))), x)


def test_linear_map_is_a_matrix_for_every_joint() -> None:
    x, matrix = noise(2, 3, 4, 5, 2), noise(2, 3, 3, seed=1)
    out = ops.linear_map(x, matrix)
    for n in range(2):
        expected = matrix[n].numpy() @ x[n].numpy().reshape(3, -1)
        np.testing.assert_allclose(out[n].numpy().reshape(3, -1), expected, atol=1e-12)


# --- mirror, mask, time, noise, blur --------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [NTU25, KINECT20, BUSH15])
@pytest.mark.parametrize("reflect", [True, False])
def test_mirror_twice_is_nothing(layout: Layout, reflect: bool) -> None:
    x = noise(3, 3, 4, layout.num_joints, 2)
    permutation = torch.tensor(layout.mirror)
    chosen = torch.tensor([True, False, True])
    once = ops.mirror(x, chosen, permutation, reflect)
    assert torch.equal(once[1], x[1])
    for joint in range(layout.num_joints):
        sign = -1 if reflect else 1
        other = layout.mirror[joint]
        assert torch.equal(once[0, 0, :, joint], sign * x[0, 0, :, other])
        assert torch.equal(once[0, 1:, :, joint], x[0, 1:, :, other])
    assert torch.equal(ops.mirror(once, chosen, permutation, reflect), x)


def test_mask_axis() -> None:
    x = noise(4, 3, 5, 6, 2)
    out = ops.mask_axis(x, torch.tensor([0, 1, 2, -1]))
    for n in range(3):
        kept = [c for c in range(3) if c != n]
        assert not out[n, n].any() and torch.equal(out[n, kept], x[n, kept])
    assert torch.equal(out[3], x[3])


def test_reverse_time_twice_is_nothing() -> None:
    x = noise(2, 3, 5, 6, 2)
    chosen = torch.tensor([True, False])
    once = ops.reverse_time(x, chosen)
    assert torch.equal(once[0, :, 0], x[0, :, 4]) and torch.equal(once[1], x[1])
    assert torch.equal(ops.reverse_time(once, chosen), x)


def test_noise_leaves_absent_bodies_empty_if_told_who_is_there() -> None:
    x = torch.zeros(2, 3, 4, 5, 2, dtype=torch.float64)
    present = torch.tensor([[True, False], [True, True]])
    jitter = noise(2, 3, 4, 5, 2)
    out = ops.add_noise(x, jitter, present)
    assert not out[0, ..., 1].any()
    assert torch.equal(out[0, ..., 0], jitter[0, ..., 0]) and torch.equal(out[1], jitter[1])
    assert torch.equal(ops.add_noise(x, jitter), jitter)


@pytest.mark.parametrize("normalise", [True, False])
def test_blur_is_its_sum(normalise: bool) -> None:
    """out[t] = sum over k in -7..7 of g_k x[t + k], g_k = exp(-k^2 / 2 sigma^2), nothing beyond the ends."""
    x, sigma = noise(3, 2, 20, 2, 2), torch.tensor([0.4, 1.0, 2.0], dtype=torch.float64)
    out = ops.temporal_blur(x, sigma, yes(3), normalise)
    for n in range(3):
        taps = {k: math.exp(-(k**2) / (2 * float(sigma[n]) ** 2)) for k in range(-7, 8)}
        total = sum(taps.values()) if normalise else 1.0
        slow = torch.zeros_like(x[n])
        for t in range(20):
            for k, g in taps.items():
                if 0 <= t + k < 20:
                    slow[:, t] += g / total * x[n, :, t + k]
        torch.testing.assert_close(out[n], slow)


def test_normalised_blur_keeps_what_does_not_move() -> None:
    """A constant clip stays as it is 7 frames from either end; unnormalised it grows about fivefold at sigma 2."""
    still = torch.full((2, 3, 30, 4, 1), 1.5, dtype=torch.float64)
    sigma = torch.tensor([0.7, 2.0], dtype=torch.float64)
    kept = ops.temporal_blur(still, sigma, yes(2), True)
    torch.testing.assert_close(kept[:, :, 7:-7], still[:, :, 7:-7])
    grown = ops.temporal_blur(still, sigma, yes(2), False)
    # published gains, section 1.4: 5.01 at sigma 2 (sigma sqrt(2 pi) but for the cut)
    torch.testing.assert_close(grown[1, :, 7:-7] / 1.5, torch.full_like(grown[1, :, 7:-7], 5.01), atol=0.01, rtol=0)
    assert torch.equal(ops.temporal_blur(still, sigma, ~yes(2), False), still)
