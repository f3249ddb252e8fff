from __future__ import annotations

import json
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
    positions,
    read_all,
    walk,
    write_agcn,
    write_crossclr,
    write_ctrgcn_npz,
    write_pyskl_pkl,
)

from methods.data.conversion import convert
from methods.data.formats import crossclr
from methods.data.formats.pku_raw import CLASS_NAMES, PUBLISHED
from methods.data.reading import ntu_facts
from methods.data.reading.sources import Clip, ReadOptions, Skipped, Source
from methods.data.skeletons import TEST, TRAIN
from methods.errors import InputError

CLIPS = ntu_clips(12)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


def plan(source: Path, scratch: Path, names: Path | None = None) -> Source:
    return crossclr.plan(source, ReadOptions(names=names), scratch)


def faults(source: Path, scratch: Path, names: Path | None = None) -> tuple[str, ...]:
    with pytest.raises(InputError) as caught:
        plan(source, scratch, names)
    return caught.value.faults


def write_pair(folder: Path, clips: list[Clip] = CLIPS, frames: int = 12, **how: object) -> Path:
    for split in ("xsub", "xview"):
        write_crossclr(folder / split, clips, split, frames=frames, **how)  # type: ignore[arg-type]
    return folder


def test_preprocessed_positions_of_one_bench(tmp_path: Path, scratch: Path) -> None:
    source = plan(write_crossclr(tmp_path / "xview", CLIPS, "xview", motion=True), scratch)
    found = read_all(source)
    assert set(found) == {clip.name for clip in CLIPS}
    for clip in CLIPS:
        check_equal(found[clip.name], clip, positions(clip, 50).transpose(1, 3, 2, 0))
        assert found[clip.name].sides == {"xview": clip.sides["xview"]}  # type: ignore[union-attr]
    assert source.notes["applied"] == ["trim_paper", "centre", "resize 50", "rotate_y_paper"]
    assert source.notes["not_read"] == ["train_motion.npy", "val_motion.npy"]
    assert source.layout.name == "ntu25" and source.persons == 2 and source.channels == 3
    assert source.class_names == ntu_facts.CLASS_NAMES[:60]
    assert source.published == ntu_facts.PUBLISHED["ntu60"]
    assert source.parallel and source.chunk == 1


def test_padded_frames_lose_their_padding_alone(tmp_path: Path, scratch: Path) -> None:
    gap = CLIPS[0].frames.copy()
    gap[1] = 0
    clips = [replace(CLIPS[0], frames=gap), *CLIPS[1:]]
    source = plan(write_crossclr(tmp_path / "xsub", clips, form="data", frames=20), scratch)
    found = read_all(source)
    for clip in clips:
        check_equal(found[clip.name], clip)
    assert source.notes["applied"] == []


def test_a_clip_that_fills_the_array_and_one_without_anybody(tmp_path: Path, scratch: Path) -> None:
    clips = [ntu_clip(walk(9), 0), ntu_clip(np.zeros((5, 2, 25, 3)), 1), ntu_clip(walk(4), 2, subject=3)]
    found = read_all(plan(write_crossclr(tmp_path / "xsub", clips, form="data", frames=9), scratch))
    assert [len(found[clip.name].frames) for clip in clips] == [9, 1, 4]  # type: ignore[union-attr]


def test_several_benches_give_one_dataset_with_all_sides(tmp_path: Path, scratch: Path) -> None:
    folder = write_pair(tmp_path / "ntu60_frame50")
    source = plan(folder, scratch)
    found = read_all(source)
    assert {clip.name: clip.sides for clip in CLIPS} == {name: one.sides for name, one in found.items()}  # type: ignore[union-attr]
    assert all(Path(item.path).parent.name == "xsub" for item in source.items)
    assert source.notes["benches"] == ["xsub", "xview"]
    assert not [remark for remark in source.remarks if "split" in remark]


