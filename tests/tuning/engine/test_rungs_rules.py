"""Who goes on at a rung: order, quota, ties; `stop`, `promote`, brackets, ladders per method, growing ones, the end."""

from __future__ import annotations

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests_engine_helpers import TWO, Hand, setting_of

from tuning.engine.ladder import Ladder
from tuning.engine.rules import Rules
from tuning.engine.rungs import Table
from tuning.engine.state import COLLAPSED, DIVERGED, FAILED, Report

SCORES = st.one_of(st.none(), st.just(math.nan), st.sampled_from([0.0, 0.1, 0.2, 0.25, 0.3, 0.5, 1.0]))
LOSSES = st.one_of(st.none(), st.sampled_from([0.5, 1.0, 2.0]))
SAME = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])  # on a busy machine, too


def table_of(*entries: tuple[float | None, float | None]) -> Table:
    table = Table()
    for number, (value, loss) in enumerate(entries):
        table.add(number, value, loss)
    return table


# --- tables -----------------------------------------------------------------------------------------------------------


def test_order_is_score_then_loss_then_number():
    table = table_of((0.5, 1.0), (0.7, 9.0), (0.5, 0.5), (0.5, 0.5), (0.5, None), (0.5, math.nan))
    assert [e.trial for e in table.entries] == [1, 2, 3, 0, 4, 5]


def test_what_has_no_score_ranks_last_and_is_never_among_the_best():
    table = table_of((None, 0.1), (math.nan, 0.1), (0.0, 5.0), (None, None))
    assert table.entries[0].trial == 2
    assert list(table.best(4)) == [2]
    assert list(table.best(4, width=10.0)) == [2]
    assert list(table_of((None, 1.0), (None, 2.0), (math.nan, 0.0)).best(1)) == []
    assert table.quota(2) == 2  # but it counts as somebody who came here


def test_a_trial_counts_once_with_its_first_score():
    table = table_of((0.5, 1.0))
    table.add(0, 0.9, 0.1)
    assert len(table) == 1
    assert table.cut(1) == 0.5
    assert table.cut(2) is None
    assert table.cut(0) is None


def test_scores_within_the_width_of_the_cut_are_settled_by_the_loss():
    table = table_of((0.60, 3.0), (0.50, 2.0), (0.49, 1.0), (0.48, 0.5), (0.30, 0.1))
    assert list(table.best(2)) == [0, 1]
    assert list(table.best(2, width=0.015)) == [0, 2]  # 0.50 and 0.49 tie, 0.48 lies outside
    assert list(table.best(2, width=0.025)) == [0, 3]
    assert list(table.best(2, width=0.125)) == [3, 2]  # even the best is tied with the cut, and its loss is the worst


@given(st.lists(st.tuples(SCORES, LOSSES), max_size=14), st.integers(0, 15), st.sampled_from([0.0, 0.05, 0.3, 5.0]))
@SAME
def test_ties_keep_to_the_count(entries, count, width):
    table = table_of(*entries)
    best = list(table.best(count, width))
    scored = sorted((v for v, _ in entries if v is not None and not math.isnan(v)), reverse=True)
    assert len(best) == len(set(best)) == min(count, len(scored))
    if best:
        cut = scored[len(best) - 1]
        chosen = [entries[n][0] for n in best]
        assert all(value >= cut - width - 1e-12 for value in chosen)
        clear = [n for n, (v, _) in enumerate(entries) if v is not None and v > cut + width + 1e-12]
        assert set(clear) <= set(best)  # who is better by more than the noise is never left behind


# --- ladders ----------------------------------------------------------------------------------------------------------


def test_brackets_are_dealt_equal_epochs():
    """Of rungs 1, 3, 9 by 3 a trial takes 1 + 2/3 + 6/9 epochs on average, one that skips the first 3 + 6/3."""
    ladder = Ladder((1, 3, 9), 3, brackets=2)
    dealt = [0, 0]
    order = []
    for _ in range(220):
        order.append(ladder.next_bracket(dealt))
        dealt[order[-1]] += 1
    assert order[:4] == [0, 1, 0, 0]
    assert dealt == [150, 70]  # 150 * 7/3 = 70 * 5
    assert Ladder((1, 3, 9), 3, brackets=9).bracket_count == 3
    assert [ladder.first(b) for b in (0, 1, 2, 5)] == [1, 3, 9, 9]
    assert [ladder.next_rung(e) for e in (0, 1, 2, 3, 8, 9)] == [1, 3, 3, 9, 9, 9]


