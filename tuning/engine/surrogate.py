"""A surrogate of recorded trials: what draws that nobody tried would have scored, and how far to trust that.

Each method has its own: kernel ridge regression in the unit cube of its draws, of the score at the first rung, and of
what every further rung adds, with the score below as one more dimension. Length and ridge are those of the least
leave-one-out error; what that error leaves is put back as noise, drawn from the draws themselves: the same draws always
score the same. Trials that diverged, collapsed or failed make their neighbours likely to.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tuning.engine.choices import METHOD, Choices
from tuning.engine.sampler.encoding import Encoding

FEW = 3  # observations; below, there is nothing to regress, and a mean has to do
MOST = 400  # observations that one regression is fitted on
NEAR = 5  # neighbours that tell how likely a configuration is to fail
LENGTHS = (0.1, 0.2, 0.4, 0.8, 1.6)  # of the kernel, times the square root of the dimensions
RIDGES = (0.03, 0.1, 0.3, 1.0, 3.0, 100.0)  # to values of standard deviation 1; the last leaves little but the mean
CONSTANT = 100.0  # the constant kernel, which estimates the mean, so that leaving one out leaves it out of that too


@dataclass(frozen=True)
class Observed:
    """One trial as the surrogate takes it: scores at its first rungs, without gaps, and whether it then failed."""

    draws: Mapping[str, Any]
    scores: tuple[float, ...]
    faulty: bool = False


@dataclass(frozen=True)
class Trust:
    """How well left-out trials of a method are predicted at a rung, from their draws alone; shares, not percent.

    ``error``: root mean square. ``spread``: standard deviation of the scores, what knowing only the mean would leave.
    ``correlation``: of ranks, None where it means nothing.
    """

    method: str
    epochs: int
    trials: int
    error: float | None
    spread: float | None
    correlation: float | None


class Fit:
    """A kernel ridge regression of ``values`` (n,) on ``rows`` (n, d).

    ``noise``: its leave-one-out error. ``flat``: nothing was found but the mean.
    """

    def __init__(self, rows: np.ndarray, values: np.ndarray) -> None:
        self.rows = rows
        self.unit = float(values.std()) or 1.0
        target = values / self.unit
        apart = _squares(rows, rows)
        best, chosen = math.inf, (np.ones(0), np.ones((0, 0)))
        for length in LENGTHS:
            scale = 2 * length**2 * max(1, rows.shape[1])
            spectrum, basis = np.linalg.eigh(np.exp(-apart / scale) + CONSTANT)
            turned = basis.T @ target
            for ridge in RIDGES:
                shares = 1 / (np.maximum(spectrum, 0.0) + ridge)
                weights = basis @ (shares * turned)
                error = float(np.mean((weights / (basis**2 @ shares)) ** 2))  # leaving one out, in closed form
                if error < best * (1 - 1e-9):
                    best, chosen, self.scale, self.weights = error, (shares, basis), scale, weights
                    self.flat = ridge == RIDGES[-1]
        self.inverse = (chosen[1] * chosen[0]) @ chosen[1].T
        self.noise = math.sqrt(best) * self.unit

    def at(self, row: np.ndarray, without: int | None = None) -> float:
        """The prediction at ``row``, as it would be ``without`` that observation."""
        weights = self.weights
        if without is not None:
            own = self.inverse[:, without]
            weights = weights - own * (weights[without] / own[without])
        kernel = np.exp(-_squares(row[None], self.rows)[0] / self.scale) + CONSTANT
        return float(kernel @ weights) * self.unit


def _squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared distances, (len(a), len(b))."""
    found = np.zeros((len(a), len(b)))
    for column in range(a.shape[1]):
        found += (a[:, None, column] - b[None, :, column]) ** 2
    return found


@dataclass
class Step:
    """One rung of one method: what it adds to the score below (at the first rung: the score), and who failed on it.

    ``places``: trial (by its place among the method's) -> its row in ``fit``. ``low``, ``span``: of the scores below.
    """

    mean: float
    noise: float
    fit: Fit | None = None
    places: dict[int, int] = field(default_factory=dict)
    low: float = 0.0
    span: float = 1.0
    at_risk: np.ndarray | None = None  # rows of those that tried to come here; None where nobody failed
    failed: np.ndarray | None = None

    def row(self, row: np.ndarray, below: float | None) -> np.ndarray:
        """The regression's input."""
        return row if below is None else np.append(row, (below - self.low) / self.span)

    def adds(self, row: np.ndarray, below: float | None, without: int | None = None) -> float:
        """What is expected here, of a trial that is not to be told from its own result where it is ``without``."""
        if self.fit is None:
            return self.mean
        return self.fit.at(self.row(row, below), None if without is None else self.places.get(without))

    def risk(self, row: np.ndarray) -> float:
        """The share of the nearest that failed on their way here."""
        if self.at_risk is None or self.failed is None:
            return 0.0
        near = np.argsort(_squares(row[None], self.at_risk)[0], kind="stable")[:NEAR]
        return float(self.failed[near].mean())