def test_what_another_bench_lacks_is_unused_there(tmp_path: Path, scratch: Path) -> None:
    write_crossclr(tmp_path / "xsub", CLIPS[:-1], "xsub", frames=6)
    write_crossclr(tmp_path / "xview", CLIPS[2:], "xview", frames=6)
    source = plan(tmp_path, scratch)
    found = read_all(source)
    assert [found[clip.name].sides["xview"] for clip in CLIPS[:2]] == [0, 0]  # type: ignore[union-attr]
    assert CLIPS[-1].name not in found
    assert any("2 clips of xsub are not in xview" in r and "1 clips are in xview alone" in r for r in source.remarks)


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("kind", [list, tuple, np.array])
def test_label_pickles_of_every_make(tmp_path: Path, scratch: Path, protocol: int, kind: type) -> None:
    folder = write_crossclr(tmp_path / "xsub", CLIPS, frames=6)
    for part, side in (("train", TRAIN), ("val", TEST)):
        chosen = [clip for clip in CLIPS if clip.sides["xsub"] == side]
        names, labels = kind([clip.name for clip in chosen]), kind([clip.label for clip in chosen])
        content = [names, labels] if kind is list else (names, labels)
        (folder / f"{part}_label.pkl").write_bytes(pickle.dumps(content, protocol))
    found = read_all(plan(folder, scratch))
    assert {clip.name: clip.label for clip in CLIPS} == {name: one.label for name, one in found.items()}  # type: ignore[union-attr]


def test_labels_that_are_floats_and_bytes(tmp_path: Path, scratch: Path) -> None:
    folder = write_crossclr(tmp_path / "xsub", CLIPS, frames=6)
    for part, side in (("train", TRAIN), ("val", TEST)):
        chosen = [clip for clip in CLIPS if clip.sides["xsub"] == side]
        content = ([clip.name.encode() for clip in chosen], [np.float64(clip.label) for clip in chosen])
        (folder / f"{part}_label.pkl").write_bytes(pickle.dumps(content))
    assert set(read_all(plan(folder, scratch))) == {clip.name for clip in CLIPS}


def test_without_names_the_clips_are_counted(tmp_path: Path, scratch: Path) -> None:
    source = plan(write_crossclr(tmp_path / "xsub", CLIPS, frames=6, labels="npy"), scratch)
    found = list(read_all(source).values())
    trains = [clip for clip in CLIPS if clip.sides["xsub"] == TRAIN]
    assert [one.name for one in found][: len(trains)] == [f"train-{n:06d}" for n in range(1, len(trains) + 1)]
    assert found[-1].name == f"test-{len(CLIPS) - len(trains):06d}"
    assert {one.subjects for one in found} == {(-1,)}  # type: ignore[union-attr]
    smallest = min(clip.label for clip in trains)
    assert [one.label for one in found][: len(trains)] == [clip.label - smallest for clip in trains]  # type: ignore[union-attr]
    assert source.class_names == tuple(f"action {n}" for n in range(1, len(source.class_names) + 1))


def test_names_from_elsewhere(tmp_path: Path, scratch: Path) -> None:
    write_pair(tmp_path / "frames", labels="npy")
    write_pair(tmp_path / "raw", form="data")
    one = tmp_path / "frames" / "xsub"
    for names in (tmp_path / "raw", tmp_path / "raw" / "xsub", tmp_path / "raw" / "xsub" / "val_label.pkl"):
        assert set(read_all(plan(one, scratch, names))) == {clip.name for clip in CLIPS}
    both = {clip.name: clip.sides for clip in CLIPS}
    for names in (tmp_path / "raw", tmp_path / "raw" / "xview" / "train_label.pkl"):
        found = read_all(plan(tmp_path / "frames", scratch, names))
        assert {name: clip.sides for name, clip in found.items()} == both  # type: ignore[union-attr]


def test_a_list_of_names(tmp_path: Path, scratch: Path) -> None:
    clips = [replace(clip, label=0, name=clip.name[:-3] + "001") for clip in ntu_clips(8)]
    folder = write_crossclr(tmp_path / "xsub", clips, frames=6, labels="npy")
    order = sorted(clips, key=lambda clip: clip.sides["xsub"])
    names = tmp_path / "names.txt"
    names.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(clip.name.encode() + b".skeleton" for clip in order) + b"\r\n\r\n")
    found = read_all(plan(folder, scratch, names))
    for clip in clips:
        check_equal(found[clip.name], clip, positions(clip, 6).transpose(1, 3, 2, 0))
    names.write_text("\n".join(clip.name for clip in order[:-1]))
    assert faults(folder, scratch, names) == (f"{names}: 7 names, but 6 + 2 clips in {folder}",)
    names.write_text("\n".join([order[0].name[:-3] + "007", *(clip.name for clip in order[1:])]))
    assert (
        "name 0 is" in faults(folder, scratch, names)[0]
        and "not the names of these" in faults(folder, scratch, names)[0]
    )
    write_crossclr(tmp_path / "xview", clips, "xview", frames=6, labels="npy")
    assert "name the folder" in faults(tmp_path, scratch, names)[0]


