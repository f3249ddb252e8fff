"""Faults that point at a line of the user's file, and the one exception that carries all of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from methods.errors import InputError

WIDEST = 160  # characters of a source line that are shown


@dataclass(frozen=True)
class Place:
    """Where something stands: line and column from 1, and how many characters the caret underlines."""

    line: int
    col: int
    width: int = 1


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong, and where; ``snippet`` is the source line with a caret under it, or empty."""

    file: str
    line: int
    col: int
    message: str
    snippet: str = ""

    def __str__(self) -> str:
        head = f"{self.file}:{self.line}:{self.col}: {self.message}"
        return f"{head}\n{self.snippet}" if self.snippet else head


class ConfigError(InputError):
    """Everything that is wrong with one file; the message shows each fault with its line and a caret."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.where: tuple[Fault, ...] = tuple(faults)
        super().__init__(*(str(fault) for fault in self.where))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[tuple[Fault, ...]]]:
        return (ConfigError, (self.where,))  # the default would hand the joined text to __init__


def snippet(text: str, place: Place) -> str:
    """The source line ``text`` with its number, and a caret line under ``place``; long lines are cut to a window."""
    text = "".join(c if c.isprintable() or c == "\t" else "?" for c in text)
    start = place.col - 1
    cut = max(0, start - WIDEST // 2) if len(text) > WIDEST else 0
    shown, start = text[cut : cut + WIDEST], start - cut
    width = max(1, min(place.width, len(shown) - start))
    # Tabs are kept under the line, so that the caret stands right whatever the terminal makes of them.
    indent = "".join("\t" if c == "\t" else " " for c in shown[:start].ljust(start))
    return f"{place.line:>5} | {shown.rstrip()}\n      | {indent}{'^' * width}"
