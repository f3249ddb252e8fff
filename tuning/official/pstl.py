"""YujieOuO/PSTL at da95ce1: the names of config.py, which sacred takes on the command line of procedure.py."""

from __future__ import annotations

from typing import Any

from methods.augment.mix import scaled
from methods.training.config import TrialConfig
from tuning.official import family
from tuning.official.keys import Absent, Key, Target, nearest

_WARMUP = 10  # epochs, in adjust_learning_rate
_JOINTS = 25

_TEMPLATE = {
    "train_mode": "pretrain",
    "version": "from_skeltune",
    "dataset": "ntu60",
    "split": "xsub",
    "in_channels": 3,
    "edge_importance_weighting": True,
    "channel_num": 3,
    "person_num": 2,
    "joint_num": 25,
    "train_list": "data/train_position.npy",
    "train_label": "data/train_label.pkl",
    "test_list": "data/val_position.npy",
    "test_label": "data/val_label.pkl",
}


def _shear(config: TrialConfig) -> Any:
    return config.augment.shear


def _crop(config: TrialConfig) -> Any:
    return nearest(config.augment.crop) if config.augment.crop else Absent.NOWHERE


def _joints(config: TrialConfig) -> int:
    return scaled(config.params.mask_joints, _JOINTS, _JOINTS) if config.params.mask_joints else 0


TARGETS = {
    "pstl": Target(
        title="PSTL",
        url="YujieOuO/PSTL",
        commit="da95ce1",
        source="config.py",
        run="python procedure.py with",
        style="sacred",
        template=_TEMPLATE,
        keys=(
            Key("streams.use", "view", family.stream),
            Key("epochs", "pretrain_epoch"),
            Key("optim.lr", "pretrain_lr"),
            Key("optim.weight_decay", "weight_decay"),
            Key("optim.batch", "batch_size"),
            Key("encoder.width", "hidden_channels"),
            Key("encoder.dim", ("hidden_dim", "hidden_size")),
            Key("encoder.dropout", "dropout"),
            Key("frames", "max_frame"),
            Key("augment.crop", "temperal_padding_ratio", _crop),
            Key("augment.shear", "shear_amp", _shear),
            Key("mask_joints", "mask_joint", _joints),
            Key("mask_frames", "mask_frame", lambda config: config.params.masked_frames(config.frames)),
            Key("projection", "pj_size"),
            Key("off_diagonal", "lambd"),
        ),
        elsewhere={"optim.warmup": "procedure.py, adjust_learning_rate, warmup_epoch"},
        there={"optim.warmup": lambda config: _WARMUP / config.epochs},
        remarks=lambda config: family.one_stream_a_run(config, "view"),
    )
}