class Surrogate:
    """Scores at ``rungs`` (epochs) for any draws of ``choices``, after ``observed``: every method needs a trial."""

    def __init__(self, choices: Choices, rungs: tuple[int, ...], observed: Sequence[Observed]) -> None:
        self.choices, self.rungs = choices, rungs
        self._seen = {m: [o for o in observed if o.draws[METHOD] == m] for m in choices.methods}
        self._cubes = {m: Encoding(Choices(((m, choices.draws(m)),))) for m in choices.methods}
        self._rows = {m: [self._row(o.draws) for o in seen] for m, seen in self._seen.items()}
        self._pooled = [self._pool(index) for index in range(len(rungs))]
        self._steps = {m: [self._step(m, index) for index in range(len(rungs))] for m in choices.methods}

    def _row(self, draws: Mapping[str, Any]) -> np.ndarray:
        """The place of draws in their method's unit cube."""
        points, _ = self._cubes[str(draws[METHOD])].encode([draws])
        return np.asarray(points[0])

    def _gains(self, method: str, index: int) -> dict[int, float]:
        """Trial -> what the rung at ``index`` added to its score; at the first rung the score itself."""
        return {
            place: seen.scores[index] - (seen.scores[index - 1] if index else 0.0)
            for place, seen in enumerate(self._seen[method])
            if len(seen.scores) > index
        }

    def _pool(self, index: int) -> tuple[float, float]:
        """Mean and spread of what a rung adds, over all methods."""
        gains = [gain for method in self.choices.methods for gain in self._gains(method, index).values()]
        return (float(np.mean(gains)), float(np.std(gains))) if gains else (0.0, 0.0)

    def _step(self, method: str, index: int) -> Step:
        gains = self._gains(method, index)
        step = Step(*self._pooled[index])
        if index == 0 and gains:  # methods differ in their scores far more than in what further epochs add
            step.mean = float(np.mean(list(gains.values())))
        if len(gains) >= FEW:
            self._regress(step, method, index, gains)
        self._endanger(step, method, index)
        return step

    def _regress(self, step: Step, method: str, index: int, gains: Mapping[int, float]) -> None:
        places = list(gains)
        if len(places) > MOST:
            chosen = np.random.default_rng(0).choice(len(places), MOST, replace=False)
            places = [places[i] for i in sorted(chosen)]
        below: list[float | None] = [None] * len(places)
        if index:
            scores = [self._seen[method][place].scores[index - 1] for place in places]
            step.low, step.span = min(scores), (max(scores) - min(scores)) or 1.0
            below = list(scores)
        rows = [step.row(self._rows[method][place], b) for place, b in zip(places, below, strict=True)]
        step.fit = Fit(np.array(rows), np.array([gains[place] for place in places]))
        step.places = {place: i for i, place in enumerate(places)}
        step.noise = step.fit.noise

    def _endanger(self, step: Step, method: str, index: int) -> None:
        """Those that tried to come here: the scored, and the failed whose scores end just below."""
        tried = [
            (row, len(seen.scores) == index)
            for row, seen in zip(self._rows[method], self._seen[method], strict=True)
            if len(seen.scores) > index or (seen.faulty and len(seen.scores) == index)
        ]
        if any(failed for _, failed in tried):
            step.at_risk = np.array([row for row, _ in tried])
            step.failed = np.array([float(failed) for _, failed in tried])

    def path(self, draws: Mapping[str, Any], known: Sequence[float] = ()) -> tuple[float | None, ...]:
        """The scores at all rungs, None from where it cannot be trained; ``known``: those at the first ones."""
        method = str(draws[METHOD])
        row = self._row(draws)
        rng = np.random.default_rng(_seed(draws))
        noise, luck = rng.standard_normal(len(self.rungs)), rng.random(len(self.rungs))
        found: list[float] = list(known)
        for index in range(len(found), len(self.rungs)):
            step = self._steps[method][index]
            if luck[index] < step.risk(row):
                break
            below = found[-1] if index else None
            value = (below or 0.0) + step.adds(row, below) + step.noise * noise[index]
            found.append(round(float(min(max(value, 0.0), 1.0)), 6))  # what the last bits hang on is no difference
        return (*found, *[None] * (len(self.rungs) - len(found)))

    def trust(self) -> list[Trust]:
        """Leave-one-out errors by method and rung; predictions climb from the first rung by predictions alone."""
        return [found for method in self.choices.methods for found in self._trust(method)]

    def _trust(self, method: str) -> list[Trust]:
        told: list[Trust] = []
        expected: dict[int, float] = {}
        ordered = False  # means alone rank nothing: without its own score, the best trial has the lowest one
        for index, rung in enumerate(self.rungs):
            step, rows, seen = self._steps[method][index], self._rows[method], self._seen[method]
            members = [place for place, one in enumerate(seen) if len(one.scores) > index]
            for place in members:
                below = expected[place] if index else None
                expected[place] = (below or 0.0) + step.adds(rows[place], below, without=place)
            real = np.array([seen[place].scores[index] for place in members])
            guessed = np.array([expected[place] for place in members])
            ordered = ordered or (step.fit is not None and not step.fit.flat)
            fitted = step.fit is not None
            told.append(
                Trust(
                    method,
                    rung,
                    len(members),
                    float(np.sqrt(np.mean((guessed - real) ** 2))) if fitted else None,
                    float(real.std()) if len(members) > 1 else None,
                    rank_correlation(guessed, real) if fitted and ordered else None,
                )
            )
        return told


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Spearman's; None where either side is all alike."""
    x, y = _ranks(a), _ranks(b)
    if len(x) < FEW or x.std() == 0 or y.std() == 0:
        return None
    return float(np.corrcoef(x, y)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    """From 0, equals sharing the mean of theirs."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return ((ends - counts + ends - 1) / 2)[group]


def _seed(draws: Mapping[str, Any]) -> int:
    text = json.dumps(dict(draws), sort_keys=True, default=str)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
