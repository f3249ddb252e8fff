"""Writes NTU RGB+D's .skeleton files as the dataset has them: float32 with 7 digits, twelve numbers a joint."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

FIRST_ID = 72057594037931101  # beyond 2^53, as the real ones are


class AnyClip(Protocol):
    """What a generated clip has too: frames (t, M, V, 3) in metres, zeros for nobody; subject and camera from 1."""

    frames: np.ndarray
    label: int
    subject: int
    camera: int


@dataclass
class NtuClip:
    frames: np.ndarray
    label: int = 0
    subject: int = 1
    camera: int = 1
    setup: int = 1


def ntu_name(setup: int = 1, camera: int = 1, subject: int = 1, replication: int = 1, action: int = 1) -> str:
    return f"S{setup:03d}C{camera:03d}P{subject:03d}R{replication:03d}A{action:03d}"


def listed_bodies(frames: np.ndarray, ids: Sequence[int] | None = None) -> list[list[tuple[int, np.ndarray]]]:
    """For each frame the bodies that are there, (ID, joints (V, 3)); person m has the m-th ID."""
    ids = ids or range(FIRST_ID, FIRST_ID + frames.shape[1])
    return [[(who, body) for who, body in zip(ids, frame, strict=True) if body.any()] for frame in frames]


def skeleton_text(bodies: Iterable[Sequence[tuple[object, np.ndarray]]], seed: int = 0) -> str:
    """The text of a file from the bodies listed in each frame; what is not a coordinate is drawn."""
    rng = np.random.default_rng(seed)
    frames = list(bodies)
    lines = [str(len(frames))]
    for listed in frames:
        lines.append(str(len(listed)))
        for who, joints in listed:
            lean = " ".join(f"{value:.7g}" for value in rng.normal(0, 0.1, 2))
            lines += [f"{who} 0 1 1 1 1 0 {lean} 2", str(len(joints))]
            pixels, turns = rng.uniform(0, 1080, (len(joints), 4)), rng.normal(0, 0.5, (len(joints), 4))
            for numbers in np.concatenate([joints, pixels, turns], axis=1).astype(np.float32):
                lines.append(" ".join(f"{value:.7g}" for value in numbers) + " 2")
    return "\n".join(lines) + "\n"


def skeleton_texts(clips: Iterable[AnyClip]) -> dict[str, str]:
    """File names and texts; clips of one setup, camera, subject and action are counted as replications."""
    counts: Counter[str] = Counter()
    texts = {}
    for clip in clips:
        setup = getattr(clip, "setup", 1)
        counts[key := ntu_name(setup, clip.camera, clip.subject, 0, clip.label + 1)] += 1
        name = ntu_name(setup, clip.camera, clip.subject, counts[key], clip.label + 1)
        texts[f"{name}.skeleton"] = skeleton_text(listed_bodies(clip.frames), seed=len(texts))
    return texts


def write_skeleton_files(folder: Path, clips: Iterable[AnyClip]) -> list[str]:
    """Write clips, also those of methods.data.synthetic, as a folder of files; returns their names in order of writing.

    The labels become the actions A001, A002, ...; with generated clips of several subjects and cameras the dataset's
    xsub (subjects 1, 2, 4, 5, 8, 9 train) and xview (cameras 2 and 3 train) have clips on both sides.
    """
    folder.mkdir(parents=True, exist_ok=True)
    texts = skeleton_texts(clips)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="ascii")
    return [name.removesuffix(".skeleton") for name in texts]


def write_skeleton_zip(path: Path, clips: Iterable[AnyClip], inside: str = "nturgb+d_skeletons/") -> list[str]:
    """The same as one archive, as it is downloaded; returns the clips' names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = skeleton_texts(clips)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        if inside:
            archive.writestr(inside, "")
        for name, text in texts.items():
            archive.writestr(inside + name, text)
    return [name.removesuffix(".skeleton") for name in texts]


def walk(frames: int, persons: int = 1, seed: int = 0, joints: int = 25) -> np.ndarray:
    """Somebody three metres away who moves a little, (t, M, V, 3), taller than wide."""
    rng = np.random.default_rng(seed)
    body = rng.normal(0, 1, (persons, joints, 3)) * [0.12, 0.45, 0.1] + [0, 0, 3]
    body += np.arange(persons)[:, None, None] * [0.8, 0, 0]
    drift = np.cumsum(rng.normal(0, 0.01, (frames, persons, joints, 3)), axis=0)
    return (body + drift).astype(np.float32)
