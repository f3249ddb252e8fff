"""The bound space: which draws a trial needs, what config they stand for, and the way back. Pure values, no torch.

Draws and configs are different things. A sampler sees flat draws; :meth:`Space.resolve` makes the typed config and
:meth:`Space.invert` takes it back to draws (for ``start_from``, warm starts and imports).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from methods.errors import InputError, did_you_mean
from methods.fields import require
from tuning.space.domains import Domain, Draw, DrawValue, Fixed, TrialLike, value_text

if TYPE_CHECKING:
    from methods.training.config import TrialConfig

METHOD = "method"
PARTS = ("params", "encoder", "augment", "optim", "streams")  # the dataclasses inside a TrialConfig


@dataclass(frozen=True)
class Slot:
    """One parameter that the file writes down: where it goes in a config, and what it may be.

    ``part`` is a field of ``TrialConfig`` that holds a dataclass, or empty for ``frames``; ``prefix`` names its draws:
    ``method/NAME/...`` inside a branch, ``optim/lr`` where all branches share it.
    """

    part: str
    field: str
    prefix: str
    domain: Domain
    published: Any
    doc: str

    @property
    def label(self) -> str:
        """How a message names the parameter: ``temperature``, ``optim.lr``."""
        return self.field if self.part in ("", "params") else f"{self.part}.{self.field}"

    @property
    def shared(self) -> bool:
        """Whether the parameter is written for all branches at once."""
        return not self.prefix.startswith(f"{METHOD}/")

    def read(self, config: TrialConfig) -> Any:
        """The parameter's value in a config."""
        return getattr(getattr(config, self.part) if self.part else config, self.field)


@dataclass(frozen=True)
class Branch:
    """One method of the space: a config with everything fixed filled in, and the slots that change it."""

    method: str
    base: TrialConfig
    slots: tuple[Slot, ...]

    @property
    def draws(self) -> tuple[Draw, ...]:
        """The free dimensions, in the order of the file."""
        return tuple(draw for slot in self.slots for draw in slot.domain.draws(slot.prefix))

    def fill(self, draws: Mapping[str, DrawValue]) -> TrialConfig:
        """The config that the draws of this branch stand for. Raises ``InputError`` for what a config refuses."""
        changes: dict[str, dict[str, Any]] = {}
        for slot in self.slots:
            changes.setdefault(slot.part, {})[slot.field] = slot.domain.value(slot.prefix, draws)
        whole = changes.pop("", {})
        parts = {part: dataclasses.replace(getattr(self.base, part), **values) for part, values in changes.items()}
        return dataclasses.replace(self.base, **parts, **whole)


