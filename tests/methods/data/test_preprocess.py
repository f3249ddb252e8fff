from __future__ import annotations

import numpy as np
import pytest
import torch
from dataset_helpers import STICK

from methods.data.layouts import COCO17, layout_from_parts
from methods.data.preprocess import DEFAULT_STEPS, RECIPES, STEPS, apply_steps, expand_steps, parse_steps, resize
from methods.data.skeletons import count_valid
from methods.errors import InputError


def body(frames: int = 7, persons: int = 2, seed: int = 0) -> np.ndarray:
    """Rigid persons with shoulders along x, walking; no joint at the origin."""
    rng = np.random.default_rng(seed)
    rest = rng.normal(size=(persons, STICK.num_joints, 3))
    rest[:, 2] = [-0.2, 1.4, 0.0]
    rest[:, 3] = [0.2, 1.4, 0.0]
    walk = rng.normal(size=(frames, persons, 1, 3)).cumsum(0) + 3
    return (rest + walk).astype(np.float32)


def turned(clip: np.ndarray, angle: float | np.ndarray) -> np.ndarray:
    angle = np.broadcast_to(angle, clip.shape[:1])[:, None, None]
    x, y, z = np.moveaxis(clip, -1, 0)
    return np.stack((x * np.cos(angle) - z * np.sin(angle), y, x * np.sin(angle) + z * np.cos(angle)), -1).astype("f4")


def run(clip: np.ndarray, *names: str, frames: int = 7) -> np.ndarray:
    """Apply steps and return (T, M, V, C), as the clip was."""
    out = apply_steps(clip, count_valid(clip, STICK), STICK, parse_steps(names), frames)
    assert out.dtype == np.float32 and out.flags.c_contiguous and out.flags.writeable
    return out.transpose(1, 3, 2, 0)


@pytest.mark.parametrize(("count", "length"), [(1, 5), (2, 50), (37, 64), (64, 64), (300, 50), (51, 50)])
def test_resize_is_torchs_linear_interpolation(count: int, length: int) -> None:
    x = np.random.default_rng(0).normal(size=(count, 2, 3)).astype(np.float32)
    wanted = torch.nn.functional.interpolate(
        torch.from_numpy(x.reshape(count, 6).T[None].copy()), size=length, mode="linear", align_corners=False
    )
    np.testing.assert_allclose(resize(x, length).reshape(length, 6).T, wanted[0].numpy(), atol=2e-5)


def test_centre_takes_each_person_and_frame_by_itself() -> None:
    clip = body()
    clip[2, 1] = 0
    out = run(clip, "centre")
    assert not out[:, :, STICK.centre].any()
    assert not out[2, 1].any()
    np.testing.assert_allclose(out[0, 0, 3] - out[0, 0, 2], clip[0, 0, 3] - clip[0, 0, 2], atol=1e-6)


def test_centre_first_keeps_the_way_and_the_other_person() -> None:
    clip = body()
    clip[:2, 0] = 0
    out = run(clip, "centre_first")
    assert not out[:2, 0].any()
    assert not out[2, 0, STICK.centre].any()
    np.testing.assert_allclose(out[2:] - out[2, 0, STICK.centre], clip[2:] - clip[2, 0, STICK.centre], atol=1e-5)
    np.testing.assert_allclose(out[0, 1], clip[0, 1] - clip[2, 0, STICK.centre], atol=1e-5)


def test_trims() -> None:
    clip = body()
    clip[[0, 3, 6], 0] = 0
    np.testing.assert_array_equal(run(clip, "trim", frames=4), clip[[1, 2, 4, 5]])
    np.testing.assert_array_equal(run(clip, "trim_paper", frames=4), clip[:4])  # 4 valid frames: the first four
    clip[:, 0] = 0
    clip[2, 1] = 0
    np.testing.assert_array_equal(run(clip, "trim", frames=6), np.delete(clip, 2, 0))
    for step in ("trim", "trim_paper"):
        assert not run(0 * clip, step).any()


@pytest.mark.parametrize("angle", [0.3, 2.0, -3.0])
def test_rotate_y_undoes_any_turn_of_the_clip(angle: float) -> None:
    clip = body()
    clip[3, 1] = 0
    out = run(turned(clip, angle), "rotate_y")
    np.testing.assert_allclose(out, run(clip, "rotate_y"), atol=1e-5)
    line = out[:, 0, 3] - out[:, 0, 2]
    np.testing.assert_allclose(line, np.tile([0.4, 0, 0], (7, 1)), atol=1e-5)
    assert not out[3, 1].any()


def test_rotate_y_keeps_turning_round_and_how_two_persons_face_each_other() -> None:
    clip = turned(body(8), np.linspace(0, 2 * np.pi, 8, endpoint=False))
    out = run(clip, "rotate_y", frames=8)
    assert out[0, 0, 3, 0] > out[0, 0, 2, 0]
    assert out[4, 0, 3, 0] < out[4, 0, 2, 0]
    distance = np.linalg.norm(out[:, 0] - out[:, 1], axis=-1)
    np.testing.assert_allclose(distance, np.linalg.norm(clip[:, 0] - clip[:, 1], axis=-1), rtol=1e-4)


def test_rotate_y_paper_aligns_every_frame_but_not_where_the_line_crosses_z() -> None:
    out = run(turned(body(), np.linspace(0.1, 1.2, 7)), "rotate_y_paper")
    np.testing.assert_allclose((out[:, :, 3] - out[:, :, 2])[..., 2], 0, atol=2e-3)
    crossing = run(turned(body(), np.linspace(-1.0, 0.5, 7)), "rotate_y_paper")
    assert np.abs((crossing[:, 0, 3] - crossing[:, 0, 2])[..., 2]).max() > 0.1


