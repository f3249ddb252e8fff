"""The outline of a ``search``: which sections and methods it names, each parameter checked for name, type and word."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from methods.errors import InputError, did_you_mean
from tuning.config.errors import Place
from tuning.config.yaml_source import Leaf, Listing, Node, Report, Table
from tuning.space.fields import Written, read_field, read_fields
from tuning.space.space import METHOD
from tuning.space.streams import read_streams

if TYPE_CHECKING:
    from methods.registry import MethodEntry

PRESET = "preset"
SHARED = ("augment", "encoder", "optim", "streams")  # sections beside `method`
NESTED = ("augment", "encoder", "optim")  # sections that a branch may hold too; there they win

Fields = dict[str, Written]


@dataclass
class Outline:
    """What a ``search`` (or an entry of ``start_from``) says, before methods' defaults are added."""

    shared: dict[str, Fields] = field(default_factory=dict)
    preset: str = "clean"
    branches: list[tuple[MethodEntry, Place, dict[str, Fields]]] = field(default_factory=list)


def read_outline(search: Table, report: Report, default_use: tuple[str, ...] = ("joint",)) -> Outline:
    """Everything that ``search`` names, each parameter checked for name, type and word."""
    outline = Outline()
    methods = [
        (entry, key, node) for name, key, node in _method_nodes(search, report) if (entry := _entry(name, key, report))
    ]
    for name, key, section in search.entries:
        if name == METHOD:
            continue
        if name == PRESET:
            outline.preset = _preset(section, key, report)
            continue
        if name not in SHARED:
            known = (METHOD, PRESET, *SHARED)
            hint = "; it belongs under 'data' or into a branch" if name == "frames" else did_you_mean(name, known)
            report.add(key, f"unknown key '{name}' in 'search'{hint}")
        elif not isinstance(section, Table):
            report.add(key, f"'{name}' is a mapping of its parameters")
        else:
            entries = [entry for entry, _, _ in methods]
            outline.shared[name] = _section(name, section, report, entries, default_use)
    for entry, key, node in methods:
        outline.branches.append((entry, key, _read_branch(entry, key, node, report)))
    return outline


def _preset(node: Node, key: Place, report: Report) -> str:
    """``preset: paper_code`` takes every quirk of the official codes; ``clean``, the default, none."""
    from methods.training.config import PRESETS

    value = node.value if isinstance(node, Leaf) else None
    if value not in PRESETS:
        shown = f", got {value!r}" if value is not None else ""
        report.add(key, f"'{PRESET}' is {' or '.join(PRESETS)}{shown}{did_you_mean(str(value), PRESETS)}")
        return PRESETS[0]
    return str(value)


def _section(
    name: str, node: Table, report: Report, entries: Sequence[MethodEntry], default_use: tuple[str, ...] = ("joint",)
) -> Fields:
    """One section, for the methods that it reaches."""
    if name == "streams":
        return read_streams(node, default_use, report)
    first, *others = _section_classes(name, entries)
    found = read_fields(node, first, f"of '{name}'", report)
    for other in others:
        for key in [key for key in found if key not in {f.name for f in dataclasses.fields(other)}]:
            text = f"'{key}' is no parameter of every method's encoder; put it into the branches of those that have it"
            report.add(found.pop(key).key, text)
    return found


def _section_classes(name: str, entries: Sequence[MethodEntry]) -> list[type[Any]]:
    """The config classes that a section is read as: one, but for encoders of different architectures."""
    from methods.augment.policy import AugmentConfig
    from methods.nn.encoder import EncoderConfig
    from methods.recipe import OptimConfig

    if name != "encoder":
        return [{"augment": AugmentConfig, "optim": OptimConfig}[name]]
    return list(dict.fromkeys(type(entry.recipe.encoder) for entry in entries)) or [EncoderConfig]


def _method_nodes(search: Table, report: Report) -> list[tuple[str, Place, Node | None]]:
    """(name, place, settings) of each method, from any of the three ways to write one."""
    node = search.get(METHOD)
    key = search.key_place(METHOD)
    if node is None:
        report.add(search.place, "'search' needs 'method': a name, or {one_of: {...}}")
        return []
    if isinstance(node, Leaf) and isinstance(node.value, str):
        return [(node.value, node.place, None)]
    if isinstance(node, Listing):
        names = ", ".join(f"{i.value}: {{}}" for i in node.items[:6] if isinstance(i, Leaf))
        report.add(
            node.place, f"'method': a bare list does not say how to draw; write {{one_of: {{{names or '...'}}}}}"
        )
        return []
    if not isinstance(node, Table) or not node.entries:
        report.add(key, "'method' is a name, or {one_of: {...}}")
        return []
    if "one_of" in node.words:
        return _one_of(node, report)
    if len(node.entries) > 1:
        report.add(key, f"'method' names {len(node.entries)} methods; put them under one_of")
    return [(name, at, settings) for name, at, settings in node.entries]


def _one_of(node: Table, report: Report) -> list[tuple[str, Place, Node | None]]:
    branches = node.get("one_of")
    for name, at, _ in node.entries:
        if name != "one_of":
            report.add(at, f"'{name}' stands beside one_of; put it below")
    if not isinstance(branches, Table) or not branches.entries:
        report.add(node.key_place("one_of"), "one_of takes a mapping of methods, {skeletonclr: {...}, ...}")
        return []
    return [(name, at, settings) for name, at, settings in branches.entries]


def _entry(name: str, place: Place, report: Report) -> MethodEntry | None:
    from methods.registry import get_method

    try:
        return get_method(name)
    except InputError as error:
        report.add(place, str(error))
        return None


def _read_branch(entry: MethodEntry, key: Place, node: Node | None, report: Report) -> dict[str, Fields]:
    """Part -> fields of one method: its own parameters, ``frames`` and nested sections."""
    if node is None or (isinstance(node, Leaf) and node.value is None):
        return {}
    if not isinstance(node, Table):
        report.add(key, f"method '{entry.name}' takes a mapping of its parameters, or nothing")
        return {}
    if node.get("streams") is not None:
        report.add(node.key_place("streams"), "'streams' belongs under 'search': it is one for all methods")
    found = {
        "params": read_fields(
            node, entry.config, f"of method '{entry.name}'", report, skip=("frames", "streams", *NESTED)
        )
    }
    frames = node.get("frames")
    if frames is not None:
        written = read_field("frames", node.key_place("frames"), frames, int, report)
        found[""] = {"frames": written} if written else {}
    for name in NESTED:
        section = node.get(name)
        if isinstance(section, Table):
            found[name] = _section(name, section, report, [entry])
        elif section is not None:
            report.add(node.key_place(name), f"'{name}' is a mapping of its parameters")
    return found
