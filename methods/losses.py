"""Pure functions of tensors. N clips, D embedding width, K queue length; every embedding may come unnormalised.

Similarities are cosines, logits are similarities over a temperature. Queues (K, D) hold unit rows and no gradient.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

# --- against a queue: MoCo and what grew from it --------------------------------------------------------------------


def similarities(query: Tensor, key: Tensor, queue: Tensor) -> Tensor:
    """(N, 1+K) cosines of each query with its own key (first) and with every row of the queue.

    ``query``, ``key``: (N, D), any norm. ``queue``: (K, D) unit rows.
    """
    q = F.normalize(query, dim=1)
    own = (q * F.normalize(key, dim=1)).sum(1, keepdim=True)
    return torch.cat([own, q @ queue.T], dim=1)


def info_nce_logits(
    query: Tensor, key: Tensor, queue: Tensor, temperature: float, extra: Tensor | None = None
) -> Tensor:
    """(N, 1+K) :func:`similarities` over ``temperature``; with ``extra`` (N, D) one more negative a clip, at the end.

    No gradient reaches ``extra``: SkeleMixCLR's other part of the same mixed clip (arXiv:2207.03065, public code).
    """
    cosines = similarities(query, key, queue)
    if extra is not None:
        other = F.cosine_similarity(query, extra.detach(), dim=1)
        cosines = torch.cat([cosines, other[:, None]], dim=1)
    return cosines / temperature


def info_nce(query: Tensor, key: Tensor, queue: Tensor, temperature: float, extra: Tensor | None = None) -> Tensor:
    """-log softmax of the own key among the key, K queued ones (and ``extra``), mean over N.

    Source: van den Oord et al., arXiv:1807.03748, equation 4, in MoCo's form (arXiv:1911.05722, equation 1).
    """
    logits = info_nce_logits(query, key, queue, temperature, extra)
    return (logits.logsumexp(1) - logits[:, 0]).mean()


def multi_positive_nce(logits: Tensor, positives: Tensor) -> Tensor:
    """-log softmax (N, L), averaged over each row's ``positives`` (N, L) bool, none empty, then over N.

    With the first column alone it is InfoNCE. Source: the public code of CrosSCLR (arXiv:2104.14087) and AimCLR's
    nearest neighbours mining (arXiv:2112.03590); both divide by the size of the set.
    """
    log_share = logits.log_softmax(1).masked_fill(~positives, 0)
    return -(log_share.sum(1) / positives.sum(1)).mean()


def nearest(*cosines: Tensor, topk: int) -> Tensor:
    """(N, K) bool: the ``topk`` highest of each row of ``cosines`` (N, K), the union over all that are given.

    At most ``topk`` times their number are true in a row, at least ``topk`` (or K). Source: nearest neighbours mining
    of AimCLR: the queue's neighbours of the query, of its extreme view and of that view after the drop.
    """
    chosen = torch.zeros_like(cosines[0], dtype=torch.bool)
    for each in cosines:
        chosen.scatter_(1, each.topk(min(topk, each.shape[1]), dim=1).indices, True)
    return chosen


def with_own_key(chosen: Tensor) -> Tensor:
    """(N, L) bool over queued keys -> (N, 1+L): the own key, which is always a positive, goes first."""
    return torch.cat([torch.ones_like(chosen[:, :1]), chosen], dim=1)


def distribution_match(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Cross entropy -sum P log p of the teacher's softmax P and the student's p, both (N, L), mean over N.

    No gradient reaches the teacher. Zero differs from its least value, the teacher's entropy. Source: D3M of AimCLR,
    arXiv:2112.03590: the teacher is the normal view, the student an extreme one, both over the own key and the queue.
    """
    return -(teacher_logits.detach().softmax(1) * logits.log_softmax(1)).sum(1).mean()


def cross_stream_nce(own: Tensor, other: Tensor, temperature: float, topk: int = 1, context: bool = True) -> Tensor:
    """InfoNCE of stream u with positives mined by stream v, both as :func:`similarities` (N, 1+K), queues aligned.

    Positives are the own key and v's ``topk`` nearest in its queue. With ``context`` K more logits follow, the products
    of both streams' cosines, where the same neighbours are positives; through them v learns as well. Source: CrosSCLR,
    arXiv:2104.14087, and its public code.
    """
    logits, positives = cross_stream_logits(own, other, temperature, topk, context)
    return multi_positive_nce(logits, positives)


def cross_stream_logits(
    own: Tensor, other: Tensor, temperature: float, topk: int = 1, context: bool = True
) -> tuple[Tensor, Tensor]:
    """Logits and positives of :func:`cross_stream_nce`, both (N, 1+K) or, with ``context``, (N, 1+2K)."""
    chosen = nearest(other[:, 1:].detach(), topk=topk)
    if not context:
        return own / temperature, with_own_key(chosen)
    logits = torch.cat([own, own[:, 1:] * other[:, 1:]], dim=1) / temperature
    return logits, with_own_key(torch.cat([chosen, chosen], dim=1))


def similarity_distillation(
    student: Tensor, teacher: Tensor, topk: int, teacher_temperature: float, student_temperature: float
) -> Tensor:
    """KL(teacher || student) over the teacher's ``topk`` nearest in the queue, mean over N.

    Both (N, K), cosines with index-aligned queues; no gradient reaches the teacher. Source: CMD, arXiv:2208.12448: the
    teacher is another stream's key, the student a query; published for every ordered pair of streams and summed.
    """
    kept, index = teacher.detach().topk(min(topk, teacher.shape[1]), dim=1)
    log_teacher = (kept / teacher_temperature).log_softmax(1)
    log_student = (student.gather(1, index) / student_temperature).log_softmax(1)
    return (log_teacher.exp() * (log_teacher - log_student)).sum(1).mean()


