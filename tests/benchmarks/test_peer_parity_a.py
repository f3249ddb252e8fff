"""Peers of AimCLR, CrosSCLR, SkeleMixCLR, SkeletonBYOL, CMAL and CMCS: equal to the official codes, and to ours."""

from __future__ import annotations

import dataclasses
import random
import re
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
import torch
from peer_cases import LOSS, ROOT, SECOND, Case, cases, differences, load, one_step, second_loss, stgcn_name
from torch.nn import functional as F

from benchmarks.peer import PEERS, augment, peer_of
from benchmarks.peer import aimclr as aimclr_module
from benchmarks.peer.aimclr import TripleViews, keep_masks
from benchmarks.peer.base import loader, train_epoch, train_step
from benchmarks.peer.moco import derived
from benchmarks.peer.skelemixclr import Block, Mixture
from methods.augment.mix import Mix, partners
from methods.base import JointMethod, Views
from methods.data.layouts import KINECT20, NTU25
from methods.data.streams import derive
from methods.nn.stgcn import STGCN
from methods.registry import get_method
from methods.training.config import published, with_settings

METHODS = ("aimclr", "crossclr", "skelemixclr", "skelemixclr_plus", "skeletonbyol", "cmal", "cmcs")
ENDING = {"joint": "", "motion": "_motion", "bone": "_bone"}


# --- against the official codes -------------------------------------------------------------------------------------


def naming(official: str) -> str | None:
    """Official name -> the peer's, of every network of these codes; the labels beside a queue are read by nobody."""
    if official == "queue_label":
        return None
    network, _, rest = official.partition(".")
    return f"{network}.{stgcn_name(rest)}" if rest else official


def built(method: str, case: Case, **own):
    """The peer in the sizes and the state of a case; its graph is its own before the state is loaded."""
    names = {
        "hid": "hidden",
        "D": "projection",
        "K": "queue",
        "ema": "momentum",
        "topk": "topk",
        "lamb": "cross_weight",
    }
    known = {f.name for f in dataclasses.fields(get_method(method).config)}
    settings = {
        "encoder.width": case.config("c"), "encoder.dim": case.config("Dh"), "encoder.dropout": case.config("dropout"),
        "optim.lr": case.config("lr"), "optim.sgd_momentum": case.config("sgd_momentum"),
        "optim.weight_decay": case.config("weight_decay"), "hidden": case.config("Dh"), "frames": case.config("T"),
    }  # fmt: skip
    for key in ("hid", "D", "K", "ema", "topk", "lamb", "temperature", "momentum"):
        if f"config/{key}" in case.numbers and names.get(key, key) in known:
            settings[names.get(key, key)] = case.config(key)
    peer = peer_of(method)(with_settings(published(method, preset="paper_code"), settings | own), NTU25)
    graphs = {name: value.clone() for name, value in peer.state_dict().items() if name.endswith("graph")}
    load(peer, case, naming)
    for name, graph in graphs.items():
        torch.testing.assert_close(peer.state_dict()[name], graph.double(), rtol=0, atol=1e-7)
    return peer


def each_case(*methods):
    """Every file of the methods, of other seeds too; one skipped test where there are none."""
    found = [(method, path) for method in methods for path in cases(method)]
    return pytest.mark.parametrize(
        ("method", "path"), found or [(methods[0], None)], ids=[path.stem for _, path in found] or ["none"]
    )


def opened(path) -> Case:
    if path is None:
        pytest.skip(f"no reference numbers at {ROOT} (set SKELTUNE_REFERENCE)")
    return Case(path)


@contextmanager
def outputs(**modules):
    """Name -> what a module gave, call by call."""
    seen = {name: [] for name in modules}
    handles = [
        m.register_forward_hook(lambda _m, _i, out, n=n: seen[n].append(out.detach())) for n, m in modules.items()
    ]
    yield seen
    for handle in handles:
        handle.remove()


def spy(monkeypatch, owner, name):
    """What calls of a function get and give from now on: a list of (arguments, result)."""
    seen, real = [], getattr(owner, name)

    def call(*given):
        result = real(*given)
        seen.append((given, result))
        return result

    monkeypatch.setattr(owner, name, call)
    return seen


def also(case, prefix, found, limits):
    """Faults among those values that the file has under ``prefix``; at least one must be there."""
    here = {f"{prefix}{name}": (value, limits) for name, value in found.items() if f"{prefix}{name}" in case.numbers}
    assert here, prefix
    return differences(case, here)


