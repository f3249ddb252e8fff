"""NW-UCLA's JSON files: round trip, the ten actions, planted faults, damage."""

from __future__ import annotations

import contextlib
import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from writers_text import UCLA_ACTIONS, TextClip, damaged, ucla_name, walk, write_ucla

from methods.data.conversion import convert
from methods.data.formats import ucla_json
from methods.data.layouts import KINECT20
from methods.data.reading.sources import Clip, ReadOptions, Skipped, Source
from methods.errors import InputError

CLIPS = [TextClip(walk(2 + i, seed=i), label=i, subject=1 + i, camera=1 + i % 3, trial=i) for i in range(10)]


def planned(source: Path) -> Source:
    return ucla_json.plan(source, ReadOptions(), source)


def read_all(source: Source) -> dict[str, Clip | Skipped]:
    read = pickle.loads(pickle.dumps(source.read))
    return {found.name: found for item in source.items for found in read(item)}


def test_round_trip(tmp_path: Path) -> None:
    names = write_ucla(tmp_path, CLIPS)
    plan = planned(tmp_path)
    assert (plan.layout, plan.persons, len(plan.class_names)) == (KINECT20, 1, 10)
    assert plan.class_names[0] == "pick up with one hand" and plan.class_names[6:8] == ("donning", "doffing")
    found = read_all(plan)
    assert list(found) == sorted(names) and names[6] == "a08_s07_e06_v01"
    for name, clip in zip(names, CLIPS, strict=True):
        got = found[name]
        assert isinstance(got, Clip)
        np.testing.assert_array_equal(got.frames, clip.frames)
        assert (got.label, got.subjects, got.camera) == (clip.label, (clip.subject,), clip.camera)


def test_a_whole_conversion(tmp_path: Path) -> None:
    write_ucla(tmp_path / "ucla", [*CLIPS, TextClip(walk(3), camera=4)])
    assert ucla_json.recognises(tmp_path / "ucla") is not None
    done = convert(tmp_path / "ucla", tmp_path / "out", "ucla_json")
    data = done.dataset
    assert done.skipped == () and len(data) == 11
    np.testing.assert_array_equal(data.splits["xview"] == 1, np.isin(data.cameras, (1, 2)))
    np.testing.assert_array_equal(data.splits["xview"] == 2, data.cameras == 3)


def test_the_numbers_of_the_actions() -> None:
    assert tuple(ucla_json.ACTIONS) == UCLA_ACTIONS


def test_strangers_are_listed(tmp_path: Path) -> None:
    write_ucla(tmp_path, CLIPS[:2])
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "all_sqe" / "._a01_s01_e00_v01.json").write_bytes(b"\0")
    (tmp_path / "all_sqe" / "a07_s01_e00_v01.json").write_text(json.dumps({"skeletons": walk(2)[:, 0].tolist()}))
    plan = planned(tmp_path)
    assert [(skip.name, skip.reason) for skip in plan.skipped] == [
        ("config.json", "a .json file that is not called like a clip")
    ]
    (found,) = (clip for clip in read_all(plan).values() if isinstance(clip, Skipped))
    assert (found.name, found.reason) == ("a07_s01_e00_v01", "an action that NW-UCLA does not have")
    assert "action 7 (1, 2, 3, 4, 5, 6, 8, 9, 11, 12)" in found.detail


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ":1: no valid JSON"),
        ('{"skeletons": [\n[[1, 2', ":2: no valid JSON"),
        ("[1]", ": holds no 'skeletons'"),
        ('{"skeleton": []}', ": holds no 'skeletons'"),
        ('{"skeletons": []}', ": 'skeletons' is 0, wanted T x 20 x 3"),
        ('{"skeletons": [[[1, 2, 3]]]}', ": 'skeletons' is 1 x 1 x 3, wanted T x 20 x 3"),
        ('{"skeletons": [[[1, 2, 3]], [[1, 2]]]}', ": 'skeletons' is no table"),
        ('{"skeletons": [[["x", 2, 3]]]}', ": 'skeletons' is no table"),
        ('{"skeletons": [[[null, 2, {}]]]}', ": 'skeletons' is no table"),
        ('{"skeletons": 1' + "0" * 5000 + "}", ": no valid JSON"),
        ("[" * 100_000, ": no valid JSON"),
        ('{"skeletons": "\0"}', ":1: no text"),
    ],
)
def test_planted_faults(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "a01_s01_e00_v01.json"
    path.write_text(content)
    plan = planned(tmp_path)
    with pytest.raises(InputError, match=re.escape(f"{path}{words}")):
        list(plan.read(plan.items[0]))


def test_other_spellings(tmp_path: Path) -> None:
    content = json.dumps({"skeletons": CLIPS[0].frames[:, 0].astype(float).tolist()}, indent=1)
    (tmp_path / "A01_S01_E00_V01.JSON").write_bytes(b"\xef\xbb\xbf" + content.replace("\n", "\r\n").encode())
    (clip,) = read_all(planned(tmp_path)).values()
    assert isinstance(clip, Clip) and clip.name == ucla_name(CLIPS[0])
    np.testing.assert_array_equal(clip.frames, CLIPS[0].frames)


def test_sources_of_others(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert ucla_json.recognises(tmp_path) is None
    with pytest.raises(InputError, match="no file like a01_s01_e00_v01"):
        planned(tmp_path)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damage_is_refused_in_words(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    source = tmp_path_factory.mktemp("ucla")
    write_ucla(source, CLIPS[:1])
    path = next(source.rglob("*.json"))
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    found: dict[str, Clip | Skipped] = {}
    with contextlib.suppress(InputError):
        found = read_all(planned(source))
    assert all(isinstance(clip, Clip) and clip.frames.shape[1:] == (1, 20, 3) for clip in found.values())
