"""Who is re-run at the end, and who wins: new seeds decide, and no more of them than it takes.

The best full runs of a search were also lucky. They are run again with new seeds, round by round; whoever the leader is
surely ahead of is run no further (successive elimination).
"""

from __future__ import annotations

import functools
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tuning.config.schema import Rerun
from tuning.engine.ladder import Ladder
from tuning.engine.objectives import ONE, Objectives
from tuning.engine.pareto import front
from tuning.engine.state import CANCELLED, JournalState, TrialState

CONFIDENCE = 0.95
FIRST_LOOK = 2  # rounds: one value each tells no spread
RERUN, RETRAIN = "rerun", "retrain"
_NAME = re.compile(r"(rerun)-t(\d+)-(\d+)|(retrain)-(?:t(\d+)-)?(\d+)")

Results = Mapping[int, Mapping[int, Mapping[str, Any]]]  # finalist -> number of the new seed -> what the run gave


# --- who is in it ----------------------------------------------------------------------------------------------------


def ranking(state: JournalState, rung: int) -> list[TrialState]:
    """Trials scored at ``rung`` epochs, best first; ties by the probe's lower loss, then by the lower number.

    A trial that repeats another one is none of them, nor one that was cancelled.
    """

    def key(trial: TrialState) -> tuple[float, float, int]:
        report = trial.at(rung)
        if report is None or report.top1 is None:  # filtered out below; keeps the types honest
            return (0.0, 0.0, trial.trial)
        return (-report.top1, report.loss if report.loss is not None else math.inf, trial.trial)

    own = (t for t in state.trials.values() if t.of is None and t.ended != CANCELLED)
    return sorted((t for t in own if t.at(rung) is not None), key=key)


def final_rung(state: JournalState, ladder: Ladder) -> int:
    """Epochs at which finalists are chosen: the top of the ladder; of one that grows, the highest that was scored."""
    if not ladder.grow:
        return ladder.top
    return max((rung for rung in ladder.rungs if ranking(state, rung)), default=ladder.top)


def contestants(state: JournalState, ladder: Ladder, objectives: Objectives = ONE) -> list[TrialState]:
    """Who may be a finalist, the most accurate first: all at the final rung; with two objectives those on the front.

    Where no cost is known, as in a journal of an earlier version, accuracy decides alone.
    """
    rung = final_rung(state, ladder)
    found = ranking(state, rung)
    chosen = {point.trial for point in front(found, rung, objectives)} if objectives.two else set()
    return [trial for trial in found if trial.trial in chosen] or found


@dataclass(frozen=True)
class FinishJob:
    """One job of the finish in the journal: a re-run of a finalist or a retraining, with its ``number``-th new seed.

    ``trial`` is None for a retraining of which the journal does not say whose it was.
    """

    kind: str
    trial: int | None
    number: int
    result: Mapping[str, Any]

    @property
    def scored(self) -> bool:
        return self.result.get("top1") is not None


def job_name(kind: str, trial: int, number: int) -> str:
    """How the journal calls a job: `rerun-t0007-0`."""
    return f"{kind}-t{trial:04d}-{number}"


def finish_jobs(state: JournalState) -> list[FinishJob]:
    """The jobs of a journal, sorted; where one does not say what it is, as older ones do not, its name does."""
    found = []
    for name, result in state.jobs.items():
        match = _NAME.fullmatch(name)
        if {"kind", "trial", "number"} <= set(result):
            found.append(FinishJob(str(result["kind"]), int(result["trial"]), int(result["number"]), result))
        elif match:
            kind, trial, number = match.groups()[:3] if match[1] else match.groups()[3:]
            found.append(FinishJob(str(kind), None if trial is None else int(trial), int(number or 0), result))
    return sorted(found, key=lambda j: (j.kind, -1 if j.trial is None else j.trial, j.number))


