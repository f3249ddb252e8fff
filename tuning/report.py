"""What a run folder tells: progress, ranking. Everything is read from the journal."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from methods.errors import InputError, did_you_mean
from tuning.config.schema import SearchSpec
from tuning.engine.finalists import final_rung
from tuning.engine.journal import replay
from tuning.engine.ladder import make_ladder
from tuning.engine.objectives import SHORT, WORDS, Objectives, cost_text, objectives_of
from tuning.engine.pareto import Point, front
from tuning.engine.state import JournalState
from tuning.observe.lines import short_draws
from tuning.run_files import BEST_FILE, JOURNAL_FILE, NODES_FILE, SPACE_FILE, trial_key
from tuning.space import Space, load_search
from tuning.space.load import load_spec
from tuning.space.stages import probed_notes
from tuning.watching.nodes import node_lines, node_rows


@dataclass(frozen=True)
class RunFolder:
    """A run as it lies on the disk. ``bound``: its space, where that is at hand."""

    path: Path
    spec: SearchSpec
    state: JournalState
    bound: Space | None = None

    @cached_property
    def space(self) -> Space:
        """What its search means: binding it takes the methods, and so torch, a second that `status` can do without."""
        return self.bound or load_search(self.path / SPACE_FILE)[1]

    @property
    def objectives(self) -> Objectives:
        """What the search is after, with the costs of its trials."""
        return objectives_of(self.spec.objectives, self.spec.schedule.max, self.state)

    @property
    def front(self) -> list[Point]:
        """The full runs that no other dominates, the most accurate first; empty where there is one objective."""
        if not self.objectives.two:
            return []
        return front(
            self.state.trials.values(), final_rung(self.state, make_ladder(self.spec.schedule)), self.objectives
        )

    def summary(self) -> dict[str, Any]:
        """Plain values for scripts."""
        best = self.path / BEST_FILE
        return {
            "name": self.spec.name,
            "folder": str(self.path),
            "trials": self.spec.budget.trials,
            "ended": dict(Counter(t.ended for t in self.state.ended)),
            "to_continue": [trial_key(t.trial) for t in self.state.pending if not t.paused],
            "waiting": [trial_key(t.trial) for t in self.state.pending if t.paused],
            "failures": dict(Counter(f.kind for t in self.state.trials.values() for f in t.failures)),
            "nodes": [
                {
                    "node": row.node,
                    "epochs": row.epochs,
                    "trials": len(row.trials),
                    "pace": row.pace,
                    "slow": row.slow,
                    "clock_off": row.clock_off,
                    "failures": dict(row.failures),
                }
                for row in node_rows(self.state)
            ],
            "finish_jobs": sorted(self.state.jobs),
            "best": str(best) if best.is_file() else None,
        }


def read_run(name: str, runs: Path) -> RunFolder:
    """Find a run by folder or by name under ``runs``. Raises ``InputError`` with the names that are there."""
    for path in (runs / name, Path(name)):
        if (path / JOURNAL_FILE).is_file():
            return RunFolder(path, load_spec(path / SPACE_FILE), replay(path / JOURNAL_FILE))
    known = [p.parent.name for p in runs.glob(f"*/{JOURNAL_FILE}")]
    raise InputError(f"no run '{name}' under {runs}{did_you_mean(name, known)}")


def status_line(run: RunFolder) -> str:
    """One line for people."""
    told = run.summary()
    ended = sum(told["ended"].values())
    kinds = ", ".join(f"{count} {reason}" for reason, count in sorted(told["ended"].items()))
    total = f" of {told['trials']}" if told["trials"] else ""
    line = f"{told['name']}: {ended}{total} trials ended" + (f" ({kinds})" if kinds else "")
    if told["to_continue"]:
        line += f", {len(told['to_continue'])} running or to continue"
    if told["waiting"]:
        line += f", {len(told['waiting'])} waiting at a rung"
    if told["finish_jobs"]:
        line += f", {len(told['finish_jobs'])} jobs of the finish done"
    return line + (f"; best: {told['best']}" if told["best"] else "")


def status_lines(run: RunFolder) -> list[str]:
    """How far it is, and on a cluster what became of its nodes and of trials that failed there."""
    lines = [status_line(run)]
    failures = Counter(failure.kind for trial in run.state.trials.values() for failure in trial.failures)
    if failures:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(failures.items()))
        lines.append(f"failures of workers: {kinds} (each tried again unless its trial is told as failed)")
    return [*lines, *node_lines(node_rows(run.state)), *_nodes_now(run.path)]


def _nodes_now(folder: Path) -> list[str]:
    """The nodes as the driver last saw them; nothing where that cannot be read."""
    try:
        nodes = json.loads((folder / NODES_FILE).read_text(encoding="utf-8"))["nodes"]
        now = [f"{row['node']}{' (avoided)' if row['avoided'] else ''}" for row in nodes]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [f"nodes when last seen: {', '.join(now)}"] if len(now) > 1 or any("(" in node for node in now) else []


def stage_lines(run: RunFolder) -> list[str]:
    """What a reader of scores must know: methods whose later rungs probe another encoder than the earlier ones."""
    return [f"note: {note}" for branch in run.space.branches for note in probed_notes(branch)]


def leaderboard_rows(run: RunFolder) -> list[dict[str, Any]]:
    """Scored trials: by rung first, then by accuracy there, then by the probe's loss.

    With two objectives a row tells the cost, under the objective's name, and whether the trial is on the ``front``.
    """
    rows = []
    objectives, on_front = run.objectives, {point.trial for point in run.front}
    for trial in run.state.trials.values():
        last = trial.last_rung
        if last is None or last.top1 is None:
            continue
        row = {
            "trial": trial_key(trial.trial),
            "method": trial.draws.get("method"),
            "rung": last.epoch,
            "top1": last.top1,
            "loss": last.loss,
            "seconds_per_epoch": trial.seconds / len(trial.reports),
            "ended": trial.ended,
            "waits": trial.paused,
            "draws": trial.draws,
        }
        if objectives.two:
            row |= {objectives.second: objectives.cost(trial, last.epoch), "front": trial.trial in on_front}
        rows.append(row)
    return sorted(rows, key=lambda r: (-r["rung"], -r["top1"], r["loss"] if r["loss"] is not None else 0.0, r["trial"]))


def leaderboard_lines(rows: list[dict[str, Any]]) -> list[str]:
    """The ranking as a table; with two objectives the cost, and a star for those on the front."""
    if not rows:
        return ["no trial has been scored yet"]
    second = next((name for name in SHORT if name in rows[0]), "")
    head = f"{SHORT[second]:>9}    " if second else ""
    lines = [f"trial  method            rung  top1   loss    s/epoch  {head}ended      drawn"]
    for row in rows:
        loss = "-" if row["loss"] is None else f"{row['loss']:.3f}"
        cost = f"{cost_text(second, row[second]):>9} {'*' if row['front'] else ' '}  " if second else ""
        state = row["ended"] or ("waiting" if row["waits"] else "running")
        lines.append(
            f"{row['trial']:<6} {row['method']:<16} {row['rung']:>5}  {100 * row['top1']:5.1f}  {loss:<6} "
            f"{row['seconds_per_epoch']:>8.2f}  {cost}{state:<10} {short_draws(row['draws'])}"
        )
    return lines


def front_lines(run: RunFolder) -> list[str]:
    """What the stars in the table mean; nothing with one objective."""
    if not run.objectives.two:
        return []
    if not run.front:
        return [f"no trial is on the front of accuracy and {WORDS[run.objectives.second]} yet: it is of full runs"]
    return [f"* {front_line(run.front, run.objectives)}"]


def front_line(found: list[Point], objectives: Objectives) -> str:
    """`front of accuracy and parameters: 5 trials, from 61.2 at 1.24M to 48.0 at 310k`."""
    count = f"{len(found)} {'trial' if len(found) == 1 else 'trials'}"
    ends = [f"{100 * p.score:.1f} at {cost_text(objectives.second, p.cost)}" for p in (found[0], found[-1])]
    told = f"from {ends[0]} to {ends[1]}" if len(found) > 1 else ends[0]
    return f"front of accuracy and {WORDS[objectives.second]}: {count}, {told}"
