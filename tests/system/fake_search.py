"""A driver with fake trials: real processes, a real journal and real checkpoints, but no Ray and no training.

``python fake_search.py FOLDER --workers W --words JSON`` runs or continues a search; ``--serve`` reads such command
lines (JSON lists) and forks a driver for each, which saves the imports. An epoch is a link of a chain of hashes that
begins with (draws, seed): a worker that resumed at the wrong place would be found out by every later value.

Where it dies is counted in operations on files: ``--die 17:0.3`` is SIGKILL in the 17th, after 30 % of its bytes.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHECKPOINT = "ckpt"
HEADER = {"space": "a" * 64, "data": "b" * 64, "name": "fake"}
GONE = {"gone": True}  # instead of a result: the worker died


# --- files: counted, and at a chosen operation the end ----------------------------------------------------------------


class Disk:
    """``os.write`` and its like, counted. ``die``: operation and share of it; ``room``: bytes before the disk is full.

    ``stuck``: what was half written cannot be taken back either.
    """

    def __init__(self, die: str = "", room: int | None = None, stuck: bool = False) -> None:
        at, _, share = die.partition(":")
        self.at, self.share = int(at or 0), float(share or 0)
        self.room, self.stuck = room, stuck
        self.count = 0
        self.victims: Callable[[], list[int]] = list
        self.os_write = os.write
        os.write = self.write
        for name in ("fsync", "replace", "unlink", "ftruncate"):
            setattr(os, name, self.counted(getattr(os, name)))

    def turn(self) -> bool:
        """One more operation; whether it is the last."""
        self.count += 1
        return self.count == self.at

    def die(self) -> None:
        for pid in [*self.victims(), os.getpid()]:
            os.kill(pid, signal.SIGKILL)

    def pause(self) -> None:
        """An instant without an operation, to die in."""
        if self.turn():
            self.die()

    def write(self, fd: int, data: Any) -> int:
        last = self.turn()
        part = bytes(data)[: int(self.share * (len(data) + 1))] if last else bytes(data)
        if self.room is not None:
            part = part[: self.room]
            self.room -= len(part)
            if not part and not last:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = self.os_write(fd, part)
        if last:
            self.die()
        return done

    def counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def operation(*arguments: Any, **words: Any) -> Any:
            last = self.turn()
            if last and self.share < 0.5:
                self.die()
            if self.stuck and self.room == 0 and call.__name__ == "ftruncate":
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            found = call(*arguments, **words)
            if last:
                self.die()
            return found

        return operation


# --- trials -----------------------------------------------------------------------------------------------------------


def link(chain: int, epoch: int) -> int:
    return zlib.crc32(f"{chain}/{epoch}".encode())


def first_link(draws: dict[str, Any], seed: int) -> int:
    return zlib.crc32(json.dumps([draws, seed], sort_keys=True).encode())


def outcome(draws: dict[str, Any], chain: int, epoch: int, rungs: list[int]) -> dict[str, Any]:
    """An epoch's result. Some configurations diverge at 4 epochs, some collapse in the third."""
    kind = zlib.crc32(json.dumps(draws, sort_keys=True).encode()) % 100
    if kind < 12 and epoch == 3:
        return {"epoch": epoch, "rung": False, "ended": "collapsed", "detail": "spread 0.001"}
    rung = epoch in rungs
    top1 = round((kind / 100) * epoch / (epoch + 2) + (chain % 1000) / 5000, 6)
    return {
        "epoch": epoch,
        "rung": rung,
        "top1": top1 if rung and not (kind > 88 and epoch >= 4) else None,
        "loss": round(chain % 7 / 7, 6) if rung else None,
        "seconds": 1.0 + epoch / 8,
        "train_loss": chain / 2**32,
    }


def seed_of(seed: int, trial: int) -> int:
    return zlib.crc32(f"{seed}/trial/{trial}".encode())


def undisturbed(draws: dict[str, Any], seed: int, rungs: list[int]) -> dict[int, dict[str, Any]]:
    """Every epoch that a trial has when nothing happens."""
    chain, found = first_link(draws, seed), {}
    for epoch in range(1, rungs[-1] + 1):
        chain = link(chain, epoch)
        found[epoch] = outcome(draws, chain, epoch, rungs)
    return found


