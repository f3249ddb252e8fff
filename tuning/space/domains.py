"""The words of a search space: each is a frozen domain that says which draws it needs and what they mean.

A *draw* is one flat number or word that a sampler proposes; a *value* is what a config holds. Most words draw the value
itself; ``near_one`` draws 1 - m, and ``simplex`` draws sticks. ``invert`` goes back from a value to its draws.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from methods.fields import require

Scalar = bool | int | float | str | None
DrawValue = Any  # a Scalar, as optuna hands it back

_SLACK = 1e-9  # relative: the rounding of logarithms, far below any difference that a user could mean


class TrialLike(Protocol):
    """The three calls of an Optuna trial that a space needs."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Propose a real number."""

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """Propose a whole number, both ends included."""

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """Propose one of ``choices``."""


@dataclass(frozen=True)
class Draw:
    """One flat dimension: ``kind`` is float, int or categorical; ``low`` and ``high`` are both included."""

    name: str
    kind: str
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    choices: tuple[Scalar, ...] = ()

    def suggest(self, trial: TrialLike) -> DrawValue:
        """Ask an Optuna-like trial."""
        if self.kind == "float":
            return trial.suggest_float(self.name, self.low, self.high, log=self.log)
        if self.kind == "int":
            return trial.suggest_int(self.name, int(self.low), int(self.high))
        return trial.suggest_categorical(self.name, self.choices)

    def sample(self, rng: np.random.Generator) -> DrawValue:
        """Draw from the prior."""
        if self.kind == "int":
            return int(rng.integers(int(self.low), int(self.high) + 1))
        if self.kind == "categorical":
            return self.choices[int(rng.integers(len(self.choices)))]
        if self.log:
            drawn = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
            return min(max(drawn, self.low), self.high)
        return float(rng.uniform(self.low, self.high))

    def check(self, value: DrawValue) -> None:
        """Raise ``InputError`` unless ``value`` is one that this draw can have."""
        if self.kind == "categorical":
            require(
                any(same(value, c) for c in self.choices), f"draw '{self.name}': {value!r} is none of {self.choices}"
            )
            return
        number = isinstance(value, int | float) and not isinstance(value, bool)
        require(number, f"draw '{self.name}' must be a number, got {value!r}")
        whole = self.kind != "int" or float(value).is_integer()
        require(
            whole and _inside(value, self.low, self.high),
            f"draw '{self.name}' must be {'a whole number ' if self.kind == 'int' else ''}"
            f"in [{number_text(self.low)}, {number_text(self.high)}], got {value!r}",
        )


class Domain(ABC):
    """What a parameter may be. ``word`` is how the grammar spells it."""

    word: ClassVar[str] = ""

    @abstractmethod
    def draws(self, prefix: str) -> tuple[Draw, ...]:
        """The flat dimensions, named from ``prefix``."""

    @abstractmethod
    def value(self, prefix: str, draws: Mapping[str, DrawValue]) -> Any:
        """The config's value that ``draws`` stand for."""

    @abstractmethod
    def encode(self, value: Any) -> tuple[DrawValue, ...]:
        """The draws' values of a contained ``value``, in the order of :meth:`draws`."""

    @abstractmethod
    def contains(self, value: Any) -> bool:
        """Whether ``value`` can be drawn (up to rounding)."""

    @abstractmethod
    def midpoint(self) -> Any:
        """A value from the middle, where nothing better is known."""

    @abstractmethod
    def describe(self) -> str:
        """The domain in a few words, for tables and messages."""

    @abstractmethod
    def extremes(self) -> tuple[Any, ...]:
        """The values at the rim, which a config's own limits are tried on."""

    def invert(self, prefix: str, value: Any) -> dict[str, DrawValue]:
        """The draws that give ``value``. Raises ``InputError`` when it lies outside."""
        require(self.contains(value), f"{value_text(value)} lies outside {self.describe()}")
        return dict(zip((d.name for d in self.draws(prefix)), self.encode(value), strict=True))


@dataclass(frozen=True)
class Fixed(Domain):
    """A plain value: nothing is drawn."""

    fixed: Any

    def draws(self, prefix: str) -> tuple[Draw, ...]:
        return ()

    def value(self, prefix: str, draws: Mapping[str, DrawValue]) -> Any:
        return self.fixed

    def encode(self, value: Any) -> tuple[DrawValue, ...]:
        return ()

    def contains(self, value: Any) -> bool:
        return same(value, self.fixed)

    def midpoint(self) -> Any:
        return self.fixed

    def describe(self) -> str:
        return f"= {value_text(self.fixed)}"

    def extremes(self) -> tuple[Any, ...]:
        return (self.fixed,)


