"""What every encoder is, and the settings that a YAML may give it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from methods.errors import InputError
from methods.fields import require, tunable
from methods.nn.graph import PARTITIONS


@dataclass(frozen=True)
class EncoderConfig:
    """Everything a YAML may set under ``encoder``."""

    name: str = tunable("stgcn", choice=("stgcn",), doc="architecture")
    width: int = tunable(16, choice=(8, 16, 32, 64), doc="channels of the first stage; doubled at each of two others")
    dim: int = tunable(256, choice=(64, 128, 256, 512), doc="D, width of the pooled feature that is probed")
    depth: int = tunable(10, int=(4, 10), doc="number of blocks, over three stages (10 = 4 + 3 + 3 as published)")
    dropout: float = tunable(0.5, uniform=(0.0, 0.6), doc="dropout inside every block but the first")
    input_norm: str = tunable(
        "joint", choice=("joint", "scale"), doc="batch norm per joint and axis (published), or one scale for all"
    )
    segments: int = tunable(1, choice=(1, 2, 4), doc="pool over this many equal parts of time; D grows by it")
    partition: str = tunable("spatial", choice=PARTITIONS, doc="graph partition; published: spatial_degenerate")
    init: str = tunable("normal", choice=("normal", "torch"), doc="N(0, 0.02) weights as published, or torch's own")
    bodies: str = tunable("all", choice=("all", "real"), doc="`real` leaves empty bodies out of the pass and the mean")
    precision: str = tunable("fp32", choice=("fp32", "bf16"), doc="bf16 runs the blocks under autocast")

    def __post_init__(self) -> None:
        require(self.name == "stgcn", f"encoder.name must be stgcn, got {self.name!r}")
        require(self.width >= 1, f"encoder.width must be at least 1, got {self.width}")
        require(self.dim >= 1, f"encoder.dim must be at least 1, got {self.dim}")
        require(self.depth >= 3, f"encoder.depth must be at least 3 (three stages), got {self.depth}")
        require(
            self.input_norm in ("joint", "scale"), f"encoder.input_norm must be joint or scale, got {self.input_norm!r}"
        )
        require(self.segments >= 1, f"encoder.segments must be at least 1, got {self.segments}")
        require(0 <= self.dropout < 1, f"encoder.dropout must lie in [0, 1), got {self.dropout}")
        require(self.partition in PARTITIONS, f"encoder.partition must be one of {PARTITIONS}, got {self.partition!r}")
        require(self.init in ("normal", "torch"), f"encoder.init must be normal or torch, got {self.init!r}")
        require(self.bodies in ("all", "real"), f"encoder.bodies must be all or real, got {self.bodies!r}")
        require(self.precision in ("fp32", "bf16"), f"encoder.precision must be fp32 or bf16, got {self.precision!r}")


class Encoder(nn.Module):
    """Clips (N, C, T, V, M) and optionally ``present`` (N, M) -> features (N, D), with ``dim`` = D.

    Each is built as ``Cls(config, layout, channels, frames=T, persons=M)``; an encoder whose weights do not depend on
    T or M takes clips of any.
    """

    dim: int
    temporal_stride: int


def require_shape(clips: Tensor, **built_for: int) -> None:
    """Raise :class:`InputError` unless clips (N, C, T, V, M) have the sizes that the weights were made for.

    ``built_for``: any of channels, frames, joints and persons.
    """
    have = dict(zip(("channels", "frames", "joints", "persons"), clips.shape[1:], strict=True))
    wrong = [f"{have[name]} {name}, not {size}" for name, size in built_for.items() if have[name] != size]
    if wrong:
        raise InputError(f"the clips do not fit the encoder: they have {', '.join(wrong)}")
