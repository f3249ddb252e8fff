from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from dataset_helpers import NTU25, random_clips, write

from methods.data import SkeletonDataset
from methods.data.inspection.anomalies import KINDS, Anomalies, Finding, find_anomalies
from methods.data.inspection.looks import look
from methods.data.synthetic import SyntheticConfig, generate_clips

LEFT_HAND, HEAD, NECK, LEFT_KNEE = 7, 3, 2, 13
ALONE, PAIR = 2, 3  # clips of the fixture: one person, two


@pytest.fixture(scope="module")
def good() -> list[np.ndarray]:
    """Generated bodies whose sensor loses nothing: walk, wave, jump and hug, two subjects, three cameras."""
    config = SyntheticConfig(
        clips_per_cell=1, subjects=2, dropout=0.0, actions=("walk", "wave", "jump", "hug"), min_frames=30, max_frames=40
    )
    return [clip.frames for clip in generate_clips(config)]


def saved(path: Path, clips: list[np.ndarray]) -> SkeletonDataset:
    return write(path, clips, [0] * len(clips), [0] * len(clips), layout=NTU25)


def planted(path: Path, good: list[np.ndarray], index: int, spoil: Callable[[np.ndarray], np.ndarray | None]):
    clips = [np.array(clip) for clip in good]
    clips[index] = given if (given := spoil(clips[index])) is not None else clips[index]
    return find_anomalies(saved(path, clips))


def where(found: Anomalies) -> list[tuple[str, int, int | None, int | None, int | None]]:
    return [(f.kind, f.clip, f.frame, f.person, f.joint) for f in found.findings]


def size_of(clip: np.ndarray, person: int = 0) -> float:
    body = clip[:, person]
    return float(np.median(sum(np.linalg.norm(body[:, c] - body[:, p], axis=-1) for c, p in NTU25.bones)))


def test_a_good_set_has_no_finding(tmp_path: Path, good: list[np.ndarray]) -> None:
    found = find_anomalies(saved(tmp_path / "set", good))
    assert found.findings == ()
    assert found.origins == ()
    assert (found.joint_limit, found.body_limit) == (pytest.approx(0.2, abs=0.05), 0.1)


def test_frames_without_order_are_no_jumps_throughout(tmp_path: Path) -> None:
    """White noise moves too fast everywhere: that is the dataset, a low frame rate, and not 20 findings."""
    assert find_anomalies(write(tmp_path / "set", random_clips(20), [0] * 20, [0] * 20)).findings == ()


def _one_frame(clip: np.ndarray) -> np.ndarray:
    return clip[:1]


def _nobody(clip: np.ndarray) -> None:
    clip[:] = 0


def _not_first(clip: np.ndarray) -> None:
    clip[:, 1], clip[:, 0] = clip[:, 0].copy(), 0
    clip[:2] = 0


def _gap(clip: np.ndarray) -> None:
    clip[[9, 10, 15], 0] = 0


def _frozen(clip: np.ndarray) -> None:
    clip[:, 1] = clip[4, 1]


