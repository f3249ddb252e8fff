"""A dataset copied to a node once: from a URL or a path to the node's own cache, checked, shared by all its trials."""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import re
import shutil
import socket
import sys
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from methods.data import SkeletonDataset, open_dataset
from methods.errors import InputError, WorkFailed
from tuning.storage.patience import in_words, patiently
from tuning.storage.scratch import cache_root
from tuning.storage.store import Store, open_store

T = TypeVar("T")

META = "meta.json"
_ARRAYS = ("frames", "offsets", "lengths", "valid", "labels", "cameras", "setups", "subjects", "names")
_SPARE_BYTES = 1 << 26


def remote_meta(copy_from: str) -> dict[str, Any]:
    """What the dataset at ``copy_from`` says of itself; ``fingerprint`` is in it.

    Raises ``InputError`` naming this machine when there is no dataset of ours, ``WorkFailed`` when nobody answers.
    """
    source = open_store(copy_from)
    if source.folder is not None and not source.folder.is_dir():  # more likely a wrong path than a mount that will come
        raise _nothing_there(source)
    return _meta(source)


def _meta(source: Store) -> dict[str, Any]:
    data = _ask(source, META, lambda: source.read(META))
    if data is None:
        raise _nothing_there(source)
    try:
        meta = json.loads(data)
        facts = {"fingerprint": str(meta["fingerprint"]), "splits": list(meta["splits"])}
        return facts | {"bytes": 4 * math.prod(int(size) for size in meta["frames"])}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"--data-from {source.url}: {META} is damaged ({error}); copy the dataset again") from error


def _nothing_there(source: Store) -> InputError:
    return InputError(
        f"--data-from {source.url}: no skeltune dataset there (no {META}), seen from {socket.gethostname()}; it must "
        "be a folder that `skeltune data convert` wrote, copied whole, in a place that every node reaches"
    )


def _ask(source: Store, name: str, call: Callable[[], T]) -> T:
    here = socket.gethostname()
    try:
        return patiently(call, what=f"{here}: reading {source.url}/{name}", say=_tell, root=source.folder)
    except (InputError, WorkFailed):
        raise
    except Exception as error:  # each library refuses with errors of its own
        raise InputError(f"--data-from {source.url}: {name} cannot be copied to {here}: {in_words(error)}") from error


def local_copy(copy_from: str, fingerprint: str) -> Path:
    """The folder on this node that holds the dataset with ``fingerprint``, copied from ``copy_from`` if need be.

    Processes that ask at the same time copy once. A copy appears by rename after all of it was read again and agreed
    with the fingerprint, which covers everything that is trained on. Raises ``InputError`` naming this machine for
    other data, damaged data or too little room.
    """
    source = open_store(copy_from)
    label = re.sub(r"[^A-Za-z0-9._-]+", "_", source.url.rstrip("/").rpartition("/")[2]).lstrip(".") or "data"
    path = cache_root() / "datasets" / f"{label}-{fingerprint[:12]}"
    if _is_whole(path, fingerprint):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with _only_one(path.with_name(f".{path.name}.lock")) as alone:
        if not _is_whole(path, fingerprint):
            if alone:  # halves of copies that were killed
                for half in path.parent.glob(f".{path.name}.*.part"):
                    shutil.rmtree(half, ignore_errors=True)
            _copy(source, path, fingerprint)
    return path


def _is_whole(path: Path, fingerprint: str) -> bool:
    try:
        return open_dataset(path).fingerprint == fingerprint
    except InputError:
        return False


@contextlib.contextmanager
def _only_one(lock: Path) -> Iterator[bool]:
    """One process of this node at a time; gives whether the file system locks at all. A killed one blocks nobody."""
    with lock.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:  # two then copy, each under a name of its own, and the last rename finds the other's
            yield False
        else:
            yield True


def _copy(source: Store, path: Path, fingerprint: str) -> None:
    here = socket.gethostname()
    meta = _meta(source)
    if meta["fingerprint"] != fingerprint:
        raise InputError(
            f"--data-from {source.url}: other data than the search began with, seen from {here} "
            f"(fingerprint {meta['fingerprint'][:12]}, expected {fingerprint[:12]})"
        )
    free = shutil.disk_usage(path.parent).free
    if meta["bytes"] + _SPARE_BYTES > free:
        raise InputError(
            f"{here}: {path.parent} has {free / 2**30:.1f} GiB free, the copy of {source.url} needs "
            f"{(meta['bytes'] + _SPARE_BYTES) / 2**30:.1f}; set SKELTUNE_CACHE to a folder with more room"
        )
    _tell(f"{here}: copying {source.url} to {path}")
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.part")
    try:
        temporary.mkdir()
        for name in (META, *(f"{array}.npy" for array in (*_ARRAYS, *(["splits"] if meta["splits"] else [])))):
            if not _ask(source, name, partial(source.get, name, temporary / name)):
                raise InputError(f"--data-from {source.url}: {name} is missing there; copy the dataset again, whole")
        _verify(temporary, fingerprint, source.url)
        _into_place(temporary, path, fingerprint)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _tell(line: str) -> None:
    print(line, file=sys.stderr)


def _verify(folder: Path, fingerprint: str, url: str) -> None:
    """Read everything again: what was copied must be what the fingerprint was made of."""
    try:
        found: SkeletonDataset = open_dataset(folder)
        found.verify()
    except InputError as error:
        told = str(error).replace(str(folder), url)
        raise InputError(f"{socket.gethostname()}: the copy is damaged, or its source is: {told}") from error
    if found.fingerprint != fingerprint:
        raise InputError(f"{url}: changed while {socket.gethostname()} copied it; start again when it is complete")


def _into_place(temporary: Path, path: Path, fingerprint: str) -> None:
    if path.exists():  # opened above, and found damaged
        aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.part")
        path.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)
    try:
        temporary.rename(path)
    except OSError:
        if not _is_whole(path, fingerprint):  # else another process was quicker
            raise
