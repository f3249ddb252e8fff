"""What a search is after: accuracy alone, or accuracy against what a configuration costs."""

from __future__ import annotations

from dataclasses import dataclass

from tuning.engine.state import JournalState, TrialState

SLOTS = "slots"  # the journal's fact that tells what one trial holds: {"gpu": 0.5, "cpu": 2}
TOP1, GPU_SECONDS, PARAMETERS = "top1", "gpu_seconds", "parameters"
SHORT = {GPU_SECONDS: "GPU-s", PARAMETERS: "params"}  # in tables
WORDS = {GPU_SECONDS: "GPU-seconds", PARAMETERS: "parameters"}  # in sentences
LONG = {GPU_SECONDS: "GPU-seconds of a full run", PARAMETERS: "parameters of what is kept"}  # on axes


@dataclass(frozen=True)
class Objectives:
    """``names``: ``top1``, and for two ``gpu_seconds`` or ``parameters``. ``top``: epochs of a full run.

    ``gpus``: that one trial holds; where there are none, its slot counts as one.
    """

    names: tuple[str, ...] = (TOP1,)
    top: int = 1
    gpus: float = 0.0

    @property
    def two(self) -> bool:
        """Whether a cost is weighed against accuracy."""
        return len(self.names) > 1

    @property
    def second(self) -> str:
        """The name of the cost; empty where accuracy is all."""
        return self.names[1] if self.two else ""

    def cost(self, trial: TrialState, epoch: int | None = None) -> float | None:
        """The cost of a trial as it was known at ``epoch`` (default: now); None where it is unknown or nobody asks.

        ``gpu_seconds``: what a full run would take, by the mean of the epochs so far. ``parameters``: of the encoders
        that are kept after pretraining. What came after ``epoch``, or later than its report, never enters, so that a
        replay gives the same.
        """
        came = list(trial.reports)
        came = came[: came.index(epoch) + 1] if epoch in trial.reports else came
        known = [trial.reports[e] for e in came if epoch is None or e <= epoch]
        if not self.two or not known:
            return None
        if self.second == GPU_SECONDS:
            seconds = sum(r.seconds for r in known) / len(known)
            return seconds * self.top * (self.gpus or 1.0) if seconds > 0 else None  # of an earlier search, untimed
        told = [r.logs[PARAMETERS] for r in sorted(known, key=lambda r: r.epoch) if PARAMETERS in r.logs]
        return float(told[-1]) if told and isinstance(told[-1], int) else None


ONE = Objectives()


def objectives_of(names: tuple[str, ...], top: int, state: JournalState) -> Objectives:
    """The objectives of a search that is on record, with the GPUs that one of its trials holds."""
    return Objectives(names, top, float(state.facts.get(SLOTS, {}).get("gpu", 0.0)))


def cost_text(name: str, cost: float | None) -> str:
    """A cost for tables: `8,640` or `1.24M`; a dash where it is unknown."""
    if cost is None:
        return "-"
    if name != PARAMETERS:
        return f"{cost:,.0f}" if cost >= 10 else f"{cost:.2f}"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if cost >= size:
            return f"{cost / size:.3g}{letter}"
    return f"{cost:.0f}"
