"""The engine's calls: asks, repeats, retries, budgets, the end; a driver that goes on; a disk that is full."""

from __future__ import annotations

import errno
import itertools
import os

import pytest
from tests_engine_helpers import ONE, TWO, Hand, Line, again, picture, setting_of

from methods.errors import WorkFailed
from tuning.engine.journal import Journal, read_events, replay
from tuning.engine.state import COLLAPSED, Report
from tuning.engine.virtual import Setting, make_engine

HEADER = {"space": "a" * 64, "data": "b" * 64, "name": "x"}


# --- asks -------------------------------------------------------------------------------------------------------------


def test_a_trial_is_asked_once_and_goes_on_where_it_was():
    hand = Hand(setting_of(budget={"trials": 2}))
    assert hand.ask_many(3) == [0, 1, None]
    hand.beat(0, 1)
    hand.engine.dropped(0)
    segment = hand.engine.ask()
    assert (segment.trial, segment.after, segment.draws) == (0, 1, hand.state.trials[0].draws)
    assert hand.ask() is None
    assert hand.events.told("ask") == [("ask", 0), ("ask", 1)]


def test_who_was_interrupted_comes_before_who_was_promoted_and_that_before_a_new_one():
    hand = Hand(setting_of(eta=2))
    hand.ask_many(3)
    hand.score(0, 1, 0.9)
    hand.score(1, 1, 0.1)
    hand.engine.dropped(2)
    assert hand.ask_many(3) == [2, 0, 3]


def test_an_interrupted_search_gives_nothing_and_stops_segments_without_ending_trials():
    stopping = False
    hand = Hand(setting_of(), interrupted=lambda: stopping)
    hand.ask()
    stopping = True
    assert hand.ask() is None
    assert hand.beat(0, 1) == "stop"
    assert not hand.engine.busy
    assert not hand.engine.finished  # the same command goes on
    stopping = False
    assert hand.ask() == 0
    assert hand.events.told("end", "decide") == []


def test_a_known_epoch_gets_its_verdict_again_and_changes_nothing():
    hand = Hand(setting_of(eta=2, budget={"trials": 3}))
    hand.ask_many(3)
    assert [hand.score(0, 1, 0.5), hand.score(1, 1, 0.6), hand.beat(1, 2)] == ["pause", "go", "go"]
    before = list(hand.events.lines)
    assert [hand.score(0, 1, 0.9), hand.score(1, 1, None), hand.beat(1, 2)] == ["pause", "go", "go"]
    hand.engine.ended(2, COLLAPSED, "spread")
    assert hand.score(2, 1, 0.9) == "collapsed"
    assert hand.events.lines[len(before) :] == [hand.events.lines[-1]]
    assert hand.events.told("end") == [("end", 2, "collapsed")]
    assert hand.state.trials[1].at(1).top1 == 0.6
    hand.state.apply({"e": "decide", "trial": 1, "epoch": 1, "verdict": "pause"})
    assert hand.state.trials[1].verdicts == {1: "go"}  # nothing is taken back


def test_ends_are_told_once_to_those_who_watch():
    hand = Hand(setting_of("stop", eta=2, budget={"trials": 2}))
    hand.ask_many(2)
    hand.score(0, 1, 0.5)
    hand.score(1, 1, 0.6)
    assert [t.trial for t in hand.engine.news()] == [0]
    assert hand.engine.news() == []


# --- repeats ----------------------------------------------------------------------------------------------------------


