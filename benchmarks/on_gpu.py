"""What a GPU makes of a step: plain and as a graph, in full and reduced precision, alone and packed. One command.

    python -m benchmarks.on_gpu --budget 460 --out on_gpu.jsonl

Needs torch and numpy alone (no Ray, no Optuna), Python 3.11 or later, and a CUDA device; `--device cpu --smoke` tries
the command out without one. One line of JSON a measurement, written as it is made, the dearest questions last; what
does not fit into the budget is named as left out. Both sides of a ratio are timed in turns. Clips are random numbers of
NTU's shape: nothing here says how well anything learns.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.peer import PEERS, peer_of
from benchmarks.peer.base import loader, train_epoch
from benchmarks.peer.setup import PAPERS, scaled_config
from methods.data.layouts import NTU25
from methods.registry import list_methods
from methods.training import captured
from methods.training.captured import Replayer
from methods.training.clips import Clips, ClipStore
from methods.training.config import TrialConfig, with_settings
from methods.training.features import extract
from methods.training.pretrain import order_of, views_seed
from methods.training.probe import linear_lbfgs
from methods.training.run import start
from methods.training.seeds import generator
from methods.training.step import take_step

PAIRS = 11 / 60  # share of clips with a second person: that of two-person classes in NTU RGB+D 60
TARGET = {"samples_per_second": 40_000, "of_bandwidth_floor": 0.6}
FLOOR = {"all": 54_000, "real": 91_000}  # samples/s of SkeletonCLR, batch 128, bf16, at 85 % of an H200's bandwidth


@dataclasses.dataclass
class Bench:
    """Where to measure, how long, and where to write."""

    device: torch.device
    ends: float
    out: Path | None
    batch: int
    clips: Clips
    seconds: float
    warm_up: int = 5
    width: int | None = None  # of networks, where they are not as published (published: 16)

    def left(self) -> float:
        return self.ends - time.perf_counter()

    def tell(self, **row: Any) -> None:
        text = json.dumps(row)
        print(text, flush=True)
        if self.out is not None:
            with self.out.open("a", encoding="utf-8") as file:
                file.write(text + "\n")


def random_clips(count: int, frames: int, seed: int = 0) -> Clips:
    """Walks of NTU's shape (N, 3, T, 25, 2); of a fixed share of the clips the second body is there."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(0, 0.03, (count, 3, frames, 25, 2)).astype(np.float32)
    data = rng.normal(0, 0.4, (count, 3, 1, 25, 2)).astype(np.float32) + np.cumsum(steps, 2)
    data[round(count * PAIRS) :, ..., 1] = 0
    labels = np.arange(count) % 60
    return Clips(data, labels, np.stack([labels % 40, labels * 0 - 1], 1), NTU25, 60, f"random-{count}-{frames}")


def config_of(bench: Bench, method: str, **changes: str) -> TrialConfig:
    """The published configuration of ``method`` at the batch in use, but for bodies, precision or order."""
    config, _ = scaled_config(method, PAPERS, batch=bench.batch, width=bench.width)
    known = {f"encoder.{f.name}" for f in dataclasses.fields(config.encoder)} | {"optim.order"}
    settings = {("optim." if name == "order" else "encoder.") + name: value for name, value in changes.items()}
    return with_settings(config, {name: value for name, value in settings.items() if name in known})


