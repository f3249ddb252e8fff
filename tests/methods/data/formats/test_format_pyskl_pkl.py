from __future__ import annotations

import pickle
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

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
from methods.data.formats import pyskl_pkl
from methods.data.formats.pyskl_pkl import CROWD, OTHER_COUNT
from methods.data.reading import ntu_facts
from methods.data.reading.sources import Clip, ReadOptions, Skipped, Source
from methods.errors import InputError

CLIPS = ntu_clips(12)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


def plan(source: Path, scratch: Path) -> Source:
    return pyskl_pkl.plan(source, ReadOptions(), scratch)


def halved(frames: np.ndarray) -> np.ndarray:
    """Rounded as the file stores them."""
    return frames.astype(np.float16).astype(np.float32)


def annotation(keypoint: object, name: object = "a", label: object = 0, **more: object) -> dict[str, object]:
    return {"frame_dir": name, "label": label, "keypoint": keypoint, **more}


def save(file: Path, annotations: Sequence[object], split: object = None, protocol: int = 4) -> Path:
    file.write_bytes(pickle.dumps({"split": split or {}, "annotations": list(annotations)}, protocol))
    return file


def bodies(persons: int = 1, frames: int = 4, joints: int = 25, channels: int = 3, seed: int = 0) -> np.ndarray:
    return walk(frames, persons, joints, channels, seed).transpose(1, 0, 2, 3).astype(np.float16)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("ending", ["", ".skeleton"])
def test_3d_round_trip(tmp_path: Path, scratch: Path, protocol: int, ending: str) -> None:
    long = ntu_clip(walk(90, seed=99), 59, subject=4, camera=3)  # stays in the pickle, the others are short
    clips = [*CLIPS, long]
    file = write_pyskl_pkl(tmp_path / "ntu60_3danno.pkl", clips, ("xsub", "xview"), protocol=protocol, ending=ending)
    source = plan(file, scratch)
    found = read_all(source)
    for clip in clips:
        check_equal(found[clip.name], clip, halved(clip.frames))
        assert found[clip.name].sides == clip.sides and not found[clip.name].mended  # type: ignore[union-attr]
    assert source.class_names == ntu_facts.CLASS_NAMES[:60] and source.persons == 2 and source.channels == 3
    assert source.notes["unit"] == "m" and source.notes["stored_as"] == ["<f2"]
    assert source.published == ntu_facts.PUBLISHED["ntu60"]
    assert len(pickle.dumps(source.read)) < 1000


@pytest.mark.parametrize(("dtype", "protocol"), [(np.float32, 2), (np.float64, 4), (np.int16, 5), (">f4", 4)])
def test_other_types_of_number(tmp_path: Path, scratch: Path, dtype: Any, protocol: int) -> None:
    file = write_pyskl_pkl(tmp_path / "a.pkl", CLIPS, dtype=dtype, protocol=protocol)
    found = read_all(plan(file, scratch))
    for clip in CLIPS:
        check_equal(found[clip.name], clip, clip.frames.astype(dtype).astype(np.float32))


def test_2d_keypoints(tmp_path: Path) -> None:
    clips = [
        Clip(walk(5 + index, 2, 17, 2, seed=index) * 100, index, f"v_{index}", sides={"official": 1 + index % 2})
        for index in range(4)
    ]
    file = write_pyskl_pkl(tmp_path / "gym_hrnet.pkl", clips, ("official",), scores=True)
    content = pickle.loads(file.read_bytes())
    content["split"] = {"train": content["split"]["official_train"], "val": content["split"]["official_val"]}
    file.write_bytes(pickle.dumps(content))
    found = convert(file, tmp_path / "out")
    data = found.dataset
    assert (data.num_channels, data.layout.name, data.layout.num_joints) == (2, "coco17", 17)
    assert data.source["unit"] == "px" and data.num_classes == 4 and data.class_names[0] == "action 1"
    for index, clip in enumerate(clips):
        np.testing.assert_array_equal(data.clip(index), halved(clip.frames))
    assert data.splits["official"].tolist() == [1, 2, 1, 2]