@dataclass(frozen=True)
class Start:
    """Draws to begin a search with, and what had to be filled in to make them whole."""

    draws: tuple[tuple[str, DrawValue], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Space:
    """Everything that may be drawn, one branch a method. Picklable, hashable, equal by value."""

    branches: tuple[Branch, ...]
    starts: tuple[Start, ...] = ()

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods, in the order of the file."""
        return tuple(branch.method for branch in self.branches)

    @property
    def draw_names(self) -> tuple[str, ...]:
        """Every name that a draw of this space can carry, ``method`` first."""
        names = dict.fromkeys(draw.name for branch in self.branches for draw in branch.draws)
        return (METHOD, *names)

    @property
    def free(self) -> dict[str, int]:
        """Method -> number of free dimensions of its branch (the choice of the method itself not counted)."""
        return {branch.method: len(branch.draws) for branch in self.branches}

    @property
    def method_draw(self) -> Draw:
        """The choice of the method, as a draw."""
        return Draw(METHOD, "categorical", choices=self.methods)

    def branch(self, method: str) -> Branch:
        """The branch of ``method``. Raises ``InputError`` with the nearest name when the space has none."""
        for branch in self.branches:
            if branch.method == method:
                return branch
        raise InputError(f"method '{method}' is not in this space{did_you_mean(str(method), self.methods)}")

    def suggest(self, trial: TrialLike) -> dict[str, DrawValue]:
        """Ask an Optuna-like trial for the draws of one branch (define by run); a lone method is not asked for."""
        method = self.methods[0] if len(self.branches) == 1 else str(self.method_draw.suggest(trial))
        return {METHOD: method, **{draw.name: draw.suggest(trial) for draw in self.branch(method).draws}}

    def sample(self, rng: np.random.Generator) -> dict[str, DrawValue]:
        """Draws from the prior: methods alike, then every dimension of the branch."""
        method = self.methods[0] if len(self.branches) == 1 else str(self.method_draw.sample(rng))
        return {METHOD: method, **{draw.name: draw.sample(rng) for draw in self.branch(method).draws}}

    def resolve(self, draws: Mapping[str, DrawValue]) -> TrialConfig:
        """The config that ``draws`` stand for. Raises ``InputError`` for missing, unknown or impossible draws."""
        branch = self._branch_of(draws)
        needed = {draw.name: draw for draw in branch.draws}
        unknown = [name for name in draws if name != METHOD and name not in needed]
        missing = [name for name in needed if name not in draws]
        if unknown or missing:
            raise InputError(
                *(f"method '{branch.method}' has no draw '{name}'{did_you_mean(name, needed)}" for name in unknown),
                *(f"draw '{name}' of method '{branch.method}' is missing" for name in missing),
            )
        for name, draw in needed.items():
            draw.check(draws[name])
        return branch.fill(draws)

    def _branch_of(self, draws: Mapping[str, DrawValue]) -> Branch:
        if METHOD in draws:
            return self.branch(draws[METHOD])
        require(len(self.branches) == 1, f"draw '{METHOD}' is missing; this space has {', '.join(self.methods)}")
        return self.branches[0]

    def invert(self, config: TrialConfig) -> dict[str, DrawValue]:
        """The draws that stand for ``config``. Raises ``InputError`` naming every value that the space cannot reach."""
        branch = self.branch(config.method)
        faults, draws = [], {METHOD: branch.method}
        free = {(slot.part, slot.field): slot for slot in branch.slots}
        for part, name, here, base in _pairs(config, branch.base):
            slot = free.get((part, name)) or Slot(part, name, "", Fixed(base), base, "")
            try:
                draws |= slot.domain.invert(slot.prefix, here)
            except InputError:
                what = slot.domain.describe().removeprefix("= ")
                fixed = "fixed at " if isinstance(slot.domain, Fixed) else "drawn from "
                faults.append(f"{slot.label} is {value_text(here)}, and this space has it {fixed}{what}")
        if faults:
            raise InputError(*faults)
        return draws

    def start_draws(self) -> list[dict[str, DrawValue]]:
        """The draws that ``start_from`` asks for, in its order."""
        return [dict(start.draws) for start in self.starts]

    @property
    def start_notes(self) -> tuple[str, ...]:
        """What had to be filled in to make the entries of ``start_from`` whole."""
        return tuple(note for start in self.starts for note in start.notes)


def _pairs(config: TrialConfig, base: TrialConfig) -> list[tuple[str, str, Any, Any]]:
    """(part, field, value in ``config``, value in ``base``) of everything in a config but the method."""
    found: list[tuple[str, str, Any, Any]] = []
    for part in PARTS:
        here, there = getattr(config, part), getattr(base, part)
        found += [(part, f.name, getattr(here, f.name), getattr(there, f.name)) for f in dataclasses.fields(here)]
    return found + [
        ("", name, getattr(config, name), getattr(base, name)) for name in ("frames", "epochs", "preprocess")
    ]


def fill_start(branch: Branch, given: Mapping[tuple[str, str], Any]) -> Start:
    """Complete ``given`` ((part, field) -> a contained value) with published values, else the middle of the domain."""
    draws: dict[str, DrawValue] = {METHOD: branch.method}
    notes = []
    for slot in branch.slots:
        value = given.get((slot.part, slot.field), slot.published)
        if not slot.domain.contains(value):
            middle = slot.domain.midpoint()
            if slot.domain.draws(slot.prefix):
                notes.append(
                    f"start_from: {branch.method} {slot.label}: the published {value_text(value)} lies outside "
                    f"{slot.domain.describe()}; {value_text(middle)} is used"
                )
            value = middle
        draws |= slot.domain.invert(slot.prefix, value)
    return Start(tuple(draws.items()), tuple(notes))
