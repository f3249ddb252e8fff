"""The C library can be told, and is told in a process of its own."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from tuning import allocation

# Minor page faults of ten blocks of 64 MiB, each written to and let go, with and without the call.
SCRIPT = """
import resource, sys
from tuning.allocation import keep_memory
if sys.argv[1] == "keep":
    assert keep_memory()
def block():
    held = bytearray(b"1") * (64 << 20)
for _ in range(3):
    block()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    block()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(word: str) -> int:
    done = subprocess.run([sys.executable, "-c", SCRIPT, word], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="no glibc")
def test_blocks_come_back_without_new_pages() -> None:
    assert 10 * faults("keep") < faults("leave")


def test_without_such_a_malloc_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: object())
    assert not allocation.keep_memory()
