"""Generated skeletons: what they promise, and that the frozen default has not moved."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from methods.data.layouts import NTU25
from methods.data.skeletons import SkeletonDataset
from methods.data.synthetic import (
    ACTIONS,
    QUICKSTART,
    SyntheticConfig,
    generate_clips,
    held_out_subjects,
    write_synthetic,
)
from methods.data.synthetic.movements import TWO_PERSON, perform
from methods.data.synthetic.puppet import Array, draw_style
from methods.errors import InputError

TINY = SyntheticConfig(clips_per_cell=1, subjects=2, cameras=2, min_frames=20, max_frames=40)
CLEAN = replace(TINY, noise=0.0, dropout=0.0)
SECONDS = np.arange(70) / 20.0
SPINE, HEAD, HIP_L, KNEE_L, ANKLE_L = 20, 3, 12, 13, 14
HANDS = {"left": 7, "right": 11}


def acted(action: str, seed: int = 0, **style: object) -> list[Array]:
    rng = np.random.default_rng(seed)
    return perform(action, rng, replace(draw_style(rng), **style), SECONDS)  # type: ignore[arg-type]


def test_the_frozen_output_has_not_changed() -> None:
    """Whoever changes this line has made another data set: results of before and after no longer compare."""
    digest = hashlib.sha256()
    for clip in generate_clips(replace(TINY, seed=QUICKSTART.seed)):
        digest.update(np.round(clip.frames.astype(np.float64) * 1000).astype("<i4").tobytes())
    assert digest.hexdigest()[:16] == "ec3b75b6898c7458"


def test_the_frozen_default_is_what_it_was() -> None:
    assert SyntheticConfig(
        clips_per_cell=2, subjects=10, cameras=3, actions=ACTIONS, noise=0.012, dropout=0.02, min_frames=30,
        max_frames=90, fps=20.0, seed=QUICKSTART.seed,
    ) == QUICKSTART  # fmt: skip
    assert QUICKSTART.total == 900
    assert len(ACTIONS) == 15
    assert len(TWO_PERSON) == 3


def test_the_default_has_left_handers_on_both_sides_of_xsub() -> None:
    styles = [draw_style(np.random.default_rng([QUICKSTART.seed, 1, s])) for s in range(1, QUICKSTART.subjects + 1)]
    tested = held_out_subjects(QUICKSTART.subjects)
    left = {s for s, style in enumerate(styles, start=1) if style.left_handed}
    assert left & set(tested)
    assert left - set(tested)
    assert len(left) < QUICKSTART.subjects / 2


def test_shapes_lengths_and_second_bodies() -> None:
    clips = list(generate_clips(TINY))
    assert len(clips) == TINY.total
    assert len({len(clip.frames) for clip in clips}) > 5
    assert len({clip.name for clip in clips}) == len(clips)
    for clip in clips:
        assert clip.frames.dtype == np.float32
        assert clip.frames.shape[1:] == (2, 25, 3)
        assert TINY.min_frames <= len(clip.frames) <= TINY.max_frames
        assert np.isfinite(clip.frames).all()
        assert clip.frames[:, 0].any()
        assert clip.frames[:, 1].any() == (ACTIONS[clip.label] in TWO_PERSON)


def test_same_seed_same_clips_other_seed_other_clips() -> None:
    first, again, other = (next(generate_clips(cfg)).frames for cfg in (TINY, TINY, replace(TINY, seed=1)))
    np.testing.assert_array_equal(first, again)
    assert first.shape != other.shape or np.abs(first - other).max() > 0.01


def test_a_smaller_configuration_is_a_part_of_a_larger_one() -> None:
    whole = {clip.name: clip.frames for clip in generate_clips(TINY)}
    part = list(generate_clips(replace(TINY, actions=("hug", "jump"))))
    assert [clip.label for clip in part[:2]] == [0, 1]
    for clip in part:
        np.testing.assert_array_equal(clip.frames, whole[clip.name])


def test_bones_are_rigid_and_subjects_differ() -> None:
    sizes: dict[int, list[Array]] = {1: [], 2: []}
    children, parents = np.array(NTU25.bones).T
    for clip in generate_clips(CLEAN):
        body = clip.frames[:, 0].astype(np.float64)
        lengths = np.linalg.norm(body[:, children] - body[:, parents], axis=-1)
        np.testing.assert_allclose(lengths, lengths[:1].repeat(len(lengths), 0), atol=1e-5)
        sizes[clip.subject].append(lengths[0])
    for rows in sizes.values():
        np.testing.assert_allclose(rows, rows[:1] * len(rows), atol=1e-5)
    assert np.abs(sizes[1][0] - sizes[2][0]).max() > 0.01


def test_camera_space_has_y_up_and_bodies_in_front_of_the_camera() -> None:
    for clip in generate_clips(CLEAN):
        people = clip.frames[:, : 2 if ACTIONS[clip.label] in TWO_PERSON else 1]
        assert people[..., 2].min() > 0.3
        assert (people[0, :, HEAD, 1] - people[0, :, [15, 19], 1] > 0.7).all()


@pytest.mark.parametrize("action", ACTIONS)
def test_feet_stand_on_the_floor(action: str) -> None:
    for seed in range(3):
        for body in acted(action, seed):
            lowest = body[..., (14, 15, 18, 19), 1].min(axis=1)
            if action == "jump":
                assert lowest.max() > 0.08
                assert lowest.min() == pytest.approx(0.0, abs=1e-9)
            else:
                np.testing.assert_allclose(lowest, 0.0, atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_knees_bend_forward(seed: int) -> None:
    body = acted("squat", seed)[0]
    lowest = int(body[:, 0, 1].argmin())
    hip, knee, ankle = body[lowest, [HIP_L, KNEE_L, ANKLE_L]]
    assert body[lowest, 0, 1] < 0.85 * body[0, 0, 1]
    assert knee[2] > 0.5 * (hip[2] + ankle[2]) + 0.1


@pytest.mark.parametrize(
    ("action", "joint", "least"),
    [("raise_arms", 11, 0.5), ("wave", 11, 0.4), ("kick", 19, 0.15), ("bow", 3, 0.1), ("sit_down", 0, 0.15)],
)
def test_a_movement_moves_what_it_should(action: str, joint: int, least: float) -> None:
    for seed in range(4):
        height = acted(action, seed, left_handed=False)[0][:, :, 1]
        sides = [joint, {11: 7, 19: 15}.get(joint, joint)]  # one clip in ten uses the other hand or foot
        assert max(np.ptp(height[:, side]) for side in sides) > least


def test_left_handers_wave_with_the_left() -> None:
    high = {}
    for left in (False, True):
        votes = [acted("wave", seed, left_handed=left)[0].max(axis=0)[:, 1] for seed in range(12)]
        high[left] = sum(bool(y[HANDS["left"]] > y[HANDS["right"]]) for y in votes)
    assert high[True] >= 8
    assert high[False] <= 4


def test_two_people_face_each_other_and_meet() -> None:
    for seed in range(5):
        first, second = acted("handshake", seed)
        reach = np.linalg.norm(first[:, HANDS["right"]] - second[:, HANDS["right"]], axis=-1)
        assert reach.min() < 0.2
        first, second = acted("hug", seed)
        apart = np.linalg.norm(first[:, SPINE] - second[:, SPINE], axis=-1)
        assert apart.min() < 0.6
        assert apart.max() > apart.min() + 0.3
        toes = (
            (first[0, [15, 19]] - first[0, [14, 18]])[:, 2].mean(),
            (second[0, [15, 19]] - second[0, [14, 18]])[:, 2].mean(),
        )
        assert np.sign(toes[0]) == -np.sign(toes[1])


def test_noise_and_dropouts_can_be_told_apart() -> None:
    def frozen(cfg: SyntheticConfig) -> float:
        still = [(np.diff(c.frames[:, 0], axis=0) == 0).all(axis=-1).mean() for c in generate_clips(cfg)]
        return float(np.mean(still))

    assert frozen(replace(CLEAN, noise=0.01)) == 0.0
    assert frozen(replace(CLEAN, noise=0.01, dropout=0.2)) > 0.05
    pairs = zip(generate_clips(CLEAN), generate_clips(replace(CLEAN, noise=0.02)), strict=True)
    spread = np.mean([np.square(a.frames[:, 0] - b.frames[:, 0]).mean(axis=(0, 2)) for a, b in pairs], axis=0) ** 0.5
    assert 0.015 < spread.mean() < 0.05
    assert spread[[21, 23]].mean() > 2 * spread[[0, 1, 20]].mean()


@pytest.mark.parametrize("subjects", [2, 3, 5, 10, 11])
def test_held_out_subjects_are_two_in_five(subjects: int) -> None:
    tested = held_out_subjects(subjects)
    assert 0 < len(tested) < subjects
    assert abs(len(tested) - 0.4 * subjects) < 1
    assert set(tested) <= set(range(1, subjects + 1))


def test_what_is_written_is_what_was_generated(tmp_path: Path) -> None:
    cfg = replace(TINY, subjects=3, actions=("walk", "push"))
    data = write_synthetic(tmp_path / "toy", cfg)
    assert isinstance(data, SkeletonDataset)
    assert len(data) == cfg.total
    assert data.layout == NTU25
    for index, clip in enumerate(generate_clips(cfg)):
        np.testing.assert_array_equal(data.clip(index), clip.frames)
        assert (int(data.labels[index]), int(data.cameras[index])) == (clip.label, clip.camera)
    assert data.fingerprint == write_synthetic(tmp_path / "again", cfg).fingerprint
    assert data.fingerprint != write_synthetic(tmp_path / "other", replace(cfg, seed=1)).fingerprint


def test_every_class_is_on_both_sides_of_every_split(tmp_path: Path) -> None:
    data = write_synthetic(tmp_path / "toy", replace(TINY, subjects=3))
    people = np.asarray(data.subjects).reshape(len(data), -1)[:, 0]
    assert set(data.splits) == {"xsub", "xview"}
    for table in data.splits.values():
        for side in (1, 2):
            assert set(data.labels[table == side].tolist()) == set(range(len(ACTIONS)))
    xsub = data.splits["xsub"]
    assert not set(people[xsub == 1].tolist()) & set(people[xsub == 2].tolist())
    assert set(data.cameras[data.splits["xview"] == 2].tolist()) == {1}


def test_one_camera_has_no_cross_view_split(tmp_path: Path) -> None:
    data = write_synthetic(tmp_path / "toy", replace(TINY, cameras=1, actions=("bow", "clap")))
    assert set(data.splits) == {"xsub"}


def test_all_faults_are_named_at_once_with_their_values() -> None:
    with pytest.raises(InputError) as caught:
        SyntheticConfig(subjects=1, cameras=0, noise=float("nan"), actions=("walk", "clapp"), min_frames=95, fps=0.0)
    text = str(caught.value)
    assert len(caught.value.faults) == 6
    for words in ("subjects: want 2 to", "got 1", "cameras", "noise", "did you mean 'clap'", "95", "fps"):
        assert words in text


@pytest.mark.parametrize(
    "wrong", [{"subjects": 2.5}, {"clips_per_cell": True}, {"actions": ("walk",)}, {"actions": ("walk", "walk", "bow")},
              {"dropout": 0.95}, {"seed": -1}, {"max_frames": 20}, {"noise": "loud"}],
)  # fmt: skip
def test_a_wrong_value_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        SyntheticConfig(**wrong)  # type: ignore[arg-type]
