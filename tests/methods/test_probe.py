"""Probes against slow or closed computations, folds that leak nothing, and fused streams."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from tiny import generator, make_clips, make_config
from torch import Tensor

from methods.data.splits import Split
from methods.errors import InputError
from methods.training import evaluate
from methods.training.branches import Branches
from methods.training.clips import ClipStore
from methods.training.probe import (
    Few,
    ProbeConfig,
    fit_fusion,
    fuse_streams,
    linear_lbfgs,
    linear_sgd,
    log_probabilities,
    out_of_fold,
    probe_cross_validated,
    probe_held_out,
    weighted_knn,
)

KINDS = [ProbeConfig(), ProbeConfig(kind="knn", knn_k=5), ProbeConfig(solver="sgd", sgd_lr=0.1, sgd_epochs=5)]
every_kind = pytest.mark.parametrize("config", KINDS, ids=["lbfgs", "knn", "sgd"])


def blobs(
    count: int = 60, width: int = 5, classes: int = 3, apart: float = 1.0, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Features (N, D) around one centre a class, and labels (N,)."""
    rng = generator(seed)
    labels = torch.arange(count) % classes
    centres = torch.randn(classes, width, generator=generator(7))
    return centres[labels] * apart + torch.randn(count, width, generator=rng), labels


def spoiled(labels: Tensor, share: float, seed: int = 0) -> Tensor:
    """Log-probabilities (N, 3) of a stream that is right but for a ``share`` of the clips."""
    rng = np.random.default_rng(seed)
    said = np.where(rng.random(len(labels)) < share, rng.integers(0, 3, len(labels)), labels.numpy())
    return torch.nn.functional.one_hot(torch.from_numpy(said), 3).float().mul(2).log_softmax(1)


# --- logistic regression --------------------------------------------------------------------------------------------


def solved(x: np.ndarray, y: np.ndarray, classes: int, l2: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights and biases that our probe found, read back from its predictions at the unit vectors and the origin."""
    mean, std = x.mean(0), x.std(0)
    points = np.concatenate([np.zeros((1, x.shape[1])), np.eye(x.shape[1])]) * std + mean
    logs = linear_lbfgs(
        torch.from_numpy(x).float(), torch.from_numpy(y), torch.from_numpy(points).float(), classes, l2
    ).numpy()
    logits = logs - logs.mean(1, keepdims=True)  # log-softmax is the logits up to one number a row
    return logits[1:] - logits[0], logits[0]


@pytest.mark.parametrize("l2", [1e-3, 0.1, 10.0])
def test_lbfgs_stands_where_the_gradient_vanishes(l2: float) -> None:
    """d/dW [mean CE + l2/2 |W|^2] = X'(P - Y)/N + l2 W and d/db = mean(P - Y): both 0, computed with numpy alone.

    The predictions give W up to one number a feature added to all classes; the penalty makes that number 0.
    """
    features, labels = blobs(90)
    x, y = features.numpy().astype(np.float64) * 3 + 5, labels.numpy()
    weight, bias = solved(x, y, 3, l2)
    z = (x - x.mean(0)) / x.std(0)
    logits = z @ weight + bias
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    wrong = p - np.eye(3)[y]
    np.testing.assert_allclose(z.T @ wrong / len(z) + l2 * weight, 0, atol=5e-4)
    np.testing.assert_allclose(wrong.mean(0), 0, atol=5e-4)


@pytest.mark.parametrize(("count", "width", "classes"), [(90, 5, 3), (40, 30, 4), (25, 64, 2)])
def test_lbfgs_steps_as_autograd_would_have_it(count: int, width: int, classes: int) -> None:
    """The slope is written down; autograd's, by the same solver, gives the same log-probabilities bit for bit."""
    features, labels = blobs(count, width, classes, apart=0.3)
    x = (features - features.mean(0)) / features.std(0, correction=0)
    weight, bias = torch.zeros(width, classes, requires_grad=True), torch.zeros(classes, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weight, bias], max_iter=200, history_size=10, line_search_fn="strong_wolfe", tolerance_grad=1e-6,
        tolerance_change=1e-12,
    )  # fmt: skip

    def closure() -> Tensor:
        solver.zero_grad()
        loss = torch.nn.functional.cross_entropy(x @ weight + bias, labels) + 0.5 * 1e-3 * weight.square().sum()
        loss.backward()
        return loss

    solver.step(closure)
    expected = (x @ weight + bias).detach().log_softmax(1)
    assert torch.equal(linear_lbfgs(features, labels, features, classes, 1e-3), expected)


