"""Which method is tried next, where whoever proposes knows the dimensions of one method only."""

from __future__ import annotations

import numpy as np

from tuning.engine.sampler.model import Model

GAMMA = 0.15  # of the ranked trials: how many count as the best


def likely_method(model: Model, rng: np.random.Generator, gamma: float = GAMMA) -> str:
    """A method, drawn by the shares of methods among the best trials; none is ever without a chance."""
    names = model.choices.methods
    if len(names) == 1:
        return names[0]
    ranked = model.ranked()
    counts = dict.fromkeys(names, 1.0 / len(names))
    for observation in ranked[: max(1, round(gamma * len(ranked)))]:
        counts[model.of(observation)] += 1
    weights = np.array([counts[name] for name in names])
    return names[int(rng.choice(len(names), p=weights / weights.sum()))]
