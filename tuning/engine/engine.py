"""The search engine: who trains next, and who goes on. Every decision is in the journal before anybody acts on it.

A search is driven by four calls: :meth:`Engine.ask` gives a worker its next segment, :meth:`Engine.report` takes in
what an epoch gave and says whether the segment goes on, :meth:`Engine.ended` and :meth:`Engine.failed` tell of what
went wrong. The engine's state is a replay of the journal; who is at work is all that it knows besides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tuning.engine.budget import Budget
from tuning.engine.choices import Choices
from tuning.engine.journal import Events
from tuning.engine.ladder import Ladder
from tuning.engine.mishaps import ERROR, counts, speaks_against
from tuning.engine.objectives import ONE, Objectives
from tuning.engine.rules import Rules, Width, no_width
from tuning.engine.sampler.model import Model
from tuning.engine.sampler.sampler import Sampler
from tuning.engine.segment import Segment
from tuning.engine.state import (
    CANCELLED,
    CULLED,
    DIVERGED,
    FAILED,
    FAULTY,
    GO,
    PAUSE,
    REPEAT,
    REPEATED,
    TOP,
    Failure,
    Report,
    TrialState,
)

WAITED = "waited at"
STOP = "stop"  # a verdict on a running segment: the worker is free, the trial may be continued later


@dataclass(frozen=True)
class Verdict:
    """What becomes of a segment: ``go``, ``pause``, ``stop``, or the reason for which the trial ended; and why."""

    word: str
    why: str = ""

    @property
    def goes_on(self) -> bool:
        """Whether the worker trains on."""
        return self.word == GO


class Engine:
    """One search's decisions. ``interrupted``: whether the user wants it to end soon and be continued later."""

    def __init__(
        self,
        events: Events,
        choices: Choices,
        ladder: Ladder,
        sampler: Sampler,
        budget: Budget,
        *,
        model: Model,
        width: Width = no_width,
        interrupted: Callable[[], bool] = lambda: False,
        objectives: Objectives = ONE,
    ) -> None:
        self.events, self.state = events, events.state
        self.choices, self.ladder, self.sampler, self.budget = choices, ladder, sampler, budget
        self.model, self.width, self.interrupted, self.objectives = model, width, interrupted, objectives
        self.rules = Rules(ladder, self.state, width, objectives)
        self.sampler.survivors = self.rules
        self.busy: set[int] = set()
        self._loose = set(self.state.running)  # among them are all that train on, but that nobody works on
        self._changed: list[TrialState] = []
        self._catch_up()

    def _catch_up(self) -> None:
        """Decide what a killed driver left undecided: faults, then scores without a verdict in the order they came."""
        for trial in self.state.pending:
            if len(speaks_against(trial)) > self.budget.spec.retries:
                self._end(trial, FAILED, trial.failures[-1].error)
            elif (report := trial.reports.get(trial.epochs)) is not None and report.rung and report.top1 is None:
                self._without_score(trial)
        last = dict(self.state.order)
        for number, epoch in last.items():
            trial = self.state.trials[number]
            if trial.ended is None and trial.epochs == epoch and epoch not in trial.verdicts:
                self._decide(trial, epoch)
        self._settle()

    # --- asks --------------------------------------------------------------------------------------------------------

    def ask(self) -> Segment | None:
        """The next segment: a trial that was interrupted, one that may go on, or a new one. None: nothing now."""
        if self.interrupted():
            return None
        trial = self._interrupted_trial() or self._promoted() or self._new() or self._climber()
        if trial is None:
            return None
        self.busy.add(trial.trial)
        return Segment(trial.trial, trial.draws, trial.epochs)

    @property
    def finished(self) -> bool:
        """Whether nothing is at work and nothing will be asked for again."""
        if self.busy or self.interrupted():
            return False
        waiting = any(not t.paused for t in self.state.pending)
        more = self._may_begin() or self._next_up() is not None or self._last_chance() is not None
        return not waiting and not more

    def _interrupted_trial(self) -> TrialState | None:
        """A trial that is not paused and that nobody works on: its worker or the driver died, or it was let on."""
        stopping = self.budget.spent() is not None and self.budget.spec.in_flight == STOP
        for number in sorted(self._loose):
            trial = self.state.trials[number]
            if number in self.busy or trial.paused or trial.ended is not None:
                self._loose.discard(number)
                continue
            if stopping:
                self._end(trial, CULLED, "the budget is spent")
                continue
            return trial
        return None

    def _next_up(self) -> int | None:
        if self.ladder.rule != "promote" or self.budget.spent() is not None:
            return None
        return self.rules.promotable()

    def _promoted(self) -> TrialState | None:
        number = self._next_up()
        return None if number is None else self._let_on(self.state.trials[number])

    def _let_on(self, trial: TrialState) -> TrialState:
        self.events.decide(trial.trial, trial.epochs, GO)
        self.rules.went(trial, trial.epochs)
        self._loose.add(trial.trial)
        return trial

    def _may_begin(self) -> bool:
        return self.budget.spent() is None and (self.budget.trials_left() or self._to_repeat() is not None)

    def _new(self) -> TrialState | None:
        if self.budget.spent() is not None:
            return None
        repeated = self._to_repeat()
        if repeated is not None:
            return self._ask(dict(repeated.draws), REPEAT, of=repeated.trial)
        if not self.budget.trials_left():
            return None
        draws, origin = self.sampler.propose()
        return self._ask(draws, origin)

    def _ask(self, draws: Mapping[str, Any], origin: str, of: int | None = None) -> TrialState:
        bracket = 0
        if of is None and self.ladder.bracket_count > 1:
            dealt = [0] * self.ladder.bracket_count
            for trial in self.state.trials.values():
                if trial.of is None:
                    dealt[min(trial.bracket, len(dealt) - 1)] += 1
            bracket = self.ladder.next_bracket(dealt)
        trial = self.state.trials[self.events.ask(draws, origin, bracket, of)]
        self.model.update(trial)
        self.sampler.asked(trial)
        return trial

    def _to_repeat(self) -> TrialState | None:
        """The next trial to run again to its first rung, by its number alone: whoever repeats the best finds noise
        where there was luck. They begin when twice eta trials were scored, one for each eta that follow."""
        if len(self.state.trials) - self.state.count >= self.ladder.repeats:  # each repeats another one
            return None
        done = {t.of for t in self.state.trials.values() if t.of is not None}
        first = self.ladder.rungs[0]
        scored = [t for t in self.state.trials.values() if t.of is None and t.at(first) is not None]
        if len(scored) < (len(done) + 2) * self.ladder.eta:
            return None
        return next((t for t in scored if t.trial not in done), None)

    def _climber(self) -> TrialState | None:
        """When no other trial will come: the best that waits goes on, so that a search ends with a full run."""
        if self.busy or self._may_begin():
            return None
        found = self._last_chance()
        return None if found is None else self._let_on(self.state.trials[found[0]])

    def _last_chance(self) -> tuple[int, int] | None:
        if self.budget.spent() is not None and self.budget.spec.in_flight == STOP:
            return None
        return self.rules.last_chance(only_first=self.budget.spent() is not None)

    # --- reports -----------------------------------------------------------------------------------------------------

    def report(self, number: int, report: Report) -> Verdict:
        """Take in one epoch. An epoch that is known changes nothing and gets the verdict that it got."""
        trial = self.state.trials[number]
        if trial.ended is not None:
            return self._freed(trial, Verdict(trial.ended, trial.detail))
        if self.events.report(number, report) and report.rung:
            if report.epoch == trial.epochs:
                self.rules.scored(trial, report.epoch)
            self.model.update(trial)
        verdict = self._verdict(trial, trial.reports[report.epoch])  # as it is kept: NaN is no score
        if verdict.goes_on and self.interrupted():
            verdict = Verdict(STOP, "interrupted")
        return verdict if verdict.goes_on else self._freed(trial, verdict)

    def _freed(self, trial: TrialState, verdict: Verdict) -> Verdict:
        self._free(trial.trial)
        return verdict

    def _free(self, number: int) -> None:
        """Nobody works on a trial any more."""
        self.busy.discard(number)
        self._loose.add(number)

    def _verdict(self, trial: TrialState, report: Report) -> Verdict:
        known = trial.verdicts.get(report.epoch)
        if known is not None:
            return Verdict(known)
        if report.epoch < trial.epochs:  # late: it was decided at a later epoch
            return Verdict(GO)
        if report.rung:
            return self._at_rung(trial, report)
        if self.budget.spec.in_flight == STOP and self.budget.spent() is not None:
            return self._end(trial, CULLED, "the budget is spent")
        return Verdict(GO)

    def _at_rung(self, trial: TrialState, report: Report) -> Verdict:
        if report.top1 is None:
            return self._without_score(trial)
        verdict = self._decide(trial, report.epoch)
        self._settle()
        settled = trial.ended is None and trial.verdicts.get(report.epoch) == GO
        return Verdict(GO) if settled else verdict

    def _without_score(self, trial: TrialState) -> Verdict:
        return self._end(trial, DIVERGED, f"no finite score at epoch {trial.epochs}")

    def _decide(self, trial: TrialState, epoch: int) -> Verdict:
        if trial.of is not None:
            return self._end(trial, REPEATED) if epoch >= self.ladder.rungs[0] else Verdict(GO)
        if not self.rules.decides(trial, epoch):
            return Verdict(GO)
        table = self.rules.table(trial, epoch)
        cut = table.cut(table.quota(self.ladder.eta))
        word = self.rules.verdict(trial, epoch)
        if word == GO and self.budget.spent() is not None:
            word = PAUSE
        if word == TOP:
            return self._end(trial, TOP)
        if word == CULLED:
            return self._end(trial, CULLED, cull_line(epoch, table.known[trial.trial].minus, cut))
        self.events.decide(trial.trial, epoch, word)
        if word == GO:
            self.rules.went(trial, epoch)
        return Verdict(word)

    def _settle(self) -> None:
        """What follows from the tables: a growing ladder rises; by ``stop``, who waited for eta values is judged.

        Called after whatever changes a table, so that a driver that goes on finds nothing left to do.
        """
        while (higher := self.rules.grown()) is not None:
            self.events.grow(higher)
        if self.budget.spent() is not None:
            return  # nobody is let on; who waits may go on when there is more to spend
        for number, epoch, word in list(self.rules.settled()):
            trial = self.state.trials[number]
            if word == GO:
                self._let_on(trial)
            else:
                table = self.rules.table(trial, epoch)
                cut = table.cut(table.quota(self.ladder.eta))
                self._end(trial, CULLED, cull_line(epoch, table.known[number].minus, cut))

    # --- ends --------------------------------------------------------------------------------------------------------

    def ended(self, number: int, reason: str, detail: str = "") -> Verdict:
        """A worker says that its trial cannot go on."""
        trial = self.state.trials[number]
        return self._freed(trial, self._end(trial, reason, detail))

    def _end(self, trial: TrialState, reason: str, detail: str = "") -> Verdict:
        if self.events.end(trial.trial, reason, detail):
            if reason in FAULTY:
                self.rules.fault(trial)
            self.model.update(trial)
            self._changed.append(trial)
            if reason in FAULTY:
                self._settle()
        return Verdict(reason, detail)

    def failed(self, number: int, error: str, kind: str = ERROR, node: str = "") -> bool:
        """A trial's worker died or raised. Whether the trial will be tried again, from its last checkpoint.

        ``kind``: one of :mod:`tuning.engine.mishaps`; a lost machine does not count to ``budget.retries``.
        """
        trial = self.state.trials[number]
        self._free(number)
        if trial.ended is not None:
            return False
        self.events.fail(number, Failure(error, kind, node, counts(trial, kind)))
        if len(speaks_against(trial)) > self.budget.spec.retries:
            self._end(trial, FAILED, trial.failures[-1].error)
            return False
        return True

    def dropped(self, number: int) -> None:
        """A worker let go of a trial without a result; the trial is asked for again."""
        self._free(number)

    def cancel(self, number: int, why: str) -> None:
        """End a trial because somebody asked for it; it says nothing about its configuration.

        The worker of a running one is at work until its next report, which is not kept, or until it is dropped.
        """
        self._end(self.state.trials[number], CANCELLED, why)

    def prune(self, number: int, why: str) -> None:
        """Cull a trial because somebody asked for it: its scores count on. A worker is freed as by :meth:`cancel`."""
        self._end(self.state.trials[number], CULLED, why)

    def behind(self) -> list[int]:
        """Trials that wait at a rung, but not among its best 1/eta; nobody where fewer than eta were scored."""
        found = []
        for trial in (t for t in self.state.pending if t.paused):
            table = self.rules.table(trial, trial.epochs)
            quota = table.quota(self.ladder.eta)
            if quota and trial.trial not in table.best(quota, self.rules.width(table, trial.epochs)):
                found.append(trial.trial)
        return found

    def conclude(self) -> None:
        """End those that still wait, when the search is over."""
        for trial in self.state.pending:
            if trial.paused:
                self._end(trial, CULLED, f"{WAITED} {trial.epochs} until the end")

    def news(self) -> list[TrialState]:
        """Trials that ended since the last call, in order, for those who watch."""
        news, self._changed = self._changed, []
        return news


def cull_line(epoch: int, minus: float, cut: float | None) -> str:
    """`culled at 3: 41.2 < 48.0`, in percent."""
    limit = "" if cut is None or cut == float("-inf") else f" < {100 * cut:.1f}"
    return f"culled at {epoch}: {-100 * minus:.1f}{limit}"
