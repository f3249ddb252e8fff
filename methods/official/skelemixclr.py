"""SkeleMixCLR's repository (czhaneva/SkeleMixCLR, commit 4538d6c): a fork of CrosSCLR's, which names networks alike."""

from __future__ import annotations

from methods.official.crossclr import skeletonclr
from methods.official.places import Place


def skelemixclr(name: str) -> Place | None:
    """Our place of an entry of its models (``net/skeletonclr_swap.py`` and those that mix more than once).

    The labels that it keeps beside the queue have none: nothing reads them.
    """
    return skeletonclr(name)
