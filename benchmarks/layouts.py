"""Which order of memory and of operations, allocator and threads make an ST-GCN's training step fast on a CPU?

Each form runs the same parameters: a form whose features or gradients differ from the encoder's in float64 by more than
1e-9 ends the run before anything is timed. Times are those of one pass forward and backward, in turns, in this process.

    python -m benchmarks.layouts                                       # all parts, some minutes on one CPU thread
    python -m benchmarks.layouts --parts forms --precision bf16 --rounds 6 --json layouts.json

B = N * M bodies, C channels, T frames, V joints, K graphs.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import timing
from benchmarks.peer import gru as peer_gru
from benchmarks.peer import scdnet as peer_scdnet
from methods.data.layouts import NTU25
from methods.nn.dropout import factors
from methods.nn.encoder import EncoderConfig
from methods.nn.gru import GruConfig, GruEncoder
from methods.nn.stgcn import STGCN, Block, _over_time
from methods.nn.twopath import TwoPath, TwoPathConfig
from tuning.allocation import keep_memory

CPU = torch.device("cpu")
LAST = torch.channels_last
LIMIT = 1e-9  # of features and gradients in float64, relative to the largest
STEPS = 4  # of a process of its own in one turn

Gather = Callable[
    [nn.Conv2d, Tensor, Tensor], Tensor
]  # channels mixed and joints gathered: (B, C, T, V) -> (B, C', T, V)
Forward = Callable[[Any, Tensor, Tensor], Tensor]
Way = tuple[int, dict[str, Any], dict[str, str]]  # how many processes, what they are told, their environment


# --- joints: mix and gather -------------------------------------------------------------------------------------------


def as_is(conv: nn.Conv2d, x: Tensor, graph: Tensor) -> Tensor:
    """The official code's: one convolution to K * C' channels, one einsum."""
    mixed = conv(x).unflatten(1, (len(graph), -1))
    y: Tensor = torch.einsum("bkctv,kvw->bctw", mixed, graph.to(mixed.dtype))
    return y


def one_product(conv: nn.Conv2d, x: Tensor, graph: Tensor) -> Tensor:
    """The gather as one product of a copy (B*C'*T, K*V) with the graph (K*V, V)."""
    mixed = conv(x).unflatten(1, (len(graph), -1))
    b, k, c, t, v = mixed.shape
    rows = mixed.permute(0, 2, 3, 1, 4).reshape(-1, k * v)
    y: Tensor = (rows @ graph.reshape(k * v, v).to(rows.dtype)).view(b, c, t, v)
    return y


def mixed_by_product(conv: nn.Conv2d, x: Tensor, graph: Tensor) -> Tensor:
    """The 1x1 convolution as a matrix from the left instead."""
    bias, weight = conv.get_parameter("bias"), conv.weight.flatten(1)
    mixed = torch.baddbmm(bias[:, None], weight.expand(len(x), -1, -1), x.flatten(2))
    mixed = mixed.view(len(x), len(graph), -1, *x.shape[2:])
    gathered: Tensor = torch.einsum("bkctv,kvw->bctw", mixed, graph.to(mixed.dtype))
    return gathered


def gather_first(conv: nn.Conv2d, x: Tensor, graph: Tensor, narrow_only: bool = False) -> Tensor:
    """K graphs over C channels, then one convolution over K steps of V joints; the bias by the graph's column sums."""
    k, v, _ = graph.shape
    weight = conv.weight.view(k, -1, x.shape[1])
    if narrow_only and weight.shape[1] <= x.shape[1]:
        return as_is(conv, x, graph)
    near = x @ graph.transpose(0, 1).reshape(v, k * v).to(x.dtype)  # (B, C, T, K*V)
    mixed = F.conv2d(near, weight.permute(1, 2, 0)[:, :, None], dilation=(1, v))
    bias = graph.sum(1).T @ conv.get_parameter("bias").view(k, -1)  # (V, C')
    return mixed + bias.T[:, None].to(mixed.dtype)


# --- frames: the 9x1 convolution --------------------------------------------------------------------------------------


def native(conv: nn.Conv2d, x: Tensor) -> Tensor:
    y: Tensor = conv(x)
    return y


def joint_by_joint(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """One-dimensional, over (B*V, C, T)."""
    b, c, t, v = x.shape
    rows = x.permute(0, 3, 1, 2).reshape(b * v, c, t)
    y = F.conv1d(rows, conv.weight[..., 0], conv.bias, conv.stride[0], int(conv.padding[0]))
    return y.view(b, v, *y.shape[1:]).permute(0, 2, 3, 1).contiguous()


def unfolded(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Nine frames side by side, then a product."""
    columns = F.unfold(x, (9, 1), padding=(4, 0), stride=(conv.stride[0], 1))  # (B, C*9, T'*V)
    y = conv.weight.flatten(1) @ columns + conv.get_parameter("bias")[:, None]
    return y.view(len(x), y.shape[1], -1, x.shape[3])


def channels_last_here(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """That memory format around this convolution only."""
    y: Tensor = conv(x.contiguous(memory_format=LAST)).contiguous()
    return y


# --- the block --------------------------------------------------------------------------------------------------------


def from_bytes(x: Tensor, p: float) -> Tensor:
    return x * factors(x, p)


def modules(block: Any, x: Tensor, graph: Tensor, gather: Gather = as_is, over_time: Callable[..., Tensor] = native,
            drop: Callable[..., Tensor] = F.dropout, last: bool = False) -> Tensor:  # fmt: skip
    """The block, one module after the other, with one thing changed."""
    x = x.contiguous(memory_format=LAST) if last else x
    norm, relu, conv, last_norm, dropout = block.temporal
    y = last_norm(over_time(conv, relu(norm(gather(block.spatial.conv, x, graph)))))
    y = drop(y, dropout.p) if dropout.p and block.training else y
    if last and isinstance(block.shortcut, nn.Sequential):
        y = y + block.shortcut[1](_over_time(block.shortcut[0], x, time_last=False))
    elif block.shortcut is not None:
        y = y + block.shortcut(x)
    return torch.relu_(y)


def in_order(block: Any, x: Tensor, graph: Tensor, time_last: bool) -> Tensor:
    """The encoder's own form in channels_last, time or joints before them, with torch's batch norm and dropout."""
    norm, relu, conv, last_norm, dropout = block.temporal
    x = (x.transpose(2, 3) if time_last else x).contiguous(memory_format=LAST)
    y = relu(norm(block.spatial.channels_last(x, graph, time_last)))
    y = last_norm(_over_time(conv, y, time_last))
    y = dropout(y)
    if isinstance(block.shortcut, nn.Sequential):
        y = y + block.shortcut[1](_over_time(block.shortcut[0], x, time_last))
    elif block.shortcut is not None:
        y = y + x
    return torch.relu_(y).transpose(2, 3) if time_last else torch.relu_(y)


FORMS: dict[str, Forward] = {
    "as is": modules,
    "dropout from bytes": partial(modules, drop=from_bytes),
    "gather as one product": partial(modules, gather=one_product),
    "mix as a product": partial(modules, gather=mixed_by_product),
    "gather first": partial(modules, gather=gather_first),
    "gather first where C < C'": partial(modules, gather=partial(gather_first, narrow_only=True)),
    "time as conv1d": partial(modules, over_time=joint_by_joint),
    "time unfolded": partial(modules, over_time=unfolded),
    "time in channels_last": partial(modules, over_time=channels_last_here),
    "channels_last": partial(modules, last=True),
    "channels_last, gather first": partial(in_order, time_last=False),
    "the same, time before channels": partial(in_order, time_last=True),
    "the encoder's": Block.forward,
}


class Varied(nn.Module):
    """The parameters of a block under the same names, run in another form."""

    def __init__(self, of: Any, form: Forward) -> None:
        super().__init__()
        self.spatial, self.temporal, self.shortcut = of.spatial, of.temporal, of.shortcut
        self.form = form

    def forward(self, x: Tensor, graph: Tensor) -> Tensor:
        return self.form(self, x, graph)

    on_cpu, plain = Block.on_cpu, Block.plain


def encoder(config: EncoderConfig, form: str | None) -> STGCN:
    """The same weights for every form; None for the encoder as it is built."""
    torch.manual_seed(0)
    net = STGCN(config, NTU25).train()
    if form is not None:
        net.blocks = nn.ModuleList(Varied(block, FORMS[form]) for block in net.blocks)
    return net


# --- do all forms compute the same? -----------------------------------------------------------------------------------


def check(form: str, bodies: str = "all", joints: Sequence[int] | None = None) -> dict[str, Any]:
    """Features and gradients in float64, without dropout, beside the encoder's; one clip of three has one body."""
    config = EncoderConfig(partition="spatial_degenerate", dropout=0.0, bodies=bodies, init="torch")
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(3, 3, 14, 25, 2, generator=draw, dtype=torch.float64)
    x[1, ..., 1] = 0
    cut = None if joints is None else torch.tensor(joints)
    found = []
    for name in (None, form):
        net = encoder(config, name).double()
        y = net.pool(net.features(x, joints=cut))
        weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=y.dtype)
        (y * weight).sum().backward()  # type: ignore[no-untyped-call]
        gradients = [p.grad.flatten() for p in net.parameters() if p.grad is not None]
        found.append((y.detach(), torch.cat(gradients), list(net.state_dict())))
    (features, gradients_, names), (other, theirs, held) = found
    far = {"features": _apart(features, other), "gradients": _apart(gradients_, theirs)}
    return {"form": form, "bodies": bodies, "joints": "cut" if joints else "all", **far,
            "agree": max(far.values()) <= LIMIT and names == held}  # fmt: skip


def _apart(mine: Tensor, theirs: Tensor) -> float:
    return float((mine - theirs).abs().max() / theirs.abs().max())


def checks(forms: Sequence[str]) -> list[dict[str, Any]]:
    """Every form as published; the official form also where bodies are left out and joints are cut."""
    cut = list(range(0, 25, 2))
    found = [check(form) for form in forms]
    found += [check("as is", bodies, joints) for bodies in ("all", "real") for joints in (None, cut)]
    return found


# --- what is timed ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setup:
    """Sizes and how long to measure."""

    batch: int
    frames: int
    width: int
    rounds: int
    seconds: float
    precisions: tuple[str, ...]
    forms: tuple[str, ...]

    def config(self, precision: str) -> EncoderConfig:
        return EncoderConfig(width=self.width, dim=16 * self.width, partition="spatial_degenerate", precision=precision)

    def turns(self, part: str, sides: dict[str, timing.Side], samples: int) -> list[dict[str, Any]]:
        """Rows of all sides; the first is the base."""
        turns = timing.interleave(sides, rounds=self.rounds, seconds=self.seconds, device=CPU)
        base = next(iter(turns.values()))
        fastest = {name: min(base.cpu) / min(mine.cpu) for name, mine in turns.items()}
        return [
            timing.row(part, name, samples, mine, base, f"fastest turns {fastest[name]:.2f}")
            for name, mine in turns.items()
        ]


def step(net: nn.Module, *inputs: Tensor) -> None:
    """Forward and backward; gradients add up, which costs all alike."""
    net(*inputs).square().mean().backward()


def measure_forms(setup: Setup) -> list[dict[str, Any]]:
    """The whole encoder: a training step, and a pass without gradients as of a momentum copy."""
    rows = []
    x = torch.randn(setup.batch, 3, setup.frames, 25, 2)
    for precision in setup.precisions:
        nets = {form: encoder(setup.config(precision), form) for form in setup.forms}
        steps: dict[str, timing.Side] = {form: partial(step, net, x) for form, net in nets.items()}
        rows += setup.turns(f"step, {precision}", steps, setup.batch)
        passes: dict[str, timing.Side] = {
            form: torch.no_grad()(partial(net, x)) for form, net in nets.items() if form in ("as is", "the encoder's")
        }
        rows += setup.turns(f"no gradients, {precision}", passes, setup.batch)
    return rows


def measure_blocks(setup: Setup) -> list[dict[str, Any]]:
    """Every kind of block by itself, as is and as the encoder runs it, in float32."""
    rows = []
    graph = torch.rand(3, 25, 25)
    nets = {form: encoder(setup.config("fp32"), form) for form in ("as is", "the encoder's")}
    frames = setup.frames
    for i, block in enumerate(nets["as is"].blocks):
        conv: Any = block.get_submodule("temporal.2")
        mix: Any = block.get_submodule("spatial.conv")
        if i in (0, 1, 4, 5, 7, 8, 9):
            x = torch.randn(2 * setup.batch, mix.in_channels, frames, 25, requires_grad=True)
            sides: dict[str, timing.Side] = {form: partial(step, net.blocks[i], x, graph) for form, net in nets.items()}
            what = f"block {i}: {mix.in_channels} to {conv.out_channels} channels, {frames} frames"
            rows += setup.turns(what, sides, setup.batch)
        frames = -(-frames // conv.stride[0])
    return rows


def measure_others(setup: Setup) -> list[dict[str, Any]]:
    """The encoders of CMD, CRRL and SCD-Net beside those of the official codes' form (whose numbers are theirs: tests).

    Narrower than published; of SCD-Net half the batch.
    """
    rows = []
    for stepwise in (True, False):
        pool = "last" if stepwise else "ends"
        config = GruConfig(hidden=256, layers=3, stepwise=stepwise, pool=pool, input_norm="none")
        x = torch.randn(setup.batch, 3, setup.frames, 25, 2)
        peer, ours = peer_gru.FrameGRU(config, 150), GruEncoder(config, NTU25)
        what = f"CMD, {'frame by frame' if stepwise else 'both directions'}"
        rows += setup.turns(what, {
            "official form": partial(step, nn.Sequential(Flat(), peer), x), "the encoder's": partial(step, ours, x)
        }, setup.batch)  # fmt: skip
    config = GruConfig(hidden=256, layers=2, dropout=0.2, input_norm="none", pool="mean", lengths="valid")
    lengths = torch.linspace(setup.frames, setup.frames // 3, setup.batch).long().tolist()
    for clip, length in zip(x, lengths, strict=True):
        clip[:, length:] = 0
    packed, ours = peer_gru.PackedGRU(peer_gru.bidirectional(config, 150)), GruEncoder(config, NTU25)

    def official() -> None:
        states = packed(peer_gru.flat_frames(x), lengths)
        peer_gru.average(states, lengths).square().mean().backward()  # type: ignore[no-untyped-call]

    rows += setup.turns("CRRL", {"official form": official, "the encoder's": partial(step, ours, x)}, setup.batch)
    x = x[: max(1, setup.batch // 2)]
    paths = TwoPathConfig(base=4 * setup.width, d_model=16 * setup.width)
    theirs = peer_scdnet.TwoPath(SimpleNamespace(encoder=paths, frames=setup.frames), NTU25, 2)  # type: ignore[arg-type]
    sides: dict[str, timing.Side] = {
        "official form": partial(step, Joined(theirs), x),
        "the encoder's": partial(step, TwoPath(paths, NTU25, frames=setup.frames), x),
    }
    return rows + setup.turns("SCD-Net", sides, len(x))


class Flat(nn.Module):
    """Clips to what the official recurrent encoders are fed."""

    def forward(self, x: Tensor) -> Tensor:
        return peer_gru.flat_frames(x)


class Joined(nn.Module):
    """Both paths' features side by side."""

    def __init__(self, paths: nn.Module) -> None:
        super().__init__()
        self.paths = paths

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(self.paths(x), 1)


def measure_dropout(setup: Setup) -> list[dict[str, Any]]:
    """The random factors alone, of a map as long as the last block's."""
    rows = []
    x = torch.randn(2 * setup.batch, 16 * setup.width, -(-setup.frames // 4), 25)
    for p in (0.5, 0.3):
        sides: dict[str, timing.Side] = {
            "torch": partial(F.dropout, x, p),
            "torch.native_dropout": partial(torch.native_dropout, x, p, True),
            "from bytes": partial(from_bytes, x, p),
        }
        rows += setup.turns(f"dropout {p}", sides, setup.batch)
    return rows


def measure_solver(setup: Setup) -> list[dict[str, Any]]:
    """One move of all weights of the encoder: SGD, Adam, and a momentum copy."""
    rows = []
    net = encoder(setup.config("fp32"), None)
    weights = list(net.parameters())
    for weight in weights:
        weight.grad = torch.randn_like(weight) * 1e-3
    made: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "SGD": partial(torch.optim.SGD, lr=1e-3, momentum=0.9, weight_decay=1e-4),
        "Adam": partial(torch.optim.Adam, lr=1e-3, weight_decay=1e-4),
    }
    for name, make in made.items():
        solvers = {"loop": make(weights, foreach=False), "foreach": make(weights, foreach=True),
                   "fused": make(weights, fused=True)}  # fmt: skip
        sides: dict[str, timing.Side] = {how: partial(_ten_times, solver.step) for how, solver in solvers.items()}
        rows += setup.turns(f"{name}, ten steps", sides, 10)
    slow = [weight.detach().clone() for weight in weights]
    online = [weight.detach() for weight in weights]

    def loop() -> None:  # as the official codes do it
        for kept, fresh in zip(slow, online, strict=True):
            kept.data = kept.data * 0.999 + fresh.data * 0.001

    def lerp() -> None:
        for kept, fresh in zip(slow, online, strict=True):
            kept.lerp_(fresh, 0.001)

    ways = {"loop": loop, "lerp_ one by one": lerp, "foreach": lambda: torch._foreach_lerp_(slow, online, 0.001)}
    rows += setup.turns("momentum copy, ten moves", {n: partial(_ten_times, way) for n, way in ways.items()}, 10)
    return rows


def _ten_times(do: Callable[[], object]) -> None:
    for _ in range(10):
        do()


# --- processes of their own -------------------------------------------------------------------------------------------


def worker(told: dict[str, Any]) -> None:
    """One process's steps; when and at what cost, as JSON."""
    if told["keep"] and not keep_memory():
        raise OSError("this C library's malloc cannot be told")
    torch.set_num_threads(told["threads"])
    net = encoder(EncoderConfig(partition="spatial_degenerate", precision=told["precision"]), None)
    solver = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    x = torch.randn(told["batch"], 3, told["frames"], 25, 2)

    def whole() -> None:
        solver.zero_grad()
        step(net, x)
        solver.step()

    whole()
    print("ready", flush=True)
    sys.stdin.readline()
    begun, before = time.time(), resource.getrusage(resource.RUSAGE_SELF)
    for _ in range(told["steps"]):
        whole()
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({
        "begun": begun, "ended": time.time(), "cpu": cpu, "faults": after.ru_minflt - before.ru_minflt,
        "resident": after.ru_maxrss, "tasks": len(list(Path("/proc/self/task").iterdir())),
    }), flush=True)  # fmt: skip


def together(count: int, env: dict[str, str], **told: Any) -> list[dict[str, Any]]:
    """``count`` workers that start their steps at once, with ``env`` on top of this process's own."""
    command = [sys.executable, "-m", "benchmarks.layouts", "--worker", json.dumps(told)]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": os.environ | env}
    started = [subprocess.Popen(command, **pipes) for _ in range(count)]
    for each in started:
        assert each.stdout is not None and each.stdout.readline() == "ready\n"
    for each in started:
        assert each.stdin is not None
        each.stdin.write("go\n")
        each.stdin.flush()
    return [json.loads(each.communicate()[0]) for each in started]


def compare(setup: Setup, part: str, ways: dict[str, Way]) -> list[dict[str, Any]]:
    """Rows of ways to do the same number of steps in processes of their own."""
    turns = {name: timing.Turns() for name in ways}
    seen: dict[str, dict[str, Any]] = {}
    size = {"batch": setup.batch, "frames": setup.frames, "precision": "fp32", "keep": False, "threads": 1}
    samples = 2 * STEPS * setup.batch
    for number in range(min(setup.rounds, 3)):
        for name in ways if number % 2 == 0 else reversed(list(ways)):
            count, told, env = ways[name]
            done = together(count, env, **size | {"steps": 2 * STEPS // count} | told)
            turns[name].wall.append(max(d["ended"] for d in done) - min(d["begun"] for d in done))
            turns[name].cpu.append(sum(d["cpu"] for d in done))
            seen[name] = done[0]
    base = next(iter(turns.values()))
    return [
        timing.row(part, name, samples, mine, base,
                   f"page faults {seen[name]['faults']}, peak {seen[name]['resident'] // 1024} MB, "
                   f"{seen[name]['tasks']} threads of the process")
        for name, mine in turns.items()
    ]  # fmt: skip


def measure_memory(setup: Setup) -> list[dict[str, Any]]:
    """glibc's allocator as it comes, and told to keep what it has."""
    ways: dict[str, Way] = {"as it comes": (1, {"keep": False}, {}), "memory kept": (1, {"keep": True}, {})}
    return compare(setup, f"allocator, batch {setup.batch}", ways)


def measure_threads(setup: Setup) -> list[dict[str, Any]]:
    """Two trials side by side with a thread each, against one after the other with two; and how idle threads wait."""
    ways: dict[str, Way] = {
        "side by side, one thread each": (2, {"threads": 1}, {}),
        "one after the other, one thread": (1, {"threads": 1}, {}),
        "one after the other, two threads": (1, {"threads": 2}, {}),
        "the same, OMP_WAIT_POLICY=PASSIVE": (1, {"threads": 2}, {"OMP_WAIT_POLICY": "PASSIVE"}),
    }
    return compare(setup, f"two trials on two cores, batch {setup.batch}", ways)


MEASURES: dict[str, Callable[[Setup], list[dict[str, Any]]]] = {
    "forms": measure_forms,
    "blocks": measure_blocks,
    "others": measure_others,
    "dropout": measure_dropout,
    "solver": measure_solver,
    "memory": measure_memory,
    "threads": measure_threads,
}


# --- the command ------------------------------------------------------------------------------------------------------


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.layouts", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write everything measured to this file")
    parser.add_argument("--parts", nargs="+", default=list(MEASURES), choices=list(MEASURES), help="which questions")
    parser.add_argument("--forms", nargs="+", default=list(FORMS), choices=list(FORMS), help="which forms of the block")
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"], choices=("fp32", "bf16"))
    parser.add_argument("--batch", type=int, default=16, help="clips of two bodies a step")
    parser.add_argument("--frames", type=int, default=50, help="T")
    parser.add_argument("--width", type=int, default=16, help="channels of the first stage; D is 16 times as many")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side")
    parser.add_argument(
        "--seconds", type=float, default=300.0, help="of a part: no further round once so many are gone"
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if min(args.batch, args.width, args.rounds) < 1 or args.frames < 8:
        parser.error("--frames must be at least 8, the other counts 1")
    return args


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, measure, print Markdown; 1 when a form computes something else."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    args = parse(given)
    if args.worker:
        worker(json.loads(args.worker))
        return 0
    torch.set_num_threads(1)
    load_before = list(os.getloadavg())
    forms = tuple(dict.fromkeys(["as is", *args.forms]))
    setup = Setup(args.batch, args.frames, args.width, args.rounds, args.seconds, tuple(args.precision), forms)
    found = checks(forms) if {"forms", "blocks"} & set(args.parts) else []
    for each in found:
        word = "agrees" if each["agree"] else "DOES NOT AGREE"
        print(f"- {each['form']} {word}, bodies {each['bodies']}, joints {each['joints']}: features "
              f"{each['features']:.1e}, gradients {each['gradients']:.1e} (limit {LIMIT:.0e})")  # fmt: skip
    if not all(each["agree"] for each in found):
        return 1
    rows = [row for part in args.parts for row in MEASURES[part](setup)]
    sizes = {"batch": args.batch, "bodies": 2, "frames": args.frames, "width": args.width, "dropout": 0.5}
    told = timing.report("layouts", "benchmarks.layouts", given, sizes, CPU, rows, checks=found,
                         load_before=load_before)  # fmt: skip
    timing.publish(told, timing.table(rows), args.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