def rerun_results(state: JournalState) -> dict[int, dict[int, Mapping[str, Any]]]:
    """What the re-runs gave, for :func:`race`."""
    found: dict[int, dict[int, Mapping[str, Any]]] = {}
    for job in finish_jobs(state):
        if job.kind == RERUN and job.trial is not None:
            found.setdefault(job.trial, {})[job.number] = job.result
    return found


def standing_of(state: JournalState, ladder: Ladder, rerun: Rerun | None, objectives: Objectives = ONE) -> Standing:
    """How the finalists stand by the journal; without re-runs by the search's own scores, which separate nobody."""
    rung = final_rung(state, ladder)
    best = contestants(state, ladder, objectives)
    if rerun is None:
        reports = {t.trial: t.at(rung) for t in best}
        again = {n: [{"top1": r.top1, "loss": r.loss}] for n, r in reports.items() if r is not None}
        scores = {score.trial: score for score in rank_finalists(again)}
        return Standing(tuple(scores[t.trial] for t in best), tuple(t.trial for t in best))
    runs = rerun_results(state)
    return race({t.trial: runs.get(t.trial, {}) for t in best[: rerun.top]}, rerun.seeds)


# --- the race --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Score:
    """A finalist's validation over new seeds: each value, their mean and sample standard deviation (None for one)."""

    trial: int
    values: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float | None:
        return statistics.stdev(self.values) if len(self.values) > 1 else None


def rank_finalists(results: Mapping[int, Sequence[Mapping[str, Any]]]) -> list[Score]:
    """Finalists by mean validation accuracy over their re-runs, best first; ties by mean loss, then by number."""
    scores = [
        Score(trial, tuple(float(r["top1"]) for r in runs), tuple(_loss(r) for r in runs))
        for trial, runs in results.items()
        if runs
    ]
    return sorted(scores, key=lambda s: (-s.mean, statistics.fmean(s.losses), s.trial))


def _loss(result: Mapping[str, Any]) -> float:
    loss = result.get("loss")
    return math.inf if loss is None else float(loss)


@dataclass(frozen=True)
class Lead:
    """How far one finalist is in front of another: the difference of their means, with its interval (None: unknown)."""

    ahead: int
    behind: int
    gap: float
    interval: tuple[float, float] | None

    @property
    def decided(self) -> bool:
        """Whether the interval excludes zero."""
        return self.interval is not None and self.interval[0] > 0


@dataclass(frozen=True)
class Standing:
    """A race so far. ``scores``: best first, those that are ``left`` before those that are out.

    ``dropped``: finalist -> after how many rounds; one that is not in ``scores`` never gave a value. ``leads``: the
    leader's lead over each other finalist when they were last compared. ``rounds``: rounds compared so far. ``due``:
    the (finalist, number) to be run before the next comparison; none when the race is over.
    """

    scores: tuple[Score, ...]
    left: tuple[int, ...]
    dropped: Mapping[int, int] = field(default_factory=dict)
    leads: Mapping[int, Lead] = field(default_factory=dict)
    rounds: int = 0
    due: tuple[tuple[int, int], ...] = ()

    @property
    def done(self) -> bool:
        return not self.due

    @property
    def gap(self) -> Lead | None:
        """The lead of the first over the second; None where there was no such comparison."""
        return self.leads.get(self.scores[1].trial) if len(self.scores) > 1 else None

    def ran(self, trial: int) -> int:
        """The runs of a finalist that count, failed ones too."""
        return self.dropped.get(trial, self.rounds)


