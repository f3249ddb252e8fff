"""Reading pickles of strangers: an interpreter of the harmless part of pickle's operations, and of nothing else.

The field keeps labels and whole datasets in pickles, and a pickle may run any code when it is loaded the usual way.
Here its operations (listed by the standard library's ``pickletools``) are carried out by our own code alone
(:mod:`methods.data.reading.pickle_machine`): numbers, texts, bytes, lists, tuples, dicts and sets are built, and the
few functions that numpy and Python need to bring back arrays, numbers and bytes are imitated. Every other name is
refused; nothing is looked up, imported or called. Protocols 0 to 5, written by Python 2 (its texts read as Latin-1)
or 3.

What a hostile file can still do is bounded by its size: no array or text is larger than the bytes that stand for it,
and all of them together no larger than the file. Lists that hold each other many times ("billion laughs") are built
as they stand, one object each; who walks through the result must not follow them deeper than the form asks for.
"""

from __future__ import annotations

import mmap
import pickletools
from pathlib import Path
from typing import IO, cast

from methods.data.reading.pickle_machine import LONG, Machine, RefusedError
from methods.data.reading.pickled_arrays import Piece, StoredArray
from methods.errors import InputError

__all__ = ["LONG", "Piece", "StoredArray", "first_texts", "load_outline", "load_plain"]

_DAMAGED = (ValueError, TypeError, LookupError, OverflowError, AttributeError, MemoryError, RecursionError)


def load_plain(path: Path) -> object:
    """Load a pickle of plain values and numpy arrays (of numbers or text) without running anything of it.

    An OrderedDict comes as a dict; arrays are read-only. Raises InputError naming the file: what it holds beyond
    that, by name ('refuses os.system'), arrays of objects, files that are truncated, damaged or no pickle.
    """
    return _load(path, outline=False)


def load_outline(path: Path) -> object:
    """Load as :func:`load_plain`, but leave in the file what is long: every array comes as a StoredArray.

    Memory grows with the number of objects, not with the arrays. Bytes and texts longer than LONG that are no part
    of an array come as a Piece. Raises InputError alike.
    """
    return _load(path, outline=True)


def first_texts(path: Path, size: int = 4096) -> list[str]:
    """The texts among the first ``size`` bytes of a pickle, in their order; empty where it is none. Never raises."""
    found: list[str] = []
    try:
        with path.open("rb") as file:
            head = file.read(size)
        for _, value, _ in pickletools.genops(head):
            if isinstance(value, str):
                found.append(value)
    except (OSError, *_DAMAGED):  # the head of a file ends in the middle of something
        return found
    return found


def _load(path: Path, outline: bool) -> object:
    at = 0
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            machine = Machine(view, outline)
            for operation, value, place in pickletools.genops(cast("IO[bytes]", view)):
                at = place or 0
                machine.do(operation.name, value, at)
            return machine.result()
    except RefusedError as error:
        raise InputError(
            f"{path}: refuses {error}: only lists, dicts, texts, numbers and arrays are read from a pickle, and "
            "nothing of it was run"
        ) from error
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    except _DAMAGED as error:
        empty = " (the file is empty)" if not path.stat().st_size else f" (byte {at}: {error or type(error).__name__})"
        raise InputError(f"{path}: truncated, damaged or no pickle{empty}") from error
