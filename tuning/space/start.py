"""``start_from``: partial configs, all values, that a search begins with."""

from __future__ import annotations

from typing import Any

from tuning.config.errors import Place
from tuning.config.yaml_source import Leaf, Listing, Node, Report, Table
from tuning.space.domains import Fixed, value_text
from tuning.space.fields import Written
from tuning.space.outline import read_outline
from tuning.space.space import METHOD, Branch, Slot, Space, Start, fill_start

PUBLISHED = "published"


def read_starts(node: Node | None, space: Space | None, report: Report) -> tuple[Start, ...]:
    """The starts that ``start_from`` lists; ``published`` stands for one start a method of the space.

    Where the space is broken (None) names and types are still checked, so that all faults come at once.
    """
    starts: list[Start] = []
    for item in node.items if isinstance(node, Listing) else ():
        if isinstance(item, Leaf) and item.value == PUBLISHED:
            starts += [fill_start(branch, {}) for branch in (space.branches if space else ())]
        elif isinstance(item, Table):
            if space is None:
                _check_start(item, report)
                continue
            start = _read_start(item, space, report)
            if start is not None:
                starts.append(start)
        else:
            report.add(item.place, f"an entry of start_from is the word {PUBLISHED}, or a partial config of values")
    return tuple(dict.fromkeys(starts))


def _check_start(item: Table, report: Report) -> None:
    if item.get(METHOD) is not None:
        read_outline(item, report)


def _read_start(item: Table, space: Space, report: Report) -> Start | None:
    before = len(report.faults)
    if item.get(METHOD) is None and len(space.branches) == 1:
        at = item.place
        item = Table(at, ((METHOD, at, Leaf(at, space.methods[0])), *item.entries))
    if item.get(METHOD) is None:
        report.add(item.place, f"say which method this starts with: method: {{{space.methods[0]}: {{...}}}}")
        return None
    use = space.branches[0].base.streams.use
    outline = read_outline(item, report, default_use=use)
    if len(report.faults) > before or not outline.branches:
        return None
    if len(outline.branches) > 1:
        report.add(item.key_place(METHOD), "a start is one method; write one entry for each")
        return None
    entry, key, own = outline.branches[0]
    if entry.name not in space.methods:
        report.add(key, f"method '{entry.name}' is not in this space, which has {', '.join(space.methods)}")
        return None
    branch = space.branch(entry.name)
    given: dict[tuple[str, str], Any] = {}
    for part, fields in (*outline.shared.items(), *own.items()):
        for name, written in fields.items():
            if _fits(branch, part, name, written, report):
                given[part, name] = written.domain.midpoint()
    return fill_start(branch, given) if len(report.faults) == before else None


def _fits(branch: Branch, part: str, name: str, written: Written, report: Report) -> bool:
    slot = next((s for s in branch.slots if (s.part, s.field) == (part, name)), None)
    if slot is None:
        holder = getattr(branch.base, part) if part else branch.base
        slot = Slot(part, name, "", Fixed(getattr(holder, name)), None, "")
    place: Place = written.place
    if not isinstance(written.domain, Fixed):
        report.add(place, f"'{slot.label}': start_from takes values, not domains")
        return False
    value = written.domain.fixed
    if not slot.domain.contains(value):
        what = slot.domain.describe().removeprefix("= ")
        says = f"is fixed at {what}" if isinstance(slot.domain, Fixed) else f"is drawn from {what}"
        report.add(place, f"'{slot.label}' {says} in this space, so it cannot start at {value_text(value)}")
        return False
    return True
