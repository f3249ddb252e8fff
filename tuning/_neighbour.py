"""`methods` is a generic name to import: make sure that the one found is ours, and say which stranger it is if not."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def check_methods() -> None:
    """Raise ``ImportError`` unless the importable ``methods`` package lies beside this one."""
    found = importlib.util.find_spec("methods")
    ours = Path(__file__).resolve().parent.parent / "methods"
    origin = Path(found.origin).resolve() if found and found.origin else None
    if origin is None or origin.parent != ours:
        raise ImportError(
            f"skeltune needs its own package 'methods' at {ours}, but Python finds {origin or 'none'}; "
            "remove or rename the other one"
        )
