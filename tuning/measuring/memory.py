"""How much memory this process takes: of the GPU where it has one, else of the machine."""

from __future__ import annotations

import gc
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

CONTEXT_AT_MOST = 2.0**30  # bytes: a CUDA context with its kernels takes some 0.5 GiB; more than this is others'


@dataclass(frozen=True)
class Memory:
    """Bytes. ``peak``: of tensors on a GPU; else what the process grew by at most since it began to measure.

    ``total``, ``available``, ``need``: of a GPU as :class:`tuning.measuring.packing.Measured` has them; 0 without one.
    """

    peak: float
    total: float = 0.0
    available: float = 0.0
    need: float = 0.0


class Meter:
    """Measures from its making on."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._before = device, 0.0
        if device.type == "cuda":
            gc.collect()  # a model before this one may hang in a circle
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        else:
            self._before = resident()

    def read(self) -> Memory:
        """The peak so far."""
        if self._device.type != "cuda":
            return Memory(max(0.0, resident(peak=True) - self._before))
        free, total = torch.cuda.mem_get_info(self._device)
        reserved = float(torch.cuda.max_memory_reserved(self._device))
        # What is neither free nor in this process' pool is its context, and what others hold.
        context = min(CONTEXT_AT_MOST, max(0.0, total - free - torch.cuda.memory_reserved(self._device)))
        mine = torch.cuda.memory_reserved(self._device) + context
        return Memory(float(torch.cuda.max_memory_allocated(self._device)), total, free + mine, reserved + context)


def resident(peak: bool = False) -> float:
    """Bytes of this process that lie in memory, now or at their peak (where only the peak is known: the peak)."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Not getrusage: on Linux its peak begins with that of the process that started this one.
        word = "VmHWM:" if peak else "VmRSS:"
        line = next((line for line in status.read_text().splitlines() if line.startswith(word)), "")
        if line:
            return float(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit
