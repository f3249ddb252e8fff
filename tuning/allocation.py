"""Memory between steps: on a CPU a step asks for the same blocks as the one before, and should be given them again."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
NEVER = 2**31 - 1


def keep_memory() -> bool:
    """Let glibc's malloc keep what this process frees, for its next step; False where there is no such malloc.

    By itself it maps every large block anew and gives it back, and the system fills each page with zeros again: a
    seventh of a training step (benchmarks/layouts.py). What is kept is at most the process's own peak.
    """
    try:
        tell = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # not Linux, or another C library
        return False
    return bool(tell(M_MMAP_MAX, 0)) and bool(tell(M_TRIM_THRESHOLD, NEVER))
