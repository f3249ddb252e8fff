"""Losses without a queue, each twice: by a slow loop that anyone can read, and by a sum worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from methods.losses import (
    barlow_terms,
    barlow_twins,
    collaborative_labels,
    collaborative_loss,
    cosine_matrix,
    cosine_regression,
    cross_model_adversarial,
    feature_distillation,
    reconstruction,
)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosine(a: list[float], b: list[float]) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


# --- CMAL -----------------------------------------------------------------------------------------------------------


def four() -> list[torch.Tensor]:
    return [draw(6, 5, seed=seed) * (seed + 1) for seed in range(4)]


@pytest.mark.parametrize("repulsion", [0.5, 0.1, 1.0])
def test_cmal_is_its_definition(repulsion: float) -> None:
    p1, p2, t1, t2 = four()
    slow = [
        (2 - 2 * cosine(a, b)) - repulsion * ((2 - 2 * cosine(a, c)) + (2 - 2 * cosine(b, d)))
        for a, b, c, d in zip(*(x.tolist() for x in (p1, p2, t1, t2)), strict=True)
    ]
    assert cross_model_adversarial((p1, p2), (t1, t2), repulsion).item() == pytest.approx(np.mean(slow), rel=1e-9)


def test_cmal_identity_at_one_half() -> None:
    """2 - 2a - (2 - 2b)/2 - (2 - 2c)/2 = -2a + b + c."""
    p1, p2, t1, t2 = four()
    cos = F.cosine_similarity
    expected = (-2 * cos(p1, p2) + cos(p1, t1) + cos(p2, t2)).mean()
    assert cross_model_adversarial((p1, p2), (t1, t2)).item() == pytest.approx(expected.item(), rel=1e-12)


def test_cmal_bounds() -> None:
    """Predictions alike and targets opposed: -2 - 1 - 1 = -4; predictions opposed, each its own target: 2 + 1 + 1."""
    p = draw(4, 3)
    assert cross_model_adversarial((p, 3 * p), (-p, -p)).item() == pytest.approx(-4)
    assert cross_model_adversarial((p, -p), (p, -p)).item() == pytest.approx(4)


def test_cmal_gradient_flows_through_both_predictions_and_no_target() -> None:
    tensors = [x.requires_grad_() for x in four()]
    cross_model_adversarial((tensors[0], tensors[1]), (tensors[2], tensors[3])).backward()
    assert [x.grad is not None for x in tensors] == [True, True, False, False]


def test_cmal_without_repulsion_is_plain_regression() -> None:
    p1, p2, t1, t2 = four()
    assert cross_model_adversarial((p1, p2), (t1, t2), 0.0).item() == cosine_regression(p1, p2).item()


# --- CSCL -----------------------------------------------------------------------------------------------------------


def slow_labels(streams: list[tuple[list[list[float]], list[list[float]]]], topk: int) -> list[list[int]]:
    n = len(streams[0][0])

    def votes(row: list[float], j: int) -> bool:
        return j in sorted(range(n), key=lambda k: -row[k])[:topk]

    labels = [[0] * n for _ in range(n)]
    for i in range(n):
        for j in range(n):
            count = sum((i == j) or (votes(a[i], j) and votes(b[i], j)) for a, b in streams)
            labels[i][j] = int(count >= min(2, len(streams)))
    return labels


def matrices(streams: int, n: int = 6, seed: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Streams that agree in part, so that votes are neither all nor none."""
    shared = 1.5 * draw(n, n, seed=seed + 100)
    noisy = [shared + draw(n, n, seed=seed + i) for i in range(2 * streams)]
    return list(zip(noisy[0::2], noisy[1::2], strict=True))


