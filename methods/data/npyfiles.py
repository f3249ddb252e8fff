"""Plain .npy files that are checked against their size before anything is mapped, and never unpickled."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from methods.errors import InputError

# What numpy raises on a damaged header, by chance of where the damage is.
HEADER_ERRORS = (ValueError, TypeError, SyntaxError, TokenError, OverflowError, MemoryError)
_MAGIC = b"\x93NUMPY\x01\x00"
_HEADER_SIZE = 256  # fixed, so that a shape can be filled in afterwards without moving the data


def header_bytes(dtype: str, shape: Sequence[int]) -> bytes:
    """Return a .npy version 1.0 header of fixed size for a C-ordered array."""
    text = repr({"descr": dtype, "fortran_order": False, "shape": tuple(int(size) for size in shape)})
    room = _HEADER_SIZE - len(_MAGIC) - 2
    return _MAGIC + room.to_bytes(2, "little") + text.encode("latin1").ljust(room - 1) + b"\n"


def write_array(path: Path, values: NDArray[Any]) -> None:
    """Write an array to a .npy file and wait until it is on the disk."""
    with path.open("wb") as file:
        np.lib.format.write_array(file, np.ascontiguousarray(values), version=(1, 0), allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())


def map_array(path: Path, dtype: str, shape: Sequence[int | None]) -> NDArray[Any]:
    """Map a .npy file read-only after checking its header and its size against what is wanted.

    ``dtype`` is a dtype text, or 'U' for text of any width; None in ``shape`` allows any size. Raises InputError
    naming the file when it is missing, truncated or of another kind; an object (pickled) array is never loaded.
    """
    mend = "convert the source again"
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            if version != (1, 0):
                raise ValueError(f"version {version} of the .npy format")
            found_shape, fortran, found = np.lib.format.read_array_header_1_0(file)
            start, size = file.tell(), os.fstat(file.fileno()).st_size
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}; {mend}") from error
    except HEADER_ERRORS as error:
        raise InputError(f"{path}: truncated or no .npy file ({error}); {mend}") from error
    right_type = found.kind == "U" if dtype == "U" else found == np.dtype(dtype)
    right_shape = len(found_shape) == len(shape) and all(
        want is None or have == want for have, want in zip(found_shape, shape, strict=True)
    )
    if fortran or not right_type or not right_shape:
        wanted = tuple("any" if want is None else want for want in shape)
        raise InputError(f"{path}: holds {found} {found_shape}, wanted {dtype} {wanted}; {mend}")
    needed = start + found.itemsize * int(np.prod(found_shape, dtype=np.int64))
    if size != needed:
        state = "truncated" if size < needed else "too long"
        raise InputError(f"{path}: {state}: {size} bytes, its header says {needed}; {mend}")
    if needed == start:
        raise InputError(f"{path}: is empty; {mend}")
    return np.memmap(path, dtype=found, mode="r", offset=start, shape=found_shape)
