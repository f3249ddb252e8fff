"""The mirror: the search as Optuna reads it back, whatever happened to the file meanwhile."""

from __future__ import annotations

import math
import os
import threading
from contextlib import contextmanager

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from tuning.engine.choices import Choices
from tuning.engine.journal import Events
from tuning.engine.state import CANCELLED, COLLAPSED, CULLED, DIVERGED, FAILED, REPEATED, TOP, Report
from tuning.observe.mirror import Mirror
from tuning.space.domains import Draw

KINDS = Choices(
    (
        (
            "a",
            (
                Draw("lr", "float", 1e-3, 0.1, log=True),
                Draw("method/a/size", "int", 1, 4),
                Draw("method/a/word", "categorical", choices=(None, "x", True, 2, 0.5)),
            ),
        ),
        ("b", (Draw("lr", "float", 1e-3, 0.1, log=True),)),
    )
)
A = {"method": "a", "lr": 0.01, "method/a/size": 3, "method/a/word": None}
B = {"method": "b", "lr": 0.02}
TOP_EPOCHS = 9


class Search:
    """A search in memory with its mirror, told as the recorder tells it: the journal first."""

    def __init__(self, path, events=None, **options):
        self.path = path
        self.events = events or Events(clock=lambda: 0.0)
        self.mirror = Mirror(path, "demo", KINDS, self.events.state, TOP_EPOCHS, **options)

    def ask(self, draws=A, origin="sampler", of=None):
        trial = self.events.state.trials[self.events.ask(draws, origin, of=of)]
        self.mirror.begun(trial)
        return trial

    def report(self, trial, epoch, top1=None):
        report = Report(epoch, top1 is not None, top1, None, 2.0)
        assert self.events.report(trial.trial, report)
        self.mirror.reported(trial, report)

    def end(self, trial, reason, detail=""):
        assert self.events.end(trial.trial, reason, detail)
        self.mirror.ended(trial)

    def close(self):
        self.mirror.close()
        assert not self.mirror._writer.is_alive()

    def again(self):
        """Close, and go on with what the journal knows."""
        self.close()
        return Search(self.path, self.events)

    @contextmanager
    def held(self):
        """The writing thread has done everything before this, and nothing while it lasts."""
        reached, go_on = threading.Event(), threading.Event()

        def wait(rows):
            reached.set()
            assert go_on.wait(30)

        self.mirror._writer.queue.put((0, wait))
        assert reached.wait(30)
        try:
            yield
        finally:
            go_on.set()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "optuna.log"


@pytest.fixture
def search(path):
    made = Search(path)
    yield made
    made.mirror.close()


def read(path):
    return optuna.load_study(study_name="demo", storage=JournalStorage(JournalFileBackend(str(path))))


def shown(path):
    """All that is to be seen of each trial, without the times."""
    return [
        (t.number, t.state.name, t.values, t.intermediate_values, t.params, t.user_attrs) for t in read(path).trials
    ]


def fill(search):
    """One of each: culled, at the top, failed, running."""
    first, second, third, fourth = search.ask(A), search.ask(B, "start"), search.ask(A), search.ask(B)
    for trial in (first, second, third, fourth):
        search.report(trial, 1, 0.25)
    search.report(second, 2)
    search.report(second, 9, 0.5)
    search.end(first, CULLED, "culled at 1")
    search.end(second, TOP)
    search.end(third, DIVERGED, "nan in step 7")
    return first, second, third, fourth