def test_unit_scale_and_bone_lengths_take_the_size_away() -> None:
    clip = body()
    clip[4, 1] = 0
    for step in ("unit_scale", "bone_lengths"):
        np.testing.assert_allclose(run(3 * clip, step), run(clip, step), atol=1e-5)
        assert not run(clip, step)[4, 1].any()
    out = run(clip, "bone_lengths")
    for child, parent in STICK.bones:
        bone, before = out[:, :, child] - out[:, :, parent], clip[:, :, child] - clip[:, :, parent]
        size = np.linalg.norm(bone, axis=-1)
        there = size > 0
        np.testing.assert_allclose(size[there], 1 / (STICK.num_joints - 1), rtol=1e-4)
        cosine = (bone * before).sum(-1)[there] / (size * np.linalg.norm(before, axis=-1))[there]
        np.testing.assert_allclose(cosine, 1, atol=1e-4)
    assert there.sum() == 13


def test_align_body_stands_a_turned_clip_upright() -> None:
    """Any turn of the clip is undone; the spine is exactly +z then, the shoulders in the x-z plane towards +x."""
    clip = body()
    clip[0, 0, 1] = clip[0, 0, 0] + [0.1, 0.5, -0.2]  # the spine: hip to neck
    clip[3, 1] = 0
    turn, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    turn *= np.sign(np.linalg.det(turn))
    out = run(clip, "align_body")
    np.testing.assert_allclose(run((clip @ turn).astype("f4"), "align_body"), out, atol=2e-5)
    spine, shoulders = out[0, 0, 1] - out[0, 0, 0], out[0, 0, 3] - out[0, 0, 2]
    np.testing.assert_allclose(spine[:2], 0, atol=1e-6)
    assert spine[2] > 0
    assert shoulders[1] == pytest.approx(0, abs=1e-6)
    assert shoulders[0] > 0
    assert not out[3, 1].any()
    np.testing.assert_allclose(np.linalg.norm(out, axis=-1), np.linalg.norm(clip, axis=-1), rtol=1e-5)


def test_align_body_leaves_a_clip_without_a_frame_to_go_by() -> None:
    clip = body()
    clip[:, 0, 3] = clip[:, 0, 2]  # shoulders in one point
    np.testing.assert_array_equal(run(clip, "align_body"), clip)
    clip[4, 0, 3] += 1  # but once
    assert np.abs(run(clip, "align_body") - clip).max() > 0.1


def test_step_lists() -> None:
    assert [step.name for step in parse_steps(["centre"])] == ["centre", "resize"]
    assert [step.name for step in parse_steps(["resize", "rotate_y"])] == ["resize", "rotate_y"]
    assert [step.name for step in parse_steps(DEFAULT_STEPS)] == list(DEFAULT_STEPS)
    with pytest.raises(InputError) as caught:
        parse_steps(["center", "resize", "trim", "trim"])
    assert caught.value.faults == (
        "unknown preprocessing step 'center'; did you mean 'centre'?",
        "preprocessing step 'trim' is named twice",
        "preprocessing step 'trim' must come before 'resize'",
    )
    with pytest.raises(InputError, match="list of names"):
        parse_steps("centre")


def test_recipes_are_names_for_lists() -> None:
    for name, steps in RECIPES.items():
        assert [step.name for step in parse_steps([name])] == list(steps)
        assert expand_steps([name]) == expand_steps(name) == steps
        assert name not in STEPS
    assert expand_steps(["unit_scale", "agcn", "resise"]) == ("unit_scale", *RECIPES["agcn"], "resise")
    assert expand_steps("centre") == ("centre",)
    assert [step.name for step in parse_steps(["unit_scale", "ucla"])][-1] == "sample"
    with pytest.raises(InputError, match=r"'trim' is named twice \(it is in 'agcn'\)"):
        parse_steps(["trim", "agcn"])
    with pytest.raises(InputError, match="did you mean 'crossclr'"):
        parse_steps(["croscclr"])


def test_only_one_step_ends_at_the_wanted_length() -> None:
    assert [step.name for step in parse_steps(["sample", "centre"])] == ["sample", "centre"]
    with pytest.raises(InputError) as caught:
        parse_steps(["sample", "resize", "trim_empty"])
    assert caught.value.faults == (
        "preprocessing steps 'sample' and 'resize' both end at T frames; name one of them",
        "preprocessing step 'trim_empty' must come before 'sample'",
    )


def test_what_a_layout_or_a_clip_lacks_is_named() -> None:
    with pytest.raises(InputError) as caught:
        apply_steps(np.ones((3, 1, 17, 2), "f4"), 3, COCO17, parse_steps(["agcn_paper"]), 5)
    assert [fault.partition(", and")[0] for fault in caught.value.faults] == [
        "step 'centre_spine' needs a spine",
        "step 'spine_z' needs a spine",
        "step 'spine_z' needs x, y and z; the clips have 2 coordinates",
        "step 'shoulders_x' needs x, y and z; the clips have 2 coordinates",
    ]
    bare = layout_from_parts("bare", [f"j{index}" for index in range(5)], [-1, 0, 1, 2, 3])
    with pytest.raises(InputError, match="needs shoulders"):
        apply_steps(body(), 7, bare, parse_steps(["rotate_y"]), 5)
    with pytest.raises(InputError, match="x, y and z"):
        apply_steps(body()[..., :2], 7, STICK, parse_steps(["rotate_y"]), 5)
    with pytest.raises(InputError, match="0 frames"):
        apply_steps(body(), 7, STICK, parse_steps([]), 0)
    with pytest.raises(InputError, match="a clip must be"):
        apply_steps(body()[:, :, :4], 7, STICK, parse_steps([]), 5)
