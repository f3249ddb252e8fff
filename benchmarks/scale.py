"""One driver, 512 workers, 10,000 trials: how much can it decide, what does it hold, and what breaks first?

Everything that a driver has but Ray: engine, journal on the disk with every flush, TensorBoard, the terminal's lines in
a file, the Optuna mirror, as `tuning/own_search.py` binds them. Workers are simulated, their seconds too; what is timed
is the driver. Each row is a process of its own.

    python -m benchmarks.scale                                            # 1,000 trials, random: half a minute
    python -m benchmarks.scale --trials 10000 --samplers random,portfolio --json FILE
    python -m benchmarks.scale --trials 1000,3000 --without curves,mirror --profile
"""

from __future__ import annotations

import argparse
import cProfile
import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO, TypeVar

import numpy as np
import yaml

from benchmarks.controller import _slowest, peak_mib
from benchmarks.scale_table import RAY_S, table
from benchmarks.scale_workers import (
    BACK_S,
    SUBJECTS,
    Agenda,
    Call,
    Cluster,
    Outcomes,
    Seat,
    idle_share,
    on_node,
)
from methods.errors import InputError
from tuning.arithmetic import expected_epochs, pace_of
from tuning.engine.choices import choices_of
from tuning.engine.journal import Journal, replay
from tuning.engine.ladder import make_ladder
from tuning.engine.mishaps import LOST
from tuning.engine.noise import FACT, NoiseMeter, Probed, clips_mark
from tuning.engine.virtual import Setting, make_engine
from tuning.files import write_text
from tuning.floor import Floor
from tuning.observe.curves import Curves
from tuning.observe.lines import EventLines
from tuning.observe.mirror import MIRROR_FILE, Mirror
from tuning.resources import find_space
from tuning.run_files import JOURNAL_FILE, SPACE_FILE
from tuning.session import CHECKPOINT
from tuning.space import load_search

T = TypeVar("T")
MARKS = (1000, 3000, 10_000, 30_000)
PARTS = ("lines", "curves", "mirror")
VERBS = ("status", "leaderboard", "report")


@dataclass(frozen=True)
class Job:
    """One row. ``beside``: random trials of a driver that was killed; then only the asks of ``trials`` are waited for.

    ``rungs``: lowest and highest; ``without``: observers left out; ``most_s``: CPU seconds, then it ends.
    """

    sampler: str = "random"
    trials: int = 1000
    beside: int = 0
    cluster: Cluster = field(default_factory=Cluster)
    rungs: tuple[int, int] = (1, 27)
    space: str = "ntu60/compare"
    without: tuple[str, ...] = ()
    most_s: float = 170.0
    profile: bool = False
    verbs: bool = True


class TimedJournal(Journal):
    """Counts what goes to the disk and the seconds that it takes."""

    lines, synced, disk_s = 0, 0, 0.0

    def _put(self, line: bytes, sync: bool) -> None:
        begun = time.perf_counter()
        super()._put(line, sync)
        self.disk_s += time.perf_counter() - begun
        self.lines, self.synced = self.lines + 1, self.synced + sync


