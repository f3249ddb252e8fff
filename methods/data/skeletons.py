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
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from methods.data.layouts import Layout
from methods.data.npyfiles import header_bytes, map_array, write_array
from methods.errors import InputError

FORMAT_VERSION = 1
KIND = "skeltune-dataset"
TRAIN, TEST, UNUSED = 1, 2, 0

_PER_CLIP = ("offsets", "lengths", "valid", "labels", "cameras", "setups")
_FINGERPRINTED = ("lengths", "labels", "subjects", "cameras", "setups", "splits")
_LONGEST_NAME = 512

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
        found = _fingerprint(
            frame_hash, self.frames.shape, arrays, self.splits, layout=self.layout, class_names=self.class_names
        )
        if found != self.fingerprint:
            raise InputError(
                f"{self.path}: the content is not what was written (fingerprint {found[:12]}, meta.json says "
                f"{self.fingerprint[:12]}); convert the source again"
            )
        if bad >= 0:
            raise InputError(f"{self.path}: clip {bad} holds NaN or a wrong count of valid frames; convert again")


def _fingerprint(
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


class DatasetWriter:
    """Write a dataset folder clip by clip; it appears under its name only when :meth:`finish` has succeeded.

    ``with DatasetWriter(path, layout, class_names, persons) as writer: writer.append(...); writer.finish(splits)``.
    Frames go to a temporary folder beside ``path`` as they come and are hashed on the way, so memory does not grow
    with the data. Leaving the block without finishing, or any error, removes everything again. Raises InputError when
    ``path`` exists and is not an empty folder.
    """

    def __init__(
        self,
        path: str | Path,
        layout: Layout,
        class_names: Sequence[str],
        persons: int,
        source: Mapping[str, object] | None = None,
        *,
        channels: int = 3,
    ) -> None:
        self.path = Path(path).absolute()
        self.layout = layout
        self.class_names = tuple(class_names)
        self._shape = (int(persons), layout.num_joints, int(channels))
        self._source: dict[str, object] = json.loads(json.dumps(dict(source or {})))  # fails now, not after hours
        faults = _writer_faults(self.path, self.class_names, self._shape)
        if faults:
            raise InputError(*faults)
        self._frame_hash = hashlib.sha256()
        self._rows: dict[str, list[int]] = {name: [] for name in ("lengths", "valid", "labels", "cameras", "setups")}
        self._subjects: list[tuple[int, ...]] = []
        self._names: list[str] = []
        self._total = 0
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._folder: Path | None = Path(tempfile.mkdtemp(prefix=f".{self.path.name}.", dir=self.path.parent))
            self._file: IO[bytes] = (self._folder / "frames.npy").open("wb")
        except OSError as error:
            raise InputError(f"{self.path}: cannot write there: {error.strerror}") from error
        self._file.write(header_bytes("<f4", (0, *self._shape)))  # overwritten in finish; its size never changes

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    def append(
        self,
        frames: ArrayLike,
        label: int,
        subjects: int | Sequence[int],
        *,
        camera: int = -1,
        setup: int = -1,
        name: str = "",
    ) -> None:
        """Add one clip (t, M, V, C); ``subjects`` is one id or one for each person, -1 for unknown.

        Raises InputError, naming the clip and the value, for another shape, zero length, NaN or infinite
        coordinates, a label outside the classes, or ids below -1; the writer can then go on with the next clip.
        """
        if self._folder is None:
            raise RuntimeError("this DatasetWriter is finished")
        clip = _as_clip(frames, len(self._names), name)
        people = tuple(int(subject) for subject in np.atleast_1d(np.asarray(subjects)))
        faults = self._clip_faults(clip, label, people, (camera, setup), name)
        if faults:
            where = f"clip {len(self._names)}" + (f" ('{name}')" if name else "")
            raise InputError(*(f"{where}: {fault}" for fault in faults))
        self._file.write(clip.data)
        self._frame_hash.update(clip.data)
        self._total += len(clip)
        values = (len(clip), count_valid(clip, self.layout), int(label), int(camera), int(setup))
        for rows, value in zip(self._rows.values(), values, strict=True):
            rows.append(value)
        self._subjects.append(people)
        self._names.append(name)

    def _clip_faults(
        self, clip: Frames, label: int, people: tuple[int, ...], ids: tuple[int, int], name: str
    ) -> list[str]:
        faults = []
        if clip.ndim != 4 or clip.shape[1:] != self._shape:
            faults.append(f"frames have shape {clip.shape}, wanted (frames, {', '.join(map(str, self._shape))})")
        elif not len(clip):
            faults.append("has no frames")
        elif not np.isfinite(clip).all():
            frame = int(np.flatnonzero(~np.isfinite(clip).all(axis=(1, 2, 3)))[0])
            faults.append(f"frame {frame} holds NaN or infinite coordinates")
        if int(label) != label or not 0 <= label < len(self.class_names):
            faults.append(f"label {label} is out of range (0 to {len(self.class_names) - 1})")
        if self._subjects and len(people) != len(self._subjects[0]):
            faults.append(f"{len(people)} subjects given, {len(self._subjects[0])} in the clips before")
        if not people or min(*people, *ids) < -1:
            faults.append(f"subjects {people}, camera {ids[0]}, setup {ids[1]}: ids are 0 or more, -1 for unknown")
        if len(name) > _LONGEST_NAME:
            faults.append(f"the name is longer than {_LONGEST_NAME} characters")
        return faults

    def finish(self, splits: Mapping[str, ArrayLike] | None = None) -> SkeletonDataset:
        """Write the rest, move the folder into its place and return the opened dataset.

        ``splits`` maps a name to (N,) values: 1 train, 2 test, 0 unused. Raises InputError for a dataset without
        clips, splits of a wrong length or value, and a target that has appeared meanwhile; nothing is left then.
        """
        if self._folder is None:
            raise RuntimeError("this DatasetWriter is finished")
        try:
            tables = self._split_tables(splits or {})
            self._write_rest(self._folder, tables)
            _move_into_place(self._folder, self.path)
        except BaseException:
            self.abort()
            raise
        self._folder = None
        return open_dataset(self.path)

    def _split_tables(self, splits: Mapping[str, ArrayLike]) -> dict[str, NDArray[np.int8]]:
        count, faults, tables = len(self._names), [], {}
        if not count:
            raise InputError(f"{self.path}: not one clip to write; a dataset cannot be empty")
        for name, values in splits.items():
            table = np.asarray(values)
            if table.shape != (count,) or not np.isin(table, (UNUSED, TRAIN, TEST)).all():
                faults.append(f"split '{name}': wanted {count} values of 0 (unused), 1 (train) or 2 (test)")
            else:
                tables[str(name)] = table.astype(np.int8)
        if faults:
            raise InputError(*faults)
        return dict(sorted(tables.items()))

    def _write_rest(self, folder: Path, splits: Mapping[str, NDArray[np.int8]]) -> None:
        shape = (self._total, *self._shape)
        self._file.seek(0)
        self._file.write(header_bytes("<f4", shape))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        arrays = {name: np.asarray(rows, dtype="<i8") for name, rows in self._rows.items()}
        arrays["offsets"] = np.cumsum(arrays["lengths"]) - arrays["lengths"]
        arrays["subjects"] = np.asarray(self._subjects, dtype="<i8")
        for name, values in arrays.items():
            write_array(folder / f"{name}.npy", values)
        write_array(folder / "names.npy", np.asarray(self._names, dtype=f"<U{max(1, *map(len, self._names))}"))
        if splits:
            write_array(folder / "splits.npy", np.stack(list(splits.values())))
        meta = {
            "kind": KIND,
            "format": FORMAT_VERSION,
            "clips": len(self._names),
            "frames": list(shape),
            "layout": self.layout.to_dict(),
            "class_names": list(self.class_names),
            "splits": list(splits),
            "fingerprint": _fingerprint(
                self._frame_hash, shape, arrays, splits, layout=self.layout, class_names=self.class_names
            ),
            "source": self._source,
        }
        (folder / "meta.json").write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")

    def abort(self) -> None:
        """Throw away what is not finished; does nothing after :meth:`finish`."""
        self._file.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def _as_clip(frames: ArrayLike, index: int, name: str) -> Frames:
    try:
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused as such
            return np.ascontiguousarray(frames, dtype="<f4")
    except (TypeError, ValueError) as error:
        raise InputError(f"clip {index} ('{name}'): frames are no array of numbers: {error}") from error


def _writer_faults(path: Path, class_names: tuple[str, ...], shape: tuple[int, ...]) -> list[str]:
    faults = _target_faults(path)
    if not class_names or len(set(class_names)) != len(class_names):
        twice = sorted({name for name in class_names if class_names.count(name) > 1})
        faults.append(f"class names must be given once each, twice: {', '.join(twice) or 'none given at all'}")
    if min(shape) < 1:
        faults.append(f"a frame of {shape[0]} persons and {shape[2]} coordinates holds nothing")
    return faults


def _target_faults(path: Path) -> list[str]:
    if path.is_dir() and not any(path.iterdir()):
        return []
    if path.exists():
        return [f"{path}: exists already; remove it first or choose another name"]
    return []


def _move_into_place(folder: Path, path: Path) -> None:
    faults = _target_faults(path)
    if faults:
        raise InputError(*faults)
    folder.chmod(0o777 & ~_umask())  # mkdtemp makes it private; a dataset is shared as the user's umask says
    try:
        folder.rename(path)  # replaces an empty folder on POSIX, fails on any other
    except OSError as error:
        raise InputError(f"{path}: cannot move the dataset into place: {error.strerror}") from error


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
