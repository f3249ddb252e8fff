"""SkeletonBYOL and the networks that CMCS's public code shares with it: online and target, moved after every step.

The code holds its heads as modules with a ``net`` inside and runs every network once a view. Of plain BYOL it ships no
class; the loss here is the published one over its networks: each view's prediction against the other view's target.
N clips, C channels, T frames, V joints, M persons, D projection width.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.peer.augment import Array
from benchmarks.peer.base import Peer, Views, follow
from benchmarks.peer.moco import check_step, check_views, derived, head, make_backbone, same_or_fresh
from benchmarks.peer.skeletonclr import TwoViews, published_init
from benchmarks.peer.stgcn import STGCN
from methods.data.layouts import Layout
from methods.training.config import TrialConfig


class MLP(nn.Module):
    """Linear, batch norm, ReLU, linear: projector and predictor alike."""

    def __init__(self, width: int, hidden: int, out: int) -> None:
        super().__init__()
        self.net = head(width, hidden, out, batch_norm=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out


def distance(a: Tensor, b: Tensor) -> Tensor:
    """d(a, b) = 2 - 2 cos of each clip's vectors, (N, D) -> (N,)."""
    return 2 - 2 * (F.normalize(a, dim=-1, p=2) * F.normalize(b, dim=-1, p=2)).sum(dim=-1)


class Siamese(Peer):
    """Online backbone, projector and predictor, target backbone and projector, once for each ending of their names."""

    joint_method = False

    def __init__(self, config: TrialConfig, layout: Layout, persons: int = 2) -> None:
        super().__init__(config, layout, persons)
        check_step(config, joint_method=self.joint_method)
        p, width, self.streams = config.params, config.encoder.dim, config.streams.use
        for end in self.endings():
            for side in ("online", "target"):
                setattr(self, f"{side}_backbone{end}", make_backbone(config, layout))
                setattr(self, f"{side}_projector{end}", MLP(width, p.hidden, p.projection))
            setattr(self, f"online_predictor{end}", MLP(p.projection, p.hidden, p.projection))
        self.apply(published_init)
        for slow, online in self._pairs():
            same_or_fresh(slow, online, p.init_sync)

    @classmethod
    def views(cls, config: TrialConfig, layout: Layout, data: Array, index: NDArray[np.int64]) -> Views:
        check_views(config)
        return TwoViews(data, index, config.augment.crop, config.augment.shear)

    def endings(self) -> tuple[str, ...]:
        """What the names of the networks end in: nothing for a method of one stream."""
        return ("",)

    def _pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        parts = [f"{part}{end}" for end in self.endings() for part in ("backbone", "projector")]
        return [(self.get_submodule(f"target_{part}"), self.get_submodule(f"online_{part}")) for part in parts]

    def of_stream(self, view: Tensor, stream: str) -> Tensor:
        """A stream of a view of joints (N, C, T, V, M)."""
        return derived(view, stream, self.layout)

    def predictions(self, first: Tensor, second: Tensor, end: str = "") -> tuple[Tensor, Tensor]:
        """Online backbone and projector over either view, then the predictor over either: (N, D) each."""
        net, project, predict = (self.get_submodule(f"online_{p}{end}") for p in ("backbone", "projector", "predictor"))
        projected_1 = project(net(first))
        projected_2 = project(net(second))
        return predict(projected_1), predict(projected_2)

    @torch.no_grad()
    def targets(self, first: Tensor, second: Tensor, end: str = "") -> tuple[Tensor, Tensor]:
        """Target backbone and projector over either view: (N, D) each."""
        net, project = (self.get_submodule(f"target_{part}{end}") for part in ("backbone", "projector"))
        return project(net(first)).detach(), project(net(second)).detach()

    def after_step(self, progress: float) -> None:
        for slow, online in self._pairs():
            follow(slow, online, self.config.params.momentum)


class SkeletonBYOL(Siamese):
    """Predict the other view's target, both ways."""

    method = "skeletonbyol"
    online_backbone: STGCN

    def loss(self, batch: tuple[Tensor, ...], progress: float) -> Tensor:
        first, second = (self.of_stream(view, self.streams[0]) for view in batch)
        p1, p2 = self.predictions(first, second)
        t1, t2 = self.targets(first, second)
        return (distance(p1, t2) + distance(p2, t1)).mean()
