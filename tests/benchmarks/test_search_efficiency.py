"""The benchmark of search efficiency: engines behave as theirs do, no cell is lost or run twice, sums add up."""

from __future__ import annotations

import importlib.util
import json
import math
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from methods.errors import InputError
from tuning.engine.choices import METHOD, Choices
from tuning.engine.simulator import Point
from tuning.space.domains import Draw

ROOT = Path(__file__).parents[2]
RUNGS = (2, 6, 18, 52)
X = Draw("x", "float", 0.0, 1.0)


@pytest.fixture
def bench(monkeypatch):
    """The package is no part of the distribution: it is run from the checkout."""
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import contenders, efficiency_table, lcbench, search_efficiency

    return SimpleNamespace(
        contenders=contenders, table=efficiency_table, lcbench=lcbench, search=search_efficiency,
        Toy=_toy_class(lcbench), Source=_source_class(lcbench),
    )  # fmt: skip


def _toy_class(lcbench):
    class Toy(lcbench.Problem):
        """Two methods; a trial's value rises to its draw: x * epoch / 52."""

        group = "flat"

        def __init__(self, name="toy"):
            super().__init__()
            self.name = name
            self.choices = Choices((("a", (X, Draw("method/a/y", "int", 1, 3))), ("b", (X,))))

        def curve(self, draws):
            epochs = np.arange(1, 53)
            return draws["x"] * epochs / 52, epochs.astype(float)

        def regret(self, value):
            return 1.0 - value

    return Toy


def _source_class(lcbench):
    class Source:
        """A surrogate whose accuracy is the learning rate in percent after any epoch."""

        tasks = ("1", "2", "3", "4")
        draws = tuple(Draw(name, "float", 0.0, 100.0) for name in lcbench.FEATURES)

        def check(self, task):
            return None if task in self.tasks else f"no task {task}"

        def scale(self, task):
            return lcbench.Scale(best=80.0, low=40.0)

        def predict(self, task, settings, epochs):
            accuracy = np.repeat(settings[:, 1:2], len(epochs), axis=1)
            return accuracy, np.cumsum(np.ones_like(accuracy), axis=1) * 2.0

    return Source


# the problems


def test_a_flat_problem_has_accuracies_and_a_regret_on_the_tasks_scale(bench):
    flat = bench.lcbench.problem(bench.Source(), "3", cost="time")
    draws = {METHOD: "3", **dict.fromkeys(bench.lcbench.FEATURES, 60.0)}
    assert flat.point(0, draws, 5) == Point(seconds=2.0, value=0.6)
    assert [flat.regret(v) for v in (0.8, 0.6, 0.4, 0.2)] == pytest.approx([0.0, 0.5, 1.0, 1.5])
    assert bench.lcbench.problem(bench.Source(), "3").point(0, draws, 5).seconds == 1.0


def test_a_composite_shares_two_draws_and_gives_each_task_its_ceiling(bench):
    composite = bench.lcbench.problem(bench.Source(), "1+2+3+4")
    names = {method: [d.name for d in draws] for method, draws in composite.choices.branches}
    assert names["t2"][:3] == ["batch_size", "learning_rate", "method/t2/momentum"]
    assert len(names["t2"]) == 7 and not set(names["t2"][2:]) & set(names["t3"])
    drawn = composite.choices.sample(np.random.default_rng(0), "t4")
    values = [composite.curve({**drawn, "learning_rate": rate})[0][0] for rate in (80.0, 60.0, 10.0)]
    assert values == pytest.approx([0.97, 0.485, 0.0])  # the fourth ceiling; a negative score is 0
    assert composite.regret(0.97) == pytest.approx(0.03)


def test_sizes_are_rounded_for_the_surrogate(bench):
    drawn = dict.fromkeys(bench.lcbench.FEATURES, 2.6)
    rounded = dict(zip(bench.lcbench.FEATURES, bench.lcbench.settings(drawn), strict=True))
    assert {name for name, value in rounded.items() if value == 3.0} == {"batch_size", "max_units"}


