"""The text of NTU RGB+D's ``.skeleton`` files to arrays: a fast way for files as they were published, a patient one.

Whitespace-separated text (read_skeleton_file.m of github.com/shahroudy/NTURGB-D): the number of frames; for each frame
the number of bodies, 0 where nobody was seen; for each body a line of 10 fields whose first is its ID, a line with the
number of joints (25), and for each joint a line of 12 numbers: x y z in metres in camera space, its place in the depth
and in the colour picture (2 + 2), its orientation (4), its tracking state. Only ID, x, y and z are looked at. IDs are
kept as text: they are 64-bit numbers that a float would round.

Nearly all of a file are numbers nobody wants, so :func:`read_quickly` never splits it: one pass finds the gaps
between the fields, the shape of the whole file is compared with what the body counts say it must be, and the
digits of the wanted fields are put together by array arithmetic. Wherever anything is unusual it returns None and
:func:`read_patiently` reads line by line; both give bit by bit the same numbers, those of Python's ``float``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from methods.errors import InputError

JOINTS = 25
_HEADER, _FIELDS = 10, 12  # of a body's first line and of a joint's
_BODY = bytes([_HEADER, 1, *[_FIELDS] * JOINTS])  # fields in each line of a body
_TOKENS = sum(_BODY)
_SPACE, _NEWLINE, _MINUS, _POINT, _ZERO = b" \n-.0"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SHOWN = 40  # bytes of a wrong field that a message shows

# The fields of a body that are wanted, counted from its first: x, y and z of each joint.
_WANTED = (_HEADER + 1 + _FIELDS * np.arange(JOINTS)[:, None] + np.arange(3)).ravel()
_DIGITS = 16  # so many digits, fewer with a point among them, make a whole number that float64 rounds once at most
_FROM_RIGHT = np.arange(_DIGITS, dtype=np.uint8)[:, None]
_TENS = 10 ** np.arange(_DIGITS + 1, dtype=np.int64)
_PAIRING: tuple[tuple[Any, int], ...] = (
    (np.uint8, 10),
    (np.uint16, 100),
    (np.uint32, 10_000),
    (np.int64, 100_000_000),
)

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]
_Row = tuple[int, list[bytes]]  # number of the line, fields


@dataclass(frozen=True, eq=False)
class Bodies:
    """All K bodies of a file in the order of its lines.

    ``frames`` is the number of frames, also those without a body; ``at`` (K,) the frame of each body, rising;
    ``ids`` their IDs; ``joints`` (K, 25, 3) float32 x, y, z in metres in the camera's space.
    """

    frames: int
    at: Ints
    ids: tuple[str, ...]
    joints: NDArray[np.float32]


def read_bodies(data: bytes, where: str) -> Bodies:
    """Read a file's bytes; raises InputError, ``where:line: what``, for one that is damaged or something else."""
    text = _even_lines(data)
    if text == b"\n":
        raise InputError(f"{where}:1: the file is empty")
    found = read_quickly(text)
    return read_patiently(text, where) if found is None else found


def _even_lines(data: bytes) -> bytes:
    """Without byte order mark and carriage returns, with one newline at the end; no line changes its number."""
    text = data.removeprefix(_BYTE_ORDER_MARK)
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n")
    return text.rstrip() + b"\n"


# --- the fast way -----------------------------------------------------------------------------------------------------


def read_quickly(text: bytes) -> Bodies | None:
    """Read a file that is written as the published ones are, or return None.

    That is: one space between fields, no empty line, one newline at the end, plain numbers; nothing is left
    unchecked that :func:`read_patiently` would check.
    """
    buffer = np.frombuffer(text, dtype=np.uint8)
    gaps = np.flatnonzero(buffer <= _SPACE)  # gap i ends field i
    kinds = buffer[gaps]
    is_end = kinds == _NEWLINE
    lines = np.flatnonzero(is_end)  # the last field of each line
    if gaps[0] == 0 or not (is_end | (kinds == _SPACE)).all() or (np.diff(gaps) == 1).any():
        return None
    counts = _body_counts(text, gaps[lines])
    if counts is None or not _has_shape(lines, counts):
        return None
    at = np.repeat(np.arange(len(counts)), counts)
    first = at + 2 + _TOKENS * np.arange(len(at))  # a body's first field: before it the counts and the other bodies
    joint_counts = first + _HEADER
    if any(text[a + 1 : b] != b"25" for a, b in _borders(gaps, joint_counts)):
        return None
    wanted = (first[:, None] + _WANTED).ravel()
    values = _numbers(text, buffer, gaps[wanted - 1] + 1, gaps[wanted])
    if values is None:
        return None
    ids = tuple(_as_text(text[a + 1 : b]) for a, b in _borders(gaps, first))
    return Bodies(len(counts), at, ids, _as_joints(values))


def _borders(gaps: Ints, fields: Ints) -> Iterator[tuple[int, int]]:
    """The gaps before and after each of some fields."""
    return zip(gaps[fields - 1].tolist(), gaps[fields].tolist(), strict=True)


def _body_counts(text: bytes, ends: Ints) -> list[int] | None:
    """The number of bodies in each frame, walked through by the number of lines that a body takes."""
    frames = _as_count(text[: ends[0]])
    if frames is None:
        return None
    counts, line = [], 1
    for _ in range(frames):
        count = _as_count(text[ends[line - 1] + 1 : ends[line]]) if line < len(ends) else None
        if count is None:
            return None
        counts.append(count)
        line += 1 + len(_BODY) * count
    return counts if line == len(ends) else None


