"""Who is in the race at the end of a search, how it is run, and that luck seldom decides it."""

from __future__ import annotations

import math
import random
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuning.config.schema import Rerun
from tuning.engine.finalists import (
    FinishJob,
    Lead,
    final_rung,
    finish_jobs,
    job_name,
    race,
    ranking,
    standing_of,
    student,
)
from tuning.engine.ladder import Ladder
from tuning.engine.state import JournalState, Report, TrialState


def runs(*values, **extra):
    """Results by number; None is a run that failed."""
    return {i: {"ended": "diverged"} if v is None else {"top1": v, "loss": 1.0, **extra} for i, v in enumerate(values)}


# --- Student's distribution ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inside", "freedom", "t"),  # two-sided, from tables
    [
        (0.95, 1, 12.706), (0.95, 2, 4.303), (0.95, 3, 3.182), (0.95, 4, 2.776), (0.95, 6, 2.447), (0.95, 10, 2.228),
        (0.95, 30, 2.042), (0.90, 5, 2.015), (0.99, 7, 3.499), (0.998, 1, 318.309), (0.998, 10, 4.144),
        (0.9875, 3, 5.392), (0.9875, 6, 3.521),
    ],
)  # fmt: skip
def test_student_is_the_tables(inside, freedom, t):
    assert student(inside, freedom) == pytest.approx(t, abs=6e-4)


def test_student_in_closed_form_and_in_the_limit():
    for inside in (0.5, 0.95, 0.9998):
        assert student(inside, 1) == pytest.approx(math.tan(math.pi * inside / 2), rel=1e-9)
        assert student(inside, 2) == pytest.approx(math.sqrt(2 * inside**2 / (1 - inside**2)), rel=1e-9)
        normal = statistics.NormalDist().inv_cdf((1 + inside) / 2)
        assert student(inside, 10_000) == pytest.approx(normal, rel=2e-3)


# --- a race by hand --------------------------------------------------------------------------------------------------


def test_the_interval_of_two_finalists_after_two_seeds():
    """Two seeds, one rival, one look: the textbook's pooled interval for a difference of two means."""
    standing = race({3: runs(0.60, 0.64), 8: runs(0.50, 0.52)}, seeds=2)
    variance = (0.0008 + 0.0002) / 2
    half = 4.302653 * math.sqrt(variance * (1 / 2 + 1 / 2))
    lead = standing.gap
    assert (lead.ahead, lead.behind) == (3, 8)
    assert lead.gap == pytest.approx(0.11)
    assert lead.interval == pytest.approx((0.11 - half, 0.11 + half), rel=1e-6)
    assert lead.decided
    assert standing.dropped == {8: 2}
    assert standing.left == (3,)
    assert standing.done


def test_rivals_and_looks_widen_it():
    """Two rivals, three looks: 5 % are divided by six; the third finalist's runs add a degree of freedom."""
    standing = race({0: runs(0.60, 0.64), 1: runs(0.58, 0.60), 2: runs(0.57, 0.59)}, seeds=4)
    half = student(1 - 0.05 / 6, 3) * math.sqrt((0.0008 + 0.0002 + 0.0002) / 3)
    assert standing.leads[1] == Lead(0, 1, pytest.approx(0.03), pytest.approx((0.03 - half, 0.03 + half)))
    assert standing.left == (0, 1, 2)
    assert standing.due == ((0, 2), (1, 2), (2, 2))


def test_the_first_two_rounds_are_asked_for_together():
    """One value tells no spread, so there is nothing to decide after the first."""
    standing = race({5: {}, 2: {}}, seeds=3)
    assert standing.due == ((5, 0), (2, 0), (5, 1), (2, 1))
    assert (standing.rounds, standing.scores, standing.left) == (0, (), (5, 2))
    assert not standing.done


def test_after_an_interruption_only_what_is_missing_is_due():
    assert race({5: {1: runs(0.5)[0]}, 2: runs(0.5)}, seeds=3).due == ((5, 0), (2, 1))


def test_the_one_that_is_out_is_run_no_further_and_keeps_its_last_word():
    results = {0: runs(0.700, 0.702, 0.700), 1: runs(0.701, 0.700, 0.702), 2: runs(0.50, 0.502)}
    standing = race(results, seeds=3)
    assert standing.done
    assert standing.dropped == {2: 2}
    assert standing.leads[2].ahead == 0  # who led when it fell out: 0.701 against 0.7005
    assert standing.left == (1, 0)  # 0.701 against 0.70067, which is not separated
    assert not standing.gap.decided
    assert [standing.ran(t) for t in (0, 1, 2)] == [3, 3, 2]
    assert [s.trial for s in standing.scores] == [1, 0, 2]


def test_who_is_out_stands_behind_who_is_left_whatever_their_means():
    """t1 was out after two seeds with 50.5 %; t2 is left, and has 46.7 % in the end."""
    results = {0: runs(0.70, 0.72, 0.5), 1: runs(0.50, 0.51), 2: runs(0.69, 0.71, 0.0)}
    standing = race(results, seeds=3)
    assert standing.dropped == {1: 2}
    assert [s.trial for s in standing.scores] == [0, 2, 1]
    assert standing.scores[1].mean < standing.scores[2].mean
    assert (standing.gap.behind, standing.gap.decided) == (2, False)


