"""Writes the field's preprocessed arrays as the public codes do: CrosSCLR, AGCN, CTR-GCN, MAMP, PYSKL.

A clip is a `sources.Clip`: frames (t, M, V, 3), label, name, subjects, camera, setup, sides. Every writer
puts the clips of side 1 of a split into its training part, in their order, and those of side 2 into the other.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from methods.data.layouts import NTU25
from methods.data.preprocess import PAPER_STEPS, apply_steps, parse_steps
from methods.data.reading import ntu_facts
from methods.data.reading.sources import Clip, Skipped, Source, table_of
from methods.data.skeletons import TEST, TRAIN, count_valid

SIDES = {TRAIN: "train", TEST: "val"}


def ntu_clip(
    frames: np.ndarray, label: int, subject: int = 1, camera: int = 1, setup: int = 1, replication: int = 1
) -> Clip:
    """A clip that is named, and stands on the sides, as NTU RGB+D has it; of NTU-120 from setup 18 or label 60 on."""
    name = f"S{setup:03d}C{camera:03d}P{subject:03d}R{replication:03d}A{label + 1:03d}"
    table = table_of(
        {"labels": [label], "subjects": [[subject]], "cameras": [camera], "setups": [setup], "names": [""]}
    )
    version = ntu_facts.version_of(setup, label + 1)
    sides = {split: int(side[0]) for split, side in ntu_facts.splits(table, version).items()}
    return Clip(np.asarray(frames, np.float32), label, name, (subject,), camera, setup, sides)


def walk(length: int, persons: int = 2, joints: int = 25, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Smooth random frames (t, M, V, C) of persons who are there all the time."""
    rng = np.random.default_rng(seed)
    start = rng.normal(size=(1, persons, joints, channels)) + 2
    return (start + np.cumsum(rng.normal(0, 0.02, (length, persons, joints, channels)), axis=0)).astype(np.float32)


