from __future__ import annotations

import os
import tracemalloc
import zipfile
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
    write_mamp_npz,
    write_pyskl_pkl,
)

from methods.data.conversion import convert
from methods.data.formats import ctrgcn_npz, mamp_npz
from methods.data.npyfiles import map_member
from methods.data.reading import ntu_facts
from methods.data.reading.arrays import DOUBLED
from methods.data.reading.sources import Clip, ReadOptions, Skipped, Source
from methods.data.skeletons import TEST, TRAIN
from methods.errors import InputError

CLIPS = ntu_clips(14)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


def plan(source: Path, scratch: Path, names: Path | None = None) -> Source:
    return ctrgcn_npz.plan(source, ReadOptions(names=names), scratch)


def faults(source: Path, scratch: Path, names: Path | None = None) -> tuple[str, ...]:
    with pytest.raises(InputError) as caught:
        plan(source, scratch, names)
    return caught.value.faults


def listing(path: Path, names: list[str]) -> Path:
    path.write_text("\n".join(names) + "\n")
    return path


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("one_hot", [False, True])
def test_clips_come_in_the_archives_order_with_its_sides(
    tmp_path: Path, scratch: Path, compressed: bool, one_hot: bool
) -> None:
    file = tmp_path / "NTU60_CS.npz"
    order = write_ctrgcn_npz(file, CLIPS, frames=12, compressed=compressed, one_hot=one_hot)
    source = plan(file, scratch)
    found = list(read_all(source).values())
    for one, clip in zip(found, order, strict=True):
        check_equal(one, replace(clip, subjects=(-1,), camera=-1, setup=-1))
        assert isinstance(one, Clip) and one.sides == {"xsub": clip.sides["xsub"]} and not one.mended
    trains = sum(clip.sides["xsub"] == TRAIN for clip in CLIPS)
    assert [found[0].name, found[trains].name] == ["train-000001", "test-000001"]
    assert source.class_names == ntu_facts.CLASS_NAMES[:60]
    assert source.published == {"xsub": ntu_facts.PUBLISHED["ntu60"]["xsub"]}
    assert source.layout.name == "ntu25" and source.persons == 2
    assert any("skes_available_name.txt" in remark for remark in source.remarks)
    assert {path.name[:7] for path in scratch.glob("*.npy") if not path.name.startswith("rows")} == (
        {"x_train", "y_train", "x_test-", "y_test-"} if compressed else set()
    )


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *[("NTU60_CS", "xsub"), ("ntu60_cv", "xview"), ("NTU60_XView", "xview"), ("NTU120_CSub", "xsub")],
        *[("NTU120_CSet", "xset"), ("x-set", "xset"), ("data", "official"), ("NTU60_CS_aligned", "xsub")],
    ],
)
def test_the_split_is_in_the_files_name(tmp_path: Path, scratch: Path, name: str, split: str) -> None:
    file = tmp_path / f"{name}.npz"
    write_ctrgcn_npz(file, CLIPS, frames=12)
    source = plan(file, scratch)
    assert set(read_all(source)["train-000001"].sides) == {split}  # type: ignore[union-attr]
    assert any("tells no protocol" in remark for remark in source.remarks) == (split == "official")


def test_a_copied_second_person_is_zeroed_and_counted(tmp_path: Path) -> None:
    still = ntu_clip(np.repeat(walk(1), 5, axis=0), 3, subject=4)
    still.frames[2] = 0
    clips = [*CLIPS, still]
    order = write_ctrgcn_npz(tmp_path / "NTU120_CSub.npz", clips, classes=120, frames=12, duplicate_second=True)
    found = convert(tmp_path / "NTU120_CSub.npz", tmp_path / "out")
    for index, clip in enumerate(order):
        np.testing.assert_array_equal(found.dataset.clip(index), clip.frames)
    assert found.mended == {DOUBLED: sum(not clip.frames[:, 1].any() for clip in clips)}
    assert found.dataset.num_classes == 120


@pytest.mark.parametrize(
    ("split", "setup", "classes"), [("xsub", 1, 60), ("xview", 1, 60), ("xsub", 18, 120), ("xset", 18, 120)]
)
@pytest.mark.parametrize("known", [True, False])
def test_names_are_found_again_from_the_whole_list(
    tmp_path: Path, scratch: Path, split: str, setup: int, classes: int, known: bool
) -> None:
    clips = ntu_clips(20, setup=setup, classes=classes, seed=3)
    file = tmp_path / (f"NTU_{split}.npz" if known else "data.npz")
    order = write_ctrgcn_npz(file, clips, split, classes=classes, frames=12)
    if split != "xset":  # the list goes by setups itself
        assert order != sorted(clips, key=lambda clip: clip.sides[split])
    names = listing(tmp_path / "skes_available_name.txt", [clip.name for clip in clips])
    source = plan(file, scratch, names)
    found = read_all(source)
    for clip in clips:
        check_equal(found[clip.name], clip)
        assert found[clip.name].sides == {split: clip.sides[split]}  # type: ignore[union-attr]
    assert any("fit every clip" in remark and f"split {split}" in remark for remark in source.remarks)
    data = convert(file, tmp_path / "out", options=ReadOptions(names=names)).dataset
    assert {name: int(table[0]) for name, table in data.splits.items()} == order[0].sides


