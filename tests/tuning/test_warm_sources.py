"""Sources of a warm start: run folders, journals, Optuna studies and configs, from the file to priors and values."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from methods.errors import InputError
from tuning.config.schema import SearchSpec
from tuning.engine.journal import Journal
from tuning.engine.state import Report
from tuning.engine.warm import WarmStart
from tuning.space import Space, check_text
from tuning.space.export import dump
from tuning.warm_sources import read_warm

TEXT = """\
format: 1
name: before
data: {set: synthetic, split: xsub}
search:
  method:
    one_of:
      skeletonclr: {temperature: {log: [0.05, 0.5]}}
      skeletonbyol: {momentum: {near_one: [0.9, 0.999]}}
  optim: {lr: {log: [0.01, 0.3]}}
schedule: {max: 9, asha: {min: 3}}
probe: {l2: 0.01}
"""
DATA = "d" * 64
CLR = {"method": "skeletonclr", "method/skeletonclr/temperature": 0.1, "optim/lr": 0.1}
BYOL = {"method": "skeletonbyol", "method/skeletonbyol/momentum/gap": 0.05, "optim/lr": 0.2}
JSON_SCORES = {3: (0.25, 2.0), 9: (0.5, 1.0)}


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def search(*sources: str, text: str = TEXT, origin: Path | str = "") -> tuple[SearchSpec, Space]:
    spec, space = check_text(text.replace("name: before", "name: now"), origin=str(origin))
    return dataclasses.replace(spec, warm_start=tuple(sources)), space


def warm(*sources: str, text: str = TEXT, data: str = DATA, origin: Path | str = "") -> WarmStart:
    return read_warm(*search(*sources, text=text, origin=origin), fingerprint=data)


def faults(*sources: str, **rest: Any) -> tuple[str, ...]:
    with pytest.raises(InputError) as caught:
        warm(*sources, **rest)
    return caught.value.faults


def run(folder: Path, text: str = TEXT, data: str = DATA) -> Path:
    """A run folder of three trials: one that went to the top, one culled, one that diverged."""
    folder.mkdir(parents=True)
    (folder / "space.yaml").write_text(text)
    spec, _ = check_text(text)
    with Journal(folder / "journal.jsonl", {"space": spec.space_hash(), "data": data, "name": spec.name}) as journal:
        best, culled, died = (journal.ask(draws, "sampler") for draws in (CLR, CLR | {"optim/lr": 0.02}, BYOL))
        for epoch, (top1, loss) in JSON_SCORES.items():
            journal.report(best, Report(epoch, True, top1, loss, 1.0))
        journal.report(culled, Report(3, True, 0.75, 3.0, 1.0))
        journal.report(died, Report(1, False, None, None, 1.0))
        journal.end(best, "top")
        journal.end(culled, "culled")
        journal.end(died, "diverged")
    return folder


def digest(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


# --- journals -------------------------------------------------------------------------------------------------------


def test_the_same_search_gives_values(room: Path) -> None:
    """Scores come whole; the one that came further is the better one, whatever the other had when it was culled."""
    run(room / "runs/before")
    found = warm("runs/before")
    assert found.priors == ()
    assert [(dict(k.draws), k.scores, k.rank, k.ended) for k in found.values] == [
        (CLR, JSON_SCORES, 1.0, "top"),
        (CLR | {"optim/lr": 0.02}, {3: (0.75, 3.0)}, 0.0, "culled"),
        (BYOL, {}, 0.0, "diverged"),
    ]
    assert found.notes == ("warm_start runs/before: 3 of 3 trials used, as values",)


@pytest.mark.parametrize("source", ["before", "runs/before", "runs/before/journal.jsonl", "{}/runs/before"])
def test_a_run_is_found_by_name_path_or_file(room: Path, source: str) -> None:
    run(room / "runs/before")
    assert len(warm(source.format(room)).values) == 3


def test_beside_the_yaml_comes_first(room: Path) -> None:
    run(room / "elsewhere/before")
    run(room / "runs/before", data="e" * 64)
    assert len(warm("before", origin=room / "elsewhere").values) == 3
    assert warm("before").values == ()


def test_another_dataset_gives_priors_only(room: Path) -> None:
    run(room / "runs/before")
    found = warm("before", data="e" * 64)
    assert found.values == ()
    assert [(dict(p.draws), p.rank) for p in found.priors] == [(CLR, 1.0), (CLR | {"optim/lr": 0.02}, 0.0)]
    assert found.notes == (
        "warm_start before: 2 of 3 trials used, as priors: another dataset; "
        "left out: 1 that diverged, collapsed or failed",
    )


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("split: xsub", "split: xview", "another split"),
        ("split: xsub", "split: xsub, validate_on: cv", "another validate_on"),
        ("name: before", "name: before\nseed: 1", "another seed, which draws who validates"),
        ("l2: 0.01", "l2: 0.02", "another probe"),
        ("max: 9", "max: 27", "fixed otherwise here: schedule.max for 2"),
        ("split: xsub", "split: xsub, frames: 24", "fixed otherwise here: frames for 2"),
        ("split: xsub", "split: xsub, preprocess: [trim, resize]", "fixed otherwise here: preprocess for 2"),
        ("one_of:", "one_of: &a", ""),  # says the same
        ("min: 3", "min: 1", ""),  # other rungs of the same run
        ("set: synthetic", "set: /a/copy", ""),  # the fingerprint tells what lies there
        ("log: [0.01, 0.3]", "log: [0.001, 0.5]", ""),
    ],
)
def test_what_decides_a_score_decides_on_values(room: Path, old: str, new: str, why: str) -> None:
    run(room / "runs/before")
    found = warm("before", text=TEXT.replace(old, new))
    assert (len(found.values), len(found.priors)) == ((0, 2) if why else (3, 0))
    assert why in found.notes[0]


def test_a_seed_matters_only_where_it_draws_who_validates(room: Path) -> None:
    text = TEXT.replace("split: xsub", "split: xsub, validate_on: {held_out_subjects: [2]}")
    run(room / "runs/before", text=text)
    assert len(warm("before", text=text + "seed: 5\n").values) == 3
    by_chance = TEXT.replace("split: xsub", "split: xsub, validate_on: {held_out_share: 0.2}")
    run(room / "runs/chance", text=by_chance)
    assert warm("chance", text=by_chance + "seed: 5\n").values == ()


def test_the_dataset_is_opened_only_where_it_must_be(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    monkeypatch.setattr(
        "tuning.datasets.source_of", lambda spec: opened.append(spec) or SimpleNamespace(fingerprint=DATA)
    )
    (room / "one.yaml").write_text("method: skeletonclr\n")
    for name in ("a", "b"):
        run(room / f"runs/{name}")
    assert len(read_warm(*search("one.yaml")).priors) == 1 and opened == []
    spec, space = search("a", "b")
    assert len(read_warm(spec, space).values) == 6 and opened == [spec]


def test_a_torn_journal_gives_what_is_whole(room: Path) -> None:
    path = run(room / "runs/before") / "journal.jsonl"
    path.write_bytes(path.read_bytes()[:-20])  # in the line that ends the third trial
    assert [k.ended for k in warm("before").values] == ["top", "culled"]
    assert "left out: 1 without a score" in warm("before").notes[0]


def test_a_repeat_is_no_trial_of_its_own(room: Path) -> None:
    folder = run(room / "runs/before")
    header = {"space": check_text(TEXT)[0].space_hash(), "data": DATA}
    with Journal(folder / "journal.jsonl", header) as journal:
        event = {"e": "ask", "trial": 3, "draws": CLR, "origin": "repeat", "of": 0, "time": 0.0}
        journal.append(event)
        journal.report(3, Report(3, True, 0.9, 1.0, 1.0))
    assert warm("before").notes == ("warm_start before: 3 of 3 trials used, as values",)


def test_a_journal_alone_is_read_by_its_names(room: Path) -> None:
    folder = run(room / "runs/before")
    shutil.copy(folder / "journal.jsonl", room / "kept.jsonl")
    found = warm("kept.jsonl")
    assert found.values == () and [dict(p.draws) for p in found.priors] == [CLR, CLR | {"optim/lr": 0.02}]
    assert ": no space.yaml beside the journal says what its draws stood for" in found.notes[0]


def test_a_space_that_is_not_the_journals_is_not_believed(room: Path) -> None:
    folder = run(room / "runs/before")
    (folder / "space.yaml").write_text(TEXT.replace("0.3]", "0.4]"))
    found = warm("before")
    assert found.values == () and "its space.yaml is not the one that it was searched with" in found.notes[0]
    (folder / "space.yaml").write_text("format: 1\nnme: x\n")
    found = warm("before")
    assert len(found.priors) == 2 and "its space.yaml cannot be read by this version (" in found.notes[0]


def test_sources_are_left_as_they_were(room: Path, database: Path) -> None:
    run(room / "runs/before")
    shutil.copy(database, room)
    study(journal_storage(room / "o.log"))
    before = digest(room)
    warm("before", "sqlite:///study.db", "study.db", "o.log")
    assert digest(room) == before


# --- studies --------------------------------------------------------------------------------------------------------

SPACE = {
    "method": CategoricalDistribution(("skeletonclr", "skeletonbyol")),
    "method/skeletonclr/temperature": FloatDistribution(0.05, 0.5, log=True),
    "optim/lr": FloatDistribution(0.01, 0.3, log=True),
}


def frozen(lr: float, value: Any, state: TrialState = TrialState.COMPLETE, dot: bool = False, **rest: Any) -> Any:
    params = CLR | {"optim/lr": lr}
    names = {name: name.replace("/", ".") if dot else name for name in params}
    return optuna.trial.create_trial(
        state=state,
        value=value,
        params={names[n]: v for n, v in params.items()},
        distributions={names[n]: SPACE[n] for n in params},
        **rest,
    )


def study(storage: Any, name: str = "s", direction: str = "maximize", trials: Any = None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = optuna.create_study(storage=storage, study_name=name, direction=direction)
        made.add_trials(trials if trials is not None else [frozen(0.1, 0.5), frozen(0.2, 0.75, dot=True)])
    if isinstance(storage, RDBStorage):
        storage.engine.dispose()


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study in SQLite, whose tables take a while to make."""
    path = tmp_path_factory.mktemp("database") / "study.db"
    study(RDBStorage(f"sqlite:///{path}"))
    return path