# --- stop -------------------------------------------------------------------------------------------------------------


def stop_hand(count: int, **words) -> Hand:
    hand = Hand(setting_of("stop", budget={"trials": count}, **words))
    assert hand.ask_many(count) == list(range(count))
    return hand


def test_stop_decides_nothing_before_eta_values_and_then_on_all_who_waited():
    hand = stop_hand(4)
    assert hand.score(0, 1, 0.5) == "pause"
    assert hand.score(1, 1, 0.7) == "pause"
    assert hand.events.told("end", "decide") == [("decide", 0, 1, "pause"), ("decide", 1, 1, "pause")]
    assert hand.ask() is None  # trial 2 and 3 are at work, and nobody may go on
    assert hand.score(2, 1, 0.6) == "culled"
    assert hand.events.told("end", "decide")[2:] == [("end", 2, "culled"), ("end", 0, "culled"), ("decide", 1, 1, "go")]
    assert hand.state.trials[0].detail == "culled at 1: 50.0 < 70.0"
    assert hand.table(1) == ([1, 2, 0], [1])
    assert hand.ask() == 1


def test_stop_counts_a_trials_own_value():
    hand = stop_hand(6)
    for number, value in enumerate((0.1, 0.2, 0.3)):
        hand.score(number, 1, value)
    assert hand.state.trials[2].verdicts == {1: "go"}
    assert hand.score(3, 1, 0.4) == "go"  # 1 of 4 may go on: the best so far is this one itself
    assert hand.score(4, 1, 0.35) == "culled"
    assert hand.score(5, 1, 0.36) == "go"  # 2 of 6, and it ranks second
    assert hand.table(1) == ([3, 5, 4, 2, 1, 0], [2, 3, 5])


def test_stop_breaks_ties_by_the_loss_then_by_the_number():
    hand = stop_hand(2, eta=2)
    assert hand.score(0, 1, 0.5, loss=1.0) == "pause"
    assert hand.score(1, 1, 0.5, loss=0.5) == "go"
    assert hand.state.trials[0].ended == "culled"
    hand = stop_hand(2, eta=2)
    hand.score(1, 1, 0.5, loss=1.0)
    assert hand.score(0, 1, 0.5, loss=1.0) == "go"
    assert hand.state.trials[1].ended == "culled"
    hand = stop_hand(2, eta=2)
    hand.score(0, 1, 0.5, loss=None)
    assert hand.score(1, 1, 0.5, loss=50.0) == "go"  # a loss that is not known ranks behind any


def test_reports_enter_the_table_of_their_own_rung_alone():
    """As a late report of epoch 9 would fill the rungs below in a scheduler that asks for `epoch >= rung`."""
    hand = stop_hand(2, eta=2)
    assert hand.score(0, 2, 0.9) == "go"  # scored between two rungs: kept, and of no consequence
    assert hand.engine.rules.tables == {}
    assert hand.score(0, 3, 0.8) == "pause"
    assert set(hand.engine.rules.tables) == {("", 0, 3)}
    assert hand.score(1, 1, 0.1) == "pause"  # the only one at its rung
    assert hand.table(1) == ([1], [])
    assert hand.table(3) == ([0], [])
    assert hand.score(0, 1, 0.7) == "go"  # late: whoever is at 3 does not compete at 1
    assert hand.table(1) == ([1], [])
    assert hand.state.trials[0].verdicts == {3: "pause"}
    assert Rules(hand.engine.ladder, hand.state).tables == hand.engine.rules.tables


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
def test_a_score_that_is_none_ends_the_trial_and_ranks_last(value):
    hand = stop_hand(4, eta=2)
    assert hand.score(0, 1, value) == "diverged"
    assert hand.score(1, 1, 0.0, loss=value) == "go"  # 1 of 2: the other one has no score
    assert hand.score(2, 1, value, loss=0.1) == "diverged"
    assert hand.score(3, 1, value) == "diverged"  # 2 of 4 might go on, but one alone could be scored
    assert hand.table(1) == ([1, 0, 2, 3], [1])


@pytest.mark.parametrize("reason", [DIVERGED, COLLAPSED, FAILED])
def test_faulty_trials_count_where_they_were_going_and_settle_who_waits(reason):
    hand = stop_hand(3)
    assert hand.score(0, 1, 0.2) == "pause"
    hand.engine.ended(1, reason)
    assert hand.state.trials[0].paused
    hand.engine.ended(2, reason)
    assert hand.table(1) == ([0, 1, 2], [0])  # three are in, and the best third goes on at once
    assert hand.ask() == 0
    hand.engine.ended(0, reason)
    assert hand.table(3) == ([0], [])
    assert hand.engine.finished


