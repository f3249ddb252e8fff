"""The end of a search with made-up scores: what is run, what is written, what is said. Nothing is trained."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from methods.training.seeds import derive_seed
from tuning import fit as fitting
from tuning.engine.journal import Journal
from tuning.engine.ladder import make_ladder
from tuning.engine.state import Report
from tuning.finish import NoFinalist, finish, finished
from tuning.plan import Plan, Stop
from tuning.report import RunFolder
from tuning.slots import Slots
from tuning.space import load_search
from tuning.summary import finish_lines, winner_of
from tuning.trial import PAYLOAD
from tuning.watching.view import ClusterView

SPACE = """
format: 1
name: x
seed: 5
data: {{set: synthetic}}
search: {{method: {{skeletonclr: {{temperature: {{log: [0.05, 0.5]}}}}}}}}
schedule: {{max: 9, asha: {{min: 3, eta: 3}}}}
budget: {{trials: 4}}
finish: {finish}
"""
RACE = "{rerun: {top: 3, seeds: 3}, retrain: {seeds: 2}}"


class World:
    """A search that has ended, and trainings that give what ``scores`` says (None: they diverge)."""

    def __init__(self, folder: Path, finish: str, searched=(0.5, 0.6, 0.7, 0.8)) -> None:
        spec, space = load_search(SPACE.format(finish=finish))
        source = SimpleNamespace(path="synthetic", fingerprint="d", dataset=lambda: SimpleNamespace(source={"made": 1}))
        split = SimpleNamespace(name="xsub", note="two subjects are held out")
        self.plan = Plan(spec, space, "", source, split, make_ladder(spec.schedule), folder, ())
        folder.mkdir(exist_ok=True)
        self.journal = Journal(folder / "journal.jsonl", {"space": spec.space_hash(), "data": "d"})
        self.scores: dict[str, float | None] = {}
        self.batches: list[list[str]] = []
        self.tasks: dict[str, dict] = {}
        self.said: list[str] = []
        self.stop = Stop()
        self.stop_after: int | None = None
        for top1 in searched if not self.journal.state.trials else ():
            self.search(top1)

    def search(self, top1: float) -> None:
        number = self.journal.ask({"method": "skeletonclr", "method/skeletonclr/temperature": 0.1}, "sampler")
        self.journal.report(number, Report(9, True, top1, 1.0, 36.0))
        self.journal.end(number, "top")

    def fit(self, searcher, scheduler, ground, budget, retries, turn=None, say=print) -> None:
        """What Ray would do, without it."""
        self.batches.append([])
        while isinstance(config := searcher.suggest("id"), dict):
            task = config["task"]
            self.batches[-1].append(task["key"])
            self.tasks[task["key"]] = task
            top1 = self.scores[task["key"]]
            if top1 is None:
                result = {"ended": "diverged", "detail": "diverged at step 3"}
            else:
                result = {"top1": top1, "loss": 1.0, "streams": {"joint": [top1, 1.0]}}
                folder = Path(task["folder"])
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "checkpoint.pt").write_text(task["key"])
            scheduler.on_trial_complete(None, SimpleNamespace(config=config), {PAYLOAD: json.dumps(result)})
            searcher.on_trial_complete("id")
            if len(self.journal.state.jobs) == self.stop_after:
                self.stop.asked = True

    def finish(self) -> Path | None:
        return finish(
            self.plan,
            self.journal,
            SimpleNamespace(view=ClusterView(), slots=Slots(2, 1.0, 0.0), places=lambda: 2),
            self.stop,
            self.said.append,
        )

    def provenance(self):
        return load_search(self.plan.folder / "best.yaml")[0].provenance

    def page(self) -> list[str]:
        return finish_lines(RunFolder(self.plan.folder, self.plan.spec, self.journal.state, self.plan.space))

    def give(self, **values) -> None:
        """``t3=(0.5, 0.6)``: what its re-runs give; ``test3=...``: its retrainings."""
        for name, scores in values.items():
            kind, trial = ("rerun", name[1:]) if name[1:].isdigit() else ("retrain", name[4:])
            self.scores |= {f"{kind}-t{int(trial):04d}-{i}": score for i, score in enumerate(scores)}


@pytest.fixture
def world(tmp_path, monkeypatch):
    made = []

    def make(finish=RACE, **options) -> World:
        if made:
            made[-1].journal.close()
        made.append(World(tmp_path / "x", finish, **options))
        monkeypatch.setattr(fitting, "fit", made[-1].fit)
        return made[-1]

    yield make
    for world in made[-1:]:
        world.journal.close()


def test_one_is_out_early_and_the_winner_is_told_apart(world):
    w = world()
    w.give(t3=(0.70, 0.71, 0.70), t2=(0.80, 0.81, 0.80), t1=(0.20, 0.21), test2=(0.6, 0.7))
    path = w.finish()
    assert path == w.plan.folder / "best.yaml"
    assert w.batches == [
        ["rerun-t0003-0", "rerun-t0002-0", "rerun-t0001-0", "rerun-t0003-1", "rerun-t0002-1", "rerun-t0001-1"],
        ["retrain-t0002-0", "retrain-t0002-1"],
    ]
    told = w.provenance()
    search = told["search"]
    assert (search["winner"], search["runner_up"], search["decided"]) == ("t0002", "t0003", True)
    assert search["gap"] == pytest.approx(0.1)
    low, high = search["gap_interval"]
    assert 0 < low < 0.1 < high < 0.2
    assert search["trials"] == 4
    assert search["hours"] == 0.04
    assert told["validation"]["values"] == [0.80, 0.81]
    assert told["validation"]["in_search"] == 0.7
    assert told["seeds"]["rerun"] == [derive_seed(5, "rerun", 2, n) for n in (0, 1)]
    assert told["seeds"]["retrain"] == told["test"]["seeds"] == [derive_seed(5, "retrain", n) for n in (0, 1)]
    assert told["test"]["read"] == "once"
    assert told["data"]["made_from"] == {"made": 1}
    assert {"versions", "date"} <= set(told)
    assert "finish: the best 3 of 4 full runs, up to 3 new seeds each" in w.said
    assert "  t0002  validation, 2 new seeds: 80.5 ± 0.7 (80.0, 81.0)" in w.said
    out = [line for line in w.said if "out after 2 seeds" in line]
    assert [line[:7] for line in out] == ["  t0003", "  t0001"]
    assert any(line.startswith("finish: t0002 wins, ahead of t0003 by 10.0 (95 % interval ") for line in w.said)
    assert "# t0002 wins, ahead of t0003 by 10.0 (95 % interval" in path.read_text()
    assert "  t0002 wins, ahead of t0003 by 10.0" in "\n".join(w.page())


def test_jobs_are_done_with_their_own_seeds_on_their_own_clips(world):
    w = world()
    w.give(t3=(0.8, 0.81), t2=(0.5, 0.51), t1=(0.2, 0.21), test3=(0.6, 0.7))
    w.finish()
    again, last = w.tasks["rerun-t0003-1"], w.tasks["retrain-t0003-1"]
    assert (again["seed"], again["train_on"], again["score"]) == (derive_seed(5, "rerun", 3, 1), "train", "validation")
    assert (last["seed"], last["train_on"], last["score"]) == (derive_seed(5, "retrain", 1), "whole", "test")
    assert again["probe_at"] == last["probe_at"] == (9,)
    kept = w.journal.state.jobs["rerun-t0003-1"]
    assert (kept["kind"], kept["trial"], kept["number"], kept["seed"]) == ("rerun", 3, 1, again["seed"])


def test_what_noise_does_not_let_separate_is_said_so(world):
    w = world()
    w.give(t3=(0.70, 0.74, 0.69), t2=(0.72, 0.69, 0.70), t1=(0.20, 0.21), test3=(0.6, None))
    path = w.finish()
    assert w.batches[1] == ["rerun-t0003-2", "rerun-t0002-2"]  # t0001 is out
    search = w.provenance()["search"]
    assert (search["winner"], search["runner_up"], search["decided"]) == ("t0003", "t0002", False)
    assert search["gap_interval"][0] < 0 < search["gap_interval"][1]
    words = "not separated: t0003 leads t0002 by 0.7 (95 % interval"
    assert any(line.startswith(f"finish: {words}") and "within the noise of 3 seeds" in line for line in w.said)
    assert f"# {words}" in path.read_text()
    page = w.page()
    assert any(line.startswith(f"  {words}") for line in page)
    assert any(line.startswith("  t0002") and line.endswith("still in") for line in page)
    assert "  retrain-t0003-1 gave no score: diverged at step 3" in page
    assert "  t0003 retrained on the whole training split; test, read once: 60.0" in page


def test_a_failed_rerun_is_a_missing_value(world):
    w = world("{rerun: {top: 2, seeds: 3}, retrain: null}")
    w.give(t3=(0.8, None, 0.82), t2=(None, None))
    w.finish()
    told = w.provenance()
    assert told["search"]["winner"] == "t0003"
    assert [told["search"][k] for k in ("runner_up", "gap", "gap_interval", "decided")] == [None] * 4
    assert told["seeds"]["rerun"] == [derive_seed(5, "rerun", 3, 0)]
    assert "test" not in told
    assert "  t0003  validation, 1 new seed: 80.0; 1 of 2 runs failed" in w.said
    assert "  t0002  every run with a new seed failed, out after 2" in w.said


def test_every_rerun_failed(world):
    w = world()
    w.give(t3=(None, None), t2=(None, None), t1=(None, None))
    with pytest.raises(NoFinalist, match="every re-run"):
        w.finish()
    assert not (w.plan.folder / "best.yaml").exists()


def test_no_full_run(world):
    with pytest.raises(NoFinalist, match=r"top rung \(9 epochs\)"):
        world(searched=()).finish()


def test_without_reruns_the_search_decides_and_no_gap_is_claimed(world):
    w = world("{rerun: null, retrain: null}")
    path = w.finish()
    assert w.batches == []
    told = w.provenance()
    assert (told["search"]["winner"], told["search"]["runner_up"]) == ("t0003", "t0002")
    assert [told["search"][k] for k in ("gap", "gap_interval", "decided")] == [None] * 3
    assert told["seeds"] == {"search": 5, "rerun": [], "retrain": []}
    assert "# validation 80.0, in the search\n" in path.read_text()
    assert w.finish() == path


def test_a_lone_finalist_takes_its_seeds_and_wins_nothing(world):
    w = world("{rerun: {top: 1, seeds: 3}, retrain: null}")
    w.give(t3=(0.5, 0.6, 0.7))
    w.finish()
    assert len(w.batches) == 1
    assert "finish: the best 1 of 4 full runs, 3 new seeds each" in w.said
    assert w.said[-3] == "  t0003  validation, 3 new seeds: 60.0 ± 10.0 (50.0, 60.0, 70.0)"
    assert w.provenance()["search"]["decided"] is None


SCORES = {"t3": (0.70, 0.74, 0.69), "t2": (0.72, 0.69, 0.70), "t1": (0.68, 0.73, 0.71), "test3": (0.6, 0.7)}


@pytest.mark.parametrize("after", range(1, 12))
def test_interrupted_after_any_job_it_repeats_none(world, after):
    whole = [f"{kind}-t{t:04d}-{n}" for kind, t, n in (*(("rerun", t, n) for n in range(3) for t in (3, 2, 1)),
             ("retrain", 3, 0), ("retrain", 3, 1))]  # fmt: skip
    w = world()
    w.give(**SCORES)
    w.stop_after = after
    assert (w.finish() is None) == (after < len(whole))
    assert [name for batch in w.batches for name in batch] == whole[:after]
    w = world()
    w.give(**SCORES)
    assert w.finish() is not None
    assert [name for batch in w.batches for name in batch] == whole[after:]
    assert w.provenance()["search"]["winner"] == "t0003"
    assert (w.plan.folder / "best.pt").read_text() == "retrain-t0003-0"
    assert json.loads((w.plan.folder / "test.json").read_text())["values"] == [0.6, 0.7]
    assert not (w.plan.folder / "finish").exists()


def test_a_finished_search_is_left_as_it_is(world, tmp_path):
    w = world()
    w.give(**SCORES)
    assert finished(w.plan, w.journal, w.said.append) is None
    path = w.finish()
    before = path.read_bytes()
    w = world()
    assert w.finish() == path
    assert w.batches == []
    assert w.said == [f"nothing is left to do; best configuration: {path}"]
    edited = before.replace(b"# The best", b"# My best")
    path.write_bytes(edited)
    assert finished(w.plan, w.journal, w.said.append) == path
    assert path.read_bytes() == edited


def test_a_missing_copy_is_written_and_one_that_is_there_is_kept(world, tmp_path):
    copy = tmp_path / "there" / "best.yaml"
    w = world()
    w.give(**SCORES)
    path = w.finish()
    w = world(RACE.replace("}}", f"}}, export: {copy}}}"))
    assert w.finish() == path
    assert copy.read_bytes() == path.read_bytes()
    assert w.said[-1] == f"copied to {copy}"
    copy.write_text("mine")
    w.finish()
    assert copy.read_text() == "mine"


@pytest.mark.parametrize("fault", ["missing", "unreadable", "of another winner"])
def test_a_best_file_that_does_not_tell_the_outcome_is_written_without_training(world, fault):
    w = world()
    w.give(**SCORES)
    path = w.finish()
    text = path.read_text()
    if fault == "missing":
        path.unlink()
    else:
        path.write_text("format: [" if fault == "unreadable" else text.replace("winner: t0003", "winner: t0002"))
    w = world()
    assert finished(w.plan, w.journal, w.said.append) is None
    assert w.finish() == path
    assert w.batches == []
    assert w.provenance()["search"]["winner"] == "t0003"
    assert (w.plan.folder / "best.pt").is_file()


def test_a_search_that_went_on_to_another_winner_retrains_that_one_and_says_that_the_test_was_read_before(world):
    w = world()
    w.give(**SCORES)
    w.finish()
    w.search(0.95)
    w.give(t4=(0.95, 0.96, 0.95), test4=(0.8, 0.9))
    assert finished(w.plan, w.journal, w.said.append) is None
    path = w.finish()
    told = w.provenance()
    assert told["search"]["winner"] == "t0004"
    assert told["test"]["values"] == [0.8, 0.9]
    assert told["test"]["read"] == "once more, earlier for t0003"
    assert "# test, read once more, earlier for t0003: 85.0" in path.read_text()
    assert (w.plan.folder / "best.pt").read_text() == "retrain-t0004-0"
    page = w.page()
    assert "  t0004 retrained on the whole training split; test, read once more, earlier for t0003: 85.0 ± 7.1 (80.0, 90.0)" in page  # noqa: E501  # fmt: skip
    assert any(line.startswith("  t0001  validation, 3 new seeds: ") for line in page)  # a finalist no longer
    assert finished(w.plan, w.journal, w.said.append) == path


def old_journal(w, winner):
    """As earlier finishes left it: a fixed table of re-runs, and retrainings that do not say whose they are."""
    for trial, values in {3: (0.70, 0.71, 0.72), 2: (0.60, 0.61, 0.60), 1: (0.2, 0.21, 0.2)}.items():
        for number, top1 in enumerate(values):
            w.journal.job(f"rerun-t{trial:04d}-{number}", {"top1": top1, "loss": 1.0, "seed": 1})
    for number, top1 in enumerate((0.6, 0.7)):
        w.journal.job(f"retrain-{number}", {"top1": top1, "loss": 1.0, "seed": 7, "streams": {}})
    space = SPACE.format(finish=RACE)
    (w.plan.folder / "best.yaml").write_text(f"{space}\nprovenance: {{search: {{winner: {winner}}}}}\n")


def test_an_old_journal_is_taken_as_it_is(world):
    w = world()
    old_journal(w, "t0003")
    w.finish()
    assert w.batches == []
    told = w.provenance()
    assert told["test"]["values"] == [0.6, 0.7]
    assert told["test"]["read"] == "once"
    assert told["validation"]["values"] == [0.70, 0.71]
    assert winner_of(RunFolder(w.plan.folder, w.plan.spec, w.journal.state, w.plan.space)) == 3


def test_old_retrainings_of_another_winner_are_not_the_winners(world):
    w = world()
    old_journal(w, "t0002")
    w.give(test3=(0.8, 0.9))
    w.finish()
    assert w.batches == [["retrain-t0003-0", "retrain-t0003-1"]]
    assert w.provenance()["test"]["values"] == [0.8, 0.9]
    assert w.provenance()["test"]["read"] == "once more, earlier for an earlier winner"
    assert w.finish() == w.plan.folder / "best.yaml"
    assert len(w.batches) == 1


def test_more_retrainings_are_only_those_that_are_missing(world):
    w = world()
    w.give(**SCORES)
    w.finish()
    w = world(RACE.replace("seeds: 2", "seeds: 3"))
    w.give(test3=(0.0, 0.0, 0.8))
    w.finish()
    assert w.batches == [["retrain-t0003-2"]]
    assert w.provenance()["test"]["values"] == [0.6, 0.7, 0.8]


def test_more_retrainings_than_an_old_journal_has(world):
    w = world(RACE.replace("seeds: 2", "seeds: 3"))
    old_journal(w, "t0003")
    w.give(test3=(0.0, 0.0, 0.8))
    w.finish()
    assert w.batches == [["retrain-t0003-2"]]
    assert w.provenance()["test"]["values"] == [0.6, 0.7, 0.8]
    assert w.provenance()["test"]["read"] == "once"


# --- two objectives --------------------------------------------------------------------------------------------------

FRONT = "{rerun: {top: 2, seeds: 2}, retrain: null}\nobjectives: [top1, parameters]\n"


def add(w, top1, size, temperature=0.1):
    number = w.journal.ask({"method": "skeletonclr", "method/skeletonclr/temperature": temperature}, "sampler")
    w.journal.report(number, Report(9, True, top1, 1.0, 36.0, {"parameters": size}))
    w.journal.end(number, "top")


def front_of(w):
    """What the files of the front say, by name."""
    return {path.name: load_search(path) for path in sorted((w.plan.folder / "pareto").iterdir())}


def test_the_front_is_exported_and_its_most_accurate_are_confirmed(world):
    w = world(FRONT, searched=())
    for top1, size, temperature in ((0.4, 100, 0.06), (0.80, 9000, 0.07), (0.79, 9500, 0.08), (0.6, 1500, 0.09)):
        add(w, top1, size, temperature)
    w.give(t1=(0.7, 0.71), t3=(0.6, None))
    path = w.finish()
    assert w.batches == [["rerun-t0001-0", "rerun-t0003-0", "rerun-t0001-1", "rerun-t0003-1"]]
    assert "finish: the best 2 of 3 full runs on the front of accuracy and parameters, up to 2 new seeds each" in w.said
    assert w.provenance()["search"]["winner"] == "t0001"
    folder = w.plan.folder / "pareto"
    words = "front of accuracy and parameters: 3 trials, from 80.0 at 9k to 40.0 at 100"
    assert w.said.index(f"{words}: {folder}") < w.said.index(f"best configuration: {path}")
    found = front_of(w)
    assert list(found) == ["01.yaml", "02.yaml", "03.yaml"]
    told = [spec.provenance for spec, _ in found.values()]
    assert [t["search"]["trial"] for t in told] == ["t0001", "t0003", "t0000"]
    assert [t["front"]["place"] for t in told] == [1, 2, 3]
    assert told[0]["front"] == {"objectives": ["top1", "parameters"], "place": 1, "of": 3, "epochs": 9}
    assert told[1]["validation"] == {"in_search": 0.6, "loss": 1.0, "rerun": [0.6], "parameters": 1500}
    assert told[2]["seeds"] == {"search": 5, "trial": derive_seed(5, "trial", 0)}
    assert told[0]["data"]["fingerprint"] == "d"
    assert {"versions", "date"} <= set(told[0])
    for (_, space), temperature in zip(found.values(), (0.07, 0.09, 0.06), strict=True):
        assert space.resolve({}).params.temperature == temperature
    assert (folder / "02.yaml").read_text().splitlines()[:3] == [
        "# 2 of 3 on the front of accuracy and parameters that x found: t0003",
        "# validation 60.0 at 9 epochs in the search, 60.0 with new seeds; 1.5k parameters",
        f"# Train it with: skeltune train {folder / '02.yaml'}",
    ]


def test_a_front_follows_the_search_and_what_says_the_same_is_left(world):
    w = world(FRONT.replace("rerun: {top: 2, seeds: 2}", "rerun: null"), searched=())
    for top1, size in ((0.4, 100), (0.5, 200), (0.6, 300)):
        add(w, top1, size)
    w.finish()
    folder = w.plan.folder / "pareto"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "02.yaml").unlink()
    (folder / "mine.yaml").write_text("mine")
    kept = (folder / "01.yaml").stat().st_ino
    w.finish()
    assert w.said[-1].startswith("front of accuracy")
    assert {p.name for p in folder.iterdir()} == {*before, "mine.yaml"}
    assert (folder / "01.yaml").stat().st_ino == kept
    add(w, 0.6, 150)  # dominates two of them
    w.finish()
    assert sorted(p.name for p in folder.iterdir()) == ["01.yaml", "02.yaml", "mine.yaml"]
    assert load_search(folder / "01.yaml")[0].provenance["search"]["trial"] == "t0003"


def test_one_objective_exports_no_front(world):
    w = world("{rerun: null, retrain: null}")
    w.finish()
    assert not (w.plan.folder / "pareto").exists()
