"""The .skeleton text: both ways of reading it agree, and what is wrong is said with its line."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from writers_ntu import FIRST_ID, listed_bodies, skeleton_text, walk

from methods.data.reading import skeleton_text as reader
from methods.data.reading.skeleton_text import Bodies, read_bodies, read_patiently, read_quickly
from methods.errors import InputError


def slow_bodies(text: str) -> tuple[int, list[int], list[str], np.ndarray]:
    """Token after token, the way MATLAB's fscanf goes through the file."""
    tokens = iter(text.split())
    frames = int(next(tokens))
    at, ids, joints = [], [], []
    for frame in range(frames):
        for _ in range(int(next(tokens))):
            at.append(frame)
            header = [next(tokens) for _ in range(10)]
            ids.append(header[0])
            rows = [[next(tokens) for _ in range(12)] for _ in range(int(next(tokens)))]
            joints.append([[float(value) for value in row[:3]] for row in rows])
    assert next(tokens, None) is None
    return frames, at, ids, np.array(joints, dtype=np.float32).reshape(-1, 25, 3)


def same(a: Bodies, b: Bodies) -> bool:
    equal = a.frames == b.frames and np.array_equal(a.at, b.at) and a.ids == b.ids and a.joints.dtype == b.joints.dtype
    return equal and a.joints.shape == b.joints.shape and a.joints.tobytes() == b.joints.tobytes()


def agree(text: bytes) -> Bodies | str:
    """Read both ways; the fast one may decline, and must where the patient one finds a fault."""
    quick = read_quickly(text)
    try:
        found: Bodies | str = read_patiently(text, "f")
    except InputError as error:
        found = str(error)
    if isinstance(found, str):
        assert quick is None and re.match(r"f:\d+: [^\n]*$", found)
    else:
        assert quick is None or same(quick, found)
    return found


def crowd(counts: list[int], seed: int = 0) -> str:
    """A file with so many bodies in each frame, who carry IDs beyond 2^53 and change their order."""
    rng = np.random.default_rng(seed)
    frames = walk(len(counts), 6, seed)
    return skeleton_text(
        [(FIRST_ID + int(who), frames[t, who]) for who in rng.permutation(6)[:n]] for t, n in enumerate(counts)
    )


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 6), max_size=6), st.integers(0, 99))
def test_any_number_of_bodies(counts: list[int], seed: int) -> None:
    text = crowd(counts, seed)
    found = read_quickly(text.encode())
    assert found is not None
    frames, at, ids, joints = slow_bodies(text)
    assert (found.frames, found.at.tolist(), list(found.ids)) == (frames, at, ids)
    assert found.joints.tobytes() == joints.tobytes()
    assert same(found, read_patiently(text.encode(), "f"))


def test_round_trip() -> None:
    frames = walk(20, 2)
    frames[3:5, 1] = 0
    found = read_bodies(skeleton_text(listed_bodies(frames)).encode(), "f")
    assert found.at.tolist() == [t for t in range(20) for person in range(2) if frames[t, person].any()]
    assert set(found.ids) == {"72057594037931101", "72057594037931102"}  # a float would make one ID of them
    np.testing.assert_allclose(found.joints, frames.reshape(-1, 25, 3)[frames.any(axis=(2, 3)).ravel()], rtol=1e-6)


NUMBERS = st.one_of(
    st.floats(allow_nan=False).map(repr),
    st.floats(-10, 10, width=32).map(lambda x: f"{x:.7g}"),
    st.from_regex(r"-?[0-9]{1,20}(\.[0-9]{0,20})?", fullmatch=True),
    st.from_regex(r"-?\.[0-9]{1,17}", fullmatch=True),
    st.from_regex(r"[+-]?[0-9.]{1,6}e[+-]?[0-9]{1,3}", fullmatch=True),
    st.sampled_from(
        ["-0", "0.0", "-0.0", "nan", "NaN", "-inf", "Infinity", "1_0", "--1", "1-1", "-", ".", "1.2.3", "½"]
    ),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(NUMBERS, min_size=1, max_size=9))
def test_numbers_are_those_of_float(texts: list[str]) -> None:
    tokens = [text.encode() for text in texts]
    line = b"front matter of some length " + b" ".join(tokens)
    ends = np.cumsum([len(token) + 1 for token in tokens]) - 1 + 28
    starts = ends - [len(token) for token in tokens]
    found = reader._numbers(line, np.frombuffer(line, np.uint8), starts, ends)
    wanted = [None if "_" in text or text == "½" else _float(text) for text in texts]
    if None in wanted:
        assert found is None
    else:
        assert found is not None
        np.testing.assert_array_equal(found.view(np.int64), np.array(wanted).view(np.int64))  # bit by bit


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


ODD = {
    "CRLF": lambda text: text.replace("\n", "\r\n"),
    "byte order mark": lambda text: "\ufeff" + text,
    "no newline at the end": lambda text: text.rstrip(),
    "empty lines at the end": lambda text: text + "\n\n \n\t\r\n",
    "empty lines inside": lambda text: text.replace("\n25\n", "\n\n25\n \n"),
    "spaces at the ends": lambda text: text.replace("\n", "  \n"),
    "tabs": lambda text: text.replace(" ", "\t"),
    "two spaces": lambda text: text.replace(" ", "  "),
    "spaces in front": lambda text: "  " + text.replace("\n", "\n  "),
}


@pytest.mark.parametrize("change", ODD.values(), ids=ODD.keys())
def test_odd_but_valid(change) -> None:
    text = crowd([1, 0, 2, 6, 0])
    assert same(read_bodies(change(text).encode(), "f"), read_bodies(text.encode(), "f"))