def test_repeats_are_asked_for_by_number_and_stand_in_no_table():
    hand = Hand(setting_of("stop", (2, 4), eta=2, repeats=2, budget={"trials": 6}))
    hand.ask_many(4)
    for number, value in enumerate((0.4, 0.3, 0.2, 0.1)):
        assert hand.engine.rules.tables.get(("", 0, 2)) is None or len(hand.table(2)[0]) == number
        hand.beat(number, 1)
        hand.score(number, 2, value)
    assert hand.ask() == 0  # let on
    again_ = hand.engine.ask()
    repeat = hand.state.trials[again_.trial]
    assert (repeat.trial, repeat.of, repeat.origin, repeat.draws) == (4, 0, "repeat", hand.state.trials[0].draws)
    assert hand.ask() == 5  # the second repeat waits for two more scores
    assert hand.state.trials[5].of is None
    epochs, tables = hand.state.epochs, {k: len(t) for k, t in hand.engine.rules.tables.items()}
    assert [hand.beat(4, 1), hand.score(4, 2, 0.99)] == ["go", "repeated"]
    assert hand.state.epochs == epochs + 2  # they cost what others cost
    assert {k: len(t) for k, t in hand.engine.rules.tables.items()} == tables
    assert 4 not in hand.engine.model.observations
    assert hand.ask() == 6  # six trials, whatever is repeated
    assert hand.state.count == 6
    plain = Hand(setting_of("stop", (2, 4), eta=2, budget={"trials": 6}))
    plain.ask_many(6)
    assert [t.draws for t in hand.state.trials.values() if t.of is None] == [
        t.draws for t in plain.state.trials.values()
    ]  # they change nothing in what is proposed
    assert hand.ask() is None
    hand.score(5, 2, 0.05)
    assert hand.ask() is None
    hand.score(6, 2, 0.04)
    assert hand.ask() == 7
    assert hand.state.trials[7].of == 1
    hand.engine.ended(7, COLLAPSED)  # a repeat that fails is no fault of the one that it repeats
    assert {k: len(t) for k, t in hand.engine.rules.tables.items()} == tables | {("", 0, 2): 6}
    hand.score(0, 4, 0.4)
    assert hand.ask() is None
    assert hand.engine.finished


def test_a_search_is_not_finished_while_a_repeat_is_due():
    hand = Hand(setting_of("stop", (1, 2), eta=2, repeats=1, budget={"trials": 4}))
    hand.ask_many(4)
    for number in range(4):
        hand.score(number, 1, 0.5 - number / 10)
    hand.ask()
    hand.score(0, 2, 0.5)
    assert all(t.ended for t in hand.state.trials.values())
    assert not hand.engine.finished
    assert hand.ask() == 4
    hand.score(4, 1, 0.4)
    assert hand.engine.finished


# --- failures ---------------------------------------------------------------------------------------------------------


def test_the_third_failure_ends_a_trial_and_ranks_it_last():
    hand = Hand(setting_of("stop", eta=2, budget={"trials": 2, "retries": 2}))
    hand.ask_many(2)
    hand.score(1, 1, 0.01)
    hand.beat(0, 1)
    for _ in range(2):
        assert hand.engine.failed(0, "CUDA error") is True
        assert hand.ask() == 0
    assert hand.engine.failed(0, "out of memory" + "y" * 1000) is False
    trial = hand.state.trials[0]
    assert (trial.ended, len(trial.failures)) == ("failed", 3)
    assert trial.detail == ("out of memory" + "y" * 1000)[:500]
    assert hand.table(1) == ([1, 0], [1])  # 0.01 is better than none, and nobody waits any more
    assert hand.engine.model.observations[0].rung == -2
    assert hand.engine.failed(0, "late news") is False
    assert len(hand.events.told("fail")) == 3
    assert hand.ask() == 1


def test_failures_are_counted_over_drivers():
    hand = Hand(setting_of(budget={"trials": 1, "retries": 1}))
    hand.ask()
    hand.engine.failed(0, "one")
    next_ = again(hand.events.lines, setting_of(budget={"trials": 1, "retries": 1}))
    assert next_.ask() == 0
    assert next_.engine.failed(0, "two") is False
    killed = again([*hand.events.lines, *next_.events.lines[:-1]], setting_of(budget={"trials": 1, "retries": 1}))
    assert killed.events.told("end") == [("end", 0, "failed")]  # it is not given a third try


# --- budgets ----------------------------------------------------------------------------------------------------------


def test_trials_are_counted_without_repeats_and_without_regard_to_how_they_end():
    hand = Hand(setting_of(budget={"trials": 3}))
    assert hand.ask_many(4) == [0, 1, 2, None]
    hand.engine.ended(0, COLLAPSED)
    hand.engine.cancel(1, "by hand")
    assert hand.ask() is None


@pytest.mark.parametrize(
    ("limit", "told"),
    [
        ({"epochs": 4}, "4 of 4 epochs spent"),
        ({"gpu_hours": 4.0}, "4 of 4 GPU-hours spent"),
        ({"money": 6.0, "price": 1.5}, "6 of 6 money spent"),
    ],
)
def test_limits_end_a_search(limit, told):
    hand = Hand(setting_of(rungs=(2, 4), budget=limit))
    hand.ask_many(2)
    for number in (0, 1):
        assert hand.engine.budget.spent() is None
        hand.beat(number, 1, seconds=3600)
    assert hand.ask() == 2
    hand.beat(2, 1, seconds=3600)
    assert hand.engine.budget.spent() is None
    hand.score(0, 2, 0.5, seconds=3600)
    assert hand.engine.budget.spent() == told
    assert hand.ask() is None


