"""How many samples a second, beside a plain reference: loading and augmentation, SkeletonCLR's whole step, the probe.

The plain side (benchmarks/reference.py) works as the official repositories do. Both sides run in this process in turns,
on the same generated clips in one memory-mapped file; first it is checked that they compute the same numbers.

    python -m benchmarks.step                             # some minutes on one CPU thread
    python -m benchmarks.step --batch 128 --seconds 1800 --json step.json
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks import reference, timing
from methods.augment import ops
from methods.augment.policy import Policy
from methods.base import Method, two_views
from methods.data.layouts import NTU25
from methods.data.preprocess import DEFAULT_STEPS, apply_steps, parse_steps
from methods.data.splits import Split
from methods.data.synthetic import SyntheticConfig, generate_clips, held_out_subjects
from methods.nn.graph import adjacency
from methods.skeletonclr import RECIPE, SkeletonCLRConfig
from methods.training import pretrain
from methods.training.branches import Branches
from methods.training.clips import Clips, ClipStore
from methods.training.config import StreamsConfig, TrialConfig
from methods.training.evaluate import test as score_test
from methods.training.features import extract
from methods.training.probe import ProbeConfig, linear_sgd
from methods.training.seeds import generator

STEPS = 2  # optimiser steps in one timed turn
PASSES = 4  # passes over the training clips in one turn of loading
PROBE_EPOCHS, TEST_EVERY, PROBE_LR = 100, 5, 3.0  # the linear evaluation that CrosSCLR's code publishes
LIMITS = {"views": 1e-5, "loss": 1e-9, "key weights": 1e-9, "probe": 1e-4}  # fp32, fp64, fp64, fp32


@dataclass(frozen=True)
class Setup:
    """What both sides share."""

    clips: Clips
    split: Split
    config: TrialConfig
    device: torch.device

    @property
    def steps_index(self) -> NDArray[np.int64]:
        return self.split.train[: STEPS * self.config.optim.batch]


def build_clips(count: int, frames: int, folder: Path) -> tuple[Clips, Split]:
    """At least ``count`` generated clips of ten subjects as a memory map (N, C, T, V, M), split by subject."""
    config = SyntheticConfig(cameras=1, clips_per_cell=max(1, -(-count // 150)))
    made = list(generate_clips(config))
    steps = parse_steps(DEFAULT_STEPS)
    array = np.stack([apply_steps(c.frames, len(c.frames), NTU25, steps, frames) for c in made])
    np.save(folder / "clips.npy", array.astype(np.float32))
    data = np.load(folder / "clips.npy", mmap_mode="r", allow_pickle=False)
    subjects = np.array([c.subject for c in made])
    clips = Clips(data, np.array([c.label for c in made]), subjects, NTU25, len(config.actions), "benchmark")
    unseen = np.isin(subjects, held_out_subjects(config.subjects))
    empty = np.zeros(0, dtype=np.int64)
    train, test = np.flatnonzero(~unseen), np.flatnonzero(unseen)
    return clips, Split("subjects", train, empty, test, None, (), "by subject")


def published(batch: int, frames: int, width: int) -> TrialConfig:
    """SkeletonCLR as published, of another width if wanted: every body is run, fp32, dropout 0.5."""
    return TrialConfig(
        method="skeletonclr",
        params=SkeletonCLRConfig(queue=max(1, 32768 // batch) * batch),
        epochs=RECIPE.epochs,
        frames=frames,
        encoder=replace(RECIPE.encoder, width=width, dim=16 * width, bodies="all", precision="fp32"),
        augment=RECIPE.augment,
        streams=StreamsConfig(),
        optim=replace(RECIPE.optim, batch=batch),
    )


def plain_model(setup: Setup, dropout: float) -> reference.PlainSkeletonCLR:
    """The reference with the same sizes as the configuration."""
    c = setup.config

    def network() -> nn.Sequential:
        encoder = reference.PlainSTGCN(graph, c.encoder.width, c.encoder.dim, dropout)
        return nn.Sequential(encoder, reference.projector(c.encoder.dim, c.params.hidden, c.params.projection))

    graph = adjacency(setup.clips.layout, c.encoder.partition)
    model = reference.PlainSkeletonCLR(
        network(), network(), c.params.projection, c.params.queue, c.params.momentum, c.params.temperature
    )
    return model.to(setup.device)


def joint_branch(model: Branches) -> Any:
    """The one branch of a model that has the joint stream only."""
    branch = model.branches["joint"]
    if not isinstance(branch, Method):
        raise TypeError(type(branch))
    return branch


def plain_solver(setup: Setup, model: nn.Module) -> torch.optim.Optimizer:
    o = setup.config.optim
    return torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad],
        lr=o.lr,
        momentum=o.sgd_momentum,
        weight_decay=o.weight_decay,
    )


# --- do both sides compute the same? ----------------------------------------------------------------------------------


def check_views(setup: Setup) -> dict[str, Any]:
    """Crop and shear with the same draws, clip by clip and as a batch."""
    x = np.array(setup.clips.data[:4])
    rho, frames = setup.config.augment.crop, setup.config.frames
    pad = int(frames / rho)
    starts = np.random.default_rng(0).integers(0, 2 * pad + 1, len(x))
    six = np.random.default_rng(1).uniform(-0.5, 0.5, (len(x), 6))
    plain = np.stack(
        [reference.shear(reference.crop(c, rho, int(s)), 0.5, list(k)) for c, s, k in zip(x, starts, six, strict=True)]
    )
    ours = ops.temporal_crop(torch.from_numpy(x), torch.from_numpy(starts), pad)
    ours = ops.linear_map(ours, ops.shear_matrix(torch.from_numpy(six).float()))
    return agreement("views", torch.from_numpy(plain), ours.double())


def check_steps(setup: Setup) -> list[dict[str, Any]]:
    """Two whole steps in float64 from the same weights, queue and views, without dropout."""
    config = replace(setup.config, encoder=replace(setup.config.encoder, dropout=0.0))
    run = pretrain.start(config, setup.clips, setup.steps_index, seed=0, device=setup.device)
    method = joint_branch(run.model).double()
    plain = plain_model(setup, dropout=0.0).double()
    online = [*method.encoder.parameters(), *method.projector.parameters()]
    with torch.no_grad():
        for theirs, mine in zip([*plain.query.parameters(), *plain.key.parameters()], [*online, *online], strict=True):
            theirs.copy_(mine)
        plain.queue.copy_(method.queue.keys.T)
    x = run.store.take(run.index[: min(config.optim.batch, 8) // 2 * 2]).double()
    if config.params.queue % len(x):
        x = x[:2]
    views = two_views(x, run.model.policy, generator(setup.device, "check"))
    solver, found = plain_solver(setup, plain), []
    for number in (1, 2):
        loss = method.loss(views, 0.0).loss
        run.optimiser.zero_grad()
        loss.backward()
        run.optimiser.step()
        other = torch.tensor(reference.train_step(plain, solver, views["a"], views["b"]), dtype=torch.float64)
        found.append(agreement("loss", other, loss.detach().cpu(), f"of step {number}"))
    slow = nn.utils.parameters_to_vector([*method.slow_encoder.parameters(), *method.slow_projector.parameters()])
    return [*found, agreement("key weights", nn.utils.parameters_to_vector(plain.key.parameters()), slow)]


def check_probe(setup: Setup) -> dict[str, Any]:
    """One epoch of the SGD probe: on cached features, and through the frozen backbone with the same draws."""
    run = pretrain.start(setup.config, setup.clips, setup.steps_index, seed=0, device=setup.device)
    pretrain._one_epoch(run)  # so that the batch norms have seen data
    backbone = copy_backbone(setup, run.model)
    batch, classes = 8, setup.clips.num_classes
    train, test = setup.split.train[: 4 * batch], setup.split.test[:8]
    features = extract(run.model, run.store, torch.from_numpy(np.concatenate([train, test])), None)["joint"]
    labels = torch.from_numpy(setup.clips.labels[train]).to(setup.device)
    # One epoch lies wholly behind the point where the probe's rate falls tenfold, hence the plain side's rate below.
    config = ProbeConfig(solver="sgd", sgd_epochs=1, sgd_batch=batch, sgd_lr=PROBE_LR)
    ours = linear_sgd(features[: len(train)], labels, features[len(train) :], classes, config, seed=0)
    draws = generator("cpu", 0, "probe")
    head = nn.Linear(setup.config.encoder.dim, classes).to(setup.device)
    with torch.no_grad():
        head.weight.copy_((torch.randn(head.in_features, classes, generator=draws) * 0.02).T)
        head.bias.zero_()
    order = torch.randperm(len(train), generator=draws)
    batches = [(run.store.take(torch.from_numpy(train)[part]), labels[part.to(labels.device)])
               for part in order.split(batch)]  # fmt: skip
    solver = torch.optim.SGD(head.parameters(), lr=PROBE_LR * 0.1, momentum=0.9)
    reference.probe_epoch(backbone, head, solver, batches, setup.device)
    rows = torch.from_numpy(test)
    logits = reference.probe_test(backbone, head, [(run.store.take(rows), rows)], setup.device)
    return agreement("probe", logits.log_softmax(1), ours)


def copy_backbone(setup: Setup, model: Branches) -> reference.PlainSTGCN:
    """The plain encoder with our encoder's weights and batch-norm statistics, frozen."""
    ours = joint_branch(model).encoder
    query: Any = plain_model(setup, setup.config.encoder.dropout).query
    plain = query[0]
    with torch.no_grad():
        for theirs, mine in zip(plain.parameters(), ours.parameters(), strict=True):
            theirs.copy_(mine)
        for theirs, mine in zip(plain.buffers(), ours.buffers(), strict=True):
            theirs.copy_(mine)  # running statistics; the graph comes along and is equal
    frozen: reference.PlainSTGCN = plain.requires_grad_(False)
    return frozen


