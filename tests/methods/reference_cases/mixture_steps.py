"""What the cases of SkeleMixCLR's code share: one iteration of its processor with the recorded draws, and the next."""

from __future__ import annotations

from functools import partial

import torch
from reference_helpers import Reference, load_state, one_step, passing, sgd
from torch import Tensor
from torch.nn import functional as F

from methods.augment.mix import Mix, part_table, partners, skelemix
from methods.base import Views
from methods.data.layouts import NTU25
from methods.losses import info_nce_logits
from methods.nn.encoder import EncoderConfig
from methods.nn.stgcn import STGCN
from methods.official.skelemixclr import skelemixclr as place
from methods.skelemixclr import SkeleMixCLR, SkeleMixCLRConfig

STEPS = {"out/": "input/draws_step1", "step2/": "input/draws_step2"}  # prefix of what comes out -> of what was drawn


def iterations(ref: Reference, kind: type[SkeleMixCLRConfig], repeats: int, weight: float) -> dict[str, Tensor]:
    """Every key that both iterations of a method with ``kind`` of config find and the file has."""
    shape = EncoderConfig(width=ref.config("c"), dim=ref.config("Dh"), dropout=0.0, partition="inward_outward")
    own = kind(
        temperature=ref.config("temperature"),
        momentum=ref.config("momentum"),
        queue=ref.config("K"),
        hidden=ref.config("Dh"),
        projection=ref.config("D"),
        repeats=repeats,
        regional_weight=weight,
    )
    method = SkeleMixCLR(own, STGCN(shape, NTU25)).double()
    load_state(method, ref.under("state"), place)
    method.eval()
    found = {
        "out/eval/encoder_q_view_q": method.projector(method.embed(ref.tensor("input/view_q"))),
        "out/eval/encoder_k_view_k": method.slow_projector(method.slow_encoder(ref.tensor("input/view_k"))),
    }
    step, optimiser = partial(_step, ref, method, found), sgd(ref, list(method.parameters()))
    found |= one_step(ref, method, place, optimiser, partial(step, "out/"))
    step("step2/")
    found["step2/queue_ptr"] = method.queue.pointer.reshape(1)
    return {key: value for key, value in found.items() if key in ref}


def _drawn(ref: Reference, prefix: str, repeats: int) -> list[Mix]:
    """The recorded mixtures; each is one for the whole batch, of whole parts."""
    n, table = ref.config("N"), part_table(NTU25.parts, NTU25.num_joints)
    mixes = []
    for i in range(repeats):
        joints = torch.zeros(NTU25.num_joints, dtype=torch.bool)
        joints[ref.tensor(f"{prefix}/mix{i}_joints").long()] = True
        assert all(part[joints].sum() in (0, part.sum()) for part in table), "parts were cut"
        start, length = (int(ref.tensor(f"{prefix}/mix{i}_{name}")) for name in ("start", "Ct"))
        shift = ref.tensor(f"{prefix}/mix{i}_shift").long().reshape(())
        assert torch.equal(partners(n, shift), ref.tensor(f"{prefix}/mix{i}_perm").long())
        mixes.append(Mix(shift, joints.expand(n, -1), torch.full((n,), start), torch.full((n,), length)))
    return mixes


def _step(ref: Reference, method: SkeleMixCLR, found: dict[str, Tensor], prefix: str) -> Tensor:
    """The loss of one iteration, and everything on the way to it under the official keys."""
    view_q, queue, tau = ref.tensor("input/view_q"), method.queue.keys.clone(), method.config.temperature
    mixes = _drawn(ref, STEPS[prefix], method.config.repeats)
    extra = {f"mix_{part}": torch.stack([getattr(mix, part) for mix in mixes]) for part in Mix.__dataclass_fields__}
    present = (view_q != 0).flatten(1, 3).any(1)
    pooled: list[Tensor] = []
    into = method.projector.register_forward_pre_hook(lambda _m, inputs: pooled.append(inputs[0].detach()))
    with passing({"q": method.projector, "k": method.slow_projector, "pooled": method.slow_encoder}) as seen:
        out = method.loss(Views({"a": view_q, "b": ref.tensor("input/view_k")}, present, extra), 0.0)
    into.remove()
    query, *sides = (F.normalize(each) for each in seen["q"])
    key = F.normalize(seen["k"][0])
    found |= {f"{prefix}pooled/encoder_q.{i}": each for i, each in enumerate(pooled)}
    found |= {
        f"{prefix}pooled/encoder_k.0": seen["pooled"][0],
        f"{prefix}q": query,
        f"{prefix}k": key,
        f"{prefix}logits": info_nce_logits(query, key, queue, tau),
        f"{prefix}loss_ins": out.logs["instance"],
        f"{prefix}loss_reg": out.logs["regional"],
        f"{prefix}loss": out.loss,
    }
    for i, mix in enumerate(mixes):
        pasted, context = sides[2 * i : 2 * i + 2]
        of_partner = key[partners(len(key), mix.shift)]
        found |= {
            f"{prefix}p{i}": pasted,
            f"{prefix}c{i}": context,
            f"{prefix}big/logits_p{i}": info_nce_logits(pasted, of_partner, queue, tau, context),
            f"{prefix}big/logits_c{i}": info_nce_logits(context, key, queue, tau, pasted),
            f"{prefix}big/mix{i}_mask": mix.cells(view_q.shape[2] // 4)[0].double(),
            f"{prefix}big/mix{i}_input": skelemix(view_q, mix),
        }
    return out.loss
