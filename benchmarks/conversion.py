"""How many NTU RGB+D files a second become a dataset, beside plain readers, and does the memory grow with them?

Reading is timed in turns in this process, complete from the open file to the frames of two persons; first it is checked
that all readers give the same numbers. Whole conversions run in processes of their own, with one and with two workers.

    python -m benchmarks.conversion                       # about a minute
    python -m benchmarks.conversion --files 500 --rounds 9 --json conversion.json
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import plain_skeletons as plain
from benchmarks import timing
from methods.data.formats import ntu_raw
from methods.data.reading.sources import Clip, ReadOptions, Source

TRACKINGS = {"as listed": "as_listed", "by ID": "by_id"}
TEXTS = 40  # different files; further ones are copies under other names
ROOT = Path(__file__).parents[1]

# VmHWM is the peak of this program alone; ru_maxrss counts what its parent held before it became this program.
ONCE = """
import json, resource, sys, time
from methods.data.conversion import convert
source, out, workers = sys.argv[1], sys.argv[2], int(sys.argv[3])
begun = time.perf_counter()
done = convert(source, out, "ntu_raw", workers=workers)
seconds = time.perf_counter() - begun
try:
    with open("/proc/self/status") as file:
        peak = next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
except OSError:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"seconds": seconds, "clips": len(done.dataset), "peak_mib": peak / 1024}))
"""


def planned(source: Path, tracking: str) -> Source:
    return ntu_raw.plan(source, ReadOptions(tracking=tracking), source)


def frames_of(source: Source) -> Iterator[np.ndarray]:
    """Everything that a conversion reads, clip after clip."""
    for item in source.items:
        for found in source.read(item):
            if isinstance(found, Clip):
                yield found.frames


def check(paths: Sequence[Path], listed: Source, tracked: Source, zipped: Source) -> list[dict[str, Any]]:
    """Whether all readers give the same numbers, bit by bit; by ID only where there is one body, for one order."""
    official = [plain.read_official(path) for path in paths]
    alone = [clip for clip in official if not clip[:, 1].any()]
    ours_alone = [clip for clip in frames_of(tracked) if not clip[:, 1].any()]
    pairs = {
        "lean": (official, [plain.read_lean(path) for path in paths]),
        "ours, as listed": (official, list(frames_of(listed))),
        "ours, by ID (files with one body)": (alone, ours_alone),
        "ours, by ID, in the archive": (list(frames_of(tracked)), list(frames_of(zipped))),
    }
    return [
        {
            "what": what,
            "clips": len(ours),
            "agree": len(ours) == len(theirs) and all(map(np.array_equal, theirs, ours)),
        }
        for what, (theirs, ours) in pairs.items()
    ]


def measure_reading(paths: Sequence[Path], sources: dict[str, Source], rounds: int, seconds: float) -> list[Any]:
    """Files a second on one core, the cache of the disk warm."""
    sides: dict[str, timing.Side] = {
        "official way": lambda: [plain.read_official(path) for path in paths],
        "lean, line by line": lambda: [plain.read_lean(path) for path in paths],
        **{name: lambda source=source: list(frames_of(source)) for name, source in sources.items()},  # type: ignore[misc]
    }
    notes = {
        "official way": "every number of a file becomes a float in a dict",
        "lean, line by line": "x, y and z alone become floats",
        "ours, by ID": "the default: tracks, denoising, two actors",
        "ours, by ID, in the archive": "as downloaded; unpacking is half of it",
    }
    turns = timing.interleave(sides, rounds=rounds, seconds=seconds, device=torch.device("cpu"))
    return [
        timing.row("reading", name, len(paths), mine, turns["official way"], notes.get(name, ""))
        for name, mine in turns.items()
    ]


def measure_conversions(folders: Sequence[Path], work: Path, repeats: int) -> list[dict[str, Any]]:
    """Whole conversions of each folder with one and with two workers, in turns."""
    cases = [(folder, workers) for workers in (1, 2) for folder in folders]
    told: list[list[dict[str, Any]]] = [[] for _ in cases]
    for repeat in range(repeats):
        for number, (folder, workers) in enumerate(cases):
            out = work / f"set-{number}-{repeat}"
            ran = subprocess.run(
                [sys.executable, "-c", ONCE, str(folder), str(out), str(workers)],
                cwd=ROOT, check=True, capture_output=True, text=True,
            )  # fmt: skip
            told[number].append(json.loads(ran.stdout))
    return [
        {
            "files": len(list(folder.iterdir())),
            "clips": runs[0]["clips"],
            "workers": workers,
            "seconds": timing.summary([run["seconds"] for run in runs]),
            "peak_mib": timing.summary([run["peak_mib"] for run in runs]),
        }
        for (folder, workers), runs in zip(cases, told, strict=True)
    ]


def conversions_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = [
        "| whole conversion of | workers | seconds: median (min to max) | files/s | peak memory of the main process |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        took, peak = row["seconds"], row["peak_mib"]
        spread = f"{took['median']:.2f} ({took['min']:.2f} to {took['max']:.2f})"
        lines.append(
            f"| {row['files']:,} files | {row['workers']} | {spread} | {row['files'] / took['median']:,.0f} | "
            f"{peak['median']:.0f} MiB ({peak['min']:.0f} to {peak['max']:.0f}) |"
        )
    return lines


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.conversion", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--json", type=Path, help="also write everything measured to this file")
    parser.add_argument(
        "--files", type=int, default=200, help="files that a turn reads; conversions: so many and 4 times"
    )
    parser.add_argument("--rounds", type=int, default=5, help="turns of each reader")
    parser.add_argument("--repeats", type=int, default=3, help="conversions of each kind")
    parser.add_argument("--seconds", type=float, default=60.0, help="no further round once about so many are used up")
    args = parser.parse_args(arguments)
    if min(args.files, args.rounds, args.repeats) < 1:
        parser.error("--files, --rounds and --repeats must be at least 1")
    return args


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, measure, print Markdown; 1 when the readers disagree, for then no ratio means anything."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    args = parse(given)
    torch.set_num_threads(1)
    load_before = list(os.getloadavg())
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        texts = [plain.make_text(seed) for seed in range(min(TEXTS, args.files))]
        paths = plain.write_files(work / "small", texts, args.files)
        sources = {
            "ours, as listed": planned(work / "small", "as_listed"),
            "ours, by ID": planned(work / "small", "by_id"),
        }
        with zipfile.ZipFile(work / "small.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for path in paths:
                archive.write(path, f"nturgb+d_skeletons/{path.name}")
        sources["ours, by ID, in the archive"] = planned(work / "small.zip", "by_id")
        checks = check(paths, *sources.values())
        for told in checks:
            print(f"- {'the same' if told['agree'] else 'NOT THE SAME'} numbers: {told['what']}, {told['clips']} clips")
        if not all(told["agree"] for told in checks):
            return 1
        rows = measure_reading(paths, sources, args.rounds, args.seconds)
        plain.write_files(work / "large", texts, 4 * args.files)
        begun = time.perf_counter()
        conversions = measure_conversions([work / "small", work / "large"], work, args.repeats)
        settings = {
            "files": args.files,
            "different_files": len(texts),
            "kilobytes_a_file": round(sum(map(len, texts)) / len(texts) / 1000),
            "rounds_at_most": args.rounds,
            "conversions_of_each_kind": args.repeats,
            "seconds_of_conversions": round(time.perf_counter() - begun),
        }
        report = timing.report("conversion", "benchmarks.conversion", given, settings, torch.device("cpu"), rows,
                               checks=checks, conversions=conversions, load_before=load_before)  # fmt: skip
    timing.publish(report, [*timing.table(rows), "", *conversions_table(conversions)], args.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
