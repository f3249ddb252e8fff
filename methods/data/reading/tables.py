"""What the readers of plain text share: finding files, text as numbers, and the CSV table that says what is in a file.

Every text may have CRLF line ends, a byte order mark and trailing blank lines. Faults name file:line.
"""

from __future__ import annotations

import csv
import difflib
import os
import re
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from methods.data.skeletons import TEST, TRAIN, UNUSED
from methods.errors import InputError

TABLE_NAMES = ("actions.csv", "index.csv")  # what a table of clips is called where none is named
COLUMNS = ("file", "action", "subject", "fold", "start", "end")

_MOST_FAULTS = 20
_LARGEST = 2**31 - 1
_WHOLE = re.compile(r"([+-]?[0-9]+)(?:\.0*)?")
_DEEPEST = 6  # folders below the source


def whole(text: str) -> int | None:
    """The whole number that a text says ('3', ' 3 ', '3.0'), None for any other text and for more than 2^31."""
    found = _WHOLE.fullmatch(text.strip())
    return int(found[1]) if found and len(found[1]) < 11 and abs(int(found[1])) <= _LARGEST else None


def first_match(source: Path, pattern: re.Pattern[str], most: int = 4000) -> str | None:
    """The path, below ``source``, of some file that ``pattern`` matches as a whole; None where there soon is none.

    Looks breadth first at no more than ``most`` entries in all and at no more than an eighth of them in one folder, so
    that a folder of 100,000 strangers costs nothing; never raises.
    """
    folders, seen = deque([(source, 0)]), 0
    while folders:
        folder, depth = folders.popleft()
        try:
            with os.scandir(folder) as entries:
                for count, entry in enumerate(entries):
                    seen += 1
                    if seen > most or count > most // 8:
                        break
                    path = Path(entry.path).relative_to(source).as_posix()
                    if pattern.fullmatch(path):
                        return path
                    if depth < _DEEPEST and entry.is_dir(follow_symlinks=False):
                        folders.append((Path(entry.path), depth + 1))
        except (OSError, ValueError):
            continue
        if seen > most:
            return None
    return None


def all_files(source: Path, pattern: re.Pattern[str]) -> list[Path]:
    """All files below ``source`` whose path from there ``pattern`` matches as a whole, in the order of the paths."""
    found = []
    for folder, _, names in os.walk(source):
        for name in names:
            path = Path(folder, name)
            if pattern.fullmatch(path.relative_to(source).as_posix()):
                found.append(path)
    return sorted(found)


def read_text(path: Path, most: int = -1) -> str:
    """The text of a file with plain line ends; raises InputError where it is none, or cannot be read.

    Of a file of more than ``most`` bytes, the whole lines among its first ``most``.
    """
    try:
        with path.open("rb") as file:
            content = file.read(most)
            if most >= 0 and file.read(1):
                content = content[: content.rfind(b"\n") + 1]
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError(f"{path}:{line}: no text (byte {error.start} is no UTF-8)") from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise InputError(f"{path}:{line}: no text (holds zero bytes)")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_lines(path: Path, most: int = -1) -> list[str]:
    """The lines of a text file without blank ones at the end; raises InputError, and knows ``most``, as read_text."""
    return read_text(path, most).rstrip().split("\n")


def number_rows(path: Path, lines: Sequence[str], width: int, first: int = 1) -> NDArray[np.float64]:
    """The numbers of ``lines`` (n), ``width`` a line, as (n, width); between them blanks, commas or semicolons.

    ``first`` is the number of the first line in the file. Raises InputError for the first line that is anything else.
    """
    plain = [line.replace(",", " ").replace(";", " ") for line in lines]
    for index, line in enumerate(plain):
        count = len(line.split())
        if count != width:
            raise InputError(f"{path}:{first + index}: has {count} numbers, wanted {width}")
    if not plain:
        return np.zeros((0, width))
    try:
        found = np.loadtxt(plain, dtype=np.float64, comments=None, ndmin=2)
    except (ValueError, OverflowError) as error:
        raise InputError(_no_number(path, plain, first) or f"{path}: {error}") from None
    if found.shape != (len(plain), width):
        raise InputError(f"{path}: {len(plain)} lines gave {len(found)} rows of {found.shape[1]} numbers")
    return found


def _no_number(path: Path, lines: Sequence[str], first: int) -> str | None:
    for index, line in enumerate(lines):
        for word in line.split():
            try:
                np.loadtxt([word], dtype=np.float64, comments=None)
            except (ValueError, OverflowError):
                return f"{path}:{first + index}: '{word[:40]}' is no number"
    return None


@dataclass(frozen=True)
class Row:
    """One line of a table: a clip. ``key`` is the file without its ending, lower case; 0 where no frame was given.

    ``start`` and ``end`` count frames from 1, both included. ``subject`` and ``fold`` are -1 where nothing was said.
    """

    line: int
    key: str
    label: int
    subject: int
    fold: int
    start: int
    end: int


@dataclass(frozen=True)
class ActionTable:
    """Which clips there are, in the order of the file, and the names of their classes in the order of the labels."""

    path: Path
    rows: tuple[Row, ...]
    actions: tuple[str, ...]
    folds: tuple[int, ...]
    remarks: tuple[str, ...] = ()

    def sides(self, row: Row) -> dict[str, int]:
        """The side of a clip in ``fold<k>`` for each fold k, which is the test set there; none without folds."""
        side = dict.fromkeys(self.folds, TRAIN if row.fold >= 0 else UNUSED)
        return {f"fold{fold}": TEST if fold == row.fold else value for fold, value in side.items()}


