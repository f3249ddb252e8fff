"""An engine to drive by hand, and all that an engine knows as something to compare."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tuning.config.schema import BudgetSpec, SamplerSpec
from tuning.engine.choices import Choices
from tuning.engine.engine import Engine, Verdict
from tuning.engine.journal import Events
from tuning.engine.ladder import Ladder
from tuning.engine.state import JournalState, Report
from tuning.engine.virtual import Setting, make_engine
from tuning.space.domains import Draw


def choices_for(*methods: str) -> Choices:
    """Two dimensions a method, one of them shared by all."""
    shared = Draw("lr", "float", 1e-3, 1.0, log=True)
    return Choices(tuple((m, (shared, Draw(f"method/{m}/k", "int", 1, 9))) for m in methods))


ONE = choices_for("a")
TWO = choices_for("a", "b")


def setting_of(
    rule: str = "promote",
    rungs: tuple[int, ...] = (1, 3, 9),
    eta: int = 3,
    *,
    sampler: str = "random",
    startup: int = 0,
    seed: int = 0,
    objectives: tuple[str, ...] = ("top1",),
    budget: Mapping[str, Any] | None = None,
    **ladder: Any,
) -> Setting:
    """What an engine needs; 1,000 trials where no budget is given."""
    spec = SamplerSpec.model_validate({"name": sampler, "startup_trials": startup, "random_share": 0.3})
    limits = BudgetSpec.model_validate(budget or {"trials": 1000})
    return Setting(Ladder(rungs, eta, rule, **ladder), spec, limits, seed, objectives)


class Line(Events):
    """Events kept in a list. ``clock`` is set by hand."""

    def __init__(self, before: Iterable[Mapping[str, Any]] = ()) -> None:
        self.now = 0.0
        super().__init__(clock=lambda: self.now)
        self.lines: list[dict[str, Any]] = []
        for event in before:
            self.state.apply(event)

    def append(self, event: Mapping[str, Any], *, sync: bool = True) -> None:
        super().append(event, sync=sync)
        self.lines.append(dict(event))

    def told(self, *kinds: str) -> list[tuple[Any, ...]]:
        """The events of some kinds: kind, trial, and the epoch and word that they have."""
        keys = ("trial", "epoch", "verdict", "reason", "top")
        return [(e["e"], *(e[k] for k in keys if k in e)) for e in self.lines if e["e"] in kinds]


class Hand:
    """An engine whose workers are the test."""

    def __init__(self, setting: Setting, choices: Choices = ONE, events: Events | None = None, **parts: Any) -> None:
        self.events = Line() if events is None else events
        self.engine: Engine = make_engine(self.events, choices, setting, **parts)

    @property
    def state(self) -> JournalState:
        return self.engine.state

    def ask(self) -> int | None:
        """The next trial's number."""
        segment = self.engine.ask()
        return None if segment is None else segment.trial

    def ask_many(self, count: int) -> list[int | None]:
        return [self.ask() for _ in range(count)]

    def beat(self, trial: int, epoch: int, seconds: float = 1.0) -> str:
        """An epoch without a score."""
        return self.engine.report(trial, Report(epoch, False, None, None, seconds)).word

    def score(self, trial: int, epoch: int, top1: float | None, loss: float | None = 1.0, seconds: float = 1.0) -> str:
        """An epoch with a score; the word of the verdict."""
        return self.verdict(trial, epoch, top1, loss, seconds).word

    def verdict(
        self, trial: int, epoch: int, top1: float | None, loss: float | None = 1.0, seconds: float = 1.0
    ) -> Verdict:
        return self.engine.report(trial, Report(epoch, True, top1, loss, seconds))

    def table(self, epoch: int, group: str = "", bracket: int = 0) -> tuple[list[int], list[int]]:
        """Who is in a table, the best first, and who went on from it."""
        table = self.engine.rules.tables[group, bracket, epoch]
        return [e.trial for e in table.entries], sorted(table.went)


def again(lines: Iterable[Mapping[str, Any]], setting: Setting, choices: Choices = ONE, **parts: Any) -> Hand:
    """A driver that goes on after these lines."""
    return Hand(setting, choices, Line(lines), **parts)


def picture(engine: Engine, *, proposal: bool = True) -> dict[str, Any]:
    """All that an engine knows and would do next, but who is at work. ``proposal``: of the next draws, too."""
    rules, model = engine.rules, engine.model
    return {
        "state": engine.state,
        "running": list(engine.state.running),
        "tables": {key: (t.entries, t.known, t.went) for key, t in rules.tables.items() if len(t)},
        "cap": rules.cap,
        "promotable": rules.promotable(),
        "last chance": rules.last_chance(),
        "target": model.target,
        "observations": model.observations,
        "proposal": engine.sampler.propose() if proposal else None,
        "spent": engine.budget.spent(),
    }
