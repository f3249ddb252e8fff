"""The one loader: a path or a text -> what is searched and how. Exported configs come through here too."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from methods.errors import InputError
from tuning.config.errors import Place
from tuning.config.read import read_spec
from tuning.config.schema import SearchSpec
from tuning.config.yaml_source import Table, parse_yaml, read_file
from tuning.space.parse import Surroundings, bind
from tuning.space.space import Space

SYNTHETIC = "synthetic"
SAMPLER_PACKAGES = {"gp": ("scipy", "torch"), "cmaes": ("cmaes",)}  # Optuna does not bring them


def load_search(path_or_text: str | Path) -> tuple[SearchSpec, Space]:
    """Read, validate and bind a search space (imports torch through ``methods``).

    A ``Path``, or a ``str`` without a line break, is a file; any other ``str`` is the YAML itself. Raises
    :class:`tuning.config.errors.ConfigError` with every fault of the file, and ``InputError`` for no readable file.
    """
    if isinstance(path_or_text, str) and ("\n" in path_or_text or path_or_text.lstrip().startswith("{")):
        return check_text(path_or_text)
    path = Path(path_or_text)
    return check_text(read_file(path), file=str(path), origin=str(path.resolve().parent))


def load_spec(path: Path) -> SearchSpec:
    """All of a file but what its ``search`` means, which takes the methods and so torch. Raises ``ConfigError``."""
    report, root = parse_yaml(read_file(path), str(path))
    spec = None if root is None else read_spec(root, report, str(path.resolve().parent))
    report.raise_if_any()
    if spec is None:  # cannot be: whoever returns None has reported why
        raise InputError(f"{path}: this search space cannot be read")
    return spec


def check_text(text: str, file: str = "<text>", origin: str = "") -> tuple[SearchSpec, Space]:
    """:func:`load_search` for YAML that is at hand; ``file`` names it in messages, ``origin`` is its folder."""
    report, root = parse_yaml(text, file)
    spec = space = None
    if root is not None:
        spec = read_spec(root, report, origin)
        space = bind(root, _surroundings(root, spec), report)
        if spec is not None and (space is None or _draws(space)):  # an exported config is only trained
            message = _missing_packages(spec.sampler.name)
            if message is not None:
                report.add(_sampler_place(root), message)
    report.raise_if_any()
    if spec is None or space is None:  # cannot be: whoever returns None has reported why
        raise InputError(f"{file}: this search space cannot be read")
    return spec, space


def _surroundings(root: Table, spec: SearchSpec | None) -> Surroundings:
    """What every trial shares; where another section is wrong, harmless stand-ins, so that the search is still read."""
    if spec is None:
        return Surroundings(epochs=1)
    return Surroundings(spec.schedule.max, spec.data.frames, spec.data.preprocess)


def _missing_packages(name: str) -> str | None:
    """The fault of a sampler that needs what is not installed here."""
    missing = [package for package in SAMPLER_PACKAGES.get(name, ()) if importlib.util.find_spec(package) is None]
    if not missing:
        return None
    packages = f"package{'s' if len(missing) > 1 else ''} {' and '.join(missing)}"
    return f"sampler {name} needs the {packages}: pip install 'skeltune[samplers]'"


def _draws(space: Space) -> bool:
    """Whether there is anything left to search."""
    return len(space.branches) > 1 or any(space.free.values())


def _sampler_place(root: Table) -> Place:
    section = root.get("sampler")
    name = section.get("name") if isinstance(section, Table) else None
    return root.place if name is None else name.place


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
