"""NTU RGB+D's text files made up in their real size, and two plain readers to measure ours by.

:func:`read_official` goes about it as the readers that come with the dataset and with most repositories do: a line, its
fields, each a float, into dicts; then the array of the first two bodies of each frame. :func:`read_lean` is the same
loop by somebody who minds the time: only x, y and z are turned into numbers, and there are no dicts. Both are written
anew and share no code with ``methods``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

JOINTS, PERSONS = 25, 2
FIRST_ID = 72057594037931101
BODY_KEYS = (
    *("bodyID", "clipedEdges", "handLeftConfidence", "handLeftState", "handRightConfidence", "handRightState"),
    *("isResticted", "leanX", "leanY", "trackingState"),
)
JOINT_KEYS = (
    *("x", "y", "z", "depthX", "depthY", "colorX", "colorY"),
    *("orientationW", "orientationX", "orientationY", "orientationZ", "trackingState"),
)


def make_text(seed: int) -> str:
    """A file of 60 to 120 frames, two bodies in every third file: float32 with 7 digits, as the Kinect's are."""
    rng = np.random.default_rng(seed)
    frames, bodies = int(rng.integers(60, 121)), 2 if seed % 3 == 0 else 1
    at_rest = rng.normal(0, 1, (bodies, JOINTS, 3)) * [0.15, 0.45, 0.1] + [0, 0, 3.4]
    at_rest[1:, :, 0] += 0.8
    joints = at_rest + np.cumsum(rng.normal(0, 0.01, (frames, bodies, JOINTS, 3)), axis=0)
    pixels = rng.uniform([150, 100, 400, 200], [350, 350, 1500, 1000], (frames, bodies, JOINTS, 4))
    turns = rng.normal(0, 0.5, (frames, bodies, JOINTS, 4))
    numbers = np.concatenate([joints, pixels, turns], axis=-1).astype(np.float32)
    lean = rng.normal(0, 0.1, (frames, bodies, 2)).astype(np.float32)
    lines = [str(frames)]
    for t in range(frames):
        lines.append(str(bodies))
        for b in range(bodies):
            lines += [f"{FIRST_ID + b} 0 1 1 1 1 0 {lean[t, b, 0]:.7g} {lean[t, b, 1]:.7g} 2", str(JOINTS)]
            lines += [" ".join(f"{value:.7g}" for value in row) + " 2" for row in numbers[t, b].tolist()]
    return "\n".join(lines) + "\n"


def name(number: int) -> str:
    """Names of one setup: performers, replications and actions in turn."""
    action, number = 1 + number % 60, number // 60
    replication, number = 1 + number % 2, number // 2
    camera, performer = 1 + number % 3, 1 + number // 3
    return f"S001C{camera:03d}P{performer:03d}R{replication:03d}A{action:03d}.skeleton"


def write_files(folder: Path, texts: list[str], count: int) -> list[Path]:
    """``count`` files, the texts in turn."""
    folder.mkdir(parents=True)
    paths = [folder / name(number) for number in range(count)]
    for number, path in enumerate(paths):
        path.write_text(texts[number % len(texts)], encoding="ascii")
    return sorted(paths)


def read_official(path: Path) -> np.ndarray:
    """(t, 2, 25, 3): every number of the file becomes a float in a dict first."""
    with path.open(encoding="utf-8") as file:
        frames = [list(_bodies(file)) for _ in range(int(file.readline()))]
    out = np.zeros((len(frames), PERSONS, JOINTS, 3), dtype=np.float32)
    for t, bodies in enumerate(frames):
        for m, body in enumerate(bodies[:PERSONS]):
            for j, joint in enumerate(body["joints"]):
                out[t, m, j] = [joint["x"], joint["y"], joint["z"]]
    return out


def _bodies(file: Any) -> Iterator[dict[str, Any]]:
    for _ in range(int(file.readline())):
        body: dict[str, Any] = dict(zip(BODY_KEYS, map(float, file.readline().split()), strict=True))
        body["joints"] = [
            dict(zip(JOINT_KEYS, map(float, file.readline().split()), strict=True)) for _ in range(int(file.readline()))
        ]
        yield body


def read_lean(path: Path) -> np.ndarray:
    """(t, 2, 25, 3): all lines at once, three floats of each joint's line."""
    with path.open(encoding="utf-8") as file:
        lines = file.readlines()
    frames, line = int(lines[0]), 1
    out = np.zeros((frames, PERSONS, JOINTS, 3), dtype=np.float32)
    for t in range(frames):
        count, line = int(lines[line]), line + 1
        for m in range(count):
            joints, line = int(lines[line + 1]), line + 2
            if m < PERSONS:
                out[t, m] = [[float(field) for field in row.split(None, 3)[:3]] for row in lines[line : line + joints]]
            line += joints
    return out
