"""The stock engine's memory: after a restart from the journal it stands where it stood. No cluster is started."""

from __future__ import annotations

import json
import pickle
from types import SimpleNamespace

import optuna
import pytest
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from tuning import stock
from tuning.engine.journal import Journal
from tuning.engine.ladder import Ladder
from tuning.recorder import Recorder
from tuning.space import load_search
from tuning.unsaved import Unsaved

LADDER = Ladder((1, 3, 9), 3)
SPACE = """
format: 1
name: x
seed: 1
data: {set: synthetic}
search:
  method:
    one_of:
      skeletonclr: {temperature: {log: [0.05, 0.5]}, queue: {choice: [64, 128]}}
      skeletonbyol: {momentum: {near_one: [0.9, 0.99]}}
  augment: {strength: {uniform: [0.2, 1.4]}}
schedule: {max: 9, asha: {min: 1, eta: 3}}
start_from: [{method: {skeletonclr: {temperature: 0.1}}}]
budget: {trials: 8}
"""


@pytest.fixture(scope="module")
def loaded():
    return load_search(SPACE)


@pytest.fixture
def open_recorder(tmp_path):
    opened = []

    def make() -> Recorder:
        while opened:
            opened.pop().close()
        opened.append(Journal(tmp_path / "run" / "journal.jsonl", {"space": "s", "data": "d"}))
        return Recorder(opened[-1], tmp_path / "run")

    yield make
    for journal in opened:
        journal.close()


def ray_trial(number: int):
    return SimpleNamespace(config={"task": {"key": f"t{number:04d}"}}, get_error=lambda: None)


def result(epoch, top1=None, **more):
    rung = top1 is not None
    payload = {"epoch": epoch, "rung": rung, "seconds": 1.0, "train_loss": 1.0, **more}
    if rung:
        payload |= {"top1": top1, "loss": 1.0}
    seen = {key: payload[key] for key in ("epoch", "top1") if key in payload}
    return seen | {"payload": json.dumps(payload), "training_iteration": epoch}


def rungs(scheduler):
    return {rung: dict(recorded) for rung, recorded in scheduler._brackets[0]._rungs}


SCORES = [(0, 1, 0.5), (1, 1, 0.6), (2, 1, 0.4), (3, 1, 0.7), (1, 3, 0.65), (3, 3, 0.6)]


def live(scheduler, recorder, scores=SCORES):
    """Give a scheduler some results as Ray would; returns the decisions."""
    seen = set()
    decisions = []
    for number, epoch, top1 in scores:
        if number not in seen:
            recorder.asked({"method": "skeletonclr"}, "sampler")
            scheduler.on_trial_add(None, ray_trial(number))
            seen.add(number)
        decisions.append(scheduler.on_trial_result(None, ray_trial(number), result(epoch, top1)))
    return decisions


def test_decisions_are_journalled(open_recorder):
    recorder = open_recorder()
    decisions = live(stock.StockAsha(LADDER, recorder), recorder)
    # Ray's rule: the cut is the (1 - 1/3) quantile of those recorded before; the first at a rung always goes on.
    assert decisions == ["CONTINUE", "CONTINUE", "STOP", "CONTINUE", "CONTINUE", "STOP"]
    state = recorder.journal.state
    assert {n: t.ended for n, t in state.trials.items()} == {0: None, 1: None, 2: "culled", 3: "culled"}
    assert state.trials[2].detail == "culled at 1: 40.0 < 56.7"


def test_rungs_are_fed_again(open_recorder):
    recorder = open_recorder()
    before = stock.StockAsha(LADDER, recorder)
    live(before, recorder)
    again = stock.StockAsha(LADDER, open_recorder())
    assert rungs(again) == rungs(before)
    assert sum(map(len, rungs(again).values())) == len(SCORES)