@pytest.mark.parametrize(
    ("scores", "reason", "state", "value"),
    [
        ({1: 0.25, 3: 0.5, 9: 0.75}, TOP, "COMPLETE", 0.75),
        ({1: 0.25, 3: 0.5}, TOP, "PRUNED", 0.5),  # no full run
        ({1: 0.25, 3: 0.125}, CULLED, "PRUNED", 0.125),
        ({1: 0.25}, CANCELLED, "PRUNED", 0.25),
        ({1: 0.25}, REPEATED, "PRUNED", 0.25),
        ({1: 0.25}, "budget", "PRUNED", 0.25),  # or any other end that is no fault
        ({9: 0.25}, CULLED, "PRUNED", 0.25),
        ({}, CANCELLED, "PRUNED", None),
        ({1: 0.25}, DIVERGED, "FAIL", None),
        ({9: 0.25}, COLLAPSED, "FAIL", None),
        ({}, FAILED, "FAIL", None),
        ({1: 0.25}, None, "RUNNING", None),
    ],
)
@pytest.mark.parametrize("live", [True, False])
def test_ends(path, scores, reason, state, value, live):
    """Told one by one or found in the journal, a trial looks the same."""
    search = Search(path)
    trial = search.ask(A, "start")
    for epoch, top1 in scores.items():
        search.report(trial, epoch, top1)
    if reason:
        search.end(trial, reason, "why")
    search.close()
    if not live:
        path.unlink()
        Search(path, search.events).close()
    (found,) = read(path).trials
    assert (found.state.name, found.value, found.intermediate_values) == (state, value, scores)
    ended = {"ended": reason, "detail": "why", "seconds": 2.0 * len(scores)} if reason else {}
    assert found.user_attrs == {"trial": "t0000", "method": "a", "origin": "start", **ended}


def test_params_are_those_of_the_branch(path, search):
    for draws in (A, B, A | {"method/a/word": True}, A | {"lr": 0.1 * (1 + 1e-12), "method/a/size": 4.0}):
        search.ask(draws)
    search.ask({"method": "of another space"})
    search.close()
    whole, other, word, rounded, strange = read(path).trials
    assert whole.params == A
    assert whole.distributions == {
        "method": CategoricalDistribution(("a", "b")),
        "lr": FloatDistribution(1e-3, 0.1, log=True),
        "method/a/size": IntDistribution(1, 4),
        "method/a/word": CategoricalDistribution((None, "x", True, 2, 0.5)),
    }
    assert other.params == B
    assert word.params["method/a/word"] is True
    assert (rounded.params["lr"], rounded.params["method/a/size"]) == (0.1, 4)
    assert strange.params == {}


def test_only_finite_scores_of_rungs_are_steps(path, search):
    trial = search.ask()
    for report in (
        Report(1, False, None, None, 1.0),
        Report(2, False, 0.5, None, 1.0),
        Report(3, True, math.nan, None, 1.0),
        Report(4, True, 0.5, None, 1.0),
    ):
        search.mirror.reported(trial, report)
    search.close()
    assert read(path).trials[0].intermediate_values == {4: 0.5}


def test_repeats_and_errors_are_told(path, search):
    first = search.ask()
    search.ask(of=first.trial, origin="repeat")
    search.mirror.faltered(first, "x" * 600)
    search.close()
    first, second = read(path).trials
    assert first.user_attrs["faltered"] == "x" * 500
    assert second.user_attrs["repeats"] == "t0000"


