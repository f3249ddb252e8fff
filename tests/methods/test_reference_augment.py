"""Views by the official codes' numbers: recorded draws in, recorded clips out (what test_parity.py does not hold)."""

from __future__ import annotations

import pytest
import torch
from reference_helpers import Reference

from methods.augment import crops, mask, mix, ops
from methods.augment.draws import Draws
from methods.data.layouts import NTU25

pytestmark = pytest.mark.shared

ATOL = 1e-6  # the files hold clips as float32


@pytest.fixture
def numbers(reference):
    return Reference(reference / "augment.npz")


def cases(numbers, pattern):
    """Indices # of all recorded cases ``pattern`` with one # in it."""
    before, _, after = pattern.partition("#")
    found = sorted({int(key.removeprefix(before).split("/")[0]) for key in numbers.keys(f"{before}*{after}")})
    assert found, pattern
    return found


def close(ours, theirs, atol=ATOL):
    torch.testing.assert_close(ours.double(), theirs.double(), atol=atol, rtol=0)


def drawn(numbers, key, n=1):
    return numbers.tensor(key).reshape(1, *numbers[key].shape).expand(n, *numbers[key].shape)


# --- crops in time (SCD-Net, CMD) -------------------------------------------------------------------------------------


def long_clip(numbers, frames):
    """The recorded clip (1, C, T, V, M), from its start again where more frames are asked for."""
    x = numbers.tensor("scd/input/clip300")
    return x[:, torch.arange(frames) % x.shape[1]][None]


def crop_cases(numbers):
    own = int(numbers["scd/input/num_frames"])
    found = [(f"scd/cropresize/{i}", own) for i in cases(numbers, "scd/cropresize/#/out")]
    for key in numbers.keys("scd/cropresize_n*/out"):
        name = key.removesuffix("/out")
        found.append((name, int(name.partition("_n")[2])))
    return [*found, ("scd/random_crop_05_1", own)]


def test_crop_resize(numbers):
    for name, frames in crop_cases(numbers):
        start, length = (numbers.tensor(f"{name}/{part}").reshape(1) for part in ("start", "length"))
        out = crops.crop_resize(long_clip(numbers, frames), start, length, numbers[f"{name}/out"].shape[1])
        close(out[0], numbers.tensor(f"{name}/out"))


def test_length_of_a_crop_follows_from_its_scale(numbers):
    """min(max(floor(n s), 64), n): by a drawer that is handed the recorded scale."""

    class Recorded(Draws):
        def uniform(self, low, high, k):
            return scale.expand(self.n, k)

    frames = numbers.tensor("scd/input/num_frames").reshape(1)
    for i in cases(numbers, "scd/cropresize/#/scale"):
        scale = numbers.tensor(f"scd/cropresize/{i}/scale").reshape(1, 1)
        draw = Recorded(1, torch.Generator().manual_seed(i), torch.float64)
        target = numbers[f"scd/cropresize/{i}/out"].shape[1]
        start, length = crops.draw_crop(draw, frames, 0.0, 1.0, shortest=target)
        assert int(length) == int(numbers[f"scd/cropresize/{i}/length"])
        assert 0 <= int(start) <= int(frames) - int(length)


def test_centre_crop(numbers):
    frames = int(numbers["scd/input/num_frames"])
    start, length = crops.centre_crop(torch.tensor([frames]), 0.95)
    theirs = numbers.tensor("scd/center_crop_095/out")
    close(crops.crop_resize(long_clip(numbers, frames), start, length, theirs.shape[1])[0], theirs)


# --- SCD-Net's masks, CMD's corruption --------------------------------------------------------------------------------


def test_structural_reach(reference, numbers):
    official = Reference(reference / "graph.npz").tensor("scdnet/structural_mask_B")
    assert torch.equal(mask.structural_reach(NTU25), official)


def test_structural_mask(numbers):
    """Equal but for ties, which numpy's sort decides in no order: so by the scores of the joints that are taken."""
    reach = mask.structural_reach(NTU25)
    x = numbers.tensor("scd/input/clip64")
    for i in cases(numbers, "scd/spatial_mask/#/seed_joints"):
        seeds, score = (
            drawn(numbers, f"scd/spatial_mask/{i}/seed_joints"),
            numbers.tensor(f"scd/spatial_mask/{i}/score"),
        )
        masked = numbers.tensor(f"scd/spatial_mask/{i}/masked")
        assert torch.equal(reach[seeds[0]].sum(0), score)
        ours = mask.structural_joints(reach, seeds, len(masked))[0]
        assert torch.equal(score[ours].sort().values, score[masked].sort().values)
        hidden = mask.zero_joints(x[None], mask.joint_table(masked[None], x.shape[2]))[0]
        empty = torch.nonzero((hidden == 0).all(3).all(1).all(0)).flatten()  # the centre of a clip is zero by itself
        assert torch.equal(empty, numbers.tensor(f"scd/spatial_mask/{i}/masked_by_zero_output"))


