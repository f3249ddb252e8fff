"""YAML text -> a tree of nodes that know their places. No Python object is ever built from a tag.

PyYAML's own reading is YAML 1.1, where ``1e-3`` is text, ``no`` is false and the last of two equal keys wins. Here
plain scalars follow YAML 1.2's core schema, equal keys are faults, tags are refused, and aliases cannot blow up.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from methods.errors import InputError
from tuning.config.errors import ConfigError, Fault, Place, snippet

LARGEST_FILE = 256 * 1024  # characters; the largest shipped space is far below
DEEPEST = 40  # nested lists and mappings
MOST_NODES = 20_000  # after aliases are followed
LARGEST_INT = 2**63

Plain = None | bool | int | float | str

_BREAKS = re.compile(r"\r\n|[\n\r\x85\u2028\u2029]")  # what PyYAML counts as the end of a line
_TAG = "tag:yaml.org,2002:"
# The core schema of YAML 1.2, section 10.3.2.
CORE_RESOLVERS = (
    (_TAG + "null", re.compile(r"^(?:~|null|Null|NULL|)$")),
    (_TAG + "bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")),
    (_TAG + "int", re.compile(r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$")),
    (
        _TAG + "float",
        re.compile(
            r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
        ),
    ),
)


@dataclass(frozen=True)
class Node:
    """Anything in the tree; ``place`` is where it begins."""

    place: Place


@dataclass(frozen=True)
class Leaf(Node):
    """A scalar."""

    value: Plain


@dataclass(frozen=True)
class Listing(Node):
    """A list."""

    items: tuple[Node, ...]


@dataclass(frozen=True)
class Table(Node):
    """A mapping; keys are words, each with its own place."""

    entries: tuple[tuple[str, Place, Node], ...]

    def get(self, key: str) -> Node | None:
        """The value under ``key``, or None."""
        return next((node for name, _, node in self.entries if name == key), None)

    def key_place(self, key: str) -> Place:
        """Where the word ``key`` stands (the mapping's own place when it has no such key)."""
        return next((place for name, place, _ in self.entries if name == key), self.place)

    @property
    def words(self) -> tuple[str, ...]:
        """The keys, in the order of the file."""
        return tuple(name for name, _, _ in self.entries)


def plain(node: Node) -> Any:
    """The node as dicts, tuples and scalars."""
    if isinstance(node, Table):
        return {key: plain(value) for key, _, value in node.entries}
    if isinstance(node, Listing):
        return tuple(plain(item) for item in node.items)
    return node.value if isinstance(node, Leaf) else None


@dataclass
class Report:
    """Collects faults of one text; nothing is raised before the whole text was looked at."""

    file: str
    text: str
    faults: list[Fault] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lines = _BREAKS.split(self.text)

    def add(self, place: Place, message: str) -> None:
        """Note one fault; the same words at the same place are noted once."""
        line = self._lines[place.line - 1] if 0 < place.line <= len(self._lines) else ""
        fault = Fault(self.file, place.line, place.col, message, snippet(line, place) if line.strip() else "")
        if fault not in self.faults:
            self.faults.append(fault)

    def raise_if_any(self) -> None:
        """Raise :class:`ConfigError` with all faults, in the order of the file."""
        if self.faults:
            raise ConfigError(sorted(self.faults, key=lambda f: (f.line, f.col)))


def read_file(path: Path) -> str:
    """The text of ``path``. Raises ``InputError`` for what is no readable UTF-8 file."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: this is a folder, not a YAML file") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8", "replace")
        lines = _BREAKS.split(before)
        message = f"this is not UTF-8 (byte 0x{raw[error.start]:02x}); save the file as UTF-8"
        raise ConfigError([Fault(str(path), len(lines), len(lines[-1]) + 1, message)]) from None


def parse_yaml(text: str, file: str) -> tuple[Report, Table | None]:
    """Read ``text`` into a tree; the root is None where there is none to speak of, and the report says why."""
    report = Report(file, text)
    root = parse_node(text, report)
    if root is None:
        return report, None
    if isinstance(root, Table):
        return report, root
    report.add(root.place, "a search space is a mapping of sections (format, name, data, search, ...)")
    return report, None


def parse_node(text: str, report: Report) -> Node | None:
    """The tree of ``text``, whatever its root is; None where there is none to speak of, and ``report`` says why."""
    if len(text) > LARGEST_FILE:
        report.add(Place(1, 1), f"the file has {len(text)} characters; a search space has at most {LARGEST_FILE}")
        return None
    composed = _compose(text, report)
    if composed is None:
        return None
    builder = _Builder(report)
    root = builder.build(composed)
    return None if builder.full else root


class _Loader(yaml.SafeLoader):
    """Composes nodes only; resolves plain scalars by YAML 1.2, refuses tags and bottomless nesting."""

    yaml_implicit_resolvers = {None: list(CORE_RESOLVERS)}  # noqa: RUF012  (PyYAML's own class attribute)
    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise yaml.MarkedYAMLError(problem=f"tags are not allowed here: '{tag}'", problem_mark=event.start_mark)
        if self.depth >= DEEPEST:
            raise yaml.MarkedYAMLError(problem=f"nested deeper than {DEEPEST} levels", problem_mark=event.start_mark)
        self.depth += 1
        try:
            return super().compose_node(parent, index)  # type: ignore[no-untyped-call]
        finally:
            self.depth -= 1


def _compose(text: str, report: Report) -> yaml.Node | None:
    try:
        loader = _Loader(text)
    except yaml.reader.ReaderError as error:
        report.add(_place_at(text, error.position), _unprintable(error))
        return None
    try:
        root = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(mark.line + 1, mark.column + 1) if mark else Place(1, 1)
        # PyYAML's own words ("mapping values are not allowed here") are what people search the web for.
        context = f" ({error.context})" if error.context else ""
        report.add(place, f"{error.problem or 'this is not YAML'}{context}")
        return None
    except yaml.reader.ReaderError as error:
        report.add(_place_at(text, error.position), _unprintable(error))
        return None
    except (ValueError, OverflowError):  # an escape beyond Unicode, e.g. "\U00110000"
        report.add(Place(loader.line + 1, max(1, loader.column)), "this character or number cannot be read")
        return None
    if root is None:
        report.add(Place(1, 1), "the file is empty; `skeltune new` writes a complete one")
    return root  # type: ignore[no-any-return]


def _unprintable(error: yaml.reader.ReaderError) -> str:
    code = error.character if isinstance(error.character, int) else ord(str(error.character)[:1] or "?")
    return f"the character U+{code:04X} is not allowed in YAML"


def _place_at(text: str, position: int) -> Place:
    lines = _BREAKS.split(text[:position])
    return Place(len(lines), len(lines[-1]) + 1)


class _Builder:
    """PyYAML nodes -> ours: values read, keys checked, aliases followed within bounds."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.count = 0
        self.open: set[int] = set()  # nodes being built: an alias to one of them is a circle
        self.full = False

    def build(self, node: yaml.Node) -> Node | None:
        place = _place(node)
        self.count += 1
        if self.full:
            return None
        if self.count > MOST_NODES:
            self.full = True
            self.report.add(place, f"more than {MOST_NODES} values once aliases are followed")
            return None
        if isinstance(node, yaml.ScalarNode):
            return self._leaf(node, place)
        if id(node) in self.open:
            self.report.add(place, "an alias may not lie inside what it stands for")
            return None
        self.open.add(id(node))
        built = self._listing(node, place) if isinstance(node, yaml.SequenceNode) else self._table(node, place)
        self.open.discard(id(node))
        return built

    def _listing(self, node: yaml.SequenceNode, place: Place) -> Node:
        return Listing(place, tuple(item for item in map(self.build, node.value) if item is not None))

    def _table(self, node: yaml.Node, place: Place) -> Node:
        entries: dict[str, tuple[str, Place, Node]] = {}
        for key_node, value_node in node.value:
            at = _place(key_node)
            key = self._key(key_node, at)
            value = self.build(value_node)
            if key is None or value is None:
                continue
            if key in entries:
                first = entries[key][1].line
                self.report.add(at, f"'{key}' is given twice; the first is on line {first}")
                continue
            entries[key] = (key, at, value)
        return Table(place, tuple(entries.values()))

    def _key(self, node: yaml.Node, place: Place) -> str | None:
        if not isinstance(node, yaml.ScalarNode):
            self.report.add(place, "a key must be one word, not a list or a mapping")
            return None
        key = self._leaf(node, place)
        if key is None:
            return None
        if key.value == "<<":
            self.report.add(place, "merge keys (<<) are not part of YAML 1.2; write the settings out")
            return None
        if not isinstance(key.value, str) or not key.value:
            self.report.add(place, f"a key must be a word, got '{node.value}'; put it in quotes if it is meant as one")
            return None
        return key.value

    def _leaf(self, node: yaml.ScalarNode, place: Place) -> Leaf | None:
        kind, text = node.tag.removeprefix(_TAG), node.value
        if kind == "null":
            return Leaf(place, None)
        if kind == "bool":
            return Leaf(place, text.lower() == "true")
        if kind in ("int", "float"):
            number = _number(text, kind)
            if number is None:
                shown = text if len(text) <= 40 else text[:40] + "..."
                self.report.add(place, f"{shown} is not a finite number that fits 64 bits")
                return None
            return Leaf(place, number)
        if any(0xD800 <= ord(c) <= 0xDFFF for c in text):
            self.report.add(place, "half of a surrogate pair is not text")
            return None
        return Leaf(place, text)


def _number(text: str, kind: str) -> int | float | None:
    """The finite number that ``text`` spells, or None."""
    if kind == "int":
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        if len(text) > 64:
            return None
        whole = int(text, base)
        return whole if abs(whole) < LARGEST_INT else None
    if "inf" in text.lower() or "nan" in text.lower():
        return None
    real = float(text)
    return real if abs(real) != float("inf") else None


def _place(node: yaml.Node) -> Place:
    start, end = node.start_mark, node.end_mark
    width = end.column - start.column if end.line == start.line else 1 << 16  # clamped to the line when shown
    return Place(start.line + 1, start.column + 1, max(1, width))
