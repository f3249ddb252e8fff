"""What is the best way to have K trials on one device: in turn, as one batched model, on streams, in processes?

Every way takes the same number of steps of K trials that differ in seed, rate and clips; all ways take turns, on random
clips of NTU's shape. First it is checked that the batched model takes the steps of the single ones.

    python -m benchmarks.side_by_side --batch 16 --seconds 150                        # a CPU, one thread
    python -m benchmarks.side_by_side --device cuda --trials 2 4 8 --precision bf16   # a GPU, graphs and plain
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import timing
from benchmarks.on_gpu import random_clips
from benchmarks.peer.setup import PAPERS, scaled_config
from methods.training import captured
from methods.training.clips import Clips
from methods.training.config import TrialConfig, with_settings
from methods.training.fusing import Fused
from methods.training.fusing.agreement import FUSES
from methods.training.pretrain import Run, _one_epoch, start

Row = dict[str, Any]
IN_TURN, BATCHED = "one after the other", "one batched model"
LONG = 100_000  # epochs of a run, so that no number of turns reaches another stage
LIMIT = 1e-9  # of a loss, in float64
START = 120.0  # seconds that the processes have to get ready


@dataclass(frozen=True)
class Setup:
    """What every way shares; it goes to other processes."""

    config: TrialConfig
    device: str
    steps: int
    double: bool = False

    @property
    def samples(self) -> int:
        """Clips that one trial sees in a turn."""
        return self.steps * self.config.optim.batch

    def clips(self, trial: int) -> Clips:
        clips = random_clips(self.samples, self.config.frames, trial)
        return replace(clips, data=clips.data.astype(np.float64)) if self.double else clips

    def run(self, trial: int, captured: bool = False) -> Run:
        """The ``trial``-th run, whose epoch is one turn."""
        own = with_settings(self.config, {"optim.lr": self.config.optim.lr * (1 + 0.1 * trial)})
        index = np.arange(self.samples)
        run = start(own, self.clips(trial), index, seed=trial, device=self.device, captured=captured)
        run.model.to(torch.float64 if self.double else torch.float32)
        return run

    def runs(self, count: int, captured: bool = False) -> list[Run]:
        return [self.run(trial, captured) for trial in range(count)]


def check(setup: Setup) -> dict[str, Any]:
    """Two trials for a turn in float64 without dropout: how far do the batched model's losses lie from the single's?"""
    config = with_settings(setup.config, {"encoder.dropout": 0.0, "encoder.precision": "fp32"})
    small = replace(setup, config=config, steps=min(2, setup.steps), double=True)
    pairs = [small.runs(2) for _ in range(2)]
    fused, alone = Fused(pairs[0]).one_epoch()[0], [_one_epoch(run)[0] for run in pairs[1]]
    worst = max(float((a - b).abs().max()) for a, b in zip(fused, alone, strict=True))
    return {"what": "losses of two trials", "difference": worst, "limit": LIMIT, "agree": worst <= LIMIT}


# --- the ways ---------------------------------------------------------------------------------------------------------


def in_turn(runs: Sequence[Run]) -> timing.Side:
    def turn() -> None:
        for run in runs:
            _one_epoch(run)

    return turn


def with_threads(count: int, side: timing.Side) -> timing.Side:
    """``side`` with so many threads of torch; afterwards there are as many as before."""

    def turn() -> None:
        before = torch.get_num_threads()
        torch.set_num_threads(count)
        try:
            side()
        finally:
            torch.set_num_threads(before)

    return turn


def on_streams(runs: Sequence[Run]) -> timing.Side:
    """Each run's recorded steps on a CUDA stream of its own, step by step in turn, from one thread."""
    lanes = [torch.cuda.Stream() for _ in runs]
    for run in runs:  # recorded alone: a recording is disturbed by what else is launched
        while run.step <= captured.WARM_UP:
            _one_epoch(run)
    orders = [run.index[: run.steps_per_epoch * run.config.optim.batch].to(run.store.home) for run in runs]

    def turn() -> None:
        for step in range(runs[0].steps_per_epoch):
            for run, order, lane in zip(runs, orders, lanes, strict=True):
                size = run.config.optim.batch
                replayer = run.replayer
                if isinstance(replayer, captured.Replayer):
                    with torch.cuda.stream(lane):
                        replayer.step(order[step * size : (step + 1) * size])

    return turn