class TimedObserver:
    """An observer whose calls are timed, by the wall."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.seconds = inner, 0.0

    def __getattr__(self, name: str) -> Callable[..., None]:
        call = getattr(self.inner, name)

        def timed(*given: Any) -> None:
            begun = time.perf_counter()
            try:
                call(*given)
            finally:
                self.seconds += time.perf_counter() - begun

        return timed


class Driver:
    """Engine, journal, floor and observers, bound together as `tuning/own_search.py` does."""

    def __init__(self, job: Job, folder: Path) -> None:
        spec, space = load_search(folder / SPACE_FILE)
        head = {"space": spec.space_hash(), "data": "", "name": spec.name, "engine": "skeltune"}
        begun = time.perf_counter()
        self.journal = TimedJournal(folder / JOURNAL_FILE, head)
        state = self.journal.state
        clips = np.arange(job.cluster.clips)
        if FACT not in state.facts:
            self.journal.fact(FACT, Probed(clips_mark(clips), clips % SUBJECTS).plain())
        self.journal.drive()
        self.read_s = time.perf_counter() - begun
        ladder = make_ladder(spec.schedule)
        setting = Setting(
            ladder, spec.sampler.model_copy(update={"name": job.sampler}), spec.budget, spec.seed, gpus=1.0
        )
        self.engine = make_engine(
            self.journal, choices_of(space), setting, width=NoiseMeter(state, ladder.eta).tie_width
        )
        self.log: TextIO = (folder / "lines.log").open("a", encoding="utf-8")
        self.observers: dict[str, TimedObserver] = {}
        for name in PARTS:
            if name not in job.without:
                self.observers[name] = TimedObserver(self._observer(name, folder, spec, space, ladder))
        self.floor = Floor(self.engine, space, folder, spec.seed, tuple(self.observers.values()))
        self.begin_s = time.perf_counter() - begun

    def _observer(self, name: str, folder: Path, spec: Any, space: Any, ladder: Any) -> Any:
        state = self.journal.state
        if name == "curves":
            return Curves(folder)
        if name == "lines":
            expected = expected_epochs(spec, space, pace_of(space, state))
            return EventLines(state, ladder, spec.budget.trials, expected, self.log)
        return Mirror(folder / MIRROR_FILE, spec.name, self.engine.choices, state, ladder.top, {"top1": "maximize"})

    def behind(self) -> int:
        """Changes that the mirror's thread has still to write."""
        mirror = self.observers.get("mirror")
        return int(mirror.inner._writer.queue.qsize()) if mirror else 0

    def close(self) -> float:
        """Seconds."""
        begun = time.perf_counter()
        self.floor.close()
        self.log.close()
        self.journal.close()
        return time.perf_counter() - begun


