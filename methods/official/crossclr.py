"""CrosSCLR's repository (LinguoLi/CrosSCLR, commit 792b70c): SkeletonCLR and CrosSCLR."""

from __future__ import annotations

import re

from methods.official.places import Place, queue_place, stgcn_name


def skeletonclr(name: str) -> Place | None:
    """Our place of an entry of its SkeletonCLR (``net/skeletonclr.py``)."""
    queue = queue_place(name, "queue")
    if queue is not None:
        return queue
    side, _, rest = name.partition(".")
    if side not in ("encoder_q", "encoder_k"):
        return None
    slow = ".target" if side == "encoder_k" else ""
    inner = stgcn_name(rest)
    if inner is not None:
        return Place(f"slow_encoder.target.{inner}" if slow else f"encoder.{inner}")
    head = rest.removeprefix("fc.")
    return Place(f"slow_projector.target.{head}" if slow else f"projector.{head}")


_STREAM = {"": "joint", "_motion": "motion", "_bone": "bone"}


def crossclr(name: str) -> Place | None:
    """Our place of an entry of its 2s- or 3s-CrosSCLR (``net/crossclr.py``, ``net/crossclr_3views.py``).

    Ours has ``share_head``: the motion and bone encoders hold the joint encoder's whole head once more.
    """
    found = re.fullmatch(r"queue(_ptr)?(_motion|_bone)?", name)
    if found:
        pointer, stream = found[1], _STREAM[found[2] or ""]
        return Place("queue.pointer", "scalar") if pointer else Place(f"queue.keys_{stream}", "transposed")
    found = re.fullmatch(r"encoder_([qk])(_motion|_bone)?\.(.*)", name)
    if not found:
        return None
    slow, stream, rest = found[1] == "k", _STREAM[found[2] or ""], found[3]
    inner = stgcn_name(rest)
    if inner is not None:
        return Place(f"slow_encoders.{stream}.target.{inner}" if slow else f"encoders.{stream}.{inner}")
    head = rest.removeprefix("fc.")
    if stream != "joint" and head.startswith("2."):
        stream, head = "joint", head.removeprefix("2.")
    return Place(f"slow_projectors.{stream}.target.{head}" if slow else f"projectors.{stream}.{head}")