def _has_shape(lines: Ints, counts: list[int]) -> bool:
    """Whether every line has as many fields as its place in the file demands."""
    sizes = np.minimum(np.diff(lines, prepend=-1), 255).astype(np.uint8)
    return sizes.tobytes() == b"\1" + b"".join(b"\1" + _BODY * count for count in counts)


def _numbers(text: bytes, buffer: Bytes, starts: Ints, ends: Ints) -> NDArray[np.float64] | None:
    """The numbers in text[starts[i] : ends[i]], None where one of them is none.

    A field of digits, at most one point and perhaps a minus is the whole number of its digits divided by a power of
    ten; both are exact in float64, so the quotient is rounded once and is what ``float`` gives. All others (with an
    exponent, nan, very long) are given to ``float``.
    """
    characters = buffer[ends - 1 - _FROM_RIGHT]  # (16, n), the last character first
    inside = ends - starts > _FROM_RIGHT
    digits = characters - np.uint8(_ZERO)
    is_digit = (digits < 10) & inside
    is_point = (characters == _POINT) & inside
    known, points, after = (
        np.add.reduce(what, axis=0, dtype=np.uint8) for what in (is_digit, is_point, is_point * _FROM_RIGHT)
    )
    after = np.where(points == 1, after, 0)  # digits behind the point
    minus = buffer[starts] == _MINUS
    whole = _put_together(digits * is_digit)
    behind = whole % _TENS[after + 1]  # the point stands among the digits as a zero: take it out
    whole = np.where(points == 1, (whole - behind) // 10 + behind, whole)
    values: NDArray[np.float64] = whole / _TENS[after].astype(np.float64)
    np.negative(values, out=values, where=minus)
    plain = (known > 0) & (points <= 1) & (known.astype(np.int64) + points + minus == ends - starts)
    for index in np.flatnonzero(~plain).tolist():
        value = _as_number(text[starts[index] : ends[index]])
        if value is None:
            return None
        values[index] = value
    return values


def _put_together(digits: Bytes) -> Ints:
    """The whole numbers whose 16 decimal digits stand in the columns of (16, n), the ones first."""
    rows: NDArray[Any] = digits
    for kind, weight in _PAIRING:  # pairs to numbers below 100, pairs of these to numbers below 10,000, ...
        rows = rows[0::2].astype(kind) + rows[1::2].astype(kind) * kind(weight)
    whole: Ints = rows[0]
    return whole


# --- the patient way --------------------------------------------------------------------------------------------------


def read_patiently(text: bytes, where: str) -> Bodies:
    """Read line by line: empty lines, tabs and spaces at will; raises InputError with the line of the first fault."""
    rows = _rows(text)
    at: list[int] = []
    ids: list[str] = []
    values: list[float] = []
    frames = _whole(next(rows), where, "the number of frames")
    for frame in range(frames):
        place = f"frame {frame + 1} of {frames}"
        for _ in range(_whole(next(rows), where, f"the number of bodies of {place}")):
            header = _fields(next(rows), _HEADER, where, f"a body of {place}")
            at.append(frame)
            ids.append(_as_text(header[0]))
            row = next(rows)
            joints = _whole(row, where, f"the number of joints of a body of {place}")
            if joints != JOINTS:
                raise InputError(f"{where}:{row[0]}: a body of {place} has {joints} joints, wanted {JOINTS}")
            for joint in range(1, JOINTS + 1):
                values += _position(next(rows), where, f"joint {joint} of a body of {place}")
    line, more = next(rows)
    if more:
        raise InputError(f"{where}:{line}: more text behind the {frames} frames that line 1 announces")
    return Bodies(frames, np.array(at, dtype=np.int64), tuple(ids), _as_joints(np.array(values, dtype=np.float64)))


def _rows(text: bytes) -> Iterator[_Row]:
    """Lines that hold something, then for ever one that holds nothing, which stands for the end of the file."""
    lines = text.split(b"\n")[:-1]
    full = ((number, fields) for number, line in enumerate(lines, start=1) if (fields := line.split()))
    nothing: _Row = (len(lines), [])
    return chain(full, repeat(nothing))


def _fields(row: _Row, wanted: int, where: str, what: str) -> list[bytes]:
    line, fields = row
    if not fields:
        raise InputError(f"{where}:{line}: the file ends before {what}")
    if len(fields) != wanted:
        raise InputError(f"{where}:{line}: {what}: wanted {wanted} fields, found {len(fields)}")
    return fields


def _whole(row: _Row, where: str, what: str) -> int:
    field = _fields(row, 1, where, what)[0]
    count = _as_count(field)
    if count is None:
        raise InputError(f"{where}:{row[0]}: {what}: wanted a whole number, found {_shown(field)}")
    return count


def _position(row: _Row, where: str, what: str) -> list[float]:
    found = []
    for axis, field in zip("xyz", _fields(row, _FIELDS, where, what), strict=False):
        value = _as_number(field)
        if value is None:
            raise InputError(f"{where}:{row[0]}: {axis} of {what} is {_shown(field)}, wanted a number")
        found.append(value)
    return found


# --- what both share --------------------------------------------------------------------------------------------------


def _as_count(field: bytes) -> int | None:
    return int(field) if field.isdigit() and len(field) < 10 else None


def _as_number(field: bytes) -> float | None:
    try:
        return None if b"_" in field else float(field)  # Python's own 1_000 is nobody's number
    except ValueError:
        return None


def _shown(field: bytes) -> str:
    """In quotes, with escapes for what cannot be printed."""
    return repr(field[:_SHOWN])[1:]


def _as_text(field: bytes) -> str:
    return field.decode("ascii", errors="backslashreplace")


def _as_joints(values: NDArray[np.float64]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # infinite then, and refused as such by whoever checks the clip
        return values.astype(np.float32).reshape(-1, JOINTS, 3)
