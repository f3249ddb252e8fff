from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dataset_helpers import STICK, people_dataset, random_clips, write

from methods.data.inspection import inspect_dataset
from methods.data.skeletons import open_dataset
from methods.errors import InputError


def test_every_defect_is_found_and_named(tmp_path: Path) -> None:
    clips = random_clips(8, persons=2)
    clips[0][:, 1] = 0  # c0: nobody beside person 0
    clips[1][0, 0, 4] = 0  # one lost head
    clips[2] = clips[2][:1]  # one frame
    clips[3][:] = clips[3][0]  # frozen
    clips[4][:] = 0  # nobody at all
    clips[7] = clips[5].copy()  # the same bytes in train and in test
    split = [1, 1, 1, 1, 2, 1, 2, 2]
    data = write(tmp_path / "set", clips, [0, 1, 0, 1, 0, 0, 0, 0], [(i, 9) for i in range(8)], {"s": split}, classes=3)
    found = inspect_dataset(data)
    bodies = sum(int((clip != 0).any(axis=(2, 3)).sum()) for clip in clips)
    assert found.missing == {"head": pytest.approx(1 / bodies)}
    assert found.without_second == pytest.approx(2 / 8)
    assert (found.one_frame, found.frozen, found.empty_clips) == (("c2",), ("c3",), ("c4",))
    assert found.empty_frames == len(clips[4])
    assert found.duplicates == (("c5", "c7"),)
    assert found.across == {"s": (("c5", "c7"),)}
    assert found.shared_subjects == {"s": 1}
    assert (found.splits["s"]["train"].clips, found.splits["s"]["test"].clips) == (5, 3)
    assert found.splits["s"]["test"].lacking == ("class 1", "class 2")
    assert found.lengths == (1, float(np.median([len(clip) for clip in clips])), 6)
    text = "\n".join(found.lines())
    for words in ("head", "c5 = c7", "! split s: test has no clip of class 1, class 2", "8, "):
        assert words in text


def test_a_clean_set_has_no_warning(tmp_path: Path) -> None:
    data = people_dataset(tmp_path / "set", 4, cameras=True)
    found = inspect_dataset(data)
    assert found.subjects == 4 and found.cameras == 3 and found.joints == STICK.num_joints
    assert found.without_second is None
    assert not [line for line in found.lines() if line.startswith("!")]


def test_a_protocol_can_be_given(tmp_path: Path) -> None:
    data = people_dataset(tmp_path / "set", 4, cameras=True)
    assert list(inspect_dataset(data, {"test_cameras": [1]}).splits) == ["test_cameras(1)"]
    with pytest.raises(InputError, match="unknown split"):
        inspect_dataset(data, "nowhere")


def test_nan_from_outside_is_found(tmp_path: Path) -> None:
    path = people_dataset(tmp_path / "set", 4).path
    raw = bytearray((path / "frames.npy").read_bytes())
    raw[-4:] = np.float32(np.nan).tobytes()
    (path / "frames.npy").write_bytes(raw)
    with pytest.raises(InputError, match="holds NaN"):
        inspect_dataset(open_dataset(path))


def test_near_copies_are_told_by_split_and_label(tmp_path: Path) -> None:
    clips = random_clips(6)
    clips += [np.round(clips[0], 4), clips[1].copy(), np.round(clips[2], 4)]
    labels = [0, 1, 0, 1, 0, 1, 0, 1, 1]
    split = [1, 1, 1, 1, 2, 2, 2, 2, 1]
    found = inspect_dataset(write(tmp_path / "set", clips, labels, list(range(9)), {"s": split}))
    assert [pair[:2] for pair in found.near] == [("c0", "c6"), ("c2", "c8")]
    assert found.across == {"s": (("c1", "c7"),)}  # byte for byte, and so not among the near ones
    assert [pair[:2] for pair in found.near_across["s"]] == [("c0", "c6")]
    assert found.conflicts == (("c2", "c8"),)
    assert found.copies is not None and found.copies.identical == ((1, 7),)
    warnings = [line for line in found.lines() if line.startswith("!")]
    assert [line.split(":")[0] for line in warnings] == [
        "! 1 groups of byte-identical clips",
        "! split s",
        "! 2 pairs of near-identical clips",
        "! split s",
        "! 1 clips have another label than a copy of theirs",
    ]
    assert "1 test clips are near-identical to a training clip: c0 ~ c6 (0.0000)" in warnings[3]


def test_a_crowd_has_one_line(tmp_path: Path) -> None:
    clips = [*random_clips(3), *(np.zeros((frames, 1, 5, 3), dtype=np.float32) for frames in range(1, 90))]
    split = [1, 1, 1, 1] + [2] * 88
    found = inspect_dataset(write(tmp_path / "set", clips, [0] * 92, [0] * 92, {"s": split}))
    assert found.crowds == (tuple(f"c{index}" for index in range(3, 92)),)
    assert len(found.near_across["s"]) == 88
    text = "\n".join(found.lines())
    assert "! 89 clips are all near-identical: c3, c4" in text
    assert "88 test clips are near-identical to a training clip: c3 ~ c4 (in a crowd)" in text


def test_findings_are_told_by_kind_with_their_places(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    body = np.array([[0, 1, 0], [0, 1.5, 0], [-0.2, 1.4, 0], [0.2, 1.4, 0], [0, 1.8, 0]])
    clips = [
        (body + rng.normal(0, 0.3, (1, 2, 1, 3)) + rng.normal(0, 0.002, (20, 2, 5, 3))).astype(np.float32)
        for _ in range(6)
    ]
    clips[2][7, 1, 4] += 1  # the head of the second person jumps
    clips[3][4:6, 0] = 0
    clips[4][:, 1] = clips[4][0, 1]
    data = write(tmp_path / "set", clips, [0, 1] * 3, [(1, 2)] * 6)
    found = inspect_dataset(data)
    assert found.places["joint_jump"] == ("c2 (frame 7, head, person 1)",)
    assert found.places["gap"] == ("c3 (frame 4, person 0)",)
    assert found.places["frozen_person"] == ("c4 (frame 0, person 1)",)
    lines = found.lines()
    assert "! 1 clips have a joint that jumps: c2 (frame 7, head, person 1)" in lines
    assert "! 1 clips hold a person who never moves: c4 (frame 0, person 1)" in lines
    assert [line for line in lines if line.startswith("bones      vary by")]
    assert len(found.anomalies.bones) == 4


def test_the_joint_that_centred_data_has_at_zero_is_no_lost_joint(tmp_path: Path) -> None:
    clips = [clip - clip[:, :, 1:2] for clip in random_clips(6)]
    found = inspect_dataset(write(tmp_path / "set", clips, [0, 1] * 3, list(range(6))))
    assert found.missing == {"neck": 1.0}
    assert not [line for line in found.lines() if line.startswith("!")]
    assert "origin     neck: at exactly zero in most clips" in found.lines()


def test_every_clip_with_nan_is_named(tmp_path: Path) -> None:
    data = people_dataset(tmp_path / "set", 4)
    path, ends = data.path, data.offsets + data.lengths
    frames = np.load(path / "frames.npy")
    frames[ends[[1, 6]] - 1, 0, 2] = np.inf
    np.save(path / "frames.npy", frames)
    with pytest.raises(InputError) as caught:
        inspect_dataset(open_dataset(path))
    assert [fault.split(": ")[1] for fault in caught.value.faults] == [
        "clip 1 holds NaN; the file was changed after it was written",
        "clip 6 holds NaN; the file was changed after it was written",
    ]