def table_path(source: Path, given: Path | None) -> Path:
    """The table that was given, or the one that lies in ``source``; raises InputError where there is none."""
    if given is not None:
        return given
    there = {path.name.lower(): path for path in sorted(source.iterdir())} if source.is_dir() else {}
    for name in TABLE_NAMES:
        if name in there:
            return there[name]
    raise InputError(
        f"{source}: needs a table that says which action is in which file: a CSV with the columns file and action, if "
        f"wanted subject, fold, start and end (frames); give it with --table, or put it there as {TABLE_NAMES[0]}"
    )


def read_table(path: Path) -> ActionTable:
    """Read a table of clips; raises InputError with its faults at once.

    The first line names the columns in any order: ``file`` (with or without folders and ending) and ``action``; if
    wanted ``subject``, ``fold``, ``start`` and ``end``. Other columns are not read. Commas, semicolons or tabs lie
    between. Labels are the actions in the order of their names, or by size where all are whole numbers.
    """
    header, cells = _cells(path)
    faults = _header_faults(header)
    if faults:
        raise InputError(*(f"{path}:1: {fault}" for fault in faults))
    faults = [fault for line, cell in cells for fault in _cell_faults(f"{path}:{line}", cell)]
    if not cells:
        faults = [f"{path}: names the columns, and no clip"]
    if faults:
        more = [f"{path}: and {len(faults) - _MOST_FAULTS} more"] if len(faults) > _MOST_FAULTS else []
        raise InputError(*faults[:_MOST_FAULTS], *more)
    actions = _in_order({cell["action"] for _, cell in cells})
    labels = {action: label for label, action in enumerate(actions)}
    rows = tuple(_row(line, cell, labels) for line, cell in cells)
    _check_rows(path, rows)
    strange = [name for name in header if name and name not in COLUMNS]
    remarks = (f"{path.name}: columns not read: {', '.join(strange)}",) if strange else ()
    return ActionTable(path, rows, actions, tuple(sorted({row.fold for row in rows} - {-1})), remarks)


def _header_faults(header: Sequence[str]) -> list[str]:
    faults = [f"no column '{name}' in the first line" for name in COLUMNS[:2] if name not in header]
    faults += [f"column '{name}' is there twice" for name, count in Counter(header).items() if name and count > 1]
    missing = [name for name in COLUMNS if name not in header]
    for name in header:
        near = difflib.get_close_matches(name, missing, n=1, cutoff=0.75) if name not in COLUMNS else []
        if near:
            faults.append(f"unknown column '{name}'; did you mean '{near[0]}'?")
    return faults


def _cells(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The columns, and each further line that is not blank as column -> text, '' where it is too short."""
    lines = read_lines(path)
    reader = csv.reader(lines, delimiter=max(",;\t", key=lines[0].count), strict=True)
    cells = []
    try:
        header = [name.strip().lower() for name in next(reader)]
        for values in reader:
            if any(value.strip() for value in values[len(header) :]):
                raise InputError(
                    f"{path}:{reader.line_num}: has {len(values)} cells, the first line {len(header)}; a cell that "
                    'holds a comma needs "quotation marks"'
                )
            if any(value.strip() for value in values):
                texts = [*(value.strip() for value in values), *[""] * len(header)]
                cells.append((reader.line_num, dict(zip(header, texts, strict=False))))
    except csv.Error as error:
        raise InputError(f"{path}:{reader.line_num}: {error}") from None
    return header, cells


def _cell_faults(where: str, cell: dict[str, str]) -> Iterator[str]:
    for name in COLUMNS[:2]:
        if not cell[name]:
            yield f"{where}: no {name}"
    if cell["file"] and not _key(cell["file"]):
        yield f"{where}: file '{cell['file']}' names no file"
    lowest = {"subject": 0, "fold": 0, "start": 1, "end": 1}
    for name, least in lowest.items():
        text = cell.get(name, "")
        number = whole(text)
        if text and (number is None or number < least):
            yield f"{where}: {name} '{text}' is no whole number from {least} on"
    start, end = whole(cell.get("start", "")), whole(cell.get("end", ""))
    if start is not None and end is not None and start > end:
        yield f"{where}: start {start} is after end {end}"


def _key(file: str) -> str:
    """'01\\01_01.AMC' -> '01/01_01'."""
    return re.sub(r"\.(amc|bvh|asf)$", "", file.strip().replace("\\", "/").lower()).strip("/").removeprefix("./")


def _in_order(actions: set[str]) -> tuple[str, ...]:
    numbers = {action: whole(action) for action in actions}
    if all(number is not None for number in numbers.values()):
        return tuple(sorted(actions, key=lambda action: (numbers[action] or 0, action)))
    return tuple(sorted(actions))


def _row(line: int, cell: dict[str, str], labels: dict[str, int]) -> Row:
    def number(name: str, missing: int) -> int:
        found = whole(cell.get(name, ""))
        return missing if found is None else found

    return Row(
        line=line,
        key=_key(cell["file"]),
        label=labels[cell["action"]],
        subject=number("subject", -1),
        fold=number("fold", -1),
        start=number("start", 0),
        end=number("end", 0),
    )


def _check_rows(path: Path, rows: Sequence[Row]) -> None:
    faults, seen = [], dict[tuple[str, int, int], int]()
    for row in rows:
        before = seen.setdefault((row.key, row.start, row.end), row.line)
        if before != row.line:
            faults.append(f"{path}:{row.line}: '{row.key}' is there already, in line {before}")
    if len({row.fold for row in rows} - {-1}) == 1:
        faults.append(f"{path}: all clips are in one fold; folds need at least two")
    if faults:
        raise InputError(*faults[:_MOST_FAULTS])
