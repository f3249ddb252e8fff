"""How hard are the generated skeletons? A nearest neighbour on raw joints against a supervised ST-GCN.

Both see the same tensors (T frames, resized) of the same clips and are tested on unseen subjects (xsub) and an unseen
camera (xview). The generator is tuned by this table only: 1-NN 0.35 to 0.6, ST-GCN at least 0.8 and clearly under 1.

    python -m benchmarks.generator                      # the embedded default; some minutes on one thread
    python -m benchmarks.generator --epochs 10 --only xsub --json generator.json
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks import timing
from methods.data.layouts import NTU25
from methods.data.preprocess import apply_steps, parse_steps
from methods.data.synthetic import QUICKSTART, SyntheticClip, generate_clips, held_out_subjects
from methods.nn.encoder import EncoderConfig
from methods.nn.stgcn import STGCN

Result = tuple[float, float, Tensor]
Row = dict[str, Any]
INPUTS = {
    "centre": ("trim", "centre", "resize"),  # the default of the project
    "centre_first": ("trim", "centre_first", "resize"),
    "centre + rotate_y": ("trim", "rotate_y", "centre", "resize"),
}


def prepare(clips: list[SyntheticClip], steps: tuple[str, ...], frames: int) -> Tensor:
    """(N, C, T, V, M) float32."""
    parsed = parse_steps(steps)
    return torch.from_numpy(np.stack([apply_steps(c.frames, len(c.frames), NTU25, parsed, frames) for c in clips]))


def nearest(x: Tensor, y: Tensor, train: Tensor) -> float:
    """Top-1 of the nearest training clip by Euclidean distance of flattened coordinates."""
    flat = x.flatten(1)
    found = torch.cdist(flat[~train], flat[train]).argmin(1)
    return float((y[train][found] == y[~train]).double().mean())


def augmented(x: Tensor) -> Tensor:
    """A turn about y up to 45 degrees and a scale for each clip, and a random crop of 80 to 100 % of the frames."""
    n, frames = len(x), x.shape[2]
    angle, zero = torch.deg2rad((torch.rand(n) - 0.5) * 90), torch.zeros(n)
    cos, sin, one = angle.cos(), angle.sin(), torch.ones(n)
    turn = torch.stack([cos, zero, sin, zero, one, zero, -sin, zero, cos], 1).view(n, 3, 3)
    x = torch.einsum("nij,njtvm->nitvm", turn * (0.9 + 0.2 * torch.rand(n, 1, 1)), x)
    length = int(frames * (0.8 + 0.2 * float(torch.rand(()))))
    start = int(torch.randint(0, frames - length + 1, ()))
    at = torch.linspace(start, start + length - 1, frames).round().long()
    return x[:, :, at]


def supervised(x: Tensor, y: Tensor, train: Tensor, *, width: int, epochs: int, seed: int) -> Result:
    """Train ST-GCN + linear with labels; returns test top-1, training top-1 and test predictions at the last epoch."""
    torch.manual_seed(seed)
    config = EncoderConfig(width=width, dim=64, dropout=0.1, init="torch", bodies="real")
    model = nn.Sequential(STGCN(config, NTU25), nn.Linear(64, int(y.max()) + 1))
    optim = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    rows = train.nonzero().flatten()
    steps = epochs * (len(rows) // 32)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optim, 4e-3, total_steps=steps)
    for _ in range(epochs):
        for batch in rows[torch.randperm(len(rows))].split(32):
            if len(batch) < 32:
                continue
            loss = nn.functional.cross_entropy(model(augmented(x[batch])), y[batch])
            optim.zero_grad()
            loss.backward()
            optim.step()
            schedule.step()
    model.eval()
    with torch.no_grad():
        guess = torch.cat([model(part).argmax(1) for part in x.split(64)])
    hits = (guess == y).double()
    return float(hits[~train].mean()), float(hits[train].mean()), guess[~train]


def confusions(truth: Tensor, guess: Tensor, names: tuple[str, ...], most: int = 6) -> str:
    """The commonest mistakes, as words."""
    pairs: dict[tuple[int, int], int] = {}
    for a, b in zip(truth.tolist(), guess.tolist(), strict=True):
        if a != b:
            pairs[a, b] = pairs.get((a, b), 0) + 1
    worst = sorted(pairs.items(), key=lambda item: -item[1])[:most]
    return ", ".join(f"{names[a]}>{names[b]} {count}" for (a, b), count in worst)


def split_masks(clips: list[SyntheticClip]) -> dict[str, NDArray[np.bool_]]:
    """True where a clip trains, as `write_synthetic` stores it."""
    subjects = np.array([c.subject for c in clips])
    return {
        "xsub": ~np.isin(subjects, held_out_subjects(int(subjects.max()))),
        "xview": np.array([c.camera for c in clips]) != 1,
    }


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.generator", description="Difficulty of the embedded default: 1-NN against ST-GCN."
    )
    parser.add_argument("--json", type=Path, help="also write everything measured to this file")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=("xsub", "xview"))
    return parser.parse_args(arguments)


def measure(split: str, inputs: dict[str, Tensor], y: Tensor, train: Tensor, args: argparse.Namespace) -> list[Row]:
    """Print and return the rows of one split: each input's nearest neighbour, then ST-GCN with each seed."""
    print(f"{split}: {int(train.sum())} train, {int((~train).sum())} test, {int(y.max()) + 1} classes")
    rows: list[Row] = []
    for name, x in inputs.items():
        rows.append({"split": split, "model": "1-NN", "input": name, "top1": nearest(x, y, train)})
        print(f"  1-NN, {name:<20} {rows[-1]['top1']:.3f}", flush=True)
    for seed in range(args.seeds):
        began = time.perf_counter()
        top1, fit, guess = supervised(inputs["centre"], y, train, width=args.width, epochs=args.epochs, seed=seed)
        took = time.perf_counter() - began
        wrong = confusions(y[~train], guess, QUICKSTART.actions)
        rows.append(
            {"split": split, "model": "ST-GCN", "input": "centre", "seed": seed, "top1": top1, "train_top1": fit,
             "seconds": took, "confusions": wrong}
        )  # fmt: skip
        print(
            f"  ST-GCN, centre, seed {seed}      {top1:.3f}   (train {fit:.3f}, {took:.0f} s)\n    {wrong}", flush=True
        )
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    args = parse(given)
    torch.set_num_threads(args.threads)
    began = time.perf_counter()
    clips = list(generate_clips(QUICKSTART))
    print(f"{len(clips)} clips in {time.perf_counter() - began:.1f} s; torch {torch.__version__}; {args}")
    y = torch.tensor([c.label for c in clips])
    inputs = {name: prepare(clips, steps, args.frames) for name, steps in INPUTS.items()}
    rows: list[Row] = []
    for split, mask in split_masks(clips).items():
        if args.only in (None, split):
            rows += measure(split, inputs, y, torch.from_numpy(mask), args)
    if args.json:
        settings = {key: value for key, value in vars(args).items() if key != "json"}
        told = timing.report("generator", "benchmarks.generator", given, settings, torch.device("cpu"), rows)
        timing.write_json(args.json, told)
    return 0


if __name__ == "__main__":
    sys.exit(main())
