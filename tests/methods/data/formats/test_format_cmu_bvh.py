"""Mocap in BVH files: any tree, the cgspeed release of CMU's, planted faults, damage, whole conversions."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from writers_mocap import Node, all_nodes, bvh_text, slow_bvh, write_table
from writers_text import damaged

from methods.data.conversion import convert
from methods.data.formats import cmu_bvh
from methods.data.formats.cmu_bvh import CGSPEED_JOINTS
from methods.data.reading.sources import Clip, ReadOptions, Skipped, Source
from methods.data.skeletons import TEST, TRAIN
from methods.errors import InputError

ROWS = [
    {"file": "a.bvh", "action": "walk", "fold": 1, "subject": 4},
    {"file": "b", "action": "jump", "fold": 2},
    {"file": "b", "action": "walk", "fold": 2, "start": 2, "end": 3},
]
POSITIONS = ("Xposition", "Yposition", "Zposition")
TURNS = ("Zrotation", "Xrotation", "Yrotation")


def tree(scale: float = 1.0, extra: bool = False) -> Node:
    """Hips with two legs; six channels at the root, three or one elsewhere."""
    legs = []
    for side, x in (("Left", 1.0), ("Right", -1.0)):
        foot = Node(f"{side}Foot", (0, -4 * scale, 0.5), ("Xrotation",), end=(0, 0, 1))
        legs.append(Node(f"{side}UpLeg", (x * scale, -1, 0), TURNS, [foot]))
    if extra:
        legs.append(Node("Tail", (0, 0, -1), TURNS, end=(0, 0, -1)))
    return Node("Hips", (0, 0, 0), POSITIONS + TURNS, legs)


def values(root: Node, frames: int, seed: int = 0) -> np.ndarray:
    width = sum(len(node.channels) for node in all_nodes(root))
    rng = np.random.default_rng(seed)
    return (rng.normal(0, 30, (1, width)) + np.cumsum(rng.normal(0, 3, (frames, width)), axis=0)).round(4)


FILES = {"a": (tree(), 5), "b": (tree(1.5), 4)}


def write(folder: Path, deep: str = "sub") -> Path:
    (folder / deep).mkdir(parents=True, exist_ok=True)
    for seed, (name, (root, frames)) in enumerate(FILES.items()):
        (folder / deep / f"{name}.bvh").write_text(bvh_text(root, values(root, frames, seed)))
    write_table(folder / "actions.csv", ROWS)
    return folder


def planned(source: Path, **options: Path) -> Source:
    return cmu_bvh.plan(source, ReadOptions(**options), source)


def read_all(source: Source) -> dict[str, Clip | Skipped]:
    read = pickle.loads(pickle.dumps(source.read))
    return {found.name: found for item in source.items for found in read(item)}


def test_round_trip(tmp_path: Path) -> None:
    plan = planned(write(tmp_path))
    assert plan.layout.joints == ("Hips", "LeftUpLeg", "LeftFoot", "RightUpLeg", "RightFoot")
    assert plan.layout.parents == (-1, 0, 1, 0, 3) and plan.layout.mirror == (0, 3, 4, 1, 2)
    assert (plan.notes["unit"], plan.notes["scale"], plan.notes["fps"]) == ("as in the files", 1.0, 120.0)
    assert plan.skipped == () and plan.remarks == ()
    found = read_all(plan)
    assert list(found) == ["a", "b", "b:2-3"]
    clips = [clip for clip in found.values() if isinstance(clip, Clip)]
    for clip, (name, part) in zip(clips, [("a", slice(None)), ("b", slice(None)), ("b", slice(1, 3))], strict=True):
        root, frames = FILES[name]
        wanted = slow_bvh(root, values(root, frames, "ab".index(name)))[part]
        np.testing.assert_allclose(clip.frames[:, 0], wanted, rtol=1e-6, atol=1e-5)
    assert [(clip.label, clip.subjects) for clip in clips] == [(1, (4,)), (0, (-1,)), (1, (-1,))]
    assert not any(clip.mended for clip in clips)
    assert [clip.sides for clip in clips] == [{"fold1": TEST, "fold2": TRAIN}, *[{"fold1": TRAIN, "fold2": TEST}] * 2]


def test_a_whole_conversion(tmp_path: Path) -> None:
    write(tmp_path / "bvh")
    assert "sub/" in str(cmu_bvh.recognises(tmp_path / "bvh"))
    done = convert(tmp_path / "bvh", tmp_path / "out", "cmu_bvh")
    assert done.dataset.lengths.tolist() == [5, 4, 2] and done.dataset.splits["fold1"].tolist() == [2, 1, 1]
    assert done.dataset.layout == planned(tmp_path / "bvh").layout and done.skipped == ()


def test_the_same_file_written_otherwise(tmp_path: Path) -> None:
    source = write(tmp_path)
    path = source / "sub" / "a.bvh"
    plain = read_all(planned(source))["a"].frames  # type: ignore[union-attr]
    text = path.read_text()
    for other in (
        text.replace("\n", "\r\n") + "\r\n\r\n",
        "\ufeff" + text,
        text.replace("\t", "    ").replace("\n{", " {").replace("    {", "{"),
        text.replace("Frames: ", "Frames:\t").replace("Frame Time:", "\nFrame Time:  "),
        text.replace("MOTION", "Motion").replace("zrotation", "ZROTATION").replace("HIERARCHY", "Hierarchy"),
        text.replace(" ", "\t").replace("End\tSite", "End Site").replace("Frame\tTime", "Frame Time"),
    ):
        path.write_bytes(other.encode())
        np.testing.assert_array_equal(read_all(planned(source))["a"].frames, plain)  # type: ignore[union-attr]


def test_names_that_are_there_twice_or_not_at_all(tmp_path: Path) -> None:
    root = Node("hip", (0, 0, 0), TURNS, [Node("hip", (0, 1, 0), TURNS, [Node("", (0, 1, 0), TURNS, end=(0, 1, 0))])])
    (tmp_path / "a.bvh").write_text(bvh_text(root, values(root, 2)))
    write_table(tmp_path / "actions.csv", [{"file": "a", "action": "walk"}])
    assert planned(tmp_path).layout.joints == ("hip", "hip_2", "joint")


def test_another_tree_is_left_out_and_other_rates_are_told(tmp_path: Path) -> None:
    source = write(tmp_path)
    root = tree(extra=True)
    (source / "c.bvh").write_text(bvh_text(root, values(root, 3)))
    slow = tree(2)
    (source / "d.bvh").write_text(bvh_text(slow, values(slow, 3), seconds=1 / 30))
    write_table(source / "actions.csv", [*ROWS[:2], {"file": "c", "action": "x"}, {"file": "d", "action": "x"}])
    plan = planned(source)
    assert [(skip.name, skip.reason) for skip in plan.skipped] == [("c.bvh", "another skeleton than the rest")]
    assert "has Tail" in plan.skipped[0].detail
    assert plan.notes["fps"] == [30.0, 120.0] and "2 different frame rates (30, 120 a second)" in plan.remarks[0]


def cgspeed() -> Node:
    """The 31 joints of the MotionBuilder release."""

    def chain(*names: str) -> Node:
        node = None
        for name in reversed(names):
            ends = {"end": (0.0, 1.0, 0.0)} if node is None else {"children": [node]}
            node = Node(name, (0.0, 1.5, 0.0), TURNS, **ends)  # type: ignore[arg-type]
        assert node is not None
        return node

    def leg(side: str) -> Node:
        return chain(f"{side[0]}HipJoint", *(side + part for part in ("UpLeg", "Leg", "Foot", "ToeBase")))

    def arm(side: str) -> Node:
        top = chain(*(side + part for part in ("Shoulder", "Arm", "ForeArm", "Hand", "FingerBase", "HandIndex1")))
        top.children[0].children[0].children[0].children.append(chain(f"{side[0]}Thumb"))
        return top

    back = chain("LowerBack", "Spine", "Spine1")
    back.children[0].children[0].end = None
    back.children[0].children[0].children = [chain("Neck", "Neck1", "Head"), arm("Left"), arm("Right")]
    return Node("Hips", (0, 0, 0), POSITIONS + TURNS, [leg("Left"), leg("Right"), back])


def with_rest(root: Node, frames: int) -> np.ndarray:
    out = values(root, frames)
    out[0, 3:] = 0
    out[0, [9, 20]] = -21, 16
    out[0, :3] = out[1, :3]
    return out


def test_cmus_motions_by_cgspeed(tmp_path: Path) -> None:
    root = cgspeed()
    assert {node.name for node in all_nodes(root)} == CGSPEED_JOINTS and len(CGSPEED_JOINTS) == 31
    plain = with_rest(root, 6)
    (tmp_path / "07_01.bvh").write_text(bvh_text(root, plain))
    row = {"file": "07_01", "action": "a"}
    write_table(tmp_path / "t.csv", [row, {**row, "start": 1, "end": 3}])
    plan = planned(tmp_path, table=tmp_path / "t.csv")
    assert (plan.notes["unit"], plan.notes["scale"]) == ("m", 0.0254 / 0.45)
    assert plan.layout.mirror[plan.layout.joints.index("LThumb")] == plan.layout.joints.index("RThumb")
    found = [clip for clip in read_all(plan).values() if isinstance(clip, Clip)]
    wanted = slow_bvh(root, plain) * 0.056444
    np.testing.assert_allclose(found[0].frames[:, 0], wanted[1:], rtol=2e-5, atol=1e-5)
    np.testing.assert_allclose(found[1].frames[:, 0], wanted[:3], rtol=2e-5, atol=1e-5)
    assert [(clip.subjects, bool(clip.mended)) for clip in found] == [((7,), True), ((7,), False)]


@pytest.mark.parametrize("how", ["a motion", "elsewhere", "other joints", "alone"])
def test_a_first_frame_that_is_no_t_pose_stays(tmp_path: Path, how: str) -> None:
    root = cgspeed()
    plain = with_rest(root, 4)
    if how == "a motion":
        plain[0] = values(root, 1)[0]
    if how == "elsewhere":
        plain[0, 0] += 5
    if how == "other joints":
        root.name = "Pelvis"
    if how == "alone":
        plain = plain[:1]
    (tmp_path / "a.bvh").write_text(bvh_text(root, plain))
    write_table(tmp_path / "actions.csv", [{"file": "a", "action": "walk"}])
    (clip,) = read_all(planned(tmp_path)).values()
    assert isinstance(clip, Clip) and len(clip.frames) == len(plain) and not clip.mended


def swap(old: str, new: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new, 1)

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda _: "", "a.bvh:1: ends inside the hierarchy"),
        (swap("HIERARCHY", "HIERARCHIE"), "a.bvh:1: 'HIERARCHIE' where HIERARCHY was expected"),
        (lambda text: text[:150], "truncated"),
        (lambda text: text[: text.index("MOTION")], "ends without MOTION; truncated"),
        (swap("MOTION", "}\nMOTION"), "something behind the last brace"),
        (swap("CHANNELS 6 ", "CHANNELS 5 "), "a.bvh:5: CHANNELS 5 is followed by"),
        (swap("CHANNELS 6 Xposition", "CHANNELS 6 Wposition"), "a.bvh:5: CHANNELS 6 is followed by 'wposition"),
        (swap("OFFSET 0.0 ", "OFFSET zero "), "a.bvh:4: offset 'zero' is no number"),
        (swap("OFFSET 0.0 0.0 0.0", "OFFSET 0.0 0.0"), "a.bvh:5: offset 'CHANNELS' is no number"),
        (swap("End Site", "End Sight"), "'Sight' where Site was expected"),
        (swap("Frames: 5", "Frames: five"), "'Frames: five' where 'Frames: number' was expected"),
        (swap("Frame Time", "Frame Tim"), "where 'Frame Time: number' was expected"),
    ],
)
def test_faults_of_a_hierarchy_cost_the_file(tmp_path: Path, change: Callable[[str], str], words: str) -> None:
    source = write(tmp_path)
    path = source / "sub" / "a.bvh"
    path.write_text(change(path.read_text()))
    plan = planned(source)
    assert [item.key for item in plan.items] == ["sub/b.bvh"]
    assert [(skip.name, skip.reason) for skip in plan.skipped] == [("a.bvh", "damaged")]
    assert words in plan.skipped[0].detail and str(path) in plan.skipped[0].detail


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (swap("Frames: 5", "Frames: 6"), "a.bvh:42: truncated: 5 frames, the file says 6"),
        (swap("Frames: 5", "Frames: 4"), "a.bvh:42: 5 frames, the file says 4"),
        (lambda text: text[: text.rindex(" ")] + "\n", "a.bvh:42: has 13 numbers, wanted 14"),
        (lambda text: text[: text.rindex(" ")] + " 1e\n", "a.bvh:42: '1e' is no number"),
        (lambda text: text.replace("\n" + text.splitlines()[38], "\n", 1), "a.bvh:39: has 0 numbers, wanted 14"),
    ],
)
def test_faults_of_the_frames(tmp_path: Path, change: Callable[[str], str], words: str) -> None:
    source = write(tmp_path)
    path = source / "sub" / "a.bvh"
    path.write_text(change(path.read_text()))
    plan = planned(source)
    with pytest.raises(InputError) as caught:
        list(plan.read(plan.items[0]))
    assert words in str(caught.value)
    assert len(list(plan.read(plan.items[1]))) == 2


def test_sources_that_cannot_be_read(tmp_path: Path) -> None:
    source = write(tmp_path / "bvh")
    for path in source.rglob("*.bvh"):
        path.write_text("HIERARCHY")
    with pytest.raises(InputError, match=r"no file of .*actions\.csv can be read") as caught:
        planned(source)
    assert len(caught.value.faults) == 3
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match=r"no \.bvh file"):
        planned(tmp_path / "none", table=source / "actions.csv")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damage_is_refused_in_words(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    source = write(tmp_path_factory.mktemp("bvh"))
    path = source / "sub" / "a.bvh"
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    found: dict[str, Clip | Skipped] = {}
    with contextlib.suppress(InputError):
        plan = planned(source)
        found = {clip.name: clip for item in plan.items for clip in plan.read(item)}
        wanted = (1, plan.layout.num_joints, 3)
    assert all(isinstance(clip, Skipped) or clip.frames.shape[1:] == wanted for clip in found.values())