class Session:
    """As ``tuning.session.Session``: a checkpoint at rungs and now and then, whose result is given again."""

    def __init__(self, folder: str, draws: dict[str, Any], seed: int, rungs: list[int], disk: Disk) -> None:
        self.path, self.draws, self.rungs, self.disk = Path(folder) / CHECKPOINT, draws, rungs, disk
        self.epoch, self.chain = 0, first_link(draws, seed)
        self.again: dict[str, Any] | None = None
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.is_file():
            state = json.loads(self.path.read_text())
            if state["draws"] != draws:
                raise ValueError("the checkpoint holds another configuration")
            self.epoch, self.chain, self.again = state["epoch"], state["chain"], state["result"]

    def step(self) -> dict[str, Any]:
        if self.again is not None:
            again, self.again = self.again, None
            return again
        self.disk.pause()
        self.epoch += 1
        self.chain = link(self.chain, self.epoch)
        result = outcome(self.draws, self.chain, self.epoch, self.rungs)
        if "ended" not in result and (result["rung"] or self.chain % 3 == 0):
            self.save(result)
        self.disk.pause()
        return result

    def save(self, result: dict[str, Any]) -> None:
        state = {"draws": self.draws, "epoch": self.epoch, "chain": self.chain, "result": result}
        part = self.path.with_name(f"{CHECKPOINT}.{os.getpid()}.part")
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            data = json.dumps(state).encode()
            while data:
                data = data[os.write(fd, data) :]
        finally:
            os.close(fd)
        os.replace(part, self.path)


def worker() -> None:
    """A trial's own process: a line with a task or `{}` comes in, a line with an epoch's result goes out."""
    disk = Disk(sys.argv[2] if len(sys.argv) > 2 else "")
    session: Session | None = None
    for line in sys.stdin:
        task = json.loads(line)
        if task:
            session = Session(**task, disk=disk)
        assert session is not None
        print(json.dumps(session.step()), flush=True)
        disk.pause()


class Remote:
    """A worker process that is started when it is needed, and again when it was killed."""

    deaths: list[str] = []  # noqa: RUF012  # where the next ones die

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int | None:
        return None if self.process is None or self.process.poll() is not None else self.process.pid

    def send(self, task: dict[str, Any]) -> None:
        if self.process is None:
            death = [self.deaths.pop(0)] if self.deaths else []
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", __file__, "--worker", *death],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # then its result will not come
            self.process.stdin.write(json.dumps(task) + "\n")
            self.process.stdin.flush()

    def result(self) -> dict[str, Any]:
        assert self.process is not None
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line.endswith("\n"):
            return dict(json.loads(line))
        self.close()
        return GONE

    def close(self) -> None:
        if self.process is not None:
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
            self.process.wait()
            self.process = None


class Local:
    """A worker in the driver's own process."""

    pid = None

    def __init__(self, disk: Disk) -> None:
        self.disk = disk

    def send(self, task: dict[str, Any]) -> None:
        if task:
            self.session = Session(**task, disk=self.disk)

    def result(self) -> dict[str, Any]:
        return self.session.step()

    def close(self) -> None:
        """There is nothing to end."""


# --- the driver -------------------------------------------------------------------------------------------------------


class Driver:
    """One call of the command: workers in a row, each an epoch a round."""

    def __init__(self, given: argparse.Namespace, disk: Disk, engine: Any, choices: Any) -> None:
        self.given, self.engine, self.rungs = given, engine, list(engine.ladder.rungs)
        self.workers: list[Any] = [Remote() if given.processes else Local(disk) for _ in range(given.workers)]
        self.held: list[int | None] = [None] * given.workers
        disk.victims = lambda: [w.pid for w in self.workers if w.pid][:1] if given.take_worker else []

    def run(self) -> None:
        self.tidy()
        while True:
            sent = [slot for slot in range(len(self.workers)) if self.send(slot)]
            if not sent:
                break
            for slot in sent:
                self.take(slot, self.workers[slot].result())
        assert self.engine.finished, "nothing to do, and yet not finished"
        self.engine.conclude()
        self.tidy()
        for one in self.workers:
            one.close()

    def send(self, slot: int) -> bool:
        task: dict[str, Any] = {}
        if self.held[slot] is None:
            segment = self.engine.ask()
            if segment is None:
                return False
            self.held[slot] = segment.trial
            task = {
                "folder": str(self.folder(segment.trial)),
                "draws": dict(segment.draws),
                "seed": seed_of(self.given.seed, segment.trial),
                "rungs": self.rungs,
            }
        self.workers[slot].send(task)
        return True

    def take(self, slot: int, result: dict[str, Any]) -> None:
        from tuning.engine.state import Report

        number = self.held[slot]
        assert number is not None
        goes_on = False
        if result is GONE:
            self.engine.failed(number, "the worker died")
        elif "ended" in result:
            self.engine.ended(number, result["ended"], result["detail"])
        else:
            logs = {"train_loss": result["train_loss"]}
            what = Report(result["epoch"], result["rung"], result["top1"], result["loss"], result["seconds"], logs)
            goes_on = self.engine.report(number, what).goes_on
        if not goes_on:
            self.held[slot] = None
        self.tidy()

    def tidy(self) -> None:
        for trial in self.engine.news():
            (self.folder(trial.trial) / CHECKPOINT).unlink(missing_ok=True)

    def folder(self, trial: int) -> Path:
        return Path(self.given.folder) / "trials" / f"t{trial:04d}"


