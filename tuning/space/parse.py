"""Node tree -> :class:`Space`: every name checked against the method's own dataclass, all faults of a file at once."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from methods.errors import InputError
from tuning.config.errors import Place
from tuning.config.yaml_source import Report, Table
from tuning.space.domains import Domain
from tuning.space.outline import SHARED, Fields, Outline, read_outline
from tuning.space.space import METHOD, Branch, Slot, Space
from tuning.space.start import read_starts

if TYPE_CHECKING:
    from methods.training.config import TrialConfig

TRIED = 16  # draws of each branch that are resolved, to meet limits that tie two parameters together


@dataclass(frozen=True)
class Surroundings:
    """What the rest of the file says about every trial."""

    epochs: int
    frames: int | None = None
    preprocess: tuple[str, ...] | None = None


def bind(root: Table, around: Surroundings, report: Report) -> Space | None:
    """The space under ``search``; None where there is something wrong, and then ``report`` says what."""
    before = len(report.faults)
    preprocess = _check_preprocess(root, around.preprocess, report)
    around = dataclasses.replace(around, preprocess=preprocess)
    node = root.get("search")
    if not isinstance(node, Table):
        if node is not None:
            report.add(root.key_place("search"), "'search' is a mapping with at least 'method'")
        return None
    outline = read_outline(node, report)
    branches = [b for b in (_branch(outline, i, around, report) for i in range(len(outline.branches))) if b]
    broken = len(report.faults) > before or not branches
    space = None if broken else Space(tuple(branches))
    starts = read_starts(root.get("start_from"), space, report)
    if space is None:
        return None
    return dataclasses.replace(space, starts=starts) if len(report.faults) == before else None


def _check_preprocess(root: Table, names: tuple[str, ...] | None, report: Report) -> tuple[str, ...] | None:
    from methods.data.preprocess import expand_steps, parse_steps

    if names is None:
        return None
    try:
        parse_steps(names)
        return expand_steps(names)  # a recipe's name becomes its steps
    except InputError as error:
        data = root.get("data")
        place = data.key_place("preprocess") if isinstance(data, Table) else root.place
        for fault in error.faults:
            report.add(place, fault)
        return None


def _branch(outline: Outline, index: int, around: Surroundings, report: Report) -> Branch | None:
    """One method with its recipe, the shared sections, and its own settings, in rising order of precedence."""
    from methods.training.config import published

    entry, key, own = outline.branches[index]
    before = len(report.faults)
    recipe = published(entry.name, around.epochs, outline.preset)
    base = recipe
    if around.frames is not None:
        base = dataclasses.replace(base, frames=around.frames)
    if around.preprocess is not None:
        base = dataclasses.replace(base, preprocess=around.preprocess)
    slots: list[Slot] = []
    for part in ("params", "", *SHARED):
        inner, outer = own.get(part, {}), outline.shared.get(part, {})
        fields = {**outer, **inner}
        if not fields:
            continue
        target = getattr(base, part) if part else base
        built = check_limits(target, fields, report)
        base = dataclasses.replace(base, **{part: built}) if part else built
        for name, written in fields.items():
            prefix = _prefix(entry.name if name in inner else None, part, name)
            slots.append(_slot(part, name, prefix, written.domain, recipe))
    branch = Branch(entry.name, base, tuple(slots))
    if len(report.faults) == before:
        _try_some(branch, key, report)
    return branch if len(report.faults) == before else None


def _prefix(method: str | None, part: str, name: str) -> str:
    inside = name if part in ("", "params") else f"{part}/{name}"
    return inside if method is None else f"{METHOD}/{method}/{inside}"


def _slot(part: str, name: str, prefix: str, domain: Domain, recipe: TrialConfig) -> Slot:
    holder = getattr(recipe, part) if part else recipe
    docs = {f.name: f.metadata.get("doc", "") for f in dataclasses.fields(holder)}
    return Slot(part, name, prefix, domain, getattr(holder, name), docs.get(name, ""))


def check_limits(base: Any, fields: Fields, report: Report) -> Any:
    """``base`` with every field at the middle of its domain; ``__post_init__`` is tried at the rim of each.

    A limit that is broken is reported where the value stands. Fields are added in the order of the file, and those
    refused are tried again after the others, so that the one to blame is the one that is named.
    """
    built, waiting = base, dict(fields)
    whole = {name: written.domain.midpoint() for name, written in fields.items()}
    if _construct(base, whole) is not None:
        built, waiting = _construct(base, whole), {}
    progress = True
    while waiting and progress:
        progress = False
        for name, written in list(waiting.items()):
            grown = _construct(built, {name: written.domain.midpoint()})
            if grown is not None:
                built, progress = grown, True
                del waiting[name]
    for name, written in waiting.items():
        for value, place in written.ends or ((written.domain.midpoint(), written.place),):
            _complain(built, name, value, place, report)
    for name, written in fields.items():
        if name not in waiting:
            for value, place in written.ends:
                _complain(built, name, value, place, report)
    return built


def _construct(base: Any, changes: dict[str, Any]) -> Any:
    try:
        return dataclasses.replace(base, **changes)
    except (ValueError, TypeError, ArithmeticError):
        return None


def _complain(base: Any, name: str, value: Any, place: Place, report: Report) -> None:
    try:
        dataclasses.replace(base, **{name: value})
    except InputError as error:
        for fault in error.faults:
            report.add(place, fault)
    except (ValueError, TypeError, ArithmeticError) as error:  # a stranger's own check
        report.add(place, f"'{name}': {error}")


def _try_some(branch: Branch, key: Place, report: Report) -> None:
    """Resolve some draws: limits that tie two free parameters together show only there."""
    rng = np.random.default_rng(0)
    for _ in range(TRIED if branch.draws else 1):
        draws = {draw.name: draw.sample(rng) for draw in branch.draws}
        try:
            branch.fill(draws)
        except (ValueError, TypeError, ArithmeticError) as error:
            report.add(key, f"some draws of '{branch.method}' are impossible: {error}")
            return
