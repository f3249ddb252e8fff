"""SkeletonCLR's peer computes what CrosSCLR's code computed: loss, gradients, state after the step, second loss."""

from __future__ import annotations

import pytest
import torch
from peer_cases import ROOT, Case, cases, load, one_step, second_loss, stgcn_name

from benchmarks.peer.skeletonclr import SkeletonCLR
from methods.data.layouts import NTU25
from methods.training.config import published, with_settings


def naming(official: str) -> str:
    side, _, rest = official.partition(".")
    return f"{side}.{stgcn_name(rest)}" if rest else official


def built(case: Case) -> SkeletonCLR:
    sizes = {
        "encoder.width": case.config("c"), "encoder.dim": case.config("Dh"), "encoder.dropout": case.config("dropout"),
        "hidden": case.config("Dh"), "projection": case.config("D"), "queue": case.config("K"),
        "temperature": case.config("temperature"), "momentum": case.config("momentum"),
        "optim.lr": case.config("lr"), "optim.sgd_momentum": case.config("sgd_momentum"),
        "optim.weight_decay": case.config("weight_decay"), "optim.batch": case.config("N"),
    }  # fmt: skip
    peer = SkeletonCLR(with_settings(published("skeletonclr", preset="paper_code"), sizes), NTU25)
    assert isinstance(load(peer, case, naming), SkeletonCLR)
    return peer


@pytest.fixture(params=cases("skeletonclr") or [None], ids=lambda path: path.stem if path else "none")
def case(request):
    if request.param is None:
        pytest.skip(f"no reference numbers at {ROOT} (set SKELTUNE_REFERENCE)")
    return Case(request.param)


@pytest.mark.shared
def test_equal_to_the_official_code(case):
    peer = built(case)
    batch = (case.tensor("input/view_q"), case.tensor("input/view_k"))
    solver = peer.solver()
    faults = one_step(peer, solver, case, naming, batch) + second_loss(peer, solver, case, batch)
    assert not faults, "\n".join(faults[:20])


@pytest.mark.shared
def test_the_backbone_is_what_is_evaluated(case):
    peer = built(case)
    theirs = case.numbers["out/eval/pooled_q"]
    backbone = peer.backbone().eval()
    ours = backbone(case.tensor("input/view_q"))
    torch.testing.assert_close(ours, torch.as_tensor(theirs), rtol=1e-8, atol=1e-11)
    assert not any(p.requires_grad for p in backbone.parameters())
    assert all(p.requires_grad for p in peer.encoder_q.parameters())  # a copy: training goes on


@pytest.mark.shared
def test_a_step_that_differs_is_seen(case, monkeypatch):
    peer = built(case)
    batch = (case.tensor("input/view_q"), case.tensor("input/view_k"))
    monkeypatch.setattr(SkeletonCLR, "remember", lambda *_: None)  # the queue stays as it was
    faults = one_step(peer, peer.solver(), case, naming, batch)
    assert any(line.startswith("after/queue") for line in faults)
    assert all(line.startswith("after") for line in faults)
