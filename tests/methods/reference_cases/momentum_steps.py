"""What the two-stage cases of CrosSCLR's family share: a small official encoder, and both stages of a file."""

from __future__ import annotations

from collections.abc import Callable

from reference_helpers import Reference
from torch import Tensor

from methods.data.layouts import NTU25
from methods.nn.encoder import EncoderConfig
from methods.nn.stgcn import STGCN

STAGES = {"stage1/": 0.0, "stage2/": 0.5}  # prefix -> progress: epochs 1 and 151 of 300


def official_encoder(ref: Reference) -> STGCN:
    config = EncoderConfig(
        width=ref.config("c"), dim=ref.config("Dh"), dropout=ref.config("dropout"), partition="spatial_degenerate"
    )
    return STGCN(config, NTU25)


def own_settings(ref: Reference) -> dict[str, float | int]:
    """The fields that CrosSCLR's and AimCLR's configs have in common."""
    return {
        "temperature": ref.config("temperature"),
        "momentum": ref.config("momentum"),
        "queue": ref.config("K"),
        "hidden": ref.config("Dh"),
        "projection": ref.config("D"),
    }


def both_stages(ref: Reference, stage: Callable[[Reference, str, float], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Every key that ``stage(ref, prefix, progress)`` finds and the file has."""
    found: dict[str, Tensor] = {}
    for prefix, progress in STAGES.items():
        found |= stage(ref, prefix, progress)
    return {key: value for key, value in found.items() if key in ref}
