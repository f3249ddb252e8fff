"""How long until a worker's next trial takes its first step, and until a command answers?

    python -m benchmarks.startup                             # a small shipped space, encoders of published size
    python -m benchmarks.startup --published pstl cmd scdnet --json startup.json

A trial begins where Ray hands a reused actor its next task (``Trial.reset_config``) and ends this measurement where the
first optimiser step takes its batch; Ray itself is not started. Several trials run one after the other in this process:
the first one opens, maps and imports, the next ones find that done. Then interpreters are started anew, each to import
``tuning.cli`` and end. CPU time (of the children, for imports) is what a busy machine does not change.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import timing
from methods.training import run as run_module
from methods.training.config import TrialConfig, published
from methods.training.probe import ProbeConfig
from tuning.config.schema import DataSpec
from tuning.datasets import DataSource, source_of
from tuning.resources import find_space
from tuning.space import Space, load_search
from tuning.storage.checkpoints import Checkpoints
from tuning.workplace import Workplace

Row = dict[str, Any]

NEXT_MS, IMPORT_MS = 100.0, 300.0
# What of a trial's beginning is told apart -> whose call it is. Each counts without the parts inside it.
PARTS: Mapping[str, tuple[Any, str]] = {
    "data opened": (DataSource, "dataset"),
    "split": (DataSource, "split"),
    "clips mapped": (DataSource, "store"),
    "model built": (run_module, "Branches"),
    "optimiser": (run_module, "make_optimiser"),
    "checkpoint looked up": (Checkpoints, "fetch"),
}
REST = "the rest"
IMPORTS = {"tuning.cli": "import tuning.cli", "nothing": "pass"}


class Reached(Exception):
    """The first step takes its batch."""


@dataclass
class Clock:
    """Milliseconds by part, wall and CPU; a part that is called inside another is not counted there."""

    wall: dict[str, float] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)
    _inside: list[tuple[float, float]] = field(default_factory=list)  # what the parts within the open ones took

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        self._inside.append((0.0, 0.0))
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            wall, cpu = 1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu)
            inner_wall, inner_cpu = self._inside.pop()
            self.wall[name] = self.wall.get(name, 0.0) + wall - inner_wall
            self.cpu[name] = self.cpu.get(name, 0.0) + cpu - inner_cpu
            if self._inside:
                before = self._inside[-1]
                self._inside[-1] = (before[0] + wall, before[1] + cpu)

    def timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def inner(*given: Any, **named: Any) -> Any:
            with self.part(name):
                return call(*given, **named)

        return inner


@contextlib.contextmanager
def watched(clock: Clock) -> Iterator[None]:
    """Every part tells the clock."""
    before = {name: getattr(owner, call) for name, (owner, call) in PARTS.items()}
    for name, (owner, call) in PARTS.items():
        setattr(owner, call, clock.timed(name, before[name]))
    try:
        yield
    finally:
        for name, (owner, call) in PARTS.items():
            setattr(owner, call, before[name])


class Worker:
    """One actor of Ray's without Ray: takes task after task in the same process."""

    def __init__(self, source: DataSource, folder: Path) -> None:
        from tuning.trial import Trial

        self.trial: Any = Trial.__new__(Trial)  # its constructor belongs to Ray
        self.trial.workplace = Workplace(source, ProbeConfig(), threads=1, device="cpu")
        self.folder, self.count = folder, 0

    def begin(self, config: TrialConfig) -> Clock:
        """Give it the next trial; returns what its parts took until the first step's batch is taken."""
        from tuning.session import Task
        from tuning.trial import task_config

        self.count += 1
        key = f"t{self.count:04d}"
        task = Task(key, config.to_dict(), self.count, (config.epochs,), str(self.folder / key))
        clock = Clock()
        with watched(clock), clock.part(REST):
            self.trial.reset_config(task_config(task))
            session = self.trial._begin()
            session.run.store.take = _reached  # a store of this session's own: on a CPU none is kept
            with contextlib.suppress(Reached):
                session.step()
            self.trial.session = session
        return clock


def _reached(index: Tensor) -> Tensor:
    raise Reached


