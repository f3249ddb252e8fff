"""The peers of PSTL, SkeletonBT, SCD-Net, CMD and CRRL: equal to the official codes' numbers, and able to train.

Every key of a case's file is compared; tolerances and what is not stand in ``tests/methods/test_reference.py``.
SkeletonBT has no file of its own: PSTL's has one step of it, and here it is held against sums written out. With our
clean settings, of which there are no official numbers, every peer is held against our own method.
"""

# ruff: noqa: E402  # some imports need the path of the other tests

from __future__ import annotations

import dataclasses
import fnmatch
import random
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

METHODS = Path(__file__).parents[1] / "methods"
if str(METHODS) not in sys.path:
    sys.path.append(str(METHODS))  # for the numbers of the official codes and what reads them

import official_states
from peer_cases import stgcn_name
from reference_helpers import ROOT, Reference, one_step, passing
from test_reference import NOT_COMPARED, compare
from tiny import movements, tree

from benchmarks.peer import augment, peer_of, pstl
from benchmarks.peer.base import Peer, loader, train_epoch, train_step
from benchmarks.peer.cmd import CMD, END
from benchmarks.peer.crrl import CRRL
from benchmarks.peer.gru import PackedGRU, average
from benchmarks.peer.pstl import PSTL, SkeletonBT
from benchmarks.peer.scdnet import SCDNet
from methods.augment import ops
from methods.base import Views
from methods.data.layouts import NTU25
from methods.data.layouts.layout import KINECT20, Layout
from methods.data.streams import derive
from methods.nn.build import build_encoder
from methods.official.places import Place
from methods.registry import get_method
from methods.training.config import TrialConfig, published, with_settings

Found = dict[str, Tensor]


def settings(ref: Reference, method: str, **own: object) -> TrialConfig:
    """The official code's configuration: its preset, and the sizes of the file."""
    wanted: dict[str, object] = {
        "optim.batch": ref.config("N"),
        "optim.weight_decay": ref.config("weight_decay"),
        "encoder.dropout": ref.config("dropout") if "config/dropout" in ref else 0.0,
    }
    if "config/lr" in ref:
        wanted |= {"optim.lr": ref.config("lr"), "optim.sgd_momentum": ref.config("sgd_momentum")}
    if "config/K" in ref:
        wanted |= {"queue": ref.config("K"), "temperature": ref.config("temperature")}
        wanted |= {"momentum": ref.config("momentum")}
    return with_settings(published(method, preset="paper_code"), wanted | own)


def load(peer: Peer, ref: Reference, naming: Callable[[str], str] = lambda name: name) -> None:
    """``peer`` in float64 with the official state, all of it and nothing else."""
    peer.double().load_state_dict({naming(name): value for name, value in ref.under("state").items()})


def at(naming: Callable[[str], str]) -> Callable[[str], Place]:
    return lambda name: Place(naming(name))


# --- PSTL and SkeletonBT ---


def pstl_name(name: str) -> str:
    network, inner = re.split(r"[./]", name, maxsplit=1)
    return f"{network}.{stgcn_name(inner)}" if network == "encoder" else f"head.{inner}"


def pstl_peer(ref: Reference, cls: type[SkeletonBT]) -> SkeletonBT:
    sizes: dict[str, object] = {
        "encoder.width": ref.config("c"),
        "encoder.dim": ref.config("Dh"),
        "projection": ref.config("pj"),
        "off_diagonal": ref.config("lambda_bt"),
        "optim.lr": ref.config("lr_used"),
    }
    if cls is PSTL:
        sizes |= {"mask_joints": ref.config("mask_joint"), "mask_frames": ref.config("mask_frame")}
    peer = cls(settings(ref, cls.method, **sizes), NTU25)
    load(peer, ref, pstl_name)
    return peer


def pstl_case(ref: Reference) -> Found:
    peer, data = pstl_peer(ref, PSTL), ref.tensor("input/data")
    peer.eval()
    found = {
        "out/eval/feature": peer.encoder(data),
        "out/eval/feature_ignore": peer.encoder(data, ref["input/eval_ignore"].tolist()),
    }
    step = partial(_pstl_step, ref, peer, found)
    found |= one_step(ref, peer, at(pstl_name), peer.solver(), lambda: step("out/", _made(ref, peer, 1, found)))
    step("step2/", _made(ref, peer, 2, found))

    fed = pstl_peer(ref, PSTL)
    loss = partial(_pstl_step, ref, fed, found, "fed/out/", _stored(ref, 1))
    found |= one_step(ref, fed, at(pstl_name), fed.solver(), loss, prefix="fed/")
    alone = pstl_peer(ref, SkeletonBT)

    def one_term() -> Tensor:
        anchor, _, spatial = _stored(ref, 1)
        with passing({"features": alone.encoder}) as seen:
            found["skeletonbt/out/loss"] = alone.one_term(anchor, spatial)
        found["skeletonbt/out/feat1"] = seen["features"][0]
        return found["skeletonbt/out/loss"]

    found |= one_step(ref, alone, at(pstl_name), alone.solver(), one_term, prefix="skeletonbt/")
    return found


