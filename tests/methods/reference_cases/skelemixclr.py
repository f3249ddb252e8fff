"""SkeleMixCLR against its code: one mixture a batch."""

from __future__ import annotations

from mixture_steps import iterations
from reference_helpers import Reference
from torch import Tensor

from methods.skelemixclr import SkeleMixCLRConfig

LEFT_OUT = {"after/queue_label": "a label a key, which nothing reads; ours sees no labels"}


def compute(ref: Reference) -> dict[str, Tensor]:
    return iterations(ref, SkeleMixCLRConfig, 1, ref.config("alpha"))
