"""Where a node keeps what can be made or fetched again."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path


def cache_root() -> Path:
    """Where what can be made again is kept: $SKELTUNE_CACHE, else ~/.cache/skeltune."""
    return Path(os.environ.get("SKELTUNE_CACHE") or Path.home() / ".cache" / "skeltune")


@contextlib.contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A name of our own beside ``path`` to write to first; what is left under it is removed, whatever happens."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.part")
    try:
        yield temporary
    finally:
        with contextlib.suppress(OSError):  # the storage may be what failed: its error counts, not this one
            temporary.unlink(missing_ok=True)


def to_disk(path: Path) -> None:
    """Wait until a file's bytes are on the disk (or, over NFS, on the server)."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
