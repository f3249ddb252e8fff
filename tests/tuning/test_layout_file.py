"""Layouts by hand: what is written comes back, and whatever is wrong is named with its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tuning.layout_file
from methods.data.layouts import LAYOUTS, Layout, layout_from_parts
from methods.errors import InputError
from tuning.config.errors import ConfigError
from tuning.layout_file import find_layout, layout_from_text, load_layout_file

EXAMPLE = (tuning.layout_file.__doc__ or "").partition("```yaml\n")[2].partition("```")[0]


def faults(text: str) -> list[tuple[int, int, str]]:
    with pytest.raises(ConfigError) as caught:
        layout_from_text(text, "mine.yaml")
    return [(fault.line, fault.col, fault.message) for fault in caught.value.where]


def test_the_example_of_the_docs_says_what_is_derived_but_for_what_cannot_be() -> None:
    layout = layout_from_text(EXAMPLE)
    derived = layout_from_parts(layout.name, layout.joints, layout.parents)
    assert layout.parents == (-1, 0, 1, 1, 1, 0, 0)
    assert (layout.centre, layout.mirror, layout.spine) == (derived.centre, derived.mirror, derived.spine)
    assert layout.parts == derived.parts
    assert (layout.shoulders, derived.shoulders) == ((3, 4), None)


def quoted(word: str) -> str:
    return json.dumps(word, ensure_ascii=False)


def as_yaml(layout: Layout, by_name: bool, by_joint: bool) -> str:
    """A block-style file: joints by name or index, parents as a mapping or a list."""

    def joint(index: int) -> str:
        return "null" if index < 0 else quoted(layout.joints[index]) if by_name else str(index)

    def row(indices: tuple[int, ...]) -> str:
        return f"[{', '.join(map(joint, indices))}]"

    lines = [f"name: {quoted(layout.name)}", "joints:", *(f"  - {quoted(name)}" for name in layout.joints)]
    lines += ["parents:"]
    if by_joint:
        lines += [f"  {quoted(layout.joints[child])}: {joint(parent)}" for child, parent in layout.bones]
    else:
        lines += [f"- {joint(parent)}" for parent in layout.parents]
    lines += [f"centre: {joint(layout.centre)}  # a comment", f"mirror: {row(layout.mirror)}"]
    for key, pair in (("shoulders", layout.shoulders), ("spine", layout.spine)):
        lines += [f"{key}: {'~' if pair is None else row(pair)}"]
    lines += ["parts:", *(f"  {quoted(name)}: {row(group)}" for name, group in layout.parts.items())]
    return "\n".join(lines) + "\n"


NAMES = st.text(st.characters(categories=("L", "N", "P", "S", "Zs")), min_size=1, max_size=8)


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    joints = tuple(draw(st.lists(NAMES, min_size=2, max_size=9, unique=True)))
    order = draw(st.permutations(range(len(joints))))
    parents = [-1] * len(joints)
    for place in range(1, len(joints)):
        parents[order[place]] = order[draw(st.integers(0, place - 1))]
    mirror = list(range(len(joints)))
    if draw(st.booleans()):
        mirror[order[0]], mirror[order[1]] = order[1], order[0]
    pair = st.none() | st.just((order[0], order[1]))
    first = draw(st.integers(0, len(joints) - 2))
    parts = {"low": tuple(range(first + 1)), draw(NAMES.filter("low".__ne__)): tuple(range(first + 1, len(joints)))}
    return Layout(draw(NAMES), joints, tuple(parents), order[-1], tuple(mirror), draw(pair), draw(pair), parts)


@settings(max_examples=60, deadline=None)
@given(layouts(), st.booleans(), st.booleans())
def test_any_layout_comes_back_from_yaml_and_json(layout: Layout, by_name: bool, by_joint: bool) -> None:
    assert layout_from_text(as_yaml(layout, by_name, by_joint)) == layout
    assert layout_from_text(json.dumps(layout.to_dict(), ensure_ascii=False)) == layout


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_built_in_layouts_come_back_from_a_file(layout: Layout, tmp_path: Path) -> None:
    file = tmp_path / "layout.yaml"
    file.write_text(as_yaml(layout, by_name=True, by_joint=True))
    assert load_layout_file(file) == load_layout_file(str(file)) == layout


def test_a_layout_is_found_by_name_or_path(tmp_path: Path) -> None:
    for word, name in (("ntu25", "ntu25"), ("NTU-25", "ntu25"), ("OpenPose18", "openpose18")):
        assert find_layout(word) is LAYOUTS[name]
    for name in ("mine.yaml", "mine.json", "without_ending"):
        file = tmp_path / name
        file.write_text(EXAMPLE if name != "mine.json" else json.dumps(LAYOUTS["coco17"].to_dict()))
        assert find_layout(file) == find_layout(str(file)) == load_layout_file(file)
    with pytest.raises(InputError, match=r"did you mean 'kinect20'\?; or give the path"):
        find_layout("kinect2")
    with pytest.raises(InputError, match="no such file"):
        find_layout(tmp_path / "none.yml")


def test_every_fault_with_its_place() -> None:
    text = """\
