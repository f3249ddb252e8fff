"""A search space with some of its words changed from outside: `KEY=VALUE`, a dotted path in the YAML and a YAML value.

A changed space goes through the schema that a file goes through; what is wrong is said in one line, with the option.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from methods.errors import InputError, did_you_mean
from tuning.config.errors import Place
from tuning.config.read import read_spec
from tuning.config.schema import SearchSpec
from tuning.config.yaml_source import Node, Report, Table, parse_yaml, read_file
from tuning.space import Space, load_search

SECTIONS = ("schedule", "sampler", "budget", "objectives")  # what a scheduler is made of; the rest is the problem
AS_WRITTEN = "space"  # the variant without changes of its own
_HERE = Place(1, 1)
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")

Change = tuple[tuple[str, ...], Node]  # path of keys, value


@dataclass(frozen=True)
class Variant:
    """One way to search: ``changes`` as they were given, ``spec`` with them made. ``option``: for messages."""

    name: str
    changes: tuple[str, ...]
    spec: SearchSpec
    option: str


def read_variants(path: Path, sets: Sequence[str], variants: Sequence[str]) -> tuple[Space, list[Variant]]:
    """The space of ``path`` as written but for ``sets``, then each of ``variants`` (``NAME:KEY=VALUE,...``).

    Raises ``InputError`` with every fault of the file, or a line for every fault of the options.
    """
    _, space = load_search(path)
    _, root = parse_yaml(read_file(path), str(path))
    if root is None:  # cannot be: the file was just read
        raise InputError(f"{path}: this search space cannot be read")
    faults: list[str] = []
    base = [text for given in sets for text in split(given)]
    whole = _changed(root, base, "--set", faults)
    made = [] if faults else [_variant(AS_WRITTEN, base, whole, "--set" if base else str(path), path, faults)]
    if not faults:
        for given in variants:
            name, colon, rest = given.partition(":")
            option = f"--variant {name}"
            if not colon or not _NAME.fullmatch(name) or name in {v.name for v in made if v}:
                faults.append(_named_wrong(given, name, colon))
                continue
            changes = list(split(rest))
            before = len(faults)
            changed = _changed(whole, changes, option, faults)
            if len(faults) == before:
                made.append(_variant(name, changes, changed, option, path, faults))
    if faults:
        raise InputError(*faults)
    return space, [variant for variant in made if variant is not None]


def _named_wrong(given: str, name: str, colon: str) -> str:
    if not colon or not _NAME.fullmatch(name):
        return f"--variant {given}: write NAME:KEY=VALUE,KEY=VALUE with a plain word as the name"
    why = "the space as it is written" if name == AS_WRITTEN else "another variant"
    return f"--variant {given}: the name '{name}' is taken by {why}"


def _variant(
    name: str, changes: Sequence[str], root: Table, option: str, path: Path, faults: list[str]
) -> Variant | None:
    report = Report(option, "")
    spec = read_spec(root, report, str(path.resolve().parent))
    if spec is not None:
        return Variant(name, tuple(changes), spec, option)
    faults += (f"{option}: {fault.message}" for fault in report.faults)
    return None


def _changed(root: Table, texts: Sequence[str], option: str, faults: list[str]) -> Table:
    for text in texts:
        try:
            path, value = change(text)
            root = put(root, path, value)
        except InputError as error:
            faults += (f"{option}: {fault}" for fault in error.faults)
    return root


def split(text: str) -> Iterator[str]:
    """``a=1,b=[2,3]`` -> ``a=1`` and ``b=[2,3]``: at commas outside of brackets."""
    depth, begin = 0, 0
    for place, letter in enumerate(text):
        depth += (letter in "[{") - (letter in "]}")
        if letter == "," and depth == 0:
            yield text[begin:place].strip()
            begin = place + 1
    if text[begin:].strip():
        yield text[begin:].strip()


def change(text: str) -> Change:
    """One ``KEY=VALUE``. Raises ``InputError`` for what is none, or names a section that is no scheduler's."""
    key, equals, value = text.partition("=")
    path = tuple(part.strip() for part in key.split("."))
    if not equals or not all(path):
        raise InputError(f"'{text}' is not KEY=VALUE, such as schedule.asha.rule=promote")
    if path[0] not in SECTIONS:
        near = did_you_mean(path[0], SECTIONS)
        raise InputError(f"'{key}' changes nothing in a simulation{near}")
    report, root = parse_yaml(f"value: {value}", text)
    node = None if root is None or report.faults else root.get("value")
    if node is None or root is None or len(root.entries) > 1:
        raise InputError(f"'{text}': the value is not YAML")
    return path, node


def put(root: Table, path: Sequence[str], value: Node) -> Table:
    """``root`` with ``value`` at ``path``; mappings on the way are made where there are none."""
    name, rest = path[0], path[1:]
    below = root.get(name)
    if rest:
        if below is not None and not isinstance(below, Table):
            raise InputError(f"'{name}' has no words below it, so there is no '{'.'.join(path)}'")
        value = put(below or Table(_HERE, ()), rest, value)
    entries = [entry if entry[0] != name else (name, entry[1], value) for entry in root.entries]
    if below is None:
        entries.append((name, _HERE, value))
    return Table(root.place, tuple(entries))
