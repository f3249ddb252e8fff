"""Pure functions of tensors. N clips, D embedding width, K queue length; every embedding may come unnormalised."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def info_nce_logits(query: Tensor, key: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """(N, 1+K) cosine similarities over ``temperature``: the own key first, then the queue.

    ``query``, ``key``: (N, D), any norm. ``queue``: (K, D) unit rows.
    """
    q = F.normalize(query, dim=1)
    positive = (q * F.normalize(key, dim=1)).sum(1, keepdim=True)
    return torch.cat([positive, q @ queue.T], dim=1) / temperature


def info_nce(query: Tensor, key: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """-log softmax of the own key among the key and K queued ones, mean over N.

    Source: van den Oord et al., arXiv:1807.03748, equation 4, in MoCo's form (arXiv:1911.05722, equation 1).
    """
    logits = info_nce_logits(query, key, queue, temperature)
    return (logits.logsumexp(1) - logits[:, 0]).mean()


def cosine_regression(prediction: Tensor, target: Tensor) -> Tensor:
    """2 - 2 cos(prediction, target), mean over N; both (N, D). In [0, 4].

    Source: Grill et al. (BYOL), arXiv:2006.07733, equation 2 (squared distance of unit vectors).
    """
    return (2 - 2 * F.cosine_similarity(prediction, target, dim=1)).mean()


def feature_spread(features: Tensor) -> Tensor:
    """sqrt(D) * mean over d of the standard deviation of unit features (N, D): near 1 when spread, 0 when collapsed.

    Source of the quantity: Chen and He (SimSiam), arXiv:2011.10566, section 4.1.
    """
    unit = F.normalize(features.detach().float(), dim=1)
    spread: Tensor = unit.std(0, correction=0).mean() * unit.shape[1] ** 0.5
    return spread
