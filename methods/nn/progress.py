"""How far a run is: a number to the host, and where a graph is replayed a tensor that it reads too."""

from __future__ import annotations

from torch import Tensor


class Progress(float):
    """The share of a run that lies behind, in [0, 1).

    A captured step is recorded once and replayed: a Python number in it would stay what it was. So whatever *changes*
    with progress from step to step takes ``on_device``, a 0-dim tensor that is refilled before each replay; whatever
    only asks which stage it is compares the number, and a new stage is recorded anew.
    """

    on_device: Tensor

    def __new__(cls, value: float, on_device: Tensor) -> Progress:
        made = super().__new__(cls, value)
        made.on_device = on_device
        return made

    def __truediv__(self, other: float) -> Progress:
        """Progress within a part of the run, as CRRL's stages have it."""
        return Progress(float(self) / other, self.on_device / other)
