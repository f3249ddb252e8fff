"""The engine without a journal on the disk, as the simulator drives it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tuning.config.schema import BudgetSpec, SamplerSpec
from tuning.engine.budget import Budget
from tuning.engine.choices import Choices
from tuning.engine.engine import Engine
from tuning.engine.journal import Events
from tuning.engine.ladder import Ladder
from tuning.engine.objectives import TOP1, Objectives
from tuning.engine.rules import Width, no_width
from tuning.engine.sampler.model import Model
from tuning.engine.sampler.sampler import Draws, Sampler
from tuning.engine.segment import Segment
from tuning.engine.simulator import Point
from tuning.engine.state import DIVERGED, Report, TrialState


@dataclass(frozen=True)
class Setting:
    """All that an engine needs to know but the space: how to climb, propose and end.

    ``objectives``: ``top1``, or it and a cost. ``gpus``: that one trial holds.
    """

    ladder: Ladder
    sampler: SamplerSpec
    budget: BudgetSpec
    seed: int = 0
    objectives: tuple[str, ...] = (TOP1,)
    gpus: float = 0.0


def make_engine(
    events: Events,
    choices: Choices,
    setting: Setting,
    *,
    priors: Sequence[Draws] = (),
    known: Sequence[TrialState] = (),
    width: Width = no_width,
    interrupted: Callable[[], bool] = lambda: False,
) -> Engine:
    """An engine over ``events``, whose state may hold a search that goes on."""
    objectives = Objectives(setting.objectives, setting.ladder.top, setting.gpus)
    model = Model(choices, setting.ladder.rungs, events.state, cost=objectives.cost if objectives.two else None)
    model.learn(known)
    sampler = Sampler(model, setting.sampler, setting.seed, priors, objectives.two)
    budget = Budget(setting.budget, events.state, setting.gpus, lambda: events.elapsed)
    return Engine(
        events,
        choices,
        setting.ladder,
        sampler,
        budget,
        model=model,
        width=width,
        interrupted=interrupted,
        objectives=objectives,
    )


class Virtual:
    """An engine as a :class:`~tuning.engine.simulator.Contender`."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def ask(self) -> Segment | None:
        return self.engine.ask()

    def report(self, trial: int, epoch: int, point: Point) -> bool:
        if point.value is None:
            self.engine.ended(trial, DIVERGED, f"diverged at {epoch}")
            return False
        report = Report(epoch, True, point.value, point.loss, point.seconds)
        return self.engine.report(trial, report).goes_on


def contender(name: str, choices: Choices, rungs: tuple[int, ...], eta: int, seed: int, workers: int) -> Virtual:
    """The engine with its defaults; ``skeltune:rule=stop+sampler=random`` changes words of the space.

    Raises ``ValueError`` for a word that is none.
    """
    words = dict(pair.split("=", 1) for pair in name.partition(":")[2].split("+") if pair)
    ladder = Ladder(
        rungs,
        eta,
        rule=words.pop("rule", "promote"),
        brackets=int(words.pop("brackets", 1)),
        grow=words.pop("grow", "false") == "true",
        per_method=words.pop("ladder", "per_method") == "per_method",
        repeats=int(words.pop("repeats", 5)),
    )
    sampler: dict[str, object] = {"name": words.pop("sampler", "portfolio")}
    if "random_share" in words:
        sampler["random_share"] = float(words.pop("random_share"))
    if "startup_trials" in words:
        sampler["startup_trials"] = int(words.pop("startup_trials"))
    if words:
        raise ValueError(f"{name}: no such words: {', '.join(words)}")
    setting = Setting(ladder, SamplerSpec.model_validate(sampler), BudgetSpec(trials=10**9), seed)
    begun = time.monotonic()
    events = Events(clock=lambda: begun)  # nothing in a simulation may hang on the machine's clock
    return Virtual(make_engine(events, choices, setting))
