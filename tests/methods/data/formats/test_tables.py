from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from writers_mocap import Node, amc_text, asf_text, bvh_text, cmu_bones, random_motion
from writers_text import TextClip, Video, damaged, walk, write_pku, write_sbu, write_ucla, write_utd

from methods.data.formats import cmu_asf, cmu_bvh, pku_raw, sbu_text, ucla_json, utd_mat
from methods.data.reading import tables
from methods.data.reading.tables import Row, all_files, first_match, number_rows, read_lines, read_table, table_path
from methods.data.skeletons import TEST, TRAIN, UNUSED
from methods.errors import InputError

GOOD = """file,action,subject,fold,start,end
01/01_01.amc,walk,1,1,,
01_02,jump,,2,5,90
01_02,walk,3,2,91,
02_01,run and jump,2,1,,
02_02,run and jump,2,,,
"""


def table(folder: Path, text: str = GOOD) -> Path:
    (folder / "t.csv").write_bytes(text.encode())
    return folder / "t.csv"


def test_a_table(tmp_path: Path) -> None:
    found = read_table(table(tmp_path))
    assert found.actions == ("jump", "run and jump", "walk") and found.folds == (1, 2)
    assert found.rows[0] == Row(2, "01/01_01", 2, 1, 1, 0, 0)
    assert found.rows[1] == Row(3, "01_02", 0, -1, 2, 5, 90)
    assert found.rows[2] == Row(4, "01_02", 2, 3, 2, 91, 0)
    assert found.sides(found.rows[0]) == {"fold1": TEST, "fold2": TRAIN}
    assert found.sides(found.rows[1]) == {"fold1": TRAIN, "fold2": TEST}
    assert found.sides(found.rows[4]) == {"fold1": UNUSED, "fold2": UNUSED}
    assert found.remarks == ()


@pytest.mark.parametrize(
    "text",
    [
        GOOD.replace("\n", "\r\n") + "\r\n\r\n",
        "\ufeff" + GOOD,
        GOOD.replace(",", ";"),
        GOOD.replace(",", "\t"),
        GOOD.upper().replace("WALK", "walk").replace("JUMP", "jump").replace("RUN AND", "run and"),
        GOOD.replace("run and jump", '"run and jump"').replace("\n01_02,walk", "\n\n  ,,,\n01_02,walk"),
        GOOD.replace("01/01_01.amc", ".\\01\\01_01.AMC"),
        GOOD.replace(",91,", ",91.0,"),
    ],
)
def test_the_same_table_written_otherwise(tmp_path: Path, text: str) -> None:
    found, wanted = read_table(table(tmp_path, text)), read_table(table(tmp_path))
    assert found.actions == wanted.actions

    def plain(rows: tuple[Row, ...]) -> list[tuple[object, ...]]:
        return [(row.key, row.label, row.subject, row.fold, row.start, row.end) for row in rows]

    assert [row[1:] for row in plain(found.rows)] == [row[1:] for row in plain(wanted.rows)]
    assert [row.key.removeprefix("./") for row in found.rows] == [row.key for row in wanted.rows]


def test_numbers_as_actions_are_ordered_by_size_and_strange_columns_told(tmp_path: Path) -> None:
    found = read_table(table(tmp_path, "remark,action,file\nx,10,a\ny,9,b\nz,9,c\n"))
    assert found.actions == ("9", "10") and [row.label for row in found.rows] == [1, 0, 0]
    assert found.folds == () and found.sides(found.rows[0]) == {}
    assert found.remarks == ("t.csv: columns not read: remark",)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", ["t.csv:1: no column 'file' in the first line", "t.csv:1: no column 'action' in the first line"]),
        ("file,action\n", ["t.csv: names the columns, and no clip"]),
        ("file,actoin\na,b", ["no column 'action'", "unknown column 'actoin'; did you mean 'action'?"]),
        ("file,action,subjcet\na,b,1", ["unknown column 'subjcet'; did you mean 'subject'?"]),
        ("file,action,file\na,b,c", ["column 'file' is there twice"]),
        ("file,action\n,b\na,\n", ["t.csv:2: no file", "t.csv:3: no action"]),
        ("file,action,subject\na,b,one\nc,b,-1", [":2: subject 'one' is no whole", ":3: subject '-1' is no whole"]),
        ("file,action,start,end\na,b,0,1.5", [":2: start '0' is no", ":2: end '1.5' is no"]),
        ("file,action,start,end\na,b,9,8", [":2: start 9 is after end 8"]),
        ("file,action,fold\na,b,1\nc,b,1", ["all clips are in one fold"]),
        ("file,action\na,b\na,c", [":3: 'a' is there already, in line 2"]),
        ("file,action\na,walk, slowly", [":2: has 3 cells, the first line 2"]),
        ('file,action\na,"b', ["t.csv:2: unexpected end"]),
        ("file,action\na,b\0", ["t.csv:2: no text"]),
        ("file,action,fold\na,b,99999999999", [":2: fold '99999999999' is no whole"]),
        ("file,action\n.amc,b", [":2: file '.amc' names no file"]),
    ],
)
def test_faults_of_a_table_are_named_all_at_once(tmp_path: Path, text: str, lines: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        read_table(table(tmp_path, text))
    assert len(caught.value.faults) == len(lines)
    for line, fault in zip(lines, caught.value.faults, strict=True):
        assert line in fault


def test_where_the_table_is(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs a table"):
        table_path(tmp_path, None)
    (tmp_path / "Index.CSV").write_text("x")
    assert table_path(tmp_path, None) == tmp_path / "Index.CSV"
    assert table_path(tmp_path, Path("mine.csv")) == Path("mine.csv")
    with pytest.raises(InputError, match=r"mine\.csv: No such file"):
        read_table(tmp_path / "mine.csv")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_table_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("t") / "t.csv"
    path.write_bytes(data.draw(damaged(GOOD.encode())))
    faults: tuple[str, ...] = ()
    try:
        found = read_table(path)
    except InputError as error:
        faults = error.faults
    assert all(str(path) in fault for fault in faults)
    assert faults or all(0 <= row.label < len(found.actions) for row in found.rows)


def test_rows_of_numbers(tmp_path: Path) -> None:
    path = tmp_path / "n.txt"
    path.write_bytes(b"\xef\xbb\xbf1 2.5\t-3e2\r\n4,5,6\r\n7; 8; 9\r\n\r\n \r\n")
    np.testing.assert_array_equal(number_rows(path, read_lines(path), 3), [[1, 2.5, -300], [4, 5, 6], [7, 8, 9]])
    assert number_rows(path, [], 3).shape == (0, 3)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"1 2\n1 2 3\n", "n.txt:2: has 3 numbers, wanted 2"),
        (b"1 2\n\n1 2\n", "n.txt:2: has 0 numbers, wanted 2"),
        (b"", "n.txt:1: has 0 numbers, wanted 2"),
        (b"1 2\n3 x4\n", "n.txt:2: 'x4' is no number"),
        (b"1 2\n3 \xff\n", "n.txt:2: no text"),
        (b"1 2\n3 \0\n", "n.txt:2: no text"),
    ],
)
def test_rows_that_are_none(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "n.txt").write_bytes(content)
    with pytest.raises(InputError, match=re.escape(words)):
        number_rows(tmp_path / "n.txt", read_lines(tmp_path / "n.txt"), 2)


