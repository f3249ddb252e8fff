"""Plain .npy files that are checked against their size before anything is mapped, and never unpickled.

Our own files are mapped by :func:`map_array`, which knows what they must hold; files of others by :func:`map_foreign`
and, inside an .npz (a zip archive of .npy files), by :func:`map_member`. Neither reads an array into memory.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from methods.errors import InputError

# What numpy raises on a damaged header, by chance of where the damage is.
HEADER_ERRORS = (
    *(ValueError, TypeError, SyntaxError, TokenError, OverflowError, MemoryError),
    *(RecursionError, LookupError, AttributeError),
)
# What zipfile raises on a damaged archive, or one that needs a password or an unknown way of packing.
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, *HEADER_ERRORS)
_MAGIC = b"\x93NUMPY\x01\x00"
_MOST_AXES, _MOST_BYTES = 32, 1 << 62  # what numpy can make an array of
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


@dataclass(frozen=True)
class Header:
    """What a .npy file says of its array: ``start`` bytes of header, then ``size`` bytes of numbers or text."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    start: int

    @property
    def size(self) -> int:
        """Bytes of the array."""
        return self.dtype.itemsize * math.prod(self.shape)


def _foreign_header(file: IO[bytes]) -> Header:
    """Read the header of a foreign .npy file; raises one of HEADER_ERRORS, also for what is no plain array."""
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"version {version} of the .npy format")
    shape, fortran, dtype = readers[version](file)
    if dtype.hasobject:
        raise ValueError("holds pickled objects, which are never loaded")
    if dtype.kind not in "biufUS" or dtype.itemsize == 0:
        raise ValueError(f"holds {dtype}, neither numbers nor text")
    whole = dtype.itemsize * math.prod(max(1, size) for size in shape)
    if any(size < 0 for size in shape) or len(shape) > _MOST_AXES or whole >= _MOST_BYTES:
        raise ValueError(f"has the shape {str(shape)[:200]}")
    return Header(dtype, shape, fortran, file.tell())


def _map(path: Path, header: Header, offset: int) -> NDArray[Any]:
    """Map an array at ``offset`` bytes into a file; an empty one, which cannot be mapped, is made."""
    if header.size == 0:
        return np.zeros(header.shape, header.dtype)
    order = "F" if header.fortran else "C"
    return np.memmap(path, dtype=header.dtype, mode="r", offset=offset, shape=header.shape, order=order)  # type: ignore[call-overload,no-any-return]


def foreign_header(path: Path) -> Header:
    """Read what a foreign .npy file says of itself, checked against its size; raises InputError naming the file."""
    try:
        with path.open("rb") as file:
            header = _foreign_header(file)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    except HEADER_ERRORS as error:
        raise InputError(f"{path}: truncated or no plain .npy file ({error})") from error
    if size != header.start + header.size:
        state = "truncated" if size < header.start + header.size else "too long"
        raise InputError(f"{path}: {state}: {size} bytes, its header says {header.start + header.size}")
    return header


def map_foreign(path: Path) -> NDArray[Any]:
    """Map a .npy file of any plain type and shape read-only; raises InputError as :func:`foreign_header`."""
    header = foreign_header(path)
    return _map(path, header, header.start)


def member_keys(archive: Path) -> list[str]:
    """Return the keys of an .npz file; raises InputError where it is no zip archive."""
    try:
        with zipfile.ZipFile(archive) as file:
            return [name.removesuffix(".npy") for name in file.namelist() if name.endswith(".npy")]
    except OSError as error:
        raise InputError(f"{archive}: {error.strerror or error}") from error
    except ZIP_ERRORS as error:
        raise InputError(f"{archive}: truncated or no .npz file ({error})") from error


def member_header(archive: Path, key: str) -> Header:
    """Read what the array ``key`` of an .npz file says of itself; raises InputError naming file and key."""
    return _member(archive, key)[1]


def _member(archive: Path, key: str) -> tuple[zipfile.ZipInfo, Header]:
    """Find an array of an archive and read its header; only a few kilobytes of it are unpacked."""
    try:
        with zipfile.ZipFile(archive) as file:
            if f"{key}.npy" not in file.NameToInfo:
                raise InputError(f"{archive}: holds no array '{key}'")
            info = file.getinfo(f"{key}.npy")
            with file.open(info) as member:
                header = _foreign_header(member)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{archive}: {error.strerror or error}") from error
    except ZIP_ERRORS as error:
        raise InputError(f"{archive}: array '{key}': truncated or no plain array ({error})") from error
    if info.file_size != header.start + header.size:
        needed = header.start + header.size
        raise InputError(f"{archive}: array '{key}': has {info.file_size} bytes, its header says {needed}")
    return info, header


