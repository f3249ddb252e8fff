"""Our states as the official repositories would have stored them: the name maps once more, the other way round."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

Rules = tuple[tuple[str, str], ...]
END = {"joint": "", "motion": "_motion", "bone": "_bone"}

STGCN: Rules = (
    (r"norm\.", "data_bn."),
    (r"graph$", "A"),
    (r"blocks\.(\d+)\.spatial\.", r"st_gcn_networks.\1.gcn."),
    (r"blocks\.(\d+)\.temporal\.", r"st_gcn_networks.\1.tcn."),
    (r"blocks\.(\d+)\.shortcut\.", r"st_gcn_networks.\1.residual."),
)
GRU: Rules = ((r"gru\.", "encoder.gru."), (r"norm\.", "input_norm."))
CTRGCN: Rules = (
    (r"norm\.", "data_bn."),
    (r"units\.0", "l1"),
    (r"units\.1", "l2"),
    (r"units\.2", "l3"),
    (r"(l\d)\.spatial\.graph", r"\1.gcn1.PA"),
    (r"(l\d)\.spatial\.relations\.(\d)\.receiver", r"\1.gcn1.convs.\2.conv1"),
    (r"(l\d)\.spatial\.relations\.(\d)\.sender", r"\1.gcn1.convs.\2.conv2"),
    (r"(l\d)\.spatial\.relations\.(\d)\.value", r"\1.gcn1.convs.\2.conv3"),
    (r"(l\d)\.spatial\.relations\.(\d)\.relation", r"\1.gcn1.convs.\2.conv4"),
    (r"(l\d)\.spatial\.shortcut", r"\1.gcn1.down"),
    (r"(l\d)\.spatial\.norm", r"\1.gcn1.bn"),
    (r"(l\d)\.spatial\.alpha", r"\1.gcn1.alpha"),
    (r"(l\d)\.temporal\.branches\.([01])\.3\.", r"\1.tcn1.branches.\2.3.conv."),
    (r"(l\d)\.temporal\.branches\.([01])\.4\.", r"\1.tcn1.branches.\2.3.bn."),
    (r"(l\d)\.temporal\.", r"\1.tcn1."),
    (r"(l\d)\.shortcut\.0", r"\1.residual.conv"),
    (r"(l\d)\.shortcut\.1", r"\1.residual.bn"),
)


def renamed(inner: str, rules: Rules) -> str:
    for pattern, theirs in rules:
        inner = re.sub("^" + pattern, theirs, inner)
    return inner


def fast_or_slow(name: str) -> tuple[str, str]:
    """``slow_encoder.target.x`` -> ("k", ``encoder.x``)."""
    if name.startswith("slow_"):
        return "k", name.removeprefix("slow_").replace(".target.", ".", 1)
    return "q", name


def moco(name: str) -> str:
    """SkeletonCLR, AimCLR and SkeleMixCLR."""
    if name.startswith("queue."):
        return {"queue.keys": "queue", "queue.pointer": "queue_ptr"}[name]
    side, name = fast_or_slow(name)
    part, _, inner = name.partition(".")
    return f"encoder_{side}." + (renamed(inner, STGCN) if part == "encoder" else f"fc.{inner}")


def crossclr(name: str) -> str:
    if name.startswith("queue."):
        return "queue_ptr" if name == "queue.pointer" else "queue" + END[name.removeprefix("queue.keys_")]
    side, name = fast_or_slow(name)
    part, stream, inner = name.split(".", 2)
    return f"encoder_{side}{END[stream]}." + (renamed(inner, STGCN) if part == "encoders" else f"fc.{inner}")


def byol(name: str) -> str:
    """CMAL, and CMCS with its streams."""
    side, name = fast_or_slow(name)
    part, _, inner = name.partition(".")
    stream = ""
    if part.endswith("s"):
        stream, _, inner = inner.partition(".")
        part, stream = part[:-1], f"_{stream}"
    part = "backbone" if part == "encoder" else part
    inner = renamed(inner, STGCN) if part == "backbone" else f"net.{inner}"
    return f"{'online' if side == 'q' else 'target'}_{part}{stream}.{inner}"


def pstl(name: str) -> str:
    part, _, inner = name.partition(".")
    return {"encoder": renamed(inner, STGCN), "projector": f"head.projector.{inner}", "norm": f"head.bn.{inner}"}[part]


def scdnet(name: str) -> str:
    letter = {"time": "t", "space": "s", "instance": "i"}
    if name == "queue.pointer":
        return "t_queue_ptr"
    if name.startswith("queue."):
        return letter[name.removeprefix("queue.keys_")] + "_queue"
    side, name = fast_or_slow(name)
    part, path, inner = name.split(".", 2)
    if part == "projectors":
        return f"encoder_{side}.{letter[path]}_proj.{inner}"
    what, _, inner = inner.partition(".")
    of = {"graph": "gcn_{}.", "tokens": "channel_{}.", "attention": "{}_encoder.layers."}[what].format(letter[path])
    return f"encoder_{side}.encoder.{of}" + (renamed(inner, CTRGCN) if what == "graph" else inner)


def cmd(name: str) -> str:
    if name.startswith("queue."):
        return crossclr(name)
    side, name = fast_or_slow(name)
    part, stream, inner = name.split(".", 2)
    inner = (
        f"fc.{inner}" if part == "projectors" else inner.replace("gru.", "encoder.gru.").replace("norm.", "input_norm.")
    )
    return f"encoder_{side}{END[stream]}.{inner}"


def crrl(name: str) -> str:
    part, _, inner = name.partition(".")
    if part == "queue":
        return f"moco_model.{moco(name)}"
    if part in ("student", "decoder"):
        return f"encoder.{inner}" if part == "student" else f"decoder.gru.{inner}"
    if part == "student_head":
        return f"mlp.classifier_.{inner}"
    side, name = fast_or_slow(name)
    return f"moco_model.encoder_fc_{side}." + name.replace("encoder.", "", 1).replace("projector.", "fc.", 1)


INVERSE = {
    "skeletonclr": moco,
    "aimclr": moco,
    "skelemixclr": moco,
    "skelemixclr_plus": moco,
    "crossclr": crossclr,
    "cmal": byol,
    "cmcs": byol,
    "pstl": pstl,
    "scdnet": scdnet,
    "cmd": cmd,
    "crrl": crrl,
}


def official_state(method: str, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``ours`` (a method's own state) by official names, oriented and shaped as there."""
    theirs: dict[str, Tensor] = {}
    for name, value in ours.items():
        if name == "fused":
            continue  # which run it is, no file says
        as_there = value.T if name.startswith("queue.keys") else value.reshape(1) if name == "queue.pointer" else value
        theirs[INVERSE[method](name)] = as_there.clone()
    if method == "skelemixclr":
        theirs["queue_label"] = torch.zeros(theirs["queue"].shape[1])
    if method == "crossclr":  # with a shared head every stream's file holds it once more
        heads = [(side, name) for side in "qk" for name in theirs if name.startswith(f"encoder_{side}.fc.")]
        for side, name in heads:
            for end in ("_motion", "_bone"):
                theirs[name.replace(f"encoder_{side}.fc.", f"encoder_{side}{end}.fc.2.")] = theirs[name].clone()
    return theirs
