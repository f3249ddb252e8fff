"""Augmentations: what each does to a clip, and that a policy is reproducible, per clip, and scaled by one strength."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import BUSH15, generator, movements

from methods.augment import ops
from methods.augment.policy import AugmentConfig, Policy
from methods.data.layouts import KINECT20, NTU25, Layout
from methods.errors import InputError
from methods.fields import field_table

EVERYTHING = AugmentConfig(
    crop=6.0, shear=0.5, flip=0.5, rotate=30.0, noise=0.01, blur=0.5, axis_mask=0.5, time_flip=0.5
)
ONLY = AugmentConfig(crop=0.0, shear=0.0)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def clips(count: int = 6, frames: int = 16, persons: int = 2, layout: Layout = NTU25, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(movements(count, frames, layout, persons, seed=seed)[0])


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


@pytest.mark.parametrize(("frames", "expected"), [(50, 8), (64, 10), (17, 2)])
def test_published_padding(frames: int, expected: int) -> None:
    """rho = 6: T/6 rounded down, so T = 50 pads 8 frames and draws from 0..16. All of them occur."""
    crop = Policy(dataclasses.replace(ONLY, crop=6.0), KINECT20)
    x = torch.arange(frames, dtype=torch.float32)[None, None, :, None, None].expand(400, 3, frames, 20, 1).clone()
    windows = {tuple(row) for row in crop(x, generator())[:, 0, :, 0, 0].int().tolist()}
    assert len(windows) == 2 * expected + 1
    line = list(range(frames))
    assert tuple(line[:expected][::-1] + line[: frames - expected]) in windows  # the first of them


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


@pytest.mark.parametrize(("both", "lowest"), [(True, -30), (False, 0)])
def test_rotation_angles_of_the_policy(both: bool, lowest: float) -> None:
    """Up to 30 degrees about one axis and up to 1 about the other two; strength doubles both."""
    config = dataclasses.replace(ONLY, rotate=30.0, rotate_both_ways=both, strength=2.0)
    points = torch.eye(3).view(1, 3, 1, 3, 1).expand(500, 3, 1, 3, 1)  # three joints: the unit vectors
    layout = dataclasses.replace(BUSH15, joints=("a", "b", "c"), parents=(-1, 0, 0), centre=0, mirror=(0, 1, 2))
    turns = Policy(config, layout)(points, generator()).squeeze().double()
    trace = torch.diagonal(turns, dim1=1, dim2=2).sum(1)
    angle = torch.rad2deg(torch.arccos(((trace - 1) / 2).clamp(-1, 1)))
    assert 45 < float(angle.max()) < 60 + 4
    # the sine of the turn about z is the difference of the two off-diagonal entries
    about = torch.stack(
        [turns[:, 1, 2] - turns[:, 2, 1], turns[:, 2, 0] - turns[:, 0, 2], turns[:, 0, 1] - turns[:, 1, 0]]
    )
    sines = about / 2
    assert ((sines.abs() > math.sin(math.radians(5))).sum(0) <= 1).all(), "more than one main axis"
    assert (bool((sines < -0.3).any())) == (lowest < 0)
    assert (sines > 0.3).any(1).all(), "an axis was never drawn"


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


# --- the policy -----------------------------------------------------------------------------------------------------


def test_strength_zero_is_the_identity() -> None:
    x = clips()
    assert torch.equal(Policy(dataclasses.replace(EVERYTHING, strength=0.0), NTU25)(x, generator()), x)


def test_no_ops_are_the_identity_at_any_strength() -> None:
    x = clips()
    assert torch.equal(Policy(dataclasses.replace(ONLY, strength=1.4), NTU25)(x, generator()), x)


@pytest.mark.parametrize("field", ["crop", "shear", "rotate", "noise"])
def test_amplitudes_grow_with_strength(field: str) -> None:
    config = dataclasses.replace(ONLY, **{field: getattr(EVERYTHING, field)}, noise_probability=1.0)
    x = clips(64, frames=64)
    changes = [
        float((Policy(dataclasses.replace(config, strength=s), NTU25)(x, generator()) - x).abs().mean())
        for s in (0.2, 0.7, 1.4)
    ]
    assert 0 < changes[0] < changes[1] < changes[2]


@pytest.mark.parametrize("field", ["flip", "blur", "axis_mask", "time_flip"])
@pytest.mark.parametrize(("strength", "expected"), [(0.5, 0.25), (1.0, 0.5), (1.4, 0.7), (3.0, 1.0)])
def test_probabilities_grow_with_strength_up_to_one(field: str, strength: float, expected: float) -> None:
    """400 clips: five standard deviations of a share are at most 0.125. A blur of the least sigma changes no bit."""
    x = clips(400, frames=8, persons=1)
    out = Policy(dataclasses.replace(ONLY, strength=strength, **{field: 0.5}), NTU25)(x, generator())
    share = float((out != x).flatten(1).any(1).float().mean())
    assert share == pytest.approx(expected, abs=0.125 if expected < 1 else 0.06 * (field == "blur"))


def test_noise_has_the_stated_size_and_share() -> None:
    config = dataclasses.replace(ONLY, noise=0.02, noise_probability=0.25, strength=1.5)
    x = clips(400, frames=8, persons=1)
    change = Policy(config, NTU25)(x, generator()) - x
    hit = change.flatten(1).any(1)
    assert float(hit.float().mean()) == pytest.approx(0.25, abs=0.11)
    assert float(change[hit].std()) == pytest.approx(0.03, rel=0.03)


def test_policy_is_a_function_of_the_generator() -> None:
    x, policy = clips(), Policy(EVERYTHING, NTU25)
    assert torch.equal(policy(x, generator(1)), policy(x, generator(1)))
    assert not torch.equal(policy(x, generator(1)), policy(x, generator(2)))
    shared = generator(1)
    assert not torch.equal(policy(x, shared), policy(x, shared))


def test_policy_leaves_torchs_global_state_and_the_clips_alone() -> None:
    x = clips()
    kept, state = x.clone(), torch.get_rng_state()
    Policy(EVERYTHING, NTU25)(x, generator())
    assert torch.equal(x, kept) and torch.equal(torch.get_rng_state(), state)


def test_every_clip_draws_its_own() -> None:
    x = clips(1).expand(8, -1, -1, -1, -1)
    out = Policy(AugmentConfig(), NTU25)(x, generator())
    assert len({tuple(row.flatten().tolist()) for row in out}) == 8


def test_a_clip_does_not_feel_the_others() -> None:
    x, y = clips(seed=1), clips(seed=2)
    y[3] = x[3]
    policy = Policy(EVERYTHING, NTU25)
    assert torch.equal(policy(x, generator())[3], policy(y, generator())[3])


@pytest.mark.parametrize("fill", [False, True])
def test_absent_bodies_stay_empty_unless_published_noise_fills_them(fill: bool) -> None:
    x = clips(12)
    config = dataclasses.replace(EVERYTHING, noise_probability=1.0, noise_absent=fill, axis_mask=0.0)
    out = Policy(config, NTU25)(x, generator())
    assert torch.equal((out != 0).flatten(1, 3).any(1), (x != 0).flatten(1, 3).any(1)) == (not fill)
    assert (out[0::2] != 0).flatten(1, 3).any(1).all()


@pytest.mark.parametrize(
    ("layout", "frames", "persons"), [(NTU25, 17, 1), (BUSH15, 9, 3), (KINECT20, 4, 2), (NTU25, 64, 2)]
)
def test_any_layout_length_and_persons(layout: Layout, frames: int, persons: int) -> None:
    x = clips(4, frames, persons, layout)
    out = Policy(dataclasses.replace(EVERYTHING, strength=1.4), layout)(x, generator())
    assert out.shape == x.shape and out.dtype == x.dtype and torch.isfinite(out).all()


def test_enormous_strength_is_still_finite() -> None:
    out = Policy(dataclasses.replace(EVERYTHING, strength=50.0, crop=1.0), NTU25)(clips(), generator())
    assert torch.isfinite(out).all()


def test_ranges_construct_at_both_ends() -> None:
    for name, info in field_table(AugmentConfig).items():
        assert info.doc
        for end in info.range.ends() if info.range else ():
            config = dataclasses.replace(EVERYTHING, **{name: end})
            assert torch.isfinite(Policy(config, NTU25)(clips(2), generator())).all()


@pytest.mark.parametrize("name", ["strength", "crop", "shear", "rotate", "noise"])
@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_wrong_amplitudes(name: str, value: float) -> None:
    with pytest.raises(InputError, match=f"augment.{name} .*{value}"):
        AugmentConfig(**{name: value})


@pytest.mark.parametrize("name", ["flip", "noise_probability", "blur", "axis_mask", "time_flip"])
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_wrong_probabilities(name: str, value: float) -> None:
    with pytest.raises(InputError, match=f"augment.{name} .*{value}"):
        AugmentConfig(**{name: value})