@dataclass(frozen=True)
class _Range(Domain):
    """Two bounds, the lower one below the upper one; both can be drawn."""

    low: float
    high: float

    def __post_init__(self) -> None:
        for bound in (self.low, self.high):
            require(_is_real(bound), f"{self.word} takes two finite numbers, got {bound!r}")
        require(
            self.low < self.high,
            f"{self.word}: the lower bound comes first, got [{number_text(self.low)}, {number_text(self.high)}]"
            + ("; for one value write it without a word" if self.low == self.high else ""),
        )

    def draws(self, prefix: str) -> tuple[Draw, ...]:
        return (Draw(prefix, "float", self.low, self.high),)

    def value(self, prefix: str, draws: Mapping[str, DrawValue]) -> Any:
        return min(max(float(draws[prefix]), self.low), self.high)

    def encode(self, value: Any) -> tuple[DrawValue, ...]:
        return (min(max(value, self.low), self.high),)

    def contains(self, value: Any) -> bool:
        return _is_real(value) and _inside(value, self.low, self.high)

    def midpoint(self) -> Any:
        return (self.low + self.high) / 2

    def describe(self) -> str:
        return f"{self.word} [{number_text(self.low)}, {number_text(self.high)}]"

    def extremes(self) -> tuple[Any, ...]:
        return (self.low, self.high)


@dataclass(frozen=True)
class Uniform(_Range):
    """``{uniform: [low, high]}``: every value alike."""

    word: ClassVar[str] = "uniform"


@dataclass(frozen=True)
class Log(_Range):
    """``{log: [low, high]}``: uniform in the logarithm."""

    word: ClassVar[str] = "log"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.low > 0, f"log needs bounds above 0, got {number_text(self.low)}")

    def draws(self, prefix: str) -> tuple[Draw, ...]:
        return (Draw(prefix, "float", self.low, self.high, log=True),)

    def midpoint(self) -> Any:
        return min(max(math.sqrt(self.low) * math.sqrt(self.high), self.low), self.high)


@dataclass(frozen=True)
class Int(_Range):
    """``{int: [low, high]}``: whole numbers, both ends included."""

    word: ClassVar[str] = "int"

    def __post_init__(self) -> None:
        for bound in (self.low, self.high):
            require(type(bound) is int, f"int takes two whole numbers, got {bound!r}")
        super().__post_init__()

    def draws(self, prefix: str) -> tuple[Draw, ...]:
        return (Draw(prefix, "int", self.low, self.high),)

    def value(self, prefix: str, draws: Mapping[str, DrawValue]) -> Any:
        return int(draws[prefix])

    def contains(self, value: Any) -> bool:
        return type(value) is int and self.low <= value <= self.high

    def midpoint(self) -> Any:
        return int((self.low + self.high) // 2)


@dataclass(frozen=True)
class NearOne(_Range):
    """``{near_one: [low, high]}``: log-uniform in 1 - m, as a momentum wants. The draw is 1 - m, named ``.../gap``.

    1 - m is exact in floating point for m in [0.5, 1], so that a momentum survives the way there and back.
    """

    word: ClassVar[str] = "near_one"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.low > 0 and self.high < 1,
            f"near_one needs bounds inside (0, 1), got [{number_text(self.low)}, {number_text(self.high)}]",
        )
        require(
            1 - self.high > 0 and 1 - self.low < 1,
            f"near_one: 1 - m cannot be told from 0 or 1 at [{self.low!r}, {self.high!r}]",
        )

    def draws(self, prefix: str) -> tuple[Draw, ...]:
        return (Draw(f"{prefix}/gap", "float", 1 - self.high, 1 - self.low, log=True),)

    def value(self, prefix: str, draws: Mapping[str, DrawValue]) -> Any:
        return min(max(1 - float(draws[f"{prefix}/gap"]), self.low), self.high)

    def encode(self, value: Any) -> tuple[DrawValue, ...]:
        return (min(max(1 - value, 1 - self.high), 1 - self.low),)

    def midpoint(self) -> Any:
        return min(max(1 - math.sqrt((1 - self.low) * (1 - self.high)), self.low), self.high)


