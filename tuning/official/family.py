"""Keys that CrosSCLR's code and its forks (AimCLR, CMCS, SkeleMixCLR) share: feeder, ST-GCN, MoCo, optimiser."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from methods.training.config import TrialConfig
from tuning.official.keys import Absent, Key, nearest

NEVER = 300  # a step at or beyond the last epoch, as the shipped files write a constant rate


def template(
    feeder: str,
    model: str,
    model_args: Mapping[str, Any],
    more: Mapping[str, Any] | None = None,
    base_encoder: str = "net.st_gcn.Model",
) -> dict[str, Any]:
    """The keys that all their shipped files have and that say nothing of a recipe; ``more`` are a repository's own."""
    return {
        "work_dir": "work_dir/from_skeltune",
        "train_feeder": f"feeder.ntu_feeder.{feeder}",
        "train_feeder_args.data_path": "data/ntu60_frame50/xsub/train_position.npy",
        "train_feeder_args.label_path": "data/ntu60_frame50/xsub/train_label.pkl",
        "train_feeder_args.mmap": True,
        "model": model,
        "model_args.base_encoder": base_encoder,
        "model_args.pretrain": True,
        **model_args,
        "model_args.in_channels": 3,
        "model_args.num_class": 60,
        "model_args.graph_args.layout": "ntu-rgb+d",
        "model_args.graph_args.strategy": "spatial",
        "model_args.edge_importance_weighting": True,
        "device": [0],
        "test_batch_size": 128,
        "start_epoch": 0,
        "save_interval": 5,
        "eval_interval": -1,
        **(more or {}),
    }


MOCO_ARGS: Mapping[str, Any] = {"model_args.mlp": True}


def amplitude(config: TrialConfig) -> Any:
    """Their feeder takes a shear or a crop that is not positive for none."""
    return config.augment.shear or -1


def padding_ratio(config: TrialConfig) -> Any:
    """They divide the frames by it, so that it has to be whole."""
    return nearest(config.augment.crop) if config.augment.crop else -1


def optimiser(config: TrialConfig) -> str:
    """The name of ours in theirs."""
    return {"sgd": "SGD", "adam": "Adam"}[config.optim.name]


def steps(config: TrialConfig) -> Any:
    """Epochs after which the rate falls to a tenth; of SGD only, and there is no cosine."""
    if config.optim.schedule == "constant":
        return [max(NEVER, config.epochs)]
    if config.optim.schedule == "step" and config.optim.name == "sgd":
        return nearest(config.optim.step_at * config.epochs, lambda epoch: [epoch])
    return Absent.NOWHERE


OPTIM = (
    Key("optim.nesterov", "nesterov"),
    Key("optim.weight_decay", "weight_decay"),
    Key("optim.lr", "base_lr"),
    Key("optim.name", "optimizer", optimiser),
    Key("optim.schedule", "step", steps, ("optim.step_at",)),
    Key("optim.batch", "batch_size"),
    Key("epochs", "num_epoch"),
)
FEEDER = (
    Key("augment.shear", "train_feeder_args.shear_amplitude", amplitude),
    Key("augment.crop", "train_feeder_args.temperal_padding_ratio", padding_ratio),
)
STGCN = (
    Key("encoder.width", "model_args.hidden_channels"),
    Key("encoder.dropout", "model_args.dropout"),
)
MOCO = (
    Key("encoder.dim", "model_args.hidden_dim"),
    Key("projection", "model_args.feature_dim"),
    Key("queue", "model_args.queue_size"),
    Key("momentum", "model_args.momentum"),
    Key("temperature", "model_args.Temperature"),
)
FRAMES = {"frames": "feeder/preprocess_ntu.py, the length that clips are resized to"}
HIDDEN: Mapping[str, Callable[[TrialConfig], Any]] = {"hidden": lambda config: config.encoder.dim}


def stream(config: TrialConfig) -> str:
    """Of a method that trains its streams apart, the first: each is a run of its own there."""
    return config.streams.use[0]


def one_stream_a_run(config: TrialConfig, key: str) -> tuple[str, ...]:
    """A remark where there are more streams than the one that is written under ``key``."""
    others = config.streams.use[1:]
    return (f"a stream is a run of its own there: run again with {key} {', then '.join(others)}",) if others else ()


def queue_fits(config: TrialConfig) -> tuple[str, ...]:
    """Their code asserts it."""
    queue, batch = config.params.queue, config.optim.batch
    return (
        () if queue % batch == 0 else (f"the queue must be a multiple of the batch there, {queue} is none of {batch}",)
    )
