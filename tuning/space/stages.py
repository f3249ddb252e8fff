"""Which stage of a method's own schedule each rung falls into, over everything that a space can draw."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from methods.errors import InputError
from tuning.space.space import Branch

if TYPE_CHECKING:
    from methods.base import Stage


def stages_of(branch: Branch) -> tuple[Stage, ...]:
    """The stages of a branch's own middle configuration."""
    from methods.registry import get_method

    return get_method(branch.method).cls.stages(branch.base.params)


def stage_at(stages: Sequence[Stage], share: float) -> Stage:
    """The stage in which the step just before ``share`` of the whole run is taken."""
    begun = [stage for stage in stages if stage.start < share]
    return begun[-1] if begun else stages[0]


def stages_at_rungs(branch: Branch, rungs: Sequence[int]) -> list[tuple[str, ...]]:
    """For each rung (epochs of a run as long as the last) the names of the stages that it can fall into."""
    from methods.registry import get_method

    cls, found = get_method(branch.method).cls, []
    plans = [cls.stages(params) for params in _variants(branch)]
    for rung in rungs:
        names = [stage_at(stages, rung / rungs[-1]).name for stages in plans]
        found.append(tuple(dict.fromkeys(names)))
    return found


def probed_notes(branch: Branch) -> list[str]:
    """A sentence for each stage from which on another encoder is probed: scores before and after are of two things."""
    return [
        f"{branch.method}: from stage '{stage.name}' on ({stage.start:.0%} of the run) what is probed is {stage.probed}"
        for stage in stages_of(branch)
        if stage.probed
    ]


def _variants(branch: Branch) -> Iterator[Any]:
    """The method's own settings in the middle, and with each free one at its ends."""
    base = branch.base.params
    yield base
    for slot in branch.slots:
        if slot.part == "params" and slot.domain.draws(""):
            for value in slot.domain.extremes():
                try:
                    yield dataclasses.replace(base, **{slot.field: value})
                except InputError:  # an end that does not go with the middle of another range
                    continue


def stage_notes(branch: Branch, rungs: Sequence[int]) -> list[str]:
    """A warning where rungs judge a run before it has come to a stage that changes what it learns."""
    stages = stages_of(branch)
    notes = []
    for stage in stages[1:]:
        early = [r for r in rungs if r / rungs[-1] <= stage.start]
        if early:
            notes.append(
                f"{branch.method}: what stage '{stage.name}' does (from {stage.start:.0%} of the run) is not in the "
                f"score of rung {', '.join(map(str, early))}"
            )
    return notes
