"""Writes PKU-MMD, NW-UCLA, UTD-MHAD and SBU as the datasets have them; and walks and damage for all text readers."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

UTD_ORDER = [3, 2, 1, 0, *range(4, 20)]  # a file's joints in kinect20's order, and the other way round
SBU_SCALE = np.array([2560, 1920, 7.8125 / 10000])


def walk(frames: int, persons: int = 1, joints: int = 20, seed: int = 0) -> np.ndarray:
    """A smooth random walk of a whole body (t, M, V, 3) float32, two or three metres away."""
    rng = np.random.default_rng(seed)
    body = rng.normal(0, 0.4, (1, persons, joints, 3))
    way = np.cumsum(rng.normal(0, 0.02, (frames, persons, joints, 3)), axis=0)
    return (body + way + [0.1, 0.2, 2.5]).astype(np.float32)


@dataclass
class TextClip:
    """A clip of any of these datasets; ``frames`` (t, M, V, 3) in metres, ids from 1, label from 0."""

    frames: np.ndarray
    label: int = 0
    subject: int = 1
    camera: int = 1
    trial: int = 1
    other: int = 2  # the second person of SBU


# PKU-MMD


@dataclass
class Video:
    """A video: frames (t, 2, 25, 3) and its marks (class, start, end, confidence), all counted from 1."""

    frames: np.ndarray
    marks: list[tuple[int, int, int, int]] = field(default_factory=list)


def pku_rows(frames: np.ndarray) -> list[str]:
    return [" ".join(f"{value:.7g}" for value in row) for row in frames.reshape(len(frames), -1)]


def write_pku(
    folder: Path, videos: Mapping[str, Video], skeleton: str = "skeleton", label: str = "label", end: str = "\n"
) -> Path:
    for name in (skeleton, label):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name, video in videos.items():
        text = end.join([*pku_rows(video.frames), ""])
        (folder / skeleton / f"{name}.txt").write_bytes(text.encode())
        marks = end.join([*(",".join(map(str, mark)) for mark in video.marks), ""])
        (folder / label / f"{name}.txt").write_bytes(marks.encode())
    return folder


def write_split(path: Path, train: Sequence[str], test: Sequence[str]) -> Path:
    """With the dataset's own misspelling."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"Training videos:\n{', '.join(train)}, \nValidataion videos:\n{', '.join(test)}, \n")
    return path


# NW-UCLA

UCLA_ACTIONS = (1, 2, 3, 4, 5, 6, 8, 9, 11, 12)


def ucla_name(clip: TextClip) -> str:
    return f"a{UCLA_ACTIONS[clip.label]:02d}_s{clip.subject:02d}_e{clip.trial:02d}_v{clip.camera:02d}"


def write_ucla(folder: Path, clips: Sequence[TextClip]) -> list[str]:
    (folder / "all_sqe").mkdir(parents=True, exist_ok=True)
    for clip in clips:
        name = ucla_name(clip)
        content = {"file_name": name, "skeletons": clip.frames[:, 0].astype(float).tolist(), "label": clip.label + 1}
        (folder / "all_sqe" / f"{name}.json").write_text(json.dumps(content))
    return [ucla_name(clip) for clip in clips]


# UTD-MHAD


def mat_element(kind: int, data: bytes, order: str = "<") -> bytes:
    """A data element; one of up to 4 bytes is packed small, as MATLAB does."""
    if 0 < len(data) <= 4:
        return struct.pack(f"{order}I", len(data) << 16 | kind) + data.ljust(4, b"\0")
    return struct.pack(f"{order}II", kind, len(data)) + data + b"\0" * (-len(data) % 8)


