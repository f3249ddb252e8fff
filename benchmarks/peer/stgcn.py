"""The ST-GCN of the CrosSCLR family as its code runs it: every body, absent ones too, one module after the other."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """Graph convolution, temporal convolution 9 x 1, residual."""

    def __init__(self, channels: int, out: int, stride: int, dropout: float, residual: bool, partitions: int) -> None:
        super().__init__()
        self.gcn = nn.Conv2d(channels, out * partitions, 1)
        self.tcn = nn.Sequential(
            nn.BatchNorm2d(out),
            nn.ReLU(inplace=True),
            nn.Conv2d(out, out, (9, 1), (stride, 1), (4, 0)),
            nn.BatchNorm2d(out),
            nn.Dropout(dropout, inplace=True),
        )
        self.residual: nn.Module | None = None
        if residual and (stride != 1 or channels != out):
            self.residual = nn.Sequential(nn.Conv2d(channels, out, 1, (stride, 1)), nn.BatchNorm2d(out))
        elif residual:
            self.residual = nn.Identity()

    def forward(self, x: Tensor, graph: Tensor) -> Tensor:
        skip = self.residual(x) if self.residual is not None else 0
        mixed = self.gcn(x)
        n, kc, t, v = mixed.shape
        mixed = mixed.view(n, graph.shape[0], kc // graph.shape[0], t, v)
        gathered = torch.einsum("nkctv,kvw->nctw", mixed, graph).contiguous()
        return torch.relu_(self.tcn(gathered) + skip)


class STGCN(nn.Module):
    """Ten blocks of width c, 2c, 4c and a last one of ``dim``; every body is run, absent ones too, and averaged."""

    def __init__(self, graph: Tensor, width: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.graph: Tensor
        self.register_buffer("graph", graph)
        partitions, joints, _ = graph.shape
        self.data_bn = nn.BatchNorm1d(3 * joints)
        widths = [width] * 4 + [2 * width] * 3 + [4 * width] * 2 + [dim]
        blocks = []
        for i, out in enumerate(widths):
            channels = 3 if i == 0 else widths[i - 1]
            blocks.append(Block(channels, out, 2 if i in (4, 7) else 1, dropout if i else 0.0, i > 0, partitions))
        self.blocks = nn.ModuleList(blocks)
        self.importance = nn.ParameterList(nn.Parameter(torch.ones_like(graph)) for _ in widths)

    def forward(self, x: Tensor) -> Tensor:
        n, c, t, v, m = x.shape
        x = x.permute(0, 4, 3, 1, 2).contiguous().view(n * m, v * c, t)
        x = self.data_bn(x).view(n, m, v, c, t).permute(0, 1, 3, 4, 2).contiguous().view(n * m, c, t, v)
        for block, importance in zip(self.blocks, self.importance, strict=True):
            x = block(x, self.graph * importance)
        pooled: Tensor = torch.nn.functional.avg_pool2d(x, x.shape[2:]).view(n, m, -1).mean(1)
        return pooled
