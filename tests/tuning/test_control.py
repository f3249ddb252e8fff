"""Commands to a running search: dropped by a verb, taken in once by the driver, refused where they make no sense."""

from __future__ import annotations

import fcntl
import json
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.errors import InputError
from tuning.cli import _run
from tuning.config.schema import BudgetSpec, SamplerSpec
from tuning.control import (
    LARGEST,
    CancelAsked,
    EnqueueAsked,
    Inbox,
    PruneAsked,
    StopAsked,
    checked,
    drop,
    forget_stops,
    is_running,
    parse,
)
from tuning.engine.choices import Choices, choices_of
from tuning.engine.finalists import ranking
from tuning.engine.journal import Journal, read_events, replay
from tuning.engine.ladder import Ladder
from tuning.engine.state import CANCELLED, CULLED, GO, PAUSE, Report
from tuning.engine.virtual import Setting, make_engine
from tuning.enqueue import read_configs
from tuning.resources import find_space
from tuning.space import check_text
from tuning.space.domains import Draw
from tuning.space.export import dump

HEADER = {"space": "s", "data": "d", "name": "toy", "engine": "skeltune"}
CHOICES = Choices(
    (
        ("a", (Draw("method/a/x", "float", 0.0, 1.0),)),
        ("b", (Draw("method/b/k", "int", 1, 9), Draw("method/b/w", "categorical", choices=(True, 2, "three", None)))),
    )
)
HERE = {"method": "a", "method/a/x": 0.25}


class Wish:
    asked = False


class Driver:
    """A driver's life: the journal, an engine over it and the inbox. ``said`` is what its terminal shows."""

    def __init__(self, folder, trials=20, budget=None, check=dict):
        self.journal = Journal(folder / "journal.jsonl", HEADER)
        self.stop, self.said, self.now = Wish(), [], 0.0
        ladder = Ladder((1, 3, 9), 3, rule="promote")
        setting = Setting(ladder, SamplerSpec(name="random"), budget or BudgetSpec(trials=trials))
        self.engine = make_engine(self.journal, CHOICES, setting, interrupted=lambda: self.stop.asked)
        self.inbox = Inbox(folder, self.engine, self.stop, self.said.append, check=check, clock=lambda: self.now)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.journal.close()

    def poll(self):
        self.now += 1.0
        self.inbox.poll()

    def score(self, number, epoch, top1):
        return self.engine.report(number, Report(epoch, epoch in (1, 3, 9), top1, 1.0, 2.0)).word

    def ends(self):
        return {t.trial: t.ended for t in self.journal.state.ended}


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "toy"
    path.mkdir()
    return path


@pytest.fixture
def driver(folder):
    with Driver(folder) as one:
        yield one


def inbox_of(folder):
    return sorted(p.name for p in (folder / "inbox").iterdir())


def lines_of(folder):
    return (folder / "journal.jsonl").read_bytes().count(b"\n")


# --- what the engine does with it -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("how", "reason"), [("cancel", CANCELLED), ("prune", CULLED)])
def test_a_worker_is_at_work_until_its_trials_next_report(folder, how, reason):
    with Driver(folder, trials=1) as driver:
        engine = driver.engine
        assert engine.ask().trial == 0
        getattr(engine, how)(0, "by hand")
        assert driver.ends() == {0: reason}
        assert engine.busy == {0} and not engine.finished
        lines = lines_of(folder)
        assert driver.score(0, 1, 0.9) == reason
        assert lines_of(folder) == lines and not driver.journal.state.trials[0].reports
        assert not engine.busy and engine.finished
        assert [t.trial for t in engine.news()] == [0]


def test_a_worker_that_dies_after_its_trial_ended_is_free_and_not_tried_again(driver):
    driver.engine.ask()
    driver.engine.ask()
    driver.engine.cancel(0, "by hand")
    driver.engine.cancel(1, "by hand")
    assert driver.engine.failed(0, "killed") is False
    assert driver.engine.busy == {1}
    assert driver.engine.ended(1, "diverged").word == "diverged"
    assert not driver.engine.busy
    assert driver.ends() == {0: CANCELLED, 1: CANCELLED}
    assert driver.journal.state.trials[0].failures == []


