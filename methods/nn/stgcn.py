"""ST-GCN: spatial graph convolutions over joints, 9-frame convolutions over time, pooled to one vector a clip.

Source      Yan et al., "Spatial temporal graph convolutional networks", arXiv:1801.07455; widths and depth as in the
            public code of SkeletonCLR / CrosSCLR / AimCLR (a quarter of the original's 64 channels).
Departures  Any layout, width and depth; the graph's partition, the input's normalisation, pooling over parts of time,
            the treatment of empty second bodies and bf16 are options whose defaults say what they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool1d

from methods.nn.encoder import Encoder, EncoderConfig
from methods.nn.graph import adjacency

if TYPE_CHECKING:
    from methods.data.layouts import Layout


class SpatialConv(nn.Module):
    """Mix channels for each of K partitions, then gather over the graph: (B, C, T, V) -> (B, C', T, V)."""

    def __init__(self, channels: int, out: int, partitions: int) -> None:
        super().__init__()
        self.partitions = partitions
        self.conv = nn.Conv2d(channels, out * partitions, 1)

    def forward(self, x: Tensor, graph: Tensor) -> Tensor:
        """``graph``: (K, V, V), y[w] = sum_v x[v] graph[k, v, w]."""
        b, _, t, v = x.shape
        mixed = self.conv(x).view(b, self.partitions, -1, t, v)
        gathered: Tensor = torch.einsum("bkctv,kvw->bctw", mixed, graph.to(mixed.dtype))
        return gathered


class Block(nn.Module):
    """Spatial graph convolution, temporal convolution, residual: (B, C, T, V) -> (B, C', ceil(T / stride), V)."""

    def __init__(self, channels: int, out: int, stride: int, dropout: float, residual: bool, partitions: int) -> None:
        super().__init__()
        self.spatial = SpatialConv(channels, out, partitions)
        self.temporal = nn.Sequential(
            nn.BatchNorm2d(out),
            nn.ReLU(inplace=True),  # no backward here reads what a ReLU overwrites
            nn.Conv2d(out, out, (9, 1), (stride, 1), (4, 0)),
            nn.BatchNorm2d(out),
            nn.Dropout(dropout),
        )
        self.shortcut: nn.Module | None = None
        if residual and (stride != 1 or channels != out):
            self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, (stride, 1)), nn.BatchNorm2d(out))
        elif residual:
            self.shortcut = nn.Identity()

    def forward(self, x: Tensor, graph: Tensor) -> Tensor:
        y = self.temporal(self.spatial(x, graph))
        if self.shortcut is not None:
            y = y + self.shortcut(x)
        return torch.relu_(y)


class ScaleNorm(nn.Module):
    """One mean and one scale for the whole input (B, V*C, T), then a gain and a shift for each joint and axis.

    A batch norm per joint and axis, as published, makes the jitter of a resting joint as large as the sweep of a hand
    and takes away where a joint is; weights shared over joints and a mean over them cannot tell joints apart again.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.whole = nn.BatchNorm1d(1, affine=False)
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.whole(x.reshape(x.shape[0], 1, -1)).view_as(x)
        return y * self.weight[:, None] + self.bias[:, None]


def block_plan(config: EncoderConfig, channels: int = 3) -> list[tuple[int, int, int]]:
    """(channels in, out, temporal stride) of each block; the last one leads to ``config.dim``."""
    share, extra = divmod(config.depth, 3)
    plan: list[tuple[int, int, int]] = []
    c_in = channels
    for stage in range(3):
        out = config.width * 2**stage
        for i in range(share + (1 if stage < extra else 0)):
            plan.append((c_in, out, 2 if stage and i == 0 else 1))
            c_in = out
    last = plan[-1]
    plan[-1] = (last[0], config.dim, last[2])
    return plan


class STGCN(Encoder):
    """Encoder: clips (N, C, T, V, M) -> features (N, D), D = ``config.dim`` times ``config.segments``.

    Bodies are folded into the batch and averaged at the end. With ``bodies: all`` (published) an absent body counts as
    a body; with ``real`` it is left out of the pass, of the batch statistics and of the mean.
    """

    temporal_stride = 4

    def __init__(self, config: EncoderConfig, layout: Layout, channels: int = 3) -> None:
        super().__init__()
        self.config = config
        self.dim = config.dim * config.segments
        self.graph: Tensor
        self.register_buffer("graph", adjacency(layout, config.partition))
        partitions, joints, _ = self.graph.shape
        features = channels * joints
        self.norm = nn.BatchNorm1d(features) if config.input_norm == "joint" else ScaleNorm(features)
        plan = block_plan(config, channels)
        self.blocks = nn.ModuleList(
            Block(c_in, out, stride, config.dropout if i else 0.0, i > 0, partitions)
            for i, (c_in, out, stride) in enumerate(plan)
        )
        self.edge_importance = nn.ParameterList(nn.Parameter(torch.ones_like(self.graph)) for _ in plan)
        if config.init == "normal":
            self.apply(normal_init)

    def forward(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        """``present``: (N, M) bool of recorded bodies, read only with ``bodies: real`` (found from ``x`` if None)."""
        n, c, t, v, m = x.shape
        bodies = x.permute(0, 4, 3, 1, 2).reshape(n * m, v * c, t)  # (N*M, V*C, T)
        if self.config.bodies == "real" and m > 1:
            if present is None:
                present = (x != 0).flatten(1, 3).any(1)
            # A clip with no body at all keeps its first one, so that every clip has a feature.
            keep = present.clone()
            keep[:, 0] |= ~present.any(1)
            pooled = self._encode(bodies[keep.flatten()], c, v)
            out = pooled.new_zeros(n * m, self.dim)
            out[keep.flatten()] = pooled
            return out.view(n, m, -1).sum(1) / keep.sum(1, keepdim=True)
        return self._encode(bodies, c, v).view(n, m, -1).mean(1)

    def _encode(self, bodies: Tensor, channels: int, joints: int) -> Tensor:
        """(B, V*C, T) -> (B, D)."""
        bf16 = self.config.precision == "bf16"
        with torch.autocast(bodies.device.type, torch.bfloat16, enabled=bf16):
            b, _, t = bodies.shape
            x = self.norm(bodies).view(b, joints, channels, t).permute(0, 2, 3, 1).contiguous()  # (B, C, T, V)
            for block, importance in zip(self.blocks, self.edge_importance, strict=True):
                x = block(x, self.graph * importance)
        over_joints = x.to(bodies.dtype).mean(3)  # (B, C', T')
        return adaptive_avg_pool1d(over_joints, self.config.segments).flatten(1)


def normal_init(module: nn.Module) -> None:
    """Published initialisation of the CrosSCLR family: N(0, 0.02) weights, zero biases, N(1, 0.02) BN gains."""
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.affine:
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
