"""What do the probes of a trial cost beside its training, and in passes over the clips?

    python -m benchmarks.probe_cost                                # SkeletonCLR and CRRL, 9 epochs, rungs 1, 3, 9
    python -m benchmarks.probe_cost --clips 6 --subset 0 300 100 --precision bf16 --json probe_cost.json

A trial as a search runs it: on generated skeletons, with held-out subjects, from its first step to its last probe. All
settings of a method (``--subset`` times ``--precision``) probe the very same models. Shares are of CPU time. Ladders
longer than what was trained are arithmetic, and are marked so: the seconds of an epoch and of a rung, multiplied out.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import timing
from methods.api import clips_of
from methods.data import Split, make_split, open_dataset
from methods.data.preprocess import DEFAULT_STEPS
from methods.data.synthetic import SyntheticConfig, write_synthetic
from methods.nn.encoder import EncoderConfig
from methods.nn.gru import GruConfig
from methods.training.clips import Clips
from methods.training.config import TrialConfig, published, with_settings
from methods.training.evaluate import validate
from methods.training.features import extract
from methods.training.pretrain import Run, pretrain, start
from methods.training.probe import ProbeConfig
from tuning.config.schema import ScheduleSpec

Row = dict[str, Any]

METHODS = ("skeletonclr", "crrl")
TARGET = 0.05  # of a trial's training
LONGER = (27, 81, 300)  # epochs of the ladders that are multiplied out: a ninth, a third, all
# Encoders that two cores train in minutes; the rest of a method is as published, but for queues as long as the data.
SMALLER: Mapping[type[Any], Mapping[str, Any]] = {
    EncoderConfig: {"encoder.width": 8, "encoder.dim": 128, "encoder.init": "torch", "encoder.input_norm": "scale"},
    GruConfig: {"encoder.hidden": 128, "encoder.input_norm": "scale"},
}
OPTIM = {"optim.name": "adam", "optim.lr": 1e-3, "optim.batch": 32, "optim.weight_decay": 0.0}


@dataclass
class Timed:
    """CPU seconds of one setting's probes by epoch, what they scored, and how many clips each was fitted on."""

    probe: ProbeConfig
    seconds: dict[int, float] = field(default_factory=dict)
    top1: dict[int, float] = field(default_factory=dict)
    fitted_on: dict[int, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        part = f"subset {self.probe.subset}" if self.probe.subset else "all clips"
        return part if self.probe.precision == "fp32" else f"{part}, {self.probe.precision}"


def build(per_cell: int, frames: int, folder: Path) -> tuple[Clips, Split]:
    """150 generated clips for each of ``per_cell`` (ten subjects, fifteen actions), split as in a search."""
    if not (folder / "data").exists():
        write_synthetic(folder / "data", SyntheticConfig(cameras=1, clips_per_cell=per_cell))
    dataset = open_dataset(folder / "data")
    return clips_of(dataset, frames, DEFAULT_STEPS), make_split(dataset, "xsub", "auto", seed=0)


def settings_of(method: str, epochs: int, frames: int, wide: bool) -> TrialConfig:
    """The method, of a size for this machine; ``wide``: its published encoder."""
    config = replace(published(method, epochs), frames=frames)
    changes = dict(OPTIM) | ({} if wide else dict(SMALLER.get(type(config.encoder), {})))
    if hasattr(config.params, "queue"):
        changes["queue"] = 256
    return with_settings(config, changes)


def cpu(begun: float) -> float:
    return time.process_time() - begun


def measure(method: str, clips: Clips, split: Split, args: argparse.Namespace) -> list[Row]:
    """One trial of a method, probed at its rungs by every setting."""
    config = settings_of(method, args.epochs, clips.data.shape[2], args.published)
    probes = [
        Timed(ProbeConfig(l2=0.01, subset=subset, precision=precision))
        for subset in args.subset
        for precision in args.precision
    ]
    run = start(config, clips, split.train, seed=0)
    epochs: list[float] = []
    passes: list[float] = []
    loop, begun = pretrain(run), time.process_time()
    for epoch in loop:
        epochs.append(cpu(begun))
        if epoch.epoch in args.rungs:
            passes.append(one_pass(run, split))
            for timed in probes:
                probe(timed, run, split, below_top=epoch.epoch < args.rungs[-1])
        begun = time.process_time()
    return [row(method, timed, epochs, statistics.median(passes), split, args.rungs) for timed in probes]


def one_pass(run: Run, split: Split) -> float:
    """CPU seconds of the frozen encoder over the clips that a probe is fitted on and scores."""
    index = torch.as_tensor(np.concatenate([split.train, split.validation]))
    begun = time.process_time()
    extract(run.model, run.store, index, None)
    return cpu(begun)


def probe(timed: Timed, run: Run, split: Split, below_top: bool) -> None:
    begun = time.process_time()
    found = validate(run.model, run.store, split, timed.probe, seed=run.seed, below_top=below_top)
    timed.seconds[run.epoch] = cpu(begun)
    timed.top1[run.epoch], timed.fitted_on[run.epoch] = found.top1, found.fitted_on


def row(method: str, timed: Timed, epochs: Sequence[float], one: float, split: Split, rungs: Sequence[int]) -> Row:
    """What one setting cost in a trial that reached the top."""
    training, probing = sum(epochs), sum(timed.seconds.values())
    top = timed.seconds[rungs[-1]]
    below = [timed.seconds[rung] for rung in rungs[:-1]]
    epoch = statistics.median(epochs)
    return {
        "method": method,
        "probe": timed.name,
        "share": probing / training,
        "training_s": training,
        "epoch_s": epoch,
        "rungs_s": {str(rung): timed.seconds[rung] for rung in rungs},
        "pass_s": one,
        "passes": {str(rung): timed.seconds[rung] / one for rung in rungs},
        "fitted_on": {str(rung): timed.fitted_on[rung] for rung in rungs},
        "top1": {str(rung): timed.top1[rung] for rung in rungs},
        "clips": [len(split.train), len(split.validation)],
        "arithmetic": {str(most): longer(most, epoch, statistics.fmean(below or [top]), top) for most in LONGER},
    }


def longer(most: int, epoch: float, below: float, top: float) -> float:
    """The share in a full run of ``most`` epochs on the default ladder: arithmetic, not a measurement."""
    rungs = ScheduleSpec.model_validate({"max": most}).rungs()
    return (below * (len(rungs) - 1) + top) / (epoch * most)


def lines(rows: Sequence[Row]) -> list[str]:
    """A table of what was measured, and one of arithmetic."""
    rungs = list(rows[0]["rungs_s"])
    told = [
        f"| method | probe | share of training | epoch, s | probes at {', '.join(rungs)}, s | in passes | fitted on | "
        "top-1 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        seconds, passes, top1 = (
            ", ".join(form.format(v) for v in r[key].values())
            for key, form in (("rungs_s", "{:.2f}"), ("passes", "{:.2f}"), ("top1", "{:.2f}"))
        )
        fitted = ", ".join(map(str, r["fitted_on"].values()))
        mark = "" if r["share"] < TARGET else f" (target {TARGET:.0%}: missed)"
        told.append(
            f"| {r['method']} | {r['probe']} | **{r['share']:.1%}**{mark} | {r['epoch_s']:.2f} | {seconds} | {passes} "
            f"| {fitted} | {top1} |"
        )
    train, held = rows[0]["clips"]
    told += [
        "",
        f"A pass: the frozen encoder over the {train} clips to fit on and the {held} to score, nothing settled.",
        "",
        "ARITHMETIC, not measured: the share on longer ladders, from the seconds above.",
        "",
        f"| method | probe | {' | '.join(f'{most} epochs' for most in LONGER)} |",
        "|---|---|" + "---|" * len(LONGER),
    ]
    for r in rows:
        shares = " | ".join(f"{share:.2%}" for share in r["arithmetic"].values())
        told.append(f"| {r['method']} | {r['probe']} | {shares} |")
    return told


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    words = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.probe_cost", description=words)
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--clips", type=int, default=4, help="generated clips: 150 times so many")
    parser.add_argument("--frames", type=int, default=50, help="T")
    parser.add_argument("--epochs", type=int, default=9, help="of a full run, which is trained")
    parser.add_argument("--rungs", type=int, nargs="+", help="default: 1, 3 and so on, and the last epoch")
    parser.add_argument("--subset", type=int, nargs="+", default=[0, 100], help="probe.subset; 0: all clips")
    parser.add_argument("--precision", nargs="+", default=["fp32"], choices=("fp32", "bf16"))
    parser.add_argument("--published", action="store_true", help="encoders of published size")
    parser.add_argument("--json", type=Path, help="also write everything measured to this file")
    args = parser.parse_args(arguments)
    if args.clips < 1 or args.epochs < 1:
        parser.error("--clips and --epochs are at least 1")
    if args.rungs is None:
        args.rungs = [3**k for k in range(9) if 3**k < args.epochs]
    args.rungs = sorted({*args.rungs, args.epochs})
    if not 1 <= args.rungs[0] <= args.rungs[-1] <= args.epochs:
        parser.error(f"--rungs lie between 1 and --epochs ({args.epochs})")
    return args


def main(arguments: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    args = parse(given)
    torch.set_num_threads(1)
    load = list(os.getloadavg())
    with tempfile.TemporaryDirectory(prefix="skeltune-bench-") as folder:
        clips, split = build(args.clips, args.frames, Path(folder))
        rows = [found for method in args.methods for found in measure(method, clips, split, args)]
    settings = {key: value for key, value in vars(args).items() if key != "json"}
    told = timing.report(
        "probe_cost", "benchmarks.probe_cost", given, settings, torch.device("cpu"), rows, load_before=load
    )
    timing.publish(told, lines(rows), args.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
