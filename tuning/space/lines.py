"""How a parameter stands in a written search space: its name, what it is drawn from, and a comment that says why."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from methods.fields import FieldInfo, Range
from tuning.space.domains import value_text

WIDTH = 120  # characters of a line
COLUMN = 60  # comments stand side by side up to here
NARROW = 40  # less room than this beside a line is too little for a long comment


@dataclass(frozen=True)
class Line:
    """``name: value   # comment``."""

    name: str
    value: str
    comment: str = ""


def domain_text(span: Range) -> str:
    """A domain as the grammar spells it: ``{log: [0.03, 0.5]}``."""
    return f"{{{span.kind}: {value_text(list(span.bounds))}}}"


def holds(span: Range, value: Any) -> bool:
    """Whether a domain can give ``value``."""
    if span.kind == "choice":
        return value in span.bounds
    low, high = span.ends()
    return bool(low <= value <= high)


def drawn(field: FieldInfo, published: Any, span: Range | None = None, why: str = "") -> Line:
    """A parameter drawn from ``span`` (default: as its method suggests), the published value beside it.

    ``why`` takes the place of the field's own line of prose.
    """
    span = span or field.range
    value = value_text(published) if span is None else domain_text(span)
    return Line(field.name, value, f"published {short(published)}; {why or field.doc}")


def fixed(field: FieldInfo, published: Any, value: Any, why: str = "") -> Line:
    """A parameter at one value, the published one named where it is another."""
    said = "published" if value == published else f"published {short(published)}"
    return Line(field.name, value_text(value), f"{said}; {why or field.doc}")


def block(lines: Sequence[Line], indent: int) -> list[str]:
    """Lines with their comments in one column; a long comment goes on below itself, or stands above a long line."""
    pad = " " * indent
    plain = [f"{pad}{line.name}: {line.value}" for line in lines]
    column = max((len(text) for text in plain if len(text) <= COLUMN), default=0) + 3
    written = []
    for text, line in zip(plain, lines, strict=True):
        here = max(column, len(text) + 3)
        if WIDTH - here < NARROW and here + 2 + len(line.comment) > WIDTH:
            written += [*remark(line.comment, indent), text]
            continue
        said = _wrapped(line.comment, max(WIDTH - here - 2, NARROW))
        written += [f"{(text if i == 0 else '').ljust(here)}# {part}" for i, part in enumerate(said)] or [text]
    return written


def remark(text: str, indent: int = 0) -> list[str]:
    """A comment of as many lines as it needs."""
    return [" " * indent + "# " + part for part in _wrapped(text, WIDTH - indent - 2)]


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False, break_long_words=False)


def flow(name: str, settings: Mapping[str, str], indent: int, comment: str = "") -> list[str]:
    """A section in one go, ``optim: {lr: {log: [0.01, 0.3]}}``; where that is too long, from the next line on."""
    inside = "{" + ", ".join(f"{key}: {value}" for key, value in settings.items()) + "}"
    if indent + len(name) + 2 + len(inside) <= WIDTH:
        return block([Line(name, inside, comment)], indent)
    pad = " " * (indent + 2)
    folded = textwrap.wrap(inside, WIDTH, initial_indent=pad, subsequent_indent=pad + " ", break_on_hyphens=False)
    return [*remark(comment, indent), f"{' ' * indent}{name}:", *folded]


def as_published(names: Iterable[str], config: Any, whose: str = "") -> str:
    """The parameters that a file leaves alone, for a comment."""
    listed = ", ".join(f"{name} {short(getattr(config, name))}" for name in names)
    return f"{whose} as published: {listed}".lstrip()


def short(value: Any) -> str:
    """A value as a comment names it, numbers to four digits."""
    return f"{value:.4g}" if isinstance(value, float) else value_text(value)