def climb(driver):
    """Seven trials at the first rung, two of them at the second; who waits: 1 to 6 at 1 (but 5), 0 and 5 at 3."""
    for number, top1 in enumerate((0.7, 0.1, 0.2, 0.3, 0.4, 0.8, 0.5)):
        assert driver.engine.ask().trial == number
        word = driver.score(number, 1, top1)
        assert word == (GO if number == 5 else PAUSE)
        if number == 2:
            assert driver.engine.ask().trial == 0  # the best of three
            driver.score(0, 2, None)
            assert driver.score(0, 3, 0.75) == PAUSE
        if number == 5:
            driver.score(5, 2, None)
            assert driver.score(5, 3, 0.85) == PAUSE


def test_behind_are_those_who_wait_and_are_not_among_the_best_of_their_rung(driver):
    climb(driver)
    assert [t.trial for t in driver.journal.state.pending if t.paused] == [0, 1, 2, 3, 4, 5, 6]
    assert driver.engine.behind() == [1, 2, 3, 4, 6]  # at 3 there are two, fewer than eta: nothing is decided
    driver.engine.prune(6, "by hand")
    assert driver.engine.behind() == [1, 2, 3, 4]
    assert 6 in driver.engine.rules.table(driver.journal.state.trials[6], 1).known  # its score counts on
    assert driver.engine.model.observations[6].value == 0.5


def test_nothing_is_learnt_of_a_cancelled_trial(folder):
    """Neither at once nor after a restart; where others were compared with it, they were."""
    with Driver(folder) as driver:
        climb(driver)
        driver.engine.cancel(5, "by hand")
        model = driver.engine.model
        assert model.observations[5].rung == -1
        assert 5 not in [o.trial for o in model.ranked()]
        assert [t.trial for t in ranking(driver.journal.state, 3)] == [0]
    with Driver(folder) as again:
        assert again.engine.rules.tables == driver.engine.rules.tables
        assert again.engine.model.observations == model.observations


# --- there and back -------------------------------------------------------------------------------------------------


def test_stop_is_the_first_interrupt(folder, driver):
    driver.engine.ask()
    (path,) = drop(folder, [StopAsked()])
    driver.poll()
    assert driver.stop.asked and inbox_of(folder) == []
    assert driver.journal.state.commands[path.stem]["verb"] == "stop"
    assert driver.engine.ask() is None
    assert driver.score(0, 2, None) == "stop"  # between rungs
    assert driver.journal.state.trials[0].ended is None
    assert len(driver.said) == 1 and "running trials end at their next epoch" in driver.said[0]


def test_stop_now_is_the_second_interrupt_and_is_over_with_it(folder, driver):
    (path, _) = drop(folder, [StopAsked(now=True), CancelAsked(trials=[0])])
    driver.engine.ask()
    with pytest.raises(KeyboardInterrupt):
        driver.poll()
    assert driver.stop.asked and driver.journal.state.commands[path.stem]["now"] is True
    assert len(inbox_of(folder)) == 1  # the next driver cancels
    driver.poll()
    assert driver.ends() == {0: CANCELLED}


def test_cancel_ends_whoever_runs_or_waits(folder, driver):
    climb(driver)
    assert driver.engine.ask().trial == 7
    drop(folder, [CancelAsked(trials=[7, 1, 7])])
    driver.poll()
    assert driver.ends() == {1: CANCELLED, 7: CANCELLED}
    assert driver.journal.state.trials[7].detail == "cancelled by hand"
    assert driver.said == ["cancel was asked for: t0007, t0001"]
    drop(folder, [CancelAsked(trials=[1, 2])])
    driver.poll()
    assert driver.ends() == {1: CANCELLED, 2: CANCELLED, 7: CANCELLED}
    assert driver.said[1:] == ["cancel was asked for: t0001, t0002; t0001 had ended already (cancelled)"]


