"""Who is re-run at the end, and who wins: only full runs count, means over new seeds decide."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuning.engine.journal import JournalState, TrialState


def ranking(state: JournalState, rung: int) -> list[TrialState]:
    """Trials scored at ``rung`` epochs, best first; ties by the probe's lower loss, then by the lower number."""

    def key(trial: TrialState) -> tuple[float, float, int]:
        report = trial.at(rung)
        if report is None or report.top1 is None:  # filtered out below; keeps the types honest
            return (0.0, 0.0, trial.trial)
        return (-report.top1, report.loss if report.loss is not None else float("inf"), trial.trial)

    return sorted((t for t in state.trials.values() if t.at(rung) is not None), key=key)


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


def rank_finalists(results: Mapping[int, Sequence[Mapping[str, float]]]) -> list[Score]:
    """Finalists by mean validation accuracy over their re-runs, best first; ties by mean loss, then by number."""
    scores = [
        Score(trial, tuple(r["top1"] for r in runs), tuple(r["loss"] for r in runs))
        for trial, runs in results.items()
        if runs
    ]
    return sorted(scores, key=lambda s: (-s.mean, statistics.fmean(s.losses), s.trial))