def test_of_a_crowd_the_two_with_most_movement_stay(tmp_path: Path) -> None:
    still = np.repeat(bodies(1, 1), 6, axis=1)
    calm, lively = bodies(1, 6, seed=1), still + np.linspace(0, 3, 6, dtype=np.float16)[None, :, None, None]
    crowd = np.concatenate([still, lively, np.zeros_like(still), calm])
    ghost = np.concatenate([still, np.zeros_like(still), calm])
    short = lively.copy()
    short[:, :3] = 0
    file = save(
        tmp_path / "a.pkl",
        [
            annotation(crowd, "crowd"),
            annotation(ghost, "ghost"),
            annotation(np.concatenate([still, calm, short]), "late"),
        ],
    )
    found = convert(file, tmp_path / "out")
    want = [(lively, calm), (still, calm), (calm, short)]
    for index, pair in enumerate(want):
        frames = np.concatenate(pair).astype(np.float32).transpose(1, 0, 2, 3)
        np.testing.assert_array_equal(found.dataset.clip(index), frames)
    assert found.mended == {CROWD: 2}


def test_one_person_alone_needs_no_room_for_two(tmp_path: Path, scratch: Path) -> None:
    source = plan(save(tmp_path / "a.pkl", [annotation(bodies(), "a"), annotation(bodies(), "b")]), scratch)
    assert source.persons == 1


def test_annotations_that_cannot_be_used_are_listed(tmp_path: Path) -> None:
    good, odd = bodies(), bodies(1, 4, 17)
    entries: list[tuple[object, str, str]] = [
        (annotation(good, "good"), "", ""),
        (annotation(good, "again"), "", ""),
        ("text", "no annotation", "annotation 2: a str"),
        ({"label": 0, "keypoint": good}, "no frame_dir", "annotation 3"),
        (annotation(good, 7), "no frame_dir", "annotation 4"),
        (annotation(good, "l1", "5"), "no label", "annotation 5: its label is no whole number from 0"),
        (annotation(good, "l2", -1), "no label", "annotation 6: its label is no whole number from 0"),
        (annotation(good, "l3", True), "no label", "annotation 7: its label is no whole number from 0"),
        (annotation(good, "l4", 10**9), "no label", "annotation 8: its label is no whole number from 0"),
        ({"frame_dir": "k1", "label": 0}, "no keypoint array", "annotation 9"),
        (annotation([[0.0]], "k2"), "no keypoint array", "annotation 10"),
        (
            annotation(good[0], "k3"),
            "keypoints of another shape",
            "annotation 11: float16 (4, 25, 3), wanted (persons,",
        ),
        (annotation(good[..., :1], "k4"), "keypoints of another shape", "annotation 12: float16 (1, 4, 25, 1), wanted"),
        (annotation(good[:, :0], "k5"), "keypoints of another shape", "annotation 13: float16 (1, 0, 25, 3), wanted"),
        (annotation(np.zeros((1, 4, 25, 3), "U1"), "k6"), "keypoints of another shape", "annotation 14: <U1"),
        (
            annotation(odd, "k7"),
            "keypoints of another shape",
            "(1, 4, 17, 3), most have (25, 3) joints and coordinates",
        ),
    ]
    found = convert(save(tmp_path / "a.pkl", [entry for entry, *_ in entries]), tmp_path / "out")
    assert found.dataset.names.tolist() == ["good", "again"]
    wanted = [(reason, detail) for _, reason, detail in entries if reason]
    assert [skip.reason for skip in found.skipped] == [reason for reason, _ in wanted]
    for skip, (_, detail) in zip(found.skipped, wanted, strict=True):
        assert detail in skip.detail


@pytest.mark.parametrize("total", [3, 0, None, "4", 10**30])
def test_a_wrong_total_of_frames_is_counted(tmp_path: Path, total: object) -> None:
    file = save(
        tmp_path / "a.pkl", [annotation(bodies(), "a", total_frames=total), annotation(bodies(), "b", total_frames=4)]
    )
    assert convert(file, tmp_path / "out").mended == {OTHER_COUNT: 1}