def test_a_gpu_hour_is_counted_for_every_gpu_that_a_trial_holds():
    base = setting_of(budget={"gpu_hours": 2.0})
    setting = Setting(base.ladder, base.sampler, base.budget, gpus=4.0)
    hand = Hand(setting)
    hand.ask()
    hand.beat(0, 1, seconds=1799)
    assert hand.engine.budget.spent() is None
    hand.beat(0, 2, seconds=1)
    assert hand.engine.budget.gpu_hours == 2.0
    assert hand.engine.budget.spent() == "2 of 2 GPU-hours spent"


@pytest.mark.parametrize("rule", ["stop", "promote"])
def test_a_spent_budget_lets_those_in_flight_come_to_their_rung_and_one_to_the_top(rule):
    hand = Hand(setting_of(rule, (2, 4, 8), eta=2, budget={"epochs": 4}))
    hand.ask_many(3)
    hand.beat(0, 1)
    hand.beat(1, 1)
    hand.score(1, 2, 0.6)
    assert hand.score(0, 2, 0.7) == "pause"  # it would have gone on
    assert hand.engine.budget.spent() is not None
    assert hand.events.told("decide") == [("decide", 1, 2, "pause"), ("decide", 0, 2, "pause")]
    assert hand.ask() is None
    hand.engine.dropped(2)  # its worker died: it is among those in flight
    assert hand.ask() == 2
    assert [hand.beat(2, 1), hand.score(2, 2, 0.8)] == ["go", "pause"]
    for epoch in (4, 8):
        assert not hand.engine.finished
        assert hand.ask() == 2  # the best, so that there is a full run
        assert hand.ask() is None
        hand.score(2, epoch, 0.9)
    assert hand.state.trials[2].ended == "top"
    assert hand.engine.finished
    assert [t.trial for t in hand.state.pending] == [0, 1]


@pytest.mark.parametrize("rule", ["stop", "promote"])
def test_with_a_larger_budget_those_who_waited_go_on(rule):
    words = {"rule": rule, "rungs": (1, 2), "eta": 2}
    hand = Hand(setting_of(**words, budget={"epochs": 4}))
    hand.ask_many(4)
    for number in range(4):
        hand.score(number, 1, 0.1 * number)
    went = hand.table(1)[1]
    assert 3 not in went  # the last came when all was spent
    more = again(hand.events.lines, setting_of(**words, budget={"epochs": 40}))
    assert 3 in ([more.ask(), more.ask(), more.ask()])
    assert 3 in more.table(1)[1]


def test_in_flight_stop_ends_trials_at_their_next_report():
    hand = Hand(setting_of(rungs=(3, 9), budget={"epochs": 2, "in_flight": "stop"}))
    hand.ask_many(3)
    assert hand.beat(0, 1) == "go"
    assert hand.beat(1, 1) == "culled"
    assert hand.beat(0, 2) == "culled"
    hand.engine.dropped(2)
    assert not hand.engine.finished
    assert hand.ask() is None  # its worker died, and nobody trains it on
    assert {t.detail for t in hand.state.trials.values()} == {"the budget is spent"}
    assert hand.engine.finished
    assert hand.state.epochs == 3


def test_minutes_are_those_of_all_drivers_by_a_clock_that_never_jumps(tmp_path, monkeypatch):
    """A machine's time is set back and forth an hour; a killed driver's seconds count up to its last event."""
    setting = setting_of(rungs=(3, 9), budget={"minutes": 10})
    wall = itertools.cycle([1e9, 1e9 + 3600, 1e9 - 3600])
    monkeypatch.setattr("time.time", lambda: next(wall))
    now = [0.0]
    spent = []
    for ran in (120.0, 240.0, 239.0, 1.5):
        with Journal(tmp_path / "j", HEADER) as journal:
            journal._clock = lambda: now[0]
            now[0] += 1e6  # the machine was off
            journal.drive()
            engine = make_engine(journal, ONE, setting)
            segment = engine.ask()
            spent.append(engine.budget.minutes)
            now[0] += ran
            if segment is not None:
                engine.report(segment.trial, Report(segment.after + 1, False, None, None, 1.0))
            spent.append(engine.budget.minutes)
            now[0] += 1e3  # nothing came in before it was killed: nobody knows of these
    # The milliseconds that a slow disk takes to open the first journal are counted too, and are none of the faked ones.
    assert spent == pytest.approx([0, 2, 2, 6, 6, 9.983333, 9.983333, 10.008333], abs=0.005)
    events = read_events(tmp_path / "j")[0]
    starts = [i for i, e in enumerate(events) if e["e"] == "drive"] + [len(events)]
    assert len(starts) == 5
    for begin, end in itertools.pairwise(starts):
        at = [e["at"] for e in events[begin:end]]
        assert at[0] == 0.0
        assert at == sorted(at)
    with Journal(tmp_path / "j", HEADER) as journal:
        assert make_engine(journal, ONE, setting).ask() is not None  # the trial in flight
    assert [e["e"] for e in events if e["e"] == "ask"] == ["ask"]


