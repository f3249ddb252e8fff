"""ST-GCN: spatial graph convolutions over joints, 9-frame convolutions over time, pooled to one vector a clip.

Source      Yan et al., "Spatial temporal graph convolutional networks", arXiv:1801.07455; widths and depth as in the
            public code of SkeletonCLR / CrosSCLR / AimCLR (a quarter of the original's 64 channels).
Departures  Any layout, width and depth; the graph's partition, the input's normalisation, pooling over parts of time,
            the treatment of empty second bodies and bf16 are options whose defaults say what they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool1d, conv2d

from methods.filled import present_bodies
from methods.nn.attention_drop import attention_drop
from methods.nn.dropout import factors
from methods.nn.encoder import Encoder, EncoderConfig
from methods.nn.graph import adjacency
from methods.nn.norm import batch_norm

if TYPE_CHECKING:
    from methods.data.layouts import Layout


class SpatialConv(nn.Module):
    """Mix channels for each of K partitions, then gather over the graph: (B, C, T, V) -> (B, C', T, V)."""

    def __init__(self, channels: int, out: int, partitions: int) -> None:
        super().__init__()
        self.partitions, self.out = partitions, out
        self.conv = nn.Conv2d(channels, out * partitions, 1)

    def forward(self, x: Tensor, graph: Tensor) -> Tensor:
        """``graph``: (K, V, V), y[w] = sum_v x[v] graph[k, v, w]."""
        b, _, t, v = x.shape
        mixed = self.conv(x).view(b, self.partitions, -1, t, v)
        gathered: Tensor = torch.einsum("bkctv,kvw->bctw", mixed, graph.to(mixed.dtype))
        return gathered

    def channels_last(self, x: Tensor, graph: Tensor, time_last: bool) -> Tensor:
        """The same of and to maps in that memory format, (B, C, V, T) with ``time_last``, else (B, C, T, V).

        Gathers first, so that K * C numbers are held for each joint and frame instead of K * C', and nothing is copied:
        the graph is one matrix from the left, over whole rows of frames and channels or of channels alone, and the
        mixing one convolution over K steps of V joints, or over K * C channels.
        """
        k, v, _ = graph.shape
        b, c, t = len(x), x.shape[1], x.numel() // (len(x) * x.shape[1] * v)
        rows, weight = x.permute(0, 2, 3, 1), self.conv.weight.view(k, -1, c)
        bias = graph.sum(1).T @ self.conv.get_parameter("bias").view(k, -1)  # (V, C'): what each joint gathers of it
        if time_last:
            matrix = graph.transpose(1, 2).reshape(k * v, v).to(x.dtype)
            near = torch.bmm(matrix.expand(b, -1, -1), rows.reshape(b, v, t * c)).view(b, k * v, t, c)
            mixed = conv2d(near.permute(0, 3, 1, 2), weight.permute(1, 2, 0)[..., None], dilation=(v, 1))
            return mixed.add_(bias.T.to(mixed.dtype)[..., None])
        matrix = graph.permute(2, 0, 1).reshape(v * k, v).to(x.dtype)
        near = torch.bmm(matrix.expand(b * t, -1, -1), rows.reshape(b * t, v, c)).view(b, t, v, k * c)
        mixed = conv2d(near.permute(0, 3, 1, 2), weight.permute(1, 0, 2).reshape(-1, k * c, 1, 1))
        return mixed.add_(bias.T.to(mixed.dtype)[:, None])


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
        vmapped = torch._C._functorch.maybe_current_level() is not None
        # Of one channel both memory formats look alike, and oneDNN has been seen to take it for the wrong one.
        if x.is_cpu and torch.backends.mkldnn.is_available() and self.spatial.out > 1 and not vmapped:
            return self.on_cpu(x, graph)
        return self.plain(x, graph)

    def plain(self, x: Tensor, graph: Tensor) -> Tensor:
        """One module after the other: on GPUs, and of many networks at once under ``vmap``."""
        y = self.temporal(self.spatial(x, graph))
        if self.shortcut is not None:
            y = y + self.shortcut(x)
        return torch.relu_(y)

    def on_cpu(self, x: Tensor, graph: Tensor) -> Tensor:
        """The same numbers, but for dropout's draws, in the order of memory that oneDNN works fastest in.

        Channels lie innermost; before them time, or in bf16 the joints. Maps come and leave as (B, C, T, V), but only
        by name: nothing is moved between blocks. What it gains: benchmarks/layouts.py.
        """
        time_last = not torch.is_autocast_enabled("cpu")
        x = (x.transpose(2, 3) if time_last else x).contiguous(memory_format=torch.channels_last)
        norm, relu, conv, last_norm, dropout = self.temporal
        p = float(dropout.p) if dropout.training else 0.0  # type: ignore[arg-type]
        y = relu(batch_norm(norm, self.spatial.channels_last(x, graph, time_last)))
        y = batch_norm(last_norm, _over_time(conv, y, time_last))
        if isinstance(self.shortcut, nn.Sequential):
            x = batch_norm(self.shortcut[1], _over_time(self.shortcut[0], x, time_last))
        if not p:
            y = y if self.shortcut is None else y + x
        elif self.shortcut is None:
            y = y * factors(y, p)
        else:
            y = torch.addcmul(x, y, factors(y, p))
        y = torch.relu_(y)
        return y.transpose(2, 3) if time_last else y


def _over_time(conv: Any, x: Tensor, time_last: bool) -> Tensor:
    """A convolution over the frames of (B, C, T, V), or with ``time_last`` of (B, C, V, T)."""
    (stride, _), (padding, _) = conv.stride, conv.padding
    if conv.kernel_size == (1, 1):
        # Only the frames that count: oneDNN's own stride over a 1 x 1 kernel writes past the end in this memory format
        # (its backward pass crashes or spoils the heap at 16 channels and fewer; torch 2.13).
        return conv2d(x[..., ::stride] if time_last else x[:, :, ::stride], conv.weight, conv.bias)
    if not time_last:
        y: Tensor = conv(x)
        return y
    return conv2d(x, conv.weight.transpose(2, 3), conv.bias, (1, stride), (0, padding))


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


@dataclass(frozen=True)
class Kept:
    """Which bodies of a batch are run: ``mask`` (N, M) bool, and ``rows`` (B,), their places among the N * M."""

    mask: Tensor
    rows: Tensor

    def scatter(self, values: Tensor) -> Tensor:
        """The kept bodies' ``values`` (B, ...) back in their places of (N, M, ...); zero elsewhere."""
        out = values.new_zeros(self.mask.numel(), *values.shape[1:])
        return out.index_copy(0, self.rows, values).view(*self.mask.shape, *values.shape[1:])


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
        self._fixed: tuple[Tensor, Tensor] | None = None

    def fix_bodies(self, rows: Tensor) -> None:
        """Row i of every training batch has ``rows[i]`` bodies (batch,) from now on: nothing about them is read back.

        Serves ``bodies: real``; the caller answers for it (a stratified order does).
        """
        which = torch.arange(len(rows), device=rows.device).repeat_interleave(rows)
        first = torch.cumsum(rows, 0) - rows
        self._fixed = which, torch.arange(len(which), device=rows.device) - first[which]

    def forward(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        """``present``: (N, M) bool of recorded bodies, read only with ``bodies: real`` (found from ``x`` if None)."""
        n, m, keep = x.shape[0], x.shape[4], self._kept(x, present)
        if keep is not None:
            pooled = self._pool(self._map(x, keep))  # only who is there, so that no map of an empty body is held
            return keep.scatter(pooled).sum(1) / keep.mask.sum(1, keepdim=True)
        if m > 1 and not any(module.training for module in self.modules()):
            return self._with_one_empty(x).view(n, m, -1).mean(1)
        return self._pool(self._map(x)).view(n, m, -1).mean(1)

    def _with_one_empty(self, x: Tensor) -> Tensor:
        """(N * M, dim) of clips (N, C, T, V, M), of all empty bodies one run for all.

        Exact in evaluation mode only, where neither dropout nor a batch's statistics tell one empty body from another.
        """
        there = present_bodies(x).flatten()  # (N * M,)
        rows = there.nonzero()[:, 0]
        if len(rows) == len(there):
            return self._pool(self._map(x))
        empty = (~there).nonzero()[:1, 0]
        pooled = self._pool(self._map(x, Kept(there, torch.cat([rows, empty]))))
        place = torch.where(there, torch.cumsum(there, 0) - 1, len(rows))
        return pooled[place]

    def features(self, x: Tensor, present: Tensor | None = None, joints: Tensor | None = None) -> Tensor:
        """The last feature map (N, M, D, T', V'), T' = ceil(T / 4), D = ``config.dim``.

        ``joints``: (V',) indices of the joints that are left, the same for every clip; the others are cut out after
        the input norm, and their rows and columns out of every graph (PSTL's central spatial masking). With
        ``bodies: real`` the map of a body that is left out is zero.
        """
        keep = self._kept(x, present)
        maps = self._map(x, keep, joints)
        return maps.unflatten(0, (x.shape[0], x.shape[4])) if keep is None else keep.scatter(maps)

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
        return keep.scatter(attention_drop(maps.flatten(0, 1).index_select(0, keep.rows), threshold))

    def _kept(self, x: Tensor, present: Tensor | None) -> Kept | None:
        """The bodies of clips (N, C, T, V, M) that are passed on, None for all of them."""
        if self.config.bodies == "all" or x.shape[4] == 1:
            return None
        return self._keep(present_bodies(x) if present is None else present)

    def _counted(self, maps: Tensor, present: Tensor | None) -> Kept | None:
        """The same of maps (N, M, D, T', V')."""
        if self.config.bodies == "all" or maps.shape[1] == 1:
            return None
        return self._keep(maps.flatten(2).any(2) if present is None else present)

    def _keep(self, present: Tensor) -> Kept:
        """``present`` (N, M), but a clip with no body at all keeps its first one, so that every clip has a feature."""
        mask = present.clone()
        mask[:, 0] |= ~present.any(1)
        if not self.training or self._fixed is None:
            return Kept(mask, mask.flatten().nonzero()[:, 0])
        which, rank = self._fixed
        there_first = (~mask).to(torch.uint8).argsort(dim=1, stable=True)  # (N, M): the bodies that are there, in order
        return Kept(mask, which * mask.shape[1] + there_first[which, rank])

    def _map(self, x: Tensor, keep: Kept | None = None, joints: Tensor | None = None) -> Tensor:
        """Clips (N, C, T, V, M) -> (B, D, T', V'), B the N * M bodies or those of them that are kept."""
        n, c, t, v, m = x.shape
        bodies = x.permute(0, 4, 3, 1, 2).reshape(n * m, v * c, t)
        if keep is not None:
            bodies = bodies.index_select(0, keep.rows)
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


def _over_bodies(values: Tensor, keep: Kept | None) -> Tensor:
    """(N, M, F) -> (N, F): the mean over all bodies, or over those kept."""
    if keep is None:
        return values.mean(1)
    return (values * keep.mask[..., None]).sum(1) / keep.mask.sum(1, keepdim=True)


def normal_init(module: nn.Module) -> None:
    """Published initialisation of the CrosSCLR family: N(0, 0.02) weights, zero biases, N(1, 0.02) BN gains."""
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.affine:
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
