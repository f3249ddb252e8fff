"""The end of a search: confirm the best with new seeds, retrain the winner, read the test split once, export."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from methods.training.config import TrialConfig
from methods.training.seeds import derive_seed
from tuning.config.schema import SearchSpec
from tuning.engine.finalists import Score, rank_finalists, ranking
from tuning.engine.journal import Journal, TrialState
from tuning.files import write_text
from tuning.plan import BEST_FILE, TEST_FILE, WEIGHTS_FILE, Plan, Stop
from tuning.provenance import surroundings
from tuning.recorder import trial_key
from tuning.session import CHECKPOINT, Task
from tuning.slots import Slots
from tuning.space.export import dump


class NoFinalist(Exception):
    """No trial was scored at the top rung, so there is nothing to confirm."""


def finish(plan: Plan, journal: Journal, slots: Slots, stop: Stop, say: Callable[[str], None]) -> Path | None:
    """Confirm, retrain, test, export. Every job's result is in the journal, so an interruption repeats none of them.

    Returns the path of best.yaml, or None when it was interrupted. Raises :class:`NoFinalist`.
    """
    best = ranking(journal.state, plan.ladder.top)
    if not best:
        raise NoFinalist(
            f"no trial reached the top rung ({plan.ladder.top} epochs); raise budget.trials and run the same command"
        )
    jobs = _Jobs(plan, journal, slots, stop, say)
    scores = _confirm(jobs, best)
    if scores is None:
        return None
    winner = journal.state.trials[scores[0].trial]
    tests = _retrain(jobs, winner)
    if tests is None:
        return None
    return _export(plan, journal, slots, winner, scores, tests, say)


def rerun_name(trial: int, number: int) -> str:
    """How the journal calls a finalist's run with its ``number``-th new seed."""
    return f"rerun-{trial_key(trial)}-{number}"


def _confirm(jobs: _Jobs, best: Sequence[TrialState]) -> list[Score] | None:
    """Finalists by the mean of their re-runs; without re-runs, by the search's own score."""
    plan = jobs.plan
    rerun = plan.spec.finish.rerun
    top = plan.ladder.top
    if rerun is None:
        return [Score(t.trial, (_score(t, top),), (_loss(t, top),)) for t in best]
    finalists = best[: rerun.top]
    names = {(t.trial, i): rerun_name(t.trial, i) for t in finalists for i in range(rerun.seeds)}
    tasks = [
        jobs.task(
            name,
            plan.space.resolve(jobs.journal.state.trials[trial].draws),
            seed=derive_seed(plan.spec.seed, "rerun", trial, i),
        )
        for (trial, i), name in names.items()
    ]
    jobs.say(f"finish: the best {len(finalists)} of {len(best)} full runs, {rerun.seeds} new seeds each")
    if not jobs.run(tasks):
        return None
    results = jobs.journal.state.jobs
    found = {
        t.trial: [results[n] for (trial, _), n in names.items() if trial == t.trial and "top1" in results[n]]
        for t in finalists
    }
    scores = rank_finalists(found)
    if not scores:
        raise NoFinalist("every re-run of every finalist failed; see the lines above")
    for score in scores:
        jobs.say(f"  {trial_key(score.trial)}  validation {percent(score.values)}")
    return scores


def _score(trial: TrialState, rung: int) -> float:
    report = trial.at(rung)
    return report.top1 if report is not None and report.top1 is not None else 0.0


def _loss(trial: TrialState, rung: int) -> float:
    report = trial.at(rung)
    return report.loss if report is not None and report.loss is not None else float("inf")


def _retrain(jobs: _Jobs, winner: TrialState) -> list[dict[str, Any]] | None:
    """Train the winner on the whole training split and read the test split once: one reading, every seed's model."""
    plan = jobs.plan
    retrain = plan.spec.finish.retrain
    if retrain is None:
        return []
    config = plan.space.resolve(winner.draws)
    tasks = [
        jobs.task(
            f"retrain-{i}", config, seed=derive_seed(plan.spec.seed, "retrain", i), train_on="whole", score="test"
        )
        for i in range(retrain.seeds)
    ]
    jobs.say(
        f"finish: {trial_key(winner.trial)} on the whole training split, {retrain.seeds} seeds; then the test split"
    )
    if not jobs.run(tasks):
        return None
    results = [jobs.journal.state.jobs[t.key] for t in tasks]
    return [result for result in results if "top1" in result]


def percent(values: Sequence[float]) -> str:
    """`61.4 ± 0.8 (60.6, 61.5, 62.1)` in percent; one value alone has no spread."""
    shown = [100 * v for v in values]
    if len(shown) == 1:
        return f"{shown[0]:.1f}"
    each = ", ".join(f"{v:.1f}" for v in shown)
    return f"{statistics.fmean(shown):.1f} ± {statistics.stdev(shown):.1f} ({each})"