@dataclass(frozen=True)
class Choice(Domain):
    """``{choice: [a, b, ...]}``: one of these. Scalars are drawn as they are, lists by their index."""

    options: tuple[Any, ...]
    word: ClassVar[str] = "choice"

    def __post_init__(self) -> None:
        require(len(self.options) > 0, "choice takes at least one option, got an empty list")
        for i, option in enumerate(self.options):
            require(
                not any(same(option, other) for other in self.options[:i]),
                f"choice names {value_text(option)} twice",
            )

    @property
    def by_index(self) -> bool:
        """Whether the options are lists, which Optuna cannot draw as they are."""
        return any(isinstance(option, tuple) for option in self.options)

    def draws(self, prefix: str) -> tuple[Draw, ...]:
        if len(self.options) == 1:
            return ()  # nothing to search
        options = tuple(range(len(self.options))) if self.by_index else self.options
        return (Draw(prefix, "categorical", choices=options),)

    def value(self, prefix: str, draws: Mapping[str, DrawValue]) -> Any:
        if len(self.options) == 1:
            return self.options[0]
        drawn = draws[prefix]
        return self.options[int(drawn)] if self.by_index else self.options[self._index(drawn)]

    def encode(self, value: Any) -> tuple[DrawValue, ...]:
        if len(self.options) == 1:
            return ()
        index = self._index(value)
        return (index if self.by_index else self.options[index],)

    def _index(self, value: Any) -> int:
        return next(i for i, option in enumerate(self.options) if same(option, value))

    def contains(self, value: Any) -> bool:
        return any(same(option, value) for option in self.options)

    def midpoint(self) -> Any:
        return self.options[0]

    def describe(self) -> str:
        return f"choice [{', '.join(map(value_text, self.options))}]"

    def extremes(self) -> tuple[Any, ...]:
        return self.options


@dataclass(frozen=True)
class Simplex(Domain):
    """``{simplex: [a, b, c]}``: weights >= 0 that sum to 1, from a flat Dirichlet distribution.

    Stick-breaking over k names with k - 1 uniform draws: the share left after stick i of what was left before is
    (1 - u)^(1 / (k - i)), i = 1, 2, ..., so that each stick is Beta(1, k - i) and the weights are Dirichlet(1, ..., 1).
    """

    names: tuple[str, ...]
    word: ClassVar[str] = "simplex"

    def __post_init__(self) -> None:
        require(len(self.names) >= 2, f"simplex takes at least two names, got {value_text(self.names)}")
        for name in self.names:
            require(self.names.count(name) == 1, f"simplex names {name} twice")

    def draws(self, prefix: str) -> tuple[Draw, ...]:
        return tuple(Draw(f"{prefix}/{i}", "float", 0.0, 1.0) for i in range(len(self.names) - 1))

    def value(self, prefix: str, draws: Mapping[str, DrawValue]) -> Any:
        left, weights = 1.0, []
        for i in range(len(self.names) - 1):
            u = min(max(float(draws[f"{prefix}/{i}"]), 0.0), 1.0)
            rest = left * (1 - u) ** (1 / (len(self.names) - 1 - i))
            weights.append(left - rest)
            left = rest
        return (*weights, left)

    def encode(self, value: Any) -> tuple[DrawValue, ...]:
        weights = self._weights(value)
        total, sticks = sum(weights), []
        left = total
        for i in range(len(weights) - 1):
            rest = sum(weights[i + 1 :])
            kept = min(rest / left, 1.0) if left > 0 else 0.5  # nothing left: any stick gives the same weights
            sticks.append(1 - kept ** (len(weights) - 1 - i))
            left = rest
        return tuple(sticks)

    def _weights(self, value: Any) -> tuple[float, ...]:
        return (1.0,) * len(self.names) if value == "equal" else tuple(value)

    def contains(self, value: Any) -> bool:
        if value == "equal":
            return True
        right = isinstance(value, tuple) and len(value) == len(self.names) and all(map(_is_real, value))
        return right and min(value) >= 0 and sum(value) > 0

    def midpoint(self) -> Any:
        return (1 / len(self.names),) * len(self.names)

    def describe(self) -> str:
        return f"simplex [{', '.join(self.names)}]"

    def extremes(self) -> tuple[Any, ...]:
        return (self.midpoint(),)


RANGES: dict[str, type[_Range]] = {cls.word: cls for cls in (Uniform, Log, Int, NearOne)}
WORDS = (*RANGES, Choice.word, Simplex.word, "one_of")


def same(a: Any, b: Any) -> bool:
    """Equal as settings: 1 and 1.0 are one value, 1 and true are two."""
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(isinstance(a, bool) == isinstance(b, bool) and a == b)


def number_text(value: float) -> str:
    """The shortest spelling that reads back as the same number."""
    return str(value) if isinstance(value, int) else f"{value:.15g}" if float(f"{value:.15g}") == value else repr(value)


def value_text(value: Any) -> str:
    """A value as YAML would spell it."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "null"
    if isinstance(value, int | float):
        return number_text(value)
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(value_text, value))}]"
    return str(value)


def _is_real(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _inside(value: float, low: float, high: float) -> bool:
    return low - abs(low) * _SLACK <= value <= high + abs(high) * _SLACK
