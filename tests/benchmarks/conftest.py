"""Puts ``peer_cases`` beside these tests on the import path, and the checkout: the benchmarks are no distribution."""

from __future__ import annotations

import sys
from pathlib import Path

for folder in (Path(__file__).parent, Path(__file__).parents[2]):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