@pytest.mark.shared
@pytest.mark.parametrize(("prefix", "progress"), [("stage1/", 0.0), ("stage2/", 0.5)])
@each_case("aimclr")
def test_aimclr(method, path, prefix, progress, monkeypatch):
    case = opened(path)
    peer = built(method, case)
    batch = tuple(case.tensor(f"input/view_{name}") for name in ("extreme", "q", "k"))
    solver, queue = peer.solver(), peer.queue.clone()
    drops, masks = spy(monkeypatch, aimclr_module, "attention_drop"), spy(monkeypatch, peer, "mined")
    with outputs(q=peer.encoder_q.fc, k=peer.encoder_k.fc) as seen:
        faults = one_step(peer, solver, case, naming, batch, prefix, progress)
        first = {name: list(values) for name, values in seen.items()}
        faults += second_loss(peer, solver, case, batch, prefix, progress)
    (maps, threshold), dropped = drops[0]
    joints, cells = keep_masks(maps, threshold)
    faults += also(case, f"{prefix}out/", between(case, first, queue, masks[:1]), LOSS)
    faults += also(case, f"{prefix}step2/", between(case, {n: v[len(first[n]) :] for n, v in seen.items()}), SECOND)
    faults += also(case, "stage1/out/", {
        "big/eadm_input_x": maps[:2], "big/eadm_output": dropped[:2], "big/eadm_keep_joint": joints,
        "big/eadm_keep_temporal": cells[:2].to(torch.uint8), "eadm_keep_frac_joint": joints.mean(),
        "eadm_keep_frac_temporal": cells.mean(),
    }, LOSS)  # fmt: skip
    faults += also(case, f"{prefix}step2/", {"queue_ptr": peer.queue_ptr}, SECOND)
    assert len(masks) == (2 if progress else 0)
    assert not faults, "\n".join(faults[:20])


def between(case, seen, queue=None, masks=None):
    """AimCLR's embeddings and losses, by hand from what the heads gave."""
    names = ("q", "q_extreme", "q_extreme_drop")
    found = {name: F.normalize(value) for name, value in zip((*names, "k"), (*seen["q"], *seen["k"]), strict=True)}
    if queue is None:
        return found
    tau = case.config("temperature")
    logits = [torch.cat([(found[n] * found["k"]).sum(1)[:, None], found[n] @ queue], 1) / tau for n in names]
    shares = [each.softmax(1) for each in logits]
    found |= dict(zip(("big/p_query", "big/p_extreme", "big/p_extreme_drop"), shares, strict=True))
    found |= {f"loss{i + 1}": -(shares[0] * shares[i].log()).sum(1).mean() for i in (1, 2)}
    return found | {"logits": logits[0]} | ({"big/pos_mask": masks[0][1]} if masks else {})


@pytest.mark.shared
@pytest.mark.parametrize(("prefix", "progress"), [("stage1/", 0.0), ("stage2/", 0.5)])
@each_case("crossclr")
def test_crossclr(method, path, prefix, progress, monkeypatch):
    case = opened(path)
    peer = built(method, case)
    view_q, view_k = case.tensor("input/view_q"), case.tensor("input/view_k")
    pairs, losses, solver = spy(monkeypatch, peer, "pair"), spy(monkeypatch, peer, "losses"), peer.solver()
    faults = one_step(peer, solver, case, naming, (view_q, view_k), prefix, progress)
    faults += second_loss(peer, solver, case, (view_q, view_k), prefix, progress)
    for (_, found), out, limits in zip(losses, ("out/", "step2/"), (LOSS, SECOND), strict=True):
        faults += also(case, prefix + out, {f"loss{ENDING[s]}": found[s] for s in ("motion", "bone")}, limits)
    for (_, (logits, positives)), name in zip(pairs[:6], ("jm", "jb", "mj", "mb", "bj", "bm"), strict=False):
        faults += also(case, f"{prefix}out/big/", {f"logits_{name}": logits, f"pos_mask_{name}": positives}, LOSS)
    for stream in ("motion", "bone"):
        for side, view in (("q", view_q), ("k", view_k)):
            faults += also(
                case, f"{prefix}out/big/", {f"im_{side}_{stream}_first2": derived(view, stream, NTU25)[:1]}, LOSS
            )
    pointers = {f"queue_ptr{end}": peer.get_buffer(f"queue_ptr{end}") for end in ENDING.values()}
    faults += also(case, f"{prefix}step2/", pointers, SECOND)
    assert len(pairs) == (12 if progress else 0)
    assert not faults, "\n".join(faults[:20])


def recorded_mixtures(case, step, repeats):
    """The mixtures of a step as the official code drew them: one block for the whole batch each."""
    found = []
    for i in range(repeats):
        name = f"input/draws_step{step}/mix{i}_"
        block = Block(*(case.numbers[name + part].tolist() for part in ("joints", "start", "Ct")))
        found.append(Mixture(case.numbers[f"{name}perm"].tolist(), [block]))
    return found


