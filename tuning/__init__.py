"""skeltune: chooses configurations. `methods` can train one; this package searches over many.

The names below are public; they are imported on first use, so that ``import tuning`` brings in neither torch nor ray.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from tuning._neighbour import check_methods

check_methods()

try:
    __version__ = version("skeltune")
except PackageNotFoundError:  # a bare checkout
    __version__ = "0.1.0"

_PUBLIC: dict[str, str] = {
    "InputError": "methods.errors",
    "load_search": "tuning.space",
    "run_search": "tuning.driver",
    "train": "tuning.train",
}

__all__ = ["__version__", *_PUBLIC]  # noqa: PLE0604  (strings, all of them)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'tuning' has no attribute '{name}'")
