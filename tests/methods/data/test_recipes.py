"""The published recipes: equal to the official code, equal to a slow recomputation, and no NaN whatever is missing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from dataset_helpers import STICK
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.data.layouts import CMU31, KINECT20, NTU25, OPENNI15, Layout, layout_from_parts
from methods.data.preprocess import RECIPES, STEPS, apply_steps, check_steps, parse_steps
from methods.data.preprocess.published import least_turn
from methods.data.skeletons import count_valid
from methods.errors import InputError

CROSSCLR_CLIPS, AGCN_CLIPS = range(6), (0, 1, 4, 5)


def run(clip: np.ndarray, names: Sequence[str], layout: Layout, frames: int) -> np.ndarray:
    """Apply steps to (t, M, V, C); returns (T, M, V, C)."""
    return apply_steps(clip, count_valid(clip, layout), layout, parse_steps(names), frames).transpose(1, 3, 2, 0)


def persons(frames: int, layout: Layout, count: int = 2, seed: int = 0) -> np.ndarray:
    """Walking, wobbling persons (t, M, V, 3); no joint at the origin."""
    rng = np.random.default_rng(seed)
    rest = rng.normal(size=(count, layout.num_joints, 3))
    walk = rng.normal(0, 0.3, (frames, count, 1, 3)).cumsum(0) + 3
    return (rest + walk + rng.normal(0, 0.05, (frames, count, layout.num_joints, 3))).astype(np.float32)


def with_gaps(layout: Layout, seed: int = 0) -> np.ndarray:
    """12 frames: person 0 misses 0, 1, 6 and 11, person 1 misses 4 and the last three; frame 11 is empty."""
    clip = persons(12, layout, seed=seed)
    clip[[0, 1, 6, 11], 0] = 0
    clip[[4, 9, 10, 11], 1] = 0
    return clip


# --- the official numbers -------------------------------------------------------------------------------------------


@pytest.fixture
def numbers(reference):
    with np.load(reference / "preprocess.npz", allow_pickle=False) as arrays:
        yield arrays


@pytest.mark.shared
@pytest.mark.parametrize("index", CROSSCLR_CLIPS)
def test_crossclr_gives_the_official_numbers(numbers, index: int) -> None:
    raw = numbers[f"input/raw{index}"].transpose(1, 3, 2, 0)
    assert raw.shape[0] == numbers["input/lengths"][index]
    valid = count_valid(raw, NTU25)
    assert valid == numbers[f"crs/length/{index}"]
    for length in (50, 64):
        out = apply_steps(raw, valid, NTU25, parse_steps(["crossclr_paper"]), length)
        np.testing.assert_allclose(out, numbers[f"crs/L{length}/{index}/position"], rtol=0, atol=1e-5)
        key = f"crs/L{length}/{index}/position_before_rotation"
        if key in numbers.files:
            before = apply_steps(raw, valid, NTU25, parse_steps(["trim_paper", "centre"]), length)
            np.testing.assert_allclose(before, numbers[key], rtol=0, atol=1e-5)
            if valid == len(raw):  # without gaps the clean recipe differs in the rotation alone
                clean = apply_steps(raw, valid, NTU25, parse_steps(["trim", "centre"]), length)
                np.testing.assert_allclose(clean, numbers[key], rtol=0, atol=1e-5)


@pytest.mark.shared
@pytest.mark.parametrize("index", AGCN_CLIPS)
def test_agcn_gives_scd_nets_numbers(numbers, index: int) -> None:
    """There a clip is first padded with zeros to 300 frames, and nothing is resized."""
    raw = numbers[f"input/raw{index}"].transpose(1, 3, 2, 0)
    whole = int(numbers["input/max_frame"])
    padded = np.concatenate((raw, np.zeros((whole - len(raw), *raw.shape[1:]), np.float32)))
    out = apply_steps(padded, len(raw), NTU25, parse_steps(["agcn_paper"]), whole)
    first = numbers[f"scd/{index}/out"]
    np.testing.assert_allclose(out[:, : first.shape[1]], first, rtol=0, atol=1e-5)
    np.testing.assert_allclose(out[:, -5:], numbers[f"scd/{index}/out_last5"], rtol=0, atol=1e-5)


# --- slow recomputations --------------------------------------------------------------------------------------------


def slow_resize(frames: list[np.ndarray], length: int) -> np.ndarray:
    """Each new frame lies at (i + 1/2) n / T - 1/2 of the old ones; beyond the ends the end is repeated."""
    out = []
    for i in range(length):
        at = min(max((i + 0.5) * len(frames) / length - 0.5, 0), len(frames) - 1)
        low = math.floor(at)
        high = min(low + 1, len(frames) - 1)
        out.append(frames[low] + (frames[high] - frames[low]) * (at - low))
    return np.array(out)


def slow_crossclr(clip: np.ndarray, layout: Layout, length: int) -> np.ndarray:
    left, right = layout.shoulders
    valid = sum(1 for frame in clip if frame[0].any())
    frames = [frame.astype(float) for frame in clip[:valid]]
    frames = [frame - frame[:, layout.centre][:, None] for frame in frames]
    out = slow_resize(frames, length)
    for person in range(out.shape[1]):
        lines = [frame[person, right] - frame[person, left] for frame in out]
        sign = -1 if sum(line[2] for line in lines) >= 0 else 1
        for t, line in enumerate(lines):
            a = sign * math.acos(line[0] / (math.hypot(line[0], line[2]) + 1e-4))
            turn = np.array([[math.cos(a), 0, -math.sin(a)], [0, 1, 0], [math.sin(a), 0, math.cos(a)]])
            for joint in range(out.shape[2]):
                out[t, person, joint] = turn @ out[t, person, joint]
    return out


def slow_turn(line: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The turn by quaternion: half the angle about the normal of both."""
    angle = math.acos(line @ target / np.linalg.norm(line))
    w = math.cos(angle / 2)
    x, y, z = np.cross(line, target) / np.linalg.norm(np.cross(line, target)) * math.sin(angle / 2)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def slow_agcn(clip: np.ndarray, layout: Layout, length: int) -> np.ndarray:
    bodies = []
    for person in np.moveaxis(clip.astype(float), 1, 0):
        frames = list(person)
        if not frames[0].any():
            kept = [frame for frame in frames if frame.any()]
            frames = kept + [np.zeros_like(frames[0])] * (len(frames) - len(kept))
        last = max((t for t, frame in enumerate(frames) if frame.any()), default=None)
        if last is not None:
            for t in range(last + 1, len(frames)):
                frames[t] = frames[t - last - 1]
        bodies.append(frames)
    low, high = layout.spine
    left, right = layout.shoulders
    origins = [frame[high].copy() for frame in bodies[0]]
    for frames in bodies:
        for t, frame in enumerate(frames):
            frames[t] = np.array([joint - origins[t] if joint.any() else joint for joint in frame])
    for (a, b), target in (((low, high), [0, 0, 1]), ((left, right), [1, 0, 0])):
        turn = slow_turn(bodies[0][0][b] - bodies[0][0][a], np.array(target, float))
        bodies = [[np.array([turn @ joint for joint in frame]) for frame in frames] for frames in bodies]
    return slow_resize(list(np.moveaxis(np.array(bodies), 0, 1)), length)