def test_prune_culls_those_named_or_all_behind(folder, driver):
    climb(driver)
    drop(folder, [PruneAsked(trials=[2])])
    driver.poll()
    assert driver.ends() == {2: CULLED}
    (path,) = drop(folder, [PruneAsked(waiting=True)])
    driver.poll()
    assert driver.ends() == dict.fromkeys((1, 2, 3, 4, 6), CULLED)
    assert driver.journal.state.commands[path.stem]["trials"] == [1, 3, 4, 6]
    drop(folder, [PruneAsked(waiting=True)])
    driver.poll()
    assert driver.said[-1] == "prune --waiting was asked for: nobody to cull"


def test_enqueued_draws_are_asked_next_in_their_order(folder, driver):
    driver.engine.ask()
    other = {"method": "b", "method/b/k": 3, "method/b/w": None}
    drop(folder, [EnqueueAsked(draws=HERE), EnqueueAsked(draws=other)])
    driver.poll()
    asked = [driver.engine.ask() for _ in range(3)]
    assert [dict(a.draws) for a in asked[:2]] == [HERE, other]
    assert [t.origin for t in driver.journal.state.trials.values()] == ["startup", "enqueued", "enqueued", "startup"]
    assert driver.said[1] == "enqueued: a configuration of b, to be asked next"


def test_the_folder_is_looked_at_once_a_second(folder, driver):
    driver.inbox.poll()
    drop(folder, [StopAsked()])
    driver.now = 0.99
    driver.inbox.poll()
    assert not driver.stop.asked
    driver.now = 1.0
    driver.inbox.poll()
    assert driver.stop.asked


def test_without_an_engine_of_ours_only_stop_is_obeyed(folder):
    with Journal(folder / "journal.jsonl", HEADER) as journal:
        stop, said, clock = Wish(), [], iter(range(10))
        inbox = Inbox(folder, journal, stop, said.append, clock=lambda: next(clock))
        drop(folder, [EnqueueAsked(draws=HERE), StopAsked()])
        inbox.poll()
        inbox.poll()
        assert stop.asked and [c["verb"] for c in journal.state.commands.values()] == ["stop"]
        (left,) = inbox_of(folder)
        assert said[0] == f"inbox: `enqueue` waits in {left}: this engine knows `stop` alone" and len(said) == 2


# --- killed between ------------------------------------------------------------------------------------------------


def written(driver, path):
    """The driver's first step for a file: understood, and in the journal."""
    verb, what, _ = driver.inbox._understood(path.name)
    driver.journal.command(path.stem, verb, **what)


@pytest.mark.parametrize("acted", [False, True])
@pytest.mark.parametrize(
    ("asked", "ends"),
    [
        (CancelAsked(trials=[1, 2]), {1: CANCELLED, 2: CANCELLED}),
        (PruneAsked(trials=[1, 2]), {1: CULLED, 2: CULLED}),
        (PruneAsked(waiting=True), dict.fromkeys((1, 2, 3, 4, 6), CULLED)),
    ],
)
def test_ends_happen_once_wherever_the_driver_is_killed(folder, asked, ends, acted):
    with Driver(folder) as driver:
        climb(driver)
        (path,) = drop(folder, [asked])
        written(driver, path)
        if acted:
            driver.inbox._act(driver.journal.state.commands[path.stem])
        else:  # killed in the middle: one of them has ended
            end = driver.engine.cancel if asked.verb == "cancel" else driver.engine.prune
            end(1, f"{asked.verb} by hand")
    with Driver(folder) as again:
        assert again.ends() == ends  # by the journal alone
        lines = lines_of(folder)
        again.poll()
        assert inbox_of(folder) == [] and again.said == []
        assert lines_of(folder) == lines
    events = read_events(folder / "journal.jsonl")[0]
    assert sorted(e["trial"] for e in events if e["e"] == "end") == sorted(ends)
    assert sum(e["e"] == "command" for e in events) == 1


