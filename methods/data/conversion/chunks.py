"""Reading a few items of a source in whatever process: every clip checked, kept together in one file of their own.

A chunk file is an uncompressed .npz with ``frames`` (F, M, V, C) of all its clips and ``facts``, JSON about each clip
and each skip. It appears by rename, so one that is there is whole, and a killed conversion takes it up again.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from methods.data.npyfiles import HEADER_ERRORS
from methods.data.reading.sources import Clip, Frames, Item, Reading, Skipped, Source
from methods.data.writer import LONGEST_NAME
from methods.errors import InputError

CODE_VERSION = 1  # raise it whenever a reader's numbers change: work left behind by an older skeltune is then not used

NOBODY = "nobody in it"
READER_FAILED = "the reader failed on it (a fault of skeltune: please report it)"
_DAMAGED = (*HEADER_ERRORS, OSError, EOFError, KeyError, zipfile.BadZipFile)


@dataclass(frozen=True)
class Wanted:
    """What every clip of a source must be."""

    persons: int
    joints: int
    channels: int
    classes: int


@dataclass(frozen=True)
class Job:
    """One chunk to make: plain values and a function, fit to travel to another process."""

    items: tuple[Item, ...]
    read: Callable[[Item], Reading]
    wanted: Wanted
    path: str


@dataclass(frozen=True)
class ChunkFacts:
    """What a chunk says about itself without its frames: one dict a clip (a Clip's fields but frames), and skips."""

    clips: tuple[dict[str, Any], ...]
    skipped: tuple[Skipped, ...]


def jobs_of(source: Source, identity: str, folder: Path) -> list[Job]:
    """Cut a source's items into chunks; a chunk's name changes with its items and with ``identity``."""
    wanted = Wanted(source.persons, source.layout.num_joints, source.channels, len(source.class_names))
    jobs = []
    for number, start in enumerate(range(0, len(source.items), source.chunk)):
        items = tuple(source.items[start : start + source.chunk])
        facts = [CODE_VERSION, identity, asdict(wanted), [asdict(item) for item in items]]
        key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
        jobs.append(Job(items, source.read, wanted, str(folder / f"chunk-{number:06d}-{key}.npz")))
    return jobs


def make_chunk(job: Job) -> ChunkFacts:
    """Read the items of a job and write its chunk file; raises OSError where that cannot be written."""
    clips: list[Clip] = []
    skipped: list[Skipped] = []
    for item in job.items:
        for found in _read_safely(job.read, item):
            kept = found if isinstance(found, Skipped) else _checked(found, job.wanted)
            if isinstance(kept, Skipped):
                skipped.append(kept)
            else:
                clips.append(kept)
    facts = ChunkFacts(tuple(_facts(clip) for clip in clips), tuple(skipped))
    _write(Path(job.path), clips, facts, job.wanted)
    return facts


def _read_safely(read: Callable[[Item], Reading], item: Item) -> Iterator[Clip | Skipped]:
    """Whatever an item holds, it costs that item alone."""
    try:
        yield from read(item)
    except InputError as error:
        for fault in error.faults[:1]:
            yield Skipped(item.key, "damaged", fault)
    except OSError as error:
        yield Skipped(item.key, "cannot be read", f"{item.path}: {error.strerror or error}")
    except Exception as error:
        yield Skipped(item.key, READER_FAILED, f"{item.path}: {type(error).__name__}: {error}".splitlines()[0])


def _checked(clip: Clip, wanted: Wanted) -> Clip | Skipped:
    """The clip with its frames as float32, or why it cannot be used."""
    fault = _fault(clip, wanted)
    if fault is not None:
        return Skipped(clip.name[:LONGEST_NAME], *fault)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused as such
        frames = np.ascontiguousarray(clip.frames, dtype="<f4")
    good = np.isfinite(frames).all(axis=(1, 2, 3))
    if not good.all():
        return Skipped(clip.name, "NaN or infinite coordinates", f"frame {int((~good).argmax())}")
    return Clip(frames, **_plain(clip)) if frames.any() else Skipped(clip.name, NOBODY)


def _fault(clip: Clip, wanted: Wanted) -> tuple[str, str] | None:
    """Reason and detail of what is wrong with a clip's shape, label, name or ids."""
    shape = (wanted.persons, wanted.joints, wanted.channels)
    if clip.frames.ndim != 4 or clip.frames.shape[1:] != shape:
        text = f"frames of shape {clip.frames.shape}, wanted (frames, {', '.join(map(str, shape))})"
        return "another shape than the rest", text
    if not len(clip.frames):
        return "no frames", ""
    if not 0 <= clip.label < wanted.classes:
        return "label outside the table", f"label {clip.label} of {wanted.classes} classes"
    if len(clip.name) > LONGEST_NAME:
        return f"name longer than {LONGEST_NAME} characters", ""
    if min(*clip.subjects, clip.camera, clip.setup) < -1:
        return "an id below -1", f"subjects {clip.subjects}, camera {clip.camera}, setup {clip.setup}"
    return None


def _plain(clip: Clip) -> dict[str, Any]:
    """All fields but the frames, as plain values."""
    return {
        "label": int(clip.label),
        "name": str(clip.name),
        "subjects": tuple(int(subject) for subject in clip.subjects),
        "camera": int(clip.camera),
        "setup": int(clip.setup),
        "sides": {str(name): int(side) for name, side in clip.sides.items()},
        "mended": clip.mended,
    }


def _facts(clip: Clip) -> dict[str, Any]:
    return {**_plain(clip), "length": len(clip.frames)}


def _write(path: Path, clips: Sequence[Clip], facts: ChunkFacts, wanted: Wanted) -> None:
    shape = (0, wanted.persons, wanted.joints, wanted.channels)
    frames = np.concatenate([clip.frames for clip in clips]) if clips else np.zeros(shape, np.float32)
    text = json.dumps({"clips": facts.clips, "skipped": [asdict(skip) for skip in facts.skipped]})
    part = path.with_suffix(".part")
    try:
        with part.open("wb") as file:
            np.savez(file, frames=frames, facts=np.frombuffer(text.encode(), dtype=np.uint8))
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror or str(error), str(path.parent)) from error


def read_facts(path: Path) -> ChunkFacts | None:
    """What a chunk file says about itself; None where there is none, or a damaged one."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            found = json.loads(archive["facts"].tobytes())
            if "frames.npy" not in archive.zip.namelist():
                return None
        return ChunkFacts(tuple(found["clips"]), tuple(Skipped(**skip) for skip in found["skipped"]))
    except _DAMAGED:
        return None


def read_frames(path: Path) -> Frames:
    """All frames of a chunk, one clip behind the other."""
    with np.load(path, allow_pickle=False) as archive:
        frames: NDArray[np.float32] = archive["frames"]
    return frames