def test_names_in_the_archives_own_order(tmp_path: Path, scratch: Path) -> None:
    file = tmp_path / "NTU60_CS.npz"
    order = write_ctrgcn_npz(file, CLIPS, frames=12, grouped=False)
    found = read_all(plan(file, scratch, listing(tmp_path / "names.txt", [clip.name for clip in order])))
    for clip in CLIPS:
        check_equal(found[clip.name], clip)


def test_the_list_of_both_parts_of_ntu(tmp_path: Path, scratch: Path) -> None:
    file = tmp_path / "NTU60_CV.npz"
    write_ctrgcn_npz(file, CLIPS, "xview", frames=12)
    more = ntu_clips(5, setup=18, classes=120)
    names = listing(tmp_path / "names.txt", [clip.name for clip in [*CLIPS, *more]])
    assert set(read_all(plan(file, scratch, names))) == {clip.name for clip in CLIPS}
    listing(names, [clip.name for clip in more])
    assert "no name of NTU-60" in faults(file, scratch, names)[0]


def test_equal_labels_in_another_order_are_found_out_by_the_sides(tmp_path: Path, scratch: Path) -> None:
    # NTU's list runs through the classes over and over, so the labels alone fit many orders.
    clips = [
        ntu_clip(walk(4, seed=s * 5 + a), a, subject=s, camera=c) for c in (1, 2) for s in (1, 3, 2) for a in range(5)
    ]
    clips.sort(key=lambda clip: clip.name)
    file = tmp_path / "NTU60_CS.npz"
    order = write_ctrgcn_npz(file, clips, frames=12)
    found = plan(file, scratch, listing(tmp_path / "names.txt", [clip.name for clip in clips]))
    for name, clip in read_all(found).items():
        check_equal(clip, next(one for one in order if one.name == name))


def test_names_that_do_not_fit_say_at_which_clip(tmp_path: Path, scratch: Path) -> None:
    file = tmp_path / "NTU60_CS.npz"
    order = write_ctrgcn_npz(file, CLIPS, frames=12)
    names = listing(tmp_path / "names.txt", [clip.name for clip in CLIPS[:-1]])
    assert all("names, but 11 + 3 clips" in fault for fault in faults(file, scratch, names))
    other = order[5]
    wrong = other.name[:-3] + f"{(other.label + 1) % 60 + 1:03d}"
    listing(names, [wrong if clip is other else clip.name for clip in order])
    told = faults(file, scratch, names)
    assert f"{names}: clip 5 of x_train has label {other.label}, its name '{wrong}' says" in told[0]
    strange = listing(tmp_path / "mine.txt", [f"clip {index}" for index in range(len(CLIPS))])
    source = plan(file, scratch, strange)
    assert list(read_all(source))[:2] == ["clip 0", "clip 1"]
    assert any("0 of 14 could be checked" in remark for remark in source.remarks)
    listing(strange, ["a", "b"])
    assert "2 names, but 11 + 3 clips" in faults(file, scratch, strange)[0]
    listing(names, [clip.name for clip in CLIPS])
    os.rename(file, tmp_path / "NTU120_CSet.npz")
    assert "which has no split xset" in faults(tmp_path / "NTU120_CSet.npz", scratch, names)[0]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00\x01", b"a\nb\x00c\n", None])
def test_faulty_lists(tmp_path: Path, scratch: Path, content: bytes | None) -> None:
    file = tmp_path / "NTU60_CS.npz"
    write_ctrgcn_npz(file, CLIPS, frames=12)
    names = tmp_path / "names.txt"
    if content is not None:
        names.write_bytes(content)
    assert str(names) in faults(file, scratch, names)[0]


def test_rows_that_name_no_class_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "NTU60_CS.npz"
    order = write_ctrgcn_npz(file, CLIPS, frames=12)
    arrays = dict(np.load(file))
    arrays["y_train"][0] = 0
    arrays["y_train"][1, :2] = 1
    arrays["y_test"][0] *= 0.5
    arrays["y_test"][1, 5] = np.nan
    np.savez(file, **arrays)
    found = convert(file, tmp_path / "out")
    assert len(found.dataset) == len(CLIPS) - 4
    assert {skip.reason for skip in found.skipped} == {"no label"}
    assert found.skipped[0].detail == f"{file}: clip 0 of x_train: its row names not exactly one class"
    names = listing(tmp_path / "names.txt", [clip.name for clip in CLIPS])
    named = convert(file, tmp_path / "named", options=ReadOptions(names=names))
    assert [skip.name for skip in named.skipped][:2] == [order[0].name, order[1].name]


