"""Losses by the official codes' numbers: recorded embeddings, queues and logits in, the recorded losses out."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from reference_helpers import Reference
from torch import nn
from torch.nn import functional as F

from methods import losses
from methods.nn.ema import Ema
from methods.nn.queue import QueueGroup

pytestmark = pytest.mark.shared

SUFFIX = {"j": "", "m": "_motion", "b": "_bone"}


def load(folder, name):
    return Reference(folder / f"{name}.npz")


def close(ours, theirs, rtol=1e-9, atol=1e-12):
    torch.testing.assert_close(ours.double(), theirs.double(), rtol=rtol, atol=atol)


# --- SkeletonCLR, AimCLR ----------------------------------------------------------------------------------------------


def test_info_nce(reference):
    x = load(reference, "skeletonclr")
    given = (x.tensor("out/q"), x.tensor("out/k"), x.tensor("state/queue").T, x.config("temperature"))
    close(losses.info_nce_logits(*given), x.tensor("out/logits"))
    close(losses.info_nce(*given), x.tensor("out/loss"))


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_aimclr(reference, stage):
    x = load(reference, "aimclr")
    key, queue, tau = x.tensor(f"{stage}/out/k"), x.tensor("state/queue").T, x.config("temperature")
    names = {"normal": "q", "extreme": "q_extreme", "drop": "q_extreme_drop"}
    cosines = {view: losses.similarities(x.tensor(f"{stage}/out/{name}"), key, queue) for view, name in names.items()}
    logits = {view: each / tau for view, each in cosines.items()}
    close(logits["normal"], x.tensor(f"{stage}/out/logits"))
    for view, number in (("extreme", 2), ("drop", 3)):
        close(losses.distribution_match(logits[view], logits["normal"]), x.tensor(f"{stage}/out/loss{number}"))
    own = torch.zeros_like(logits["normal"], dtype=torch.bool)
    own[:, 0] = True
    if stage == "stage2":
        own = losses.with_own_key(losses.nearest(*(each[:, 1:] for each in cosines.values()), topk=1))
        close(own.double(), x.tensor("stage2/out/big/pos_mask"))
    close(losses.multi_positive_nce(logits["normal"], own), x.tensor(f"{stage}/out/loss1"))


# --- CrosSCLR, CMD ----------------------------------------------------------------------------------------------------


@pytest.fixture
def crossclr(reference):
    return load(reference, "crossclr")


def stream_similarities(x, stage, queries=None):
    queries = {u: x.tensor(f"{stage}/out/q{e}") for u, e in SUFFIX.items()} | (queries or {})
    keys = {u: x.tensor(f"{stage}/out/k{e}") for u, e in SUFFIX.items()}
    return {u: losses.similarities(queries[u], keys[u], x.tensor(f"state/queue{e}").T) for u, e in SUFFIX.items()}


def test_crossclr_first_stage(crossclr):
    for cosines, extension in zip(stream_similarities(crossclr, "stage1").values(), SUFFIX.values(), strict=True):
        close(cosines / crossclr.config("temperature"), crossclr.tensor(f"stage1/out/logits{extension}"))


def test_crossclr_second_stage(crossclr):
    tau, cosines = crossclr.config("temperature"), stream_similarities(crossclr, "stage2")
    total = torch.zeros((), dtype=torch.float64)
    for u, v in permutations("jmb", 2):
        logits, positives = losses.cross_stream_logits(cosines[u], cosines[v], tau)
        close(logits, crossclr.tensor(f"stage2/out/big/logits_{u}{v}"))
        close(positives.double(), crossclr.tensor(f"stage2/out/big/pos_mask_{u}{v}"))
        total = total + losses.cross_stream_nce(cosines[u], cosines[v], tau) / 2
    close(total, crossclr.tensor("stage2/out/loss"))


def test_crossclr_gradient_runs_through_both_factors_of_the_context(crossclr):
    """The motion head's own layer learns from every term that its query occurs in, the context of others included."""
    x = crossclr
    own = [x.tensor(f"state/encoder_q_motion.fc.0.{part}").requires_grad_() for part in ("weight", "bias")]
    shared = [[x.tensor(f"state/encoder_q.fc.{i}.{part}") for part in ("weight", "bias")] for i in (0, 2)]
    hidden = F.linear(x.tensor("stage2/out/pooled/encoder_q_motion.0"), *own).relu()
    query = F.linear(F.linear(hidden, *shared[0]).relu(), *shared[1])
    close(F.normalize(query, dim=1).detach(), x.tensor("stage2/out/q_motion"))
    cosines = stream_similarities(x, "stage2", {"m": query})
    terms = [
        losses.cross_stream_nce(cosines[u], cosines[v], x.config("temperature")) for u, v in permutations("jmb", 2)
    ]
    gradients = torch.autograd.grad(sum(terms) / 2, own)
    for part, gradient in zip(("weight", "bias"), gradients, strict=True):
        close(gradient, x.tensor(f"stage2/grad/encoder_q_motion.fc.0.{part}"))


