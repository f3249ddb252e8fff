"""`skeltune simulate`: what it prints, what it refuses, and that a replay gives what was recorded."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from methods.errors import InputError
from tuning.cli import _run
from tuning.engine.choices import choices_of
from tuning.engine.journal import encode
from tuning.simulation import Outcome, Search, setting_of, simulate, spread, summary
from tuning.space import load_search
from tuning.variants import change, read_variants, split

SPACE = """format: 1
name: tiny
data: {set: synthetic}
search:
  method:
    one_of:
      skeletonclr: {temperature: {log: [0.05, 0.5]}}
      skeletonbyol: {hidden: {choice: [8, 16]}}
  optim: {lr: {log: [0.0001, 0.1]}}
schedule: {max: 9, asha: {min: 1, eta: 3, repeats: 0}}
sampler: {name: random}
budget: {trials: 30}
"""
RUNGS = (1, 3, 9)


def score(draws, epoch):
    best = 0.7 if draws["method"] == "skeletonclr" else 0.6
    return round((best - 0.1 * (np.log10(draws["optim/lr"]) + 2.5) ** 2) * (1 - 0.4 / epoch), 4)


def write_journal(path: Path, trials, rungs=RUNGS) -> None:
    """A journal of (draws, epochs done, end); an epoch takes 30 seconds of skeletonclr, 90 of skeletonbyol."""
    events = [{"e": "open", "format": 1, "space": "-", "data": "-", "name": "tiny"}]
    for number, (draws, epochs, end) in enumerate(trials):
        seconds = 30.0 if draws["method"] == "skeletonclr" else 90.0
        events.append({"e": "ask", "trial": number, "draws": draws, "origin": "random"})
        for epoch in range(1, epochs + 1):
            rung = epoch in rungs
            found = score(draws, epoch) if rung else None
            report = {"epoch": epoch, "rung": rung, "top1": found, "loss": None, "seconds": seconds}
            events.append({"e": "report", "trial": number, **report})
        events.append({"e": "end", "trial": number, "reason": end})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(map(encode, events)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A space and three runs of it: one that culled, one that trained every trial in full, one of something else."""
    path = tmp_path_factory.mktemp("simulate")
    (path / "tiny.yaml").write_text(SPACE)
    _, space = load_search(path / "tiny.yaml")
    rng = np.random.default_rng(0)
    drawn = [space.sample(rng) for _ in range(54)]
    ranked = sorted(range(54), key=lambda i: -score(drawn[i], 1))
    epochs = {i: 9 if place < 6 else 3 if place < 18 else 1 for place, i in enumerate(ranked)}
    write_journal(path / "runs/culled/journal.jsonl", [(d, epochs[i], "culled") for i, d in enumerate(drawn)])
    write_journal(path / "runs/full/journal.jsonl", [(d, 9, "top") for d in drawn[:20]])
    other = [({"method": "cmd", "optim/lr": 0.01}, 1, "culled"), ({**drawn[0], "optim/lr": 1.0}, 1, "culled")]
    write_journal(path / "runs/other/journal.jsonl", other)
    return path


def run(capsys, folder: Path, *words: object, code: int = 0) -> str:
    """Run the verb; what it printed, or what it complained about."""
    given = ["simulate", folder / "tiny.yaml", "--runs", folder / "runs", *words]
    assert _run([str(word) for word in given]) == code
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return said.err if code else said.out


def rows(text: str) -> list[dict[str, str]]:
    """The table of variants, by column."""
    lines = text.splitlines()
    begin = next(i for i, line in enumerate(lines) if line.startswith("variant "))
    heads = re.split(r"\s{2,}", lines[begin].strip())
    body = [re.split(r"\s{2,}", line.strip()) for line in lines[begin + 1 :]]
    return [dict(zip(heads, cells, strict=True)) for cells in body if len(cells) == len(heads)]


# --- what it finds --------------------------------------------------------------------------------------------------


def test_variants_in_a_table_with_what_to_trust(capsys, folder) -> None:
    text = run(capsys, folder, "--curves", "culled", "--variant", "all:schedule.asha.min=9", "--seeds", "0-2")
    space, every = rows(text)
    assert (space["variant"], every["variant"]) == ("space", "all")
    assert float(every["epochs"]) == 30 * 9 and float(every["full runs"]) == 30.0
    assert float(space["epochs"].split(" ± ")[0]) < 0.5 * 30 * 9
    assert space["trials"] == every["trials"] == "30"
    heads = [name for name in space if name.startswith("regret")]
    assert heads == ["regret at 34", "regret at 68", "regret at 135", "regret at 270"]
    assert "all: schedule.asha.min=9" in text
    trusted = [line.split() for line in text.splitlines() if line.startswith("skeleton")]
    assert [(line[0], line[1]) for line in trusted] == [
        (method, str(rung)) for method in ("skeletonclr", "skeletonbyol") for rung in RUNGS
    ]
    assert float(trusted[0][-1]) > 0.9  # a smooth truth is known well
    assert text.splitlines()[-1].startswith("what this cannot tell: failures")


