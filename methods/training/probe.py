"""Probes on cached features: linear (L-BFGS or the papers' SGD), weighted kNN, cross-validated folds, fused streams.

All of them take features (N, D) once extracted, never the encoder, so a probe costs one forward pass of the data.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from methods.fields import require, tunable
from methods.training.seeds import derive_seed, generator

BF16_UNSETTLED = (
    "probe.precision: bf16 needs probe.settle: true; while batch-norm statistics lag behind, features can differ by "
    "less than bf16 keeps"
)


@dataclass(frozen=True)
class ProbeConfig:
    """Everything a YAML may set under ``probe``. One probe serves a whole search: it is the yardstick, never tuned."""

    kind: str = tunable("linear", choice=("linear", "knn"), doc="linear classifier or weighted nearest neighbours")
    metric: str = tunable("top1", choice=("top1",), doc="what trials are ranked by")
    solver: str = tunable("lbfgs", choice=("lbfgs", "sgd"), doc="full-batch L-BFGS, or SGD as in the papers")
    l2: float = tunable(1e-3, doc="L-BFGS: penalty l2/2 |W|^2 on standardised features")
    sgd_lr: float = tunable(3.0, doc="SGD: learning rate (published 3.0)")
    sgd_epochs: int = tunable(100, doc="SGD: epochs; the rate falls tenfold after four fifths of them")
    sgd_batch: int = tunable(128, doc="SGD: clips a step")
    knn_k: int = tunable(20, doc="kNN: neighbours that vote")
    knn_temperature: float = tunable(0.1, doc="kNN: weight of a neighbour is exp(cosine / temperature)")
    settle: bool = tunable(True, doc="average batch-norm statistics over un-augmented training clips first")
    precision: str = tunable("fp32", choice=("fp32", "bf16"), doc="of the frozen encoder's pass; bf16 under autocast")
    subset: int = tunable(0, doc="below the top rung fit on so many training clips, the same for all trials; 0 = all")

    def __post_init__(self) -> None:
        require(self.kind in ("linear", "knn"), f"probe.kind must be linear or knn, got {self.kind!r}")
        require(self.metric == "top1", f"probe.metric must be top1, got {self.metric!r}")
        require(self.solver in ("lbfgs", "sgd"), f"probe.solver must be lbfgs or sgd, got {self.solver!r}")
        require(self.l2 > 0, f"probe.l2 must be positive, got {self.l2}")
        require(self.sgd_lr > 0, f"probe.sgd_lr must be positive, got {self.sgd_lr}")
        require(self.sgd_epochs >= 1, f"probe.sgd_epochs must be at least 1, got {self.sgd_epochs}")
        require(self.sgd_batch >= 1, f"probe.sgd_batch must be at least 1, got {self.sgd_batch}")
        require(self.knn_k >= 1, f"probe.knn_k must be at least 1, got {self.knn_k}")
        require(self.knn_temperature > 0, f"probe.knn_temperature must be positive, got {self.knn_temperature}")
        require(self.precision in ("fp32", "bf16"), f"probe.precision must be fp32 or bf16, got {self.precision!r}")
        require(self.precision == "fp32" or self.settle, BF16_UNSETTLED)
        require(self.subset >= 0, f"probe.subset must be a number of clips, or 0 for all, got {self.subset}")


@dataclass(frozen=True)
class ProbeResult:
    """``top1`` in [0, 1] and ``loss`` (nats) of the fused streams; ``streams``: the same for each alone.

    ``correct`` (n,) bool and ``clips`` (n,) indices let two results be compared clip by clip; ``fuse`` are the weights.
    ``fitted_on``: how many clips the probe was fitted on, of several folds' the fewest.
    """

    top1: float
    loss: float
    streams: dict[str, tuple[float, float]]
    fuse: tuple[float, ...]
    correct: np.ndarray
    clips: np.ndarray
    fitted_on: int = 0


def linear_lbfgs(train: Tensor, labels: Tensor, test: Tensor, classes: int, l2: float, steps: int = 200) -> Tensor:
    """Log-probabilities (n_test, classes) of multinomial logistic regression on standardised features (N, D).

    Minimises mean cross-entropy + l2/2 |W|^2 (bias free) by full-batch L-BFGS; a convex problem, so no seed.
    """
    mean, std = train.mean(0), train.std(0, correction=0)
    # A feature that is constant up to rounding says nothing; dividing by its rounding error would make it shout.
    std = torch.where(std > 1e-5 * mean.abs(), std, 1.0)
    x, y = (train - mean) / std, (test - mean) / std
    # Both in one vector, and the slope written down: the steps (and their rounding) of autograd without its overhead,
    # which is most of the work where clips are few.
    cut = x.shape[1] * classes
    both, slope = (x.new_zeros(cut + classes) for _ in range(2))
    (weight, bias), (to_weight, to_bias) = ((v[:cut].view(x.shape[1], classes), v[cut:]) for v in (both, slope))
    both.grad = slope
    right = x.new_zeros(len(x), classes)  # d loss / d log-probability
    right[torch.arange(len(x), device=x.device), labels] = -1.0 / len(x)
    solver = torch.optim.LBFGS(
        [both],
        max_iter=steps,
        history_size=10,
        line_search_fn="strong_wolfe",
        tolerance_grad=1e-6,
        tolerance_change=1e-12,  # torch's 1e-9 stops early enough for ties between trials to depend on rounding
    )

    def closure() -> float:
        log = F.log_softmax(x @ weight + bias, dim=1)
        to_logits = torch.ops.aten._log_softmax_backward_data(right, log, 1, log.dtype)
        torch.add(x.T @ to_logits, 2 * weight * (0.5 * l2), out=to_weight)
        torch.sum(to_logits, 0, out=to_bias)
        return F.nll_loss(log, labels) + 0.5 * l2 * weight.square().sum()  # type: ignore[return-value]  # takes a tensor

    with torch.no_grad():
        solver.step(torch.no_grad()(closure))  # the solver turns gradients on
        return F.log_softmax(y @ weight + bias, dim=1)


def linear_sgd(train: Tensor, labels: Tensor, test: Tensor, classes: int, config: ProbeConfig, seed: int) -> Tensor:
    """Log-probabilities (n_test, classes) of the papers' probe: SGD, momentum 0.9, raw features, N(0, 0.02) start.

    Source: CrosSCLR's public linear evaluation (lr 3.0, batch 128, 100 epochs, x0.1 after 80), here on cached features;
    the last epoch counts, not the best test epoch.
    """
    rng = generator("cpu", seed, "probe")
    weight = (torch.randn(train.shape[1], classes, generator=rng) * 0.02).to(train.device).requires_grad_()
    bias = torch.zeros(classes, device=train.device, requires_grad=True)
    solver = torch.optim.SGD([weight, bias], lr=config.sgd_lr, momentum=0.9)
    batch = min(config.sgd_batch, len(train))
    with torch.enable_grad():
        for epoch in range(config.sgd_epochs):
            if epoch == int(config.sgd_epochs * 0.8):
                solver.param_groups[0]["lr"] = config.sgd_lr * 0.1
            order = torch.randperm(len(train), generator=rng).to(train.device)
            for part in order[: len(order) // batch * batch].split(batch):
                loss = F.cross_entropy(train[part] @ weight + bias, labels[part])
                solver.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                solver.step()
    return F.log_softmax((test @ weight + bias).detach(), dim=1)


def weighted_knn(
    train: Tensor, labels: Tensor, test: Tensor, classes: int, k: int, temperature: float, most: float = 0.0
) -> Tensor:
    """Class scores (n_test, classes): each of the k nearest by cosine votes with exp(cosine / temperature).

    ``most`` is taken from every cosine first (1 keeps votes at or below 1, whatever the temperature); it scales a
    clip's scores alike.
    Source: Wu et al., arXiv:1805.01978, section 3.4; as in the kNN monitor of CMCS and SkeleMixCLR.
    """
    bank = F.normalize(train, dim=1)
    parts = []
    for queries in F.normalize(test, dim=1).split(1024):  # bounds the similarity matrix
        similarity, index = (queries @ bank.T).topk(min(k, len(bank)), dim=1)
        votes = ((similarity - most) / temperature).exp()
        parts.append(votes.new_zeros(len(queries), classes).scatter_add_(1, labels[index], votes))
    return torch.cat(parts)


def log_probabilities(
    train: Tensor, labels: Tensor, test: Tensor, classes: int, config: ProbeConfig, seed: int = 0
) -> Tensor:
    """(n_test, classes) by the probe that ``config`` names."""
    if config.kind == "knn":
        scores = weighted_knn(train, labels, test, classes, config.knn_k, config.knn_temperature, most=1.0)
        # One vote of a clip at cosine -1 for every class keeps the logarithm finite where nobody voted.
        voted = scores + max(math.exp(-2 / config.knn_temperature), 1e-30)
        return torch.log(voted / voted.sum(1, keepdim=True))
    if config.solver == "sgd":
        return linear_sgd(train, labels, test, classes, config, seed)
    return linear_lbfgs(train, labels, test, classes, config.l2)


@dataclass(frozen=True)
class Few:
    """``count`` of a fit's clips, each class by its share and at least one of it; always the same ones by ``seed``."""

    count: int
    seed: int

    def of(self, labels: np.ndarray) -> np.ndarray:
        """Positions (count,), sorted, in ``labels`` (N,); all where there are no more than that.

        Raises ``InputError`` for fewer clips than classes.
        """
        classes, sizes = np.unique(labels, return_counts=True)
        check_subset(self.count, len(classes))
        if self.count >= len(labels):
            return np.arange(len(labels))
        # One of each class, then the rest in proportion to what is left; the largest remainders round up.
        exact = (self.count - len(classes)) * (sizes - 1) / max(1, len(labels) - len(classes))
        quota = 1 + np.floor(exact).astype(np.int64)
        quota[np.argsort(-(exact % 1), kind="stable")[: self.count - quota.sum()]] += 1
        drawn = []
        for label, most in zip(classes, quota, strict=True):
            rng = np.random.default_rng(derive_seed(self.seed, "probe subset", int(label)))
            drawn.append(rng.permutation(np.flatnonzero(labels == label))[:most])
        return np.sort(np.concatenate(drawn))


