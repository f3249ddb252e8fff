"""3s-CrosSCLR against its code: one iteration of its processor in each stage, and the next losses."""

from __future__ import annotations

from functools import partial
from itertools import permutations

from momentum_steps import both_stages, official_encoder, own_settings
from reference_helpers import Reference, load_state, one_step, passing, sgd
from torch import Tensor

from methods.base import Views
from methods.crossclr import CrosSCLR, CrosSCLRConfig
from methods.data.layouts import NTU25
from methods.data.streams import derive
from methods.losses import cross_stream_logits, similarities
from methods.official.crossclr import crossclr as place

LEFT_OUT: dict[str, str] = {}
STREAMS = {"joint": "", "motion": "_motion", "bone": "_bone"}  # ours -> the ending of an official name


def compute(ref: Reference) -> dict[str, Tensor]:
    return both_stages(ref, _stage)


def _stage(ref: Reference, prefix: str, progress: float) -> dict[str, Tensor]:
    own = CrosSCLRConfig(**own_settings(ref), share_head=True, cross_ema="motion_only")
    method = CrosSCLR(own, {name: official_encoder(ref) for name in STREAMS}).double()
    load_state(method, ref.under("state"), place)
    view_q, view_k = ref.tensor("input/view_q"), ref.tensor("input/view_k")
    views = Views({"a": view_q, "b": view_k}, (view_q != 0).flatten(1, 3).any(1))
    streams = {name: views.map(partial(derive, stream=name, layout=NTU25)) for name in STREAMS}
    method.eval()
    found = {f"{prefix}out/eval/encoder_q{end}": method._query(streams[name], name) for name, end in STREAMS.items()}
    for name, end in STREAMS.items():
        for ours, theirs in (("a", "q"), ("b", "k")):
            found[f"{prefix}out/big/im_{theirs}{end}_first2"] = streams[name][ours][:1]
    step = partial(_step, method, streams, progress, found)
    optimiser = sgd(ref, list(method.parameters()))
    found |= one_step(ref, method, place, optimiser, partial(step, f"{prefix}out/"), prefix=prefix)
    step(f"{prefix}step2/")
    found |= {f"{prefix}step2/queue_ptr{end}": method.queue.pointer.reshape(1) for end in STREAMS.values()}
    return found


def _step(method: CrosSCLR, views: dict[str, Views], progress: float, found: dict[str, Tensor], prefix: str) -> Tensor:
    """The loss of one iteration, and everything on the way to it under the official keys."""
    queued = {name: method.queue[name].clone() for name in STREAMS}
    watched = {f"pooled/encoder_q{end}.0": method.encoders[name] for name, end in STREAMS.items()}
    watched |= {f"pooled/encoder_k{end}.0": method.slow_encoders[name] for name, end in STREAMS.items()}
    heads = {"q": method.projectors["joint"], "k": method.slow_projectors["joint"]}  # every stream ends in these
    with passing(watched | heads) as seen:
        losses = {name: out.loss for name, out in method.losses(views, progress).items()}
    found |= {f"{prefix}{name}": seen[name][0] for name in watched}
    cosines = {}
    for i, (name, end) in enumerate(STREAMS.items()):
        query, key = (seen[side][i] / seen[side][i].norm(dim=1, keepdim=True) for side in "qk")
        cosines[name] = similarities(query, key, queued[name])
        found |= {
            f"{prefix}q{end}": query,
            f"{prefix}k{end}": key,
            f"{prefix}logits{end}": cosines[name] / method.config.temperature,
            f"{prefix}loss{end}": losses[name],
        }
    for u, v in permutations(STREAMS, 2):
        logits, positives = cross_stream_logits(cosines[u], cosines[v], method.config.temperature)
        found |= {f"{prefix}big/logits_{u[0]}{v[0]}": logits, f"{prefix}big/pos_mask_{u[0]}{v[0]}": positives}
    total = sum(losses.values())
    found[f"{prefix}loss"] = total
    return total
