"""SBU Kinect Interaction: round trip, folds, planted faults, damage, the real sequences."""

from __future__ import annotations

import contextlib
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from writers_text import TextClip, damaged, sbu_rows, walk, write_sbu

from methods.data.conversion import convert
from methods.data.formats import sbu_text
from methods.data.formats.sbu_text import CLASS_NAMES, FOLDS
from methods.data.layouts import OPENNI15
from methods.data.reading.sources import Clip, ReadOptions, Skipped, Source
from methods.errors import InputError

DATA = Path(os.environ.get("SKELTUNE_DATA", "../shared/data"))
PAIRS = [(1, 2), (2, 3), (1, 3), (2, 1), (4, 2), (6, 3)]
CLIPS = [
    TextClip(walk(3 + i, 2, 15, seed=i), label=i, subject=first, other=second, trial=1 + i % 3)
    for i, (first, second) in enumerate(PAIRS)
]


def planned(source: Path) -> Source:
    return sbu_text.plan(source, ReadOptions(), source)


def read_all(source: Source) -> dict[str, Clip | Skipped]:
    read = pickle.loads(pickle.dumps(source.read))
    return {found.name: found for item in source.items for found in read(item)}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_round_trip(tmp_path: Path, end: str) -> None:
    made = [*CLIPS, TextClip(walk(4, 2, 15, seed=9), label=7, subject=7, other=1)]
    made[-1].frames[1:3, 1] = 0  # the second person is away
    names = write_sbu(tmp_path / "deep" / "clean", made, end)
    plan = planned(tmp_path)
    assert (plan.layout, plan.persons, plan.class_names, plan.notes["unit"]) == (OPENNI15, 2, CLASS_NAMES, "m")
    found = read_all(plan)
    assert list(found) == sorted(names)
    for name, clip in zip(names, made, strict=True):
        got = found[name]
        assert isinstance(got, Clip)
        np.testing.assert_allclose(got.frames, clip.frames, rtol=1e-6, atol=1e-6)
        assert (got.label, got.subjects, got.camera) == (clip.label, (clip.subject, clip.other), -1)


def test_the_published_formula(tmp_path: Path) -> None:
    """x = 1280 - 2560 x', y = 960 - 1920 y', z = 10000 / 7.8125 z', in millimetres."""
    path = tmp_path / "s01s02" / "01" / "001" / "skeleton_pos.txt"
    path.parent.mkdir(parents=True)
    path.write_text(",".join(["1", *(["0.25", "0.75", "1.5"] * 30)]) + "\n")
    (clip,) = read_all(planned(tmp_path)).values()
    assert isinstance(clip, Clip)
    np.testing.assert_allclose(clip.frames[0, 0, 0], [0.64, -0.48, 1.92], rtol=1e-6)


def test_a_whole_conversion_and_its_folds(tmp_path: Path) -> None:
    write_sbu(tmp_path / "sbu", CLIPS)
    assert sbu_text.recognises(tmp_path / "sbu") is not None
    done = convert(tmp_path / "sbu", tmp_path / "out", "sbu_text")
    data = done.dataset
    assert done.skipped == () and data.subjects.tolist() == [list(pair) for pair in sorted(PAIRS)]
    sets = [name.partition("/")[0] for name in data.names.tolist()]
    for number, fold in enumerate(FOLDS, 1):
        assert data.splits[f"fold{number}"].tolist() == [2 if own in fold else 1 for own in sets]
    assert all(sum(data.splits[f"fold{number}"][clip] == 2 for number in range(1, 6)) == 1 for clip in range(len(data)))