def test_tasks_are_numbered_in_the_order_of_their_words(bench, tmp_path):
    told = tmp_path / "encoding.json"
    told.write_text(json.dumps({"OpenML_task_id": {"34539": 4}}), encoding="utf-8")
    codes = bench.lcbench._codes(("3945", "34539", "126025", "167104"), told)
    assert codes == {"126025": 1, "167104": 3, "34539": 4, "3945": 5}  # 2 is the task that the space leaves out
    told.write_text(json.dumps({"OpenML_task_id": {"34539": 7}}), encoding="utf-8")
    with pytest.raises(InputError, match="task 34539 is number 7, expected 4"):
        bench.lcbench._codes(("3945", "34539", "126025", "167104"), told)


def test_a_missing_runtime_is_one_line(bench, monkeypatch):
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(bench.lcbench.importlib, "import_module", absent)
    with pytest.raises(InputError, match="needs onnxruntime") as caught:
        bench.lcbench._session(Path("model.onnx"))
    assert len(caught.value.faults) == 1


# the engines


def make(bench, name, seed=0, rungs=RUNGS):
    return bench.contenders.make(name, bench.Toy().choices, rungs, 3, seed, 4)


def test_random_engines_draw_the_same_trials_from_the_prior(bench):
    rng = np.random.default_rng(5)
    expected = [bench.Toy().choices.sample(rng) for _ in range(4)]
    for name in ("random", "random-asha"):
        engine = make(bench, name, seed=5)
        assert [engine.ask().draws for _ in range(4)] == expected


def test_random_never_stops_before_the_top(bench):
    engine = make(bench, "random")
    engine.ask()
    assert [engine.report(0, epoch, Point(1.0, 0.0)) for epoch in RUNGS] == [True, True, True, False]


def test_rays_asha_stops_below_the_upper_third_of_those_before(bench):
    engine = make(bench, "random-asha")
    for _ in range(6):
        engine.ask()
    # 66.7th percentile of those before: -, .5, .5, .5, .5 and after a NaN (never below anything) still .5
    values = [0.5, 0.5, 0.4, 0.5, None, 0.49]
    assert [engine.report(n, 2, Point(1.0, v)) for n, v in enumerate(values)] == [True, True, False, True, True, False]
    assert engine.report(0, 52, Point(1.0, 0.9)) is False


def test_stock_tells_a_stopped_trial_complete_with_its_last_score(bench):
    engine = make(bench, "stock")
    asked = [engine.ask() for _ in range(3)]
    choices = bench.Toy().choices
    assert all(set(s.draws) == {METHOD, *(d.name for d in choices.draws(s.draws[METHOD]))} for s in asked)
    assert [engine.report(n, 2, Point(1.0, v)) for n, v in enumerate((0.5, 0.1, 0.6))] == [True, False, True]
    assert engine.report(2, 52, Point(1.0, 0.9)) is False
    trials = engine._source._inner._ot_study.trials
    assert [(t.state.name, t.values) for t in trials] == [("RUNNING", None), ("COMPLETE", [0.1]), ("COMPLETE", [0.9])]
    assert [t.intermediate_values for t in trials] == [{2: 0.5}, {}, {2: 0.6}]


def test_optuna_alone_prunes_and_completes(bench):
    engine = make(bench, "optuna-sha")
    for _ in range(4):
        engine.ask()
    values = (0.5, 0.1, 0.6, None)
    assert [engine.report(n, 2, Point(1.0, v)) for n, v in enumerate(values)] == [True, False, True, False]
    assert engine.report(2, 52, Point(1.0, 0.9)) is False
    states = [(t.state.name, t.value) for t in engine._study.trials]
    assert states == [("RUNNING", None), ("PRUNED", 0.1), ("COMPLETE", 0.9), ("FAIL", None)]


@pytest.mark.parametrize("name", ["random", "tpe", "random-asha", "stock", "optuna-sha", "optuna-hyperband",
                                  "optuna-median"])  # fmt: skip
def test_every_engine_searches_and_repeats_itself(bench, name):
    cell = bench.search.Cell("toy", seed=3, workers=4, budget=4, engine=name)
    first, second = (bench.search.measure(bench.Toy(), cell) for _ in range(2))
    timeless = [{key: value for key, value in told.items() if not key.startswith("cpu")} for told in (first, second)]
    assert timeless[0] == timeless[1]
    assert first["trials"] >= 4 and first["budgets"] == [0.5, 1.0, 2.0, 4.0]
    assert first["regret"] == sorted(first["regret"], reverse=True)  # the toy's order is the same at every rung
    assert first["regret"][-1] <= first["in_hand"][-1] < 1.0


