"""How much budget does a search engine need? Engines against surrogate learning curves, in simulated time.

A *cell* is one simulated search: a problem, a seed, a number of workers, a budget in full trainings, an engine. Cells
are appended to a JSON Lines file as they end, and one that is there is not run again.

    python -m benchmarks.search_efficiency --tasks 3945,7593 --seeds 0-1 --json cells.jsonl         # half a minute
    python -m benchmarks.search_efficiency --tasks "" --composite 3945,7593,34539,167104 --workers 16,64 \\
        --engines random-asha,stock --seeds 0-9 --jobs 8 --json cells.jsonl
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import contenders, efficiency_table, lcbench
from benchmarks.cells import Cell, cell_of, read_cells
from methods.errors import InputError, WorkFailed
from tuning.engine.simulator import Contender, Point, Seen, Segment, simulate

FRACTIONS = (1 / 8, 1 / 4, 1 / 2, 1.0)  # of the budget: where regrets are read
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Clocked:
    """An engine under a clock: the CPU seconds that its own decisions take, and the trials that it asked for."""

    def __init__(self, inner: Contender) -> None:
        self._inner = inner
        self.cpu = 0.0
        self.trials: set[int] = set()

    def ask(self) -> Segment | None:
        begun = time.process_time()
        segment = self._inner.ask()
        self.cpu += time.process_time() - begun
        if segment is not None:
            self.trials.add(segment.trial)
        return segment

    def report(self, trial: int, epoch: int, point: Point) -> bool:
        begun = time.process_time()
        goes_on = self._inner.report(trial, epoch, point)
        self.cpu += time.process_time() - begun
        return goes_on


class Incumbent:
    """The trial with the best score so far, at whatever rung: its regret if trained in full, and that of the score."""

    def __init__(self, problem: lcbench.Problem) -> None:
        self._problem = problem
        self._best: float | None = None
        self.curve: list[tuple[int, float, float]] = []  # (epochs spent, regret, in hand), at every change
        self.full = 0

    def __call__(self, seen: Seen) -> None:
        if seen.value is None:
            return
        self.full += seen.epoch == lcbench.TOP
        if self._best is None or seen.value > self._best:
            self._best = seen.value
            final = self._problem.regret(self._problem.final(seen.trial))
            self.curve.append((seen.epochs, round(final, 6), round(self._problem.regret(seen.value), 6)))


def read_at(curve: Sequence[Sequence[float]], epochs: float, column: int) -> float:
    """A regret (column 1: of the incumbent trained in full, 2: in hand) when so many epochs are spent."""
    known = [point[column] for point in curve if point[0] <= epochs]
    return known[-1] if known else efficiency_table.NOTHING_YET


def run_cell(folder: Path, cell: Cell) -> dict[str, Any]:
    """Simulate one search; everything that the tables need of it."""
    problem = lcbench.problem(lcbench.surrogate(folder), cell.problem, cell.cost)
    return measure(problem, cell)


def measure(problem: lcbench.Problem, cell: Cell) -> dict[str, Any]:
    """The record of one search on ``problem``."""
    begun = time.process_time()
    made = contenders.make(cell.engine, problem.choices, lcbench.RUNGS, lcbench.ETA, cell.seed, cell.workers)
    engine, incumbent = Clocked(made), Incumbent(problem)
    epochs = cell.budget * lcbench.TOP
    seen = simulate(engine, problem, lcbench.RUNGS, cell.workers, epochs=epochs, watch=incumbent)
    budgets = [fraction * cell.budget for fraction in FRACTIONS]
    return {
        "kind": "cell",
        **asdict(cell),
        "group": problem.group,
        "budgets": budgets,
        "regret": [read_at(incumbent.curve, b * lcbench.TOP, 1) for b in budgets],
        "in_hand": [read_at(incumbent.curve, b * lcbench.TOP, 2) for b in budgets],
        "curve": [[round(spent / lcbench.TOP, 4), final, hand] for spent, final, hand in incumbent.curve],
        "trials": len(engine.trials),
        "full": incumbent.full,
        "probes": len(seen),
        "cpu": round(engine.cpu, 3),
        "cpu_of_cell": round(time.process_time() - begun, 3),
    }


def append(path: Path, told: Mapping[str, Any]) -> None:
    """Add one line and have it on the disk; a line that a kill tore before is closed first, so that only it is lost."""
    line = json.dumps(told, separators=(",", ":")) + "\n"
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                line = "\n" + line
        file.write(line.encode())
        file.flush()
        os.fsync(file.fileno())


def run_cells(folder: Path, cells: Sequence[Cell], jobs: int) -> Iterator[dict[str, Any]]:
    """Records in the order in which they end. Raises ``WorkFailed`` when a process dies."""
    if jobs == 1 or len(cells) < 2:
        for cell in cells:
            yield run_cell(folder, cell)
        return
    context = multiprocessing.get_context("spawn")  # neither ray nor onnxruntime survive a fork
    with ProcessPoolExecutor(min(jobs, len(cells)), mp_context=context, initializer=_prepare) as pool:
        running = [pool.submit(run_cell, folder, cell) for cell in cells]
        try:
            for done in as_completed(running):
                yield done.result()
        except BrokenProcessPool as error:
            raise WorkFailed(
                "a process died (out of memory?); what was finished is kept, run again to go on"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _prepare() -> None:
    """Ctrl-C is the main process's, which lets running cells end; when it is killed, its workers end too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.search_efficiency", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--curves", type=Path, help="folder of the surrogate; default $SKELTUNE_CURVES/lcbench")
    parser.add_argument("--tasks", default="", help="task numbers, each a flat problem: 3945,7593")
    parser.add_argument("--composite", default="", help="four task numbers, one conditional problem")
    parser.add_argument("--seeds", default="0-9", help="0-9 or 0,3,7")
    parser.add_argument("--workers", default="16", help="16 or 16,64")
    parser.add_argument("--budget", type=int, default=40, help="full trainings that a search may spend")
    parser.add_argument(
        "--engines", default="random-asha,stock", help=", ".join([*contenders.CONTENDERS, "skeltune..."])
    )
    parser.add_argument(
        "--cost", choices=lcbench.COSTS, default="epoch", help="an epoch's seconds: one, or the model's"
    )
    parser.add_argument("--json", type=Path, required=True, help="cells are appended here (JSON Lines), none run twice")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--table", action=argparse.BooleanOptionalAction, default=True, help="print the file's tables")
    return parser.parse_args(arguments)


