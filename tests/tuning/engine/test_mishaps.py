"""What speaks against a configuration, and what does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuning.engine.mishaps import ERROR, HUNG, KILLED, LOST, MEMORY, NOBODYS_FAULT, STORAGE, counts, speaks_against
from tuning.engine.state import Failure, TrialState

KINDS = (ERROR, KILLED, MEMORY, HUNG, LOST, STORAGE)


def after(*kinds: str, epochs: int = 0) -> TrialState:
    trial = TrialState(0, {}, "sampler", epochs=epochs)
    for kind in kinds:
        trial.failures.append(Failure("x", kind, "", counts(trial, kind), trial.epochs))
    return trial


@pytest.mark.parametrize("kind", [ERROR, KILLED, MEMORY, HUNG])
def test_what_the_trial_did_counts(kind) -> None:
    assert len(speaks_against(after(kind, kind, kind))) == 3


@pytest.mark.parametrize("kind", NOBODYS_FAULT)
def test_a_lost_machine_counts_from_the_fourth_in_a_row(kind) -> None:
    assert [len(speaks_against(after(*[kind] * n))) for n in range(1, 7)] == [0, 0, 0, 1, 2, 3]


def test_an_epoch_in_between_begins_a_new_row() -> None:
    trial = after(LOST, LOST, LOST)
    trial.epochs = 1
    assert not counts(trial, LOST)


@given(st.lists(st.sampled_from(KINDS), max_size=40))
def test_nobody_is_tried_for_ever(kinds) -> None:
    """Of any ten failures in a row without an epoch, at least three count."""
    assert len(speaks_against(after(*kinds))) >= 3 or len(kinds) < 13
