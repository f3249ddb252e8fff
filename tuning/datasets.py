"""From the words under ``data`` to clips and a split. A worker opens a dataset once and keeps it for all its trials."""

from __future__ import annotations

import hashlib
import json
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from methods.api import clips_of
from methods.data import SkeletonDataset, Split, make_split, open_dataset
from methods.errors import InputError
from methods.training.clips import Clips, ClipStore
from tuning.config.schema import SearchSpec
from tuning.space.load import SYNTHETIC, locate_data
from tuning.storage.scratch import cache_root


def dataset_path(spec: SearchSpec) -> Path:
    """The dataset's folder: as given, beside the search space, or under $SKELTUNE_DATA; generated for ``synthetic``.

    What is no dataset of ours but data in a form that we read (a folder of .skeleton files, a CrosSCLR folder, ...) is
    converted at first use and kept, under a name that changes with the files.
    """
    found = locate_data(spec)
    if found is None:
        return synthetic_path()
    found = found.resolve()
    return found if (found / "meta.json").is_file() else converted_path(found)


def converted_path(source: Path) -> Path:
    """The dataset that ``source`` was or is now converted to, with every option as its reader has it by default.

    Raises ``InputError`` for what no reader recognises, as :func:`methods.data.convert`.
    """
    from methods.data import convert
    from methods.data.formats import recognise
    from methods.data.reading.sources import tree_stamp
    from tuning.progress import available_cores, conversion_progress

    try:
        name, why = recognise(source)
    except InputError as error:
        raise InputError(f"{source}: not a skeltune dataset (no meta.json), nor data that we read: {error}") from error
    key = hashlib.sha256(repr((name, str(source), tree_stamp(source))).encode()).hexdigest()[:12]
    path = cache_root() / "datasets" / f"{source.name or 'data'}-{key}"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        print(f"{source}: {name} ({why}); converting to {path}", file=sys.stderr)
        with conversion_progress(source.name) as tell:
            try:
                done = convert(source, path, name, workers=available_cores(), progress=tell)
            except InputError:
                if not path.exists():  # another process was quicker: then it is there
                    raise
                return path
        print("\n".join(done.lines()), file=sys.stderr)
    return path


def synthetic_path() -> Path:
    """The embedded generated skeletons, made at first use and kept by the hash of their settings."""
    from methods.data.synthetic import QUICKSTART, write_synthetic

    key = hashlib.sha256(repr(QUICKSTART).encode()).hexdigest()[:12]
    path = cache_root() / "datasets" / f"synthetic-{key}"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_synthetic(path, QUICKSTART)
        except InputError:
            if not path.exists():  # another process was quicker: then it is there
                raise
    return path


def plain_rule(rule: Any) -> Any:
    """A split or validation rule of the schema as :func:`methods.data.make_split` takes it."""
    return rule if isinstance(rule, str) else rule.model_dump(exclude_none=True)


