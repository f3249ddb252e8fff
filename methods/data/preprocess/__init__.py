"""Named steps from a clip at its original length to the fixed length that training reads, and recipes of them."""

from __future__ import annotations

from methods.data.preprocess.recipes import (
    DEFAULT_STEPS,
    PAPER_STEPS,
    RECIPES,
    STEPS,
    apply_steps,
    check_steps,
    expand_steps,
    parse_steps,
)
from methods.data.preprocess.steps import resize

__all__ = [
    "DEFAULT_STEPS",
    "PAPER_STEPS",
    "RECIPES",
    "STEPS",
    "apply_steps",
    "check_steps",
    "expand_steps",
    "parse_steps",
    "resize",
]
