"""Ladders and finalists."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuning.config.schema import ScheduleSpec
from tuning.engine.finalists import Score, rank_finalists, ranking
from tuning.engine.ladder import make_ladder
from tuning.engine.state import JournalState, Report, TrialState


def schedule(lowest, top, eta):
    return ScheduleSpec.model_validate({"max": top, "asha": {"min": lowest, "eta": eta}})


@pytest.mark.parametrize(
    ("lowest", "top", "eta", "rungs"),
    [
        (1, 243, 3, (1, 3, 9, 27, 81, 243)),  # floating logarithms give 5 of these 6
        (1, 1000, 10, (1, 10, 100, 1000)),  # and 3 of these 4
        (9, 81, 3, (9, 27, 81)),
        (10, 100, 3, (10, 30, 100)),  # 90 would be judged again at 100
        (5, 5, 2, (5,)),
    ],
)
def test_rungs_are_multiplied_out(lowest, top, eta, rungs):
    ladder = make_ladder(schedule(lowest, top, eta))
    assert ladder.rungs == rungs
    assert ladder.top == top


@given(st.integers(1, 50), st.integers(1, 2000), st.integers(2, 10))
def test_ladders_climb_to_the_top(lowest, top, eta):
    top = max(lowest, top)
    rungs = make_ladder(schedule(lowest, top, eta)).rungs
    assert rungs[0] == lowest
    assert rungs[-1] == top
    assert list(rungs) == sorted(set(rungs))
    assert all(b == a * eta for a, b in zip(rungs[:-2], rungs[1:-1], strict=True))


def trial(number, top1, loss=1.0, rung=9):
    state = TrialState(number, {}, "sampler")
    state.reports[rung] = Report(rung, True, top1, loss, 1.0)
    return state


def test_only_full_runs_are_ranked():
    """A trial culled at epoch 3 with 0.9 is no better than one that reached the top with 0.6: it is not compared."""
    state = JournalState(trials={0: trial(0, 0.9, rung=3), 1: trial(1, 0.6), 2: trial(2, 0.5)})
    assert [t.trial for t in ranking(state, 9)] == [1, 2]


def test_ties_go_to_the_lower_loss_then_the_lower_number():
    state = JournalState(trials={n: trial(n, 0.5, loss) for n, loss in ((0, 2.0), (1, 1.0), (3, 1.0), (2, None))})
    assert [t.trial for t in ranking(state, 9)] == [1, 3, 0, 2]


def test_finalists_by_mean_not_by_their_best_run():
    runs = {
        4: [{"top1": 0.9, "loss": 1.0}, {"top1": 0.5, "loss": 1.0}],
        7: [{"top1": 0.75, "loss": 1.0}, {"top1": 0.75, "loss": 1.0}],
        9: [],
    }
    ranked = rank_finalists(runs)
    assert [s.trial for s in ranked] == [7, 4]
    assert ranked[0].mean == 0.75
    assert ranked[0].spread == 0.0
    assert ranked[1].spread == pytest.approx(0.2828427, abs=1e-6)
    assert Score(1, (0.5,), (1.0,)).spread is None