def _stored(ref: Reference, step: int) -> list[Tensor]:
    return [ref.tensor(f"input/step{step}/input{i}") for i in (1, 2, 3)]


def _made(ref: Reference, peer: PSTL, step: int, found: Found) -> list[Tensor]:
    """The three views from the clips and the recorded draws; of the second the frames are masked."""
    views, drawn = [], f"input/step{step}"
    for i in range(3):
        view = pstl.crop(ref.tensor("input/data"), 6.0, [int(ref[f"{drawn}/crop_start"][i])])
        view = pstl.shear(view, ref.tensor(f"{drawn}/shear_matrix")[i : i + 1])
        view = pstl.rotate(view, ref[f"{drawn}/angles_xyz"][i : i + 1].tolist())
        views.append(pstl.flip(view, [bool(ref[f"{drawn}/flip_applied"][i])], NTU25.mirror, reflect=False))
    attention, kept = pstl.motion_attention(views[1]), ref.tensor(f"{drawn}/matm_kept")
    found.setdefault("out/matm_attention", attention)
    # Frames of equal motion abound in a padded crop: which of them stay is the sort's, how slow they are is not.
    ours = attention.gather(1, pstl.slowest(attention, attention.shape[1] - ref.config("mask_frame")))
    torch.testing.assert_close(ours.sort(1).values, attention.gather(1, kept).sort(1).values, rtol=1e-9, atol=1e-15)
    views[1] = pstl.frames_of(views[1], kept[:, ref.tensor(f"{drawn}/matm_random")])
    for made, stored in zip(views, _stored(ref, step), strict=True):
        torch.testing.assert_close(made, stored, rtol=1e-5, atol=1e-6)
    return views


def _pstl_step(ref: Reference, peer: PSTL, found: Found, prefix: str, views: list[Tensor]) -> Tensor:
    ignore = ref[f"input/step{2 if 'step2' in prefix else 1}/ignore_joint"].tolist()
    with passing({"features": peer.encoder, "normed": peer.head.bn}) as seen:
        in_time, in_space = peer.two_terms(*views, ignore)
    for i, features in enumerate(seen["features"], 1):
        found[f"{prefix}feat{i}"] = features
    for term, value in enumerate((in_time, in_space), 1):
        pair = seen["normed"][2 * term - 2 : 2 * term]
        on, off = pstl.redundancy(*pair)
        found |= {f"{prefix}bt{term}/feat{i}_norm": each for i, each in enumerate(pair, 1)}
        found |= {f"{prefix}loss_bt{term}": value, f"{prefix}bt{term}/on_diag": on, f"{prefix}bt{term}/off_diag": off}
    found[f"{prefix}loss"] = in_time + in_space
    return found[f"{prefix}loss"]


# --- SCD-Net ---


def scdnet_case(ref: Reference) -> Found:
    _, _, frames, _, persons = ref["input/view_q"].shape
    sizes = {
        "frames": frames,
        "encoder.base": ref.config("base"),
        "encoder.d_model": ref.config("d_model"),
        "encoder.heads": ref.config("heads"),
        "encoder.layers": len(ref.keys("state/encoder_q.encoder.t_encoder.layers.*.norm1.weight")),
        "hidden": len(ref["state/encoder_q.i_proj.0.weight"]),
        "projection": ref.config("D"),
    }
    peer = SCDNet(settings(ref, "scdnet", **sizes), NTU25, persons)
    load(peer, ref)
    batch = ref.tensor("input/view_q"), ref.tensor("input/view_k")
    found = dict(zip(("out/eval/vt", "out/eval/vs"), peer.eval().encoder_q.encoder(batch[0]), strict=True))
    solver = peer.solver()
    found |= one_step(ref, peer, Place, solver, lambda: _scdnet_step(peer, batch, found, "out/"))
    _scdnet_step(peer, batch, found, "step2/")
    return found | {f"step2/{level}_queue_ptr": getattr(peer, f"{level}_queue_ptr") for level in "tsi"}


def _scdnet_step(peer: SCDNet, batch: tuple[Tensor, ...], found: Found, prefix: str) -> Tensor:
    net, persons = peer.encoder_q.encoder, peer.persons
    cut = {"gcn_t": net.gcn_t, "gcn_s": net.gcn_s, "gcn_t_l1_gcn1": net.gcn_t.l1.gcn1, "gcn_t_l1": net.gcn_t.l1}
    first = {"channel_t": net.channel_t, "channel_s": net.channel_s, "t_encoder": net.t_encoder}
    whole = {"encoder": net, "q": peer.encoder_q, "k": peer.encoder_k}
    logits = peer.logits
    with passing(cut | first | whole) as seen, pytest.MonkeyPatch.context() as patched:
        patched.setattr(peer, "logits", lambda *views: found_logits(logits(*views)))

        def found_logits(four: Found) -> Found:
            for name, each in four.items():
                found[f"{prefix}logits_{name}"] = each
                found[f"{prefix}loss_{name}"] = F.cross_entropy(each, torch.zeros(len(each), dtype=torch.long))
            return four

        loss = peer.loss(batch, 0.0)
    found |= {f"{prefix}{name}_sample0_every8": seen[name][0][:persons, :, ::8] for name in cut}
    found |= {f"{prefix}{name}_sample0": seen[name][0][:1] for name in first}
    found |= {f"{prefix}v{level}": each for level, each in zip("ts", seen["encoder"][0], strict=True)}
    for side in "qk":
        for level, each in zip("tsi", seen[side][0], strict=True):
            found[f"{prefix}{side}{level}"] = F.normalize(each)
            if side == "q":
                found[f"{prefix}z{level}"] = each
    found[f"{prefix}loss"] = loss
    return loss