def test_a_continued_trial_keeps_its_place(open_recorder):
    """Trial 1 goes on after a restart under a new Ray trial; it must not be recorded at rung 1 a second time."""
    recorder = open_recorder()
    live(stock.StockAsha(LADDER, recorder), recorder)
    recorder = open_recorder()
    again = stock.StockAsha(LADDER, recorder)
    full = rungs(again)
    again.on_trial_add(None, ray_trial(1))
    assert again.on_trial_result(None, ray_trial(1), result(4)) == TrialScheduler.CONTINUE  # a heartbeat
    again.on_trial_complete(None, ray_trial(1), result(9, 0.8))
    assert recorder.journal.state.trials[1].ended == "top"
    assert rungs(again)[1] == full[1]
    assert rungs(again)[3] == full[3]


def test_a_cut_that_nobody_wrote_down_is_made_at_the_restart(open_recorder):
    """Killed between the report and the decision: the replay decides as the scheduler would have."""
    recorder = open_recorder()
    live(stock.StockAsha(LADDER, recorder), recorder, SCORES[:2])
    trial = recorder.asked({"method": "skeletonclr"}, "sampler").trial
    recorder.reported(trial, json.loads(result(1, 0.1)["payload"]))
    recorder = open_recorder()
    assert recorder.journal.state.trials[trial].ended is None
    stock.StockAsha(LADDER, recorder)
    assert recorder.journal.state.trials[trial].ended == "culled"
    assert {t.trial for t in recorder.journal.state.pending} == {0, 1}


def test_a_full_run_that_nobody_closed_is_closed_at_the_restart(open_recorder):
    recorder = open_recorder()
    trial = recorder.asked({"method": "skeletonclr"}, "sampler").trial
    recorder.reported(trial, json.loads(result(9, 0.5)["payload"]))
    recorder = open_recorder()
    stock.StockAsha(LADDER, recorder)
    assert recorder.journal.state.trials[trial].ended == "top"


def test_ends_by_name(open_recorder):
    recorder = open_recorder()
    scheduler = stock.StockAsha(LADDER, recorder)
    live(scheduler, recorder, SCORES[:2])
    ended = result(2, ended="diverged", detail="diverged at step 7", rung=False)
    scheduler.on_trial_complete(None, ray_trial(0), ended)
    scheduler.on_trial_error(None, ray_trial(1))
    trials = recorder.journal.state.trials
    assert (trials[0].ended, trials[0].detail) == ("diverged", "diverged at step 7")
    assert trials[1].ended is None  # Ray calls this for failures that it retries, too
    assert 2 not in trials[0].reports  # what ended it is no epoch's result


def test_stopping_leaves_trials_to_be_continued(open_recorder):
    recorder = open_recorder()
    scheduler = stock.StockAsha(LADDER, recorder, lambda: True)
    assert live(scheduler, recorder, SCORES[:1]) == ["STOP"]
    assert recorder.journal.state.trials[0].ended is None
    assert recorder.journal.state.trials[0].at(1).top1 == 0.5  # but its result is kept


def make_searcher(loaded, recorder, may_ask=lambda: True, **more):
    spec, space = loaded
    return stock.StockSearcher(space, spec, recorder, lambda t: {"trial": t.trial, "draws": t.draws}, may_ask, **more)


def test_first_draws_then_samples(loaded, open_recorder):
    recorder = open_recorder()
    searcher = make_searcher(loaded, recorder)
    first = searcher.suggest("a")
    assert first["draws"]["method"] == "skeletonclr"
    assert first["draws"]["method/skeletonclr/temperature"] == pytest.approx(0.1)
    more = [searcher.suggest(name) for name in "bcdef"]
    assert [m["trial"] for m in more] == [1, 2, 3, 4, 5]
    origins = [t.origin for t in recorder.journal.state.trials.values()]
    assert origins == ["start"] + ["sampler"] * 5
    _, space = loaded
    for drawn in (first, *more):
        assert space.resolve(drawn["draws"]).method == drawn["draws"]["method"]
    assert len({json.dumps(m["draws"]) for m in more}) == 5