nmae: x
joints: [hip, neck, head]
parents:
  neck: hipp
  haed: neck
centre: 3
mirror: [hip, head]
shoulders: [hip]
spine: [hip, chest]
parts:
  all: [hip, neck]
  none: []
"""
    assert faults(text) == [
        (1, 1, "layout: unknown key 'nmae'; did you mean 'name'?"),
        (1, 1, "layout: key 'name' is missing"),
        (4, 9, "layout: parents: no joint 'hipp'; did you mean 'hip'?"),
        (5, 3, "layout: parents: no joint 'haed'; did you mean 'head'?"),
        (6, 9, "layout '?': centre 3 is no joint index (0 to 2)"),
        (7, 1, "layout '?': mirror must name each of the 3 joints once, got [0, 2]"),
        (8, 1, "layout: 'shoulders' must be two joints, got ('hip',)"),
        (9, 14, "layout: spine: no joint 'chest'; known: head, hip, neck"),
        (10, 1, "layout '?': parts must hold each joint once: head are in no part"),
        (12, 3, "layout '?': part 'none' has no joint"),
    ]


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("", (1, 1), "a layout needs name"),
        ("# nothing\n", (1, 1), "a layout needs name"),
        ("- a\n- b\n", (1, 1), "a layout is a mapping"),
        ("name: x\njoints: [a, b]\nparents: [null, 0\n", (4, 1), "expected"),
        ("name: x\njoints: [a, 7]\nparents: [null, 0]\n", (2, 13), "in quotes"),
        ("name: x\njoints: [a, b, c]\nparents: {b: c, c: b}\n", (3, 14), "joint 'b' run in a circle"),
        ("name: x\njoints: [a, b, c]\nparents: [null, 2, 1]\n", (3, 17), "joint 'b' run in a circle"),
        ("name: x\njoints: [a, b, c]\nparents: {b: a}\n", (3, 1), "2 have: a, c"),
        ("name: x\njoints: [a, b]\nparents: [~, a]\nmirror: b\n", (4, 9), "must be a list"),
        ("name: x\njoints: [a, b]\nparents: [~, a]\njoints: [a]\n", (4, 1), "given twice"),
        (f"name: x\njoints: [{'a, ' * 600}]\nparents: []\n", (2, 1), "at most 512"),
        ("x" * 300_000, (1, 1), "a layout file has at most"),
    ],
)
def test_a_fault_and_its_place(text: str, place: tuple[int, int], words: str) -> None:
    assert [message for line, col, message in faults(text) if (line, col) == place and words in message]


def test_no_word_of_a_search_space() -> None:
    for text in ("", "[]", "3", "x" * 300_000):
        for _, _, message in faults(text):
            assert "search space" not in message
            assert "skeltune new" not in message


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_layout_file(tmp_path / "none.yaml")
    file = tmp_path / "binary.yaml"
    file.write_bytes(b"name: \xff\n")
    with pytest.raises(InputError, match=r"binary\.yaml:1:7"):
        load_layout_file(file)


SLIPS = ("", "[", "]", "{", ":", "- ", "\n", "\n  ", "null", "-1", "9", "1e9", ".nan", "head", "&a ", "*a", "<<: ",
         "!!int ", "'", "\t", "\x00", "é")  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_file_with_slips_of_the_pen_is_read_or_refused(data: st.DataObject) -> None:
    """Cut, doubled, or with strange characters put in: a layout or a list of faults, never anything else."""
    text = EXAMPLE
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 30)))
        new = data.draw(st.sampled_from(SLIPS) | st.text(max_size=3))
        text = text[:start] + new + (text[start:end] if data.draw(st.booleans()) else "") + text[end:]
    layout, said = None, ("slips.yaml: read",)
    try:
        layout = layout_from_text(text, "slips.yaml")
    except ConfigError as error:
        said = error.faults
    assert said
    assert all(fault.startswith("slips.yaml:") for fault in said)
    assert layout is None or Layout.from_dict(layout.to_dict()) == layout
