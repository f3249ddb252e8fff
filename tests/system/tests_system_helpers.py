"""Running the command line from a test."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from tuning.engine.journal import read_events


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "tuning", *map(str, arguments)]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2]), "COLUMNS": "200"}


def skeltune(*arguments: object, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """Run one command to its end; no output may hold a traceback."""
    done = subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=timeout, env=environment(), check=False
    )
    assert "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
    return done


def events(folder: Path, kind: str) -> list[dict]:
    return [event for event in read_events(folder / "journal.jsonl")[0] if event["e"] == kind]


def nothing_twice(folder: Path) -> None:
    """In the raw lines, not only in the replayed state: each trial asked once, each epoch reported once, ended once."""
    for kind, key in (("ask", ("trial",)), ("report", ("trial", "epoch")), ("end", ("trial",)), ("job", ("job",))):
        counted = Counter(tuple(event[k] for k in key) for event in events(folder, kind))
        assert all(count == 1 for count in counted.values()), (kind, counted)


def wait_for(condition, process: subprocess.Popen, seconds: float = 180) -> None:
    """Poll a condition on files; there is nothing to be told by another process that will be killed."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, f"the search ended early: {process.returncode}"
        assert time.monotonic() < end, "the search did not get there in time"
        time.sleep(0.02)


def parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return 0


def trial_workers(driver: int) -> list[int]:
    """Processes of this driver's own Ray that run a trial (others may be at work on the machine)."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name = (folder / "cmdline").read_text()
        except OSError:
            continue
        raylet = parent_of(int(folder.name))
        if name.startswith("ray::") and "Trainable" in name and parent_of(raylet) == driver:
            found.append(int(folder.name))
    return found
