"""Datasets on disk, what is derived from them, and who may train on what."""

from __future__ import annotations

from typing import TYPE_CHECKING

from methods.data.cache import fixed_length
from methods.data.conversion.run import Conversion, Progress, convert
from methods.data.formats import FORMATS
from methods.data.inspection.facts import Inspection, inspect_dataset
from methods.data.layouts.layout import (
    CMU31,
    COCO17,
    KINECT20,
    LAYOUTS,
    NTU25,
    OPENNI15,
    OPENPOSE18,
    Layout,
    get_layout,
    layout_from_parts,
    load_layout,
)
from methods.data.preprocess.recipes import (
    DEFAULT_STEPS,
    PAPER_STEPS,
    RECIPES,
    STEPS,
    Step,
    apply_steps,
    expand_steps,
    parse_steps,
)
from methods.data.reading.sources import ReadOptions
from methods.data.skeletons import SkeletonDataset, open_dataset
from methods.data.splits import Split, make_split
from methods.data.writer import DatasetWriter

if TYPE_CHECKING:
    from methods.data.streams import STREAMS, derive

__all__ = [
    "CMU31",
    "COCO17",
    "DEFAULT_STEPS",
    "FORMATS",
    "KINECT20",
    "LAYOUTS",
    "NTU25",
    "OPENNI15",
    "OPENPOSE18",
    "PAPER_STEPS",
    "RECIPES",
    "STEPS",
    "STREAMS",
    "Conversion",
    "DatasetWriter",
    "Inspection",
    "Layout",
    "Progress",
    "ReadOptions",
    "SkeletonDataset",
    "Split",
    "Step",
    "apply_steps",
    "convert",
    "derive",
    "expand_steps",
    "fixed_length",
    "get_layout",
    "inspect_dataset",
    "layout_from_parts",
    "load_layout",
    "make_split",
    "open_dataset",
    "parse_steps",
]


def __getattr__(name: str) -> object:
    # Streams alone need torch, which takes seconds to import; converting and inspecting should not wait for it.
    if name in ("STREAMS", "derive"):
        from methods.data import streams

        return getattr(streams, name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