def check_subset(count: int, classes: int) -> None:
    """Raise ``InputError`` unless a probe fitted on ``count`` clips (0: on all) can know ``classes`` classes."""
    require(
        count == 0 or count >= classes,
        f"probe.subset: {count} clips cannot hold one of each of the {classes} classes; give at least {classes}, "
        "or 0 for all",
    )


def _fits(folds: np.ndarray, labels: Tensor, few: Few | None) -> Iterator[tuple[Tensor, Tensor]]:
    """For each fold the positions that its probe is fitted on, and those that it predicts."""
    known = labels.cpu().numpy()
    for fold in np.unique(folds):
        fit = np.flatnonzero(folds != fold)
        if few is not None:
            fit = fit[few.of(known[fit])]
        held = np.flatnonzero(folds == fold)
        yield torch.as_tensor(fit, device=labels.device), torch.as_tensor(held, device=labels.device)


def out_of_fold(
    features: Tensor,
    labels: Tensor,
    folds: np.ndarray,
    classes: int,
    config: ProbeConfig,
    seed: int,
    few: Few | None = None,
) -> Tensor:
    """Log-probabilities (N, classes) in which each clip is predicted by a probe fitted without its fold.

    ``few``: on how many of the other clips it is fitted; None for all.
    """
    out = features.new_zeros(len(features), classes)
    for fit, held in _fits(folds, labels, few):
        out[held] = log_probabilities(features[fit], labels[fit], features[held], classes, config, seed)
    return out


