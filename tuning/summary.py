"""A finished or running search on one page: state, ranking, methods rung by rung, what the finish found."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tuning.engine.finalists import RETRAIN, finish_jobs, rerun_results, standing_of
from tuning.engine.ladder import make_ladder
from tuning.engine.state import JournalState, TrialState
from tuning.export_best import finalist_lines, percent, score_line, told_in, verdict, winner_in
from tuning.pareto_export import FRONT_FOLDER
from tuning.report import RunFolder, front_lines, leaderboard_lines, leaderboard_rows, stage_lines, status_line
from tuning.run_files import BEST_FILE, trial_key

SHOWN = 10
RUNNING = "running"


def report_lines(run: RunFolder) -> list[str]:
    """The page that `skeltune report` prints."""
    rows = leaderboard_rows(run)
    more = f" (the first {SHOWN} of {len(rows)})" if len(rows) > SHOWN else ""
    note = unscored_note(run.state)
    lines = [status_line(run), "", f"leaderboard{more}", *leaderboard_lines(rows[:SHOWN])]
    if note:
        lines.append(f"not listed: {note}")
    lines += [*front_lines(run), *stage_lines(run)]
    if rows:
        table = method_rows(run.state, run.spec.schedule.rungs())
        lines += ["", "methods: validation top-1 by rung, of the trials that were let so far", *method_lines(table)]
    return [*lines, "", *finish_lines(run)]


def winner_of(run: RunFolder) -> int | None:
    """The trial that best.yaml was exported from; None before the finish, or where the file does not say."""
    key = winner_in(run.path / BEST_FILE) or ""
    number = int(key[1:]) if re.fullmatch(r"t\d+", key) else None
    return number if number in run.state.trials else None


def method_rows(state: JournalState, rungs: Sequence[int]) -> list[dict[str, Any]]:
    """For each method and rung: how many trials were scored there, the best and the median top-1 (None for no trial).

    Only survivors reach a higher rung, so a median may rise by selection alone.
    """
    rows = []
    for method in sorted({method_of(t) for t in state.trials.values()}):
        mine = [t for t in state.trials.values() if method_of(t) == method]
        for rung in rungs:
            reports = [t.at(rung) for t in mine]
            values = [r.top1 for r in reports if r is not None and r.top1 is not None]
            rows.append(
                {
                    "method": method,
                    "rung": rung,
                    "n": len(values),
                    "best": max(values, default=None),
                    "median": statistics.median(values) if values else None,
                }
            )
    return rows


def method_of(trial: TrialState) -> str:
    """The method that a trial drew."""
    return str(trial.draws.get("method", "unknown"))


def rerun_scores(state: JournalState) -> dict[int, list[float]]:
    """Finalist -> validation top-1 of its re-runs with new seeds, by the number of the seed."""
    runs = {
        t: [r["top1"] for _, r in sorted(found.items()) if "top1" in r] for t, found in rerun_results(state).items()
    }
    return {trial: [float(value) for value in values] for trial, values in runs.items() if values}


def unscored_note(state: JournalState) -> str:
    """`3 trials without a score (2 diverged, 1 running)`, or nothing: no table or figure shall pass over them."""
    silent = Counter(t.ended or RUNNING for t in state.trials.values() if t.last_rung is None)
    if not silent:
        return ""
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(silent.items()))
    total = sum(silent.values())
    return f"{total} {'trial' if total == 1 else 'trials'} without a score ({kinds})"


def method_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Those rows as a table; a rung that no trial of a method reached shows dashes."""
    lines = ["method            rung    n   best  median"]
    for row in rows:
        best, median = ("-" if row[k] is None else f"{100 * row[k]:.1f}" for k in ("best", "median"))
        lines.append(f"{row['method']:<16} {row['rung']:>5} {row['n']:>4} {best:>6} {median:>7}")
    return lines


def finish_lines(run: RunFolder) -> list[str]:
    """How the finalists stand, the winner on the test split, what failed, and where best.yaml is.

    Test scores are shown once the export is there, never from a finish half done.
    """
    jobs, best = run.state.jobs, run.path / BEST_FILE
    lines = ["finish" if jobs else "finish: nothing yet", *_rerun_lines(run)]
    for name, result in sorted(jobs.items()):
        if "top1" not in result:
            lines.append(f"  {name} gave no score: {result.get('detail') or result.get('ended') or 'failed'}")
    if not best.is_file():
        return [*lines, "best configuration: not yet; `skeltune search` with the same space goes on"]
    winner = winner_of(run)
    retrained = {j.number: j for j in finish_jobs(run.state) if j.kind == RETRAIN and j.trial in (None, winner)}
    tests = [float(job.result["top1"]) for job in retrained.values() if job.scored]  # old jobs that name no trial first
    if tests:
        who = trial_key(winner) if winner is not None else "the winner"
        read = (told_in(best).get("test") or {}).get("read", "once")
        lines.append(f"  {who} retrained on the whole training split; test, read {read}: {percent(tests)}")
    folder = run.path / FRONT_FOLDER
    if run.objectives.two and folder.is_dir():
        lines.append(f"configurations of the front: {folder}")
    return [*lines, f"best configuration: {best}"]


def _rerun_lines(run: RunFolder) -> list[str]:
    """The race of the finalists, then other trials that were re-run, such as finalists of a search that went on."""
    rerun = run.spec.finish.rerun
    if rerun is None:
        return []
    standing = standing_of(run.state, make_ladder(run.spec.schedule), rerun, run.objectives)
    lines = finalist_lines(standing)
    raced = {score.trial for score in standing.scores}
    others = [(-statistics.fmean(v), trial, v) for trial, v in rerun_scores(run.state).items() if trial not in raced]
    lines += [score_line(trial, values) for _, trial, values in sorted(others)]
    return [*lines, f"  {verdict(standing)}"] if standing.done and verdict(standing) else lines
