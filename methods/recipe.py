"""What a method's paper prescribes beside its loss: frames, encoder, views, optimiser, length of the run.

A search space that is silent on one of these gets the *method's* published value, so each method carries a recipe.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from methods.augment.policy import AugmentConfig
from methods.fields import require, tunable
from methods.nn.encoder import EncoderConfig


@dataclass(frozen=True)
class OptimConfig:
    """Everything a YAML may set under ``optim``. Times are fractions of the whole run, so they rescale with it."""

    name: str = tunable("sgd", choice=("sgd", "adam"), doc="optimiser")
    lr: float = tunable(0.1, log=(0.01, 0.3), doc="learning rate at its peak")
    batch: int = tunable(128, choice=(32, 64, 128, 256), doc="clips a step")
    weight_decay: float = tunable(1e-4, log=(1e-6, 1e-3), doc="L2 penalty added to every gradient")
    sgd_momentum: float = tunable(0.9, uniform=(0.8, 0.95), doc="heavy-ball momentum of SGD (unused by Adam)")
    nesterov: bool = tunable(False, doc="Nesterov's form of SGD's momentum")
    schedule: str = tunable("constant", choice=("constant", "step", "cosine"), doc="shape of the learning rate")
    warmup: float = tunable(0.0, uniform=(0.0, 0.1), doc="fraction of the run with a linearly rising rate")
    step_at: float = tunable(0.8333, uniform=(0.6, 0.95), doc="fraction of the run after which `step` multiplies")
    step_factor: float = tunable(0.1, doc="what `step` multiplies the rate by")
    order: str = tunable(
        "shuffled", choice=("shuffled", "stratified"), doc="stratified: as many two-person clips in every batch"
    )

    def __post_init__(self) -> None:
        require(self.name in ("sgd", "adam"), f"optim.name must be sgd or adam, got {self.name!r}")
        require(0 < self.lr < math.inf, f"optim.lr must be positive and finite, got {self.lr}")
        require(self.batch >= 2, f"optim.batch must be at least 2 (batch norm needs two clips), got {self.batch}")
        require(
            0 <= self.weight_decay < math.inf,
            f"optim.weight_decay must be finite, not negative, got {self.weight_decay}",
        )
        require(0 <= self.sgd_momentum < 1, f"optim.sgd_momentum must lie in [0, 1), got {self.sgd_momentum}")
        require(
            self.schedule in ("constant", "step", "cosine"),
            f"optim.schedule must be constant, step or cosine, got {self.schedule!r}",
        )
        require(0 <= self.warmup < 1, f"optim.warmup is a fraction in [0, 1), got {self.warmup}")
        require(0 < self.step_at <= 1, f"optim.step_at is a fraction in (0, 1], got {self.step_at}")
        require(self.step_factor > 0, f"optim.step_factor must be positive, got {self.step_factor}")
        require(
            self.order in ("shuffled", "stratified"),
            f"optim.order must be shuffled or stratified, got {self.order!r}",
        )
        require(
            not self.nesterov or self.sgd_momentum > 0,
            "optim.nesterov needs an optim.sgd_momentum above 0",
        )


@dataclass(frozen=True)
class Recipe:
    """A method's published surroundings, with the ``source`` they were read from.

    ``encoder`` is the config of the architecture that the method uses: its type says which. ``paper_code`` are the
    settings that the official code has where ours are cleaner, by dotted name (``encoder.partition``,
    ``augment.flip_reflect``, a field of the method's own); ``use`` the streams of the published run.
    """

    frames: int = 50
    epochs: int = 300
    encoder: Any = field(default_factory=EncoderConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    source: str = ""
    paper_code: Mapping[str, Any] = field(default_factory=dict)
    use: tuple[str, ...] = ("joint",)
