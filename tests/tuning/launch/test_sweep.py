"""sweep.py ends one cluster's processes and nobody else's: real processes, told apart by what they name and write."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

import tuning.launch.sweep as shipped

SOURCE = Path(shipped.__file__)
SLEEP = "import time; time.sleep(600)"


@pytest.fixture
def sweep() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sweep_under_test", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen]]:
    """Start Python code in a session of its own; it has opened ``log`` (with the mode) when this returns."""
    begun = []

    def begin(code: str, *words: str, log: tuple[Path, str] | None = None, **options) -> subprocess.Popen:
        opened = f"log = open({str(log[0])!r}, {log[1]!r})\n" if log else ""
        command = [sys.executable, "-c", opened + "import os, signal\nprint('up', flush=True)\n" + code, *words]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True, **options)
        begun.append(process)
        assert process.stdout.readline() == "up\n"
        return process

    yield begin
    for process in begun:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def run(folder: Path | str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SOURCE, str(folder)], capture_output=True, text=True, timeout=30, check=False
    )


def ends(process: subprocess.Popen) -> int:
    return process.wait(timeout=10)


def test_all_of_one_cluster_and_nobody_else(tmp_path: Path, start) -> None:
    ours, theirs = tmp_path / "skeltune-a", tmp_path / "skeltune-a2"
    for folder in (ours, theirs):
        folder.mkdir()
    (ours / "log").touch()
    mine = [
        start(SLEEP, f"--session-dir={ours}/session/logs"),  # raylet, gcs_server, agents
        start(SLEEP, "--temp-dir", str(ours)),
        start(SLEEP, log=(ours / "worker.out", "w")),  # a worker: its title says nothing
        start(SLEEP, cwd=ours),  # a job's driver
    ]
    others = [
        start(SLEEP, f"--session-dir={theirs}/session/logs"),
        start(SLEEP, log=(theirs / "worker.out", "w")),
        start(SLEEP, f"--session-dir=/elsewhere{ours}"),
        start(SLEEP, str(ours / "log"), log=(ours / "log", "r")),  # somebody reads a log
    ]
    done = run(ours)
    assert done.returncode == 0 and done.stdout == f"{ours}: 4 ended, of these 0 killed, 0 left\n"
    assert [ends(process) for process in mine] == [-signal.SIGTERM] * 4
    assert [process.poll() for process in others] == [None] * 4
    assert run(ours).stdout == f"{ours}: 0 ended, of these 0 killed, 0 left\n"


def test_descendants_go_too_and_who_does_not_listen_is_killed(tmp_path: Path, sweep: ModuleType, start) -> None:
    child = "import subprocess, sys; c = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], "
    child += "start_new_session=True, stdout=subprocess.DEVNULL); print(c.pid, flush=True)\n"
    deaf = start("signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + child + SLEEP, log=(tmp_path / "out", "w"))
    grandchild = int(deaf.stdout.readline())
    done = run(tmp_path)
    assert done.returncode == 0 and "2 ended, of these 2 killed, 0 left" in done.stdout  # a child inherits deafness
    assert ends(deaf) == -signal.SIGKILL
    assert grandchild not in sweep.snapshot()


def test_a_stopped_process_ends(tmp_path: Path, start) -> None:
    process = start(SLEEP, log=(tmp_path / "out", "w"))
    os.kill(process.pid, signal.SIGSTOP)
    assert run(tmp_path).returncode == 0
    assert ends(process) == -signal.SIGKILL


def test_who_sweeps_and_who_called_it_live(tmp_path: Path) -> None:
    script = f"cd {tmp_path}; {sys.executable} {SOURCE} {tmp_path}; echo $? lived"
    done = subprocess.run(
        ["bash", "-c", script, "--", f"--temp-dir={tmp_path}"], capture_output=True, text=True, check=False
    )
    assert done.stdout.endswith("0 lived\n")


def test_a_later_process_with_the_same_number_is_not_touched(sweep: ModuleType, start) -> None:
    process = start(SLEEP)
    start_time = sweep.Process(process.pid).start
    assert sweep.is_alive((process.pid, start_time)) and not sweep.is_alive((process.pid, start_time - 1))
    assert sweep.send((process.pid, start_time - 1), signal.SIGKILL)
    assert process.poll() is None
    assert sweep.send((process.pid, start_time), signal.SIGKILL)
    assert ends(process) == -signal.SIGKILL


def test_processes_that_come_while_it_sweeps_are_found(tmp_path: Path, sweep: ModuleType, start) -> None:
    again = f"""
import os, signal, subprocess, sys, time
log = open({str(tmp_path / "out")!r}, "w")
def respawn(*_):
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "--temp-dir={tmp_path}"],
                     start_new_session=True, stdout=subprocess.DEVNULL)
    os._exit(0)
signal.signal(signal.SIGTERM, respawn)
print("ready", flush=True)
time.sleep(600)
"""
    process = start(again)
    process.stdout.readline()
    seen, _, left = sweep.sweep(str(tmp_path))
    assert ends(process) == 0 and (seen, left) == (2, [])


def test_what_cannot_be_ended_is_named(tmp_path: Path, sweep: ModuleType, start, monkeypatch, capsys) -> None:
    process = start(SLEEP, log=(tmp_path / "out", "w"))
    monkeypatch.setattr(sweep, "send", lambda key, number: False)
    begin = time.monotonic()
    monkeypatch.setattr(sweep.sweep, "__defaults__", (0.1, 0.1))
    assert sweep.main([str(tmp_path)]) == 1
    assert time.monotonic() - begin < 5
    said = capsys.readouterr().out
    assert "0 ended, of these 0 killed, 1 left" in said and f"left: {process.pid} " in said


@pytest.mark.parametrize("folder", ["", "/", "/tmp", "relative", "/tmp/../etc/x", "/tmp//x"])
def test_a_folder_that_cannot_be_a_clusters(folder: str) -> None:
    done = run(folder)
    assert done.returncode == 2 and "usage" in done.stderr and not done.stdout


def test_without_a_word_it_is_the_cluster_whose_folder_it_lies_in(tmp_path: Path) -> None:
    home = tmp_path / "no-such-cluster"
    home.mkdir()
    (home / "sweep.py").write_text(SOURCE.read_text())
    command = [sys.executable, home / "sweep.py"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 2
    (home / "env.sh").touch()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.startswith("/tmp/skeltune-no-such-cluster: 0 ended")


def test_the_nodes_python_may_be_old_and_bare() -> None:
    tree = ast.parse(SOURCE.read_text(), feature_version=(3, 8))
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported <= {"__future__", "os", "re", "signal", "sys", "time"}
