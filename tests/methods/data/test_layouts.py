from __future__ import annotations

import dataclasses
import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.data.layouts import (
    CMU31,
    COCO17,
    KINECT20,
    LAYOUTS,
    NTU25,
    OPENNI15,
    OPENPOSE18,
    Layout,
    get_layout,
    layout_from_parts,
    load_layout,
)
from methods.data.layouts.joint_names import MOST_PARTS, PARTS, split_sides
from methods.errors import InputError
from methods.nn.graph import adjacency

every_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)

# 1-based (child, parent), as the official graph files write them
NTU_BONES = (
    "1 2,2 21,3 21,4 3,5 21,6 5,7 6,8 7,9 21,10 9,11 10,12 11,13 1,14 13,15 14,16 15,17 1,18 17,19 18,20 19,"
    "22 23,23 8,24 25,25 12"
)
UCLA_BONES = "1 2,2 3,4 3,5 3,6 5,7 6,8 7,9 3,10 9,11 10,12 11,13 1,14 13,15 14,16 15,17 1,18 17,19 18,20 19"


def bones(text: str) -> set[tuple[int, int]]:
    return {(int(pair.split()[0]) - 1, int(pair.split()[1]) - 1) for pair in text.split(",")}


@pytest.mark.parametrize(("layout", "text", "centre"), [(NTU25, NTU_BONES, 20), (KINECT20, UCLA_BONES, 2)])
def test_published_bones_and_centre(layout: Layout, text: str, centre: int) -> None:
    assert set(layout.bones) == bones(text)
    assert layout.centre == layout.root == centre
    assert layout.shoulders == (4, 8)


def pairs(layout: Layout, text: str) -> set[tuple[str, str]]:
    return {(layout.joints[child], layout.joints[parent]) for child, parent in bones(text)}


def named(layout: Layout) -> set[tuple[str, str]]:
    return {(layout.joints[child], layout.joints[parent]) for child, parent in layout.bones}


@every_layout
def test_mirror_swaps_left_and_right_and_keeps_the_tree(layout: Layout) -> None:
    swapped = 0
    for joint, name in enumerate(layout.joints):
        other = layout.joints[layout.mirror[joint]]
        if layout is CMU31:
            sided = name[0] in "lr" and not name.startswith(("lower", "root"))
            expected = {"l": "r", "r": "l"}[name[0]] + name[1:] if sided else name
        else:
            expected = name.replace("left", "R").replace("right", "left").replace("R", "right")
        assert other == expected
        swapped += other != name
        parent = layout.parents[joint]
        assert layout.parents[layout.mirror[joint]] == (-1 if parent < 0 else layout.mirror[parent])
    assert (
        swapped
        == {"ntu25": 20, "kinect20": 16, "openni15": 12, "cmu31": 24, "coco17": 16, "openpose18": 16}[layout.name]
    )


@every_layout
def test_facts_of_the_built_in_layouts(layout: Layout) -> None:
    """Name, V, centre, root, shoulders, spine."""
    known = {
        "ntu25": (25, "spine_shoulder", "spine_shoulder", "left_shoulder", ("spine_base", "spine_mid")),
        "kinect20": (20, "shoulder_center", "shoulder_center", "left_shoulder", ("hip_center", "spine")),
        "openni15": (15, "neck", "torso", "left_shoulder", ("torso", "neck")),
        "cmu31": (31, "thorax", "root", "lclavicle", ("root", "upperback")),
        "coco17": (17, "nose", "nose", "left_shoulder", None),
        "openpose18": (18, "neck", "neck", "left_shoulder", None),
    }
    count, centre, root, left, spine = known[layout.name]
    assert layout.num_joints == count
    assert (layout.joints[layout.centre], layout.joints[layout.root]) == (centre, root)
    assert layout.shoulders is not None
    assert layout.joints[layout.shoulders[0]] == left
    assert layout.shoulders[1] == layout.mirror[layout.shoulders[0]]
    assert (None if layout.spine is None else tuple(layout.joints[joint] for joint in layout.spine)) == spine
    assert LAYOUTS[layout.name] is get_layout(layout.name.upper()) is layout