def test_values_of_every_kind_are_read() -> None:
    lines = crowd([1]).splitlines()
    lines[4] = "1e-05 +2.5 nan " + lines[4].split(" ", 3)[3]
    found = read_bodies("\n".join(lines).encode(), "f").joints[0, 0]
    assert found[:2].tolist() == [np.float32(1e-05), 2.5] and np.isnan(found[2])
    assert read_quickly(("\n".join(lines) + "\n").encode()) is not None
    lines[4] = "1e300 1 1 " + lines[4].split(" ", 3)[3]
    assert np.isinf(read_bodies("\n".join(lines).encode(), "f").joints[0, 0, 0])


def lines_changed(**change: str | None) -> bytes:
    """A file of one frame with nobody and two with one body each; a line is replaced, or taken away."""
    lines: list[str | None] = list(crowd([0, 1, 1]).splitlines())
    assert lines[:3] == ["3", "0", "1"] and lines[4] == "25" and len(lines) == 58
    for number, text in change.items():
        lines[int(number[1:]) - 1] = text
    return "\n".join(line for line in lines if line is not None).encode()


JOINT = " 277.4 191.8 1036.2 519.2 -0.2 0.05 0.97 -0.12 2"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "f:1: the file is empty"),
        (b" \r\n\n\t", "f:1: the file is empty"),
        (b"\x93NUMPY\x01\x00v\x00{}", r"f:1: the number of frames: wanted a whole number, found '\x93NUMPY\x01"),
        (b"PK\x03\x04 and so on", "f:1: the number of frames: wanted 1 fields, found 4"),
        (lines_changed(L1="three"), "f:1: the number of frames: wanted a whole number, found 'three'"),
        (lines_changed(L1="-3"), "f:1: the number of frames: wanted a whole number, found '-3'"),
        (lines_changed(L1="4"), "f:58: the file ends before the number of bodies of frame 4 of 4"),
        (lines_changed(L1="999999999"), "f:58: the file ends before the number of bodies of frame 4 of 999999999"),
        (lines_changed(L1="9" * 5000), "f:1: the number of frames: wanted a whole number, found '9999"),
        (lines_changed(L1="2"), "f:31: more text behind the 2 frames that line 1 announces"),
        (lines_changed(L3="2"), "f:31: a body of frame 2 of 3: wanted 10 fields, found 1"),
        (lines_changed(L3="0"), "f:4: the number of bodies of frame 3 of 3: wanted 1 fields, found 10"),
        (lines_changed(L4="7205 0 1"), "f:4: a body of frame 2 of 3: wanted 10 fields, found 3"),
        (lines_changed(L5="24"), "f:5: a body of frame 2 of 3 has 24 joints, wanted 25"),
        (lines_changed(L5="025.0"), "f:5: the number of joints of a body of frame 2 of 3: wanted a whole number"),
        (lines_changed(L7="0.1 x 3" + JOINT), "f:7: y of joint 2 of a body of frame 2 of 3 is 'x', wanted a number"),
        (lines_changed(L7="0.1 1_0 3" + JOINT), "f:7: y of joint 2 of a body of frame 2 of 3 is '1_0', wanted"),
        (lines_changed(L7="0.1 3" + JOINT), "f:7: joint 2 of a body of frame 2 of 3: wanted 12 fields, found 11"),
        (lines_changed(L30=None), "f:30: joint 25 of a body of frame 2 of 3: wanted 12 fields, found 1"),
        (lines_changed(L58=None), "f:57: the file ends before joint 25 of a body of frame 3 of 3"),
        (lines_changed(L58="0.1 0.2"), "f:58: joint 25 of a body of frame 3 of 3: wanted 12 fields, found 2"),
        (lines_changed(L58="0.1 0.2 \0" + JOINT), r"f:58: z of joint 25 of a body of frame 3 of 3 is '\x00'"),
    ],
)  # fmt: skip
def test_faults_name_their_line(data: bytes, words: str) -> None:
    with pytest.raises(InputError) as caught:
        read_bodies(data, "f")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


MUTATED = crowd([1, 0, 2]).encode()


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["cut", "insert", "delete", "replace", "swap lines", "drop line", "twice"]),
    st.integers(0, len(MUTATED) - 1),
    st.binary(min_size=1, max_size=4) | st.sampled_from([b"\n", b" ", b"\r\n", b".", b"-", b"7", b"e", b"\0"]),
)
def test_damaged_files_agree(how: str, where: int, what: bytes) -> None:
    lines = MUTATED.split(b"\n")
    line = where % (len(lines) - 1)
    text = {
        "cut": MUTATED[:where],
        "insert": MUTATED[:where] + what + MUTATED[where:],
        "delete": MUTATED[:where] + MUTATED[where + len(what) :],
        "replace": MUTATED[:where] + what + MUTATED[where + len(what) :],
        "swap lines": b"\n".join([*lines[:line], *lines[line : line + 2][::-1], *lines[line + 2 :]]),
        "drop line": b"\n".join(lines[:line] + lines[line + 1 :]),
        "twice": b"\n".join([*lines[: line + 1], *lines[line:]]),
    }[how]
    agree(reader._even_lines(text) if text.strip() else b"0\n")


def test_a_mutation_in_every_short_line_is_seen() -> None:
    """Counts and joint counts: any other digit there makes another file or none."""
    lines = MUTATED.split(b"\n")
    for number, line in enumerate(lines[:-1]):
        if len(line) < 3:
            changed = b"\n".join([*lines[:number], b"5", *lines[number + 1 :]])
            assert isinstance(agree(changed), str)
