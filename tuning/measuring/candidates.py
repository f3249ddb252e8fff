"""Which configurations stand for a method: the first that is drawn, and the one with every size at its largest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from methods.errors import InputError
from tuning.space import Space
from tuning.space.domains import DrawValue
from tuning.space.space import METHOD, Slot

if TYPE_CHECKING:
    from methods.training.config import TrialConfig

TRIES = 10_000  # draws after which a method that never came, or always in a form that cannot be, is given up


@dataclass(frozen=True)
class Candidate:
    """A configuration and the draws that stand for it."""

    draws: Mapping[str, DrawValue]
    config: TrialConfig


def first_drawn(space: Space, seed: int) -> dict[str, Candidate]:
    """Method -> the first configuration of it that `skeltune sample --seed SEED` prints, in the order of the file."""
    rng = np.random.default_rng(seed)
    found: dict[str, Candidate] = {}
    for _ in range(TRIES):
        if len(found) == len(space.methods):
            break
        draws = space.sample(rng)
        method = str(draws[METHOD])
        if method not in found:
            try:
                found[method] = Candidate(draws, space.resolve(draws))
            except InputError:  # a combination that a config refuses: a search would not train it either
                continue
    return {method: found[method] for method in space.methods if method in found}


def dearest(space: Space, first: Candidate) -> Candidate:
    """``first`` with every size that its branch draws at its largest: batch, frames, streams, encoder, own numbers.

    Sizes are whole numbers and the list of streams; one whose largest value does not go with the others stays as it is.
    What has no free size comes back as it is.
    """
    found = first
    for slot in space.branch(found.config.method).slots:
        largest = _largest(slot)
        if largest is None or largest == slot.read(found.config):
            continue
        draws = {**found.draws, **slot.domain.invert(slot.prefix, largest)}
        try:
            found = Candidate(draws, space.resolve(draws))
        except InputError:
            continue
    return found


def _largest(slot: Slot) -> Any:
    """The largest value of a slot that is a size and is drawn; None for every other slot."""
    sized = slot.part in ("params", "encoder") or (slot.part, slot.field) in (
        ("", "frames"),
        ("optim", "batch"),
        ("streams", "use"),
    )
    if not sized or not slot.domain.draws(slot.prefix):
        return None
    ends = slot.domain.extremes()
    if slot.field == "use":
        return max(ends, key=len)
    whole = [end for end in ends if isinstance(end, int) and not isinstance(end, bool)]
    return max(whole) if len(whole) == len(ends) else None
