"""What a sampler may propose: the flat draws of every method, without the configs that they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tuning.space.domains import Draw, TrialLike

if TYPE_CHECKING:
    from tuning.space import Space

METHOD = "method"


@dataclass(frozen=True)
class Choices:
    """``branches``: method -> its draws; draws of one name are the same dimension in every method that has it.

    ``starts``: the draws that a search begins with.
    """

    branches: tuple[tuple[str, tuple[Draw, ...]], ...]
    starts: tuple[tuple[tuple[str, Any], ...], ...] = ()

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods, in the order of the file."""
        return tuple(name for name, _ in self.branches)

    @property
    def method_draw(self) -> Draw:
        """The choice of the method, as a draw."""
        return Draw(METHOD, "categorical", choices=self.methods)

    def draws(self, method: str) -> tuple[Draw, ...]:
        """The dimensions of one method. Raises ``KeyError`` for a method that is not in the space."""
        return dict(self.branches)[method]

    def asked(self, draws: Mapping[str, Any]) -> tuple[Draw, ...]:
        """The dimensions that were proposed to make ``draws``: the method, where there are two, and its own."""
        method = (self.method_draw,) if len(self.branches) > 1 else ()
        return (*method, *self.draws(str(draws[METHOD])))

    def sample(self, rng: np.random.Generator, method: str | None = None) -> dict[str, Any]:
        """Draws from the prior, of any method alike or of ``method``."""
        if method is None:
            method = self.methods[int(rng.integers(len(self.methods)))]
        return {METHOD: method, **{draw.name: draw.sample(rng) for draw in self.draws(method)}}

    def suggest(self, trial: TrialLike, method: str | None = None) -> dict[str, Any]:
        """Ask an Optuna-like trial for the draws of one method; a lone or given method is not asked for."""
        if method is None:
            method = self.methods[0] if len(self.branches) == 1 else str(self.method_draw.suggest(trial))
        return {METHOD: method, **{draw.name: draw.suggest(trial) for draw in self.draws(method)}}


def choices_of(space: Space) -> Choices:
    """What a bound search space lets a sampler choose."""
    return Choices(
        tuple((branch.method, branch.draws) for branch in space.branches),
        tuple(tuple(start.items()) for start in space.start_draws()),
    )
