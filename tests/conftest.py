"""Shared by all tests: one torch thread, caches in a temporary place, where the material beside the project lies."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory):
    """No test reads or writes the user's cache; all tests of a session share one, so the generator runs once."""
    before = os.environ.get("SKELTUNE_CACHE")
    os.environ["SKELTUNE_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["SKELTUNE_CACHE"]
    else:
        os.environ["SKELTUNE_CACHE"] = before


def _folder(variable: str, default: str) -> Path:
    path = Path(os.environ.get(variable, default))
    if not path.is_dir():
        pytest.skip(f"{variable} is not set and {default} is not there")
    return path


@pytest.fixture
def reference() -> Path:
    """The official codes' numbers."""
    return _folder("SKELTUNE_REFERENCE", "../shared/reference")


@pytest.fixture
def real_data() -> Path:
    """Real skeletons."""
    return _folder("SKELTUNE_DATA", "../shared/data")
