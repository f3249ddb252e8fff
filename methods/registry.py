"""Name -> method. Built-ins come from a static table, strangers from entry points (`skeltune.methods`)."""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from methods.base import Method
from methods.errors import InputError, did_you_mean
from methods.recipe import Recipe

# The one line that a new method adds here; the module is imported at first use.
BUILT_IN = {
    "skeletonclr": "methods.skeletonclr",
    "skeletonbyol": "methods.skeletonbyol",
    "cmal": "methods.cmcs",
    "cmcs": "methods.cmcs",
    "crossclr": "methods.crossclr",
    "aimclr": "methods.aimclr",
    "skelemixclr": "methods.skelemixclr",
    "skelemixclr_plus": "methods.skelemixclr",
    "skeletonbt": "methods.pstl",
    "pstl": "methods.pstl",
    "scdnet": "methods.scdnet",
    "cmd": "methods.cmd",
    "crrl": "methods.crrl",
}

ENTRY_POINTS = "skeltune.methods"


@dataclass(frozen=True)
class MethodEntry:
    """A registered method: its class, the dataclass of its own settings, and its published recipe."""

    name: str
    cls: type[Method]
    config: type[Any]
    recipe: Recipe
    summary: str


_entries: dict[str, MethodEntry] = {}
_M = TypeVar("_M", bound=type[Method])


def register(name: str, *, config: type[Any], recipe: Recipe | None = None) -> Callable[[_M], _M]:
    """Class decorator: make a :class:`Method` known as ``name``. Raises ``InputError`` when the name is taken."""

    def keep(cls: _M) -> _M:
        known = _entries.get(name)
        taken = known.cls.__module__ if known is not None else BUILT_IN.get(name, cls.__module__)
        if taken != cls.__module__:
            raise InputError(f"two methods are called '{name}': {taken} and {cls.__module__}; rename one of them")
        module_doc = (importlib.import_module(cls.__module__).__doc__ or "").strip()
        summary = module_doc.splitlines()[0] if module_doc else ""
        _entries[name] = MethodEntry(name, cls, config, recipe or Recipe(), summary)
        return cls

    return keep


def _strangers() -> dict[str, str]:
    found: dict[str, str] = {}
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        if point.name in BUILT_IN:
            raise InputError(
                f"entry point '{point.name}' ({point.value}) takes the name of the built-in {BUILT_IN[point.name]}"
            )
        module = point.value.partition(":")[0]
        if found.setdefault(point.name, module) != module:
            raise InputError(f"two methods are called '{point.name}': {found[point.name]} and {module}; remove one")
    return found


def list_methods() -> tuple[str, ...]:
    """All known method names, sorted: built in, installed by others, and registered in this process."""
    return tuple(sorted({*BUILT_IN, *_strangers(), *_entries}))


def get_method(name: str) -> MethodEntry:
    """The entry of ``name``. Raises :class:`InputError` with the nearest known name when there is none."""
    if name not in _entries:
        module = BUILT_IN.get(name) or _strangers().get(name)
        if module is None:
            raise InputError(f"unknown method '{name}'{did_you_mean(name, list_methods())}")
        try:
            importlib.import_module(module)
        except ImportError as error:
            if name in BUILT_IN:
                raise
            raise InputError(f"method '{name}' cannot be imported from {module}: {error}") from error
    if name not in _entries:
        raise InputError(f"module {module} does not register a method called '{name}'")
    return _entries[name]