def test_the_first_lines_of_a_long_file(tmp_path: Path) -> None:
    (tmp_path / "n.txt").write_bytes(b"ab\ncde\n\xff\n")
    assert read_lines(tmp_path / "n.txt", 6) == ["ab"]
    assert read_lines(tmp_path / "n.txt", 7) == ["ab", "cde"]
    with pytest.raises(InputError):
        read_lines(tmp_path / "n.txt", 100)


@pytest.mark.parametrize(
    ("text", "number"), [("3", 3), (" -3.0 ", -3), ("3.5", None), ("", None), ("1_0", None), ("1e3", None), ("٣", None)]
)
def test_whole_numbers(text: str, number: int | None) -> None:
    assert tables.whole(text) == number


def test_finding_files(tmp_path: Path) -> None:
    pattern = re.compile(r"(.*/)?\d+\.x", re.IGNORECASE)
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("a/1.X", "a/b/2.x", "a/b/x", "10.y"):
        (tmp_path / name).write_text("")
    assert first_match(tmp_path, pattern) == "a/1.X"
    assert all_files(tmp_path, pattern) == [tmp_path / "a/1.X", tmp_path / "a/b/2.x"]
    assert first_match(tmp_path / "10.y", pattern) is None and first_match(tmp_path / "nothing", pattern) is None


class Counting:
    """A pattern that matches nothing and counts what it was asked."""

    asked = 0

    def fullmatch(self, _: str) -> None:
        self.asked += 1


def test_looking_for_a_file_soon_ends(tmp_path: Path) -> None:
    for folder in ("", "a", "b"):
        (tmp_path / folder).mkdir(exist_ok=True)
        for number in range(60):
            (tmp_path / folder / f"stranger{number}").write_text("")
    few, many = Counting(), Counting()
    assert first_match(tmp_path, few, most=80) is None  # type: ignore[arg-type]
    assert 8 <= few.asked <= 33
    assert first_match(tmp_path, many) is None  # type: ignore[arg-type]
    assert many.asked == 182


def write_asf(folder: Path) -> None:
    folder.mkdir()
    (folder / "01.asf").write_text(asf_text(cmu_bones()))
    (folder / "01_01.amc").write_text(amc_text(cmu_bones(), random_motion(cmu_bones(), 2)))


def write_bvh(folder: Path) -> None:
    folder.mkdir()
    root = Node("a", (0, 0, 0), children=[Node("b", (0, 1, 0), end=(0, 1, 0))])
    (folder / "01_01.bvh").write_text(bvh_text(root, np.ones((2, 6))))


READERS = (cmu_asf, cmu_bvh, pku_raw, sbu_text, ucla_json, utd_mat)


@pytest.mark.parametrize("number", range(len(READERS)))
def test_each_reader_recognises_its_own_and_no_others(tmp_path: Path, number: int) -> None:
    source = tmp_path / "source"
    (
        lambda: write_asf(source),
        lambda: write_bvh(source),
        lambda: write_pku(source, {"0002-L": Video(walk(2, 2, 25), [(1, 1, 2, 1)])}),
        lambda: write_sbu(source, [TextClip(walk(2, 2, 15))]),
        lambda: write_ucla(source, [TextClip(walk(2))]),
        lambda: write_utd(source, [TextClip(walk(2))]),
    )[number]()
    (tmp_path / "file").write_text("a file, no folder")
    for other, reader in enumerate(READERS):
        assert (reader.recognises(source) is not None) == (other == number), reader.__name__
        assert reader.recognises(tmp_path / "file") is None and reader.recognises(tmp_path / "none") is None