def mat_array(name: str, values: np.ndarray, order: str = "<", flags: int = 6) -> bytes:
    """An array as an element; the numbers in their own type where MATLAB has it."""
    kind = {"f8": 9, "f4": 7, "i2": 3, "u1": 2}[values.dtype.str[1:]]
    numbers = values.astype(values.dtype.newbyteorder(order)).tobytes(order="F")
    parts = [
        mat_element(6, struct.pack(f"{order}II", flags, 0), order),
        mat_element(5, np.array(values.shape, f"{order}i4").tobytes(), order),
        mat_element(1, name.encode(), order),
        mat_element(kind, numbers, order),
    ]
    return mat_element(14, b"".join(parts), order)


def mat_file(*arrays: bytes, packed: bool = True, order: str = "<") -> bytes:
    """A .mat file of version 5; ``packed`` compresses each array, as MATLAB does."""
    text = b"MATLAB 5.0 MAT-file, Platform: PCWIN64, Created on: Mon Jan 5 10:00:00 2015".ljust(116) + b"\0" * 8
    mark = b"IM" if order == "<" else b"MI"
    body = b""
    for array in arrays:
        data = zlib.compress(array)
        body += struct.pack(f"{order}II", 15, len(data)) + data if packed else array
    return text + struct.pack(f"{order}H", 0x0100) + mark + body


def write_utd(folder: Path, clips: Sequence[TextClip]) -> list[str]:
    (folder / "Skeleton").mkdir(parents=True, exist_ok=True)
    names = []
    for clip in clips:
        names.append(f"a{clip.label + 1}_s{clip.subject}_t{clip.trial}")
        values = clip.frames[:, 0, UTD_ORDER].transpose(1, 2, 0).astype(np.float64)
        if values.shape[2] == 1:
            values = values[:, :, 0]
        (folder / "Skeleton" / f"{names[-1]}_skeleton.mat").write_bytes(mat_file(mat_array("d_skel", values)))
    return names


# SBU


def sbu_rows(frames: np.ndarray) -> list[str]:
    """Each frame's number and 90 normalised numbers; zeros for a person who is not there."""
    there = frames.any(axis=(2, 3), keepdims=True)
    millimetres = frames.astype(np.float64) * 1000
    out = millimetres * SBU_SCALE
    out[..., 0] = (1280 - millimetres[..., 0]) / 2560
    out[..., 1] = (960 - millimetres[..., 1]) / 1920
    out[..., 2] = millimetres[..., 2] * 7.8125 / 10000
    rows = np.where(there, out, 0).reshape(len(frames), -1)
    return [",".join([str(number), *(f"{value:.9g}" for value in row)]) for number, row in enumerate(rows, 1)]


def write_sbu(folder: Path, clips: Sequence[TextClip], end: str = "\n") -> list[str]:
    names = []
    for clip in clips:
        names.append(f"s{clip.subject:02d}s{clip.other:02d}/{clip.label + 1:02d}/{clip.trial:03d}")
        path = folder / names[-1] / "skeleton_pos.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(end.join([*sbu_rows(clip.frames), ""]).encode())
    return names


# damage


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """``content`` cut short, with bytes or lines put in, taken out or changed, or with other line ends."""
    how = draw(st.sampled_from(("cut", "insert", "delete", "replace", "line", "twice", "crlf", "words", "bom")))
    at = draw(st.integers(0, len(content)))
    some = draw(st.binary(min_size=1, max_size=6))
    lines = content.split(b"\n")
    row = at % len(lines)
    return {
        "cut": content[:at],
        "insert": content[:at] + some + content[at:],
        "delete": content[:at] + content[at + len(some) :],
        "replace": content[:at] + some + content[at + len(some) :],
        "line": b"\n".join(lines[:row] + lines[row + 1 :]),
        "twice": b"\n".join(lines[: row + 1] + lines[row:]),
        "crlf": content.replace(b"\n", b"\r\n"),
        "words": b"\n".join([*lines[:row], b" ".join([*lines[row].split()[1:], b"nan"]), *lines[row + 1 :]]),
        "bom": b"\xef\xbb\xbf" + content,
    }[how]
