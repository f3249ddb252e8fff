"""`skeltune report`, from hand-written run folders."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tuning.cli import main
from tuning.engine.journal import Journal
from tuning.engine.state import Report
from tuning.report import front_lines, leaderboard_lines, leaderboard_rows, read_run
from tuning.resources import find_space
from tuning.space import load_search
from tuning.summary import finish_lines, method_rows, report_lines, winner_of


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "runs" / "quickstart"
    path.mkdir(parents=True)
    (path / "space.yaml").write_text(find_space("quickstart").read_text(encoding="utf-8"), encoding="utf-8")
    return path


@pytest.fixture
def rungs(folder):
    return load_search(folder / "space.yaml")[0].schedule.rungs()


def write(folder, trials, jobs=()):
    """``trials``: (method, scores by rung, how it ended); ``jobs``: (name, result)."""
    rungs = load_search(folder / "space.yaml")[0].schedule.rungs()
    with Journal(folder / "journal.jsonl", {"space": "s", "data": "d", "name": "quickstart"}) as journal:
        for method, scores, ended in trials:
            trial = journal.ask({"method": method, "augment/strength": 0.5}, "sampler")
            for rung, top1 in zip(rungs, scores, strict=False):
                journal.report(trial, Report(rung, True, top1, 1.0, 2.0))
            if ended:
                journal.end(trial, ended, f"{ended} at step 7")
        for name, result in jobs:
            journal.job(name, result)
    return read_run("quickstart", folder.parent)


TRIALS = (
    ("skeletonclr", (0.30, 0.50), "culled"),
    ("skeletonclr", (0.20,), "culled"),
    ("skeletonclr", (0.10,), "culled"),
    ("skeletonbyol", (), "diverged"),
    ("skeletonbyol", (), None),
)


def export(folder, winner="t0000"):
    text = (folder / "space.yaml").read_text(encoding="utf-8")
    (folder / "best.yaml").write_text(f"{text}\nprovenance: {{search: {{winner: {winner}}}}}\n", encoding="utf-8")


def test_status_needs_no_torch(folder):
    """It reads journal and budget; what the search means is bound for those who ask for it."""
    run = write(folder, TRIALS)
    code = (
        "import sys\nfrom tuning.cli import main\ntry:\n"
        f"    main(['status', 'quickstart', '--runs', {str(folder.parent)!r}])\n"
        "finally:\n    print([name for name in ('torch', 'ray') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
    line, loaded = done.stdout.splitlines()
    assert line == "quickstart: 4 of 10 trials ended (3 culled, 1 diverged), 1 running or to continue"
    assert (loaded, done.returncode) == ("[]", 0)
    assert run.space.methods == ("skeletonclr", "skeletonbyol")
    assert run.space is run.space


def test_methods_by_rung(folder, rungs):
    rows = method_rows(write(folder, TRIALS).state, rungs)
    assert len(rows) == 2 * len(rungs)
    by = {(r["method"], r["rung"]): r for r in rows}
    first = by["skeletonclr", rungs[0]]
    assert (first["n"], first["best"], first["median"]) == (3, 0.30, 0.20)
    second = by["skeletonclr", rungs[1]]
    assert (second["n"], second["best"], second["median"]) == (1, 0.50, 0.50)
    assert by["skeletonbyol", rungs[0]] == {
        "method": "skeletonbyol", "rung": rungs[0], "n": 0, "best": None, "median": None,
    }  # fmt: skip


def test_page_before_the_finish(folder):
    run = write(folder, TRIALS)
    lines = report_lines(run)
    text = "\n".join(lines)
    assert lines[0].startswith(f"quickstart: 4 of {run.spec.budget.trials} trials ended (3 culled, 1 diverged)")
    assert "not listed: 2 trials without a score (1 diverged, 1 running)" in text
    assert "t0000" in text
    assert "t0003" not in text
    assert "finish: nothing yet" in lines
    assert "not yet" in lines[-1]


def test_finish_half_done_shows_no_test_score(folder):
    jobs = [("rerun-t0000-0", {"top1": 0.5, "loss": 1.0}), ("retrain-0", {"top1": 0.613, "loss": 1.0})]
    text = "\n".join(finish_lines(write(folder, TRIALS, jobs)))
    assert "t0000  validation, 1 new seed: 50.0" in text
    assert "61.3" not in text


def test_finish_done(folder):
    jobs = [
        ("rerun-t0001-0", {"top1": 0.6, "loss": 1.0}),
        ("rerun-t0001-1", {"ended": "diverged", "detail": "diverged at step 3"}),
        ("rerun-t0000-1", {"top1": 0.72, "loss": 1.0}),
        ("rerun-t0000-0", {"top1": 0.70, "loss": 1.0}),
        ("retrain-0", {"top1": 0.64, "loss": 1.0}),
        ("retrain-1", {"top1": 0.66, "loss": 1.0}),
    ]
    run = write(folder, TRIALS, jobs)
    export(folder)
    assert winner_of(run) == 0
    lines = finish_lines(run)
    assert lines[1] == "  t0000  validation, 2 new seeds: 71.0 ± 1.4 (70.0, 72.0)"
    assert lines[2] == "  t0001  validation, 1 new seed: 60.0"
    assert lines[3] == "  rerun-t0001-1 gave no score: diverged at step 3"
    assert lines[4].endswith("test, read once: 65.0 ± 1.4 (64.0, 66.0)")
    assert lines[5] == f"best configuration: {folder / 'best.yaml'}"


@pytest.mark.parametrize("winner", ["t0099", "nonsense", "[1]"])
def test_a_best_file_that_does_not_name_a_trial(folder, winner):
    run = write(folder, TRIALS)
    assert winner_of(run) is None
    export(folder, winner)
    assert winner_of(run) is None
    (folder / "best.yaml").write_text("format: [", encoding="utf-8")
    assert winner_of(run) is None


def test_empty_run(folder):
    lines = report_lines(write(folder, ()))
    assert "no trial has been scored yet" in lines
    assert not any("by rung" in line for line in lines)


def test_long_leaderboards_are_cut(folder):
    lines = report_lines(write(folder, [("skeletonclr", (0.01 * i,), "culled") for i in range(13)]))
    assert "leaderboard (the first 10 of 13)" in lines
    assert sum(line.startswith("t00") for line in lines) == 10


def run_main(*arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    return ended.value.code


def test_the_verb(folder, tmp_path, capsys):
    write(folder, TRIALS)
    export(folder)
    target = tmp_path / "survival.svg"
    assert run_main("report", "quickstart", "--runs", folder.parent, "--plot", target) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == f"figure: {target}"
    assert b"<svg" in target.read_bytes()


def test_the_verb_says_what_is_wrong(folder, tmp_path, capsys):
    write(folder, TRIALS)
    assert run_main("report", "quickstart", "--runs", folder.parent, "--plot", tmp_path / "x.pdf") == 2
    assert "ends in .svg or .png" in capsys.readouterr().err
    assert run_main("report", "quickstrat", "--runs", folder.parent) == 2
    assert "did you mean 'quickstart'" in capsys.readouterr().err


# --- two objectives --------------------------------------------------------------------------------------------------


@pytest.fixture
def two(folder):
    """Full runs of 0.6 at 900 parameters, 0.5 at 2,000,000, 0.4 at 100; one that was culled at the first rung."""
    text = (folder / "space.yaml").read_text(encoding="utf-8")
    (folder / "space.yaml").write_text(f"{text}\nobjectives: [top1, parameters]\n", encoding="utf-8")
    rungs = load_search(folder / "space.yaml")[0].schedule.rungs()
    with Journal(folder / "journal.jsonl", {"space": "s", "data": "d", "name": "quickstart"}) as journal:
        for top1, size in ((0.6, 900), (0.5, 2_000_000), (0.4, 100), (0.9, 1)):
            trial = journal.ask({"method": "skeletonclr"}, "sampler")
            for rung in rungs if size > 1 else rungs[:1]:
                journal.report(trial, Report(rung, True, top1, 1.0, 2.0, {"parameters": size}))
            journal.end(trial, "top" if size > 1 else "culled")
    return read_run("quickstart", folder.parent)


def test_the_leaderboard_marks_the_front(two):
    rows = leaderboard_rows(two)
    assert [(r["trial"], r["parameters"], r["front"]) for r in rows] == [
        ("t0000", 900.0, True), ("t0001", 2e6, False), ("t0002", 100.0, True), ("t0003", 1.0, False),
    ]  # fmt: skip
    lines = leaderboard_lines(rows)
    assert "params" in lines[0]
    assert lines[1].split()[4:9] == ["1.000", "2.00", "900", "*", "top"]
    assert lines[2].split()[4:8] == ["1.000", "2.00", "2M", "top"]
    assert len({line.index("top ") for line in lines[1:4]} | {lines[0].index("ended")}) == 1
    assert front_lines(two) == ["* front of accuracy and parameters: 2 trials, from 60.0 at 900 to 40.0 at 100"]


def test_the_page_tells_the_front_and_its_finalists(two, folder):
    page = report_lines(two)
    assert "* front of accuracy and parameters: 2 trials, from 60.0 at 900 to 40.0 at 100" in page
    (folder / "pareto").mkdir()
    export(folder)
    assert f"configurations of the front: {folder / 'pareto'}" in finish_lines(two)


def test_one_objective_has_no_front(folder):
    run = write(folder, TRIALS)
    assert run.front == front_lines(run) == []
    assert "front" not in leaderboard_rows(run)[0]
    assert leaderboard_lines(leaderboard_rows(run))[0] == (
        "trial  method            rung  top1   loss    s/epoch  ended      drawn"
    )


def test_no_full_run_yet(two, folder):
    (folder / "journal.jsonl").unlink()
    run = write(folder, ())
    assert front_lines(run) == ["no trial is on the front of accuracy and parameters yet: it is of full runs"]