def test_trees_of_the_other_layouts() -> None:
    """SBU and openpose18 are held against data and reference below; these two against their sources' own lists."""
    hierarchy = {  # of a CMU .asf file
        "root": "lhipjoint rhipjoint lowerback", "lhipjoint": "lfemur", "lfemur": "ltibia", "ltibia": "lfoot",
        "lfoot": "ltoes", "rhipjoint": "rfemur", "rfemur": "rtibia", "rtibia": "rfoot", "rfoot": "rtoes",
        "lowerback": "upperback", "upperback": "thorax", "thorax": "lowerneck lclavicle rclavicle",
        "lowerneck": "upperneck", "upperneck": "head", "lclavicle": "lhumerus", "lhumerus": "lradius",
        "lradius": "lwrist", "lwrist": "lhand lthumb", "lhand": "lfingers", "rclavicle": "rhumerus",
        "rhumerus": "rradius", "rradius": "rwrist", "rwrist": "rhand rthumb", "rhand": "rfingers",
    }  # fmt: skip
    assert named(CMU31) == {(child, parent) for parent, below in hierarchy.items() for child in below.split()}
    assert " ".join(CMU31.joints) == (
        "root lhipjoint lfemur ltibia lfoot ltoes rhipjoint rfemur rtibia rfoot rtoes lowerback upperback thorax "
        "lowerneck upperneck head lclavicle lhumerus lradius lwrist lhand lfingers lthumb rclavicle rhumerus rradius "
        "rwrist rhand rfingers rthumb"
    )
    coco = "16 14,14 12,17 15,15 13,12 6,13 7,10 8,8 6,11 9,9 7,6 1,7 1,2 1,4 2,3 1,5 3"  # PYSKL's, 1-based
    assert named(COCO17) == pairs(COCO17, coco)
    assert COCO17.joints[:5] == ("nose", "left_eye", "right_eye", "left_ear", "right_ear")
    assert OPENPOSE18.joints[2:5] == ("right_shoulder", "right_elbow", "right_wrist")
    assert OPENPOSE18.joints[14:] == ("right_eye", "left_eye", "right_ear", "left_ear")


@pytest.mark.shared
def test_openni15_is_sbus_layout(real_data: Path) -> None:
    with np.load(real_data / "sbu.npz", allow_pickle=False) as sbu:
        assert tuple(sbu["joint_names"].tolist()) == OPENNI15.joints
        assert tuple(sbu["parents"].tolist()) == OPENNI15.parents


@pytest.mark.shared
def test_openpose18_has_the_published_graph(reference: Path) -> None:
    with np.load(reference / "graph.npz", allow_pickle=False) as graph:
        official = graph["crs/openpose18/spatial"]
    np.testing.assert_allclose(adjacency(OPENPOSE18, "spatial_degenerate").numpy(), official, atol=1e-7)


# --- parts ----------------------------------------------------------------------------------------------------------


def test_parts_of_ntu25_are_the_published_ones() -> None:
    """SkeleMixCLR's five, 1-based."""
    published = {
        "trunk": {4, 3, 21, 2, 1},
        "right_arm": {9, 10, 11, 12, 24, 25},
        "left_arm": {5, 6, 7, 8, 22, 23},
        "right_leg": {17, 18, 19, 20},
        "left_leg": {13, 14, 15, 16},
    }
    assert {name: {joint + 1 for joint in group} for name, group in NTU25.parts.items()} == published
    assert tuple(NTU25.parts) == PARTS


def connected(layout: Layout, group: tuple[int, ...]) -> bool:
    """A part of a tree is connected when all its joints but one hang from another joint of it."""
    return sum(layout.parents[joint] not in group for joint in group) == 1


@every_layout
def test_parts_are_five_and_mirror_each_other(layout: Layout) -> None:
    assert tuple(layout.parts) == PARTS
    assert sorted(joint for group in layout.parts.values() for joint in group) == list(range(layout.num_joints))
    for name, group in layout.parts.items():
        assert connected(layout, group)
        other = name.replace("left", "R").replace("right", "left").replace("R", "right")
        assert {layout.mirror[joint] for joint in group} == set(layout.parts[other])


def test_parts_of_joints_that_no_word_gives_away() -> None:
    """Fingers go with the hand that they hang from, eyes with the trunk, and legs that are not there are left out."""
    layout = layout_from_parts(
        "bust",
        ["neck", "left_eye", "right_eye", "left_wrist", "left_index_1", "right_index_1", "right_wrist"],
        [-1, 0, 0, 0, 3, 6, 0],
    )
    assert layout.parts == {"trunk": (0, 1, 2), "left_arm": (3, 4), "right_arm": (5, 6)}
    crossed = layout_from_parts("x", ["neck", "left_wrist", "right_wrist", "right_ring"], [-1, 0, 0, 1])
    assert crossed.parts == {"trunk": (0, 3), "left_arm": (1,), "right_arm": (2,)}  # no right part of a left arm


@st.composite
def trees(draw: st.DrawFn) -> list[int]:
    """Parents of 2 to 40 joints in any order, one root."""
    count = draw(st.integers(2, 40))
    order = draw(st.permutations(range(count)))
    parents = [-1] * count
    for place in range(1, count):
        parents[order[place]] = order[draw(st.integers(0, place - 1))]
    return parents


