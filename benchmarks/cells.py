"""One simulated search of the efficiency benchmark, and the file in which their results lie."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KEYS = {"problem", "seed", "workers", "budget", "engine", "cost", "group", "budgets", "regret", "in_hand", "curve",
        "trials", "full", "cpu"}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One simulated search. ``problem``: a task, or the tasks of a composite joined by ``+``."""

    problem: str
    seed: int
    workers: int
    budget: int
    engine: str
    cost: str = "epoch"


def read_cells(path: Path) -> list[dict[str, Any]]:
    """The cells of a file, the last of each; torn lines and other kinds of records are passed over."""
    found: dict[Cell, dict[str, Any]] = {}
    if path.exists():
        for line in path.read_bytes().splitlines():
            told = _parsed(line)
            if told is not None:
                found[cell_of(told)] = told
    return list(found.values())


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        told = json.loads(line)
    except ValueError:
        return None
    whole = isinstance(told, dict) and told.get("kind") == "cell" and told.keys() >= KEYS
    return told if whole else None


def cell_of(told: Mapping[str, Any]) -> Cell:
    """What a record is the record of."""
    return Cell(told["problem"], told["seed"], told["workers"], told["budget"], told["engine"], told["cost"])
