"""A configuration while it trains: its model, optimiser, data, and how far it is."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from methods.errors import InputError
from methods.training.branches import Branches
from methods.training.clips import Clips, ClipStore
from methods.training.config import TrialConfig
from methods.training.optim import make_optimiser
from methods.training.order import Strata, check_order, strata_of


@dataclass
class Run:
    """All that changes while a configuration trains. Made by :func:`start`; stored by ``checkpoint``.

    ``strata``: the clips by their number of bodies, where ``optim.order`` is ``stratified``. ``captured``: whether the
    steps may be replayed as CUDA graphs (:mod:`methods.training.captured`), which changes no number.
    """

    config: TrialConfig
    model: Branches
    optimiser: torch.optim.Optimizer
    store: ClipStore
    index: Tensor
    seed: int
    device: torch.device
    epoch: int = 0
    step: int = 0
    low_spread: int = 0
    strata: Strata | None = None
    captured: bool = False
    # What a device holds for this run and no checkpoint does: graphs, built at first use.
    replayer: object = field(default=None, repr=False)

    @property
    def steps_per_epoch(self) -> int:
        """Full batches only, as published; what is left over differs from epoch to epoch."""
        return len(self.index) // self.config.optim.batch

    @property
    def total_steps(self) -> int:
        return self.steps_per_epoch * self.config.epochs

    @property
    def progress(self) -> float:
        """The share of the whole run that lies behind, in [0, 1)."""
        return self.step / self.total_steps


def start(
    config: TrialConfig,
    clips: Clips,
    index: np.ndarray,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    captured: bool = False,
    store: ClipStore | None = None,
) -> Run:
    """Build model and optimiser for the training clips ``index`` of ``clips``. Same seed, same weights.

    ``store``: one that has these clips on this device already, from a trial before.
    Raises ``InputError`` when the batch is larger than the data, the clips do not fit the config's frames, or a
    stratified order has too few clips of some number of bodies.
    """
    device = torch.device(device)
    if config.optim.batch > len(index):
        raise InputError(f"optim.batch is {config.optim.batch} but there are only {len(index)} training clips")
    if clips.data.shape[2] != config.frames:
        raise InputError(f"the clips have {clips.data.shape[2]} frames, the configuration asks for {config.frames}")
    _, channels, _, _, persons = clips.data.shape
    rows = torch.as_tensor(index)
    strata = strata_of(clips, rows) if config.optim.order == "stratified" else None
    if strata is not None:
        check_order(strata, config.optim.batch)
    model = Branches(config, clips.layout, seed, persons=persons, channels=channels).to(device)
    if strata is not None:
        model.fix_bodies(strata.bodies_of_rows(config.optim.batch).to(device))
    optimiser = make_optimiser(config.optim, model.parameters())
    store = ClipStore(clips, device) if store is None else store
    return Run(config, model, optimiser, store, rows, seed, device, strata=strata, captured=captured)
