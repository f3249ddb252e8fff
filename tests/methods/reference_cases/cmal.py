"""CMAL against CMCS's single-stream code: one iteration of its processor, and the next loss."""

from __future__ import annotations

from functools import partial

import torch
from reference_helpers import Reference, load_state, one_step, passing, sgd
from torch import Tensor

from methods.base import Views
from methods.cmcs import CMAL, CMALConfig
from methods.data.layouts import NTU25
from methods.losses import cosine_regression
from methods.nn.encoder import EncoderConfig
from methods.nn.stgcn import STGCN
from methods.official.cmcs import cmal as place

LEFT_OUT: dict[str, str] = {}


def compute(ref: Reference) -> dict[str, Tensor]:
    shape = EncoderConfig(width=ref.config("c"), dim=ref.config("Dh"), dropout=0.0, partition="spatial_degenerate")
    own = CMALConfig(momentum=ref.config("ema"), hidden=ref.config("hid"), projection=ref.config("D"))
    method = CMAL(own, STGCN(shape, NTU25)).double()
    load_state(method, ref.under("state"), place)
    view_1, view_2 = ref.tensor("input/view_1"), ref.tensor("input/view_2")
    views = Views({"a": view_1, "b": view_2}, (view_1 != 0).flatten(1, 3).any(1))
    method.eval()
    found = {
        "out/eval/online_backbone_v1": method.embed(view_1),
        "out/eval/target_backbone_v1": method.slow_encoder(view_1),
        "out/eval/online_pred_v1": method.predictor(method.projector(method.embed(view_1))),
    }
    loss, optimiser = partial(_step, method, views, found), sgd(ref, list(method.parameters()))
    found |= one_step(ref, method, place, optimiser, partial(loss, "out/"), lambda: method.after_step(0.0))
    loss("step2/")
    return {key: value for key, value in found.items() if key in ref}


def _step(method: CMAL, views: Views, found: dict[str, Tensor], prefix: str) -> Tensor:
    """The loss of one iteration, and everything on the way to it under the official keys."""
    watched = {
        "online_proj": method.projector,
        "online_pred": method.predictor,
        "target_proj": method.slow_projector,
        "pooled/online_backbone": method.encoder,
        "pooled/target_backbone": method.slow_encoder,
    }
    with passing(watched) as seen:
        loss = method.loss(views, 0.0).loss
    found |= {f"{prefix}loss": loss} | by_view(prefix, seen)
    found |= distances(f"{prefix}per_sample/loss_", seen["online_pred"], seen["target_proj"])
    return loss


def by_view(prefix: str, seen: dict[str, list[Tensor]]) -> dict[str, Tensor]:
    """Official key -> output: heads count views from 1, backbones from 0."""
    found = {}
    for name, outputs in seen.items():
        for view, value in enumerate(outputs):
            found[f"{prefix}{name}.{view}" if "pooled" in name else f"{prefix}{name}_{view + 1}"] = value
    return found


def distances(prefix: str, online: list[Tensor], target: list[Tensor]) -> dict[str, Tensor]:
    """d(p1, p2), d(p1, t1) and d(p2, t2), clip by clip."""
    pairs = {"min": (online[0], online[1]), "max1": (online[0], target[0]), "max2": (online[1], target[1])}
    return {
        prefix + name: torch.stack([cosine_regression(a, b) for a, b in zip(x.split(1), y.split(1), strict=True)])
        for name, (x, y) in pairs.items()
    }
