"""Ray's own JSON schema of cluster files, with its faults said in our words at the line they belong to.

The schema is found beside the installed Ray without importing it. Ray's last word, ``prepare_config`` and
``validate_config``, needs no cloud's SDK and no credentials, but does import Ray.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tuning.config.errors import Place
from tuning.config.yaml_source import Node, Report, Table
from tuning.launch.tables import as_json, find, show, unknown_key, word

_KINDS = {
    "string": "a word (put it in quotes if it looks like a number)", "integer": "a whole number", "number": "a number",
    "boolean": "true or false", "array": "a list, [...]", "object": "a mapping, {...}", "null": "nothing",
}  # fmt: skip


def schema_path() -> Path | None:
    """Where the installed Ray keeps its schema; None where there is no Ray."""
    found = importlib.util.find_spec("ray")
    if found is None or found.origin is None:
        return None
    path = Path(found.origin).parent / "autoscaler" / "ray-schema.json"
    return path if path.is_file() else None


def check_schema(tree: Table, report: Report) -> str | None:
    """Report what Ray's schema does not allow. Returns a note where there is no schema to hold the file against."""
    path = schema_path()
    try:
        jsonschema: Any = importlib.import_module("jsonschema")
    except ImportError:
        path = None
    if path is None:
        return "Ray is not installed here, so its own rules for this file were not applied"
    schema = json.loads(path.read_text(encoding="utf-8"))
    for error in jsonschema.Draft7Validator(schema).iter_errors(as_json(tree)):
        for place, message in _say(error, tree):
            report.add(place, message)
    return None


def _say(error: Any, tree: Table) -> Iterator[tuple[Place, str]]:
    way = list(error.absolute_path)
    node = find(tree, *way) or tree
    trail = ".".join(map(str, way))
    name = f"'{trail}'" if trail else "the file"
    if error.validator == "additionalProperties" and isinstance(node, Table):
        known = error.schema.get("properties", {})
        for key in node.words:
            # With machines of one's own Ray takes this one away before it looks at its schema.
            local = not way and key == "min_workers" and word(find(tree, "provider", "type")) == "local"
            if key not in known and not local:
                yield node.key_place(key), unknown_key(key, trail, known)
    elif error.validator == "required" and isinstance(node, Table):
        for key in error.validator_value:
            if key not in node.words:
                yield _key_of(tree, way), f"{name} needs '{key}'"
    elif error.validator == "type":
        kinds = error.validator_value if isinstance(error.validator_value, list) else [error.validator_value]
        wanted = " or ".join(_KINDS.get(kind, str(kind)) for kind in kinds)
        yield node.place, f"{name} must be {wanted}, got {show(node)}"
    elif error.validator == "minimum":
        yield node.place, f"{name} must be at least {error.validator_value}, got {show(node)}"
    elif error.validator == "enum":
        yield node.place, f"{name} must be {' or '.join(map(str, error.validator_value))}, got {show(node)}"
    else:
        yield node.place, f"{name}: {str(error.message).splitlines()[0][:200]}"


def _key_of(tree: Table, way: list[str | int]) -> Place:
    """Where the key stands that opens the block at ``way``; the block itself where a list opens it."""
    parent: Node | None = find(tree, *way[:-1]) if way else tree
    if way and isinstance(parent, Table):
        return parent.key_place(str(way[-1]))
    return (find(tree, *way) or tree).place


def check_by_ray(text: str, tree: Table, report: Report) -> None:
    """Ray's own last word, for a file that has no other fault; what it says is reported at the line it is about."""
    if schema_path() is None:
        return
    from ray.autoscaler._private.util import prepare_config, validate_config

    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    heard = io.StringIO()
    try:
        with contextlib.redirect_stdout(heard), contextlib.redirect_stderr(heard):
            validate_config(prepare_config(yaml.safe_load(text)))
    except (Exception, SystemExit) as error:
        said = str(error).strip().splitlines()
        lines = [line.strip() for line in heard.getvalue().splitlines() if line.strip()]
        words = (said or lines or [type(error).__name__])[0][:300]
        # Where Ray names a key that the file has at its top, that is what is pointed at.
        about = next((key for key in sorted(tree.words, key=len, reverse=True) if _named(key, words)), "provider")
        report.add(tree.key_place(about), f"Ray refuses this file: {words}")
    finally:
        logging.disable(level)


def _named(key: str, words: str) -> bool:
    if key == "docker" and "container" in words:
        return True
    return re.search(rf"(?<![A-Za-z_]){re.escape(key)}(?![A-Za-z_])", words, re.IGNORECASE) is not None
