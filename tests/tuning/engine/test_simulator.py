"""Searches in simulated time, and the curves that journals give: replayed trials, and a surrogate of them."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter

import numpy as np
import pytest

from methods.errors import InputError
from tuning.config.schema import BudgetSpec, SamplerSpec
from tuning.engine.choices import Choices
from tuning.engine.curves import ReplayedCurves, SurrogateCurves, between, record
from tuning.engine.journal import Events
from tuning.engine.ladder import Ladder
from tuning.engine.segment import Segment
from tuning.engine.simulator import Point, simulate
from tuning.engine.state import CULLED, DIVERGED, TOP, Report
from tuning.engine.surrogate import FEW, Observed, Surrogate, rank_correlation
from tuning.engine.virtual import Setting, Virtual, make_engine
from tuning.space.domains import Draw

LR = Draw("optim/lr", "float", 1e-4, 1e-1, log=True)
SIDE = Draw("method/a/side", "categorical", choices=("left", "right"))
CHOICES = Choices((("a", (LR, SIDE)), ("b", (LR,))))
RUNGS = (1, 3, 9)


def score(draws, epoch):
    """Best at a rate of 0.003; method b is worse, and later epochs are better."""
    place = (math.log10(draws["optim/lr"]) + 2.5) ** 2
    own = 0.1 if draws["method"] == "b" else 0.05 * (draws.get("method/a/side") == "left")
    return max(0.0, (0.9 - 0.2 * place - own) * (1 - 0.4 / epoch))


class Analytic:
    """Epochs of different lengths; says what it was asked for."""

    def __init__(self):
        self.asked = []

    def point(self, trial, draws, epoch):
        self.asked.append((trial, epoch))
        return Point(1.0 + trial % 3, score(draws, epoch))


class Kept(Events):
    """Keeps its events, without the machine's clock."""

    def __init__(self):
        super().__init__(clock=lambda: 0.0)
        self.events = []

    def append(self, event, *, sync=True):
        super().append(event, sync=sync)
        self.events.append({key: value for key, value in event.items() if key != "time"})


def search(workers, trials=40, rule="promote", sampler="random", seed=0, **words):
    ladder = Ladder(RUNGS, 3, rule=rule, **words)
    events, curves = Kept(), Analytic()
    setting = Setting(ladder, SamplerSpec(name=sampler), BudgetSpec(trials=trials), seed)
    engine = make_engine(events, CHOICES, setting)
    seen = simulate(Virtual(engine), curves, RUNGS, workers)
    return events, curves, seen, engine


# --- the loop -------------------------------------------------------------------------------------------------------


class Script:
    """Gives trials in order; those in ``stop`` end at their first score."""

    def __init__(self, trials, stop=()):
        self.left, self.stop = list(trials), set(stop)

    def ask(self):
        return Segment(self.left.pop(0), {}) if self.left else None

    def report(self, trial, epoch, point):
        return trial not in self.stop


class Lengths:
    """Trial 0 takes a second an epoch, trial 1 two, ..."""

    def point(self, trial, draws, epoch):
        return Point(trial + 1.0, trial / 10)


def test_scores_come_in_the_order_of_simulated_time():
    seen = simulate(Script([0, 1, 2]), Lengths(), (1, 2), workers=2)
    told = [(s.clock, s.trial, s.epoch, s.epochs) for s in seen]
    # at 2 the second worker is at its first score, and the first one is free for trial 2
    assert told == [(1, 0, 1, 1), (2, 1, 1, 2), (2, 0, 2, 3), (4, 1, 2, 4), (5, 2, 1, 5), (8, 2, 2, 6)]


def test_whoever_is_stopped_makes_room():
    seen = simulate(Script([0, 1, 2], stop=[0, 1]), Lengths(), (1, 3), workers=1)
    assert [(s.trial, s.epoch) for s in seen] == [(0, 1), (1, 1), (2, 1), (2, 3)]
    assert seen[-1].epochs == 5 and seen[-1].clock == 1 + 2 + 3 * 3