def test_nobody_goes_on_where_all_are_faulty():
    hand = stop_hand(4, eta=2)
    for number in range(4):
        hand.engine.ended(number, COLLAPSED, "spread 0.001")
    assert hand.table(1) == ([0, 1, 2, 3], [])
    assert hand.ask() is None
    assert hand.engine.finished


# --- promote ----------------------------------------------------------------------------------------------------------


def promote_hand(count: int, **words) -> Hand:
    hand = Hand(setting_of("promote", budget={"trials": count}, **words))
    assert hand.ask_many(count) == list(range(count))
    return hand


def test_promote_keeps_room_when_every_newcomer_is_better():
    """Without the limit on who left, each of these would be promoted as it comes: 9 of 9 instead of 3."""
    hand = promote_hand(9)
    words = [hand.score(n, 1, 0.1 + n / 100) for n in range(9)]
    assert words == ["pause", "pause", "go"] * 3
    assert hand.table(1) == ([8, 7, 6, 5, 4, 3, 2, 1, 0], [2, 5, 8])


def test_promote_lets_somebody_on_when_there_is_room_and_ends_nobody():
    hand = promote_hand(4)
    assert [hand.score(0, 1, 0.9), hand.score(1, 1, 0.1), hand.score(2, 1, 0.05)] == ["pause"] * 3
    segment = hand.engine.ask()
    assert (segment.trial, segment.after) == (0, 1)
    assert hand.ask() is None  # trial 3 is at work; 1 of 3 is on its way
    assert hand.events.told("end") == []
    assert hand.score(3, 1, 0.95) == "pause"  # better than all, but who went cannot come back
    assert hand.table(1) == ([3, 0, 1, 2], [0])


def test_promote_takes_the_highest_rung_first():
    hand = promote_hand(10, eta=2)
    for number, value in enumerate((0.5, 0.6, 0.7, 0.8)):
        hand.score(number, 1, value)
    assert hand.table(1)[1] == [1, 3]
    assert hand.score(1, 3, 0.5) == "pause"
    hand.score(4, 1, 0.9)
    hand.score(5, 1, 0.85)  # room for 1 of those at rung 1: trial 4
    assert hand.table(1)[1] == [1, 3]
    assert hand.score(3, 3, 0.4) == "pause"  # room for 1 of those at rung 3: trial 1
    asked = [hand.engine.ask() for _ in range(3)]
    assert [(s.trial, s.after) for s in asked if s] == [(1, 3), (4, 1)]


