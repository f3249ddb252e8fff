"""A dataset copied to a node: once, whole, and the right one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from methods.data import open_dataset
from methods.data.synthetic import SyntheticConfig, write_synthetic
from methods.errors import InputError
from tuning.storage.data_copy import local_copy, remote_meta

SMALL = SyntheticConfig(clips_per_cell=1, subjects=4, cameras=2, actions=("walk", "wave"), max_frames=40)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("source") / "my data"
    write_synthetic(path, SMALL)
    (path / "cache").mkdir()
    (path / "cache" / "t8.npy").write_bytes(b"derived")
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SKELTUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "datasets"


def fingerprint(path: Path) -> str:
    return open_dataset(path).fingerprint


def test_a_copy_is_whole_and_made_once(data, cache, capsys):
    mark = fingerprint(data)
    path = local_copy(str(data), mark)
    assert path == cache / f"my_data-{mark[:12]}"
    open_dataset(path).verify()
    assert {p.name for p in path.iterdir()} == {p.name for p in data.iterdir()} - {"cache"}
    assert local_copy(f"file://{data}/", mark) == path
    assert capsys.readouterr().err.count("copying") == 1
    assert not list(cache.glob("*.part"))
    assert remote_meta(str(data))["fingerprint"] == mark


def test_processes_that_begin_together_copy_once(data, cache):
    """Each says what it copies; only one does, and all get the same folder."""
    code = "import sys; from tuning.storage.data_copy import local_copy; input(); print(local_copy(*sys.argv[1:]))"
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    crowd = [subprocess.Popen([sys.executable, "-c", code, str(data), fingerprint(data)], **options) for _ in range(4)]
    for process in crowd:
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate(timeout=60) for process in crowd]
    assert [process.returncode for process in crowd] == [0] * 4, said
    assert len({out for out, _ in said}) == 1
    assert sum(err.count("copying") for _, err in said) == 1


def test_a_copy_that_was_damaged_is_made_again(data, cache):
    path = local_copy(str(data), fingerprint(data))
    frames = path / "frames.npy"
    frames.write_bytes(frames.read_bytes()[:-10])
    (cache / f".{path.name}.1234.part").mkdir()  # of a copy that was killed
    assert local_copy(str(data), fingerprint(data)) == path
    open_dataset(path).verify()
    assert [p.name for p in cache.iterdir() if not p.name.endswith(".lock")] == [path.name]


@pytest.mark.parametrize("name", ["frames", "labels", "subjects", "lengths", "valid"])
def test_one_wrong_byte_is_refused(data, cache, tmp_path, name):
    broken = tmp_path / "broken"
    shutil.copytree(data, broken)
    file = broken / f"{name}.npy"
    content = bytearray(file.read_bytes())
    content[-8 if name != "frames" else -2] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError) as found:
        local_copy(str(broken), fingerprint(data))
    assert str(broken) in str(found.value)
    assert not [p for p in cache.iterdir() if not p.name.endswith(".lock")]


def test_other_data_is_refused_before_it_is_copied(data, cache, capsys):
    with pytest.raises(InputError, match="other data than the search began with, seen from"):
        local_copy(str(data), "0" * 64)
    assert "copying" not in capsys.readouterr().err


def test_what_is_no_dataset(tmp_path, data):
    with pytest.raises(InputError, match=r"no skeltune dataset there \(no meta.json\), seen from"):
        remote_meta(str(tmp_path))
    with pytest.raises(InputError, match=r"no skeltune dataset there"):  # at once: it is a wrong path, no lost mount
        remote_meta(str(tmp_path / "nowhere"))
    broken = tmp_path / "broken"
    shutil.copytree(data, broken)
    (broken / "labels.npy").unlink()
    with pytest.raises(InputError, match=r"labels.npy is missing there"):
        local_copy(str(broken), fingerprint(data))
    (broken / "meta.json").write_text(json.dumps({"kind": "x"}))
    with pytest.raises(InputError, match=r"meta.json is damaged"):
        remote_meta(str(broken))


def test_too_little_room_is_told_first(data, monkeypatch, capsys):
    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(InputError, match=r"0.0 GiB free, the copy .* SKELTUNE_CACHE"):
        local_copy(str(data), fingerprint(data))
