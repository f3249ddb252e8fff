"""Two persons out of the bodies of a recording: CTR-GCN's rules against a plain second writing of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from methods.data.reading.actors import ALL_SHORT, GAPS, MOST_WIDE, TWICE, as_listed, by_id
from methods.data.reading.skeleton_text import Bodies

V = 4  # joints: the rules do not care how many

Listing = list[list[tuple[str, np.ndarray]]]  # for each frame (ID, joints (V, 3))


def bodies_of(listing: Listing) -> Bodies:
    flat = [(t, name, joints) for t, listed in enumerate(listing) for name, joints in listed]
    at = np.array([t for t, _, _ in flat], dtype=np.int64)
    joints = np.array([j for _, _, j in flat], dtype=np.float32).reshape(-1, V, 3)
    return Bodies(len(listing), at, tuple(name for _, name, _ in flat), joints)


# --- the same rules, frame by frame in plain Python -------------------------------------------------------------------


def slow_motion(frames: list[np.ndarray]) -> float:
    total = 0.0
    for axis in range(3):
        values = [float(joint[axis]) for joints in frames for joint in joints]
        mean = math.fsum(values) / len(values)
        total += math.fsum((value - mean) ** 2 for value in values) / len(values)
    return total


def slow_narrow(joints: np.ndarray) -> bool:
    xs, ys = [float(j[0]) for j in joints], [float(j[1]) for j in joints]
    return float(np.float32(max(xs) - min(xs))) <= 0.8 * float(np.float32(max(ys) - min(ys)))


def slow_tracks(listing: Listing) -> dict[str, dict]:
    """get_raw_skes_data.py: frames without a body do not count, a track runs on from its first frame."""
    tracks: dict[str, dict] = {}
    for valid, listed in enumerate(listed for listed in listing if listed):
        here = set()
        for name, joints in listed:
            if name in here:
                continue
            here.add(name)
            if name not in tracks:
                tracks[name] = {"joints": [joints], "interval": [valid]}
            else:
                tracks[name]["joints"].append(joints)
                tracks[name]["interval"].append(tracks[name]["interval"][-1] + 1)
    for track in tracks.values():
        track["motion"] = slow_motion(track["joints"])
    return tracks


def slow_denoised(tracks: dict[str, dict]) -> dict[str, dict]:
    if len(tracks) > 1:
        tracks = {name: track for name, track in tracks.items() if len(track["interval"]) > 11} or dict(tracks)
    for name in list(tracks):
        if len(tracks) == 1:
            break
        good = [joints for joints in tracks[name]["joints"] if slow_narrow(joints)]
        noise = len(tracks[name]["joints"]) - len(good)
        if noise and noise / len(tracks[name]["joints"]) >= 0.69754:
            del tracks[name]
        elif noise:
            tracks[name]["motion"] = min(tracks[name]["motion"], slow_motion(good))
    return tracks


def slow_by_id(listing: Listing) -> list[list[np.ndarray]]:
    """get_raw_denoised_data.py: frames of two actors each, (V, 3)."""
    order = sorted(slow_denoised(slow_tracks(listing)).values(), key=lambda track: track["motion"], reverse=True)
    frames = sum(1 for listed in listing if listed)
    actors = [[np.zeros((V, 3), np.float32) for _ in range(2)] for _ in range(frames)]

    def put(track: dict, actor: int) -> None:
        for frame, joints in zip(track["interval"], track["joints"], strict=True):
            actors[frame][actor] = joints

    if order:
        put(order[0], 0)
        start1, end1 = order[0]["interval"][0], order[0]["interval"][-1]
        start2, end2 = 0, 0
    for track in order[1:]:
        start, end = track["interval"][0], track["interval"][-1]
        if min(end1, end) - max(start1, start) <= 0:
            put(track, 0)
            start1, end1 = min(start1, start), max(end1, end)
        elif min(end2, end) - max(start2, start) <= 0:
            put(track, 1)
            start2, end2 = min(start2, start), max(end2, end)
    return [pair for pair in actors if pair[0].any() or pair[1].any()]


def slow_as_listed(listing: Listing) -> list[list[np.ndarray]]:
    nobody = np.zeros((V, 3), np.float32)
    return [[listed[m][1] if m < len(listed) else nobody for m in range(2)] for listed in listing]


# --- bodies -----------------------------------------------------------------------------------------------------------


@st.composite
def listings(draw: DrawFn) -> Listing:
    """Up to six bodies that come and go: short and long, wide and narrow, still and moving, with gaps."""
    frames = draw(st.integers(0, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    listing: Listing = [[] for _ in range(frames)]
    for number in range(draw(st.integers(0, 6)) if frames else 0):
        start = draw(st.integers(0, frames - 1))
        length = draw(st.sampled_from([1, 5, 11, 12, 13, 20, 40]))
        gap = draw(st.sampled_from([0, 0, 1, 6]))  # so many frames lost in the middle
        wide = draw(st.sampled_from([0.0, 0.0, 0.5, 0.69, 0.7, 1.0]))  # share of wide frames
        size = draw(st.sampled_from([0.0, 0.05, 0.3, 1.0]))
        for t in range(start, min(frames, start + length)):
            if start + length // 2 <= t < start + length // 2 + gap:
                continue
            shape = [1.5, 0.5, 0.2] if rng.random() < wide else [0.2, 1.0, 0.2]
            joints = rng.normal(0, 1, (V, 3)) * shape + rng.normal(0, size, 3) + [0, 0, 3]
            listing[t].append((f"id{number}", joints.astype(np.float32)))
    for listed in listing:
        rng.shuffle(listed)
    return listing


@settings(max_examples=150, deadline=None)
@given(listings())
def test_by_id_is_what_the_plain_writing_gives(listing: Listing) -> None:
    found, _ = by_id(bodies_of(listing))
    wanted = slow_by_id(listing)
    assert found.dtype == np.float32 and found.shape == (len(wanted), 2, V, 3)
    for t, pair in enumerate(wanted):
        np.testing.assert_array_equal(found[t], np.stack(pair), err_msg=f"frame {t}")


@settings(max_examples=40, deadline=None)
@given(listings())
def test_as_listed_is_what_the_plain_writing_gives(listing: Listing) -> None:
    found = as_listed(bodies_of(listing))
    assert found.shape == (len(listing), 2, V, 3) and found.dtype == np.float32
    for t, pair in enumerate(slow_as_listed(listing)):
        np.testing.assert_array_equal(found[t], np.stack(pair))


# --- single rules -----------------------------------------------------------------------------------------------------


def person(frames: int, x: float = 0.0, amplitude: float = 0.1, wide: int = 0, seed: int = 0) -> np.ndarray:
    """(frames, V, 3); the first ``wide`` frames lie on the floor."""
    rng = np.random.default_rng(seed)
    standing = np.array([[0, 1, 3], [0.1, 0.5, 3], [-0.1, 0, 3], [0.1, -0.5, 3]])
    lying = standing[:, [1, 0, 2]]
    move = rng.normal(0, amplitude, (frames, 1, 3))
    body = np.stack([lying if t < wide else standing for t in range(frames)])
    return (body + move + [x, 0, 0]).astype(np.float32)


def listing_of(frames: int, **tracks: tuple[int, np.ndarray]) -> Listing:
    """Each track as (first frame, joints (n, V, 3)), in every frame in the order given."""
    listing: Listing = [[] for _ in range(frames)]
    for name, (start, joints) in tracks.items():
        for t, body in enumerate(joints):
            listing[start + t].append((name, body))
    return listing


def test_the_livelier_one_is_actor_1_whatever_the_order() -> None:
    calm, lively = person(30, 0, 0.05), person(30, 1, 0.4, seed=1)
    for tracks in ({"a": (0, calm), "b": (0, lively)}, {"b": (0, lively), "a": (0, calm)}):
        found, mended = by_id(bodies_of(listing_of(30, **tracks)))
        np.testing.assert_array_equal(found[:, 0], lively)
        np.testing.assert_array_equal(found[:, 1], calm)
        assert mended == ""


@pytest.mark.parametrize(("length", "there"), [(11, False), (12, True)])
def test_tracks_of_eleven_frames_are_noise(length: int, there: bool) -> None:
    found, mended = by_id(bodies_of(listing_of(30, a=(0, person(30)), b=(3, person(length, 1, 0.01)))))
    assert found[:, 1].any() == there and mended == ""


def test_a_short_clip_keeps_its_only_bodies() -> None:
    found, mended = by_id(bodies_of(listing_of(9, a=(0, person(9, 0, 0.5)), b=(0, person(9, 1, 0.1)))))
    assert mended == ALL_SHORT and found.any(axis=(2, 3)).all()
    alone, mended = by_id(bodies_of(listing_of(9, a=(0, person(9)))))
    assert mended == "" and np.array_equal(alone[:, 0], person(9))


@pytest.mark.parametrize("wide", [69, 70])
def test_wide_tracks_are_noise_from_the_threshold_on(wide: int) -> None:
    assert 69 / 100 < MOST_WIDE <= 70 / 100
    found, _ = by_id(bodies_of(listing_of(100, chair=(0, person(100, 1, 2.0, wide)), a=(0, person(100)))))
    assert found[:, 1].any() == (wide == 69)


def test_the_last_wide_track_stays() -> None:
    """The first that appeared goes, the other one is all that is left."""
    first, second = person(20, 0, 0.1, wide=20), person(20, 1, 0.1, wide=20)
    found, _ = by_id(bodies_of(listing_of(20, a=(0, first), b=(0, second))))
    np.testing.assert_array_equal(found[:, 0], second)
    assert not found[:, 1].any()


def test_motion_is_measured_without_wide_frames() -> None:
    """Somebody who falls for half of the time jumps about then, and is calm otherwise."""
    falls = person(40, 0, 0.01, wide=20)
    falls[:20] += np.random.default_rng(3).normal(0, 2, (20, 1, 3)).astype(np.float32)
    steady = person(40, 1, 0.3, seed=5)
    found, _ = by_id(bodies_of(listing_of(40, falls=(0, falls), steady=(0, steady))))
    np.testing.assert_array_equal(found[:, 0], steady)


def test_a_person_found_again_under_a_new_id_stays_the_same_actor() -> None:
    before, after, other = person(20, 0, 0.5), person(15, 0, 0.4, seed=1), person(36, 1, 0.05)
    found, mended = by_id(bodies_of(listing_of(36, a=(0, before), b=(21, after), c=(0, other))))
    np.testing.assert_array_equal(found[:20, 0], before)
    np.testing.assert_array_equal(found[21:, 0], after)
    assert not found[20, 0].any() and np.array_equal(found[:, 1], other) and mended == ""


def test_one_frame_may_be_shared_and_is_overwritten() -> None:
    first, second = person(20, 0, 0.5), person(20, 0, 0.3, seed=1)
    one, _ = by_id(bodies_of(listing_of(39, a=(0, first), b=(19, second))))
    assert not one[:, 1].any() and np.array_equal(one[19, 0], second[0])
    two, _ = by_id(bodies_of(listing_of(38, a=(0, first), b=(18, second))))
    np.testing.assert_array_equal(two[18:, 1], second)


def test_a_third_body_is_dropped() -> None:
    tracks = {name: (0, person(20, x, size, seed=x)) for name, x, size in (("a", 0, 0.5), ("b", 1, 0.3), ("c", 2, 0.1))}
    found, _ = by_id(bodies_of(listing_of(20, **tracks)))
    np.testing.assert_array_equal(found, np.stack([tracks["a"][1], tracks["b"][1]], axis=1))


def test_actor_2_counts_from_the_first_frame_on() -> None:
    """Whoever was there before actor 2 came is dropped too: that is how CTR-GCN's code begins."""
    late, early = (25, person(15, 1, 0.3)), (3, person(15, 2, 0.1))
    found, _ = by_id(bodies_of(listing_of(40, a=(0, person(40, 0, 0.9)), b=late, c=early)))
    assert np.flatnonzero(found[:, 1].any(axis=(1, 2))).tolist() == list(range(25, 40))