def test_names_of_another_array_are_found_out(tmp_path: Path, scratch: Path) -> None:
    folder = write_crossclr(tmp_path / "xsub", CLIPS, frames=6, labels="npy")
    other = [replace(clip, label=(clip.label + 7 * index) % 60) for index, clip in enumerate(CLIPS)]
    write_crossclr(tmp_path / "raw" / "xsub", other, form="data", frames=9)
    assert all("these are not the names of this array" in fault for fault in faults(folder, scratch, tmp_path / "raw"))


def test_names_that_do_not_bear_the_labels_out(tmp_path: Path, scratch: Path) -> None:
    clips = [replace(clip, label=index % 3) for index, clip in enumerate(CLIPS)]
    source = plan(write_crossclr(tmp_path / "xsub", clips, frames=6), scratch)
    assert source.class_names == ("action 1", "action 2", "action 3")
    assert any("labels are not what the clips' names say" in remark for remark in source.remarks)


def test_official_protocols_by_rule_beside_the_folders_own(tmp_path: Path, scratch: Path) -> None:
    clips = list(CLIPS)
    wrong = next(index for index, clip in enumerate(clips) if clip.sides["xsub"] == TEST)
    clips[wrong] = replace(clips[wrong], sides={"xsub": TRAIN})
    write_crossclr(tmp_path / "xsub", clips, frames=6)
    source = plan(tmp_path, scratch)
    assert any(remark.startswith("split xsub: 1 clips are on another side") for remark in source.remarks)
    data = convert(tmp_path / "xsub", tmp_path / "out").dataset
    at = {name: index for index, name in enumerate(data.names.tolist())}
    assert set(data.splits) == {"xsub", "xview"}
    for clip in CLIPS:
        assert data.splits["xview"][at[clip.name]] == clip.sides["xview"]
    assert data.splits["xsub"][at[clips[wrong].name]] == TRAIN


def test_ntu_120_and_its_setups(tmp_path: Path, scratch: Path) -> None:
    clips = ntu_clips(8, setup=18, classes=120)
    for split in ("xsub", "xset"):
        write_crossclr(tmp_path / {"xsub": "xsub", "xset": "xsetup"}[split], clips, split, frames=6)
    source = plan(tmp_path, scratch)
    assert {name: one.sides for name, one in read_all(source).items()} == {clip.name: clip.sides for clip in clips}  # type: ignore[union-attr]
    assert len(source.class_names) == 120


@pytest.mark.parametrize(
    ("names", "subjects", "classes"),
    [
        (["F002V001C005L001", "F010V003C051L012"], [-1, -1], [4, 50]),
        (["A001N01V002C001L001".replace("N01", "N001"), "A026N013V003C042L002"], [1, 13], [0, 41]),
        (["0002-L.txt_0", "0364-R.txt_11"], [-1, -1], [3, 4]),
        (["A01N02-M.txt_3", "A01N07-R.txt_0"], [2, 7], [3, 4]),
    ],
)
def test_pku_mmd(tmp_path: Path, scratch: Path, names: list[str], subjects: list[int], classes: list[int]) -> None:
    clips = [
        Clip(walk(5, seed=index), label, name, sides={"xsub": side})
        for index, (label, name, side) in enumerate(zip(classes, names, (TRAIN, TEST), strict=True))
    ]
    source = plan(write_crossclr(tmp_path / "xsub", clips, form="data", frames=9), scratch)
    found = [read_all(source)[name] for name in names]
    letters = {"001": 1, "002": 2, "003": 3, "L": 1, "M": 2, "R": 3}
    cameras = [next(letters[key] for key in letters if f"V{key}C" in name or f"-{key}." in name) for name in names]
    assert [(one.subjects[0], one.camera, one.label) for one in found] == list(
        zip(subjects, cameras, classes, strict=True)
    )  # type: ignore[union-attr]
    assert source.class_names == CLASS_NAMES and len(source.class_names) == 51
    assert source.published == PUBLISHED["II" if subjects[0] > 0 else "I"]


