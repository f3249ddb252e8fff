"""What does the engine itself cost: its time per ask, its memory and its journal, at thousands of trials?

A search is simulated on curves that cost nothing, so that all that takes time is the engine; each sampler in a process
of its own. Its events are encoded as a journal would write them, without the disk.

    python -m benchmarks.controller                                    # 1,000 trials, random and TPE: a minute
    python -m benchmarks.controller --simulated 10000 --samplers random,tpe --json controller.json
    python -m benchmarks.controller --samplers tpe --at 1000,10000     # asks beside so many random trials
"""

from __future__ import annotations

import argparse
import cProfile
import math
import multiprocessing
import pstats
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from methods.errors import InputError
from tuning.config.schema import BudgetSpec, SamplerSpec
from tuning.engine.choices import METHOD, Choices
from tuning.engine.journal import Events, encode
from tuning.engine.ladder import Ladder
from tuning.engine.segment import Segment
from tuning.engine.simulator import Point, simulate
from tuning.engine.virtual import Setting, Virtual, make_engine
from tuning.space.domains import Draw

RUNGS, ETA = (1, 3, 9, 27), 3
SHOWN = 12  # lines of a profile


@dataclass(frozen=True)
class Job:
    """One measurement: a whole search of ``trials``, or ``asks`` of a sampler beside ``trials`` random ones."""

    sampler: str
    trials: int
    rule: str
    workers: int
    asks: int = 0
    profile: bool = False


def space(methods: int = 3, own: int = 3, shared: int = 4) -> Choices:
    """A conditional space as searches have it: numbers, logarithmic ones, a choice, some of them shared."""
    common = tuple(Draw(f"shared{i}", "float", 1e-4, 1.0, log=i % 2 == 0) for i in range(shared))
    branches = []
    for m in range(methods):
        inner = [Draw(f"method/m{m}/x{i}", "float", 0.0, 1.0) for i in range(own - 1)]
        inner.append(Draw(f"method/m{m}/word", "categorical", choices=("a", "b", "c")))
        branches.append((f"m{m}", (*inner, *common)))
    return Choices(tuple(branches))


class Free:
    """Curves at no cost: a bowl in the numbers, another for each method, that rises with the epochs."""

    def point(self, trial: int, draws: Mapping[str, Any], epoch: int) -> Point:
        away = sum((v - 0.3) ** 2 for v in draws.values() if isinstance(v, float))
        value = (0.9 - 0.05 * int(str(draws[METHOD])[1:]) - 0.1 * away) * (1 - 0.4 / epoch)
        return Point(1.0 + trial % 7 / 7, max(0.0, value), 1 - value)


class Weighed(Events):
    """Counts what a journal would write."""

    def __init__(self) -> None:
        super().__init__(clock=lambda: 0.0)
        self.bytes = self.lines = 0
        self.cpu = 0.0

    def append(self, event: Mapping[str, Any], *, sync: bool = True) -> None:
        begun = time.process_time()
        self.bytes += len(encode(event))
        self.cpu += time.process_time() - begun
        self.lines += 1
        super().append(event, sync=sync)


class Clocked:
    """An engine whose calls are timed, in CPU seconds."""

    def __init__(self, inner: Virtual) -> None:
        self.inner = inner
        self.asks: list[float] = []  # of asks that gave a new trial
        self.others = 0.0

    def ask(self) -> Segment | None:
        known = len(self.inner.engine.state.trials)
        begun = time.process_time()
        segment = self.inner.ask()
        took = time.process_time() - begun
        if len(self.inner.engine.state.trials) > known:
            self.asks.append(took)
        else:
            self.others += took
        return segment

    def report(self, trial: int, epoch: int, point: Point) -> bool:
        begun = time.process_time()
        goes_on = self.inner.report(trial, epoch, point)
        self.others += time.process_time() - begun
        return goes_on


