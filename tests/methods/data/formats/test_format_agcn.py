from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from writers_arrays import (
    DAMAGE,
    check_equal,
    damaged,
    ntu_clip,
    ntu_clips,
    read_all,
    walk,
    write_agcn,
    write_crossclr,
    write_ctrgcn_npz,
    write_pyskl_pkl,
)

from methods.data.conversion import convert
from methods.data.formats import agcn
from methods.data.reading import ntu_facts
from methods.data.reading.arrays import WRONG_COUNT
from methods.data.reading.sources import Clip, ReadOptions, Skipped, Source
from methods.errors import InputError

CLIPS = ntu_clips(12)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


def plan(source: Path, scratch: Path, names: Path | None = None) -> Source:
    return agcn.plan(source, ReadOptions(names=names), scratch)


def test_clips_end_where_their_count_of_frames_says(tmp_path: Path, scratch: Path) -> None:
    source = plan(write_agcn(tmp_path / "xsub", CLIPS, frames=20), scratch)
    found = read_all(source)
    for clip in CLIPS:
        check_equal(found[clip.name], clip)
        assert found[clip.name].sides == {"xsub": clip.sides["xsub"]}  # type: ignore[union-attr]
        assert found[clip.name].mended == ""  # type: ignore[union-attr]
    assert source.class_names == ntu_facts.CLASS_NAMES[:60] and source.persons == 2
    assert not any("num_frame" in remark for remark in source.remarks)


def test_without_counts_the_zeros_say_it(tmp_path: Path, scratch: Path) -> None:
    source = plan(write_agcn(tmp_path / "xsub", CLIPS, frames=20, num_frame=False, loop=False), scratch)
    found = read_all(source)
    for clip in CLIPS:
        check_equal(found[clip.name], clip)
    assert any("no *_num_frame.npy" in remark for remark in source.remarks)
    looped = read_all(plan(write_agcn(tmp_path / "loop" / "xsub", CLIPS, frames=20, num_frame=False), scratch))
    assert {len(one.frames) for one in looped.values()} == {20}  # type: ignore[union-attr]


@pytest.mark.parametrize("count", [0, -3, 21, 10**12, 2.5, float("nan")])
def test_a_count_outside_the_array_is_mended_and_counted(tmp_path: Path, scratch: Path, count: float) -> None:
    clips = [ntu_clip(walk(7), 0), ntu_clip(walk(5), 1), ntu_clip(walk(4), 2, subject=3)]
    folder = write_agcn(tmp_path / "xsub", clips, frames=20, loop=False)
    np.save(folder / "train_num_frame.npy", np.array([count, 5]))
    found = read_all(plan(folder, scratch))
    check_equal(found[clips[0].name], clips[0])
    assert [found[clip.name].mended for clip in clips] == [WRONG_COUNT, "", ""]  # type: ignore[union-attr]
    assert convert(folder, tmp_path / "out").mended == {WRONG_COUNT: 1}


def test_pku_mmd_counts_of_clips_that_were_cut(tmp_path: Path, scratch: Path) -> None:
    clips = [
        Clip(walk(9), 41, "A01N01-L.txt_0", sides={"xsub": 1}),
        Clip(walk(4), 3, "A01N02-M.txt_0", sides={"xsub": 2}),
    ]
    folder = write_agcn(tmp_path / "xsub", clips, frames=9, ending="")
    np.save(folder / "train_num_frame.npy", np.array([412]))
    found = read_all(plan(folder, scratch))
    assert len(found["A01N01-L.txt_0"].frames) == 9  # type: ignore[union-attr]
    assert found["A01N02-M.txt_0"].camera == 2 and found["A01N02-M.txt_0"].subjects == (2,)  # type: ignore[union-attr]


def test_several_benches(tmp_path: Path) -> None:
    for split, folder in (("xsub", "xsub"), ("xview", "xview")):
        write_agcn(tmp_path / "NTU-RGB-D-60-AGCN" / folder, CLIPS, split, frames=12, protocol=2)
    data = convert(tmp_path / "NTU-RGB-D-60-AGCN", tmp_path / "out").dataset
    at = {name: index for index, name in enumerate(data.names.tolist())}
    for clip in CLIPS:
        np.testing.assert_array_equal(data.clip(at[clip.name]), clip.frames)
        assert {name: int(table[at[clip.name]]) for name, table in data.splits.items()} == clip.sides
    assert data.source["converter"] == "agcn"


