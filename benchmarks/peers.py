"""How many times as fast as its official code is each method: data, training step, linear probe, a whole trial?

A peer (benchmarks/peer) does what a method's official code does, and is tested against that code's numbers. Both sides
run in this process in turns, on the same generated clips of one memory map, a second body in every fifth clip.

    python -m benchmarks.peers                                    # all methods, on one CPU thread
    python -m benchmarks.peers --parts step --methods pstl cmd --rounds 5 --json peers.json
    python -m benchmarks.peers --device cuda --sizes published    # published batches and widths
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks import timing
from benchmarks.peer import PEERS, peer_of, probe
from benchmarks.peer.base import Peer, loader, train_epoch
from benchmarks.peer.checks import all_checks
from benchmarks.peer.setup import PAPERS, TABLE, Bench, Index, at_stage, recorded_options, scaled_config
from methods.base import Stage
from methods.registry import get_method
from methods.training.branches import Branches
from methods.training.clips import ClipStore
from methods.training.config import TrialConfig
from methods.training.evaluate import validate
from methods.training.features import spread
from methods.training.pretrain import SPREAD_CLIPS, _one_epoch, pretrain
from methods.training.probe import ProbeConfig
from methods.training.seeds import generator

Row = dict[str, Any]

PARTS = {"data": 1.0, "step": 7.0, "probe": 1.5, "trial": 2.5}  # part -> its share of the time that is given
TARGETS = {"data": 4.0, "equal math": 1.0, "recorded options": 2.0, "probe": 100.0, "trial": 3.0}
PASSES = 4  # passes over the training clips in one turn of data
WHOLE = "skeletonclr"  # what probe and trial are measured with: its encoder is the family's
TRIAL_EPOCHS, PROBED_AT, TRIAL_STEPS = 9, (1, 3, 9), 4  # of so many steps or more
PEER, EQUAL, RECORDED = "peer", "equal math", "recorded options"
# Methods whose encoder is the family's ST-GCN: what recorded options promise is promised for these.
GRAPH_FAMILY = tuple(name for name in PEERS if name not in ("scdnet", "cmd", "crrl"))


@dataclass
class Found:
    """What is measured so far; ``missing``: method -> why there is no row of it."""

    rows: list[Row] = field(default_factory=list)
    checks: list[dict[str, Any]] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    def add(self, rows: Sequence[Row], **more: Any) -> None:
        """Keep rows with whatever tells them apart, and say that they are there."""
        for row in rows:
            self.rows.append(row | more)
            print(f"{row['part']}, {row['side']}: {row['ratio']['median']:.2f}", file=sys.stderr, flush=True)


def find_peer(method: str, found: Found) -> type[Peer] | None:
    """The peer of a method; None, and a note in ``found``, while its module does not exist."""
    try:
        return peer_of(method)
    except ModuleNotFoundError as error:
        if error.name != f"benchmarks.peer.{PEERS[method][0]}":
            raise
        found.missing[method] = "no peer"
        return None


# Official codes that make their views in the step, from whole batches: how that is done.
IN_STEP: Mapping[str, Callable[..., object]] = {
    "skeletonbt": lambda peer, clips: (peer.ordinary(clips), peer.ordinary(clips)),
    "pstl": lambda peer, clips: (
        peer.ordinary(clips), peer.slow(peer.ordinary(clips)), peer.ordinary(clips), peer.central()
    ),
}  # fmt: skip


# --- data -----------------------------------------------------------------------------------------------------------


def measure_data(bench: Bench, args: argparse.Namespace, found: Found, seconds: float) -> None:
    """Every view of each training clip, on the device, batch by batch, in published batches: no network runs."""
    begun = time.perf_counter()
    for left, method in countdown(args.methods):
        cls = find_peer(method, found)
        if cls is None:
            continue
        config, _ = scaled_config(method, args.sizes, frames=args.frames, width=args.width)
        batch = args.batch or min(get_method(method).recipe.optim.batch, len(bench.train))
        clips, index = bench.clips(config.frames), bench.train[: len(bench.train) // batch * batch]
        share = (seconds - (time.perf_counter() - begun)) / left
        try:
            sides = data_sides(bench, config, cls, index, batch)
        except NotImplementedError as error:
            found.missing[method] = f"not at these sizes: {error}"
            continue
        turns = timing.interleave(sides, rounds=args.rounds, seconds=share, device=bench.device)
        note = f"T {clips.data.shape[2]}, batch {batch}"
        rows = [timing.row(f"data: {method}", name, PASSES * len(index), t, turns[PEER]) for name, t in turns.items()]
        found.add(rows, method=method, kind="data", target=TARGETS["data"], sizes=note)


def data_sides(
    bench: Bench, config: TrialConfig, cls: type[Peer], index: Index, batch: int
) -> dict[str, Callable[[], object]]:
    """Both sides over clips ``index``, ``PASSES`` times."""
    clips = bench.clips(config.frames)
    feed = loader(cls.views(config, clips.layout, clips.data, index), batch)
    model = Branches(config, clips.layout, 0, persons=clips.data.shape[4]).to(bench.device)
    store, draws = ClipStore(clips, bench.device), generator(bench.device, "views")
    branch: Any = next(iter(model.branches.values()))
    in_step = IN_STEP.get(config.method)
    network = cls(config, clips.layout, clips.data.shape[4]) if in_step else None

    def views(part: Tensor) -> object:
        # Streams that are derived from finished views are the step's work on either side.
        if branch.streams_derived == "after_views":
            return branch.make_views(store.take(part), model.policy, draws)
        return model.views(store.take(part), draws)

    def peer() -> None:
        for _ in range(PASSES):
            for batch_of_views in feed:
                moved = [(v.float() if v.is_floating_point() else v).to(bench.device) for v in batch_of_views]
                if in_step:
                    in_step(network, *moved)

    def ours() -> None:
        for _ in range(PASSES):
            for part in torch.from_numpy(index)[torch.randperm(len(index))].split(batch):
                views(part)

    return {PEER: peer, "ours": ours}


# --- step -----------------------------------------------------------------------------------------------------------


def measure_step(bench: Bench, args: argparse.Namespace, found: Found, seconds: float) -> None:
    """Load, augment, forward, backward, optimiser, momentum, queue: an epoch of ``--steps`` batches a turn."""
    begun = time.perf_counter()
    stages = [(m, stage) for m in args.methods for stage in get_method(m).cls.stages(scaled(args, m)[0].params)]
    for left, (method, stage) in countdown(stages):
        cls = find_peer(method, found)
        if cls is None:
            continue
        config, sizes = scaled(args, method)
        share = (seconds - (time.perf_counter() - begun)) / left
        index = bench.some(args.steps * config.optim.batch, bench.train)
        try:
            sides, options = step_sides(bench, config, cls, stage, index)
        except NotImplementedError as error:
            found.missing[method] = f"not at these sizes: {error}"
            continue
        turns = timing.interleave(sides, rounds=args.rounds, seconds=share, device=bench.device)
        second = int(bench.two_persons[index].sum())
        sizes = f"T {config.frames}, {sizes}; second bodies {second} of {len(index)}"
        for name, mine in turns.items():
            row = timing.row(f"step: {method}, {stage.name}", name, len(index), mine, turns[PEER])
            promised = name == EQUAL or method in GRAPH_FAMILY
            found.add([row], method=method, stage=stage.name, kind=name, target=TARGETS.get(name) if promised else None,
                      sizes=sizes, options=options)  # fmt: skip


def step_sides(
    bench: Bench, config: TrialConfig, cls: type[Peer], stage: Stage, index: Index
) -> tuple[dict[str, Callable[[], object]], str]:
    """The peer, ours with equal arithmetic, and ours with the recorded options, which are named."""
    recorded, options = recorded_options(config, bench.device)
    variants = {EQUAL: config} | ({RECORDED: recorded} if options else {})
    runs = {name: bench.run(variant, index) for name, variant in variants.items()}
    progress = max(at_stage(run, stage.start) for run in runs.values())  # the same for all
    clips = bench.clips(config.frames)
    peer = cls(config, clips.layout, clips.data.shape[4]).to(bench.device)
    solver = peer.solver()
    feed = loader(cls.views(config, clips.layout, clips.data, index), config.optim.batch)
    sides: dict[str, Callable[[], object]] = {PEER: lambda: train_epoch(peer, solver, feed, bench.device, progress)}
    for name, run in runs.items():
        # The steps alone: what pretrain() looks at between epochs would weigh far too much in an epoch so short.
        sides[name] = lambda run=run: _one_epoch(run)  # type: ignore[misc]
    return sides, options


# --- probe ----------------------------------------------------------------------------------------------------------


def measure_probe(bench: Bench, args: argparse.Namespace, found: Found, seconds: float) -> None:
    """A whole linear probe: fit on the training clips, score those of the other subjects.

    The peer's is measured as one epoch and one test pass a round, of at least three rounds, and multiplied out.
    """
    cls = find_peer(WHOLE, found)
    if cls is None:
        return
    config, _ = scaled(args, WHOLE)
    batch = config.optim.batch
    train = bench.some(len(bench.train) // batch * batch, bench.train)  # the peer's loader drops what is left over
    run = bench.run(config, train[:batch])
    peer = cls(config, run.store.clips.layout, run.store.clips.data.shape[4]).to(bench.device)
    their_epoch, their_test = peer_probe(bench, config, peer, train)
    split = bench.split(train)
    sgd = ProbeConfig(solver="sgd", sgd_epochs=probe.EPOCHS, sgd_batch=batch)
    probes = {
        "ours, L-BFGS (default)": ProbeConfig(),
        "ours, the papers' SGD": sgd,
        "ours, L-BFGS, statistics not settled": ProbeConfig(settle=False),
    }
    sides: dict[str, Callable[[], object]] = {"epoch": their_epoch, "test": their_test}
    for name, own in probes.items():
        sides[name] = lambda own=own: validate(run.model, run.store, split, own)  # type: ignore[misc]
    recorded, options = recorded_options(config, bench.device)
    if options:
        fast = bench.run(recorded, train[:batch])
        sides[f"ours, L-BFGS, {RECORDED}"] = lambda: validate(fast.model, fast.store, split, ProbeConfig())
    turns = timing.interleave(sides, rounds=max(3, args.rounds), seconds=seconds, device=bench.device)
    while len(turns["epoch"].wall) < 3:  # time was up before
        for name, side in sides.items():
            timing._one_turn(side, turns[name], bench.device)
    epoch, test = turns.pop("epoch"), turns.pop("test")
    count = len(epoch.wall)
    whole = timing.Turns(multiplied(epoch.wall, test.wall), multiplied(epoch.cpu, test.cpu))
    notes = {
        PEER: f"ESTIMATED: {probe.EPOCHS} epochs, {probe.EPOCHS // probe.TEST_EVERY} test passes, from {count} of each",
        "ours, L-BFGS (default)": "another probe than the papers': standardised features, converged; not estimated",
        "ours, the papers' SGD": f"{probe.EPOCHS} epochs on cached features, settled batch norms; not estimated",
        "ours, L-BFGS, statistics not settled": "what settling costs is the difference to the default",
        f"ours, L-BFGS, {RECORDED}": f"{options}: other features",
    }
    sizes = f"{WHOLE}'s encoder, T {config.frames}, {len(train)} clips to fit, {len(bench.held)} to score"
    found.add(
        [timing.row("probe", name, len(train) + len(bench.held), mine, whole, notes[name])
         for name, mine in {PEER: whole, **turns}.items()],
        method=WHOLE, kind="probe", target=TARGETS["probe"], sizes=sizes, estimated_from_epochs=count,
    )  # fmt: skip


def peer_probe(
    bench: Bench, config: TrialConfig, peer: Peer, train: Index
) -> tuple[Callable[[], object], Callable[[], object]]:
    """One epoch of the official linear evaluation over clips ``train``, and one pass over the held ones."""
    clips, batch = bench.clips(config.frames), config.optim.batch
    backbone = peer.backbone().to(bench.device)
    head = nn.Linear(config.encoder.dim, clips.num_classes).to(bench.device)
    solver = torch.optim.SGD(head.parameters(), lr=probe.RATE, momentum=0.9, foreach=False)
    fit: Any = DataLoader(probe.Labelled(clips.data, clips.labels, train), batch, shuffle=True, drop_last=True)
    judge: Any = DataLoader(probe.Labelled(clips.data, clips.labels, bench.held), batch)
    return (
        lambda: probe.probe_epoch(backbone, head, solver, fit, bench.device),
        lambda: probe.probe_test(backbone, head, judge, bench.device),
    )


def multiplied(epochs: Sequence[float], tests: Sequence[float]) -> list[float]:
    """What whole evaluations take, from pairs of one epoch and one test pass."""
    passes = probe.EPOCHS // probe.TEST_EVERY
    return [probe.EPOCHS * e + passes * t for e, t in zip(epochs, tests, strict=True)]


# --- trial ----------------------------------------------------------------------------------------------------------


def measure_trial(bench: Bench, args: argparse.Namespace, found: Found, seconds: float) -> None:
    """A short trial from its first step to its last probe, epoch by epoch in turns; nothing is warmed up.

    Ours is run whole, with what it looks at between epochs. The peer's probes are one epoch and one test pass at each
    probed epoch, multiplied out.
    """
    cls = find_peer(WHOLE, found)
    if cls is None:
        return
    config, sizes = scaled(args, WHOLE)
    config = replace(config, epochs=TRIAL_EPOCHS)
    index = bench.some(max(TRIAL_STEPS, args.steps) * config.optim.batch, bench.train)
    split, clips = bench.split(index), bench.clips(config.frames)
    recorded, options = recorded_options(config, bench.device)
    variants = {EQUAL: config} | ({RECORDED: recorded} if options else {})
    runs = {name: bench.run(variant, index) for name, variant in variants.items()}
    epochs = {name: pretrain(run) for name, run in runs.items()}
    peer = cls(config, clips.layout, clips.data.shape[4]).to(bench.device)
    solver = peer.solver()
    feed = loader(cls.views(config, clips.layout, clips.data, index), config.optim.batch)
    trained = {name: timing.Turns() for name in (PEER, *runs)}
    probed = {name: timing.Turns() for name in ("epoch", "test", *runs)}

    def timed(side: Callable[[], object], turns: timing.Turns) -> None:
        timing._one_turn(side, turns, bench.device)

    for number in range(1, TRIAL_EPOCHS + 1):
        progress = (number - 1) / TRIAL_EPOCHS
        timed(lambda at=progress: train_epoch(peer, solver, feed, bench.device, at), trained[PEER])  # type: ignore[misc]
        for name in runs:
            timed(lambda name=name: next(epochs[name]), trained[name])  # type: ignore[misc]
        if number in PROBED_AT:
            their_epoch, their_test = peer_probe(bench, config, peer, index)
            timed(their_epoch, probed["epoch"])
            timed(their_test, probed["test"])
            for name, run in runs.items():
                timed(lambda run=run: validate(run.model, run.store, split, ProbeConfig()), probed[name])  # type: ignore[misc]
    dear = timing.Turns(
        multiplied(probed["epoch"].wall, probed["test"].wall), multiplied(probed["epoch"].cpu, probed["test"].cpu)
    )
    count, words = len(PROBED_AT), {EQUAL: "float32, all bodies", RECORDED: options}
    notes = {
        PEER: f"ESTIMATED: {TRIAL_EPOCHS} epochs as measured, {count} probes of {probe.EPOCHS} epochs from {count}"
    }
    watched = torch.from_numpy(index[:SPREAD_CLIPS])
    for name, run in runs.items():
        training, looking = sum(trained[name].wall), timing.Turns()
        timed(lambda run=run: spread(run.model, run.store, watched), looking)  # type: ignore[misc]
        notes[name] = (
            f"{words[name]}; its {count} probes took {sum(probed[name].wall) / training:.1%} of its training time, of "
            f"which looking at {len(watched)} clips after each of {TRIAL_EPOCHS} epochs was about "
            f"{TRIAL_EPOCHS * looking.wall[0] / training:.1%}; not estimated"
        )
    whole = {PEER: total(trained[PEER], dear)} | {n: total(trained[n], probed[n]) for n in runs}
    without = {PEER: total(trained[PEER])} | {name: whole[name] for name in runs}
    samples = TRIAL_EPOCHS * len(index)
    sizes = f"{WHOLE}, T {config.frames}, {sizes}, {len(index)} clips an epoch, {len(bench.held)} to score"
    for title, sides, kind, remarks in (
        ("trial", whole, "trial", notes),
        ("trial, peer's probes left out", without, "trial without the peer's probes", {}),
        ("trial, all probes left out", {n: total(t) for n, t in trained.items()}, "trial without probes", {}),
    ):
        target = TARGETS["trial"] if kind == "trial" else None
        for name, mine in sides.items():
            row = timing.row(title, name, samples, mine, sides[PEER], remarks.get(name, ""))
            found.add([row], method=WHOLE, kind=kind, target=target, sizes=sizes)


def total(*turns: timing.Turns) -> timing.Turns:
    """All of it as one turn."""
    return timing.Turns([sum(sum(t.wall) for t in turns)], [sum(sum(t.cpu) for t in turns)])


# --- what is told ---------------------------------------------------------------------------------------------------


def summary(found: Found, args: argparse.Namespace) -> list[str]:
    """The ratios against their targets, a table a part; columns that compute different things are never one."""
    lines = []
    if "data" in args.parts:
        lines += ["## Data: loading and augmentation", "", "| method | times as fast | sizes |", "|---|---|---|"]
        for method in args.methods:
            rows = [r for r in ours(found, "data") if r["method"] == method]
            lines += [f"| {method} | {verdict(r)} | {r['sizes']} |" for r in rows] or [absent(found, method)]
        lines += ["", f"All views of a clip, without a network. Target: {TARGETS['data']:g}.", ""]
    if "step" in args.parts:
        lines += ["## Training step", ""]
        lines += [f"| method | stage | {EQUAL} (float32, all bodies) | {RECORDED} | which |", "|---|---|---|---|---|"]
        sizes: dict[str, str] = {}
        for method in args.methods:
            rows = [r for r in ours(found, EQUAL) if r["method"] == method]
            lines += [step_line(found, r) for r in rows] or [absent(found, method)]
            sizes |= {method: rows[0]["sizes"]} if rows else {}
        lines += ["", f"Targets: {TARGETS[EQUAL]:g} everywhere in the first column; {TARGETS[RECORDED]:g} for the"]
        lines += ["ST-GCN family in the second, which is another function (no absent bodies, lower precision).", ""]
        lines += [*(f"- {method}: {words}" for method, words in sizes.items()), ""]
    for kind, title in (("probe", "Linear probe"), ("trial", "Whole trial")):
        if ours(found, kind):
            rows = [r for name in (kind, f"{kind} without the peer's probes", f"{kind} without probes")
                    for r in ours(found, name)]  # fmt: skip
            lines += [f"## {title}", "", f"Sizes: {rows[0]['sizes']}.", ""]
            lines += ["| what | side | times as fast | target |", "|---|---|---|---|"]
            lines += [f"| {r['part']} | {r['side']} | {verdict(r)} | {'' if r['target'] is None else r['target']} |"
                      for r in rows]  # fmt: skip
            lines += ["", *(f"- {r['side']}: {r['note']}" for r in found.rows if r["kind"] == kind and r["note"]), ""]
    return lines


def ours(found: Found, kind: str) -> list[Row]:
    return [row for row in found.rows if row["kind"] == kind and row["side"] != PEER]


def step_line(found: Found, equal: Row) -> str:
    """A method's stage: both columns, the options by name."""
    same = [r for r in ours(found, RECORDED) if (r["method"], r["stage"]) == (equal["method"], equal["stage"])]
    second, which = (verdict(same[0]), same[0]["options"]) if same else ("", "none")
    return f"| {equal['method']} | {equal['stage']} | {verdict(equal)} | {second} | {which} |"


