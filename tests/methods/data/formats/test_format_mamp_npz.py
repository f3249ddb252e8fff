from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from writers_arrays import (
    DAMAGE,
    check_equal,
    damaged,
    read_all,
    walk,
    write_ctrgcn_npz,
    write_mamp_npz,
)

from methods.data.conversion import convert
from methods.data.formats import ctrgcn_npz, mamp_npz
from methods.data.formats.pku_raw import CLASS_NAMES, PUBLISHED
from methods.data.reading.sources import Clip, ReadOptions, Skipped, Source
from methods.data.skeletons import TEST, TRAIN
from methods.errors import InputError


def pku_clips(split: str = "xsub", count: int = 8) -> list[Clip]:
    """Clips as CMD names them, of part II; the second person is not always there."""
    clips = []
    for index in range(count):
        frames = walk(3 + index % 5, seed=index)
        frames[:, 1] *= index % 2
        name = f"A{index + 1:02d}N{index % 3 + 1:02d}-{'LMR'[index % 3]}.txt_{index}"
        side = TEST if index % 3 == 1 else TRAIN
        clips.append(Clip(frames, 50 - 7 * index, name, (index % 3 + 1,), index % 3 + 1, -1, {split: side}))
    return clips


CLIPS = pku_clips()


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


def plan(source: Path, scratch: Path, names: Path | None = None) -> Source:
    return mamp_npz.plan(source, ReadOptions(names=names), scratch)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(("name", "split"), [("PKUv1_XSub", "xsub"), ("PKUv2_XView", "xview"), ("mine", "official")])
def test_round_trip(tmp_path: Path, compressed: bool, name: str, split: str) -> None:
    file = tmp_path / f"{name}.npz"
    order = write_mamp_npz(file, CLIPS, frames=10, compressed=compressed)
    found = convert(file, tmp_path / "out")
    data = found.dataset
    assert found.format == "mamp_npz" and data.class_names == CLASS_NAMES and data.num_persons == 2
    for index, clip in enumerate(order):
        np.testing.assert_array_equal(data.clip(index), clip.frames)
        assert data.labels[index] == clip.label
    assert data.splits[split].tolist() == [clip.sides["xsub"] for clip in order]
    assert data.subjects.tolist() == [[-1]] * len(CLIPS)
    assert data.source["applied"] == ["cut to the first 300 frames"]
    assert found.published == ({"xsub": PUBLISHED["I"]["xsub"]} if name == "PKUv1_XSub" else {})
    assert any("official" in remark for remark in found.remarks) == (split == "official")


def test_names_in_the_archives_order(tmp_path: Path, scratch: Path) -> None:
    file, names = tmp_path / "PKUv2_XSub.npz", tmp_path / "names.txt"
    order = write_mamp_npz(file, CLIPS, frames=10)
    names.write_text("\n".join(clip.name for clip in order))
    found = read_all(plan(file, scratch, names))
    for clip in CLIPS:
        check_equal(found[clip.name], clip)
    names.write_text("\n".join(clip.name for clip in order[1:]))
    with pytest.raises(InputError, match="7 names, but 5 \\+ 3 clips"):
        plan(file, scratch, names)
    names.write_text("\n".join(f"A001N001V001C{order[n].label + 1 + n // 7:03d}L{n:03d}" for n in range(8)))
    with pytest.raises(InputError, match="clip 2 of x_test has label"):
        plan(file, scratch, names)


def test_plain_labels_in_a_file_called_pku(tmp_path: Path, scratch: Path) -> None:
    file = tmp_path / "PKUv1_XSub.npz"
    write_ctrgcn_npz(file, CLIPS, frames=10, one_hot=False, grouped=False)
    assert mamp_npz.recognises(file) and not ctrgcn_npz.recognises(file)
    assert plan(file, scratch).class_names == CLASS_NAMES
    many = [replace(clip, label=clip.label + 10) for clip in CLIPS]
    write_ctrgcn_npz(file, many, frames=10, one_hot=False, grouped=False)
    assert plan(file, scratch).class_names[-1] == "action 61"


def test_recognises(tmp_path: Path) -> None:
    write_mamp_npz(tmp_path / "any.npz", CLIPS, frames=10)
    told = mamp_npz.recognises(tmp_path / "any.npz")
    assert told is not None and "51 classes" in told
    write_ctrgcn_npz(tmp_path / "PKU60.npz", CLIPS, classes=60, frames=10, grouped=False)
    assert mamp_npz.recognises(tmp_path / "PKU60.npz") is None
    assert mamp_npz.recognises(tmp_path) is None and mamp_npz.recognises(tmp_path / "none.npz") is None


def test_a_missing_array(tmp_path: Path, scratch: Path) -> None:
    np.savez(tmp_path / "PKUv1.npz", x_train=np.zeros((1, 2, 150)), y_train=np.eye(51)[:1])
    with pytest.raises(InputError) as caught:
        plan(tmp_path / "PKUv1.npz", scratch)
    assert [fault.rpartition(": ")[2] for fault in caught.value.faults] == [
        "array 'x_test' is missing",
        "array 'y_test' is missing",
    ]


@settings(max_examples=60, deadline=None)
@given(compressed=st.booleans(), damage=st.lists(DAMAGE, min_size=1, max_size=3))
def test_chance_damage_gives_clips_or_faults(
    tmp_path_factory: pytest.TempPathFactory, compressed: bool, damage: list[tuple[str, float, bytes]]
) -> None:
    root = tmp_path_factory.mktemp("damage")
    (root / "scratch").mkdir()
    file = root / "PKUv1_XSub.npz"
    write_mamp_npz(file, CLIPS[:4], frames=6, compressed=compressed)
    file.write_bytes(damaged(file.read_bytes(), damage))
    mamp_npz.recognises(file)
    try:
        source = plan(file, root / "scratch")
        found = [one for item in source.items for one in source.read(item)]
    except InputError:
        return
    assert all(isinstance(one, (Clip, Skipped)) for one in found)
