"""`skeltune data ...` as a user sees it: the summary, the errors, what is left behind."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from methods.data import open_dataset
from tuning.cli import _run

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "methods" / "data" / "formats"))
from writers_ntu import NtuClip, write_skeleton_files


@pytest.fixture
def raw(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    clips = [
        NtuClip(rng.normal(1, 0.1, (14, 2, 25, 3)).astype(np.float32), k % 3, 1 + k % 3, 1 + k % 2) for k in range(12)
    ]
    write_skeleton_files(tmp_path / "nturgb", clips)
    return tmp_path / "nturgb"


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    code = _run(["data", *map(str, arguments)])
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return code, said.out, said.err


def test_a_conversion_says_what_it_did(raw, tmp_path, capsys):
    (raw / "S001C001P001R009A001.skeleton").write_text("3\n1\nbroken")
    (raw / "S001C001P001R008A001.skeleton").write_text("2\n0\n0\n")
    code, out, _ = run(capsys, "convert", raw, tmp_path / "set", "--workers", 1)
    assert code == 0
    assert "format     ntu_raw (folder with S001C001P001R00" in out
    assert "kept       12 clips" in out and "left out   2, each listed in" in out
    assert "1 x damaged" in out and "S001C001P001R009A001.skeleton:3" in out
    assert "1 x no body in any frame, e.g. S001C001P001R008A001" in out
    assert "(official: 40,091 and 16,487)" in out
    assert len(open_dataset(tmp_path / "set")) == 12
    assert sorted(path.name for path in tmp_path.iterdir()) == ["nturgb", "set"]


def test_strict(raw, tmp_path, capsys):
    (raw / "S001C001P001R009A001.skeleton").write_text("")
    (raw / "notes.skeleton").write_text("")
    code, _, err = run(capsys, "convert", raw, tmp_path / "set", "--strict")
    assert code == 2 and len(err.splitlines()) == 2
    assert "S001C001P001R009A001" in err and "notes" in err
    assert [path.name for path in tmp_path.iterdir()] == ["nturgb"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--format", "ntu-raw"), "unknown format 'ntu-raw'; did you mean 'ntu_raw'?"),
        (("--format", "pyskl_pkl"), "nturgb"),
        (("--tracking", "by-id"), "unknown tracking 'by-id'; did you mean 'by_id'?"),
        (("--table", "x.csv"), "format ntu_raw has no use for the option 'table'"),
        (("--layout", "ntu26"), "unknown layout 'ntu26'"),
        (("--missing", "none.txt"), "none.txt"),
    ],
)
def test_wrong_options(raw, tmp_path, capsys, arguments, words):
    code, out, err = run(capsys, "convert", raw, tmp_path / "set", *arguments)
    assert code == 2 and words in err, err
    assert not out and [path.name for path in tmp_path.iterdir()] == ["nturgb"]


def test_a_source_that_nobody_knows(tmp_path, capsys):
    (tmp_path / "thing").mkdir()
    code, _, err = run(capsys, "convert", tmp_path / "thing", tmp_path / "set")
    assert code == 2 and "not recognised as any of ntu_raw, crossclr" in err
    code, _, err = run(capsys, "convert", tmp_path / "nowhere", tmp_path / "set")
    assert code == 2 and "no such file or folder" in err


def test_copies_across_a_split_are_taken_out_on_request(raw, tmp_path, capsys):
    """Subject 3 tests, subject 1 trains: a copy under another name is found, said, and left out of the clean split."""
    train = next(raw.glob("S001C00?P001R001A001.skeleton"))
    (raw / "S001C001P003R005A001.skeleton").write_bytes(train.read_bytes())
    code, out, _ = run(capsys, "convert", raw, tmp_path / "set", "--drop-duplicates", "--workers", 1)
    assert code == 0 and "xsub_clean" in out
    data = open_dataset(tmp_path / "set")
    at = data.names.tolist().index("S001C001P003R005A001")
    assert (data.splits["xsub"][at], data.splits["xsub_clean"][at]) == (2, 0)
    _, out, _ = run(capsys, "inspect", tmp_path / "set")
    assert "S001C001P003R005A001" in out and "byte-identical" in out
    code, out, _ = run(capsys, "inspect", tmp_path / "set", "--html", tmp_path / "page.html")
    assert code == 0 and "page.html" in out
    assert "S001C001P003R005A001" in (tmp_path / "page.html").read_text()


def test_formats_are_listed(capsys):
    code, out, _ = run(capsys, "formats")
    assert code == 0 and out.startswith("ntu_raw") and "pyskl_pkl" in out