def test_recognises_by_the_table_of_contents_alone(tmp_path: Path) -> None:
    file = tmp_path / "any.npz"
    write_ctrgcn_npz(file, CLIPS, frames=12)
    assert ctrgcn_npz.recognises(file) == "an .npz with x_train (11, 12, 150), y_train (11, 60)"
    pku = [replace(clip, label=clip.label % 51) for clip in CLIPS]
    write_mamp_npz(tmp_path / "any51.npz", pku, frames=12)
    write_ctrgcn_npz(tmp_path / "PKUv1.npz", pku, frames=12, one_hot=False)
    np.savez(tmp_path / "other.npz", x_train=np.zeros(3), x_test=np.zeros(3))
    np.savez(tmp_path / "flat.npz", **{f"{a}_{b}": np.zeros((3, 4)) for a in "xy" for b in ("train", "test")})
    (tmp_path / "cut.npz").write_bytes(file.read_bytes()[:3000])
    (tmp_path / "text.npz").write_text("text")
    strangers = [
        *(tmp_path / f"{name}.npz" for name in ("any51", "PKUv1", "other", "flat", "cut", "text", "nothing")),
        write_crossclr(tmp_path / "position", CLIPS, frames=6),
        write_agcn(tmp_path / "agcn", CLIPS, frames=9),
        write_pyskl_pkl(tmp_path / "ntu.pkl", CLIPS),
    ]
    assert [ctrgcn_npz.recognises(stranger) for stranger in strangers] == [None] * 10
    assert mamp_npz.recognises(file) is None
    big = tmp_path / "big.npz"
    arrays = {"x_train": np.zeros((200, 300, 150), np.float32), "x_test": np.zeros((2, 300, 150), np.float32)}
    np.savez_compressed(big, y_train=np.eye(60)[:2].repeat(100, axis=0), y_test=np.eye(60)[:2], **arrays)
    tracemalloc.start()
    assert ctrgcn_npz.recognises(big)
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("compressed", [False, True])
def test_the_archive_is_not_read_into_memory(tmp_path: Path, scratch: Path, compressed: bool) -> None:
    file = tmp_path / "NTU60_CS.npz"
    x = np.zeros((150, 300, 150), np.float32)
    x += np.arange(1, 151, dtype=np.float32)  # along the joints: no person is a copy of the other
    y = np.eye(60)[np.arange(150) % 60]
    (np.savez_compressed if compressed else np.savez)(file, x_train=x, y_train=y, x_test=x[:5], y_test=y[:5])
    tracemalloc.start()
    source = plan(file, scratch)
    first = next(iter(source.read(source.items[0])))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < x.nbytes / 4
    np.testing.assert_array_equal(first.frames.reshape(300, 150), x[0])  # type: ignore[union-attr]


def test_a_killed_unpacking_is_not_taken_for_a_whole_one(tmp_path: Path, scratch: Path) -> None:
    file = tmp_path / "NTU60_CS.npz"
    write_ctrgcn_npz(file, CLIPS, frames=12, compressed=True)
    array = map_member(file, "x_train", scratch)
    (unpacked,) = scratch.iterdir()
    before = unpacked.stat().st_mtime_ns
    map_member(file, "x_train", scratch)
    assert unpacked.stat().st_mtime_ns == before
    whole = np.array(array)
    unpacked.write_bytes(unpacked.read_bytes()[:-50])
    (scratch / "left.part").write_bytes(b"x")
    np.testing.assert_array_equal(map_member(file, "x_train", scratch), whole)
    write_ctrgcn_npz(file, CLIPS[::-1], frames=12, compressed=True)
    assert not np.array_equal(map_member(file, "x_train", scratch), whole)