class Crew:
    """K processes with a trial each, which take a turn when told to and wait in between."""

    def __init__(self, setup: Setup, count: int, captured: bool = False) -> None:
        context = multiprocessing.get_context("spawn")
        self.cpu: list[float] = []  # seconds of all of them, turn by turn
        self._ends = []
        self._processes = []
        for trial in range(count):
            mine, theirs = context.Pipe()
            process = context.Process(target=_member, args=(theirs, setup, trial, captured), daemon=True)
            process.start()
            theirs.close()
            self._ends.append(mine)
            self._processes.append(process)

    def __enter__(self) -> Crew:
        try:
            for end in self._ends:
                if not end.poll(START):
                    raise RuntimeError(f"a process was not ready within {START:.0f} seconds")
                end.recv()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for end in self._ends:
            end.close()  # a member that waits ends by that
        for process in self._processes:
            process.join(timeout=10)
            if process.is_alive():
                process.kill()

    def turn(self) -> None:
        for end in self._ends:
            end.send("go")
        self.cpu.append(sum(end.recv() for end in self._ends))


def _member(end: Any, setup: Setup, trial: int, captured_steps: bool) -> None:
    """One process of a :class:`Crew`: answers every word with the CPU seconds of a turn."""
    torch.set_num_threads(1)
    run = setup.run(trial, captured_steps)
    while run.step <= (captured.WARM_UP if captured_steps else 0):
        _one_epoch(run)
    timing.synchronise(run.device)
    end.send("ready")
    while True:
        try:
            end.recv()
        except EOFError:
            return
        begun = time.process_time()
        _one_epoch(run)
        timing.synchronise(run.device)
        end.send(time.process_time() - begun)


# --- measuring --------------------------------------------------------------------------------------------------------


def measure(setup: Setup, count: int, rounds: int, seconds: float) -> tuple[list[Row], dict[str, str]]:
    """All ways of ``count`` trials in turns: rows, and why there is no row of others."""
    cuda = setup.device.startswith("cuda")
    sides: dict[str, timing.Side] = {
        IN_TURN: in_turn(setup.runs(count)),
        BATCHED: Fused(setup.runs(count)).one_epoch,
    }
    crews: dict[str, Crew] = {}
    missing: dict[str, str] = {}
    with ExitStack() as stack:

        def crew(name: str, **how: bool) -> None:
            crews[name] = stack.enter_context(Crew(setup, count, **how))
            sides[name] = crews[name].turn

        if cuda:
            crew("a process each")
            why_not = captured.why_not(setup.run(0, captured=True))
            graphs = ("graphs, one after the other", "graphs, a CUDA stream each", "graphs, a process each")
            if why_not:
                missing |= dict.fromkeys(graphs, f"a step cannot be recorded: {why_not}")
            else:
                sides[graphs[0]] = in_turn(setup.runs(count, captured=True))
                sides[graphs[1]] = on_streams(setup.runs(count, captured=True))
                crew(graphs[2], captured=True)
        else:
            missing |= dict.fromkeys(("a CUDA stream each", "graphs", "a fraction of a GPU each"), "no CUDA device")
            if count == 2 and (os.cpu_count() or 1) >= 2:
                sides[f"{IN_TURN}, 2 threads"] = with_threads(2, in_turn(setup.runs(count)))
                crew("2 processes of 1 thread")
            else:
                missing["processes"] = "measured with 2 trials, on 2 cores"
        turns = timing.interleave(sides, rounds=rounds, seconds=seconds, device=torch.device(setup.device))
    for name, each in crews.items():
        turns[name].cpu = each.cpu[-len(turns[name].wall) :]  # this process only waited for them
    rows = [
        timing.row(f"{count} trials", name, count * setup.samples, mine, turns[IN_TURN]) for name, mine in turns.items()
    ]
    for row in rows:
        row["trials"] = count
        row["samples_per_second_a_trial"] = {k: v / count for k, v in row["samples_per_second"].items()}
    return rows, missing


