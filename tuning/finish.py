"""The end of a search: confirm the best with new seeds, retrain the winner, read the test split once, export.

What is left to do is read from the journal each time, so an interruption repeats nothing.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from methods.training.seeds import derive_seed
from tuning.engine.finalists import (
    RERUN,
    RETRAIN,
    Standing,
    contestants,
    final_rung,
    finish_jobs,
    job_name,
    standing_of,
)
from tuning.engine.journal import Journal
from tuning.engine.objectives import WORDS, Objectives, objectives_of
from tuning.engine.state import JournalState, TrialState
from tuning.export_best import (
    JOBS_FOLDER,
    Outcome,
    copy_export,
    export,
    finalist_lines,
    percent,
    says,
    told_in,
    verdict,
    winner_in,
)
from tuning.pareto_export import export_front
from tuning.plan import Plan, Stop
from tuning.run_files import BEST_FILE, trial_key
from tuning.session import Task

if TYPE_CHECKING:
    from tuning.ground import Ground
    from tuning.stored import Stored


class NoFinalist(Exception):
    """No trial was scored at the top rung, so there is nothing to confirm."""


def finish(
    plan: Plan,
    journal: Journal,
    ground: Ground,
    stop: Stop,
    say: Callable[[str], None],
    turn: Callable[[], None] | None = None,
    stored: Stored | None = None,
) -> Path | None:
    """Confirm, retrain, test, export. Every job's result is in the journal, so an interruption repeats none of them.

    ``turn`` is called again and again meanwhile. Returns the path of best.yaml, or None when it was interrupted. Raises
    :class:`NoFinalist`.
    """
    there = finished(plan, journal, say)
    if there is not None:
        return there
    jobs = _Jobs(plan, journal, ground, stop, say, turn)
    standing = _confirm(jobs)
    if standing is None or not _retrain(jobs, journal.state.trials[standing.scores[0].trial]):
        return None
    outcome = outcome_of(plan, journal.state)
    if outcome is None:
        return None
    if stored is not None:
        for number in outcome.retrained:
            stored.bring(jobs.retrain(outcome.winner.trial, number))
    export_front(plan, journal.state, ground.slots.threads, say)
    return export(plan, outcome, ground.slots.threads, say)


def finished(plan: Plan, journal: Journal, say: Callable[[str], None]) -> Path | None:
    """Where best.yaml is, if the finish has nothing left to do; None if it has. Trains nothing and needs no Ray.

    The file is left as it is while it tells what the journal tells; a missing copy (``finish.export``) is written, and
    what is missing of the front.
    """
    path = plan.folder / BEST_FILE
    outcome = outcome_of(plan, journal.state)
    if outcome is None or not says(path, plan, outcome):
        return None
    say(f"nothing is left to do; best configuration: {path}")
    export_front(plan, journal.state, int((told_in(path).get("hardware") or {}).get("threads") or 1), say)
    copy_export(plan, say, again=False)
    shutil.rmtree(plan.folder / JOBS_FOLDER, ignore_errors=True)  # a kill just after the export leaves it
    return path


def outcome_of(plan: Plan, state: JournalState) -> Outcome | None:
    """What the finish found, by the journal; None while a job is missing, or where there is no finalist."""
    finish = plan.spec.finish
    standing = standing_of(state, plan.ladder, finish.rerun, _objectives(plan, state))
    if not standing.done or not standing.scores:
        return None
    winner = state.trials[standing.scores[0].trial]
    mine, before = _retrained(plan, state, winner.trial)
    seeds = range(finish.retrain.seeds if finish.retrain is not None else 0)
    if any(number not in mine for number in seeds):
        return None
    return Outcome(winner, standing, state, final_rung(state, plan.ladder), {n: mine[n] for n in seeds}, before)


def _retrained(plan: Plan, state: JournalState, winner: int) -> tuple[dict[int, Mapping[str, Any]], tuple[str, ...]]:
    """The winner's retrainings by number, and whose test scores were read before, when the search had another winner.

    A job that does not say whose it is, as in older journals, is the winner's if best.yaml names it.
    """
    jobs = [job for job in finish_jobs(state) if job.kind == RETRAIN]
    mine = {job.number: job for job in jobs if job.trial == winner}
    if any(job.trial is None for job in jobs) and winner_in(plan.folder / BEST_FILE) == trial_key(winner):
        mine = {job.number: job for job in jobs if job.trial is None} | mine
    others = [job for job in jobs if job.scored and mine.get(job.number) is not job]
    before = {"an earlier winner" if job.trial is None else trial_key(job.trial) for job in others}
    return {number: job.result for number, job in mine.items()}, tuple(sorted(before))


def _confirm(jobs: _Jobs) -> Standing | None:
    """Race the finalists, a round of new seeds at a time; None when interrupted. Raises :class:`NoFinalist`."""
    plan, state, rerun = jobs.plan, jobs.journal.state, jobs.plan.spec.finish.rerun
    standing = standing_of(state, plan.ladder, rerun, _objectives(plan, state))
    if standing.done and not standing.scores and not standing.dropped:
        raise NoFinalist(
            f"no trial reached the top rung ({plan.ladder.top} epochs); raise budget.trials and run the same command"
        )
    if rerun is None:
        return standing
    _announce(jobs, rerun.top, rerun.seeds)
    while not standing.done:
        if standing.rounds:
            jobs.say(f"  after {standing.rounds} seeds each, {len(standing.left)} are not told apart: one seed more")
        if not jobs.run([jobs.rerun(trial, number) for trial, number in standing.due]):
            return None
        standing = standing_of(state, plan.ladder, rerun, _objectives(plan, state))
    for line in finalist_lines(standing):
        jobs.say(line)
    if not standing.scores:
        raise NoFinalist("every re-run of every finalist failed; see the lines above")
    if words := verdict(standing):
        jobs.say(f"finish: {words}")
    return standing


def _announce(jobs: _Jobs, top: int, seeds: int) -> None:
    plan, state = jobs.plan, jobs.journal.state
    rung, objectives = final_rung(state, plan.ladder), _objectives(plan, state)
    full = contestants(state, plan.ladder, objectives)
    count = min(top, len(full))
    what = "full runs" if rung == plan.ladder.top else f"trials at {rung} epochs"
    if objectives.two:
        what += f" on the front of accuracy and {WORDS[objectives.second]}"
    limit = "up to " if count > 1 and seeds > 1 else ""
    jobs.say(f"finish: the best {count} of {len(full)} {what}, {limit}{seeds} new {_seeds(seeds)} each")


def _objectives(plan: Plan, state: JournalState) -> Objectives:
    return objectives_of(plan.spec.objectives, plan.ladder.top, state)


def _seeds(count: int) -> str:
    return "seed" if count == 1 else "seeds"


def _retrain(jobs: _Jobs, winner: TrialState) -> bool:
    """Train the winner on the whole training split and read the test split once: one reading, every seed's model.

    False when interrupted.
    """
    retrain = jobs.plan.spec.finish.retrain
    if retrain is None:
        return True
    known, _ = _retrained(jobs.plan, jobs.journal.state, winner.trial)
    left = [number for number in range(retrain.seeds) if number not in known]
    if left:
        jobs.say(
            f"finish: {trial_key(winner.trial)} on the whole training split, {retrain.seeds} {_seeds(retrain.seeds)}; "
            "then the test split"
        )
    return jobs.run([jobs.retrain(winner.trial, number) for number in left])


class _Jobs:
    """Full runs with given seeds, done through Ray, each journalled once."""

    def __init__(
        self,
        plan: Plan,
        journal: Journal,
        ground: Ground,
        stop: Stop,
        say: Callable[[str], None],
        turn: Callable[[], None] | None,
    ) -> None:
        self.plan, self.journal, self.ground, self.stop, self.say = plan, journal, ground, stop, say
        self._turn = turn
        self._what: dict[str, dict[str, Any]] = {}

    def rerun(self, trial: int, number: int) -> Task:
        """A finalist once more, as in the search but for its seed."""
        return self._task(RERUN, trial, number, derive_seed(self.plan.spec.seed, "rerun", trial, number))

    def retrain(self, trial: int, number: int) -> Task:
        """The winner on everything that may be trained on, scored on the test split."""
        task = self._task(RETRAIN, trial, number, derive_seed(self.plan.spec.seed, "retrain", number))
        return dataclasses.replace(task, train_on="whole", score="test")

    def _task(self, kind: str, trial: int, number: int, seed: int) -> Task:
        name = job_name(kind, trial, number)
        self._what[name] = {"kind": kind, "trial": trial, "number": number}
        return Task(
            key=name,
            config=self.plan.space.resolve(self.journal.state.trials[trial].draws).to_dict(),
            seed=seed,
            probe_at=(self.plan.ladder.top,),
            folder=str((self.plan.folder / JOBS_FOLDER / name).absolute()),
        )

    def run(self, tasks: Sequence[Task]) -> bool:
        """Run those that the journal has no result of; False when interrupted before all are there."""
        from tuning.fit import fit
        from tuning.jobs import JobScheduler, JobSearcher

        left = [task for task in tasks if task.key not in self.journal.state.jobs]
        if left and not self.stop.asked:
            retries = self.plan.spec.budget.retries
            searcher = JobSearcher(left, lambda: not self.stop.asked, self._failed, retries, self.ground.view)
            scheduler = JobScheduler(searcher, left, self._done, lambda: self.stop.asked, self.ground.places)
            fit(searcher, scheduler, self.ground, self.plan.spec.budget, retries=0, turn=self._turn, say=self.say)
        return all(task.key in self.journal.state.jobs for task in tasks)

    def _failed(self, task: Task, error: str) -> None:
        self._done(task, {"ended": "failed", "detail": error})

    def _done(self, task: Task, result: Mapping[str, Any]) -> None:
        kept = {name: value for name, value in result.items() if name != "clock"}
        self.journal.job(task.key, {**kept, "seed": task.seed, **self._what[task.key]})
        shown = f"top1 {percent([result['top1']])}" if "top1" in result else str(result.get("detail", "failed"))
        done = len(self.journal.state.jobs)
        self.say(f"  {task.key:<16} {shown}   [{done} {'job' if done == 1 else 'jobs'} of the finish done]")
