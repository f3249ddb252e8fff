"""What every benchmark needs: sides timed in turns, ratios of the turns, and the words about the machine."""

from __future__ import annotations

import datetime
import json
import os
import platform
import shlex
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tuning.files import write_text
from tuning.provenance import cpu_name

Side = Callable[[], object]


@dataclass
class Turns:
    """Seconds of each timed turn of one side, by the wall and by the CPU time of this process."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def interleave(sides: Mapping[str, Side], *, rounds: int, seconds: float, device: torch.device) -> dict[str, Turns]:
    """Let every side work once a round, forwards in even rounds and backwards in odd ones, after one untimed turn each.

    Ends after ``rounds`` rounds, or when another round would pass ``seconds`` (at least one is done). Interleaving is
    what makes ratios mean something where other jobs come and go.
    """
    turns = {name: Turns() for name in sides}
    begun = time.perf_counter()
    for name in sides:
        _one_turn(sides[name], Turns(), device)
    for number in range(rounds):
        left = seconds - (time.perf_counter() - begun)
        if number and sum(t.wall[-1] for t in turns.values()) > left:
            break
        for name in sides if number % 2 == 0 else reversed(list(sides)):
            _one_turn(sides[name], turns[name], device)
    return turns


def _one_turn(side: Side, turns: Turns, device: torch.device) -> None:
    synchronise(device)
    wall, cpu = time.perf_counter(), time.process_time()
    side()
    synchronise(device)  # kernels are queued: without this a GPU's turn would end before its work
    turns.wall.append(time.perf_counter() - wall)
    turns.cpu.append(time.process_time() - cpu)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def row(part: str, side: str, samples: int, mine: Turns, base: Turns, note: str = "") -> dict[str, Any]:
    """One line of a result: how many times as fast as ``base`` this side was, turn by turn, and its samples/s.

    Both sides did the same number of ``samples`` in a turn.
    """
    return {
        "part": part,
        "side": side,
        "ratio": summary([b / m for b, m in zip(base.wall, mine.wall, strict=True)]),
        "ratio_cpu_time": summary([b / max(m, 1e-9) for b, m in zip(base.cpu, mine.cpu, strict=True)]),
        "samples_per_second": summary([samples / m for m in mine.wall]),
        "samples_per_cpu_second": summary([samples / max(m, 1e-9) for m in mine.cpu]),
        "samples": samples,
        "rounds": len(mine.wall),
        "note": note,
    }


def summary(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def machine(device: torch.device) -> dict[str, Any]:
    """The hardware, and how busy it is right now."""
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "system": platform.platform(terse=True),
        "load": list(os.getloadavg()),
    }


def report(name: str, module: str, arguments: Sequence[str], settings: Mapping[str, Any], device: torch.device,
           rows: Sequence[Mapping[str, Any]], **more: Any) -> dict[str, Any]:  # fmt: skip
    """What ``--json`` writes; the machine's load is that of the end, ``load_before`` may come along in ``more``."""
    return {
        "benchmark": name,
        "date": datetime.date.today().isoformat(),
        "command": shlex.join(["python", "-m", module, *arguments]),
        "machine": machine(device),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "settings": dict(settings),
        "rows": list(rows),
        **more,
    }


def write_json(path: Path, told: Mapping[str, Any]) -> None:
    """Write by rename, so that a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(told, indent=2) + "\n")


def publish(told: Mapping[str, Any], lines: Sequence[str], path: Path | None, title: str = "") -> None:
    """Print a result as Markdown: its surroundings, then ``lines``; write all of it to ``path`` too, if given."""
    print("\n".join([*([f"# {title}", ""] if title else []), *heading(told), "", *lines]))
    if path:
        write_json(path, told)


def heading(told: Mapping[str, Any]) -> list[str]:
    """Machine, date, command, versions and settings as lines of a result file."""
    m, v = told["machine"], told["versions"]
    before = " ".join(f"{x:.1f}" for x in told.get("load_before", ()))
    load = f"{before} before, " if before else ""
    return [
        f"- machine: {m['cpu']}, {m['cores']} cores, {m['system']}; device {m['device']}, {m['threads']} thread(s)",
        f"- load average (1, 5, 15 min): {load}{' '.join(f'{x:.1f}' for x in m['load'])} after",
        f"- date: {told['date']}; Python {v['python']}, torch {v['torch']}, numpy {v['numpy']}",
        f"- command: `{told['command']}`",
        "- settings: " + ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in told["settings"].items()),
    ]


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Rows as a Markdown table, what they mean under it."""
    lines = [
        "| part | side | times as fast, wall: median (min to max) | CPU time | samples/s | per CPU second | rounds |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        ratio, cpu = _spread(r["ratio"]), _spread(r["ratio_cpu_time"])
        rate, cpu_rate = (_rate(r[key]["median"]) for key in ("samples_per_second", "samples_per_cpu_second"))
        lines.append(f"| {r['part']} | {r['side']} | {ratio} | {cpu} | {rate} | {cpu_rate} | {r['rounds']} |")
    notes = [f"- {r['part']}, {r['side']}: {r['note']}" for r in rows if r["note"]]
    return [*lines, "", *notes] if notes else lines


def _spread(ratio: Mapping[str, float]) -> str:
    return f"**{ratio['median']:.2f}** ({ratio['min']:.2f} to {ratio['max']:.2f})"


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
