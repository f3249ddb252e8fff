"""A small language for what a mapping may hold, and the check of a tree of nodes against it, fault by fault.

``{"name!": TEXT, "ports": [{"port": WHOLE}]}``: keys and what stands under them; ``!`` marks a required one, ``[X]`` a
list of X, :class:`MapOf` a mapping with keys of the user's own, :class:`Words` one of a few words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from methods.errors import did_you_mean
from tuning.config.errors import Place
from tuning.config.yaml_source import Leaf, Listing, Node, Report, Table


@dataclass(frozen=True)
class Words:
    """One of these words."""

    words: tuple[str, ...]


@dataclass(frozen=True)
class MapOf:
    """A mapping with keys of the user's own."""

    value: Any


TEXT, WHOLE, NUMBER, FLAG, QUANTITY, ANYTHING = "text", "whole", "number", "flag", "quantity", "anything"
_SAID = {
    TEXT: "a word (put it in quotes if it looks like a number)",
    WHOLE: "a whole number",
    NUMBER: "a number",
    FLAG: "true or false",
    QUANTITY: "a whole number, or a quantity in quotes such as '500m' or 16Gi",
}
_QUANTITY = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[numkMGTPE]|[KMGTPE]i|[eE][+-]?\d+)?")


def check_node(node: Node, table: Any, report: Report, trail: str = "", ignored: str = "") -> None:
    """Report all that ``node`` has and ``table`` does not allow; ``trail`` is the way to it, in words with dots.

    ``ignored`` ends the message for unknown keys: what becomes of them.
    """
    if table == ANYTHING:
        return
    if isinstance(table, Mapping | MapOf):
        if not isinstance(node, Table):
            _wrong(node, report, trail, "a mapping, {...}")
        elif isinstance(table, MapOf):
            for key, _, value in node.entries:
                check_node(value, table.value, report, _join(trail, key), ignored)
        else:
            _check_table(node, table, report, trail, ignored)
    elif isinstance(table, list):
        if not isinstance(node, Listing):
            _wrong(node, report, trail, "a list, [...]")
        else:
            for index, item in enumerate(node.items):
                check_node(item, table[0], report, f"{trail}[{index}]", ignored)
    else:
        _check_leaf(node, table, report, trail)


def _check_table(node: Table, table: Mapping[str, Any], report: Report, trail: str, ignored: str) -> None:
    known = {key.removesuffix("!"): value for key, value in table.items()}
    for key, place, value in node.entries:
        if key in known:
            check_node(value, known[key], report, _join(trail, key), ignored)
        else:
            report.add(place, unknown_key(key, trail, known) + ignored)
    for key in table:
        if key.endswith("!") and key[:-1] not in node.words:
            report.add(node.place, f"{_quoted(trail)} needs '{key[:-1]}'")


def _check_leaf(node: Node, table: Any, report: Report, trail: str) -> None:
    value = node.value if isinstance(node, Leaf) else node
    if isinstance(table, Words):
        if value not in table.words:
            near = did_you_mean(str(value), table.words) if isinstance(value, str) else ""
            near = near if "mean" in near else ""
            _wrong(node, report, trail, " or ".join(table.words), near)
        return
    number = isinstance(value, int | float) and not isinstance(value, bool)
    right = {
        TEXT: isinstance(value, str),
        WHOLE: isinstance(value, int) and not isinstance(value, bool),
        NUMBER: number,
        FLAG: isinstance(value, bool),
        QUANTITY: (isinstance(value, int) and number) or (isinstance(value, str) and bool(_QUANTITY.fullmatch(value))),
    }
    if not right[table]:
        _wrong(node, report, trail, _SAID[table])


def unknown_key(key: str, trail: str, known: Mapping[str, Any] | Iterator[str]) -> str:
    """The words for a key that nobody knows."""
    near = did_you_mean(key, known)
    return f"unknown key '{key}' {f'in {_quoted(trail)}' if trail else 'at the top of the file'}{near}"


def show(node: Node) -> str:
    """What stands there, short enough for a message."""
    if isinstance(node, Table):
        return "a mapping"
    if isinstance(node, Listing):
        return "a list"
    value = node.value if isinstance(node, Leaf) else None
    text = "nothing" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def find(node: Node | None, *way: str | int) -> Node | None:
    """The node at the end of ``way``, or None."""
    for part in way:
        if isinstance(node, Table) and isinstance(part, str):
            node = node.get(part)
        elif isinstance(node, Listing) and isinstance(part, int) and part < len(node.items):
            node = node.items[part]
        else:
            return None
    return node


def word(node: Node | None) -> str:
    """The text of a leaf; empty for anything else."""
    return node.value if isinstance(node, Leaf) and isinstance(node.value, str) else ""


def whole(node: Node | None) -> int | None:
    """The whole number of a leaf, or None."""
    value = node.value if isinstance(node, Leaf) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def items(node: Node | None) -> tuple[Node, ...]:
    """What a list holds; nothing for anything else."""
    return node.items if isinstance(node, Listing) else ()


def entries(node: Node | None) -> tuple[tuple[str, Place, Node], ...]:
    """What a mapping holds; nothing for anything else."""
    return node.entries if isinstance(node, Table) else ()


def as_json(node: Node) -> Any:
    """The node as dicts, lists and scalars, as JSON Schema wants it."""
    if isinstance(node, Table):
        return {key: as_json(value) for key, _, value in node.entries}
    if isinstance(node, Listing):
        return [as_json(item) for item in node.items]
    return node.value if isinstance(node, Leaf) else None


def _wrong(node: Node, report: Report, trail: str, wanted: str, near: str = "") -> None:
    report.add(node.place, f"{_quoted(trail)} must be {wanted}, got {show(node)}{near}")


def _quoted(trail: str) -> str:
    return f"'{trail}'" if trail else "this document"


def _join(trail: str, key: str) -> str:
    return f"{trail}.{key}" if trail else key
