"""CMCS's repository (Levigty/CMCS, commit e3d0bbf): CMAL of one stream, and the three streams of CSCL.

SkeletonBYOL has no class there; with us its networks are CMAL's under the same names, so :func:`cmal` places it too.
"""

from __future__ import annotations

import re

from methods.official.places import Place, stgcn_name

_ENTRY = re.compile(r"(online|target)_(backbone|projector|predictor)(?:_(joint|motion|bone))?\.(.+)")
_PART = {"backbone": "encoder", "projector": "projector", "predictor": "predictor"}


def cmal(name: str) -> Place | None:
    """Our place of an entry of its single-stream network (``net/caca_single_modal.py``)."""
    found = _ENTRY.fullmatch(name)
    return None if found is None or found[3] else _place(found[1], found[2], "", found[4])


def cmcs(name: str) -> Place | None:
    """Our place of an entry of its three-stream network (``net/caca_three_modal.py``)."""
    found = _ENTRY.fullmatch(name)
    return None if found is None or not found[3] else _place(found[1], found[2], f"s.{found[3]}", found[4])


def _place(side: str, part: str, stream: str, rest: str) -> Place | None:
    """``stream`` follows our part's name. A head that is no ``net`` is the classifier of a linear evaluation."""
    inner = stgcn_name(rest) if part == "backbone" else rest.removeprefix("net.") if rest.startswith("net.") else None
    if inner is None:
        return None
    ours = f"{_PART[part]}{stream}"
    return Place(f"slow_{ours}.target.{inner}" if side == "target" else f"{ours}.{inner}")