def journal_storage(path: Path) -> JournalStorage:
    return JournalStorage(JournalFileBackend(str(path)))


def ranked(found: WarmStart) -> dict[float, float]:
    """Learning rate -> rank."""
    assert found.values == ()
    return {dict(p.draws)["optim/lr"]: p.rank for p in found.priors}


@pytest.mark.parametrize(
    "source",
    ["sqlite:///study.db", "sqlite:///{}/study.db", "study.db", "sqlite:///study.db?study=s", "sqlite:///study.db#s"],
)
def test_a_study_in_a_database(room: Path, database: Path, source: str) -> None:
    shutil.copy(database, room)
    found = warm(source.format(room))
    assert ranked(found) == {0.1: 0.0, 0.2: 1.0}
    assert found.notes == (
        f"warm_start {source.format(room)}: 2 of 2 trials used, as priors: "
        "an Optuna study does not say how it was scored",
    )


@pytest.mark.parametrize(
    "source", ["journal:///{}/o.log", "journal://{}/o.log", "journal:///o.log?study=s", "o.log#s", "journal://o.log"]
)
def test_a_study_in_a_journal_file(room: Path, source: str) -> None:
    study(journal_storage(room / "o.log"))
    assert ranked(warm(source.format(room))) == {0.1: 0.0, 0.2: 1.0}