def race(results: Results, seeds: int) -> Standing:
    """Successive elimination of the finalists, the keys of ``results``, with at most ``seeds`` new seeds each.

    After the second round and each further one, the finalist with the best mean is compared with every other that is
    left; whoever it is ahead of by an interval that excludes zero is out. It ends when one is left or the seeds are
    spent. A lone finalist has nobody to beat: it takes all its seeds, which tell its accuracy.

    The interval is Student's, for a difference of means. The variance is pooled over the runs of all finalists, also
    of those that are out: two to five values tell little about one's own. It is taken for no smaller than that of
    rounding to whole clips, where the results say how many ``clips`` there were: on few clips two runs agree by
    chance. The error of 5 % is divided by rivals times comparisons (Bonferroni), so that it holds for all of a race,
    although the leader is chosen by the same values and they are looked at again and again. It holds for finalists that
    scatter about alike; one that scatters ten times as much as the others is told apart wrongly in 10 to 20 %.
    It speaks of the chance in seeds, not of that in the choice of the validation clips, which are the same for all.

    A run without ``top1`` has failed and is a missing value; a finalist of which every run failed is out. The standing
    depends on nothing but ``results``: not on their order, nor on runs that the race did not ask for.
    """
    looks = range(FIRST_LOOK, seeds + 1) if len(results) > 1 and seeds > 1 else range(seeds, seeds + 1)
    inside = 1 - (1 - CONFIDENCE) / (max(1, len(results) - 1) * len(looks))
    left, dropped, leads, rounds = list(results), dict[int, int](), dict[int, Lead](), 0
    order: list[Score] = []
    due: tuple[tuple[int, int], ...] = ()
    for look in looks:
        due = tuple((t, number) for number in range(look) for t in left if number not in results[t])
        if due:
            break
        rounds = look
        counted = {t: _scored(results[t], dropped.get(t, look)) for t in results}
        order = rank_finalists(counted)
        spread = _Spread.of(counted, order, inside)
        dropped |= {t: look for t in left if not counted[t]}
        still = [score for score in order if score.trial not in dropped]
        for rival in still[1:]:
            leads[rival.trial] = spread.lead(still[0], rival)
        dropped |= {score.trial: look for score in still[1:] if leads[score.trial].decided}
        left = [t for t in left if t not in dropped]
        if len(left) <= 1:
            break
    order.sort(key=lambda score: -dropped.get(score.trial, seeds + 1))  # stable: among equals by merit
    if rounds:
        left = [score.trial for score in order if score.trial not in dropped]
    return Standing(tuple(order), tuple(left), dropped, leads, rounds, due)


def _scored(runs: Mapping[int, Mapping[str, Any]], rounds: int) -> list[Mapping[str, Any]]:
    return [runs[number] for number in range(rounds) if runs[number].get("top1") is not None]


@dataclass(frozen=True)
class _Spread:
    """What the finalists' runs tell about chance: variance of one run, its degrees of freedom (0: nothing known)."""

    variance: float
    freedom: int
    inside: float

    @classmethod
    def of(cls, runs: Mapping[int, Sequence[Mapping[str, Any]]], scores: Sequence[Score], inside: float) -> _Spread:
        freedom = sum(len(s.values) - 1 for s in scores)
        squares = sum(statistics.variance(s.values) * (len(s.values) - 1) for s in scores if len(s.values) > 1)
        step = max((1 / r["clips"] for found in runs.values() for r in found if r.get("clips")), default=0.0)
        return cls(max(squares / freedom if freedom else 0.0, step**2 / 12), freedom, inside)

    def lead(self, leader: Score, rival: Score) -> Lead:
        gap = leader.mean - rival.mean
        if not self.freedom:
            return Lead(leader.trial, rival.trial, gap, None)
        error = math.sqrt(self.variance * (1 / len(leader.values) + 1 / len(rival.values)))
        half = error * student(self.inside, self.freedom)
        return Lead(leader.trial, rival.trial, gap, (gap - half, gap + half))


@functools.cache
def student(inside: float, freedom: int) -> float:
    """The t that Student's variable of ``freedom`` degrees stays within, on both sides, with probability ``inside``."""
    low, high = 0.0, math.pi / 2
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if _within(middle, freedom) < inside else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def _within(angle: float, freedom: int) -> float:
    """P(abs(T) <= sqrt(freedom) tan(angle)), a finite sum (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4)."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine if odd else 1.0), 0.0
    for power in range(odd, freedom - 1, 2):
        total += term
        term *= cosine**2 * (power + 1) / (power + 2)
    return (angle + sine * total) * 2 / math.pi if odd else sine * total
