"""A search by the baseline engines: Ray's own searcher and scheduler, with a memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tuning.control import Inbox
from tuning.engine.budget import Budget
from tuning.engine.journal import Journal
from tuning.engine.state import TrialState
from tuning.floor import trial_task
from tuning.plan import Plan
from tuning.recorder import Recorder
from tuning.search import Search

if TYPE_CHECKING:
    from tuning.ground import Ground


class StockSearch(Search):
    """``random_only``: draws from the prior instead of OptunaSearch's."""

    def __init__(self, plan: Plan, journal: Journal, say: Callable[[str], None], random_only: bool) -> None:
        super().__init__(plan, journal, say)
        self.random_only = random_only

    @property
    def over(self) -> bool:
        return not self.journal.state.pending and not self._may_ask(self._budget(0.0))

    def _budget(self, gpus: float) -> Budget:
        return Budget(self.plan.spec.budget, self.journal.state, gpus, lambda: self.journal.elapsed)

    def _may_ask(self, budget: Budget) -> bool:
        return not self.stop.asked and budget.trials_left() and budget.spent() is None

    def search(self, ground: Ground) -> None:
        from tuning import stock
        from tuning.fit import fit

        self.turn = Inbox(self.plan.folder, self.journal, self.stop, self.say).poll
        self.recorder = Recorder(self.journal, self.plan.folder, self.observers())
        try:
            scheduler = stock.StockAsha(self.plan.ladder, self.recorder, lambda: self.stop.asked)
            budget = self._budget(ground.slots.gpu)
            if not self.journal.state.pending and not self._may_ask(budget):
                return
            searcher = stock.StockSearcher(
                self.plan.space,
                self.plan.spec,
                self.recorder,
                self._task,
                lambda: self._may_ask(budget),
                self.random_only,
            )
            wishes = self.plan.spec.budget
            fit(searcher, scheduler, ground, wishes, retries=wishes.retries, turn=self.step, say=self.say)
        finally:
            self.recorder.close()

    def _task(self, trial: TrialState) -> dict[str, Any]:
        from tuning.trial import task_config

        folder = self.recorder.trial_folder(trial.trial)
        return task_config(trial_task(self.plan.space, trial, self.plan.spec.seed, self.plan.ladder.rungs, folder))
