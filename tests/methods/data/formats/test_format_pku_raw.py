"""PKU-MMD as it is downloaded: folders, labels, official lists, planted faults, damage, whole conversions."""

from __future__ import annotations

import contextlib
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from writers_text import Video, damaged, pku_rows, walk, write_pku, write_split

from methods.data.conversion import convert
from methods.data.formats import pku_raw
from methods.data.layouts import NTU25
from methods.data.reading.sources import Clip, ReadOptions, Skipped, Source
from methods.errors import InputError


def video(seed: int, *marks: tuple[int, int, int], frames: int = 30) -> Video:
    made = walk(frames, 2, 25, seed=seed)
    made[frames // 2 :, 1] = 0  # the second person leaves
    return Video(made, [(*mark, 1 + seed % 2) for mark in marks])


ONE = {
    "0002-L": video(0, (17, 1, 9), (51, 10, 30)),
    "0002-M": video(1, (17, 2, 8)),
    "0003-R": video(2, (1, 3, 3), (18, 20, 25), (2, 11, 19)),
}
TWO = {
    "A01N02-L": video(3, (5, 0, 7), (6, 8, 12)),
    "A01N04-M": video(4, (7, 1, 30)),
    "A26N13-R": video(5, (8, 2, 4)),
}


def planned(source: Path, **options: Path) -> Source:
    return pku_raw.plan(source, ReadOptions(**options), source)


def read_all(source: Source) -> dict[str, Clip | Skipped]:
    read = pickle.loads(pickle.dumps(source.read))
    return {found.name: found for item in source.items for found in read(item)}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_round_trip(tmp_path: Path, end: str) -> None:
    plan = planned(write_pku(tmp_path, ONE, end=end))
    assert (plan.layout, plan.persons, len(plan.class_names)) == (NTU25, 2, 51)
    assert (plan.class_names[0], plan.class_names[16], plan.class_names[50]) == ("bow", "jump up", "writing")
    assert plan.notes["unit"] == "m" and plan.notes["part"] == "I" and plan.skipped == ()
    found = read_all(plan)
    assert list(found) == [
        *("0002-L_L001_A017", "0002-L_L002_A051", "0002-M_L001_A017"),
        *("0003-R_L001_A001", "0003-R_L002_A018", "0003-R_L003_A002"),
    ]
    marks = [(name, *mark[:3]) for name, made in ONE.items() for mark in made.marks]
    for clip, (name, action, first, last) in zip(found.values(), marks, strict=True):
        assert isinstance(clip, Clip) and not clip.mended
        np.testing.assert_allclose(clip.frames, ONE[name].frames[first - 1 : last], rtol=1e-6)
        assert (clip.label, clip.subjects, clip.camera) == (action - 1, (-1,), " LMR".index(name[-1]))


def test_part_two_knows_its_performers(tmp_path: Path) -> None:
    plan = planned(write_pku(tmp_path, TWO))
    found = read_all(plan)
    clips = [clip for clip in found.values() if isinstance(clip, Clip)]
    assert [clip.subjects for clip in clips] == [(2,), (2,), (4,), (13,)]
    assert (plan.notes["part"], plan.published) == ("II", {"xsub": (5_332, 1_613)})
    np.testing.assert_allclose(clips[0].frames, TWO["A01N02-L"].frames[:7], rtol=1e-6)  # a start of 0 is read as 1
    assert clips[0].mended and not clips[1].mended
    assert any("performers 2, 3 and 7 test" in remark for remark in plan.remarks)
    assert any("split xview is not stored" in remark for remark in plan.remarks)


FOLDERS = [
    ("skeleton", "label", "cross-subject.txt"),
    ("Data/skeleton", "Label", "Split/cross-subject.txt"),
    ("Data/PKU_Skeleton_Renew", "Label/Train_Label_PKU_final", "Split/cross_subject_v2.txt"),
]


@pytest.mark.parametrize(("skeleton", "label", "lists"), FOLDERS)
def test_a_whole_conversion(tmp_path: Path, skeleton: str, label: str, lists: str) -> None:
    source = write_pku(tmp_path / "pku", ONE, skeleton, label)
    write_split(source / lists, ["0002-L", "0003-R"], ["0002-M"])
    write_split((source / lists).with_name("cross-view.txt"), ["0002-M", "0003-R"], ["0002-L"])
    assert pku_raw.recognises(source) is not None
    done = convert(source, tmp_path / "out", "pku_raw")
    data = done.dataset
    assert done.skipped == () and done.remarks == () and len(data) == 6
    assert data.splits["xsub"].tolist() == [1, 1, 2, 1, 1, 1]
    assert data.splits["xview"].tolist() == [2, 2, 1, 1, 1, 1]
    assert any("official: 18,841 and 2,704" in line for line in done.lines())
    again = convert(source, tmp_path / "again", "pku_raw", workers=2)
    assert again.dataset.fingerprint == data.fingerprint


def test_splits_by_rule_without_lists(tmp_path: Path) -> None:
    done = convert(write_pku(tmp_path / "two", TWO), tmp_path / "out2", "pku_raw")
    assert {name: table.tolist() for name, table in done.dataset.splits.items()} == {"xsub": [2, 2, 1, 1]}
    assert done.mended == {"a clip that begins at frame 0, read from frame 1 on": 1}
    done = convert(write_pku(tmp_path / "one", ONE), tmp_path / "out1", "pku_raw")
    assert not done.dataset.splits
    assert [remark.partition(" is ")[0] for remark in done.remarks] == ["split xsub", "split xview"]


def test_lists_elsewhere(tmp_path: Path) -> None:
    source = write_pku(tmp_path / "pku", TWO)
    lists = write_split(tmp_path / "lists" / "cross_subject_v2.txt", ["A01N04-M"], ["A01N02-L"])
    write_split(tmp_path / "lists" / "cross_subject.txt", ["0002-L"], ["0003-L"])  # of the other part
    for given_path in (lists, lists.parent):
        done = convert(source, tmp_path / f"out{given_path.suffix}", "pku_raw", ReadOptions(splits=given_path))
        assert done.dataset.splits["xsub"].tolist() == [2, 2, 1, 2]
        assert not any("xsub" in remark for remark in done.remarks)


def test_one_line_lists_and_small_letters(tmp_path: Path) -> None:
    source = write_pku(tmp_path / "pku", ONE)
    (source / "Cross_View.TXT").write_bytes(b"\xef\xbb\xbftraining: 0002-l,0003-R\r\n\r\ntesting: 0002-M")
    table = convert(source, tmp_path / "out", "pku_raw").dataset.splits["xview"]
    assert table.tolist() == [1, 1, 2, 1, 1, 1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0002-L, 0003-R\n", "cross-view.txt:1: videos before a line that says training"),
        ("Training videos:\n\nValidation videos:\n0002-L\n", "cross-view.txt: no training videos in it"),
        ("", "cross-view.txt: no training videos in it"),
        ("\0", "cross-view.txt:1: no text"),
    ],
)
def test_damaged_lists(tmp_path: Path, text: str, words: str) -> None:
    source = write_pku(tmp_path, ONE)
    (source / "cross-view.txt").write_text(text)
    with pytest.raises(InputError) as caught:
        planned(source)
    assert words in str(caught.value)


