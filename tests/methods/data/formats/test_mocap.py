"""Where joints are: against closed forms and a slow way, and ASF against BVH; trees, layouts, rows of tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from writers_mocap import (
    Node,
    WrittenBone,
    WrittenMotion,
    all_nodes,
    amc_text,
    as_bvh,
    asf_text,
    bvh_text,
    cmu_bones,
    random_motion,
    slow_bvh,
    slow_joints,
    slow_turn,
    slow_xyz,
)

from methods.data.layouts import CMU31
from methods.data.reading import asf_files, bvh_files
from methods.data.reading.mocap import (
    Cuts,
    Tree,
    clip_names,
    cut,
    cuts_of,
    difference,
    match_rows,
    rotation,
    shared_layout,
    unique_names,
)
from methods.data.reading.sources import Clip, Skipped
from methods.data.reading.tables import ActionTable, Row
from methods.errors import InputError

CMU_METRES = 0.056444  # as the database's FAQ says


def read_asf(folder: Path, bones: Sequence[WrittenBone], motion: WrittenMotion, length: float = 0.45) -> np.ndarray:
    (folder / "1.asf").write_text(asf_text(bones, length))
    (folder / "1.amc").write_text(amc_text(bones, motion))
    skeleton = asf_files.parse_asf(folder / "1.asf")
    assert skeleton.tree.joints[0] == "root"
    joints = asf_files.joints_of(skeleton, asf_files.parse_amc(folder / "1.amc", skeleton))
    return joints[:, [skeleton.tree.joints.index(name) for name in ("root", *(bone.name for bone in bones))]]


def read_bvh(folder: Path, root: Node, values: np.ndarray) -> np.ndarray:
    (folder / "1.bvh").write_text(bvh_text(root, values))
    return bvh_files.joints_of(*bvh_files.read_bvh(folder / "1.bvh"))


@given(st.lists(st.sampled_from("xyz"), min_size=1, max_size=4), st.integers(0, 99))
def test_rotations_are_products_of_turns(axes: list[str], seed: int) -> None:
    angles = np.random.default_rng(seed).uniform(-200, 200, (3, len(axes)))
    found = rotation("".join(axes), np.deg2rad(angles))
    for row, turn in zip(angles, found, strict=True):
        wanted = np.eye(3)
        for axis, angle in zip(axes, row, strict=True):
            wanted = wanted @ slow_turn(axis, angle)
        np.testing.assert_allclose(turn, wanted, atol=1e-12)


def test_no_axis_no_rotation() -> None:
    np.testing.assert_array_equal(rotation("", np.zeros((2, 0))), [np.eye(3), np.eye(3)])


def test_one_asf_bone_bent_by_a_right_angle(tmp_path: Path) -> None:
    bones = [
        WrittenBone("thigh", "root", (0, -1, 0), 2.0, dof=("rx",)),
        WrittenBone("shin", "thigh", (0, -1, 0), 3.0, dof=("rx",)),
    ]
    root = np.array([[1.0, 10, 0, 0, 0, 0]] * 2)
    motion = WrittenMotion(root, {"thigh": np.array([[0.0], [90.0]]), "shin": np.array([[0.0], [-90.0]])})
    found = read_asf(tmp_path, bones, motion, length=1.0) / 0.0254
    np.testing.assert_allclose(found[0], [[1, 10, 0], [1, 8, 0], [1, 5, 0]], atol=1e-12)
    # about x by 90 degrees, down becomes backward; the shin turned back points down again
    np.testing.assert_allclose(found[1], [[1, 10, 0], [1, 10, -2], [1, 7, -2]], atol=1e-12)


def test_an_asf_bone_turns_about_its_own_axes(tmp_path: Path) -> None:
    """Own axes turned by 90 degrees about z: the bone's x is the world's y."""
    bones = [WrittenBone("arm", "root", (1, 0, 0), 1.0, axis=(0, 0, 90), dof=("rx",))]
    motion = WrittenMotion(np.zeros((1, 6)), {"arm": np.array([[90.0]])})
    np.testing.assert_allclose(read_asf(tmp_path, bones, motion, 1.0)[0, 1] / 0.0254, [0, 0, -1], atol=1e-12)


def test_one_bvh_joint_bent_by_a_right_angle(tmp_path: Path) -> None:
    knee = Node("knee", (0, -2, 0), ("Xrotation",), end=(0, -3, 0))
    ankle = Node("ankle", (0, -3, 0), (), end=(0, 0, 1))
    knee.children, knee.end = [ankle], None
    root = Node("hip", (0, 0, 0), ("Xposition", "Yposition", "Zposition", "Xrotation"), [knee])
    found = read_bvh(tmp_path, root, np.array([[1.0, 10, 0, 0, 0], [1, 10, 0, 0, 90], [1, 10, 0, 90, 0]]))
    np.testing.assert_allclose(found[0], [[1, 10, 0], [1, 8, 0], [1, 5, 0]], atol=1e-12)
    np.testing.assert_allclose(found[1], [[1, 10, 0], [1, 8, 0], [1, 8, -3]], atol=1e-12)
    np.testing.assert_allclose(found[2], [[1, 10, 0], [1, 10, -2], [1, 10, -5]], atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_asf_against_the_slow_way(tmp_path: Path, seed: int) -> None:
    bones = cmu_bones(seed)
    motion = random_motion(bones, 5, seed)
    wanted = slow_joints(bones, motion, CMU_METRES)
    np.testing.assert_allclose(read_asf(tmp_path, bones, motion), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_asf_and_bvh_of_one_motion_agree(tmp_path: Path, seed: int) -> None:
    """A BVH joint is where its bone begins, which is the far end of the bone above."""
    bones = cmu_bones(seed)
    motion = random_motion(bones, 5, seed)
    root, values = as_bvh(bones, motion)
    by_asf = read_asf(tmp_path, bones, motion) / (0.0254 / 0.45)
    by_bvh = read_bvh(tmp_path, root, values)
    ends = {name: by_asf[:, column] for column, name in enumerate(("root", *(bone.name for bone in bones)))}
    parents = {bone.name: bone.parent for bone in bones} | {"root": "root"}
    wanted = np.stack([ends[parents[node.name]] for node in all_nodes(root)], axis=1)
    np.testing.assert_allclose(by_bvh, wanted, atol=1e-6)


CHANNELS = [axis + what for axis in "XYZ" for what in ("rotation", "position")]


@st.composite
def trees(draw: st.DrawFn) -> Node:
    """A tree with channels in any order and number, offsets of the root too."""
    count = draw(st.integers(2, 6))
    number = st.floats(-5, 5).map(lambda value: round(value, 3))
    channels = st.tuples(st.permutations(CHANNELS), st.integers(0, 6)).map(lambda drawn: tuple(drawn[0])[: drawn[1]])
    nodes = [Node(f"j{index}", draw(st.tuples(number, number, number)), draw(channels)) for index in range(count)]
    for index in range(1, count):
        nodes[draw(st.integers(0, index - 1))].children.append(nodes[index])
    for node in nodes:
        node.end = (0.0, 1.0, 0.0) if not node.children else None
    return nodes[0]


@settings(max_examples=40, deadline=None)
@given(trees(), st.integers(0, 99))
def test_any_bvh_against_the_slow_way(tmp_path_factory: pytest.TempPathFactory, root: Node, seed: int) -> None:
    width = sum(len(node.channels) for node in all_nodes(root))
    assume(width)
    values = np.random.default_rng(seed).uniform(-180, 180, (3, width)).round(3)
    found = read_bvh(tmp_path_factory.mktemp("bvh"), root, values)
    np.testing.assert_allclose(found, slow_bvh(root, values), atol=1e-9)


def test_root_offsets_are_added_and_joint_positions_replace_theirs(tmp_path: Path) -> None:
    child = Node("b", (7, 7, 7), ("Yposition",), end=(0, 0, 1))
    root = Node("a", (1, 2, 3), ("Xposition",), [child])
    np.testing.assert_array_equal(read_bvh(tmp_path, root, np.array([[10.0, 4.0]]))[0], [[11, 2, 3], [18, 6, 10]])


def test_the_root_rotation_turns_everything(tmp_path: Path) -> None:
    bones = [WrittenBone("a", "root", (1, 0, 0), 1.0, dof=())]
    turn = [30.0, -50.0, 70.0]
    found = read_asf(tmp_path, bones, WrittenMotion(np.array([[1.0, 2, 3, *turn]])), 1.0)[0] / 0.0254
    np.testing.assert_allclose(found[1] - found[0], slow_xyz(turn) @ [1, 0, 0], atol=1e-12)
    assert math.isclose(float(np.linalg.norm(found[1] - found[0])), 1)


def test_the_layout_that_most_share() -> None:
    usual = Tree(("a", "left_b", "right_b"), (-1, 0, 0))
    turned = Tree(("a", "right_b", "left_b"), (-1, 0, 0))
    other = Tree(("a", "left_b", "c"), (-1, 0, 0))
    hung = Tree(("a", "left_b", "right_b"), (-1, 0, 1))
    files = {Path(str(index)): tree for index, tree in enumerate((other, usual, turned, usual, hung))}
    layout, order = shared_layout(files, "mine")
    assert (layout.name, layout.joints, layout.mirror) == ("mine", usual.joints, (0, 2, 1))
    assert order == {Path("1"): (0, 1, 2), Path("2"): (0, 2, 1), Path("3"): (0, 1, 2)}
    assert difference(other, layout) == "has c; lacks right_b"
    assert difference(hung, layout) == "the same joints, hung up otherwise"


def test_a_tree_that_makes_no_layout_is_told_by_its_file() -> None:
    with pytest.raises(InputError, match=r"^one\.asf: layout 'asf': needs at least two joints"):
        shared_layout({Path("one.asf"): Tree(("root",), (-1,))}, "asf")


def test_cmu31_is_known_whatever_the_order() -> None:
    back = tuple(reversed(range(31)))
    tree = Tree(
        tuple(CMU31.joints[joint] for joint in back),
        tuple(-1 if CMU31.parents[joint] < 0 else 30 - CMU31.parents[joint] for joint in back),
    )
    layout, order = shared_layout({Path("1"): tree}, "x")
    assert layout == CMU31 and order[Path("1")] == back


def test_names_are_made_unique() -> None:
    assert unique_names(("a", "b", "a", "a_2", "a")) == ("a", "b", "a_2", "a_2_2", "a_3")


def row(line: int, key: str, start: int = 0, end: int = 0, subject: int = -1) -> Row:
    return Row(line, key, 0, subject, -1, start, end)


def test_rows_find_their_files(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("01/01_01.amc", "01/walk.amc", "02/Walk.AMC", "03/x.amc")]
    rows = (row(2, "01_01"), row(3, "walk"), row(4, "02/walk"), row(5, "9/walk"), row(6, "01_01", 3, 4))
    found = match_rows(tmp_path, files, ActionTable(Path("t.csv"), rows, ("a",), ()))
    assert found.rows == {files[0]: (rows[0], rows[4]), files[2]: (rows[2],)}
    assert [(skip.name, skip.reason, skip.asked) for skip in found.skipped] == [
        ("walk", "several files of the name in the table", False),
        ("9/walk", "no file for a line of the table", False),
        ("01/walk", "not in the table", True),
        ("03/x", "not in the table", True),
    ]
    assert "t.csv:3: 01/walk.amc, 02/Walk.AMC" in found.skipped[0].detail
    names = clip_names(tmp_path, files)
    assert list(names.values()) == ["01_01", "01/walk", "02/Walk", "x"]


def test_cutting(tmp_path: Path) -> None:
    frames = np.arange(1, 11, dtype=np.float32).reshape(10, 1, 1, 1)
    rows = (
        row(2, "07_01"),
        row(3, "07_01", 4, 6, 9),
        row(4, "07_01", 9),
        row(5, "07_01", 0, 2),
        row(6, "07_01", 8, 11),
    )
    cuts = cuts_of("07_01", rows, ActionTable(Path("t"), rows, ("a",), ()))
    found = list(cut(Path("f"), frames, cuts))
    kept = [(clip.name, clip.frames.ravel().tolist(), clip.subjects) for clip in found if isinstance(clip, Clip)]
    assert kept == [
        ("07_01", list(range(1, 11)), (7,)),
        ("07_01:4-6", [4, 5, 6], (9,)),
        ("07_01:9-10", [9, 10], (7,)),
        ("07_01:1-2", [1, 2], (7,)),
    ]
    assert found[4] == Skipped(
        "07_01:8-11", "frames that the file does not have", "f: frames 8 to 11 (line 6 of the table), it has 10"
    )
    rested = [clip for clip in cut(Path("f"), frames, cuts, rest=1) if isinstance(clip, Clip)]
    assert [int(clip.frames[0, 0, 0, 0]) for clip in rested] == [2, 4, 9, 2]
    assert [bool(clip.mended) for clip in rested] == [True, False, False, True]


@pytest.mark.parametrize(
    ("name", "subject"), [("07_01", 7), ("a/143_12", 143), ("7", -1), ("walk_01", -1), ("07_01_b", -1), ("2023_05", -1)]
)
def test_subjects_by_cmus_names(name: str, subject: int) -> None:
    cuts: Cuts = cuts_of(name, (row(2, name),), ActionTable(Path("t"), (), ("a",), ()))
    assert cuts.subjects == (subject,)