def test_cmd(reference):
    x = load(reference, "cmd")
    students, teachers = {}, {}
    for u, extension in SUFFIX.items():
        queue = x.tensor(f"state/queue{extension}").T
        cosines = losses.similarities(x.tensor(f"out/q{extension}"), x.tensor(f"out/k{extension}"), queue)
        close(cosines / x.config("temperature"), x.tensor(f"out/logits{extension}"))
        students[u] = cosines[:, 1:]
        teachers[u] = losses.similarities(x.tensor(f"out/k{extension}"), x.tensor(f"out/k{extension}"), queue)[:, 1:]
        close(teachers[u], x.tensor(f"out/lk_neg{extension}"))
    total = torch.zeros((), dtype=torch.float64)
    for teacher, student in permutations("jmb", 2):
        total = total + losses.similarity_distillation(
            students[student], teachers[teacher], x.config("topk"), x.config("teacher_T"), x.config("student_T")
        )
    close(total, x.tensor("out/loss_sim"))
    plain = sum(x.tensor(f"out/loss_{stream}") for stream in ("joint", "motion", "bone"))
    close(plain + x.config("cmd_weight") * total, x.tensor("out/loss"))


# --- CMCS -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["out", "step2"])
def test_cmal(reference, step):
    x = load(reference, "cmal")
    predictions = x.tensor(f"{step}/online_pred_1"), x.tensor(f"{step}/online_pred_2")
    targets = x.tensor(f"{step}/target_proj_1"), x.tensor(f"{step}/target_proj_2")
    close(losses.cross_model_adversarial(predictions, targets), x.tensor(f"{step}/loss"))
    close(losses.cosine_regression(*predictions), x.tensor(f"{step}/per_sample/loss_min").mean())
    for view in (0, 1):
        apart = losses.cosine_regression(predictions[view], targets[view])
        close(apart, x.tensor(f"{step}/per_sample/loss_max{view + 1}").mean())


def cmcs_outputs(x, where, stream):
    predictions = tuple(x.tensor(f"{where}/online_pred_{stream}{view}") for view in (1, 2))
    targets = tuple(x.tensor(f"{where}/target_proj_{stream}{view}") for view in (1, 2))
    return predictions, targets


@pytest.mark.parametrize("step", ["out", "step2"])
def test_cmcs_first_stage(reference, step):
    x = load(reference, "cmcs")
    ours = {s: losses.cross_model_adversarial(*cmcs_outputs(x, f"stage1/{step}", s)) for s in "jmb"}
    for stream, name in {"j": "joint", "m": "motion", "b": "bone"}.items():
        close(ours[stream], x.tensor(f"stage1/{step}/per_sample/loss_{name}").mean())


@pytest.mark.parametrize("step", ["out", "step2"])
def test_cmcs_second_stage(reference, step):
    x = load(reference, "cmcs")
    where = f"stage2/{step}"
    total, cosines = torch.zeros((), dtype=torch.float64), {}
    for stream in "jmb":
        (p1, p2), (t1, t2) = cmcs_outputs(x, where, stream)
        cosines[stream] = losses.cosine_matrix(p1, t2), losses.cosine_matrix(p2, t1)
        total = total + losses.cross_model_adversarial((p1, p2), (t1, t2))
        for view in (0, 1):
            if f"{where}/sim_{stream}{view + 1}" in x:
                close(cosines[stream][view], x.tensor(f"{where}/sim_{stream}{view + 1}"))
    labels = losses.collaborative_labels(list(cosines.values()), x.config("topk"))
    if f"{where}/label_3views" in x:
        close(labels, x.tensor(f"{where}/label_3views"))
    for stream, pair in cosines.items():
        for view in (0, 1):
            loss = losses.collaborative_loss(pair[view], labels)
            total = total + x.config("lamb") * loss
            if f"{where}/ddm_loss_{stream}{view + 1}" in x:
                close(loss, x.tensor(f"{where}/ddm_loss_{stream}{view + 1}"))
    close(total, x.tensor(f"{where}/loss"))


