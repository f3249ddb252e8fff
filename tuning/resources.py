"""Where the shipped YAML lies: in a wheel inside this package, in a checkout or an editable install beside it."""

from __future__ import annotations

from pathlib import Path

from methods.errors import InputError, did_you_mean

_HERE = Path(__file__).resolve().parent


def shipped(kind: str) -> Path:
    """The folder of shipped ``search_spaces`` or ``cluster`` files.

    ``importlib.resources`` alone finds neither in an editable install, where the folders stand beside the package.
    """
    for folder in (_HERE / kind, _HERE.parent / kind):
        if folder.is_dir() and any(folder.glob("**/*.yaml")):
            return folder
    raise InputError(f"the shipped folder '{kind}' is missing from this installation of skeltune")


def find_space(name: str) -> Path:
    """A search space by path, or by the name of a shipped one (``quickstart``, ``utd_mhad/compare``)."""
    path = Path(name)
    if path.exists() or path.suffix in (".yaml", ".yml") or "\\" in name:
        return path
    folder = shipped("search_spaces")
    candidate = folder / f"{name}.yaml"
    if candidate.is_file():
        return candidate
    known = [str(p.relative_to(folder).with_suffix("")) for p in folder.glob("**/*.yaml")]
    raise InputError(f"no file '{name}', and no shipped search space of that name{did_you_mean(name, known)}")
