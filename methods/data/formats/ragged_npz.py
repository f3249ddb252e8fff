"""Ragged .npz: clips of different lengths one behind the other in one array, with offsets.

Required keys, F frames in all, N clips: ``sequences`` (F, M, V, C) floats; ``lengths``, ``offsets``, ``labels``
(N,) whole numbers; ``subjects`` (N,) or (N, P); ``names`` (N,), ``class_names`` (K,), ``joint_names`` (V,) texts;
``parents`` (V,) with -1 for the root. Optional: ``cameras``, ``setups`` (N,), ``folds`` (N,) whole numbers (split
``fold<k>`` tests on fold k) and split masks (N,) bool: ``<split>_train`` and, where the rest is not all test,
``<split>_test``. Other keys are not read; the dataset's source names them. The archive is read without pickle, the
frames through a memory map.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from methods.data.layouts.layout import LAYOUTS, Layout, layout_from_parts
from methods.data.npyfiles import HEADER_ERRORS, map_member
from methods.data.reading.sources import Clip, Item, ReadOptions, Skipped, Source, spans
from methods.data.skeletons import TEST, TRAIN, UNUSED
from methods.errors import InputError

OPTIONS = frozenset({"layout"})

Arrays = dict[str, NDArray[Any]]

# key -> (kind, shape); N clips, F frames, V joints, None any. 'i' whole numbers, 'f' numbers, 'U' texts.
_REQUIRED: dict[str, tuple[str, tuple[str | None, ...]]] = {
    "sequences": ("f", ("F", None, "V", None)),
    "lengths": ("i", ("N",)),
    "offsets": ("i", ("N",)),
    "labels": ("i", ("N",)),
    "subjects": ("i", ("N", None)),
    "names": ("U", ("N",)),
    "class_names": ("U", (None,)),
    "joint_names": ("U", ("V",)),
    "parents": ("i", ("V",)),
}
_OPTIONAL: dict[str, tuple[str, tuple[str | None, ...]]] = {
    "cameras": ("i", ("N",)),
    "setups": ("i", ("N",)),
    "folds": ("i", ("N",)),
}
_KINDS = {"i": "whole numbers", "f": "numbers", "U": "texts", "b": "True or False"}
_UNREADABLE = (*HEADER_ERRORS, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error)
_FRAMES = "sequences"


def recognises(source: Path) -> str | None:
    """An .npz with the keys that only this format has."""
    try:
        with zipfile.ZipFile(source) as archive:
            keys = {"sequences.npy", "lengths.npy", "offsets.npy"}
            return "an .npz with sequences, lengths and offsets" if keys <= set(archive.namelist()) else None
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError):
        return None


def plan(source: Path, options: ReadOptions, scratch: Path) -> Source:
    """Check all that is not frames; raises InputError with all faults of the archive at once."""
    arrays = _load(source, scratch)
    faults = [*_shape_faults(arrays), *_split_faults(arrays)]
    layout = None if faults else _layout(arrays, source, options.layout, faults)
    if faults or layout is None:
        raise InputError(*(f"{source}: {fault}" for fault in faults))
    read = {*_REQUIRED, *_OPTIONAL, *(f"{split}{end}" for split in _split_names(arrays) for end in ("_train", "_test"))}
    return Source(
        layout=layout,
        class_names=tuple(arrays["class_names"].tolist()),
        persons=arrays[_FRAMES].shape[1],
        channels=arrays[_FRAMES].shape[3],
        items=spans(len(arrays["labels"]), source),
        read=partial(_read, scratch=str(scratch)),
        notes={
            "not_read": sorted(set(arrays) - read),
            **{key: str(arrays[key]) for key in ("unit", "fps_note") if key in arrays and arrays[key].ndim == 0},
        },
        chunk=1,
    )


def _read(item: Item, scratch: str) -> Iterator[Clip | Skipped]:
    arrays = _loaded(item.path, item.stamp, scratch)
    frames, sides = arrays[_FRAMES], _splits(arrays)
    unknown = np.full(len(arrays["labels"]), -1)
    cameras, setups = arrays.get("cameras", unknown), arrays.get("setups", unknown)
    for index in range(*item.span):
        name, start, length = str(arrays["names"][index]), int(arrays["offsets"][index]), int(arrays["lengths"][index])
        if start < 0 or length < 0 or start > len(frames) - length:
            yield Skipped(name, "ends outside the frames", f"clip {index}: {start} + {length} of {len(frames)}")
            continue
        yield Clip(
            frames=frames[start : start + length],
            label=int(arrays["labels"][index]),
            name=name,
            subjects=tuple(np.atleast_1d(arrays["subjects"][index]).tolist()),
            camera=int(cameras[index]),
            setup=int(setups[index]),
            sides={split: int(table[index]) for split, table in sides.items()},
        )


@lru_cache(maxsize=2)
def _loaded(source: str, _: tuple[int, ...], scratch: str) -> Arrays:
    return _load(Path(source), Path(scratch))


def _load(source: Path, scratch: Path) -> Arrays:
    """Load every array, the frames as a map; one that would need pickle is a fault, named with the others."""
    faults: list[str] = []
    arrays: Arrays = {}
    try:
        archive = np.load(source, allow_pickle=False)
    except (*_UNREADABLE, OSError) as error:
        raise InputError(f"{source}: not a readable .npz file ({error})") from error
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise InputError(f"{source}: a single array; wanted an .npz with {', '.join(_REQUIRED)}")
    with archive:
        for key in archive.files:
            try:
                arrays[key] = map_member(source, key, scratch) if key == _FRAMES else np.asarray(archive[key])
            except InputError as error:
                faults += error.faults
            except (*_UNREADABLE, OSError) as error:
                why = "holds pickled objects, which are never loaded" if "pickle" in str(error) else f"damaged: {error}"
                faults.append(f"{source}: key '{key}' {why}")
    faults += [f"{source}: key '{key}' is missing" for key in _REQUIRED if key not in archive.files]
    if faults:
        raise InputError(*faults)
    return arrays


def _shape_faults(arrays: Arrays) -> list[str]:
    sizes = {"F": len(arrays["sequences"]) if arrays["sequences"].ndim else 0, "N": int(arrays["lengths"].size)}
    sizes["V"] = arrays["sequences"].shape[2] if arrays["sequences"].ndim == 4 else int(arrays["joint_names"].size)
    faults = []
    for key, (kind, full) in {**_REQUIRED, **_OPTIONAL}.items():
        if key not in arrays:
            continue
        array = arrays[key]
        if array.dtype.kind not in {"i": "iu", "f": "fiu", "U": "U"}[kind]:
            faults.append(f"key '{key}' holds {array.dtype}, wanted {_KINDS[kind]}")
        axes = full[:1] if key == "subjects" and array.ndim == 1 else full
        wanted = tuple(sizes.get(axis) if axis else None for axis in axes)
        if array.ndim != len(axes) or any(w not in (None, h) for w, h in zip(wanted, array.shape, strict=True)):
            text = ", ".join(
                f"{axis}={size}" if size is not None else "any" for axis, size in zip(axes, wanted, strict=True)
            )
            faults.append(f"key '{key}' has shape {array.shape}, wanted ({text})")
    if not sizes["N"]:
        faults.append("holds no clip")
    return faults


def _split_names(arrays: Arrays) -> list[str]:
    return sorted(key.removesuffix("_train") for key in arrays if key.endswith("_train") and len(key) > len("_train"))


def _split_faults(arrays: Arrays) -> list[str]:
    count, faults = int(arrays["lengths"].size), []
    for split in _split_names(arrays):
        masks = [arrays[key] for key in (f"{split}_train", f"{split}_test") if key in arrays]
        if any(mask.shape != (count,) or mask.dtype.kind != "b" for mask in masks):
            faults.append(f"split '{split}': masks must be ({count},) of True or False")
        elif len(masks) > 1 and (masks[0] & masks[1]).any():
            both = int((masks[0] & masks[1]).sum())
            faults.append(f"split '{split}': {both} clips are in train and in test")
    return faults


def _layout(arrays: Arrays, source: Path, given: Layout | None, faults: list[str]) -> Layout | None:
    """The layout given; the built-in one where names and parents are its own; else one derived from them."""
    if given is not None:
        if given.num_joints != arrays[_FRAMES].shape[2]:
            faults.append(f"has {arrays[_FRAMES].shape[2]} joints, layout '{given.name}' has {given.num_joints}")
        return given
    joints, parents = tuple(arrays["joint_names"].tolist()), tuple(arrays["parents"].tolist())
    for layout in LAYOUTS.values():
        if (layout.joints, layout.parents) == (joints, parents):
            return layout
    try:
        return layout_from_parts(source.stem, joints, parents)
    except InputError as error:
        faults.extend(error.faults)
        return None


def _splits(arrays: Arrays) -> dict[str, NDArray[np.int8]]:
    out = {}
    for split in _split_names(arrays):
        train = arrays[f"{split}_train"]
        test = arrays.get(f"{split}_test", ~train)
        out[split] = np.where(train, TRAIN, np.where(test, TEST, UNUSED)).astype(np.int8)
    for fold in np.unique(arrays["folds"]).tolist() if "folds" in arrays else ():
        out[f"fold{fold}"] = np.where(arrays["folds"] == fold, TEST, TRAIN).astype(np.int8)
    return out