class Stepper:
    """Steps of one run on clips drawn anew, plainly or as a graph."""

    def __init__(self, bench: Bench, config: TrialConfig, graph: bool, clips: Clips | None = None) -> None:
        clips = clips or bench.clips
        self.run = start(config, clips, np.arange(len(clips)), seed=0, device=bench.device)
        self.run.model.train()
        self.replayer = Replayer(self.run) if graph else None
        self.views = torch.Generator(bench.device) if self.replayer is None else self.replayer.views
        self.views.manual_seed(views_seed(self.run))
        self.order, self.next = order_of(self.run), 0

    def __call__(self) -> Tensor:
        index = self.order[self.next % len(self.order)]
        self.next += 1
        if self.replayer is not None:
            return self.replayer.step(index)[1]
        return take_step(self.run, index, self.views).loss.detach()


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(bench: Bench, sides: dict[str, Callable[[], object]], rounds: int = 5) -> dict[str, list[float]]:
    """Seconds a call of each side, turn by turn; a turn of each is as long as the budget of one allows."""
    calls: dict[str, int] = {}
    for name, side in sides.items():
        for _ in range(bench.warm_up):  # of a graph also its recording
            side()
        synchronise(bench.device)
        begun = time.perf_counter()
        side()
        synchronise(bench.device)
        calls[name] = max(1, int(bench.seconds / rounds / max(time.perf_counter() - begun, 1e-6)))
    turns: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in sides if number % 2 == 0 else reversed(list(sides)):
            synchronise(bench.device)
            begun = time.perf_counter()
            for _ in range(calls[name]):
                sides[name]()
            synchronise(bench.device)
            turns[name].append((time.perf_counter() - begun) / calls[name])
    return turns


# --- what is measured -------------------------------------------------------------------------------------------------

WAYS: dict[str, tuple[dict[str, str], bool]] = {
    "plain fp32, all bodies": ({}, False),
    "graph fp32, all bodies": ({}, True),
    "plain bf16, all bodies": ({"precision": "bf16"}, False),
    "graph bf16, all bodies": ({"precision": "bf16"}, True),
    "plain bf16, real bodies": ({"precision": "bf16", "bodies": "real", "order": "stratified"}, False),
    "graph bf16, real bodies": ({"precision": "bf16", "bodies": "real", "order": "stratified"}, True),
}


def agreement(bench: Bench) -> None:
    """First of all: does a graph take the plain path's steps? Ten steps of either from the same weights, fp32."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    config = with_settings(config_of(bench, "skeletonclr"), {"encoder.dropout": 0.0})
    losses = {}
    for name, graph in (("plain", False), ("graph", bench.device.type == "cuda")):
        stepper = Stepper(bench, config, graph)
        losses[name] = [float(stepper().flatten()[0]) for _ in range(10)]
    worst = max(abs(a - b) for a, b in zip(losses["plain"], losses["graph"], strict=True))
    bench.tell(what="agreement", method="skeletonclr", losses=losses, worst=worst)


def steps(bench: Bench, method: str, ways: Sequence[str], beside_peer: bool) -> None:
    """Samples/s of a method's step in several ways, its official-style step beside them in the same turns."""
    config = config_of(bench, method)
    clips = bench.clips if config.frames == bench.clips.data.shape[2] else random_clips(len(bench.clips), config.frames)
    sides: dict[str, Callable[[], object]] = {}
    for way in ways:
        changes, graph = WAYS[way]
        run_config = config_of(bench, method, **changes)
        if graph and bench.device.type != "cuda":
            continue
        try:
            stepper = Stepper(bench, run_config, graph=False, clips=clips)
            if graph and (reason := captured.why_not(stepper.run)):
                bench.tell(what="step", method=method, way=way, left_out=reason)
                continue
            sides[way] = Stepper(bench, run_config, graph, clips)
        except Exception as error:  # one way that does not work is a line of the result, not its end
            bench.tell(what="step", method=method, way=way, failed=f"{type(error).__name__}: {error}")
    if beside_peer:
        add_peer(bench, sides, method, config, clips)
    timed = measured(bench, sides, method)
    for way, turns in timed.items():
        rate = bench.batch / statistics.median(turns)
        told: dict[str, Any] = {"samples_per_second": round(rate), "ms": round(1e3 * statistics.median(turns), 3)}
        if "official" in timed and way != "official":
            told["times_official"] = round(statistics.median(timed["official"]) / statistics.median(turns), 2)
        if method == "skeletonclr" and "bodies" in way:
            told["of_bandwidth_floor"] = round(rate / FLOOR["real" if "real" in way else "all"], 3)
        if bench.device.type == "cuda":
            told["peak_gib"] = round(torch.cuda.max_memory_allocated(bench.device) / 2**30, 2)
        bench.tell(what="step", method=method, way=way, batch=bench.batch, rounds=[round(t, 6) for t in turns], **told)


