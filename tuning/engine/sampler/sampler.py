"""The order of proposals: what people gave first, then a start-up spread over the methods, then whoever models best.

A proposal is a function of the journal's state and the number of the ask: a driver that was killed and goes on proposes
what it would have proposed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tuning.config.schema import SamplerSpec
from tuning.engine.choices import METHOD, Choices
from tuning.engine.rules import Rules
from tuning.engine.sampler.model import Model
from tuning.engine.sampler.portfolio import Portfolio
from tuning.engine.state import REPEAT, TrialState

ENQUEUED, START, PRIOR, STARTUP, RANDOM = "enqueued", "start", "prior", "startup", "random"
NEAR_PRIOR = "near_prior"

Draws = dict[str, Any]


class Sampler:
    """Proposes draws and says where they come from. ``priors``: draws that did well elsewhere, the best first."""

    def __init__(
        self, model: Model, spec: SamplerSpec, seed: int, priors: Sequence[Draws] = (), two: bool = False
    ) -> None:
        self.model, self.spec, self.seed = model, spec, seed
        self.choices: Choices = model.choices
        self.state = model.state
        self.priors = list(priors)
        self.portfolio = Portfolio(model, spec.name, two)
        self.survivors: Rules | None = None
        self._asked: Counter[str] = Counter()
        for trial in self.state.trials.values():
            self.asked(trial)

    def asked(self, trial: TrialState) -> None:
        """A trial was written down."""
        if trial.origin != REPEAT:
            self._asked[trial.origin] += 1

    def propose(self) -> tuple[Draws, str]:
        """The draws of the next trial and their origin."""
        number = sum(self._asked.values())
        rng = np.random.default_rng([self.seed, number])
        given = self._given()
        if given is not None:
            return given
        if self._asked[STARTUP] < self._startup_trials:
            method = self.choices.methods[self._asked[STARTUP] % len(self.choices.methods)]
            return self.choices.sample(rng, method), STARTUP
        if self.spec.name == "random" or rng.random() < self.spec.random_share:
            return self.choices.sample(rng), RANDOM
        if self.priors and rng.random() < self._prior_share(number):
            return self._near_prior(rng), NEAR_PRIOR
        return self.portfolio.propose(rng, self.survivors)

    @property
    def _startup_trials(self) -> int:
        """Those asked for, and at least one a method: a method that was never tried cannot be modelled."""
        return max(self.spec.startup_trials, len(self.choices.methods) if len(self.choices.methods) > 1 else 0)

    def _given(self) -> tuple[Draws, str] | None:
        queued = [c["draws"] for c in self.state.commands.values() if c["verb"] == "enqueue"]
        for origin, draws in ((ENQUEUED, queued), (START, self.choices.starts), (PRIOR, self.priors)):
            if self._asked[origin] < len(draws):
                return dict(draws[self._asked[origin]]), origin
        return None

    def _prior_share(self, number: int) -> float:
        """A third at first, falling as trials of this very search come in: what was best elsewhere is a hint."""
        return 1 / (3 + number / 10)

    def _near_prior(self, rng: np.random.Generator) -> Draws:
        """A prior with a third of its dimensions drawn anew."""
        prior = self.priors[int(rng.integers(len(self.priors)))]
        fresh: Mapping[str, Any] = self.choices.sample(rng, str(prior[METHOD]))
        return {name: fresh[name] if name != METHOD and rng.random() < 1 / 3 else prior[name] for name in fresh}