def peak_mib() -> float:
    """The most memory that this process ever held; VmHWM, for ru_maxrss counts the parent's before a start."""
    try:
        told = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in told if line.startswith("VmHWM")) / 1024
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def engine_of(sampler: str, job: Job, events: Events, trials: int) -> Virtual:
    setting = Setting(Ladder(RUNGS, ETA, rule=job.rule), SamplerSpec.model_validate({"name": sampler}),
                      BudgetSpec(trials=trials))  # fmt: skip
    return Virtual(make_engine(events, space(), setting))


def measure(job: Job) -> dict[str, Any]:
    """One row; in a process of its own, or memory means nothing."""
    if job.asks:
        return _asks(job)
    events = Weighed()
    engine = Clocked(engine_of(job.sampler, job, events, job.trials))
    before = peak_mib()
    profiler = cProfile.Profile()
    begun, wall = time.process_time(), time.perf_counter()
    if job.profile:
        profiler.enable()
    seen = simulate(engine, Free(), RUNGS, job.workers)
    profiler.disable()
    return {
        **asdict(job),
        "cpu_seconds": time.process_time() - begun,
        "wall_seconds": time.perf_counter() - wall,
        "scores": len(seen),
        "ask_ms": {str(n): _median_ms(engine.asks, n) for n in _marks(job.trials)},
        "ask_seconds": sum(engine.asks),
        "other_calls_seconds": engine.others - events.cpu,
        "encoding_seconds": events.cpu,
        "journal_bytes": events.bytes,
        "journal_lines": events.lines,
        "start_mib": before,
        "peak_mib": peak_mib(),
        "profile": _slowest(profiler) if job.profile else [],
    }


def _asks(job: Job) -> dict[str, Any]:
    """The sampler's proposals when so many random trials are known; the state is a search's, nothing is guessed."""
    events = Events(clock=lambda: 0.0)
    simulate(engine_of("random", job, events, job.trials), Free(), RUNGS, job.workers)
    setting_trials = job.trials + job.asks
    begun = time.process_time()
    engine = Clocked(engine_of(job.sampler, job, events, setting_trials))
    fitted = time.process_time() - begun
    profiler = cProfile.Profile()
    if job.profile:
        profiler.enable()
    simulate(engine, Free(), RUNGS, job.workers)
    profiler.disable()
    modelled = [t for t, trial in zip(engine.asks, list(events.state.trials.values())[-len(engine.asks):], strict=True)
                if trial.origin not in ("random", "startup", "repeat")]  # fmt: skip
    return {
        **asdict(job),
        "begin_seconds": fitted,
        "ask_ms": {str(job.trials): 1000 * statistics.median(modelled) if modelled else math.nan},
        "modelled_asks": len(modelled),
        "peak_mib": peak_mib(),
        "profile": _slowest(profiler) if job.profile else [],
    }


def _marks(trials: int) -> list[int]:
    return [n for n in (100, 300, 1000, 3000, 10_000, 30_000) if n < trials] + [trials]


def _median_ms(asks: Sequence[float], number: int) -> float:
    """Around the ask of that number: the median of some fifty."""
    near = asks[max(0, number - 50) : number]
    return 1000 * statistics.median(near)