def slow_ctrgcn(clip: np.ndarray, layout: Layout, length: int) -> np.ndarray:
    frames = [frame.astype(float) for frame in clip if frame.any()]
    origin = next(frame[0][layout.spine[1]].copy() for frame in frames if frame[0].any())
    moved = [np.array([person - origin if person.any() else person for person in frame]) for frame in frames]
    return slow_resize(moved, length)


def slow_ucla(clip: np.ndarray, layout: Layout, length: int) -> np.ndarray:
    moved = clip.astype(float) - clip[0, 0, layout.spine[1]].astype(float)
    for axis in range(3):
        values = [value for frame in moved for person in frame for value in person[:, axis]]
        low, high = min(values), max(values)
        moved[..., axis] = (moved[..., axis] - low) / (high - low) * 2 - 1
    return np.array([moved[math.floor(i * (len(clip) - 1) / (length - 1) + 1e-9)] for i in range(length)])


SLOW = {"crossclr_paper": slow_crossclr, "agcn_paper": slow_agcn, "ctrgcn": slow_ctrgcn, "ucla": slow_ucla}


@pytest.mark.parametrize("length", [7, 12, 20])
@pytest.mark.parametrize("layout", [NTU25, KINECT20, CMU31], ids=lambda layout: layout.name)
@pytest.mark.parametrize("recipe", SLOW)
def test_recipes_by_a_slow_recomputation(recipe: str, layout: Layout, length: int) -> None:
    for seed in range(3):
        clip = persons(12, layout, count=1, seed=seed) if recipe == "ucla" else with_gaps(layout, seed)
        if recipe == "crossclr_paper":  # the resized gap of a person is nobody's line: its angle is the code's own
            clip[:, 1] = persons(12, layout, 2, seed + 9)[:, 1]
        expected = SLOW[recipe](clip, layout, length)
        np.testing.assert_allclose(run(clip, [recipe], layout, length), expected, rtol=0, atol=2e-5)


