"""Our own dataset folder: memory-mapped frames at their original length, and everything said about each clip.

On disk, a dataset is a folder with ``meta.json`` (format, counts, layout, class names, splits, fingerprint, source) and
plain ``.npy`` files: ``frames`` (F, M, V, C) float32, all clips one behind the other; ``offsets``, ``lengths``,
``valid``, ``labels``, ``cameras``, ``setups`` (N,); ``subjects`` (N, P); ``names`` (N,); ``splits`` (K, N). Nothing is
pickled. Opening reads the small files and maps the frames, so it takes milliseconds whatever the size. A subfolder
``cache`` may hold derived arrays (methods.data.cache) and is no part of the dataset.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from methods.data.layouts.layout import Layout
from methods.data.npyfiles import map_array
from methods.errors import InputError

FORMAT_VERSION = 1
KIND = "skeltune-dataset"
TRAIN, TEST, UNUSED = 1, 2, 0

_PER_CLIP = ("offsets", "lengths", "valid", "labels", "cameras", "setups")
_FINGERPRINTED = ("lengths", "labels", "subjects", "cameras", "setups", "splits")

Frames = NDArray[np.float32]
Ints = NDArray[np.int64]


def count_valid(frames: Frames, layout: Layout) -> int:
    """Count the frames of one clip (t, M, V, C) in which person 0 is there.

    Person 0 counts as there when the first joint or the centre joint is not at exactly (0, 0, 0). CrosSCLR's
    preprocessing tests the first joint alone; a layout whose first joint is a head that drops out would lose good
    frames that way, and in Kinect v2 data both joints come and go together.
    """
    return int((frames[:, 0, (0, layout.centre), :] != 0).any(axis=(1, 2)).sum())


@dataclass(frozen=True, eq=False)
class SkeletonDataset:
    """An opened dataset of N clips with M persons of V joints and C coordinates; read-only, pickled as its path.

    ``frames`` (F, M, V, C) float32 mapped from disk, in the source's unit; clip i is
    ``frames[offsets[i] : offsets[i] + lengths[i]]``. ``valid`` (N,) counts the frames in which person 0 is there
    (:func:`count_valid`). ``subjects`` (N, P) with -1 for unknown or nobody; ``cameras``, ``setups`` (N,) likewise.
    ``splits`` maps a name to (N,) int8: 1 train, 2 test, 0 unused. ``fingerprint`` is a SHA-256 of the content.
    """

    path: Path
    frames: Frames
    offsets: Ints
    lengths: Ints
    valid: Ints
    labels: Ints
    subjects: Ints
    cameras: Ints
    setups: Ints
    names: NDArray[np.str_]
    layout: Layout
    class_names: tuple[str, ...]
    fingerprint: str
    splits: Mapping[str, NDArray[np.int8]] = field(default_factory=dict)
    source: Mapping[str, object] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    def __reduce__(self) -> tuple[Any, ...]:
        # A memory map would be pickled as all of its bytes; a worker opens the folder instead.
        return open_dataset, (self.path,)

    @property
    def num_classes(self) -> int:
        """Number of classes, also those without a clip."""
        return len(self.class_names)

    @property
    def num_persons(self) -> int:
        """M, the number of persons a frame has room for."""
        return int(self.frames.shape[1])

    @property
    def num_channels(self) -> int:
        """C, the number of coordinates of a joint."""
        return int(self.frames.shape[3])

    def clip(self, index: int) -> Frames:
        """Return clip ``index`` as a read-only view (t, M, V, C) at its original length."""
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        start = int(self.offsets[index])
        return self.frames[start : start + int(self.lengths[index])]

    def verify(self) -> None:
        """Read everything and compare it with the fingerprint; raises InputError when the content has changed."""
        frame_hash, bad = hashlib.sha256(), -1
        for index in range(len(self)):
            clip = np.ascontiguousarray(self.clip(index))
            frame_hash.update(clip.data)
            if bad < 0 and (not np.isfinite(clip).all() or count_valid(clip, self.layout) != self.valid[index]):
                bad = index
        arrays = {name: getattr(self, name) for name in _FINGERPRINTED if name != "splits"}
        found = fingerprint(
            frame_hash, self.frames.shape, arrays, self.splits, layout=self.layout, class_names=self.class_names
        )
        if found != self.fingerprint:
            raise InputError(
                f"{self.path}: the content is not what was written (fingerprint {found[:12]}, meta.json says "
                f"{self.fingerprint[:12]}); convert the source again"
            )
        if bad >= 0:
            raise InputError(f"{self.path}: clip {bad} holds NaN or a wrong count of valid frames; convert again")


def fingerprint(
    frame_hash: hashlib._Hash,
    shape: Sequence[int],
    arrays: Mapping[str, NDArray[Any]],
    splits: Mapping[str, NDArray[np.int8]],
    *,
    layout: Layout,
    class_names: Sequence[str],
) -> str:
    """SHA-256 over frames, clip borders, labels, subjects, cameras, setups, splits, layout and class names.

    Clip names and the source stay outside: they change nothing that is trained on.
    """
    total = hashlib.sha256(f"{KIND} {FORMAT_VERSION}".encode())
    total.update(frame_hash.digest())
    facts: dict[str, object] = {
        "frames": [int(size) for size in shape],
        "layout": layout.to_dict(),
        "class_names": list(class_names),
        "splits": sorted(splits),
    }
    for name in _FINGERPRINTED:
        if name != "splits":
            facts[name] = list(arrays[name].shape)
            total.update(np.ascontiguousarray(arrays[name], dtype="<i8").data)
    for name in sorted(splits):
        total.update(np.ascontiguousarray(splits[name], dtype=np.int8).data)
    total.update(json.dumps(facts, sort_keys=True).encode())
    return total.hexdigest()


def open_dataset(path: str | Path) -> SkeletonDataset:
    """Open a dataset folder in milliseconds: every small array is checked, the frames are only mapped.

    Raises InputError, naming the file and the mend, for a folder that is missing, no dataset, of another format
    version, truncated, or at odds with itself. Whether the frames are what was written is ``verify()``'s question.
    """
    path = Path(path).absolute()
    meta = _read_meta(path)
    try:
        layout = Layout.from_dict(meta["layout"])
        class_names = tuple(str(name) for name in meta["class_names"])
        split_names = [str(name) for name in meta["splits"]]
        fingerprint, source = str(meta["fingerprint"]), dict(meta["source"])
        clips, shape = int(meta["clips"]), tuple(int(size) for size in meta["frames"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path / 'meta.json'}: damaged ({error}); convert the source again") from error
    if clips < 1:
        raise InputError(f"{path}: the dataset is empty (0 clips); convert the source again")
    arrays = {name: map_array(path / f"{name}.npy", "<i8", (clips,)) for name in _PER_CLIP}
    arrays["subjects"] = map_array(path / "subjects.npy", "<i8", (clips, None))
    split_table = map_array(path / "splits.npy", "|i1", (len(split_names), clips)) if split_names else ()
    dataset = SkeletonDataset(
        path=path,
        frames=map_array(path / "frames.npy", "<f4", shape),
        names=map_array(path / "names.npy", "U", (clips,)),
        layout=layout,
        class_names=class_names,
        fingerprint=fingerprint,
        splits=dict(zip(split_names, split_table, strict=True)),
        source=source,
        **arrays,
    )
    faults = _table_faults(dataset)
    if faults:
        raise InputError(*(f"{path}: {fault}; convert the source again" for fault in faults))
    return dataset


def _read_meta(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise InputError(f"{path}: no such folder; make it with `skeltune data convert` or `skeltune data synth`")
    file = path / "meta.json"
    if not path.is_dir() or not file.is_file():
        raise InputError(f"{path}: not a skeltune dataset (no meta.json); make one with `skeltune data convert`")
    try:
        meta = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: cannot be read as JSON ({error}); convert the source again") from error
    if not isinstance(meta, dict) or meta.get("kind") != KIND:
        raise InputError(f"{path}: not a skeltune dataset (meta.json is of another kind)")
    if meta.get("format") != FORMAT_VERSION:
        raise InputError(
            f"{file}: format version {meta.get('format')!r}, this skeltune reads {FORMAT_VERSION}; "
            "convert the source again, or use the skeltune that wrote it"
        )
    return meta


def _table_faults(data: SkeletonDataset) -> list[str]:
    """What is wrong among the small arrays; linear in N, never touching the frames."""
    faults = []
    if data.frames.ndim != 4 or data.frames.shape[2] != data.layout.num_joints or 0 in data.frames.shape:
        faults.append(
            f"frames.npy has shape {data.frames.shape}, wanted (frames, persons, {data.layout.num_joints}, coordinates)"
        )
    ends = data.offsets + data.lengths
    if data.lengths.min() < 1:
        faults.append(f"lengths.npy: clip {int(data.lengths.argmin())} has length {int(data.lengths.min())}")
    elif data.lengths.max() > len(data.frames):  # before sums, which could run over
        faults.append(f"lengths.npy: a clip of {int(data.lengths.max())} frames, there are {len(data.frames)}")
    elif data.offsets[0] != 0 or ends[-1] != len(data.frames) or not np.array_equal(ends[:-1], data.offsets[1:]):
        faults.append(f"offsets.npy does not cut the {len(data.frames)} frames into clips without gaps")
    if data.valid.min() < 0 or (data.valid > data.lengths).any():
        faults.append("valid.npy: counts out of range (0 to the clip's length)")
    if data.labels.min() < 0 or data.labels.max() >= data.num_classes:
        wrong = data.labels[(data.labels < 0) | (data.labels >= data.num_classes)]
        faults.append(f"labels.npy: labels out of range: {int(wrong[0])} with {data.num_classes} classes")
    if np.asarray(data.names).view("<u4").max() > sys.maxunicode:
        faults.append("names.npy holds something that is no text")
    if data.subjects.shape[1] < 1:
        faults.append("subjects.npy has no column")
    for name in ("subjects", "cameras", "setups"):
        values = getattr(data, name)
        if values.size and values.min() < -1:
            faults.append(f"{name}.npy: {int(values.min())} is below -1 (unknown)")
    for name, mask in data.splits.items():
        if mask.min() < UNUSED or mask.max() > TEST:
            faults.append(f"splits.npy: split '{name}' holds values other than 0, 1 and 2")
    return faults
