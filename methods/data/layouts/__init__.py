"""Joint layouts: what each joint is called, what it hangs from, what mirrors it; the field's and your own."""

from __future__ import annotations

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

__all__ = [
    "CMU31",
    "COCO17",
    "KINECT20",
    "LAYOUTS",
    "NTU25",
    "OPENNI15",
    "OPENPOSE18",
    "Layout",
    "get_layout",
    "layout_from_parts",
    "load_layout",
]