def fuse_streams(logs: list[Tensor], weights: tuple[float, ...]) -> Tensor:
    """Weighted sum of the streams' log-probabilities, renormalised: (n, classes)."""
    mixed = sum((w * log for w, log in zip(weights, logs, strict=True)), torch.zeros_like(logs[0]))
    return F.log_softmax(mixed, dim=1)


def fit_fusion(logs: list[Tensor], labels: Tensor, steps: int = 100) -> tuple[float, ...]:
    """Weights (sum 1) and a common sharpness that minimise cross-entropy of out-of-fold log-probabilities (n, classes).

    Only the weights are kept: accuracy does not change with sharpness.
    """
    raw = torch.zeros(len(logs), device=logs[0].device, requires_grad=True)
    sharpness = torch.zeros((), device=logs[0].device, requires_grad=True)
    solver = torch.optim.LBFGS([raw, sharpness], max_iter=steps, line_search_fn="strong_wolfe")
    stacked = torch.stack(logs)

    def closure() -> float:
        solver.zero_grad()
        mixed = torch.einsum("s,snk->nk", raw.softmax(0), stacked) * sharpness.exp()
        loss = F.cross_entropy(mixed, labels) + 1e-3 * (raw.square().sum() + sharpness.square())
        loss.backward()  # type: ignore[no-untyped-call]
        return loss  # type: ignore[return-value]

    with torch.enable_grad():
        solver.step(closure)
    return tuple(raw.detach().softmax(0).tolist())