@pytest.mark.shared
@each_case("skelemixclr", "skelemixclr_plus")
def test_skelemixclr(method, path, monkeypatch):
    case = opened(path)
    repeats = len([key for key in case.numbers if re.fullmatch(r"input/draws_step1/mix\d+_perm", key)])
    peer = built(method, case, repeats=repeats, regional_weight=case.config("alpha"))
    assert repeats == get_method(method).config().repeats
    mixtures = [recorded_mixtures(case, step, repeats) for step in (1, 2)]
    steps = iter(mixtures)
    monkeypatch.setattr(peer, "draw", lambda *_: next(steps))
    batch = (case.tensor("input/view_q"), case.tensor("input/view_k"))
    logits, losses, solver = spy(monkeypatch, peer, "logits"), spy(monkeypatch, peer, "losses"), peer.solver()
    faults = one_step(peer, solver, case, naming, batch) + second_loss(peer, solver, case, batch)
    for (_, (instance, regional)), prefix, limits in zip(losses, ("out/", "step2/"), (LOSS, SECOND), strict=True):
        faults += also(case, prefix, {"loss_ins": instance, "loss_reg": regional}, limits)
    for number, mixture in enumerate(mixtures[0]):
        mask = mixture.mask(batch[0].shape[2] // 4, 25, batch[0])[0]
        of_partner, of_itself = (each for _, each in logits[2 * number : 2 * number + 2])
        faults += also(case, "out/big/", {
            f"mix{number}_mask": mask, f"mix{number}_input": mixture.paste(batch[0]),
            f"logits_p{number}": of_partner, f"logits_c{number}": of_itself,
        }, LOSS)  # fmt: skip
    faults += also(case, "step2/", {"queue_ptr": peer.queue_ptr}, SECOND)
    assert not faults, "\n".join(faults[:20])


@pytest.mark.shared
@each_case("cmal")
def test_cmal(method, path):
    case = opened(path)
    peer = built(method, case)
    batch = (case.tensor("input/view_1"), case.tensor("input/view_2"))
    solver = peer.solver()
    watched = {
        "online_proj": peer.online_projector,
        "online_pred": peer.online_predictor,
        "target_proj": peer.target_projector,
    }
    with outputs(**watched) as seen:
        faults = one_step(peer, solver, case, naming, batch) + second_loss(peer, solver, case, batch)
    for prefix, first, limits in (("out/", 0, LOSS), ("step2/", 2, SECOND)):
        found = {f"{name}_{view + 1}": values[first + view] for name, values in seen.items() for view in range(2)}
        faults += also(case, prefix, found, limits)
    assert not faults, "\n".join(faults[:20])


@pytest.mark.shared
@pytest.mark.parametrize(("prefix", "progress"), [("stage1/", 59 / 100), ("stage2/", 60 / 100)])
@each_case("cmcs")
def test_cmcs(method, path, prefix, progress, monkeypatch):
    case = opened(path)
    peer = built(method, case)
    batch = (case.tensor("input/view_1"), case.tensor("input/view_2"))
    sims, labels, losses = (spy(monkeypatch, peer, name) for name in ("similarities", "labels", "losses"))
    if not progress >= peer.config.params.cross_start:
        # The code descends three losses one after the other there, and calls the joint stream's `loss`.
        for out in ("out", "step2"):
            names = [name for name in (f"{prefix}{out}/loss{end}" for end in ENDING.values()) if name in case.numbers]
            joint = case.numbers[names[0]].copy()
            case.numbers[f"{prefix}{out}/loss_joint"] = joint
            case.numbers[names[0]] = sum(case.numbers[name] for name in names)
    solver = peer.solver()
    faults = one_step(peer, solver, case, naming, batch, prefix, progress)
    faults += second_loss(peer, solver, case, batch, prefix, progress)
    if labels:
        for (_, label), out, limits in zip(labels, ("out/", "step2/"), (LOSS, SECOND), strict=True):
            faults += also(case, prefix + out, {"label_3views": label}, limits)
        assert labels[0][1].sum() > len(batch[0])  # not the diagonal alone
        for (_, pair), stream in zip(sims[:3], "jmb", strict=False):
            faults += also(case, f"{prefix}out/", {f"sim_{stream}{i + 1}": each for i, each in enumerate(pair)}, LOSS)
    else:
        for (_, found), out, limits in zip(losses, ("out/", "step2/"), (LOSS, SECOND), strict=True):
            faults += also(case, prefix + out, {f"loss_{stream}": value for stream, value in found.items()}, limits)
    assert bool(labels) == (prefix == "stage2/")
    assert not faults, "\n".join(faults[:20])


# method -> stage, what is done wrong in its step, and where the record must then see it
WRONG = {
    "aimclr": ("stage2/", "remember", lambda peer: lambda keys: None, "after/queue"),
    "crossclr": ("stage2/", "pair", lambda peer: lambda own, other, _: type(peer).pair(peer, own, other, own[1] * 0),
                 "grad/encoder_q"),
    "skelemixclr": ("", "key", lambda peer: lambda view: F.normalize(peer.encoder_k(view).detach()), "after/encoder_k"),
    "cmal": ("", "after_step", lambda peer: lambda progress: None, "after/target"),
    "cmcs": ("stage2/", "labels", lambda peer: lambda sims: torch.eye(len(sims["joint"][0])).double(), "grad/online"),
}  # fmt: skip


@pytest.mark.shared
@pytest.mark.parametrize("method", WRONG)
def test_a_step_that_differs_is_seen(method, monkeypatch):
    case = opened(next(iter(cases(method)), None))
    peer = built(method, case)
    prefix, name, wrong, where = WRONG[method]
    monkeypatch.setattr(peer, name, wrong(peer))
    if method == "skelemixclr":
        monkeypatch.setattr(peer, "draw", lambda *_: recorded_mixtures(case, 1, 1))
    names = {"aimclr": ("extreme", "q", "k"), "cmal": "12", "cmcs": "12"}.get(method, "qk")
    batch = tuple(case.tensor(f"input/view_{name}") for name in names)
    faults = one_step(peer, peer.solver(), case, naming, batch, prefix, 0.6)
    assert any(line.startswith(prefix + where) for line in faults), faults[:5]


# --- against our methods, at settings that no official file has -----------------------------------------------------


def clips_of(count, frames=16, joints=25, persons=2, seed=0):
    """Smooth random clips (N, 3, T, V, M) float32; every second clip lacks its second body."""
    rng = np.random.default_rng(seed)
    data = rng.normal(0, 0.1, (count, 3, frames, joints, persons)).cumsum(2) + rng.normal(
        0, 1, (count, 3, 1, joints, persons)
    )
    data[1::2, ..., 1:] = 0
    return data.astype(np.float32)


SMALL = {
    "encoder.width": 4, "encoder.dim": 16, "encoder.dropout": 0.0, "frames": 16, "optim.batch": 4, "optim.lr": 0.05,
    "queue": 16, "hidden": 12, "projection": 8, "augment.repeat": False,
}  # fmt: skip


def small(method, preset="clean", **own):
    known = {f.name for f in dataclasses.fields(get_method(method).config)}
    sizes = {k: v for k, v in SMALL.items() if "." in k or k == "frames" or k in known}
    return with_settings(published(method, preset=preset), sizes | own)


def peer_names(ours: str) -> list[str]:
    """An entry of our methods' state -> where a peer has it; our one pointer, a peer has for each of its queues."""
    if ours == "queue.keys":
        return ["queue"]
    found = re.fullmatch(r"queue\.keys_(\w+)", ours)
    if found:
        return [f"queue{ENDING[found[1]]}"]
    if ours == "queue.pointer":
        return [f"queue_ptr{end}" for end in ENDING.values()]
    found = re.fullmatch(r"(slow_)?(encoder|projector|predictor)(?:s\.(\w+?))?(\.target)?\.(.*)", ours)
    slow, part, stream, _, rest = found.groups()
    for theirs, mine in (
        (r"^norm\.", "data_bn."), (r"\.spatial\.conv\.", ".gcn."), (r"\.temporal\.", ".tcn."),
        (r"\.shortcut\.", ".residual."), (r"^edge_importance\.", "importance."),
    ):  # fmt: skip
        rest = re.sub(theirs, mine, rest)
    end = "" if stream is None else ENDING[stream]
    moco = f"encoder_{'k' if slow else 'q'}{end}." + (f"fc.{rest}" if part == "projector" else rest)
    side, end = "target" if slow else "online", "" if stream is None else f"_{stream}"
    siamese = f"{side}_backbone{end}.{rest}" if part == "encoder" else f"{side}_{part}{end}.net.{rest}"
    return [moco, siamese]


def pair_of(config, seed=0, drift=0.05):
    """Our method and the peer in float64 with equal states, in which slow networks are not the online ones."""
    torch.manual_seed(seed)
    cls = get_method(config.method).cls
    if issubclass(cls, JointMethod):
        ours = cls(config.params, {stream: STGCN(config.encoder, NTU25) for stream in config.streams.use})
    else:
        ours = cls(config.params, STGCN(config.encoder, NTU25))
    ours = ours.double().train()
    with torch.no_grad():
        for name, value in ours.named_parameters():
            value.add_(torch.randn_like(value), alpha=drift if name.startswith("slow") else drift / 2)
    peer = peer_of(config.method)(config, NTU25).double().train()
    state, wanted = {}, peer.state_dict()
    for name, value in ours.state_dict().items():
        places = [place for place in peer_names(name) if place in wanted]
        assert places, name
        for place in places:
            state[place] = value.T if name.startswith("queue.keys") else value.reshape(wanted[place].shape)
    if config.method == "crossclr" and config.params.share_head:
        for side in "qk":  # the owner's head once more, under the names of each other stream
            owner = {
                k.removeprefix(f"encoder_{side}.fc."): v
                for k, v in state.items()
                if k.startswith(f"encoder_{side}.fc.")
            }
            for end in ("_motion", "_bone"):
                state |= {f"encoder_{side}{end}.fc.2.{k}": v for k, v in owner.items()}
    peer.load_state_dict(state)
    return ours, peer


def our_loss(ours, config, batch, progress, mixtures=None):
    """The loss of our method on a peer's batch of joints."""
    names = ("extreme", "a", "b") if config.method == "aimclr" else ("a", "b")
    clips = dict(zip(names, batch, strict=True))
    extra = {}
    if mixtures:
        mixes = [as_mix(each, len(batch[0])) for each in mixtures]
        extra = {f"mix_{part}": torch.stack([getattr(mix, part) for mix in mixes]) for part in Mix.__dataclass_fields__}
    views = Views(clips, (clips["a"] != 0).flatten(1, 3).any(1), extra)
    streams = {s: views.map(partial(derive, stream=s, layout=NTU25)) for s in config.streams.use}
    if isinstance(ours, JointMethod):
        return sum(out.loss for out in ours.losses(streams, progress).values())
    return ours.loss(streams[config.streams.use[0]], progress).loss


def as_mix(mixture, n):
    blocks = mixture.blocks * (n if len(mixture.blocks) == 1 else 1)
    joints = torch.zeros(n, 25, dtype=torch.bool)
    for row, block in zip(joints, blocks, strict=True):
        row[block.joints] = True
    shift = torch.tensor(mixture.partner[0])
    assert partners(n, shift).tolist() == mixture.partner
    start, length = (torch.tensor([getattr(block, part) for block in blocks]) for part in ("start", "length"))
    return Mix(shift, joints, start, length)


ALONGSIDE = [
    ("aimclr", 0.0, {}),
    ("aimclr", 0.9, {"topk": 3, "d3m_weight": 0.4, "projector_norm": True, "drop_threshold": 0.69}),
    ("aimclr", 0.6, {"streams.use": ("bone",), "temperature": 0.2, "momentum": 0.9}),
    ("crossclr", 0.0, {"momentum": 0.9}),
    ("crossclr", 0.5, {"topk": 4, "temperature": 0.3}),
    ("crossclr", 0.5, {"streams.use": ("motion", "joint"), "context": False, "projector_norm": True}),
    ("crossclr", 0.5, {"share_head": True, "cross_ema": "motion_only", "momentum": 0.8}),
    ("crossclr", 0.2, {"share_head": True, "momentum": 0.8}),
    ("skelemixclr", 0.0, {}),
    ("skelemixclr", 0.0, {"joints": "any", "repeats": 2, "extra_negative": False, "regional_weight": 0.3}),
    ("skelemixclr", 0.0, {"fill": "zeros", "projector_norm": False, "mix_per_batch": True, "streams.use": ("motion",)}),
    ("skelemixclr_plus", 0.0, {"momentum": 0.9}),
    ("skeletonbyol", 0.0, {}),
    ("skeletonbyol", 0.0, {"streams.use": ("motion",), "momentum": 0.7}),
    ("cmal", 0.0, {"repulsion": 0.2, "momentum": 0.9}),
    ("cmcs", 0.0, {}),
    ("cmcs", 0.9, {"topk": 3, "cross_weight": 2.0, "temperature": 0.3, "momentum": 0.9}),
    ("cmcs", 0.9, {"streams.use": ("joint", "bone"), "freeze_target_in_cross": True, "topk": 8}),
]


@pytest.mark.parametrize(("method", "progress", "own"), ALONGSIDE)
def test_two_steps_beside_ours(method, progress, own, monkeypatch):
    """Losses and all weights, running statistics and queues after two steps, from equal states, in float64."""
    config = small(method, **own)
    ours, peer = pair_of(config)
    views = 3 if method == "aimclr" else 2
    mixtures = []
    if method.startswith("skelemix"):
        real = peer.draw
        random.seed(3)
        monkeypatch.setattr(peer, "draw", lambda *sizes: mixtures.append(real(*sizes)) or mixtures[-1])
    solver = peer.solver()
    trained = [p for p in ours.parameters() if p.requires_grad]
    beside = torch.optim.SGD(
        trained, lr=0.05, momentum=config.optim.sgd_momentum, weight_decay=config.optim.weight_decay
    )
    for step in range(2):
        batch = tuple(torch.as_tensor(clips_of(4, seed=10 * step + i)).double() for i in range(views))
        theirs = train_step(peer, solver, batch, progress)
        loss = our_loss(ours, config, batch, progress, mixtures[-1] if mixtures else None)
        beside.zero_grad()
        loss.backward()
        beside.step()
        ours.after_step(progress)
        assert theirs == pytest.approx(loss.item(), rel=1e-9)
    state = peer.state_dict()
    for name, value in ours.state_dict().items():
        for place in (place for place in peer_names(name) if place in state):
            mine = value.T if name.startswith("queue.keys") else value.reshape(state[place].shape)
            torch.testing.assert_close(state[place], mine, rtol=1e-7, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")


def test_byol_by_hand():
    """The loss clip by clip and coordinate by coordinate, and each target weight after the step."""
    _, peer = pair_of(small("skeletonbyol", momentum=0.75))
    batch = tuple(torch.as_tensor(clips_of(4, seed=i)).double() for i in range(2))
    before = {name: value.clone() for name, value in peer.named_parameters()}
    with outputs(p=peer.online_predictor, t=peer.target_projector) as seen:
        loss = train_step(peer, peer.solver(), batch, 0.0)

    def apart(a, b):
        dot, long_a, long_b = 0.0, 0.0, 0.0
        for x, y in zip(a.tolist(), b.tolist(), strict=True):
            dot, long_a, long_b = dot + x * y, long_a + x * x, long_b + y * y
        return 2 - 2 * dot / (long_a**0.5 * long_b**0.5)

    (p1, p2), (t1, t2) = seen["p"], seen["t"]
    by_hand = sum(apart(p1[i], t2[i]) + apart(p2[i], t1[i]) for i in range(4)) / 4
    assert loss == pytest.approx(by_hand, rel=1e-12)
    for name, value in peer.named_parameters():
        if name.startswith("target"):
            online = dict(peer.named_parameters())[name.replace("target", "online")]
            torch.testing.assert_close(value, 0.75 * before[name] + 0.25 * online, rtol=1e-12, atol=1e-15)
            assert not value.requires_grad


# --- views ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def drawn():
    if not (ROOT / "augment.npz").is_file():
        pytest.skip(f"no reference numbers at {ROOT} (set SKELTUNE_REFERENCE)")
    return Case(ROOT / "augment.npz").numbers


def close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.shared
def test_every_op_with_recorded_draws(drawn):
    clip = drawn["input/clip"]
    for i in range(4):
        assert int(clip.shape[1] / 6.0) == drawn[f"crop/{i}/pad"]
        close(augment.crop(clip, 6.0, int(drawn[f"crop/{i}/start"])), drawn[f"crop/{i}/out"])
        matrix = drawn[f"shear/{i}/matrix_S"]
        close(augment.shear(clip, 0.5, matrix[~np.eye(3, dtype=bool)].tolist()), drawn[f"shear/{i}/out"])
        angles = drawn[f"rotate/{i}/angles_rad_xyz"]
        close(augment.rotate(clip, 30.0, angles=angles), drawn[f"rotate/{i}/out"])
        assert np.degrees(np.delete(angles, drawn[f"rotate/{i}/main_axis"])).max() <= 1
    close(augment.flip(clip, NTU25.mirror), drawn["flip/out"])
    close(augment.reverse_time(clip), drawn["time_flip/out"])
    for i in range(3):
        close(augment.blur(clip.astype(float), sigma=float(drawn[f"blur/{i}/sigma"])), drawn[f"blur/{i}/out"])
        close(augment.mask_axis(clip, int(drawn[f"axis_mask/{i}/axis"])), drawn[f"axis_mask/{i}/out"])
    for i in range(2):
        close(augment.noise(clip, 0.01, drawn=drawn[f"noise/{i}/noise"]), drawn[f"noise/{i}/out"])
    for stream in ("motion", "bone"):
        close(derived(torch.as_tensor(clip)[None], stream, NTU25)[0], drawn[f"stream/{stream}"])


@pytest.mark.shared
@pytest.mark.parametrize("i", range(4))
def test_the_whole_extreme_view_with_recorded_draws(drawn, i, monkeypatch):
    """The feeder itself, its draws answered by the recorded ones: ops and their order."""
    given = {name: drawn[f"strong/{i}/{name}"] for name in ("crop_start", "shear_S", "rot_angles_xyz", "noise", "axis")}
    lots = [not drawn[f"strong/{i}/{name}_applied"] for name in ("flip", "noise", "blur")] + [given["axis"] < 0, True]
    chance = iter(lots)
    real = {name: getattr(augment, name) for name in ("crop", "shear", "rotate", "noise", "blur", "mask_axis")}
    six = given["shear_S"][~np.eye(3, dtype=bool)].tolist()
    stand_ins = {
        "crop": lambda clip, rho: real["crop"](clip, rho, int(given["crop_start"])),
        "shear": lambda clip, amplitude: real["shear"](clip, amplitude, six),
        "rotate": lambda clip, largest, ways: real["rotate"](clip, largest, ways, given["rot_angles_xyz"]),
        "noise": lambda clip, deviation, present: real["noise"](clip, deviation, present, given["noise"]),
        "blur": lambda clip, normalise: real["blur"](clip, normalise, float(drawn[f"strong/{i}/blur_sigma"])),
        "mask_axis": lambda clip: real["mask_axis"](clip, int(given["axis"])),
    }
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(augment, name, stand_in)
    monkeypatch.setattr(random, "random", lambda: 0.99 * float(next(chance)))
    config = with_settings(published("aimclr", preset="paper_code"), {"augment.repeat": False})
    view = TripleViews(config, NTU25, drawn["input/clip"][None], np.array([0]))._extreme(drawn["input/clip"])
    np.testing.assert_allclose(view, drawn[f"strong/{i}/out"], rtol=0, atol=3e-6)
    assert next(chance, None) is None


def test_clean_ops_differ_as_their_settings_say():
    clip = clips_of(2, joints=25)[1]
    flipped = augment.flip(clip, NTU25.mirror, reflect=True)
    np.testing.assert_array_equal(flipped[0], -augment.flip(clip, NTU25.mirror)[0])
    np.testing.assert_array_equal(flipped[1:], augment.flip(clip, NTU25.mirror)[1:])
    present = (clip != 0).any(axis=(0, 1, 2))
    assert present.tolist() == [True, False]
    assert not augment.noise(clip, 0.1, present)[..., 1].any() and augment.noise(clip, 0.1)[..., 1].all()
    still = np.ones((3, 40, 4, 1))
    np.testing.assert_allclose(augment.blur(still, True, 1.5)[:, 7:-7], 1)
    np.testing.assert_allclose(augment.blur(still, False, 1.5)[:, 7:-7], np.exp(-(np.arange(-7, 8) ** 2) / 4.5).sum())
    random.seed(0)
    around_z = [augment.rotate(np.array([1.0, 0, 0]).reshape(3, 1, 1, 1), 40.0, ways)[1].item() for ways in [True] * 60]
    assert min(around_z) < -0.1 and max(around_z) > 0.1
    one_way = [augment.rotate(np.array([1.0, 0, 0]).reshape(3, 1, 1, 1), 40.0)[1].item() for _ in range(60)]
    assert max(one_way) <= 0 and min(one_way) < -0.1


# --- one step of each, from clips to weights ------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["clean", "paper_code"])
@pytest.mark.parametrize("progress", [0.0, 0.95])
@pytest.mark.parametrize("method", METHODS)
def test_from_clips_to_a_step(method, progress, preset):
    config = small(method, preset, **{"encoder.dropout": 0.2, "momentum": 0.9})
    data, index = clips_of(10), np.arange(1, 10)
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    cls = peer_of(method)
    peer = cls(config, NTU25)
    views = cls.views(config, NTU25, data, index)
    assert len(views) == 9
    assert [view.shape for view in views[0]] == [data[0].shape] * (3 if method == "aimclr" else 2)
    assert not np.allclose(views[0][0], views[0][1])  # every view draws its own
    before = {name: value.clone() for name, value in peer.state_dict().items()}
    losses = train_epoch(peer, peer.solver(), loader(views, 4), torch.device("cpu"), progress)
    assert len(losses) == 2 and np.isfinite(losses).all()
    moved = {name for name, value in peer.state_dict().items() if not torch.equal(value, before[name])}
    slow = {name for name, value in peer.named_parameters() if not value.requires_grad}
    assert {name for name, value in peer.named_parameters() if value.requires_grad} <= moved
    frozen = preset == "paper_code" and progress and method in ("crossclr", "cmcs")
    stay = {
        name for name in slow if frozen and not name.startswith(("encoder_k_motion.", "encoder_k.fc."))
    }  # what the quirk of the second stage leaves standing
    assert slow and slow & moved == slow - stay
    for name in (name for name in before if re.fullmatch(r"queue(_motion|_bone)?", name)):
        changed = (before[name] != peer.state_dict()[name]).any(0)
        assert changed.tolist() == [True] * 8 + [False] * 8
        torch.testing.assert_close(peer.state_dict()[name].norm(dim=0), torch.ones(16))
        assert int(peer.state_dict()[name.replace("queue", "queue_ptr")]) == 8
    assert any(name.startswith("queue") for name in before) == (method not in ("skeletonbyol", "cmal", "cmcs"))


@pytest.mark.parametrize("method", METHODS)
def test_the_start(method):
    """N(0, 0.02); the slow networks are copies, or, as in the code, drawn by themselves but for the edges' weights."""
    for preset in ("clean", "paper_code"):
        torch.manual_seed(0)
        peer = peer_of(method)(small(method, preset), NTU25)
        online = dict(peer.named_parameters())
        assert online.keys() == {name for name, _ in peer.named_parameters()}
        for name, value in peer.named_parameters():
            other = name.replace("encoder_k", "encoder_q").replace("target_", "online_")
            if other != name:
                drawn = name.endswith("weight") and value.dim() >= 1
                same = torch.equal(value, online[other])
                assert same == (preset == "clean" or not drawn), name
                assert not value.requires_grad
        kernel = next(v for n, v in peer.named_parameters() if n.endswith("blocks.9.tcn.2.weight"))
        assert 0.017 < kernel.std().item() < 0.023 and abs(kernel.mean().item()) < 0.002


def test_drawn_mixtures():
    """Whole parts, never all; segments within the limits, scaled; one block for all where the code has one."""
    config = small("skelemixclr_plus", frames=64)
    peer = peer_of("skelemixclr_plus")(config, NTU25)
    random.seed(1)
    drawn = [mixture for _ in range(60) for mixture in peer.draw(6, 64)]
    assert len(drawn) == 180
    shifts = {mixture.partner[0] for mixture in drawn}
    assert shifts == {1, 2, 3, 4}
    blocks = [block for mixture in drawn for block in mixture.blocks]
    assert len(blocks) == 180 * 6
    counts = set()
    for block in blocks:
        inside = [part for part in NTU25.parts.values() if set(part) <= set(block.joints)]
        assert sorted(joint for part in inside for joint in part) == block.joints
        counts.add(len(inside))
        assert 7 <= block.length <= 11 and 0 <= block.start <= 16 - block.length
    assert counts == {2, 3} and {block.length for block in blocks} == set(range(7, 12))
    whole = peer_of("skelemixclr")(small("skelemixclr", mix_per_batch=True, segments_more=20, parts_more=9), NTU25)
    once = [mixture for _ in range(200) for mixture in whole.draw(4, 16)]
    assert {len(mixture.blocks) for mixture in once} == {1}
    assert {mixture.blocks[0].length for mixture in once} == {1, 2, 3}  # of 4 segments never all
    assert max(len(mixture.blocks[0].joints) for mixture in once) < 25


def test_gaussian_fill_fills_the_block_alone():
    x = torch.as_tensor(clips_of(4))
    torch.manual_seed(0)
    mixture = Mixture([1, 2, 3, 0], [Block([3, 7], 1, 2)])
    mask = mixture.mask(4, 25, x)[0].bool().repeat_interleave(4, 0)
    mixed = mixture.paste(x, "gaussian")
    assert mask.sum() == 2 * 8
    assert torch.equal(mixed[:, :, ~mask], x[:, :, ~mask])
    assert (mixed[:, :, mask] != x[:, :, mask]).all() and 0.8 < float(mixed[:, :, mask].std()) < 1.2


# --- what a peer refuses --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "setting", "value"),
    [
        ("aimclr", "momentum_schedule", "cosine"),
        ("aimclr", "encoder.depth", 4),
        ("aimclr", "streams.use", ("joint", "bone")),
        ("crossclr", "ema_buffers", "copy"),
        ("crossclr", "streams.loss", (0.5, 0.3, 0.2)),
        ("skelemixclr", "encoder.bodies", "real"),
        ("skelemixclr", "frames", 50),
        ("skeletonbyol", "optim.name", "adam"),
        ("cmal", "encoder.precision", "bf16"),
        ("cmcs", "encoder.init", "torch"),
    ],
)
def test_a_setting_that_is_not_supported_is_named(method, setting, value):
    with pytest.raises(NotImplementedError, match=setting.rpartition(".")[2]):
        peer_of(method)(small(method, **{setting: value}), NTU25)


NO_VIEWS = [("strength", 0.5), ("crop", 0.0), ("repeat", True), ("corrupt", 0.2)]


@pytest.mark.parametrize(
    ("method", "setting", "value"),
    [("aimclr", "rotate_probability", 0.5)] + [(method, *each) for method in METHODS for each in NO_VIEWS],
)
def test_a_view_that_is_not_supported_is_named(method, setting, value):
    config = small(method, **{f"augment.{setting}": value})
    with pytest.raises(NotImplementedError, match=rf"augment\.{setting}"):
        peer_of(method).views(config, NTU25, clips_of(4), np.arange(4))


@pytest.mark.parametrize("method", ["crossclr", "skelemixclr", "skeletonbyol", "cmal", "cmcs"])
def test_only_aimclr_has_extreme_views(method):
    config = small(method, **{"augment.flip": 0.5})
    with pytest.raises(NotImplementedError, match=r"augment\.flip"):
        peer_of(method).views(config, NTU25, clips_of(4), np.arange(4))


@pytest.mark.parametrize("method", ["aimclr", "crossclr", "skelemixclr"])
def test_the_batch_divides_the_queue(method):
    peer = peer_of(method)(small(method, queue=18), NTU25)
    batch = tuple(torch.as_tensor(clips_of(4, seed=i)) for i in range(3 if method == "aimclr" else 2))
    with pytest.raises(ValueError, match=r"queue \(18\) must be a multiple of the batch \(4\)"):
        peer.loss(batch, 0.0)


def test_another_layout():
    """Twenty joints of one body, as in NW-UCLA: graph, parts and mirror image are the layout's."""
    data = clips_of(5, joints=20, persons=1)
    for method in METHODS:
        config, cls = small(method), peer_of(method)
        peer = cls(config, KINECT20, persons=1)
        views = cls.views(config, KINECT20, data, np.arange(5))
        (loss,) = train_epoch(peer, peer.solver(), loader(views, 4), torch.device("cpu"), 0.95)
        assert np.isfinite(loss)


def test_every_peer_of_this_file_is_registered():
    assert set(METHODS) <= set(PEERS)
    for method in METHODS:
        assert issubclass(peer_of(method), torch.nn.Module)
