"""A store in memory whose answers a test decides."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tuning.storage.store import Store


class Box(Store):
    """A dict of files. ``fate(step, name)`` is called before and after every write and removal, and may raise."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.url, self.folder = "box://b", None
        self.fate: Callable[[str, str], None] = lambda step, name: None

    def put_bytes(self, data: bytes, name: str) -> None:
        self.fate("before", name)
        self.files[name] = data
        self.fate("after", name)

    def put(self, local: Path, name: str) -> None:
        self.put_bytes(local.read_bytes(), name)

    def get(self, name: str, local: Path) -> bool:
        if name in self.files:
            local.parent.mkdir(parents=True, exist_ok=True)
            local.write_bytes(self.files[name])
        return name in self.files

    def read(self, name: str) -> bytes | None:
        self.fate("read", name)
        return self.files.get(name)

    def names(self, prefix: str = "") -> list[str]:
        self.fate("list", prefix)
        return sorted(n for n in self.files if n.rpartition("/")[0] == prefix)

    def folders(self, prefix: str = "") -> list[str]:
        under = [n.removeprefix(f"{prefix}/") for n in self.files if n.startswith(f"{prefix}/")]
        return sorted({f"{prefix}/{n.partition('/')[0]}" for n in under if "/" in n})

    def remove(self, name: str) -> None:
        self.fate("before", name)
        self.files.pop(name, None)


@pytest.fixture
def box() -> Box:
    return Box()


@pytest.fixture
def new_box() -> type[Box]:
    return Box