@pytest.mark.parametrize("streams", [1, 2, 3, 4])
@pytest.mark.parametrize("topk", [1, 2, 4])
def test_labels_are_a_vote(streams: int, topk: int) -> None:
    found = 0
    for seed in range(4):
        drawn = matrices(streams, seed=10 * seed)
        labels = collaborative_labels(drawn, topk)
        assert labels.tolist() == slow_labels([(a.tolist(), b.tolist()) for a, b in drawn], topk)
        assert torch.equal(labels.diagonal(), torch.ones(6, dtype=torch.float64))
        found += int(labels.sum()) - 6
    assert found > 0, "no label off the diagonal: the case says nothing"


def test_labels_at_top_one_of_identical_streams() -> None:
    """I and the pairs where j is the row's highest in both matrices."""
    a, b = matrices(1, n=9)[0]
    labels = collaborative_labels([(a, b)] * 3, 1)
    both = (a == a.amax(1, keepdim=True)) & (b == b.amax(1, keepdim=True))
    assert torch.equal(labels.bool(), both | torch.eye(9, dtype=torch.bool))


def test_labels_carry_no_gradient() -> None:
    streams = [(a.requires_grad_(), b) for a, b in matrices(3)]
    assert not collaborative_labels(streams, 2).requires_grad


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_collaborative_loss_is_its_sum(temperature: float) -> None:
    p, t = draw(6, 4), 5 * draw(6, 4, seed=1)
    cosines, labels = cosine_matrix(p, t), collaborative_labels(matrices(3), 3)
    slow = 0.0
    for i in range(6):
        row = [math.exp(cosine(p[i].tolist(), t[j].tolist()) / temperature) for j in range(6)]
        slow -= sum(float(labels[i, j]) * math.log(row[j] / sum(row)) for j in range(6)) / 6
    assert collaborative_loss(cosines, labels, temperature).item() == pytest.approx(slow, rel=1e-9)


def test_collaborative_loss_sums_over_positives() -> None:
    """All cosines equal: each positive costs log N, and rows of two cost it twice."""
    flat = torch.zeros(5, 5, dtype=torch.float64)
    assert collaborative_loss(flat, torch.eye(5).double()).item() == pytest.approx(math.log(5))
    assert collaborative_loss(flat, torch.ones(5, 5).double()).item() == pytest.approx(5 * math.log(5))


# --- Barlow Twins ---------------------------------------------------------------------------------------------------


def whitened(n: int, d: int, seed: int = 0) -> torch.Tensor:
    x = draw(n, d, seed=seed)
    return (x - x.mean(0)) / x.std(0, correction=0)


def slow_barlow(a: torch.Tensor, b: torch.Tensor) -> tuple[float, float]:
    n, d = a.shape
    on = off = 0.0
    for i in range(d):
        for j in range(d):
            c = sum(float(a[k, i]) * float(b[k, j]) for k in range(n)) / n
            on, off = (on + (c - 1) ** 2, off) if i == j else (on, off + c**2)
    return on, off


@settings(max_examples=25, deadline=None)
@given(n=st.integers(2, 7), d=st.integers(1, 7), seed=st.integers(0, 1000))
def test_barlow_terms_are_their_double_sum_however_wide(n: int, d: int, seed: int) -> None:
    a, b = draw(n, d, seed=seed), draw(n, d, seed=seed + 1)
    on, off = barlow_terms(a, b)
    slow_on, slow_off = slow_barlow(a, b)
    assert on.item() == pytest.approx(slow_on, rel=1e-9)
    assert off.item() == pytest.approx(slow_off, rel=1e-9, abs=1e-12)
    assert barlow_twins(a, b, 2e-4).item() == pytest.approx(slow_on + 2e-4 * slow_off, rel=1e-9)


@pytest.mark.parametrize(("n", "d"), [(8, 60), (8, 9)])
def test_gram_form_has_the_gradient_of_the_direct_one(n: int, d: int) -> None:
    a, b = whitened(n, d).requires_grad_(), whitened(n, d, seed=1).requires_grad_()
    ours = torch.autograd.grad(barlow_twins(a, b, 0.01), (a, b))
    c = a.T @ b / n
    away = c.square().sum() - c.diagonal().square().sum()
    direct = torch.autograd.grad((c.diagonal() - 1).square().sum() + 0.01 * away, (a, b))
    for mine, theirs in zip(ours, direct, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-13)