def measured(bench: Bench, sides: dict[str, Callable[[], object]], method: str) -> dict[str, list[float]]:
    """The turns of all sides; a side that fails while it is timed is told, and the others are timed without it."""
    while sides:
        failing = ""
        try:
            guarded = {}
            for name, side in sides.items():
                failing = name
                for _ in range(bench.warm_up):
                    side()
                guarded[name] = side
            failing = "all"
            return seconds_of(bench, guarded)
        except Exception as error:
            bench.tell(what="step", method=method, way=failing, failed=f"{type(error).__name__}: {error}"[:500])
            if failing not in sides:
                return {}
            sides.pop(failing)
    return {}


def add_peer(
    bench: Bench, sides: dict[str, Callable[[], object]], method: str, config: TrialConfig, clips: Clips
) -> None:
    """The official-style step on clips from its own loader, and the same on views that are there already."""
    if method not in PEERS:
        return
    try:
        cls = peer_of(method)
        peer = cls(config, NTU25, 2).to(bench.device)
        solver = peer.solver()
        batches = loader(cls.views(config, NTU25, clips.data, np.arange(bench.batch)), bench.batch)
        ready = [[part.clone() for part in batch] for batch in batches]
    except Exception as error:  # a peer of another author's making is not what is measured here
        bench.tell(what="step", method=method, way="official", failed=f"{type(error).__name__}: {error}"[:500])
        return
    sides["official"] = lambda: train_epoch(peer, solver, ready, bench.device, 0.0)
    sides["official with its loader"] = lambda: train_epoch(peer, solver, batches, bench.device, 0.0)


def data(bench: Bench) -> None:
    """Two views of a batch on the device, beside the official feeder of one process."""
    config = config_of(bench, "skeletonclr")
    store = ClipStore(bench.clips, bench.device)
    run = start(config, bench.clips, np.arange(len(bench.clips)), seed=0, device=bench.device)
    views, index = generator(bench.device, "views"), torch.arange(bench.batch, device=store.home)
    cls = peer_of("skeletonclr")
    official = loader(cls.views(config, NTU25, bench.clips.data, np.arange(bench.batch)), bench.batch)

    def feed() -> None:
        for batch in official:
            for part in batch:
                part.float().to(bench.device)

    turns = seconds_of(bench, {"ours": lambda: run.model.views(store.take(index), views), "official": feed}, 3)
    for name, seconds in turns.items():
        bench.tell(what="data", side=name, samples_per_second=round(bench.batch / statistics.median(seconds)))


def probe(bench: Bench) -> None:
    """Features of all clips in both precisions, and the linear probe on them."""
    for precision in ("fp32", "bf16"):
        run = start(config_of(bench, "skeletonclr", precision=precision), bench.clips,
                    np.arange(len(bench.clips)), seed=0, device=bench.device)  # fmt: skip
        every = torch.arange(len(bench.clips))
        extract(run.model, run.store, every[:256], None)
        synchronise(bench.device)
        begun = time.perf_counter()
        features = extract(run.model, run.store, every, every)["joint"]
        synchronise(bench.device)
        taken, begun = time.perf_counter() - begun, time.perf_counter()
        labels = torch.from_numpy(bench.clips.labels).to(bench.device)
        linear_lbfgs(features, labels, features[:64], bench.clips.num_classes, 1e-3)
        synchronise(bench.device)
        bench.tell(what="probe", precision=precision, clips=len(every), features_s=round(taken, 3),
                   lbfgs_s=round(time.perf_counter() - begun, 3))  # fmt: skip