def test_nothing_is_asked_beyond_the_budget(loaded, open_recorder):
    recorder = open_recorder()
    assert make_searcher(loaded, recorder, lambda: False).suggest("a") == Searcher.FINISHED
    assert recorder.journal.state.trials == {}


def test_restart_continues_what_is_pending_and_remembers_what_ended(loaded, open_recorder):
    recorder = open_recorder()
    searcher = make_searcher(loaded, recorder)
    drawn = [searcher.suggest(name)["draws"] for name in "abcd"]
    recorder.reported(0, json.loads(result(1, 0.3)["payload"]))
    recorder.reported(0, json.loads(result(3, 0.45)["payload"]))
    recorder.ended(0, "culled")
    recorder.ended(2, "diverged")
    recorder = open_recorder()
    again = make_searcher(loaded, recorder, lambda: len(recorder.journal.state.trials) < 5)
    told = again.inner._ot_study.get_trials(deepcopy=False)
    states = optuna.trial.TrialState
    finished = [(t.state, t.value) for t in told if t.state.is_finished()]
    assert finished == [(states.COMPLETE, 0.45), (states.PRUNED, None)]
    assert told[0].params["method.skeletonclr.temperature"] == pytest.approx(0.1)
    continued = [again.suggest(name) for name in "wx"]
    assert [(c["trial"], c["draws"]) for c in continued] == [(1, drawn[1]), (3, drawn[3])]
    running = [t for t in again.inner._ot_study.get_trials(deepcopy=False) if t.state == states.RUNNING]
    assert {f"{v}" for t in running for v in t.params.values()} <= {f"{v}" for d in drawn for v in d.values()}
    new = again.suggest("y")
    assert new["trial"] == 4
    assert new["draws"] not in drawn  # the restarted sampler does not repeat its first life
    assert recorder.journal.state.trials[4].origin == "sampler"  # the first draws are not begun a second time
    assert again.suggest("z") == Searcher.FINISHED


def test_results_reach_the_study(loaded, open_recorder):
    searcher = make_searcher(loaded, open_recorder())
    searcher.suggest("a")
    searcher.suggest("b")
    searcher.on_trial_result("a", {"training_iteration": 2})  # a heartbeat has no score
    searcher.on_trial_result("a", {"training_iteration": 3, "top1": 0.4})
    searcher.on_trial_complete("a", {"training_iteration": 9, "top1": 0.5})
    searcher.on_trial_complete("b", {"training_iteration": 2})  # diverged: no score
    a, b = searcher.inner._ot_study.get_trials(deepcopy=False)
    assert (a.state.name, a.value, a.intermediate_values) == ("COMPLETE", 0.5, {3: 0.4})
    assert (b.state.name, b.value) == ("PRUNED", None)


def test_a_failure_is_final_when_the_searcher_hears_of_it(loaded, open_recorder):
    recorder = open_recorder()
    scheduler = stock.StockAsha(LADDER, recorder)
    searcher = make_searcher(loaded, recorder)
    searcher.suggest("a")
    for _ in range(3):
        scheduler.on_trial_add(None, ray_trial(0))
        scheduler.on_trial_error(None, ray_trial(0))
    assert recorder.journal.state.trials[0].ended is None
    searcher.on_trial_complete("a", error=True)
    trial = recorder.journal.state.trials[0]
    assert (trial.ended, trial.detail) == ("failed", "the worker process died")
    assert searcher.inner._ot_study.get_trials(deepcopy=False)[0].state.name == "FAIL"


def test_random_engine(loaded, open_recorder):
    searcher = make_searcher(loaded, open_recorder(), random_only=True)
    assert isinstance(searcher.inner._sampler, optuna.samplers.RandomSampler)


def test_snapshots_hold_nothing(loaded, open_recorder):
    recorder = open_recorder()
    for thing in (make_searcher(loaded, recorder), stock.StockAsha(LADDER, recorder)):
        assert type(pickle.loads(pickle.dumps(thing))) is Unsaved
