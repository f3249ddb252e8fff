"""Does the engine find better pretraining than Ray's own classes on real skeletons? UTD-MHAD, equal epochs.

    python -m benchmarks.engines_on_utd --data DIR/utd_mhad.npz --seeds 0-2 --epochs 150 --runs DIR --json FILE

Every cell is a whole `skeltune search` (search, re-runs, retraining, one reading of the test split) in processes of its
own; engines take turns seed by seed. A cell that is there is not run again, and one that was interrupted goes on.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.timing import machine, write_json
from tuning.engine.journal import replay
from tuning.space import load_search

SPACE = """
format: 1
name: {name}
seed: {seed}
data: {{set: {data}, split: xsub, validate_on: cv, preprocess: [trim, unit_scale, centre_first, resize], frames: 24}}
search:
  method:
    one_of:
      skeletonclr:
        temperature: {{log: [0.05, 0.5]}}
        momentum: {{near_one: [0.9, 0.99]}}
        queue: {{choice: [64, 128]}}
        hidden: 128
        projection: 64
        projector_norm: true
      skeletonbyol: {{momentum: {{near_one: [0.9, 0.99]}}, hidden: 256, projection: 128}}
  augment: {{strength: {{uniform: [0.05, 1.0]}}, rotate: {{uniform: [0.0, 30.0]}}}}
  encoder: {{width: 8, dim: 64, depth: 4, dropout: 0.0, init: torch, input_norm: scale, segments: 4}}
  optim: {{name: adam, lr: {{log: [0.0001, 0.02]}}, batch: 24, schedule: cosine, warmup: 0.05}}
  streams: {{use: [joint]}}
probe: {{kind: linear, l2: 0.01}}
schedule: {{unit: epoch, max: {top}, asha: {{min: {first}, eta: 3}}}}
budget: {{epochs: {epochs}, per_trial: {{gpu: 0, cpu: 1}}}}
finish: {{rerun: {{top: 2, seeds: 2}}, retrain: {{seeds: 2}}}}
"""


def run_cell(engine: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """One search by one engine; what its journal and its best.yaml tell."""
    name = f"utd-{engine}-{seed}"
    options.runs.mkdir(parents=True, exist_ok=True)
    space = options.runs / f"{name}.yaml"
    space.write_text(
        SPACE.format(
            name=name,
            seed=seed,
            data=options.data.resolve(),
            top=options.top,
            first=options.first,
            epochs=options.epochs,
        )
    )
    command = [sys.executable, "-m", "tuning", "search", str(space), "--runs", str(options.runs), "--engine", engine]
    begun = time.monotonic()
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    folder = options.runs / name
    state = replay(folder / "journal.jsonl")
    told = load_search(folder / "best.yaml")[0].provenance
    full = [t for t in state.trials.values() if t.of is None and t.at(options.top) is not None]
    return {
        "engine": engine,
        "seed": seed,
        "minutes": round((time.monotonic() - begun) / 60, 2),
        "trials": state.count,
        "full_runs": len(full),
        "epochs": state.epochs,
        "in_search": max(t.at(options.top).top1 for t in full),  # type: ignore[union-attr,type-var]
        "validation": told["validation"]["mean"],
        "test": told["test"]["values"],
        "method": state.trials[int(told["search"]["winner"][1:])].draws["method"],
    }


def table(cells: Sequence[dict[str, Any]]) -> list[str]:
    """A row a cell, then means and spread over seeds."""
    lines = ["| engine | seed | trials | full | epochs | validation, new seeds | test | winner |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for c in cells:
        lines.append(
            f"| {c['engine']} | {c['seed']} | {c['trials']} | {c['full_runs']} | {c['epochs']} | "
            f"{100 * c['validation']:.1f} | {100 * statistics.fmean(c['test']):.1f} | {c['method']} |"
        )
    for engine in dict.fromkeys(c["engine"] for c in cells):
        own = [c for c in cells if c["engine"] == engine]
        parts = []
        for key in ("validation", "test"):
            values = [100 * (statistics.fmean(c[key]) if isinstance(c[key], list) else c[key]) for c in own]
            spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            parts.append(f"{key} {statistics.fmean(values):.1f}{spread}")
        lines.append(f"{engine}: {', '.join(parts)} ({len(own)} searches)")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a dataset of UTD-MHAD, or its archive")
    parser.add_argument("--engines", default="skeltune,stock")
    parser.add_argument("--seeds", default="0-2", help="0-2")
    parser.add_argument("--epochs", type=int, default=150, help="budget of one search")
    parser.add_argument("--top", type=int, default=18)
    parser.add_argument("--first", type=int, default=2)
    parser.add_argument("--runs", type=Path, default=Path("runs/engines_on_utd"))
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args(arguments)
    first, _, last = options.seeds.partition("-")
    cells: list[dict[str, Any]] = []
    for seed in range(int(first), int(last or first) + 1):
        for engine in options.engines.split(","):
            cells.append(run_cell(engine, seed, options))
            print(cells[-1], flush=True)
            write_json(options.json, {"machine": machine(torch.device("cpu")), "cells": cells})
    print("\n".join(table(cells)))


if __name__ == "__main__":
    main()