def map_member(archive: Path, key: str, scratch: Path) -> NDArray[Any]:
    """Map the array ``key`` of an .npz file read-only, without reading it into memory.

    What is stored plainly (``np.savez``) is mapped where it lies in the archive, after one look at its checksum, which
    an empty file in ``scratch`` remembers. What is compressed (``np.savez_compressed``) is unpacked once, a block at a
    time and against its checksum, to a file in ``scratch`` that is named by key and checksum and found again later.
    Raises InputError naming file and key: a damaged or encrypted archive, a key that is missing, pickled objects, too
    little room in ``scratch``.
    """
    info, header = _member(archive, key)
    plain_key = re.sub(r"[^\w-]", "_", key)
    if info.compress_type == zipfile.ZIP_STORED and info.compress_size == info.file_size:
        offset = _data_offset(archive, key, info)
        checked = scratch / f"{plain_key}-{info.CRC:08x}.checked"
        if not checked.is_file():
            _check(archive, key, info, offset)
            checked.touch()
        return _map(archive, header, offset + header.start)
    target = scratch / f"{plain_key}-{info.CRC:08x}.npy"
    if not (target.is_file() and target.stat().st_size == info.file_size):
        _unpack(archive, key, info, target)
    return _map(target, header, header.start)


_LOCAL_HEADER = 30  # bytes before the name: APPNOTE.TXT of PKWARE, 4.3.7
_LOCAL_MAGIC = b"PK\x03\x04"


def _data_offset(archive: Path, key: str, info: zipfile.ZipInfo) -> int:
    """Where the bytes of a member begin, which its local header alone says."""
    with archive.open("rb") as file:
        file.seek(info.header_offset)
        local = file.read(_LOCAL_HEADER)
        size = os.fstat(file.fileno()).st_size
    if len(local) < _LOCAL_HEADER or not local.startswith(_LOCAL_MAGIC):
        raise InputError(f"{archive}: array '{key}': truncated or no plain array (no header at {info.header_offset})")
    lengths = int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")
    offset = info.header_offset + _LOCAL_HEADER + lengths
    if offset + info.file_size > size:
        raise InputError(f"{archive}: array '{key}': truncated: it would end {offset + info.file_size - size} bytes on")
    return offset


def _check(archive: Path, key: str, info: zipfile.ZipInfo, offset: int) -> None:
    """Compare the bytes of a stored member with their checksum: a file copied badly is not trained on."""
    found, left = 0, info.file_size
    with archive.open("rb") as file:
        file.seek(offset)
        while left and (block := file.read(min(left, 1 << 20))):
            found, left = zlib.crc32(block, found), left - len(block)
    if found != info.CRC:
        raise InputError(f"{archive}: array '{key}': damaged (its checksum does not fit); copy the file again")


def _unpack(archive: Path, key: str, info: zipfile.ZipInfo, target: Path) -> None:
    """Unpack a member to ``target``, which appears only when it is whole."""
    free = shutil.disk_usage(target.parent).free
    if info.file_size > free:
        raise InputError(
            f"{archive}: array '{key}': unpacked it takes {info.file_size / 1e9:.1f} GB, {target.parent} has "
            f"{free / 1e9:.1f} GB left"
        )
    part = target.with_suffix(".part")
    try:
        with zipfile.ZipFile(archive) as file, file.open(info) as packed, part.open("wb") as plain:
            shutil.copyfileobj(packed, plain, 1 << 20)
            plain.flush()
            os.fsync(plain.fileno())
        if part.stat().st_size != info.file_size:
            raise InputError(f"{archive}: array '{key}': truncated: {part.stat().st_size} bytes of {info.file_size}")
        os.replace(part, target)
    except OSError as error:
        raise InputError(f"{archive}: array '{key}': cannot be unpacked to {target.parent}: {error}") from error
    except ZIP_ERRORS as error:
        raise InputError(f"{archive}: array '{key}': damaged ({error})") from error
    finally:
        part.unlink(missing_ok=True)