def test_lbfgs_in_one_dimension_has_the_known_solution() -> None:
    """Feature +1 for class 0 and -1 for class 1, as many of each: already standard, so W = (w, -w), b = 0.

    d/dw: -sigma(-2w) + l2 w = 0 in each of the two columns. At w = 0.5: sigma(-1) = 0.26894, so l2 = 0.53788 solves it,
    and the log-probability of the right class is log sigma(1).
    """
    x = torch.tensor([[1.0], [-1.0]] * 10)
    logs = linear_lbfgs(x, torch.tensor([0, 1] * 10), x, 2, 2 / (1 + math.e))
    right = logs[torch.arange(20), torch.tensor([0, 1] * 10)]
    torch.testing.assert_close(right, torch.full((20,), math.log(1 / (1 + math.exp(-1)))), atol=1e-4, rtol=0)


def test_lbfgs_without_information_gives_the_class_frequencies() -> None:
    x = torch.zeros(8, 2)
    logs = linear_lbfgs(x, torch.tensor([0] * 6 + [1] * 2), torch.zeros(1, 2), 3, 1.0)
    torch.testing.assert_close(logs.exp()[0, :2], torch.tensor([0.75, 0.25]), atol=2e-3, rtol=0)
    assert float(logs.exp()[0, 2]) < 2e-3


def test_lbfgs_separates_what_is_separable() -> None:
    features, labels = blobs(60, apart=20.0)
    more, theirs = blobs(60, apart=20.0, seed=1)
    assert torch.equal(linear_lbfgs(features, labels, more, 3, 1e-3).argmax(1), theirs)


def test_lbfgs_does_not_feel_scale_and_shift() -> None:
    features, labels = blobs()
    factor, shift = torch.tensor([1e-3, 1.0, 50.0, 2.0, 1e-2]), torch.tensor([0.0, 3.0, -7.0, 0.1, 0.0])
    plain = linear_lbfgs(features, labels, features, 3, 0.01)
    torch.testing.assert_close(
        linear_lbfgs(features * factor + shift, labels, features * factor + shift, 3, 0.01), plain, atol=2e-3, rtol=1e-3
    )


def test_lbfgs_scores_do_not_depend_on_the_test_clips() -> None:
    features, labels = blobs()
    whole = linear_lbfgs(features, labels, features, 3, 0.01)
    torch.testing.assert_close(linear_lbfgs(features, labels, features[:1], 3, 0.01), whole[:1])


def test_a_feature_that_is_constant_in_training_says_nothing() -> None:
    """A dead unit, whatever its value was: when it wakes on a test clip, nothing was ever learnt about it."""
    features, labels = blobs()
    plain = linear_lbfgs(features, labels, features, 3, 0.01)
    for constant in (0.0, 0.5):  # exact in binary
        dead = torch.full((60, 1), constant)
        woken = torch.cat([features, dead + 1e-3], 1)
        found = linear_lbfgs(torch.cat([features, dead], 1), labels, woken, 3, 0.01)
        torch.testing.assert_close(found, plain, atol=1e-2, rtol=0)


def test_a_constant_that_binary_cannot_hold_says_nothing_either() -> None:
    features, labels = blobs()
    plain = linear_lbfgs(features, labels, features, 3, 0.01)
    dead = torch.full((60, 1), 0.1)
    found = linear_lbfgs(torch.cat([features, dead], 1), labels, torch.cat([features, dead + 1e-3], 1), 3, 0.01)
    torch.testing.assert_close(found, plain, atol=1e-2, rtol=0)


def test_sgd_agrees_with_lbfgs_where_the_answer_is_clear_and_keeps_its_seed() -> None:
    features, labels = blobs(apart=5.0)
    config = ProbeConfig(solver="sgd", sgd_lr=0.1, sgd_epochs=20, sgd_batch=16)
    found = linear_sgd(features, labels, features, 3, config, seed=1)
    assert torch.equal(found.argmax(1), labels)
    torch.testing.assert_close(found.exp().sum(1), torch.ones(60))
    assert torch.equal(found, linear_sgd(features, labels, features, 3, config, seed=1))
    assert not torch.equal(found, linear_sgd(features, labels, features, 3, config, seed=2))