def test_killed_before_the_journal_nothing_has_happened(folder):
    with Driver(folder) as driver:
        driver.engine.ask()
        drop(folder, [CancelAsked(trials=[0])])
    with Driver(folder) as again:
        assert again.ends() == {}
        again.poll()
        assert again.ends() == {0: CANCELLED} and inbox_of(folder) == []


def test_what_is_enqueued_is_tried_once_wherever_the_driver_is_killed(folder):
    (path,) = drop(folder, [EnqueueAsked(draws=HERE)])
    with Driver(folder) as driver:
        written(driver, path)
    with Driver(folder) as driver:  # killed before the file went
        assert dict(driver.engine.ask().draws) == HERE
    with Driver(folder) as driver:
        driver.poll()
        assert inbox_of(folder) == [] and driver.said == []
        assert driver.engine.ask().trial == 0
        driver.engine.ask()
        assert [t.origin for t in driver.journal.state.trials.values()] == ["enqueued", "startup"]


def test_a_stop_that_ended_one_driver_does_not_end_the_next(folder):
    (path,) = drop(folder, [StopAsked(now=True)])
    with Driver(folder) as driver:
        written(driver, path)
    with Driver(folder) as again:
        again.poll()
        assert not again.stop.asked and inbox_of(folder) == []


def test_a_stop_that_nobody_took_in_is_forgotten_by_the_next_driver(folder):
    drop(folder, [StopAsked(), CancelAsked(trials=[0]), StopAsked(now=True)])
    (folder / "inbox" / "note.txt").write_text("hello")
    forget_stops(folder)
    assert [n for n in inbox_of(folder) if n != "note.txt"] == [p.name for p in (folder / "inbox").glob("*.json")]
    assert [json.loads(p.read_text())["verb"] for p in (folder / "inbox").glob("*.json")] == ["cancel"]
    assert (folder / "inbox" / "note.txt").exists()
    forget_stops(folder / "nowhere")


# --- what makes no sense --------------------------------------------------------------------------------------------


def put(folder, content, name="01700000000000000000-0123abcd.json"):
    path = folder / "inbox" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[" * 60_000, "no JSON"),
        (b'{"verb": "stop", "verb": "cancel"}', "a key is given twice"),
        (b'{"verb": "enqueue", "draws": {"method": NaN}}', "NaN is no number"),
        (b'{"verb": "cancel", "trials": [' + b"9" * 5000 + b"]}", "no JSON"),
        (b'{"verb": "stop"}' + b" " * LARGEST, f"more than {LARGEST} bytes"),
        ([], "valid dictionary"),
        ({}, "verb"),
        ({"verb": "eval"}, "'eval'"),
        ({"verb": ["stop"]}, "verb"),
        ({"verb": "stop", "command": "rm"}, "command: Extra inputs are not permitted"),
        ({"verb": "stop", "now": 1}, "now: Input should be a valid boolean"),
        ({"verb": "cancel", "trials": []}, "at least 1"),
        ({"verb": "cancel", "trials": [-1]}, "greater than or equal to 0"),
        ({"verb": "cancel", "trials": [True]}, "valid integer"),
        ({"verb": "cancel", "trials": ["0"]}, "valid integer"),
        ({"verb": "cancel", "trials": [0, 7]}, "there is no trial t0007"),
        ({"verb": "prune"}, "either trials or waiting"),
        ({"verb": "prune", "trials": [0], "waiting": True}, "either trials or waiting"),
        ({"verb": "enqueue", "draws": {"method": "c"}}, "method 'c' is not in this space"),
        ({"verb": "enqueue", "draws": {"method/a/x": 0.5}}, "method None is not in this space"),
        ({"verb": "enqueue", "draws": {"method": "a"}}, "'method/a/x' is missing"),
        ({"verb": "enqueue", "draws": HERE | {"y": 1}}, "'y' is missing or none of method 'a'"),
        ({"verb": "enqueue", "draws": HERE | {"method/a/x": 1.5}}, "got 1.5"),
        ({"verb": "enqueue", "draws": HERE | {"method/a/x": "0.5"}}, "must be a number"),
        ({"verb": "enqueue", "draws": HERE | {"method/a/x": [0.5]}}, "draws: method/a/x"),
        ({"verb": "enqueue", "draws": {"method": "b", "method/b/k": 10**400, "method/b/w": 2}}, "too large"),
        (b'{"verb": "enqueue", "draws": {"method": "a", "method/a/x": 1e999}}', "method/a/x"),
        ({"verb": "enqueue", "draws": {"method": "\ud800\x1b[2J"}}, "refused"),
        ({"verb": "enqueue", "draws": {"method": "a", "\x1b[2J" * 99: 1}}, "?[2J?[2J"),
    ],
)
def test_what_makes_no_sense_is_moved_away_and_changes_nothing(folder, driver, content, why):
    driver.engine.ask()
    lines = lines_of(folder)
    path = put(folder, content)
    driver.poll()
    driver.poll()
    assert len(driver.said) == 1 and driver.said[0].startswith(f"inbox: {path.name} refused: ")
    assert why in driver.said[0] and driver.said[0].isprintable() and len(driver.said[0]) <= 300
    assert inbox_of(folder) == ["refused"] and [p.name for p in (folder / "inbox/refused").iterdir()] == [path.name]
    assert lines_of(folder) == lines and not driver.stop.asked and driver.ends() == {}


