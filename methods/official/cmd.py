"""CMD's repository (maoyunyao/CMD, commit 6e9a8ac): three recurrent networks, their momentum copies, three queues."""

from __future__ import annotations

import re

from methods.official.places import Place

_STREAM = {"": "joint", "_motion": "motion", "_bone": "bone"}


def cmd(name: str) -> Place | None:
    """Our place of an entry of its pretraining network (``moco/builder_cmd.py``); None for a classifier."""
    found = re.fullmatch(r"queue(_ptr)?(_motion|_bone)?", name)
    if found:
        pointer, stream = found[1], _STREAM[found[2] or ""]
        return Place("queue.pointer", "scalar") if pointer else Place(f"queue.keys_{stream}", "transposed")
    found = re.fullmatch(r"encoder_([qk])(_motion|_bone)?\.(encoder\.gru|input_norm|fc)\.(.*)", name)
    if found is None:
        return None
    slow, copy = ("slow_", ".target") if found[1] == "k" else ("", "")
    stream, part, rest = _STREAM[found[2] or ""], found[3], found[4]
    if part == "fc":
        return Place(f"{slow}projectors.{stream}{copy}.{rest}")
    return Place(f"{slow}encoders.{stream}{copy}.{'norm' if part == 'input_norm' else 'gru'}.{rest}")