# --- CMD ---


def cmd_peer(ref: Reference, **changes: object) -> CMD:
    layers = {found[1] for key in ref.keys("state/*") if (found := re.search(r"weight_ih_l(\d+)$", key))}
    sizes = {
        "encoder.hidden": ref.config("hidden"),
        "encoder.layers": len(layers),
        "hidden": len(ref["state/encoder_q.fc.0.weight"]),
        "projection": ref.config("D"),
        "teacher_temperature": ref.config("teacher_T"),
        "student_temperature": ref.config("student_T"),
        "topk": ref.config("topk") / ref.config("K"),
        "cmd_weight": ref.config("cmd_weight"),
    }
    peer = CMD(settings(ref, "cmd", **sizes, **changes), NTU25, ref["input/view_q"].shape[4])
    load(peer, ref)
    return peer


def cmd_case(ref: Reference) -> Found:
    peer = cmd_peer(ref)
    batch = ref.tensor("input/view_q"), ref.tensor("input/view_k")
    found: Found = {}
    with passing({end: peer.get_submodule(f"encoder_q{end}").encoder for end in END.values()}) as seen:
        peer.eval().compare(*batch)
    found |= {f"out/eval/feature{end}": seen[end][0] for end in END.values()}
    both_ways = cmd_peer(ref, **{"encoder.stepwise": False}).eval()
    with passing({"feature": both_ways.encoder_q.encoder}) as seen:
        both_ways.encoder_q(batch[0])
    found["out/eval/native_bidirectional_last_frame"] = seen["feature"][0]
    peer = cmd_peer(ref)  # a pass in evaluation mode has moved queues and key networks
    solver = peer.solver()
    found |= one_step(ref, peer, Place, solver, lambda: _cmd_step(peer, batch, found, "out/"))
    _cmd_step(peer, batch, found, "step2/")
    return found | {f"step2/queue_ptr{end}": peer.get_buffer(f"queue_ptr{end}") for end in END.values()}


def _cmd_step(peer: CMD, batch: tuple[Tensor, ...], found: Found, prefix: str) -> Tensor:
    queues = {end: peer.get_buffer(f"queue{end}").clone() for end in END.values()}
    watched = {}
    for side in "qk":
        for end in END.values():
            network = peer.get_submodule(f"encoder_{side}{end}")
            watched |= {f"{side}{end}": network, f"feature_{side}{end}": network.encoder}
    outputs: list[tuple[dict[str, Tensor], Tensor]] = []
    compared = peer.compare
    with passing(watched) as seen, pytest.MonkeyPatch.context() as patched:
        patched.setattr(peer, "compare", lambda *views: outputs.append(compared(*views)) or outputs[-1])
        loss = peer.loss(batch, 0.0)
    logits, taught = outputs[0]
    for name, calls in seen.items():
        found[f"{prefix}{name}"] = calls[0] if name.startswith("feature") else F.normalize(calls[0])
    for stream, end in END.items():
        found[f"{prefix}logits{end}"] = logits[stream]
        found[f"{prefix}lk_neg{end}"] = found[f"{prefix}k{end}"] @ queues[end]
        nothing = torch.zeros(len(logits[stream]), dtype=torch.long)
        found[f"{prefix}loss{end or '_joint'}"] = F.cross_entropy(logits[stream], nothing)
    found |= {f"{prefix}loss": loss, f"{prefix}loss_sim": taught}
    return loss


# --- CRRL ---


def crrl_name(name: str) -> str:
    return name.replace("/", ".", 1)