# --- nearest neighbours ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 4, 200])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_knn_is_a_double_loop(k: int, temperature: float) -> None:
    bank, labels = blobs(30)
    queries, _ = blobs(7, seed=3)
    found = weighted_knn(bank, labels, queries, 3, k, temperature)
    for i, q in enumerate(queries.numpy().astype(np.float64)):
        nearness = []
        for b, label in zip(bank.numpy().astype(np.float64), labels.tolist(), strict=True):
            cosine = float(q @ b) / math.sqrt(float(q @ q) * float(b @ b))
            nearness.append((cosine, label))
        votes = [0.0] * 3
        for cosine, label in sorted(nearness, reverse=True)[:k]:
            votes[label] += math.exp(cosine / temperature)
        assert found[i].tolist() == pytest.approx(votes, rel=1e-4)


def test_knn_of_three_known_neighbours() -> None:
    """Cosines 1, 0 and -1 at temperature 1: class 0 gets e^1, class 1 gets e^0 + e^-1."""
    bank = torch.tensor([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]])
    found = weighted_knn(bank, torch.tensor([0, 1, 1]), torch.tensor([[5.0, 0.0]]), 2, 3, 1.0)
    assert found[0].tolist() == pytest.approx([math.e, 1 + 1 / math.e])


def test_knn_queries_come_in_any_number() -> None:
    bank, labels = blobs(20)
    queries, _ = blobs(2100, seed=3)
    whole = weighted_knn(bank, labels, queries, 3, 5, 0.1)
    assert whole.shape == (2100, 3)
    torch.testing.assert_close(whole[1020:1030], weighted_knn(bank, labels, queries[1020:1030], 3, 5, 0.1))


@pytest.mark.parametrize("temperature", [1.0, 0.1, 0.03, 0.01])
def test_knn_log_probabilities_are_finite_and_sum_to_one(temperature: float) -> None:
    bank, labels = blobs(30)
    logs = log_probabilities(bank, labels, bank, 4, ProbeConfig(kind="knn", knn_k=1, knn_temperature=temperature))
    assert torch.isfinite(logs).all(), "a class without a vote"
    torch.testing.assert_close(logs.exp().sum(1), torch.ones(30))
    assert torch.equal(logs.argmax(1), labels)


# --- folds ----------------------------------------------------------------------------------------------------------


def planted(width: int = 4) -> tuple[Tensor, Tensor, np.ndarray]:
    """Three folds of 20 clips. In fold 0 the label is the opposite of what it is elsewhere at the same place."""
    rng = generator()
    folds = np.repeat([0, 1, 2], 20)
    labels = torch.arange(60) % 2
    sign = torch.where(torch.from_numpy(folds) == 0, -1.0, 1.0) * (labels * 2 - 1)
    return torch.randn(60, width, generator=rng) * 0.1 + sign[:, None], labels, folds


@every_kind
def test_out_of_fold_never_trains_on_its_fold(config: ProbeConfig) -> None:
    """Who learns fold 0 from the others is wrong on all of it; who saw even its own labels would not be."""
    features, labels, folds = planted()
    said = out_of_fold(features, labels, folds, 2, config, seed=0).argmax(1)
    held = torch.from_numpy(folds == 0)
    assert torch.equal(said[held], 1 - labels[held])
    changed = labels.clone()
    changed[held] = 1 - changed[held]  # whatever fold 0's labels are, its predictions stay
    again = out_of_fold(features, changed, folds, 2, config, seed=0)
    assert torch.equal(again[held], out_of_fold(features, labels, folds, 2, config, seed=0)[held])


@every_kind
def test_out_of_fold_is_a_fit_for_each_fold(config: ProbeConfig) -> None:
    features, labels = blobs()
    folds = np.arange(60) // 2 % 3 + 5
    found = out_of_fold(features, labels, folds, 3, config, seed=4)
    for fold in (5, 6, 7):
        held = torch.from_numpy(folds == fold)
        alone = log_probabilities(features[~held], labels[~held], features[held], 3, config, 4)
        assert torch.equal(found[held], alone)