def absent(found: Found, method: str) -> str:
    """Why a method has no row."""
    return f"| {method} | {found.missing.get(method, 'not measured')} |"


def verdict(row: Row) -> str:
    """The median ratio with its range, by the wall, and whether it missed what was promised."""
    r = row["ratio"]
    missed = row["target"] is not None and r["median"] < row["target"]
    spread = f" ({r['min']:.2f} to {r['max']:.2f})" if row["rounds"] > 1 else ""
    return f"**{r['median']:.2f}**{spread}" + (f", below {row['target']:g}" if missed else "")


# --- the command ----------------------------------------------------------------------------------------------------


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--methods", nargs="+", choices=tuple(PEERS), default=list(PEERS), metavar="METHOD")
    parser.add_argument("--parts", nargs="+", choices=tuple(PARTS), default=list(PARTS), metavar="PART",
                        help=f"any of {', '.join(PARTS)}")  # fmt: skip
    parser.add_argument("--sizes", choices=(TABLE, PAPERS), help="default: the table's on a CPU, published on a GPU")
    parser.add_argument("--batch", type=int, help="clips a step, in place of the table's")
    parser.add_argument("--frames", type=int, help="T (default: what each method publishes)")
    parser.add_argument("--width", type=int, help="first stage of ST-GCN, published 16; all other widths in proportion")
    parser.add_argument("--clips", type=int, default=300, help="at least so many generated clips, 60 %% of them train")
    parser.add_argument("--steps", type=int, help="steps in one timed turn (default: 1 on a CPU, 20 on a GPU)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side")
    parser.add_argument("--seconds", type=float, default=1000.0, help="no further round once about so many are used up")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch")
    parser.add_argument("--json", type=Path, help="also write everything measured to this file")
    args = parser.parse_args(arguments)
    args.device = args.device if args.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    gpu = args.device.startswith("cuda")
    args.sizes = args.sizes or (PAPERS if gpu else TABLE)
    args.steps = args.steps if args.steps is not None else 20 if gpu else 1
    counts = [args.rounds, args.threads, args.clips, args.steps, args.width or 1, (args.batch or 4) - 3]
    if min(counts) < 1 or (args.frames or 8) < 8:
        parser.error("--batch must be at least 4, --frames 8, the other counts 1")
    args.parts = [part for part in PARTS if part in args.parts]
    return args