# --- the end ----------------------------------------------------------------------------------------------------------


def test_conclude_ends_those_who_wait_and_nobody_else():
    hand = Hand(setting_of(budget={"trials": 3}))
    hand.ask_many(3)
    hand.score(0, 1, 0.5)
    hand.beat(1, 1)
    hand.engine.conclude()
    assert hand.events.told("end") == [("end", 0, "culled")]


# --- a driver that goes on --------------------------------------------------------------------------------------------


def curve(lr: float, epoch: int) -> float | None:
    """A score that a trial's draws decide; some diverge at 4 epochs, some are bad at first and good later."""
    turn = (lr * 7919) % 1
    if epoch >= 4 and turn > 0.85:
        return None
    return round(turn * (0.5 if epoch < 2 and turn > 0.6 else 1) + epoch / 100, 3)


def one_worker(hand: Hand) -> None:
    """Run a search to its end. A trial that goes on gives its last scored epoch again, as a checkpoint does."""
    while (segment := hand.engine.ask()) is not None:
        trial = hand.state.trials[segment.trial]
        lr = segment.draws["lr"]
        last = trial.last_rung
        epoch = 0 if last is None else last.epoch - 1
        going = True
        while going:
            epoch += 1
            if (lr * 104729) % 1 > 0.9 and epoch == 3:
                going = hand.engine.ended(segment.trial, COLLAPSED, "spread").goes_on
            elif (lr * 104729) % 1 < 0.1 and epoch == 2:
                hand.engine.failed(segment.trial, "CUDA error")
                going = False
            elif epoch in hand.engine.ladder.rungs:
                going = hand.verdict(segment.trial, epoch, curve(lr, epoch), round(lr, 3)).goes_on
            else:
                going = hand.beat(segment.trial, epoch) == "go"
    assert hand.engine.finished
    hand.engine.conclude()


VARIANTS = {
    "stop": {"rule": "stop"},
    "promote": {"rule": "promote"},
    "grow": {"rule": "promote", "grow": True},
    "brackets": {"rule": "promote", "brackets": 3},
    "stop-brackets": {"rule": "stop", "brackets": 2, "per_method": True},
    "per-method": {"rule": "promote", "per_method": True},
    "repeats": {"rule": "stop", "repeats": 3},
    "epochs": {"rule": "stop", "budget": {"epochs": 41}},
    "in-flight": {"rule": "promote", "budget": {"epochs": 40, "in_flight": "stop"}},
    "two": {"rule": "promote", "objectives": ("top1", "gpu_seconds")},
    "tpe": {"rule": "promote", "sampler": "tpe", "startup": 3},
}


def times_apart(lines):
    return [{k: v for k, v in line.items() if k not in ("time", "at")} for line in lines]


@pytest.mark.parametrize("words", VARIANTS.values(), ids=VARIANTS)
def test_a_driver_killed_after_any_line_goes_on_as_if_nothing_had_been(words):
    """One worker: whatever is cut off is written again, line for line, and so is the rest."""
    setting = setting_of(**({"rungs": (1, 2, 4, 8), "eta": 2, "seed": 23, "budget": {"trials": 14}} | words))
    whole = Hand(setting, TWO)
    one_worker(whole)
    lines = times_apart(whole.events.lines)
    kinds = {line["e"] for line in lines}
    assert {"ask", "report", "decide", "fail", "end"} <= kinds
    assert ("grow" in kinds) == ("grow" in words)
    assert any(t.ended == "top" for t in whole.state.ended) or "in_flight" in words.get("budget", {})
    step = 7 if words.get("sampler") == "tpe" else 1  # a model takes its time
    for kept in range(0, len(lines), step):
        next_ = again(whole.events.lines[:kept], setting, TWO)
        one_worker(next_)
        assert lines[:kept] + times_apart(next_.events.lines) == lines
    state, events = whole.state, Line(whole.events.lines)
    assert events.state == state
    assert Line([*whole.events.lines, *whole.events.lines]).state == state
    assert picture(Hand(setting, TWO, events).engine) == picture(whole.engine)
    assert events.lines == []  # nothing was left to decide


