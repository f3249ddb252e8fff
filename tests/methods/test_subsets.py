"""Parts of the labels: so many of each class, nested, drawn by seed."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.errors import InputError
from methods.training.subsets import labelled_part

many_labels = st.lists(st.integers(0, 5), min_size=1, max_size=120).map(np.array)


@settings(max_examples=60)
@given(many_labels, st.integers(1, 100), st.integers(0, 5))
def test_every_class_has_its_share(labels: np.ndarray, percent: int, seed: int) -> None:
    """The nearest whole number (halves up), at least one; by fractions, since 0.35 * 10 is no 3.5 in binary."""
    part = labelled_part(labels, percent / 100, seed)
    assert np.array_equal(part, np.unique(part))
    for label in np.unique(labels):
        exact = Fraction(percent, 100) * int((labels == label).sum())
        assert (labels[part] == label).sum() == max(1, int(exact + Fraction(1, 2)))


@settings(max_examples=30)
@given(many_labels, st.integers(0, 5), st.booleans())
def test_a_smaller_share_is_a_part_of_a_larger_one(labels: np.ndarray, seed: int, balanced: bool) -> None:
    parts = [labelled_part(labels, share, seed, balanced=balanced) for share in (0.01, 0.1, 0.35, 1.0)]
    for small, large in zip(parts, parts[1:], strict=False):
        assert set(small) <= set(large)
    assert np.array_equal(parts[-1], np.arange(len(labels)))


def test_the_seed_draws() -> None:
    labels = np.arange(300) % 3
    first = labelled_part(labels, 0.1, 1)
    assert np.array_equal(first, labelled_part(labels, 0.1, 1))
    assert not np.array_equal(first, labelled_part(labels, 0.1, 2))
    # each class in an order of its own: not the same places of every class
    places = [first[labels[first] == label] // 3 for label in range(3)]
    assert not np.array_equal(places[0], places[1])


def test_every_clip_may_be_drawn() -> None:
    labels = np.zeros(20, dtype=int)
    seen = {int(clip) for seed in range(200) for clip in labelled_part(labels, 0.1, seed)}
    assert seen == set(range(20))


def test_unbalanced_is_rounded_down_and_may_miss_a_class() -> None:
    """CMD's: int(N * share) of all clips, so 12 clips at 30 % are 3, of which some draw has a single class."""
    labels = np.arange(12) % 3
    parts = [labelled_part(labels, 0.3, seed, balanced=False) for seed in range(60)]
    assert {len(part) for part in parts} == {3}
    assert {len(set(labels[part])) for part in parts} == {1, 2, 3}
    assert len(labelled_part(labels, 0.29, 0, balanced=False)) == 3
    assert len(labelled_part(labels, 0.01, 0, balanced=False)) == 1


@pytest.mark.parametrize("share", [0.0, -0.1, 1.01, float("nan")])
def test_a_share_outside_is_refused(share: float) -> None:
    with pytest.raises(InputError, match="share of labels"):
        labelled_part(np.zeros(4, dtype=int), share, 0)
