"""Each word of the space language: limits, draws, values, and the way back."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from methods.errors import InputError
from tuning.space.domains import Choice, Domain, Fixed, Int, Log, NearOne, Simplex, Uniform, same

DOMAINS: list[Domain] = [
    Uniform(-1.0, 2.0),
    Log(1e-5, 3.0),
    Int(-2, 9),
    NearOne(0.9, 0.99999),
    NearOne(0.1, 0.6),
    Choice((8, 16, 32)),
    Choice(("a", None, True, 1.5)),
    Choice((("joint",), ("joint", "bone"))),
    Choice((4,)),
    Fixed("x"),
]


def draw(domain: Domain, rng: np.random.Generator) -> dict[str, object]:
    return {d.name: d.sample(rng) for d in domain.draws("p/q")}


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda d: d.describe())
def test_draws_and_values_go_there_and_back(domain: Domain) -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        drawn = draw(domain, rng)
        for d in domain.draws("p/q"):
            d.check(drawn[d.name])
        value = domain.value("p/q", drawn)
        assert domain.contains(value)
        back = domain.invert("p/q", value)
        assert back.keys() == drawn.keys()
        assert domain.value("p/q", back) == value
    assert domain.contains(domain.midpoint())
    assert all(domain.contains(end) for end in domain.extremes())
    assert all(domain.value("p", domain.invert("p", end)) == end for end in domain.extremes())


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Uniform(2.0, 1.0), "the lower bound comes first, got [2, 1]"),
        (lambda: Uniform(1.0, 1.0), "for one value write it without a word"),
        (lambda: Uniform(0.0, math.inf), "two finite numbers, got inf"),
        (lambda: Uniform(True, 2), "two finite numbers, got True"),
        (lambda: Log(0.0, 1.0), "log needs bounds above 0, got 0"),
        (lambda: Log(-1.0, 1.0), "log needs bounds above 0, got -1"),
        (lambda: Int(1, 2.5), "two whole numbers, got 2.5"),
        (lambda: Int(3, 3), "the lower bound comes first"),
        (lambda: NearOne(0.9, 1.0), "inside (0, 1), got [0.9, 1]"),
        (lambda: NearOne(0.0, 0.9), "inside (0, 1)"),
        (lambda: Choice(()), "at least one option"),
        (lambda: Choice((1, 2, 1.0)), "choice names 1 twice"),
        (lambda: Simplex(("joint",)), "at least two names, got [joint]"),
        (lambda: Simplex(("joint", "joint")), "simplex names joint twice"),
    ],
)
def test_what_cannot_be_drawn_from_dies_at_construction(make: object, says: str) -> None:
    with pytest.raises(InputError) as caught:
        make()  # type: ignore[operator]
    assert says in str(caught.value)


def test_choice_tells_true_from_one() -> None:
    assert Choice((1, True)).contains(True) and not Choice((1, 2)).contains(True)
    assert same(1, 1.0) and not same(1, True) and not same(("a",), ("a", "b"))


def test_a_value_outside_is_named_with_the_domain() -> None:
    with pytest.raises(InputError, match=r"2 lies outside log \[0.1, 1\]"):
        Log(0.1, 1.0).invert("x", 2.0)
    assert not Int(1, 3).contains(2.0) and not Int(1, 3).contains(True) and not Uniform(0.0, 1.0).contains("a")


def test_near_one_is_log_uniform_in_one_minus_m() -> None:
    domain, rng = NearOne(0.9, 0.9999), np.random.default_rng(1)
    gaps = np.array(
        [1 - domain.value("m", draw_m) for draw_m in ({"m/gap": d.sample(rng)} for d in domain.draws("m") * 4000)]
    )
    exponents = (np.log10(gaps) + 4) / 3  # uniform in [0, 1] if the claim holds
    assert abs(exponents.mean() - 0.5) < 0.02
    assert abs(exponents.var() - 1 / 12) < 0.006


@pytest.mark.parametrize("k", [2, 3, 5])
def test_simplex_is_a_flat_dirichlet(k: int) -> None:
    """Dirichlet(1, ..., 1): mean 1/k, variance (k-1) / (k^2 (k+1)), covariance -1 / (k^2 (k+1))."""
    domain, rng, n = Simplex(tuple("abcde"[:k])), np.random.default_rng(2), 20_000
    names = [d.name for d in domain.draws("w")]
    assert names == [f"w/{i}" for i in range(k - 1)]
    sticks = rng.uniform(size=(n, k - 1))
    weights = np.array([domain.value("w", dict(zip(names, row, strict=True))) for row in sticks])
    assert np.allclose(weights.sum(1), 1, atol=1e-12)
    assert (weights >= 0).all()
    covariance = np.cov(weights.T)
    assert np.allclose(weights.mean(0), 1 / k, atol=0.01)
    assert np.allclose(np.diag(covariance), (k - 1) / (k**2 * (k + 1)), rtol=0.06)
    off = covariance[~np.eye(k, dtype=bool)]
    assert np.allclose(off, -1 / (k**2 * (k + 1)), rtol=0.25)
    # Marginals are Beta(1, k - 1): P(w_i < 1/k) = 1 - (1 - 1/k)^(k-1), the same for all names.
    assert np.allclose((weights < 1 / k).mean(0), 1 - (1 - 1 / k) ** (k - 1), atol=0.015)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_simplex_comes_back_from_its_weights(sticks: list[float]) -> None:
    domain = Simplex(tuple("abcdef"[: len(sticks) + 1]))
    weights = domain.value("w", {f"w/{i}": u for i, u in enumerate(sticks)})
    again = domain.value("w", domain.invert("w", weights))
    assert again == pytest.approx(weights, abs=1e-9)


def test_simplex_takes_equal_corners_and_unnormalised_weights() -> None:
    domain = Simplex(("a", "b", "c"))
    assert domain.value("w", domain.invert("w", "equal")) == pytest.approx((1 / 3,) * 3)
    assert domain.value("w", domain.invert("w", (1.0, 0.0, 0.0))) == pytest.approx((1, 0, 0))
    assert domain.value("w", domain.invert("w", (0.0, 0.0, 1.0))) == pytest.approx((0, 0, 1))
    assert domain.value("w", domain.invert("w", (2.0, 1.0, 1.0))) == pytest.approx((0.5, 0.25, 0.25))
    assert not domain.contains("fitted") and not domain.contains((1.0, 0.0)) and not domain.contains((-1.0, 1.0, 1.0))


@given(st.floats(0.5, 1 - 1e-12))
def test_a_momentum_survives_exactly(m: float) -> None:
    domain = NearOne(0.5, 1 - 1e-12)
    assert domain.value("m", domain.invert("m", m)) == m


@pytest.mark.parametrize("wrong", [0.05, 2.0, "a", True, None])
def test_a_draw_outside_its_dimension_is_an_input_error(wrong: object) -> None:
    with pytest.raises(InputError, match="draw 'x'"):
        Log(0.1, 1.0).draws("x")[0].check(wrong)