def test_segment_mask(numbers):
    x = numbers.tensor("scd/input/clip64")
    frames = x.shape[1]
    for i in cases(numbers, "scd/temporal_mask/#/segments"):
        segments = mask.joint_table(drawn(numbers, f"scd/temporal_mask/{i}/segments"), 16)
        zero = numbers.tensor(f"scd/temporal_mask/{i}/zero_frames")
        chosen = mask.segment_frames(segments, frames)
        assert torch.equal(torch.nonzero(chosen[0]).flatten(), zero)
        hidden = mask.zero_frames(x[None], chosen)[0]
        assert torch.equal(torch.nonzero((hidden == 0).all(3).all(2).all(0)).flatten(), zero)


def test_scdnet_shear_rotation_flip(numbers):
    x = numbers.tensor("scd/input/clip64")[None]
    for i in cases(numbers, "scd/shear/#/out"):
        close(ops.linear_map(x, drawn(numbers, f"scd/shear/{i}/matrix_S"))[0], numbers.tensor(f"scd/shear/{i}/out"))
    for i in cases(numbers, "scd/rotate/#/out"):
        turn = ops.rotation_matrix(drawn(numbers, f"scd/rotate/{i}/angles_rad_xyz"))
        close(ops.linear_map(x, turn)[0], numbers.tensor(f"scd/rotate/{i}/out"))
    flipped = ops.mirror(x, torch.tensor([True]), torch.tensor(NTU25.mirror), reflect=False)
    close(flipped[0], numbers.tensor("scd/flip/out"))


def test_cmd_corruption_and_shear(numbers):
    x = numbers.tensor("scd/input/clip64")[None]
    for i in cases(numbers, "cmd/corrupt/#/out"):
        joints = mask.joint_table(drawn(numbers, f"cmd/corrupt/{i}/joints"), x.shape[3])
        matrix = drawn(numbers, f"cmd/corrupt/{i}/matrix")
        assert bool(numbers[f"cmd/corrupt/{i}/mode_zero"]) == (not matrix.any())
        close(mask.corrupt_joints(x, joints, matrix)[0], numbers.tensor(f"cmd/corrupt/{i}/out"))
    for i in cases(numbers, "cmd/shear/#/out"):
        close(ops.linear_map(x, drawn(numbers, f"cmd/shear/{i}/matrix_S"))[0], numbers.tensor(f"cmd/shear/{i}/out"))


# --- PSTL -------------------------------------------------------------------------------------------------------------


def test_pstl_crop_shear_rotation_flip(numbers):
    """One draw for the batch, of which the first clip was kept. PSTL's shear acts transposed: x' = S^T x."""
    x = numbers.tensor("pstl/input/batch")
    n, pad = len(x), x.shape[2] // 6
    for i in cases(numbers, "pstl/crop/#/out0"):
        start = numbers.tensor(f"pstl/crop/{i}/start").expand(n)
        close(ops.temporal_crop(x, start, pad)[:1], numbers.tensor(f"pstl/crop/{i}/out0"))
    for i in cases(numbers, "pstl/shear/#/out0"):
        matrix = drawn(numbers, f"pstl/shear/{i}/Shear_matrix", n).transpose(1, 2)
        close(ops.linear_map(x, matrix)[:1], numbers.tensor(f"pstl/shear/{i}/out0"))
    for i in cases(numbers, "pstl/rotate/#/out0"):
        turn = ops.rotation_matrix(drawn(numbers, f"pstl/rotate/{i}/angles_rad_xyz", n))
        close(ops.linear_map(x, turn)[:1], numbers.tensor(f"pstl/rotate/{i}/out0"))
    flipped = ops.mirror(x, torch.ones(n, dtype=torch.bool), torch.tensor(NTU25.mirror), reflect=False)
    close(flipped[:1], numbers.tensor("pstl/flip/out0"))


def same_but_for_ties(attention, ours, theirs):
    """Both keep frames of the same attention values, in order of time."""
    torch.testing.assert_close(attention.gather(1, ours).sort(1).values, attention.gather(1, theirs).sort(1).values)
    assert (ours[:, 1:] > ours[:, :-1]).all()


def test_pstl_motion_attention(numbers):
    x = numbers.tensor("pstl/input/batch")
    for i in cases(numbers, "pstl/matm/#/attention"):
        attention = mask.motion_attention(x)
        torch.testing.assert_close(attention, numbers.tensor(f"pstl/matm/{i}/attention"), rtol=1e-9, atol=1e-15)
        kept = numbers.tensor(f"pstl/matm/{i}/kept_by_motion")
        same_but_for_ties(attention, mask.slowest_frames(attention, kept.shape[1]), kept)
        final = kept[:, numbers.tensor(f"pstl/matm/{i}/random_subset")]
        assert torch.equal(final, numbers.tensor(f"pstl/matm/{i}/final_frames"))
        out = ops.take_frames(x, final)
        # one joint of person 0 was recorded (index 5, whatever the key says): it must be among ours, to the bit
        theirs = numbers.tensor(numbers.keys(f"pstl/matm/{i}/out_joint*")[0])
        apart = (out[..., 0] - theirs[..., None]).abs().amax((0, 1, 2))
        assert float(apart.min()) < ATOL


