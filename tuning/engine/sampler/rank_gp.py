"""A Gaussian process over the ranks of trials, for conditional spaces and scores of several rungs.

The ranking is the ladder's own: a higher rung before a lower one, then the score at that rung. Its normal scores are
what is modelled, so that neither the scale of an accuracy nor a few hopeless configurations bend it (the Gaussian
copula of Salinas et al. 2020, A Quantile-based Approach for Hyperparameter Transfer Learning). The covariance of two
trials is Matern-5/2 in the dimensions that all methods share, times

    (a k(own dimensions) + b) [same method] + c,      a + b + c = 1,

so that what one method teaches about a shared learning rate serves the others as far as the data says that it does.
Length scales, noise and a, b, c maximise the posterior by coordinate steps. The next draws maximise the expected
improvement over points from the prior and around the best; trials without a score count with the model's own mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from tuning.engine.sampler.encoding import Encoding
from tuning.engine.sampler.model import Model, Observation
from tuning.engine.sampler.shares import likely_method

MOST = 160  # observations in the model: the best half, and an even spread of the others
FITTED = 100  # of them for the length scales
BLOCK = 128  # rows of a triangle that are solved together
FEWEST = 4  # ranked trials before there is anything to model
SCALE, SCALE_SPREAD = 0.6, 1.0  # prior of a length scale: log-normal around this, in units of the range
NOISE, NOISE_SPREAD = 0.2, 1.2  # prior of the noise's share
STEPS = (1.0, 0.5, 0.5)  # of the coordinate search, in logarithms
_normal = NormalDist()


@dataclass(frozen=True)
class Hyper:
    """``log_scales`` (groups,), ``log_noise``, and the logits of b and c beside a."""

    values: np.ndarray
    groups: int

    @property
    def scales(self) -> np.ndarray:
        found: np.ndarray = np.exp(self.values[: self.groups])
        return found

    @property
    def noise(self) -> float:
        return float(np.exp(self.values[self.groups]))

    @property
    def mix(self) -> tuple[float, float, float]:
        logits = np.array([0.0, *self.values[self.groups + 1 :]])
        a, b, c = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        return float(a), float(b), float(c)


@dataclass(frozen=True)
class Points:
    """Encoded trials: ``x`` (n, width) and the method ``m`` (n,) of each."""

    x: np.ndarray
    m: np.ndarray

    def take(self, rows: np.ndarray) -> Points:
        return Points(self.x[rows], self.m[rows])

    def join(self, other: Points) -> Points:
        return Points(np.concatenate([self.x, other.x]), np.concatenate([self.m, other.m]))

    def __len__(self) -> int:
        return len(self.m)


class RankGp:
    """Proposes by expected improvement. A function of the model's state and the seed of the ask alone."""

    def __init__(self, model: Model, candidates: int = 320, neighbours: int = 200, gamma: float = 0.15) -> None:
        self.model, self.encoding = model, Encoding(model.choices)
        self.candidates, self.neighbours, self.gamma = candidates, neighbours, gamma
        self._hyper: tuple[int, Hyper] | None = None

    def __call__(self, seed: int) -> dict[str, Any]:
        rng = np.random.default_rng(seed)
        ranked = self.model.ranked()
        if len(ranked) < FEWEST:
            return self.model.choices.sample(rng)
        kept = ranked if len(ranked) <= MOST else [ranked[i] for i in spread(len(ranked), MOST)]
        seen = self._points(kept)
        scores = normal_scores(ranked, kept)
        hyper = self._fitted()
        seen, scores = self._with_pending(seen, scores, hyper)
        fit = _Fit(self, seen, scores, hyper)
        fresh = Points(*self.encoding.random(self.candidates, rng))
        best = seen.take(np.arange(max(3, min(8, len(ranked) // 5))))
        if self.gamma and len(self.encoding.choices.methods) > 1:
            method = self.encoding.choices.methods.index(likely_method(self.model, rng, self.gamma))
            fresh = fresh.take(np.flatnonzero(fresh.m == method))
            own = np.flatnonzero(seen.m[: len(kept)] == method)
            best = seen.take(own[: max(3, min(8, len(own) // 5))]) if len(own) else fresh
        tried = fresh.join(Points(*self.encoding.near(best.x, best.m, self.neighbours, rng)))
        chosen = int(np.argmax(fit.improvement(tried)))
        return self.encoding.decode(tried.x[chosen], int(tried.m[chosen]))

    def _points(self, observations: list[Observation]) -> Points:
        return Points(*self.encoding.encode([self.model.draws(o) for o in observations]))

    def _with_pending(self, seen: Points, scores: np.ndarray, hyper: Hyper) -> tuple[Points, np.ndarray]:
        """Trials at work without a score, at the model's mean: nobody shall propose the same again meanwhile."""
        pending = [o for o in self.model.all() if o.rung == -1 and self.model.trial(o.trial).ended is None]
        if not pending:
            return seen, scores
        points = self._points(pending)
        believed = _Fit(self, seen, scores, hyper).mean(points)
        return seen.join(points), np.concatenate([scores, believed])

    def covariance(self, a: Points, b: Points, hyper: Hyper) -> np.ndarray:
        """(len(a), len(b)) without noise; 1 on the diagonal."""
        scales = hyper.scales[self.encoding.groups]
        own = self.encoding.groups >= self.encoding.shared
        shared = matern(a.x[:, ~own] / scales[~own], b.x[:, ~own] / scales[~own])
        if len(self.encoding.choices.methods) == 1:
            return np.asarray(shared)
        same = a.m[:, None] == b.m[None, :]
        first, second, third = hyper.mix
        private = matern(a.x[:, own] / scales[own], b.x[:, own] / scales[own])
        return np.asarray(shared * (same * (first * private + second) + third))

    # --- length scales -----------------------------------------------------------------------------------------------

    def _fitted(self) -> Hyper:
        """Fitted anew when a quarter more scores are in, on what was known then: a restart fits the same."""
        known = len(self.model.state.order)
        mark = 4
        while mark + max(4, mark // 4) <= known:
            mark += max(4, mark // 4)
        if self._hyper is None or self._hyper[0] != mark:
            self._hyper = (mark, self._fit(mark))
        return self._hyper[1]

    def _fit(self, mark: int) -> Hyper:
        ranked = self.model.ranked_after(mark)
        groups = self.encoding.count
        methods = len(self.encoding.choices.methods)
        start = np.array([math.log(SCALE)] * groups + [math.log(NOISE)] + ([0.0, 0.0] if methods > 1 else []))
        if len(ranked) < FEWEST:
            return Hyper(start, groups)
        kept = ranked if len(ranked) <= FITTED else [ranked[i] for i in spread(len(ranked), FITTED)]
        points, scores = self._points(kept), normal_scores(ranked, kept)

        def posterior(values: np.ndarray) -> float:
            return self._evidence(points, scores, Hyper(values, groups)) - float(
                0.5 * (((values[:groups] - math.log(SCALE)) / SCALE_SPREAD) ** 2).sum()
                + 0.5 * ((values[groups] - math.log(NOISE)) / NOISE_SPREAD) ** 2
                + 0.5 * (values[groups + 1 :] ** 2).sum()
            )

        return Hyper(climb(posterior, start), groups)

    def _evidence(self, points: Points, scores: np.ndarray, hyper: Hyper) -> float:
        """Log marginal likelihood with the signal's variance at its best."""
        cov = self.covariance(points, points, hyper) + hyper.noise * np.eye(len(points))
        try:
            lower = np.linalg.cholesky(cov)
        except np.linalg.LinAlgError:
            return -math.inf
        white = forward(lower, scores - scores.mean())
        signal = max(float(white @ white) / len(scores), 1e-9)
        return -0.5 * len(scores) * math.log(signal) - float(np.log(np.diag(lower)).sum())


class _Fit:
    """The posterior of one set of observations."""

    def __init__(self, gp: RankGp, seen: Points, scores: np.ndarray, hyper: Hyper) -> None:
        self.gp, self.seen, self.hyper = gp, seen, hyper
        cov = gp.covariance(seen, seen, hyper)
        self.lower = np.linalg.cholesky(cov + (hyper.noise + 1e-8) * np.eye(len(seen)))
        self.level = float(scores.mean())
        white = forward(self.lower, scores - self.level)
        self.weights = backward(self.lower, white)
        self.signal = max(float(white @ white) / len(scores), 1e-6)
        self.incumbent = float((cov @ self.weights).max()) + self.level

    def mean(self, points: Points) -> np.ndarray:
        found: np.ndarray = self.gp.covariance(points, self.seen, self.hyper) @ self.weights + self.level
        return found

    def improvement(self, points: Points) -> np.ndarray:
        """Expected improvement (n,) over the best posterior mean among the trials."""
        cov = self.gp.covariance(points, self.seen, self.hyper)
        half = forward(self.lower, cov.T)
        deviation = np.sqrt(np.maximum(1 - (half * half).sum(0), 1e-9) * self.signal)
        z = (cov @ self.weights + self.level - self.incumbent) / deviation
        below = np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in z])
        found: np.ndarray = deviation * (z * below + np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi))
        return found


def forward(lower: np.ndarray, right: np.ndarray) -> np.ndarray:
    """``lower`` x = ``right`` for a lower triangle (n, n), block by block: numpy's solver takes it for any matrix."""
    x = np.array(right, dtype=float)
    for i in range(0, len(x), BLOCK):
        rows = slice(i, i + BLOCK)
        x[rows] = np.linalg.solve(lower[rows, rows], x[rows] - lower[rows, :i] @ x[:i])
    return x


def backward(lower: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The same with the triangle's transpose."""
    flipped: np.ndarray = forward(lower.T[::-1, ::-1], right[::-1])[::-1]
    return flipped


def matern(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Matern-5/2 of scaled points (n, d) and (m, d); 1 where there are no dimensions."""
    square = (a * a).sum(1)[:, None] + (b * b).sum(1)[None, :] - 2 * a @ b.T
    r = np.sqrt(5 * np.maximum(square, 0.0))
    found: np.ndarray = (1 + r + r * r / 3) * np.exp(-r)
    return found


def normal_scores(ranked: list[Observation], kept: list[Observation]) -> np.ndarray:
    """The normal score of each kept trial's place among all that are ranked, the best first."""
    place = {o.trial: i for i, o in enumerate(ranked)}
    return np.array([_normal.inv_cdf(1 - (place[o.trial] + 0.5) / len(ranked)) for o in kept])


def spread(count: int, most: int) -> list[int]:
    """The best half of ``most`` places out of ``count``, and an even spread of the others."""
    half = most // 2
    return [*range(half), *np.linspace(half, count - 1, most - half).astype(int).tolist()]


def climb(height: Any, start: np.ndarray) -> np.ndarray:
    """Coordinate steps up, each as long as it helps."""
    at, now = start, height(start)
    for step in STEPS:
        for index in range(len(start)):
            for move in (step, -step):
                while True:
                    tried = at.copy()
                    tried[index] += move
                    found = height(tried)
                    if found <= now + 1e-6:
                        break
                    at, now = tried, found
    return at
