"""A momentum copy: theta_target <- m theta_target + (1 - m) theta_online, no gradients.

Source: He et al. (MoCo), arXiv:1911.05722, equation 2; rising schedule: Grill et al. (BYOL), arXiv:2006.07733,
section 3.2, m = 1 - (1 - m0) (cos(pi k / K) + 1) / 2.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from methods.nn.stgcn import normal_init


class Ema(nn.Module):
    """Holds the slow copy of ``online`` and moves it. The copy runs in train mode on its own batch statistics.

    ``schedule``: ``constant`` or ``cosine`` (momentum rises to 1 at the end of the run). ``buffers``: ``own`` keeps
    the copy's running statistics its own (published), ``copy`` takes the online ones at each update.
    ``fresh_init``: draw the copy's weights anew instead of copying them (a quirk of the CrosSCLR family's code).
    """

    def __init__(
        self,
        online: nn.Module,
        momentum: float,
        *,
        schedule: str = "constant",
        buffers: str = "own",
        fresh_init: bool = False,
    ) -> None:
        super().__init__()
        self.momentum = momentum
        self.schedule = schedule
        self.buffers_follow = buffers == "copy"
        self.target = copy.deepcopy(online)
        if fresh_init:
            self.target.apply(normal_init)
        self.target.requires_grad_(False)

    def rate(self, progress: float) -> float:
        """The momentum at ``progress`` in [0, 1] of the whole run."""
        if self.schedule == "cosine":
            return 1 - (1 - self.momentum) * (math.cos(math.pi * progress) + 1) / 2
        return self.momentum

    @torch.no_grad()
    def update(self, online: nn.Module, progress: float) -> None:
        """Move every parameter of the copy towards ``online`` by ``1 - rate(progress)``."""
        targets: list[Tensor] = list(self.target.parameters())
        sources: list[Tensor] = list(online.parameters())
        torch._foreach_lerp_(targets, sources, 1 - self.rate(progress))
        if self.buffers_follow:
            for mine, theirs in zip(self.target.buffers(), online.buffers(), strict=True):
                mine.copy_(theirs)

    @torch.no_grad()
    def forward(self, *inputs: Any) -> Any:
        """The copy's output; never a gradient."""
        return self.target(*inputs)