def test_splits_of_every_kind(tmp_path: Path, scratch: Path) -> None:
    names = [f"v{index}" for index in range(6)]
    split = {
        "train1": ["v0.avi", "v1"],
        "test1": ("v2", "v3", "nobody"),
        "sub_train": np.array(["v0"]),
        "sub_val": {"v1"},
        "sub_test": ["v2"],
        "CS_train": ["v5"],
        "all": ["v0"],
        7: ["v0"],
    }
    file = save(tmp_path / "a.pkl", [annotation(bodies(), name) for name in names], split)
    source = plan(file, scratch)
    found = [one.sides for one in read_all(source).values()]  # type: ignore[union-attr]
    assert [sides["split1"] for sides in found] == [1, 1, 2, 2, 0, 0]
    assert [sides["sub"] for sides in found] == [1, 0, 2, 0, 0, 0]
    assert [sides["xsub"] for sides in found] == [0, 0, 0, 0, 0, 1]
    assert len(found[0]) == 3
    told = "\n".join(source.remarks)
    assert "split split1: 1 of its ids have no annotation" in told
    assert "split sub: its test clips test, its 1 val clips are in no side" in told
    assert "'all' in split names no side" in told and "'7' in split names no side" in told


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ({"train": ["a"], "val": ["b", "a.avi"]}, "split official: 1 clips train and test, e.g. a"),
        ({"train": 5}, "split 'train': wanted a list of ids, got a int"),
        ({"train": ["a", 5]}, "split 'train': wanted a list of ids, got a list"),
        ({"train": "a"}, "split 'train': wanted a list of ids, got a str"),
        (["a"], "'split' is a list, wanted a dict"),
    ],
)
def test_faulty_splits(tmp_path: Path, scratch: Path, split: object, words: str) -> None:
    file = save(tmp_path / "a.pkl", [annotation(bodies(), "a"), annotation(bodies(), "b")], split)
    with pytest.raises(InputError) as caught:
        plan(file, scratch)
    assert words in str(caught.value) and str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (5, "wanted a dict with 'split' and a list 'annotations', holds a int"),
        ({"split": {}}, "wanted a dict with 'split' and a list 'annotations', holds a dict"),
        ({"annotations": {"a": 1}}, "wanted a dict with"),
        ({"annotations": []}, "no annotation can be used (it holds none)"),
        ({"annotations": [1, {}]}, "no annotation can be used (1 x no annotation, 1 x no frame_dir)"),
        ({"annotations": [annotation(bodies(1, 2, 23))]}, "no known layout has 23 joints"),
    ],
)
def test_pickles_of_something_else(tmp_path: Path, scratch: Path, content: object, words: str) -> None:
    file = tmp_path / "a.pkl"
    file.write_bytes(pickle.dumps(content))
    with pytest.raises(InputError) as caught:
        plan(file, scratch)
    assert words in str(caught.value) and str(file) in str(caught.value)


def test_a_pickle_that_would_run_something(tmp_path: Path, scratch: Path) -> None:
    file = tmp_path / "a.pkl"
    file.write_bytes(
        b"\x80\x02}(X\x05\x00\x00\x00split}X\x0b\x00\x00\x00annotationscos\nsystem\nX\x04\x00\x00\x00true\x85Ru."
    )
    assert pyskl_pkl.recognises(file)
    with pytest.raises(InputError, match=r"refuses os\.system"):
        plan(file, scratch)


def test_a_list_of_annotations_alone(tmp_path: Path) -> None:
    file = tmp_path / "a.pkl"
    file.write_bytes(pickle.dumps([annotation(bodies(), name) for name in ("a", "b")]))
    assert pyskl_pkl.recognises(file) == "a pickle of annotations with 'keypoint'"
    assert convert(file, tmp_path / "out").dataset.splits == {}


