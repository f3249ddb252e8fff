"""Every loss twice over: against a slow loop that anyone can read, and against a sum worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from methods.losses import cosine_regression, feature_spread, info_nce, info_nce_logits


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit(v: np.ndarray) -> np.ndarray:
    return v / math.sqrt(sum(float(x) ** 2 for x in v))


def slow_info_nce(query: torch.Tensor, key: torch.Tensor, queue: torch.Tensor, tau: float) -> float:
    """-log(exp(q.k / tau) / sum over own key and queue), a clip at a time, straight from the definition."""
    total = 0.0
    for raw_query, raw_key in zip(query.numpy(), key.numpy(), strict=True):
        q, k = unit(raw_query), unit(raw_key)
        own = math.exp(float(q @ k) / tau)
        others = sum(math.exp(float(q @ row) / tau) for row in queue.numpy())
        total += -math.log(own / (own + others))
    return total / len(query)


@pytest.mark.parametrize("tau", [0.07, 0.2, 1.0])
@pytest.mark.parametrize("size", [1, 7])
def test_info_nce_is_its_definition(tau: float, size: int) -> None:
    query, key = 3 * draw(5, 6), 0.1 * draw(5, 6, seed=1)
    queue = torch.nn.functional.normalize(draw(size, 6, seed=2), dim=1)
    assert info_nce(query, key, queue, tau).item() == pytest.approx(slow_info_nce(query, key, queue, tau), rel=1e-9)


@pytest.mark.parametrize(("tau", "size"), [(0.07, 4), (0.5, 100), (1.0, 1)])
def test_info_nce_of_orthogonal_negatives(tau: float, size: int) -> None:
    """q = k, every negative at a right angle: the logits are 1/tau once and 0 K times.

    loss = -log(e^(1/tau) / (e^(1/tau) + K)) = log(1 + K e^(-1/tau)).
    """
    query = torch.tensor([[2.0, 0.0], [0.5, 0.0]], dtype=torch.float64)
    queue = torch.tensor([[0.0, 1.0]], dtype=torch.float64).repeat(size, 1)
    assert info_nce(query, 9 * query, queue, tau).item() == pytest.approx(
        math.log1p(size * math.exp(-1 / tau)), rel=1e-9
    )


def test_info_nce_without_any_signal() -> None:
    """Key and K negatives all equally similar: every one of the 1 + K has probability 1/(1 + K), loss = log(1 + K)."""
    query = draw(3, 4)
    queue = torch.nn.functional.normalize(query[:1], dim=1).repeat(9, 1)
    assert info_nce(query[:1], query[:1], queue, 0.1).item() == pytest.approx(math.log(10), rel=1e-9)


def test_info_nce_logits_hold_the_own_key_first() -> None:
    query, key = draw(3, 4), draw(3, 4, seed=1)
    queue = torch.nn.functional.normalize(draw(5, 4, seed=2), dim=1)
    logits = info_nce_logits(query, key, queue, 0.5).numpy()
    assert logits.shape == (3, 6)
    for i in range(3):
        q = unit(query[i].numpy())
        expected = [q @ unit(key[i].numpy()), *(q @ row for row in queue.numpy())]
        np.testing.assert_allclose(logits[i], np.array(expected) / 0.5, rtol=1e-9)


def test_info_nce_survives_sharp_temperatures() -> None:
    """At tau 0.01 the logits reach 100 and exp overflows in half precision: a log-sum-exp must not."""
    query = draw(4, 8).float().requires_grad_()
    queue = torch.nn.functional.normalize(draw(16, 8, seed=3), dim=1).float()
    loss = info_nce(query, -query.detach(), queue, 0.005)
    loss.backward()
    assert math.isfinite(loss.item()) and loss.item() > 100
    assert query.grad is not None and torch.isfinite(query.grad).all()


def test_cosine_regression_is_the_squared_distance_of_unit_vectors() -> None:
    """|a/|a| - b/|b||^2 = 1 - 2 cos + 1 = 2 - 2 cos."""
    a, b = 5 * draw(6, 3), draw(6, 3, seed=1)
    slow = np.mean([np.sum((unit(x) - unit(y)) ** 2) for x, y in zip(a.numpy(), b.numpy(), strict=True)])
    assert cosine_regression(a, b).item() == pytest.approx(slow, rel=1e-9)


@pytest.mark.parametrize(("degrees", "expected"), [(0, 0.0), (60, 1.0), (90, 2.0), (180, 4.0)])
def test_cosine_regression_at_known_angles(degrees: float, expected: float) -> None:
    """2 - 2 cos(angle): 0 for the same direction, 2 at a right angle, 4 when opposed, whatever the lengths."""
    angle = math.radians(degrees)
    prediction = torch.tensor([[3.0, 0.0]], dtype=torch.float64)
    target = 0.2 * torch.tensor([[math.cos(angle), math.sin(angle)]], dtype=torch.float64)
    assert cosine_regression(prediction, target).item() == pytest.approx(expected, abs=1e-9)


def test_feature_spread_is_its_definition() -> None:
    z = 4 * draw(20, 5)
    rows = np.stack([unit(row) for row in z.numpy()])
    slow = math.sqrt(5) * np.mean([math.sqrt(np.mean((rows[:, d] - rows[:, d].mean()) ** 2)) for d in range(5)])
    assert feature_spread(z).item() == pytest.approx(slow, rel=1e-5)


def test_feature_spread_of_plus_and_minus_axes() -> None:
    """The 2D vectors +-e_d: each coordinate is +1 once, -1 once and 0 else, so its mean is 0 and its variance 1/D.

    spread = sqrt(D) * sqrt(1/D) = 1: what an even cover of the sphere gives.
    """
    axes = torch.eye(8)
    assert feature_spread(torch.cat([axes, -axes])).item() == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("length", [1.0, 1e-3, 100.0])
def test_feature_spread_of_one_direction_is_zero(length: float) -> None:
    """Collapse is a matter of direction, not of length: c * z has one unit vector, so every deviation is 0."""
    z = draw(1, 8).float() * length * torch.arange(1, 11)[:, None]
    assert feature_spread(z).item() == pytest.approx(0, abs=1e-6)


def test_feature_spread_lets_no_gradient_through() -> None:
    z = draw(4, 4).requires_grad_()
    assert not feature_spread(z).requires_grad