def numbers(option: str, text: str, least: int, faults: list[str]) -> list[int]:
    """``0-9``, ``0,3,7`` or both; what cannot be read becomes a fault."""
    found: list[int] = []
    for part in _words(text):
        low, dash, high = part.partition("-")
        if not low.isdecimal() or (dash and not high.isdecimal()):
            faults.append(f"{option}: '{part}' is neither a number nor a range such as 0-9")
            continue
        span = range(int(low), int(high or low) + 1)
        if not span or span[0] < least:
            faults.append(
                f"{option}: '{part}' is empty" if not span else f"{option} must be at least {least}, got {low}"
            )
        found.extend(span)
    if not found and not faults:
        faults.append(f"{option} names none")
    return list(dict.fromkeys(found))


def plan(args: argparse.Namespace, source: lcbench.Surrogate) -> list[Cell]:
    """The cells that are asked for, engines innermost: a part of a run can be compared. Raises ``InputError``."""
    faults: list[str] = []
    seeds = numbers("--seeds", args.seeds, 0, faults)
    workers = numbers("--workers", args.workers, 1, faults)
    tasks, composite, engines = _words(args.tasks), _words(args.composite), _words(args.engines)
    faults += [f"{name} must be at least 1, got {n}" for name, n in (("--budget", args.budget), ("--jobs", args.jobs))
               if n < 1]  # fmt: skip
    faults += lcbench.faults_of(source, tasks, composite)
    faults += [fault for name in engines if (fault := contenders.fault_of(name))]
    if not tasks and not composite:
        faults.append("nothing to search: give --tasks or --composite")
    if not engines:
        faults.append("--engines names none")
    if faults:
        raise InputError(*faults)
    problems = [*tasks, *(["+".join(composite)] if composite else [])]
    return [
        Cell(problem, seed, w, args.budget, engine, args.cost)
        for seed in seeds
        for w in workers
        for problem in problems
        for engine in engines
    ]


def _words(text: str) -> list[str]:
    return list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def provenance(given: Sequence[str]) -> dict[str, Any]:
    """Machine, date, versions and command, as a record of its own."""
    import torch

    from benchmarks import timing

    told = timing.report("search_efficiency", "benchmarks.search_efficiency", given, {}, torch.device("cpu"), [])
    versions = {name: _version(name) for name in ("ray", "optuna", "onnxruntime")}
    return {"kind": "run", **told, "versions": {**told["versions"], **versions}}


def _version(name: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def run(args: argparse.Namespace, given: Sequence[str]) -> None:
    """Run what is missing, then print the tables of all that the file holds."""
    folder = lcbench.locate(args.curves or lcbench.default_folder())
    source = lcbench.surrogate(folder)
    cells = plan(args, source)
    args.json.parent.mkdir(parents=True, exist_ok=True)
    there = {cell_of(told) for told in read_cells(args.json)}
    todo = [cell for cell in cells if cell not in there]
    print(f"{len(todo)} cells to run, {len(cells) - len(todo)} are in {args.json}", file=sys.stderr)
    if todo:
        for task in dict.fromkeys(task for cell in todo for task in cell.problem.split("+")):
            source.scale(task)  # once, before processes would each do it
        append(args.json, provenance(given))
        _run_all(folder, todo, args.jobs, args.json)
    if args.table:
        print("\n".join(efficiency_table.tables(read_cells(args.json))))


def _run_all(folder: Path, todo: Sequence[Cell], jobs: int, path: Path) -> None:
    for done, told in enumerate(run_cells(folder, todo, jobs), 1):
        append(path, told)
        print(
            f"{done}/{len(todo)} {told['problem']} seed {told['seed']}, {told['workers']} workers, {told['engine']}: "
            f"regret {told['regret'][-1]:.3f}, {told['trials']} trials, {told['full']} full, {told['cpu']:.1f} s",
            file=sys.stderr,
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """2 and one line for each fault of the input, 1 when the work could not be finished."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    for name in THREADS:
        os.environ.setdefault(name, "1")  # for the processes: each has one core
    try:
        run(parse(given), given)
    except InputError as error:
        print("\n".join(f"error: {fault}" for fault in error.faults), file=sys.stderr)
        return 2
    except WorkFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; what was finished is kept, the same command goes on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