def test_a_file_whose_name_needs_quoting(room: Path, database: Path) -> None:
    path = room / "a b%20?{x}" / "study.db"
    path.parent.mkdir()
    shutil.copy(database, path)
    assert ranked(warm(str(path))) == {0.1: 0.0, 0.2: 1.0}


def test_pruned_trials_stand_below_by_how_far_they_came(room: Path) -> None:
    trials = [
        frozen(0.01, 0.1),
        frozen(0.02, None, TrialState.PRUNED, intermediate_values={3: 0.9}),
        frozen(0.03, None, TrialState.PRUNED, intermediate_values={3: 0.1, 9: 0.2}),
        frozen(0.04, None, TrialState.PRUNED),
        frozen(0.05, None, TrialState.FAIL),
        frozen(0.06, 0.8, TrialState.PRUNED),
        frozen(0.07, float("inf")),
    ]
    study(journal_storage(room / "o.log"), trials=trials)
    found = warm("o.log")
    assert ranked(found) == pytest.approx({0.01: 1.0, 0.03: 2 / 3, 0.02: 1 / 3, 0.06: 0.0})
    assert "4 of 7 trials used" in found.notes[0] and "left out: 3 without a score" in found.notes[0]


def test_a_study_that_minimises(room: Path) -> None:
    trials = [
        frozen(0.1, 2.0),
        frozen(0.2, 1.0),
        frozen(0.3, None, TrialState.PRUNED, intermediate_values={1: 0.5}),
        frozen(0.01, None, TrialState.PRUNED, intermediate_values={1: 0.25}),
    ]
    study(journal_storage(room / "o.log"), direction="minimize", trials=trials)
    assert ranked(warm("o.log")) == pytest.approx({0.2: 1.0, 0.1: 2 / 3, 0.01: 1 / 3, 0.3: 0.0})


