"""Method -> the peer that does its official training step; imported when asked for."""

from __future__ import annotations

import importlib

from benchmarks.peer.base import Peer

# method -> module and class. Methods that the official codes share a step for share a peer.
PEERS = {
    "skeletonclr": ("skeletonclr", "SkeletonCLR"),
    "crossclr": ("crossclr", "CrosSCLR"),
    "aimclr": ("aimclr", "AimCLR"),
    "skelemixclr": ("skelemixclr", "SkeleMixCLR"),
    "skelemixclr_plus": ("skelemixclr", "SkeleMixCLR"),
    "skeletonbyol": ("byol", "SkeletonBYOL"),
    "cmal": ("cmcs", "CMAL"),
    "cmcs": ("cmcs", "CMCS"),
    "skeletonbt": ("pstl", "SkeletonBT"),
    "pstl": ("pstl", "PSTL"),
    "scdnet": ("scdnet", "SCDNet"),
    "cmd": ("cmd", "CMD"),
    "crrl": ("crrl", "CRRL"),
}


def peer_of(method: str) -> type[Peer]:
    """The class of ``method``'s peer. Raises ``KeyError`` for a method without one."""
    module, name = PEERS[method]
    found: type[Peer] = getattr(importlib.import_module(f"benchmarks.peer.{module}"), name)
    return found
