"""Datasets on disk, what is derived from them, and who may train on what."""

from __future__ import annotations

from typing import TYPE_CHECKING

from methods.data.cache import fixed_length
from methods.data.formats import FORMATS, convert
from methods.data.inspection import Inspection, inspect_dataset
from methods.data.layouts import KINECT20, LAYOUTS, NTU25, Layout, get_layout, layout_from_parts, load_layout
from methods.data.preprocess import DEFAULT_STEPS, PAPER_STEPS, STEPS, Step, apply_steps, parse_steps
from methods.data.skeletons import DatasetWriter, SkeletonDataset, open_dataset
from methods.data.splits import Split, make_split

if TYPE_CHECKING:
    from methods.data.streams import STREAMS, derive

__all__ = [
    "DEFAULT_STEPS",
    "FORMATS",
    "KINECT20",
    "LAYOUTS",
    "NTU25",
    "PAPER_STEPS",
    "STEPS",
    "STREAMS",
    "DatasetWriter",
    "Inspection",
    "Layout",
    "SkeletonDataset",
    "Split",
    "Step",
    "apply_steps",
    "convert",
    "derive",
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
