"""CTR-GCN blocks: graph convolutions whose graph is refined for each channel, multi-scale convolutions over time.

Source      Chen et al. (CTR-GCN), arXiv:2107.12213, and the three-unit stack of SCD-Net's public code
            (Wu et al., arXiv:2309.05834): widths base, 4 base, base, no stride in time.
Departures  Any layout, number of bodies, channels and base width.
Shapes      N clips, M persons, B = N*M bodies, C channels, T frames, V joints, K graphs. A graph gathers
            y[u] = sum_v A[u, v] x[v]: the other way round than in ST-GCN.
Memory      Maps are (B, C, T, V) by name, but lie as (B, C, V, T): a graph is then a matrix from the left, over rows as
            long as a clip, and what one graph gathers is added onto the others' by the same product.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, max_pool2d

from methods.nn.graph import adjacency

if TYPE_CHECKING:
    from methods.data.layouts import Layout

BRANCHES = 4  # of the convolution over time: its width must divide by this
_SCALES = (1, 2)  # dilations of the two branches with a kernel of five frames


def relation_width(channels: int) -> int:
    """How many channels a relation between two joints is computed in: an eighth, but 8 for coordinates."""
    return 8 if channels < 4 or channels == 9 else max(1, channels // 8)


def turned(x: Tensor) -> Tensor:
    """Maps (B, C, T, V) as the (B, C, V, T) that they are in memory; a copy only of what comes from elsewhere."""
    return x.transpose(2, 3).contiguous()


def through(parts: Any, x: Tensor) -> Tensor:
    """Maps (B, C, V, T) through convolutions and pools that are written for (B, C, T, V), and norms and ReLUs."""
    for part in parts:
        kind = type(part)
        if kind is nn.Conv2d and part.kernel_size == (1, 1):
            x = pointwise(part, x)
        elif kind is nn.Conv2d:
            weight, padding, dilation = part.weight.transpose(2, 3), (0, part.padding[0]), (1, part.dilation[0])
            x = conv2d(x, weight, part.bias, 1, padding, dilation)
        elif kind is nn.MaxPool2d:
            x = max_pool2d(x, (1, part.kernel_size[0]), part.stride, (0, part.padding[0]))
        else:
            x = part(x)
    return x


def pointwise(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A 1x1 convolution of maps (B, C, V, T); on a CPU as one matrix from the left, for which nothing is reordered."""
    if not x.is_cpu:
        y: Tensor = conv(x)
        return y
    weight, bias = conv.weight.flatten(1), conv.get_parameter("bias")
    return torch.baddbmm(bias[:, None], weight.expand(len(x), -1, -1), x.flatten(2)).view(len(x), -1, *x.shape[2:])


class Relation(nn.Module):
    """One of the K graphs: values gathered over A + alpha R, R a relation of every two joints for each channel."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        middle = relation_width(channels)
        self.receiver = nn.Conv2d(channels, middle, 1)
        self.sender = nn.Conv2d(channels, middle, 1)
        self.value = nn.Conv2d(channels, out, 1)
        self.relation = nn.Conv2d(middle, out, 1)

    def forward(self, x: Tensor, graph: Tensor, alpha: Tensor, onto: Tensor | None = None) -> Tensor:
        """(B, C, T, V), (V, V) -> (B, C', T, V), added to ``onto`` if that is given."""
        x = turned(x)
        b, _, v, t = x.shape
        over_time = x.mean(3, keepdim=True)  # the mean of a 1x1 convolution is that convolution of the mean
        sent = pointwise(self.sender, over_time).transpose(2, 3)
        related = torch.tanh(pointwise(self.receiver, over_time) - sent)  # (B, R, V receiver, V sender)
        # A + alpha R as one product: alpha is in the weights, and A is one more channel, which all take as it is.
        weight = torch.cat([alpha * self.relation.weight.flatten(1), graph.new_ones(self.relation.out_channels, 1)], 1)
        channels = torch.cat([related, graph.to(related.dtype).expand(b, 1, -1, -1)], 1).flatten(2)
        bias = (alpha * self.relation.get_parameter("bias"))[:, None]
        refined = torch.baddbmm(bias, weight.expand(b, -1, -1), channels).view(-1, v, v)  # (B*C', V receiver, V sender)
        values = pointwise(self.value, x).reshape(-1, v, t)
        if onto is None:
            gathered = torch.bmm(refined, values)
        else:
            gathered = torch.baddbmm(turned(onto).view(-1, v, t), refined, values)
        return gathered.view(b, -1, v, t).transpose(2, 3)


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
        gathered: Any = None
        for relation, a in zip(self.relations, self.graph, strict=True):
            gathered = relation(x, a, self.alpha, gathered)
        y = self.norm(turned(gathered)) + through(self.shortcut, turned(x))
        return torch.relu_(y).transpose(2, 3)


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
        x = turned(x)
        return torch.cat([through(branch, x) for branch in self.branches], 1).transpose(2, 3)


class Unit(nn.Module):
    """Space, then time, then (in all units but the first) a shortcut: (B, C, T, V) -> (B, C', T, V)."""

    def __init__(self, channels: int, out: int, graph: Tensor, residual: bool) -> None:
        super().__init__()
        self.spatial = SpatialUnit(channels, out, graph)
        self.temporal = TemporalUnit(out)
        self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 1), nn.BatchNorm2d(out)) if residual else None

    def forward(self, x: Tensor) -> Tensor:
        y = turned(self.temporal(self.spatial(x)))
        if self.shortcut is not None:
            y = y + through(self.shortcut, turned(x))
        return torch.relu_(y).transpose(2, 3)


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
        bodies = bodies.view(n * m, v, c, t).permute(0, 2, 3, 1)  # (N*M, C, T, V)
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
