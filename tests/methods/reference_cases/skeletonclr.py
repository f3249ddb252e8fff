"""SkeletonCLR against CrosSCLR's code: one iteration of its processor, and the next loss."""

from __future__ import annotations

from functools import partial

from reference_helpers import Reference, load_state, one_step, passing, sgd
from torch import Tensor
from torch.nn import functional as F

from methods.base import Views
from methods.data.layouts import NTU25
from methods.losses import info_nce_logits
from methods.nn.encoder import EncoderConfig
from methods.nn.stgcn import STGCN
from methods.official.crossclr import skeletonclr as place
from methods.skeletonclr import SkeletonCLR, SkeletonCLRConfig

LEFT_OUT: dict[str, str] = {}


def compute(ref: Reference) -> dict[str, Tensor]:
    width, dim = ref.config("c"), ref.config("Dh")
    encoder = STGCN(EncoderConfig(width=width, dim=dim, dropout=0.0, partition="spatial_degenerate"), NTU25)
    own = SkeletonCLRConfig(
        temperature=ref.config("temperature"),
        momentum=ref.config("momentum"),
        queue=ref.config("K"),
        hidden=dim,
        projection=ref.config("D"),
    )
    method = SkeletonCLR(own, encoder).double()
    load_state(method, ref.under("state"), place)
    view_q, view_k = ref.tensor("input/view_q"), ref.tensor("input/view_k")
    views = Views({"a": view_q, "b": view_k}, (view_q != 0).flatten(1, 3).any(1))
    method.eval()
    found = {
        "out/eval/pooled_q": method.embed(view_q),
        "out/eval/encoder_q_view_q": method.projector(method.embed(view_q)),
        "out/eval/encoder_k_view_k": method.slow_projector(method.slow_encoder(view_k)),
    }
    loss, optimiser = partial(_step, method, views, found), sgd(ref, list(method.parameters()))
    found |= one_step(ref, method, place, optimiser, partial(loss, "out/"))
    loss("step2/")
    found["step2/queue_ptr"] = method.queue.pointer.reshape(1)
    return {key: value for key, value in found.items() if key in ref}


def _step(method: SkeletonCLR, views: Views, found: dict[str, Tensor], prefix: str) -> Tensor:
    """The loss of one iteration, and everything on the way to it under the official keys."""
    queue = method.queue.keys.clone()
    watched = {
        "query": method.projector,
        "key": method.slow_projector,
        "pooled/encoder_q.0": method.encoder,
        "pooled/encoder_k.0": method.slow_encoder,
    }
    with passing(watched) as seen:
        loss = method.loss(views, 0.0).loss
    query, key = F.normalize(seen["query"][0]), F.normalize(seen["key"][0])
    logits = info_nce_logits(query, key, queue, method.config.temperature)
    found |= {f"{prefix}loss": loss, f"{prefix}q": query, f"{prefix}k": key, f"{prefix}logits": logits}
    found |= {f"{prefix}{name}": seen[name][0] for name in watched if "/" in name}
    return loss