def test_all_21_sets_are_in_one_fold_each() -> None:
    sets = [own for fold in FOLDS for own in fold]
    assert len(sets) == len(set(sets)) == 21
    assert {int(own[1:3]) for own in sets} == set(range(1, 8))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: [*rows[:2], rows[2].rpartition(",")[0]], ":3: has 90 numbers, wanted 91"),
        (lambda rows: [*rows[:2], rows[2] + ",0.5"], ":3: has 92 numbers, wanted 91"),
        (lambda rows: [rows[0], rows[1].replace(",0", ",o", 1), rows[2]], ":2: 'o."),
        (lambda _: [""], ":1: has 0 numbers"),
        (lambda rows: [rows[0], "\0", rows[1]], ":2: no text"),
        (lambda rows: [rows[0], "", rows[1]], ":2: has 0 numbers"),
    ],
)
def test_planted_faults(tmp_path: Path, change: object, words: str) -> None:
    write_sbu(tmp_path, CLIPS[:1])
    path = next(tmp_path.rglob("skeleton_pos.txt"))
    path.write_text("\n".join(change(path.read_text().splitlines())))  # type: ignore[operator]
    plan = planned(tmp_path)
    with pytest.raises(InputError, match=re.escape(f"{path}{words}")):
        list(plan.read(plan.items[0]))


def test_strange_sources(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file like s01s02/01/001/skeleton_pos"):
        planned(tmp_path)
    assert sbu_text.recognises(tmp_path) is None
    write_sbu(tmp_path, [TextClip(walk(2, 2, 15), label=8)])
    (clip,) = read_all(planned(tmp_path)).values()
    assert isinstance(clip, Clip) and clip.label == 8  # refused by the engine
    assert sbu_text.recognises(tmp_path / "s01s02") is None  # the participants would be lost


def test_a_set_in_a_folder_of_its_own_name(tmp_path: Path) -> None:
    """So the archives unpack."""
    write_sbu(tmp_path / "s01s02", CLIPS[:1])
    assert list(read_all(planned(tmp_path))) == ["s01s02/01/001"]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damage_is_refused_in_words(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    source = tmp_path_factory.mktemp("sbu")
    write_sbu(source, CLIPS[:1])
    path = next(source.rglob("skeleton_pos.txt"))
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    found: dict[str, Clip | Skipped] = {}
    with contextlib.suppress(InputError):
        found = read_all(planned(source))
    assert all(isinstance(clip, Clip) and clip.frames.shape[1:] == (2, 15, 3) for clip in found.values())


@pytest.mark.shared
def test_the_real_sequences_come_back(tmp_path: Path) -> None:
    if not (DATA / "sbu.npz").exists():
        pytest.skip(f"no real skeletons at {DATA} (set SKELTUNE_DATA)")
    with np.load(DATA / "sbu.npz", allow_pickle=False) as real:
        arrays = {key: real[key] for key in real.files}
    assert tuple(arrays["class_names"]) == CLASS_NAMES and tuple(arrays["joint_names"]) == OPENNI15.joints
    clips = {}
    for index, name in enumerate(arrays["names"].tolist()):
        start = int(arrays["offsets"][index])
        clips[name] = arrays["sequences"][start : start + int(arrays["lengths"][index])]
        (tmp_path / "sbu" / name).mkdir(parents=True)
        (tmp_path / "sbu" / name / "skeleton_pos.txt").write_text("\n".join(sbu_rows(clips[name])) + "\n")
    done = convert(tmp_path / "sbu", tmp_path / "out", "sbu_text")
    data = done.dataset
    assert len(data) == 282 and done.skipped == ()
    where = {name: index for index, name in enumerate(arrays["names"].tolist())}
    for index, name in enumerate(data.names.tolist()):
        at = where[name]
        np.testing.assert_allclose(data.clip(index), clips[name], rtol=1e-5, atol=2e-6)
        assert data.labels[index] == arrays["labels"][at]
        assert data.subjects[index].tolist() == arrays["subjects"][at].tolist()
        assert [fold for fold in range(5) if data.splits[f"fold{fold + 1}"][index] == 2] == [arrays["folds"][at]]
    shin = data.frames[:, :, OPENNI15.joints.index("left_foot")] - data.frames[:, :, OPENNI15.joints.index("left_knee")]
    assert 0.35 < float(np.median(np.linalg.norm(shin, axis=-1))) < 0.45  # metres
