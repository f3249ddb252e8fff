"""A look at a dataset before anyone trains on it: facts, anomalies, copies, a page with pictures."""

from __future__ import annotations

from methods.data.inspection.facts import inspect_dataset

__all__ = ["inspect_dataset"]