def test_pstl_central_joints(numbers):
    """No joint more often than it has bones, eight entries of the urn each, and of the same frequencies as ours."""
    official = numbers.tensor("pstl/csm/draws")
    entries = mask.central_entries(NTU25)
    bones = torch.bincount(entries)
    for row in official:
        assert (torch.bincount(row, minlength=len(bones)) <= bones).all()
    ours = mask.draw_central_joints(Draws(4000, torch.Generator().manual_seed(0)), entries, official.shape[1])
    dropped, theirs = (mask.joint_table(each, len(bones)).double() for each in (ours, official))
    assert float(theirs.sum(1).mean()) == pytest.approx(float(dropped.sum(1).mean()), abs=0.2)
    spread = 4.5 * (dropped.mean(0) * (1 - dropped.mean(0)) / len(official)).sqrt()
    assert ((theirs.mean(0) - dropped.mean(0)).abs() < spread + 0.02).all()


@pytest.mark.parametrize("step", [1, 2])
def test_pstl_views_of_a_step(reference, step):
    """The three views of a training step from the clips and the recorded draws: crop, shear, rotation, flip, MATM."""
    numbers = Reference(reference / "pstl.npz")
    given = f"input/step{step}"
    x = numbers.tensor("input/data")
    n, pad = len(x), x.shape[2] // 6
    for view in range(3):
        out = ops.temporal_crop(x, numbers.tensor(f"{given}/crop_start")[view].expand(n), pad)
        out = ops.linear_map(out, numbers.tensor(f"{given}/shear_matrix")[view].T.expand(n, 3, 3))
        out = ops.linear_map(
            out, ops.rotation_matrix(numbers.tensor(f"{given}/angles_xyz")[view][None]).expand(n, 3, 3)
        )
        flip = torch.as_tensor(bool(numbers[f"{given}/flip_applied"][view])).expand(n)
        out = ops.mirror(out, flip, torch.tensor(NTU25.mirror), reflect=False)
        if view == 1:
            attention = mask.motion_attention(out)
            kept = numbers.tensor(f"{given}/matm_kept")
            if step == 1:
                torch.testing.assert_close(attention, numbers.tensor("out/matm_attention"), rtol=1e-9, atol=1e-15)
            same_but_for_ties(attention, mask.slowest_frames(attention, kept.shape[1]), kept)
            out = ops.take_frames(out, kept[:, numbers.tensor(f"{given}/matm_random")])
        close(out, numbers.tensor(f"{given}/input{view + 1}"))


# --- SkeleMixCLR, CRRL ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["skelemixclr", "skelemixclr_plus"])
@pytest.mark.parametrize("step", [1, 2])
def test_skelemix(reference, name, step):
    """Mask and mixture from the recorded shift, joints, start and length; the joints are whole parts of our layout."""
    numbers = Reference(reference / f"{name}.npz")
    x = numbers.tensor("input/view_q")
    n, _, frames, v, _ = x.shape
    segments = mix.segments_of(frames, 4)
    for i in range(len(numbers.keys(f"input/draws_step{step}/mix*_shift"))):
        given = f"input/draws_step{step}/mix{i}_"
        shift = numbers.tensor(f"{given}shift").reshape(())
        assert torch.equal(mix.partners(n, shift), numbers.tensor(f"{given}perm"))
        joints = mask.joint_table(drawn(numbers, f"{given}joints", n), v)
        start, length = (numbers.tensor(f"{given}{part}").reshape(1).expand(n) for part in ("start", "Ct"))
        recorded = mix.Mix(shift, joints, start, length)
        inside = (joints[:1] & mix.part_table(NTU25.parts, v)).sum(1)
        assert all(int(count) in (0, len(part)) for count, part in zip(inside, NTU25.parts.values(), strict=True))
        if step == 1:
            official = numbers.tensor(f"out/big/mix{i}_mask").bool()
            assert torch.equal(recorded.cells(segments), official.expand(n, *official.shape))
        if step == 1 and f"out/big/mix{i}_input" in numbers:
            assert torch.equal(mix.skelemix(x, recorded), numbers.tensor(f"out/big/mix{i}_input"))


def test_crrl_views(reference):
    """Y is X backwards, S its velocity and SR that velocity backwards, each within the valid frames."""
    numbers = Reference(reference / "crrl.npz")
    lengths = numbers.tensor("input/num_frame")
    x, y, s, sr = (numbers.tensor(f"input/{name}").transpose(1, 2)[..., None, None] for name in ("X", "Y", "S", "SR"))
    yes = torch.ones(len(x), dtype=torch.bool)
    assert torch.equal(ops.reverse_time(x, yes, lengths), y)
    close(ops.velocity(x, lengths), s)
    assert torch.equal(ops.reverse_time(s, yes, lengths), sr)
