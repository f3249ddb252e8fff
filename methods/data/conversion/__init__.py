"""From any source to a dataset folder: chunks, processes, going on after a kill, the summary."""

from __future__ import annotations

from methods.data.conversion.run import Conversion, convert

__all__ = ["Conversion", "convert"]
