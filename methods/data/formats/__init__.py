"""Readers of foreign formats, one a file; each turns a source into our own dataset folder."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from methods.data.skeletons import SkeletonDataset
from methods.errors import InputError, did_you_mean


class Format(Protocol):
    """What a reader's module offers."""

    def recognises(self, source: Path) -> bool:
        """Say whether the source looks like this format, by names and keys alone; never raises for a stranger."""

    def convert(self, source: Path, out: Path) -> SkeletonDataset:
        """Write the source as a dataset folder; raises InputError with every fault that was found."""


FORMATS: Mapping[str, str] = {"ragged_npz": "methods.data.formats.ragged_npz"}


def _reader(name: str) -> Format:
    return cast(Format, import_module(FORMATS[name]))


def convert(source: str | Path, out: str | Path, format: str = "auto") -> SkeletonDataset:
    """Convert ``source`` into a new dataset folder ``out`` and return it opened.

    ``format`` is a name of FORMATS, or 'auto' to recognise it. ``out`` appears only when all went well. Raises
    InputError for an unknown format, a missing or unrecognised source, faults in it, and an ``out`` that exists.
    """
    source, out = Path(source), Path(out)
    if format != "auto" and format not in FORMATS:
        raise InputError(f"unknown format '{format}'{did_you_mean(format, [*FORMATS, 'auto'])}")
    if not source.exists():
        raise InputError(f"{source}: no such file or folder")
    if format != "auto":
        return _reader(format).convert(source, out)
    for name in FORMATS:
        reader = _reader(name)
        if reader.recognises(source):
            return reader.convert(source, out)
    raise InputError(f"{source}: not recognised as any of: {', '.join(FORMATS)}; name its format if it is one of these")