def test_only_plain_files_with_names_of_ours_are_read(folder, driver, tmp_path):
    inbox = folder / "inbox"
    good = put(folder, {"verb": "stop"}, "stop.json")
    outside = tmp_path / "outside.json"
    outside.write_text('{"verb": "stop"}')
    link = inbox / "00000000000000000001-00000000.json"
    link.symlink_to(outside)
    pipe = inbox / "00000000000000000002-00000000.json"
    os.mkfifo(pipe)
    room = inbox / "00000000000000000003-00000000.json"
    room.mkdir()
    odd = inbox / "a\x1b[2J.json"
    odd.write_text("{}")
    (inbox / ".00000000000000000004-00000000.json.part").write_text('{"verb": "st')  # being written
    driver.poll()
    assert not driver.stop.asked
    assert sorted(p.name for p in (inbox / "refused").iterdir()) == sorted(
        p.name for p in (good, link, pipe, room, odd)
    )
    assert inbox_of(folder) == [".00000000000000000004-00000000.json.part", "refused"]
    assert "inbox: a?[2J.json refused: no name of ours" in driver.said
    assert f"inbox: {pipe.name} refused: no plain file" in driver.said and len(driver.said) == 5


def test_what_cannot_be_moved_away_is_told_once(folder, driver):
    path = put(folder, b"{")
    (folder / "inbox" / "refused").write_text("in the way")
    driver.poll()
    driver.poll()
    assert path.exists() and len(driver.said) == 1


def test_draws_that_no_config_can_be_made_of_are_refused(folder):
    def check(draws):
        raise InputError("frames and segments do not go together")

    with Driver(folder, check=check) as driver:
        drop(folder, [EnqueueAsked(draws=HERE)])
        driver.poll()
        assert driver.said[0].endswith("refused: frames and segments do not go together")
        assert driver.journal.state.commands == {}


def test_a_full_disk_is_no_fault_of_the_command(folder, driver, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    drop(folder, [StopAsked()])
    monkeypatch.setattr(driver.journal, "append", full)
    with pytest.raises(OSError, match="No space left"):
        driver.poll()
    assert len(inbox_of(folder)) == 1 and "refused" not in inbox_of(folder)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=60) | st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists).map(str))
def test_no_bytes_are_worse_than_refused(raw):
    with pytest.raises(InputError):
        parse(raw if isinstance(raw, bytes) else raw.encode("utf-8", "surrogatepass"))


