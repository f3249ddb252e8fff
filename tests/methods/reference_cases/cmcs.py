"""CMCS against its three-stream code: one iteration of its last CMAL epoch and one of its first CSCL epoch."""

from __future__ import annotations

from functools import partial

import torch
from cmal import by_view, distances
from reference_helpers import Reference, load_state, one_step, passing, sgd
from torch import Tensor

from methods.base import Views
from methods.cmcs import CMCS, CMCSConfig
from methods.data.layouts import NTU25
from methods.data.streams import derive
from methods.losses import collaborative_labels, collaborative_loss, cosine_matrix, nearest
from methods.nn.encoder import EncoderConfig
from methods.nn.stgcn import STGCN
from methods.official.cmcs import cmcs as place

LEFT_OUT: dict[str, str] = {}
STREAMS = ("joint", "motion", "bone")
# Of the published 100 epochs the streams are on their own in the first 60: epochs 60 and 61, counted from 1, begin at
PROGRESS = {"stage1/": 59 / 100, "stage2/": 60 / 100}


def compute(ref: Reference) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for stage, progress in PROGRESS.items():
        method = _method(ref)
        views = _views(ref.tensor("input/view_1"), ref.tensor("input/view_2"))
        method.eval()
        for stream, features in method.embed_streams({name: v["a"] for name, v in views.items()}).items():
            found[f"{stage}out/eval/online_backbone_{stream}"] = features
        loss, optimiser = partial(_step, method, views, progress, found), sgd(ref, list(method.parameters()))
        move = partial(method.after_step, progress)
        found |= one_step(ref, method, place, optimiser, partial(loss, f"{stage}out/"), move, prefix=stage)
        loss(f"{stage}step2/")
    return {key: value for key, value in found.items() if key in ref}


def _method(ref: Reference) -> CMCS:
    shape = EncoderConfig(width=ref.config("c"), dim=ref.config("Dh"), dropout=0.0, partition="spatial_degenerate")
    own = CMCSConfig(
        momentum=ref.config("ema"),
        hidden=ref.config("hid"),
        projection=ref.config("D"),
        topk=ref.config("topk"),
        cross_weight=ref.config("lamb"),
        freeze_target_in_cross=True,
    )
    method = CMCS(own, {stream: STGCN(shape, NTU25) for stream in STREAMS}).double()
    load_state(method, ref.under("state"), place)
    return method


def _views(view_1: Tensor, view_2: Tensor) -> dict[str, Views]:
    joint = Views({"a": view_1, "b": view_2}, (view_1 != 0).flatten(1, 3).any(1))
    return {stream: joint.map(partial(derive, stream=stream, layout=NTU25)) for stream in STREAMS}


def _step(method: CMCS, views: dict[str, Views], progress: float, found: dict[str, Tensor], prefix: str) -> Tensor:
    """The summed loss of one iteration, and everything on the way to it under the official keys."""
    parts = {
        "online_proj": method.projectors,
        "online_pred": method.predictors,
        "target_proj": method.slow_projectors,
        "pooled/online_backbone": method.encoders,
        "pooled/target_backbone": method.slow_encoders,
    }
    watched = {(name, stream): part[stream] for name, part in parts.items() for stream in STREAMS}
    with passing(watched) as seen:
        losses = {stream: out.loss for stream, out in method.losses(views, progress).items()}
    for (name, stream), outputs in seen.items():
        if "pooled" in name:
            found |= by_view(prefix, {f"{name}_{stream}": outputs})
        else:
            found |= {f"{prefix}{name}_{stream[0]}{view + 1}": value for view, value in enumerate(outputs)}
    online = {stream: seen["online_pred", stream] for stream in STREAMS}
    target = {stream: seen["target_proj", stream] for stream in STREAMS}
    across = _across(method.config, online, target)
    together = progress >= method.config.cross_start
    for stream in STREAMS:
        found |= {f"{prefix}{name}_{stream[0]}{view}": value for (name, view), value in across[stream].items()}
        each = distances(f"{prefix}per_sample/loss_{stream}_", online[stream], target[stream])
        low, high1, high2 = each.values()
        terms = across[stream]["ddm_loss", 1] + across[stream]["ddm_loss", 2]
        own = low - method.config.repulsion * (high1 + high2)
        found |= each | {f"{prefix}per_sample/loss_{stream}": own + together * method.config.cross_weight * terms}
    if together:
        found[f"{prefix}label_3views"] = across["joint"]["label_all", 1]
    total = sum(losses.values())
    # The official first stage descends three losses one after the other; `loss` is the joint stream's.
    found[f"{prefix}loss"] = total if together else losses["joint"]
    found |= {f"{prefix}loss_{stream}": losses[stream] for stream in STREAMS}
    return total


def _across(
    own: CMCSConfig, online: dict[str, list[Tensor]], target: dict[str, list[Tensor]]
) -> dict[str, dict[tuple[str, int], Tensor]]:
    """Stream -> (name, view) -> what its CSCL is made of, from the recorded outputs."""
    cosines = {
        s: (cosine_matrix(online[s][0], target[s][1]), cosine_matrix(online[s][1], target[s][0])) for s in STREAMS
    }
    labels = collaborative_labels(list(cosines.values()), own.topk)
    itself = torch.eye(len(labels), dtype=torch.bool)
    across: dict[str, dict[tuple[str, int], Tensor]] = {s: {("label_all", 1): labels} for s in STREAMS}
    for stream, both in cosines.items():
        for view, each in enumerate(both, 1):
            across[stream]["sim", view] = each
            across[stream]["label", view] = (nearest(each, topk=own.topk) | itself).double()
            across[stream]["ddm_loss", view] = collaborative_loss(each, labels, own.temperature)
    return across
