"""Earlier configurations in a changed space: what fits is kept, what does not is filled and named.

Fitted are the values of the config that an entry stood for, wherever they are known; else what its draws' names say.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from methods.errors import InputError
from tuning.space.domains import Choice, Fixed, Simplex, same
from tuning.space.space import METHOD, PARTS, Branch, Slot, Space, fill_start

if TYPE_CHECKING:
    from methods.training.config import TrialConfig

Key = tuple[str, str]  # (part, field) of a setting; the part is empty for `frames`, `epochs` and `preprocess`
Draws = tuple[tuple[str, Any], ...]

LEAST_FIT = 0.5  # share of the free dimensions that an entry must reach
LONGEST_NAME = 60
_GAP = "gap"  # ends the name of a `near_one`, whose draw is 1 - value
_USE = ("streams", "use")
_WEIGHTS = (("streams", "loss"), ("streams", "fuse"))


@dataclass(frozen=True)
class Entry:
    """One earlier configuration, as its source tells it.

    ``draws``: flat draws under the names of a journal. ``settings``: the config's values where they are known, then
    they are what is fitted; ``whole``: nothing is missing among them. ``quality``: greater is better, within a source;
    empty where all are alike, None where nothing is known. ``scores``: epochs -> (top-1, probe's loss). ``ended``: a
    journal's reason.
    """

    draws: Mapping[str, Any] = field(default_factory=dict)
    method: str | None = None
    settings: Mapping[Key, Any] | None = None
    whole: bool = False
    quality: tuple[float, ...] | None = ()
    scores: Mapping[int, tuple[float, float | None]] = field(default_factory=dict)
    ended: str | None = None


@dataclass(frozen=True)
class Fitted:
    """An entry in this space: whole draws; ``filled``: (parameter, why) of those not taken from the entry.

    ``fixed``: settings that are not drawn here and have another value than there; ``unknown``: names that mean nothing
    to the method; ``share``: of the free dimensions, how many the entry reached.
    """

    method: str
    draws: Draws
    share: float = 1.0
    filled: tuple[tuple[str, str], ...] = ()
    fixed: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


def settings_of(config: TrialConfig) -> dict[Key, Any]:
    """Every value of a config but its method, by part and field."""
    parts = {part: getattr(config, part) for part in PARTS}
    found = {(part, f.name): getattr(of, f.name) for part, of in parts.items() for f in dataclasses.fields(of)}
    return found | {("", name): getattr(config, name) for name in ("frames", "epochs", "preprocess")}


def fitting(space: Space, entry: Entry) -> Fitted | str:
    """``entry`` as draws of ``space``, or the words that say which entries are left out.

    A parameter outside its domain is not clipped: it is filled as ``start_from`` fills, with the published value, else
    the middle.
    """
    method = method_of(space, entry)
    if method is None:
        return "that do not say their method"
    if method not in space.methods:
        return f"of method {method[:LONGEST_NAME]}, which this space does not have"
    branch = space.branch(method)
    settings, unknown = (entry.settings, ()) if entry.settings is not None else _named(branch, entry.draws)
    fitted = dataclasses.replace(_fit(branch, entry, _by_name(branch, settings)), unknown=unknown)
    if fitted.share < LEAST_FIT:
        return f"of {method} that reach less than half of what is drawn here"
    try:
        space.resolve(dict(fitted.draws))
    except (ValueError, TypeError, ArithmeticError):  # limits that tie two parameters together
        return f"of {method} whose values do not go together here"
    return fitted


def method_of(space: Space, entry: Entry) -> str | None:
    """The method that an entry says or whose parameters it names; a lone one goes without saying."""
    if entry.method is not None:
        return entry.method
    if METHOD in entry.draws:
        return str(entry.draws[METHOD])
    named = {name.split("/")[1] for name in entry.draws if name.startswith(f"{METHOD}/")}
    if not named and len(space.methods) == 1:
        return space.methods[0]
    return named.pop() if len(named) == 1 else None


def _named(branch: Branch, draws: Mapping[str, Any]) -> tuple[dict[Key, Any], tuple[str, ...]]:
    """The settings that flat draws stand for as far as their names say it, and the names that say nothing here."""
    known = settings_of(branch.base).keys()
    settings: dict[Key, Any] = {}
    sticks: dict[Key, dict[int, Any]] = {}
    unknown = []
    for name, drawn in draws.items():
        key, tail = _parameter(branch.method, name)
        if key not in known:
            unknown += [name] if name != METHOD else []
        elif tail == _GAP:
            settings[key] = 1 - drawn if _is_real(drawn) else drawn
        elif tail:
            sticks.setdefault(key, {})[int(tail)] = drawn
        else:
            settings[key] = drawn
    for key, found in sticks.items():
        settings[key] = _weights(found)
    for slot in branch.slots:
        key, options = (slot.part, slot.field), slot.domain
        if key in settings and isinstance(options, Choice) and options.by_index:
            index = settings[key]
            settings[key] = options.options[index] if type(index) is int and 0 <= index < len(options.options) else None
    return settings, tuple(unknown)


def _parameter(method: str, name: str) -> tuple[Key | None, str]:
    """What a draw's name stands for, wherever it was written, and the tail that tells how: ``gap``, a stick, nothing.

    ``optim/lr`` and ``method/NAME/optim/lr`` are one parameter.
    """
    words = name.split("/")
    if words[0] == METHOD:
        if words[1:2] != [method]:
            return None, ""
        words = words[2:]
    tail = ""
    if len(words) > 1 and (words[-1] == _GAP or (words[-1].isascii() and words[-1].isdigit() and len(words[-1]) < 4)):
        tail = words.pop()
    if len(words) == 1:
        return ("" if words[0] == "frames" else "params", words[0]), tail
    return ((words[0], words[1]) if len(words) == 2 else None), tail


def _weights(sticks: Mapping[int, Any]) -> tuple[float, ...] | None:
    """The weights that the sticks of a simplex stand for; None where some are missing."""
    if set(sticks) != set(range(len(sticks))) or not all(_is_real(u) and 0 <= u <= 1 for u in sticks.values()):
        return None
    names = tuple(map(str, range(len(sticks) + 1)))
    weights: tuple[float, ...] = Simplex(names).value("", {f"/{i}": u for i, u in sticks.items()})
    return weights


def _by_name(branch: Branch, settings: Mapping[Key, Any]) -> Mapping[Key, Any]:
    """Weights in the order of this space's streams; where others were weighed, there are none to take."""
    here, there = branch.base.streams.use, settings.get(_USE)
    if there == here or not isinstance(there, tuple):
        return settings
    changed = dict(settings)
    for key in _WEIGHTS:
        value = settings.get(key)
        if isinstance(value, tuple) and len(value) == len(there):
            by_stream = dict(zip(there, value, strict=True))
            changed[key] = tuple(by_stream[name] for name in here) if set(here) == set(there) else None
    return changed


def _fit(branch: Branch, entry: Entry, settings: Mapping[Key, Any]) -> Fitted:
    partial = entry.settings is not None and not entry.whole  # what a partial config leaves out is published
    slots = {(slot.part, slot.field): slot for slot in branch.slots}
    given = {key: settings[key] for key, slot in slots.items() if key in settings and _inside(slot, settings[key])}
    draws = dict(fill_start(branch, given).draws)
    reached = total = 0
    filled = []
    for key, slot in slots.items():
        names = [draw.name for draw in slot.domain.draws(slot.prefix)]
        total += len(names)
        if key in given:
            draws |= _as_drawn(slot, given[key], entry.draws)
        elif names and (key in settings or not partial):
            why = f"outside {slot.domain.describe()}" if key in settings else "not drawn there"
            filled.append((slot.label, why))
            continue
        reached += len(names)
    base = settings_of(branch.base)
    fixed = [
        _label(key)
        for key, value in settings.items()
        if not _drawn(slots.get(key)) and key in base and not _close(value, base[key])
    ]
    share = reached / total if total else 1.0
    return Fitted(branch.method, tuple(draws.items()), share, tuple(filled), tuple(fixed))


def _label(key: Key) -> str:
    """A setting as the file has it."""
    return "schedule.max" if key == ("", "epochs") else Slot(*key, "", Fixed(None), None, "").label


def _drawn(slot: Slot | None) -> bool:
    return slot is not None and bool(slot.domain.draws(slot.prefix))


def _inside(slot: Slot, value: Any) -> bool:
    return bool(slot.domain.contains(value))


def _as_drawn(slot: Slot, value: Any, draws: Mapping[str, Any]) -> dict[str, Any]:
    """The entry's own draws where they stand for ``value`` here too: no rounding on the way through a config."""
    needed = slot.domain.draws(slot.prefix)
    try:
        for draw in needed:
            draw.check(draws[draw.name])
        there = slot.domain.value(slot.prefix, draws)
    except (KeyError, InputError):
        return {}
    return {draw.name: draws[draw.name] for draw in needed} if _close(there, value) else {}


def _close(a: Any, b: Any) -> bool:
    """Equal as settings, numbers up to the rounding of logarithms and sticks."""
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(_close(x, y) for x, y in zip(a, b, strict=True))
    if _is_real(a) and _is_real(b):
        return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)
    return same(a, b)


def _is_real(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
