"""AimCLR against its code: one iteration of its processor in each stage, and the next losses."""

from __future__ import annotations

from functools import partial

import torch
from momentum_steps import both_stages, official_encoder, own_settings
from reference_helpers import Reference, load_state, one_step, passing, sgd
from torch import Tensor
from torch.nn import functional as F

from methods.aimclr import AimCLR, AimCLRConfig
from methods.base import Views
from methods.losses import distribution_match, multi_positive_nce, similarities
from methods.nn.attention_drop import attention_drop, kept_cells
from methods.official.aimclr import aimclr as place

LEFT_OUT: dict[str, str] = {}


def compute(ref: Reference) -> dict[str, Tensor]:
    return both_stages(ref, _stage)


def _stage(ref: Reference, prefix: str, progress: float) -> dict[str, Tensor]:
    method = AimCLR(AimCLRConfig(**own_settings(ref)), official_encoder(ref)).double()
    load_state(method, ref.under("state"), place)
    clips = {ours: ref.tensor(f"input/view_{theirs}") for ours, theirs in zip("ab", "qk", strict=True)}
    clips["extreme"] = ref.tensor("input/view_extreme")
    views = Views(clips, (clips["a"] != 0).flatten(1, 3).any(1))
    method.eval()
    found = {
        f"{prefix}out/eval/pooled_q": method.embed(views["a"]),
        f"{prefix}out/eval/encoder_q_view_q": method.projector(method.embed(views["a"])),
        f"{prefix}out/eval/encoder_k_view_k": method.slow_projector(method.slow_encoder(views["b"])),
    }
    step = partial(_step, method, views, progress, found)
    optimiser = sgd(ref, list(method.parameters()))
    found |= one_step(ref, method, place, optimiser, partial(step, f"{prefix}out/"), prefix=prefix)
    step(f"{prefix}step2/")
    found[f"{prefix}step2/queue_ptr"] = method.queue.pointer.reshape(1)
    return found


def _step(method: AimCLR, views: Views, progress: float, found: dict[str, Tensor], prefix: str) -> Tensor:
    """The loss of one iteration, and everything on the way to it under the official keys."""
    queue = method.queue.keys.clone()
    pooled: list[Tensor] = []
    into = method.projector.register_forward_pre_hook(lambda _m, inputs: pooled.append(inputs[0].detach()))
    last = {"maps": method.encoder.blocks[-1], "key": method.slow_projector, "pooled": method.slow_encoder}
    with passing(last | {"projected": method.projector}) as seen:
        out = method.loss(views, progress)
    into.remove()
    query, extreme, dropped = (F.normalize(each) for each in seen["projected"])
    key = F.normalize(seen["key"][0])
    tau = method.config.temperature
    cosines = [similarities(each, key, queue) for each in (query, extreme, dropped)]
    logits, logits_extreme, logits_dropped = (each / tau for each in cosines)
    positives = method._positives(cosines, progress)
    found |= {f"{prefix}pooled/encoder_q.{i}": each for i, each in enumerate(pooled)}
    found |= {
        f"{prefix}pooled/encoder_k.0": seen["pooled"][0],
        f"{prefix}q": query,
        f"{prefix}k": key,
        f"{prefix}q_extreme": extreme,
        f"{prefix}q_extreme_drop": dropped,
        f"{prefix}logits": logits,
        f"{prefix}big/p_query": logits.softmax(1),
        f"{prefix}big/p_extreme": logits_extreme.softmax(1),
        f"{prefix}big/p_extreme_drop": logits_dropped.softmax(1),
        f"{prefix}big/pos_mask": positives,
        f"{prefix}loss1": multi_positive_nce(logits, positives),
        f"{prefix}loss2": distribution_match(logits_extreme, logits),
        f"{prefix}loss3": distribution_match(logits_dropped, logits),
        f"{prefix}loss": out.loss,
    }
    _drop(seen["maps"][1], method.config.drop_threshold, views.present.shape[1], found, prefix)
    return out.loss


def _drop(maps: Tensor, threshold: float, persons: int, found: dict[str, Tensor], prefix: str) -> None:
    """The attention drop of ``maps`` (B, C, T, V), recorded for the first clip's bodies."""
    joints, cells = kept_cells(maps, threshold)
    found |= {
        f"{prefix}big/eadm_input_x": maps[:persons],
        f"{prefix}big/eadm_output": attention_drop(maps, threshold)[:persons],
        f"{prefix}big/eadm_keep_joint": joints.to(maps.dtype),
        f"{prefix}big/eadm_keep_temporal": cells[:persons].permute(0, 1, 3, 2).flatten(1, 2).to(torch.uint8),
        f"{prefix}eadm_keep_frac_joint": joints.double().mean(),
        f"{prefix}eadm_keep_frac_temporal": cells.double().mean(),
    }