def test_a_folder_of_no_usual_name(tmp_path: Path, scratch: Path) -> None:
    source = plan(write_crossclr(tmp_path / "mine", CLIPS, frames=6), scratch)
    assert set(read_all(source)[CLIPS[0].name].sides) == {"official"}  # type: ignore[union-attr]
    assert any("tells no protocol" in remark for remark in source.remarks)
    write_crossclr(tmp_path / "other", CLIPS, "xview", frames=6)
    assert set(read_all(plan(tmp_path, scratch))[CLIPS[0].name].sides) == {"mine", "other"}  # type: ignore[union-attr]


def test_positions_go_before_the_step_before(tmp_path: Path, scratch: Path) -> None:
    folder = write_crossclr(tmp_path / "xsub", CLIPS, frames=6)
    write_crossclr(folder, CLIPS, form="data", frames=9)
    source = plan(folder, scratch)
    assert all(item.path.endswith("_position.npy") for item in source.items)
    assert any("train_data.npy lies beside" in remark for remark in source.remarks)
    (folder / "val_position.npy").unlink()
    assert faults(folder, scratch) == (f"{folder / 'val_position.npy'}: no such file",)


def test_the_arrays_are_mapped_and_cut_into_items(tmp_path: Path, scratch: Path) -> None:
    folder = write_crossclr(tmp_path / "xsub", CLIPS, frames=6)
    shape = (600, 3, 50, 25, 2)
    for part in ("train", "val"):
        np.lib.format.open_memmap(folder / f"{part}_position.npy", "w+", np.float32, shape)
        content = ([f"{part}{index}" for index in range(600)], [index % 5 for index in range(600)])
        (folder / f"{part}_label.pkl").write_bytes(pickle.dumps(content))
    source = plan(folder, scratch)
    assert [item.span for item in source.items][:3] == [(0, 256), (256, 512), (512, 600)]
    assert [item.span for item in source.items][3:] == [(600, 856), (856, 1112), (1112, 1200)]
    assert len({item.key for item in source.items}) == 6
    assert len(pickle.dumps(source.read)) < 2000 and len(pickle.dumps(source.items[0])) < 1000
    found = list(pickle.loads(pickle.dumps(source.read))(source.items[3]))
    assert found[0].name == "val0" and found[-1].name == "val255"


def test_items_change_with_the_labels(tmp_path: Path, scratch: Path) -> None:
    folder = write_crossclr(tmp_path / "xsub", CLIPS, frames=6)
    before = plan(folder, scratch).items
    assert plan(folder, scratch).items == before
    content = pickle.loads((folder / "train_label.pkl").read_bytes())
    content[1][0] += 1
    (folder / "train_label.pkl").write_bytes(pickle.dumps(content))
    after = plan(folder, scratch).items
    assert all(one.stamp != other.stamp for one, other in zip(before, after, strict=True))


def test_whole_conversion_by_one_process_and_by_two(tmp_path: Path) -> None:
    write_pair(tmp_path / "source")
    found = convert(tmp_path / "source", tmp_path / "one")
    data = found.dataset
    assert found.format == "crossclr" and not found.skipped and len(data) == len(CLIPS)
    assert convert(tmp_path / "source", tmp_path / "two", workers=2).dataset.fingerprint == data.fingerprint
    data.verify()
    at = {name: index for index, name in enumerate(data.names.tolist())}
    for clip in CLIPS:
        index = at[clip.name]
        np.testing.assert_array_equal(data.clip(index), positions(clip, 12).transpose(1, 3, 2, 0))
        assert {name: int(table[index]) for name, table in data.splits.items()} == clip.sides
    assert json.loads((tmp_path / "one" / "meta.json").read_text())["source"]["unit"] == "m"


def test_recognises(tmp_path: Path) -> None:
    folder = write_crossclr(tmp_path / "all" / "xsub", CLIPS, frames=6)
    assert crossclr.recognises(folder) == "a folder with train_position.npy"
    assert crossclr.recognises(tmp_path / "all") == "a folder with xsub/train_position.npy"
    raw = write_crossclr(tmp_path / "raw", CLIPS, form="data", frames=9)
    assert crossclr.recognises(raw) == "a folder with train_data.npy"
    strangers = [
        write_agcn(tmp_path / "agcn", CLIPS, frames=9),
        write_pyskl_pkl(tmp_path / "ntu.pkl", CLIPS),
        tmp_path / "NTU60_CS.npz",
        tmp_path / "nothing",
        folder / "train_position.npy",
    ]
    write_ctrgcn_npz(tmp_path / "NTU60_CS.npz", CLIPS, frames=9)
    assert [crossclr.recognises(stranger) for stranger in strangers] == [None] * 5


