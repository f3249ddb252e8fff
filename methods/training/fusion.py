"""How streams' predictions are weighed against each other: given, equal, fitted, or searched on validation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from methods.errors import InputError, did_you_mean
from methods.training.probe import fit_fusion, fuse_streams

__all__ = ["Fusion", "fit_fusion", "fuse_streams", "parse_fusion", "search_fusion"]

RULES = ("equal", "fitted", "searched")
GRID = 20  # steps from 0 to 1 of a searched weight


@dataclass(frozen=True)
class Fusion:
    """``rule``: equal, given, fitted or searched. ``weights`` (sum 1, one a stream): None where data decides them."""

    rule: str
    weights: tuple[float, ...] | None = None


def fusion_of(fuse: str | Sequence[float], count: int) -> Fusion:
    """What ``streams.fuse`` of a configuration means for ``count`` streams."""
    if isinstance(fuse, str):
        return Fusion(fuse, (1 / count,) * count if fuse == "equal" else None)
    return Fusion("given", normal(fuse))


def given_by_stream(weights: Mapping[str, float], streams: Sequence[str]) -> Fusion:
    """Published weights by stream's name, of those ``streams`` that are there."""
    return Fusion("given", normal([weights.get(stream, 0.0) for stream in streams]))


def parse_fusion(text: str, streams: Sequence[str]) -> Fusion:
    """Read ``equal``, ``fitted``, ``searched``, ``0.6,0.4,0.6`` (in the order of ``streams``) or ``joint=0.6,...``.

    Raises ``InputError`` for another word, another number of weights, or weights that are negative or all zero.
    """
    if text in RULES:
        return fusion_of(text, len(streams))
    parts = [part.strip() for part in text.split(",")]
    if all("=" in part for part in parts):
        named = dict(part.split("=", 1) for part in parts)
        strange = [name for name in named if name not in streams]
        if strange or len(named) < len(parts):
            hint = did_you_mean(strange[0], streams) if strange else ""
            wrong = f"unknown stream '{strange[0]}'{hint}" if strange else "a stream is named twice"
            raise InputError(f"--fuse {text}: {wrong}")
        missing = [name for name in streams if name not in named]
        if missing:
            raise InputError(f"--fuse {text}: no weight for {', '.join(missing)}")
        parts = [named[name] for name in streams]
    try:
        weights = [float(part) for part in parts]
    except ValueError:
        raise InputError(
            f"--fuse must be equal, fitted, searched, or one weight a stream ({', '.join(streams)}), got '{text}'"
        ) from None
    if len(weights) != len(streams):
        raise InputError(f"--fuse {text}: {len(weights)} weights for {len(streams)} streams ({', '.join(streams)})")
    if not all(math.isfinite(w) and w >= 0 for w in weights) or sum(weights) <= 0:
        raise InputError(f"--fuse {text}: weights must be finite, not negative and not all zero")
    return Fusion("given", normal(weights))


def normal(weights: Sequence[float]) -> tuple[float, ...]:
    """Weights that sum to 1."""
    return tuple(w / sum(weights) for w in weights)


def search_fusion(logs: Sequence[Tensor], labels: Tensor, steps: int = GRID) -> tuple[float, ...]:
    """Weights (sum 1, multiples of 1 / ``steps``) of the most accurate mixture of log-probabilities (n, classes).

    Ties go to the lower cross-entropy. To be given predictions of clips that no head was fitted on.
    """
    best, key = (1 / len(logs),) * len(logs), (math.inf, math.inf)
    for counts in _compositions(steps, len(logs)):
        weights = tuple(count / steps for count in counts)
        mixed = fuse_streams(list(logs), weights)
        wrong = float((mixed.argmax(1) != labels).float().mean())
        found = (wrong, float(F.nll_loss(mixed, labels)))
        if found < key:
            best, key = weights, found
    return best


def _compositions(total: int, parts: int) -> Iterator[tuple[int, ...]]:
    """All ways to write ``total`` as an ordered sum of ``parts`` whole numbers from 0 on."""
    if parts == 1:
        yield (total,)
        return
    for first in range(total + 1):
        for rest in _compositions(total - first, parts - 1):
            yield (first, *rest)
