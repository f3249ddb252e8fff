"""Tests on real hosts (namespaces of this machine): they need root and Ray's launcher, and say so where they skip."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # importlib mode keeps helpers off the path
from hosts import Lab, missing  # noqa: E402

VENV = Path(sys.prefix)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "cluster: real hosts in namespaces; needs root and ray[default]; slow")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = [item for item in items if Path(item.path).is_relative_to(HERE)]
    why = missing() or ("" if importlib.util.find_spec("aiohttp_cors") else "needs ray[default]") if here else ""
    for item in here:
        item.add_marker(pytest.mark.cluster)
        if why:
            item.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Three hosts and a client, with one folder that all of them see (``lab.shared[0]``)."""
    with Lab(3, shared=[tmp_path_factory.mktemp("shared")], venv=VENV) as three:
        yield three
