"""Equal to the official code: recorded inputs, weights and draws in, the recorded numbers out (SKELTUNE_REFERENCE)."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from methods.augment import ops
from methods.base import Views
from methods.data.layouts import KINECT20, NTU25
from methods.data.streams import derive
from methods.nn.encoder import EncoderConfig
from methods.nn.graph import adjacency
from methods.nn.stgcn import STGCN
from methods.skeletonclr import SkeletonCLR, SkeletonCLRConfig
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


# --- SkeletonCLR: one whole official training step --------------------------------------------------------------------

BLOCK = {"gcn.conv": "spatial.conv", "tcn": "temporal", "residual": "shortcut"}


def our_encoder_name(name: str) -> str | None:
    """An official ST-GCN parameter's name in our encoder; None for what ours does not hold (the head)."""
    name = name.replace("data_bn", "norm")
    if name == "A":
        return "graph"
    found = re.match(r"st_gcn_networks\.(\d+)\.(gcn\.conv|tcn|residual)\.(.*)", name)
    if found:
        return f"blocks.{found[1]}.{BLOCK[found[2]]}.{found[3]}"
    return None if name.startswith("fc.") else name


def our_name(name: str) -> str:
    side, _, rest = name.partition(".")
    slow = side == "encoder_k"
    inner = our_encoder_name(rest)
    if inner is not None:
        return f"slow_encoder.target.{inner}" if slow else f"encoder.{inner}"
    head = rest.removeprefix("fc.")
    return f"slow_projector.target.{head}" if slow else f"projector.{head}"


def official_state(numbers, prefix):
    """Our state dict from official entries under ``prefix``."""
    state = {}
    for key in numbers.files:
        if not key.startswith(prefix + "/"):
            continue
        name, value = key.removeprefix(prefix + "/"), torch.as_tensor(numbers[key])
        value = value.double() if value.is_floating_point() else value
        if name == "queue":
            state["queue.keys"] = value.T.contiguous()
        elif name == "queue_ptr":
            state["queue.pointer"] = value.reshape(())
        else:
            state[our_name(name)] = value
    return state


@pytest.fixture
def skeletonclr(reference):
    numbers = load(reference, "skeletonclr")

    def config(name):
        return numbers[f"config/{name}"].item()

    encoder = STGCN(
        EncoderConfig(width=config("c"), dim=config("Dh"), dropout=0.0, partition="spatial_degenerate"), NTU25
    )
    own = SkeletonCLRConfig(
        temperature=config("temperature"),
        momentum=config("momentum"),
        queue=config("K"),
        hidden=config("Dh"),
        projection=config("D"),
    )
    method = SkeletonCLR(own, encoder).double()
    method.load_state_dict(official_state(numbers, "state"))
    optimiser = torch.optim.SGD(
        [p for p in method.parameters() if p.requires_grad],
        lr=config("lr"),
        momentum=config("sgd_momentum"),
        weight_decay=config("weight_decay"),
    )
    view_a, view_b = tensor(numbers["input/view_q"]), tensor(numbers["input/view_k"])
    views = Views({"a": view_a, "b": view_b}, (view_a != 0).flatten(1, 3).any(1))
    return numbers, method, optimiser, views


def test_skeletonclr_features(skeletonclr):
    numbers, method, _, views = skeletonclr
    method.eval()
    with torch.no_grad():
        pooled = method.embed(views["a"])
        np.testing.assert_allclose(pooled.numpy(), numbers["out/eval/pooled_q"], rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(
            method.projector(pooled).numpy(), numbers["out/eval/encoder_q_view_q"], rtol=1e-8, atol=1e-12
        )


def test_skeletonclr_step(skeletonclr):
    numbers, method, optimiser, views = skeletonclr
    method.train()
    loss = method.loss(views, 0.0).loss
    assert loss.item() == pytest.approx(float(numbers["out/loss"]), rel=1e-9)
    optimiser.zero_grad()
    loss.backward()
    parameters = dict(method.named_parameters())
    compared = 0
    for key in numbers.files:
        if key.startswith("grad/"):
            ours = parameters[our_name(key.removeprefix("grad/"))].grad.numpy()
            np.testing.assert_allclose(ours, numbers[key], rtol=1e-6, atol=1e-10, err_msg=key)
            compared += 1
    assert compared > 50
    optimiser.step()
    method.after_step(0.0)
    state = method.state_dict()
    after = official_state(numbers, "after")
    assert len(after) > 50
    for name, value in after.items():
        torch.testing.assert_close(state[name], value, rtol=1e-7, atol=1e-10, msg=lambda m, name=name: f"{name}: {m}")
    again = method.loss(views, 0.0).loss
    assert again.item() == pytest.approx(float(numbers["step2/loss"]), rel=1e-7)
    assert int(method.queue.pointer) == int(numbers["step2/queue_ptr"].item())
