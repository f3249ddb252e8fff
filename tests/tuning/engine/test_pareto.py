"""Two objectives: fronts and crowding in closed form, what rungs make of them, and a search whose front is known."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests_engine_helpers import Line, again, picture, setting_of

from tuning.config.schema import BudgetSpec, Rerun, SamplerSpec
from tuning.engine.choices import Choices
from tuning.engine.finalists import contestants, standing_of
from tuning.engine.journal import Events
from tuning.engine.ladder import Ladder
from tuning.engine.objectives import ONE, Objectives, cost_text, objectives_of
from tuning.engine.pareto import Point, crowding, dominates, front, fronts, order, points_at
from tuning.engine.rules import Rules
from tuning.engine.rungs import ParetoTable, Table
from tuning.engine.sampler.model import Model
from tuning.engine.sampler.study import ModelStudy
from tuning.engine.simulator import Point as Epoch
from tuning.engine.simulator import simulate
from tuning.engine.state import JournalState, Report, TrialState
from tuning.engine.virtual import Setting, Virtual, make_engine
from tuning.space.domains import Draw

SECONDS, SIZE = ("top1", "gpu_seconds"), ("top1", "parameters")
few = st.integers(0, 6).map(float)
many_points = st.lists(st.tuples(few, few, few), max_size=40).map(
    lambda rows: [Point(i, score, cost + 1, loss) for i, (score, cost, loss) in enumerate(rows)]
)


def points(*pairs):
    return [Point(i, score, cost) for i, (score, cost) in enumerate(pairs)]


def numbers(found):
    return [[p.trial for p in one] for one in found]


# --- fronts ----------------------------------------------------------------------------------------------------------


def test_fronts_by_hand():
    #                        0         1         2         3         4         5         6
    found = fronts(points((0.9, 9), (0.8, 5), (0.8, 6), (0.5, 1), (0.4, 1), (0.7, 5), (0.9, 9)))
    assert numbers(found) == [[0, 6, 1, 3], [2, 5, 4]]  # 2 costs more than 5: neither dominates the other


@given(many_points)
def test_the_first_front_is_non_dominated_and_complete(given_points):
    """Against the definition: on it is whoever is dominated by nobody, and each later front is that of the others."""
    left = list(given_points)
    found = fronts(given_points)
    for one in found:
        alone = {p.trial for p in left if not any(dominates(q, p) for q in left)}
        assert {p.trial for p in one} == alone
        assert [(-p.score, p.cost) for p in one] == sorted((-p.score, p.cost) for p in one)
        left = [p for p in left if p.trial not in alone]
    assert not left


@given(many_points, st.randoms(use_true_random=False))
def test_the_order_is_whole_and_that_of_the_fronts_however_trials_came(given_points, chance):
    merit = order(given_points)
    assert sorted(merit) == sorted(p.trial for p in given_points)
    level = {p.trial: i for i, one in enumerate(fronts(given_points)) for p in one}
    assert [level[t] for t in merit] == sorted(level.values())
    mixed = list(given_points)
    chance.shuffle(mixed)
    assert order(mixed) == merit


def test_crowding_by_hand():
    """Extents: 0.8 in the score, ln 16 in the cost; the neighbours of 1 are 0 and 2, those of 2 are 1 and 3."""
    found = crowding(points((0.9, 16.0), (0.7, 8.0), (0.6, 2.0), (0.1, 1.0)))
    assert found[0] == found[3] == math.inf
    assert found[1] == pytest.approx(0.3 / 0.8 + 3 / 4)
    assert found[2] == pytest.approx(0.6 / 0.8 + 3 / 4)


def test_of_equal_points_one_counts():
    found = crowding(points((0.9, 16.0), (0.9, 16.0), (0.5, 4.0), (0.5, 4.0), (0.1, 1.0)))
    assert found == {0: math.inf, 1: 0.0, 2: 2.0, 3: 0.0, 4: math.inf}
    assert crowding(points((0.5, 1.0), (0.5, 1.0))) == {0: math.inf, 1: 0.0}


def test_the_scale_of_costs_changes_nothing():
    rng = np.random.default_rng(0)
    some = [Point(i, float(s), float(c)) for i, (s, c) in enumerate(rng.random((30, 2)) + 0.01)]
    assert order(some) == order([Point(p.trial, p.score, 3600 * p.cost) for p in some])


def test_ends_come_first_and_ties_go_to_the_loss():
    some = [Point(0, 0.9, 9.0, 0.5), Point(1, 0.5, 5.0, 0.1), Point(2, 0.1, 1.0, 0.4), Point(3, 0.8, 9.5, 0.0)]
    assert order(some) == [2, 0, 1, 3]


# --- costs -----------------------------------------------------------------------------------------------------------


def trial(number=0, scores=(), seconds=2.0, logs=None, of=None):
    made = TrialState(number, {"method": "a"}, "x", of=of)
    for epoch, top1 in scores:
        made.reports[epoch] = Report(epoch, True, top1, 1.0, seconds, logs or {})
    return made


def test_gpu_seconds_are_those_of_a_full_run():
    made = trial(scores=((1, 0.1),))
    made.reports[2] = Report(2, False, None, None, 4.0)
    assert Objectives(SECONDS, top=27).cost(made) == 3.0 * 27
    assert Objectives(SECONDS, top=27, gpus=0.5).cost(made) == 3.0 * 27 / 2
    assert Objectives(SECONDS, top=27).cost(made, epoch=1) == 2.0 * 27  # what came later is not known there
    assert ONE.cost(made) is None
    assert Objectives(SECONDS, top=27).cost(trial()) is None
    assert Objectives(SECONDS, top=27).cost(trial(scores=((1, 0.1),), seconds=0.0)) is None  # of an earlier search


def test_parameters_are_the_last_that_were_told():
    made = trial(scores=((1, 0.1),), logs={"parameters": 1000})
    made.reports[3] = Report(3, True, 0.2, 1.0, 2.0, {"parameters": 1500})  # another stage probes another encoder
    size = Objectives(SIZE, top=3)
    assert (size.cost(made), size.cost(made, epoch=1), size.cost(made, epoch=2)) == (1500.0, 1000.0, 1000.0)
    assert size.cost(trial(scores=((1, 0.1),))) is None  # a journal of before they were told


def test_the_gpus_of_a_trial_are_in_the_journal():
    state = JournalState(facts={"slots": {"gpu": 0.25, "cpu": 2}})
    assert objectives_of(SECONDS, 9, state) == Objectives(SECONDS, 9, 0.25)
    assert objectives_of(("top1",), 9, JournalState()) == Objectives(("top1",), 9, 0.0)


@pytest.mark.parametrize(
    ("name", "cost", "text"),
    [("parameters", 1_240_000.0, "1.24M"), ("parameters", 310_400.0, "310k"), ("parameters", 96.0, "96"),
     ("gpu_seconds", 8640.4, "8,640"), ("gpu_seconds", 0.52, "0.52"), ("gpu_seconds", None, "-")],
)  # fmt: skip
def test_costs_in_tables(name, cost, text):
    assert cost_text(name, cost) == text


def test_the_front_is_of_full_runs_only():
    state = {
        0: trial(0, ((1, 0.3), (9, 0.5)), logs={"parameters": 100}),
        1: trial(1, ((1, 0.9),), logs={"parameters": 10}),  # culled
        2: trial(2, ((1, 0.3), (9, 0.7)), logs={"parameters": 900}),
        3: trial(3, ((1, 0.3), (9, 0.4)), logs={"parameters": 200}),  # dominated by 0
        4: trial(4, ((9, 0.99),), logs={"parameters": 1}, of=0),  # a repeat
        5: trial(5, ((9, 0.99),)),  # of unknown cost
    }
    found = front(state.values(), 9, Objectives(SIZE, 9))
    assert [(p.trial, p.score, p.cost) for p in found] == [(2, 0.7, 900.0), (0, 0.5, 100.0)]
    assert len(points_at(state.values(), 9, Objectives(SIZE, 9))) == 3


# --- rungs -----------------------------------------------------------------------------------------------------------


def table(*rows):
    made = ParetoTable()
    for number, (value, cost) in enumerate(rows):
        made.add(number, value, 1.0, cost)
    return made


def test_a_rung_lets_the_fronts_on():
    made = table((0.9, 9.0), (0.8, 5.0), (0.8, 6.0), (0.5, 1.0), (None, 1.0), (0.95, None))
    assert list(made.best(99)) == [0, 3, 1, 2, 5]  # the ends, the middle, the second front, the one of unknown cost
    assert list(made.best(2, width=0.5)) == [0, 3]
    assert list(made.best(0)) == []
    assert (made.scored, len(made), made.quota(3)) == (5, 6, 2)
    assert made.cut(1) is None  # no score is the limit
    assert [made.place(n) for n in (0, 3, 2, 4)] == [0.0, 1 / 6, 3 / 6, 5 / 6]
    assert made.place(77) is None
    made.add(6, 0.96, 1.0, 0.5)  # dominates all but the unknown
    made.add(6, 0.1, 1.0, 99.0)  # counts once
    assert list(made.best(1)) == [6]


def test_one_objective_is_what_it_was():
    made, same = Table(), Table()
    for number, (value, cost) in enumerate([(0.5, 1.0), (0.9, 99.0), (0.5, 0.1), (None, 1.0)]):
        made.add(number, value, 1.0, cost)
        same.add(number, value, 1.0)
    assert list(made.best(4)) == list(same.best(4)) == [1, 0, 2]
    assert made.cut(1) == 0.9
    assert [made.place(n) for n in (1, 0, 2, 3, 9)] == [0.0, 0.25, 0.5, 0.75, None]


def test_costs_of_a_rung_are_those_that_were_known_there():
    """A trial that grew slow after the first rung is not judged by that when the journal is replayed."""
    events = Events(clock=lambda: 0.0)
    ladder = Ladder((1, 3), 2, rule="stop")
    for seconds in (1.0, 2.0):
        number = events.ask({"method": "a"}, "x")
        events.report(number, Report(1, True, 0.5, 1.0, seconds))
    live = Rules(ladder, events.state, objectives=Objectives(SECONDS, 3))
    events.report(0, Report(2, False, None, None, 500.0))
    again = Rules(ladder, events.state, objectives=Objectives(SECONDS, 3))
    for rules in (live, again):
        (found,) = rules.tables.values()
        assert isinstance(found, ParetoTable)
        assert found.costs == {0: 3.0, 1: 6.0}
        assert list(found.best(1)) == [0]


# --- what the model shows to Optuna ----------------------------------------------------------------------------------


def test_with_two_objectives_whoever_came_less_far_is_dominated():
    choices = Choices((("a", (Draw("x", "float", 0.0, 1.0),)),))
    events = Events(clock=lambda: 0.0)
    rng = np.random.default_rng(0)
    for number in range(30):
        events.ask(choices.sample(rng), "random")
        for epoch in (1, 3, 9)[: 1 + number % 3]:
            events.report(number, Report(epoch, True, float(rng.random()), 1.0, float(rng.uniform(1e-3, 1e6))))
    events.end(0, "diverged")
    for _ in range(2):
        events.ask(choices.sample(rng), "random")
    events.end(31, "diverged")
    cost = Objectives(SECONDS, 9).cost
    model = Model(choices, (1, 3, 9), events.state, cost=cost)
    assert model.target == 2
    study = ModelStudy(model, two=True)
    assert [t.state.name for t in study.storage.trials[30:]] == ["RUNNING", "COMPLETE"]
    level = {o.trial: o.rung for o in model.all()}
    seen = {n: Point(n, *t.values) for n, t in enumerate(study.storage.trials) if t.state.name == "COMPLETE"}
    assert {level[n] for n in seen} == {2, 1, 0, -2}
    for a, b in itertools.product(seen.values(), repeat=2):
        if level[a.trial] > level[b.trial]:
            assert dominates(a, b)
    assert study.good(31) == 4
    assert study.good(310) == 5  # half of the ten at the target
    ranked = model.ranked()
    assert [o.rung for o in ranked] == sorted((o.rung for o in ranked), reverse=True)
    full = [o for o in ranked if o.rung == 2]
    assert [o.trial for o in full] == order([Point(o.trial, o.value, o.cost) for o in full])


# --- a search whose front is known -----------------------------------------------------------------------------------

WIDTHS = {8: (0.40, 1.0), 16: (0.60, 2.0), 32: (0.55, 4.0), 64: (0.80, 8.0)}  # final score, seconds an epoch
CHOICES = Choices(
    (("a", (Draw("width", "categorical", choices=tuple(WIDTHS)), Draw("lr", "float", 1e-4, 1e-1, True))),)
)


class Widths:
    """Wider is better but for 32, and slower; the best learning rate is 1e-2 whatever the width."""

    def point(self, number, draws, epoch):
        score, seconds = WIDTHS[draws["width"]]
        lost = 0.02 * (math.log10(draws["lr"]) + 2) ** 2
        return Epoch(seconds, (score - lost) * (1 - 0.5**epoch), 1.0)


def searched(objectives, sampler="tpe", seed=0, rule="promote", epochs=400):
    ladder = Ladder((1, 3, 9), 3, rule=rule)
    spec = SamplerSpec.model_validate({"name": sampler})
    setting = Setting(ladder, spec, BudgetSpec(trials=10**6), seed, objectives)
    engine = make_engine(Events(clock=lambda: 0.0), CHOICES, setting)
    simulate(Virtual(engine), Widths(), ladder.rungs, 4, epochs=epochs)
    return engine.state


@pytest.mark.parametrize("rule", ["promote", "stop"])
def test_a_search_finds_the_front(rule):
    """With one objective nearly all full runs are of the widest; with two all of the front's widths are there."""
    state = searched(SECONDS, rule=rule)
    found = front(state.trials.values(), 9, Objectives(SECONDS, 9))
    best = {}
    for point in found:
        width = state.trials[point.trial].draws["width"]
        assert point.cost == 9 * WIDTHS[width][1]
        best.setdefault(width, point.score)
    assert sorted(best) == [8, 16, 64]
    for width, score in best.items():
        assert score == pytest.approx(WIDTHS[width][0] * (1 - 0.5**9), abs=0.01)
    alone = searched(("top1",), rule=rule)
    full = [t for t in alone.trials.values() if t.at(9) is not None]
    assert sum(t.draws["width"] == 64 for t in full) > 0.9 * len(full)


