"""PSTL against its code: one iteration from the recorded draws, the next, and both from stored views; SkeletonBT."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from reference_helpers import Reference, load_state, one_step, passing
from torch import Tensor

from methods.augment import ops
from methods.augment.mask import motion_attention, slowest_frames
from methods.base import Views
from methods.data.layouts import NTU25
from methods.losses import barlow_terms
from methods.nn.encoder import EncoderConfig
from methods.nn.stgcn import STGCN
from methods.official.pstl import pstl as place
from methods.pstl import PSTL, PSTLConfig, SkeletonBT, SkeletonBTConfig

LEFT_OUT: dict[str, str] = {}


def compute(ref: Reference) -> dict[str, Tensor]:
    """Without a prefix from views made anew in float64; ``fed/`` and ``skeletonbt/`` from the stored float32 ones."""
    method = _method(ref, PSTL, PSTLConfig)
    data, ignored = ref.tensor("input/data"), _left(ref.tensor("input/eval_ignore"))
    method.eval()
    found = {
        "out/eval/feature": method.embed(data),
        "out/eval/feature_ignore": method.encoder.pool(method.encoder.features(data, joints=ignored)),
    }
    loss = partial(_step, ref, method, found)
    found |= one_step(ref, method, place, _adam(ref, method), lambda: loss("out/", _made(ref, 1, found)))
    loss("step2/", _made(ref, 2, found))

    fed = _method(ref, PSTL, PSTLConfig)
    found |= _from_stored(ref, fed, "fed/", lambda: _step(ref, fed, found, "fed/out/", _stored(ref)))
    alone, views = _method(ref, SkeletonBT, SkeletonBTConfig), _stored(ref)
    pair = Views({"a": views["anchor"], "b": views["spatial"]}, views.present)

    def one_term() -> Tensor:
        with passing({"features": alone.encoder}) as seen:
            found["skeletonbt/out/loss"] = alone.loss(pair, 0.0).loss
        found["skeletonbt/out/feat1"] = seen["features"][0]
        return found["skeletonbt/out/loss"]

    found |= _from_stored(ref, alone, "skeletonbt/", one_term)
    return {key: value for key, value in found.items() if key in ref}


def _method(ref: Reference, cls: type[SkeletonBT], kind: type[SkeletonBTConfig]) -> SkeletonBT:
    shape = EncoderConfig(
        width=ref.config("c"), dim=ref.config("Dh"), dropout=ref.config("dropout"), partition="spatial_degenerate"
    )
    own = kind(projection=ref.config("pj"), off_diagonal=ref.config("lambda_bt"))
    method = cls(own, STGCN(shape, NTU25)).double()
    official = {name.replace("/", ".", 1): value for name, value in ref.under("state").items()}
    load_state(method, official, place)
    return method


def _adam(ref: Reference, method: SkeletonBT) -> torch.optim.Optimizer:
    return torch.optim.Adam(
        method.parameters(),
        lr=ref.config("lr_used"),
        betas=tuple(ref["config/adam_betas"].tolist()),
        eps=ref.config("adam_eps"),
        weight_decay=ref.config("weight_decay"),
    )


def _from_stored(ref: Reference, method: SkeletonBT, prefix: str, loss: Callable[[], Tensor]) -> dict[str, Tensor]:
    return one_step(ref, method, place, _adam(ref, method), loss, prefix=prefix)


def _left(ignored: Tensor) -> Tensor:
    """(V',) the joints that are not among the drawn ones."""
    return torch.tensor(sorted(set(range(NTU25.num_joints)) - set(ignored.tolist())))


def _stored(ref: Reference, step: int = 1) -> Views:
    """The views as they lie in the file; of the second the frames are already masked."""
    at = f"input/step{step}"
    anchor, temporal, spatial = (ref.tensor(f"{at}/input{i}") for i in (1, 2, 3))
    clips = {"anchor": anchor, "temporal": temporal, "spatial": spatial}
    present = torch.ones(anchor.shape[0], anchor.shape[4], dtype=torch.bool)
    return Views(clips, present, {"joints": _left(ref.tensor(f"{at}/ignore_joint"))})


def _made(ref: Reference, step: int, found: dict[str, Tensor]) -> Views:
    """The views from the clips and the draws: crop, shear, rotation, flip, each one for all clips, then the frames."""
    at, x = f"input/step{step}", ref.tensor("input/data")
    n, t = x.shape[0], x.shape[2]
    clips = []
    for i in range(3):
        start, chosen = (ref.tensor(f"{at}/{name}")[i].expand(n) for name in ("crop_start", "flip_applied"))
        view = ops.temporal_crop(x, start, t // 6)
        # This code multiplies from the right: x' = S^T x.
        view = ops.linear_map(view, ref.tensor(f"{at}/shear_matrix")[i].T.expand(n, -1, -1))
        view = ops.linear_map(view, ops.rotation_matrix(ref.tensor(f"{at}/angles_xyz")[i].expand(n, -1)))
        clips.append(ops.mirror(view, chosen, torch.tensor(NTU25.mirror), reflect=False))
    kept, attention = ref.tensor(f"{at}/matm_kept"), motion_attention(clips[1])
    found.setdefault("out/matm_attention", attention)
    # A padded crop has frames of exactly equal motion: which of them stay is the sort's, how slow they are is not.
    ours = attention.gather(1, slowest_frames(attention, t - ref.config("mask_frame")))
    torch.testing.assert_close(ours.sort(1).values, attention.gather(1, kept).sort(1).values, rtol=1e-9, atol=1e-15)
    temporal = ops.take_frames(clips[1], kept[:, ref.tensor(f"{at}/matm_random")])
    stored = _stored(ref, step)
    made = Views({"anchor": clips[0], "temporal": temporal, "spatial": clips[2]}, stored.present, stored.extra)
    for name, view in made.clips.items():
        torch.testing.assert_close(view, stored[name], rtol=1e-5, atol=1e-6)
    return made


def _step(ref: Reference, method: SkeletonBT, found: dict[str, Tensor], prefix: str, views: Views) -> Tensor:
    """The loss of one iteration, and everything on the way to it under the official keys."""
    features: list[Tensor] = []
    into = method.projector.register_forward_pre_hook(lambda _m, inputs: features.append(inputs[0].detach()))
    with passing({"normed": method.norm}) as seen:
        out = method.loss(views, 0.0)
    into.remove()
    anchor, temporal, _, spatial = features
    found |= {
        f"{prefix}feat1": anchor,
        f"{prefix}feat2": temporal,
        f"{prefix}feat3": spatial,
        f"{prefix}loss_bt1": out.logs["temporal"],
        f"{prefix}loss_bt2": out.logs["spatial"],
        f"{prefix}loss": out.loss,
    }
    for term in (1, 2):
        pair = seen["normed"][2 * term - 2 : 2 * term]
        found |= {f"{prefix}bt{term}/feat{i}_norm": each for i, each in enumerate(pair, 1)}
        on, off = barlow_terms(*pair)
        found |= {f"{prefix}bt{term}/on_diag": on, f"{prefix}bt{term}/off_diag": off}
    return out.loss
