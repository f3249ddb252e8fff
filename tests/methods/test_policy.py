"""The policy: reproducible, per clip, and scaled by one strength; what each published recipe asks of it."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from tiny import BUSH15, generator, movements, tree

from methods.augment.policy import AugmentConfig, Policy
from methods.data.layouts import KINECT20, NTU25, Layout
from methods.errors import InputError
from methods.fields import field_table

EVERYTHING = AugmentConfig(
    crop=6.0, shear=0.5, flip=0.5, rotate=30.0, noise=0.01, blur=0.5, axis_mask=0.5, time_flip=0.5
)
ONLY = AugmentConfig(crop=0.0, shear=0.0)
ALL_OF_SCDNET = AugmentConfig(
    crop=0.0, crop_resize=0.1, shear=1.0, shear_probability=0.5, flip=0.5, rotate=30.0, rotate_probability=0.5,
    joint_mask=0.5, segment_mask=0.5,
)  # fmt: skip
ALL_OF_CMD = AugmentConfig(crop=0.0, crop_resize=0.1, shear=1.0, corrupt=0.5)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def clips(count: int = 6, frames: int = 16, persons: int = 2, layout: Layout = NTU25, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(movements(count, frames, layout, persons, seed=seed)[0])


@pytest.mark.parametrize(("frames", "expected"), [(50, 8), (64, 10), (17, 2)])
def test_published_padding(frames: int, expected: int) -> None:
    """rho = 6: T/6 rounded down, so T = 50 pads 8 frames and draws from 0..16. All of them occur."""
    crop = Policy(dataclasses.replace(ONLY, crop=6.0), KINECT20)
    x = torch.arange(frames, dtype=torch.float32)[None, None, :, None, None].expand(400, 3, frames, 20, 1).clone()
    windows = {tuple(row) for row in crop(x, generator())[:, 0, :, 0, 0].int().tolist()}
    assert len(windows) == 2 * expected + 1
    line = list(range(frames))
    assert tuple(line[:expected][::-1] + line[: frames - expected]) in windows  # the first of them


@pytest.mark.parametrize(("both", "lowest"), [(True, -30), (False, 0)])
def test_rotation_angles_of_the_policy(both: bool, lowest: float) -> None:
    """Up to 30 degrees about one axis and up to 1 about the other two; strength doubles both."""
    config = dataclasses.replace(ONLY, rotate=30.0, rotate_both_ways=both, strength=2.0)
    points = torch.eye(3).view(1, 3, 1, 3, 1).expand(500, 3, 1, 3, 1)  # three joints: the unit vectors
    turns = Policy(config, tree([-1, 0, 0]))(points, generator()).squeeze().double()
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


@pytest.mark.parametrize("field", ["flip", "blur", "axis_mask", "time_flip", "corrupt", "joint_mask", "segment_mask"])
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
    for config in (EVERYTHING, ALL_OF_SCDNET, ALL_OF_CMD):
        out = Policy(dataclasses.replace(config, strength=1.4), layout)(x, generator())
        assert out.shape == x.shape and out.dtype == x.dtype and torch.isfinite(out).all()


def test_enormous_strength_is_still_finite() -> None:
    out = Policy(dataclasses.replace(EVERYTHING, strength=50.0, crop=1.0), NTU25)(clips(), generator())
    assert torch.isfinite(out).all()


# --- what SCD-Net, CMD and PSTL add -----------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["shear", "rotate"])
def test_a_share_of_clips_is_spared(field: str) -> None:
    """The others change; a spared clip is the same to the bit, for its matrix is the identity."""
    config = dataclasses.replace(ONLY, **{field: 1.0, f"{field}_probability": 0.25})
    x = clips(400, frames=4, persons=1)
    share = float((Policy(config, NTU25)(x, generator()) != x).flatten(1).any(1).float().mean())
    assert share == pytest.approx(0.25, abs=0.11)
    none = dataclasses.replace(config, **{f"{field}_probability": 0.0})
    assert torch.equal(Policy(none, NTU25)(x, generator()), x)


def test_a_clip_is_sheared_or_corrupted() -> None:
    """Never both: a corruption leaves 10 of 25 joints as they were, a shear leaves none of those that move."""
    x = clips(300, frames=6, persons=1) + 0.1
    changed = (Policy(ALL_OF_CMD, NTU25).in_space(x, generator()) != x).any(4).any(2).any(1).sum(1)
    assert set(changed.tolist()) == {15, 25}
    assert float((changed == 15).float().mean()) == pytest.approx(0.5, abs=0.12)


@pytest.mark.parametrize(("field", "joints", "frames"), [("joint_mask", 8, 0), ("segment_mask", 0, 24)])
def test_masks_hide_the_published_numbers(field: str, joints: int, frames: int) -> None:
    x = torch.ones(300, 3, 64, 25, 2)
    out = Policy(dataclasses.replace(ONLY, **{field: 0.5}), NTU25)(x, generator())
    hidden = out == 0
    assert {int(n) for n in hidden.all(4).all(2).all(1).sum(1)} == {0, joints} or not joints
    assert {int(n) for n in hidden.all(4).all(3).all(1).sum(1)} == {0, frames} or not frames
    assert float(hidden.flatten(1).any(1).float().mean()) == pytest.approx(0.5, abs=0.12)


def test_masks_follow_their_settings() -> None:
    """Half of 20 joints; a quarter of 16 segments of 32 frames: 8."""
    x = torch.ones(20, 3, 32, 20, 1)
    config = dataclasses.replace(
        ONLY, joint_mask=1.0, joint_mask_joints=0.5, segment_mask=1.0, segment_mask_share=0.25, strength=1.0
    )
    hidden = Policy(config, KINECT20)(x, generator()) == 0
    assert (hidden.all(4).all(2).all(1).sum(1) == 10).all()
    assert (hidden.all(4).all(3).all(1).sum(1) == 8).all()


def test_crop_resize_stretches_a_piece_and_grows_with_strength() -> None:
    """A ramp stays a ramp, of a lesser slope: the share kept, between the least and 1."""
    x = torch.arange(64, dtype=torch.float64)[None, None, :, None, None].expand(300, 3, 64, 2, 1).clone() + 1
    least = []
    for strength in (0.3, 1.0):
        config = dataclasses.replace(ONLY, crop_resize=0.4, strength=strength)
        out = Policy(config, tree([-1, 0]))(x, generator())[:, 0, :, 0, 0]
        kept = (out[:, 40] - out[:, 20]) / 20
        assert kept.max() <= 1 and kept.max() > 0.95
        least.append(float(kept.min()))
    assert least == pytest.approx([0.82, 0.4], abs=0.03)


def test_crop_resize_keeps_to_the_frames_that_hold_something() -> None:
    x = torch.zeros(50, 3, 40, 2, 1)
    x[:, :, :10] = 1.0
    out = Policy(dataclasses.replace(ONLY, crop_resize=0.1), tree([-1, 0]))(x, generator())
    assert torch.equal(out, torch.ones_like(out))
    enough = dataclasses.replace(ONLY, crop_resize=0.1, crop_resize_frames=64)
    y = noise(4, 3, 40, 2, 1)
    assert torch.equal(Policy(enough, tree([-1, 0]))(y, generator()), y)


def test_both_halves_make_the_whole() -> None:
    x = clips(8)
    config = dataclasses.replace(EVERYTHING, crop_resize=0.3, joint_mask=0.5, segment_mask=0.5, corrupt=0.3)
    policy, shared = Policy(config, NTU25), generator()
    halves = policy.in_space(policy.in_time(x, shared), shared)
    assert torch.equal(policy(x, generator()), halves)
    still = Policy(dataclasses.replace(config, strength=0.0), NTU25)
    assert torch.equal(still.in_space(still.in_time(x, shared), shared), x)


@pytest.mark.parametrize("config", [EVERYTHING, ALL_OF_SCDNET, ALL_OF_CMD], ids=["aimclr", "scdnet", "cmd"])
def test_one_draw_for_a_batch(config: AugmentConfig) -> None:
    """PSTL's public code: equal clips come out equal (noise apart, which is each clip's own)."""
    x = clips(1).expand(8, -1, -1, -1, -1)
    shared = dataclasses.replace(config, per_batch=True, noise=0.0)
    for seed in range(5):
        out = Policy(shared, NTU25)(x, generator(seed))
        assert torch.equal(out, out[:1].expand_as(out))
    assert not torch.equal(Policy(shared, NTU25)(x, generator()), Policy(shared, NTU25)(x, generator(1)))


@pytest.mark.parametrize("name", ["crop_resize", "corrupt_joints", "joint_mask_joints", "segment_mask_share"])
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_wrong_shares(name: str, value: float) -> None:
    with pytest.raises(InputError, match=f"augment.{name} is a share in .*{value}"):
        AugmentConfig(**{name: value})


@pytest.mark.parametrize("name", ["crop_resize_frames", "joint_mask_seeds"])
def test_wrong_counts(name: str) -> None:
    with pytest.raises(InputError, match=f"augment.{name} must be at least 1, got 0"):
        AugmentConfig(**{name: 0})


# --- every setting ----------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("name", ["flip", "noise_probability", "shear_probability", "corrupt", "segment_mask"])
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_wrong_probabilities(name: str, value: float) -> None:
    with pytest.raises(InputError, match=f"augment.{name} .*{value}"):
        AugmentConfig(**{name: value})
