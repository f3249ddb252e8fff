"""The result of `benchmarks.scale` as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

RAY_S = 0.0178  # Tune's own seconds a report, with our journal and Ray's classes: benchmarks/results/controller_*.md
MARKS = "| trials | decisions/s: wall, CPU + disk | ask p50, p99 ms | MiB | files | threads | waiting | mirror behind |"


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """One block a row."""
    lines = []
    for row in rows:
        lines += ["", _title(row), ""]
        if row["broke"]:
            lines.append(f"**broke: {row['broke']}**")
        lines += [MARKS, "|---|---|---|---|---|---|---|---|"]
        for n, m in row["marks"].items():
            lines.append(
                f"| {int(n):,} | {m['decisions_per_s']:.0f}, {m['alone_per_s']:.0f} | "
                f"{m['ask_p50_ms']:.1f}, {m['ask_p99_ms']:.1f} | {m['MiB']:,} | {m['files']:,} | {m['threads']:,} | "
                f"{m['waiting']:,} | {m['mirror']:,} |"
            )
        lines += ["", "| call | n | wall ms: mean, p50, p99 | CPU ms |", "|---|---|---|---|"]
        for kind, c in sorted(row["calls"].items()):
            wall = f"{c['wall_ms']:.2f}, {c['p50_ms']:.2f}, {c['p99_ms']:.2f}"
            lines.append(f"| {kind} | {c['n']:,} | {wall} | {c['cpu_ms']:.2f} |")
        lines += ["", *_whole(row), *_idle(row), *_afterwards(row), *row["profile"]]
    return lines


def _title(row: Mapping[str, Any]) -> str:
    without = f", without {', '.join(row['without'])}" if row["without"] else ""
    beside = f" ({row['beside']:,} of them random, by a driver before)" if row["beside"] else ""
    return f"### {row['sampler']}, {row['trials_asked']:,} trials{beside}, {row['cluster']['workers']} workers{without}"


def _whole(row: Mapping[str, Any]) -> list[str]:
    parts = "".join(f", {name} {s:.1f}" for name, s in row["observers_s"].items())
    return [
        f"- driver {row['wall_s']:.1f} s by the wall, {row['cpu_s']:.1f} s CPU ({row['process_cpu_s']:.1f} with "
        f"threads and simulation); of the wall: disk {row['disk_s']:.1f} ({row['journal_synced']:,} flushes){parts}; "
        f"load {row['load']:.1f}",
        f"- journal {row['journal_bytes'] / 2**20:.1f} MiB, {row['journal_lines']:,} lines; mirror "
        f"{row['mirror_bytes'] / 2**20:.1f} MiB; {row['event_files']:,} event files; peak {row['peak_mib']:.0f} MiB "
        f"({row['start_mib']:.0f} at the start); closed in {row['close_s']:.1f} s",
        f"- the first {row['cluster']['workers']} asks, all at once: {row['first_asks_s']:.1f} s",
    ]


def _idle(row: Mapping[str, Any]) -> list[str]:
    lines = []
    for length, both in row["idle"].items():
        (own, busy), (ray, ray_busy) = both["alone"], both["with_ray"]
        lines.append(
            f"- epochs of {length} s: workers wait {100 * own:.2f} % (driver busy {100 * busy:.0f} %); with Ray's "
            f"{1000 * RAY_S:.1f} ms a report {100 * ray:.1f} % ({100 * ray_busy:.0f} %)"
        )
    return lines


def _afterwards(row: Mapping[str, Any]) -> list[str]:
    lines = []
    if "replay_s" in row:
        journal = row["resume_read_s"]
        lines.append(
            f"- replay {row['replay_s']:.2f} s; to resume {row['resume_s']:.2f} s ({journal:.2f} of it the journal)"
        )
    if "conclude_s" in row:
        lines.append(f"- {row['concluded']:,} that waited ended in {row['conclude_s']:.1f} s")
    looks = [f"{v} {t['wall_s']:.1f} s ({t['cpu_s']:.1f} CPU)" for v, t in row.get("looks", {}).items()]
    return [*lines, *([f"- verbs: {', '.join(looks)}"] if looks else [])]