def ntu_clips(count: int = 8, seed: int = 0, setup: int = 1, classes: int = 60) -> list[Clip]:
    """Clips of 3 to 9 frames in NTU's sorted order of names, of several subjects, cameras and classes.

    In the first clip of every four a second person is there.
    """
    rng = np.random.default_rng(seed)
    clips = []
    for index in range(count):
        frames = walk(3 + index % 7, seed=seed + index)
        if index % 4:
            frames[:, 1] = 0
        label = int(rng.integers(classes))
        clips.append(ntu_clip(frames, label, 1 + index % 4, 1 + index // 4 % 3, setup + index % 2, 1 + index // 12))
    return sorted(clips, key=lambda clip: clip.name)


def padded(frames: np.ndarray, length: int) -> np.ndarray:
    """Frames (t, M, V, C) with zeros after them, up to ``length``; a longer clip is cut."""
    out = np.zeros((length, *frames.shape[1:]), np.float32)
    out[: len(frames)] = frames[:length]
    return out


def positions(clip: Clip, frames: int) -> np.ndarray:
    """CrosSCLR's preprocessed clip (C, T, V, M)."""
    return apply_steps(clip.frames, count_valid(clip.frames, NTU25), NTU25, parse_steps(PAPER_STEPS), frames)


def _parts(clips: Sequence[Clip], split: str) -> dict[str, list[Clip]]:
    return {name: [clip for clip in clips if clip.sides.get(split) == side] for side, name in SIDES.items()}


def _write_labels(folder: Path, part: str, clips: Sequence[Clip], labels: str, protocol: int, ending: str) -> None:
    if labels == "pkl":
        content = ([clip.name + ending for clip in clips], [clip.label for clip in clips])
        (folder / f"{part}_label.pkl").write_bytes(pickle.dumps(content, protocol))
    elif labels == "npy":
        smallest = min(clip.label for clip in clips)
        column = np.array([[clip.label - smallest] for clip in clips], np.int64)
        np.save(folder / f"{part}_label.npy", column)


def write_crossclr(
    folder: Path,
    clips: Sequence[Clip],
    split: str = "xsub",
    *,
    form: str = "position",
    frames: int = 0,
    labels: str = "pkl",
    protocol: int = 4,
    ending: str = ".skeleton",
    motion: bool = False,
) -> Path:
    """Write one bench folder: ``form`` 'position' (preprocessed, 50 frames) or 'data' (padded, 300 frames).

    ``labels`` 'pkl', 'npy' (counted from the smallest, as CrosSCLR does) or 'none'.
    """
    folder.mkdir(parents=True, exist_ok=True)
    length = frames or {"position": 50, "data": 300}[form]
    for part, chosen in _parts(clips, split).items():
        if form == "position":
            array = np.stack([positions(clip, length) for clip in chosen])
        else:
            array = np.stack([padded(clip.frames, length) for clip in chosen]).transpose(0, 4, 1, 3, 2)
        np.save(folder / f"{part}_{form}.npy", np.ascontiguousarray(array, np.float32))
        if motion:
            np.save(folder / f"{part}_motion.npy", np.zeros_like(array))
        _write_labels(folder, part, chosen, labels, protocol, ending)
    return folder


def write_agcn(
    folder: Path,
    clips: Sequence[Clip],
    split: str = "xsub",
    *,
    frames: int = 300,
    num_frame: bool = True,
    loop: bool = True,
    protocol: int = 4,
    ending: str = ".skeleton",
) -> Path:
    """Write one bench folder of AGCN; with ``loop`` clips are repeated up to the last frame, else zeros follow."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, chosen in _parts(clips, split).items():
        rows = []
        for clip in chosen:
            times = -(-frames // len(clip.frames)) if loop else 1
            rows.append(padded(np.tile(clip.frames, (times, 1, 1, 1)), frames))
        np.save(folder / f"{part}_data_joint.npy", np.ascontiguousarray(np.stack(rows).transpose(0, 4, 1, 3, 2)))
        if num_frame:
            np.save(folder / f"{part}_num_frame.npy", np.array([len(clip.frames) for clip in chosen]))
        _write_labels(folder, part, chosen, "pkl", protocol, ending)
    return folder


def ctrgcn_order(clips: Sequence[Clip], split: str) -> list[Clip]:
    """CTR-GCN's order: by the id that the split goes by, and within it as listed; training clips first."""
    id_of = {"xsub": lambda clip: clip.subjects[0], "xview": lambda clip: clip.camera, "xset": lambda clip: clip.setup}
    found = []
    for part in _parts(clips, split).values():
        for number in sorted({id_of[split](clip) for clip in part}):
            found += [clip for clip in part if id_of[split](clip) == number]
    return found


def write_ctrgcn_npz(
    path: Path,
    clips: Sequence[Clip],
    split: str = "xsub",
    *,
    classes: int = 60,
    frames: int = 300,
    compressed: bool = False,
    duplicate_second: bool = False,
    one_hot: bool = True,
    grouped: bool = True,
) -> list[Clip]:
    """Write an archive; returns the clips in its order."""
    order = ctrgcn_order(clips, split) if grouped else [c for part in _parts(clips, split).values() for c in part]
    arrays = {}
    for side, name in ((TRAIN, "train"), (TEST, "test")):
        chosen = [clip for clip in order if clip.sides.get(split) == side]
        rows = []
        for clip in chosen:
            shown = clip.frames.copy()
            if duplicate_second and not shown[:, 1].any():
                shown[:, 1] = shown[:, 0]
            rows.append(padded(shown, frames).reshape(frames, -1))
        arrays[f"x_{name}"] = np.stack(rows)
        labels = np.array([clip.label for clip in chosen])
        arrays[f"y_{name}"] = np.eye(classes)[labels] if one_hot else labels
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return order


def write_mamp_npz(
    path: Path, clips: Sequence[Clip], split: str = "xsub", *, frames: int = 300, compressed: bool = False
) -> list[Clip]:
    """Write MAMP's archive of PKU-MMD: 51 columns, no grouping; returns the clips in its order."""
    return write_ctrgcn_npz(path, clips, split, classes=51, frames=frames, compressed=compressed, grouped=False)


def write_pyskl_pkl(
    path: Path,
    clips: Sequence[Clip],
    splits: Sequence[str] = ("xsub",),
    *,
    protocol: int = 4,
    dtype: type = np.float16,
    ending: str = "",
    scores: bool = False,
) -> Path:
    """Write PYSKL's pickle; persons who are in no frame at its end are not stored. ``ending`` is that of split ids."""
    annotations = []
    for clip in clips:
        bodies = clip.frames.transpose(1, 0, 2, 3)
        last = max((person for person, body in enumerate(bodies, 1) if body.any()), default=1)
        one = {
            "frame_dir": clip.name,
            "label": clip.label,
            "keypoint": np.ascontiguousarray(bodies[:last].astype(dtype)),
            "total_frames": len(clip.frames),
        }
        if scores:
            one |= {"keypoint_score": np.ones(bodies[:last].shape[:3], dtype), "img_shape": (1080, 1920)}
        annotations.append(one)
    split = {
        f"{name}_{SIDES[side]}": [clip.name + ending for clip in clips if clip.sides.get(name) == side]
        for name in splits
        for side in (TRAIN, TEST)
    }
    path.write_bytes(pickle.dumps({"split": split, "annotations": annotations}, protocol))
    return path


def read_all(source: Source) -> dict[str, Clip | Skipped]:
    """Everything that a plan's items give, by name."""
    found = [one for item in source.items for one in source.read(item)]
    assert len({one.name for one in found}) == len(found)
    return {one.name: one for one in found}


def check_equal(found: Clip | Skipped, clip: Clip, frames: np.ndarray | None = None, tolerance: float = 0.0) -> None:
    """Whether a clip came back with its frames, label and ids (those that its name tells)."""
    assert isinstance(found, Clip)
    assert found.frames.dtype == np.float32
    np.testing.assert_allclose(found.frames, clip.frames if frames is None else frames, rtol=0, atol=tolerance)
    told = (found.label, found.subjects, found.camera, found.setup)
    assert told == (clip.label, clip.subjects, clip.camera, clip.setup)


DAMAGE = st.tuples(st.sampled_from(["cut", "drop", "add", "put"]), st.floats(0, 1), st.binary(min_size=1, max_size=8))


def damaged(good: bytes, damage: Sequence[tuple[str, float, bytes]]) -> bytes:
    """Bytes after some were cut off, taken out, put in or written over."""
    for kind, share, new in damage:
        at = int(share * len(good))
        rest = {"cut": b"", "drop": good[at + len(new) :], "add": new + good[at:], "put": new + good[at + len(new) :]}
        good = good[:at] + rest[kind]
    return good
