"""The fixed-length array that training reads: derived from a dataset, built at first use, thrown away at will."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from methods.data.npyfiles import header_bytes, map_array
from methods.data.preprocess.recipes import DEFAULT_STEPS, Array, Step, apply_steps, check_steps, parse_steps
from methods.data.skeletons import SkeletonDataset
from methods.errors import InputError

try:
    import fcntl
except ImportError:  # pragma: no cover  no such locks there: two processes then both build, which is only slower
    fcntl = None  # type: ignore[assignment]

CODE_VERSION = 1  # raise it whenever a step's numbers change: old arrays are then no longer found
_LEFTOVER_SECONDS = 86_400


def cache_key(fingerprint: str, steps: Sequence[Step], frames: int) -> str:
    """Return the SHA-256 that names an array: content, step names, T and the version of the step code."""
    facts = [fingerprint, [step.name for step in steps], int(frames), CODE_VERSION]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def fixed_length(
    dataset: SkeletonDataset,
    frames: int,
    steps: Sequence[str] = DEFAULT_STEPS,
    cache: Path | None = None,
) -> Array:
    """Return the clips at ``frames`` = T frames: a read-only map (N, C, T, V, M) float32, built at first use.

    Kept in ``cache``, else in the dataset's own ``cache`` folder, else (where that cannot be written)
    under $SKELTUNE_CACHE or ~/.cache/skeltune. Processes that ask at the same time wait for the first one; a truncated
    file is built again. Raises InputError for steps that cannot be applied, a clip that turns into NaN, a ``cache``
    that cannot be written, or too little room on the disk.
    """
    parsed = parse_steps(steps)
    check_steps(parsed, dataset.layout, frames, dataset.num_channels)
    name = f"t{frames}-{cache_key(dataset.fingerprint, parsed, frames)[:24]}.npy"
    shape = (len(dataset), dataset.num_channels, frames, dataset.layout.num_joints, dataset.num_persons)
    folders = _folders(dataset.path, cache)
    for folder in folders:
        found = _mapped(folder / name, shape)
        if found is not None:
            return found
    folder = _first_writable(folders)
    with _only_one(folder / f"{name}.lock"):
        found = _mapped(folder / name, shape)
        if found is None:
            _build(dataset, parsed, frames, folder / name, shape)
            found = _mapped(folder / name, shape)
    if found is None:
        raise InputError(f"{folder / name}: vanished while it was built; is another process clearing the cache?")
    return found


def _folders(path: Path, cache: Path | None) -> list[Path]:
    """Where an array may lie, best first."""
    if cache is not None:
        return [Path(cache)]
    home = os.environ.get("SKELTUNE_CACHE") or Path.home() / ".cache" / "skeltune"
    return [path / "cache", Path(home)]


def _mapped(path: Path, shape: Sequence[int]) -> Array | None:
    """Map a finished array; None where there is none, or one of another size (a copy that was cut short)."""
    try:
        return map_array(path, "<f4", shape)
    except InputError:
        return None


def _first_writable(folders: Sequence[Path]) -> Path:
    reasons = []
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError as error:
            reasons.append(f"{folder} ({error.strerror})")
    raise InputError(
        f"no folder for the cache can be written: {', '.join(reasons)}; set SKELTUNE_CACHE to one that can"
    )


@contextlib.contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """Let one process at a time in; ends with the process, so a killed one blocks nobody.

    A file system without locks only costs time: both build, each under a name of its own, and the last rename wins.
    """
    with path.open("ab") as file:
        if fcntl is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(dataset: SkeletonDataset, steps: Sequence[Step], frames: int, path: Path, shape: Sequence[int]) -> None:
    _clear_leftovers(path.parent)
    _check_room(path.parent, shape)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(header_bytes("<f4", shape))
            for index in range(len(dataset)):
                clip = apply_steps(dataset.clip(index), int(dataset.valid[index]), dataset.layout, steps, frames)
                if not np.isfinite(clip).all():
                    raise InputError(f"{dataset.path}: clip {index} ('{dataset.names[index]}') turns into NaN")
                file.write(clip.data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # mkstemp makes it private; the cache beside a shared dataset is shared
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _clear_leftovers(folder: Path) -> None:
    """Remove what killed builds left behind a day or more ago."""
    for file in folder.glob(".*.part"):
        with contextlib.suppress(OSError):
            if time.time() - file.stat().st_mtime > _LEFTOVER_SECONDS:
                file.unlink()


def _check_room(folder: Path, shape: Sequence[int]) -> None:
    needed = 4 * int(np.prod(shape, dtype=np.int64))
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"{folder}: the fixed-length array needs {needed / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are free; "
            "set SKELTUNE_CACHE to a folder with more room"
        )
