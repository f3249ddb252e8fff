"""Levigty/AimCLR at 6cd7376: keys of config/ntu60/pretext/pretext_aimclr_xsub_joint.yaml, feeder/ntu_feeder.py."""

from __future__ import annotations

from functools import partial
from typing import Any

from methods.training.config import TrialConfig
from tuning.official import family
from tuning.official.keys import Absent, Key, Target, epoch_of, is_on

# The feeder's letters of the extreme view's operations (Feeder_triple's aug_method), and how strong each is there.
_LETTERS = {"flip": "1", "rotate": "2", "noise": "3", "blur": "4", "axis_mask": "5", "time_flip": "6"}
_THERE = {"flip": 0.5, "rotate": 30.0, "noise": 0.01, "blur": 0.5, "axis_mask": 0.5, "time_flip": 0.5}


def _letters(config: TrialConfig) -> Any:
    chosen = is_on(config.augment, _LETTERS)
    return Absent.AS_THERE if chosen == "12345" else chosen


def _amount(op: str, config: TrialConfig) -> float:
    """How strong an operation is there, if it is on at all."""
    return _THERE[op] if getattr(config.augment, op) else 0.0


TARGETS = {
    "aimclr": Target(
        title="AimCLR",
        url="Levigty/AimCLR",
        commit="6cd7376",
        source="config/ntu60/pretext/pretext_aimclr_xsub_joint.yaml",
        run="python main.py pretrain_aimclr --config FILE",
        style="yaml",
        template=family.template("Feeder_triple", model="net.aimclr.AimCLR", model_args=family.MOCO_ARGS),
        keys=(
            *family.FEEDER,
            Key("", "train_feeder_args.aug_method", _letters),
            *family.MOCO,
            *family.STGCN,
            *family.OPTIM,
            Key("streams.use", "stream", family.stream),
            Key("topk", "topk"),
            Key("mining_start", "mining_epoch", epoch_of("mining_start")),
        ),
        elsewhere={**family.FRAMES, "drop_threshold": "net/st_gcn.py, keep_prob"},
        there={**family.HIDDEN, **{f"augment.{op}": partial(_amount, op) for op in _THERE}},
        remarks=lambda config: (*family.queue_fits(config), *family.one_stream_a_run(config, "stream")),
    )
}
