"""Labels and names of the clips of an array, from the files that the field keeps them in.

``*_label.pkl`` is a pickle of (names, labels), two lists as long as the array (CrosSCLR tools/ntu_gendata.py, 2s-AGCN
and CMD data_gen; labels of CMD are floats); ``*_label.npy`` holds labels alone, (N,) or (N, 1), counted from the
smallest (CrosSCLR feeder/preprocess_ntu.py). A list of names is a text with one a line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from methods.data.npyfiles import map_foreign
from methods.data.reading.clip_names import own_name
from methods.data.reading.pickles import load_plain
from methods.data.reading.sources import Ints
from methods.errors import InputError

MOST_CLASSES = 10_000  # a larger label is damage, or no label at all
_LONGEST_LIST = 1 << 28  # bytes of a list of names; a larger file is something else


@dataclass(frozen=True, eq=False)
class Labels:
    """What one label file says: ``names`` of N clips (None where it has none) and ``labels`` (N,), from 0."""

    file: Path
    names: tuple[str, ...] | None
    labels: Ints


def read_label_pickle(path: Path) -> Labels:
    """Read (names, labels); raises InputError naming the file and what is wrong with it."""
    found = load_plain(path)
    if not isinstance(found, (tuple, list)) or len(found) != 2:
        raise InputError(f"{path}: wanted (names, labels), holds {_kind(found)}")
    names = as_names(found[0], f"{path}: names")
    labels = as_labels(found[1], f"{path}: labels")
    if len(names) != len(labels):
        raise InputError(f"{path}: {len(names):,} names and {len(labels):,} labels")
    return Labels(path, names, labels)


def read_label_array(path: Path) -> Labels:
    """Read a .npy of labels; raises InputError."""
    return Labels(path, None, as_labels(map_foreign(path), str(path)))


def read_name_list(path: Path) -> tuple[str, ...]:
    """Read names, one a line; empty lines count for nothing. Raises InputError naming file and line."""
    try:
        if path.stat().st_size > _LONGEST_LIST:
            raise InputError(f"{path}: {path.stat().st_size:,} bytes are no list of names")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: no list of names: it is no text ({error.reason} at byte {error.start})") from error
    lines = [own_name(line) for line in text.splitlines()]
    strange = next((number for number, line in enumerate(lines, 1) if not line.isprintable()), 0)
    if strange:
        raise InputError(f"{path}:{strange}: no name: it holds control characters")
    names = tuple(line for line in lines if line)
    if not names:
        raise InputError(f"{path}: holds no name")
    return names


def as_names(values: Any, where: str) -> tuple[str, ...]:
    """Names from a list, tuple or array of texts; bytes are Latin-1. Raises InputError for anything else."""
    rows = values.tolist() if isinstance(values, np.ndarray) and values.ndim == 1 else values
    if not isinstance(rows, (list, tuple)):
        raise InputError(f"{where}: wanted a list of texts, got {_kind(values)}")
    texts = [row.decode("latin1") if isinstance(row, bytes) else row for row in rows]
    strange = next((index for index, text in enumerate(texts) if not isinstance(text, str)), None)
    if strange is not None:
        raise InputError(f"{where}: number {strange} is {_kind(texts[strange])}, wanted a text")
    return tuple(own_name(text) for text in texts)


def as_labels(values: Any, where: str) -> Ints:
    """Labels (N,) from a list or an array (N,) or (N, 1) of whole numbers; raises InputError for anything else."""
    table = _numbers(values, where)
    if table.ndim == 2 and table.shape[1] == 1:
        table = table[:, 0]
    if table.ndim != 1 or table.dtype.kind not in "iuf":
        raise InputError(f"{where}: wanted one whole number a clip, got {table.dtype} {table.shape}")
    with np.errstate(invalid="ignore"):
        good = (table >= 0) & (table < MOST_CLASSES) & (table == np.floor(table))
    if not good.all():
        first = int((~good).argmax())
        raise InputError(
            f"{where}: number {first} is {table[first]}, wanted a whole number from 0 to {MOST_CLASSES - 1}"
        )
    return table.astype(np.int64)


def _numbers(values: Any, where: str) -> NDArray[Any]:
    if isinstance(values, np.ndarray):
        return values
    if not isinstance(values, (list, tuple)):
        raise InputError(f"{where}: wanted a list of whole numbers, got {_kind(values)}")
    rows = [row.item() if isinstance(row, np.ndarray) and row.size == 1 else row for row in values]
    for index, row in enumerate(rows):
        if isinstance(row, bool) or not isinstance(row, (int, float, np.integer, np.floating)):
            raise InputError(f"{where}: number {index} is {_kind(row)}, wanted a whole number")
        if not -MOST_CLASSES < cast(float, row) < MOST_CLASSES:  # also NaN, and what no array holds
            raise InputError(f"{where}: number {index} is {_kind(row)} beyond every class")
    return np.asarray(rows or np.zeros(0, np.int64))


def _kind(value: object) -> str:
    """What a value is, in few words; never its content, which may be of any size and depth."""
    if isinstance(value, np.ndarray):
        return f"an array {value.dtype} {value.shape}"
    size = f" of {len(value)}" if isinstance(value, (list, tuple, dict, set, str, bytes)) else ""
    return f"a {type(value).__name__}{size}"


def first_difference(left: Sequence[int] | Ints, right: Sequence[int] | Ints) -> int:
    """Index of the first clip that two lists of labels, equally long, do not agree on; -1 where they agree.

    Unknown labels (below 0) agree with every other.
    """
    one, other = np.asarray(left), np.asarray(right)
    differ = (one != other) & (one >= 0) & (other >= 0)
    return int(differ.argmax()) if differ.any() else -1
