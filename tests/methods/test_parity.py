"""Equal to the official code: recorded inputs, weights and draws in, the recorded numbers out (SKELTUNE_REFERENCE)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from methods.augment import ops
from methods.data.layouts import KINECT20, NTU25
from methods.data.streams import derive
from methods.nn.graph import adjacency
from methods.training.probe import weighted_knn

pytestmark = pytest.mark.shared


def load(reference, name):
    return np.load(reference / f"{name}.npz", allow_pickle=False)


def tensor(array) -> torch.Tensor:
    return torch.as_tensor(np.asarray(array)).double()


# --- graphs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "layout", "partition"),
    [
        ("crs/ntu25/spatial", NTU25, "spatial_degenerate"),
        ("cmcs/ucla20/spatial", KINECT20, "spatial_degenerate"),
        ("skelemixclr/agcn", NTU25, "inward_outward"),
    ],
)
def test_graphs(reference, key, layout, partition):
    official = load(reference, "graph")[key]
    np.testing.assert_allclose(adjacency(layout, partition).numpy(), official, atol=1e-7)


# --- augmentations --------------------------------------------------------------------------------------------------


@pytest.fixture
def augment(reference):
    return load(reference, "augment")


def clip(augment, n=4):
    return torch.as_tensor(augment["input/clip"])[None].repeat(n, 1, 1, 1, 1)


def stacked(augment, pattern, count):
    return torch.as_tensor(np.stack([augment[pattern.format(i)] for i in range(count)]))


def test_crop(augment):
    pads = {int(augment[f"crop/{i}/pad"]) for i in range(4)}
    assert pads == {8}
    out = ops.temporal_crop(clip(augment), stacked(augment, "crop/{}/start", 4), 8)
    assert torch.equal(out, stacked(augment, "crop/{}/out", 4))


def test_shear(augment):
    offsets = torch.cat([stacked(augment, "shear/{}/s1", 4), stacked(augment, "shear/{}/s2", 4)], 1)
    matrix = stacked(augment, "shear/{}/matrix_S", 4)
    out = ops.linear_map(clip(augment).double(), matrix)
    torch.testing.assert_close(out, stacked(augment, "shear/{}/out", 4).double(), atol=1e-6, rtol=0)
    # our matrix holds the same six numbers as theirs, in reading order
    six = matrix[:, [0, 0, 1, 1, 2, 2], [1, 2, 0, 2, 0, 1]]
    torch.testing.assert_close(ops.shear_matrix(six), matrix)
    assert sorted(offsets.flatten().tolist()) == sorted(six.flatten().tolist())


def test_rotation(augment):
    matrix = ops.rotation_matrix(stacked(augment, "rotate/{}/angles_rad_xyz", 4))
    out = ops.linear_map(clip(augment).double(), matrix)
    torch.testing.assert_close(out, stacked(augment, "rotate/{}/out", 4).double(), atol=1e-6, rtol=0)


def test_flip_noise_mask_and_time(augment):
    order = torch.as_tensor(augment["const/flip_order"])
    assert tuple(order.tolist()) == NTU25.mirror
    chosen = torch.tensor([True])
    one = clip(augment, 1)
    assert torch.equal(ops.mirror(one, chosen, order, reflect=False)[0], torch.as_tensor(augment["flip/out"]))
    assert torch.equal(ops.reverse_time(one, chosen)[0], torch.as_tensor(augment["time_flip/out"]))
    for i in range(2):
        out = ops.add_noise(one, torch.as_tensor(augment[f"noise/{i}/noise"])[None])
        torch.testing.assert_close(out[0], torch.as_tensor(augment[f"noise/{i}/out"]), atol=1e-6, rtol=0)
    out = ops.mask_axis(clip(augment, 3), stacked(augment, "axis_mask/{}/axis", 3))
    assert torch.equal(out, stacked(augment, "axis_mask/{}/out", 3))


def test_blur(augment):
    out = ops.temporal_blur(
        clip(augment, 3).double(), stacked(augment, "blur/{}/sigma", 3), torch.ones(3, dtype=torch.bool), False
    )
    torch.testing.assert_close(out, stacked(augment, "blur/{}/out", 3).double(), atol=2e-6, rtol=0)


@pytest.mark.parametrize("i", range(4))
def test_whole_extreme_pipeline(augment, i):
    def drawn(name):
        return torch.as_tensor(augment[f"strong/{i}/{name}"])[None]

    x = ops.temporal_crop(clip(augment, 1).double(), drawn("crop_start"), 8)
    x = ops.linear_map(x, drawn("shear_S"))
    x = ops.mirror(x, drawn("flip_applied"), torch.tensor(NTU25.mirror), reflect=False)
    x = ops.linear_map(x, ops.rotation_matrix(drawn("rot_angles_xyz")))
    if bool(drawn("noise_applied")):
        x = ops.add_noise(x, drawn("noise"))
    x = ops.temporal_blur(x, drawn("blur_sigma"), drawn("blur_applied"), False)
    x = ops.mask_axis(x, drawn("axis"))
    torch.testing.assert_close(x, drawn("out").double(), atol=3e-6, rtol=0)


@pytest.mark.parametrize("stream", ["motion", "bone"])
def test_streams(augment, stream):
    out = derive(clip(augment, 1), stream, NTU25)[0]
    torch.testing.assert_close(out, torch.as_tensor(augment[f"stream/{stream}"]), atol=1e-6, rtol=0)


# --- weighted kNN ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 10, 20, 40])
@pytest.mark.parametrize("temperature", [0.1, 0.07])
def test_knn(reference, k, temperature):
    knn = load(reference, "knn")
    ours = weighted_knn(
        tensor(knn["input/bank_features_raw"]),
        torch.as_tensor(knn["input/bank_labels"]),
        tensor(knn["input/query_features_raw"]),
        int(knn["config/classes"]),
        k,
        temperature,
    )
    np.testing.assert_allclose(ours.numpy(), knn[f"out/k{k}_t{temperature}/scores"], rtol=1e-8)
    assert np.array_equal(ours.argmax(1).numpy(), knn[f"out/k{k}_t{temperature}/pred"])
