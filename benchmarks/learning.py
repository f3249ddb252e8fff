"""Does every method learn? What a short pretraining adds to the very encoder that it began as, on unseen subjects.

    python -m benchmarks.learning --data generated --out generated.jsonl     # two data sets, two cores: one each
    python -m benchmarks.learning --data utd_mhad --out utd_mhad.jsonl --resume
    python -m benchmarks.learning --table generated.jsonl utd_mhad.jsonl     # the tables again, nothing runs

Each run is probed before its first step and after its last, by the same probes on the same held-out subjects, batch
norm settled the same way; the lift of a seed is the difference. Seed s draws weights, order and views, and holds out
the s-th group of the *training* subjects, whom neither pretraining nor the fit of a probe sees. The test side of the
split is never read. Every run is a line of JSON as soon as it ends, failures too.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import timing
from benchmarks.baselines import nearest_neighbour
from methods.api import clips_of
from methods.data import SkeletonDataset, Split, make_split, open_dataset
from methods.data.preprocess import DEFAULT_STEPS
from methods.errors import InputError
from methods.nn.encoder import EncoderConfig
from methods.nn.gru import GruConfig
from methods.nn.twopath import TwoPathConfig
from methods.registry import get_method, list_methods
from methods.training import evaluate
from methods.training.clips import Clips
from methods.training.config import TrialConfig, published, with_settings
from methods.training.features import extract
from methods.training.pretrain import Epoch, Run, TrialEnded, pretrain, start
from methods.training.probe import ProbeConfig, probe_held_out
from tuning.datasets import converted_path, synthetic_path

Row = dict[str, Any]

# --- what is run: fixed before the first run, the same rules for all methods ------------------------------------------

FRAMES, BATCH = 16, 32
# Published rates are of runs of 20,000 steps and more; what both shipped search spaces use in their place.
OPTIM: Mapping[str, Any] = {"name": "adam", "batch": BATCH, "schedule": "cosine", "warmup": 0.05}
# The rate in the middle of those spaces; a tenth of ST-GCN's is published for recurrence and attention, here a half.
LR: Mapping[type[Any], float] = {EncoderConfig: 2e-3, GruConfig: 1e-3, TwoPathConfig: 1e-3}
ENCODERS: Mapping[type[Any], Mapping[str, Any]] = {
    # input_norm, init, bodies: as in those spaces (docs/fidelity.md says why); pooling as published
    EncoderConfig: {
        "width": 8, "dim": 64, "depth": 3, "dropout": 0.0, "init": "torch", "input_norm": "scale", "bodies": "real"
    },
    GruConfig: {"hidden": 64, "layers": 2, "dropout": 0.0},
    TwoPathConfig: {"base": 4, "d_model": 64, "heads": 4, "dropout": 0.0},
}  # fmt: skip
# Whichever of these a method has. 0.999 remembers 1,000 steps and a queue of 32,768 is a hundred times the data.
PARAMS: Mapping[str, Any] = {
    "queue": 256, "momentum": 0.99, "hidden": 128, "projection": 64, "projector_norm": True
}  # fmt: skip
WIDE = {"hidden": 256, "projection": 128}  # networks without a queue have wider heads, as published
BARLOW = {"projection": 256, "off_diagonal": 2e-4 * 6144 / 256}  # lambda goes with 1 / projection
OWN: Mapping[str, Mapping[str, Any]] = {
    "skeletonbyol": WIDE,
    "cmal": WIDE,
    "cmcs": WIDE,
    "skeletonbt": BARLOW,
    "pstl": BARLOW,
    "cmd": {"encoder.input_norm": "scale"},  # the same lesson as for ST-GCN
    "crrl": {"queue": 64},  # as published
}
STREAMS = ("joint", "motion")  # of methods that are published with three: a third of the time less
PROBES = {"linear": ProbeConfig(l2=0.01), "knn": ProbeConfig(kind="knn", knn_k=1)}


@dataclass(frozen=True)
class Data:
    """A data set of the benchmark: where it is, and what the shipped search space for it says of its preparation."""

    path: Callable[[], Path]
    preprocess: tuple[str, ...]
    strength: float  # of augmentation: the middle of that space's range


def utd_mhad() -> Path:
    """The converted data set, from utd_mhad.npz in the folder that SKELTUNE_DATA names."""
    return converted_path(Path(os.environ.get("SKELTUNE_DATA", "../shared/data")).resolve() / "utd_mhad.npz")


DATA = {
    "generated": Data(synthetic_path, DEFAULT_STEPS, 0.8),
    "utd_mhad": Data(utd_mhad, ("trim", "unit_scale", "centre_first", "resize"), 0.3),
}


def settings_of(method: str, data: Data, epochs: int, further: Mapping[str, Any] | None = None) -> TrialConfig:
    """The method's published configuration, scaled down by the tables above; ``further`` has the last word."""
    config = published(method, epochs)
    known = {f.name for f in dataclasses.fields(config.params)}
    kind = type(config.encoder)
    changes: dict[str, Any] = {name: value for name, value in PARAMS.items() if name in known}
    changes |= {f"encoder.{name}": value for name, value in ENCODERS.get(kind, {}).items()}
    changes |= {f"optim.{name}": value for name, value in OPTIM.items()} | {"optim.lr": LR.get(kind, 1e-3)}
    if len(config.streams.use) > 1:
        changes["streams.use"] = STREAMS
    changes |= {"frames": FRAMES, "preprocess": data.preprocess, "augment.strength": data.strength}
    return with_settings(config, {**changes, **OWN.get(method, {}), **(further or {})})