def test_runs_that_the_race_did_not_ask_for_do_not_count():
    """A journal from a fixed table of re-runs holds more than were needed: the standing is the same without them."""
    wide = {0: runs(0.70, 0.702, 0.1), 1: runs(0.50, 0.502, 0.9)}
    assert race(wide, seeds=3) == race({t: {n: r[n] for n in (0, 1)} for t, r in wide.items()}, seeds=3)


def test_without_any_scatter_any_lead_decides_and_a_tie_does_not():
    assert race({0: runs(0.5, 0.5), 1: runs(0.5001, 0.5001)}, seeds=5).left == (1,)
    tie = race({1: runs(0.1, 0.1, 0.1), 0: runs(0.1, 0.1, 0.1)}, seeds=3)
    assert tie.left == (0, 1)
    assert tie.gap == Lead(0, 1, 0.0, (0.0, 0.0))
    assert not tie.gap.decided


def test_on_few_clips_two_runs_agree_by_chance():
    """Thirty clips: a lead of one clip in two equal pairs of runs is no proof; a lead of two is one after a third."""
    one = {0: runs(15 / 30, 15 / 30, clips=30), 1: runs(16 / 30, 16 / 30, clips=30)}
    standing = race(one, seeds=3)
    half = student(1 - 0.05 / 2, 2) * math.sqrt((1 / 30) ** 2 / 12)
    assert standing.gap.interval == pytest.approx((1 / 30 - half, 1 / 30 + half))
    assert len(standing.left) == 2
    two = {0: runs(*[15 / 30] * 3, clips=30), 1: runs(*[17 / 30] * 3, clips=30)}
    assert race(two, seeds=3).left == (1,)


def test_ties_go_to_the_lower_loss():
    results = {0: runs(0.5, 0.6), 1: {n: r | {"loss": 0.9} for n, r in runs(0.6, 0.5).items()}}
    assert race(results, seeds=2).left == (1, 0)


@pytest.mark.parametrize("missing", [{"top1": 0.5}, {"top1": 0.5, "loss": None}])
def test_a_loss_that_nobody_could_compute_is_the_worst(missing):
    assert race({0: {0: missing}, 1: runs(0.5)}, seeds=1).left == (1, 0)


def test_failed_runs_are_missing_values():
    standing = race({0: runs(None, 0.7, None), 1: runs(0.5, 0.52, 0.49), 2: runs(None, None)}, seeds=3)
    assert [s.values for s in standing.scores] == [(0.7,), (0.5, 0.52, 0.49)]
    assert standing.dropped[2] == 2  # every run failed
    assert 2 not in {s.trial for s in standing.scores}
    assert standing.gap.gap == pytest.approx(0.7 - statistics.fmean((0.5, 0.52, 0.49)))
    half = student(1 - 0.05 / 4, 2) * math.sqrt(statistics.variance((0.5, 0.52, 0.49)) * (1 + 1 / 3))
    assert standing.gap.interval[0] == pytest.approx(standing.gap.gap - half)


def test_nobody_gave_a_score():
    standing = race({0: runs(None, None), 1: runs(None, None)}, seeds=3)
    assert (standing.done, standing.left, standing.scores) == (True, (), ())
    assert standing.dropped == {0: 2, 1: 2}


def test_one_rival_failed_and_one_is_left():
    standing = race({0: runs(None, None), 1: runs(0.5, 0.6)}, seeds=3)
    assert (standing.done, standing.left, standing.gap) == (True, (1,), None)


def test_a_single_seed_tells_who_leads_but_not_by_how_much_noise():
    standing = race({0: runs(0.5), 1: runs(0.9)}, seeds=1)
    assert standing.done
    assert standing.gap == Lead(1, 0, pytest.approx(0.4), None)
    assert not standing.gap.decided


def test_a_lone_finalist_takes_all_its_seeds():
    assert race({4: {}}, seeds=3).due == ((4, 0), (4, 1), (4, 2))
    standing = race({4: runs(0.5, 0.6, 0.7)}, seeds=3)
    assert (standing.done, standing.left, standing.rounds, standing.gap) == (True, (4,), 3, None)


def test_an_empty_race_is_over():
    assert race({}, seeds=3).done


# --- properties ------------------------------------------------------------------------------------------------------

accuracy = st.one_of(st.none(), st.integers(0, 40).map(lambda n: n / 40), st.floats(0, 1))


@st.composite
def tables(draw):
    seeds = draw(st.integers(1, 5))
    finalists = draw(st.lists(st.integers(0, 99), unique=True, min_size=1, max_size=5))
    return {t: runs(*draw(st.lists(accuracy, min_size=seeds, max_size=seeds))) for t in finalists}, seeds