# --- what the clean recipes mend ------------------------------------------------------------------------------------


def test_agcn_shifts_persons_apart_and_the_clean_recipe_does_not() -> None:
    clip = persons(10, NTU25)
    clip[:4, 0] = 0
    clip[:, 1] = clip[:, 0] + np.float32(1)  # the second one does the same at the same time
    clip[:4, 1] = persons(4, NTU25, seed=3)[:, 1]
    gap = {name: run(clip, [name], NTU25, 6)[:, 1] - run(clip, [name], NTU25, 6)[:, 0] for name in RECIPES}
    assert np.ptp(gap["agcn"], axis=0).max() < 1e-5
    assert np.ptp(gap["agcn_paper"], axis=0).max() > 0.1


def test_agcn_leaves_the_spine_and_the_clean_recipe_stands_it_up() -> None:
    clip = persons(8, NTU25)
    lines = {}
    for name in ("agcn", "agcn_paper"):
        out = run(clip, [name], NTU25, 8)[0, 0]
        lines[name] = out[1] - out[0]
        shoulders = out[8] - out[4]
        off = shoulders[1] if name == "agcn" else np.abs(shoulders[1:]).max()
        assert off == pytest.approx(0, abs=1e-5)
        assert shoulders[0] > 0
    assert np.abs(lines["agcn"][:2]).max() < 1e-5
    assert np.abs(lines["agcn_paper"][:2]).max() > 0.05


def test_clean_crossclr_turns_whole_clips() -> None:
    out = run(persons(9, NTU25), ["crossclr"], NTU25, 9)
    line = (out[:, 0, 8] - out[:, 0, 4]).sum(axis=0)
    assert line[2] == pytest.approx(0, abs=1e-4)
    assert line[0] > 0


# --- single steps ---------------------------------------------------------------------------------------------------


def test_shifting_and_looping() -> None:
    clip = with_gaps(STICK)
    out = run(clip, ["shift_persons"], STICK, 12)
    np.testing.assert_array_equal(out[:8, 0], clip[[2, 3, 4, 5, 7, 8, 9, 10], 0])
    assert not out[8:, 0].any()
    np.testing.assert_array_equal(out[:, 1], clip[:, 1])  # there in the first frame: inner gaps stay
    out = run(clip, ["shift_persons", "loop_persons"], STICK, 12)
    np.testing.assert_array_equal(out[8:, 0], clip[[2, 3, 4, 5], 0])
    np.testing.assert_array_equal(out[9:, 1], clip[:3, 1])
    assert not out[4, 1].any()