def test_an_unknown_engine_is_one_line(bench):
    with pytest.raises(InputError, match="no engine 'stok'; did you mean 'stock'"):
        make(bench, "stok")


def test_ours_come_from_the_engine(bench, monkeypatch):
    def contender(*given):
        return given

    monkeypatch.setattr(bench.contenders.importlib, "import_module", lambda name: SimpleNamespace(contender=contender))
    choices = bench.Toy().choices
    made = bench.contenders.make("skeltune-x", choices, RUNGS, 3, 8, 16)
    assert made == ("skeltune-x", choices, RUNGS, 3, 8, 16)

    def absent(name):
        raise ImportError("not there")

    monkeypatch.setattr(bench.contenders.importlib, "import_module", absent)
    with pytest.raises(InputError, match="engine 'skeltune' needs"):
        make(bench, "skeltune")


# a cell


def test_the_incumbent_has_the_best_score_in_hand_and_counts_what_it_would_become(bench):
    problem = bench.Toy()
    problem.curve = lambda draws: (np.linspace(*draws["ends"], 52), np.arange(52.0))
    for trial, ends in enumerate([(0.2, 0.9), (0.5, 0.3)]):
        problem.point(trial, {"ends": ends}, 1)
    incumbent = bench.search.Incumbent(problem)
    told = [(10, 0, 2, 0.2), (20, 1, 2, 0.5), (30, 0, 6, None), (40, 0, 18, 0.4), (90, 0, 52, 0.9)]
    for epochs, trial, epoch, value in told:
        incumbent(SimpleNamespace(epochs=epochs, trial=trial, epoch=epoch, value=value))
    assert incumbent.curve == [(10, 0.1, 0.8), (20, 0.7, 0.5), (90, 0.1, 0.1)] and incumbent.full == 1
    assert [bench.search.read_at(incumbent.curve, at, 1) for at in (9, 10, 25, 90)] == [1.0, 0.1, 0.7, 0.1]


# the file


def record(problem="toy", seed=0, engine="stock", curve=((1.0, 0.5, 0.5),), **more):
    ends = {"regret": [p[1] for p in curve][-1:], "in_hand": [p[2] for p in curve][-1:]}
    return {
        "kind": "cell", "problem": problem, "seed": seed, "workers": 16, "budget": 40, "engine": engine,
        "cost": "epoch", "group": "flat", "budgets": [40.0], "curve": [list(p) for p in curve], **ends, "trials": 10,
        "full": 2, "cpu": 1.0, **more,
    }  # fmt: skip


def test_a_kill_in_any_instant_loses_at_most_the_last_line(bench, tmp_path):
    path = tmp_path / "cells.jsonl"
    for seed in range(2):
        bench.search.append(path, record(seed=seed))
    whole = path.read_bytes()
    begins = whole.index(b"\n") + 1
    for end in (*range(begins, len(whole) - 2, 9), *range(len(whole) - 2, len(whole) + 1)):
        path.write_bytes(whole[:end])
        kept = [told["seed"] for told in bench.search.read_cells(path)]
        assert kept == ([0, 1] if end >= len(whole) - 1 else [0])  # without its newline the line is whole
        bench.search.append(path, record(seed=2))
        assert [told["seed"] for told in bench.search.read_cells(path)] == [*kept, 2]


def test_lines_of_other_kinds_are_passed_over_and_the_last_of_a_cell_counts(bench, tmp_path):
    path = tmp_path / "cells.jsonl"
    assert bench.search.read_cells(path) == []
    for told in ({"kind": "run"}, {"kind": "cell", "problem": "half"}, record(trials=1), record(trials=2)):
        bench.search.append(path, told)
    with path.open("ab") as file:
        file.write(b"\xff\n[1]\n\n")
    assert [told["trials"] for told in bench.search.read_cells(path)] == [2]


@pytest.fixture
def command(bench, monkeypatch, tmp_path):
    """The command line on toys: ``ran`` lists the cells that were simulated."""
    ran = []

    def run_cell(folder, cell):
        ran.append((cell.problem, cell.seed, cell.engine))
        return bench.search.measure(bench.Toy(cell.problem), cell)

    monkeypatch.setattr(bench.lcbench, "locate", lambda folder: tmp_path)
    monkeypatch.setattr(bench.lcbench, "surrogate", lambda folder: bench.Source())
    monkeypatch.setattr(bench.search, "run_cell", run_cell)
    given = ["--budget", "2", "--workers", "4", "--engines", "random,random-asha", "--json", str(tmp_path / "c.jsonl")]
    return lambda *more: bench.search.main([*given, *more]), ran


