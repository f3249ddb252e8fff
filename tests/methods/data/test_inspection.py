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