def test_it_ends_when_epochs_or_seconds_are_spent():
    assert simulate(Script([0, 1, 2]), Lengths(), (1, 2), workers=2, epochs=3)[-1].epochs == 3
    assert [s.clock for s in simulate(Script([0, 1, 2]), Lengths(), (1, 2), workers=2, seconds=4.5)] == [1, 2, 2, 4]


# --- whole searches -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["stop", "promote"])
@pytest.mark.parametrize(("sampler", "trials"), [("random", 40), ("tpe", 16)])
def test_the_same_search_twice_decides_the_same(rule, sampler, trials):
    first, second = (search(5, trials, rule, sampler)[0].events for _ in range(2))
    assert first == second
    other = search(5, trials, rule, sampler, seed=1)[0].events
    assert first != other


@pytest.mark.parametrize("workers", [1, 2, 16])
@pytest.mark.parametrize(
    "words",
    [
        *({"rule": rule, **more} for rule in ("stop", "promote") for more in ({}, {"brackets": 2}, {"repeats": 3})),
        {"rule": "stop", "per_method": True},
        {"rule": "promote", "grow": True},
    ],
    ids=str,
)
def test_no_epoch_is_trained_twice_and_none_is_left_out(workers, words):
    events, curves, seen, engine = search(workers, **words)
    assert max(Counter(curves.asked).values()) == 1
    for number, trial in events.state.trials.items():
        epochs = [epoch for n, epoch in curves.asked if n == number]
        assert epochs == list(range(1, len(epochs) + 1))  # in order, from the first
        scored = [s.epoch for s in seen if s.trial == number]
        assert scored == [rung for rung in RUNGS if rung <= len(epochs)] and scored[-1] == len(epochs)
        assert trial.ended in (TOP, CULLED, "repeated", None)
        assert (trial.ended == TOP) == (len(epochs) == RUNGS[-1])
    assert events.state.count == 40
    assert engine.finished


@pytest.mark.parametrize("workers", [1, 4, 32])
def test_promotion_never_lets_more_than_its_share_go_on(workers):
    *_, engine = search(workers, trials=90)
    tables = {epoch: table for (_, _, epoch), table in engine.rules.tables.items()}
    assert len(tables[1]) == 90
    for epoch in (1, 3):
        assert len(tables[epoch].went) <= len(tables[epoch]) // 3
        assert len(tables[epoch].went) >= len(tables[epoch]) // 3 - 1 - workers // 3  # nor leaves room unused
    assert len(tables[9]) == len(tables[3].went)


def test_workers_share_the_time_and_not_the_work():
    alone, many = (search(workers, trials=90)[2] for workers in (1, 9))
    assert alone[-1].clock > 6 * many[-1].clock
    assert abs(alone[-1].epochs - many[-1].epochs) < 0.2 * alone[-1].epochs


# --- what journals say ----------------------------------------------------------------------------------------------


def journal(*trials):
    """A state of (draws, {epoch: score}, end or None); every epoch takes two seconds."""
    events = Events(clock=lambda: 0.0)
    for draws, scores, ended in trials:
        number = events.ask(draws, "random")
        for epoch in range(1, max(scores, default=1) + 1):
            found = scores.get(epoch)
            events.report(number, Report(epoch, found is not None, found, found and 1 - found, 2.0))
        if ended:
            events.end(number, ended)
    return events.state


def a(lr, side="left"):
    return {"method": "a", "optim/lr": lr, "method/a/side": side}


def b(lr):
    return {"method": "b", "optim/lr": lr}


