"""The clips that training reads: one array of fixed length, resident on the device or gathered from a memory map."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from methods.data.layouts import Layout


@dataclass(frozen=True)
class Clips:
    """``data`` (N, C, T, V, M) float32, read-only, usually a memory map; ``labels`` and ``subjects`` beside it.

    ``fingerprint`` says which dataset and preprocessing this is; it goes into checkpoints and results.
    """

    data: np.ndarray
    labels: np.ndarray
    subjects: np.ndarray
    layout: Layout
    num_classes: int
    fingerprint: str = ""

    def __len__(self) -> int:
        return int(self.data.shape[0])


class ClipStore:
    """Gives batches on ``device``. The whole array moves there once when it takes at most ``share`` of free memory."""

    def __init__(self, clips: Clips, device: torch.device, share: float = 0.5) -> None:
        self.clips = clips
        self.device = device
        with warnings.catch_warnings():
            # A read-only map gives a tensor that must not be written to; nothing here does.
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            self._host = torch.from_numpy(clips.data)
        self._resident = self._host if device.type == "cpu" else None
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            if clips.data.nbytes <= share * free:
                self._resident = self._host.to(device)

    @property
    def home(self) -> torch.device:
        """Where an order of clips should lie, so that taking them moves no index between host and device."""
        return torch.device("cpu") if self._resident is None else self._resident.device

    def take(self, index: Tensor) -> Tensor:
        """Clips ``index`` (n,) as (n, C, T, V, M) float32 on the device."""
        if self._resident is not None:
            return self._resident.index_select(0, index.to(self._resident.device))
        return self._host[index.cpu()].pin_memory().to(self.device, non_blocking=True)