# --- without negatives: BYOL, cross-model and cross-stream learning -------------------------------------------------


def cosine_regression(prediction: Tensor, target: Tensor) -> Tensor:
    """2 - 2 cos(prediction, target), mean over N; both (N, D). In [0, 4].

    Source: Grill et al. (BYOL), arXiv:2006.07733, equation 2 (squared distance of unit vectors).
    """
    return (2 - 2 * F.cosine_similarity(prediction, target, dim=1)).mean()


def cross_model_adversarial(
    predictions: tuple[Tensor, Tensor], targets: tuple[Tensor, Tensor], repulsion: float = 0.5
) -> Tensor:
    """CMAL: d(p1, p2) - repulsion * (d(p1, t1) + d(p2, t2)), mean over N, with d = 2 - 2 cos.

    ``predictions`` and ``targets`` are those of both views, each (N, D). The two online predictions draw together, with
    gradient through both; each is pushed off the target network's output for the same view, which gets no gradient. At
    the published 0.5 constants cancel: -2 cos(p1, p2) + cos(p1, t1) + cos(p2, t2), in [-4, 4]. Source: CMCS,
    arXiv:2307.07791.
    """
    first, second = predictions
    away = cosine_regression(first, targets[0].detach()) + cosine_regression(second, targets[1].detach())
    return cosine_regression(first, second) - repulsion * away


def cosine_matrix(a: Tensor, b: Tensor) -> Tensor:
    """(N, L) cosines between each row of ``a`` (N, D) and each of ``b`` (L, D)."""
    return F.normalize(a, dim=1) @ F.normalize(b, dim=1).T


def collaborative_labels(streams: Sequence[tuple[Tensor, Tensor]], topk: int) -> Tensor:
    """(N, N) of 0 and 1: which clips of a batch count as alike, from every stream's two similarity matrices (N, N).

    A stream votes for (i, j) if j is among the ``topk`` of row i in both its matrices, and always for (i, i); a label
    needs two votes (one where there is one stream). Symmetric it need not be. No gradient. Source: CSCL of CMCS,
    arXiv:2307.07791, and its public code.
    """
    votes = torch.zeros_like(streams[0][0], dtype=torch.long)
    itself = torch.eye(len(votes), dtype=torch.bool, device=votes.device)
    for first, second in streams:
        both = nearest(first.detach(), topk=topk) & nearest(second.detach(), topk=topk)
        votes += both | itself
    return (votes >= min(2, len(streams))).to(streams[0][0].dtype)


def collaborative_loss(cosines: Tensor, labels: Tensor, temperature: float = 1.0) -> Tensor:
    """-sum over j of labels_ij log softmax_j(cosines_ij / temperature), mean over i; both (N, N).

    Not divided by the number of positives, and published without a temperature. Source: CSCL of CMCS, as above.
    """
    return -(labels * (cosines / temperature).log_softmax(1)).sum(1).mean()


# --- redundancy reduction -------------------------------------------------------------------------------------------


def barlow_twins(a: Tensor, b: Tensor, off_diagonal: float) -> Tensor:
    """sum_i (C_ii - 1)^2 + off_diagonal * sum_{i != j} C_ij^2 with C = a^T b / N; ``a``, ``b`` (N, D) batch-normed.

    Source: Zbontar et al., arXiv:2103.03230, equations 1-2; for skeletons PSTL, arXiv:2302.09018.
    """
    on, off = barlow_terms(a, b)
    return on + off_diagonal * off


def barlow_terms(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The two sums of :func:`barlow_twins`.

    For N < D no D x D matrix is made: ||C||^2 = sum (a a^T)(b b^T) / N^2, entry by entry over two N x N matrices. (The
    diagonal subtracted from it cannot swallow it there: C has rank N, so of unit columns much lies off the diagonal.)
    """
    n, d = a.shape
    diagonal = (a * b).sum(0) / n
    on = (diagonal - 1).square().sum()
    if n < d:
        return on, ((a @ a.T) * (b @ b.T)).sum() / n**2 - diagonal.square().sum()
    return on, (a.T @ b / n).square().fill_diagonal_(0).sum()


# --- reconstruction -------------------------------------------------------------------------------------------------


def reconstruction(prediction: Tensor, target: Tensor, lengths: Tensor) -> Tensor:
    """Squared error summed over the F features, mean over a clip's valid frames, mean over N.

    ``prediction``, ``target``: (N, T, F); ``lengths``: (N,) in 1..T, frames beyond count for nothing. Source: CRRL,
    arXiv:2111.11051, and its public code (a sum over features, not their mean).
    """
    valid = torch.arange(target.shape[1], device=target.device)[None, :] < lengths[:, None]  # (N, T)
    # Masked before the square: a padded frame that holds no number at all must not reach the sum or the gradient.
    error = (prediction - target).masked_fill(~valid[:, :, None], 0).square().sum((1, 2))
    return (error / lengths).mean()


def feature_distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance summed over D, mean over N; both (N, D), no gradient to the teacher. Source: CRRL, as above."""
    return (student - teacher.detach()).square().sum(1).mean()


# --- watching -------------------------------------------------------------------------------------------------------


def feature_spread(features: Tensor) -> Tensor:
    """sqrt(D) * mean over d of the standard deviation of unit features (N, D): near 1 when spread, 0 when collapsed.

    Source of the quantity: Chen and He (SimSiam), arXiv:2011.10566, section 4.1.
    """
    unit = F.normalize(features.detach().float(), dim=1)
    spread: Tensor = unit.std(0, correction=0).mean() * unit.shape[1] ** 0.5
    return spread
