"""Dropout's random factors on a CPU, made from whole bytes instead of one draw of a double for each number.

Source      Dropout as in torch (inverted: what stays is divided by 1 - p).
Departures  torch's own Bernoulli draws on a CPU take a tenth of an ST-GCN's training step where Intel's generators are
            not used. Here one 64-bit draw serves eight numbers (p a multiple of 1/256, as 0.5 is) or two (any other p,
            off by at most 2^-33). The distribution is torch's, the stream of random numbers another; the generator is
            torch's default one, so seeds and checkpoints hold as before.
"""

from __future__ import annotations

import torch
from torch import Tensor

BYTE, WORD = 2**8, 2**32


def factors(like: Tensor, p: float) -> Tensor:
    """0 with probability ``p`` in [0, 1), else 1 / (1 - p): shape, type and order in memory of ``like``, on a CPU."""
    count = like.numel()
    made = torch.empty_like(like)  # dense, in the order of ``like`` where that is dense
    if p * BYTE == int(p * BYTE):
        parts, bound = _draws(count, 8).view(torch.uint8), int(p * BYTE)
    else:
        parts, bound = _draws(count, 2).view(torch.int32), min(round(p * WORD), WORD - 1) - WORD // 2
    torch.ge(parts[:count], bound, out=made.as_strided((count,), (1,)))
    return made.mul_(1 / (1 - p))


def _draws(count: int, each: int) -> Tensor:
    """Random 64-bit numbers, enough for ``count`` parts of which one number has ``each``."""
    return torch.empty(-(-count // each), dtype=torch.int64).random_(-(2**63), None)
