"""Write a dataset folder clip by clip, so that it appears whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from methods.data.layouts.layout import Layout
from methods.data.npyfiles import header_bytes, write_array
from methods.data.skeletons import (
    FORMAT_VERSION,
    KIND,
    TEST,
    TRAIN,
    UNUSED,
    Frames,
    SkeletonDataset,
    count_valid,
    fingerprint,
    open_dataset,
)
from methods.errors import InputError

LONGEST_NAME = 512


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
        if len(name) > LONGEST_NAME:
            faults.append(f"the name is longer than {LONGEST_NAME} characters")
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
            move_into_place(self._folder, self.path)
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
            "fingerprint": fingerprint(
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
    faults = target_faults(path)
    if not class_names or len(set(class_names)) != len(class_names):
        twice = sorted({name for name in class_names if class_names.count(name) > 1})
        faults.append(f"class names must be given once each, twice: {', '.join(twice) or 'none given at all'}")
    if min(shape) < 1:
        faults.append(f"a frame of {shape[0]} persons and {shape[2]} coordinates holds nothing")
    return faults


def target_faults(path: Path) -> list[str]:
    """What keeps a dataset from being written to ``path``: anything there but an empty folder."""
    if path.is_dir() and not any(path.iterdir()):
        return []
    if path.exists():
        return [f"{path}: exists already; remove it first or choose another name"]
    return []


def move_into_place(folder: Path, path: Path) -> None:
    """Rename a finished folder to ``path``; raises InputError where something stands there by now."""
    faults = target_faults(path)
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


def replace_splits(path: Path, splits: Mapping[str, ArrayLike]) -> SkeletonDataset:
    """Write other splits into a dataset folder and return it opened; its fingerprint changes with them.

    For a folder that nobody else has opened yet: a dataset that runs refer to is never changed in place.
    """
    old = open_dataset(path)
    tables = {name: np.asarray(table, dtype=np.int8) for name, table in sorted(splits.items())}
    frame_hash = hashlib.sha256()
    for index in range(len(old)):
        frame_hash.update(np.ascontiguousarray(old.clip(index)).data)
    arrays = {name: getattr(old, name) for name in ("lengths", "labels", "subjects", "cameras", "setups")}
    meta = json.loads((path / "meta.json").read_text(encoding="utf-8"))
    meta["splits"] = list(tables)
    meta["fingerprint"] = fingerprint(
        frame_hash, old.frames.shape, arrays, tables, layout=old.layout, class_names=old.class_names
    )
    if tables:
        write_array(path / "splits.npy", np.stack(list(tables.values())))
    (path / "meta.json").write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")
    return open_dataset(path)
