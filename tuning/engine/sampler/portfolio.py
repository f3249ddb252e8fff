"""Several proposers at once, each with a share that follows how its trials fare at the first rung."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from tuning.engine.rules import Rules
from tuning.engine.sampler import proposers
from tuning.engine.sampler.model import Model

ARMS = {"tpe": ("tpe",), "gp": ("gp",), "cmaes": ("cmaes",), "rank_gp": ("rank_gp",), "portfolio": ("rank_gp", "tpe")}


class Portfolio:
    """The proposers that a sampler's ``name`` stands for."""

    def __init__(self, model: Model, name: str, two: bool = False) -> None:
        self.model = model
        self.names = ARMS.get(name, ())
        self.arms = {arm: proposers.make(arm, model, two) for arm in self.names}

    def propose(self, rng: np.random.Generator, survivors: Rules | None) -> tuple[dict[str, Any], str]:
        """Draws and the name of who proposed them."""
        arm = self._choose(rng, survivors)
        return self.arms[arm](int(rng.integers(2**32))), arm

    def _choose(self, rng: np.random.Generator, survivors: Rules | None) -> str:
        if len(self.names) == 1 or survivors is None:
            return self.names[0]
        shares = self.shares(survivors)
        draws = {arm: rng.beta(1 + lived, 1 + died) for arm, (lived, died) in shares.items()}  # Thompson sampling
        return max(draws, key=lambda arm: (draws[arm], arm))

    def shares(self, rules: Rules) -> dict[str, tuple[float, float]]:
        """Arm -> (trials that are among the best 1/eta of the first rung, trials that are not), the latest 40."""
        found = {}
        for arm in self.names:
            latest = (t for t in reversed(self.model.state.trials.values()) if t.origin == arm)
            own = list(itertools.islice(latest, 40))
            lived = died = 0.0
            for trial in own:
                place = rules.place(trial)
                if place is not None:
                    lived += place < 1 / rules.ladder.eta
                    died += place >= 1 / rules.ladder.eta
            found[arm] = (lived, died)
        return found