def test_gram_form_in_single_precision_at_a_published_shape() -> None:
    """N = 128 of D = 2048: the subtracted diagonal is small beside ||C||^2, which of rank N is at least D^2 / N."""
    a, b = whitened(128, 2048), whitened(128, 2048, seed=1)
    b = 0.9 * a + 0.1 * b
    double, single = barlow_terms(a, b), barlow_terms(a.float(), b.float())
    for x, y in zip(double, single, strict=True):
        assert y.item() == pytest.approx(x.item(), rel=1e-5)


def test_barlow_vanishes_for_identical_white_inputs() -> None:
    """Orthogonal columns of mean square 1: C is the identity."""
    q = torch.linalg.qr(draw(12, 5)).Q * math.sqrt(12)
    assert barlow_twins(q, q, 1.0).item() == pytest.approx(0, abs=1e-20)


def test_barlow_of_constant_columns() -> None:
    """Every entry 1: C is all ones, so the diagonal costs nothing and each of D(D-1) others costs 1, wide or not."""
    for n, d in ((3, 6), (6, 3)):
        ones = torch.ones(n, d, dtype=torch.float64)
        on, off = barlow_terms(ones, ones)
        assert (on.item(), off.item()) == pytest.approx((0, d * (d - 1)))


def test_wide_barlow_never_holds_a_square_of_its_width() -> None:
    """D = 200000 would need 320 GB for D x D; the Gram form takes a few megabytes."""
    a = torch.ones(2, 200_000, dtype=torch.float64)
    a[1] = -1
    on, off = barlow_terms(a, a)
    assert on.item() == pytest.approx(0) and off.item() == pytest.approx(200_000 * 199_999.0)


# --- reconstruction and distillation --------------------------------------------------------------------------------


def test_reconstruction_sums_features_and_averages_valid_frames() -> None:
    prediction, target, lengths = draw(4, 6, 3), draw(4, 6, 3, seed=1), torch.tensor([6, 1, 4, 5])
    slow = 0.0
    for n, length in enumerate(lengths.tolist()):
        frames = [(prediction[n, t] - target[n, t]).square().sum().item() for t in range(length)]
        slow += sum(frames) / length / 4
    assert reconstruction(prediction, target, lengths).item() == pytest.approx(slow, rel=1e-9)


def test_reconstruction_off_by_one_everywhere() -> None:
    """Each of F features is off by 1 in each valid frame: the loss is F, whatever the lengths."""
    target = draw(3, 5, 7)
    assert reconstruction(target + 1, target, torch.tensor([5, 2, 1])).item() == pytest.approx(7)
    assert reconstruction(target, target, torch.tensor([5, 2, 1])).item() == 0


def test_reconstruction_never_looks_at_padding() -> None:
    prediction, target, lengths = draw(3, 5, 2), draw(3, 5, 2, seed=1), torch.tensor([5, 3, 1])
    clean = reconstruction(prediction, target, lengths)
    spoilt = prediction.clone()
    spoilt[1, 3:], spoilt[2, 1:] = math.inf, math.nan
    spoilt.requires_grad_()
    loss = reconstruction(spoilt, target, lengths)
    loss.backward()
    assert loss.item() == clean.item()
    assert spoilt.grad is not None and torch.isfinite(spoilt.grad).all() and not spoilt.grad[2, 1:].any()


def test_feature_distillation() -> None:
    """(3, 4) off in one clip and nothing in the other: (9 + 16) / 2."""
    student, teacher = draw(2, 2).requires_grad_(), draw(2, 2).requires_grad_()
    shifted = student + torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    loss = feature_distillation(shifted, teacher)
    loss.backward()
    assert loss.item() == pytest.approx(12.5)
    assert teacher.grad is None and student.grad is not None
