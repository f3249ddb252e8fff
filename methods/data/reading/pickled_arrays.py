"""Arrays that were left where they lie in their pickle, to be read one at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from methods.errors import InputError


@dataclass(frozen=True)
class Piece:
    """Bytes that were left in the pickle: where they lie there, and how many they are once decoded.

    ``text`` says that they lie there as UTF-8 of a text that stands for the bytes by Latin-1 (protocols 0 to 2).
    """

    start: int
    size: int
    length: int
    text: bool

    def read(self, file: IO[bytes]) -> bytes:
        """Read the bytes; raises InputError where the file no longer holds them."""
        file.seek(self.start)
        raw = file.read(self.size)
        try:
            raw = raw.decode("utf-8", "surrogatepass").encode("latin1") if self.text else raw
        except UnicodeError as error:
            raise InputError(f"{file.name}: byte {self.start}: no bytes in Latin-1 ({error})") from error
        if len(raw) != self.length:
            raise InputError(f"{file.name}: byte {self.start}: {len(raw)} bytes, wanted {self.length}")
        return raw


@dataclass
class StoredArray:
    """An array whose numbers were not read: what it is, and ``raw``, its bytes or where they lie."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    raw: bytes | Piece

    def read(self, file: IO[bytes]) -> NDArray[Any]:
        """Read the array from the opened pickle; raises InputError where it has changed."""
        raw = self.raw.read(file) if isinstance(self.raw, Piece) else self.raw
        return np.ndarray(self.shape, self.dtype, raw, order="F" if self.fortran else "C")