def test_several_studies_and_objectives(room: Path) -> None:
    storage = journal_storage(room / "o.log")
    study(storage, "a")
    study(storage, "b c", trials=[frozen(0.15, 0.5)])
    assert faults("journal:///o.log") == (
        "warm_start journal:///o.log: it holds 2 studies, say which by #NAME: 'a', 'b c'",
    )
    assert faults("o.log#d")[0].startswith("warm_start o.log#d: there is no study 'd' in it")
    for source in ("journal:///o.log?study=b+c", "journal:///o.log#b%20c", "o.log#b c"):
        assert ranked(warm(source)) == {0.15: 1.0}
    assert len(warm("o.log#a", "o.log#b c").priors) == 3
    double = optuna.create_study(storage=journal_storage(room / "two.log"), directions=["maximize", "minimize"])
    for lr, values in ((0.1, [0.5, 9.0]), (0.2, [0.75, 99.0])):
        trial = frozen(lr, None, TrialState.PRUNED)
        trial.values, trial.state = values, TrialState.COMPLETE
        double.add_trial(trial)
    found = warm("two.log")
    assert ranked(found) == {0.1: 0.0, 0.2: 1.0}
    assert "; ranked by the first of its 2 objectives" in found.notes[0]


def test_the_mirror_of_a_search(room: Path) -> None:
    """What a search writes beside its journal: its method stands in an attribute, and repeats are marked."""
    trials = []
    for lr, rest in ((0.1, {}), (0.2, {"repeats": "t0000"})):
        trials.append(
            optuna.trial.create_trial(
                value=0.5,
                params={"optim/lr": lr},
                distributions={"optim/lr": SPACE["optim/lr"]},
                user_attrs={"method": "skeletonclr", **rest},
            )
        )
    study(journal_storage(room / "o.log"), trials=trials)
    found = warm("o.log")
    assert [dict(p.draws) for p in found.priors] == [
        {"method": "skeletonclr", "method/skeletonclr/temperature": 0.07, "optim/lr": 0.1}
    ]
    assert "1 of 1 trials used" in found.notes[0] and "temperature filled for 1: not drawn there" in found.notes[0]


def test_a_torn_journal_of_optunas(room: Path) -> None:
    study(journal_storage(room / "o.log"))
    whole = (room / "o.log").read_bytes()
    (room / "o.log").write_bytes(whole[:-30])
    assert ranked(warm("o.log")) == {0.1: 1.0}


# --- configs --------------------------------------------------------------------------------------------------------