@every_kind
def test_cross_validation_scores_by_hand(config: ProbeConfig) -> None:
    features, labels = blobs()
    folds = np.arange(60) // 2 % 3
    index = np.arange(59, -1, -1)  # positions, in an order of their own
    result = probe_cross_validated({"joint": features}, labels.numpy(), index, folds, 3, config, (1.0,))
    logs = out_of_fold(features.flip(0), labels.flip(0), folds, 3, config, 0)
    right = logs.argmax(1) == labels.flip(0)
    assert np.array_equal(result.correct, right.numpy()) and np.array_equal(result.clips, index)
    assert result.top1 == pytest.approx(float(right.float().mean()))
    expected = -np.mean([float(logs[i, c]) for i, c in enumerate(labels.flip(0).tolist())])
    assert result.loss == pytest.approx(expected, rel=1e-4)
    assert result.streams == {"joint": pytest.approx((result.top1, result.loss), rel=1e-4)}


@pytest.mark.parametrize("config", KINDS[:2], ids=["lbfgs", "knn"])
def test_results_do_not_depend_on_the_order_of_clips(config: ProbeConfig) -> None:
    features, labels = blobs(apart=1.5)
    folds = np.arange(60) // 2 % 3
    order = torch.randperm(60, generator=generator(5))
    streams = {"joint": features, "bone": features.roll(1, 1) + 0.3}
    plain = probe_cross_validated(streams, labels.numpy(), np.arange(60), folds, 3, config, None)
    mixed = probe_cross_validated(
        {k: v[order] for k, v in streams.items()}, labels[order].numpy(), np.arange(60), folds[order], 3, config, None
    )
    assert mixed.top1 == plain.top1 and np.array_equal(mixed.correct, plain.correct[order])
    assert mixed.loss == pytest.approx(plain.loss, abs=1e-3)
    assert mixed.fuse == pytest.approx(plain.fuse, abs=1e-2)
    train = np.arange(40)
    held = np.arange(40, 60)
    a = probe_held_out(streams, labels.numpy(), train, held, folds[:40], 3, config, None)
    b = probe_held_out(streams, labels.numpy(), train[::-1].copy(), held, folds[:40][::-1].copy(), 3, config, None)
    assert a.top1 == b.top1 and a.fuse == pytest.approx(b.fuse, abs=1e-2)


@every_kind
def test_held_out_never_uses_held_labels(config: ProbeConfig) -> None:
    features, labels = blobs()
    train, held = np.arange(40), np.arange(40, 60)
    folds = np.arange(40) % 4
    spoilt = labels.numpy().copy()
    spoilt[held] = (spoilt[held] + 1) % 3
    streams = {"joint": features, "bone": features.flip(1)}
    honest = probe_held_out(streams, labels.numpy(), train, held, folds, 3, config, None)
    wrong = probe_held_out(streams, spoilt, train, held, folds, 3, config, None)
    assert honest.fuse == wrong.fuse
    assert not (honest.correct & wrong.correct).any()
    logs = log_probabilities(features[:40], labels[:40], features[40:], 3, config)
    assert honest.streams["joint"][0] == pytest.approx(float((logs.argmax(1) == labels[40:]).float().mean()))


# --- a part of the fit ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [4, 5, 17, 40, 99, 100, 1000])
def test_few_are_drawn_by_class(count: int) -> None:
    """Shares of 70, 20, 9 and 1: nobody is left out, nobody is taken twice, every class within one of its share."""
    labels = np.repeat([3, 0, 7, 5], [70, 20, 9, 1])
    found = Few(count, 1).of(labels)
    assert len(found) == min(count, 100) and np.array_equal(found, np.unique(found))
    assert found.max() < 100 and found.min() >= 0
    for label, size in ((3, 70), (0, 20), (7, 9), (5, 1)):
        taken = int((labels[found] == label).sum())
        assert 1 <= taken <= size
        if count <= 100:
            assert abs(taken - (1 + (count - 4) * (size - 1) / 96)) < 1


def test_few_follow_their_seed_alone() -> None:
    labels = np.arange(60) % 3
    torch.manual_seed(1)
    np.random.seed(1)
    one = Few(20, 5).of(labels)
    np.random.seed(2)
    assert np.array_equal(one, Few(20, 5).of(labels))
    assert not np.array_equal(one, Few(20, 6).of(labels))
    assert not np.array_equal(one, np.arange(20)), "not the first ones"


