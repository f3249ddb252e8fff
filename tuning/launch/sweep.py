#!/usr/bin/env python3
# ruff: noqa: PTH100, PTH110, PTH115, PTH118, PTH119, PTH120, PTH123, PTH208
"""End every process of one Ray cluster on this machine, and nobody else's: ``python3 sweep.py [TEMP_DIR]``.

`ray stop` ends every Ray that it can see; this ends what belongs to the temp-dir that the cluster was started with:
who names it in an option, who writes into it (a worker's title says nothing, its log does), and their descendants. It
runs on nodes with any Python from 3.8 on and needs nothing else. SIGTERM first; SIGKILL for who stays. Exit code: 0
when none is left, 1 when some are, 2 for a folder that cannot be a cluster's.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time

GRACE_S = 3.0  # from SIGTERM to SIGKILL
KILL_S = 5.0  # from SIGKILL to "it is left"
WRITES = (os.O_WRONLY, os.O_RDWR)
TYPE_CHECKING = False
if TYPE_CHECKING:
    Key = tuple[int, int]  # a process number and its start time


class Process:
    """One process as /proc shows it; the start time tells it from a later one with the same number."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()  # the name before it may hold anything
        self.state, self.parent = fields[0].decode(), int(fields[1])
        self.terminal, self.start = int(fields[4]), int(fields[19])
        self.key = (pid, self.start)


def snapshot() -> dict[int, Process]:
    """All processes that are alive, by number."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                process = Process(int(name))
            except (OSError, ValueError, IndexError):
                continue  # gone meanwhile
            if process.state not in "ZX":
                found[process.pid] = process
    return found


def roots_of(folder: str) -> list[str]:
    """The folder as it was given and as the kernel names it."""
    return sorted({folder, os.path.realpath(folder)})


def named_in(arguments: list[str], roots: list[str]) -> bool:
    """True if an option's value is the folder or lies in it; ``tail -f FOLDER/log`` is somebody's own business."""
    pattern = "|".join(re.escape(root) for root in roots)
    whole = re.compile(rf"(?:^|[=,:;\"'\s])(?:{pattern})(?:$|[/,:;\"'\s])")
    previous = ""
    for argument in arguments:
        if (argument.startswith("-") or previous == "--temp-dir") and whole.search(argument):
            return True
        previous = argument
    return False


def inside(path: str, roots: list[str]) -> bool:
    """True if the path is the folder or lies in it."""
    return any(path == root or path.startswith(root + "/") for root in roots)


def belongs(process: Process, roots: list[str]) -> bool:
    """True if the process itself shows that it is the cluster's; unreadable ones (other users') are not."""
    base = f"/proc/{process.pid}"
    try:
        with open(base + "/cmdline", "rb") as file:
            arguments = file.read().decode("utf-8", "replace").split("\0")
        if named_in(arguments, roots):
            return True
        if process.terminal == 0 and inside(os.readlink(base + "/cwd"), roots):
            return True  # a job's driver and what it starts; a person's shell has a terminal
        for handle in os.listdir(base + "/fd"):
            try:
                if not inside(os.readlink(base + "/fd/" + handle), roots):
                    continue
                with open(base + "/fdinfo/" + handle) as file:
                    flags = re.search(r"^flags:\s*([0-7]+)", file.read(), re.MULTILINE)
            except OSError:
                continue
            if flags and int(flags.group(1), 8) & os.O_ACCMODE in WRITES:
                return True
    except OSError:
        pass
    return False


def members(roots: list[str]) -> dict[Key, Process]:
    """The cluster's processes now: those that show it, and all their descendants. Never this one or its ancestors."""
    alive = snapshot()
    spared, pid = set(), os.getpid()
    while pid in alive and pid not in spared:
        spared.add(pid)
        pid = alive[pid].parent
    found = {pid for pid, process in alive.items() if pid not in spared and belongs(process, roots)}
    grown = True
    while grown:
        more = {pid for pid, process in alive.items() if process.parent in found} - found - spared
        found |= more
        grown = bool(more)
    return {alive[pid].key: alive[pid] for pid in found}


def is_alive(key: Key) -> bool:
    """True while this very process runs."""
    try:
        process = Process(key[0])
    except (OSError, ValueError, IndexError):
        return False
    return process.key == key and process.state not in "ZX"


def send(key: Key, number: int) -> bool:
    """Signal the process ``key`` and no later one with its number. False if it may not be signalled."""
    try:
        if hasattr(os, "pidfd_open") and hasattr(signal, "pidfd_send_signal"):
            handle = os.pidfd_open(key[0])  # from here on the number cannot mean another
            try:
                if is_alive(key):
                    signal.pidfd_send_signal(handle, number)
            finally:
                os.close(handle)
        elif is_alive(key):
            os.kill(key[0], number)
    except ProcessLookupError:
        pass
    except OSError as error:
        return not isinstance(error, PermissionError) and _plain_kill(key, number)
    return True


def _plain_kill(key: Key, number: int) -> bool:
    """For kernels without pidfd."""
    try:
        if is_alive(key):
            os.kill(key[0], number)
    except ProcessLookupError:
        pass
    except OSError:
        return False
    return True


def sweep(folder: str, grace: float = GRACE_S, patience: float = KILL_S) -> tuple[int, int, list[Key]]:
    """End the cluster's processes; returns how many were seen, how many had to be killed, and those that are left."""
    roots = roots_of(folder)
    seen: set[Key] = set()
    told: set[Key] = set()
    killed: set[Key] = set()
    begin = time.monotonic()
    while True:
        seen.update(members(roots))
        alive = {key for key in seen if is_alive(key)}  # also those that no longer show it
        if not alive:
            if not members(roots):
                return len(seen), len(killed), []
            continue
        passed = time.monotonic() - begin
        if passed > grace + patience:
            return len(seen), len(killed - alive), sorted(alive)
        for key in sorted(alive):
            if passed > grace:
                killed.add(key)
                send(key, signal.SIGKILL)
            elif key not in told:
                told.add(key)
                send(key, signal.SIGTERM)
        time.sleep(0.1)


def title(pid: int) -> str:
    """What the process calls itself."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().replace(b"\0", b" ").decode("utf-8", "replace").strip()[:80] or "?"
    except OSError:
        return "?"


def _own_folder() -> str:
    """The temp-dir of the cluster in whose folder this file lies, or nothing."""
    home = os.path.dirname(os.path.abspath(globals().get("__file__", "")))
    return "/tmp/skeltune-" + os.path.basename(home) if os.path.exists(os.path.join(home, "env.sh")) else ""


def main(arguments: list[str]) -> int:
    """Sweep and print one line, plus one for each process that is left."""
    folder = arguments[0].rstrip("/") if len(arguments) == 1 else _own_folder() if not arguments else ""
    if not folder.startswith("/") or os.path.normpath(folder) != folder or folder.count("/") < 2:
        print("usage: sweep.py [TEMP_DIR], the absolute path that the cluster was started with", file=sys.stderr)
        return 2
    seen, killed, left = sweep(folder)
    print(f"{folder}: {seen - len(left)} ended, of these {killed} killed, {len(left)} left")
    for pid, _ in left:
        print(f"left: {pid} {title(pid)}")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