def test_a_heartbeat_that_comes_late_changes_no_cost():
    """What a trial costs at a rung is told by what came before its score, in a driver that goes on as well."""
    setting = setting_of(rungs=(3, 9), eta=2, objectives=("top1", "gpu_seconds"))
    hand = Hand(setting)
    hand.ask_many(2)
    hand.beat(0, 2)
    hand.score(0, 3, 0.5)
    hand.beat(0, 1, seconds=500)
    hand.score(1, 3, 0.6)
    assert picture(again(hand.events.lines, setting).engine) == picture(hand.engine)
    assert hand.engine.model.observations[0].cost == 9.0  # a second an epoch, nine of them


def test_what_was_known_then_does_not_hang_on_who_was_cancelled_since():
    """A model's length scales are fitted now and then, on what was in: a driver that goes on fits them anew."""
    hand = Hand(setting_of(eta=2, budget={"trials": 9}))
    hand.ask_many(9)
    for number in range(9):
        hand.score(number, 1, (number * 7 % 9) / 10)
    then = hand.engine.model.ranked_after(6)
    assert [o.trial for o in then] == [5, 1, 2, 3, 4, 0]
    hand.engine.cancel(5, "by hand")
    assert hand.engine.model.ranked_after(6) == then
    assert 5 not in [o.trial for o in hand.engine.model.ranked()]


# --- a disk that is full ----------------------------------------------------------------------------------------------


class Disk:
    """Takes so many bytes more, then a part of a line, then nothing."""

    def __init__(self, left: int) -> None:
        self.left, self.write = left, os.write

    def __call__(self, fd: int, data: bytes) -> int:
        part = data[: self.left]
        self.left -= len(part)
        if not part:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.write(fd, part)


@pytest.mark.parametrize("left", [0, 1, 30, 140, 200, 300, 470])
def test_a_full_disk_leaves_whole_lines_even_if_somebody_writes_on(tmp_path, monkeypatch, left):
    """Ray's loop may swallow what a callback raises: the next line must not follow a torn one."""
    with Journal(tmp_path / "j", HEADER) as journal:
        hand = Hand(setting_of(eta=2), events=journal)
        hand.ask_many(2)
        hand.score(0, 1, 0.5)
        size = (tmp_path / "j").stat().st_size
        with monkeypatch.context() as full:
            full.setattr(os, "write", Disk(left))
            with pytest.raises(WorkFailed, match="j: No space left on device; its lines are kept"):
                [hand.score(1, epoch, 0.6) for epoch in (1, 2, 3, 4)]
        assert size <= (tmp_path / "j").stat().st_size <= size + left
        assert replay(tmp_path / "j") == journal.state
        assert hand.score(1, 1, 0.6) == "go"  # there is room again; the report comes again
        assert replay(tmp_path / "j") == journal.state
    with Journal(tmp_path / "j", HEADER) as journal:
        assert not journal.torn
        assert journal.state.trials[1].verdicts == {1: "go"}


def test_a_line_that_could_not_be_flushed_is_taken_back(tmp_path, monkeypatch):
    with Journal(tmp_path / "j", HEADER) as journal:
        size = (tmp_path / "j").stat().st_size

        def broken(fd: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        with monkeypatch.context() as full:
            full.setattr(os, "fsync", broken)
            with pytest.raises(WorkFailed, match="Input/output error"):
                journal.ask({"method": "a"}, "random")
        assert (tmp_path / "j").stat().st_size == size
        assert journal.state.trials == {}
        assert journal.ask({"method": "a"}, "random") == 0
    assert [e["e"] for e in read_events(tmp_path / "j")[0]] == ["open", "ask"]


@pytest.mark.parametrize("garbage", [b"\0" * 512, b'{"e":"ask",\r"trial":1', b"\r\r\x0b\x0c\x85", b'{"e":"end"}\n'])
def test_garbage_after_the_last_line_is_cut_off(tmp_path, garbage):
    with Journal(tmp_path / "j", HEADER) as journal:
        journal.ask({"method": "a"}, "random")
    whole = (tmp_path / "j").read_bytes()
    (tmp_path / "j").write_bytes(whole + garbage)
    with Journal(tmp_path / "j", HEADER) as journal:
        assert journal.torn
        assert list(journal.state.trials) == [0]
    assert (tmp_path / "j").read_bytes() == whole
