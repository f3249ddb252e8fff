from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from methods.data.layouts import KINECT20, NTU25, Layout, get_layout, layout_from_parts, load_layout
from methods.errors import InputError

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


@pytest.mark.parametrize("layout", [NTU25, KINECT20])
def test_mirror_swaps_left_and_right_and_keeps_the_tree(layout: Layout) -> None:
    for joint, name in enumerate(layout.joints):
        other = layout.joints[layout.mirror[joint]]
        assert other == name.replace("left", "R").replace("right", "left").replace("R", "right")
        parent = layout.parents[joint]
        assert layout.parents[layout.mirror[joint]] == (-1 if parent < 0 else layout.mirror[parent])


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