def test_faults_of_the_files_all_at_once(tmp_path: Path, scratch: Path) -> None:
    write_pair(tmp_path / "all")
    (tmp_path / "all" / "xsub" / "val_label.pkl").unlink()
    array = tmp_path / "all" / "xview" / "train_position.npy"
    array.write_bytes(array.read_bytes()[:-10])
    found = faults(tmp_path / "all", scratch)
    assert len(found) == 2
    assert "xsub/val_label.pkl: no such file" in found[0] and "--names" in found[0]
    assert "xview/train_position.npy: truncated" in found[1]


def label_file(*content: object) -> bytes:
    return pickle.dumps(content)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (label_file(["a"] * 5, [0] * 5), "val_position.npy: 3 clips, but 5 labels in"),
        (label_file(["a"] * 3, [0] * 4), "3 names and 4 labels"),
        (label_file(["a"]), "wanted (names, labels), holds a tuple of 1"),
        (pickle.dumps({"a": 1}), "wanted (names, labels), holds a dict of 1"),
        (pickle.dumps(5), "wanted (names, labels), holds a int"),
        (label_file("ab", [0]), "names: wanted a list of texts, got a str of 2"),
        (label_file(["a", 5], [0, 1]), "names: number 1 is a int, wanted a text"),
        (label_file(["a", [[]]], [0, 1]), "names: number 1 is a list of 1, wanted a text"),
        (label_file(["a", "b"], [0, 0.5]), "labels: number 1 is 0.5, wanted a whole number"),
        (label_file(["a", "b"], [0, -1]), "labels: number 1 is -1, wanted a whole number"),
        (label_file(["a", "b"], [0, float("nan")]), "labels: number 1 is a float beyond every class"),
        (label_file(["a", "b"], [0, 10**30]), "labels: number 1 is a int beyond every class"),
        (label_file(["a", "b"], [0, True]), "labels: number 1 is a bool, wanted a whole number"),
        (label_file(["a", "b"], [0, None]), "labels: number 1 is a NoneType, wanted a whole number"),
        (label_file(["a", "b"], np.zeros((2, 3))), "labels: wanted one whole number a clip, got float64 (2, 3)"),
        (label_file(["a", "b"], np.zeros(2, "U3")), "labels: wanted one whole number a clip"),
        (b"cos\nsystem\n(S'true'\ntR.", "refuses os.system"),
        (b"", "(the file is empty)"),
    ],
)
def test_faulty_label_files(tmp_path: Path, scratch: Path, content: bytes, words: str) -> None:
    folder = write_crossclr(tmp_path / "xsub", CLIPS, frames=6)
    (folder / "val_label.pkl").write_bytes(content)
    found = faults(folder, scratch)
    assert len(found) == 1 and words in found[0] and "val_label.pkl" in found[0]


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((3, 3, 6, 25)), "holds float64 (3, 3, 6, 25), wanted numbers"),
        (np.zeros((3, 4, 6, 25, 2)), "with 2 or 3 coordinates"),
        (np.zeros((3, 3, 6, 25, 2), "U1"), "holds <U1"),
        (np.zeros((3, 3, 6, 24, 2)), "not the same bodies"),
        (np.zeros((3, 3, 6, 25, 1)), "not the same bodies"),
        (np.zeros((3, 3, 6, 25, 0)), "wanted numbers"),
        (np.zeros(3, object), "holds pickled objects, which are never loaded"),
        (np.zeros(3, [("a", "i4")]), "neither numbers nor text"),
    ],
)
def test_arrays_of_another_form(tmp_path: Path, scratch: Path, array: np.ndarray, words: str) -> None:
    folder = write_crossclr(tmp_path / "xsub", CLIPS, frames=6)
    np.save(folder / "val_position.npy", array)
    found = faults(folder, scratch)
    assert len(found) == 1 and words in found[0] and "val_position.npy" in found[0]


