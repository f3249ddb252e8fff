"""Projectors and predictors."""

from __future__ import annotations

from torch import nn


def mlp(
    width: int, hidden: int, out: int, *, batch_norm: bool = False, layers: int = 2, bias: bool = True
) -> nn.Sequential:
    """``layers`` linear maps, [BatchNorm] -> ReLU after each but the last: (N, width) -> (N, out).

    All hidden layers have width ``hidden``. ``bias`` False leaves out every linear map's bias (PSTL's head).
    """
    stack: list[nn.Module] = []
    for _ in range(layers - 1):
        stack.append(nn.Linear(width, hidden, bias=bias))
        if batch_norm:
            stack.append(nn.BatchNorm1d(hidden))
        stack.append(nn.ReLU())
        width = hidden
    return nn.Sequential(*stack, nn.Linear(width, out, bias=bias))