@given(tables())
def test_the_leader_is_never_dropped(table):
    results, seeds = table
    standing = race(results, seeds)
    assert standing.done
    assert set(standing.left) | set(standing.dropped) == set(results)
    assert not set(standing.left) & set(standing.dropped)
    if standing.scores:
        means = {s.trial: s.mean for s in standing.scores}
        assert standing.left[0] == standing.scores[0].trial
        assert means[standing.left[0]] == max(means[t] for t in standing.left)
        assert all(standing.leads[t].decided for t in standing.dropped if t in means)
        assert all(not standing.leads[t].decided for t in standing.left[1:])
        if standing.gap is not None:
            assert standing.gap.ahead == standing.left[0]
            assert standing.gap.decided == (len(standing.left) == 1)
    if len(standing.left) > 1:
        assert standing.rounds == seeds


@given(tables(), st.randoms(use_true_random=False))
def test_neither_the_order_of_arrival_nor_a_restart_matters(table, chance: random.Random):
    """Run what is due, one job at a time in any order, asking anew after each: the standing of the full table."""
    results, seeds = table
    trials = list(results)
    chance.shuffle(trials)
    known: dict[int, dict[int, dict]] = {t: {} for t in trials}
    while not (standing := race(known, seeds)).done:
        trial, number = chance.choice(standing.due)
        known[trial][number] = results[trial][number]
    assert standing == race(results, seeds)
    assert race(known, seeds) == standing
    assert sum(map(len, known.values())) <= len(trials) * seeds


def simulated(races, finalists, seeds, means):
    """How often the first is out, how often anybody is, and how many runs a race takes."""
    rng = np.random.default_rng(7)
    first = anybody = spent = 0
    for values in rng.normal(np.array(means)[:, None], 1.0, (races, finalists, seeds)):
        standing = race({t: runs(*map(float, row)) for t, row in enumerate(values)}, seeds)
        first += 0 in standing.dropped
        anybody += bool(standing.dropped)
        spent += sum(standing.ran(t) for t in range(finalists))
    return first / races, anybody / races, spent / races


def test_luck_seldom_decides():
    """Equal finalists: 5 % for a race as a whole, however often it looks; uncorrected it would be three times that."""
    first, anybody, _ = simulated(2000, 3, 3, (0, 0, 0))
    assert first < 0.03
    assert 0.01 < anybody < 0.075


def test_a_race_that_is_decided_early_spends_less():
    """The best is ahead by ten times the scatter: six runs of nine, or a few more."""
    first, _, spent = simulated(300, 3, 3, (10, 0, 0))
    assert first == 0
    assert spent < 6.5


# --- journals --------------------------------------------------------------------------------------------------------


def trial(number, top1, rung=9, **rest):
    state = TrialState(number, {}, "sampler", **rest)
    state.reports[rung] = Report(rung, True, top1, 1.0, 1.0)
    return state


def test_a_repeat_of_a_trial_is_no_finalist():
    state = JournalState(trials={0: trial(0, 0.5), 1: trial(1, 0.9, of=0)})
    assert [t.trial for t in ranking(state, 9)] == [0]


def test_the_rung_of_finalists():
    state = JournalState(trials={0: trial(0, 0.5, rung=3), 1: trial(1, 0.6, rung=1)})
    assert final_rung(state, Ladder((1, 3, 9), 3)) == 9
    assert final_rung(state, Ladder((1, 3, 9), 3, grow=True)) == 3
    assert final_rung(JournalState(), Ladder((1, 3, 9), 3, grow=True)) == 9


def test_jobs_say_what_they_are_and_old_ones_by_their_names():
    state = JournalState(
        jobs={
            "retrain-1": {"top1": 0.1},
            "rerun-t0012-1": {"top1": 0.2},
            "anything": {"top1": 0.3, "kind": "rerun", "trial": 12, "number": 0},
            job_name("retrain", 3, 0): {"detail": "diverged"},
            "else-0": {"top1": 0.4},
        }
    )
    jobs = finish_jobs(state)
    assert [(j.kind, j.trial, j.number, j.scored) for j in jobs] == [
        ("rerun", 12, 0, True), ("rerun", 12, 1, True), ("retrain", None, 1, True), ("retrain", 3, 0, False),
    ]  # fmt: skip
    assert jobs[0] == FinishJob("rerun", 12, 0, state.jobs["anything"])


def test_the_standing_of_a_journal():
    state = JournalState(trials={n: trial(n, 0.5 + n / 100) for n in range(4)})
    state.jobs = {
        job_name("rerun", t, n): {"top1": 0.5 + t / 10 + n / 1000, "loss": 1.0} for t in (2, 3) for n in (0, 1)
    }
    ladder = Ladder((3, 9), 3)
    standing = standing_of(state, ladder, Rerun(top=2, seeds=3))
    assert (standing.left, standing.dropped) == ((3,), {2: 2})
    assert standing_of(state, ladder, Rerun(top=3, seeds=3)).due == ((1, 0), (1, 1))
    without = standing_of(state, ladder, None)
    assert [s.trial for s in without.scores] == [3, 2, 1, 0]
    assert without.scores[0].values == (0.53,)
    assert (without.done, without.gap) == (True, None)