def test_twice_the_same_to_the_last_digit(capsys, folder) -> None:
    asked = ("--curves", "culled", "--json", "--seeds", "0,3", "--variant", "tpe:sampler.name=tpe,budget.trials=14")
    first, second = (run(capsys, folder, *asked) for _ in range(2))
    assert first == second
    found = json.loads(first)
    assert found["seeds"] == [0, 3]
    assert [v["changes"] for v in found["variants"]] == [[], ["sampler.name=tpe", "budget.trials=14"]]
    searches = found["variants"][0]["searches"]
    assert searches[0]["best"] != searches[1]["best"]


def test_a_replay_of_full_runs_estimates_nothing(capsys, folder) -> None:
    asked = ("--curves", "full", "--propose", "recorded", "--json", "--variant", "all:schedule.asha.min=9")
    found = json.loads(run(capsys, folder, *asked))
    space, every = found["variants"]
    assert space["estimated"] == every["estimated"] == 0 and every["decisions"] == 5 * 20
    _, bound = load_search(folder / "tiny.yaml")
    rng = np.random.default_rng(0)
    recorded = [score(bound.sample(rng), 9) for _ in range(20)]
    assert every["best"] == {"mean": pytest.approx(max(recorded)), "sd": pytest.approx(0)}
    assert every["trials"]["mean"] == 20  # of the budget's 30: there are no more
    assert {one["best"] for one in space["searches"]} <= set(recorded)
    assert every["regret"][-1]["mean"] == 0.0


def test_a_replay_says_how_much_it_had_to_estimate(capsys, folder) -> None:
    asked = ("--curves", "culled", "--propose", "recorded", "--seeds", "0", "--set", "schedule.asha.min=9")
    found = json.loads(run(capsys, folder, *asked, "--json"))
    (space,) = found["variants"]
    assert space["decisions"] == 30 and 20 <= space["estimated"] <= 30  # 6 of 54 were trained in full
    text = run(capsys, folder, *asked)
    assert f"{space['estimated']} of 30 decisions asked for a score that was not recorded" in text


def test_an_epoch_takes_what_it_took_or_a_second(capsys, folder) -> None:
    asked = ("--curves", "full", "--propose", "recorded", "--seeds", "0", "--workers", "1", "--json")
    every = (*asked, "--set", "schedule.asha.min=9")
    recorded, second = (json.loads(run(capsys, folder, *every, *more)) for more in ((), ("--cost", "epoch")))
    _, bound = load_search(folder / "tiny.yaml")
    rng = np.random.default_rng(0)
    drawn = [bound.sample(rng)["method"] for _ in range(20)]
    seconds = sum(9 * (30 if method == "skeletonclr" else 90) for method in drawn)
    assert recorded["variants"][0]["hours"]["mean"] == pytest.approx(seconds / 3600)
    assert second["variants"][0]["hours"]["mean"] == pytest.approx(180 / 3600)


def test_what_does_not_fit_is_left_out_and_said(capsys, folder) -> None:
    text = run(capsys, folder, "--curves", "culled", "--curves", "other", "--seeds", "0")
    left = "left out: 1 of method 'cmd', which is not in the space, 1 with 'optim/lr' out of the space's bounds"
    assert f"note: {left}\n" in text
    assert "54 trials" in text


def test_few_trials_are_warned_of(capsys, folder) -> None:
    text = run(capsys, folder, "--curves", "full", "--seeds", "0")
    assert re.search(r"note: skeletonclr: \d+ recorded trials; below 20 a surrogate is hardly more than a guess", text)
    assert "hardly more" not in run(capsys, folder, "--curves", "culled", "--seeds", "0")


def test_rungs_between_recorded_ones_are_said(capsys, folder) -> None:
    asked = ("--curves", "culled", "--seeds", "0", "--variant", "two:schedule.asha.eta=2")
    text = run(capsys, folder, *asked)
    assert "note: two: nothing was scored at 2, 4 epochs: read off between the recorded rungs" in text
    short = run(capsys, folder, *asked[:4], "--variant", "short:schedule.max=3")
    assert "note: short: a full run of 3 epochs is read off curves of 9, whose schedules are longer" in short