def test_a_side_and_a_bench_without_clips(tmp_path: Path, scratch: Path) -> None:
    folder = write_crossclr(tmp_path / "xsub", CLIPS, frames=6)
    np.save(folder / "val_position.npy", np.zeros((0, 3, 6, 25, 2), np.float32))
    (folder / "val_label.pkl").write_bytes(label_file([], []))
    assert len(read_all(plan(folder, scratch))) == 9
    np.save(folder / "train_position.npy", np.zeros((0, 3, 6, 25, 2), np.float32))
    (folder / "train_label.pkl").write_bytes(label_file([], []))
    assert faults(folder, scratch) == (f"{folder}: holds no clip",)


def test_unknown_joints_want_a_layout(tmp_path: Path, scratch: Path) -> None:
    folder = write_crossclr(tmp_path / "xsub", CLIPS, frames=6)
    for part in ("train", "val"):
        array = np.load(folder / f"{part}_position.npy")
        np.save(folder / f"{part}_position.npy", array[:, :, :, :23])
    assert "no known layout has 23 joints" in faults(folder, scratch)[0]


def test_sources_that_cannot_be_matched(tmp_path: Path, scratch: Path) -> None:
    write_pair(tmp_path / "all", labels="npy")
    found = faults(tmp_path / "all", scratch)
    assert len(found) == 2 and "xsub: has labels without names, so it cannot be matched with xview" in found[0]
    assert "neither holds train_position.npy or train_data.npy" in faults(tmp_path / "scratch", scratch)[0]
    assert "no such file" in faults(tmp_path / "all", scratch, tmp_path / "none")[0]
    write_pair(tmp_path / "two", frames=6)
    moved = [replace(CLIPS[0], label=CLIPS[0].label + 1), *CLIPS[1:]]
    write_crossclr(tmp_path / "two" / "xview", moved, "xview", frames=6)
    assert f"clip '{CLIPS[0].name}' has another label than in" in faults(tmp_path / "two", scratch)[0]


def test_an_array_that_changed_since_the_plan_costs_its_items(tmp_path: Path, scratch: Path) -> None:
    folder = write_crossclr(tmp_path / "xsub", CLIPS, frames=6)
    source = plan(folder, scratch)
    np.save(folder / "train_position.npy", np.zeros((2, 3, 6, 25, 2), np.float32))
    with pytest.raises(InputError, match=r"train_position\.npy: 2 clips, there were 9"):
        list(source.read(source.items[0]))


def test_not_a_number_is_left_to_the_engine(tmp_path: Path) -> None:
    folder = write_crossclr(tmp_path / "xsub", CLIPS, form="data", frames=9)
    array = np.load(folder / "val_data.npy")
    array[0, 0, 8, 3, 0] = np.nan
    np.save(folder / "val_data.npy", array)
    found = convert(folder, tmp_path / "out")
    assert len(found.dataset) == len(CLIPS) - 1
    assert [skip.reason for skip in found.skipped] == ["NaN or infinite coordinates"]


def test_rows_of_one_very_long_name_take_no_room_for_all(tmp_path: Path, scratch: Path) -> None:
    source = plan(write_crossclr(tmp_path / "xsub", [*CLIPS, replace(CLIPS[0], name="x" * 100_000)], frames=6), scratch)
    assert max(file.stat().st_size for file in scratch.iterdir()) < 100_000
    assert max(len(name) for name in read_all(source)) > 512


SMALL = ntu_clips(4)


@settings(max_examples=60, deadline=None)
@given(
    file=st.sampled_from(["train_position.npy", "train_label.pkl", "val_label.npy", "names.txt"]),
    damage=st.lists(DAMAGE, min_size=1, max_size=3),
)
def test_chance_damage_gives_clips_or_faults(
    tmp_path_factory: pytest.TempPathFactory, file: str, damage: list[tuple[str, float, bytes]]
) -> None:
    root = tmp_path_factory.mktemp("damage")
    (root / "scratch").mkdir()
    write_crossclr(root / "xsub", SMALL, frames=4, labels="npy" if file.startswith(("val", "names")) else "pkl")
    names = None
    if file == "names.txt":
        names = root / "xsub" / file
        names.write_text("\n".join(clip.name for clip in SMALL))
    path = root / "xsub" / file
    path.write_bytes(damaged(path.read_bytes(), damage))
    try:
        source = plan(root / "xsub", root / "scratch", names)
        found = [one for item in source.items for one in source.read(item)]
    except InputError:
        return
    assert all(isinstance(one, (Clip, Skipped)) for one in found)