def agreement(what: str, plain: Tensor, ours: Tensor, detail: str = "") -> dict[str, Any]:
    """How far two results lie apart, relative to the larger of 1 and the plain one's largest value."""
    if plain.shape != ours.shape:
        raise ValueError(f"{what}: shapes {tuple(plain.shape)} and {tuple(ours.shape)}")
    scale = max(1.0, float(plain.abs().max()))
    told: dict[str, Any] = {"what": f"{what} {detail}".strip()}
    if plain.numel() == 1:
        told |= {"plain": float(plain), "ours": float(ours)}
    difference = float((plain - ours).abs().max()) / scale
    return told | {"difference": difference, "limit": LIMITS[what], "agree": difference <= LIMITS[what]}


# --- the three parts --------------------------------------------------------------------------------------------------


def measure_loading(setup: Setup, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Two views of each training clip on the device, batch by batch."""
    c, batch = setup.config, setup.config.optim.batch
    index = setup.split.train[: len(setup.split.train) // batch * batch]
    loader = reference.pair_loader(reference.TwoViews(setup.clips.data, index, c.augment.crop, c.augment.shear), batch)
    store, policy = ClipStore(setup.clips, setup.device), Policy(c.augment, setup.clips.layout)
    draws = generator(setup.device, "views")

    def plain() -> None:
        for _ in range(PASSES):
            for a, b in loader:
                a.float().to(setup.device), b.float().to(setup.device)

    def ours() -> None:
        for _ in range(PASSES):
            for part in torch.from_numpy(index)[torch.randperm(len(index))].split(batch):
                two_views(store.take(part), policy, draws)

    turns = timing.interleave({"plain": plain, "ours": ours}, rounds=rounds, seconds=seconds, device=setup.device)
    samples = PASSES * len(index)
    return [timing.row("loading + augmentation", name, samples, mine, turns["plain"]) for name, mine in turns.items()]


def measure_step(setup: Setup, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Load, augment, forward, backward, optimiser, momentum, queue: an epoch of ``STEPS`` batches a turn."""
    c = setup.config
    dataset = reference.TwoViews(setup.clips.data, setup.steps_index, c.augment.crop, c.augment.shear)
    loader = reference.pair_loader(dataset, c.optim.batch)
    model = plain_model(setup, c.encoder.dropout)
    solver = plain_solver(setup, model)
    variants = {
        "ours": c.encoder,
        "ours, absent bodies left out": replace(c.encoder, bodies="real"),
        "ours, absent bodies left out, bf16": replace(c.encoder, bodies="real", precision="bf16"),
    }
    notes = {
        "ours": "same arithmetic",
        "ours, absent bodies left out": "batch statistics and mean over recorded bodies only: another function",
        "ours, absent bodies left out, bf16": "that, with the blocks in lower precision",
    }
    sides: dict[str, timing.Side] = {"plain": lambda: reference.train_epoch(model, solver, loader, setup.device)}
    for name, encoder in variants.items():
        run = pretrain.start(replace(c, encoder=encoder), setup.clips, setup.steps_index, seed=0, device=setup.device)
        # The steps alone: what pretrain() looks at between epochs would weigh far too much in an epoch so short.
        sides[name] = lambda run=run: pretrain._one_epoch(run)  # type: ignore[misc]
    turns = timing.interleave(sides, rounds=rounds, seconds=seconds, device=setup.device)
    samples = STEPS * c.optim.batch
    return [timing.row("whole step", n, samples, mine, turns["plain"], notes.get(n, "")) for n, mine in turns.items()]


def measure_probe(setup: Setup, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """A whole linear probe: fit on the training clips, score the test clips.

    The plain one is measured as one training epoch and one test pass a round and multiplied out.
    """
    batch = setup.config.optim.batch
    train = setup.split.train[: len(setup.split.train) // batch * batch]  # the plain loader drops what is left over
    split = replace(setup.split, train=train)
    run = pretrain.start(setup.config, setup.clips, setup.steps_index, seed=0, device=setup.device)
    backbone = copy_backbone(setup, run.model)
    head = nn.Linear(setup.config.encoder.dim, setup.clips.num_classes).to(setup.device)
    solver = torch.optim.SGD(head.parameters(), lr=PROBE_LR, momentum=0.9)
    data, labels = setup.clips.data, setup.clips.labels
    fit: Any = DataLoader(reference.Labelled(data, labels, train), batch, shuffle=True, drop_last=True)
    judge: Any = DataLoader(reference.Labelled(data, labels, split.test), batch)
    sgd = ProbeConfig(solver="sgd", sgd_epochs=PROBE_EPOCHS, sgd_batch=batch)
    sides: dict[str, timing.Side] = {
        "epoch": lambda: reference.probe_epoch(backbone, head, solver, fit, setup.device),
        "test": lambda: reference.probe_test(backbone, head, judge, setup.device),
        "ours, the papers' SGD": lambda: score_test(run.model, run.store, split, sgd),
        "ours, L-BFGS (default)": lambda: score_test(run.model, run.store, split, ProbeConfig()),
    }
    turns = timing.interleave(sides, rounds=rounds, seconds=seconds, device=setup.device)
    epoch, test = turns.pop("epoch"), turns.pop("test")
    plain = timing.Turns(multiplied(epoch.wall, test.wall), multiplied(epoch.cpu, test.cpu))
    samples = len(train) + len(split.test)
    notes = {
        "plain": f"EXTRAPOLATED to {PROBE_EPOCHS} epochs and {PROBE_EPOCHS // TEST_EVERY} test passes from "
        f"{len(epoch.wall)} of each, one a round",
        "ours, the papers' SGD": f"{PROBE_EPOCHS} epochs on cached features, settled batch norms; not extrapolated",
        "ours, L-BFGS (default)": "another probe: standardised features, converged; not extrapolated",
    }
    every = {"plain": plain, **turns}
    rows = [timing.row("linear probe", name, samples, mine, plain, notes[name]) for name, mine in every.items()]
    rows[0]["extrapolated_from_epochs"] = len(epoch.wall)
    return rows


def multiplied(epochs: Sequence[float], tests: Sequence[float]) -> list[float]:
    return [PROBE_EPOCHS * e + PROBE_EPOCHS // TEST_EVERY * t for e, t in zip(epochs, tests, strict=True)]


# --- the command ------------------------------------------------------------------------------------------------------


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write everything measured to this file")
    parser.add_argument("--batch", type=int, default=32, help="clips a step (published: 128)")
    parser.add_argument("--frames", type=int, default=50, help="T")
    parser.add_argument("--width", type=int, default=16, help="channels of the first stage; D is 16 times as many")
    parser.add_argument("--clips", type=int, default=300, help="at least so many generated clips, 60 %% of them train")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each side")
    parser.add_argument("--seconds", type=float, default=900.0, help="no further round once about so many are used up")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch")
    args = parser.parse_args(arguments)
    if min(args.batch - 1, args.width, args.rounds, args.threads, args.clips) < 1 or args.frames < 8:
        parser.error("--batch must be at least 2, --frames 8, the other counts 1")
    args.clips = max(args.clips, -(-args.batch * STEPS * 10 // 6))  # enough training clips for a turn of steps
    return args


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, measure, print Markdown; 1 when the two sides disagree, for then no ratio means anything."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    args = parse(given)
    torch.set_num_threads(args.threads)
    wanted = args.device if args.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    load_before = list(os.getloadavg())
    for seed in (random.seed, np.random.seed, torch.manual_seed):  # the plain side draws from all three
        seed(0)
    with tempfile.TemporaryDirectory() as folder:
        clips, split = build_clips(args.clips, args.frames, Path(folder))
        setup = Setup(clips, split, published(args.batch, args.frames, args.width), torch.device(wanted))
        checks = [check_views(setup), *check_steps(setup), check_probe(setup)]
        for check in checks:
            show(check)
        if not all(check["agree"] for check in checks):
            return 1
        rows, begun = [], time.perf_counter()
        for measure, share in ((measure_loading, 0.1), (measure_step, 0.5), (measure_probe, 1.0)):
            left = args.seconds - (time.perf_counter() - begun)  # what one part leaves, the next may use
            rows += measure(setup, args.rounds, share * left)
        told = timing.report("step", "benchmarks.step", given, settings(args, setup), setup.device, rows,
                             checks=checks, load_before=load_before)  # fmt: skip
    print("\n".join([*timing.heading(told), "", *timing.table(rows)]))
    if args.json:
        timing.write_json(args.json, told)
    return 0


def show(check: dict[str, Any]) -> None:
    word = "agree" if check["agree"] else "DO NOT AGREE"
    print(f"- both sides {word}: {check['what']}, difference {check['difference']:.1e} (limit {check['limit']:.0e})")


def settings(args: argparse.Namespace, setup: Setup) -> dict[str, Any]:
    """What was measured, in words that a reader can repeat."""
    bodies = (np.asarray(setup.clips.data) != 0).any((1, 2, 3))  # (N, M)
    return {
        "batch": args.batch,
        "frames": args.frames,
        "width": args.width,
        "dim": setup.config.encoder.dim,
        "queue": setup.config.params.queue,
        "clips": len(setup.clips),
        "train_clips": len(setup.split.train),
        "clips_with_a_second_body": round(float(bodies[:, 1].mean()), 3),
        "loader_workers": 0,
        "rounds_at_most": args.rounds,
        "seconds_at_most": args.seconds,
    }


if __name__ == "__main__":
    sys.exit(main())
