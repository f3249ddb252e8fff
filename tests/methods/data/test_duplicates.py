from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from dataset_helpers import STICK, write
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.data import SkeletonDataset, open_dataset
from methods.data.inspection.copies import CROWD, CUT, TOLERANCE
from methods.data.inspection.duplicates import (
    Duplicates,
    clean_split,
    clean_splits,
    find_duplicates,
    label_conflicts,
    pairs_across,
)
from methods.errors import InputError

REST = np.array([[0, 1, 0], [0, 1.5, 0], [-0.2, 1.4, 0], [0.2, 1.4, 0], [0, 1.8, 0]])


def walk(seed: int, frames: int = 24, persons: int = 1, channels: int = 3) -> np.ndarray:
    """A body that walks and bends smoothly about, in metres."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(0, 0.02, (frames, persons, 5, channels))
    way = np.cumsum(np.cumsum(steps, axis=0), axis=0) * 0.3
    return (way + REST[:, :channels] + rng.normal(0, 0.5, (persons, 1, channels))).astype(np.float32)


def dataset(path: Path, clips: Sequence[np.ndarray], labels: Sequence[int] | None = None) -> SkeletonDataset:
    return write(path, clips, labels or [0] * len(clips), [0] * len(clips), classes=3)


def near_of(found: Duplicates) -> set[tuple[int, int]]:
    return {(a, b) for a, b, _ in found.near}


def slow_distance(a: np.ndarray, b: np.ndarray, layout=STICK) -> float:
    """The criterion as its sentence says it, one number at a time."""
    best = math.inf

    def point(clip: np.ndarray) -> list[np.ndarray]:
        joints = [frame[m, v] for frame in clip for m in range(frame.shape[0]) if frame[m].any() for v in range(5)]
        centre = sum(np.asarray(joint, dtype=float) for joint in joints) / len(joints)
        sums = [
            sum(math.dist(frame[m, child], frame[m, parent]) for child, parent in layout.bones)
            for frame in clip
            for m in range(frame.shape[0])
            if frame[m].any()
        ]
        size = sum(sums) / len(sums) or 1.0
        return [
            (frame[m, v] - centre) / size if frame[m].any() else np.zeros(frame.shape[-1])
            for frame in clip
            for m in range(frame.shape[0])
            for v in range(5)
        ]

    def versions(clip: np.ndarray) -> list[np.ndarray]:
        clip = np.array([frame for frame in clip if frame.any()])
        cuts = [(p, q) for p in range(CUT + 1) for q in range(CUT + 1) if p + q <= len(clip) / 4]
        return [clip[p : len(clip) - q] for p, q in cuts]

    for one in versions(a):
        for two in versions(b):
            if len(one) == len(two):
                squares = [float(((x - y) ** 2).sum()) for x, y in zip(point(one), point(two), strict=True)]
                best = min(best, math.sqrt(sum(squares) / (len(one) * 5)))
    return best


def changed(clip: np.ndarray, how: str) -> np.ndarray:
    there = (clip != 0).any(axis=(2, 3))[..., None, None]
    return {
        "float16": lambda: clip.astype(np.float16),
        "millimetre": lambda: np.round(clip, 3),
        "scaled": lambda: np.round(clip * 1000),
        "moved": lambda: np.where(there, clip + np.float32(0.001), clip),
        "far": lambda: np.where(there, clip + np.float32(2.5), clip),
        "without the first": lambda: clip[1:],
        "without the last two": lambda: clip[:-2],
        "without two and two": lambda: clip[2:-2],
        "after nobody": lambda: np.concatenate([np.zeros_like(clip[:3]), clip]),
    }[how]().astype(np.float32)


CHANGES = ("float16", "millimetre", "scaled", "moved", "far", "without the first",
           "without the last two", "without two and two", "after nobody")  # fmt: skip


@pytest.mark.parametrize("how", CHANGES)
@pytest.mark.parametrize(("persons", "channels"), [(1, 3), (2, 3), (1, 2)])
def test_a_copy_is_found_however_it_was_saved(tmp_path: Path, how: str, persons: int, channels: int) -> None:
    clips = [walk(seed, 20 + seed % 5, persons, channels) for seed in range(12)]
    if persons == 2:
        clips[3][5:, 1] = 0  # alone for a while
    clips.append(changed(clips[3], how))
    found = find_duplicates(dataset(tmp_path / "set", clips))
    assert found.identical == ()
    assert near_of(found) == {(3, 12)}
    assert found.near[0][2] <= TOLERANCE


def test_different_clips_are_not_copies(tmp_path: Path) -> None:
    one = walk(1)
    noisy = one + np.random.default_rng(0).normal(0, 0.015, one.shape)  # a sensor's noise: a second take, not a copy
    late = np.concatenate([walk(2)[:8], walk(2)[8:] + np.linspace(0, 0.3, 16)[:, None, None, None]])
    short = np.delete(one, [5, 10, 15, 17], axis=0)  # frames lost in the middle: not covered, and said so
    found = find_duplicates(dataset(tmp_path / "set", [one, noisy, walk(2), late, short]))
    assert (found.identical, found.near, found.crowds) == ((), (), ())


def test_bytes_are_grouped_and_stand_once_in_pairs(tmp_path: Path) -> None:
    clips = [walk(0), walk(1), walk(0), walk(0), np.round(walk(0), 3)]
    found = find_duplicates(dataset(tmp_path / "set", clips))
    assert found.identical == ((0, 2, 3),)
    assert near_of(found) == {(0, 4)}
    assert found.firsts().tolist() == [0, 1, 0, 0, 4]


def test_one_frame_nobody_and_a_point(tmp_path: Path) -> None:
    pose = walk(3)[:1]
    empty = np.zeros_like(walk(0))
    point = np.full_like(walk(0), 0.7)  # all joints at one place: a body without size
    clips = [walk(0), pose, pose + np.float32(0.5), empty, empty[:7], walk(4)[:1], point, point + np.float32(1), empty]
    found = find_duplicates(dataset(tmp_path / "set", clips))
    assert near_of(found) == {(1, 2), (3, 4), (6, 7)}
    assert found.identical == ((3, 8),)


def test_a_dataset_of_one_clip(tmp_path: Path) -> None:
    assert find_duplicates(dataset(tmp_path / "set", [walk(0)])) == Duplicates(1, TOLERANCE)


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_the_search_finds_what_comparing_all_finds(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject):
    """Whatever the tolerance: pairs and distances are those of the slow definition, none more and none less."""
    persons = data.draw(st.sampled_from([1, 2]))
    seeds = data.draw(st.lists(st.integers(0, 3), min_size=2, max_size=6))
    clips = []
    for seed in seeds:
        clip = walk(seed, data.draw(st.integers(8, 14)), persons)
        clip = clip[data.draw(st.integers(0, 2)) :] * np.float32(data.draw(st.sampled_from([1, 3])))
        noise = np.random.default_rng(len(clips)).normal(0, data.draw(st.sampled_from([0, 0.002, 0.02])), clip.shape)
        clips.append((clip + noise).astype(np.float32))
    tolerance = data.draw(st.sampled_from([0.0005, TOLERANCE, 0.01, 0.05]))
    saved = dataset(tmp_path_factory.mktemp("d") / "set", clips)
    found = find_duplicates(saved, tolerance)
    firsts = found.firsts()
    slow = {
        (i, j): slow_distance(clips[i], clips[j])
        for j in range(len(clips))
        for i in range(j)
        if firsts[i] == i and firsts[j] == j
    }
    near = {(a, b): distance for a, b, distance in found.near}
    assert set(near) >= {pair for pair, distance in slow.items() if distance < tolerance - 1e-6}
    assert all(near[pair] == pytest.approx(slow[pair], abs=1e-6) for pair in near)
    assert all(distance <= tolerance for distance in near.values())


@pytest.mark.parametrize("how", ["one pose", "shaking", "of any length", "of nobody"])
def test_thousands_of_copies_do_not_become_millions_of_pairs(tmp_path: Path, how: str) -> None:
    count = 1500
    rng = np.random.default_rng(5)
    pose = walk(9)[:1].repeat(12, axis=0)
    clips = [walk(seed, 12) for seed in range(20)]
    for index in range(count):
        frames = {"of nobody": 1 + index, "of any length": 12 + index % 40}.get(how, 12)
        moved = pose[:1].repeat(frames, axis=0) + np.float32(0.01 * (index + 1))
        noise = rng.normal(0, 0.0005, moved.shape) if how == "shaking" else 0
        clips.append(np.zeros((frames, 1, 5, 3)) if how == "of nobody" else (moved + noise).astype(np.float32))
    clips.append(walk(7, 12).astype(np.float16).astype(np.float32))
    found = find_duplicates(dataset(tmp_path / "set", clips))
    assert found.crowds == (tuple(range(20, 20 + count)),)
    assert near_of(found) == {(7, 20 + count)}  # and no other pair is lost or made up
    train = np.zeros(len(clips), dtype=bool)
    train[[20 + count // 2, 7]] = True
    across = pairs_across(found, train, ~train)
    assert len(across) == count  # all but one of the crowd, and the copy of 7
    assert {pair.train for pair in across} == {7, 20 + count // 2}


def test_whoever_is_near_the_rim_of_a_crowd_belongs_to_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    base = walk(2, 16)
    away = rng.normal(0, 1, base.shape)
    size = float(np.linalg.norm(base[:, :, [1, 2, 3, 4]] - base[:, :, [0, 1, 1, 1]], axis=-1).sum(-1).mean())
    away *= size / np.sqrt((away**2).sum(axis=-1).mean())  # an RMS step of one body
    apart = np.linspace(0, 0.9 * TOLERANCE, CROWD + 40)
    clips = [(base + away * step).astype(np.float32) for step in apart]
    # Each is near some of the crowd, after a cut; whichever end stands for the crowd, one of them is not near that.
    for step in (-0.8, 1.7):
        clips.append((base + away * step * TOLERANCE)[1:].astype(np.float32))
    assert slow_distance(clips[0], clips[-2]) < TOLERANCE < slow_distance(clips[CROWD + 39], clips[-2])
    assert slow_distance(clips[CROWD + 39], clips[-1]) < TOLERANCE < slow_distance(clips[0], clips[-1])
    found = find_duplicates(dataset(tmp_path / "set", clips))
    assert found.crowds == (tuple(range(CROWD + 42)),)
    assert found.near == ()


def test_pairs_across_name_the_nearest_training_clip() -> None:
    found = Duplicates(
        8, TOLERANCE, identical=((0, 3), (1, 5)), near=((0, 1, 0.001), (0, 2, 0.0015), (1, 2, 0.0005)), crowds=((6, 7),)
    )
    train = np.array([1, 0, 0, 0, 1, 1, 1, 0], dtype=bool)
    across = pairs_across(found, train, ~train)
    assert [tuple(pair[:2]) for pair in across] == [(5, 1), (5, 2), (0, 3), (6, 7)]
    assert [pair.identical for pair in across] == [True, False, True, False]
    assert across[1].distance == 0.0005
    assert math.isnan(across[3].distance)
    assert pairs_across(found, train, np.zeros(8, dtype=bool)) == ()


def test_clean_splits_take_copies_out_of_test_alone(tmp_path: Path) -> None:
    base = [walk(seed) for seed in range(5)]
    clips = [
        *(base[0], base[1], base[1].copy()),  # train, the last one twice: it stays
        *(base[0].copy(), np.round(base[1], 3)),  # test: repeat training clips
        *(base[2], base[2][1:], base[3], base[2].copy()),  # test: 6 and 8 repeat 5
        base[3].copy(),  # unused
        base[4],
    ]
    labels = [0, 1, 1, 0, 1, 2, 2, 2, 2, 2, 0]
    split = [1, 1, 1, 2, 2, 2, 2, 2, 2, 0, 1]
    data = write(
        tmp_path / "set", clips, labels, [0] * 11, {"s": split, "all": [1] * 10 + [2], "none": [0] * 11}, classes=3
    )
    cleaned = clean_splits(data)
    assert cleaned.splits["s"].tolist() == [1, 1, 1, 0, 0, 2, 0, 2, 0, 0, 1]
    assert cleaned.splits["s"].dtype == np.int8
    assert cleaned.splits["all"].tolist() == [1] * 10 + [2]
    assert cleaned.splits["none"].tolist() == [0] * 11
    report = cleaned.report["s"]
    assert (report.before, report.after, report.repeats_train, report.repeats_test) == (6, 2, 2, 2)
    assert report.lost == {"class 0": 1, "class 1": 1, "class 2": 2}
    assert report.vanished == ("class 0", "class 1")
    assert cleaned.lines()[0] == "split all: test 1 -> 1 clips"
    assert cleaned.lines()[2].startswith("split s: test 6 -> 2 clips (2 repeat a training clip, 2 another test clip)")
    assert cleaned.lines()[2].endswith("no test clip is left of class 0, class 1")
    assert data.splits["s"].tolist() == split  # the stored table is as it was


def test_a_clean_split_is_clean() -> None:
    """On random duplicates: nothing of test is a copy of train or of an earlier test clip, and nothing else is lost."""
    rng = np.random.default_rng(4)
    for _ in range(30):
        count = 14
        near = tuple((a, b, 0.001) for b in range(6, count) for a in range(6, b) if rng.random() < 0.1)
        found = Duplicates(count, TOLERANCE, identical=((0, 1, 2), (3, 5)), near=near)
        table = rng.integers(0, 3, count).astype(np.int8)
        clean = clean_split(table, np.zeros(count, dtype=np.int64), ["a"], found)
        same = {(0, 1), (0, 2), (1, 2), (3, 5), *((a, b) for a, b, _ in near)}

        def copies(a: int, b: int, same: set[tuple[int, int]] = same) -> bool:
            return (min(a, b), max(a, b)) in same

        train, test = np.flatnonzero(table == 1), np.flatnonzero(clean.table == 2)
        assert not [(a, b) for a in train for b in test if copies(a, b)]
        assert not [(a, b) for a in test for b in test if a < b and copies(a, b)]
        for gone in np.flatnonzero((table == 2) & (clean.table == 0)):
            assert any(copies(gone, other) for other in [*train, *test])
        assert np.array_equal(clean.table == 1, table == 1)


def test_copies_of_different_labels_are_named() -> None:
    found = Duplicates(6, TOLERANCE, identical=((0, 2, 3),), near=((0, 4, 0.001), (1, 5, 0.001)))
    assert label_conflicts(found, np.array([0, 1, 1, 0, 0, 2])) == ((0, 2), (1, 5))


@pytest.mark.parametrize("tolerance", [-0.1, 0.2, math.nan])
def test_a_tolerance_that_is_none(tmp_path: Path, tolerance: float) -> None:
    with pytest.raises(InputError, match=r"tolerance: want 0 to 0\.1"):
        find_duplicates(dataset(tmp_path / "set", [walk(0)]), tolerance)


def test_nan_is_said(tmp_path: Path) -> None:
    path = dataset(tmp_path / "set", [walk(0), walk(1)]).path
    raw = bytearray((path / "frames.npy").read_bytes())
    raw[-4:] = np.float32(np.nan).tobytes()
    (path / "frames.npy").write_bytes(raw)
    with pytest.raises(InputError, match="clip 1 holds NaN"):
        find_duplicates(open_dataset(path))


@pytest.mark.shared
def test_real_repetitions_are_no_copies(real_data: Path, tmp_path: Path) -> None:
    """No two takes of one person doing one thing are taken for copies; a re-saved one of them all is found."""
    archive = np.load(real_data / "sbu.npz", allow_pickle=False)
    cut, frames = zip(archive["offsets"].tolist(), archive["lengths"].tolist(), strict=True), archive["sequences"]
    clips = [frames[start : start + length] for start, length in cut][:120]
    clips += [clips[7][1:].astype(np.float16).astype(np.float32), np.round(clips[50], 2)]  # half and centimetres
    joints = archive["joint_names"].tolist()
    from methods.data import layout_from_parts

    layout = layout_from_parts("sbu", joints, archive["parents"].tolist())
    data = write(tmp_path / "set", clips, [0] * len(clips), [0] * len(clips), layout=layout)
    assert near_of(find_duplicates(data)) == {(7, 120), (50, 121)}