def many(count, seed=0):
    """Trials that climbed the ladder, one in three at each rung."""
    rng = np.random.default_rng(seed)
    drawn = [CHOICES.sample(rng, "ab"[i % 2]) for i in range(count)]
    climbed = {}
    for rung in RUNGS:
        alive = [i for i in range(count) if rung == 1 or climbed.get(i, (0,))[-1] == RUNGS[RUNGS.index(rung) - 1]]
        for i in sorted(alive, key=lambda i: -score(drawn[i], rung))[: max(1, len(alive) // (1 if rung == 1 else 3))]:
            climbed[i] = (*climbed.get(i, ()), rung)
    return journal(*((d, {r: score(d, r) for r in climbed[i]}, CULLED) for i, d in enumerate(drawn)))


def test_trials_that_do_not_fit_are_counted_by_what_does_not():
    state = journal(
        (a(0.01), {1: 0.5}, CULLED),
        ({"method": "c"}, {1: 0.5}, CULLED),
        ({"method": "a", "optim/lr": 0.01}, {1: 0.5}, CULLED),
        ({**b(0.01), "more": 1}, {1: 0.5}, CULLED),
        (b(0.5), {1: 0.5}, CULLED),
        (b(0.01), {}, CULLED),
        (b(0.01), {}, DIVERGED),
    )
    repeat = Events(clock=lambda: 0.0)
    repeat.state = state
    repeat.ask(a(0.01), "repeat", of=0)
    found = record(CHOICES, {"x": state})
    assert [(t.trial, t.faulty) for t in found.trials] == [(0, False), (6, True)]
    assert dict(found.left) == {
        "of method 'c', which is not in the space": 1,
        "without draw 'method/a/side'": 1,
        "with draw 'more', which is not in the space": 1,
        "with 'optim/lr' out of the space's bounds": 1,
        "without a score": 1,
        "that repeat another one": 1,
    }
    assert found.seconds() == {"a": 2.0, "b": 2.0}


def test_nothing_that_fits_is_a_fault():
    with pytest.raises(InputError, match="no recorded trial has a score and fits the space; left out: 2 of method 'c'"):
        record(CHOICES, {"x": journal(({"method": "c"}, {1: 0.5}, None), ({"method": "c"}, {1: 0.5}, None))})


def test_rungs_of_several_journals():
    states = {
        "early": journal((a(0.01), {1: 0.3, 3: 0.5, 9: 0.6}, TOP)),
        "late": journal((b(0.01), {2: 0.4, 6: 0.5, 9: 0.7}, TOP)),
    }
    found = record(CHOICES, states)
    assert (found.rungs, found.skipped) == ((2, 3, 6, 9), (1,))
    early, late = (t.first_scores(found.rungs) for t in found.trials)
    assert early[1] == 0.5 and early[3] == 0.6 and 0.3 < early[0] < 0.5 < early[2] < 0.6
    assert late[0] == 0.4 and late[2:] == (0.5, 0.7)


def test_between_knots_a_curve_is_straight_in_log_epochs():
    knots = {1: 0.2, 4: 0.6, 16: 0.8}
    assert [between(knots, epoch) for epoch in (1, 4, 16)] == [0.2, 0.6, 0.8]
    assert between(knots, 2) == pytest.approx(0.4) and between(knots, 8) == pytest.approx(0.7)
    assert between(knots, 99) == 0.8


# --- replays --------------------------------------------------------------------------------------------------------


def replayed(state):
    found = record(CHOICES, {"x": state})
    surrogate = Surrogate(CHOICES, found.rungs, found.observed())
    return found, ReplayedCurves(found, surrogate, found.seconds())


def test_recorded_scores_come_back_exactly_and_others_are_told_apart():
    found, curves = replayed(many(60))
    asked = 0
    for place, tried in enumerate(found.trials):
        curves.assign(100 + place, place)
        for rung in RUNGS:
            point = curves.point(100 + place, tried.draws, rung)
            assert point.seconds == 2.0
            assert curves.recorded(100 + place, rung) == (rung in tried.scores)
            if rung in tried.scores:
                assert (point.value, point.loss) == tried.scores[rung]
            else:
                asked += 1
                assert point.value is not None and abs(point.value - score(tried.draws, rung)) < 0.25
    assert asked == 60 * 3 - sum(len(t.scores) for t in found.trials) > 60


def test_twins_keep_their_own_scores():
    _, curves = replayed(
        journal((b(0.01), {1: 0.3, 3: 0.4}, TOP), (b(0.01), {1: 0.5, 3: 0.6}, TOP), (a(0.01), {1: 0.1}, CULLED))
    )
    curves.assign(7, 1)
    curves.assign(8, 0)
    assert [curves.point(t, b(0.01), e).value for t, e in ((7, 1), (7, 3), (8, 1), (8, 3))] == [0.5, 0.6, 0.3, 0.4]
    assert curves.point(7, b(0.01), 2).value == pytest.approx(0.5 + 0.1 * math.log(2) / math.log(3))
    assert not curves.recorded(7, 2)


def test_a_trial_that_diverged_diverges_there_again():
    trials = [(b(0.01), {1: 0.3, 3: 0.4, 9: 0.5}, TOP), (b(0.05), {1: 0.35}, DIVERGED), (a(0.01), {1: 0.1}, CULLED)]
    _, curves = replayed(journal(*trials))
    curves.assign(0, 1)
    assert curves.point(0, b(0.05), 1).value == 0.35
    assert [curves.point(0, b(0.05), epoch).value for epoch in (2, 3, 9)] == [None, None, None]
    assert curves.recorded(0, 3)  # that it cannot be trained is known


# --- the surrogate --------------------------------------------------------------------------------------------------


def surrogate_of(state):
    found = record(CHOICES, {"x": state})
    return Surrogate(CHOICES, found.rungs, found.observed())


def test_the_surrogate_knows_what_it_was_told_and_guesses_the_rest():
    surrogate = surrogate_of(many(120))
    rng = np.random.default_rng(5)
    new = [CHOICES.sample(rng) for _ in range(80)]
    paths = np.array([surrogate.path(draws) for draws in new])
    real = np.array([[score(draws, rung) for rung in RUNGS] for draws in new])
    assert rank_correlation(paths[:, 0], real[:, 0]) > 0.95
    assert rank_correlation(paths[:, 2], real[:, 2]) > 0.8
    assert np.abs(paths[:, 0] - real[:, 0]).mean() < 0.03


def test_the_same_draws_always_score_the_same():
    surrogate = surrogate_of(many(40))
    first, second = (SurrogateCurves(surrogate, {"a": 1.0, "b": 3.0}) for _ in range(2))
    draws = CHOICES.sample(np.random.default_rng(9), "b")
    values = [first.point(0, draws, epoch).value for epoch in range(1, 10)]
    assert values == [second.point(17, dict(reversed(draws.items())), epoch).value for epoch in range(1, 10)]
    assert values[0] == surrogate.path(draws)[0] and values[8] == surrogate.path(draws)[2]
    assert min(values[0], values[2]) <= values[1] <= max(values[0], values[2])
    assert first.point(0, draws, 1).seconds == 3.0
    assert first.point(1, {**draws, "optim/lr": draws["optim/lr"] * 1.0001}, 1).value != values[0]  # another luck


def test_noise_is_as_large_as_what_leaving_one_out_leaves():
    rng = np.random.default_rng(0)
    one = Choices((("b", (LR,)),))
    seen = [Observed(one.sample(rng), (float(0.5 + 0.05 * rng.standard_normal()),)) for _ in range(150)]
    surrogate = Surrogate(one, (9,), seen)  # the rate says nothing: all is noise
    (trust,) = surrogate.trust()
    assert trust.error == pytest.approx(0.05, rel=0.2) and trust.spread == pytest.approx(0.05, rel=0.2)
    assert trust.correlation is None or abs(trust.correlation) < 0.3
    told = np.array([surrogate.path(one.sample(rng))[0] for _ in range(300)])
    assert told.std() == pytest.approx(0.05, rel=0.25) and told.mean() == pytest.approx(0.5, abs=0.02)


def test_leaving_one_out_is_what_a_fit_without_it_says():
    rng = np.random.default_rng(1)
    one = Choices((("b", (LR,)),))
    seen = [
        Observed(d, (score(d, 1) + 0.02 * float(rng.standard_normal()),)) for d in (one.sample(rng) for _ in range(12))
    ]
    whole = Surrogate(one, (1,), seen)._steps["b"][0].fit
    rest = np.delete(np.arange(12), 4)
    inverse = np.linalg.inv(_kernel(whole, whole.rows[rest]) + _ridge(whole) * np.eye(11))
    values = np.array([o.scores[0] for o in seen])
    by_hand = _kernel(whole, whole.rows[rest], whole.rows[4:5])[0] @ inverse @ values[rest]
    assert whole.at(whole.rows[4], without=4) == pytest.approx(by_hand, abs=1e-8)
    assert abs(whole.at(whole.rows[4]) - values[4]) < abs(by_hand - values[4])


def _kernel(fit, rows, others=None):
    others = rows if others is None else others
    return np.exp(-((others[:, None, 0] - rows[None, :, 0]) ** 2) / fit.scale) + 100.0


def _ridge(fit):
    whole = np.linalg.inv(fit.inverse) - _kernel(fit, fit.rows)
    return float(np.diag(whole).mean())


def test_trials_that_failed_make_their_neighbours_fail():
    one = Choices((("b", (LR,)),))
    rng = np.random.default_rng(2)
    drawn = [one.sample(rng) for _ in range(80)]
    seen = [Observed(d, (0.5,), faulty=True) if d["optim/lr"] > 0.02 else Observed(d, (0.5, 0.6)) for d in drawn]
    surrogate = Surrogate(one, (1, 3), seen)
    high, low = (surrogate.path({"method": "b", "optim/lr": lr}) for lr in (0.08, 0.0003))
    assert high == (pytest.approx(0.5, abs=1e-3), None)
    assert low == (pytest.approx(0.5, abs=1e-3), pytest.approx(0.6, abs=1e-3))


def test_too_few_trials_at_a_rung_borrow_from_other_methods():
    trials = [(a(10.0 ** -(1 + i / 5)), {1: 0.4 + i / 100, 3: 0.5 + i / 100}, CULLED) for i in range(12)]
    trials += [(b(0.01), {1: 0.2}, CULLED), (b(0.02), {1: 0.2}, CULLED)]
    surrogate = surrogate_of(journal(*trials))
    first, third = surrogate.path(b(0.015))
    assert first == pytest.approx(0.2, abs=0.15)  # its own mean, and the noise of all
    assert third - first == pytest.approx(0.1, abs=0.03)  # what three epochs add to the others
    few = next(t for t in surrogate.trust() if (t.method, t.epochs) == ("b", 1))
    assert (few.trials, few.error, few.correlation) == (2, None, None) and few.trials < FEW


def test_ranks_of_equals_are_shared():
    assert rank_correlation(np.array([1.0, 1.0, 2.0]), np.array([3.0, 3.0, 9.0])) == pytest.approx(1.0)
    assert rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0])) == pytest.approx(-1.0)
    assert rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([5.0, 5.0, 5.0])) is None


def test_a_search_on_a_surrogate_finds_what_is_good():
    surrogate = surrogate_of(many(120))
    setting = Setting(Ladder(RUNGS, 3, rule="promote"), SamplerSpec(name="random"), BudgetSpec(trials=60))
    engine = make_engine(Kept(), CHOICES, setting)
    simulate(Virtual(engine), SurrogateCurves(surrogate, {"a": 1.0, "b": 1.0}), RUNGS, 4)
    full = [t for t in engine.state.trials.values() if t.ended == TOP]
    best = max(full, key=lambda t: t.reports[9].top1)
    assert score(best.draws, 9) > 0.93 * max(score(t.draws, 9) for t in engine.state.trials.values())
    assert dataclasses.asdict(best)["of"] is None