def test_the_second_objective_is_the_cost(path):
    search = Search(path, directions={"top1": "maximize", "gpu_seconds": "minimize"})
    top, culled, failed, scoreless = (search.ask() for _ in range(4))
    search.report(top, 3, 0.25)
    search.report(top, 9, 0.5)
    search.report(culled, 3, 0.125)
    search.end(top, TOP)
    search.end(culled, CULLED)
    search.end(failed, FAILED)
    search.end(scoreless, CANCELLED)
    search.close()
    study = read(path)
    assert [d.name for d in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert study.metric_names == ["top1", "gpu_seconds"]
    assert [t.values for t in study.trials] == [[0.5, 2.0], [0.125, 2.0], None, None]
    assert [t.number for t in study.best_trials] == [0]


def test_one_objective_has_a_name_too(path, search):
    search.close()
    assert read(path).metric_names == ["top1"]
    assert read(path).direction.name == "MAXIMIZE"


def test_going_on_adds_nothing_twice(path, search):
    *_, running = fill(search)
    search.close()
    before, bytes_before = shown(path), path.read_bytes()
    search = search.again().again()
    search.mirror.begun(running)
    search.close()
    assert path.read_bytes() == bytes_before
    search = search.again()
    search.report(running, 3, 0.75)
    search.end(running, CULLED)
    search.close()
    assert path.read_bytes().startswith(bytes_before)
    after = shown(path)
    assert after[:3] == before[:3]
    assert after[3][:4] == (3, "PRUNED", [0.75], {1: 0.25, 3: 0.75})


def test_a_file_cut_anywhere_is_completed(path, search):
    """Killed between two lines or within one: nothing missing afterwards, nothing twice, and the file can go on."""
    trial = search.ask(A)
    search.report(trial, 9, 0.5)
    search.end(trial, TOP)
    search.ask(B)
    search.close()
    whole, content = shown(path), path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(content) if byte == 10]
    for cut in {0, *ends, *(end - 1 for end in ends), *(end + 20 for end in ends[:-1])}:
        path.write_bytes(content[:cut])
        Search(path, search.events).close()
        assert shown(path) == whole, cut
        assert path.read_bytes().startswith(content[: max((e for e in ends if e <= cut), default=0)])


@pytest.mark.parametrize("tail", [b'{"op_code":5,', b"\0\0\0\0", b"\0\0\0\n", b"\xff\xfe", b'{"op_code":5,\n'])
def test_a_torn_tail_is_cut_off(path, search, tail):
    fill(search)
    search.close()
    whole, content = shown(path), path.read_bytes()
    path.write_bytes(content + tail)
    Search(path, search.events).close()
    assert path.read_bytes() == content
    assert shown(path) == whole