@settings(max_examples=60, deadline=None)
@given(trees())
def test_a_layout_without_sides_is_cut_into_connected_parts(parents: list[int]) -> None:
    layout = layout_from_parts("x", [f"joint {index}" for index in range(len(parents))], parents)
    assert sorted(joint for group in layout.parts.values() for joint in group) == list(range(len(parents)))
    assert list(layout.parts) == [f"part{number}" for number in range(1, min(len(parents), MOST_PARTS) + 1)]
    assert all(connected(layout, group) for group in layout.parts.values())
    assert layout.root in layout.parts["part1"]
    assert layout.mirror == tuple(range(len(parents)))


WORDS = ("left_hand", "right_hand", "lfoot", "rfoot", "lknee", "head", "spine", "left_ear", "right_ear", "hip", "ltail")


@settings(max_examples=60, deadline=None)
@given(trees(), st.data())
def test_any_names_give_a_whole_layout_that_round_trips(parents: list[int], data: st.DataObject) -> None:
    count = len(parents)
    words = data.draw(st.lists(st.sampled_from(WORDS), min_size=count, max_size=count))
    joints = [word if words.index(word) == index else f"{word} {index}" for index, word in enumerate(words)]
    layout = layout_from_parts("x", joints, parents)
    assert sorted(joint for group in layout.parts.values() for joint in group) == list(range(count))
    assert 1 <= len(layout.parts) <= MOST_PARTS
    assert all(layout.parts.values())
    assert Layout.from_dict(json.loads(json.dumps(layout.to_dict()))) == layout


def test_a_chain_of_as_many_joints_as_may_be_is_cut_evenly() -> None:
    layout = layout_from_parts("worm", [f"j{index}" for index in range(512)], list(range(-1, 511)))
    assert [len(group) for group in layout.parts.values()] == [102, 103, 102, 103, 102]
    with pytest.raises(InputError, match="at most 512"):
        layout_from_parts("worm", [f"j{index}" for index in range(513)], list(range(-1, 512)))


# --- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("joints", "expected"),
    [
        (["LeftHandTip", "handRight"], [("left", "hand_tip"), ("right", "hand")]),
        (["lhumerus", "rhumerus"], [("left", "humerus"), ("right", "humerus")]),
        (["LHip", "RHip"], [("left", "hip"), ("right", "hip")]),
        (["lefthand", "righthand"], [("left", "hand"), ("right", "hand")]),
        (["lowerback", "root", "rwrist"], [(None, "lowerback"), (None, "root"), (None, "rwrist")]),  # no partners
        (["l.hip", "hip_r", "L Knee"], [("left", "hip"), ("right", "hip"), ("left", "knee")]),
        (["left_right", "l", "r"], [(None, ""), ("left", ""), ("right", "")]),
    ],
)
def test_sides(joints: list[str], expected: list[tuple[str | None, str]]) -> None:
    assert split_sides(joints) == expected


def test_a_users_own_mocap_file_gets_its_sides_from_the_partners() -> None:
    joints = ["Root", "LowerBack", "Lclavicle", "Rclavicle", "LHUMERUS", "RHUMERUS", "lfemur", "rfemur", "lantern"]
    layout = layout_from_parts("mine", joints, [-1, 0, 1, 1, 2, 3, 0, 0, 4])
    assert layout.mirror == (0, 1, 3, 2, 5, 4, 7, 6, 8)
    assert layout.shoulders == (2, 3)
    assert layout.parts["left_arm"] == (2, 4)
    assert layout.parts["trunk"] == (0, 1, 8)


def test_derived_from_camel_case_and_suffixes() -> None:
    layout = layout_from_parts("x", ["Hip", "Neck", "ShoulderLeft", "ShoulderRight", "l-hand"], [-1, 0, 1, 1, 2])
    assert layout.mirror == (0, 1, 3, 2, 4)
    assert layout.shoulders == (2, 3)
    assert layout.centre == 1


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"parents": (-1, 0, 1, 1, -1)}, "exactly one"),
        ({"parents": (-1, 2, 1, 1, 1)}, "circle"),
        ({"parents": (-1, 0, 1, 9, 1)}, "no joint index"),
        ({"parents": (-1, 0, 1)}, "5 joints but 3 parents"),
        ({"centre": 5}, "centre 5"),
        ({"mirror": (1, 2, 0, 3, 4)}, "applied twice"),
        ({"mirror": (0, 0, 1, 2, 3)}, "once"),
        ({"shoulders": (2, 2)}, "shoulders"),
        ({"spine": (0, 0)}, "spine"),
        ({"spine": (0, 5)}, "spine"),
        ({"parts": {"all": (0, 1, 2, 3)}}, "head are in no part"),
        ({"parts": {"all": (0, 1, 2, 3, 4), "more": (4,)}}, "head are in more than one"),
        ({"parts": {"all": (0, 1, 2, 3, 4, 7)}}, "7 is no joint index"),
        ({"parts": {"all": (0, 1, 2, 3, 4), "none": ()}}, "'none' has no joint"),
        ({"joints": ("a", "a", "b", "c", "d")}, "twice: a"),
    ],
)
def test_a_broken_layout_is_refused(change: dict[str, object], word: str) -> None:
    layout = layout_from_parts("x", ["hip", "neck", "left_shoulder", "right_shoulder", "head"], [-1, 0, 1, 1, 1])
    with pytest.raises(InputError, match=word):
        dataclasses.replace(layout, **change)