def test_lists_of_the_other_part(tmp_path: Path) -> None:
    source = write_pku(tmp_path, ONE)
    path = write_split(source / "cross_view_v2.txt", ["A01N02-L"], ["A01N02-M"])
    assert any("split xview is not stored" in remark for remark in planned(source).remarks)
    with pytest.raises(InputError, match="none of its training videos is in the source"):
        planned(source, splits=path)
    with pytest.raises(InputError, match=r"not called cross-subject\.txt"):
        planned(source, splits=source / "label" / "0002-L.txt")
    with pytest.raises(InputError, match="No such file"):
        planned(source, splits=source / "cross-subject.txt")
    with pytest.raises(InputError, match="no list called"):
        planned(source, splits=source / "label")


def test_bad_marks_cost_their_clip_alone(tmp_path: Path) -> None:
    lines = [
        *("17,1,9,1", "17,9,1,1", "0,1,2,1", "52,1,2,1", "3,-1,4,1", "3,20,31,2", "3,0,0,1"),
        *("4,1,five,1", "4", "", "5,1,2,3,4", "6,2.0,4", "7 ; 1"),
    ]
    source = write_pku(tmp_path, {"0002-L": ONE["0002-L"]})
    (source / "label" / "0002-L.txt").write_text("\n".join(lines))
    found = list(read_all(planned(source)).values())
    assert [clip.name for clip in found if isinstance(clip, Clip)] == ["0002-L_L001_A017", "0002-L_L012_A006"]
    outside, unread = "a clip outside its video", "a label line that cannot be read"
    assert {clip.name: clip.reason for clip in found if isinstance(clip, Skipped)} == {
        "0002-L:2": "a clip that ends before it starts",
        "0002-L:3": "a class outside 1 to 51",
        "0002-L:4": "a class outside 1 to 51",
        "0002-L:5": outside,
        "0002-L:6": outside,
        "0002-L:7": outside,
        **dict.fromkeys(("0002-L:8", "0002-L:9", "0002-L:11", "0002-L:13"), unread),
    }
    details = {clip.name: clip.detail for clip in found if isinstance(clip, Skipped)}
    assert details["0002-L:6"].endswith("label/0002-L.txt:6: from 20 to 31, it has 30 frames")
    assert details["0002-L:8"].endswith("label/0002-L.txt:8: '4,1,five,1'")


