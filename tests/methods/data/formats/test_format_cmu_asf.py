"""CMU mocap as it is published: the folder, the table, planted faults, damage, whole conversions."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from writers_mocap import WrittenBone, amc_text, asf_text, cmu_bones, random_motion, slow_joints, write_table
from writers_text import damaged

from methods.data.conversion import convert
from methods.data.formats import cmu_asf
from methods.data.layouts import CMU31
from methods.data.reading.sources import Clip, ReadOptions, Skipped, Source
from methods.data.skeletons import TEST, TRAIN, UNUSED
from methods.errors import InputError

FRAMES = {"01_01": 6, "01_02": 4, "02_01": 5, "02_02": 7}
ROWS = [
    {"file": "01_01", "action": "walk", "fold": 1},
    {"file": "01_02.amc", "action": "jump", "fold": 2},
    {"file": "02/02_01", "action": "walk", "fold": 2, "subject": 12},
    {"file": "02_02", "action": "walk", "start": 2, "end": 3},
    {"file": "02_02", "action": "jump", "fold": 1, "start": 4},
]
METRES = 0.0254 / 0.45
SMALL = [
    WrittenBone("lfemur", "root", (0, -1, 0), 2.0),
    WrittenBone("rfemur", "root", (0, 1, 0), 2.0, dof=("rx", "rz")),
]


def write(folder: Path, bones: dict[str, list[WrittenBone]] | None = None) -> Path:
    """Two subjects of different bones, two motions each, and the table."""
    skeletons = bones or {"01": cmu_bones(1), "02": cmu_bones(2)}
    for name, frames in FRAMES.items():
        subject = name[:2]
        (folder / subject).mkdir(parents=True, exist_ok=True)
        (folder / subject / f"{subject}.asf").write_text(asf_text(skeletons[subject]))
        motion = random_motion(skeletons[subject], frames, frames)
        (folder / subject / f"{name}.amc").write_text(amc_text(skeletons[subject], motion))
    write_table(folder / "actions.csv", ROWS)
    return folder


def wanted(name: str) -> np.ndarray:
    bones = cmu_bones(int(name[:2]))
    return slow_joints(bones, random_motion(bones, FRAMES[name], FRAMES[name]), METRES).astype(np.float32)


def planned(source: Path, **options: Path) -> Source:
    return cmu_asf.plan(source, ReadOptions(**options), source)


def read_all(source: Source) -> dict[str, Clip | Skipped]:
    return {found.name: found for item in source.items for found in source.read(item)}


def test_round_trip(tmp_path: Path) -> None:
    plan = planned(write(tmp_path))
    assert (plan.layout, plan.class_names, plan.persons) == (CMU31, ("jump", "walk"), 1)
    assert plan.notes["unit"] == "m" and plan.notes["fps"] == 120 and plan.skipped == ()
    found = read_all(plan)
    assert list(found) == ["01_01", "01_02", "02_01", "02_02:2-3", "02_02:4-7"]
    for name, clip in found.items():
        assert isinstance(clip, Clip)
        first, _, last = name.partition(":")[2].partition("-")
        whole = wanted(name[:5])
        frames = whole[int(first) - 1 : int(last)] if first else whole
        np.testing.assert_allclose(clip.frames[:, 0], frames, rtol=1e-5, atol=1e-6)
        assert clip.frames.dtype == np.float32
    clips = [clip for clip in found.values() if isinstance(clip, Clip)]
    assert [clip.label for clip in clips] == [1, 0, 1, 1, 0]
    assert [clip.subjects for clip in clips] == [(1,), (1,), (12,), (2,), (2,)]
    assert [clip.sides["fold1"] for clip in clips] == [TEST, TRAIN, TRAIN, UNUSED, TEST]
    assert [clip.sides["fold2"] for clip in clips] == [TRAIN, TEST, TEST, UNUSED, TRAIN]


def test_a_whole_conversion(tmp_path: Path) -> None:
    write(tmp_path / "cmu")
    assert cmu_asf.recognises(tmp_path / "cmu") is not None
    done = convert(tmp_path / "cmu", tmp_path / "out", "cmu_asf")
    data = done.dataset
    assert (data.layout, len(data), data.lengths.tolist()) == (CMU31, 5, [6, 4, 5, 2, 4])
    assert data.splits["fold1"].tolist() == [2, 1, 1, 0, 2]
    again = convert(tmp_path / "cmu", tmp_path / "again", "cmu_asf", workers=2)
    assert again.dataset.fingerprint == data.fingerprint


def test_another_table_makes_other_work(tmp_path: Path) -> None:
    """The stamps of the items hold the table and the skeleton: nothing old is used again after either changed."""
    before = planned(write(tmp_path)).items
    write_table(tmp_path / "actions.csv", [*ROWS, {"file": "01_02", "action": "a", "start": 1, "end": 2}])
    skeleton = tmp_path / "02" / "02.asf"
    skeleton.write_text(skeleton.read_text() + "\n")
    after = planned(tmp_path).items
    assert all(old.stamp != new.stamp for old, new in zip(before, after, strict=True))
    assert planned(tmp_path).items == after


def test_the_table_may_lie_elsewhere(tmp_path: Path) -> None:
    source = write(tmp_path / "cmu")
    (source / "actions.csv").rename(tmp_path / "mine.csv")
    with pytest.raises(InputError, match=r"needs a table .* --table"):
        planned(source)
    assert len(planned(source, table=tmp_path / "mine.csv").items) == 4


def test_flat_folders_and_upper_case(tmp_path: Path) -> None:
    source = write(tmp_path / "cmu")
    for path in [*source.rglob("*.asf"), *source.rglob("*.amc")]:
        path.rename(source / path.name.upper())
    (source / "._01_01.amc").write_bytes(b"\0\5\x16\7")
    write_table(
        source / "actions.csv", [{**row, "file": str(row["file"])[-5:]} for row in ROWS if row["file"] != "01_02.amc"]
    )
    found = read_all(planned(source))
    assert list(found) == ["01_01", "02_01", "02_02:2-3", "02_02:4-7"]
    np.testing.assert_allclose(found["02_01"].frames[:, 0], wanted("02_01"), rtol=1e-5, atol=1e-6)  # type: ignore[union-attr]


def test_the_order_of_the_bones_in_the_file_does_not_matter(tmp_path: Path) -> None:
    source = write(tmp_path)
    bones = cmu_bones(2)
    (source / "02" / "02.asf").write_text(asf_text(bones[20:] + bones[:20]))
    found = read_all(planned(source))
    np.testing.assert_allclose(found["02_01"].frames[:, 0], wanted("02_01"), rtol=1e-5, atol=1e-6)  # type: ignore[union-attr]


def test_other_bones_make_a_layout_of_their_own(tmp_path: Path) -> None:
    plan = planned(write(tmp_path, {"01": SMALL, "02": SMALL}))
    assert (plan.layout.name, plan.layout.joints) == ("asf", ("root", "lfemur", "rfemur"))
    assert plan.layout.mirror == (0, 2, 1)
    assert read_all(plan)["01_01"].frames.shape == (6, 1, 3, 3)  # type: ignore[union-attr]


def test_a_subject_of_other_bones_is_left_out(tmp_path: Path) -> None:
    source = write(tmp_path, {"01": cmu_bones(1), "02": SMALL})
    write_table(source / "actions.csv", ROWS[1:])
    (source / "03").mkdir()
    (source / "03" / "03.asf").write_text(asf_text(cmu_bones(3)))
    plan = planned(source)
    assert plan.layout == CMU31 and [item.key for item in plan.items] == ["01/01_02.amc"]
    assert [(skip.name, skip.reason, skip.asked) for skip in plan.skipped] == [
        ("01/01_01", "not in the table", True),
        ("02/02_01.amc", "another skeleton than the rest", False),
        ("02/02_02.amc", "another skeleton than the rest", False),
    ]
    assert "lacks head, lclavicle" in plan.skipped[1].detail


def test_units_and_radians(tmp_path: Path) -> None:
    source = write(tmp_path)
    asf, amc = source / "01" / "01.asf", source / "01" / "01_01.amc"
    plain = read_all(planned(source))["01_01"].frames  # type: ignore[union-attr]
    asf.write_text(asf.read_text().replace("length 0.45", "length 0.9"))
    np.testing.assert_allclose(read_all(planned(source))["01_01"].frames, plain / 2, rtol=1e-5)  # type: ignore[union-attr]
    lines = []
    for line in amc.read_text().replace(":DEGREES", ":RADIANS").splitlines():
        words = line.split()
        keep = 4 if words[0] == "root" else 1
        if len(words) > 1 and not words[0].startswith(("#", ":")):
            words[keep:] = [repr(float(np.deg2rad(float(word)))) for word in words[keep:]]
        lines.append(" ".join(words))
    amc.write_text("\n".join(lines))
    np.testing.assert_allclose(read_all(planned(source))["01_01"].frames, plain / 2, rtol=1e-4, atol=1e-6)  # type: ignore[union-attr]


def swap(old: str, new: str, count: int = -1) -> Callable[[str], str]:
    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new, count)

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (swap("root ", "head ", 1), "01_01.amc:5: 'head' "),
        (lambda text: text[: text.rindex("\n", 0, -1)], "frame 6 ends without "),
        (swap(":DEGREES\n1\n", ":DEGREES\n"), "01_01.amc:4: 'root' before the first frame's number"),
        (swap("\n2\nroot", "\nroot"), "'root' is there twice in frame 1"),
        (swap("\n2\n", "\n2\nspine 1 2 3\n"), "'spine' is no bone that the skeleton lets move"),
        (swap("\nroot ", "\nroot 1 ", 1), "01_01.amc:5: 'root' has 7 values, wanted 6"),
        (swap("\nroot ", "\nroot x", 1), "01_01.amc:5: 'x"),
        (lambda _: "", "01_01.amc: holds no frame"),
        (lambda _: ":DEGREES\n", "01_01.amc: holds no frame"),
        (lambda text: text[:200] + "\0" + text[200:], "no text"),
    ],
)
def test_faults_of_a_motion(tmp_path: Path, change: Callable[[str], str], words: str) -> None:
    source = write(tmp_path)
    path = source / "01" / "01_01.amc"
    path.write_text(change(path.read_text()))
    plan = planned(source)
    with pytest.raises(InputError) as caught:
        list(plan.read(plan.items[0]))
    assert words in str(caught.value) and str(path) in str(caught.value)
    assert len(list(plan.read(plan.items[1]))) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (swap(":hierarchy", "hierarchy"), "no section :hierarchy"),
        (lambda text: text[: text.index(":hierarchy")], "no section :hierarchy; truncated"),
        (lambda text: text[: text.rindex("rhand")], "hang from nothing"),
        (swap("length 0.45", "length 0"), "01.asf:6: length 0.0 is not above 0"),
        (swap("name rhand", "name lhand"), "'lhand' is there twice"),
        (swap("root lhipjoint", "root rump lhipjoint"), "no bone 'rump' in the bone data"),
        (swap("root lhipjoint", "root lfemur lhipjoint"), "'lfemur' hangs from two bones"),
        (swap("axis XYZ", "axis XYX"), "01.asf:12: 'XYX' is no order of the axes"),
        (swap("order TX TY TZ", "order TX TY TX"), "01.asf:11: degrees of freedom: one is there twice"),
        (swap("dof r", "dof l r", 1), "degrees of freedom: 'l' cannot be read"),
        (swap("     length", "     longth", 1), "a bone without length"),
        (swap("  end\n:hierarchy", ":hierarchy"), "a bone without end; truncated"),
        (swap(":bonedata\n", ":bonedata\n  id 7\n"), "'id' outside of begin and end"),
        (swap("direction ", "direction x", 1), "'direction' needs 3 numbers"),
        (swap("direction ", "direction inf ", 1), "'direction' needs 3 numbers"),
    ],
)
def test_faults_of_a_skeleton_cost_its_motions(tmp_path: Path, change: Callable[[str], str], words: str) -> None:
    source = write(tmp_path)
    path = source / "01" / "01.asf"
    path.write_text(change(path.read_text()))
    plan = planned(source)
    assert [item.key for item in plan.items] == ["02/02_01.amc", "02/02_02.amc"]
    assert [(skip.name, skip.reason) for skip in plan.skipped] == [
        ("01/01_01.amc", "its skeleton (.asf) is damaged"),
        ("01/01_02.amc", "its skeleton (.asf) is damaged"),
    ]
    assert words in plan.skipped[0].detail and str(path) in plan.skipped[0].detail


def test_sources_that_cannot_be_read(tmp_path: Path) -> None:
    source = write(tmp_path / "cmu")
    (source / "01" / "01.asf").write_text("")
    (source / "02" / "02.asf").write_text(":root")
    with pytest.raises(InputError) as caught:
        planned(source)
    assert len(caught.value.faults) == 2 and "no section" in caught.value.faults[0]
    (tmp_path / "empty").mkdir()
    write_table(tmp_path / "empty" / "actions.csv", ROWS)
    with pytest.raises(InputError, match=r"no \.asf file(.|\n)*no \.amc file"):
        planned(tmp_path / "empty")


def test_a_motion_without_a_skeleton(tmp_path: Path) -> None:
    source = write(tmp_path)
    (source / "02" / "02.asf").rename(source / "02" / "a.asf")
    assert len(planned(source).items) == 4  # the only one beside it
    (source / "02" / "b.asf").write_text((source / "02" / "a.asf").read_text())
    plan = planned(source)
    assert len(plan.items) == 2 and {skip.reason for skip in plan.skipped} == {"no skeleton (.asf) for it"}


def test_frames_that_are_not_there(tmp_path: Path) -> None:
    source = write(tmp_path)
    write_table(
        source / "actions.csv", [{"file": "01_01", "action": "a", "start": 3, "end": 7}, {"file": "9_9", "action": "b"}]
    )
    plan = planned(source)
    found = read_all(plan)["01_01:3-7"]
    assert isinstance(found, Skipped) and "line 2 of the table), it has 6" in found.detail
    assert [skip.reason for skip in plan.skipped if not skip.asked] == ["no file for a line of the table"]


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(["01.asf", "01_01.amc", "table"]))
def test_damage_is_refused_in_words(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, which: str) -> None:
    source = tmp_path_factory.mktemp("cmu")
    bones = [replace(bone) for bone in SMALL]
    (source / "01.asf").write_text(asf_text(bones))
    (source / "01_01.amc").write_text(amc_text(bones, random_motion(bones, 3)))
    write_table(source / "actions.csv", ROWS[:2])
    path = source / ("actions.csv" if which == "table" else which)
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    found: dict[str, Clip | Skipped] = {}
    with contextlib.suppress(InputError):
        found = read_all(planned(source))
    assert all(isinstance(clip, Skipped) or clip.frames.shape[1:] == (1, 3, 3) for clip in found.values())
