"""A file of official weights -> its tensors by name, without unpickling anything that could do something."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from methods.errors import InputError

# CRRL stores its command line beside its weights. A namespace is nothing but its attributes: neither making nor filling
# one runs anything, so that it may be in a file of which nothing else is trusted.
_HARMLESS = (argparse.Namespace,)
_OURS = {"config", "model", "format"}


@dataclass(frozen=True)
class Stored:
    """What files of weights hold: ``tensors`` by the code's own names, and the plain ``options`` stored beside them.

    Of a file with several networks an entry is called ``<network>.<name>``; the ``module.`` of a parallel wrapper is
    gone.
    """

    tensors: Mapping[str, Tensor]
    options: Mapping[str, Any] = field(default_factory=dict)


def read_weights(paths: Sequence[Path]) -> Stored:
    """What one or several files (of runs that belong together) hold, on the CPU.

    Raises ``InputError``, all faults at once, for a missing, damaged or untrustworthy file, for one without tensors,
    for our own checkpoints, and for entries that two files have.
    """
    faults: list[str] = []
    found: list[tuple[Path, Stored]] = []
    for path in paths:
        try:
            found.append((path, _one(path)))
        except InputError as error:
            faults += error.faults
    tensors: dict[str, Tensor] = {}
    options: dict[str, Any] = {}
    for path, stored in found:
        twice = sorted(tensors.keys() & stored.tensors.keys())
        if twice:
            faults.append(f"{path}: has {_some(twice)}, which a file before it has too; give files of different runs")
        tensors |= stored.tensors
        options |= stored.options
    if faults:
        raise InputError(*faults)
    return Stored(tensors, options)


def _one(path: Path) -> Stored:
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint")
    try:
        with torch.serialization.safe_globals(list(_HARMLESS)):
            stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds for a damaged or foreign file
        if "weights_only" in str(error) or "Unsupported" in str(error):
            raise InputError(
                f"{path}: holds more than tensors and plain values, and nothing else is unpickled; where you trust the "
                "file, load it in its own code and store torch.save(model.state_dict(), ...) alone"
            ) from error
        raise InputError(f"{path}: not a readable checkpoint ({type(error).__name__})") from error
    if not isinstance(stored, Mapping):
        raise InputError(f"{path}: holds a {type(stored).__name__}, not a state_dict")
    if stored.keys() >= _OURS:
        raise InputError(f"{path}: is a checkpoint of skeltune already; it needs no import")
    inner = stored.get("state_dict")
    tensors = _tensors(inner if isinstance(inner, Mapping) else stored)
    if not tensors:
        raise InputError(f"{path}: holds no weights (its keys: {_some([str(key) for key in stored])})")
    options = stored.get("opt")
    return Stored(tensors, vars(options) if isinstance(options, argparse.Namespace) else {})


def _tensors(stored: Mapping[Any, Any]) -> dict[str, Tensor]:
    """The entries of one network, or of every network in a dictionary of several; optimisers are none."""
    networks = {
        str(name): values
        for name, values in stored.items()
        if isinstance(values, Mapping) and values and all(isinstance(value, Tensor) for value in values.values())
    }
    if "moco_model" in networks:  # CRRL's contrastive run stores the encoder that it evaluates a second time
        networks.pop("encoder", None)
    if networks:
        return {f"{network}.{_bare(name)}": value for network, some in networks.items() for name, value in some.items()}
    return {_bare(name): value for name, value in stored.items() if isinstance(value, Tensor)}


def _bare(name: Any) -> str:
    return str(name).removeprefix("module.")


def _some(names: Sequence[str], most: int = 4) -> str:
    """The first few names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