def test_a_second_run_adds_only_what_is_missing(command, capsys):
    main, ran = command
    assert main("--tasks", "1", "--seeds", "0") == 0
    assert ran == [("1", 0, "random"), ("1", 0, "random-asha")]
    assert main("--tasks", "1,2", "--seeds", "0-1") == 0
    assert len(ran) == len(set(ran)) == 8
    assert main("--tasks", "1,2", "--seeds", "0,1", "--no-table") == 0
    printed = capsys.readouterr()
    assert len(ran) == 8 and "0 cells to run, 8 are in" in printed.err
    assert printed.out.count("## flat: 2 problems, 4 cells, 4 workers") == 1


def test_an_interrupted_run_keeps_what_is_finished(bench, command, monkeypatch, tmp_path):
    main, ran = command
    whole = bench.search.run_cell

    def broken(folder, cell):
        if cell.engine == "random-asha":
            raise KeyboardInterrupt
        return whole(folder, cell)

    monkeypatch.setattr(bench.search, "run_cell", broken)
    assert main("--tasks", "1", "--seeds", "0") == 130
    assert [told["engine"] for told in bench.search.read_cells(tmp_path / "c.jsonl")] == ["random"]
    monkeypatch.setattr(bench.search, "run_cell", whole)
    assert main("--tasks", "1", "--seeds", "0") == 0
    assert ran == [("1", 0, "random"), ("1", 0, "random-asha")]


def test_all_faults_come_at_once(command, capsys, tmp_path):
    main, ran = command
    wrong = ["--seeds", "0-x,5-3", "--workers", "0", "--budget", "0", "--engines", "stok", "--composite", "1,9"]
    assert main("--tasks", "7", *wrong) == 2
    lines = capsys.readouterr().err.splitlines()
    parts = ["'0-x' is neither", "'5-3' is empty", "--workers must be", "--budget must be", "no task 7", "no task 9",
             "--composite takes 4 tasks", "no engine 'stok'"]  # fmt: skip
    assert len(lines) == len(parts) and all(part in line for part, line in zip(parts, lines, strict=True))
    assert ran == [] and not (tmp_path / "c.jsonl").exists()
    assert main() == 2
    assert "give --tasks or --composite" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "found"), [("0-3", [0, 1, 2, 3]), ("7", [7]), ("0,3,7", [0, 3, 7]),
                                             ("1-2, 2-3", [1, 2, 3])])  # fmt: skip
def test_numbers(bench, text, found):
    assert bench.search.numbers("--seeds", text, 0, []) == found


# the statistics


def test_the_interval_of_a_mean_is_that_of_its_standard_error(bench):
    found = bench.table.mean([0.0, 1.0] * 50)
    assert found.value == 0.5
    assert (found.low, found.high) == pytest.approx((0.5 - 1.96 * 0.05, 0.5 + 1.96 * 0.05), abs=0.011)
    assert bench.table.mean([0.25] * 7) == bench.table.Interval(*[pytest.approx(0.25)] * 3)
    assert found == bench.table.mean([0.0, 1.0] * 50)  # the same resamples every time


def test_the_geometric_mean_of_two_spans_both(bench):
    assert bench.table.geometric_mean([2.0, 8.0]) == bench.table.Interval(*map(pytest.approx, (4.0, 2.0, 8.0)))


def test_speed_up_is_the_whole_budget_over_that_of_the_first_reach(bench):
    goal = record(curve=[(5.0, 0.9, 0.9), (32.0, 0.2, 0.3)])
    told = record(engine="mine", curve=[(5.0, 0.9, 0.9), (10.0, 0.1, 0.5), (20.0, 0.4, 0.3)])
    assert bench.table.speed_up(told, goal, "regret") == (4.0, True)
    assert bench.table.speed_up(told, goal, "in_hand") == (2.0, True)
    assert bench.table.speed_up(goal, goal, "regret") == (1.25, True)  # its own value, before its end
    late = record(curve=[(5.0, 0.3, 0.3)])
    assert bench.table.speed_up(late, goal, "regret") == (pytest.approx(1 / 1.5), False)


