"""One parameter of a file: is the name known, does the value fit the field's type, which domain is meant."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from methods.errors import InputError, did_you_mean
from tuning.config.errors import Place
from tuning.config.yaml_source import Leaf, Listing, Node, Report, Table, plain
from tuning.space.domains import RANGES, WORDS, Choice, Domain, Fixed, Int, Simplex, value_text
from tuning.space.types import Hint, coerce, hints_of, takes

Named = tuple[str, Place]  # a parameter's name, and where it stands


@dataclass(frozen=True)
class Written:
    """A parameter as the file has it: its domain, and the places where its rim values stand."""

    name: str
    domain: Domain
    key: Place
    place: Place
    ends: tuple[tuple[Any, Place], ...] = ()

    @property
    def free(self) -> bool:
        """Whether anything is drawn."""
        return bool(self.domain.draws(""))


def read_fields(
    table: Table, config: type[Any], owner: str, report: Report, skip: Iterable[str] = ()
) -> dict[str, Written]:
    """Every entry of ``table`` against the fields of ``config``; ``owner`` ends a message ("of method 'x'")."""
    hints = hints_of(config)
    found = {}
    for name, key, node in table.entries:
        if name in skip:
            continue
        if name not in hints:
            report.add(key, f"unknown parameter '{name}' {owner}{did_you_mean(name, hints)}")
            continue
        written = read_field(name, key, node, hints[name], report)
        if written is not None:
            found[name] = written
    return found


def read_field(name: str, key: Place, node: Node, hint: Hint, report: Report) -> Written | None:
    """One parameter; None where it is wrong, and then ``report`` says why."""
    if isinstance(node, Table):
        return _read_word(name, key, node, hint, report)
    value = plain(node)
    if isinstance(node, Listing) and not takes(hint, tuple):
        report.add(node.place, f"'{name}': a bare list does not say how to draw; {_suggest(value, hint)}")
        return None
    if value is None and not takes(hint, type(None)):
        report.add(key, f"'{name}' is empty; give it a value, or leave the line out to keep the published one")
        return None
    fitted = _fit(name, value, hint, node.place, report)
    return None if fitted is _WRONG else Written(name, Fixed(fitted), key, node.place)


_WRONG = object()


def _fit(name: str, value: Any, hint: Hint, place: Place, report: Report) -> Any:
    try:
        return coerce(value, hint)
    except InputError as error:
        report.add(place, f"'{name}' {error}")
        return _WRONG


def _suggest(value: Any, hint: Hint) -> str:
    """Which words suit a field's type, filled with what the user wrote where that is short and flat."""
    flat = isinstance(value, tuple) and 0 < len(value) <= 6 and not any(isinstance(v, tuple | dict) for v in value)
    inside = value_text(value) if flat else "[...]"
    words = ["choice"]
    if takes(hint, float) and not (flat and len(value) != 2):
        words = ["uniform", "log", "choice"]
    elif takes(hint, int) and not (flat and len(value) != 2):
        words = ["int", "choice"]
    return "write " + " or ".join(f"{{{word}: {inside}}}" for word in words)


def _read_word(name: str, key: Place, node: Table, hint: Hint, report: Report) -> Written | None:
    if len(node.entries) != 1:
        words = ", ".join(WORDS[:-1])
        report.add(node.place, f"'{name}' takes a value or one word of {words} with its list, as {{log: [0.01, 0.3]}}")
        return None
    word, at, argument = node.entries[0]
    if word in RANGES:
        return _read_range((name, key), (word, at), argument, hint, report)
    if word == Choice.word:
        return _read_choice((name, key), argument, hint, report)
    if word == Simplex.word:
        return _read_simplex((name, key), at, argument, hint, report)
    if word == "one_of":
        report.add(at, f"'{name}': one_of belongs to 'method' alone; among plain values write {{choice: [...]}}")
    else:
        report.add(at, f"'{name}': unknown word '{word}'{did_you_mean(word, WORDS[:-1])}")
    return None


def _read_range(named: Named, word: tuple[str, Place], argument: Node, hint: Hint, report: Report) -> Written | None:
    (name, key), cls, (spelled, at) = named, RANGES[word[0]], word
    if cls is Int and not takes(hint, int):
        fits = (
            " for a number write {uniform: [...]} or {log: [...]}" if takes(hint, float) else " write {choice: [...]}"
        )
        report.add(at, f"'{name}' is not a whole number;{fits}")
        return None
    if cls is not Int and not takes(hint, float):
        fits = "a whole number; write {int: [...]} or {choice: [...]}" if takes(hint, int) else "no number"
        report.add(at, f"'{name}' is {fits}{'' if takes(hint, int) else '; write {choice: [...]}'}")
        return None
    if not isinstance(argument, Listing) or len(argument.items) != 2:
        report.add(argument.place, f"'{name}': {spelled} takes [lowest, highest], got {_shown(argument)}")
        return None
    low, high = (
        _fit(f"{name}: a bound of {spelled}", plain(item), int if cls is Int else float, item.place, report)
        for item in argument.items
    )
    if low is _WRONG or high is _WRONG:
        return None
    domain = _construct(name, lambda: cls(low, high), argument.place, report)
    ends = ((low, argument.items[0].place), (high, argument.items[1].place))
    return None if domain is None else Written(name, domain, key, argument.place, ends)


def _read_choice(named: Named, argument: Node, hint: Hint, report: Report) -> Written | None:
    name, key = named
    if not isinstance(argument, Listing):
        report.add(argument.place, f"'{name}': choice takes a list of options, got {_shown(argument)}")
        return None
    fitted = [_fit(f"{name}: an option of choice", plain(i), hint, i.place, report) for i in argument.items]
    if any(value is _WRONG for value in fitted):
        return None
    domain = _construct(name, lambda: Choice(tuple(fitted)), argument.place, report)
    ends = tuple((value, item.place) for value, item in zip(fitted, argument.items, strict=True))
    return None if domain is None else Written(name, domain, key, argument.place, ends)


def _read_simplex(named: Named, at: Place, argument: Node, hint: Hint, report: Report) -> Written | None:
    name, key = named
    try:
        coerce((0.5, 0.5), hint)
    except InputError:
        report.add(at, f"'{name}' is no set of weights; simplex does not fit it")
        return None
    words = isinstance(argument, Listing) and all(
        isinstance(i, Leaf) and isinstance(i.value, str) for i in argument.items
    )
    if not words:
        report.add(argument.place, f"'{name}': simplex takes the list of names it weighs, got {_shown(argument)}")
        return None
    domain = _construct(name, lambda: Simplex(plain(argument)), argument.place, report)
    return None if domain is None else Written(name, domain, key, argument.place)


def _construct(name: str, make: Any, place: Place, report: Report) -> Domain | None:
    try:
        return make()  # type: ignore[no-any-return]  # each caller makes a Domain
    except InputError as error:
        report.add(place, f"'{name}': {error}")
        return None


def _shown(node: Node) -> str:
    if isinstance(node, Table):
        return "a mapping"
    text = value_text(plain(node)) if not isinstance(node, Leaf) or node.value is not None else "nothing"
    return text if len(text) <= 60 else text[:57] + "..."
