"""CTR-GCN blocks: graph convolutions whose graph is refined for each channel, multi-scale convolutions over time.

Source      Chen et al. (CTR-GCN), arXiv:2107.12213, and the three-unit stack of SCD-Net's public code
            (Wu et al., arXiv:2309.05834): widths base, 4 base, base, no stride in time.
Departures  Any layout, number of bodies, channels and base width.
Shapes      N clips, M persons, B = N*M bodies, C channels, T frames, V joints, K graphs. A graph gathers
            y[u] = sum_v A[u, v] x[v]: the other way round than in ST-GCN.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from methods.nn.graph import adjacency

if TYPE_CHECKING:
    from methods.data.layouts import Layout

BRANCHES = 4  # of the convolution over time: its width must divide by this
_SCALES = (1, 2)  # dilations of the two branches with a kernel of five frames


def relation_width(channels: int) -> int:
    """How many channels a relation between two joints is computed in: an eighth, but 8 for coordinates."""
    return 8 if channels < 4 or channels == 9 else max(1, channels // 8)


class Relation(nn.Module):
    """One of the K graphs: values gathered over A + alpha R, R a relation of every two joints for each channel."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        middle = relation_width(channels)
        self.receiver = nn.Conv2d(channels, middle, 1)
        self.sender = nn.Conv2d(channels, middle, 1)
        self.value = nn.Conv2d(channels, out, 1)
        self.relation = nn.Conv2d(middle, out, 1)

    def forward(self, x: Tensor, graph: Tensor, alpha: Tensor) -> Tensor:
        """(B, C, T, V), (V, V) -> (B, C', T, V)."""
        over_time = x.mean(2, keepdim=True)  # the mean of a 1x1 convolution is that convolution of the mean
        difference = self.receiver(over_time).transpose(2, 3) - self.sender(over_time)  # (B, R, V receiver, V sender)
        refined = graph + alpha * self.relation(torch.tanh(difference))  # (B, C', V receiver, V sender)
        gathered: Tensor = self.value(x) @ refined.transpose(2, 3)
        return gathered


class SpatialUnit(nn.Module):
    """The sum over K graphs, normed, plus a shortcut: (B, C, T, V) -> (B, C', T, V). The graphs are learnt."""

    def __init__(self, channels: int, out: int, graph: Tensor) -> None:
        super().__init__()
        self.graph = nn.Parameter(graph.clone())
        self.alpha = nn.Parameter(torch.zeros(1))
        self.relations = nn.ModuleList(Relation(channels, out) for _ in graph)
        self.norm = nn.BatchNorm2d(out)
        self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 1), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        gathered = [relation(x, a, self.alpha) for relation, a in zip(self.relations, self.graph, strict=True)]
        summed: Tensor = self.norm(torch.stack(gathered).sum(0)) + self.shortcut(x)
        return torch.relu_(summed)


class TemporalUnit(nn.Module):
    """Two dilated convolutions, a maximum over three frames and a plain 1x1, side by side: (B, C, T, V) -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        width = channels // BRANCHES

        def narrow(*then: nn.Module) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(channels, width, 1), nn.BatchNorm2d(width), *then)

        self.branches = nn.ModuleList(
            narrow(
                nn.ReLU(inplace=True),
                nn.Conv2d(width, width, (5, 1), padding=(2 * d, 0), dilation=(d, 1)),
                nn.BatchNorm2d(width),
            )
            for d in _SCALES
        )
        self.branches.append(
            narrow(nn.ReLU(inplace=True), nn.MaxPool2d((3, 1), 1, padding=(1, 0)), nn.BatchNorm2d(width))
        )
        self.branches.append(narrow())

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class Unit(nn.Module):
    """Space, then time, then (in all units but the first) a shortcut: (B, C, T, V) -> (B, C', T, V)."""

    def __init__(self, channels: int, out: int, graph: Tensor, residual: bool) -> None:
        super().__init__()
        self.spatial = SpatialUnit(channels, out, graph)
        self.temporal = TemporalUnit(out)
        self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 1), nn.BatchNorm2d(out)) if residual else None

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.temporal(self.spatial(x))
        if self.shortcut is not None:
            y = y + self.shortcut(x)
        return torch.relu_(y)


class CTRGCN(nn.Module):
    """Three units over the skeleton: clips (N, C, T, V, M) -> maps (N, M, base, T, V). ``base`` is a multiple of 4."""

    def __init__(self, layout: Layout, channels: int, persons: int, base: int, partition: str) -> None:
        super().__init__()
        graph = adjacency(layout, partition)
        self.norm = nn.BatchNorm1d(persons * layout.num_joints * channels)
        widths = (channels, base, 4 * base, base)
        self.units = nn.Sequential(
            *(Unit(widths[i], widths[i + 1], graph, residual=i > 0) for i in range(len(widths) - 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        n, c, t, v, m = x.shape
        bodies = self.norm(x.permute(0, 4, 3, 1, 2).reshape(n, m * v * c, t))
        bodies = bodies.view(n * m, v, c, t).permute(0, 2, 3, 1).contiguous()  # (N*M, C, T, V)
        maps: Tensor = self.units(bodies)
        return maps.view(n, m, -1, t, v)


def published_init(module: nn.Module) -> None:
    """He-normal convolutions (by fan-out) without biases; graph norms start at 1e-6, so that shortcuts lead at first.

    For ``module.apply``; norms over time get gains N(1, 0.02).
    """
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, TemporalUnit):
        for norm in (part for part in module.modules() if isinstance(part, nn.BatchNorm2d)):
            nn.init.normal_(norm.weight, 1.0, 0.02)
    elif isinstance(module, SpatialUnit):
        nn.init.constant_(module.norm.weight, 1e-6)
