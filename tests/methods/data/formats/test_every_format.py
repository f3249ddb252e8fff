"""One contract over all readers: known by itself alone, the same with any number of processes, never a traceback."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import test_format_cmu_asf
import test_format_cmu_bvh
from dataset_helpers import random_clips, write
from hypothesis import given, settings
from hypothesis import strategies as st
from writers_arrays import (
    DAMAGE,
    damaged,
    ntu_clips,
    write_agcn,
    write_crossclr,
    write_ctrgcn_npz,
    write_mamp_npz,
    write_pyskl_pkl,
)
from writers_ntu import NtuClip, write_skeleton_files
from writers_text import TextClip, Video, walk, write_pku, write_sbu, write_split, write_ucla, write_utd

from methods.data import convert
from methods.data.conversion.chunks import READER_FAILED
from methods.data.formats import FORMATS, reader, recognise
from methods.data.inspection import inspect_dataset
from methods.errors import InputError


def ntu_raw(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    people = [(subject, camera) for subject in (1, 2, 3) for camera in (1, 2)]
    clips = [
        NtuClip(rng.normal(1, 0.1, (13, 2, 25, 3)).astype(np.float32), k % 2, s, c) for k, (s, c) in enumerate(people)
    ]
    write_skeleton_files(folder / "nturgb", clips)
    return folder / "nturgb"


def crossclr(folder: Path) -> Path:
    return write_crossclr(folder / "xsub", ntu_clips())


def agcn(folder: Path) -> Path:
    return write_agcn(folder / "xsub", ntu_clips(), frames=24)


def ctrgcn_npz(folder: Path) -> Path:
    write_ctrgcn_npz(folder / "NTU60_CS.npz", ntu_clips(), frames=24)
    return folder / "NTU60_CS.npz"


def mamp_npz(folder: Path) -> Path:
    write_mamp_npz(folder / "PKUv1_XSub.npz", ntu_clips(classes=51), frames=24)
    return folder / "PKUv1_XSub.npz"


def pku_raw(folder: Path) -> Path:
    videos = {
        f"{number:04d}-{view}": Video(walk(20, 2, 25, number), [(number, 2, 9, 2), (7, 11, 20, 2)])
        for number in (2, 3)
        for view in "LMR"
    }
    write_pku(folder / "pku", videos)
    write_split(folder / "pku" / "cross-subject.txt", [f"0002-{view}" for view in "LMR"], ["0003-L"])
    return folder / "pku"


def text_clips(persons: int, joints: int) -> list[TextClip]:
    return [
        TextClip(walk(5 + k, persons, joints, k), label=k % 3, subject=1 + k % 4, camera=1 + k % 3, trial=1 + k // 12)
        for k in range(6)
    ]


def ucla_json(folder: Path) -> Path:
    write_ucla(folder / "all_sqe", text_clips(1, 20))
    return folder / "all_sqe"


def utd_mat(folder: Path) -> Path:
    write_utd(folder / "Skeleton", text_clips(1, 20))
    return folder / "Skeleton"


def sbu_text(folder: Path) -> Path:
    write_sbu(folder / "sbu", [clip for clip in text_clips(2, 15) if clip.subject != clip.other])
    return folder / "sbu"


def ragged_npz(folder: Path) -> Path:
    clips = random_clips(5)
    lengths = np.array([len(clip) for clip in clips])
    np.savez(
        folder / "mine.npz",
        sequences=np.concatenate(clips),
        lengths=lengths,
        offsets=np.cumsum(lengths) - lengths,
        labels=np.arange(5) % 2,
        subjects=np.arange(5),
        names=np.array([f"c{k}" for k in range(5)]),
        class_names=np.array(["a", "b"]),
        joint_names=np.array(["hip", "neck", "left_shoulder", "right_shoulder", "head"]),
        parents=np.array([-1, 0, 1, 1, 1]),
        xsub_train=np.array([True, True, True, False, False]),
    )
    return folder / "mine.npz"


def skeltune(folder: Path) -> Path:
    return write(folder / "set", random_clips(6), [0, 1] * 3, [1, 1, 2, 2, 3, 3], {"xsub": [1, 1, 1, 1, 2, 2]}).path


WRITERS: dict[str, Callable[[Path], Path]] = {
    "ntu_raw": ntu_raw,
    "crossclr": crossclr,
    "agcn": agcn,
    "ctrgcn_npz": ctrgcn_npz,
    "mamp_npz": mamp_npz,
    "pyskl_pkl": lambda folder: write_pyskl_pkl(folder / "ntu60_3danno.pkl", ntu_clips()),
    "pku_raw": pku_raw,
    "ucla_json": ucla_json,
    "cmu_asf": lambda folder: test_format_cmu_asf.write(folder / "cmu"),
    "cmu_bvh": lambda folder: test_format_cmu_bvh.write(folder / "bvh"),
    "utd_mat": utd_mat,
    "sbu_text": sbu_text,
    "ragged_npz": ragged_npz,
    "skeltune": skeltune,
}
every_format = pytest.mark.parametrize("name", FORMATS)


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, Path]:
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in WRITERS.items()}


def test_every_format_is_here() -> None:
    assert list(WRITERS) == list(FORMATS)


@every_format
def test_recognised_by_itself_alone(name, sources) -> None:
    found = {other: why for other in FORMATS if (why := reader(other).recognises(sources[name]))}
    assert list(found) == [name], found
    assert recognise(sources[name]) == (name, found[name])


@every_format
def test_what_is_no_source(name, tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_bytes(b"\x00\xff nothing of the kind")
    for strange in (tmp_path / "empty", tmp_path / "file", tmp_path / "none"):
        assert reader(name).recognises(strange) is None
        if strange.exists():
            with pytest.raises(InputError):
                convert(strange, tmp_path / "out", name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file"]


@every_format
def test_converts_the_same_with_two_processes_and_can_be_looked_at(name, sources, tmp_path) -> None:
    one = convert(sources[name], tmp_path / "one")
    two = convert(sources[name], tmp_path / "two", workers=2)
    assert one.format == name and one.dataset.fingerprint == two.dataset.fingerprint
    assert not one.skipped and not [line for line in one.lines() if "left out   1" in line]
    assert one.dataset.splits and all(table.any() for table in one.dataset.splits.values())
    assert one.dataset.source["converter"] == name
    one.dataset.verify()
    assert inspect_dataset(one.dataset).clips == len(one.dataset)


@every_format
@settings(max_examples=12, deadline=None)
@given(damage=st.lists(DAMAGE, min_size=1, max_size=3), which=st.floats(0, 0.999))
def test_damage_costs_a_line_never_a_traceback_nor_a_partial_output(name, sources, damage, which) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, sources[name].name)
        (shutil.copytree if sources[name].is_dir() else shutil.copy)(sources[name], source)
        files = sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else [source]
        hit = files[int(which * len(files))]
        hit.write_bytes(damaged(hit.read_bytes(), damage))
        out = Path(folder, "out")
        faults = ("none",)
        try:
            done = convert(source, out, name)
        except InputError as error:
            faults = error.faults
        else:
            assert READER_FAILED not in {skip.reason for skip in done.skipped}, done.skipped
            done.dataset.verify()
        assert faults and all(fault and "\n" not in fault for fault in faults)
        assert out.exists() == (faults == ("none",))
        assert {path.name for path in Path(folder).iterdir()} <= {source.name, "out"}