@pytest.mark.parametrize(
    "damage",
    [
        lambda lines: [*lines[:3], b"garbage\n", *lines[4:]],
        lambda lines: [*lines[:3], b"5\n", *lines[4:]],
        lambda lines: [*lines[:3], b'{"op_code":77}\n', *lines[4:]],
        lambda lines: [b"\xff\xfe\n", *lines],
        lambda lines: [*lines, lines[2]],  # a trial twice
        lambda lines: [
            line.replace(b'"maximize"', b"").replace(b'"directions":[2]', b'"directions":[1]') for line in lines
        ],
    ],
)
def test_a_damaged_file_is_written_anew(path, search, damage, capsys):
    fill(search)
    search.close()
    whole, content = shown(path), path.read_bytes()
    broken = b"".join(damage(content.splitlines(keepends=True)))
    assert broken != content
    path.write_bytes(broken)
    Search(path, search.events).close()
    assert shown(path) == whole
    assert read(path).direction.name == "MAXIMIZE"
    assert os.listdir(path.parent) == ["optuna.log"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("other", ["draws", "score", "end", "more"])
def test_what_the_journal_denies_is_written_anew(path, other):
    """An old mirror beside a new journal: nothing of it may stand under a new trial's name."""
    old = Search(path)
    trial = old.ask(A | {"lr": 0.05} if other == "draws" else A)
    old.report(trial, 1, 0.75 if other == "score" else 0.25)
    if other == "end":
        old.end(trial, FAILED)
    if other == "more":
        old.ask()
    old.close()
    new = Search(path.parent / "other.log")
    new.report(new.ask(A), 1, 0.25)
    new.close()
    Search(path, new.events).close()
    assert shown(path) == shown(path.parent / "other.log")


def test_what_others_wrote_stays(path, search):
    """A note from the dashboard, a trial of somebody's own."""
    search.ask()
    search.close()
    study = read(path)
    study.set_user_attr("note", "mine")
    study.add_trial(optuna.trial.create_trial(value=0.5))
    search = search.again()
    search.ask(B)
    search.close()
    assert read(path).user_attrs == {"note": "mine"}
    assert [t.user_attrs.get("trial") for t in read(path).trials] == ["t0000", None, "t0001"]


def test_a_trial_that_others_finished_is_left_as_it_is(path, search, capsys):
    trial = search.ask()
    with search.held():
        read(path).tell(0, 0.125)
    search.report(trial, 1, 0.5)
    search.end(trial, CULLED)
    search.ask(B)
    search.close()
    assert [(t.state.name, t.value) for t in read(path).trials] == [("COMPLETE", 0.125), ("RUNNING", None)]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("harm", ["deleted", "emptied", "replaced", "damaged"])
def test_a_file_harmed_while_the_search_runs_is_made_again(path, search, harm, capsys):
    _first, *_ = fill(search)
    with search.held():
        content = path.read_bytes()
        if harm == "deleted":
            path.unlink()
        elif harm == "emptied":
            os.truncate(path, 0)
        elif harm == "replaced":
            (path.parent / "copy").write_bytes(content)
            os.replace(path.parent / "copy", path)
        else:
            path.write_bytes(content + b"garbage\n")
    search.ask(B)
    search.report(search.ask(A), 1, 0.5)
    search.close()
    assert [t[:4] for t in shown(path)] == [
        (0, "PRUNED", [0.25], {1: 0.25}),
        (1, "COMPLETE", [0.5], {1: 0.25, 9: 0.5}),
        (2, "FAIL", None, {1: 0.25}),
        (3, "RUNNING", None, {1: 0.25}),
        (4, "RUNNING", None, {}),
        (5, "RUNNING", None, {1: 0.5}),
    ]
    assert capsys.readouterr().err == ""


def test_an_error_is_said_once_and_raises_nothing(path, capsys):
    path.mkdir()
    search = Search(path)
    fill(search)
    with search.held():
        assert os.listdir(path.parent) == ["optuna.log"]
        path.rmdir()
    search.ask(A)  # too soon: a file that cannot be written is left alone for a while
    with search.held():
        assert not path.exists()
    search.close()  # the last try
    assert len(shown(path)) == 5
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {path} cannot be written (IsADirectoryError: ")


def test_a_row_that_cannot_be_written_raises_nothing(path, search, capsys):
    search.ask()
    search.mirror.begun(search.events.state.trials[0])
    with search.held():
        search.mirror._writer._rows[0].origin = object()
    search.report(search.events.state.trials[0], 1, 0.5)
    search.close()
    assert capsys.readouterr().err.count("warning: ") == 1


def test_nobody_waits_for_the_thread_and_close_writes_the_rest(path, search):
    search.ask()
    with search.held():
        before = path.read_bytes()
        fill(search)
        assert search.mirror._writer.queue.qsize() == 12
        assert path.read_bytes() == before
    search.close()
    assert len(read(path).trials) == 5
    search.close()


def test_close_waits_no_longer_than_it_may(path, search, capsys):
    search.ask()
    with search.held():
        search.mirror.close(0.01)
        assert capsys.readouterr().err == f"warning: {path} is not up to date; nothing else depends on it\n"
    search.mirror._writer.join(30)
    assert len(read(path).trials) == 1


@pytest.mark.parametrize("target", ["optuna.log", "nowhere"])
def test_a_lock_that_a_killed_process_left_is_no_obstacle(path, target):
    for name in ("optuna.log.lock", "optuna.log.lock1234.rename"):
        lock = path.parent / name
        lock.symlink_to(path.parent / target)
        os.utime(lock, (0, 0), follow_symlinks=False)
    search = Search(path)
    search.ask()
    search.close()
    assert len(read(path).trials) == 1
    assert os.listdir(path.parent) == ["optuna.log"]


def test_a_relative_path_is_meant_from_where_the_search_began(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    search = Search(type(tmp_path)("optuna.log"))
    with search.held():
        monkeypatch.chdir(tmp_path / "elsewhere")
    search.ask()
    search.close()
    assert len(read(tmp_path / "optuna.log").trials) == 1
