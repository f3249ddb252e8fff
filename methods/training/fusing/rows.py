"""Modules as one row of a stack sees them, inside vmap: where torch's own batched rule is missing or takes a detour.

Each says what becomes of all R rows' tensors at once, as a ``torch.autograd.Function`` that has a rule for vmap only.
With torch's own rules a bias, a gain and a shift are passes of their own, and mixed precision does not work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.nn.ema import Ema, _pairs


def take_rows(module: nn.Module) -> None:
    """Let slow copies, batch norms and convolutions in ``module`` work on rows; their weights stay what they are."""
    kinds: dict[type[nn.Module], type[nn.Module]] = {
        Ema: SlowRow, nn.BatchNorm1d: RowNorm, nn.BatchNorm2d: RowNorm, nn.Conv2d: RowConv
    }  # fmt: skip
    for part in module.modules():
        part.__class__ = kinds.get(type(part), type(part))


def broadcast(values: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """``values`` (R,) shaped to multiply each of the tensors (R, ...)."""
    return [values.view(-1, *[1] * (tensor.dim() - 1)) for tensor in like]


class _ForRows(torch.autograd.Function):
    """What exists under vmap alone. Its rule calls differentiable functions, so no backward is needed."""

    @staticmethod
    def forward(*inputs: Any) -> Any:
        raise RuntimeError("a row of a stack is only ever computed under vmap")

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing is kept."""


class SlowRow(Ema):
    """A slow copy that moves by ``share`` = 1 - m, the row's own number: a 0-dim tensor set before each pass."""

    share: Tensor

    @torch.no_grad()
    def update(self, online: nn.Module, progress: float, only: Sequence[str] = ()) -> None:
        """As :meth:`Ema.update`."""
        mine, theirs = _pairs(self.target.named_parameters(), online.named_parameters(), only)
        if mine:
            _MoveAll.apply(self.share, len(mine), *mine, *theirs)  # type: ignore[no-untyped-call]
        if self.buffers_follow:
            for kept, new in zip(*_pairs(self.target.named_buffers(), online.named_buffers(), only), strict=True):
                kept.copy_(new)


class _MoveAll(_ForRows):
    """Many tensors moved in one call; tensor by tensor it would be a hundred launches."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, share: Tensor, count: int, *tensors: Tensor) -> tuple[Tensor, None]:
        """``share`` (R,); ``tensors``: ``count`` of the copies', then as many online ones, each (R, ...)."""
        mine, theirs = tensors[:count], tensors[count:]
        torch._foreach_lerp_(mine, theirs, broadcast(share, mine))
        return torch.zeros(()), None


class RowNorm(nn.modules.batchnorm._BatchNorm):
    """A batch norm in training: rows become channels, (N, R * C, ...)."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, ...) of one row."""
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        held = (self.running_mean, self.running_var, self.weight, self.bias)
        normed: Tensor = _Norm.apply(self.momentum, self.eps, x, *held)  # type: ignore[no-untyped-call]
        return normed


class _Norm(_ForRows):
    @staticmethod
    def vmap(
        info: Any, in_dims: Any, momentum: float, eps: float, x: Tensor, *held: Tensor | None
    ) -> tuple[Tensor, int]:
        """``x``: (N, C, ...) with the rows somewhere; ``held``, each (R, C): mean, variance, gain and shift or None."""
        rows = x.movedim(in_dims[2], 1)  # (N, R, C, ...)
        mean, variance, gain, shift = (None if tensor is None else tensor.view(-1) for tensor in held)
        normed = F.batch_norm(rows.flatten(1, 2), mean, variance, gain, shift, True, momentum, eps)
        return normed.unflatten(1, rows.shape[1:3]), 1


class RowConv(nn.Conv2d):
    """A convolution whose rows become the groups of one."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, V) of one row."""
        if self.groups != 1 or self.padding_mode != "zeros":
            raise NotImplementedError("a stack's convolution has one group and pads with zeros")
        how = (self.stride, self.padding, self.dilation)
        out: Tensor = _Conv.apply(how, x, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return out


class _Conv(_ForRows):
    @staticmethod
    def vmap(
        info: Any, in_dims: Any, how: tuple[Any, Any, Any], x: Tensor, weight: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, int]:
        """``x``: (N, C, T, V) with the rows somewhere; ``weight`` (R, C', C, ., .), ``bias`` (R, C') or None."""
        rows = x.movedim(in_dims[1], 1)  # (N, R, C, T, V)
        shift = None if bias is None else bias.flatten()
        out = F.conv2d(rows.flatten(1, 2), weight.flatten(0, 1), shift, *how, groups=info.batch_size)
        return out.unflatten(1, weight.shape[:2]), 1
