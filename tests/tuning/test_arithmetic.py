"""What a budget comes to: exact counts, the same as an engine's, and the lines that tell them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tuning.arithmetic import (
    Pace,
    Step,
    budget_lines,
    climb,
    epochs_of,
    expected_epochs,
    pace_of,
    repeats_due,
    trials_paid,
)
from tuning.config.schema import BudgetSpec, SamplerSpec
from tuning.engine.choices import Choices
from tuning.engine.journal import Events
from tuning.engine.ladder import Ladder
from tuning.engine.state import GO, JournalState, Report, TrialState
from tuning.engine.virtual import Setting, make_engine
from tuning.slots import Slots
from tuning.space import check_text
from tuning.space.domains import Draw

HEAD = "format: 1\nname: a\ndata: {set: synthetic}\nsearch: {method: {one_of: {skeletonclr: {}, skeletonbyol: {}}}}\n"
UNKNOWN = "time: seconds an epoch are known after the first trial (or give --seconds-per-epoch), and then hours too"
FINISH = "finish, on top of the budget: at most 3 x 3 re-runs + 1 retraining = 10 x 27 = 270 epochs"


def lines(text: str, **pace: object) -> list[str]:
    spec, space = check_text(HEAD + text)
    return budget_lines(spec, space, Pace(**pace) if pace else None)  # type: ignore[arg-type]


def steps(*pairs: tuple[int, int]) -> tuple[Step, ...]:
    return tuple(Step(*pair) for pair in pairs)


# --- counts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ladder", "trials", "methods", "rows"),
    [
        (Ladder((3, 9, 27), 3, "promote"), 40, 1, [((40, 3), (13, 6), (4, 18))]),
        (Ladder((3, 9, 27), 3, "promote"), 8, 1, [((8, 3), (2, 6), (1, 18))]),  # the best climbs on alone
        (Ladder((3, 9, 27), 3, "promote"), 1, 1, [((1, 3), (1, 6), (1, 18))]),
        (Ladder((3, 9, 27), 3, "promote"), 0, 1, [((0, 3), (0, 6), (0, 18))]),
        (Ladder((27,), 3, "promote"), 5, 1, [((5, 27),)]),
        (Ladder((1, 2, 4, 6), 2, "stop"), 10, 1, [((10, 1), (5, 1), (2, 2), (1, 2))]),
        (Ladder((3, 9, 27), 3, "promote", per_method=True), 40, 2, [((40, 3), (12, 6), (4, 18))]),
        (Ladder((3, 9, 27), 3, "promote", per_method=True), 41, 3, [((41, 3), (12, 6), (3, 18))]),  # 14 + 14 + 13
        (Ladder((3, 9, 27), 3, "promote", per_method=True), 4, 2, [((4, 3), (1, 6), (1, 18))]),
        (Ladder((3, 9, 27), 3, "stop", per_method=True), 4, 2, [((4, 3), (2, 6), (2, 18))]),
        (
            Ladder((3, 9, 27), 3, "promote", brackets=5),
            40,
            1,
            [((23, 3), (7, 6), (2, 18)), ((11, 9), (3, 18)), ((6, 27),)],
        ),
        (Ladder((3, 9, 27), 3, "promote", brackets=2), 4, 1, [((3, 3), (1, 6), (1, 18)), ((1, 9), (0, 18))]),
    ],
)
def test_how_many_climb(ladder: Ladder, trials: int, methods: int, rows: list[tuple[tuple[int, int], ...]]) -> None:
    assert climb(ladder, trials, methods) == tuple(steps(*row) for row in rows)


def engines_epochs(ladder: Ladder, trials: int, methods: int, seed: int = 0) -> tuple[int, int]:
    """(epochs, repeats) of a whole search by the engine itself, one worker, scores by chance."""
    draw = Draw("lr", "float", 0.0, 1.0)
    choices = Choices(tuple((name, (draw,)) for name in "abcd"[:methods]))
    sampler = SamplerSpec(name="random", startup_trials=trials)  # so that methods come in turn
    engine = make_engine(Events(), choices, Setting(ladder, sampler, BudgetSpec(trials=trials)))
    rng = np.random.default_rng([trials, seed])
    while (segment := engine.ask()) is not None:
        for epoch in itertools.count(segment.after + 1):
            rung = epoch in ladder.rungs
            value = float(rng.random()) if rung else None
            if engine.report(segment.trial, Report(epoch, rung, value, value, 1.0)).word != GO:
                break
    assert engine.finished
    return engine.state.epochs, sum(t.of is not None for t in engine.state.trials.values())


@pytest.mark.parametrize("trials", [1, 2, 5, 9, 26, 40])
@pytest.mark.parametrize(
    ("ladder", "methods"),
    [
        (Ladder((1, 3, 9), 3, "promote", repeats=5), 1),
        (Ladder((2, 4, 8, 16), 2, "promote", repeats=3), 1),
        (Ladder((1, 3, 9), 3, "promote", per_method=True), 2),
        (Ladder((1, 3, 9), 3, "promote", per_method=True, repeats=2), 4),
        (Ladder((1, 3, 9), 3, "promote", brackets=2), 1),
        (Ladder((1, 3, 9), 3, "promote", brackets=3, repeats=2), 1),
        (Ladder((5,), 3, "promote"), 1),
    ],
)
def test_the_engine_trains_as_many(ladder: Ladder, trials: int, methods: int) -> None:
    again = repeats_due(ladder, trials)
    assert engines_epochs(ladder, trials, methods) == (epochs_of(ladder, trials, methods), again)


@pytest.mark.parametrize(("trials", "methods"), [(1, 1), (2, 1), (3, 1), (4, 2), (5, 4)])
def test_the_engine_lets_the_best_of_few_go_on_where_trials_are_stopped(trials: int, methods: int) -> None:
    ladder = Ladder((1, 3, 9), 3, "stop", per_method=True)
    assert engines_epochs(ladder, trials, methods)[0] == epochs_of(ladder, trials, methods)


def test_stopping_takes_about_as_many_on_average() -> None:
    ladder = Ladder((1, 3, 9), 3, "stop")
    taken = [engines_epochs(ladder, 45, 1, seed)[0] for seed in range(20)]
    assert np.mean(taken) == pytest.approx(epochs_of(ladder, 45), rel=0.1)


def test_repeats_begin_after_twice_eta_trials() -> None:
    ladder = Ladder((3, 9, 27), 3, "promote", repeats=5)
    assert [repeats_due(ladder, n) for n in (0, 5, 6, 8, 9, 18, 100)] == [0, 0, 1, 1, 2, 5, 5]


@pytest.mark.parametrize(
    "ladder",
    [
        Ladder((3, 9, 27), 3, "promote", repeats=5),
        Ladder((3, 9, 27), 3, "stop", per_method=True),
        Ladder((3, 9, 27), 3, "promote", brackets=3),
    ],
)
def test_epochs_pay_no_trial_more(ladder: Ladder) -> None:
    for epochs in (27, 100, 500, 2222):
        paid = trials_paid(ladder, epochs, 2)
        assert epochs_of(ladder, paid, 2) <= epochs < epochs_of(ladder, paid + 1, 2)
    assert trials_paid(ladder, 5, 2) == 1  # a search has one full run at least


def test_a_budget_beyond_counting_is_told_at_once() -> None:
    brackets = Ladder((1, 3, 9), 3, "promote", brackets=3)
    assert sum(row[0].trials for row in climb(brackets, 10**9)) == 10**9
    assert trials_paid(brackets, 10**12) == 10_000
    assert lines("budget: {epochs: 1000000000}\n")[0].startswith(
        "budget: 1,000,000,000 epochs pay at least 10,000 trials"
    )


# --- lines ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ladder", "sum_"),
    [
        ("", "40x3 + 12x6 + 4x18 = 264 epochs (24 % of 40 full runs)"),  # of each method 20, 6 and 2
        ("schedule: {asha: {ladder: shared}}\n", "40x3 + 13x6 + 4x18 = 270 epochs (25 % of 40 full runs)"),
    ],
)
def test_trials(ladder: str, sum_: str) -> None:
    assert lines("budget: {trials: 40}\n" + ladder) == [
        f"budget: 40 trials ~ {sum_}, + 5 repeats x 3 = 15; 4 of 40 run in full",
        FINISH,
        UNKNOWN,
    ]


def test_epochs_say_how_many_trials_they_pay_and_what_comes_first() -> None:
    assert lines("budget: {trials: 100, epochs: 500, minutes: 30}\n") == [
        "budget: 500 epochs pay 71 trials ~ 71x3 + 23x6 + 7x18 = 477 epochs (25 % of 71 full runs), "
        "+ 5 repeats x 3 = 15; 7 of 71 run in full",
        FINISH,
        "first to come: 500 epochs (71 trials), then 100 trials; "
        "whether 30 minutes come before is known with the seconds",
        UNKNOWN,
    ]


def test_seconds_make_time_hours_and_money() -> None:
    """An epoch of 12 s, two side by side with half of a GPU each.

    Nine minutes are 90 epochs, which 13 trials take with 3 repeats; 20 of money are 8 hours of a GPU, 4,800 epochs.
    """
    seconds = {"skeletonclr": 10.0, "skeletonbyol": 14.0, "pstl": 99.0}
    text = "budget: {trials: 40, money: 20, price: 2.5, minutes: 9}\n"
    *_, first, time = lines(text, seconds=seconds, source="measured", slots=2, gpus=0.5)
    assert first == ("first to come: 9 minutes (13 trials), then 40 trials, 20 to spend at 2.5 a GPU-hour (683 trials)")
    assert time == (
        "time: at 12 s an epoch (measured), 2 side by side: the search about 9 min, the finish up to 27 min; "
        "GPU-hours 0.15 + 0.45; money 0.375 + 1.12"
    )


def test_time_alone_pays_trials_once_seconds_are_known() -> None:
    assert lines("budget: {minutes: 30}\n") == [
        "budget: 30 minutes; a trial takes about 6.99 epochs, a full run 27", FINISH, UNKNOWN,
    ]  # fmt: skip
    shared = lines("budget: {minutes: 30}\nschedule: {asha: {ladder: shared}}\n")
    assert shared[0] == "budget: 30 minutes; a trial takes about 7.01 epochs, a full run 27"
    known = lines("budget: {minutes: 30}\n", seconds={"skeletonclr": 6.0}, source="as given")
    assert known[0].startswith("budget: 30 minutes pay 43 trials ~ 43x3 + 14x6 + 4x18 = 285 epochs")
    assert (
        known[-1]
        == "time: at 6 s an epoch (as given), 1 side by side: the search about 30 min, the finish up to 27 min"
    )


def test_brackets_have_a_row_each_and_a_growing_ladder_its_least() -> None:
    rows = lines("budget: {trials: 40}\nschedule: {asha: {brackets: 3, repeats: 0}}\n")
    assert rows[:4] == [
        "budget: 40 trials ~ 462 epochs (43 % of 40 full runs); 11 of 40 run in full",
        "  first judged at 3: 23x3 + 7x6 + 2x18 = 147",
        "  first judged at 9: 11x9 + 3x18 = 153",
        "  first judged at 27: 6x27 = 162",
    ]
    grows = lines("budget: {trials: 40}\nschedule: {asha: {grow: true, repeats: 0}}\n")
    assert grows[:2] == [
        "budget: 40 trials ~ 40x3 + 12x6 + 4x18 = 264 epochs (24 % of 40 full runs); at most 4 of 40 run in full",
        "  192 of these if the ladder never grows above 9",
    ]
    shared = lines("budget: {trials: 40}\nschedule: {asha: {ladder: shared, grow: true, repeats: 0}}\n")
    assert shared[1] == "  198 of these if the ladder never grows above 9"


def test_what_the_finish_leaves_out() -> None:
    assert lines("budget: {on_end: stop, trials: 9}\n")[1:] == [UNKNOWN]
    assert lines("finish: {rerun: null, retrain: null}\n")[1:] == [UNKNOWN]
    only = "finish, on top of the budget: at most 2 retrainings = 2 x 27 = 54 epochs"
    assert lines("finish: {rerun: null, retrain: {seeds: 2}}\n")[1] == only


def test_without_a_gpu_hours_are_slot_hours() -> None:
    told = lines("budget: {gpu_hours: 1, trials: 24}\n", seconds={"skeletonclr": 36.0}, source="as given")
    assert told[-2] == "first to come: 1 GPU-hours (15 trials), then 24 trials"
    assert told[-1].endswith("GPU-hours 0.99 + 2.7 (slot-hours, as there is no GPU here)")


def test_another_ladder_is_counted_as_it_is() -> None:
    spec, space = check_text(HEAD + "budget: {trials: 40}\n")
    baseline = Ladder(spec.schedule.rungs(), spec.schedule.asha.eta, "stop")
    assert "repeats" not in budget_lines(spec, space, ladder=baseline)[0]
    assert (expected_epochs(spec, space), expected_epochs(spec, space, ladder=baseline)) == (279, 270)
    spec, space = check_text(HEAD + "budget: {minutes: 30}\n")
    assert expected_epochs(spec, space) is None
    assert expected_epochs(spec, space, Pace({"skeletonclr": 6.0})) == 300


# --- pace -------------------------------------------------------------------------------------------------------------


def test_a_journal_tells_the_pace_of_each_method() -> None:
    _, space = check_text(HEAD)
    state = JournalState()
    for number, (method, seconds) in enumerate([("skeletonclr", [2.0, 4.0]), ("skeletonclr", [9.0]), ("pstl", [50.0])]):
        trial = TrialState(number, {"method": method}, "random")
        trial.reports = {e: Report(e, False, None, None, s) for e, s in enumerate(seconds, start=1)}
        state.trials[number] = trial
    pace = pace_of(space, state, Slots(3, 2.0, 0.5))
    assert pace == Pace({"skeletonclr": 5.0}, "measured in its journal", 3, 0.5)
    assert pace.mean(space.methods) == 5.0  # skeletonbyol, which was not tried, counts as the others
    assert pace_of(space, JournalState()).mean(space.methods) is None


def test_what_the_user_knows_wins() -> None:
    _, space = check_text(HEAD)
    assert pace_of(space, JournalState(), given=3.0) == Pace({"skeletonclr": 3.0, "skeletonbyol": 3.0}, "as given")
