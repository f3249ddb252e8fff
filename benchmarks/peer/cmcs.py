"""CMAL and CMCS as their public code trains them: SkeletonBYOL's networks, one set for each stream.

CMAL draws both views' predictions together and pushes each off the target of its own view. CMCS does so in every stream
and from ``cross_start`` on adds CSCL over the batch: what two streams agree to be alike. The code descends the three
streams' losses of the first stage one after the other; here their sum is descended once, which is the same step.
With ``freeze_target_in_cross`` the targets stand still in the second stage, as in the code.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.peer.byol import Siamese, distance

Two = tuple[Tensor, Tensor]


def adversarial(p: Two, t: Two, repulsion: float) -> Tensor:
    """(N,) d(p1, p2) - repulsion (d(p1, t1) + d(p2, t2))."""
    near = distance(p[0], p[1])
    far_1, far_2 = distance(p[0], t[0]), distance(p[1], t[1])
    return near - repulsion * (far_1 + far_2)


class CMAL(Siamese):
    """One stream by itself."""

    method = "cmal"

    def loss(self, batch: tuple[Tensor, ...], progress: float) -> Tensor:
        first, second = (self.of_stream(view, self.streams[0]) for view in batch)
        p, t = self.predictions(first, second), self.targets(first, second)
        return adversarial(p, t, self.config.params.repulsion).mean()


def similarity(a: Tensor, b: Tensor) -> Tensor:
    """Cosines (N, N) of all rows of ``a`` with all of ``b``, both (N, D)."""
    return torch.einsum("nc,lc->nl", F.normalize(a, dim=1, p=2), F.normalize(b, dim=1, p=2))


@torch.no_grad()
def label(cosines: Tensor, topk: int) -> Tensor:
    """(N, N) of 0 and 1: the ``topk`` largest of every row (all of them in a smaller batch), and the diagonal."""
    _, index = torch.topk(cosines, min(topk, cosines.shape[1]), dim=1)
    found = torch.zeros_like(cosines).scatter_(1, index, 1)
    return found.fill_diagonal_(1)


def collaborative(cosines: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """(N,) -sum over j of labels log softmax of the cosines; no division by the number of positives."""
    return -(labels * F.log_softmax(cosines / temperature, dim=1)).sum(1)


class CMCS(Siamese):
    """Several streams, which meet in the labels."""

    method = "cmcs"
    joint_method = True

    def endings(self) -> tuple[str, ...]:
        return tuple(f"_{stream}" for stream in self.streams)

    def crossing(self, progress: float) -> bool:
        """Whether the streams look at one another by now."""
        start: float = self.config.params.cross_start
        return progress >= start

    def loss(self, batch: tuple[Tensor, ...], progress: float) -> Tensor:
        return torch.stack(list(self.losses(batch, progress).values())).sum()

    def losses(self, batch: tuple[Tensor, ...], progress: float) -> dict[str, Tensor]:
        """Stream -> the mean of its loss over the batch."""
        p = self.config.params
        views = {s: (self.of_stream(batch[0], s), self.of_stream(batch[1], s)) for s in self.streams}
        predicted = {s: self.predictions(*views[s], f"_{s}") for s in self.streams}
        target = {s: self.targets(*views[s], f"_{s}") for s in self.streams}
        each = {s: adversarial(predicted[s], target[s], p.repulsion) for s in self.streams}
        if self.crossing(progress):
            sims = {s: self.similarities(predicted[s], target[s]) for s in self.streams}
            labels = self.labels(sims)
            for stream, (first, second) in sims.items():
                across = collaborative(first, labels, p.temperature) + collaborative(second, labels, p.temperature)
                each[stream] = each[stream] + p.cross_weight * across
        return {s: value.mean() for s, value in each.items()}

    @staticmethod
    def similarities(p: Two, t: Two) -> Two:
        """(N, N) of either view's predictions with the other view's targets."""
        return similarity(p[0], t[1]), similarity(p[1], t[0])

    def labels(self, sims: dict[str, Two]) -> Tensor:
        """(N, N) of 0 and 1: what two streams hold to be alike in both their matrices (one, where there is but one)."""
        topk = self.config.params.topk
        votes = torch.stack([label(first, topk) * label(second, topk) for first, second in sims.values()]).sum(0)
        return (votes >= min(2, len(sims))).to(votes.dtype)

    def after_step(self, progress: float) -> None:
        if not (self.config.params.freeze_target_in_cross and self.crossing(progress)):
            super().after_step(progress)
