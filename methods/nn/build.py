"""Config -> encoder: the type of the config says which architecture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from methods.errors import InputError
from methods.nn.encoder import Encoder, EncoderConfig
from methods.nn.gru import GruConfig, GruEncoder
from methods.nn.stgcn import STGCN
from methods.nn.twopath import TwoPath, TwoPathConfig

if TYPE_CHECKING:
    from methods.data.layouts import Layout

# An architecture is one file, its config a frozen dataclass, and one line here.
_ENCODERS: Mapping[type[Any], Callable[..., Encoder]] = {
    EncoderConfig: STGCN,
    GruConfig: GruEncoder,
    TwoPathConfig: TwoPath,
}


def build_encoder(config: Any, layout: Layout, channels: int = 3, *, frames: int = 50, persons: int = 2) -> Encoder:
    """The encoder that ``config`` describes, for clips (N, C, T, V, M) of ``layout``.

    ``channels``, ``frames``, ``persons``: C, T and M, which some architectures have in their weights. Weights are drawn
    from torch's current global seed. Raises ``InputError`` for a config that is none of ours.
    """
    make = _ENCODERS.get(type(config))
    if make is None:
        known = ", ".join(kind.__name__ for kind in _ENCODERS)
        raise InputError(f"no encoder takes a {type(config).__name__}; known: {known}")
    return make(config, layout, channels, frames=frames, persons=persons)
