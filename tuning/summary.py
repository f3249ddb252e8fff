"""A finished or running search on one page: state, ranking, methods rung by rung, what the finish found."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

from methods.errors import InputError
from tuning.engine.journal import JournalState, TrialState
from tuning.finish import percent
from tuning.plan import BEST_FILE
from tuning.recorder import trial_key
from tuning.report import RunFolder, leaderboard_lines, leaderboard_rows, stage_lines, status_line
from tuning.space import load_search

SHOWN = 10
RUNNING = "running"
_RERUN = re.compile(r"rerun-t(\d+)-(\d+)")  # the names that tuning/finish.py gives its jobs
_RETRAIN = re.compile(r"retrain-\d+")


def report_lines(run: RunFolder) -> list[str]:
    """The page that `skeltune report` prints."""
    rows = leaderboard_rows(run)
    more = f" (the first {SHOWN} of {len(rows)})" if len(rows) > SHOWN else ""
    note = unscored_note(run.state)
    lines = [status_line(run), "", f"leaderboard{more}", *leaderboard_lines(rows[:SHOWN])]
    if note:
        lines.append(f"not listed: {note}")
    lines += stage_lines(run)
    if rows:
        table = method_rows(run.state, run.spec.schedule.rungs())
        lines += ["", "methods: validation top-1 by rung, of the trials that were let so far", *method_lines(table)]
    return [*lines, "", *finish_lines(run)]


def winner_of(run: RunFolder) -> int | None:
    """The trial that best.yaml was exported from; None before the finish, or where the file does not say."""
    best = run.path / BEST_FILE
    if not best.is_file():
        return None
    try:
        told = load_search(best)[0].provenance.get("search") or {}
    except InputError:  # edited by hand, or by another version: the report has more to say than this
        return None
    key = str(told.get("winner", ""))
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
    found: dict[int, list[tuple[int, float]]] = {}
    for name, result in state.jobs.items():
        match = _RERUN.fullmatch(name)
        if match and "top1" in result:
            found.setdefault(int(match[1]), []).append((int(match[2]), float(result["top1"])))
    return {trial: [value for _, value in sorted(runs)] for trial, runs in sorted(found.items())}


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
    """Re-runs of the finalists, the winner on the test split, what failed, and where best.yaml is.

    Test scores are shown once the export is there, never from a finish half done.
    """
    jobs, best = run.state.jobs, run.path / BEST_FILE
    lines = ["finish" if jobs else "finish: nothing yet"]
    for trial, values in sorted(
        rerun_scores(run.state).items(), key=lambda item: (-statistics.fmean(item[1]), item[0])
    ):
        seeds = f"{len(values)} new {'seed' if len(values) == 1 else 'seeds'}"
        lines.append(f"  {trial_key(trial)}  validation, {seeds}: {percent(values)}")
    for name, result in sorted(jobs.items()):
        if "top1" not in result:
            lines.append(f"  {name} gave no score: {result.get('detail') or result.get('ended') or 'failed'}")
    tests = [float(r["top1"]) for name, r in sorted(jobs.items()) if _RETRAIN.fullmatch(name) and "top1" in r]
    if not best.is_file():
        return [*lines, "best configuration: not yet; `skeltune search` with the same space goes on"]
    winner = winner_of(run)
    if tests:
        who = trial_key(winner) if winner is not None else "the winner"
        lines.append(f"  {who} retrained on the whole training split; test, read once: {percent(tests)}")
    return [*lines, f"best configuration: {best}"]
