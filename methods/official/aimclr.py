"""AimCLR's repository (Levigty/AimCLR, commit 6cd7376): a fork of CrosSCLR's, which names its one network alike."""

from __future__ import annotations

from methods.official.crossclr import skeletonclr
from methods.official.places import Place


def aimclr(name: str) -> Place | None:
    """Our place of an entry of its AimCLR (``net/aimclr.py``); the attention drop has no weights."""
    return skeletonclr(name)