def measure(name: str, source: DataSource, configs: Sequence[TrialConfig], trials: int, folder: Path) -> list[Row]:
    """``trials`` beginnings in turn over ``configs``, after the first one of each, whose parts are told too."""
    worker = Worker(source, folder)
    first = worker.begin(configs[0])
    for config in configs[1:]:
        worker.begin(config)
    clocks = [worker.begin(configs[i % len(configs)]) for i in range(trials)]
    model = worker.trial.session.run.model
    told = {
        "size": name,
        "parameters": sum(p.numel() for p in model.parameters()),
        "remembered": sum(b.numel() for b in model.buffers()),
    }
    return [
        told
        | {
            "part": part,
            "first_ms": {"wall": first.wall.get(part, 0.0), "cpu": first.cpu.get(part, 0.0)},
            "next_ms": {
                "wall": statistics.median(c.wall.get(part, 0.0) for c in clocks),
                "cpu": statistics.median(c.cpu.get(part, 0.0) for c in clocks),
            },
        }
        for part in (*PARTS, REST)
    ] + [
        told
        | {
            "part": "all",
            "first_ms": {"wall": sum(first.wall.values()), "cpu": sum(first.cpu.values())},
            "next_ms": {
                "wall": statistics.median(sum(c.wall.values()) for c in clocks),
                "cpu": statistics.median(sum(c.cpu.values()) for c in clocks),
            },
        }
    ]


def of_space(name: str) -> tuple[DataSource, list[TrialConfig]]:
    """A shipped space's data, and one trial of each of its methods (the lowest value of everything drawn)."""
    spec, space = load_search(find_space(name))
    return source_of(spec), [_lowest(space, method) for method in space.methods]


def _lowest(space: Space, method: str) -> TrialConfig:
    draws = {d.name: d.choices[0] if d.kind == "categorical" else d.low for d in space.branch(method).draws}
    return space.resolve({"method": method, **draws})


def of_method(name: str) -> tuple[DataSource, list[TrialConfig]]:
    """A method exactly as published but for a batch that the generated clips can fill."""
    spec, _ = load_search(find_space("quickstart"))
    config = published(name)
    source = source_of(replace(spec, data=DataSpec(set="synthetic")))
    return source, [replace(config, optim=replace(config.optim, batch=32))]


def imports(rounds: int) -> list[Row]:
    """Fresh interpreters, in turns: milliseconds from their start to their end."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in IMPORTS}
    for _ in range(rounds):
        for name, code in IMPORTS.items():
            before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            found[name].append((1e3 * wall, 1e3 * cpu))
    return [
        {
            "import": name,
            "ms": {"wall": statistics.median(w for w, _ in each), "cpu": statistics.median(c for _, c in each)},
            "rounds": rounds,
        }
        for name, each in found.items()
    ]


def lines(rows: Sequence[Row], imported: Sequence[Row]) -> list[str]:
    """Two tables; what misses its target says so."""
    told = ["| size | part | first trial, ms: CPU (wall) | next trials |", "|---|---|---|---|"]
    for r in rows:
        mark = ""
        if r["part"] == "all":
            mark = "" if r["next_ms"]["cpu"] < NEXT_MS else f" (target {NEXT_MS:.0f}: missed)"
        size = f"{r['size']}: {r['parameters'] / 1e6:.1f} M parameters" + (
            f", {r['remembered'] / 1e6:.1f} M remembered" if r["remembered"] > 1e6 else ""
        )
        told.append(f"| {size} | {r['part']} | {_ms(r['first_ms'])} | {_ms(r['next_ms'])}{mark} |")
    told += ["", "| import | ms: CPU (wall) | fresh interpreters |", "|---|---|---|"]
    for r in imported:
        mark = "" if r["ms"]["cpu"] < IMPORT_MS else f" (target {IMPORT_MS:.0f}: missed)"
        told.append(f"| {r['import']} | {_ms(r['ms'])}{mark} | {r['rounds']} |")
    return told


def _ms(found: Mapping[str, float]) -> str:
    return f"{found['cpu']:.1f} ({found['wall']:.1f})"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    words = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=words)
    parser.add_argument("--spaces", nargs="*", default=["quickstart"], help="shipped spaces on generated clips")
    parser.add_argument("--published", nargs="*", default=["skeletonclr", "crrl"], help="methods at published size")
    parser.add_argument("--trials", type=int, default=5, help="next trials, of which the median counts")
    parser.add_argument("--imports", type=int, default=7, help="fresh interpreters")
    parser.add_argument("--json", type=Path, help="also write everything measured to this file")
    args = parser.parse_args(arguments)
    if args.trials < 1 or args.imports < 1:
        parser.error("--trials and --imports are at least 1")
    if not args.spaces and not args.published:
        parser.error("nothing to begin: give --spaces or --published")
    return args


def main(arguments: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    args = parse(given)
    torch.set_num_threads(1)
    load = list(os.getloadavg())
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="skeltune-bench-") as folder:
        for name in args.spaces:
            rows += measure(name, *of_space(name), args.trials, Path(folder) / name)
        for name in args.published:
            rows += measure(f"{name}, published", *of_method(name), args.trials, Path(folder) / name)
    imported = imports(args.imports)
    settings = {key: value for key, value in vars(args).items() if key != "json"}
    told = timing.report(
        "startup", "benchmarks.startup", given, settings, torch.device("cpu"), rows, imports=imported, load_before=load
    )
    timing.publish(told, lines(rows, imported), args.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
