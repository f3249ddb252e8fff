from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dataset_helpers import people_dataset, random_clips, write
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.data.skeletons import SkeletonDataset
from methods.data.splits import Split, make_split
from methods.errors import InputError


@pytest.fixture(scope="module")
def forty(tmp_path_factory: pytest.TempPathFactory) -> SkeletonDataset:
    """40 subjects, each doing 2 classes once; odd ones train; cameras 1 to 3."""
    return people_dataset(tmp_path_factory.mktemp("forty") / "set", 40, cameras=True)


def who(data: SkeletonDataset, clips: np.ndarray) -> set[int]:
    return set(data.subjects[clips].ravel().tolist()) - {-1}


def check(data: SkeletonDataset, split: Split) -> None:
    sides = [set(side.tolist()) for side in (split.train, split.validation, split.test)]
    assert len(set.union(*sides)) == sum(map(len, sides))
    assert all(side.dtype == np.int64 for side in (split.train, split.validation, split.test))
    assert not who(data, split.train) & who(data, split.validation)
    assert who(data, split.validation) == set(split.held_out)


def test_a_stored_split_with_auto(forty: SkeletonDataset) -> None:
    split = make_split(forty, "xsub", "auto", 3)
    check(forty, split)
    assert len(split.held_out) == 3  # 15 % of 20
    assert all(subject % 2 for subject in split.held_out)
    assert who(forty, split.test) == set(range(2, 41, 2))
    assert split.folds is None
    assert "seed 3" in split.note and ", ".join(map(str, split.held_out)) in split.note
    assert str(split.test.tolist()) not in repr(split)


def test_auto_is_drawn_by_the_seed(forty: SkeletonDataset) -> None:
    draws = {make_split(forty, "xsub", "auto", seed).held_out for seed in range(8)}
    assert len(draws) > 4
    assert make_split(forty, "xsub", "auto", 5).held_out == make_split(forty, "xsub", "auto", 5).held_out


def test_cameras(forty: SkeletonDataset) -> None:
    split = make_split(forty, {"test_cameras": [1]}, "auto", 0)
    check(forty, split)
    assert set(forty.cameras[split.test].tolist()) == {1}
    assert set(forty.cameras[split.train].tolist()) == set(forty.cameras[split.validation].tolist()) == {2, 3}
    same = make_split(forty, {"train_cameras": [2, 3]}, "auto", 0)
    np.testing.assert_array_equal(same.train, split.train)


def test_train_and_test_subjects_are_two_ways_to_say_it(forty: SkeletonDataset) -> None:
    one = make_split(forty, {"test_subjects": range(2, 41, 2)}, "auto", 0)
    two = make_split(forty, {"train_subjects": range(1, 41, 2)}, "auto", 0)
    for side in ("train", "validation", "test"):
        np.testing.assert_array_equal(getattr(one, side), getattr(two, side))


def test_held_out_subjects(forty: SkeletonDataset) -> None:
    split = make_split(forty, "xsub", {"held_out_subjects": [7, 3]}, 0)
    check(forty, split)
    assert split.held_out == (3, 7)
    with pytest.raises(InputError, match="4, 99: not among the training subjects"):
        make_split(forty, "xsub", {"held_out_subjects": [3, 4, 99]}, 0)
    with pytest.raises(InputError, match="empty list"):
        make_split(forty, "xsub", {"held_out_subjects": []}, 0)


def test_cv_with_many_subjects_makes_five_folds_of_subjects(forty: SkeletonDataset) -> None:
    split = make_split(forty, "xsub", "cv", 0)
    assert split.folds is not None and len(split.folds) == len(split.train) == 40
    assert len(split.validation) == 0 and split.held_out == ()
    assert np.bincount(split.folds).tolist() == [8] * 5
    for subject in who(forty, split.train):
        assert len(set(split.folds[forty.subjects[split.train, 0] == subject].tolist())) == 1


def test_cv_with_few_subjects_leaves_one_out(tmp_path: Path) -> None:
    data = people_dataset(tmp_path / "set", 8)
    split = make_split(data, "xsub", "cv", 0)
    assert split.folds is not None
    owners = [who(data, split.train[split.folds == fold]) for fold in range(4)]
    assert owners == [{1}, {3}, {5}, {7}]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_auto_keeps_every_class_on_both_sides(seed: int) -> None:
    data = people_dataset_with_rare_class()
    split = make_split(data, {"test_subjects": [1, 2]}, "auto", seed)
    check(data, split)
    assert set(data.labels[split.validation].tolist()) == set(data.labels[split.train].tolist()) == {0, 1}


_RARE: list[SkeletonDataset] = []


