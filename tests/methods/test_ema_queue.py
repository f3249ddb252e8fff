"""What is slow and what is remembered: a momentum copy moved in part, and queues that stay aligned."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import generator
from torch import nn

from methods.nn.ema import Ema
from methods.nn.queue import MemoryQueue, QueueGroup


def network() -> nn.Module:
    """Two submodules with statistics, and one whose name begins like the first's."""
    layers = {name: nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)) for name in ("gru", "head")}
    return nn.ModuleDict(layers | {"gru2": nn.Linear(2, 2)}).double()


def disturb(net: nn.Module) -> None:
    draw = generator(1)
    with torch.no_grad():
        for each in (*net.parameters(), *net.buffers()):
            if each.is_floating_point():
                each.add_(torch.rand(each.shape, generator=draw, dtype=torch.float64))


# --- the momentum copy ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize("buffers", ["own", "copy"])
@pytest.mark.parametrize("progress", [0.0, 0.4, 1.0])
def test_update_in_double_precision(schedule: str, buffers: str, progress: float) -> None:
    net = network()
    ema = Ema(net, 0.97, schedule=schedule, buffers=buffers)
    was = {name: value.clone() for name, value in ema.target.state_dict().items()}
    disturb(net)
    ema.update(net, progress)
    m = 0.97 if schedule == "constant" else 1 - 0.03 * (math.cos(math.pi * progress) + 1) / 2
    parameters = dict(net.named_parameters())
    for name, value in ema.target.state_dict().items():
        online = net.state_dict()[name]
        follows = online if buffers == "copy" else was[name]
        expected = m * was[name] + (1 - m) * online if name in parameters else follows
        torch.testing.assert_close(value, expected, rtol=1e-14, atol=1e-16)


@pytest.mark.parametrize("only", [("gru",), ("head.0", "gru2.bias"), ("gru", "head", "gru2")])
@pytest.mark.parametrize("buffers", ["own", "copy"])
def test_a_part_moves_and_the_rest_stays(only: tuple[str, ...], buffers: str) -> None:
    """A prefix is a whole name: ``gru`` does not mean ``gru2``."""
    net = network()
    ema = Ema(net, 0.5, buffers=buffers)
    was = {name: value.clone() for name, value in ema.target.state_dict().items()}
    disturb(net)
    ema.update(net, 0.0, only=only)
    moved = {name for name, value in ema.target.state_dict().items() if not torch.equal(value, was[name])}
    inside = {name for name in was if any(name == part or name.startswith(part + ".") for part in only)}
    statistics = {name for name in inside if "running" in name}
    assert moved == inside - {name for name in inside if "num_batches" in name} - (
        statistics if buffers == "own" else set()
    )
    whole = Ema(network(), 0.5, buffers=buffers)
    whole.target.load_state_dict(was)
    whole.update(net, 0.0)
    for name in inside:
        assert torch.equal(ema.target.state_dict()[name], whole.target.state_dict()[name])


def test_a_part_that_is_not_there() -> None:
    """A misspelled name would freeze the copy without a word."""
    net = network()
    with pytest.raises(ValueError, match=r"no grv, hea$"):
        Ema(net, 0.5).update(net, 0.0, only=("gru", "grv", "hea"))


# --- aligned queues ---------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(size=st.integers(1, 9), batches=st.lists(st.integers(1, 25), min_size=1, max_size=8))
def test_each_of_the_group_is_a_queue_and_rows_belong_together(size: int, batches: list[int]) -> None:
    names = ("joint", "motion", "bone")
    group = QueueGroup(names, size, 4)
    alone = {name: MemoryQueue(size, 4) for name in names}
    for name in names:
        alone[name].keys.copy_(group[name])
    sent = 0
    for count in batches:
        ids = torch.arange(sent, sent + count, dtype=torch.float32)[:, None]
        keys = {name: (1 + i) * 1000 + ids.expand(count, 4) for i, name in enumerate(names)}
        group.enqueue(keys)
        for name in names:
            alone[name].enqueue(keys[name])
            assert torch.equal(group[name], alone[name].keys)
        sent += count
        assert int(group.pointer) == int(alone["bone"].pointer) == sent % size
    written = group["joint"][:, 0] >= 1000
    assert int(written.sum()) == min(sent, size)
    assert torch.equal(group["motion"][written] - 1000, group["joint"][written])
    assert torch.equal(group["bone"][written] - 2000, group["joint"][written])


def test_a_group_starts_as_different_unit_directions_and_is_state() -> None:
    torch.manual_seed(0)
    group = QueueGroup(["t", "s", "i"], 40, 8)
    for name in ("t", "s", "i"):
        torch.testing.assert_close(group[name].norm(dim=1), torch.ones(40))
    assert not torch.equal(group["t"], group["s"])
    assert set(group.state_dict()) == {"keys_t", "keys_s", "keys_i", "pointer"} and not list(group.parameters())
    other = QueueGroup(["t", "s", "i"], 40, 8)
    group.enqueue({name: torch.ones(3, 8) for name in group.names})
    other.load_state_dict(group.state_dict())
    assert torch.equal(other["s"], group["s"]) and int(other.pointer) == 3


@pytest.mark.parametrize("keys", [{"t": 3, "s": 2}, {"t": 3}, {"t": 3, "s": 3, "i": 3}, {}])
def test_a_group_that_would_lose_its_alignment(keys: dict[str, int]) -> None:
    group = QueueGroup(["t", "s"], 5, 2)
    before = group["t"].clone()
    with pytest.raises(ValueError, match="stay aligned"):
        group.enqueue({name: torch.ones(count, 2) for name, count in keys.items()})
    assert torch.equal(group["t"], before) and int(group.pointer) == 0


def test_a_group_takes_no_gradient_and_its_own_type() -> None:
    group = QueueGroup(["t"], 4, 3)
    group.enqueue({"t": torch.ones(2, 3, dtype=torch.bfloat16, requires_grad=True)})
    assert group["t"].dtype == torch.float32 and not group["t"].requires_grad
    assert group["t"].sum(1)[:2].tolist() == [3, 3]
