"""A made-up format whose items misbehave as their keys say; a module of its own, for reading processes import it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import numpy as np

from methods.data.reading.sources import Clip, Item, Skipped
from methods.errors import InputError


def read(item: Item, slow: float = 0.0) -> Iterator[Clip | Skipped]:
    """A made-up format: item k yields what its key says; frames are a function of k."""
    time.sleep(slow)
    number = item.span[0]
    frames = np.full((2 + number % 3, 1, 5, 3), 1 + number, np.float32)
    if "damaged" in item.key:
        raise InputError(f"{item.path}:3: a bad line")
    if "bug" in item.key:
        raise ZeroDivisionError("oh")
    if "gone" in item.key:
        raise FileNotFoundError(2, "No such file or directory", item.path)
    if "killed" in item.key:
        os.kill(os.getpid(), signal.SIGKILL)
    kinds = {
        "empty": frames[:0],
        "nobody": frames * 0,
        "nan": np.where(frames == 1 + number, np.nan, frames),
        "shape": frames[:, :, :4],
    }
    kind = next((kind for kind in kinds if kind in item.key), None)
    label = 7 if "label" in item.key else number % 2
    name = "same" if "twice" in item.key else item.key
    yield Clip(kinds[kind] if kind else frames, label, name, (number % 4,), 1, -1, {"own": 1 + number % 2})


def items(count: int, **marked: str) -> list[Item]:
    """``count`` items, some with a word in their key: k3="nan"."""
    return [Item(f"i{k}{marked.get(f'k{k}', '')}", "/nowhere", (k,), (k, k + 1)) for k in range(count)]