def test_fewer_clips_than_classes_are_refused() -> None:
    with pytest.raises(InputError, match=r"probe.subset: 2 clips cannot hold one of each of the 3 classes"):
        Few(2, 0).of(np.arange(9) % 3)


@every_kind
def test_a_fold_is_fitted_on_few_and_wholly_scored(config: ProbeConfig) -> None:
    features, labels = blobs()
    folds, few = np.arange(60) // 2 % 3, Few(12, 9)
    found = out_of_fold(features, labels, folds, 3, config, 4, few)
    for fold in range(3):
        rest = np.flatnonzero(folds != fold)
        fit, held = rest[few.of(labels.numpy()[rest])], np.flatnonzero(folds == fold)
        assert torch.equal(found[held], log_probabilities(features[fit], labels[fit], features[held], 3, config, 4))
    result = probe_cross_validated(
        {"joint": features}, labels.numpy(), np.arange(60), folds, 3, config, (1.0,), 4, few=few
    )
    assert result.fitted_on == 12 and len(result.correct) == 60
    assert np.array_equal(result.correct, (found.argmax(1) == labels).numpy())
    whole = probe_cross_validated({"joint": features}, labels.numpy(), np.arange(60), folds, 3, config, (1.0,), 4)
    assert whole.fitted_on == 40 and whole.loss != result.loss


# --- fusion ---------------------------------------------------------------------------------------------------------


def test_fusion_is_the_weighted_sum_of_logs() -> None:
    """p proportional to p1^w1 p2^w2. With p1 = (.8, .2), p2 = (.5, .5), weights (.5, .5): (sqrt .8, sqrt .2), that is
    2 : 1, so (2/3, 1/3)."""
    logs = [torch.tensor([[0.8, 0.2]]).log(), torch.tensor([[0.5, 0.5]]).log()]
    torch.testing.assert_close(fuse_streams(logs, (0.5, 0.5)).exp(), torch.tensor([[2 / 3, 1 / 3]]))
    for i, weights in enumerate([(1.0, 0.0), (0.0, 1.0)]):
        torch.testing.assert_close(fuse_streams(logs, weights), logs[i])


def test_fit_fusion_finds_the_stream_that_knows() -> None:
    labels = torch.arange(300) % 3
    weights = fit_fusion([spoiled(labels, 1.0), spoiled(labels, 0.1, seed=1), spoiled(labels, 1.0, seed=2)], labels)
    assert sum(weights) == pytest.approx(1)
    assert weights[1] > 0.75


def test_fit_fusion_of_equal_streams_is_even() -> None:
    """Exchanging two streams exchanges their weights; the same stream three times gets a third each."""
    labels = torch.arange(90) % 3
    a, b = spoiled(labels, 0.3), spoiled(labels, 0.6, seed=1)
    assert fit_fusion([a, a, a], labels) == pytest.approx((1 / 3,) * 3, abs=1e-3)
    assert fit_fusion([a, b], labels) == pytest.approx(fit_fusion([b, a], labels)[::-1], abs=1e-3)


def test_fit_fusion_does_not_care_for_the_sharpness_of_all() -> None:
    labels = torch.arange(300) % 3
    logs = [spoiled(labels, 0.3), spoiled(labels, 0.5, seed=1)]
    blunt = [(log * 0.3).log_softmax(1) for log in logs]
    assert fit_fusion(logs, labels) == pytest.approx(fit_fusion(blunt, labels), abs=0.03)


def test_fitted_fusion_of_the_probe_prefers_the_informative_stream() -> None:
    features, labels = blobs(90, apart=3.0)
    streams = {"motion": torch.randn(90, 5, generator=generator(3)), "joint": features}
    folds = np.arange(90) // 3 % 5
    for result in (
        probe_cross_validated(streams, labels.numpy(), np.arange(90), folds, 3, ProbeConfig(), None),
        probe_held_out(streams, labels.numpy(), np.arange(60), np.arange(60, 90), folds[:60], 3, ProbeConfig(), None),
    ):
        assert sum(result.fuse) == pytest.approx(1) and result.fuse[1] > 0.65
        assert result.top1 >= result.streams["joint"][0] - 0.05 > result.streams["motion"][0]


