"""What every search does, whichever engine decides: it says what happens, can be interrupted, and ends in best.yaml."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tuning.arithmetic import budget_lines, expected_epochs, pace_of
from tuning.engine.journal import Journal
from tuning.engine.state import JournalState
from tuning.observe.curves import Curves
from tuning.observe.lines import EventLines
from tuning.plan import Plan, Stop
from tuning.words import duration

if TYPE_CHECKING:
    from tuning.ground import Ground
    from tuning.stored import Stored


class Search:
    """One call of `skeltune search`; an engine says when the search is over, and runs it."""

    def __init__(self, plan: Plan, journal: Journal, say: Callable[[str], None]) -> None:
        self.plan, self.journal, self.say = plan, journal, say
        self.stop = Stop()
        self.turn: Callable[[], None] = lambda: None  # looks at what people asked of the running search
        self.stored: Stored | None = None  # its copies in a store

    @property
    def over(self) -> bool:
        """Whether the search itself has nothing left to do."""
        raise NotImplementedError

    def search(self, ground: Ground) -> None:
        """Run trials until there are no more, or the user wants to stop."""
        raise NotImplementedError

    def done_before(self) -> Path | None:
        """best.yaml, when an earlier call got there and nothing is left to do; no Ray is needed to find that out."""
        from tuning.finish import finished

        if self.journal.torn:
            self.say("the journal's last line was torn by a crash; it was cut off")
        if not self.journal.state.trials or self.plan.spec.budget.on_end == "stop" or not self.over:
            return None
        return finished(self.plan, self.journal, self.say)

    def run(self, ground: Ground, seconds_per_epoch: float | None = None) -> Path | None:
        """The search, then its finish. ``seconds_per_epoch``: a guess, for what is said before the start."""
        from tuning.finish import finish

        known = len(self.journal.state.trials)
        if known:
            pending = self.journal.state.pending
            waiting = sum(1 for trial in pending if trial.paused)
            wait = f", {waiting} waiting at a rung" if waiting else ""
            self.say(
                f"going on in {self.plan.folder}: {known - len(pending)} trials ended, "
                f"{len(pending) - waiting} to continue{wait}"
            )
        else:
            for line in budget_lines(
                self.plan.spec, self.plan.space, pace_of(self.plan.space, None, ground.slots, seconds_per_epoch)
            ):
                self.say(line)
        with self.stop.on_interrupt(), told_plainly(self.journal):
            begun = time.monotonic()
            self.journal.drive()
            self.search(ground)
            state = self.journal.state
            self.say(f"{len(state.ended)} trials in {duration(time.monotonic() - begun)}; " + _census(state))
            best = None
            if not self.stop.asked and self.plan.spec.budget.on_end == "stop":
                self.say(
                    "budget.on_end is `stop`: no finalist is confirmed; with `finish` the same command goes on there"
                )
                return None
            if not self.stop.asked:
                best = finish(self.plan, self.journal, ground, self.stop, self.say, self.step, self.stored)
            if best is None:
                self.say("not finished yet; the same command goes on")
            return best

    def step(self) -> None:
        """Called again and again while trials run."""
        self.turn()
        if self.stored is not None:
            self.stored.poll()

    def observers(self) -> tuple[EventLines, Curves]:
        """The terminal and TensorBoard."""
        plan = self.plan
        expected = expected_epochs(plan.spec, plan.space, pace_of(plan.space, self.journal.state))
        lines = EventLines(self.journal.state, plan.ladder, plan.spec.budget.trials, expected)
        return lines, Curves(self.plan.folder)


@contextmanager
def told_plainly(journal: Journal) -> Iterator[None]:
    """A journal that could not be written is one line, also where Ray has wrapped it into an error of its own."""
    try:
        yield
    except Exception:
        if journal.failure is not None:
            raise journal.failure from None
        raise


def _census(state: JournalState) -> str:
    """`12 culled, 3 top, 1 diverged`."""
    counts: dict[str, int] = {}
    for trial in state.ended:
        counts[trial.ended or ""] = counts.get(trial.ended or "", 0) + 1
    return ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items(), key=lambda item: -item[1]))
