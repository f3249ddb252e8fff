"""The configurations of a file, checked against a run's own space before they are enqueued in it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tuning.config.errors import Place
from tuning.config.yaml_source import Listing, Node, Report, Table, parse_node, read_file
from tuning.space.domains import value_text
from tuning.space.load import check_text
from tuning.space.space import METHOD, Space, Start
from tuning.space.start import read_starts

_NOTE = "start_from: "  # how notes of that section begin


def read_configs(path: Path, space: Space) -> list[Start]:
    """Whole draws for every configuration of ``path``: an exported one, or entries as ``start_from`` takes them.

    Raises ``ConfigError`` with the place of every value that ``space`` cannot reach, ``InputError`` for no such file.
    """
    text = read_file(path)
    report = Report(str(path), text)
    root = parse_node(text, report)
    report.raise_if_any()
    if isinstance(root, Table) and isinstance(root.get("search"), Table):
        found = _exported(path, text, root, space, report)
    else:
        items = root.items if isinstance(root, Listing) else (root,) if root is not None else ()
        found = [start for item in items for start in _entry(item, space, report)]
    if not found and not report.faults:
        report.add(Place(1, 1), "there is no configuration in this file")
    report.raise_if_any()
    return [
        dataclasses.replace(start, notes=tuple(note.removeprefix(_NOTE) for note in start.notes))
        for start in dict.fromkeys(found)
    ]


def _entry(item: Node, space: Space, report: Report) -> list[Start]:
    """One entry; ``published`` stands for one of each method."""
    starts = read_starts(Listing(item.place, (item,)), space, report)
    for start in starts:
        try:
            space.resolve(dict(start.draws))
        except (ValueError, TypeError, ArithmeticError) as error:  # limits that tie two parameters together
            report.add(item.place, str(error))
    return list(starts)


def _exported(path: Path, text: str, root: Table, space: Space, report: Report) -> list[Start]:
    """A whole file with nothing left to draw; what it does not write is published there, not filled from here."""
    search, place = root.get("search"), root.key_place("search")
    fixed = check_text(text, file=str(path), origin=str(path.resolve().parent))[1]
    starts = read_starts(Listing(place, (search,)) if search else None, space, report)
    if report.faults or not starts:
        return []
    start = starts[0]
    config = fixed.resolve({METHOD: dict(start.draws)[METHOD]})
    base = space.branch(config.method).base
    try:
        draws = space.invert(dataclasses.replace(config, epochs=base.epochs, preprocess=base.preprocess))
    except ValueError as error:
        for fault in getattr(error, "faults", (str(error),)):
            report.add(place, fault)
        return []
    notes = [
        f"{name} is {value_text(there)} there and {value_text(here)} in this run, as which it is trained"
        for name, there, here in (
            ("schedule.max", config.epochs, base.epochs),
            ("data.preprocess", config.preprocess, base.preprocess),
        )
        if there != here
    ]
    return [Start(tuple(draws.items()), tuple(notes))]