def test_a_disk_that_is_full(tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "NTU60_CS.npz"
    write_ctrgcn_npz(file, CLIPS, frames=12, compressed=True)
    usage = type("Usage", (), {"free": 10})()
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    assert "unpacked it takes 0.0 GB" in faults(file, scratch)[0]
    assert not list(scratch.iterdir())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y_test": None, "x_train": None}, ["array 'x_train' is missing", "array 'y_test' is missing"]),
        ({"x_train": np.zeros((11, 5))}, ["array 'x_train': holds float64 (11, 5), wanted numbers"]),
        ({"x_train": np.zeros((11, 0, 150))}, ["array 'x_train': holds float64 (11, 0, 150), wanted numbers"]),
        ({"x_train": np.zeros((4, 5, 150))}, ["4 clips in x_train, but 11 labels in y_train"]),
        (
            {"x_train": np.zeros((0, 5, 150)), "x_test": np.zeros((0, 5, 150))}
            | dict.fromkeys(("y_train", "y_test"), np.zeros((0, 60))),
            ["holds no clip"],
        ),
        ({"x_train": np.zeros((11, 5, 75))}, ["x_train has 75 numbers a frame, x_test 150"]),
        ({"y_train": np.zeros((11, 3, 2))}, ["array 'y_train': wanted one whole number a clip"]),
        ({"y_train": np.full(11, -1)}, ["array 'y_train': number 0 is -1"]),
        ({"y_train": np.zeros((11, 61))}, ["y_train has 61 classes, y_test 60"]),
        ({"y_train": np.array(["a"] * 11)}, ["array 'y_train': wanted one whole number a clip"]),
        ({"y_train": np.array([["a", "b"]] * 11)}, ["array 'y_train': holds <U1 (11, 2)"]),
        ({"y_train": np.array([0] * 11, object)}, ["array 'y_train': truncated or no plain array (holds pickled"]),
        (
            {"x_train": np.zeros((11, 5, 33)), "x_test": np.zeros((3, 5, 33))},
            ["33 numbers a frame, known are 150 (2 x"],
        ),
    ],
)
def test_faulty_archives(tmp_path: Path, scratch: Path, change: dict[str, np.ndarray | None], words: list[str]) -> None:
    file = tmp_path / "NTU60_CS.npz"
    write_ctrgcn_npz(file, CLIPS, frames=12)
    arrays = {key: value for key, value in {**np.load(file), **change}.items() if value is not None}
    np.savez(file, **arrays)
    found = faults(file, scratch)
    assert len(found) == len(words)
    for fault, word in zip(found, words, strict=True):
        assert word in fault and str(file) in fault


def test_other_bodies(tmp_path: Path, scratch: Path) -> None:
    for width, persons, layout in ((75, 1, "ntu25"), (60, 1, "kinect20"), (120, 2, "kinect20")):
        file = tmp_path / f"cs{width}.npz"
        x, y = np.ones((2, 4, width), np.float32), np.array([0, 1])
        np.savez(file, x_train=x, y_train=y, x_test=x, y_test=y)
        source = plan(file, scratch)
        assert (source.persons, source.layout.name, source.class_names) == (persons, layout, ("action 1", "action 2"))
        (first, *_) = read_all(source).values()
        assert isinstance(first, Clip) and first.frames.shape == (4, persons, width // persons // 3, 3)


def test_no_archive(tmp_path: Path, scratch: Path) -> None:
    (tmp_path / "text.npz").write_text("text")
    assert "truncated or no .npz file" in faults(tmp_path / "text.npz", scratch)[0]
    np.savez(tmp_path / "locked.npz", x_train=np.zeros(3))
    content = bytearray((tmp_path / "locked.npz").read_bytes())
    content[6] |= 1  # encrypted, says the local header, and the table of contents
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "locked.npz").write_bytes(content)
    with pytest.raises(InputError, match="password"):
        map_member(tmp_path / "locked.npz", "x_train", scratch)
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("x_train.npy", b"\x93NUMPY\x01\x00v\x00" + b" " * 117 + b"\n")
    with pytest.raises(InputError, match="truncated or no plain array"):
        map_member(tmp_path / "bomb.npz", "x_train", scratch)


SMALL = ntu_clips(4)


@settings(max_examples=80, deadline=None)
@given(compressed=st.booleans(), named=st.booleans(), damage=st.lists(DAMAGE, min_size=1, max_size=3))
def test_chance_damage_gives_clips_or_faults(
    tmp_path_factory: pytest.TempPathFactory, compressed: bool, named: bool, damage: list[tuple[str, float, bytes]]
) -> None:
    root = tmp_path_factory.mktemp("damage")
    (root / "scratch").mkdir()
    file, names = root / "NTU60_CS.npz", listing(root / "names.txt", [clip.name for clip in SMALL])
    write_ctrgcn_npz(file, SMALL, frames=6, compressed=compressed)
    hurt = names if named else file
    hurt.write_bytes(damaged(hurt.read_bytes(), damage))
    ctrgcn_npz.recognises(file)
    try:
        source = plan(file, root / "scratch", names if named else None)
        found = [one for item in source.items for one in source.read(item)]
    except InputError:
        return
    assert all(isinstance(one, (Clip, Skipped)) for one in found)


def test_sides_of_a_clip_are_numbers_that_the_engine_knows(tmp_path: Path, scratch: Path) -> None:
    write_ctrgcn_npz(tmp_path / "NTU60_CS.npz", CLIPS, frames=12)
    sides = {one.sides["xsub"] for one in read_all(plan(tmp_path / "NTU60_CS.npz", scratch)).values()}  # type: ignore[union-attr]
    assert sides == {TRAIN, TEST}
