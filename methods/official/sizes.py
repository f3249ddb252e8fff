"""Sizes read from the shapes of weights, by our names: what a configuration has to say so that they fit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from methods.data.layouts import Layout
from methods.data.reading.sources import BY_JOINTS, layout_for
from methods.errors import InputError
from methods.nn.graph import PARTITIONS, adjacency

Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Sizes:
    """What weights say. ``settings``: our settings by dotted name (a method's own have no dot).

    ``layout``, ``persons`` and ``channels``: of the clips, persons None where the weights do not depend on them.
    ``notes``: a line for each thing that had to be assumed.
    """

    settings: Mapping[str, Any]
    layout: Layout
    persons: int | None = None
    channels: int = 3
    notes: tuple[str, ...] = ()


def sizes_of(weights: Weights, probed: str, layout: Layout | None, where: str) -> Sizes:
    """Read ``weights`` (our names, our orientation); ``probed`` is the prefix of the encoder that is evaluated.

    ``layout``: the joints, where their number does not say it. Raises ``InputError`` for an encoder that lacks the
    tensors which say its sizes, and for joints that no layout has.
    """
    own = {name.removeprefix(f"{probed}."): value for name, value in weights.items() if name.startswith(f"{probed}.")}
    for mark, read in (("blocks.", _stgcn), ("gru.", _gru), ("time.", _twopath)):
        if any(name.startswith(mark) for name in own):
            try:
                found = read(own, layout, where)
            except KeyError as missing:
                raise InputError(f"{where}: nothing official fills our '{probed}.{missing.args[0]}'") from None
            return Sizes(
                {**found.settings, **_heads(weights)}, found.layout, found.persons, found.channels, found.notes
            )
    raise InputError(f"{where}: nothing official fills our '{probed}': there is no encoder in it")


def _stgcn(own: Weights, layout: Layout | None, where: str) -> Sizes:
    depth = 1 + max(int(name.split(".")[1]) for name in own if name.startswith("blocks."))
    channels = own["blocks.0.spatial.conv.weight"].shape[1]
    graph = own["graph"]
    found = layout_for(graph.shape[1], layout, where)
    settings: dict[str, Any] = {
        "encoder.width": own["blocks.0.temporal.2.weight"].shape[0],
        "encoder.dim": own[f"blocks.{depth - 1}.temporal.2.weight"].shape[0],
        "encoder.depth": depth,
    }
    same = [name for name in PARTITIONS if _close(graph, adjacency(found, name))]
    if same:
        settings["encoder.partition"] = same[0]
        return Sizes(settings, found, channels=channels)
    note = f"its graph is none that skeltune makes of layout {found.name}; it is kept as it is (wrong joints? --layout)"
    return Sizes(settings, found, channels=channels, notes=(note,))


def _close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a.float(), b, atol=1e-5)


def _gru(own: Weights, layout: Layout | None, where: str) -> Sizes:
    features = own["gru.weight_ih_l0"].shape[1]
    known = [layout.num_joints] if layout is not None else list(BY_JOINTS)
    # Two bodies first: of 60 numbers a frame 20 joints of one body are the only reading, of 150 25 of two.
    fits = [(joints, persons) for persons in (2, 1) for joints in known if joints * persons * 3 == features]
    if not fits:
        of = f"layout '{layout.name}'" if layout is not None else f"a known layout ({', '.join(map(str, BY_JOINTS))})"
        raise InputError(f"{where}: reads {features} numbers a frame, not 3 x the joints of one or two bodies of {of}")
    joints, persons = fits[0]
    settings = {
        "encoder.hidden": own["gru.weight_hh_l0"].shape[1],
        "encoder.layers": sum(re.fullmatch(r"gru\.weight_ih_l\d+", name) is not None for name in own),
        "encoder.bidirectional": "gru.weight_ih_l0_reverse" in own,
    }
    return Sizes(settings, layout_for(joints, layout, where), persons)


def _twopath(own: Weights, layout: Layout | None, where: str) -> Sizes:
    base, channels = own["time.graph.units.0.spatial.relations.0.value.weight"].shape[:2]
    joints = own["time.graph.units.0.spatial.graph"].shape[1]
    d_model, frame = own["time.tokens.0.weight"].shape
    settings = {
        "encoder.base": base,
        "encoder.d_model": d_model,
        "encoder.layers": sum(re.fullmatch(r"time\.attention\.\d+\.norm1\.weight", name) is not None for name in own),
        "frames": own["space.tokens.0.weight"].shape[1] // base,
    }
    return Sizes(settings, layout_for(joints, layout, where), frame // (base * joints), channels)


_LINEAR = re.compile(r"(projectors?(?:\.[a-z]+)?)\.(\d+)\.weight")


def _heads(weights: Weights) -> dict[str, Any]:
    """Widths of the projector that has all its layers (of CrosSCLR's only one has), and the length of the queue."""
    layers: dict[str, list[int]] = {}
    for name, value in weights.items():
        found = _LINEAR.fullmatch(name)
        if found and value.dim() == 2:
            layers.setdefault(found[1], []).append(int(found[2]))
    settings: dict[str, Any] = {}
    if layers:
        whole = max(layers, key=lambda head: len(layers[head]))
        first, last = min(layers[whole]), max(layers[whole])
        settings["hidden"] = weights[f"{whole}.{first}.weight"].shape[0]
        settings["projection"] = weights[f"{whole}.{last}.weight"].shape[0]
        settings["projector_norm"] = f"{whole}.{first + 1}.running_mean" in weights
    queues = [value for name, value in weights.items() if re.fullmatch(r"queue\.keys(_\w+)?", name)]
    if queues:
        settings["queue"] = queues[0].shape[0]
    return settings
