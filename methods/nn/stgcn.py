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

from methods.nn.attention_drop import attention_drop
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
    Any T and M; ``frames`` and ``persons`` are not read.
    """

    temporal_stride = 4

    def __init__(
        self, config: EncoderConfig, layout: Layout, channels: int = 3, *, frames: int = 0, persons: int = 0
    ) -> None:
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
        n, m, keep = x.shape[0], x.shape[4], self._kept(x, present)
        if keep is None:
            return self._pool(self._map(x)).view(n, m, -1).mean(1)
        pooled = self._pool(self._map(x, keep))  # only who is there, so that no map of an empty body is held
        return _scatter(pooled, keep).sum(1) / keep.sum(1, keepdim=True)

    def features(self, x: Tensor, present: Tensor | None = None, joints: Tensor | None = None) -> Tensor:
        """The last feature map (N, M, D, T', V'), T' = ceil(T / 4), D = ``config.dim``.

        ``joints``: (V',) indices of the joints that are left, the same for every clip; the others are cut out after
        the input norm, and their rows and columns out of every graph (PSTL's central spatial masking). With
        ``bodies: real`` the map of a body that is left out is zero.
        """
        keep = self._kept(x, present)
        maps = self._map(x, keep, joints)
        return maps.unflatten(0, (x.shape[0], x.shape[4])) if keep is None else _scatter(maps, keep)

    def pool(self, maps: Tensor, present: Tensor | None = None) -> Tensor:
        """What :meth:`forward` makes of a map (N, M, D, T', V') of :meth:`features`: (N, dim).

        ``present`` as it was given to :meth:`features`; without it, with ``bodies: real``, a body whose map is zero
        is taken for one that was left out.
        """
        pooled = self._pool(maps.flatten(0, 1)).view(*maps.shape[:2], -1)
        return _over_bodies(pooled, self._counted(maps, present))

    def masked_pool(self, maps: Tensor, mask: Tensor, present: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The mean over the cells of ``mask`` and the mean over the others, each (N, dim): SkeleMixCLR's two.

        ``maps``: (N, M, D, T', V') of :meth:`features`. ``mask``: (N or 1, T', V') bool, one for all bodies of a clip.
        A mean over no cell is zero; a part of time without a cell takes the mean over all parts.
        """
        mask = mask.expand(len(maps), -1, -1)
        keep = self._counted(maps, present)
        inside, outside = (_over_bodies(self._mean_of(maps, cells.to(maps.dtype)), keep) for cells in (mask, ~mask))
        return inside, outside

    def drop_attended(self, maps: Tensor, threshold: float, present: Tensor | None = None) -> Tensor:
        """``maps`` (N, M, D, T', V') of :meth:`features` after AimCLR's attention drop, over the bodies that count."""
        keep = self._counted(maps, present)
        if keep is None:
            return attention_drop(maps.flatten(0, 1), threshold).view_as(maps)
        return _scatter(attention_drop(maps[keep], threshold), keep)

    def _kept(self, x: Tensor, present: Tensor | None) -> Tensor | None:
        """(N, M) bool of the bodies of clips (N, C, T, V, M) that are passed on, None for all of them."""
        if self.config.bodies == "all" or x.shape[4] == 1:
            return None
        return _somebody((x != 0).flatten(1, 3).any(1) if present is None else present)

    def _counted(self, maps: Tensor, present: Tensor | None) -> Tensor | None:
        """The same of maps (N, M, D, T', V')."""
        if self.config.bodies == "all" or maps.shape[1] == 1:
            return None
        return _somebody(maps.flatten(2).any(2) if present is None else present)

    def _map(self, x: Tensor, keep: Tensor | None = None, joints: Tensor | None = None) -> Tensor:
        """Clips (N, C, T, V, M) -> (B, D, T', V'), B the N * M bodies or those of them that are kept."""
        n, c, t, v, m = x.shape
        bodies = x.permute(0, 4, 3, 1, 2).reshape(n * m, v * c, t)
        if keep is not None:
            bodies = bodies[keep.flatten()]
        graph = self.graph if joints is None else self.graph[:, joints[:, None], joints]
        with torch.autocast(bodies.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            y = self.norm(bodies).view(-1, v, c, t).permute(0, 2, 3, 1)  # (B, C, T, V)
            y = (y if joints is None else y[..., joints]).contiguous()
            for block, importance in zip(self.blocks, self.edge_importance, strict=True):
                y = block(y, graph * (importance if joints is None else importance[:, joints[:, None], joints]))
        out: Tensor = y.to(bodies.dtype)
        return out

    def _pool(self, maps: Tensor) -> Tensor:
        """(B, D, T', V') -> (B, dim)."""
        return adaptive_avg_pool1d(maps.mean(3), self.config.segments).flatten(1)

    def _mean_of(self, maps: Tensor, cells: Tensor) -> Tensor:
        """(N, M, D, T', V') and weights (N, T', V') of 0 or 1 -> the mean over those cells, (N, M, dim)."""
        n, m, d, t, _ = maps.shape
        parts = self.config.segments
        total = torch.einsum("nmdtv,ntv->nmdt", maps, cells)
        count = cells.sum(2)[:, None, None]  # (N, 1, 1, T')
        whole = total.sum(3, keepdim=True) / count.sum(3, keepdim=True).clamp(min=1)
        if parts == 1:
            return whole.flatten(2)
        total = adaptive_avg_pool1d(total.reshape(n * m, d, t), parts).view(n, m, d, parts)
        count = adaptive_avg_pool1d(count.view(n, 1, t), parts).view(n, 1, 1, parts)
        seen = count > 0
        return torch.where(seen, total / count.where(seen, 1), whole).flatten(2)


def _somebody(present: Tensor) -> Tensor:
    """``present`` (N, M), but a clip with no body at all keeps its first one, so that every clip has a feature."""
    keep = present.clone()
    keep[:, 0] |= ~present.any(1)
    return keep


def _scatter(rows: Tensor, keep: Tensor) -> Tensor:
    """The kept bodies' ``rows`` (B, ...) back in their places of (N, M, ...); zero elsewhere."""
    out = rows.new_zeros(*keep.shape, *rows.shape[1:])
    out[keep] = rows
    return out


def _over_bodies(values: Tensor, keep: Tensor | None) -> Tensor:
    """(N, M, F) -> (N, F): the mean over all bodies, or over those kept."""
    if keep is None:
        return values.mean(1)
    return (values * keep[..., None]).sum(1) / keep.sum(1, keepdim=True)


def normal_init(module: nn.Module) -> None:
    """Published initialisation of the CrosSCLR family: N(0, 0.02) weights, zero biases, N(1, 0.02) BN gains."""
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.affine:
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
