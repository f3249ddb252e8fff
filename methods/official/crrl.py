"""CRRL's repository (Picasso-Wang/CRRL, commit 4d06d50): three runs, whose networks with us are one method's.

Each run stores the encoder that it evaluates as ``encoder``; the contrastive one stores all it has as ``moco_model``.
"""

from __future__ import annotations

import re

from methods.official.places import Place, queue_place

_SIDE = {"q": ("{}", ""), "k": ("slow_{}", ".target")}
_PART = {"gru": ("encoder", ".gru"), "fc": ("projector", "")}


def learner(name: str) -> Place | None:
    """Our place of an entry of its contrastive network (``src/moco_builder.py``)."""
    found = re.fullmatch(r"encoder_fc_([qk])\.(gru|fc)\.(.+)", name)
    if found is None:
        return queue_place(name, "queue")
    (side, copy), (part, inner) = _SIDE[found[1]], _PART[found[2]]
    return Place(f"{side.format(part)}{copy}{inner}.{found[3]}")


def crrl(name: str) -> Place | None:
    """Our place of an entry of any of its runs, by the run's name of the network and the network's own of the entry.

    Networks: ``moco`` (or ``moco_model``), ``encoder`` (or none: the reconstructor's or the fuser's), ``decoder`` and
    ``mlp``. None for a classifier.
    """
    network, _, entry = name.partition(".")
    if network in ("moco", "moco_model"):
        return learner(entry)
    if network == "gru":
        return Place(f"student.{name}")
    if network in ("encoder", "decoder") and entry.startswith("gru."):
        return Place(f"student.{entry}" if network == "encoder" else f"decoder.{entry.removeprefix('gru.')}")
    if network == "mlp" and entry.startswith("classifier_."):
        return Place(f"student_head.{entry.removeprefix('classifier_.')}")
    return None
