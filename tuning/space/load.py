"""The one loader: a path or a text -> what is searched and how. Exported configs come through here too."""

from __future__ import annotations

import os
from pathlib import Path

from methods.errors import InputError
from tuning.config.errors import Place
from tuning.config.read import read_spec
from tuning.config.schema import SearchSpec
from tuning.config.yaml_source import Leaf, Table, parse_yaml, read_file
from tuning.space.parse import Surroundings, bind
from tuning.space.space import Space

SYNTHETIC = "synthetic"


def load_search(path_or_text: str | Path) -> tuple[SearchSpec, Space]:
    """Read, validate and bind a search space (imports torch through ``methods``).

    A ``Path``, or a ``str`` without a line break, is a file; any other ``str`` is the YAML itself. Raises
    :class:`tuning.config.errors.ConfigError` with every fault of the file, and ``InputError`` for no readable file.
    """
    if isinstance(path_or_text, str) and ("\n" in path_or_text or path_or_text.lstrip().startswith("{")):
        return check_text(path_or_text)
    path = Path(path_or_text)
    return check_text(read_file(path), file=str(path), origin=str(path.resolve().parent))


def check_text(text: str, file: str = "<text>", origin: str = "") -> tuple[SearchSpec, Space]:
    """:func:`load_search` for YAML that is at hand; ``file`` names it in messages, ``origin`` is its folder."""
    report, root = parse_yaml(text, file)
    spec = space = None
    if root is not None:
        spec = read_spec(root, report, origin)
        space = bind(root, _surroundings(root, spec), report)
        if spec is not None:
            for place, message in _unsupported(spec, root):
                report.add(place, message)
    report.raise_if_any()
    if spec is None or space is None:  # cannot be: whoever returns None has reported why
        raise InputError(f"{file}: this search space cannot be read")
    return spec, space


def _surroundings(root: Table, spec: SearchSpec | None) -> Surroundings:
    """What every trial shares; where another section is wrong, harmless stand-ins, so that the search is still read."""
    if spec is None:
        return Surroundings(epochs=1)
    return Surroundings(spec.schedule.max, spec.data.frames, spec.data.preprocess)


def unsupported(spec: SearchSpec) -> list[tuple[tuple[str, ...], str]]:
    """(path of the key, what) for everything that the grammar has and this version does not do."""
    asha = spec.schedule.asha
    found: list[tuple[tuple[str, ...], str]] = []
    if asha.rule == "promote":
        found.append((("schedule", "asha", "rule"), "rule: promote"))
    if asha.ladder == "per_method":
        found.append((("schedule", "asha", "ladder"), "ladder: per_method"))
    if asha.brackets > 1:
        found.append((("schedule", "asha", "brackets"), f"brackets: {asha.brackets}"))
    if asha.grow:
        found.append((("schedule", "asha", "grow"), "grow: true"))
    if spec.objectives != ("top1",):
        found.append((("objectives",), f"objectives: [{', '.join(spec.objectives)}]"))
    if spec.warm_start:
        found.append((("warm_start",), "warm_start"))
    if spec.sampler.name not in ("tpe", "random"):
        found.append((("sampler", "name"), f"sampler {spec.sampler.name}"))
    return found


def _unsupported(spec: SearchSpec, root: Table) -> list[tuple[Place, str]]:
    placed = []
    for path, what in unsupported(spec):
        node, place = root, root.place
        for key in path:
            place = node.key_place(key)
            below = node.get(key)
            if isinstance(below, Leaf):
                place = below.place
            node = below if isinstance(below, Table) else node
        placed.append((place, f"not supported yet by this version: {what}"))
    return placed


def locate_data(spec: SearchSpec) -> Path | None:
    """The dataset folder that ``data.set`` names, or None for ``synthetic``.

    A relative path is tried beside the YAML, in the working directory, and under ``$SKELTUNE_DATA`` (by default
    ``../shared/data``). Raises ``InputError`` with the places that were tried.
    """
    if spec.data.set == SYNTHETIC:
        return None
    name = Path(spec.data.set).expanduser()
    roots = [Path(spec.origin)] if spec.origin else []
    roots += [Path.cwd(), Path(os.environ.get("SKELTUNE_DATA", "../shared/data"))]
    tried = [name] if name.is_absolute() else [root / name for root in roots]
    for path in tried:
        if path.exists():
            return path
    raise InputError(f"data.set: there is no dataset '{spec.data.set}'; tried {', '.join(map(str, tried))}")
