"""What a run folder tells: progress, ranking. Everything is read from the journal."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from methods.errors import InputError, did_you_mean
from tuning.config.schema import SearchSpec
from tuning.engine.journal import JournalState, replay
from tuning.observe.lines import short_draws
from tuning.plan import BEST_FILE, JOURNAL_FILE, SPACE_FILE
from tuning.recorder import trial_key
from tuning.space import Space, load_search
from tuning.space.stages import probed_notes


@dataclass(frozen=True)
class RunFolder:
    """A run as it lies on the disk."""

    path: Path
    spec: SearchSpec
    state: JournalState
    space: Space

    def summary(self) -> dict[str, Any]:
        """Plain values for scripts."""
        best = self.path / BEST_FILE
        return {
            "name": self.spec.name,
            "folder": str(self.path),
            "trials": self.spec.budget.trials,
            "ended": dict(Counter(t.ended for t in self.state.ended)),
            "to_continue": [trial_key(t.trial) for t in self.state.pending],
            "finish_jobs": sorted(self.state.jobs),
            "best": str(best) if best.is_file() else None,
        }


def read_run(name: str, runs: Path) -> RunFolder:
    """Find a run by folder or by name under ``runs``. Raises ``InputError`` with the names that are there."""
    for path in (runs / name, Path(name)):
        if (path / JOURNAL_FILE).is_file():
            spec, space = load_search(path / SPACE_FILE)
            return RunFolder(path, spec, replay(path / JOURNAL_FILE), space)
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
    if told["finish_jobs"]:
        line += f", {len(told['finish_jobs'])} jobs of the finish done"
    return line + (f"; best: {told['best']}" if told["best"] else "")


def stage_lines(run: RunFolder) -> list[str]:
    """What a reader of scores must know: methods whose later rungs probe another encoder than the earlier ones."""
    return [f"note: {note}" for branch in run.space.branches for note in probed_notes(branch)]


def leaderboard_rows(run: RunFolder) -> list[dict[str, Any]]:
    """Scored trials: by rung first, then by accuracy there, then by the probe's loss."""
    rows = []
    for trial in run.state.trials.values():
        last = trial.last_rung
        if last is None or last.top1 is None:
            continue
        rows.append(
            {
                "trial": trial_key(trial.trial),
                "method": trial.draws.get("method"),
                "rung": last.epoch,
                "top1": last.top1,
                "loss": last.loss,
                "seconds_per_epoch": trial.seconds / len(trial.reports),
                "ended": trial.ended,
                "draws": trial.draws,
            }
        )
    return sorted(rows, key=lambda r: (-r["rung"], -r["top1"], r["loss"] if r["loss"] is not None else 0.0, r["trial"]))


def leaderboard_lines(rows: list[dict[str, Any]]) -> list[str]:
    """The ranking as a table."""
    if not rows:
        return ["no trial has been scored yet"]
    lines = ["trial  method            rung  top1   loss    s/epoch  ended      drawn"]
    for row in rows:
        loss = "-" if row["loss"] is None else f"{row['loss']:.3f}"
        lines.append(
            f"{row['trial']:<6} {row['method']:<16} {row['rung']:>5}  {100 * row['top1']:5.1f}  {loss:<6} "
            f"{row['seconds_per_epoch']:>8.2f}  {row['ended'] or 'running':<10} {short_draws(row['draws'])}"
        )
    return lines
