"""Flags that SCD-Net's and CMD's pretraining share, both forks of skeleton-contrast: the optimiser and its schedule."""

from __future__ import annotations

from typing import Any

from methods.training.config import TrialConfig
from tuning.official.keys import Absent, Key, nearest


def _schedule(config: TrialConfig) -> Any:
    """Epochs (from 0) at which the rate falls to a tenth; one beyond the last for a constant rate."""
    if config.optim.schedule == "step":
        return nearest(config.optim.step_at * config.epochs, lambda epoch: [epoch])
    return [config.epochs]


def _sgd(config: TrialConfig) -> Any:
    """There is no other."""
    return Absent.AS_THERE if config.optim.name == "sgd" else Absent.NOWHERE


OPTIM = (
    Key("optim.name", "(SGD)", _sgd),
    Key("optim.lr", "--lr"),
    Key("optim.batch", "--batch-size"),
    Key("optim.weight_decay", "--wd"),
    Key("optim.sgd_momentum", "--momentum"),
    Key("optim.schedule", "--schedule", _schedule, ("optim.step_at",)),
    Key("", "--cos", lambda config: config.optim.schedule == "cosine"),
    Key("epochs", "--epochs"),
)
DATA = {"--pre-dataset": "ntu60", "--protocol": "cross_subject", "--checkpoint-path": "./checkpoints/from_skeltune"}
OPTIONS = {
    "frames": "options/options_pretraining.py, input_size",
    "augment.crop_resize": "options/options_pretraining.py, l_ratio (of recorded frames; at least 64 stay)",
}