@pytest.mark.parametrize("width", [0.0, 0.15])
@given(values=st.lists(st.tuples(SCORES, LOSSES), min_size=1, max_size=25), eta=st.integers(2, 4))
@SAME
def test_no_more_than_one_in_eta_leaves_a_rung(width, values, eta):
    hand = Hand(setting_of("promote", eta=eta, budget={"trials": 30}), width=lambda table, rung: width)
    hand.ask_many(len(values))
    for number, (value, loss) in enumerate(values):
        hand.score(number, 1, value, loss)
        for _, table in hand.engine.rules.tables.items():
            assert len(table.went) <= len(table) // eta
            assert all(table.known[n].minus < math.inf for n in table.went)
    while (number := hand.engine.rules.promotable()) is not None:
        assert hand.ask() == number
        assert len(hand.table(1)[1]) <= len(values) // eta
    scored = sum(1 for value, _ in values if value is not None and not math.isnan(value))
    went = hand.table(1)[1]
    assert len(went) <= min(scored, len(values) // eta)
    top = list(hand.engine.rules.tables["", 0, 1].best(len(values) // eta, width))
    assert len(went) == len(values) // eta or set(top) <= set(went)  # room is left only where nobody is to come


def test_who_ended_while_it_waited_leaves_no_room_to_a_worse_one():
    hand = promote_hand(3)
    hand.score(0, 1, 0.9)
    hand.engine.cancel(0, "by hand")
    hand.score(1, 1, 0.5)
    assert hand.score(2, 1, 0.4) == "pause"
    assert hand.engine.rules.promotable() is None  # trial 1 is not among the best third
    assert hand.ask() == 1  # but a search ends with a full run


# --- groups -----------------------------------------------------------------------------------------------------------


def test_methods_have_ladders_of_their_own_below_the_top():
    hand = Hand(setting_of("stop", (1, 2), eta=2, startup=4, per_method=True, budget={"trials": 4}), TWO)
    hand.ask_many(4)
    assert [hand.state.trials[n].draws["method"] for n in range(4)] == ["a", "b", "a", "b"]
    hand.score(0, 1, 0.9)
    assert hand.score(1, 1, 0.1) == "pause"  # the first of its method
    assert hand.score(2, 1, 0.8) == "culled"
    assert hand.score(3, 1, 0.2) == "go"  # a quarter of what the other method gives
    assert hand.table(1, "a") == ([0, 2], [0])
    assert hand.table(1, "b") == ([3, 1], [3])
    assert [hand.score(0, 2, 0.9), hand.score(3, 2, 0.2)] == ["top", "top"]
    assert hand.table(2) == ([0, 3], [])  # full runs are compared whatever their method


def test_a_bracket_is_decided_on_from_its_own_rung_among_its_own():
    hand = Hand(setting_of("stop", (1, 2, 4), eta=2, brackets=2, budget={"trials": 6}))
    hand.ask_many(6)
    brackets = [hand.state.trials[n].bracket for n in range(6)]
    assert brackets == [0, 1, 0, 1, 0, 0]
    assert hand.score(1, 1, 0.01) == "go"  # not decided on, however bad
    assert hand.events.told("decide", "end") == []
    assert hand.engine.rules.tables == {}
    assert hand.score(1, 2, 0.3) == "pause"
    assert [hand.score(0, 1, 0.9), hand.score(2, 1, 0.8)] == ["pause", "culled"]
    assert hand.score(0, 2, 0.95) == "pause"
    assert hand.score(3, 1, 0.0) == "go"
    assert hand.score(3, 2, 0.2) == "culled"
    assert hand.table(2, bracket=1) == ([1, 3], [1])
    assert hand.table(2, bracket=0) == ([0], [])
    hand.engine.ended(4, COLLAPSED)
    assert hand.table(1) == ([0, 2, 4], [0])


# --- growing ladders --------------------------------------------------------------------------------------------------


def grown_hand(width: float = 0.0) -> Hand:
    """Three trials of rungs 1, 2, 4, 8 at rung 2; the ladder's height is 2."""
    setting = setting_of("promote", (1, 2, 4, 8), eta=2, grow=True, budget={"trials": 6})
    hand = Hand(setting, width=lambda table, rung: width)
    hand.ask_many(6)
    for number, value in enumerate((0.5, 0.60, 0.5, 0.62, 0.5, 0.7)):
        hand.score(number, 1, value)
    assert hand.table(1)[1] == [1, 3, 5]
    assert hand.engine.rules.cap == 2
    return hand


def test_a_ladder_stays_while_the_order_stays():
    hand = grown_hand()
    assert [hand.score(5, 2, 0.9), hand.score(3, 2, 0.8), hand.score(1, 2, 0.7)] == ["pause"] * 3
    assert hand.events.told("grow") == []
    assert hand.engine.rules.promotable() is None  # 2 of 3 might go on, but nobody goes above the height


def test_a_ladder_grows_when_the_order_changes():
    hand = grown_hand()
    hand.score(5, 2, 0.9)
    assert hand.score(1, 2, 0.8) == "pause"
    assert hand.events.told("grow") == []
    assert hand.score(3, 2, 0.7) == "pause"  # 3 was ahead of 1
    assert hand.events.told("grow") == [("grow", 4)]
    assert hand.engine.rules.cap == 4
    assert hand.ask() == 5  # 1 of 3 by eta 2
    assert hand.score(5, 4, 0.9) == "pause"
    assert hand.engine.rules.cap == 4


def test_a_ladder_does_not_grow_for_a_change_within_the_noise():
    hand = grown_hand(width=0.03)
    hand.score(5, 2, 0.9)
    hand.score(1, 2, 0.8)
    hand.score(3, 2, 0.7)  # 0.62 and 0.60 had no order
    assert hand.events.told("grow") == []
    hand = grown_hand(width=0.01)
    hand.score(5, 2, 0.9)
    hand.score(1, 2, 0.8)
    hand.score(3, 2, 0.7)
    assert hand.events.told("grow") == [("grow", 4)]


def test_a_trial_that_fails_on_its_way_to_the_highest_rung_changes_the_order():
    hand = grown_hand()
    hand.score(1, 2, 0.8)
    hand.engine.ended(5, COLLAPSED)  # it was the best below
    assert hand.events.told("grow") == [("grow", 4)]


def test_a_search_on_a_growing_ladder_ends_with_a_full_run():
    """Only full runs are finalists: the best climbs on where the ladder never grew."""
    hand = grown_hand()
    for number, value in ((5, 0.9), (3, 0.8), (1, 0.7)):
        hand.score(number, 2, value)
    for epoch, word in ((4, "pause"), (8, "top")):
        assert not hand.engine.finished
        assert hand.ask() == 5
        assert hand.ask() is None
        assert hand.score(5, epoch, 0.9) == word
    assert hand.events.told("grow") == []
    assert hand.engine.finished


# --- the last chance --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["stop", "promote"])
def test_too_few_for_a_decision_still_end_with_a_full_run(rule):
    hand = Hand(setting_of(rule, budget={"trials": 2}))
    assert hand.ask_many(2) == [0, 1]
    hand.score(0, 1, 0.3)
    assert hand.ask() is None  # not while somebody is at work: better ones may come
    hand.score(1, 1, 0.4)
    for epoch in (3, 9):
        assert hand.ask() == 1
        assert hand.ask() is None
        hand.score(1, epoch, 0.1)
    assert hand.state.trials[1].ended == "top"
    if rule == "stop":  # fewer than eta were judged at rung 1, and the best of them went: the other waits
        assert hand.state.trials[0].paused
    assert hand.engine.finished
    hand.engine.conclude()
    assert hand.state.trials[0].ended == "culled"
    assert hand.state.trials[0].detail == "waited at 1 until the end"


def test_the_next_best_goes_when_the_best_fails_on_its_way():
    hand = promote_hand(3)
    for number, value in enumerate((0.5, 0.6, 0.7)):
        hand.score(number, 1, value)
    hand.engine.ended(2, COLLAPSED)
    assert hand.ask() == 1
    hand.engine.ended(1, DIVERGED)
    assert hand.ask() == 0
    assert [hand.score(0, 3, 0.1), hand.score(0, 9, 0.1)] == [
        "go",
        "top",
    ]  # the best third at rung 3: the others failed
    assert hand.engine.finished


def test_nothing_is_left_when_nobody_could_be_scored():
    hand = promote_hand(3)
    for number in range(3):
        hand.score(number, 1, None)
    assert hand.ask() is None
    assert hand.engine.finished
    assert [t.ended for t in hand.state.ended] == ["diverged"] * 3


@given(
    st.data(),
    st.sampled_from([{}, {"grow": True}, {"brackets": 2}, {"per_method": True}, {"repeats": 3}]),
    st.integers(1, 9),
    st.integers(1, 3),
)
@SAME
def test_a_search_by_promotion_ends_with_a_full_run_if_any_trial_could_have_one(data, words, trials, workers):
    hand = Hand(setting_of("promote", (1, 2, 4), eta=2, startup=2, budget={"trials": trials}, **words), TWO)
    at_work: list[int] = []
    for _ in range(500):
        while len(at_work) < workers and (number := hand.ask()) is not None:
            at_work.append(number)
        if not at_work:
            break
        number = at_work.pop(data.draw(st.integers(0, len(at_work) - 1)))
        epoch = hand.engine.ladder.next_rung(hand.state.trials[number].epochs)
        if hand.score(number, epoch, data.draw(st.sampled_from([None, 0.1, 0.2, 0.3]))) == "go":
            at_work.append(number)
    assert hand.engine.finished
    top = [t for t in hand.state.trials.values() if t.ended == "top"]
    waiting = hand.state.pending
    assert top or not waiting
    assert all(t.paused for t in waiting)
    rules = Rules(hand.engine.ladder, hand.state)  # a replay has the same tables
    assert rules.tables == {key: table for key, table in hand.engine.rules.tables.items() if len(table)}


def test_the_last_one_to_go_on_is_the_best_of_all_methods() -> None:
    """With a ladder per method, and room in none, it is not the first name of the alphabet that climbs."""
    hand = Hand(setting_of(startup=4, per_method=True, budget={"trials": 4}), TWO)
    asked = [hand.ask() for _ in range(4)]
    assert {hand.state.trials[number].draws["method"] for number in asked} == {"a", "b"}
    for number in asked:
        score = 0.8 if hand.state.trials[number].draws["method"] == "b" else 0.2
        hand.engine.report(number, Report(1, True, score - 0.01 * number, 1.0, 1.0))
    climber = hand.ask()
    assert climber == min(n for n in asked if hand.state.trials[n].draws["method"] == "b")