# --- budgets in simulated time --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("budget", "limit", "of"),
    [("epochs=60", 60, "epochs"), ("minutes=3", 180, "seconds"), ("gpu_hours=0.1", 360, "epochs")],
)
def test_budgets_count_simulated_epochs_and_time(capsys, folder, budget, limit, of) -> None:
    asked = ("--curves", "culled", "--cost", "epoch", "--seeds", "0", "--workers", "2", "--json")
    changes = ("--set", "budget.trials=null", "--set", f"budget.{budget}", "--set", "budget.in_flight=stop")
    (search,) = json.loads(run(capsys, folder, *asked, *changes))["variants"][0]["searches"]
    assert limit <= search[of] <= limit + 2  # with two workers a second epoch may be under way


def test_a_budget_that_lets_finish_ends_with_full_runs(folder) -> None:
    _, (variant,) = read_variants(folder / "tiny.yaml", ["budget.trials=null", "budget.epochs=60"], [])
    space, _ = read_variants(folder / "tiny.yaml", [], [])
    search = Search(choices_of(space), setting_of(variant.spec, 0))

    class Rising:
        def point(self, trial, draws, epoch):
            from tuning.engine.simulator import Point

            return Point(1.0, score(draws, epoch))

    simulate(search, Rising(), range(1, 10), 4, watch=search.heard)
    assert search.engine.finished and 60 <= search.epochs <= 60 + 4 * 9
    assert search.engine.state.epochs == search.epochs


# --- curves of one's own --------------------------------------------------------------------------------------------

OWN = """
from tuning.engine.simulator import Point

class Curves:
    def __init__(self, choices, rungs):
        self.choices, self.rungs = choices, rungs
    def point(self, trial, draws, epoch):
        return Point(7.0, (0.5 if draws["method"] == self.choices.methods[0] else 0.25) * epoch / self.rungs[-1])

def broken(choices, rungs):
    raise RuntimeError("no such table")

nothing = 3
"""


@pytest.fixture
def own(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "own_curves.py").write_text(OWN)
    yield folder
    sys.modules.pop("own_curves", None)


def test_a_factory_answers_for_whatever_is_proposed(capsys, own) -> None:
    asked = ("--curves", "own_curves:Curves", "--seeds", "0", "--workers", "1")
    found = json.loads(run(capsys, own, *asked, "--json"))
    (space,) = found["variants"]
    assert space["best"]["mean"] == 0.5 and found["curves"] == {"own": "own_curves:Curves"}
    (search,) = space["searches"]
    assert search["seconds"] == 7.0 * search["epochs"]
    (second,) = json.loads(run(capsys, own, *asked, "--json", "--cost", "epoch"))["variants"][0]["searches"]
    assert second["seconds"] == second["epochs"] == search["epochs"]
    assert "how true the curves of own_curves:Curves are" in run(capsys, own, *asked).splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["own_curves:Curvs"], "there is no 'Curvs' in own_curves; did you mean 'Curves'?"),
        (["own_curves:broken"], "own_curves:broken: RuntimeError: no such table"),
        (["own_curves:nothing"], "own_curves:nothing is no factory"),
        (["no_such_module_here:f"], "ModuleNotFoundError: No module named 'no_such_module_here'"),
        (["own_curves:Curves", "--curves", "full"], "curves of your own stand alone"),
        (
            ["own_curves:Curves", "--propose", "recorded"],
            "--propose recorded replays journals; own_curves:Curves is none",
        ),
    ],
)
def test_a_wrong_factory_is_one_line(capsys, own, words, line) -> None:
    said = run(capsys, own, "--curves", *words, code=2)
    assert line in said and len(said.splitlines()) == 1


# --- faults ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "--curves says where curves come from"),
        (["--curves", "fulll"], "--curves fulll: there is no journal; did you mean 'full'?"),
        (
            ["--curves", "other"],
            "--curves other: no recorded trial has a score and fits the space; left out: 1 of method",
        ),
        (["--curves", "full", "--propose", "sampled"], "--propose is sampler or recorded, got 'sampled'"),
        (["--curves", "full", "--cost", "money"], "--cost is recorded or epoch, got 'money'"),
        (["--curves", "full", "--seeds", "4-x"], "--seeds: '4-x' is neither numbers"),
        (
            ["--curves", "full", "--set", "schedule.asha.rul=stop"],
            "--set: unknown key 'rul' in 'schedule.asha'; did you",
        ),
        (["--curves", "full", "--set", "data.split=xview"], "--set: 'data.split' changes nothing in a simulation"),
        (["--curves", "full", "--set", "schedule.asha.eta"], "is not KEY=VALUE"),
        (["--curves", "full", "--set", "schedule.max.x=1"], "--set: 'max' has no words below it"),
        (["--curves", "full", "--set", "budget.trials=[1"], "--set: 'budget.trials=[1': the value is not YAML"),
        (
            ["--curves", "full", "--variant", "x:schedule.asha.eta=1.5"],
            "--variant x: 'schedule.asha.eta' must be a whole",
        ),
        (
            ["--curves", "full", "--variant", "x:schedule.max=27"],
            "--variant x: nothing was recorded about rung 27: scores",
        ),
        (["--curves", "full", "--variant", "space:budget.trials=3"], "the name 'space' is taken by the space as it is"),
        (["--curves", "full", "--variant", "x"], "write NAME:KEY=VALUE"),
        (["--curves", "full", "--set", "objectives=[top1, parameters]"], "curves do not tell parameters"),
    ],
)
def test_a_fault_is_one_line(capsys, folder, words, line) -> None:
    said = run(capsys, folder, *words, code=2)
    assert line in said and len(said.splitlines()) == 1, said


