from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from methods.data import SkeletonDataset, fixed_length, inspect_dataset, make_split, open_dataset
from methods.data import convert as convert_source
from methods.data.layouts import KINECT20
from methods.errors import InputError

DATA = Path(os.environ.get("SKELTUNE_DATA", "../shared/data"))


def convert(source: Path, out: Path, form: str = "auto") -> SkeletonDataset:
    return convert_source(source, out, form, strict=True).dataset


def content(**change: Any) -> dict[str, Any]:
    """A good file of 3 clips (lengths 4, 1, 3), one person, 4 joints; None takes a key away."""
    whole = {
        "sequences": np.random.default_rng(0).normal(size=(8, 1, 4, 3)),
        "lengths": np.array([4, 1, 3], np.int32),
        "offsets": np.array([0, 4, 5]),
        "labels": np.array([0, 1, 0], np.uint8),
        "subjects": np.array([3, 4, 3]),
        "names": np.array(["a", "b", "c"]),
        "class_names": np.array(["x", "y"]),
        "joint_names": np.array(["root", "neck", "left_hand", "right_hand"]),
        "parents": np.array([-1, 0, 1, 1]),
        "xsub_train": np.array([True, False, True]),
        "own_train": np.array([True, False, False]),
        "own_test": np.array([False, True, False]),
        "folds": np.array([0, 1, 2]),
        "more": np.array([0, 1, 2]),
        **change,
    }
    return {key: value for key, value in whole.items() if value is not None}


def save(folder: Path, **change: Any) -> Path:
    np.savez(folder / "file.npz", **content(**change))
    return folder / "file.npz"


def test_a_good_file(tmp_path: Path) -> None:
    data = convert(save(tmp_path, cameras=np.array([1, 2, 1])), tmp_path / "set")
    wanted = content()["sequences"].astype(np.float32)
    np.testing.assert_array_equal(np.concatenate([data.clip(index) for index in range(3)]), wanted)
    assert data.splits["xsub"].tolist() == [1, 2, 1]
    assert data.splits["own"].tolist() == [1, 2, 0]
    assert data.cameras.tolist() == [1, 2, 1] and data.setups.tolist() == [-1] * 3
    assert data.subjects.tolist() == [[3], [4], [3]]
    assert data.layout.mirror == (0, 1, 3, 2)
    assert data.source["not_read"] == ["more"]
    assert data.splits["fold1"].tolist() == [1, 2, 1]


def test_clips_may_lie_anywhere_in_the_file(tmp_path: Path) -> None:
    data = convert(save(tmp_path, offsets=np.array([4, 0, 1])), tmp_path / "set")
    np.testing.assert_array_equal(data.clip(0), content()["sequences"][4:8].astype(np.float32))


def test_a_known_layout_is_recognised(tmp_path: Path) -> None:
    file = save(
        tmp_path,
        sequences=np.ones((8, 1, 20, 3)),
        joint_names=np.array(KINECT20.joints),
        parents=np.array(KINECT20.parents),
    )
    assert convert(file, tmp_path / "set").layout == KINECT20


BROKEN = np.random.default_rng(0).normal(size=(8, 1, 4, 3))
BROKEN[5, 0, 1, 1] = np.nan


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": None, "parents": None}, ["'labels' is missing", "'parents' is missing"]),
        ({"names": np.array(["a", None, "c"], object)}, ["'names' holds pickled objects"]),
        ({"sequences": BROKEN}, ["c: NaN or infinite coordinates: frame 0"]),
        ({"sequences": np.zeros((8, 4, 3))}, ["'sequences' has shape (8, 4, 3)"]),
        ({"labels": np.array([0, 2, -1])}, ["b: label outside the table: label 2", "c: label outside the table"]),
        ({"labels": np.array([0.5, 0, 1])}, ["'labels' holds float64, wanted whole numbers"]),
        ({"lengths": np.array([4, 0, 3])}, ["b: no frames"]),
        ({"lengths": np.array([4, 1, 4])}, ["c: ends outside the frames: clip 2: 5 + 4 of 8"]),
        ({"offsets": np.array([0, 4, -1])}, ["c: ends outside the frames"]),
        ({"lengths": np.array([4, 1, 2**63 - 1])}, ["c: ends outside the frames"]),
        ({"subjects": np.array([1, 2, -3])}, ["c: an id below -1"]),
        ({"subjects": np.zeros((3, 2, 2), int), "names": np.array(["a"])}, ["'subjects' has shape", "'names' has"]),
        ({"parents": np.array([-1, 0, 1, -1])}, ["exactly one joint"]),
        ({"joint_names": np.array(["a", "a", "b", "c"])}, ["twice: a"]),
        ({"class_names": np.array(["x", "x"])}, ["class names"]),
        ({"xsub_train": np.array([1, 0, 1])}, ["split 'xsub': masks"]),
        ({"own_test": np.array([True, True, False])}, ["split 'own': 1 clips are in train and in test"]),
        ({"cameras": np.array([1, 2])}, ["'cameras' has shape (2,)"]),
    ],
)
def test_faults_are_named_all_at_once_and_leave_nothing(
    tmp_path: Path, change: dict[str, Any], words: list[str]
) -> None:
    file = save(tmp_path, **change)
    with pytest.raises(InputError) as caught:
        convert(file, tmp_path / "set")
    assert len(caught.value.faults) == len(words)
    for word in words:
        assert word in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file.npz"]