@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
@pytest.mark.parametrize("rule", ["promote", "stop"])
def test_a_search_that_goes_on_knows_and_proposes_the_same(rule, sampler):
    if sampler == "cmaes":
        pytest.importorskip("cmaes")
    setting = setting_of(rule, sampler=sampler, startup=4, objectives=SECONDS)
    events = Line()
    engine = make_engine(events, CHOICES, setting)
    simulate(Virtual(engine), Widths(), setting.ladder.rungs, 4, epochs=200)
    fresh = again(events.lines, setting, CHOICES).engine
    assert picture(fresh) == picture(engine)
    merits = {key: found.merit for key, found in engine.rules.tables.items()}
    assert {key: found.merit for key, found in fresh.rules.tables.items()} == merits
    assert len(merits) == 3


# --- finalists -------------------------------------------------------------------------------------------------------


def test_finalists_are_the_most_accurate_of_the_front():
    rows = [(0.70, 900), (0.69, 950), (0.60, 300), (0.50, 400), (0.40, 100)]
    state = JournalState(trials={n: trial(n, ((9, s),), logs={"parameters": c}) for n, (s, c) in enumerate(rows)})
    ladder, size = Ladder((1, 3, 9), 3), Objectives(SIZE, 9)
    assert [t.trial for t in contestants(state, ladder, size)] == [0, 2, 4]
    assert [t.trial for t in contestants(state, ladder)] == [0, 1, 2, 3, 4]
    assert {t for t, _ in standing_of(state, ladder, Rerun(top=2, seeds=2), size).due} == {0, 2}
    assert {t for t, _ in standing_of(state, ladder, Rerun(top=2, seeds=2)).due} == {0, 1}
    unknown = JournalState(trials={n: trial(n, ((9, s),)) for n, (s, _) in enumerate(rows)})
    assert [t.trial for t in contestants(unknown, ladder, size)] == [0, 1, 2, 3, 4]