def test_fitting_one_stream_is_weight_one() -> None:
    features, labels = blobs()
    result = probe_held_out(
        {"joint": features}, labels.numpy(), np.arange(40), np.arange(40, 60), np.arange(40) % 4, 3, ProbeConfig(), None
    )
    assert result.fuse == (1.0,)


# --- evaluate: from a split to a score ------------------------------------------------------------------------------


def split(train: list[int], validation: list[int], test: list[int], folds: list[int] | None = None) -> Split:
    arrays = [np.asarray(part, dtype=np.int64) for part in (train, validation, test)]
    return Split("tiny", *arrays, None if folds is None else np.asarray(folds, dtype=np.int64), (), "")


@pytest.fixture
def model_and_store() -> tuple[Branches, ClipStore]:
    clips = make_clips(48)
    config = make_config(streams=dataclasses.replace(make_config().streams, use=("joint", "bone")))
    return Branches(config, clips.layout, seed=0), ClipStore(clips, torch.device("cpu"))


def test_validate_scores_held_out_subjects(model_and_store) -> None:
    model, store = model_and_store
    result = evaluate.validate(
        model, store, split(list(range(32)), list(range(32, 40)), list(range(40, 48))), ProbeConfig()
    )
    assert result.clips.tolist() == list(range(32, 40)) and len(result.correct) == 8
    assert set(result.streams) == {"joint", "bone"} and result.fuse == (0.5, 0.5)


