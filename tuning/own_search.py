"""A search by the engine of our own: the engine over its journal, behind Ray's interfaces."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tuning.control import Inbox
from tuning.engine.choices import choices_of
from tuning.engine.engine import Engine
from tuning.engine.journal import Journal
from tuning.engine.noise import FACT as PROBED
from tuning.engine.noise import NoiseMeter
from tuning.engine.objectives import SLOTS
from tuning.engine.virtual import Setting, make_engine
from tuning.engine.warm import WarmStart, best_priors, from_plain, known_trials, to_plain
from tuning.floor import Floor
from tuning.plan import Plan
from tuning.search import Search
from tuning.session import probed
from tuning.slots import find_slots

if TYPE_CHECKING:
    from tuning.ground import Ground

WARM = "warm_start"
PRIORS = 3  # of each method, proposed first


class OwnSearch(Search):
    """`--engine skeltune`."""

    def __init__(self, plan: Plan, journal: Journal, say: Callable[[str], None]) -> None:
        super().__init__(plan, journal, say)
        self.warm = self._warm()
        if PROBED not in journal.state.facts:
            journal.fact(PROBED, probed(plan.source).plain())
        self.engine = self._engine()

    def _warm(self) -> WarmStart | None:
        """What earlier searches taught, read once and kept in the journal: the sources may be gone when it goes on."""
        spec = self.plan.spec
        if not spec.warm_start:
            return None
        if WARM not in self.journal.state.facts:
            from tuning.warm_sources import read_warm

            warm = read_warm(
                spec, self.plan.space, fingerprint=self.plan.source.fingerprint, runs=self.plan.folder.parent
            )
            for note in warm.notes:
                self.say(f"note: {note}")
            self.journal.fact(WARM, to_plain(warm))
        return from_plain(self.journal.state.facts[WARM])

    def _engine(self) -> Engine:
        plan, state = self.plan, self.journal.state
        meter = NoiseMeter(state, plan.ladder.eta)
        setting = Setting(
            plan.ladder,
            plan.spec.sampler,
            plan.spec.budget,
            plan.spec.seed,
            objectives=plan.spec.objectives,
            gpus=float(state.facts.get(SLOTS, {}).get("gpu", 0.0)),
        )
        return make_engine(
            self.journal,
            choices_of(plan.space),
            setting,
            priors=best_priors(self.warm, PRIORS) if self.warm else (),
            known=known_trials(self.warm) if self.warm else (),
            width=meter.tie_width,
            interrupted=lambda: self.stop.asked,
        )

    @property
    def over(self) -> bool:
        return self.engine.finished

    def search(self, ground: Ground) -> None:
        from tuning.adapters import EngineScheduler, EngineSearcher, GrowingSlots
        from tuning.fit import fit
        from tuning.observe.mirror import MIRROR_FILE, Mirror

        slots, view = ground.slots, ground.view
        if self.journal.state.facts.get(SLOTS) is None:
            self.journal.fact(SLOTS, {"gpu": slots.gpu, "cpu": slots.cpu})
            self.engine = self._engine()
        inbox = Inbox(self.plan.folder, self.engine, self.stop, self.say, check=self.plan.space.resolve)
        self.turn = inbox.poll
        spec = self.plan.spec
        mirror = Mirror(
            self.plan.folder / MIRROR_FILE,
            spec.name,
            self.engine.choices,
            self.journal.state,
            self.plan.ladder.top,
            {name: "maximize" if name == "top1" else "minimize" for name in spec.objectives},
            cost=lambda trial: self.engine.objectives.cost(trial) or 0.0,
        )
        observers = (*self.observers(), mirror)
        drop = self.stored.drop if self.stored is not None else None
        floor = Floor(self.engine, self.plan.space, self.plan.folder, spec.seed, observers, drop)
        if self.stored is not None:
            self.stored.sweep([floor.task(trial) for trial in self.journal.state.pending])
        growing = GrowingSlots(slots.count, view, lambda cluster: find_slots(spec.budget, cluster, slots.gpu).count)
        try:
            self.turn()
            if not self.engine.finished:
                fit(
                    EngineSearcher(floor, growing, view),
                    EngineScheduler(floor, view, ground.places),
                    ground,
                    spec.budget,
                    retries=0,
                    turn=self.step,
                    limited=False,
                    say=self.say,
                )
            if not self.stop.asked and spec.budget.on_end == "finish":
                waited = sum(1 for t in self.journal.state.pending if t.paused)
                floor.conclude()
                if waited:
                    self.say(f"{waited} trials waited at a rung and were not needed")
        finally:
            floor.close()
