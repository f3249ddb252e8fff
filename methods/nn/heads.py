"""Projectors and predictors."""

from __future__ import annotations

from torch import nn


def mlp(width: int, hidden: int, out: int, *, batch_norm: bool = False) -> nn.Sequential:
    """Linear -> [BatchNorm] -> ReLU -> Linear: (N, width) -> (N, out)."""
    middle: list[nn.Module] = [nn.Linear(width, hidden)]
    if batch_norm:
        middle.append(nn.BatchNorm1d(hidden))
    return nn.Sequential(*middle, nn.ReLU(), nn.Linear(hidden, out))
