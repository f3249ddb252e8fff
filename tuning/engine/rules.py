"""Who goes on at a rung: asynchronous successive halving, done right, by stopping or by promotion.

Both rules count a trial's own value, decide nothing before eta values are in, compare only what was scored at that very
rung, rank a trial that diverged, collapsed or failed last, and settle ties by the probe's loss.

``stop``  a trial is judged when it arrives: on if it is among the best 1/eta so far, over if not. Those that arrive
          before there are eta wait, and are judged together.
``promote``  nobody is over: a trial waits at its rung until it is among the best 1/eta and there is room (Li et al.
          2020, A System for Massively Parallel Hyperparameter Tuning, algorithm 2). Room: no more than 1/eta of those
          that reached a rung leave it upwards, as the delayed promotion of Hyper-Tune has it (Li et al. 2022): without
          it, a sampler that improves has every newcomer promoted, and the ladder culls nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tuning.engine.ladder import Ladder
from tuning.engine.objectives import ONE, Objectives
from tuning.engine.rungs import Entry, ParetoTable, Table
from tuning.engine.state import CULLED, FAULTY, GO, PAUSE, TOP, JournalState, TrialState

METHOD = "method"
Key = tuple[str, int, int]  # (group, bracket, epochs)
Width = Callable[[Table, int], float]


def no_width(table: Table, rung: int) -> float:
    """Only equal scores are ties."""
    return 0.0


class Rules:
    """The ladder's tables, and every decision that rests on them. A pure replay of a state gives the same tables."""

    def __init__(
        self, ladder: Ladder, state: JournalState, width: Width = no_width, objectives: Objectives = ONE
    ) -> None:
        self.ladder, self.state, self.width, self.objectives = ladder, state, width, objectives
        self._tie = no_width if objectives.two else width
        self.tables: dict[Key, Table] = {}
        for number, epoch in state.order:
            self.scored(state.trials[number], epoch)
        for trial in state.trials.values():
            if trial.ended in FAULTY:
                self.fault(trial)
            for epoch, verdict in trial.verdicts.items():
                if verdict == GO:
                    self.went(trial, epoch)

    # --- what happened -----------------------------------------------------------------------------------------------

    def scored(self, trial: TrialState, epoch: int) -> None:
        """A trial was scored; only its rungs count, and a repeat of another trial is none of the competitors."""
        report = trial.at(epoch)
        if report is not None and self.decides(trial, epoch):
            cost = self.objectives.cost(trial, epoch) if self.objectives.two else None
            self.table(trial, epoch).add(trial.trial, report.top1, report.loss, cost)

    def fault(self, trial: TrialState) -> None:
        """A configuration that cannot be trained ranks last at the rung it was on its way to."""
        if trial.of is None:
            epoch = next((r for r in self.rungs(trial) if trial.at(r) is None), self.ladder.top)
            self.table(trial, epoch).add(trial.trial, None, None)

    def went(self, trial: TrialState, epoch: int) -> None:
        """A trial was let on from a rung."""
        self.table(trial, epoch).went.add(trial.trial)

    # --- tables ------------------------------------------------------------------------------------------------------

    @property
    def cap(self) -> int:
        """The highest rung that trials go to now: the top, unless the ladder grows."""
        if not self.ladder.grow:
            return self.ladder.top
        return max(self.state.top or 0, self.ladder.rungs[min(1, len(self.ladder.rungs) - 1)])

    def rungs(self, trial: TrialState) -> tuple[int, ...]:
        """The rungs at which a trial is decided on."""
        return self.ladder.rungs[min(trial.bracket, len(self.ladder.rungs) - 1) :]

    def decides(self, trial: TrialState, epoch: int) -> bool:
        """Whether a score at ``epoch`` decides on the trial, and is to be compared."""
        return trial.of is None and epoch in self.rungs(trial)

    def table(self, trial: TrialState, epoch: int) -> Table:
        """Those that a trial is compared with at a rung."""
        group = str(trial.draws.get(METHOD, "")) if self.ladder.per_method and epoch < self.ladder.top else ""
        key = (group, trial.bracket, epoch)
        if key not in self.tables:
            self.tables[key] = ParetoTable() if self.objectives.two else Table()
        return self.tables[key]

    def place(self, trial: TrialState) -> float | None:
        """The share of its first table that is better than a trial, in [0, 1); None before it was scored there."""
        return self.table(trial, self.rungs(trial)[0]).place(trial.trial)

    def _below(self, limit: int) -> Iterator[tuple[int, Table]]:
        """Tables of rungs below ``limit`` epochs, the highest rungs first; then in the order of names and brackets."""
        for key in sorted(self.tables, key=lambda k: (-k[2], k)):
            if key[2] < limit:
                yield key[2], self.tables[key]

    # --- decisions ---------------------------------------------------------------------------------------------------

    def verdict(self, trial: TrialState, epoch: int) -> str:
        """``go``, ``pause``, ``culled`` or ``top`` for a trial that was just scored at a rung of its own."""
        if epoch >= self.ladder.top:
            return TOP
        if epoch >= self.cap:
            return PAUSE
        table = self.table(trial, epoch)
        if self.ladder.rule == "promote":
            return GO if self.promotable() == trial.trial else PAUSE
        quota = table.quota(self.ladder.eta)
        if quota == 0:
            return PAUSE
        return GO if trial.trial in set(table.best(quota, self._tie(table, epoch))) else CULLED

    def promotable(self) -> int | None:
        """``promote``: the best waiting trial of the highest rung that has room; None where there is none."""
        for epoch, table in self._below(self.cap):
            quota = table.quota(self.ladder.eta)
            if len(table.went) >= quota:
                continue
            for number in table.best(quota, self._tie(table, epoch)):
                if number not in table.went and self._waits(number, epoch):
                    return number
        return None

    def settled(self) -> Iterator[tuple[int, int, str]]:
        """``stop``: (trial, epoch, verdict) of those that waited for eta values, now that these are in."""
        if self.ladder.rule != "stop":
            return
        for epoch, table in list(self._below(self.cap)):
            quota = table.quota(self.ladder.eta)
            waiting = [n for n in table.known if self._waits(n, epoch)] if quota else []
            if waiting:
                best = set(table.best(quota, self._tie(table, epoch)))
                for number in waiting:
                    yield number, epoch, GO if number in best else CULLED

    def last_chance(self, only_first: bool = False) -> tuple[int, int] | None:
        """(trial, epoch) to go on with when no other trial will come: the best that waits at the highest rung.

        Until there is a full run, whatever a growing ladder's height is: a search must end with one. Then, under
        ``stop`` and without ``only_first``, at every rung that fewer than eta trials reached.
        """
        full = any(table.scored for key, table in self.tables.items() if key[2] >= self.ladder.top)
        if full and (only_first or self.ladder.rule == "promote"):
            return None
        found: list[tuple[int, Entry]] = []  # the best of each table; those of the highest rung come first
        for epoch, table in self._below(self.cap if full else self.ladder.top):
            if full and table.went:
                continue
            best = table.best(len(table), self._tie(table, epoch))
            waiting = next((number for number in best if self._waits(number, epoch)), None)
            if waiting is not None:
                found.append((epoch, table.known[waiting]))
        if not found:
            return None
        epoch, entry = min(found, key=lambda pair: (-pair[0], pair[1]))
        return entry.trial, epoch

    def _waits(self, number: int, epoch: int) -> bool:
        trial = self.state.trials[number]
        waits = trial.verdicts.get(epoch, PAUSE) == PAUSE  # without a verdict it is the one that is decided on now
        return trial.ended is None and trial.epochs == epoch and waits

    def grown(self) -> int | None:
        """The next higher rung, when the order of the trials at the highest one is not what it was a rung before.

        PASHA (Bohdal et al. 2023): scores nearer to each other than the noise have no order. With two objectives too
        it is the order of the scores: what a full run costs does not change on the way there.
        """
        cap = self.cap
        if cap >= self.ladder.top:
            return None
        below = self.ladder.rungs[self.ladder.rungs.index(cap) - 1]
        for (group, bracket, epoch), table in self.tables.items():
            before = self.tables.get((group, bracket, below))
            if epoch == cap and before is not None and self._reordered(table, before, below):
                return self.ladder.next_rung(cap)
        return None

    def _reordered(self, table: Table, before: Table, below: int) -> bool:
        now = [e.trial for e in table.entries if e.trial in before.known]
        then = sorted(now, key=lambda number: before.known[number])
        width = self.width(before, below)
        return any(
            abs(before.known[a].minus - before.known[b].minus) > width for a, b in zip(now, then, strict=True) if a != b
        )