def test_strange_sources(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        convert(tmp_path / "none.npz", tmp_path / "set")
    with pytest.raises(InputError, match="did you mean 'ragged_npz'"):
        convert(save(tmp_path), tmp_path / "set", "ragged-npz")
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(InputError, match="not recognised"):
        convert(tmp_path / "text.npz", tmp_path / "set")
    with pytest.raises(InputError, match="not a readable"):
        convert(tmp_path / "text.npz", tmp_path / "set", "ragged_npz")
    cut = tmp_path / "cut.npz"
    cut.write_bytes(save(tmp_path).read_bytes()[:900])
    with pytest.raises(InputError):
        convert(cut, tmp_path / "set", "ragged_npz")
    assert not (tmp_path / "set").exists()


def test_chance_damage_never_escapes_as_another_error(tmp_path: Path) -> None:
    file, rng = save(tmp_path), np.random.default_rng(0)
    good = file.read_bytes()
    caught = 0
    for trial in range(150):
        bad = bytearray(good)
        for place in rng.integers(len(bad), size=3):
            bad[place] = rng.integers(256)
        file.write_bytes(bad)
        try:
            convert(file, tmp_path / f"set{trial}", "ragged_npz")
        except InputError:
            caught += 1
    assert caught > 75


@pytest.mark.shared
def test_utd_mhad(tmp_path: Path) -> None:
    if not (DATA / "utd_mhad.npz").exists():
        pytest.skip(f"no real skeletons at {DATA} (set SKELTUNE_DATA)")
    data = convert(DATA / "utd_mhad.npz", tmp_path / "utd")
    assert (len(data), data.num_classes, len(np.unique(data.subjects)), len(data.frames)) == (861, 27, 8, 58_299)
    assert np.bincount(data.splits["xsub"]).tolist() == [0, 431, 430]
    assert (int(data.lengths.min()), int(data.lengths.max())) == (41, 125)
    split = make_split(data, "xsub", "auto", 0)
    assert (len(split.train) + len(split.validation), len(split.test), len(split.held_out)) == (431, 430, 1)
    folds = make_split(data, "xsub", "cv", 0).folds
    assert folds is not None and np.bincount(folds).sum() == 431 and folds.max() == 3
    assert fixed_length(data, 50).shape == (861, 3, 50, 20, 1)
    open_dataset(data.path).verify()


@pytest.mark.shared
def test_sbu(tmp_path: Path) -> None:
    if not (DATA / "sbu.npz").exists():
        pytest.skip(f"no real skeletons at {DATA} (set SKELTUNE_DATA)")
    data = convert(DATA / "sbu.npz", tmp_path / "sbu")
    assert (len(data), data.num_classes, data.num_persons, data.subjects.shape) == (282, 8, 2, (282, 2))
    found = inspect_dataset(data)
    assert (found.splits["disjoint"]["train"].clips, found.splits["disjoint"]["test"].clips) == (85, 80)
    assert found.shared_subjects["disjoint"] == 0 and found.across == {}
    split = make_split(data, {"test_subjects": [3, 4]}, "auto", 0)
    assert not set(data.subjects[split.train].ravel()) & set(data.subjects[split.validation].ravel())
