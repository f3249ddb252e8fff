"""UTD-MHAD's .mat files: the container, the joints' order, planted faults, damage, the real sequences."""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from writers_text import TextClip, damaged, mat_array, mat_element, mat_file, walk, write_utd

from methods.data.conversion import convert
from methods.data.formats import utd_mat
from methods.data.layouts import KINECT20
from methods.data.reading.mat_files import read_array
from methods.data.reading.sources import Clip, ReadOptions, Skipped, Source
from methods.errors import InputError

DATA = Path(os.environ.get("SKELTUNE_DATA", "../shared/data"))
CLIPS = [TextClip(walk(3 + i, seed=i), label=9 * i % 27, subject=1 + i, trial=1 + i % 4) for i in range(4)]


def planned(source: Path) -> Source:
    return utd_mat.plan(source, ReadOptions(), source)


def read_all(source: Source) -> dict[str, Clip | Skipped]:
    read = pickle.loads(pickle.dumps(source.read))
    return {found.name: found for item in source.items for found in read(item)}


def test_round_trip(tmp_path: Path) -> None:
    made = [*CLIPS, TextClip(walk(1), label=26, subject=8)]  # MATLAB drops the last dimension of one frame
    names = write_utd(tmp_path, made)
    (tmp_path / "Inertial").mkdir()
    (tmp_path / "Inertial" / "a1_s1_t1_inertial.mat").write_bytes(b"")
    plan = planned(tmp_path)
    assert (plan.layout, plan.persons, len(plan.class_names), plan.notes["unit"]) == (KINECT20, 1, 27, "m")
    found = read_all(plan)
    assert list(found) == sorted(names)
    for name, clip in zip(names, made, strict=True):
        got = found[name]
        assert isinstance(got, Clip)
        np.testing.assert_array_equal(got.frames, clip.frames)
        assert (got.label, got.subjects, got.camera) == (clip.label, (clip.subject,), -1)


def test_a_file_lists_the_head_first(tmp_path: Path) -> None:
    """The order that the dataset's site gives, beside kinect20's."""
    site = ("head", "shoulder_center", "spine", "hip_center", *KINECT20.joints[4:])
    values = np.arange(20.0)[:, None, None] * np.ones((20, 3, 2))
    (tmp_path / "a1_s1_t1_skeleton.mat").write_bytes(mat_file(mat_array("d_skel", values)))
    (clip,) = read_all(planned(tmp_path)).values()
    assert isinstance(clip, Clip)
    assert tuple(site[int(number)] for number in clip.frames[0, 0, :, 0]) == KINECT20.joints


def test_a_whole_conversion(tmp_path: Path) -> None:
    write_utd(tmp_path / "utd", CLIPS)
    assert utd_mat.recognises(tmp_path / "utd") is not None
    done = convert(tmp_path / "utd", tmp_path / "out", "utd_mat")
    data = done.dataset
    assert done.skipped == () and sorted(data.subjects[:, 0].tolist()) == [1, 2, 3, 4]
    np.testing.assert_array_equal(data.splits["xsub"] == 1, data.subjects[:, 0] % 2 == 1)
    assert any("official: 431 and 430" in line for line in done.lines())


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", ["f8", "f4", "i2", "u1"])
def test_arrays_of_any_number(tmp_path: Path, order: str, packed: bool, dtype: str) -> None:
    values = (np.arange(24).reshape(2, 3, 4) * 3).astype(dtype)
    other = mat_array("d_iner", np.zeros((3, 6)), order)
    content = mat_file(other, mat_array("d_skel", values, order), packed=packed, order=order)
    (tmp_path / "x.mat").write_bytes(content)
    np.testing.assert_array_equal(read_array(tmp_path / "x.mat", "d_skel"), values)
    assert read_array(tmp_path / "x.mat", "d_iner").shape == (3, 6)