def test_official_rules_beside_the_own_splits(tmp_path: Path) -> None:
    file = write_pyskl_pkl(tmp_path / "ntu.pkl", CLIPS)
    data = convert(file, tmp_path / "out", workers=2).dataset
    assert set(data.splits) == {"xsub", "xview"}
    for index, clip in enumerate(CLIPS):
        assert {name: int(table[index]) for name, table in data.splits.items()} == clip.sides


def test_memory_does_not_grow_with_the_keypoints(tmp_path: Path, scratch: Path) -> None:
    entries = [annotation(bodies(2, 200, seed=index), f"clip {index}") for index in range(100)]
    for protocol in (2, 4):
        file = save(tmp_path / "a.pkl", entries, protocol=protocol)
        tracemalloc.start()
        source = plan(file, scratch)
        assert tracemalloc.get_traced_memory()[1] < file.stat().st_size / 4
        tracemalloc.stop()
        first = next(iter(source.read(source.items[0])))
        np.testing.assert_array_equal(first.frames, bodies(2, 200, seed=0).astype(np.float32).transpose(1, 0, 2, 3))  # type: ignore[union-attr]


def test_a_pickle_that_changed_since_the_plan(tmp_path: Path, scratch: Path) -> None:
    file = save(tmp_path / "a.pkl", [annotation(bodies(2, 50), "a")])
    source = plan(file, scratch)
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(InputError, match=r"a\.pkl: byte"):
        list(source.read(source.items[0]))


def test_recognises(tmp_path: Path) -> None:
    for protocol in range(6):
        file = write_pyskl_pkl(tmp_path / f"ntu{protocol}.pkl", CLIPS, protocol=protocol)
        assert pyskl_pkl.recognises(file) == "a pickle that begins with 'split'"
    other = tmp_path / "other.pickle"
    other.write_bytes(pickle.dumps({"annotations": [annotation(bodies())], "split": {}}))
    assert pyskl_pkl.recognises(other) == "a pickle that begins with 'annotations'"
    write_ctrgcn_npz(tmp_path / "NTU60_CS.npz", CLIPS, frames=9)
    (tmp_path / "text.pkl").write_text("text")
    (tmp_path / "empty.pkl").write_bytes(b"")
    strangers = [
        write_crossclr(tmp_path / "position", CLIPS, frames=6) / "train_label.pkl",
        write_agcn(tmp_path / "agcn", CLIPS, frames=9),
        *(tmp_path / name for name in ("NTU60_CS.npz", "text.pkl", "empty.pkl", "nothing.pkl")),
    ]
    assert [pyskl_pkl.recognises(stranger) for stranger in strangers] == [None] * 6


def test_names_with_folders_and_endings(tmp_path: Path, scratch: Path) -> None:
    clips = [replace(clip, name=f"ntu/{clip.name}") for clip in CLIPS]
    found = read_all(plan(write_pyskl_pkl(tmp_path / "a.pkl", clips, ending=".avi"), scratch))
    assert [found[clip.name].subjects for clip in clips] == [clip.subjects for clip in CLIPS]  # type: ignore[union-attr]
    assert [found[clip.name].sides["xsub"] for clip in clips] == [clip.sides["xsub"] for clip in CLIPS]  # type: ignore[union-attr]


SMALL = ntu_clips(4)


@settings(max_examples=100, deadline=None)
@given(protocol=st.sampled_from([0, 2, 4, 5]), damage=st.lists(DAMAGE, min_size=1, max_size=3))
def test_chance_damage_gives_clips_or_faults(
    tmp_path_factory: pytest.TempPathFactory, protocol: int, damage: list[tuple[str, float, bytes]]
) -> None:
    root = tmp_path_factory.mktemp("damage")
    (root / "scratch").mkdir()
    file = write_pyskl_pkl(root / "a.pkl", SMALL, protocol=protocol)
    file.write_bytes(damaged(file.read_bytes(), damage))
    pyskl_pkl.recognises(file)
    try:
        source = plan(file, root / "scratch")
        found = [one for item in source.items for one in source.read(item)]
    except InputError:
        return
    assert all(isinstance(one, (Clip, Skipped)) for one in found)