def test_an_exported_config(room: Path) -> None:
    spec, space = check_text(TEXT)
    (room / "best.yaml").write_text(dump(spec, space.resolve(BYOL), {"validation": 0.6}))
    found = warm("best.yaml")
    assert found.values == () and [p.rank for p in found.priors] == [1.0]
    assert space.resolve(dict(found.priors[0].draws)) == space.resolve(BYOL)
    assert found.notes == ("warm_start best.yaml: 1 of 1 configs used, as priors: configs have no scores here",)


def test_a_list_of_configs(room: Path) -> None:
    """As `start_from` has them, but what lies outside is filled and said."""
    (room / "configs.yaml").write_text(
        "# tried by hand\n"
        "- {method: {skeletonclr: {temperature: 0.2}}, optim: {lr: 0.02}}\n"
        "- published\n"
        "- {method: {skeletonclr: {temperature: 3.0, queue: 64}}, optim: {lr: 0.05}}\n"
        "- {method: cmd}\n"
    )
    found = warm("configs.yaml")
    assert [dict(p.draws) for p in found.priors] == [
        {"method": "skeletonclr", "method/skeletonclr/temperature": 0.2, "optim/lr": 0.02},
        {"method": "skeletonclr", "method/skeletonclr/temperature": 0.07, "optim/lr": 0.1},
        {"method": "skeletonbyol", "method/skeletonbyol/momentum/gap": pytest.approx(0.004), "optim/lr": 0.1},
        {"method": "skeletonclr", "method/skeletonclr/temperature": 0.07, "optim/lr": 0.05},
    ]
    assert {p.rank for p in found.priors} == {1.0}
    assert found.notes == (
        "warm_start configs.yaml: 4 of 5 configs used, as priors: configs have no scores here; "
        "left out: 1 of method cmd, which this space does not have; "
        "temperature filled for 1: outside log [0.05, 0.5]; fixed otherwise here: queue for 1",
    )


def test_one_config_and_a_lone_method(room: Path) -> None:
    (room / "one.yaml").write_text("method: {skeletonclr: {temperature: 0.2}}\n")
    assert dict(warm("one.yaml").priors[0].draws)["method/skeletonclr/temperature"] == 0.2
    (room / "lone.yaml").write_text("[{optim: {lr: 0.03}}]\n")
    lone = TEXT.replace("      skeletonbyol: {momentum: {near_one: [0.9, 0.999]}}\n", "")
    assert dict(warm("lone.yaml", text=lone).priors[0].draws)["optim/lr"] == 0.03


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- {method: {skeletonclr: {temprature: 2}}}\n", "best.yaml:1:27: unknown parameter 'temprature'"),
        ("- {method: skeletonclx}\n", "did you mean 'skeletonclr'"),
        ("- {method: {skeletonclr: {temperature: {log: [0.1, 0.2]}}}}\n", "a config takes values, not domains"),
        ("- {method: {one_of: {skeletonclr: , skeletonbyol: }}}\n", "a config is one method"),
        ("- publishd\n", "a config is the word published"),
        ("- {optim: {lr: 0.1}}\n", "'search' needs 'method'"),
        ("just words\n", "a config is the word published"),
        ("", "the file is empty"),
        ("- {method: [}\n", "best.yaml:1"),
        ("!!python/object/apply:os.getcwd []\n", "tags are not allowed here"),
        (TEXT, "this is a search space that still draws temperature, optim.lr, momentum"),
    ],
)
def test_wrong_configs(room: Path, text: str, says: str) -> None:
    (room / "best.yaml").write_text(text)
    found = faults("best.yaml")
    assert len(found) == 1 and found[0].startswith("warm_start best.yaml: ") and says in found[0]


# --- faults ---------------------------------------------------------------------------------------------------------


