"""Losses against a queue, each twice: by a slow loop that anyone can read, and by a sum worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from methods.losses import (
    cosine_regression,
    cross_stream_logits,
    cross_stream_nce,
    distribution_match,
    feature_spread,
    info_nce,
    info_nce_logits,
    multi_positive_nce,
    nearest,
    similarities,
    similarity_distillation,
    with_own_key,
)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit(v: np.ndarray) -> np.ndarray:
    return v / math.sqrt(sum(float(x) ** 2 for x in v))


def unit_rows(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.nn.functional.normalize(draw(*shape, seed=seed), dim=1)


def softmax(row: list[float]) -> list[float]:
    weights = [math.exp(value) for value in row]
    return [weight / sum(weights) for weight in weights]


def highest(row: list[float], count: int) -> set[int]:
    return set(sorted(range(len(row)), key=lambda j: -row[j])[:count])


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


# --- one negative more (SkeleMixCLR) ----------------------------------------------------------------------------------


def test_extra_negative_is_a_queue_of_its_own_for_each_clip() -> None:
    query, key, other = 2 * draw(5, 6), draw(5, 6, seed=1), 7 * draw(5, 6, seed=2)
    queue = unit_rows(4, 6, seed=3)
    slow = []
    for i in range(5):
        longer = torch.cat([queue, torch.from_numpy(unit(other[i].numpy()))[None]])
        slow.append(slow_info_nce(query[i : i + 1], key[i : i + 1], longer, 0.2))
    assert info_nce(query, key, queue, 0.2, other).item() == pytest.approx(np.mean(slow), rel=1e-9)
    assert info_nce_logits(query, key, queue, 0.2, other).shape == (5, 6)


def test_extra_negative_gets_no_gradient_and_the_query_does() -> None:
    query, other = draw(3, 4).requires_grad_(), draw(3, 4, seed=1).requires_grad_()
    info_nce(query, draw(3, 4, seed=2), unit_rows(5, 4), 0.1, other).backward()
    assert other.grad is None
    assert query.grad is not None and query.grad.abs().sum() > 0


# --- several positives (AimCLR's NNM, CrosSCLR) -----------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_multi_positive_nce_is_the_mean_over_positives(seed: int) -> None:
    logits = 5 * draw(6, 9, seed=seed)
    positives = with_own_key(draw(6, 8, seed=seed + 50) > 0.5)
    slow = []
    for row, marked in zip(logits.tolist(), positives.tolist(), strict=True):
        terms = [-math.log(share) for share, mark in zip(softmax(row), marked, strict=True) if mark]
        slow.append(sum(terms) / len(terms))
    assert multi_positive_nce(logits, positives).item() == pytest.approx(np.mean(slow), rel=1e-9)


def test_multi_positive_nce_of_the_own_key_alone_is_info_nce() -> None:
    query, key, queue = draw(4, 6), draw(4, 6, seed=1), unit_rows(7, 6, seed=2)
    alone = with_own_key(torch.zeros(4, 7, dtype=torch.bool))
    loss = multi_positive_nce(info_nce_logits(query, key, queue, 0.1), alone)
    assert loss.item() == pytest.approx(info_nce(query, key, queue, 0.1).item(), rel=1e-12)


def test_multi_positive_nce_where_all_are_positive_and_alike() -> None:
    """L equal logits: every share is 1/L, so each term is log L, however many are positive."""
    logits = torch.full((3, 12), 4.0, dtype=torch.float64)
    positives = with_own_key(torch.arange(11)[None] < torch.tensor([[0], [3], [11]]))
    assert multi_positive_nce(logits, positives).item() == pytest.approx(math.log(12), rel=1e-12)


def test_multi_positive_nce_survives_shares_that_underflow() -> None:
    """exp(-2000) is 0 in any precision; its logarithm must come out as -2000 all the same, with a finite gradient."""
    logits = torch.tensor([[-2000.0, 0.0]], requires_grad=True)
    loss = multi_positive_nce(logits, torch.tensor([[True, True]]))
    loss.backward()
    assert loss.item() == pytest.approx(1000)
    assert logits.grad is not None and torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("topk", [1, 2, 5, 99])
def test_nearest_is_a_union_of_top_k(topk: int) -> None:
    cosines = [draw(4, 9, seed=seed) for seed in range(3)]
    chosen = nearest(*cosines, topk=topk)
    for i in range(4):
        union = set().union(*(highest(each[i].tolist(), topk) for each in cosines))
        assert set(torch.nonzero(chosen[i]).flatten().tolist()) == union
    per_row = chosen.sum(1)
    assert (per_row >= min(topk, 9)).all() and (per_row <= min(3 * topk, 9)).all()


def test_nnm_mask_holds_two_to_four_at_top_one() -> None:
    """The own key and the union of three nearest neighbours, which may all be one."""
    cosines = [draw(200, 5, seed=seed) for seed in range(3)]
    counts = with_own_key(nearest(*cosines, topk=1)).sum(1)
    assert set(counts.tolist()) == {2, 3, 4}
    assert (with_own_key(nearest(cosines[0], cosines[0], cosines[0], topk=1)).sum(1) == 2).all()


# --- matching a distribution (AimCLR's D3M) ---------------------------------------------------------------------------


def test_distribution_match_is_a_cross_entropy() -> None:
    student, teacher = 3 * draw(5, 8), 3 * draw(5, 8, seed=1)
    slow = np.mean(
        [
            -sum(p * math.log(q) for p, q in zip(softmax(t), softmax(s), strict=True))
            for s, t in zip(student.tolist(), teacher.tolist(), strict=True)
        ]
    )
    assert distribution_match(student, teacher).item() == pytest.approx(slow, rel=1e-9)


def test_distribution_match_is_least_at_the_teacher_and_there_its_entropy() -> None:
    teacher = 2 * draw(4, 6)
    share = teacher.softmax(1)
    entropy = -(share * share.log()).sum(1).mean().item()
    student = teacher.clone().requires_grad_()
    loss = distribution_match(student, teacher)
    assert loss.item() == pytest.approx(entropy, rel=1e-12)
    loss.backward()
    torch.testing.assert_close(student.grad, torch.zeros_like(teacher), atol=1e-12, rtol=0)
    assert distribution_match(teacher + draw(4, 6, seed=1), teacher).item() > entropy
    shifted = distribution_match(teacher + 17.0, teacher - 3.0)  # a softmax feels no constant
    assert shifted.item() == pytest.approx(entropy, rel=1e-12)


def test_distribution_match_stops_at_the_teacher_and_survives_certainty() -> None:
    student, teacher = draw(3, 4).requires_grad_(), torch.tensor([[1000.0, 0, 0, 0]] * 3).double().requires_grad_()
    loss = distribution_match(student, teacher)
    loss.backward()
    assert teacher.grad is None and math.isfinite(loss.item())  # 0 log 0 would be no number
    torch.testing.assert_close(student.grad, (student.softmax(1) - teacher.softmax(1)).detach() / 3)


# --- across streams (CrosSCLR) ----------------------------------------------------------------------------------------


def two_streams(n: int = 5, k: int = 7, d: int = 6) -> list[torch.Tensor]:
    return [similarities(draw(n, d, seed=s), draw(n, d, seed=s + 10), unit_rows(k, d, seed=s + 20)) for s in (0, 1)]


def slow_cross_stream(own: list[float], other: list[float], tau: float, topk: int, context: bool) -> float:
    mined = highest(other[1:], topk)
    row = [own[0], *own[1:]]
    marked = {0} | {1 + j for j in mined}
    if context:
        row += [a * b for a, b in zip(own[1:], other[1:], strict=True)]
        marked |= {len(own) + j for j in mined}
    shares = softmax([value / tau for value in row])
    return sum(-math.log(shares[j]) for j in marked) / len(marked)


@pytest.mark.parametrize("context", [True, False])
@pytest.mark.parametrize("topk", [1, 3])
def test_cross_stream_nce_is_its_definition(context: bool, topk: int) -> None:
    own, other = two_streams()
    slow = [slow_cross_stream(a, b, 0.2, topk, context) for a, b in zip(own.tolist(), other.tolist(), strict=True)]
    assert cross_stream_nce(own, other, 0.2, topk, context).item() == pytest.approx(np.mean(slow), rel=1e-9)


@pytest.mark.parametrize(("context", "topk", "expected"), [(True, 1, 3), (True, 2, 5), (False, 2, 3)])
def test_cross_stream_positives_are_counted(context: bool, topk: int, expected: int) -> None:
    own, other = two_streams()
    logits, positives = cross_stream_logits(own, other, 1.0, topk, context)
    assert logits.shape == positives.shape == (5, 15 if context else 8)
    assert (positives.sum(1) == expected).all() and positives[:, 0].all()


def test_cross_stream_gradient_reaches_the_other_stream_through_the_context_alone() -> None:
    """As in the public code: the mining itself is a choice and has no gradient."""
    for context in (True, False):
        own, other = (each.clone().requires_grad_() for each in two_streams())
        cross_stream_nce(own, other, 0.2, 1, context).backward()
        assert own.grad is not None and own.grad.abs().sum() > 0
        assert (other.grad is not None and bool(other.grad.abs().sum() > 0)) == context


# --- distilling similarities (CMD) ------------------------------------------------------------------------------------


@pytest.mark.parametrize("topk", [1, 4, 9, 99])
def test_similarity_distillation_is_a_kl_divergence_over_the_teachers_neighbours(topk: int) -> None:
    student, teacher = draw(5, 9), draw(5, 9, seed=1)
    slow = []
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        kept = sorted(highest(t, topk))
        p = softmax([t[j] / 0.05 for j in kept])
        q = softmax([s[j] / 0.1 for j in kept])
        slow.append(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
    loss = similarity_distillation(student, teacher, topk, 0.05, 0.1)
    assert loss.item() == pytest.approx(np.mean(slow), rel=1e-9, abs=1e-12)


def test_similarity_distillation_vanishes_for_equal_distributions() -> None:
    teacher = draw(4, 8)
    student = (teacher * 2).requires_grad_()  # at twice the temperature: the same distribution
    loss = similarity_distillation(student, teacher, 5, 0.1, 0.2)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(student.grad, torch.zeros_like(teacher), atol=1e-12, rtol=0)
    assert similarity_distillation(draw(4, 8, seed=3), teacher, 5, 0.1, 0.2).item() > 0


def test_similarity_distillation_teaches_the_student_only() -> None:
    student, teacher = draw(4, 8).requires_grad_(), draw(4, 8, seed=1).requires_grad_()
    similarity_distillation(student, teacher, 3, 0.05, 0.1).backward()
    assert teacher.grad is None
    assert ((student.grad != 0).sum(1) == 3).all()  # no other key than the teacher's three


# --- regression (BYOL) and watching -----------------------------------------------------------------------------------


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