def _frozen_run(clip: np.ndarray) -> None:
    clip[12 : 12 + len(clip) // 4] = clip[12]


def _padded(clip: np.ndarray) -> np.ndarray:
    return np.concatenate([clip, clip[-1:].repeat(20, axis=0)])


def _zero_head(clip: np.ndarray) -> None:
    clip[[6, 7, 20], 0, HEAD] = 0


def _jump(clip: np.ndarray) -> None:
    clip[8, 0, LEFT_HAND, 1] += 0.3 * size_of(clip)


def _leap(clip: np.ndarray) -> None:
    clip[11:, 1] += np.float32(0.15 * size_of(clip))


def _swap(clip: np.ndarray) -> None:
    clip[14:] = clip[14:, ::-1].copy()


def _other_slot(clip: np.ndarray) -> None:
    clip[14:, 1], clip[14:, 0] = clip[14:, 0].copy(), 0


def _twin(clip: np.ndarray) -> None:
    clip[:, 1] = clip[:, 0]
    clip[:3, 1] = 0


def _twin_aside(clip: np.ndarray) -> None:
    clip[:, 1] = clip[:, 0] + np.float32(0.8)


def _stretch(clip: np.ndarray) -> None:
    thigh = clip[:, 0, LEFT_KNEE] - clip[:, 0, 12]
    scale = np.interp(np.arange(len(clip)), [0, 18, len(clip)], [0, 9, 0])[:, None]
    clip[:, 0, LEFT_KNEE:16] += (thigh * scale).astype(np.float32)[:, None]


def _millimetres(clip: np.ndarray) -> None:
    clip *= 1000


def _a_point(clip: np.ndarray) -> None:
    clip[:, 0] = clip[:, 0, :1]


@pytest.mark.parametrize(
    ("spoil", "index", "expected"),
    [
        (_one_frame, ALONE, ("one_frame", 0, None, None)),
        (_nobody, ALONE, ("empty_clip", 0, None, None)),
        (_not_first, ALONE, ("first_absent", 2, 0, None)),
        (_gap, ALONE, ("gap", 9, 0, None)),
        (_frozen, PAIR, ("frozen_person", 0, 1, None)),
        (_frozen_run, 0, ("frozen_run", 12, 0, None)),
        (_zero_head, ALONE, ("zero_joint", 6, 0, HEAD)),
        (_jump, ALONE, ("joint_jump", 8, 0, LEFT_HAND)),
        (_leap, PAIR, ("body_jump", 11, 1, None)),
        (_swap, PAIR, ("swap", 14, 0, None)),
        (_other_slot, ALONE, ("swap", 14, 1, None)),
        (_twin, PAIR, ("twin", 3, 1, None)),
        (_twin_aside, PAIR, ("twin", 0, 1, None)),
        (_millimetres, ALONE, ("size", None, 0, None)),
        (_a_point, ALONE, ("size", None, 0, None)),
    ],
)
def test_what_is_planted_is_found_there_and_nowhere_else(
    tmp_path: Path, good: list[np.ndarray], spoil, index: int, expected: tuple
) -> None:
    found = planted(tmp_path / "set", good, index, spoil)
    kind, *place = expected
    assert (kind, index, *place) in where(found)
    # A swap concerns both persons, and a joint that is away for a frame stretches its bone.
    also = {"swap": {("swap", 0), ("swap", 1)}, "joint_jump": {("bone_spread", 0)}}.get(kind, set())
    assert {(f.kind, f.person) for f in found.findings} - {(kind, place[1])} <= also
    assert {f.clip for f in found.findings} == {index}
    sentence = next(f.text for f in found.findings if f.kind == kind)
    assert sentence == sentence.strip()
    assert "\n" not in sentence


def test_a_person_who_is_another_for_most_of_the_clip(tmp_path: Path, good: list[np.ndarray]) -> None:
    def spoil(clip: np.ndarray) -> None:
        clip[4:, 1] = clip[4:, 0]

    found = planted(tmp_path / "most", good, PAIR, spoil)
    assert ("twin", PAIR, 4, 1, None) in where(found)
    clips = [np.array(clip) for clip in good]
    clips[PAIR][:4, 1] = clips[PAIR][:4, 0]
    assert "twin" not in {f.kind for f in find_anomalies(saved(tmp_path / "few", clips)).findings}


def test_a_stretched_bone(tmp_path: Path, good: list[np.ndarray]) -> None:
    found = planted(tmp_path / "set", good, ALONE, _stretch)
    place = next(f for f in found.findings if f.kind == "bone_spread")
    assert (place.clip, place.person, place.joint) == (ALONE, 0, LEFT_KNEE)
    assert place.frame in (0, 18)
    assert place.value > 0.4
    assert "left_hip to left_knee of person 0" in place.text


def test_padding_at_the_end_is_a_frozen_run(tmp_path: Path, good: list[np.ndarray]) -> None:
    found = planted(tmp_path / "set", good, PAIR, _padded)
    last = len(good[PAIR]) - 1
    assert where(found) == [("frozen_run", PAIR, last, person, None) for person in (0, 1)]
    assert found.findings[0].value == 21
    assert "21 of" in found.findings[0].text


def test_a_swap_back_is_told_as_one_more(tmp_path: Path, good: list[np.ndarray]) -> None:
    def twice(clip: np.ndarray) -> None:
        clip[14:20] = clip[14:20, ::-1].copy()

    found = planted(tmp_path / "set", good, PAIR, twice)
    assert where(found) == [("swap", PAIR, 14, 0, None), ("swap", PAIR, 14, 1, None)]
    assert found.findings[0].text.endswith("and 1 more such")


def test_values_are_in_parts_of_the_body(tmp_path: Path, good: list[np.ndarray]) -> None:
    """The same set in another unit and place has the same findings."""

    def spoil(clip: np.ndarray) -> None:
        _jump(clip)
        clip[20:, 0] += np.float32(0.15 * size_of(clip))

    metres = planted(tmp_path / "m", good, ALONE, spoil)
    others = [np.where(clip != 0, clip * np.float32(1000) + np.float32(250), clip) for clip in good]
    millimetres = planted(tmp_path / "mm", others, ALONE, spoil)
    assert where(metres) == where(millimetres)
    assert {"joint_jump", "body_jump"} <= {f.kind for f in metres.findings}
    for one, two in zip(metres.findings, millimetres.findings, strict=True):
        assert one.value == pytest.approx(two.value, rel=1e-3)
    assert next(f for f in metres.findings if f.kind == "joint_jump").value == pytest.approx(0.3, abs=0.03)


def test_centred_data_has_an_origin_and_no_lost_joint(tmp_path: Path, good: list[np.ndarray]) -> None:
    clips = []
    for clip in good:
        there = (clip != 0).any(axis=(2, 3))[..., None, None]
        clips.append(np.where(there, clip - clip[:, :, 20:21], 0).astype(np.float32))
    clips[ALONE][5, 0, LEFT_HAND] = 0
    found = find_anomalies(saved(tmp_path / "set", clips))
    assert found.origins == ("spine_shoulder",)
    assert [f for f in found.findings if f.kind == "zero_joint"] == [
        f for f in found.findings if (f.clip, f.frame, f.joint) == (ALONE, 5, LEFT_HAND)
    ]
    assert len(found.bones) == 24  # also those that end in the origin


def test_data_centred_by_its_first_frame_has_an_origin_too(tmp_path: Path, good: list[np.ndarray]) -> None:
    clips = [np.where(clip != 0, clip - clip[0, 0, 20], 0).astype(np.float32) for clip in good]
    found = find_anomalies(saved(tmp_path / "set", clips))
    assert found.origins == ("spine_shoulder",)
    assert found.findings == ()


def test_a_joint_that_most_clips_lose_is_no_origin(tmp_path: Path, good: list[np.ndarray]) -> None:
    clips = [np.array(clip) for clip in good]
    for clip in clips[:-1]:
        clip[[3, 4], 0, HEAD] = 0
    found = find_anomalies(saved(tmp_path / "set", clips))
    assert found.origins == ()
    assert [f.clip for f in found.findings if f.kind == "zero_joint"] == list(range(len(clips) - 1))


def test_a_set_in_which_every_clip_jumps_is_not_in_order(tmp_path: Path, good: list[np.ndarray]) -> None:
    clips = [np.array(clip) for clip in good]
    for clip in clips:
        clip[10, 0, LEFT_HAND] += size_of(clip)
        clip[20:, 0] += 2 * size_of(clip)
    found = find_anomalies(saved(tmp_path / "set", clips))
    for kind, frame in (("joint_jump", 10), ("body_jump", 20)):
        assert [(f.clip, f.frame) for f in found.findings if f.kind == kind] == [(i, frame) for i in range(len(clips))]


def test_a_low_frame_rate_is_no_jump(tmp_path: Path, good: list[np.ndarray]) -> None:
    """Every fourth frame: steps are four times as long, in all clips, and one that is far out is found all the same."""
    clips = [np.array(clip[::4]) for clip in good]
    assert not {"joint_jump", "body_jump"} & {f.kind for f in find_anomalies(saved(tmp_path / "set", clips)).findings}
    clips[ALONE][5, 0, LEFT_HAND, 1] += 0.8 * size_of(clips[ALONE])
    found = find_anomalies(saved(tmp_path / "bad", clips))
    assert ("joint_jump", ALONE, 5, 0, LEFT_HAND) in where(found)


def test_two_coordinates_and_an_absent_second_person(tmp_path: Path, good: list[np.ndarray]) -> None:
    clips = [np.array(clip[..., :2]) for clip in good]
    clips[ALONE][8, 0, LEFT_HAND] += np.float32(0.5 * size_of(good[ALONE]))
    found = find_anomalies(saved(tmp_path / "set", clips))
    assert ("joint_jump", ALONE, 8, 0, LEFT_HAND) in where(found)
    assert all(f.person == 0 for f in found.findings if f.clip != PAIR and f.person is not None)


def test_nan_is_a_finding_and_hides_nothing_else(good: list[np.ndarray]) -> None:
    clip = np.array(good[ALONE])
    clip[4, 0, HEAD, 1], clip[9, 0, NECK] = np.nan, np.inf
    found = look(7, clip, NTU25).found
    assert [(f.kind, f.clip, f.frame, f.person, f.joint, f.value) for f in found] == [("not_finite", 7, 4, 0, HEAD, 4)]


def test_bones_are_those_of_a_slow_table(tmp_path: Path, good: list[np.ndarray]) -> None:
    found = find_anomalies(saved(tmp_path / "set", good))
    for facts in found.bones[::7]:
        child, parent = NTU25.joints.index(facts.child), NTU25.joints.index(facts.parent)
        means, spreads = [], []
        for clip in good:
            for person in range(2):
                if clip[:, person].any():
                    bone = [float(np.linalg.norm(f[person, child] - f[person, parent])) for f in clip.astype(float)]
                    means.append(np.mean(bone))
                    spreads.append(np.std(bone) / np.mean(bone))
        assert facts.length == pytest.approx(np.mean(means), rel=1e-5)
        assert facts.spread == pytest.approx(np.median(spreads), rel=1e-4)
        assert facts.most == pytest.approx(max(spreads), rel=1e-4)


def test_findings_come_in_the_order_of_the_kinds() -> None:
    one, two = (Finding(kind, 0, None, None, None, 0.0, "") for kind in ("size", "gap"))
    assert list(Anomalies((two, one)).by_kind()) == ["gap", "size"]
    assert all(text[0].islower() for text in KINDS.values())
