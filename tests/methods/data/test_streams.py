from __future__ import annotations

import pytest
import torch

from methods.data.layouts import KINECT20, NTU25, Layout
from methods.data.streams import STREAMS, derive
from methods.errors import InputError


def clips(layout: Layout) -> torch.Tensor:
    return torch.randn(2, 3, 6, layout.num_joints, 2, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("layout", [NTU25, KINECT20])
def test_bone_plus_parent_is_joint(layout: Layout) -> None:
    x = clips(layout)
    bone = derive(x, "bone", layout)
    for child, parent in layout.bones:
        torch.testing.assert_close(bone[..., child, :] + x[..., parent, :], x[..., child, :])
    assert not bone[..., layout.root, :].any()


def test_motion_sums_up_to_the_joints_and_ends_in_zero() -> None:
    x = clips(NTU25)
    motion = derive(x, "motion", NTU25)
    assert motion.shape == x.shape
    assert not motion[:, :, -1].any()
    torch.testing.assert_close(x[:, :, :1] + motion[:, :, :-1].cumsum(2), x[:, :, 1:])


def test_motion_of_one_frame_is_zero() -> None:
    assert not derive(clips(NTU25)[:, :, :1], "motion", NTU25).any()


@pytest.mark.parametrize("stream", STREAMS)
def test_streams_are_linear_and_differentiable(stream: str) -> None:
    x = clips(NTU25).requires_grad_()
    torch.testing.assert_close(derive(2 * x, stream, NTU25), 2 * derive(x, stream, NTU25))
    derive(x, stream, NTU25).square().sum().backward()
    assert x.grad is not None and torch.isfinite(x.grad).all()


def test_wrong_input_is_named() -> None:
    with pytest.raises(InputError, match="did you mean 'motion'"):
        derive(clips(NTU25), "motoin", NTU25)
    with pytest.raises(InputError, match="20"):
        derive(clips(NTU25), "bone", KINECT20)