def lines(rows: Sequence[Mapping[str, Any]], missing: Mapping[int, Mapping[str, str]]) -> list[str]:
    """A Markdown table of all rows, and below it what there is no row of."""
    told = [
        "| trials | way | times as fast, wall: median (min to max) | CPU time | samples/s a trial | rounds |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        ratio, cpu = timing._spread(row["ratio"]), timing._spread(row["ratio_cpu_time"])
        rate = row["samples_per_second_a_trial"]["median"]
        told.append(f"| {row['trials']} | {row['side']} | {ratio} | {cpu} | {rate:.3g} | {row['rounds']} |")
    told.append("")
    for count, why in missing.items():
        told += [f"- {count} trials, {name}: left out, {reason}" for name, reason in why.items()]
    return told


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    summary = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.side_by_side", description=summary)
    parser.add_argument("--method", default="skeletonclr", choices=sorted(FUSES))
    parser.add_argument("--trials", type=int, nargs="+", default=[2, 4], help="K")
    parser.add_argument("--batch", type=int, default=None, help="clips a step (default: as published)")
    parser.add_argument("--frames", type=int, default=None, help="T")
    parser.add_argument("--width", type=int, default=None, help="channels of the first stage (published: 16)")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--steps", type=int, default=None, help="steps of each trial in a turn (default: 1, CUDA: 20)")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each way")
    parser.add_argument("--seconds", type=float, default=150.0, help="no further round once about so many are used up")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    parser.add_argument("--json", type=Path, help="also write everything measured to this file")
    args = parser.parse_args(arguments)
    if min(*args.trials, args.rounds, 1 if args.steps is None else args.steps) < 1:
        parser.error("--trials, --rounds and --steps must be at least 1")
    if args.batch is not None and args.batch < 2:
        parser.error("--batch must be at least 2")
    return args


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, measure, print Markdown; 1 when the batched model does not take the single ones' steps."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    args = parse(given)
    torch.set_num_threads(1)
    device = args.device if args.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    config, sizes = scaled_config(args.method, PAPERS, batch=args.batch, frames=args.frames, width=args.width)
    config = with_settings(config, {"epochs": LONG, "encoder.precision": args.precision})
    setup = Setup(config, device, args.steps or (20 if device.startswith("cuda") else 1))
    load_before, begun = list(os.getloadavg()), time.perf_counter()
    checked = check(setup)
    word = "agree" if checked["agree"] else "DO NOT AGREE"
    print(f"- batched and single {word}: {checked['what']} differ by {checked['difference']:.1e} (limit {LIMIT:.0e})")
    if not checked["agree"]:
        return 1
    rows: list[Row] = []
    missing: dict[int, dict[str, str]] = {}
    weights = [sum(args.trials[i:]) for i in range(len(args.trials))]
    for count, left in zip(args.trials, weights, strict=True):
        share = (args.seconds - (time.perf_counter() - begun)) * count / left
        found, missing[count] = measure(setup, count, args.rounds, share)
        rows += found
    settings = {"method": args.method, "sizes": sizes, "batch": config.optim.batch, "frames": config.frames,
                "precision": args.precision, "steps_a_turn": setup.steps}  # fmt: skip
    told = timing.report("side_by_side", "benchmarks.side_by_side", given, settings, torch.device(device), rows,
                         checks=[checked], missing=missing, load_before=load_before)  # fmt: skip
    timing.publish(told, lines(rows, missing), args.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
