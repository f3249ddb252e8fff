"""SCD-Net against its code: one iteration of its training loop, and the next losses."""

from __future__ import annotations

from functools import partial

from reference_helpers import Reference, load_state, one_step, passing, sgd
from torch import Tensor
from torch.nn import functional as F

from methods.base import Views
from methods.data.layouts import NTU25
from methods.losses import info_nce, info_nce_logits
from methods.nn.twopath import TwoPath, TwoPathConfig
from methods.official.scdnet import scdnet as place
from methods.scdnet import LEVELS, TERMS, SCDNet, SCDNetConfig

LEFT_OUT: dict[str, str] = {}


def compute(ref: Reference) -> dict[str, Tensor]:
    method = _method(ref)
    view_q, view_k = ref.tensor("input/view_q"), ref.tensor("input/view_k")
    views = Views({"a": view_q, "b": view_k}, (view_q != 0).flatten(1, 3).any(1))
    time, space = method.eval().embed(view_q).split([method.encoder.time_dim, method.encoder.space_dim], 1)
    found = {"out/eval/vt": time, "out/eval/vs": space}
    step = partial(_step, method, views, found)
    optimiser = sgd(ref, list(method.parameters()))
    found |= one_step(ref, method, place, optimiser, partial(step, "out/"))
    step("step2/")
    found |= {f"step2/{level[0]}_queue_ptr": method.queue.pointer.reshape(1) for level in LEVELS}
    return {key: value for key, value in found.items() if key in ref}


def _method(ref: Reference) -> SCDNet:
    own = SCDNetConfig(
        temperature=ref.config("temperature"),
        momentum=ref.config("momentum"),
        queue=ref.config("K"),
        hidden=len(ref["state/encoder_q.i_proj.0.weight"]),
        projection=ref.config("D"),
    )
    layers = ref.keys("state/encoder_q.encoder.t_encoder.layers.*.norm1.weight")
    shape = TwoPathConfig(
        base=ref.config("base"),
        d_model=ref.config("d_model"),
        heads=ref.config("heads"),
        layers=len(layers),
        dropout=ref.config("dropout"),
    )
    _, channels, frames, _, persons = ref["input/view_q"].shape
    method = SCDNet(own, TwoPath(shape, NTU25, channels, frames=frames, persons=persons)).double()
    load_state(method, ref.under("state"), place)
    return method


def _step(method: SCDNet, views: Views, found: dict[str, Tensor], prefix: str) -> Tensor:
    """The loss of one iteration, and everything on the way to it under the official keys."""
    queued = {level: method.queue[level].clone() for level in LEVELS}
    net = method.encoder
    watched = {
        "features": net,
        "gcn_t": net.time.graph,
        "gcn_s": net.space.graph,
        "gcn_t_l1_gcn1": net.time.graph.units[0].spatial,
        "gcn_t_l1": net.time.graph.units[0],
        "channel_t": net.time.tokens,
        "channel_s": net.space.tokens,
        "t_encoder": net.time.attention,
    }
    watched |= {f"q{level[0]}": method.projectors[level] for level in LEVELS}
    watched |= {f"k{level[0]}": method.slow_projectors[level] for level in LEVELS}
    with passing(watched) as seen:
        loss = method.loss(views, 0.0).loss
    first = {name: outputs[0] for name, outputs in seen.items()}
    persons = views.present.shape[1]
    found |= {f"{prefix}{name}_sample0_every8": first[name][0][:, :, ::8] for name in ("gcn_t", "gcn_s")}
    for name in ("gcn_t_l1_gcn1", "gcn_t_l1"):
        found[f"{prefix}{name}_sample0_every8"] = first[name][:persons, :, ::8]
    found |= {f"{prefix}{name}_sample0": first[name][:1] for name in ("channel_t", "channel_s", "t_encoder")}
    time, space = first["features"].split([net.time_dim, net.space_dim], 1)
    found |= {f"{prefix}vt": time, f"{prefix}vs": space, f"{prefix}loss": loss}
    vectors = {}
    for level in LEVELS:
        found[f"{prefix}z{level[0]}"] = first[f"q{level[0]}"]
        for side in "qk":
            vectors[side, level] = found[f"{prefix}{side}{level[0]}"] = F.normalize(first[f"{side}{level[0]}"])
    for anchor, target in TERMS.values():
        pair = vectors["q", anchor], vectors["k", target], queued[target], method.config.temperature
        found[f"{prefix}logits_{anchor[0]}{target[0]}"] = info_nce_logits(*pair)
        found[f"{prefix}loss_{anchor[0]}{target[0]}"] = info_nce(*pair)
    return loss