def test_draws_become_what_a_sampler_would_have_given():
    found = checked({"method/b/k": 3.0, "method": "b", "method/b/w": 2.0}, CHOICES)
    assert found == {"method": "b", "method/b/k": 3, "method/b/w": 2}
    assert type(found["method/b/k"]) is int and type(found["method/b/w"]) is int
    assert checked({"method": "a", "method/a/x": 1 + 1e-12}, CHOICES)["method/a/x"] == 1.0
    assert type(checked({"method": "a", "method/a/x": 1}, CHOICES)["method/a/x"]) is float
    assert checked({"method": "b", "method/b/k": 1, "method/b/w": True}, CHOICES)["method/b/w"] is True
    with pytest.raises(InputError, match="none of"):
        checked({"method": "b", "method/b/k": 1, "method/b/w": False}, CHOICES)


# --- the verbs ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def quickstart():
    text = find_space("quickstart").read_text(encoding="utf-8")
    return text, *check_text(text)


@pytest.fixture
def run(tmp_path, quickstart):
    """A run of the quickstart with four trials: one culled, one waiting at the first rung, one running, one full."""
    path = tmp_path / "runs" / "quickstart"
    path.mkdir(parents=True)
    (path / "space.yaml").write_text(quickstart[0], encoding="utf-8")
    start = dict(
        check_text(quickstart[0].replace("sampler:", "start_from: [published]\nsampler:", 1))[1].starts[0].draws
    )
    with Journal(path / "journal.jsonl", HEADER) as journal:
        for _ in range(4):
            journal.ask(start, "startup")
        journal.end(0, "culled")
        journal.report(1, Report(1, True, 0.4, 1.0, 2.0))
        journal.decide(1, 1, PAUSE)
        journal.end(3, "top")
    return path


def held(run):
    return Journal(run / "journal.jsonl", HEADER)


def verb(run, name, *arguments):
    return _run([name, "quickstart", *map(str, arguments), "--runs", str(run.parent)])


def dropped(run):
    return [json.loads((run / "inbox" / n).read_text()) for n in inbox_of(run)] if (run / "inbox").exists() else []


def test_who_runs_is_who_holds_the_journal(run):
    assert not is_running(run)
    with held(run):
        assert is_running(run)
    with (run / "journal.jsonl").open("rb") as another:  # a verb that looks at the same moment is no driver
        fcntl.flock(another, fcntl.LOCK_SH)
        assert not is_running(run)


def test_stop_verb(run, capsys):
    assert verb(run, "stop") == 0
    assert capsys.readouterr().out == "quickstart: no search is running\n"
    assert dropped(run) == []
    with held(run):
        assert verb(run, "stop") == 0
        assert verb(run, "stop", "--now") == 0
    assert [(d["verb"], d["now"]) for d in dropped(run)] == [("stop", False), ("stop", True)]
    assert "running trials end at their next epoch" in capsys.readouterr().out
    assert _run(["stop", "quickstrat", "--runs", str(run.parent)]) == 2
    assert "did you mean 'quickstart'" in capsys.readouterr().err


def test_cancel_verb(run, capsys):
    with held(run):
        assert verb(run, "cancel", "t0002", "1", "t2") == 0
    assert capsys.readouterr().out.startswith("quickstart: asked to cancel t0002, t0001; ")
    assert dropped(run) == [{"verb": "cancel", "trials": [2, 1]}]


def test_cancel_verb_says_all_that_is_wrong_and_asks_for_nothing(run, capsys):
    assert verb(run, "cancel", "t0002", "t0000", "t0009", "x7") == 2
    told = capsys.readouterr().err
    assert "t0000 has ended already (culled)" in told
    assert "quickstart has no trial t0009; 4 were asked for" in told
    assert "'x7' names no trial; write t0007 or 7" in told
    assert dropped(run) == []