def test_validate_by_folds_skips_those_of_none(model_and_store) -> None:
    """Fold -1: clips that join persons of two folds. Their labels serve no fold, in fitting or in scoring."""
    model, store = model_and_store
    train = list(range(40))
    folds = [-1 if i % 10 == 3 else i // 4 % 3 for i in train]
    parts = split(train, [], list(range(40, 48)), folds)
    result = evaluate.validate(model, store, parts, ProbeConfig())
    assert result.clips.tolist() == [i for i in train if folds[i] >= 0]
    assert result.top1 == pytest.approx(result.correct.mean())
    labels = store.clips.labels.copy()
    labels[[i for i in train if folds[i] < 0]] = 0
    other = ClipStore(dataclasses.replace(store.clips, labels=labels), torch.device("cpu"))
    again = evaluate.validate(model, other, parts, ProbeConfig())
    assert np.array_equal(again.correct, result.correct) and again.loss == result.loss


SUBSET = ProbeConfig(l2=0.1, subset=12)


def test_below_the_top_few_clips_are_fitted_on_and_passed(model_and_store, monkeypatch) -> None:
    """The same as a split whose training side has only those; the others never go through the encoder."""
    model, store = model_and_store
    train = np.array([0, 2, *range(8, 32)])
    parts = split(list(train), list(range(32, 40)), list(range(40, 48)))
    fit = train[evaluate.few_of(store.clips, SUBSET).of(store.clips.labels[train])]
    assert len(fit) == 12 and np.bincount(store.clips.labels[fit]).min() >= 2
    seen: list[int] = []
    take = ClipStore.take
    monkeypatch.setattr(ClipStore, "take", lambda self, index: seen.extend(index.tolist()) or take(self, index))
    found = evaluate.validate(model, store, parts, SUBSET, below_top=True)
    assert set(seen) == {*fit, *range(32, 40)} and len(seen) == 12 + 12 + 8  # settled on, fitted on, scored
    seen.clear()
    whole = evaluate.validate(model, store, parts, SUBSET)
    assert len(seen) == 26 + 26 + 8
    monkeypatch.undo()
    alone = evaluate.validate(model, store, split(list(fit), parts.validation.tolist(), []), ProbeConfig(l2=0.1))
    assert (found.fitted_on, whole.fitted_on) == (12, 26)
    assert found.loss == alone.loss and found.loss != whole.loss
    assert np.array_equal(found.correct, alone.correct) and np.array_equal(found.clips, whole.clips)
    assert whole.loss == evaluate.validate(model, store, parts, ProbeConfig(l2=0.1)).loss


def test_who_is_fitted_on_is_the_datasets_matter(model_and_store) -> None:
    """Neither a trial's seed, nor its T or preprocessing; another dataset has others."""
    _, store = model_and_store
    clips = [
        dataclasses.replace(store.clips, fingerprint=f) for f in ("abc:t16:trim", "abc:t32:centre", "abd:t16:trim")
    ]
    one, other, third = (evaluate.few_of(c, SUBSET).of(store.clips.labels) for c in clips)
    assert np.array_equal(one, other) and not np.array_equal(one, third)
    assert evaluate.few_of(store.clips, ProbeConfig()) is None


def test_folds_below_the_top(model_and_store) -> None:
    model, store = model_and_store
    parts = split(list(range(40)), [], list(range(40, 48)), [-1 if i % 10 == 3 else i // 4 % 3 for i in range(40)])
    found = evaluate.validate(model, store, parts, SUBSET, below_top=True)
    whole = evaluate.validate(model, store, parts, SUBSET)
    assert found.fitted_on == 12 < whole.fitted_on
    assert np.array_equal(found.clips, whole.clips) and len(found.correct) == 36


def test_a_probe_of_bf16_features_agrees(model_and_store) -> None:
    """The same clips within rounding: of 24 scored at most 2 change, the loss by less than a twentieth."""
    model, store = model_and_store
    parts = split(list(range(24)), list(range(24, 48)), [])
    exact = evaluate.validate(model, store, parts, ProbeConfig(l2=0.1))
    low = evaluate.validate(model, store, parts, ProbeConfig(l2=0.1, precision="bf16"))
    assert low.loss != exact.loss
    assert low.loss == pytest.approx(exact.loss, rel=0.05)
    assert int((low.correct != exact.correct).sum()) <= 2


@pytest.mark.parametrize("config", [*KINDS, ProbeConfig(l2=0.1, precision="bf16")], ids=["lbfgs", "knn", "sgd", "bf16"])
def test_a_rung_passes_every_clip_once(config: ProbeConfig, monkeypatch) -> None:
    """However a rung is judged (fitted fusion included): once to settle, once for all that is then asked of it."""
    clips = make_clips(48)
    streams = dataclasses.replace(make_config().streams, use=("joint", "bone"), fuse="fitted")
    model, store = Branches(make_config(streams=streams), clips.layout, seed=0), ClipStore(clips, torch.device("cpu"))
    seen: list[int] = []
    take = ClipStore.take
    monkeypatch.setattr(ClipStore, "take", lambda self, index: seen.extend(index.tolist()) or take(self, index))
    result = evaluate.validate(model, store, split(list(range(32)), list(range(32, 48)), []), config)
    assert len(result.fuse) == 2
    assert np.bincount(seen).tolist() == [2] * 32 + [1] * 16


def test_validation_reads_neither_the_tests_clips_nor_labels(model_and_store) -> None:
    model, store = model_and_store
    parts = split(list(range(32)), list(range(32, 40)), list(range(40, 48)))
    data, labels = store.clips.data.copy(), store.clips.labels.copy()
    data[40:], labels[40:] = np.nan, -1
    blind = ClipStore(dataclasses.replace(store.clips, data=data, labels=labels), torch.device("cpu"))
    a, b = (evaluate.validate(model, s, parts, ProbeConfig()) for s in (store, blind))
    assert a.loss == b.loss and np.array_equal(a.correct, b.correct)
    assert evaluate.pretraining_index(parts).tolist() == list(range(32))


def test_test_fits_on_the_whole_training_part(model_and_store) -> None:
    model, store = model_and_store
    parts = split([0, 2, *range(8, 36)], [1, 3, 4, 5, 6, 7], list(range(40, 48)))
    assert evaluate.whole_training(parts).tolist() == list(range(36))
    result = evaluate.test(model, store, parts, ProbeConfig())
    plain = evaluate.validate(model, store, split(list(range(36)), list(range(40, 48)), []), ProbeConfig())
    assert result.clips.tolist() == list(range(40, 48))
    assert result.loss == plain.loss


def test_inner_folds_keep_a_subject_together() -> None:
    subjects = np.array([[3, -1], [7, 3], [3, -1], [9, -1], [11, -1], [12, -1], [40, -1], [7, -1]])
    folds = evaluate.inner_folds(subjects)
    assert folds.max() < 5
    for person in np.unique(subjects[:, 0]):
        assert len(set(folds[subjects[:, 0] == person])) == 1
    assert len(set(folds)) == 5
    assert evaluate.inner_folds(subjects[:, 0]).tolist() == folds.tolist()
