"""Draws of a conditional space as points: shared dimensions side by side, each method's own in columns of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tuning.engine.choices import METHOD, Choices
from tuning.space.domains import Draw

APART = 1 / math.sqrt(2)  # two different words of a choice lie 1 apart


def to_unit(draw: Draw, value: float) -> float:
    """A number of a float or int draw as its place in [0, 1]."""
    if draw.high <= draw.low:
        return 0.5
    if draw.log:
        return (math.log(value) - math.log(draw.low)) / (math.log(draw.high) - math.log(draw.low))
    return (value - draw.low) / (draw.high - draw.low)


def from_unit(draw: Draw, unit: float) -> Any:
    """The way back, inside the bounds."""
    unit = min(max(unit, 0.0), 1.0)
    if draw.log:
        value = math.exp(math.log(draw.low) + unit * (math.log(draw.high) - math.log(draw.low)))
    else:
        value = draw.low + unit * (draw.high - draw.low)
    value = min(max(value, draw.low), draw.high)
    return round(value) if draw.kind == "int" else float(value)


@dataclass(frozen=True)
class Column:
    """One dimension's place: ``width`` columns from ``start`` (one, or one for each word of a choice)."""

    draw: Draw
    start: int

    @property
    def width(self) -> int:
        return len(self.draw.choices) if self.draw.kind == "categorical" else 1


class Encoding:
    """Points (n, width) of draws. ``groups``: the dimension that each column belongs to; ``shared``: of how many of the
    first groups all methods know; with one method every dimension is shared.
    """

    def __init__(self, choices: Choices) -> None:
        self.choices = choices
        used: dict[str, set[str]] = {}
        for method, draws in choices.branches:
            for draw in draws:
                used.setdefault(draw.name, set()).add(method)
        everywhere = {name for name, methods in used.items() if len(methods) == len(choices.branches)}
        self._columns: dict[str, tuple[Column, ...]] = {}
        known: dict[str, Column] = {}
        groups: list[int] = []
        ordered = [(m, d) for m, draws in choices.branches for d in draws]
        for method, draw in sorted(ordered, key=lambda pair: pair[1].name not in everywhere):  # stable: shared first
            key = draw.name if draw.name in everywhere else f"{method}:{draw.name}"
            if key not in known:
                column = Column(draw, len(groups))
                known[key] = column
                groups += [len(known) - 1] * column.width
            self._columns[method] = (*self._columns.get(method, ()), known[key])
        self.groups = np.array(groups, dtype=int)
        self.shared = len(everywhere)
        self.count = len(known)

    def encode(self, many: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
        """Points (n, width) and the index (n,) of each one's method."""
        points = np.zeros((len(many), len(self.groups)))
        methods = np.empty(len(many), dtype=int)
        names = self.choices.methods
        for row, draws in enumerate(many):
            method = str(draws[METHOD])
            methods[row] = names.index(method)
            for column in self._columns.get(method, ()):
                self._set(points[row], column, draws[column.draw.name])
        return points, methods

    def _set(self, point: np.ndarray, column: Column, value: Any) -> None:
        draw = column.draw
        if draw.kind == "categorical":
            point[column.start + draw.choices.index(value)] = APART
        else:
            point[column.start] = to_unit(draw, float(value))

    def decode(self, point: np.ndarray, method: int) -> dict[str, Any]:
        """The draws of a point."""
        name = self.choices.methods[method]
        found: dict[str, Any] = {METHOD: name}
        for column in self._columns.get(name, ()):
            draw = column.draw
            if draw.kind == "categorical":
                found[draw.name] = draw.choices[int(np.argmax(point[column.start : column.start + column.width]))]
            else:
                found[draw.name] = from_unit(draw, float(point[column.start]))
        return {METHOD: name, **{d.name: found[d.name] for d in self.choices.draws(name)}}

    def random(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Points from the prior, methods in turn."""
        methods = np.arange(count) % len(self.choices.methods)
        points = np.zeros((count, len(self.groups)))
        for index, name in enumerate(self.choices.methods):
            rows = np.flatnonzero(methods == index)
            for column in self._columns.get(name, ()):
                self._fresh(points, rows, column, rng)
        return points, methods

    def _fresh(self, points: np.ndarray, rows: np.ndarray, column: Column, rng: np.random.Generator) -> None:
        if column.draw.kind == "categorical":
            points[np.ix_(rows, np.arange(column.start, column.start + column.width))] = 0.0
            points[rows, column.start + rng.integers(column.width, size=len(rows))] = APART
        else:
            points[rows, column.start] = rng.uniform(size=len(rows))

    def near(
        self, points: np.ndarray, methods: np.ndarray, count: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """``count`` neighbours of given points: some dimensions moved by a little, some further."""
        chosen = rng.integers(len(points), size=count)
        moved, of = points[chosen].copy(), methods[chosen]
        step = rng.choice([0.03, 0.1, 0.25], size=count)
        for index, name in enumerate(self.choices.methods):
            rows = np.flatnonzero(of == index)
            for column in self._columns.get(name, ()):
                some = rows[rng.random(len(rows)) < 0.6]
                if column.draw.kind == "categorical":
                    self._fresh(moved, some[rng.random(len(some)) < 0.3], column, rng)
                else:
                    jump = step[some] * rng.standard_normal(len(some))
                    moved[some, column.start] = np.clip(moved[some, column.start] + jump, 0.0, 1.0)
        return moved, of