def test_prune_verb(run, capsys):
    assert verb(run, "prune") == 2
    assert verb(run, "prune", "1", "--waiting") == 2
    assert capsys.readouterr().err.count("say which") == 2
    assert verb(run, "prune", "3") == 2
    assert "t0003 has ended already (top)" in capsys.readouterr().err
    with held(run) as journal:
        assert verb(run, "prune", "2") == 0
        assert verb(run, "prune", "--waiting") == 0
        assert [(d["trials"], d["waiting"]) for d in dropped(run)] == [([2], False), (None, True)]
        journal.end(1, "culled")
    assert verb(run, "prune", "--waiting") == 2
    assert "no trial waits at a rung" in capsys.readouterr().err


def test_what_nobody_takes_in_waits_for_the_next_start(run, capsys):
    assert verb(run, "cancel", "1") == 0
    out = capsys.readouterr().out
    assert out == (
        f"quickstart: no search is running; the wish to cancel t0001 waits in {run / 'inbox'} for the next start\n"
    )
    assert dropped(run) == [{"verb": "cancel", "trials": [1]}]


def test_a_run_of_another_engine_knows_stop_alone(tmp_path, run, capsys):
    path = run.parent / "base"
    path.mkdir()
    with Journal(path / "journal.jsonl", HEADER | {"engine": "stock"}) as journal:
        journal.ask(HERE, "startup")
        assert _run(["cancel", str(path), "0"]) == 2
        assert "--engine stock, which knows `skeltune stop` alone" in capsys.readouterr().err
        assert _run(["stop", str(path)]) == 0
    assert [d["verb"] for d in dropped(path)] == ["stop"]


# --- enqueue --------------------------------------------------------------------------------------------------------


def test_an_exported_config_is_what_the_search_asks_next(run, quickstart, tmp_path, capsys):
    _, spec, space = quickstart
    draws = checked(space.sample(np.random.default_rng(3)), choices_of(space))
    config = tmp_path / "best.yaml"
    config.write_text(dump(spec, space.resolve(draws), {"top1": 0.5}), encoding="utf-8")
    with held(run) as journal:
        assert verb(run, "enqueue", config) == 0
        assert capsys.readouterr().out.splitlines() == [
            "quickstart: asked to try 1 configuration next; those enqueued come before the sampler's",
            "they count to budget.trials, of which 4 of 10 were asked for",
        ]
        ladder = Ladder(spec.schedule.rungs(), 2)
        engine = make_engine(journal, choices_of(space), Setting(ladder, spec.sampler, spec.budget))
        said = []
        Inbox(run, engine, Wish(), said.append, check=space.resolve).poll()
        assert said == [f"enqueued: a configuration of {draws['method']}, to be asked next"]
        engine.ask()  # trial 2, which was running
        assert engine.ask().trial == 4
        found = journal.state.trials[4]
        assert found.origin == "enqueued" and space.resolve(found.draws) == space.resolve(draws)
    assert replay(run / "journal.jsonl").trials[4].draws == found.draws


PARTIAL = """\
- method: {skeletonclr: {temperature: 0.2, optim: {lr: 0.001}}}
- {method: skeletonbyol, augment: {strength: 0.75}}
- published
"""


def test_partial_configs_are_filled_as_start_from_fills(run, quickstart, tmp_path, capsys):
    path = tmp_path / "some.yaml"
    path.write_text(PARTIAL)
    starts = [dict(s.draws) for s in read_configs(path, quickstart[2])]
    assert [s["method"] for s in starts] == ["skeletonclr", "skeletonbyol", "skeletonclr", "skeletonbyol"]
    assert starts[0]["method/skeletonclr/temperature"] == 0.2 and starts[1]["augment/strength"] == 0.75
    assert verb(run, "enqueue", path) == 0
    assert [d["draws"] for d in dropped(run)] == starts
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("quickstart: no search is running; the wish to try 4 configurations next waits in ")
    assert out[1] == "they count to budget.trials, of which 4 of 10 were asked for"
    assert out[2].startswith("note: skeletonclr momentum: the published 0.999 lies outside")


