"""SCD-Net's two paths: frames as tokens and joints as tokens, each from a graph network of its own, then attention.

Source      Wu et al. (SCD-Net), arXiv:2309.05834, and its public code.
Departures  Any layout, number of bodies, channels and frames (the public code: 25, 2, 3 and 64); the two transformers
            start from draws of their own; ``segments`` pools the frames over equal parts of time instead of all.
Shapes      N clips, C channels, T frames, V joints, M persons, d model width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from methods.fields import require, tunable
from methods.nn.ctrgcn import BRANCHES, CTRGCN, published_init
from methods.nn.encoder import Encoder, require_shape
from methods.nn.graph import PARTITIONS

if TYPE_CHECKING:
    from methods.data.layouts import Layout


@dataclass(frozen=True)
class TwoPathConfig:
    """Everything a YAML may set under ``encoder`` for SCD-Net."""

    name: str = tunable("twopath", choice=("twopath",), doc="architecture")
    base: int = tunable(64, choice=(32, 64, 96), doc="channels of the graph networks; four times as many in the middle")
    d_model: int = tunable(2048, choice=(256, 512, 1024, 2048), doc="d, width of a token; D is twice it")
    heads: int = tunable(8, choice=(4, 8, 16), doc="attention heads, a divisor of d_model")
    layers: int = tunable(1, int=(1, 3), doc="transformer layers of each path")
    dropout: float = tunable(0.1, uniform=(0.0, 0.5), doc="dropout inside the transformers")
    segments: int = tunable(1, choice=(1, 2, 4), doc="pool frames over this many equal parts of time; D grows by it")
    partition: str = tunable("inward_outward", choice=PARTITIONS, doc="graph partition that the learnt graphs start as")
    init: str = tunable("xavier", choice=("xavier", "torch"), doc="Xavier matrices and He convolutions, or torch's own")
    precision: str = tunable("fp32", choice=("fp32", "bf16"), doc="bf16 runs the whole encoder under autocast")

    def __post_init__(self) -> None:
        require(self.name == "twopath", f"encoder.name must be twopath, got {self.name!r}")
        require(
            self.base >= BRANCHES and self.base % BRANCHES == 0,
            f"encoder.base must be a multiple of {BRANCHES}, got {self.base}",
        )
        require(self.d_model >= 1, f"encoder.d_model must be at least 1, got {self.d_model}")
        require(self.heads >= 1, f"encoder.heads must be at least 1, got {self.heads}")
        require(
            self.d_model % self.heads == 0,
            f"encoder.heads must divide encoder.d_model, got {self.heads} for {self.d_model}",
        )
        require(self.layers >= 1, f"encoder.layers must be at least 1, got {self.layers}")
        require(0 <= self.dropout < 1, f"encoder.dropout must lie in [0, 1), got {self.dropout}")
        require(self.segments >= 1, f"encoder.segments must be at least 1, got {self.segments}")
        require(self.partition in PARTITIONS, f"encoder.partition must be one of {PARTITIONS}, got {self.partition!r}")
        require(self.init in ("xavier", "torch"), f"encoder.init must be xavier or torch, got {self.init!r}")
        require(self.precision in ("fp32", "bf16"), f"encoder.precision must be fp32 or bf16, got {self.precision!r}")


def frame_tokens(maps: Tensor) -> Tensor:
    """Maps (N, M, C, T, V) -> one row a frame, (N, T, M*V*C)."""
    return maps.permute(0, 3, 1, 4, 2).flatten(2)


def joint_tokens(maps: Tensor) -> Tensor:
    """Maps (N, M, C, T, V) -> one row a joint of a body, (N, M*V, T*C)."""
    return maps.permute(0, 1, 4, 3, 2).flatten(3).flatten(1, 2)


class Path(nn.Module):
    """A graph network, ``read`` to rows of ``width`` numbers, an MLP to tokens, transformer layers: (N, L, d)."""

    def __init__(self, config: TwoPathConfig, graph: CTRGCN, read: Callable[[Tensor], Tensor], width: int) -> None:
        super().__init__()
        d = config.d_model
        self.graph = graph
        self.read = read
        self.tokens = nn.Sequential(nn.Linear(width, d), nn.LayerNorm(d), nn.ReLU(), nn.Linear(d, d))
        self.attention = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(d, config.heads, d, config.dropout, batch_first=True)
                for _ in range(config.layers)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Clips (N, C, T, V, M) -> tokens (N, L, d) that have seen each other; no positions, as published."""
        attended: Tensor = self.attention(self.tokens(self.read(self.graph(x))))
        return attended


class TwoPath(Encoder):
    """Encoder: clips (N, C, T, V, M) -> features (N, D): the time path's maximum over frames, then the other's.

    Bodies are never averaged: they lie side by side in a frame's token and have joint tokens of their own, an absent
    body too; ``present`` is not read. ``time_dim`` = d * segments and ``space_dim`` = d are the widths of the two
    parts. T, V and M are in the weights.
    """

    temporal_stride = 1

    def __init__(
        self, config: TwoPathConfig, layout: Layout, channels: int = 3, *, frames: int = 64, persons: int = 2
    ) -> None:
        super().__init__()
        self.config = config
        joints = layout.num_joints
        self.sizes = {"channels": channels, "frames": frames, "joints": joints, "persons": persons}

        def graph() -> CTRGCN:
            return CTRGCN(layout, channels, persons, config.base, config.partition)

        self.time = Path(config, graph(), frame_tokens, persons * joints * config.base)
        self.space = Path(config, graph(), joint_tokens, frames * config.base)
        self.time_dim = config.d_model * config.segments
        self.space_dim = config.d_model
        self.dim = self.time_dim + self.space_dim
        if config.init == "xavier":
            self.apply(published_init)
            for weight in self.parameters():
                if weight.dim() == 2:
                    nn.init.xavier_uniform_(weight)

    def forward(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        return torch.cat(self.paths(x), 1)

    def paths(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Clips (N, C, T, V, M) -> what the time path and the space path say, (N, time_dim) and (N, space_dim).

        Raises :class:`~methods.errors.InputError` for clips of another size than the encoder was built for.
        """
        require_shape(x, **self.sizes)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            frames, joints = self.time(x).to(x.dtype), self.space(x).to(x.dtype)
        t, parts = frames.shape[1], self.config.segments
        spans = [(i * t // parts, -(-(i + 1) * t // parts)) for i in range(parts)]  # no part is empty
        return torch.cat([frames[:, start:end].amax(1) for start, end in spans], 1), joints.amax(1)
