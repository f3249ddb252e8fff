"""Encoders equal to the official code: official weights and recorded inputs in, recorded features out, in float64.

Every size is read from the reference file, so that other cases of the same kind can be put in its place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from tiny import tree
from torch import Tensor, nn

from methods.data.layouts import NTU25
from methods.filled import valid_lengths
from methods.nn.attention_drop import kept_cells
from methods.nn.encoder import Encoder, EncoderConfig
from methods.nn.graph import adjacency
from methods.nn.gru import GruConfig, GruEncoder
from methods.nn.heads import mlp
from methods.nn.stgcn import STGCN
from methods.nn.twopath import TwoPath, TwoPathConfig

pytestmark = pytest.mark.shared

# What an official name becomes, by successive substitution; a name that no first pattern fits is not the encoder's.
Names = Sequence[tuple[str, str]]

STGCN_NAMES: Names = (
    (r"^A$", "graph"),
    (r"^data_bn\.", "norm."),
    (r"^st_gcn_networks\.(\d+)\.", r"blocks.\1."),
    (r"^(blocks\.\d+)\.gcn\.conv\.", r"\1.spatial.conv."),
    (r"^(blocks\.\d+)\.tcn\.", r"\1.temporal."),
    (r"^(blocks\.\d+)\.residual\.", r"\1.shortcut."),
)
CMD_NAMES: Names = ((r"^encoder\.gru\.", "gru."), (r"^input_norm\.", "norm."))
SCD_NAMES: Names = (
    (r"^encoder\.gcn_t\.", "time.graph."),
    (r"^encoder\.gcn_s\.", "space.graph."),
    (r"^encoder\.channel_t\.", "time.tokens."),
    (r"^encoder\.channel_s\.", "space.tokens."),
    (r"^encoder\.t_encoder\.layers\.", "time.attention."),
    (r"^encoder\.s_encoder\.layers\.", "space.attention."),
    (r"\.graph\.data_bn\.", ".graph.norm."),
    *((rf"\.graph\.l{i + 1}\.", f".graph.units.{i}.") for i in range(3)),
    (r"\.gcn1\.PA$", ".spatial.graph"),
    (r"\.gcn1\.convs\.(\d)\.conv1\.", r".spatial.relations.\1.receiver."),
    (r"\.gcn1\.convs\.(\d)\.conv2\.", r".spatial.relations.\1.sender."),
    (r"\.gcn1\.convs\.(\d)\.conv3\.", r".spatial.relations.\1.value."),
    (r"\.gcn1\.convs\.(\d)\.conv4\.", r".spatial.relations.\1.relation."),
    (r"\.gcn1\.down\.", ".spatial.shortcut."),
    (r"\.gcn1\.bn\.", ".spatial.norm."),
    (r"\.gcn1\.alpha$", ".spatial.alpha"),
    (r"\.tcn1\.branches\.(\d)\.3\.conv\.", r".temporal.branches.\1.3."),
    (r"\.tcn1\.branches\.(\d)\.3\.bn\.", r".temporal.branches.\1.4."),
    (r"\.tcn1\.", ".temporal."),
    (r"\.residual\.conv\.", ".shortcut.0."),
    (r"\.residual\.bn\.", ".shortcut.1."),
)


class Case:
    """One reference file."""

    def __init__(self, reference, name: str) -> None:
        self.numbers = np.load(reference / f"{name}.npz", allow_pickle=False)

    def __call__(self, key: str) -> Tensor:
        value = torch.as_tensor(self.numbers[key])
        return value.double() if value.is_floating_point() else value

    def config(self, name: str) -> float:
        return self.numbers[f"config/{name}"].item()

    def state(self, prefix: str) -> dict[str, Tensor]:
        return {key.removeprefix(prefix): self(key) for key in self.numbers.files if key.startswith(prefix)}

    def load(self, module: nn.Module, prefix: str, names: Names, other: str) -> None:
        """Give ``module`` the official weights; what ``other`` does not match must all be its own."""
        state = {}
        for official, value in self.state(prefix).items():
            if re.match(other, official):
                continue
            ours = official
            for pattern, replacement in names:
                ours = re.sub(pattern, replacement, ours)
            state[ours] = value
        module.double().load_state_dict(state)

    def head(self, prefix: str) -> nn.Sequential:
        """The official MLP head under ``prefix``: Linear -> [BatchNorm] -> ReLU -> Linear."""
        state = self.state(prefix)
        hidden, width = state["0.weight"].shape
        last = max(int(name.split(".")[0]) for name in state)
        head = mlp(width, hidden, len(state[f"{last}.weight"]), batch_norm=last == 3).double()
        head.load_state_dict(state)
        return head

    def check(self, ours: Tensor, key: str) -> None:
        torch.testing.assert_close(ours.detach(), self(key), rtol=1e-8, atol=1e-12, msg=lambda text: f"{key}: {text}")


@pytest.fixture
def case(reference) -> Callable[[str], Case]:
    return lambda name: Case(reference, name)


def parts_of(net: nn.Module, *names: str) -> dict[str, Tensor]:
    """Submodule name -> its next output."""
    seen: dict[str, Tensor] = {}
    for name in names:
        net.get_submodule(name).register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out}))
    return seen


# --- ST-GCN ---------------------------------------------------------------------------------------------------------


def stgcn(case: Case, prefix: str, partition: str) -> STGCN:
    net = STGCN(EncoderConfig(width=case.config("c"), dim=case.config("Dh"), dropout=0.0, partition=partition), NTU25)
    case.load(net, prefix, STGCN_NAMES, r"fc\.")
    return net


def test_aimclr_features_and_drop(case):
    ref = case("aimclr")
    net, head = stgcn(ref, "state/encoder_q.", "spatial_degenerate"), ref.head("state/encoder_q.fc.")
    ref.check(net.eval()(ref("input/view_q")), "stage1/out/eval/pooled_q")
    ref.check(head(net(ref("input/view_q"))), "stage1/out/eval/encoder_q_view_q")
    ref.check(net.train()(ref("input/view_q")), "stage1/out/pooled/encoder_q.0")
    maps = net.features(ref("input/view_extreme"))
    ref.check(maps[0], "stage1/out/big/eadm_input_x")
    ref.check(net.pool(maps), "stage1/out/pooled/encoder_q.1")
    joints, cells = kept_cells(maps.flatten(0, 1), 0.7)
    ref.check(joints.double(), "stage1/out/big/eadm_keep_joint")
    ref.check(joints.double().mean(), "stage1/out/eadm_keep_frac_joint")
    ref.check(cells.double().mean(), "stage1/out/eadm_keep_frac_temporal")
    first = cells[: maps.shape[1]].transpose(2, 3).flatten(1, 2)  # (M, C*V, T')
    ref.check(first.to(torch.uint8), "stage1/out/big/eadm_keep_temporal")
    dropped = net.drop_attended(maps, 0.7)
    ref.check(dropped[0], "stage1/out/big/eadm_output")
    ref.check(net.pool(dropped), "stage1/out/pooled/encoder_q.2")
    for key, value in (("q_extreme", maps), ("q_extreme_drop", dropped)):
        ref.check(nn.functional.normalize(head(net.pool(value))), f"stage1/out/{key}")


@pytest.mark.parametrize("name", ["skelemixclr", "skelemixclr_plus"])
def test_skelemix_masked_pooling(case, name):
    ref = case(name)
    net, head = stgcn(ref, "state/encoder_q.", "inward_outward"), ref.head("state/encoder_q.fc.")
    ref.check(head.eval()(net.eval()(ref("input/view_q"))), "out/eval/encoder_q_view_q")
    maps = net.train().features(ref("out/big/mix0_input"))
    pasted, context = net.masked_pool(maps, ref("out/big/mix0_mask").bool()[None])
    head.train()
    ref.check(pasted, "out/pooled/encoder_q.1")
    ref.check(context, "out/pooled/encoder_q.2")
    ref.check(nn.functional.normalize(head(pasted)), "out/p0")
    ref.check(nn.functional.normalize(head(context)), "out/c0")


def test_pstl_features_without_some_joints(case):
    ref = case("pstl")
    net = stgcn(ref, "state/encoder/", "spatial_degenerate")

    def without(ignored: Tensor) -> Tensor:
        return torch.tensor(sorted(set(range(NTU25.num_joints)) - set(ignored.tolist())))

    x = ref("input/data")
    ref.check(net.eval()(x), "out/eval/feature")
    ref.check(net.pool(net.features(x, joints=without(ref("input/eval_ignore")))), "out/eval/feature_ignore")
    net.train()
    ref.check(net(ref("input/step1/input1")), "fed/out/feat1")
    kept = without(ref("input/step1/ignore_joint"))
    ref.check(net.pool(net.features(ref("input/step1/input3"), joints=kept)), "fed/out/feat3")


# --- GRU ------------------------------------------------------------------------------------------------------------


def test_cmd_features(case):
    ref = case("cmd")
    layers = 1 + max(int(key[-1]) for key in ref.state("state/encoder_q.encoder.gru.") if key[-2] == "l")

    def encoder(side: str, **changes: object) -> Encoder:
        how = {"stepwise": True, "pool": "last"} | changes
        net = GruEncoder(GruConfig(hidden=ref.config("hidden"), layers=layers, **how), NTU25)
        ref.load(net, f"state/encoder_{side}.", CMD_NAMES, r"fc\.")
        return net

    x = ref("input/view_q")
    motion = torch.cat([x[:, :, 1:] - x[:, :, :-1], torch.zeros_like(x[:, :, :1])], 2)
    ref.check(encoder("q").eval()(x), "out/eval/feature")
    ref.check(encoder("q_motion").eval()(motion), "out/eval/feature_motion")
    ref.check(encoder("q", stepwise=False).eval()(x), "out/eval/native_bidirectional_last_frame")
    ref.check(encoder("q").train()(x), "out/feature_q")
    ref.check(encoder("q_motion").train()(motion), "out/feature_q_motion")


def test_crrl_features(case):
    ref = case("crrl")
    config = GruConfig(
        hidden=ref.config("hidden"), layers=ref.config("layers"), input_norm="none", pool="mean", lengths="valid"
    )
    joints = ref.config("F") // 3  # a layout of nobody's: a chain of as many joints as the frame's vector holds
    net = GruEncoder(config, tree([i - 1 for i in range(joints)]), persons=1)
    x, lengths = ref("input/X"), ref("input/num_frame")
    clips = x.unflatten(2, (joints, 3)).permute(0, 3, 1, 2)[..., None]
    assert torch.equal(valid_lengths(clips), lengths)
    ref.load(net, "state/moco/encoder_fc_q.", (), r"fc\.")
    ref.check(net.eval()(clips), "cml/out/eval/tap")
    ref.check(ref.head("state/moco/encoder_fc_q.fc.")(net(clips)), "cml/out/eval/head")
    ref.check(net.states(clips, lengths)[[0, 2]], "cml/out/eval/per_frame_sample0_2")
    ref.load(net, "state/encoder/", (), r"fc\.")
    states = net.train().states(clips, lengths)
    ref.check(states, "ser/out/feature_pad")
    ref.check(states[:, 0], "ser/out/fisrtStep_hiddenStates")
    ref.check(states[torch.arange(len(x)), lengths - 1], "ser/out/lastStep_hiddenStates")


# --- SCD-Net --------------------------------------------------------------------------------------------------------


def two_path(ref: Case, side: str) -> TwoPath:
    config = TwoPathConfig(
        base=ref.config("base"), d_model=ref.config("d_model"), heads=ref.config("heads"), dropout=ref.config("dropout")
    )
    net = TwoPath(config, NTU25, frames=ref.config("T"))
    ref.load(net, f"state/encoder_{side}.", SCD_NAMES, r"[tsi]_proj\.")
    return net


def test_scdnet_graph(case):
    np.testing.assert_allclose(adjacency(NTU25, "inward_outward").numpy(), case("graph")("scdnet/agcn"), atol=1e-7)


def test_scdnet_features(case):
    ref = case("scdnet")
    net, x = two_path(ref, "q"), ref("input/view_q")
    net.eval()
    for grad in (True, False):  # two ways through torch's own attention
        with torch.set_grad_enabled(grad):
            feature = net(x)
        ref.check(feature[:, : net.time_dim], "out/eval/vt")
        ref.check(feature[:, net.time_dim :], "out/eval/vs")
    seen = parts_of(
        net.train(),
        *("time.graph", "space.graph", "time.tokens", "space.tokens", "time.attention"),
        *("time.graph.units.0", "time.graph.units.0.spatial"),
    )
    time, space = net.paths(x)
    ref.check(time, "out/vt")
    ref.check(space, "out/vs")
    ref.check(seen["time.graph"][0, :, :, ::8], "out/gcn_t_sample0_every8")
    ref.check(seen["space.graph"][0, :, :, ::8], "out/gcn_s_sample0_every8")
    ref.check(seen["time.graph.units.0.spatial"][:2, :, ::8], "out/gcn_t_l1_gcn1_sample0_every8")
    ref.check(seen["time.graph.units.0"][:2, :, ::8], "out/gcn_t_l1_sample0_every8")
    ref.check(seen["time.tokens"][:1], "out/channel_t_sample0")
    ref.check(seen["space.tokens"][:1], "out/channel_s_sample0")
    ref.check(seen["time.attention"][:1], "out/t_encoder_sample0")
    for key, value in (("zt", time), ("zs", space), ("zi", torch.cat([time, space], 1))):
        ref.check(ref.head(f"state/encoder_q.{key[1]}_proj.")(value), f"out/{key}")
