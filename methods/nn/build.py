"""Config -> encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from methods.nn.encoder import Encoder, EncoderConfig
from methods.nn.stgcn import STGCN

if TYPE_CHECKING:
    from methods.data.layouts import Layout

_ENCODERS = {"stgcn": STGCN}


def build_encoder(config: EncoderConfig, layout: Layout, channels: int = 3) -> Encoder:
    """The encoder that ``config`` names, for clips of ``layout``; weights drawn from torch's current global seed."""
    return _ENCODERS[config.name](config, layout, channels)
