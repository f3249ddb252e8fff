"""Ragged .npz: clips of different lengths one behind the other in one array, with offsets.

Required keys, F frames in all, N clips: ``sequences`` (F, M, V, C) finite floats; ``lengths``, ``offsets``, ``labels``
(N,) whole numbers; ``subjects`` (N,) or (N, P); ``names`` (N,), ``class_names`` (K,), ``joint_names`` (V,) texts;
``parents`` (V,) with -1 for the root. Optional: ``cameras``, ``setups`` (N,) and split masks (N,) bool:
``<split>_train`` and, where the rest is not all test, ``<split>_test``. Other keys are not read; the
dataset's source names them. The archive is loaded without pickle and checked as a whole before anything is written.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from methods.data.layouts import LAYOUTS, Layout, layout_from_parts
from methods.data.npyfiles import HEADER_ERRORS
from methods.data.skeletons import TEST, TRAIN, UNUSED, DatasetWriter, SkeletonDataset
from methods.errors import InputError

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
_OPTIONAL: dict[str, tuple[str, tuple[str | None, ...]]] = {"cameras": ("i", ("N",)), "setups": ("i", ("N",))}
_KINDS = {"i": "whole numbers", "f": "numbers", "U": "texts", "b": "True or False"}
_MOST_FAULTS = 20
_UNREADABLE = (*HEADER_ERRORS, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error)


def recognises(source: Path) -> bool:
    """Say whether the file is an .npz with the keys that only this format has."""
    try:
        with zipfile.ZipFile(source) as archive:
            return {"sequences.npy", "lengths.npy", "offsets.npy"} <= set(archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def convert(source: Path, out: Path) -> SkeletonDataset:
    """Write a ragged .npz as a dataset folder; raises InputError with all faults of the file at once."""
    arrays = _load(source)
    faults = [*_shape_faults(arrays), *_split_faults(arrays)]
    if not faults:
        faults = _content_faults(arrays)
    layout = None if faults else _layout(arrays, source, faults)
    if faults or layout is None:
        more = [f"and {len(faults) - _MOST_FAULTS} more"] if len(faults) > _MOST_FAULTS else []
        raise InputError(*(f"{source}: {fault}" for fault in [*faults[:_MOST_FAULTS], *more]))
    return _write(arrays, layout, source, out)


def _load(source: Path) -> Arrays:
    """Load every array; one that would need pickle is a fault, named with the others."""
    faults, arrays = [], {}
    try:
        archive = np.load(source, allow_pickle=False)
    except (*_UNREADABLE, OSError) as error:
        raise InputError(f"{source}: not a readable .npz file ({error})") from error
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise InputError(f"{source}: a single array; wanted an .npz with {', '.join(_REQUIRED)}")
    with archive:
        for key in archive.files:
            try:
                arrays[key] = np.asarray(archive[key])
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


def _content_faults(arrays: Arrays) -> list[str]:
    sequences, classes = arrays["sequences"], len(arrays["class_names"])
    names, lengths, offsets = arrays["names"], arrays["lengths"].astype(np.int64), arrays["offsets"].astype(np.int64)
    faults = []
    for index in np.flatnonzero((arrays["labels"] < 0) | (arrays["labels"] >= classes)):
        faults.append(
            f"clip {index} ('{names[index]}') has label {arrays['labels'][index]}, there are {classes} classes"
        )
    for index in np.flatnonzero(lengths < 1):
        faults.append(f"clip {index} ('{names[index]}') has length {lengths[index]}")
    for index in np.flatnonzero((offsets < 0) | (offsets > len(sequences) - lengths)):
        faults.append(f"clip {index} ('{names[index]}') ends outside the {len(sequences)} frames")
    for key in ("subjects", "cameras", "setups"):
        if key in arrays and (arrays[key].astype(np.int64) < -1).any():
            faults.append(f"key '{key}' holds {int(arrays[key].min())}; ids are 0 or more, -1 for unknown")
    if not faults:
        for clip, (start, length) in enumerate(zip(offsets, lengths, strict=True)):
            good = np.isfinite(sequences[start : start + length]).all(axis=(1, 2, 3))
            if not good.all():
                frame = int((~good).argmax())
                faults.append(f"clip {clip} ('{names[clip]}') frame {frame} holds NaN or infinite coordinates")
    return faults


def _layout(arrays: Arrays, source: Path, faults: list[str]) -> Layout | None:
    """The built-in layout where names and parents are its own, else one derived from them."""
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
    return out


def _write(arrays: Arrays, layout: Layout, source: Path, out: Path) -> SkeletonDataset:
    splits = _splits(arrays)
    read = {*_REQUIRED, *_OPTIONAL, *(f"{split}{end}" for split in splits for end in ("_train", "_test"))}
    notes: dict[str, object] = {
        "converter": "ragged_npz",
        "file": source.name,
        "steps": [],
        "not_read": sorted(set(arrays) - read),
        **{key: str(arrays[key]) for key in ("unit", "fps_note") if key in arrays and arrays[key].ndim == 0},
    }
    sequences, count = arrays["sequences"], len(arrays["labels"])
    unknown = np.full(count, -1)
    cameras, setups = arrays.get("cameras", unknown), arrays.get("setups", unknown)
    writer = DatasetWriter(
        out, layout, arrays["class_names"].tolist(), sequences.shape[1], notes, channels=sequences.shape[3]
    )
    with writer:
        for index in range(count):
            start = int(arrays["offsets"][index])
            writer.append(
                sequences[start : start + int(arrays["lengths"][index])],
                int(arrays["labels"][index]),
                np.atleast_1d(arrays["subjects"][index]).tolist(),
                camera=int(cameras[index]),
                setup=int(setups[index]),
                name=str(arrays["names"][index]),
            )
        return writer.finish(splits)
