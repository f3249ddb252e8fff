"""Self-describing fields: one table feeds defaults, help, docs, `skeltune new` and the tests.

A field says its published default, a line of prose, and (where a search of it makes sense) the range to draw from.
The range is a suggestion to the author of a search space, not a limit; limits are checked in ``__post_init__``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from methods.errors import InputError

KINDS = ("uniform", "log", "int", "near_one", "choice")


@dataclass(frozen=True)
class Range:
    """A suggested domain: ``kind`` is a word of the space language, ``bounds`` its arguments."""

    kind: str
    bounds: tuple[Any, ...]

    def ends(self) -> tuple[Any, Any]:
        """The two extreme values (for a choice: the first and the last)."""
        return self.bounds[0], self.bounds[-1]


def tunable(
    default: Any,
    *,
    doc: str,
    uniform: tuple[float, float] | None = None,
    log: tuple[float, float] | None = None,
    int: tuple[int, int] | None = None,  # the space language's own word, shadowing on purpose
    near_one: tuple[float, float] | None = None,
    choice: tuple[Any, ...] | None = None,
) -> Any:
    """Declare a dataclass field with its published ``default``, one line of ``doc`` and at most one suggested range."""
    given = {"uniform": uniform, "log": log, "int": int, "near_one": near_one, "choice": choice}
    ranges = [Range(kind, tuple(bounds)) for kind, bounds in given.items() if bounds is not None]
    if len(ranges) > 1:
        raise TypeError(f"a field takes one range, got {[r.kind for r in ranges]}")
    metadata = {"doc": doc, "range": ranges[0] if ranges else None}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class FieldInfo:
    """What is known of one field: name, type as written, default, prose, suggested range."""

    name: str
    annotation: str
    default: Any
    doc: str
    range: Range | None


def field_table(config: type[Any]) -> dict[str, FieldInfo]:
    """Name -> :class:`FieldInfo` of every field of a config dataclass, in order of declaration."""
    table = {}
    for f in dataclasses.fields(config):
        annotation = f.type if isinstance(f.type, str) else getattr(f.type, "__name__", str(f.type))
        table[f.name] = FieldInfo(f.name, annotation, f.default, f.metadata.get("doc", ""), f.metadata.get("range"))
    return table


def require(condition: bool, message: str) -> None:
    """Raise :class:`InputError` with ``message`` unless ``condition`` holds: never an ``assert`` for a user's value."""
    if not condition:
        raise InputError(message)


def replace(config: Any, changes: Mapping[str, Any]) -> Any:
    """``dataclasses.replace`` from a mapping."""
    return dataclasses.replace(config, **dict(changes))