GOOD = mat_array("d_skel", np.ones((20, 3, 2)))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "damaged or no .mat file"),
        (mat_file(GOOD)[:100], "damaged or no .mat file"),
        (mat_file(GOOD)[:150], "damaged or no .mat file"),
        (mat_file(GOOD, packed=False)[:300], "damaged or no .mat file"),
        (mat_file(mat_array("skel", np.ones((20, 3, 2)))), "no array 'd_skel' (it holds 'skel')"),
        (mat_file(), "no array 'd_skel' (it holds nothing)"),
        (mat_file(mat_array("d_skel", np.ones((20, 2, 2)))), "d_skel is 20 x 2 x 2, wanted 20 x 3 x frames"),
        (b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM", "-v7"),
        (b"no .mat file at all".ljust(512), "damaged or no .mat file"),
    ],
)
def test_planted_faults(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "a1_s1_t1_skeleton.mat"
    path.write_bytes(content)
    plan = planned(tmp_path)
    with pytest.raises(InputError, match=re.escape(words)) as caught:
        list(plan.read(plan.items[0]))
    assert str(path) in str(caught.value)


def test_without_scipy_the_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.mat").write_bytes(mat_file(GOOD))
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(InputError, match=re.escape("pip install 'skeltune[formats]'")):
        read_array(tmp_path / "x.mat", "d_skel")


def test_dimensions_that_lie(tmp_path: Path) -> None:
    for shape in ((20, 3, 2**31 - 1), (2**31 - 1,) * 3):
        parts = [mat_element(6, struct.pack("<II", 6, 0)), mat_element(5, np.array(shape, "<i4").tobytes())]
        parts += [mat_element(1, b"d_skel"), mat_element(9, np.ones(120).tobytes())]
        (tmp_path / "a1_s1_t1_skeleton.mat").write_bytes(mat_file(mat_element(14, b"".join(parts))))
        plan = planned(tmp_path)
        with pytest.raises(InputError):
            list(plan.read(plan.items[0]))


def test_strange_names_and_sources(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file like a1_s1_t1_skeleton"):
        planned(tmp_path)
    assert utd_mat.recognises(tmp_path) is None and utd_mat.recognises(tmp_path / "none") is None
    (tmp_path / "A28_S1_T1_SKELETON.MAT").write_bytes(mat_file(GOOD))
    (clip,) = read_all(planned(tmp_path)).values()
    assert isinstance(clip, Clip) and (clip.name, clip.label) == ("a28_s1_t1", 27)  # refused by the engine


@settings(max_examples=120, deadline=None)
@given(st.data(), st.booleans())
def test_damage_is_refused_in_words(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, packed: bool
) -> None:
    path = tmp_path_factory.mktemp("utd") / "a1_s1_t1_skeleton.mat"
    content = bytearray(mat_file(GOOD, packed=packed))
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(data.draw(damaged(bytes(content))))
    found: dict[str, Clip | Skipped] = {}
    with contextlib.suppress(InputError):
        found = read_all(planned(path.parent))
    assert all(isinstance(clip, Clip) and clip.frames.shape[1:] == (1, 20, 3) for clip in found.values())


@pytest.mark.shared
def test_the_real_sequences_come_back(tmp_path: Path) -> None:
    if not (DATA / "utd_mhad.npz").exists():
        pytest.skip(f"no real skeletons at {DATA} (set SKELTUNE_DATA)")
    with np.load(DATA / "utd_mhad.npz", allow_pickle=False) as real:
        arrays = {key: real[key] for key in real.files}
    assert tuple(arrays["class_names"]) == utd_mat.CLASS_NAMES
    assert tuple(arrays["joint_names"][list(utd_mat.ORDER)]) == KINECT20.joints
    for index in range(len(arrays["labels"])):
        start = int(arrays["offsets"][index])
        frames = arrays["sequences"][start : start + int(arrays["lengths"][index]), 0]
        values = frames.transpose(1, 2, 0).astype(np.float64)
        (tmp_path / f"{arrays['names'][index]}_skeleton.mat").write_bytes(mat_file(mat_array("d_skel", values)))
    done = convert(tmp_path, tmp_path / "out", "utd_mat")
    data = done.dataset
    assert len(data) == 861 and done.skipped == ()
    where = {name: index for index, name in enumerate(arrays["names"].tolist())}
    for index, name in enumerate(data.names.tolist()):
        at = where[name]
        start = int(arrays["offsets"][at])
        real_clip = arrays["sequences"][start : start + int(arrays["lengths"][at])]
        np.testing.assert_array_equal(data.clip(index), real_clip[:, :, list(utd_mat.ORDER)])
        assert (data.labels[index], data.subjects[index, 0]) == (arrays["labels"][at], arrays["subjects"][at])
        assert (data.splits["xsub"][index] == 1) == arrays["xsub_train"][at]
    thigh = data.frames[:, 0, KINECT20.joints.index("left_hip")] - data.frames[:, 0, KINECT20.joints.index("left_knee")]
    assert 0.3 < float(np.median(np.linalg.norm(thigh, axis=1))) < 0.6  # metres
