"""czhaneva/SkeleMixCLR at 4538d6c: keys of config/CrosSCLR/skelemixclr_multi_swap_ntu.yaml, net/skeletonclr_*swap*.py.

Only SkeleMixCLR+ ships a YAML; what the base networks take was read from their constructors and processors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from methods.augment.mix import scaled, segments_of
from methods.training.config import TrialConfig
from tuning.official import family
from tuning.official.keys import Absent, Key, Target

_SEGMENTS, _STRIDE = 16, 4  # what our counts are counted in; frames a segment
_FILLS = {"swap": "swap", "zeros": "zeros", "gaussian": "Gaussian"}
_JOINTS = {"parts": "semantic", "any": "random"}
_KNN: Mapping[str, Any] = {"knn_interval": -1, "knn_k": [10, 20, 40], "knn_classes": 60, "knn_t": 0.1}
_PARTS = ("parts_least", "parts_more")
_TIMES = ("segments_least", "segments_more")
_ANY = ("joints_least", "joints_more")


def _parts(config: TrialConfig) -> list[int]:
    c = config.params
    return [c.parts_least, c.parts_least + c.parts_more]


def _times(config: TrialConfig) -> list[int]:
    """Least and most segments, in theirs: a quarter of the frames, rounded down."""
    c, count = config.params, segments_of(config.frames, _STRIDE)
    return [scaled(number, _SEGMENTS, count) for number in (c.segments_least, c.segments_least + c.segments_more)]


def _plus(config: TrialConfig) -> list[list[Any]]:
    """One line a length of the query: parts, segments, how often, and the weight of all its losses."""
    return [[*_parts(config), *_times(config), config.params.repeats, 1.0]]


def _base(config: TrialConfig) -> str:
    return (
        "net.skeletonclr_swap.SkeletonCLR" if config.params.repeats == 1 else "net.skeletonclr_multi_swap.SkeletonCLR"
    )


def _idle(config: TrialConfig) -> set[str]:
    unused = {*(_ANY if config.params.joints == "parts" else _PARTS)}
    return unused | ({"reduce"} if config.params.repeats == 1 else set())


def _remarks(config: TrialConfig) -> tuple[str, ...]:
    found = [*family.queue_fits(config), *family.one_stream_a_run(config, "view")]
    if config.frames % _STRIDE:
        found.append(f"frames must be a multiple of {_STRIDE} there, {config.frames} is none")
    if config.method == "skelemixclr" and config.params.repeats > 1:
        found.append("several mixtures: run pretrain_skeletonclr_multi_swap instead")
    return tuple(found)


def _steps(config: TrialConfig) -> Any:
    """Alone of the family it has a cosine, under a key of its own."""
    return Absent.AS_THERE if config.optim.schedule == "cosine" else family.steps(config)


def _cosine(config: TrialConfig) -> Any:
    return 1 if config.optim.schedule == "cosine" else Absent.AS_THERE


_SHARED = (
    *family.FEEDER,
    *family.MOCO,
    *family.STGCN,
    *(key for key in family.OPTIM if key.ours != "optim.schedule"),
    Key("optim.schedule", "step", _steps, ("optim.step_at",)),
    Key("", "cos", _cosine),
    Key("streams.use", "view", family.stream),
)
_SWAP_NET = "net.st_gcn_swap.Model"

TARGETS = {
    "skelemixclr_plus": Target(
        title="SkeleMixCLR+",
        url="czhaneva/SkeleMixCLR",
        commit="4538d6c",
        source="config/CrosSCLR/skelemixclr_multi_swap_ntu.yaml",
        run="python main.py pretrain_skeletonclr_multi_swapv2 --config FILE",
        style="yaml",
        template=family.template(
            "Feeder_multi",
            model="net.skeletonclr_multi_swapv2.SkeletonCLR",
            base_encoder=_SWAP_NET,
            model_args=family.MOCO_ARGS,
            more={"mining_epoch": 300, **_KNN},
        ),
        keys=(
            *_SHARED,
            Key("frames", "train_feeder_args.frames", lambda config: [config.frames]),
            Key("", "model_args.swap_cfg.swap_params", _plus, (*_PARTS, *_TIMES, "repeats")),
            Key("fill", "model_args.swap_cfg.swap_mode", lambda config: _FILLS[config.params.fill]),
            Key("joints", "model_args.swap_cfg.spatial_mode", lambda config: _JOINTS[config.params.joints]),
        ),
        there=family.HIDDEN,
        idle=_idle,
        remarks=_remarks,
    ),
    "skelemixclr": Target(
        title="SkeleMixCLR",
        url="czhaneva/SkeleMixCLR",
        commit="4538d6c",
        source="net/skeletonclr_swap.py and its processor (no YAML ships)",
        run="python main.py pretrain_skeletonclr_swap --config FILE",
        style="yaml",
        template=family.template(
            "Feeder_dual",
            model="net.skeletonclr_swap.SkeletonCLR",
            base_encoder=_SWAP_NET,
            model_args=family.MOCO_ARGS,
            more={"mining_epoch": 300, **_KNN},
        ),
        keys=(
            *_SHARED,
            Key("frames", "train_feeder_args.window_size"),
            Key("", "model", _base),
            Key("repeats", "model_args.repeat"),
            Key("", "model_args.spa_l", lambda config: _parts(config)[0], _PARTS),
            Key("", "model_args.spa_u", lambda config: _parts(config)[1]),
            Key("", "model_args.tem_l", lambda config: _times(config)[0], _TIMES),
            Key("", "model_args.tem_u", lambda config: _times(config)[1]),
            Key("fill", "model_args.swap_mode", lambda config: _FILLS[config.params.fill]),
            Key("joints", "model_args.spatial_mode", lambda config: _JOINTS[config.params.joints]),
            Key("regional_weight", "alpha"),
        ),
        there=family.HIDDEN,
        idle=_idle,
        remarks=_remarks,
    ),
}
