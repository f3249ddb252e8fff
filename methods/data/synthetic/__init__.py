"""Generated skeletons: a puppet, its movements, cameras and a sensor."""

from __future__ import annotations

from methods.data.synthetic.generator import (
    QUICKSTART,
    SyntheticClip,
    SyntheticConfig,
    generate_clips,
    held_out_subjects,
    write_synthetic,
)
from methods.data.synthetic.movements import ACTIONS

__all__ = [
    "ACTIONS",
    "QUICKSTART",
    "SyntheticClip",
    "SyntheticConfig",
    "generate_clips",
    "held_out_subjects",
    "write_synthetic",
]
