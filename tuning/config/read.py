"""From a tree of nodes to a :class:`SearchSpec`: pydantic's errors said in our words, at the line they belong to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from methods.errors import did_you_mean
from tuning.config.errors import Place
from tuning.config.schema import Document, SearchSpec, from_document
from tuning.config.yaml_source import Listing, Node, Report, Table, plain

# pydantic's kinds of error -> what must be written; {ctx} names are pydantic's own.
_WANTED = {
    "string_type": "a word (put it in quotes if it looks like a number)",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list, [...]",
    "dict_type": "a mapping, {{...}}",
    "model_type": "a mapping, {{...}}",
    "model_attributes_type": "a mapping, {{...}}",
    "greater_than_equal": "at least {ge:g}",
    "greater_than": "more than {gt:g}",
    "less_than_equal": "at most {le:g}",
    "less_than": "less than {lt:g}",
    "too_short": "a list of at least one",
    "string_too_short": "a word, not empty",
}


def read_spec(root: Table, report: Report, origin: str = "") -> SearchSpec | None:
    """Validate all sections but ``search``; faults go into ``report``, and None comes back where there are any."""
    try:
        document = Document.model_validate(plain(root))
    except ValidationError as error:
        items = error.errors(include_url=False)
        for item in items:
            if item["type"] == "too_short" and _below(item["loc"], items):
                continue  # pydantic drops wrong items and then misses them
            place, message = _say(item, root)
            report.add(place, message)
        return None
    return from_document(document, origin)


def _below(loc: tuple[Any, ...], items: Iterable[Mapping[str, Any]]) -> bool:
    return any(len(item["loc"]) > len(loc) and item["loc"][: len(loc)] == loc for item in items)


def _say(item: Mapping[str, Any], root: Table) -> tuple[Place, str]:
    kind, ctx = item["type"], item.get("ctx") or {}
    path = (*item["loc"], *ctx.get("at", ()))
    node, place, names = _find(root, path)
    if kind == "skeltune":
        text = ctx["text"]
        return place, f"'{'.'.join(names)}' {text}" if names and text.startswith("must") else text
    if kind == "missing":
        where = f"'{'.'.join(names)}'" if names else "the file"
        return place, f"{where} needs '{path[-1]}'"
    if kind == "extra_forbidden":
        parent, _, parents = _find(root, path[:-1])
        place = parent.key_place(str(path[-1])) if isinstance(parent, Table) else place
        where = f"in '{'.'.join(parents)}'" if parents else "at the top of the file"
        return place, f"unknown key '{path[-1]}' {where}{did_you_mean(str(path[-1]), _known(path[:-1]))}"
    name, value = ".".join(names), _show(plain(node))
    if kind == "literal_error":
        words = str(ctx["expected"]).replace("'", "")
        near = did_you_mean(str(item["input"]), words.replace(" or ", ", ").split(", "))
        return place, f"'{name}' must be {words}, got {value}{near if 'mean' in near else ''}"
    wanted = _WANTED.get(kind)
    if wanted is None:
        return place, f"'{name}': {item['msg']}, got {value}"
    return place, f"'{name}' must be {wanted.format(**ctx)}, got {value}"


def _find(root: Table, path: tuple[Any, ...]) -> tuple[Node, Place, tuple[str, ...]]:
    """The deepest node on ``path``, the place to point at, and the words that led there.

    Parts of pydantic's path that name no key of ours (the branches of a union) are passed over. The value is what
    the caret shows, except where it is a whole block: then the key.
    """
    node: Node = root
    place, names = root.place, []
    for i, part in enumerate(path):
        if isinstance(node, Table) and isinstance(part, str) and node.get(part) is not None:
            key = node.key_place(part)
            node = node.get(part) or node
            names.append(part)
            last = i == len(path) - 1
            place = key if isinstance(node, Table) or (last and node.place.line != key.line) else node.place
        elif isinstance(node, Listing) and isinstance(part, int) and 0 <= part < len(node.items):
            node = node.items[part]
            place = node.place
    return node, place, tuple(names)


def _known(path: tuple[Any, ...]) -> list[str]:
    """The keys that the section at ``path`` knows."""
    model: Any = Document
    for part in path:
        info = model.model_fields.get(part) if isinstance(part, str) else None
        nested = _models(info.annotation) if info is not None else []
        if nested:
            model = nested[0]
    return list(model.model_fields)


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in _models(part)]


def _show(value: Any) -> str:
    if value is None:
        return "nothing"
    text = repr(value) if not isinstance(value, bool) else str(value).lower()
    return text if len(text) <= 60 else text[:57] + "..."