@dataclass(frozen=True)
class DataSource:
    """What a worker needs to find the data: plain values, fit to travel. ``fingerprint`` is what it must find there.

    ``copy_from``: URL or path from where each node copies the dataset to its own cache, once; without it a node opens
    ``path``. ``generated``: a node that lacks ``path`` makes the data itself.
    """

    path: str
    fingerprint: str
    protocol: str | Mapping[str, Sequence[int]]
    validate_on: str | Mapping[str, Sequence[int] | float]
    seed: int
    copy_from: str = ""
    generated: bool = False

    def dataset(self) -> SkeletonDataset:
        """Open (once a process) and check. Raises ``InputError`` when this node has no data there, or other data."""
        path = self._here()
        found = _opened(path)
        if found.fingerprint != self.fingerprint:
            raise InputError(
                f"{path}: on {socket.gethostname()} this is other data than the search began with "
                f"(fingerprint {found.fingerprint[:12]}, expected {self.fingerprint[:12]})"
            )
        return found

    def _here(self) -> str:
        """Where this node has the data, after copying or generating it where that is the way."""
        if self.copy_from:
            return _copied(self.copy_from, self.fingerprint)
        if Path(self.path).exists():
            return self.path
        if self.generated:
            return str(synthetic_path())
        raise InputError(
            f"{self.path}: {socket.gethostname()} has no such folder; let every node see it (a shared file system "
            "mounted at the same place), or give --data-from URL, from where each node copies the dataset once"
        )

    def split(self) -> Split:
        """Who trains, validates and tests; found once a process."""
        rules = json.dumps([self.protocol, self.validate_on])
        return _split(str(self.dataset().path), self.fingerprint, rules, self.seed)

    def clips(self, frames: int, steps: Sequence[str]) -> Clips:
        """Clips of ``frames`` frames after the named steps; the array is built at first use and memory-mapped."""
        return _clips(str(self.dataset().path), self.fingerprint, frames, tuple(steps))

    def store(self, frames: int, steps: Sequence[str], device: torch.device) -> ClipStore:
        """The same on ``device``, where a GPU keeps them from one trial to the next: one array at a time."""
        clips = self.clips(frames, steps)
        if device.type == "cpu":
            return ClipStore(clips, device)  # nothing is copied
        if device in _resident and _resident[device].clips is clips:
            return _resident[device]
        _resident.clear()  # first, as what is free decides whether the next array may live there
        store = ClipStore(clips, device)
        if store.home.type == device.type:
            _resident[device] = store
        return store


@lru_cache(maxsize=4)
def _opened(path: str) -> SkeletonDataset:
    return open_dataset(Path(path))


_resident: dict[torch.device, ClipStore] = {}


@lru_cache(maxsize=4)
def _split(path: str, fingerprint: str, rules: str, seed: int) -> Split:
    protocol, validate_on = json.loads(rules)
    return make_split(_opened(path), protocol, validate_on, seed)


@lru_cache(maxsize=4)
def _clips(path: str, fingerprint: str, frames: int, steps: tuple[str, ...]) -> Clips:
    return clips_of(_opened(path), frames, steps)


@lru_cache(maxsize=4)
def _copied(copy_from: str, fingerprint: str) -> str:
    from tuning.storage.data_copy import local_copy

    return str(local_copy(copy_from, fingerprint))


def source_of(spec: SearchSpec, copy_from: str = "") -> DataSource:
    """Open the dataset that a spec names. Raises ``InputError`` for a wrong path or a damaged dataset.

    ``copy_from``: where nodes copy it from. It may be the only place where the data is; where the path of the spec is
    there too, both must hold the same.
    """
    data = spec.data
    rules = (plain_rule(data.split), plain_rule(data.validate_on), spec.seed)
    if not copy_from:
        path = str(dataset_path(spec))
        return DataSource(path, _opened(path).fingerprint, *rules, generated=data.set == SYNTHETIC)
    from tuning.storage.data_copy import remote_meta
    from tuning.storage.store import open_store

    copy_from = open_store(copy_from).url  # a path becomes absolute: nodes do not stand where the driver stands
    fingerprint = str(remote_meta(copy_from)["fingerprint"])
    path = _path_if_there(spec)
    if path and _opened(path).fingerprint != fingerprint:
        raise InputError(
            f"--data-from {copy_from}: holds other data than {path}, which data.set names (fingerprints "
            f"{fingerprint[:12]} and {_opened(path).fingerprint[:12]}); copy the dataset there again"
        )
    return DataSource(path or _copied(copy_from, fingerprint), fingerprint, *rules, copy_from=copy_from)


def _path_if_there(spec: SearchSpec) -> str:
    """The dataset that the spec names, if this machine has it; else nothing."""
    try:
        locate_data(spec)
    except InputError:
        return ""
    return str(dataset_path(spec))


__all__ = ["DataSource", "cache_root", "dataset_path", "source_of"]