def scaled(args: argparse.Namespace, method: str) -> tuple[TrialConfig, str]:
    """A method's configuration at the sizes that were asked for, and in words what of it is not as published."""
    return scaled_config(method, args.sizes, args.batch, args.frames, args.width)


def countdown(items: Sequence[Any]) -> list[tuple[int, Any]]:
    """Each item with how many are still to come, itself included."""
    return [(len(items) - i, item) for i, item in enumerate(items)]


def enough_clips(args: argparse.Namespace) -> int:
    """As many as the longest turn wants; three in five train."""
    batches: list[int] = [scaled(args, method)[0].optim.batch for method in (*args.methods, WHOLE)]
    steps: int = max(args.steps, TRIAL_STEPS if "trial" in args.parts else 1)
    return max(int(args.clips), -(-max(batches) * steps * 10 // 6))


MEASURES: Mapping[str, Callable[[Bench, argparse.Namespace, Found, float], None]] = {
    "data": measure_data, "step": measure_step, "probe": measure_probe, "trial": measure_trial
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, measure, print Markdown; 1 when the two sides disagree, for then no ratio means anything."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    args = parse(given)
    torch.set_num_threads(args.threads)
    load_before = list(os.getloadavg())
    for seed in (random.seed, np.random.seed, torch.manual_seed):  # the peers draw from all three
        seed(0)
    found, begun = Found(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(enough_clips(args), Path(folder), torch.device(args.device))
        if WHOLE in args.methods or {"probe", "trial"} & set(args.parts):
            found.checks = all_checks(bench, scaled(args, WHOLE)[0])
        lines = check_lines(found, args)
        if not all(check["agree"] for check in found.checks):
            print("\n".join(lines))
            return 1
        for part in args.parts:
            left = args.seconds - (time.perf_counter() - begun)
            coming = sum(PARTS[other] for other in args.parts[args.parts.index(part) :])
            MEASURES[part](bench, args, found, left * PARTS[part] / coming)  # what one leaves, the next may use
        told = timing.report("peers", "benchmarks.peers", given, settings(args, bench), bench.device, found.rows,
                             checks=found.checks, missing=found.missing, load_before=load_before)  # fmt: skip
    timed_rows = ["## All sides", "", *timing.table(found.rows)] if found.rows else []
    told_lines = [*lines, "", *summary(found, args), *timed_rows]
    timing.publish(told, told_lines, args.json, "Each method beside its official code")
    return 0


def check_lines(found: Found, args: argparse.Namespace) -> list[str]:
    """What was held against what before the clock ran."""
    lines = []
    for check in found.checks:
        word = "agree" if check["agree"] else "DO NOT AGREE"
        told = f"difference {check['difference']:.1e} (limit {check['limit']:.0e})"
        lines.append(f"- {WHOLE}, both sides {word}: {check['what']}, {told}")
    others = [method for method in args.methods if method != WHOLE]
    if others:
        where = "tests/benchmarks/test_peer_parity*.py and tests/methods/test_reference.py"
        lines.append(f"- {', '.join(others)}: both sides equal the official code's recorded numbers in {where}")
    return lines


def settings(args: argparse.Namespace, bench: Bench) -> dict[str, Any]:
    """What was measured, in words that a reader can repeat."""
    return {
        "sizes": args.sizes,
        "clips": len(bench.raw),
        "train_clips": len(bench.train),
        "clips_with_a_second_body": round(float(bench.two_persons.mean()), 3),
        "loader_workers": 0,
        "steps_a_turn": args.steps,
        "rounds_at_most": args.rounds,
        "seconds_at_most": args.seconds,
    }


if __name__ == "__main__":
    sys.exit(main())
