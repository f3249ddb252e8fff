"""skeltune's methods: everything that needs only torch and numpy. Pretrain and probe ONE configuration.

The names below are the public ones; they are imported on first use, so that ``import methods`` stays cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PUBLIC: dict[str, str] = {
    "InputError": "methods.errors",
    "Method": "methods.base",
    "StepOutput": "methods.base",
    "TrialConfig": "methods.training.config",
    "Views": "methods.base",
    "get_method": "methods.registry",
    "linear_probe": "methods.api",
    "list_methods": "methods.registry",
    "pretrain": "methods.api",
    "published": "methods.training.config",
    "register": "methods.registry",
    "tunable": "methods.fields",
}

__all__ = [*_PUBLIC]  # noqa: PLE0604  (strings, all of them)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'methods' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