def _slowest(profiler: cProfile.Profile) -> list[str]:
    """The functions in which most time passes, their own time first."""
    stats: Any = pstats.Stats(profiler)
    rows = sorted(stats.stats.items(), key=lambda item: -item[1][2])[:SHOWN]
    return [
        f"{own:7.2f} s own, {whole:7.2f} s with what it calls, {calls:>9} calls  {Path(file).name}:{line} {name}"
        for (file, line, name), (calls, _, own, whole, _) in rows
    ]


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Whole searches, then asks beside random trials."""
    told = []
    whole = [row for row in rows if not row["asks"]]
    if whole:
        told += ["| sampler | rule | trials | CPU s | ms per ask at | engine's other calls | journal | peak memory |",
                 "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for row in whole:
        asks = ", ".join(f"{int(n):,}: {ms:.1f}" for n, ms in row["ask_ms"].items())
        told.append(
            f"| {row['sampler']} | {row['rule']} | {row['trials']:,} | {row['cpu_seconds']:.1f} | {asks} | "
            f"{row['other_calls_seconds']:.1f} s | {row['journal_bytes'] / 2**20:.2f} MiB, "
            f"{row['journal_lines']:,} lines | "
            f"{row['peak_mib']:.0f} MiB ({row['start_mib']:.0f} at the start) |"
        )
    beside = [row for row in rows if row["asks"]]
    if beside:
        told += ["", "| sampler | trials known | ms per modelled ask (median) | asks | to begin, s | peak memory |",
                 "|---|---|---|---|---|---|"]  # fmt: skip
    for row in beside:
        (ms,) = row["ask_ms"].values()
        told.append(
            f"| {row['sampler']} | {row['trials']:,} | {ms:.1f} | {row['modelled_asks']} | "
            f"{row['begin_seconds']:.2f} | {row['peak_mib']:.0f} MiB |"
        )
    for row in rows:
        if row["profile"]:
            told += ["", f"{row['sampler']}, {row['trials']:,} trials:", *row["profile"]]
    return told


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.controller", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--simulated", type=int, default=0, metavar="N", help="a whole search of so many trials")
    parser.add_argument("--at", default="", help="time asks beside so many random trials: 1000,10000")
    parser.add_argument("--asks", type=int, default=30, help="how many of them")
    parser.add_argument("--samplers", default="random,tpe", help="random, tpe, gp, cmaes, rank_gp, portfolio")
    parser.add_argument("--rule", default="promote", choices=("promote", "stop"))
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--profile", action="store_true", help="say where the time goes (and be slower)")
    parser.add_argument("--json", type=Path, help="keep everything measured")
    return parser.parse_args(arguments)


def jobs_of(args: argparse.Namespace) -> list[Job]:
    """What is to be measured. Raises ``InputError``."""
    samplers = [word for word in args.samplers.split(",") if word]
    known = ("random", "tpe", "gp", "cmaes", "rank_gp", "portfolio")
    faults = [f"--samplers: '{name}' is none of {', '.join(known)}" for name in samplers if name not in known]
    counts = [text.strip() for text in args.at.split(",") if text.strip()]
    faults += [f"--at: '{text}' is no number of trials" for text in counts if not text.isdecimal() or int(text) < 1]
    faults += [f"--{name} must be at least {least}, got {given}"
               for name, given, least in (("simulated", args.simulated, 0), ("asks", args.asks, 1),
                                          ("workers", args.workers, 1)) if given < least]  # fmt: skip
    if faults or not samplers:
        raise InputError(*(faults or ["--samplers names none"]))
    whole = args.simulated or (0 if counts else 1000)
    jobs = [Job(s, whole, args.rule, args.workers, profile=args.profile) for s in samplers] if whole else []
    return jobs + [Job(s, int(n), args.rule, args.workers, args.asks, args.profile) for s in samplers for n in counts]


def main(arguments: Sequence[str] | None = None) -> int:
    """2 and one line for each fault of the input."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        jobs = jobs_of(args := parse(given))
    except InputError as error:
        print("\n".join(f"error: {fault}" for fault in error.faults), file=sys.stderr)
        return 2
    context = multiprocessing.get_context("spawn")
    rows = []
    for job in jobs:  # one after the other, each in a fresh process
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            rows.append(pool.submit(measure, job).result())
    print("\n".join(table(rows)))
    if args.json:
        import torch

        from benchmarks import timing

        told = timing.report("controller", "benchmarks.controller", given, vars(args) | {"json": None},
                             torch.device("cpu"), rows)  # fmt: skip
        timing.write_json(args.json, told)
    return 0


if __name__ == "__main__":
    sys.exit(main())
