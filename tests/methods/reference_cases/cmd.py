"""CMD against its code: one iteration of its training loop, and the next losses."""

from __future__ import annotations

import re
from functools import partial

from reference_helpers import Reference, load_state, one_step, passing, sgd
from torch import Tensor
from torch.nn import functional as F

from methods.base import Views
from methods.cmd import CMD, CMDConfig
from methods.data.layouts import NTU25
from methods.data.streams import derive
from methods.losses import info_nce, similarities
from methods.nn.gru import GruConfig, GruEncoder
from methods.official.cmd import cmd as place

LEFT_OUT: dict[str, str] = {}
STREAMS = {"joint": "", "motion": "_motion", "bone": "_bone"}  # ours -> the ending of an official name


def compute(ref: Reference) -> dict[str, Tensor]:
    method = _method(ref, stepwise=True)
    view_q, view_k = ref.tensor("input/view_q"), ref.tensor("input/view_k")
    views = Views({"a": view_q, "b": view_k}, (view_q != 0).flatten(1, 3).any(1))
    streams = {name: views.map(partial(derive, stream=name, layout=NTU25)) for name in STREAMS}
    features = method.eval().embed_streams({name: own["a"] for name, own in streams.items()})
    found = {f"out/eval/feature{end}": features[name] for name, end in STREAMS.items()}
    both_ways = _method(ref, stepwise=False).eval().embed_streams({"joint": view_q})
    found["out/eval/native_bidirectional_last_frame"] = both_ways["joint"]
    step = partial(_step, method, streams, found)
    optimiser = sgd(ref, list(method.parameters()))
    found |= one_step(ref, method, place, optimiser, partial(step, "out/"))
    step("step2/")
    found |= {f"step2/queue_ptr{end}": method.queue.pointer.reshape(1) for end in STREAMS.values()}
    return {key: value for key, value in found.items() if key in ref}


def _method(ref: Reference, stepwise: bool) -> CMD:
    own = CMDConfig(
        temperature=ref.config("temperature"),
        momentum=ref.config("momentum"),
        queue=ref.config("K"),
        hidden=len(ref["state/encoder_q.fc.0.weight"]),
        projection=ref.config("D"),
        teacher_temperature=ref.config("teacher_T"),
        student_temperature=ref.config("student_T"),
        topk=ref.config("topk") / ref.config("K"),
        cmd_weight=ref.config("cmd_weight"),
    )
    assert own.neighbours == ref.config("topk")
    layers = {found[1] for key in ref.keys("state/*") if (found := re.search(r"weight_ih_l(\d+)$", key))}
    shape = GruConfig(hidden=ref.config("hidden"), layers=len(layers), stepwise=stepwise, pool="last")
    persons = ref["input/view_q"].shape[4]
    method = CMD(own, {name: GruEncoder(shape, NTU25, persons=persons) for name in STREAMS}).double()
    load_state(method, ref.under("state"), place)
    return method


def _step(method: CMD, views: dict[str, Views], found: dict[str, Tensor], prefix: str) -> Tensor:
    """The loss of one iteration, and everything on the way to it under the official keys."""
    c, queued = method.config, {name: method.queue[name].clone() for name in STREAMS}
    parts = {
        "feature_q": method.encoders,
        "feature_k": method.slow_encoders,
        "q": method.projectors,
        "k": method.slow_projectors,
    }
    with passing({f"{name}{end}": part[s] for name, part in parts.items() for s, end in STREAMS.items()}) as seen:
        out = method.losses(views, 0.0)
    taught = []
    for name, end in STREAMS.items():
        found |= {f"{prefix}{part}{end}": seen[f"{part}{end}"][0] for part in ("feature_q", "feature_k")}
        query, key = (F.normalize(seen[f"{side}{end}"][0]) for side in "qk")
        contrast = info_nce(query, key, queued[name], c.temperature)
        taught.append((out[name].loss - contrast) / c.cmd_weight)
        found |= {
            f"{prefix}q{end}": query,
            f"{prefix}k{end}": key,
            f"{prefix}logits{end}": similarities(query, key, queued[name]) / c.temperature,
            f"{prefix}lk_neg{end}": key @ queued[name].T,
            f"{prefix}loss{end or '_joint'}": contrast,
        }
    total = sum(each.loss for each in out.values())
    found |= {f"{prefix}loss": total, f"{prefix}loss_sim": sum(taught)}
    return total