def probe_held_out(
    features: Mapping[str, Tensor],
    labels: np.ndarray,
    train: np.ndarray,
    held: np.ndarray,
    folds: np.ndarray,
    classes: int,
    config: ProbeConfig,
    fuse: tuple[float, ...] | None,
    seed: int = 0,
) -> ProbeResult:
    """Fit on clips ``train``, score clips ``held`` (positions in ``features`` and ``labels``).

    ``fuse``: weights of the streams, or None to fit them out of fold on ``train``, whose ``folds`` (one id a clip of
    ``train``, usually its subject) keep a subject's clips together.
    """
    every = next(iter(features.values()))
    y = torch.as_tensor(labels, device=every.device)
    index, index_held = (torch.as_tensor(i, device=every.device) for i in (train, held))
    logs = [log_probabilities(z[index], y[index], z[index_held], classes, config, seed) for z in features.values()]
    if fuse is None and (len(logs) == 1 or len(np.unique(folds)) == 1):
        fuse = (1.0 / len(logs),) * len(logs)  # one stream, or one subject: nothing to fit, or nothing to fit it on
    if fuse is None:
        inner = [out_of_fold(z[index], y[index], folds, classes, config, seed) for z in features.values()]
        fuse = fit_fusion(inner, y[index])
    return _result(list(features), logs, fuse_streams(logs, fuse), y[index_held], fuse, held, len(train))


def probe_cross_validated(
    features: Mapping[str, Tensor],
    labels: np.ndarray,
    train: np.ndarray,
    folds: np.ndarray,
    classes: int,
    config: ProbeConfig,
    fuse: tuple[float, ...] | None,
    seed: int = 0,
    few: Few | None = None,
) -> ProbeResult:
    """Score every clip of ``train`` by a probe fitted without its fold (usually: without its subject).

    ``few``: on how many of the other folds' clips each is fitted; None for all. Fitted fusion weights are found for
    each fold on the other folds' out-of-fold predictions; the mean is reported.
    """
    every = next(iter(features.values()))
    index = torch.as_tensor(train, device=every.device)
    y = torch.as_tensor(labels, device=every.device)[index]
    logs = [out_of_fold(z[index], y, folds, classes, config, seed, few) for z in features.values()]
    if fuse is not None:
        fused = fuse_streams(logs, fuse)
    else:
        fused, fuse = _fuse_by_fold(logs, y, folds)
    fitted_on = min(len(fit) for fit, _ in _fits(folds, y, few))
    return _result(list(features), logs, fused, y, fuse, train, fitted_on)


def _fuse_by_fold(logs: list[Tensor], labels: Tensor, folds: np.ndarray) -> tuple[Tensor, tuple[float, ...]]:
    fused = torch.zeros_like(logs[0])
    found = []
    for fold in np.unique(folds):
        held = torch.as_tensor(folds == fold, device=labels.device)
        weights = fit_fusion([log[~held] for log in logs], labels[~held]) if len(logs) > 1 else (1.0,)
        fused[held] = fuse_streams([log[held] for log in logs], weights)
        found.append(weights)
    return fused, tuple(float(w) for w in np.mean(found, axis=0))


def _result(
    names: list[str],
    logs: list[Tensor],
    fused: Tensor,
    labels: Tensor,
    fuse: tuple[float, ...],
    clips: np.ndarray,
    fitted_on: int,
) -> ProbeResult:
    correct = (fused.argmax(1) == labels).cpu().numpy()
    streams = {
        name: (float((log.argmax(1) == labels).float().mean()), float(F.nll_loss(log, labels)))
        for name, log in zip(names, logs, strict=True)
    }
    loss = float(F.nll_loss(fused, labels))
    return ProbeResult(float(correct.mean()), loss, streams, fuse, correct, clips, fitted_on)
