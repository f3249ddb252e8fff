"""Several runs in lock-step as one batched model, each with the numbers that it would have alone.

for results in Fused(runs).train():       # one or several runs of one method; of one or several streams
    for run, epoch in results:
        ...                               # an Epoch, or the TrialEnded of a run that has left the group

Weights, buffers and optimiser state of all branches are stacked, views are made run by run as ever, and one vmap over
the method's own loss takes them all. Whatever a loss reads as a number may differ (rate, weight decay, temperature,
momentum of the slow copy, strengths of augmentation, seed, clips); whatever decides a shape or a path may not.

Fuses       skeletonclr, skeletonbyol, cmal, aimclr, skelemixclr, skelemixclr_plus, skeletonbt; of those that train
            their streams together cmcs and crossclr, a whole run being one row of the stack.
Does not    pstl (how many joints it cuts out differs from step to step), cmd and crrl (a GRU has no batched rule),
            scdnet (its encoder views tensors that are no longer in one piece); ``bodies: real`` in a shuffled order
            (how many bodies a batch has differs), methods of others.
Equality    Without dropout: in float64 to rounding. In float32 grouped kernels round otherwise than single ones, and
            training enlarges that from step to step, by as much as it does one unit in the last place of the weights.
            Adam moves weights that have no effect (a bias in front of a batch norm, whose gradient is rounding) by
            more: losses stay equal, those do not. Dropout draws other masks.
Gains       Launches are paid once for all rows, which a GPU may gain by; no number stands for that yet. A CPU loses:
            the layouts that make a single network fast there are not used (benchmarks/side_by_side.py).
"""

from __future__ import annotations

from methods.training.fusing.agreement import faults, together_until
from methods.training.fusing.group import Fused

__all__ = ["Fused", "faults", "together_until"]