class Search:
    """The loop: simulated workers ask and report, every answer is timed."""

    def __init__(self, job: Job, driver: Driver) -> None:
        self.job, self.driver, self.floor = job, driver, driver.floor
        self.state = driver.journal.state
        mark = int(self.state.facts[FACT]["mark"])
        self.outcomes = Outcomes(job.cluster, driver.engine.ladder.rungs, mark)
        self.seats = [Seat() for _ in range(job.cluster.workers)]
        self.agenda = Agenda()
        self.calls: list[Call] = []
        self.marks: dict[int, dict[str, Any]] = {}
        self.held: Counter[str] = Counter()
        self.away: set[int] = set()
        self._due = sorted(
            {n for n in MARKS if self.state.count < n < job.trials + job.beside} | {job.trials + job.beside}
        )

    def run(self, upto: int | None = None) -> None:
        """Until nobody has anything left to do, ``upto`` trials were asked for, or the time is up."""
        begun = time.process_time()
        idle: list[int] = []
        for worker in range(len(self.seats)):
            self.agenda.put(0.0, worker, 0)
        for number, (worker, turn) in enumerate(self.agenda):
            seat = self.seats[worker]
            if turn != seat.turn:
                continue
            self.away.discard(worker)
            if seat.trial is not None:
                self._epoch(worker, seat)
            for free in (worker, *idle[:1]):
                if self.seats[free].trial is None and free not in self.away:
                    self._ask(free, idle)
            if self._due and self.state.count >= self._due[0]:
                self._mark(self._due.pop(0))
            if upto is not None and self.state.count >= upto:
                return
            if number % 100 == 0 and time.process_time() - begun > self.job.most_s:  # dear where there are threads
                self._mark(self.state.count)
                return

    def _timed(self, kind: str, worker: int, call: Callable[[], T]) -> T:
        seat, now = self.seats[worker], self.agenda.now
        journal, known = self.driver.journal, len(self.state.trials)
        disk, cpu, wall = journal.disk_s, time.thread_time(), time.perf_counter()
        answer = call()
        wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
        if kind == "ask":
            goes_on = len(self.state.trials) == known
            kind = "ask, none" if answer is None else "ask, goes on" if goes_on else "ask"
        self.calls.append(Call(worker, now - seat.answered, kind, wall, cpu, journal.disk_s - disk, self.state.count))
        seat.answered = now
        return answer

    def _ask(self, worker: int, idle: list[int]) -> None:
        task = self._timed("ask", worker, self.floor.ask)
        if task is None:
            if worker not in idle:
                idle.append(worker)
            return
        if worker in idle:
            idle.remove(worker)
        seat, number = self.seats[worker], int(task.key[1:])
        trial = self.state.trials[number]
        seat.trial, seat.fails = number, self.outcomes.segment_fails()
        seat.epoch = max(0, trial.epochs - bool(trial.failures))  # a stored result is given again
        self._next(worker, seat)
        if self.outcomes.node_lost():
            self._lose(worker)

    def _next(self, worker: int, seat: Seat) -> None:
        seat.epoch += 1
        seat.seconds = self.outcomes.seconds(int(seat.trial or 0), worker)
        self.agenda.put(self.agenda.now + seat.seconds, worker, seat.turn)

    def _epoch(self, worker: int, seat: Seat) -> None:
        number = int(seat.trial or 0)
        trial, node = self.state.trials[number], self.job.cluster.node(worker)
        if seat.fails is not None:
            kind, seat.fails, seat.trial = seat.fails, None, None
            self._timed("failure", worker, lambda: self.floor.failed(number, "its worker was no more", kind, node))
            return
        found = self.outcomes.result(number, trial.draws, seat.epoch, seat.seconds, time.time()) | {"node": node}
        if found["rung"]:
            path = self.floor.trial_folder(number) / CHECKPOINT
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        payload = json.dumps(found)  # as it travels
        kind = "rung" if found["rung"] else "end" if "ended" in found else "heartbeat"
        if self._timed(kind, worker, lambda: self.floor.result(number, json.loads(payload))):
            self._next(worker, seat)
        else:
            seat.trial = None

    def _lose(self, worker: int) -> None:
        """A node goes, and all that its workers were at."""
        for other in on_node(self.job.cluster, worker):
            seat = self.seats[other]
            number, seat.trial, seat.turn = seat.trial, None, seat.turn + 1
            self.away.add(other)
            self.agenda.put(self.agenda.now + BACK_S, other, seat.turn)
            if number is not None:
                self._lost(number, other)

    def _lost(self, number: int, worker: int) -> None:
        node = self.job.cluster.node(worker)
        self._timed("failure", worker, lambda: self.floor.failed(number, "its node died", LOST, node))

    def _mark(self, number: int) -> None:
        """What is held when so many trials were asked for, and what the latest calls took."""
        last = [c for c in self.calls if c.trials > number - max(100, number // 10)]
        asks = sorted(c.wall for c in last if c.kind == "ask")
        decisions = sum(c.kind in ("ask", "ask, goes on", "rung") for c in last)
        held = {"files": sum(1 for _ in Path("/proc/self/fd").iterdir()), "threads": threading.active_count(),
                "mirror": self.driver.behind(), "MiB": round(_now_mib()),
                "waiting": sum(t.paused for t in self.state.pending)}  # fmt: skip
        self.held |= Counter(held)
        self.marks[number] = held | {
            "decisions_per_s": decisions / max(1e-9, sum(c.wall for c in last)),
            "alone_per_s": decisions / max(1e-9, sum(c.service for c in last)),
            "ask_p50_ms": 1000 * _at(asks, 0.5), "ask_p99_ms": 1000 * _at(asks, 0.99),
        }  # fmt: skip


def _at(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def _now_mib() -> float:
    told = Path("/proc/self/statm").read_text(encoding="ascii").split()
    return int(told[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def make_run(job: Job, runs: Path) -> Path:
    """A run folder with the space of this job: the shipped one, but for its length, budget and sampler."""
    space = yaml.safe_load(find_space(job.space).read_text(encoding="utf-8"))
    lowest, top = job.rungs
    space["schedule"] = {"max": top, "asha": {"min": lowest, "eta": 3, "ladder": "per_method"}}
    space["sampler"] = {**space.get("sampler", {}), "name": job.sampler}
    space["budget"] = {"trials": job.trials + job.beside, "per_trial": {"gpu": 1}}
    folder = runs / str(space["name"])
    folder.mkdir(parents=True)
    write_text(folder / SPACE_FILE, yaml.safe_dump(space, sort_keys=False))
    return folder


def measure(job: Job) -> dict[str, Any]:
    """One row; in a process of its own, or memory means nothing."""
    runs = Path(tempfile.mkdtemp(prefix="skeltune-scale-"))
    try:
        return _measure(job, make_run(job, runs))
    finally:
        shutil.rmtree(runs, ignore_errors=True)


def _measure(job: Job, folder: Path) -> dict[str, Any]:
    if job.beside:
        before = Driver(replace(job, sampler="random", without=PARTS), folder)
        Search(job, before).run(job.beside)
        before.close()
    driver = Driver(job, folder)
    search = Search(job, driver)
    row: dict[str, Any] = {**asdict(job), "load": os.getloadavg()[0], "start_mib": peak_mib()}
    profiler = cProfile.Profile()
    cpu = time.process_time()
    if job.profile:
        profiler.enable()
    broke = ""
    try:
        search.run(job.trials + job.beside if job.beside else None)
    except (RuntimeError, OSError) as error:  # what breaks first is what is looked for
        broke = f"{type(error).__name__}: {error} at {search.state.count} trials"
    profiler.disable()
    row |= told(search) | {"process_cpu_s": time.process_time() - cpu, "broke": broke}
    row["mirror_behind"] = driver.behind()
    row["close_s"], row["peak_mib"] = driver.close(), peak_mib()
    row["profile"] = _slowest(profiler) if job.profile else []
    row["mirror_bytes"] = sum(p.stat().st_size for p in folder.glob(MIRROR_FILE))
    row["event_files"] = sum(1 for _ in folder.glob("trials/*/tb/**/events.*"))
    return row if broke else row | _afterwards(job, folder)


def _afterwards(job: Job, folder: Path) -> dict[str, Any]:
    """The same journal read, resumed, concluded, and looked at."""
    begun = time.perf_counter()
    replay(folder / JOURNAL_FILE)
    row: dict[str, Any] = {"replay_s": time.perf_counter() - begun}
    driver = Driver(job, folder)
    row |= {"resume_read_s": driver.read_s, "resume_s": driver.begin_s}
    waited, begun = sum(t.paused for t in driver.journal.state.pending), time.perf_counter()
    if driver.engine.finished:
        driver.floor.conclude()
        row |= {"conclude_s": time.perf_counter() - begun, "concluded": waited}
    driver.close()
    if job.verbs:
        row["looks"] = {verb: _verb(verb, folder) for verb in VERBS}
    return row


def _verb(verb: str, folder: Path) -> dict[str, float]:
    """A verb on this run folder, in a process as people start it."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-m", "tuning", verb, folder.name, "--runs", str(folder.parent)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=300)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"wall_s": time.perf_counter() - begun, "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime
            - before.ru_stime}  # fmt: skip


def told(search: Search) -> dict[str, Any]:
    """What the calls came to."""
    calls, journal = search.calls, search.driver.journal
    walls: dict[str, list[float]] = {}
    cpus: dict[str, float] = {}
    for call in calls:
        walls.setdefault(call.kind, []).append(call.wall)
        cpus[call.kind] = cpus.get(call.kind, 0.0) + call.cpu
    first = len(search.seats)  # they come all at once
    steady = [c for c in calls[first:] if c.trials < search.state.count]
    return {
        "trials_asked": search.state.count,
        "simulated_hours": search.agenda.now / 3600,
        "wall_s": sum(c.wall for c in calls),
        "cpu_s": sum(c.cpu for c in calls),
        "first_asks_s": sum(c.service for c in calls[:first]),
        "calls": {
            kind: {"n": len(w), "wall_ms": 1000 * float(np.mean(w)), "cpu_ms": 1000 * cpus[kind] / len(w),
                   "p50_ms": 1000 * _at(sorted(w), 0.5), "p99_ms": 1000 * _at(sorted(w), 0.99)}
            for kind, w in walls.items()
        },
        "observers_s": {name: one.seconds for name, one in search.driver.observers.items()},
        "journal_bytes": journal.path.stat().st_size, "journal_lines": journal.lines, "journal_synced": journal.synced,
        "disk_s": journal.disk_s,
        "marks": search.marks, "held": dict(search.held),
        "idle": {f"{length:g}": {"alone": idle_share(steady, length / search.job.cluster.epoch_s),
                                 "with_ray": idle_share(steady, length / search.job.cluster.epoch_s, RAY_S)}
                 for length in (60.0, 20.0, 5.0)},
    }  # fmt: skip


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", default="1000", help="one or more numbers: 1000,10000")
    parser.add_argument("--samplers", default="random", help="random, tpe, rank_gp, portfolio, gp, cmaes")
    parser.add_argument("--beside", type=int, default=0, metavar="N", help="N random trials before, by another driver")
    parser.add_argument("--workers", type=int, default=512)
    parser.add_argument("--epoch", type=float, default=60.0, help="median seconds of an epoch")
    parser.add_argument("--rungs", default="1,27", help="the lowest and the highest, a factor 3 between rungs")
    parser.add_argument("--without", default="", help=f"observers to leave out: {', '.join(PARTS)}")
    parser.add_argument("--seconds", type=float, default=170.0, help="CPU seconds a row at most")
    parser.add_argument("--profile", action="store_true", help="say where the time goes (and be slower)")
    parser.add_argument("--json", type=Path, help="keep everything measured")
    return parser.parse_args(arguments)


def jobs_of(args: argparse.Namespace) -> list[Job]:
    """What is to be measured. Raises ``InputError``."""
    known = ("random", "tpe", "rank_gp", "portfolio", "gp", "cmaes")
    samplers, without = _words(args.samplers), tuple(_words(args.without))
    faults = [f"--samplers: '{name}' is none of {', '.join(known)}" for name in samplers if name not in known]
    faults += [f"--without: '{name}' is none of {', '.join(PARTS)}" for name in without if name not in PARTS]
    for name, given, count in (("trials", args.trials, None), ("rungs", args.rungs, 2)):
        words = _words(given)
        if not all(w.isdecimal() and int(w) for w in words) or not words or (count and len(words) != count):
            faults.append(f"--{name}: '{given}' is no {'pair of numbers' if count else 'number'} of at least 1")
    faults += [f"--{name} must be above 0, got {given:g}"
               for name, given in (("workers", args.workers), ("epoch", args.epoch)) if given <= 0]  # fmt: skip
    if faults or not samplers:
        raise InputError(*(faults or ["--samplers names none"]))
    lowest, top = map(int, _words(args.rungs))
    base = Job(cluster=Cluster(args.workers, epoch_s=args.epoch), beside=args.beside, rungs=(lowest, top),
               without=without, most_s=args.seconds, profile=args.profile)  # fmt: skip
    return [replace(base, sampler=s, trials=int(n)) for s in samplers for n in _words(args.trials)]


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


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
    for job in jobs:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            rows.append(pool.submit(measure, job).result())
    print("\n".join(table(rows)))
    if args.json:
        import torch

        from benchmarks import timing

        settings = vars(args) | {"json": None}
        timing.write_json(
            args.json, timing.report("scale", "benchmarks.scale", given, settings, torch.device("cpu"), rows)
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