def crrl_peer(ref: Reference, **changes: object) -> CRRL:
    sizes: dict[str, object] = {
        "encoder.hidden": ref.config("hidden"),
        "encoder.layers": ref.config("layers"),
        "hidden": 2 * ref.config("hidden"),
        "projection": 2 * ref.config("hidden"),
        "distill_weight": ref.config("lambda_ts"),
    }
    layout = tree([i - 1 for i in range(ref.config("F") // 3)])
    peer = CRRL(settings(ref, "crrl", **(sizes | changes)), layout, persons=1)
    load(peer, ref, crrl_name)
    return peer


def crrl_case(ref: Reference) -> Found:
    batch = tuple(ref.tensor(f"input/{name}") for name in ("X", "Y", "S", "SR", "num_frame"))
    query, lengths = crrl_peer(ref).eval().moco.encoder_fc_q, batch[4].tolist()
    states = PackedGRU.forward(query, batch[0], lengths)
    found = {
        "cml/out/eval/tap": average(states, lengths),
        "cml/out/eval/head": query(batch[0], lengths),
        "cml/out/eval/per_frame_sample0_2": states[[0, 2]],
    }
    for prefix, fuse_start, step in (("cml/", 1.0, _contrast), ("ser/", 0.0, _play), ("inf/", 0.5, _play)):
        peer = crrl_peer(ref, fuse_start=fuse_start)
        take = partial(step, peer, batch, fuse_start, found)
        solver = peer.solver()
        found |= one_step(ref, peer, at(crrl_name), solver, lambda p=prefix, take=take: take(f"{p}out/"), prefix=prefix)
        parameters, state = dict(peer.named_parameters()), peer.state_dict()
        for key in ref.keys(f"{prefix}gradnorm/*/names"):  # norms stand here by network
            norms = [parameters[name].grad.norm() for name in _entries(ref, key)]
            found[key.replace("/names", "/values")] = torch.stack(norms)
        for key in ref.keys(f"{prefix}afternorm/*/names"):
            norms = [state[name].norm() for name in _entries(ref, key)]
            found[key.replace("/names", "/values")] = torch.stack(norms)
        take(f"{prefix}step2/")
    return {
        key: value[: ref[key].shape[0]] if value.dim() == 3 else value for key, value in found.items() if key in ref
    }


def _entries(ref: Reference, key: str) -> list[str]:
    """Our names of what a list of norms is of; the fuser's teacher is the learner's query network."""
    network = key.split("/")[-2]
    return [("moco.encoder_fc_q." if network == "teacher_unused" else f"{network}.") + name for name in ref[key]]


def _contrast(peer: CRRL, batch: tuple[Tensor, ...], progress: float, found: Found, prefix: str) -> Tensor:
    with passing({"learner": peer.moco}) as seen:
        loss = peer.loss(batch, 0.0)
    found |= {f"{prefix}output": seen["learner"][0], f"{prefix}contrast_loss": loss}
    return loss


def _play(peer: CRRL, batch: tuple[Tensor, ...], progress: float, found: Found, prefix: str) -> Tensor:
    errors: list[Tensor] = []
    reconstruct, taught = peer.reconstruction, peer.teach
    watched = {"states": peer.encoder, "decoder": peer.decoder, "head": peer.mlp}
    with passing(watched) as seen, pytest.MonkeyPatch.context() as patched:
        patched.setattr(peer, "reconstruction", lambda *a: errors.append(reconstruct(*a)) or errors[-1])
        loss = peer.loss(batch, progress)
    lengths, states = batch[4].tolist(), seen["states"][0]
    found |= {
        f"{prefix}feature_pad": states,
        f"{prefix}fisrtStep_hiddenStates": states[:, 0],
        f"{prefix}lastStep_hiddenStates": states[torch.arange(len(states)), batch[4] - 1],
        f"{prefix}reconstruction_pad1": seen["decoder"][0],
        f"{prefix}reconstruction_pad": seen["decoder"][1],
        f"{prefix}reconstructLoss1": errors[0],
        f"{prefix}reconstructLoss": errors[1],
        f"{prefix}all_loss": loss,
    }
    if seen["head"]:
        with torch.no_grad():
            teacher = PackedGRU.forward(peer.moco.encoder_fc_q, batch[0], lengths)
        found |= {
            f"{prefix}feature_pad_teacher": teacher,
            f"{prefix}encoding_student": seen["head"][0],
            f"{prefix}encoding_teacher": taught(batch[0], lengths),
            f"{prefix}teacher_student_loss": (loss - sum(errors)) / peer.config.params.distill_weight,
        }
    return loss


# --- all of them ---

CASES = {"pstl": pstl_case, "scdnet": scdnet_case, "cmd": cmd_case, "crrl": crrl_case}


def files() -> list[str]:
    """Files of these methods, of other seeds too."""
    found = sorted(path.stem for path in ROOT.glob("*.npz")) if ROOT.is_dir() else []
    return [stem for stem in found if stem.split("_")[0] in CASES]


@pytest.mark.shared
@pytest.mark.parametrize("name", files() or [None])
def test_equal_to_the_official_code(name):
    if name is None:
        pytest.skip(f"no reference numbers at {ROOT} (set SKELTUNE_REFERENCE)")
    ref = Reference(ROOT / f"{name}.npz")
    torch.manual_seed(0)
    ours = CASES[name.split("_")[0]](ref)
    wanted = [key for key in ref.numbers if not any(fnmatch.fnmatchcase(key, pattern) for pattern in NOT_COMPARED)]
    assert wanted
    missing = [key for key in wanted if key not in ours]
    assert not missing, f"{len(missing)} keys are not computed: {missing[:12]}"
    faults = [fault for key in wanted if (fault := compare(name, key, ours[key], ref[key]))]
    assert not faults, f"{len(faults)} of {len(wanted)} differ:\n" + "\n".join(faults[:25])


# --- with our clean settings: against our own methods ---

SMALL: dict[str, dict[str, object]] = {
    "skeletonbt": {"encoder.width": 2, "encoder.dim": 8, "encoder.dropout": 0.0, "projection": 12},
    "pstl": {"encoder.width": 2, "encoder.dim": 8, "encoder.dropout": 0.0, "projection": 12},
    "scdnet": {"encoder.base": 4, "encoder.d_model": 8, "encoder.heads": 2, "encoder.dropout": 0.0},
    "cmd": {"encoder.hidden": 6, "encoder.layers": 2},
    "crrl": {"encoder.hidden": 6, "encoder.layers": 2, "encoder.dropout": 0.0},
}
NAMING = {
    "skeletonbt": pstl_name,
    "pstl": pstl_name,
    "crrl": lambda name: crrl_name(name.replace("moco_model", "moco")),
}
FRAMES, BATCH = 16, 4


def official_pstl(name: str) -> str:
    """The code stores the encoder alone, without a prefix."""
    official = official_states.pstl(name)
    return official if official.startswith("head.") else f"encoder.{official}"


INVERSE = official_states.INVERSE | dict.fromkeys(("skeletonbt", "pstl"), official_pstl)


def small(method: str, preset: str = "clean", **changes: object) -> TrialConfig:
    """A trial of milliseconds; queues hold four batches."""
    base = published(method, preset=preset)
    known = {f.name for f in dataclasses.fields(base.params)}
    own = {k: v for k, v in {"queue": 4 * BATCH, "hidden": 10, "projection": 8}.items() if k in known}
    sizes = own | {"frames": FRAMES, "optim.batch": BATCH} | SMALL[method]
    return with_settings(base, sizes | changes)


def method_like(peer: Peer) -> torch.nn.Module:
    """Our method with the peer's configuration and, by way of the official names, its state."""
    c, name = peer.config, peer.method
    cls, use = get_method(name).cls, c.streams.use
    encoders = {s: build_encoder(c.encoder, peer.layout, frames=c.frames, persons=peer.persons) for s in use}
    method = cls(c.params, encoders if name == "cmd" else encoders[use[0]]).double().train()
    state, theirs = method.state_dict(), peer.state_dict()
    for ours in state:
        if ours != "fused":
            value = theirs[NAMING.get(name, str)(INVERSE[name](ours))]
            is_queue = ours.startswith("queue.keys")
            state[ours] = (value.T if is_queue else value.reshape(state[ours].shape)).clone()
    method.load_state_dict(state)
    return method


def clips_of(count: int, frames: int = FRAMES, layout: Layout = NTU25, persons: int = 2, seed: int = 0) -> np.ndarray:
    """Clips (N, 3, T, V, M) of different lengths, zero after their ends."""
    data, _ = movements(count, frames, layout, persons, seed=seed)
    for i in range(count):
        data[i, :, frames - 3 * (i % 3) :] = 0
    return data


def two_losses(peer: Peer, batch: tuple[Tensor, ...], progress: float, ours: Callable[[torch.nn.Module], Tensor]):
    """(peer's, ours) of two whole steps from the same state, and both modules after them."""
    method, solver = method_like(peer), peer.solver()
    peer.train()
    own = type(solver)(
        [p for p in method.parameters() if p.requires_grad],
        **{k: v for k, v in solver.defaults.items() if k in ("lr", "momentum", "weight_decay")},
    )
    pairs = []
    for _ in range(2):
        loss = ours(method)
        own.zero_grad()
        loss.backward()
        own.step()
        pairs.append((train_step(peer, solver, batch, progress), loss.item()))
    return pairs, method


def agree(pairs: list[tuple[float, float]]) -> None:
    for theirs, ours in pairs:
        assert theirs == pytest.approx(ours, rel=1e-8)
    assert pairs[0][0] != pytest.approx(pairs[1][0], rel=1e-6)  # the step did something


def double(*arrays: np.ndarray) -> tuple[Tensor, ...]:
    return tuple(torch.from_numpy(np.asarray(a)).double() for a in arrays)


def seeded(seed: int = 0) -> None:
    """One seed for all three sources of draws."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@pytest.mark.parametrize("partition", ["spatial", "spatial_degenerate"])
def test_skeletonbt_as_our_method(partition, monkeypatch):
    seeded()
    peer = SkeletonBT(small("skeletonbt", **{"encoder.partition": partition}), NTU25).double()
    a, b = double(clips_of(BATCH), clips_of(BATCH, seed=1))
    turn = iter([a, b, a, b])
    monkeypatch.setattr(peer, "ordinary", lambda _: next(turn))
    present = torch.ones(BATCH, 2, dtype=torch.bool)
    agree(two_losses(peer, (a,), 0.0, lambda m: m.loss(Views({"a": a, "b": b}, present), 0.0).loss)[0])


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_pstl_as_our_method(share, monkeypatch):
    seeded()
    peer = PSTL(small("pstl", spatial_share=share), NTU25).double()
    anchor, moving, spatial = double(*(clips_of(BATCH, seed=s) for s in range(3)))
    temporal, ignore = moving[:, :, 3:13], [20, 3, 3, 7]
    turn = iter([anchor, moving, spatial] * 2)
    monkeypatch.setattr(peer, "ordinary", lambda _: next(turn))
    monkeypatch.setattr(peer, "slow", lambda x: temporal if x is moving else None)
    monkeypatch.setattr(peer, "central", lambda: ignore)
    present = torch.ones(BATCH, 2, dtype=torch.bool)
    left = torch.tensor([v for v in range(25) if v not in ignore])
    views = Views({"anchor": anchor, "temporal": temporal, "spatial": spatial}, present, {"joints": left})
    agree(two_losses(peer, (anchor,), 0.0, lambda m: m.loss(views, 0.0).loss)[0])


def test_scdnet_as_our_method():
    seeded()
    weights = {"time_to_instance": 0.5, "space_to_instance": 2.0, "instance_to_time": 1.5, "instance_to_space": 0.25}
    peer = SCDNet(small("scdnet", **weights), NTU25).double()
    for name, parameter in peer.named_parameters():  # what starts as (nearly) zero would hide the relations
        if name.endswith((".alpha", "gcn1.bn.weight")):
            parameter.data.fill_(0.5)
    a, b = double(clips_of(BATCH), clips_of(BATCH, seed=1))
    present = torch.ones(BATCH, 2, dtype=torch.bool)
    pairs, method = two_losses(peer, (a, b), 0.0, lambda m: m.loss(Views({"a": a, "b": b}, present), 0.0).loss)
    agree(pairs)
    torch.testing.assert_close(method.slow_projectors["space"].target[0].weight, peer.encoder_k.s_proj[0].weight)
    torch.testing.assert_close(method.queue["time"].T, peer.t_queue)


@pytest.mark.parametrize(("stepwise", "pool"), [(False, "ends"), (False, "last"), (True, "ends")])
def test_cmd_as_our_method(stepwise, pool):
    seeded()
    peer = CMD(small("cmd", **{"encoder.stepwise": stepwise, "encoder.pool": pool, "cmd_weight": 0.5}), NTU25).double()
    a, b = double(clips_of(BATCH), clips_of(BATCH, seed=1))
    views = Views({"a": a, "b": b}, torch.ones(BATCH, 2, dtype=torch.bool))
    streams = {name: views.map(partial(derive, stream=name, layout=NTU25)) for name in END}

    def ours(method):
        return sum(out.loss for out in method.losses(streams, 0.0).values())

    pairs, method = two_losses(peer, (a, b), 0.0, ours)
    agree(pairs)
    slow = method.slow_encoders["bone"].target.gru.weight_hh_l1_reverse
    torch.testing.assert_close(slow, peer.get_parameter("encoder_k_bone.encoder.gru.weight_hh_l1_reverse"))


@pytest.mark.parametrize(
    ("progress", "own"),
    [
        (0.0, {}),
        (0.0, {"key_head_frozen": True}),
        (0.5, {}),
        (0.5, {"reduction": "mean", "reconstruct": "forward"}),
        (0.5, {"reconstruct": "reverse", "distill_weight": 0.0}),
        (0.0, {"fuse_start": 0.0}),
    ],
)
@pytest.mark.parametrize("lengths", ["valid", "all"])
def test_crrl_as_our_method(progress, own, lengths):
    seeded()
    config = small("crrl", **own, **{"encoder.lengths": lengths})
    data = clips_of(BATCH)[[0, 1, 2, 1]]  # a length comes twice, and they are not in order
    peer = CRRL(config, NTU25).double()
    items = CRRL.views(config, NTU25, data, np.arange(BATCH)).__getitems__(list(range(BATCH)))
    *arrays, valid = (np.stack(each) for each in zip(*items, strict=True))
    batch = (*double(*arrays), torch.from_numpy(valid))
    assert valid.tolist() == ([16, 13, 13, 10] if lengths == "valid" else [16] * 4)
    # Ours takes clips as they come, the code by length: keys enter the queue in that order.
    clips = torch.from_numpy(data[[0, 1, 3, 2]] if lengths == "valid" else data).double()
    key = ops.velocity(clips, batch[4])
    views = Views({"a": clips, "b": key}, torch.ones(BATCH, 2, dtype=torch.bool), {"key_lengths": batch[4]})
    pairs, method = two_losses(peer, batch, progress, lambda m: m.loss(views, progress).loss)
    agree(pairs)
    torch.testing.assert_close(method.queue.keys.T, peer.moco.queue)
    torch.testing.assert_close(method.slow_projector.target[0].weight, peer.moco.encoder_fc_k.fc[0].weight)


@pytest.mark.parametrize("teacher_dropout", [True, False])
def test_the_teacher_of_crrl_teaches_with_or_without_dropout(teacher_dropout):
    seeded()
    peer = CRRL(small("crrl", teacher_dropout=teacher_dropout, **{"encoder.dropout": 0.5}), NTU25).train()
    frames = torch.randn(2, 5, 150)
    taught = [peer.teach(frames, [5, 4]) for _ in range(2)]
    assert torch.equal(*taught) is not teacher_dropout
    assert not taught[0].requires_grad
    assert all(module.training for module in peer.modules())


def test_skeletonbt_against_sums_written_out():
    seeded()
    peer = SkeletonBT(small("skeletonbt", off_diagonal=0.03), NTU25).double().train()
    first, second = torch.randn(2, 5, 8, dtype=torch.float64)

    def normed(rows: np.ndarray, gain: float | np.ndarray = 1.0, shift: float | np.ndarray = 0.0) -> np.ndarray:
        return (rows - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5) * gain + shift

    def projected(x: Tensor) -> np.ndarray:
        layers, rows = list(peer.head.projector), x.numpy()
        for layer in layers:
            if isinstance(layer, torch.nn.Linear):
                rows = rows @ layer.weight.detach().numpy().T
            elif isinstance(layer, torch.nn.BatchNorm1d):
                rows = normed(rows, layer.weight.detach().numpy(), layer.bias.detach().numpy())
            else:
                rows = np.maximum(rows, 0)
        return normed(rows)

    for layer in (peer.head.projector[1], peer.head.projector[4]):
        torch.nn.init.normal_(layer.weight)
        torch.nn.init.normal_(layer.bias)
    a, b = projected(first), projected(second)
    total = 0.0
    for i in range(12):
        for j in range(12):
            same = sum(a[n, i] * b[n, j] for n in range(5)) / 5
            total += (same - 1) ** 2 if i == j else 0.03 * same**2
    assert peer.head(first, second).item() == pytest.approx(total, rel=1e-10)


# --- the feeders' ops ---


@pytest.mark.shared
def test_ops_as_in_the_official_feeders():
    if not (ROOT / "augment.npz").is_file():
        pytest.skip(f"no reference numbers at {ROOT} (set SKELTUNE_REFERENCE)")
    ref = Reference(ROOT / "augment.npz")
    close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    clip, whole = ref["scd/input/clip64"], ref["scd/input/clip300"]
    assert augment.valid_frames(whole) == int(ref["scd/input/num_frames"])
    for i in range(4):
        at, n = f"scd/cropresize/{i}", int(ref["scd/input/num_frames"])
        piece = int(ref[f"{at}/start"]), int(ref[f"{at}/length"])
        close(augment.crop_resize(whole, n, 0.1, 64, 64, piece), ref[f"{at}/out"])
    reach = augment.joint_reach(NTU25.parents)
    for i in range(3):
        at = f"scd/spatial_mask/{i}"
        scores = augment.joint_scores(reach, 5, ref[f"{at}/seed_joints"].tolist())
        assert np.array_equal(scores, ref[f"{at}/score"])
        for fair in (False, True):  # which of equal ones is the sort's, their scores are not
            hidden = ~augment.mask_joints(np.ones_like(clip), scores, 8, fair).any(axis=(0, 1, 3))
            assert np.array_equal(np.sort(scores[hidden]), np.sort(scores[ref[f"{at}/masked"]]))
        masked = augment.mask_segments(np.ones_like(clip), 0.375, drawn=ref[f"scd/temporal_mask/{i}/segments"].tolist())
        zero = np.flatnonzero(~masked.any(axis=(0, 2, 3)))
        assert np.array_equal(zero, np.sort(ref[f"scd/temporal_mask/{i}/zero_frames"]))
        matrix = ref[f"scd/shear/{i}/matrix_S"]
        six = [matrix[r, c] for r in range(3) for c in range(3) if r != c]
        close(augment.shear(clip, 1.0, six), ref[f"scd/shear/{i}/out"])
        close(augment.rotate(clip, 30.0, angles=ref[f"scd/rotate/{i}/angles_rad_xyz"]), ref[f"scd/rotate/{i}/out"])
    close(augment.flip(clip, NTU25.mirror), ref["scd/flip/out"])
    for i in range(4):
        at = f"cmd/corrupt/{i}"
        changed = augment.corrupt(clip, 15, ref[f"{at}/joints"].tolist(), ref[f"{at}/matrix"])
        close(changed, ref[f"{at}/out"])
    for stream in ("motion", "bone"):
        close(augment.stream_of(ref["input/clip"], stream, NTU25.parents), ref[f"stream/{stream}"])


def test_draws_of_the_feeders():
    seeded()
    clip = clips_of(1)[0]
    lengths = {augment.crop_resize(clip, 16, 0.1, 4, 8).shape for _ in range(5)}
    assert lengths == {(3, 8, 25, 2)}
    flat = np.ones((3, 16, 25, 2), dtype=np.float32)
    assert np.allclose(augment.crop_resize(flat, 16, 0.1, 1, 8), 1)
    assert np.array_equal(augment.crop_resize(clip, 16, 1.0, 1, 16), clip)
    hidden = [np.flatnonzero(~augment.mask_segments(flat, 0.375).any(axis=(0, 2, 3))) for _ in range(4)]
    assert {len(each) for each in hidden} == {6}
    assert len({tuple(each) for each in hidden}) > 1
    zeroed = moved = 0
    for _ in range(40):
        out = augment.corrupt(flat, 15)
        other = (out != flat).any(axis=(0, 1, 3))
        assert other.sum() == 15
        zeroed += not out[:, :, other].any()
        moved += bool(out[:, :, other].any())
    assert min(zeroed, moved) > 8
    assert np.array_equal(flat, np.ones_like(flat))  # the clip itself stays


def test_views_of_cmd_are_sheared_or_corrupted():
    seeded()
    data = np.ones((1, 3, 16, 25, 2), dtype=np.float32)
    feeder = CMD.views(small("cmd", **{"augment.crop_resize": 0.0}), NTU25, data, np.arange(1))
    other = {int((view != 1).any(axis=(0, 1, 3)).sum()) for _ in range(10) for view in feeder[0]}
    assert other == {15, 25}


def test_pstl_draws_once_a_batch_or_once_a_clip():
    seeded()
    clips = torch.from_numpy(movements(1)[0]).expand(6, -1, -1, -1, -1)
    for per_batch in (True, False):
        peer = PSTL(small("pstl", **{"augment.per_batch": per_batch}), NTU25)
        view, slow = peer.ordinary(clips), peer.slow(clips)
        assert slow.shape == (6, 3, 10, 25, 2)  # 16 frames less 3 by motion, 3 by lot
        alike = [torch.allclose(x[0], each, atol=1e-6) for x in (view, slow) for each in x[1:]]
        assert all(alike) if per_batch else not any(alike)
    ignored = [peer.central() for _ in range(200)]
    assert {len(each) for each in ignored} == {8}
    counts = np.bincount(np.concatenate(ignored), minlength=25)
    assert counts[20] > 2 * counts[3] > 0  # four bones against one


# --- settings that are refused, and training ---


@pytest.mark.parametrize(
    ("method", "setting", "value"),
    [
        ("pstl", "augment.noise", 0.01),
        ("pstl", "encoder.bodies", "real"),
        ("skeletonbt", "encoder.init", "normal"),
        ("scdnet", "encoder.segments", 2),
        ("scdnet", "momentum_schedule", "cosine"),
        ("cmd", "encoder.pool", "mean"),
        ("cmd", "ema_buffers", "copy"),
        ("crrl", "key", "view"),
        ("crrl", "encoder.input_norm", "scale"),
    ],
)
def test_a_step_that_the_code_does_not_have_is_refused(method, setting, value):
    config = small(method, **{setting: value})
    with pytest.raises(NotImplementedError, match=setting):
        peer_of(method)(config, NTU25)


@pytest.mark.parametrize(
    ("method", "setting", "value"),
    [("scdnet", "crop", 6.0), ("cmd", "rotate", 30.0), ("crrl", "shear", 0.5), ("scdnet", "strength", 0.5)],
)
def test_views_that_the_code_does_not_have_are_refused(method, setting, value):
    config = small(method, **{f"augment.{setting}": value})
    with pytest.raises(NotImplementedError, match=setting):
        peer_of(method).views(config, NTU25, clips_of(2), np.arange(2))


def test_streams_that_a_code_does_not_train_together_are_refused():
    config = small("cmd")
    one = dataclasses.replace(config, streams=dataclasses.replace(config.streams, use=("joint",)))
    with pytest.raises(NotImplementedError, match=r"streams\.use"):
        CMD(one, NTU25)


@pytest.mark.parametrize("layout", [NTU25, KINECT20], ids=lambda layout: layout.name)
@pytest.mark.parametrize("preset", ["clean", "paper_code"])
@pytest.mark.parametrize("method", list(SMALL))
def test_it_trains(method, preset, layout):
    seeded()
    persons = 2 if layout is NTU25 else 1
    config, data = small(method, preset), clips_of(9, layout=layout, persons=persons)
    peer = peer_of(method)(config, layout, persons)
    batches = loader(type(peer).views(config, layout, data, np.arange(1, 9)), BATCH)
    solver = peer.solver()
    stages = (0.0, 0.5) if method == "crrl" else (0.0,)
    for progress in stages:
        before = {name: value.clone() for name, value in peer.state_dict().items()}
        losses = train_epoch(peer, solver, batches, torch.device("cpu"), progress)
        assert len(losses) == 2
        assert all(np.isfinite(losses))
        moved = {name for name, value in peer.state_dict().items() if not torch.equal(value, before[name])}
        for part in MOVES[method, progress]:
            assert any(re.search(part, name) for name in moved), part
        still = {"crrl": {0.0: r"^(encoder|decoder|mlp)\.", 0.5: r"^moco\."}}.get(method, {}).get(progress)
        assert still is None or not any(re.search(still, name) for name in moved)


MOVES = {
    ("skeletonbt", 0.0): (r"encoder\.blocks", r"head\.projector"),
    ("pstl", 0.0): (r"encoder\.importance", r"head\.bn"),
    ("scdnet", 0.0): (r"encoder_q\.i_proj", r"encoder_k\.encoder\.gcn_s.*weight", "t_queue$", "s_queue$", "i_queue$"),
    ("cmd", 0.0): ("encoder_q_bone", r"encoder_k_motion\.encoder\.gru", "queue$", "queue_bone$", "queue_ptr_motion"),
    ("crrl", 0.0): ("encoder_fc_q", r"encoder_fc_k\.gru", r"moco\.queue$"),
    ("crrl", 0.5): (r"^encoder\.gru", r"^decoder\.gru", r"^mlp\."),
}