def test_frames_without_anybody_are_dropped_by_id_and_kept_as_listed() -> None:
    found, mended = by_id(bodies_of(listing_of(30, a=(3, person(11, seed=1)), b=(15, person(12, 0, 0.3)))))
    assert found.shape[0] == 12 and mended == ""  # a is noise, and its frames go with it
    listing = listing_of(30, a=(3, person(20)))
    listing[7] = []
    found, mended = by_id(bodies_of(listing))
    np.testing.assert_array_equal(found[:, 0], np.delete(person(20), 4, axis=0))
    listed = as_listed(bodies_of(listing))
    assert len(listed) == 30 and np.flatnonzero(listed.any(axis=(1, 2, 3))).tolist() == [*range(3, 7), *range(8, 23)]
    assert mended == ""


def test_a_body_that_comes_back_moves_up_and_says_so() -> None:
    other, gone = person(30, 1, 0.5), person(30)
    listing = listing_of(30, a=(0, gone), b=(0, other))
    for t in (10, 11, 12):
        listing[t] = listing[t][1:]
    found, mended = by_id(bodies_of(listing))
    assert mended == GAPS
    np.testing.assert_array_equal(found[:27, 1], np.delete(gone, [10, 11, 12], axis=0))
    np.testing.assert_array_equal(found[:, 0], other)


def test_a_body_listed_twice_in_a_frame_counts_once() -> None:
    listing = listing_of(20, a=(0, person(20)))
    listing[5] = [*listing[5], ("a", person(1, 3)[0])]
    found, mended = by_id(bodies_of(listing))
    assert mended == TWICE
    np.testing.assert_array_equal(found[:, 0], person(20))


def test_bodies_may_swap_as_listed_and_do_not_by_id() -> None:
    left, right = person(20, 0, 0.5), person(20, 1)
    listing = [[("a", left[t]), ("b", right[t])][:: 1 if t < 10 else -1] for t in range(20)]
    listed, (followed, _) = as_listed(bodies_of(listing)), by_id(bodies_of(listing))
    np.testing.assert_array_equal(listed[10:, 0], right[10:])
    np.testing.assert_array_equal(followed[:, 0], left)


def test_nobody_at_all() -> None:
    for listing in ([], [[], []], [[("a", np.zeros((V, 3), np.float32))]]):
        found, mended = by_id(bodies_of(listing))
        assert found.shape == (0, 2, V, 3) and mended == ""
        assert as_listed(bodies_of(listing)).shape == (len(listing), 2, V, 3)