def test_recognises(tmp_path: Path) -> None:
    folder = write_agcn(tmp_path / "all" / "xview", CLIPS, "xview", frames=9)
    assert agcn.recognises(folder) == "a folder with train_data_joint.npy"
    assert agcn.recognises(tmp_path / "all") == "a folder with xview/train_data_joint.npy"
    write_ctrgcn_npz(tmp_path / "NTU60_CS.npz", CLIPS, frames=9)
    strangers = [
        write_crossclr(tmp_path / "position", CLIPS, frames=6),
        write_crossclr(tmp_path / "data", CLIPS, form="data", frames=9),
        write_crossclr(write_agcn(tmp_path / "both", CLIPS, frames=9), CLIPS, form="data", frames=9),
        write_pyskl_pkl(tmp_path / "ntu.pkl", CLIPS),
        tmp_path / "NTU60_CS.npz",
        tmp_path / "nothing",
    ]
    assert [agcn.recognises(stranger) for stranger in strangers] == [None] * 6


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        (np.array([3]), "train_num_frame.npy: holds int64 (1,), wanted a count of frames for 9 clips"),
        (np.zeros((3, 3, 1)), "(3, 3, 1), wanted a count"),
        (np.array(["3"] * 9), "holds <U1 (9,)"),
        (np.array([3] * 9, object), "train_num_frame.npy: truncated or no plain .npy file (holds pickled objects"),
        (None, "train_num_frame.npy: no such file, though the other side"),
    ],
)
def test_faulty_counts(tmp_path: Path, scratch: Path, counts: np.ndarray | None, words: str) -> None:
    folder = write_agcn(tmp_path / "xsub", CLIPS, frames=9)
    if counts is None:
        (folder / "train_num_frame.npy").unlink()
    else:
        np.save(folder / "train_num_frame.npy", counts)
    with pytest.raises(InputError) as caught:
        plan(folder, scratch)
    assert words in str(caught.value) and len(caught.value.faults) == 1


def test_items_change_with_the_counts(tmp_path: Path, scratch: Path) -> None:
    folder = write_agcn(tmp_path / "xsub", CLIPS, frames=9)
    before = plan(folder, scratch).items
    counts = np.load(folder / "val_num_frame.npy")
    counts[0] = 1
    np.save(folder / "val_num_frame.npy", counts)
    assert all(one.stamp != other.stamp for one, other in zip(before, plan(folder, scratch).items, strict=True))


def test_names_with_spaces_and_folders(tmp_path: Path, scratch: Path) -> None:
    clips = [replace(clip, name=f"data/{clip.name}") for clip in CLIPS]
    assert set(read_all(plan(write_agcn(tmp_path / "xsub", clips, frames=9), scratch))) == {clip.name for clip in CLIPS}


SMALL = ntu_clips(4)


@settings(max_examples=60, deadline=None)
@given(
    file=st.sampled_from(["train_data_joint.npy", "val_label.pkl", "train_num_frame.npy"]),
    damage=st.lists(DAMAGE, min_size=1, max_size=3),
)
def test_chance_damage_gives_clips_or_faults(
    tmp_path_factory: pytest.TempPathFactory, file: str, damage: list[tuple[str, float, bytes]]
) -> None:
    root = tmp_path_factory.mktemp("damage")
    (root / "scratch").mkdir()
    path = write_agcn(root / "xsub", SMALL, frames=6) / file
    path.write_bytes(damaged(path.read_bytes(), damage))
    try:
        source = plan(root / "xsub", root / "scratch")
        found = [one for item in source.items for one in source.read(item)]
    except InputError:
        return
    assert all(isinstance(one, (Clip, Skipped)) for one in found)


def test_labels_may_be_the_floats_of_cmd(tmp_path: Path, scratch: Path) -> None:
    folder = write_agcn(tmp_path / "xsub", CLIPS, frames=9)
    names, labels = pickle.loads((folder / "train_label.pkl").read_bytes())
    (folder / "train_label.pkl").write_bytes(pickle.dumps((names, [np.float64(label) for label in labels])))
    found = read_all(plan(folder, scratch))
    assert {clip.name: clip.label for clip in CLIPS} == {name: one.label for name, one in found.items()}  # type: ignore[union-attr]