def test_the_mean_curve_is_read_from_steps(bench):
    goals = [record(seed=s, curve=[(30.0, 0.2, 0.2)]) for s in range(2)]
    mine = [record(seed=0, curve=[(4.0, 0.3, 0.3), (20.0, 0.0, 0.0)]), record(seed=1, curve=[(10.0, 0.1, 0.1)])]
    curve = bench.table.steps(mine[0], "regret")
    assert len(curve) == 40 * 52 and list(curve[[206, 207, 1038, 1039]]) == [1.0, 0.3, 0.3, 0.0]
    pairs = list(zip(mine, goals, strict=True))
    assert bench.table.speed_up_of_means(pairs, "regret").value == 4.0  # (.3 + .1) / 2 from budget 10 on
    found = bench.table.speed_up_of_means(pairs, "regret")
    assert (found.low, found.high) == (2.0, 4.0)  # only the first cell drawn, or both, or only the second
    assert bench.table.speed_up_of_means([(record(), goals[0])], "regret").value == pytest.approx(1 / 1.5)


def test_tables_pair_cells_and_group_them(bench):
    cells = [record(seed=s, engine="stock", curve=[(30.0, 0.5, 0.5)]) for s in range(3)]
    cells += [record(seed=s, engine="mine", curve=[(8.0, 0.4, 0.5)]) for s in range(2)]
    cells.append(record(engine="mine", curve=[(8.0, 0.1, 0.1)], workers=64))
    lines = bench.table.tables(cells)
    assert [line for line in lines if line.startswith("## ")] == [
        "## flat: 1 problem, 3 cells, 16 workers, budget 40 full trainings",
        "## flat: 1 problem, 1 cells, 64 workers, budget 40 full trainings",
    ]
    assert any(line.startswith("The engines did not run the same cells") for line in lines)
    assert "| mine | 2 | -0.100 [-0.100, -0.100] |" in lines
    reach = [line for line in lines if line.startswith("| mine | 2 | 5.00 [5.00, 5.00] | 2 | 5.00")]
    assert len(reach) == 1
    assert (
        "| stock | 3 | 1.33 [1.33, 1.33] | 3 | 1.33 [1.33, 1.33] | 1.33 [1.33, 1.33] | 3 | 1.33 [1.33, 1.33] |" in lines
    )


# the surrogate itself


@pytest.fixture
def curves(bench):
    """The folder of the surrogate."""
    if importlib.util.find_spec("onnxruntime") is None:
        pytest.skip("onnxruntime is not installed")
    folder = Path(os.environ.get("SKELTUNE_CURVES", "../shared/bench"))
    try:
        return bench.lcbench.locate(folder)
    except InputError as error:
        pytest.skip(str(error))


@pytest.mark.shared
def test_the_surrogate_gives_whole_curves_on_the_tasks_scale(bench, curves):
    source = bench.lcbench.surrogate(curves)
    assert len(source.tasks) == 34 and source.check("3945") is None and "no task 167083" in source.check("167083")
    flat = bench.lcbench.problem(source, "3945")
    draws = flat.choices.sample(np.random.default_rng(0))
    whole, _ = flat.curve(draws)
    alone, _ = source.predict("3945", np.array([bench.lcbench.settings(draws)]), (52,))
    assert whole.shape == (52,) and 100 * flat.point(0, draws, 52).value == pytest.approx(alone[0, 0], abs=1e-3)
    scale = source.scale("3945")
    assert 0 < scale.low < scale.best <= 100 and source._sampled("3945") == scale == source.scale("3945")
    assert math.isclose(flat.regret(scale.best / 100), 0.0, abs_tol=1e-12)


@pytest.mark.shared
def test_two_processes_find_what_one_finds(bench, curves, tmp_path, capsys):
    given = ["--curves", str(curves), "--tasks", "3945", "--composite", "3945,7593,34539,167104", "--seeds", "0",
             "--workers", "4", "--budget", "2", "--engines", "random-asha"]  # fmt: skip
    found = []
    for jobs in ("1", "2"):
        path = tmp_path / f"{jobs}.jsonl"
        assert bench.search.main([*given, "--jobs", jobs, "--json", str(path)]) == 0
        cells = {told["problem"]: told for told in bench.search.read_cells(path)}
        found.append({name: (told["curve"], told["trials"], told["full"]) for name, told in cells.items()})
    assert found[0] == found[1] and len(found[0]) == 2
    assert "## composite: 1 problem" in capsys.readouterr().out