def test_centre_spine_keeps_zero_joints_and_goes_by_person_0() -> None:
    clip = persons(4, NTU25)
    clip[1, 1, 7] = 0
    out = run(clip, ["centre_spine"], NTU25, 4)
    assert not out[1, 1, 7].any()
    assert not out[:, 0, 1].any()
    np.testing.assert_allclose(out[2, 1, 3], clip[2, 1, 3] - clip[2, 0, 1], atol=1e-6)


def test_least_turn_is_the_least() -> None:
    rng = np.random.default_rng(0)
    target = np.array([1.0, 0, 0])
    for line in rng.normal(size=(20, 3)):
        turn = least_turn(line, target)
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(turn) == pytest.approx(1)
        np.testing.assert_allclose(turn @ line, np.linalg.norm(line) * target, atol=1e-12)
        angle = math.acos(line[0] / np.linalg.norm(line))
        assert np.trace(turn) == pytest.approx(1 + 2 * math.cos(angle))  # of a turn by that angle and no more
    for line in ([0, 0, 0], [2, 0, 0], [-2, 0, 0]):
        np.testing.assert_array_equal(least_turn(np.array(line, float), target), np.eye(3))


def test_minmax_and_sample() -> None:
    clip = persons(5, STICK)
    clip[..., 1] = 3  # flat
    clip[2, 1] = 0
    out = run(clip, ["minmax"], STICK, 5)
    there = out[np.ones((5, 2), bool) & (clip != 0).any(axis=(2, 3))]
    np.testing.assert_allclose(there.min(axis=(0, 1)), [-1, 0, -1], atol=1e-6)
    np.testing.assert_allclose(there.max(axis=(0, 1)), [1, 0, 1], atol=1e-6)
    assert not out[2, 1].any()
    np.testing.assert_array_equal(run(clip, ["sample"], STICK, 3), clip[[0, 2, 4]])
    np.testing.assert_array_equal(run(clip, ["sample"], STICK, 8), clip[[0, 0, 1, 1, 2, 2, 3, 4]])
    np.testing.assert_array_equal(run(clip, ["sample"], STICK, 1), clip[[0]])


# --- whatever is missing --------------------------------------------------------------------------------------------

BARE = layout_from_parts("bare", ("a", "b", "c"), (-1, 0, 1))
LAYOUTS = (NTU25, KINECT20, OPENNI15, STICK, BARE)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_no_pattern_of_absence_makes_a_nan(data: st.DataObject) -> None:
    """Persons and joints come and go, lines have no length, a clip is one frame: finite, and nobody appears."""
    layout = data.draw(st.sampled_from(LAYOUTS))
    frames, count = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 3))
    recipe = data.draw(st.sampled_from([*([name] for name in RECIPES), *([name] for name in STEPS)]))
    try:
        check_steps(parse_steps(recipe), layout, 6, 3)
    except InputError:
        return
    clip = persons(frames, layout, count, seed=data.draw(st.integers(0, 5)))
    there = np.array(data.draw(st.lists(st.booleans(), min_size=frames * count, max_size=frames * count)))
    clip[~there.reshape(frames, count)] = 0
    for joint in data.draw(st.lists(st.integers(0, layout.num_joints - 1), max_size=4)):
        clip[:, :, joint] = data.draw(st.sampled_from((0.0, 1.0)))
    if data.draw(st.booleans()):
        clip[...] = clip[:, :, :1]  # every person in one point
    with np.errstate(all="raise", under="ignore"):
        out = run(clip, recipe, layout, data.draw(st.integers(1, 9)))
    assert np.isfinite(out).all()
    assert out.shape[1:] == clip.shape[1:]
    absent = ~(clip != 0).any(axis=(0, 2, 3))
    assert not out[:, absent].any()


@pytest.mark.parametrize("name", [*RECIPES, *STEPS])
def test_empty_clips_stay_empty(name: str) -> None:
    for frames in (1, 5):
        assert not run(np.zeros((frames, 2, 25, 3), np.float32), [name], NTU25, 4).any()
