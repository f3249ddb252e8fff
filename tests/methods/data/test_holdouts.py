"""Validation by camera, setup or chance: who ends up where, and what is said."""

from __future__ import annotations

import numpy as np
import pytest
from dataset_helpers import people_dataset, random_clips, write

from methods.data import make_split
from methods.errors import InputError


def test_cameras_of_the_training_side(tmp_path):
    data = people_dataset(tmp_path / "set", 8, cameras=True)
    split = make_split(data, "xsub", {"held_out_cameras": [2]})
    train = np.flatnonzero(data.splits["xsub"] == 1)
    assert set(split.train) | set(split.validation) == set(train)
    assert set(data.cameras[split.validation]) == {2} and 2 not in data.cameras[split.train]
    assert split.held_out == (2,) and "validation: cameras 2" in split.note
    assert not set(split.test) & set(train)


def test_sharing_persons_is_said(tmp_path):
    clips = random_clips(8)
    data = write(
        tmp_path / "s", clips, [0, 1] * 4, [1, 1, 1, 1, 2, 2, 2, 2], {"o": [1] * 6 + [2] * 2}, cameras=[1, 1, 2, 2] * 2
    )
    split = make_split(data, "o", {"held_out_cameras": [2]})
    assert "train and validation share 1 subjects" in split.note


def test_a_share_of_every_class_by_chance(tmp_path):
    clips = random_clips(60)
    data = write(tmp_path / "s", clips, [0, 1, 1] * 20, [-1] * 60, {"o": [1] * 48 + [2] * 12})
    split = make_split(data, "o", {"held_out_share": 0.25}, seed=3)
    assert np.bincount(data.labels[split.validation]).tolist() == [4, 8]
    assert len(split.train) == 36 and not set(split.train) & set(split.validation)
    assert "the score flatters" in split.note
    again, other = (make_split(data, "o", {"held_out_share": 0.25}, seed=s) for s in (3, 4))
    assert np.array_equal(split.validation, again.validation)
    assert not np.array_equal(split.validation, other.validation)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"held_out_cameras": [9]}, r"9: not among the cameras of the training clips \(1, 2, 3\)"),
        ({"held_out_cameras": []}, "an empty list"),
        ({"held_out_setups": [1]}, "none is known"),
        ({"held_out_share": 0.9}, "not above 0 and up to 0.5"),
        ({"held_out_share": "much"}, "must be a number"),
        ({"held_out_persons": [1]}, "validate_on takes auto, cv or one of"),
        ({}, "validate_on takes auto"),
        ({"held_out_cameras": [1, 2, 3]}, "train has no clip"),
    ],
)
def test_wrong_rules(tmp_path, rule, words):
    data = people_dataset(tmp_path / "set", 8, cameras=True)
    with pytest.raises(InputError, match=words):
        make_split(data, "xsub", rule)


def test_unknown_subjects_point_at_the_way_out(tmp_path):
    data = write(tmp_path / "s", random_clips(8), [0, 1] * 4, [-1] * 8, {"o": [1] * 4 + [2] * 4})
    with pytest.raises(InputError, match="held_out_share"):
        make_split(data, "o", "auto")
