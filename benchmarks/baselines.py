"""What a configuration must beat: the raw joints' nearest neighbour and its own encoder before any training.

    python -m benchmarks.baselines runs/NAME/best.yaml --seeds 3 --json baselines.json

Random encoders take the seeds of the retraining, so each is the very encoder that the trained one began as. Scores are
given on validation and, with ``--test``, on the test split; every use of ``--test`` is one more reading of it.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.timing import machine, write_json
from methods.data import DEFAULT_STEPS
from methods.training import evaluate
from methods.training.branches import Branches
from methods.training.clips import ClipStore
from tuning.datasets import source_of
from tuning.plan import probe_config
from tuning.train import load_config


def nearest_neighbour(data: np.ndarray, labels: np.ndarray, train: np.ndarray, held: np.ndarray) -> float:
    """1-NN accuracy of flattened clips by Euclidean distance."""
    bank = torch.as_tensor(np.array(data[train])).flatten(1)
    right = 0
    for part in np.array_split(held, max(1, len(held) // 256)):
        nearest = torch.cdist(torch.as_tensor(np.array(data[part])).flatten(1), bank).argmin(1).numpy()
        right += int((labels[train][nearest] == labels[part]).sum())
    return right / len(held)


def measure(config_file: Path, seeds: int, read_test: bool) -> dict[str, Any]:
    """All baselines of one configuration."""
    spec, config = load_config(config_file)
    source = source_of(spec)
    split = source.split()
    clips = source.clips(config.frames, config.preprocess)
    probe = probe_config(spec)
    told = (spec.provenance.get("seeds") or {}).get("retrain") or []
    use = [*told, *range(seeds)][: max(seeds, 1)]
    rows: dict[str, Any] = {"raw joints, 1-NN": {}}
    whole = evaluate.whole_training(split)
    if read_test:
        plain = source.clips(50, DEFAULT_STEPS)
        rows["raw joints, 1-NN"]["test"] = [nearest_neighbour(plain.data, plain.labels, whole, split.test)]
    if split.folds is not None:
        plain = source.clips(50, DEFAULT_STEPS)
        parts = [(split.train[split.folds != f], split.train[split.folds == f]) for f in np.unique(split.folds)]
        right = [nearest_neighbour(plain.data, plain.labels, a, b) * len(b) for a, b in parts]
        rows["raw joints, 1-NN"]["validation"] = [sum(right) / len(split.train)]
    for name, settle in (("random encoder, settled", True), ("random encoder, unsettled", False)):
        judged = dataclasses.replace(probe, settle=settle)
        row: dict[str, Any] = {"validation": [], "test": []}
        for seed in use:
            model = Branches(config, clips.layout, seed, persons=clips.data.shape[4])
            store = ClipStore(clips, torch.device("cpu"))
            row["validation"].append(evaluate.validate(model, store, split, judged, seed=seed).top1)
            if read_test:
                row["test"].append(evaluate.test(model, store, split, judged, seed=seed).top1)
        rows[name] = row
    return {"config": str(config_file), "seeds": use, "rows": rows, **machine(torch.device("cpu"))}


def line(name: str, row: dict[str, Any]) -> str:
    """`random encoder, settled   validation 85.1 ± 1.2   test 84.0 ± 0.8`."""
    parts = [f"{name:<28}"]
    for side in ("validation", "test"):
        values = [100 * v for v in row.get(side, [])]
        if values:
            spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            parts.append(f"{side} {statistics.fmean(values):.1f}{spread}")
    return "   ".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--test", action="store_true", help="also read the test split")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(args.config, args.seeds, args.test)
    for name, row in found["rows"].items():
        print(line(name, row))
    if args.json:
        write_json(args.json, found)


if __name__ == "__main__":
    main()
