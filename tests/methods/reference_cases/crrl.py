"""CRRL against its code: one iteration of each of its three runs, and the next losses."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from reference_helpers import Reference, one_step, passing, sgd
from tiny import tree
from torch import Tensor
from torch.nn import functional as F

from methods.base import Views
from methods.crrl import CRRL, CRRLConfig
from methods.losses import info_nce_logits
from methods.nn.gru import GruConfig, GruEncoder
from methods.official.crrl import crrl
from methods.official.places import Place

LEFT_OUT: dict[str, str] = {}
ALL = 0.5  # a fuse_start at which all networks are in use; either side of it lie the contrastive run and the fuser's


def compute(ref: Reference) -> dict[str, Tensor]:
    views = Views(
        {"a": _clips(ref, "X"), "b": _clips(ref, "S")},
        torch.ones(len(ref["input/X"]), 1, dtype=torch.bool),
        {"key_lengths": ref.tensor("input/num_frame")},
    )
    method = _method(ref, ALL).eval()
    states = method.encoder.states(views["a"], ref.tensor("input/num_frame"))
    found = {
        "cml/out/eval/tap": method.embed(views["a"]),
        "cml/out/eval/head": method.projector(method.embed(views["a"])),
        "cml/out/eval/per_frame_sample0_2": states[[0, 2]],
    }
    for prefix, fuse_start, progress, step in (
        ("cml/", ALL, 0.0, _contrast),
        ("ser/", 0.0, 0.0, _play),
        ("inf/", ALL, ALL, _play),
    ):
        found |= _run(ref, prefix, _method(ref, fuse_start), partial(step, views=views, progress=progress))
    return {key: _as_kept(value, ref, key) for key, value in found.items() if key in ref}


def _as_kept(value: Tensor, ref: Reference, key: str) -> Tensor:
    """Theirs end with the longest clip of a batch, and of the fuser's run only the first clips' frames were kept."""
    if value.dim() < 3:
        return value
    clips, frames, _ = ref[key].shape
    return value[:clips, :frames]


def _clips(ref: Reference, name: str) -> Tensor:
    """(N, T, F) -> clips of one body of F / 3 joints; which of an official frame's numbers is what makes no odds."""
    return ref.tensor(f"input/{name}").unflatten(2, (-1, 3)).permute(0, 3, 1, 2)[..., None]


def _method(ref: Reference, fuse_start: float) -> CRRL:
    shape = GruConfig(
        hidden=ref.config("hidden"),
        layers=ref.config("layers"),
        dropout=ref.config("dropout"),
        input_norm="none",
        pool="mean",
        lengths="valid",
    )
    own = CRRLConfig(
        fuse_start=fuse_start,
        temperature=ref.config("temperature"),
        momentum=ref.config("momentum"),
        queue=ref.config("K"),
        hidden=2 * ref.config("hidden"),
        projection=2 * ref.config("hidden"),
        distill_weight=ref.config("lambda_ts"),
        key_head_frozen=True,
        teacher_dropout=True,
    )
    joints = ref.config("F") // 3
    method = CRRL(own, GruEncoder(shape, tree([i - 1 for i in range(joints)]), persons=1)).double()
    state = {"fused": method.fused}  # not a thing of theirs: a run is one of the three from its start
    for name, value in ref.under("state").items():
        where = _place(name)
        assert where is not None, name
        state[where.name] = where.ours(value)
    method.load_state_dict(state)
    return method


def _place(name: str) -> Place | None:
    """``<network>/<name>`` as these files have it."""
    return crrl(name.replace("/", ".", 1))


def _run(ref: Reference, prefix: str, method: CRRL, step: Callable[..., Tensor]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    optimiser = sgd(ref, list(method.parameters()))
    first = partial(step, method=method, found=found, prefix=f"{prefix}out/")
    found |= one_step(ref, method, _place, optimiser, first, prefix=prefix)
    parameters, state = dict(method.named_parameters()), method.state_dict()
    for key in ref.keys(f"{prefix}gradnorm/*/names"):  # norms stand here by network
        grads = (parameters[ours].grad for ours in _ours(ref, key))
        found[key.replace("/names", "/values")] = torch.stack([grad.norm() for grad in grads])
    for key in ref.keys(f"{prefix}afternorm/*/names"):
        found[key.replace("/names", "/values")] = torch.stack([state[ours].norm() for ours in _ours(ref, key)])
    step(method=method, found=found, prefix=f"{prefix}step2/")
    return found


def _ours(ref: Reference, key: str) -> list[str]:
    """Our names of what ``.../<network>/names`` lists; the fuser's teacher is the contrastive query encoder."""
    network = key.split("/")[-2]
    official = [
        f"moco/encoder_fc_q.{name}" if network == "teacher_unused" else f"{network}/{name}" for name in ref[key]
    ]
    return [where.name for name in official if (where := _place(name))]


def _contrast(*, method: CRRL, views: Views, progress: float, found: dict[str, Tensor], prefix: str) -> Tensor:
    queue = method.queue.keys.clone()
    with passing({"query": method.projector, "key": method.slow_projector}) as seen:
        out = method.loss(views, progress)
    query, key = F.normalize(seen["query"][0]), F.normalize(seen["key"][0])
    found |= {
        f"{prefix}output": info_nce_logits(query, key, queue, method.config.temperature),
        f"{prefix}contrast_loss": out.loss,
    }
    return out.loss


def _play(*, method: CRRL, views: Views, progress: float, found: dict[str, Tensor], prefix: str) -> Tensor:
    """An iteration of the reconstructor or the fuser, and everything on the way under the official keys."""
    clips, lengths = views["a"], views.extra["key_lengths"]
    with torch.no_grad():
        states, taught = (net.states(clips, lengths) for net in (method.student, method.encoder))
    with passing({"decoder": method.decoder, "head": method.student_head}) as seen:
        out = method.loss(views, progress)
    frames = torch.arange(states.shape[1])
    played = seen["decoder"][0][0] * (frames < lengths.repeat(2)[:, None])[..., None]
    forward, reverse = played.chunk(2)
    found |= {
        f"{prefix}feature_pad": states,
        f"{prefix}fisrtStep_hiddenStates": states[:, 0],
        f"{prefix}lastStep_hiddenStates": states[torch.arange(len(states)), lengths - 1],
        f"{prefix}reconstruction_pad1": forward,
        f"{prefix}reconstruction_pad": reverse,
        f"{prefix}reconstructLoss1": out.logs["forward"],
        f"{prefix}reconstructLoss": out.logs["reverse"],
        f"{prefix}all_loss": out.loss,
    }
    if seen["head"]:
        found |= {
            f"{prefix}feature_pad_teacher": taught,
            f"{prefix}encoding_student": seen["head"][0],
            f"{prefix}encoding_teacher": method._taught(clips, lengths),
            f"{prefix}teacher_student_loss": out.logs["distillation"],
        }
    return out.loss
