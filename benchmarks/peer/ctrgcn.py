"""The CTR-GCN stack of SCD-Net's public code, as that runs it: one relation, one branch after the other.

Written anew from the published description; submodules bear the official names. N clips, C channels, T frames,
V joints, M persons, K graphs. A graph gathers y[u] = sum_v A[u, v] x[v].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

FAN = 4  # branches over time


class Conv(nn.Module):
    """A convolution over time and its batch norm."""

    def __init__(self, channels: int, out: int, kernel: int = 1, dilation: int = 1) -> None:
        super().__init__()
        pad = (kernel - 1) * dilation // 2
        self.conv = nn.Conv2d(channels, out, (kernel, 1), padding=(pad, 0), dilation=(dilation, 1))
        self.bn = nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn(self.conv(x))
        return y


class Relation(nn.Module):
    """Values gathered over A + alpha R, where R relates every two joints for each channel."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        middle = 8 if channels in (3, 9) else max(1, channels // 8)
        self.conv1 = nn.Conv2d(channels, middle, 1)
        self.conv2 = nn.Conv2d(channels, middle, 1)
        self.conv3 = nn.Conv2d(channels, out, 1)
        self.conv4 = nn.Conv2d(middle, out, 1)

    def forward(self, x: Tensor, graph: Tensor, alpha: Tensor) -> Tensor:
        receiver = self.conv1(x).mean(2)  # (N, R, V), the mean taken after the convolution, over all frames
        sender = self.conv2(x).mean(2)
        related = torch.tanh(receiver[:, :, :, None] - sender[:, :, None, :])
        refined = graph[None, None] + alpha * self.conv4(related)  # (N, C', V, V)
        return torch.einsum("bcuv,bctv->bctu", refined, self.conv3(x))


class GraphConv(nn.Module):
    """The sum over K learnt graphs, normed, plus a shortcut."""

    def __init__(self, channels: int, out: int, graph: Tensor) -> None:
        super().__init__()
        self.PA = nn.Parameter(graph.clone())
        self.alpha = nn.Parameter(torch.zeros(1))
        self.convs = nn.ModuleList(Relation(channels, out) for _ in graph)
        self.down = nn.Sequential(nn.Conv2d(channels, out, 1), nn.BatchNorm2d(out))
        self.bn = nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        total = self.convs[0](x, self.PA[0], self.alpha)
        for relation, graph in zip(self.convs[1:], self.PA[1:], strict=True):
            total = total + relation(x, graph, self.alpha)
        normed = self.bn(total)
        normed += self.down(x)
        return torch.relu_(normed)


class TimeConv(nn.Module):
    """Two dilated convolutions, a maximum over three frames and a plain 1x1, side by side."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        width = channels // FAN

        def narrow() -> list[nn.Module]:
            return [nn.Conv2d(channels, width, 1), nn.BatchNorm2d(width)]

        dilated = [nn.Sequential(*narrow(), nn.ReLU(inplace=True), Conv(width, width, 5, d)) for d in (1, 2)]
        pooled = nn.Sequential(
            *narrow(), nn.ReLU(inplace=True), nn.MaxPool2d((3, 1), (1, 1), (1, 0)), nn.BatchNorm2d(width)
        )
        self.branches = nn.ModuleList([*dilated, pooled, nn.Sequential(*narrow())])

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class Unit(nn.Module):
    """Space, then time, then (in all units but the first) a residual."""

    def __init__(self, channels: int, out: int, graph: Tensor, residual: bool) -> None:
        super().__init__()
        self.gcn1 = GraphConv(channels, out, graph)
        self.tcn1 = TimeConv(out)
        self.residual = Conv(channels, out) if residual else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.tcn1(self.gcn1(x))
        return torch.relu_(y if self.residual is None else y + self.residual(x))


class CTRGCN(nn.Module):
    """Three units: clips (N, C, T, V, M) -> maps (N*M, base, T, V), every body, absent ones too."""

    def __init__(self, graph: Tensor, persons: int, base: int) -> None:
        super().__init__()
        self.data_bn = nn.BatchNorm1d(persons * graph.shape[1] * 3)
        self.l1 = Unit(3, base, graph, residual=False)
        self.l2 = Unit(base, 4 * base, graph, residual=True)
        self.l3 = Unit(4 * base, base, graph, residual=True)
        self.apply(draw_weights)

    def forward(self, x: Tensor) -> Tensor:
        n, c, t, v, m = x.shape
        x = x.permute(0, 4, 3, 1, 2).contiguous().view(n, m * v * c, t)
        x = self.data_bn(x).view(n, m, v, c, t).permute(0, 1, 3, 4, 2).contiguous().view(n * m, c, t, v)
        maps: Tensor = self.l3(self.l2(self.l1(x)))
        return maps


def draw_weights(module: nn.Module) -> None:
    """For ``apply``, which goes from the inside out: He-normal convolutions by fan-out, biases zero.

    Gains of norms over time are from N(1, 0.02), those over a graph start at 1e-6.
    """
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, TimeConv):
        for norm in module.modules():
            if isinstance(norm, nn.BatchNorm2d):
                nn.init.normal_(norm.weight, 1.0, 0.02)
    elif isinstance(module, GraphConv):
        nn.init.constant_(module.bn.weight, 1e-6)
