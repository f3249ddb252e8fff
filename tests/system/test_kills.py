"""Searches that are killed at any instant, and go on: a driver with fake trials, hundreds of times.

Twenty instants a kind; two hundred where ``SKELTUNE_KILLS`` is set, as by `make test-system`. What dies where is
counted in operations on files (`fake_search.py`), so that every run kills at the same ones.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fake_search
import pytest

from tuning.engine.journal import encode, read_events, replay

pytestmark = pytest.mark.system

INSTANTS = 200 if "SKELTUNE_KILLS" in os.environ else 20
KILLS_A_SEARCH = 10
PROGRAM = Path(fake_search.__file__)
SEED = 5
RUNGS = [1, 2, 4, 8]

KINDS = ["driver", "both", "full disk", "torn", "clock"]
SETTINGS: list[tuple[int, dict[str, Any]]] = [  # workers, and what is said of the search
    (1, {"rule": "promote"}),
    (1, {"rule": "stop", "repeats": 3}),
    (3, {"rule": "promote"}),
    (1, {"rule": "promote", "grow": True, "brackets": 2}),
    (3, {"rule": "stop", "per_method": True}),
    (1, {"rule": "promote", "sampler": "tpe", "startup": 3}),
]


def journal_of(folder: Path) -> Path:
    return folder / "journal.jsonl"


def arguments(folder: Path, setting: int, *more: object) -> list[str]:
    workers, words = SETTINGS[setting]
    words = {"rungs": RUNGS, "eta": 2, "budget": {"trials": 14, "retries": 10**6}} | words
    return [str(folder), "--seed", str(SEED), "--workers", str(workers), "--words", json.dumps(words), *map(str, more)]


def environment() -> dict[str, str]:
    return os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # what forks has no threads


class Drivers:
    """Driver processes, forked from one that has everything imported."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )

    def __call__(self, *given: str) -> tuple[int, str]:
        """Run one to its end: its exit code, -9 when it was killed, and what it said."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(given) + "\n")
        self.process.stdin.flush()
        code, said = json.loads(self.process.stdout.readline())
        assert "Traceback" not in said, said
        return code, said

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


@pytest.fixture(scope="module")
def drivers() -> Iterator[Drivers]:
    made = Drivers()
    yield made
    made.close()


@dataclass(frozen=True)
class Undisturbed:
    """A search to which nothing happened: its lines, and how many operations and bytes they took."""

    lines: list[dict[str, Any]]
    operations: int
    size: int


@pytest.fixture(scope="module")
def undisturbed(drivers: Drivers, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, bool], Undisturbed]:
    known: dict[tuple[int, bool], Undisturbed] = {}

    def run(setting: int, processes: bool) -> Undisturbed:
        if (setting, processes) not in known:
            folder = tmp_path_factory.mktemp("whole")
            code, said = drivers(*arguments(folder, setting, *["--processes"] * processes))
            assert code == 0, said
            size = journal_of(folder).stat().st_size
            known[setting, processes] = Undisturbed(lines(folder), json.loads(said)["operations"], size)
        return known[setting, processes]

    return run


def lines(folder: Path) -> list[dict[str, Any]]:
    """The journal's lines without what a clock, a restart or a failure adds to them."""
    events = read_events(journal_of(folder))[0]
    told = [e for e in events if e["e"] not in ("drive", "fail")]
    return [{k: v for k, v in e.items() if k not in ("time", "at", "crc")} for e in told]


# --- what holds after every kill --------------------------------------------------------------------------------------


def nothing_twice(folder: Path) -> None:
    keys = {"ask": ["trial"], "report": ["trial", "epoch"], "end": ["trial"], "decide": ["trial", "epoch", "verdict"]}
    told = [e for e in read_events(journal_of(folder))[0] if e["e"] in keys]
    counted = Counter((e["e"], *(e[k] for k in keys[e["e"]])) for e in told)
    assert not {what: count for what, count in counted.items() if count > 1}


def whole_in_the_end(folder: Path) -> None:
    """Every trial ended once, every epoch is there, every value is what it would have been."""
    state = replay(journal_of(folder))
    nothing_twice(folder)
    assert state.count == 14
    assert not state.pending
    assert any(t.ended == "top" for t in state.ended)
    for trial in state.trials.values():
        assert sorted(trial.reports) == list(range(1, len(trial.reports) + 1)), trial.trial
        real = fake_search.undisturbed(trial.draws, fake_search.seed_of(SEED, trial.trial), RUNGS)
        for epoch, report in trial.reports.items():
            want = real[epoch]
            assert (report.rung, report.top1, report.loss) == (want["rung"], want["top1"], want["loss"])
            assert report.logs == {"train_loss": want["train_loss"]}
        if trial.ended == "collapsed":
            assert real[len(trial.reports) + 1].get("ended") == "collapsed"


def times_in_order(folder: Path) -> None:
    """Seconds of one driver never run backwards nor jump, whatever the time of day does."""
    events = read_events(journal_of(folder))[0]
    starts = [i for i, e in enumerate(events) if e["e"] == "drive"]
    for begin, end in itertools.pairwise([*starts, len(events)]):
        at = [e["at"] for e in events[begin:end]]
        assert at == sorted(at)
        assert at[-1] < 600


# --- kinds of kills ---------------------------------------------------------------------------------------------------