# --- one run ----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=2)
def opened(name: str) -> tuple[SkeletonDataset, Clips]:
    dataset = open_dataset(DATA[name].path())
    return dataset, clips_of(dataset, FRAMES, DATA[name].preprocess)


def held_out(dataset: SkeletonDataset, seed: int) -> Split:
    """xsub, with the seed's third (at least one) of the training subjects for validation, in order of their ids."""
    whole = evaluate.whole_training(make_split(dataset, "xsub"))
    people = np.unique(np.asarray(dataset.subjects)[whole][:, 0])
    count = max(1, len(people) // 3)
    chosen = [int(people[(seed * count + i) % len(people)]) for i in range(count)]
    return make_split(dataset, "xsub", {"held_out_subjects": chosen})


@contextmanager
def as_probed_at_the_end(run: Run) -> Iterator[None]:
    """The encoder that is probed once all stages are reached: CRRL trains another in its last, and that one is judged.

    Without this its untrained score would be another encoder's.
    """
    flags: list[torch.Tensor] = [b.fused for b in run.model.branches.values() if hasattr(b, "fused")]  # type: ignore[misc]
    kept = [flag.clone() for flag in flags]
    for flag in flags:
        flag.fill_(True)
    try:
        yield
    finally:
        for flag, value in zip(flags, kept, strict=True):
            flag.copy_(value)


def judge(run: Run, split: Split) -> Row:
    """Probe -> top-1 of all streams together, and stream -> top-1 of the linear probe where there are several."""
    both = np.concatenate([split.train, split.validation])
    features = extract(run.model, run.store, torch.as_tensor(both), torch.as_tensor(split.train))
    labels, here, fuse = run.store.clips.labels[both], np.arange(len(both)), run.config.streams.fuse_weights()
    parts = (here[: len(split.train)], here[len(split.train) :])
    folds, classes = evaluate.inner_folds(run.store.clips.subjects[split.train]), run.store.clips.num_classes
    found = {
        name: probe_held_out(features, labels, *parts, folds, classes, probe, fuse) for name, probe in PROBES.items()
    }
    scores: Row = {name: result.top1 for name, result in found.items()}
    streams = found["linear"].streams
    return scores | ({s: top1 for s, (top1, _) in streams.items()} if len(streams) > 1 else {})


def short(epoch: Epoch) -> Row:
    """What explains a run afterwards: is the loss falling, are features or projections all alike?"""
    logs = {key: round(value, 4) for key, value in epoch.logs.items()}
    return {"step": epoch.step, "loss": round(epoch.loss, 4), "spread": round(epoch.spread, 4), **logs}


def measure(name: str, method: str, seed: int, steps: int, further: Mapping[str, Any] | None = None) -> Row:
    """One run: probed, trained for at least ``steps`` steps in whole epochs, probed; a run that ended early too."""
    dataset, clips = opened(name)
    split = held_out(dataset, seed)
    config = settings_of(method, DATA[name], max(1, -(-steps // max(1, len(split.train) // BATCH))), further)
    run = start(config, clips, split.train, seed=seed)
    with as_probed_at_the_end(run):
        before = judge(run, split)
    began, cpu, ended = time.perf_counter(), time.process_time(), ""
    trace: list[Row] = []
    try:
        for epoch in pretrain(run):
            trace.append(short(epoch))
    except TrialEnded as error:
        ended = error.detail
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
    with as_probed_at_the_end(run):
        after = judge(run, split)
    entry = get_method(method)
    return {
        "held_out": np.unique(np.asarray(dataset.subjects)[split.validation][:, 0]).tolist(),
        "clips": [len(split.train), len(split.validation)],
        "before": before,
        "after": after,
        "ended": ended,
        "steps": run.step,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu_seconds, 2),
        "stages": {stage.name: stage.start for stage in entry.cls.stages(config.params)},
        "trace": [trace[i] for i in sorted({0, len(trace) // 2, len(trace) - 1})] if trace else [],
        "config": config.to_dict(),
    }


def run_all(args: argparse.Namespace) -> None:
    """Every run that the file lacks, seeds outermost, so that what a kill leaves is one seed of all methods first."""
    done = {key_of(row) for row in read(args.out)} if args.resume and args.out.exists() else set()
    for name in args.data:
        for seed in range(args.seeds):
            for method in args.methods:
                row: Row = {"data": name, "method": method, "seed": seed, "asked_steps": args.steps, "set": args.set}
                if key_of(row) in done:
                    continue
                try:
                    row |= measure(name, method, seed, args.steps, args.set)
                except Exception as error:  # a method that cannot run is a row of the table, not the end of it
                    row |= {"failed": f"{type(error).__name__}: {error}"}
                with args.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                print(line(row), flush=True)


def key_of(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return (row["data"], label(row), row["seed"], row["asked_steps"])


def label(row: Mapping[str, Any]) -> str:
    """The method, and what --set changed of its settings."""
    return " ".join([row["method"], *(f"{field}={value}" for field, value in row.get("set", {}).items())])


def read(path: Path) -> list[Row]:
    """The rows of a file; a last line that a kill cut short is left out."""
    rows = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return rows


def line(row: Row) -> str:
    start = f"{row['data']:<10} {label(row):<17} seed {row['seed']}  "
    if "failed" in row:
        return start + f"FAILED {row['failed']}"
    told = "  ".join(f"{p} {100 * row['before'][p]:.1f} -> {100 * row['after'][p]:.1f}" for p in PROBES)
    return start + f"{told}  {row['steps']} steps {row['seconds']:.0f} s  {row['ended']}"


# --- the tables -------------------------------------------------------------------------------------------------------

# 97.5 % quantiles of Student's t by degrees of freedom; from 10 on that of 10, which is never too narrow.
T_QUANTILE = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half the width of its 95 % t-interval (NaN for a single value)."""
    if len(values) < 2:
        return statistics.fmean(values), math.nan
    spread = statistics.stdev(values) / math.sqrt(len(values))
    return statistics.fmean(values), T_QUANTILE.get(len(values) - 1, 2.228) * spread


def table(rows: Sequence[Row]) -> list[str]:
    """One line a method, in order of appearance; scores in percent, lifts paired by seed."""
    heads = [f"{p}: before | after | lift, 95 % | up in" for p in PROBES]
    lines = ["| method | " + " | ".join(heads) + " | steps | CPU s a run | ended early |"]
    lines.append("|" + "---|" * (4 + 4 * len(PROBES)))
    for method in dict.fromkeys(label(row) for row in rows):
        mine = [row for row in rows if label(row) == method]
        ran = [row for row in mine if "failed" not in row]
        faults = [row["failed"] for row in mine if "failed" in row] + [row["ended"] for row in ran if row["ended"]]
        if not ran:
            lines.append(f"| {method} |" + " |" * (2 + 4 * len(PROBES)) + f" {'; '.join(faults)} |")
            continue
        cells = [cell for probe in PROBES for cell in _cells(ran, probe)]
        steps = "/".join(str(s) for s in sorted({row["steps"] for row in ran}))
        seconds = statistics.fmean(row["cpu_seconds"] for row in ran)
        lines.append(f"| {method} | {' | '.join(cells)} | {steps} | {seconds:.0f} | {'; '.join(faults)} |")
    return lines


def _cells(rows: Sequence[Row], probe: str) -> list[str]:
    before, after = ([100 * row[when][probe] for row in rows] for when in ("before", "after"))
    lifts = [b - a for a, b in zip(before, after, strict=True)]
    mean, half = interval(lifts)
    up = sum(lift > 0 for lift in lifts)
    lift = f"**{mean:+.1f}** ± {half:.1f}"
    return [f"{statistics.fmean(before):.1f}", f"{statistics.fmean(after):.1f}", lift, f"{up} of {len(lifts)}"]


def raw_joints(name: str, seeds: int) -> float:
    """Mean 1-NN accuracy of the clips as they come, on the same held-out subjects."""
    dataset, clips = opened(name)
    splits = [held_out(dataset, seed) for seed in range(seeds)]
    return statistics.fmean(nearest_neighbour(clips.data, clips.labels, s.train, s.validation) for s in splits)


def latest(rows: Sequence[Row]) -> list[Row]:
    """The last row of each run: a file may hold a repeated one."""
    return list({key_of(row): row for row in rows}.values())


def setting(text: str) -> tuple[str, Any]:
    """`optim.lr=0.01` -> its name and its value, a word where it is no number."""
    field, _, value = text.partition("=")
    try:
        return field, json.loads(value)
    except json.JSONDecodeError:
        return field, value


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", nargs="+", choices=sorted(DATA), default=sorted(DATA))
    parser.add_argument("--methods", nargs="+", metavar="NAME", default=list(list_methods()), help="default: all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300, help="at least so many, in whole epochs")
    parser.add_argument("--set", nargs="+", type=setting, default=[], metavar="FIELD=VALUE", help="as encoder.width=4")
    parser.add_argument("--out", type=Path, default=Path("learning.jsonl"), help="one line a run, appended as it ends")
    parser.add_argument("--resume", action="store_true", help="leave out the runs that --out already has")
    parser.add_argument("--table", nargs="+", type=Path, metavar="FILE", help="run nothing, print these files' tables")
    args = parser.parse_args(arguments)
    args.set = dict(args.set)
    if min(args.seeds, args.steps) < 1:
        parser.error("--seeds and --steps must be at least 1")
    if not args.table and not args.resume and args.out.exists():
        parser.error(f"{args.out} is there already: say --resume to go on with it")
    return args


def main(arguments: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    args = parse(given)
    torch.set_num_threads(1)
    load_before = list(os.getloadavg())
    try:
        for method in args.methods:
            get_method(method)  # imported now, so that nobody's edit changes a method between its seeds
        if not args.table:
            run_all(args)
        rows = latest([row for path in args.table or [args.out] for row in read(path)])
        asked = {row["asked_steps"]: None for row in rows}
        settings = {"frames": FRAMES, "batch": BATCH, "asked_steps": "/".join(map(str, asked))}
        told = timing.report(
            "learning", "benchmarks.learning", given, settings, torch.device("cpu"), [], load_before=load_before
        )
        print("\n".join(timing.heading(told)))
        for name in dict.fromkeys(row["data"] for row in rows):
            raw = raw_joints(name, 1 + max(row["seed"] for row in rows if row["data"] == name))
            print(f"\n{name}; raw joints, 1-NN: {100 * raw:.1f}\n")
            print("\n".join(table([row for row in rows if row["data"] == name])))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
