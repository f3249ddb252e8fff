"""Do both sides compute the same? Asked of SkeletonCLR before its times mean anything: views, steps, probe.

That the other methods' peers compute what the official codes compute is what the parity tests are for.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.peer import probe
from benchmarks.peer.augment import crop, shear
from benchmarks.peer.base import train_step
from benchmarks.peer.setup import Bench, without_dropout
from benchmarks.peer.skeletonclr import SkeletonCLR
from methods.augment import ops
from methods.base import Method
from methods.training.branches import Branches
from methods.training.config import TrialConfig
from methods.training.features import extract
from methods.training.pretrain import _one_epoch
from methods.training.probe import ProbeConfig, linear_sgd
from methods.training.seeds import generator

Check = dict[str, Any]
LIMITS = {"views": 1e-5, "loss": 1e-9, "key weights": 1e-9, "probe": 1e-4}  # fp32, fp64, fp64, fp32


def agreement(what: str, peer: Tensor, ours: Tensor, detail: str = "") -> Check:
    """How far two results lie apart, relative to the larger of 1 and the peer's largest value."""
    if peer.shape != ours.shape:
        raise ValueError(f"{what}: shapes {tuple(peer.shape)} and {tuple(ours.shape)}")
    scale = max(1.0, float(peer.abs().max()))
    told: Check = {"what": f"{what} {detail}".strip()}
    if peer.numel() == 1:
        told |= {"peer": float(peer), "ours": float(ours)}
    difference = float((peer - ours).abs().max()) / scale
    return told | {"difference": difference, "limit": LIMITS[what], "agree": difference <= LIMITS[what]}


def check_views(bench: Bench, config: TrialConfig) -> Check:
    """Crop and shear with the same draws, clip by clip and as a batch."""
    x = np.array(bench.clips(config.frames).data[:4])
    rho, amplitude = config.augment.crop, config.augment.shear
    pad = int(config.frames / rho)
    starts = np.random.default_rng(0).integers(0, 2 * pad + 1, len(x))
    six = np.random.default_rng(1).uniform(-amplitude, amplitude, (len(x), 6))
    peer = [shear(crop(c, rho, int(s)), amplitude, list(k)) for c, s, k in zip(x, starts, six, strict=True)]
    ours = ops.temporal_crop(torch.from_numpy(x), torch.from_numpy(starts), pad)
    ours = ops.linear_map(ours, ops.shear_matrix(torch.from_numpy(six).float()))
    return agreement("views", torch.from_numpy(np.stack(peer)), ours.double())


def check_steps(bench: Bench, config: TrialConfig) -> list[Check]:
    """Two whole steps in float64 from the same weights, queue and views, without dropout."""
    config = without_dropout(config)
    run = bench.run(config, bench.some(config.optim.batch, bench.train))
    ours = joint_branch(run.model).double()
    peer = SkeletonCLR(config, run.store.clips.layout).to(run.device).double()
    with torch.no_grad():
        for theirs, encoder, projector in (
            (peer.encoder_q, ours.encoder, ours.projector),
            (peer.encoder_k, ours.slow_encoder, ours.slow_projector),
        ):
            mine = [*encoder.parameters(), *projector.parameters()]
            for there, here in zip(theirs.parameters(), mine, strict=True):
                there.copy_(here)
        peer.queue.copy_(ours.queue.keys.T)
    views = run.model.views(run.store.take(run.index).double(), generator(run.device, "check"))
    solver, found = peer.solver(), []
    for number in (1, 2):
        loss = run.model.loss(views, 0.0).loss
        run.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        run.optimiser.step()
        batch = (views["joint"]["a"], views["joint"]["b"])
        other = torch.tensor(train_step(peer, solver, batch, 0.0), dtype=torch.float64)
        found.append(agreement("loss", other, loss.detach().cpu(), f"of step {number}"))
    slow = nn.utils.parameters_to_vector([*ours.slow_encoder.parameters(), *ours.slow_projector.parameters()])
    return [*found, agreement("key weights", nn.utils.parameters_to_vector(peer.encoder_k.parameters()), slow)]


def check_probe(bench: Bench, config: TrialConfig) -> Check:
    """One epoch of the SGD probe: on cached features, and through the frozen backbone with the same draws."""
    run = bench.run(config, bench.some(config.optim.batch, bench.train))
    _one_epoch(run)  # so that the batch norms have seen data
    clips, batch = run.store.clips, 8
    backbone = copied_backbone(config, run.model).to(run.device)
    train, test = bench.some(4 * batch, bench.train), bench.some(batch, bench.held)
    features = extract(run.model, run.store, torch.from_numpy(np.concatenate([train, test])), None)["joint"]
    labels = torch.from_numpy(clips.labels[train]).to(run.device)
    # One epoch lies wholly behind the point where the probe's rate falls tenfold, hence the peer's rate below.
    own = ProbeConfig(solver="sgd", sgd_epochs=1, sgd_batch=batch, sgd_lr=probe.RATE)
    ours = linear_sgd(features[: len(train)], labels, features[len(train) :], clips.num_classes, own, seed=0)
    draws = generator("cpu", 0, "probe")
    head = nn.Linear(config.encoder.dim, clips.num_classes).to(run.device)
    with torch.no_grad():
        head.weight.copy_((torch.randn(head.in_features, head.out_features, generator=draws) * 0.02).T)
        head.bias.zero_()
    order = torch.randperm(len(train), generator=draws)
    batches = [(run.store.take(torch.from_numpy(train)[part]), labels[part.to(labels.device)])
               for part in order.split(batch)]  # fmt: skip
    solver = torch.optim.SGD(head.parameters(), lr=probe.RATE * 0.1, momentum=0.9)
    probe.probe_epoch(backbone, head, solver, batches, run.device)
    rows = torch.from_numpy(test)
    logits = probe.probe_test(backbone, head, [(run.store.take(rows), rows)], run.device)
    return agreement("probe", logits.log_softmax(1), ours)


def joint_branch(model: Branches) -> Any:
    """The one branch of a model that has the joint stream only."""
    branch = model.branches["joint"]
    if not isinstance(branch, Method):
        raise TypeError(type(branch))
    return branch


def copied_backbone(config: TrialConfig, model: Branches) -> nn.Module:
    """The peer's backbone with our encoder's weights and batch-norm statistics, frozen."""
    ours = joint_branch(model).encoder
    backbone = SkeletonCLR(replace(config, params=replace(config.params, queue=config.optim.batch)), model.layout)
    peer: nn.Module = backbone.backbone()
    with torch.no_grad():
        for theirs, mine in zip(peer.parameters(), ours.parameters(), strict=True):
            theirs.copy_(mine)
        for there, here in zip(peer.buffers(), ours.buffers(), strict=True):
            there.copy_(here)  # running statistics; the graph comes along and is equal
    return peer


def all_checks(bench: Bench, config: TrialConfig) -> list[Check]:
    """Everything there is to check of SkeletonCLR."""
    return [check_views(bench, config), *check_steps(bench, config), check_probe(bench, config)]