def _export(
    plan: Plan,
    journal: Journal,
    slots: Slots,
    winner: TrialState,
    scores: Sequence[Score],
    tests: Sequence[Mapping[str, Any]],
    say: Callable[[str], None],
) -> Path:
    config = plan.space.resolve(winner.draws)
    told = _provenance(plan, journal, slots, winner, scores, tests)
    path = plan.folder / BEST_FILE
    write_text(path, _story(plan, path, scores, tests) + dump(portable(plan), config, told))
    weights = plan.folder / "finish" / "retrain-0" / CHECKPOINT
    if weights.is_file():
        os.replace(weights, plan.folder / WEIGHTS_FILE)
    if tests:
        write_text(plan.folder / TEST_FILE, json.dumps(told["test"], indent=2) + "\n")
        say(f"test, read once: {percent([t['top1'] for t in tests])}")
    if plan.spec.finish.export:
        extra = Path(plan.spec.finish.export)
        extra.parent.mkdir(parents=True, exist_ok=True)
        write_text(extra, path.read_text(encoding="utf-8"))
    shutil.rmtree(plan.folder / "finish", ignore_errors=True)
    say(f"best configuration: {path}")
    say(f"retrain it with: skeltune train {path}")
    return path


def portable(plan: Plan) -> SearchSpec:
    """The spec with a dataset path that still leads there from the run folder: absolute if it lay beside the file."""
    data = plan.spec.data
    if Path(plan.source.path) != (Path(plan.spec.origin) / data.set).resolve():
        return plan.spec
    return dataclasses.replace(plan.spec, data=data.model_copy(update={"set": plan.source.path}))


def _story(plan: Plan, path: Path, scores: Sequence[Score], tests: Sequence[Mapping[str, Any]]) -> str:
    """The comment at the top of best.yaml."""
    lines = [
        f"# The best of {plan.spec.name}, found by skeltune. Retrain it with: skeltune train {path}",
        f"# validation {percent(scores[0].values)}" + (f", over {len(scores[0].values)} new seeds" if scores else ""),
    ]
    if tests:
        lines.append(f"# test, read once: {percent([t['top1'] for t in tests])}")
    return "\n".join(lines) + "\n"


def _provenance(
    plan: Plan,
    journal: Journal,
    slots: Slots,
    winner: TrialState,
    scores: Sequence[Score],
    tests: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    state = journal.state
    seed = plan.spec.seed
    rerun = plan.spec.finish.rerun
    second = scores[1] if len(scores) > 1 else None
    told: dict[str, Any] = {
        "search": {
            "name": plan.spec.name,
            "space": plan.spec.space_hash(),
            "trials": len(state.trials),
            "hours": round(sum(t.seconds for t in state.trials.values()) / 3600, 4),
            "winner": trial_key(winner.trial),
            "runner_up": trial_key(second.trial) if second else None,
            "gap": scores[0].mean - second.mean if second else None,
        },
        "data": {
            "set": plan.spec.data.set,
            "fingerprint": plan.source.fingerprint,
            "made_from": dict(plan.source.dataset().source),  # format, rules, steps and what was left out
            "split": plan.split.name,
            "validation": plan.split.note,
        },
        "validation": {
            "in_search": _score(winner, plan.ladder.top),
            "values": list(scores[0].values),
            "mean": scores[0].mean,
            "spread": scores[0].spread,
        },
        "seeds": {
            "search": seed,
            "rerun": [derive_seed(seed, "rerun", winner.trial, i) for i in range(rerun.seeds)] if rerun else [],
            "retrain": [int(t["seed"]) for t in tests],
        },
    }
    if tests:
        values = [float(t["top1"]) for t in tests]
        told["test"] = {
            "read": "once",
            "values": values,
            "mean": statistics.fmean(values),
            "spread": statistics.stdev(values) if len(values) > 1 else None,
            "streams": [dict(t["streams"]) for t in tests],
            "seeds": [int(t["seed"]) for t in tests],
        }
    return told | surroundings(slots.threads)


class _Jobs:
    """Full runs with given seeds, done through Ray, each journalled once."""

    def __init__(self, plan: Plan, journal: Journal, slots: Slots, stop: Stop, say: Callable[[str], None]) -> None:
        self.plan, self.journal, self.slots, self.stop, self.say = plan, journal, slots, stop, say

    def task(
        self, name: str, config: TrialConfig, seed: int, train_on: str = "train", score: str = "validation"
    ) -> Task:
        return Task(
            key=name,
            config=config.to_dict(),
            seed=seed,
            probe_at=(self.plan.ladder.top,),
            folder=str((self.plan.folder / "finish" / name).absolute()),
            train_on=train_on,
            score=score,
        )

    def run(self, tasks: Sequence[Task]) -> bool:
        """Run those that the journal has no result of; False when interrupted before all are there."""
        from tuning.fit import fit
        from tuning.jobs import JobScheduler, JobSearcher

        left = [task for task in tasks if task.key not in self.journal.state.jobs]
        if left:
            scheduler = JobScheduler(left, self._done, lambda: self.stop.asked)

            def failed(task: Task) -> None:
                self._done(task, {"ended": "failed", "detail": scheduler.errors.get(task.key, "failed")})

            searcher = JobSearcher(left, lambda: not self.stop.asked, failed)
            fit(searcher, scheduler, self.plan, self.slots, retries=self.plan.spec.budget.retries)
        return all(task.key in self.journal.state.jobs for task in tasks)

    def _done(self, task: Task, result: Mapping[str, Any]) -> None:
        self.journal.job(task.key, {**result, "seed": task.seed})
        shown = f"top1 {100 * result['top1']:.1f}" if "top1" in result else str(result.get("detail", "failed"))
        done = len(self.journal.state.jobs)
        self.say(f"  {task.key:<16} {shown}   [{done} {'job' if done == 1 else 'jobs'} of the finish done]")
