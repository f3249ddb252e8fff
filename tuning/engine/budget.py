"""When a search has spent what it may: in trials, epochs, wall time, GPU-hours and money, whichever comes first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tuning.config.schema import BudgetSpec
from tuning.engine.state import JournalState


@dataclass(frozen=True)
class Budget:
    """A space's limits against what the journal says was spent. ``gpus``: that one trial holds (slots where none).

    ``elapsed``: seconds that this driver has run; those of earlier drivers are in the journal.
    """

    spec: BudgetSpec
    state: JournalState
    gpus: float = 0.0
    elapsed: Callable[[], float] = lambda: 0.0

    @property
    def minutes(self) -> float:
        """Wall time that all drivers of this search ran."""
        return (self.state.before + self.elapsed()) / 60

    @property
    def gpu_hours(self) -> float:
        """What all trials have used; on a machine without a GPU, slot-hours."""
        return self.state.seconds * (self.gpus or 1.0) / 3600

    @property
    def money(self) -> float:
        """What these hours cost, in the currency of ``price``."""
        return self.gpu_hours * (self.spec.price or 0.0)

    def spent(self) -> str | None:
        """What has run out, for people; None while the search may go on. Trials are counted apart."""
        b = self.spec
        for what, limit, used in (
            ("epochs", b.epochs, float(self.state.epochs)),
            ("minutes", b.minutes, self.minutes),
            ("GPU-hours", b.gpu_hours, self.gpu_hours),
            ("money", b.money, self.money),
        ):
            if limit is not None and used >= limit:
                return f"{used:,.4g} of {limit:,.4g} {what} spent"
        return None

    def trials_left(self) -> bool:
        """Whether another trial may be asked for."""
        return self.spec.trials is None or self.state.count < self.spec.trials
