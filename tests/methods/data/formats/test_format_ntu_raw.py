"""NTU RGB+D as it is downloaded: folders and archives, names, the list of missing skeletons, whole conversions."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from writers_ntu import (
    NtuClip,
    listed_bodies,
    ntu_name,
    skeleton_text,
    walk,
    write_skeleton_files,
    write_skeleton_zip,
)

from methods.data.conversion import Conversion, convert
from methods.data.formats import ntu_raw
from methods.data.formats.ntu_raw import NO_BODY, ON_THE_LIST, OTHER_ACTION, OTHER_NAME, SAME_NAME
from methods.data.reading import ntu_facts
from methods.data.reading.sources import Clip, ReadOptions, Skipped, Source
from methods.data.synthetic import SyntheticConfig, generate_clips
from methods.errors import InputError


def clips(count: int = 6) -> list[NtuClip]:
    """Subjects 1, 2 and 3, cameras 1 and 2, setups 1 and 2, one or two persons."""
    return [
        NtuClip(walk(14 + i, 1 + i % 2, seed=i), i % 3, subject=1 + i % 3, camera=1 + i % 2, setup=1 + i // 3)
        for i in range(count)
    ]


def planned(source: Path, **options: object) -> Source:
    return ntu_raw.plan(source, ReadOptions(**options), source)  # type: ignore[arg-type]


def read_all(source: Source) -> dict[str, Clip | Skipped]:
    return {found.name: found for item in source.items for found in source.read(item)}


def reasons(source: Source | Conversion) -> dict[str, str]:
    return {skip.name: skip.reason for skip in source.skipped}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("tracking", [None, "as_listed"])
def test_round_trip(tmp_path: Path, zipped: bool, tracking: str | None) -> None:
    made = clips()
    made[1].frames[[0, 5]] = 0  # nobody there
    source = tmp_path / "nturgbd_skeletons_s001_to_s017.zip" if zipped else tmp_path / "raw"
    names = (write_skeleton_zip if zipped else write_skeleton_files)(source, made)
    plan = planned(source, tracking=tracking)
    found = read_all(plan)
    assert list(found) == sorted(names) and plan.skipped == ()
    for name, clip in zip(names, made, strict=True):
        got = found[name]
        assert isinstance(got, Clip)
        wanted = np.zeros((len(clip.frames), 2, 25, 3), np.float32)
        wanted[:, : clip.frames.shape[1]] = clip.frames
        if tracking is None:
            wanted = wanted[wanted.any(axis=(1, 2, 3))]
            # by_id puts the livelier person first
            wanted = wanted[:, ::-1] if not np.allclose(got.frames[0, 0], wanted[0, 0], rtol=1e-6) else wanted
        np.testing.assert_allclose(got.frames, wanted, rtol=1e-6)
        assert got.frames.dtype == np.float32
        assert (got.label, got.subjects, got.camera, got.setup) == (
            clip.label,
            (clip.subject,),
            clip.camera,
            clip.setup,
        )
    assert (plan.layout.name, plan.persons, plan.channels, plan.notes["unit"]) == ("ntu25", 2, 3, "m")
    assert plan.notes["tracking"] == (tracking or "by_id")


def test_a_whole_conversion_from_generated_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = SyntheticConfig(
        clips_per_cell=1, subjects=4, cameras=2, actions=("wave", "hug"), min_frames=20, max_frames=25
    )
    made = list(generate_clips(config))
    names = write_skeleton_files(tmp_path / "raw", made)
    done = convert(tmp_path / "raw", tmp_path / "out", "ntu_raw")
    data = done.dataset
    assert done.skipped == ()
    assert data.names.tolist() == sorted(names) and len(data) == len(made)
    assert data.class_names == ntu_facts.class_names("ntu60")
    by_name = dict(zip(names, made, strict=True))
    for index, name in enumerate(data.names.tolist()):
        clip = by_name[name]
        there = clip.frames[clip.frames.any(axis=(1, 2, 3))]
        assert data.lengths[index] == len(there)
        assert (data.labels[index], data.subjects[index, 0], data.cameras[index], data.setups[index]) == (
            clip.label,
            clip.subject,
            clip.camera,
            1,
        )
        if not clip.frames[:, 1].any():
            np.testing.assert_allclose(data.clip(index), there, rtol=1e-6)
    subjects = data.subjects[:, 0]
    np.testing.assert_array_equal(data.splits["xsub"] == 1, np.isin(subjects, (1, 2, 4)))
    np.testing.assert_array_equal(data.splits["xview"] == 1, data.cameras == 2)
    assert data.source["converter"] == "ntu_raw" and data.source["version"] == "ntu60"
    assert any("official: 40,091 and 16,487" in line for line in done.lines())
    monkeypatch.setattr(ntu_raw, "_CHUNK", 6)  # more chunks than one, so that two processes do work
    again = convert(tmp_path / "raw", tmp_path / "again", "ntu_raw", workers=2)
    assert again.dataset.fingerprint == data.fingerprint
    write_skeleton_zip(tmp_path / "raw.zip", made)
    zipped = convert(tmp_path / "raw.zip", tmp_path / "zipped", "ntu_raw")
    assert zipped.dataset.fingerprint == data.fingerprint


def test_setups_and_actions_make_it_ntu_120(tmp_path: Path) -> None:
    write_skeleton_files(tmp_path / "a", [NtuClip(walk(12), 0, 1, 1, setup=s) for s in (17, 18)])
    plan = planned(tmp_path / "a")
    assert (len(plan.class_names), plan.notes["version"], set(plan.published)) == (120, "ntu120", {"xsub", "xset"})
    write_skeleton_files(tmp_path / "b", [NtuClip(walk(12), 60)])
    assert planned(tmp_path / "b").notes["version"] == "ntu120"
    done = convert(tmp_path / "a", tmp_path / "out", "ntu_raw")
    assert done.dataset.splits["xset"].tolist() == [2, 1] and done.dataset.splits["xsub"].tolist() == [1, 1]


def test_two_folders_archives_and_links(tmp_path: Path) -> None:
    made, source = clips(), tmp_path / "raw"
    write_skeleton_files(source / "nturgb+d_skeletons", made[:2])
    write_skeleton_files(source / "deep" / "er" / "x.y", made[2:3])
    write_skeleton_zip(source / "s018.zip", made[3:5])
    write_skeleton_zip(source / "flat.ZIP", made[5:], inside="")
    (source / "deep" / "circle").symlink_to(source)
    (source / "README.md").write_text("read me")
    (source / "nturgb+d_skeletons" / "._S001C001P001R001A001.skeleton").write_bytes(b"\0\5")
    (source / "nturgb+d_skeletons" / ntu_name(setup=9)).with_suffix(".SKELETON").write_text(
        skeleton_text(listed_bodies(walk(12)))
    )
    plan = planned(source)
    found = read_all(plan)
    assert len(found) == 7 and all(isinstance(clip, Clip) for clip in found.values())
    assert plan.skipped == () and list(found) == sorted(found)
    assert any("2 other files" in remark for remark in plan.remarks)
    assert ntu_raw.recognises(source) is not None
    assert {item.stamp for item in plan.items if "::" in item.key} == {
        (info.file_size, info.CRC)
        for name in ("s018.zip", "flat.ZIP")
        for info in zipfile.ZipFile(source / name).infolist()
        if not info.is_dir()
    }


def test_an_item_is_stamped_by_its_content(tmp_path: Path) -> None:
    names = write_skeleton_files(tmp_path, clips(2))
    before = [item.stamp for item in planned(tmp_path).items]
    file = tmp_path / f"{names[0]}.skeleton"
    os.utime(file, ns=(1, 1))
    after = [item.stamp for item in planned(tmp_path).items]
    assert before[0] != after[0] and before[1] == after[1]
    assert after[0] == (file.stat().st_size, 1)


def test_names_decide(tmp_path: Path) -> None:
    names = write_skeleton_files(tmp_path, clips(2))
    for other in ("S001C001P001R001A000", "S001C001P001R001A121", "F001V001C001L001", f"{names[0]} (1)",
                  "s001c001p001r001a001", f"{names[0]}.copy"):  # fmt: skip
        shutil.copy(tmp_path / f"{names[0]}.skeleton", tmp_path / f"{other}.skeleton")
    plan = planned(tmp_path)
    assert [item.key.removesuffix(".skeleton") for item in plan.items] == sorted(names)
    assert reasons(plan) == {
        "S001C001P001R001A000.skeleton": OTHER_ACTION,
        "S001C001P001R001A121.skeleton": OTHER_ACTION,
        "F001V001C001L001.skeleton": OTHER_NAME,
        f"{names[0]} (1).skeleton": OTHER_NAME,
        "s001c001p001r001a001.skeleton": OTHER_NAME,
        f"{names[0]}.copy.skeleton": OTHER_NAME,
    }
    assert plan.notes["version"] == "ntu60"  # A121 does not count


def test_of_two_files_of_one_name_the_first_stays(tmp_path: Path) -> None:
    names = write_skeleton_files(tmp_path / "b", clips(4))
    write_skeleton_files(tmp_path / "c", clips(1))
    write_skeleton_zip(tmp_path / "a.zip", clips(2))
    other = (tmp_path / "b" / f"{names[2]}.skeleton").read_text()
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / f"{names[2]}.skeleton").write_text(other.replace("1", "2", 1))
    (tmp_path / "d" / f"{names[3]}.skeleton").write_text("0\n")
    plan = planned(tmp_path)
    assert [item.key for item in plan.items] == [f"b/{name}.skeleton" for name in sorted(names)]
    assert {skip.reason for skip in plan.skipped} == {SAME_NAME}
    details = {skip.name: skip.detail for skip in plan.skipped}
    inside = "a.zip::nturgb+d_skeletons"
    assert details == {
        f"c/{names[0]}.skeleton": f"identical to b/{names[0]}.skeleton",
        f"{inside}/{names[0]}.skeleton": f"identical to b/{names[0]}.skeleton",
        f"{inside}/{names[1]}.skeleton": f"identical to b/{names[1]}.skeleton",
        f"d/{names[2]}.skeleton": f"differs from b/{names[2]}.skeleton",
        f"d/{names[3]}.skeleton": f"differs from b/{names[3]}.skeleton",
    }


def test_only_so_many_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = write_skeleton_files(tmp_path / "a", clips(3))
    write_skeleton_files(tmp_path / "b", clips(3))
    monkeypatch.setattr(ntu_raw, "_COMPARED", 1)
    details = sorted(skip.detail for skip in planned(tmp_path).skipped)
    first, *rest = sorted(names)
    assert details == [
        *(f"as large as a/{name}.skeleton, not compared" for name in rest),
        f"identical to a/{first}.skeleton",
    ]


def test_clips_without_a_body(tmp_path: Path) -> None:
    names = write_skeleton_files(tmp_path, clips(2))
    empty = {"S002C001P001R001A009": "0\n", "S002C001P001R001A010": "3\n0\n0\n0\n"}
    zeros = skeleton_text([[(1, np.zeros((25, 3)))]] * 2)
    for name, text in {**empty, "S002C001P001R001A011": zeros}.items():
        (tmp_path / f"{name}.skeleton").write_text(text)
    done = convert(tmp_path, tmp_path.parent / f"{tmp_path.name}.set", "ntu_raw")
    assert done.dataset.names.tolist() == sorted(names)
    assert reasons(done) == dict.fromkeys([*empty, "S002C001P001R001A011"], NO_BODY)
    shutil.rmtree(done.dataset.path)


# --- the list of missing skeletons ------------------------------------------------------------------------------------

OFFICIAL = "302 of the captured samples have missing or incomplete skeleton data.\nPlease ignore these files.\n\n"


@pytest.mark.parametrize("ending", ["", ".skeleton"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_names_on_the_list_are_left_out(tmp_path: Path, ending: str, line_end: str) -> None:
    names = write_skeleton_files(tmp_path / "raw", clips())
    listed = [names[1], names[4], "S016C003P039R002A016"]
    file = tmp_path / "missing.txt"
    file.write_text(
        OFFICIAL.replace("\n", line_end) + line_end.join(n + ending for n in listed) + line_end * 3, newline=""
    )
    plan = planned(tmp_path / "raw", missing=file)
    assert {skip.name for skip in plan.skipped} == {names[1], names[4]}
    assert all(skip.reason == ON_THE_LIST and skip.asked for skip in plan.skipped)
    assert set(read_all(plan)) == set(names) - {names[1], names[4]}
    remark = next(remark for remark in plan.remarks if "missing.txt" in remark)
    assert "3 names" in remark and "2 of them are in the source" in remark and "1 are not in it" in remark
    assert "officially" not in remark  # six clips are no complete set
    assert plan.notes["missing_list"] == "missing.txt"
    done = convert(tmp_path / "raw", tmp_path / "out", "ntu_raw", ReadOptions(missing=file), strict=True)
    assert len(done.skipped) == 2  # asked for, so no fault


def test_a_complete_set_is_told_beside_the_official_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = write_skeleton_files(tmp_path, clips())
    monkeypatch.setattr(ntu_facts, "CLIPS", {"ntu60": 6, "ntu120": 114_480})
    (tmp_path / "list.txt").write_text(names[0])
    for missing in (None, tmp_path / "list.txt"):
        told = "\n".join(planned(tmp_path, missing=missing).remarks)
        assert "6 of its 6 clips are there (complete)" in told and "officially 302" in told


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["list.txt: holds no clip name"]),
        ("a heading\nand no name\n", ["list.txt: holds no clip name"]),
        ("head\nS001C001P001R001A001\nS001\n\nS001C001P001R001A002x\n",
         ["list.txt:3: 'S001' is no clip name", "list.txt:5: 'S001C001P001R001A002x' is no clip name"]),
        (None, ["list.txt: cannot be read: No such file or directory"]),
    ],
)  # fmt: skip
def test_faulty_lists(tmp_path: Path, text: str | None, words: list[str]) -> None:
    write_skeleton_files(tmp_path / "raw", clips(1))
    if text is not None:
        (tmp_path / "list.txt").write_text(text)
    with pytest.raises(InputError) as caught:
        planned(tmp_path / "raw", missing=tmp_path / "list.txt")
    assert len(caught.value.faults) == len(words)
    for word, fault in zip(words, caught.value.faults, strict=True):
        assert word in fault


# --- faults -----------------------------------------------------------------------------------------------------------


def test_sources_of_which_nothing_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04 no archive")
    file = tmp_path / "S001C001P001R001A001.skeleton"
    file.write_text("0\n")
    cases = [
        (tmp_path / "empty", "no .skeleton file in it"),
        (tmp_path / "broken.zip", "neither a folder nor a readable .zip archive (File is not a zip file)"),
        (file, "neither a folder nor a readable .zip archive (its name does not end in .zip)"),
    ]
    for source, words in cases:
        with pytest.raises(InputError) as caught:
            planned(source)
        assert f"{source}: {words}" in str(caught.value)
        assert ntu_raw.recognises(source) is None
    assert ntu_raw.recognises(tmp_path / "not there") is None


def test_all_faults_of_the_plan_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        planned(tmp_path / "none.zip", tracking="by-id", missing=tmp_path / "list.txt")
    unknown, missing, source = caught.value.faults
    assert unknown == "unknown tracking 'by-id'; did you mean 'by_id'?"
    assert "list.txt: cannot be read" in missing and "none.zip: neither" in source


def test_one_damaged_file_costs_itself_alone(tmp_path: Path) -> None:
    names = write_skeleton_files(tmp_path / "raw", clips(4))
    write_skeleton_zip(tmp_path / "raw" / "zipped.zip", [NtuClip(walk(12), 7)])
    (tmp_path / "raw" / "bad.zip").write_bytes(b"nothing")
    file = tmp_path / "raw" / f"{names[2]}.skeleton"
    file.write_bytes(file.read_bytes()[:5000])
    odd = [f"S003C001P001R001A00{number}.skeleton" for number in (1, 2, 3)]
    (tmp_path / "raw" / odd[0]).symlink_to(tmp_path / "nowhere")
    (tmp_path / "raw" / odd[1]).symlink_to(tmp_path / "raw" / odd[1])
    os.mkfifo(tmp_path / "raw" / odd[2])
    done = convert(tmp_path / "raw", tmp_path / "out", "ntu_raw")
    skipped = {skip.name: (skip.reason, skip.detail) for skip in done.skipped}
    assert set(skipped) == {f"{names[2]}.skeleton", "bad.zip", *odd}
    reason, detail = skipped[f"{names[2]}.skeleton"]
    lines = file.read_bytes().count(b"\n") + 1
    assert reason == "damaged" and detail.startswith(f"{file}:{lines}: ") and "frame 2 of 16" in detail
    assert skipped["bad.zip"][0] == "cannot be read" and "not a zip file" in skipped["bad.zip"][1]
    assert "No such file" in skipped[odd[0]][1] and "symbolic links" in skipped[odd[1]][1]
    assert skipped[odd[2]] == ("cannot be read", f"{tmp_path / 'raw' / odd[2]}: not a plain file")
    with pytest.raises(InputError, match="frame 2 of 16"):
        convert(tmp_path / "raw", tmp_path / "strict", "ntu_raw", strict=True)


def test_what_no_skeleton_file_can_be_is_not_even_read(tmp_path: Path) -> None:
    names = write_skeleton_files(tmp_path, clips(1))
    with (tmp_path / f"{names[0]}.skeleton").open("wb") as file:
        file.truncate(10 << 30)  # a hole, no disk is needed
    plan = planned(tmp_path)
    with pytest.raises(InputError, match="10240 MiB are too many"):
        list(plan.read(plan.items[0]))


def test_recognised_beside_damage(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"no archive")
    os.mkfifo(tmp_path / "b.zip")
    (tmp_path / "link").symlink_to(tmp_path / "link")
    assert ntu_raw.recognises(tmp_path) is None
    write_skeleton_files(tmp_path / "skeletons", clips(1))
    assert ntu_raw.recognises(tmp_path) is not None
    assert ntu_raw.recognises(tmp_path / "b.zip") is None


def test_recognised_by_a_name(tmp_path: Path) -> None:
    for folder, name in {"pku": "F001V001C001L001.skeleton", "other": "S001C001P001R001A001.txt"}.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text("0\n")
        assert ntu_raw.recognises(tmp_path / folder) is None
    write_skeleton_zip(tmp_path / "ntu.zip", clips(1))
    write_skeleton_files(tmp_path / "a" / "b", clips(1))
    assert ntu_raw.recognises(tmp_path / "ntu.zip") == "archive with S001C001P001R001A001.skeleton and more like it"
    assert ntu_raw.recognises(tmp_path / "a") == "folder with S001C001P001R001A001.skeleton and more like it"


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_archives_give_clips_or_faults(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("zip")
    path = folder / "a.zip"
    write_skeleton_zip(path, [NtuClip(walk(1), a) for a in range(2)])
    whole = path.read_bytes()
    where = data.draw(st.integers(0, len(whole) - 1) | st.integers(len(whole) - 400, len(whole) - 1))
    what = data.draw(st.binary(min_size=0, max_size=3))
    keep = data.draw(st.sampled_from([0, len(what), 10, len(whole)]))
    path.write_bytes(whole[:where] + what + whole[where + keep :])
    ntu_raw.recognises(path)
    try:
        plan = planned(path)
    except InputError:
        return
    for item in plan.items:
        try:
            found = list(plan.read(item))
        except InputError:
            continue
        assert all(isinstance(one, Clip | Skipped) for one in found)