# --- SkeleMixCLR, PSTL, CRRL ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["skelemixclr", "skelemixclr_plus"])
def test_skelemix_regional_terms(reference, name):
    x = load(reference, name)
    key, queue, tau = x.tensor("out/k"), x.tensor("state/queue").T, x.config("temperature")
    total, repeat = torch.zeros((), dtype=torch.float64), 0
    while f"out/p{repeat}" in x:
        pasted, context = x.tensor(f"out/p{repeat}"), x.tensor(f"out/c{repeat}")
        partner = x.tensor(f"input/draws_step1/mix{repeat}_perm").long()
        for part, own, other, side in ((pasted, key[partner], context, "p"), (context, key, pasted, "c")):
            close(losses.info_nce_logits(part, own, queue, tau, other), x.tensor(f"out/big/logits_{side}{repeat}"))
            total = total + losses.info_nce(part, own, queue, tau, other) / 2
        repeat += 1
    assert repeat > 0
    close(total, x.tensor("out/loss_reg"))
    close(losses.info_nce(x.tensor("out/q"), key, queue, tau), x.tensor("out/loss_ins"))
    close(x.config("alpha") * total + x.tensor("out/loss_ins"), x.tensor("out/loss"))


@pytest.mark.parametrize("term", [1, 2])
def test_barlow(reference, term):
    """The recorded width exceeds the batch, so this is the Gram form; the direct one is held against it elsewhere."""
    x = load(reference, "pstl")
    a, b = x.tensor(f"out/bt{term}/feat1_norm"), x.tensor(f"out/bt{term}/feat2_norm")
    on, off = losses.barlow_terms(a, b)
    close(on, x.tensor(f"out/bt{term}/on_diag"))
    close(off, x.tensor(f"out/bt{term}/off_diag"))
    close(losses.barlow_twins(a, b, x.config("lambda_bt")), x.tensor(f"out/loss_bt{term}"))


def test_crrl(reference):
    x = load(reference, "crrl")
    lengths = x.tensor("input/num_frame").long()
    forward = losses.reconstruction(x.tensor("ser/out/reconstruction_pad1"), x.tensor("input/X"), lengths)
    backward = losses.reconstruction(x.tensor("ser/out/reconstruction_pad"), x.tensor("input/Y"), lengths)
    close(forward, x.tensor("ser/out/reconstructLoss1"))
    close(backward, x.tensor("ser/out/reconstructLoss"))
    close(forward + backward, x.tensor("ser/out/all_loss"))
    apart = losses.feature_distillation(x.tensor("inf/out/encoding_student"), x.tensor("inf/out/encoding_teacher"))
    close(apart, x.tensor("inf/out/teacher_student_loss"))
    both = x.tensor("inf/out/reconstructLoss1") + x.tensor("inf/out/reconstructLoss")
    close(both + x.config("lambda_ts") * apart, x.tensor("inf/out/all_loss"))
    logits = x.tensor("cml/out/output")
    first = torch.zeros_like(logits, dtype=torch.bool)
    first[:, 0] = True
    close(losses.multi_positive_nce(logits, first), x.tensor("cml/out/contrast_loss"))


# --- what moves between steps -----------------------------------------------------------------------------------------


def test_momentum_copy_in_double_precision(reference):
    """SkeletonCLR's key encoder moves before its pass, so it follows the query encoder's state before the step."""
    x = load(reference, "skeletonclr")
    compared = 0
    for name in [key.removeprefix("after/encoder_k.") for key in x.keys("after/encoder_k.*")]:
        if f"state/encoder_q.{name}" not in x or "running" in name or "num_batches" in name:
            continue
        ema = Ema(nn.ParameterList([x.tensor(f"state/encoder_k.{name}")]), x.config("momentum"))
        ema.update(nn.ParameterList([x.tensor(f"state/encoder_q.{name}")]), 0.0)
        close(ema.target[0].detach(), x.tensor(f"after/encoder_k.{name}"), rtol=1e-12)
        compared += 1
    assert compared > 10


def test_target_moves_after_the_step(reference):
    """CMAL's target network follows the weights that the optimiser has just left."""
    x = load(reference, "cmal")
    compared = 0
    for key in x.keys("after/target_*"):
        name = key.removeprefix("after/target_")
        if "running" in name or "num_batches" in name or f"after/online_{name}" not in x:
            continue
        ema = Ema(nn.ParameterList([x.tensor(f"state/target_{name}")]), x.config("ema"))
        ema.update(nn.ParameterList([x.tensor(f"after/online_{name}")]), 0.0)
        close(ema.target[0].detach(), x.tensor(key), rtol=1e-12)
        compared += 1
    assert compared > 10


def test_aligned_queues(reference):
    x = load(reference, "crossclr")
    names = list(SUFFIX)
    group = QueueGroup(names, x.config("K"), x.config("D")).double()
    state = {f"keys_{name}": x.tensor(f"state/queue{extension}").T for name, extension in SUFFIX.items()}
    group.load_state_dict(state | {"pointer": x.tensor("state/queue_ptr").long().reshape(())})
    group.enqueue({name: x.tensor(f"stage1/out/k{extension}") for name, extension in SUFFIX.items()})
    for name, extension in SUFFIX.items():
        close(group[name], x.tensor(f"stage1/after/queue{extension}").T)
    assert int(group.pointer) == int(x.tensor("stage1/after/queue_ptr"))