def tear(rng: random.Random, path: Path, safe: int) -> None:
    """Cut a journal within its last line, or add what a crash may leave behind it. Lines before ``safe`` stay: a file
    system that loses two lines which were on the disk is out of order."""
    data = path.read_bytes()
    begin = data.rstrip(b"\n").rfind(b"\n") + 1
    whole = data[: data.rfind(b"\n") + 1]
    another = encode({"e": "report", "trial": 0, "epoch": 99, "rung": True, "top1": 1.0, "loss": 0.0, "seconds": 1.0})
    kind = rng.randrange(4)
    if kind == 0 and begin >= safe > 0:
        path.write_bytes(data[: rng.randrange(begin, len(data))])
    elif kind == 1:
        path.write_bytes(whole + b"\0" * rng.randint(1, 5000))
    elif kind == 2:
        path.write_bytes(whole + rng.randbytes(rng.randint(1, 300)).replace(b"\n", b"\r"))
    else:
        path.write_bytes(whole + another[: rng.randrange(1, len(another))])


def killed_at(rng: random.Random, operations: int) -> list[object]:
    return ["--die", f"{rng.randint(1, max(2, operations // 5))}:{rng.random():.3f}"]


def start(kind: str, rng: random.Random, usual: Undisturbed) -> list[object]:
    """What happens to a driver that is started now."""
    if kind == "full disk":
        return ["--room", rng.randint(0, usual.size // 4), *["--stuck"] * rng.randint(0, 1)]
    if kind == "clock":
        return [*killed_at(rng, usual.operations), "--clock", rng.randrange(10**6)]
    if kind == "both":
        return ["--processes", "--take-worker", *killed_at(rng, usual.operations)]
    return killed_at(rng, usual.operations)


def search(kind: str, number: int, rng: random.Random, run: Drivers, whole: Undisturbed, folder: Path) -> int:
    """One search, disturbed up to ten times; how often it was."""
    setting = number % len(SETTINGS)
    happened = safe = 0
    for _ in range(KILLS_A_SEARCH):
        code, said = run(*arguments(folder, setting, *start(kind, rng, whole)))
        if code == 0:
            break
        assert code == (1 if kind == "full disk" else -9), said
        happened += 1
        path = journal_of(folder)
        if path.is_file():
            nothing_twice(folder)
            if kind == "torn":
                tear(rng, path, safe)
                safe = path.stat().st_size
    code, said = run(*arguments(folder, setting, *["--processes"] * (kind == "both")))
    assert code == 0, said
    return happened


@pytest.mark.parametrize("kind", KINDS)
def test_a_search_goes_on_after_any_instant(kind, drivers, undisturbed, tmp_path):
    """A driver is killed, alone or with a trial's process; its disk is full; its journal is torn; its clock jumps."""
    rng = random.Random(f"kills {kind}")
    happened = 0
    for number in itertools.count(KINDS.index(kind)):  # a few searches shall not all be of the same setting
        setting = number % len(SETTINGS)
        whole = undisturbed(setting, kind == "both")
        folder = tmp_path / str(number)
        folder.mkdir()
        happened += search(kind, number, rng, drivers, whole, folder)
        whole_in_the_end(folder)
        times_in_order(folder)
        if SETTINGS[setting][0] == 1:
            assert lines(folder) == whole.lines
        if happened >= INSTANTS:
            break
    print(f"{kind}: {happened} instants, {number + 1 - KINDS.index(kind)} searches")


def test_a_search_goes_on_when_trials_are_killed(drivers, undisturbed, tmp_path):
    """A trial's process dies anywhere: in an epoch, in a checkpoint, after it, before anybody heard of it."""
    rng = random.Random("kills trial")
    happened = 0
    for number in itertools.count():
        setting = number % len(SETTINGS)
        folder = tmp_path / str(number)
        deaths = [f"{rng.randint(1, 30)}:{rng.random():.3f}" for _ in range(KILLS_A_SEARCH)]
        code, said = drivers(*arguments(folder, setting, "--processes", "--deaths", *deaths))
        assert code == 0, said
        failures = [len(t.failures) for t in replay(journal_of(folder)).trials.values()]
        happened += sum(failures)
        whole_in_the_end(folder)
        if SETTINGS[setting][0] == 1:
            assert lines(folder) == undisturbed(setting, True).lines
        if happened >= INSTANTS:
            break
    print(f"trial: {happened} instants, {number + 1} searches")


def test_the_command_itself_is_killed_from_outside(drivers, undisturbed, tmp_path):
    """No fork, no counting: the program from the shell, SIGKILL after a random share of the time that it takes."""
    whole = undisturbed(0, False)
    rng = random.Random("from outside")
    begun = [sys.executable, str(PROGRAM), *arguments(tmp_path / "a", 0)]
    first = subprocess.Popen(begun, stdout=subprocess.PIPE, text=True, env=environment())
    said = json.loads(first.communicate(timeout=120)[0])
    assert first.returncode == 0
    assert lines(tmp_path / "a") == whole.lines
    killed = 0
    for _ in range(max(2, INSTANTS // 20)):
        process = subprocess.Popen(
            [sys.executable, str(PROGRAM), *arguments(tmp_path / "b", 0)],
            stdout=subprocess.DEVNULL,
            env=environment(),
        )
        journal = journal_of(tmp_path / "b")
        known = journal.stat().st_size if journal.is_file() else 0
        while process.poll() is None and not (journal.is_file() and journal.stat().st_size > known):
            pass  # it is importing
        try:
            process.wait(rng.random() * said["elapsed"])
        except subprocess.TimeoutExpired:
            process.kill()
            killed += process.wait() == -9
    assert killed
    assert subprocess.run([sys.executable, str(PROGRAM), *arguments(tmp_path / "b", 0)], check=False).returncode == 0
    assert lines(tmp_path / "b") == whole.lines