def test_all_faults_of_the_variants_at_once(capsys, folder) -> None:
    words = ("--variant", "x:schedule.asha.eta=1,budget.trials=0", "--variant", "y:sampler.name=tp")
    said = run(capsys, folder, "--curves", "full", *words, code=2).splitlines()
    assert [line.split(": ")[1] for line in said] == ["--variant x", "--variant x", "--variant y"]


def test_files_that_are_no_journals(capsys, folder, tmp_path) -> None:
    (tmp_path / "empty.jsonl").write_bytes(b"")
    (tmp_path / "damaged.jsonl").write_bytes(b"{}\n" * 3)
    (tmp_path / "strange.jsonl").write_bytes(encode({"e": "ask", "trial": "x"}) * 2)
    names = ("empty", "damaged", "strange")
    words = [word for name in names for word in ("--curves", tmp_path / f"{name}.jsonl")]
    said = run(capsys, folder, *words, code=2).splitlines()
    assert [re.search(r"(no trial in it|damaged line|no journal of a search)", line)[1] for line in said] == [
        "no trial in it", "damaged line", "no journal of a search"
    ]  # fmt: skip


def test_a_space_with_faults_is_shown_as_always(capsys, folder, tmp_path) -> None:
    (tmp_path / "tiny.yaml").write_text(SPACE.replace("eta: 3", "eta: 1"))
    said = run(capsys, tmp_path, "--curves", folder / "runs/full", code=2)
    assert "tiny.yaml:10:" in said and "^" in said


# --- parts ----------------------------------------------------------------------------------------------------------


def test_changes_are_split_outside_of_brackets() -> None:
    assert list(split("a.b=1, c=[2,3],d={x: [1,2], y: 3}")) == ["a.b=1", "c=[2,3]", "d={x: [1,2], y: 3}"]
    assert list(split("")) == []
    assert change("schedule.max=0x10")[1].value == 16
    with pytest.raises(InputError, match="did you mean 'schedule'"):
        change("shedule.max=3")


def outcome(variant, seed, epochs, incumbents, best=0.5):
    return Outcome(variant, seed, 10, 1, epochs, 3600.0, best, incumbents, 10, 0)


def test_regrets_are_against_the_best_of_the_seed_at_equal_epochs(folder) -> None:
    _, variants = read_variants(folder / "tiny.yaml", [], ["fast:budget.trials=9"])
    outcomes = [
        outcome("space", 0, 80, ((1, 0.2), (30, 0.5), (70, 0.8))),
        outcome("space", 1, 80, ((11, 0.4),)),
        outcome("fast", 0, 40, ((5, 0.6),)),
        outcome("fast", 1, 40, ((5, 0.6),), best=None),
    ]
    found = summary(outcomes, variants)
    assert found["read_at"] == [10.0, 20.0, 40.0, 80.0]
    space, fast = found["variants"]
    assert space["regret"][0] is None  # in seed 1 nothing was scored yet
    assert [regret["mean"] for regret in space["regret"][1:]] == pytest.approx([0.4, 0.25, 0.1])
    assert [regret["mean"] for regret in fast["regret"]] == pytest.approx([0.1, 0.1, 0.1, 0.1])
    assert fast["best"] is None and space["best"] == {"mean": 0.5, "sd": 0.0}
    assert spread([1.0, 3.0]) == {"mean": 2.0, "sd": pytest.approx(2**0.5)}


def test_asking_for_help_loads_nothing_heavy() -> None:
    script = (
        "import sys, tuning.cli\ntry:\n    tuning.cli.main(['simulate', '--help'])\nexcept SystemExit:\n    pass\n"
        "print([n for n in ('torch', 'ray', 'optuna', 'numpy') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