def jumping_clock(seed: int) -> Callable[[], float]:
    """The time of day on a machine whose clock is set an hour back or forth at any moment."""
    rng, real, off = random.Random(seed), time.time, [0.0]

    def now() -> float:
        if rng.random() < 0.2:
            off[0] += rng.choice([-3600.0, 3600.0])
        return real() + off[0]

    return now


def drive(given: argparse.Namespace, disk: Disk) -> dict[str, Any]:
    """Run or continue the search; what there is to say about it."""
    from tests_engine_helpers import TWO, again, picture, setting_of

    from tuning.engine.journal import Journal, read_events
    from tuning.engine.virtual import make_engine

    setting = setting_of(**{"seed": given.seed, **json.loads(given.words)})
    path = Path(given.folder) / "journal.jsonl"
    with Journal(path, HEADER) as journal:
        journal.drive()
        engine = make_engine(journal, TWO, setting)
        Driver(given, disk, engine, TWO).run()
        copy = again(read_events(path)[0], setting, TWO)
        assert picture(copy.engine) == picture(engine), "the engine is not the replay of its journal"
        return {"operations": disk.count, "torn": journal.torn, "elapsed": journal.elapsed}


def main(arguments: list[str]) -> int:
    """0: the search is over; 1: it could not be finished, and one line says why."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--words", default="{}", help="as in tests_engine_helpers.setting_of")
    parser.add_argument("--processes", action="store_true", help="each worker is a process of its own")
    parser.add_argument("--die", default="", help="operation:share at which this process is killed")
    parser.add_argument("--take-worker", action="store_true", help="...and one worker's process with it")
    parser.add_argument("--deaths", nargs="*", default=[], help="the same for the worker processes, one after another")
    parser.add_argument("--room", type=int, help="bytes that the disk takes")
    parser.add_argument("--stuck", action="store_true", help="a full disk on which nothing can be taken back")
    parser.add_argument("--clock", type=int, help="seed of a clock that jumps")
    given = parser.parse_args(arguments)
    from methods.errors import WorkFailed

    if given.clock is not None:
        time.time = jumping_clock(given.clock)
    Remote.deaths = list(given.deaths)
    disk = Disk(given.die, given.room, given.stuck)
    try:
        print(json.dumps(drive(given, disk)), flush=True)
    except (WorkFailed, OSError) as error:
        print(json.dumps({"failed": str(error), "operations": disk.count}), flush=True)
        return 1
    return 0


def serve() -> None:
    """Fork a driver for each command line; tell its end and what it said."""
    import tests_engine_helpers  # noqa: F401  # with the engine and Optuna

    for line in sys.stdin:
        mouth, ear = os.pipe()[::-1]
        pid = os.fork()
        if pid == 0:
            os.close(ear)
            os.dup2(mouth, 1)
            os.dup2(mouth, 2)
            code = 70
            try:
                code = main(json.loads(line))
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(code)
        os.close(mouth)
        with os.fdopen(ear) as heard:
            said = heard.read()
        _, status = os.waitpid(pid, 0)
        print(json.dumps([os.waitstatus_to_exitcode(status), said]), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "--worker":
        worker()
    else:
        here = Path(__file__).resolve().parent
        sys.path[:0] = [str(here.parents[1]), str(here.parent / "tuning" / "engine")]
        if sys.argv[1] == "--serve":
            serve()
        else:
            sys.exit(main(sys.argv[1:]))
