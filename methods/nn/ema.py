"""A momentum copy: theta_target <- m theta_target + (1 - m) theta_online, no gradients.

Source: He et al. (MoCo), arXiv:1911.05722, equation 2; rising schedule: Grill et al. (BYOL), arXiv:2006.07733,
section 3.2, m = 1 - (1 - m0) (cos(pi k / K) + 1) / 2.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from methods.fields import require
from methods.nn.progress import Progress
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

    def rate(self, progress: float) -> float | Tensor:
        """The momentum at ``progress`` in [0, 1] of the whole run; on the device where progress is there."""
        if self.schedule == "cosine" and isinstance(progress, Progress):
            return 1 - (1 - self.momentum) * (torch.cos(math.pi * progress.on_device) + 1) / 2
        if self.schedule == "cosine":
            return 1 - (1 - self.momentum) * (math.cos(math.pi * progress) + 1) / 2
        return self.momentum

    @torch.no_grad()
    def update(self, online: nn.Module, progress: float, only: Sequence[str] = ()) -> None:
        """Move every parameter of the copy towards ``online`` by ``1 - rate(progress)``.

        ``only`` names the submodules or parameters to move (``("gru", "head.0")``), and the buffers that follow; the
        rest stays as it is. Raises ``ValueError`` for a name that the copy does not have.
        """
        mine, theirs = _pairs(self.target.named_parameters(), online.named_parameters(), only)
        if only:
            held = [name for name, _ in (*self.target.named_parameters(), *self.target.named_buffers())]
            unknown = [part for part in only if not any(_within(name, (part,)) for name in held)]
            if unknown:
                raise ValueError(f"the momentum copy has no {', '.join(unknown)}")
        if mine:
            rate = self.rate(progress)
            if isinstance(rate, Tensor):  # no lerp over many tensors takes its weight from the device
                torch._foreach_mul_(mine, rate)
                torch._foreach_add_(mine, torch._foreach_mul(theirs, 1 - rate))
            else:
                torch._foreach_lerp_(mine, theirs, 1 - rate)
        if self.buffers_follow:
            for kept, new in zip(*_pairs(self.target.named_buffers(), online.named_buffers(), only), strict=True):
                kept.copy_(new)

    @torch.no_grad()
    def forward(self, *inputs: Any) -> Any:
        """The copy's output; never a gradient."""
        return self.target(*inputs)


def _within(name: str, parts: Sequence[str]) -> bool:
    return any(name == part or name.startswith(f"{part}.") for part in parts)


def _pairs(
    mine: Iterable[tuple[str, Tensor]], theirs: Iterable[tuple[str, Tensor]], only: Sequence[str]
) -> tuple[list[Tensor], list[Tensor]]:
    """Tensors of both networks in the same order: all, or those of the submodules named by ``only``."""
    both = [(a, b) for (name, a), (_, b) in zip(mine, theirs, strict=True) if not only or _within(name, only)]
    return [a for a, _ in both], [b for _, b in both]


def slow_copy(online: nn.Module, config: Any) -> Ema:
    """The slow copy of ``online`` as a method's settings want it: momentum, momentum_schedule, ema_buffers, init_sync.

    Of the last two a method may lack any; then the copy keeps its own statistics and starts equal.
    """
    return Ema(
        online,
        config.momentum,
        schedule=config.momentum_schedule,
        buffers=getattr(config, "ema_buffers", "own"),
        fresh_init=not getattr(config, "init_sync", True),
    )


def check_momentum(config: Any) -> None:
    """Check whichever a method has of the settings that momentum methods share; raises InputError."""

    def has(name: str) -> bool:
        return hasattr(config, name)

    require(0 <= config.momentum <= 1, f"momentum must lie in [0, 1], got {config.momentum}")
    require(
        config.momentum_schedule in ("constant", "cosine"),
        f"momentum_schedule must be constant or cosine, got {config.momentum_schedule!r}",
    )
    require(
        not has("ema_buffers") or config.ema_buffers in ("own", "copy"),
        f"ema_buffers must be own or copy, got {getattr(config, 'ema_buffers', None)!r}",
    )
    require(
        not has("temperature") or config.temperature > 0,
        f"temperature must be positive, got {getattr(config, 'temperature', None)}",
    )
    require(
        not has("queue") or config.queue >= 1,
        f"queue must hold at least one key, got {getattr(config, 'queue', None)}",
    )
    require(config.hidden >= 1 and config.projection >= 1, "hidden and projection must be at least 1")