def test_all_faults_at_once(room: Path) -> None:
    run(room / "runs/before")
    run(room / "runs/now")
    (room / "runs/empty").mkdir()
    (room / "not.db").write_bytes(b"SQLite format 3\0 and then nothing")
    (room / "other.jsonl").write_text('{"a": 1}\n{"b": 2}\n')
    found = faults(
        "runs/nowhere", "before", "empty", "now", "not.db", "other.jsonl", "sqlite:///none.db", "journal:///none.log"
    )
    assert [fault.partition(": ")[0] for fault in found] == [
        "warm_start runs/nowhere", "warm_start empty", "warm_start now", "warm_start not.db", "warm_start other.jsonl",
        "warm_start sqlite:///none.db", "warm_start journal:///none.log",
    ]  # fmt: skip
    assert found[0].endswith(f"there is nothing there; tried {room}/runs/nowhere, runs/runs/nowhere")
    assert found[1].endswith("runs/empty is no run folder: it holds no journal.jsonl")
    assert found[2].endswith("this is the run folder of the search itself")
    assert "this database cannot be read as Optuna's (" in found[3]
    assert "other.jsonl:1: damaged line (no checksum)" in found[4]
    assert found[5].endswith(f"there is no such file; tried {room}/none.db")
    assert not (room / "none.db").exists() and not (room / "none.log").exists()
    assert all("\n" not in fault for fault in found)


def test_what_the_system_refuses_is_one_line(room: Path) -> None:
    assert faults("a" * 300, "sqlite:///" + "b" * 300 + ".db") == (
        f"warm_start {'a' * 300}: cannot be read (File name too long)",
        f"warm_start sqlite:///{'b' * 300}.db: cannot be read (File name too long)",
    )


def test_a_folder_named_twice(room: Path) -> None:
    run(room / "runs/before")
    assert len(warm("before", "before").values) == 3
    assert faults("before", "runs/before/journal.jsonl")[0].startswith(
        "warm_start runs/before/journal.jsonl: named twice, as "
    )


def test_a_database_of_something_else(room: Path) -> None:
    import sqlite3

    with sqlite3.connect(room / "else.db") as connection:
        connection.execute("CREATE TABLE a (b)")
    connection.close()
    before = digest(room)
    assert "no such table" in faults("sqlite:///else.db")[0]
    assert digest(room) == before
    journal_storage(room / "empty.log")
    assert faults("journal:///empty.log")[0].endswith("there is no study in it")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql://me:secret@nowhere.invalid/db", "cannot be read as Optuna's"),
        ("postgresql://me:secret@nowhere:port/db", "this is no storage URL that SQLAlchemy reads"),
        ("redis://me:secret@nowhere/0", "redis storages are not read"),
        ("nonsense://x", "cannot be read as Optuna's"),
        ("sqlite://", "a database in memory holds no study"),
        ("sqlite:///:memory:", "a database in memory holds no study"),
    ],
)
def test_wrong_addresses_keep_their_passwords(room: Path, url: str, says: str) -> None:
    found = faults(url)
    assert len(found) == 1 and says in found[0] and "secret" not in found[0]
    assert ("***" in found[0]) is ("secret" in url)


@pytest.mark.parametrize(
    "line",
    [
        '{"op_code":99,"worker_id":"x"}',
        '{"op_code":0,"worker_id":"x"}',
        '{"op_code":0,"worker_id":"x","study_name":"s","directions":[7]}',
        '{"op_code":4,"worker_id":"x","study_id":0}',
        "{'op_code'",
    ],
)
def test_a_journal_of_nonsense_is_one_line(room: Path, line: str) -> None:
    good = '{"op_code":0,"worker_id":"w","study_name":"a","directions":[2]}\n'
    (room / "o.log").write_text(good + line + "\n" + good)
    found = faults("o.log")
    assert len(found) == 1 and "this is no journal of Optuna's (" in found[0] and "\n" not in found[0]


def test_whole_lines_of_another_program(room: Path) -> None:
    from tuning.engine.journal import encode

    (room / "x.jsonl").write_bytes(encode({"e": "ask", "trial": "seven", "draws": 3}))
    assert "this is no journal of a search (" in faults("x.jsonl")[0]
    (room / "x.jsonl").write_bytes(encode({"e": "open", "format": 99}))
    assert faults("x.jsonl")[0].endswith("journal format 99, this version reads 1")