def test_dict_and_file_round_trip(tmp_path: Path) -> None:
    assert Layout.from_dict(json.loads(json.dumps(NTU25.to_dict()))) == NTU25
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"name": "mine", "joints": ["a", "b"], "parents": [None, "a"], "centre": "b"}))
    assert get_layout(str(file)).parents == (-1, 0)
    assert load_layout(file).centre == 1


def test_the_dict_of_a_built_in_layout_is_what_it_was() -> None:
    """Fingerprints of datasets hold it: these hashes are older than ``spine`` and ``parts``."""
    pinned = {"ntu25": "9116b3f512d62295", "kinect20": "6087522006b1451f"}
    for name, digest in pinned.items():
        text = json.dumps(LAYOUTS[name].to_dict(), sort_keys=True)
        assert hashlib.sha256(text.encode()).hexdigest().startswith(digest)


@every_layout
def test_only_what_is_not_derived_is_written(layout: Layout) -> None:
    plain = layout.to_dict()
    assert list(plain) == ["name", "joints", "parents", "centre", "mirror", "shoulders"]
    assert Layout.from_dict(plain | {"spine": layout.spine, "parts": layout.parts}).to_dict() == plain
    own = dataclasses.replace(layout, spine=(0, 1), parts={"low": tuple(range(1, layout.num_joints)), "high": (0,)})
    assert own.to_dict()["parts"] == {"low": list(range(1, layout.num_joints)), "high": [0]}
    assert ("spine" in own.to_dict()) == (layout.spine != (0, 1))
    bare = dataclasses.replace(layout, shoulders=None, spine=None)
    for other in (own, bare, layout):
        again = Layout.from_dict(json.loads(json.dumps(other.to_dict())))
        assert again == other
        assert pickle.loads(pickle.dumps(again)) == other
        assert hash(again) == hash(other)
    assert bare != layout


def test_a_dict_by_names_with_parents_as_a_mapping() -> None:
    layout = Layout.from_dict(
        {
            "name": "x",
            "joints": ["a", "b", "c"],
            "parents": {"b": "a", "c": 1},
            "centre": "c",
            "shoulders": ["b", "c"],
            "spine": [0, "b"],
            "parts": {"one": ["c", "a"], "two": [1]},
        }
    )
    assert (layout.parents, layout.centre, layout.shoulders, layout.spine) == ((-1, 0, 1), 2, (1, 2), (0, 1))
    assert layout.parts == {"one": (0, 2), "two": (1,)}


def test_every_fault_of_a_dict_at_once() -> None:
    with pytest.raises(InputError) as caught:
        Layout.from_dict(
            {
                "nmae": "x",
                "joints": ["hip", "neck", "head"],
                "parents": [None, "hipp", True],
                "centre": 3,
                "mirror": "hip",
                "shoulders": ["hip"],
                "spine": ["hip", "hip"],
                "parts": {"all": ["hip", "neck", "haed"]},
            }
        )
    faults = "\n".join(caught.value.faults)
    for word in ("'nmae'; did you mean 'name'", "'name' is missing", "'hipp'; did you mean 'hip'", "True is neither",
                 "centre 3", "'mirror' must be a list", "'shoulders' must be two joints", "spine (0, 0)",
                 "'haed'; did you mean 'head'"):  # fmt: skip
        assert word in faults
    assert len(caught.value.faults) == 9


@pytest.mark.parametrize("text", ["{", "[]", '{"name": "x"}', '{"name":"x","joints":["a","b"],"parents":[-1,"c"]}'])
def test_a_bad_file_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bad.json"
    file.write_text(text)
    with pytest.raises(InputError, match=r"bad\.json"):
        load_layout(file)


def test_get_layout_by_name() -> None:
    assert get_layout("NTU-25") is NTU25
    with pytest.raises(InputError, match="did you mean 'kinect20'"):
        get_layout("kinect2")
