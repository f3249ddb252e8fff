"""A GRU layer on a CPU, whose weights get their gradients from one product over all frames, not from one a frame.

Source      The GRU as in torch (reset gate after the product with the state). Its own pass over a CPU lets autograd add
            up a gradient as large as the weights at every frame.
Departures  None: the same numbers up to rounding.
Shapes      T frames, N clips, F features, H hidden; gates in torch's order: reset, update, new. Clips lie as a packed
            sequence: the longest first, and of each frame the rows of the clips that reach it, R rows in all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear


def gru_layer(x: Tensor, sizes: Sequence[int], weights: Sequence[Tensor], backwards: bool = False) -> Tensor:
    """(R, F) -> the states (R, H), zero before a clip's first frame or, ``backwards``, behind its last one.

    ``sizes``: (T,) rows of each frame, never more than of the one before. ``weights``: weight_ih, weight_hh, bias_ih,
    bias_hh as ``nn.GRU`` has them.
    """
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    given = linear(x, weight_ih, bias_ih)  # (R, 3H)
    kept = torch.is_grad_enabled()  # which the function itself cannot ask: under ``apply`` it is always off
    states: Tensor = _Recurrence.apply(given, weight_hh, bias_hh, tuple(sizes), backwards, kept)  # type: ignore[no-untyped-call]
    return states


def _per_frame(gates: Tensor, sizes: Sequence[int]) -> tuple[tuple[Tensor, ...], ...]:
    """(R, 3H) as three tuples of T views: reset, update, new."""
    return tuple(part.split(sizes) for part in gates.chunk(3, 1))


class _Recurrence(torch.autograd.Function):
    """What the input gives to the gates (R, 3H), weights (3H, H), biases (3H,) -> states (R, H)."""

    @staticmethod
    def forward(
        ctx: Any, given: Tensor, weight: Tensor, bias: Tensor, sizes: tuple[int, ...], backwards: bool, kept: bool
    ) -> Tensor:
        hidden = weight.shape[1]
        order = range(len(sizes))[:: -1 if backwards else 1]

        def room(width: int) -> tuple[Tensor, Sequence[Tensor]]:
            """Rows for all frames where a backward pass will read them, else for one at a time; and each frame's."""
            rows = given.new_empty(len(given) if kept else sizes[0], width)
            return rows, rows.split(sizes) if kept else [rows[:size] for size in sizes]

        gates, of_frame = room(3 * hidden)  # in the end: reset, update, and what the state gives to the new one
        new, news = room(hidden)
        before, olds = room(hidden) if kept else (given[:0], ())  # the state that each row starts from
        states = given.new_empty(len(given), hidden)
        stands, given_both, given_new = states.split(sizes), given[:, : 2 * hidden].split(sizes), given[:, 2 * hidden :]
        transposed, given_new, last = weight.t(), given_new.split(sizes), states[:0]
        for t in order:
            if len(last) < sizes[t]:  # clips that begin here
                last = torch.cat([last, last.new_zeros(sizes[t] - len(last), hidden)])
            old = last[: sizes[t]]
            if kept:
                olds[t].copy_(old)
            torch.addmm(bias, old, transposed, out=of_frame[t])
            both, product = of_frame[t][:, : 2 * hidden], of_frame[t][:, 2 * hidden :]
            reset, update = both.add_(given_both[t]).sigmoid_().chunk(2, 1)
            torch.addcmul(given_new[t], reset, product, out=news[t])
            # new + update (old - new): three plain passes are faster than one lerp
            last = torch.sub(old, news[t].tanh_(), out=stands[t]).mul_(update).add_(news[t])
        ctx.save_for_backward(weight, before, gates, new)
        ctx.sizes, ctx.order = sizes, order
        return states

    @staticmethod
    @once_differentiable  # type: ignore[misc]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        weight, before, gates, new = ctx.saved_tensors
        sizes, hidden = ctx.sizes, weight.shape[1]
        slopes = torch.empty_like(gates)  # of what the state gave to the gates
        new_slopes = torch.empty_like(new)  # of what the input gave to the new one
        resets, updates, products = _per_frame(gates, sizes)
        of_resets, of_updates, of_products = _per_frame(slopes, sizes)
        of_frame, of_news, grads = slopes.split(sizes), new_slopes.split(sizes), grad.split(sizes)
        olds, news = before.split(sizes), new.split(sizes)
        carry, state, other = (new.new_zeros(sizes[0], hidden) for _ in range(3))
        for t in reversed(ctx.order):
            carried, of_state, left = carry[: sizes[t]], state[: sizes[t]], other[: sizes[t]]
            torch.add(grads[t], carried, out=of_state)
            torch.mul(of_state, updates[t], out=carried)
            torch.sub(of_state, carried, out=left)  # what goes to the new one
            torch.sub(olds[t], news[t], out=of_updates[t]).mul_(left).mul_(updates[t])
            torch.ops.aten.tanh_backward.grad_input(left, news[t], grad_input=of_news[t])
            torch.mul(of_news[t], resets[t], out=of_products[t])
            torch.mul(of_news[t], products[t], out=left)
            torch.ops.aten.sigmoid_backward.grad_input(left, resets[t], grad_input=of_resets[t])
            carried.addmm_(of_frame[t], weight)
        of_given = torch.cat([slopes[:, : 2 * hidden], new_slopes], 1)
        return of_given, slopes.t() @ before, slopes.sum(0), None, None, None