def test_the_budget_may_have_no_room(run, tmp_path, capsys):
    path = tmp_path / "some.yaml"
    path.write_text("\n".join(f"- method: {{skeletonclr: {{temperature: 0.{k}}}}}" for k in range(10, 20)))
    assert verb(run, "enqueue", path) == 0
    line = "they count to budget.trials, of which 4 of 10 were asked for: there is room for 6; the others wait"
    assert line in capsys.readouterr().out
    assert len(dropped(run)) == 10


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("method:\n  skeletonclr:\n    temprature: 0.1\n", "3:5", "did you mean 'temperature'"),
        ("method: {skeletonclr: {temperature: 7}}\n", "1:37", "is drawn from log [0.05, 0.5]"),
        ("- published\n- method: {skeletonclr: {queue: 512}}\n", "2:33", "'queue' is fixed at 256 in this space"),
        ("method: {skeletonclr: {temperature: {log: [0.1, 0.2]}}}\n", "1:43", "values, not domains"),
        ("- method: pstl\n", "1:11", "'pstl' is not in this space"),
        ("augment: {strength: 0.5}\n", "1:1", "say which method"),
        ("- 3\n", "1:3", "published"),
        ("[]\n", "1:1", "there is no configuration in this file"),
        ("", "1:1", "empty"),
        ("a: [\n", "2:1", ""),
        ("!!python/object:os.system x\n", "1:1", "tags are not allowed"),
    ],
)
def test_a_wrong_config_is_shown_where_it_is_wrong_and_nothing_is_written(run, tmp_path, capsys, text, place, says):
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with held(run):
        assert verb(run, "enqueue", path) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"{path}:{place}: ") and says in told
    assert not (run / "inbox").exists()


def exported(quickstart, change):
    """A config of the quickstart, exported, with one place of the file changed."""
    _, spec, space = quickstart
    text = dump(spec, space.resolve(dict(space.sample(np.random.default_rng(0)))))
    before, after = change
    assert text.count(before) == 1
    return text.replace(before, after)


def test_all_faults_of_an_exported_config_at_once_with_their_places(run, quickstart, tmp_path, capsys):
    path = tmp_path / "best.yaml"
    text = exported(quickstart, ("width: 8,", "width: 16,"))
    assert text.count("batch: 32") == 1
    path.write_text(text.replace("batch: 32", "batch: 64"))
    assert verb(run, "enqueue", path) == 2
    told = capsys.readouterr().err
    rows = path.read_text().splitlines()
    for label, key, says in (("encoder.width", "width: 16", "8"), ("optim.batch", "batch: 64", "32")):
        row = next(i for i, line in enumerate(rows) if key in line)
        column = rows[row].index(key) + len(key.split()[0]) + 2
        assert f"{path}:{row + 1}:{column}: '{label}' is fixed at {says} in this space" in told
    assert not (run / "inbox").exists()


def test_another_length_is_said_and_this_runs_is_taken(run, quickstart, tmp_path):
    path = tmp_path / "best.yaml"
    path.write_text(exported(quickstart, ("max: 6\n", "max: 12\n")))
    (start,) = read_configs(path, quickstart[2])
    assert start.notes == ("schedule.max is 12 there and 6 in this run, as which it is trained",)
    assert quickstart[2].resolve(dict(start.draws)).epochs == 6


def test_what_a_whole_file_leaves_out_is_its_own_default_not_this_runs(quickstart, tmp_path):
    path = tmp_path / "whole.yaml"
    path.write_text(
        "format: 1\nname: other\ndata: {set: synthetic, frames: 24}\n"
        "search: {method: {skeletonclr: {temperature: 0.1}}, streams: {use: [joint]}}\n"
    )
    with pytest.raises(InputError) as caught:
        read_configs(path, quickstart[2])
    assert all(f.startswith(f"{path}:4:1: ") for f in caught.value.faults)
    assert any("encoder.width is " in f and "fixed at 8" in f for f in caught.value.faults)


def test_a_file_that_is_not_there(run, tmp_path, capsys):
    assert verb(run, "enqueue", tmp_path / "none.yaml") == 2
    assert "there is no such file" in capsys.readouterr().err
    assert not (run / "inbox").exists()