def streams(bench: Bench, counts: Sequence[int]) -> None:
    """K trials in one process, each a graph on a CUDA stream of its own."""
    if bench.device.type != "cuda":
        bench.tell(what="streams", left_out="no CUDA device")
        return
    config = config_of(bench, "skeletonclr", precision="bf16", bodies="real", order="stratified")
    for count in counts:
        if bench.left() < 25:
            bench.tell(what="streams", trials=count, left_out="the budget is spent")
            continue
        steppers = [Stepper(bench, config, graph=True) for _ in range(count)]
        for stepper in steppers:
            for _ in range(captured.WARM_UP + 1):
                stepper()
        torch.cuda.synchronize()
        lanes = [torch.cuda.Stream() for _ in steppers]

        def turn(number: int = 50, steppers: list[Stepper] = steppers, lanes: list[Any] = lanes) -> float:
            torch.cuda.synchronize()
            begun = time.perf_counter()
            for _ in range(number):
                for stepper, lane in zip(steppers, lanes, strict=True):
                    with torch.cuda.stream(lane):
                        stepper()
            torch.cuda.synchronize()
            return (time.perf_counter() - begun) / number

        turn(5)
        seconds = statistics.median(turn() for _ in range(3))
        rate = count * bench.batch / seconds
        bench.tell(
            what="streams",
            trials=count,
            samples_per_second=round(rate),
            of_bandwidth_floor=round(rate / FLOOR["real"], 3),
        )


def _alone(batch: int, seconds: float, together: Any, rates: Any) -> None:
    device = torch.device("cuda")
    bench = Bench(device, time.perf_counter() + 300, None, batch, random_clips(1024, 50), seconds)
    config = config_of(bench, "skeletonclr", precision="bf16", bodies="real", order="stratified")
    stepper = Stepper(bench, config, graph=True)
    for _ in range(captured.WARM_UP + 2):
        stepper()
    torch.cuda.synchronize()
    together.wait()
    begun, count = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        for _ in range(20):
            stepper()
        torch.cuda.synchronize()
        count += 20
    rates.put(count * batch / (time.perf_counter() - begun))


def processes(bench: Bench, counts: Sequence[int]) -> None:
    """K trials in K processes on one GPU: what fractions of a GPU buy."""
    if bench.device.type != "cuda":
        bench.tell(what="processes", left_out="no CUDA device")
        return
    context = multiprocessing.get_context("spawn")
    for count in counts:
        if bench.left() < 45:
            bench.tell(what="processes", trials=count, left_out="the budget is spent")
            continue
        together, rates = context.Barrier(count), context.Queue()
        crew = [context.Process(target=_alone, args=(bench.batch, 4.0, together, rates)) for _ in range(count)]
        for one in crew:
            one.start()
        try:
            found = [rates.get(timeout=max(10.0, min(60.0, bench.left()))) for _ in crew]
            bench.tell(what="processes", trials=count, samples_per_second=round(sum(found)),
                       of_bandwidth_floor=round(sum(found) / FLOOR["real"], 3))  # fmt: skip
        except Exception as error:
            bench.tell(what="processes", trials=count, failed=f"{type(error).__name__}: {error}")
        finally:
            for one in crew:
                one.join(timeout=10)
                if one.is_alive():
                    one.kill()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.on_gpu", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--budget", type=float, default=460.0, help="seconds for all of it")
    parser.add_argument("--out", type=Path, help="JSON lines are appended here too")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--clips", type=int, default=4096)
    parser.add_argument("--methods", nargs="*", default=list(list_methods()), help="beside skeletonclr; default: all")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to try the command out")
    args = parser.parse_args(arguments)
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("no CUDA device here (--device cpu --smoke tries the command out)", file=sys.stderr)
        return 2
    if args.smoke:
        args.batch, args.clips = 4, 24
    bench = Bench(device, time.perf_counter() + args.budget, args.out, args.batch, random_clips(args.clips, 50),
                  *((0.01, 1, 2) if args.smoke else (3.0, 5, None)))  # fmt: skip
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    bench.tell(what="machine", device=name, torch=torch.__version__, python=sys.version.split()[0],
               targets=TARGET, floor=FLOOR)  # fmt: skip
    agreement(bench)
    steps(bench, "skeletonclr", list(WAYS), beside_peer=True)
    data(bench)
    probe(bench)
    streams(bench, (1, 2, 4))
    processes(bench, (1, 2, 4))
    for method in args.methods:
        if method == "skeletonclr":
            continue
        if bench.left() < 25:
            bench.tell(what="step", method=method, left_out="the budget is spent")
            continue
        bench.seconds = min(bench.seconds, 1.0)
        steps(bench, method, ["plain fp32, all bodies", "graph fp32, all bodies", "graph bf16, real bodies"], True)
    bench.tell(what="end", left_s=round(bench.left(), 1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