@pytest.fixture(scope="module", autouse=True)
def _rare(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Class 1 is done only by subjects 1, 3 and 4 of 10."""
    who = [1, 1, 2, 3, 3, 4, 4, *range(5, 11)]
    labels = [0, 1, 0, 0, 1, 0, 1, *[0] * 6]
    path = tmp_path_factory.mktemp("rare") / "set"
    _RARE.append(write(path, random_clips(len(who)), labels, who))


def people_dataset_with_rare_class() -> SkeletonDataset:
    return _RARE[0]


def test_a_lacking_class_is_named() -> None:
    data = people_dataset_with_rare_class()
    with pytest.raises(InputError, match="validation has no clip of class 'class 1'"):
        make_split(data, {"test_subjects": [1, 2]}, {"held_out_subjects": [5]}, 0)
    with pytest.raises(InputError, match="test has no clip of class 'class 1'"):
        make_split(data, {"test_subjects": [2]}, "auto", 0)
    with pytest.raises(InputError, match=r"train has no clip of class 'class 1'"):
        make_split(data, {"test_subjects": [1, 3, 4]}, "auto", 0)
    with pytest.raises(InputError, match="validation has no clip of class 'class 1'"):
        make_split(data, {"test_subjects": [1, 3]}, "auto", 0)  # subject 4 alone does it: it cannot be on both sides
    with pytest.raises(InputError, match="outside fold 1 of cv no clip of class 'class 1'"):
        make_split(data, {"test_subjects": [1, 3, 10]}, "cv", 0)


def pairs_dataset(path: Path, pairs: list[tuple[int, int]]) -> SkeletonDataset:
    subjects = [pair for pair in pairs for _ in range(2)]
    return write(path, random_clips(len(subjects), persons=2), [0, 1] * len(pairs), subjects)


def test_clips_across_the_sides_are_left_out_and_counted(tmp_path: Path) -> None:
    data = pairs_dataset(tmp_path / "set", [(1, 2), (3, 4), (2, 3), (5, 6), (6, 1), (7, -1), (-1, -1)])
    split = make_split(data, {"test_subjects": [3, 4]}, {"held_out_subjects": [5, 6]}, 0)
    check(data, split)
    assert data.subjects[split.test].tolist() == [[3, 4]] * 2
    assert data.subjects[split.train].tolist() == [[1, 2]] * 2 + [[7, -1]] * 2
    assert "2 clips with persons of both train and test" in split.note
    assert "2 clips with persons of both train and validation" in split.note
    assert "2 clips with unknown subjects" in split.note


def test_cv_keeps_pairs_together(tmp_path: Path) -> None:
    data = pairs_dataset(tmp_path / "set", [(1, 2), (2, 1), (3, 4), (5, 6), (7, 8)])
    split = make_split(data, {"test_subjects": [7, 8]}, "cv", 0)
    assert split.folds is not None
    assert split.folds.tolist() == [0, 0, 0, 0, 1, 1, 2, 2]


def test_cv_of_pairs_that_hang_together_uses_straddling_clips_in_no_fold(tmp_path: Path) -> None:
    data = pairs_dataset(tmp_path / "set", [(1, 2), (2, 1), (2, 3), (3, 4), (7, 8)])
    split = make_split(data, {"test_subjects": [7, 8]}, "cv", 0)
    assert split.folds is not None
    assert split.folds.tolist() == [0, 0, 0, 0, -1, -1, 1, 1]
    assert "2 clips with persons of different folds" in split.note


def test_what_cannot_be_split_is_said(tmp_path: Path, forty: SkeletonDataset) -> None:
    with pytest.raises(InputError, match=r"unknown split 'xsubb'; did you mean 'xsub'\?; stored: xsub"):
        make_split(forty, "xsubb")
    with pytest.raises(InputError, match="unknown validate_on 'atuo'; did you mean 'auto'"):
        make_split(forty, "xsub", "atuo")
    with pytest.raises(InputError, match=r"subjects \[77\] do not occur"):
        make_split(forty, {"test_subjects": [2, 77]})
    with pytest.raises(InputError, match="did you mean 'test_subjects'"):
        make_split(forty, {"test_subject": [2]})
    with pytest.raises(InputError, match="exactly one"):
        make_split(forty, {"test_subjects": [2], "test_cameras": [1]})
    with pytest.raises(InputError, match="test_setups needs setups"):
        make_split(forty, {"test_setups": [2]})
    with pytest.raises(InputError, match="train has no clip"):
        make_split(forty, {"test_cameras": [1, 2, 3]})
    unknown = write(tmp_path / "unknown", random_clips(4), [0, 1, 0, 1], [-1] * 4, {"s": [1, 1, 2, 2]})
    with pytest.raises(InputError, match="no subject is known"):
        make_split(unknown, "s")
    single = write(tmp_path / "single", random_clips(4), [0, 1, 0, 1], [1, 1, 2, 2], {"s": [1, 1, 2, 2]})
    for validate_on in ("auto", "cv"):
        with pytest.raises(InputError, match="at least two training subjects"):
            make_split(single, "s", validate_on)