def test_lonely_videos_and_labels(tmp_path: Path) -> None:
    source = write_pku(tmp_path, ONE)
    (source / "label" / "0002-M.txt").rename(source / "label" / "0009-M.txt")
    (source / "label" / "0003-R.txt").write_text("\n")
    plan = planned(source)
    assert [item.key for item in plan.items] == ["0002-L", "0003-R"]
    assert [(skip.name, skip.reason) for skip in plan.skipped] == [
        ("0002-M", "a video without labels"),
        ("0009-M", "labels without a video"),
    ]
    found = read_all(plan)["0003-R"]
    assert isinstance(found, Skipped) and found.reason == "a video without a label line"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (lambda row: row.rpartition(" ")[0], "0002-L.txt:4: has 149 numbers, wanted 150"),
        (lambda row: row + " 1", "0002-L.txt:4: has 151 numbers, wanted 150"),
        (lambda _: "", "0002-L.txt:4: has 0 numbers, wanted 150"),
        (lambda row: "-" + row, "0002-L.txt:4: '--"),
    ],
)
def test_a_bad_row_costs_the_video(tmp_path: Path, row: object, words: str) -> None:
    source = write_pku(tmp_path, {name: Video(-np.abs(made.frames), made.marks) for name, made in ONE.items()})
    path = source / "skeleton" / "0002-L.txt"
    lines = path.read_text().splitlines()
    lines[3] = row(lines[3])  # type: ignore[operator]
    path.write_text("\n".join(lines))
    plan = planned(source)
    with pytest.raises(InputError) as caught:
        list(plan.read(plan.items[0]))
    assert words in str(caught.value)
    assert len(list(plan.read(plan.items[1]))) == 1


def test_folders_that_do_not_say_which(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        planned(tmp_path)
    assert len(caught.value.faults) == 2 and "rows of 150 numbers" in caught.value.faults[0]
    write_pku(tmp_path / "v1", ONE)
    write_pku(tmp_path / "v2", TWO)
    with pytest.raises(InputError, match=r"several folders hold joints \(v1/skeleton, v2/skeleton\)"):
        planned(tmp_path)
    (tmp_path / "v1" / "label").rename(tmp_path / "v1" / "skeleton" / "label")
    assert len(planned(tmp_path / "v1").items) == 3
    with pytest.raises(InputError, match=r"no folder of <video>\.txt with rows of 150"):
        planned(tmp_path / "v1" / "skeleton" / "label")
    (tmp_path / "odd").mkdir()
    write_pku(tmp_path / "odd", {"0002-L": ONE["0002-L"]}, label="label")
    (tmp_path / "odd" / "label" / "0002-L.txt").rename(tmp_path / "odd" / "label" / "0004-L.txt")
    with pytest.raises(InputError, match="no video has both"):
        planned(tmp_path / "odd")


def test_strangers_are_not_recognised(tmp_path: Path) -> None:
    assert pku_raw.recognises(tmp_path) is None
    (tmp_path / "0002-L.txt").write_text("some notes on a video\n")
    assert pku_raw.recognises(tmp_path) is None
    (tmp_path / "0002-L.txt").write_text(pku_rows(ONE["0002-L"].frames)[0])
    assert pku_raw.recognises(tmp_path) == "folder with 0002-L.txt, a video's joints"


def test_changed_labels_make_other_work(tmp_path: Path) -> None:
    source = write_pku(tmp_path, ONE)
    before = planned(source).items
    (source / "label" / "0002-L.txt").write_text("1,1,2,1\n")
    after = planned(source).items
    assert before[0].stamp != after[0].stamp and before[1:] == after[1:]


SMALL = {"0002-L": Video(walk(4, 2, 25), [(3, 1, 2, 1), (4, 3, 4, 1)])}


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(["skeleton/0002-L.txt", "label/0002-L.txt", "cross-subject.txt"]))
def test_damage_is_refused_in_words(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, which: str) -> None:
    source = write_pku(tmp_path_factory.mktemp("pku"), SMALL)
    write_split(source / "cross-subject.txt", ["0002-L"], ["0002-M"])
    path = source / which
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    found: dict[str, Clip | Skipped] = {}
    with contextlib.suppress(InputError):
        plan = planned(source)
        found = {clip.name: clip for item in plan.items for clip in plan.read(item)}
    assert all(isinstance(clip, Skipped) or clip.frames.shape[1:] == (2, 25, 3) for clip in found.values())
