"""A piece of work for one worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Segment:
    """Train ``trial`` on from ``after`` epochs, until told otherwise."""

    trial: int
    draws: Mapping[str, Any]
    after: int = 0
