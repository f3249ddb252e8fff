"""Named random streams derived from one seed.

Every epoch's draws are a pure function of (seed, name, epoch), so that a run continued from a checkpoint takes the same
steps as one never interrupted, and nothing random needs to be stored.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Generator


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from any number of parts; near parts give unrelated seeds."""
    digest = hashlib.sha256("/".join(str(p) for p in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(device: torch.device | str, *parts: int | str) -> Generator:
    """A generator on ``device`` seeded by :func:`derive_seed`."""
    return Generator(device=device).manual_seed(derive_seed(*parts))
