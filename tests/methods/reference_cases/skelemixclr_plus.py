"""SkeleMixCLR+ against its code (its second version): several mixtures a batch, their losses added up."""

from __future__ import annotations

from mixture_steps import iterations
from reference_helpers import Reference
from torch import Tensor

from methods.skelemixclr import SkeleMixCLRPlusConfig

LEFT_OUT: dict[str, str] = {}


def compute(ref: Reference) -> dict[str, Tensor]:
    (lengths,) = ref["config/swap_params"].tolist()  # one row a length of the query; ours has one
    *_, repeats, weight = lengths
    assert weight == 1, "this weighs the whole loss, which the learning rate does with us"
    return iterations(ref, SkeleMixCLRPlusConfig, int(repeats), ref.config("alpha"))
