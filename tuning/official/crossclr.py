"""LinguoLi/CrosSCLR at 792b70c: keys of config/CrosSCLR/crossclr_3views_xview.yaml and of processor/*.py."""

from __future__ import annotations

from typing import Any

from methods.training.config import TrialConfig
from tuning.official import family
from tuning.official.keys import Absent, Key, Target, epoch_of

_MODELS = {
    ("joint", "motion", "bone"): "net.crossclr_3views.CrosSCLR",
    ("joint", "motion"): "net.crossclr.CrosSCLR",
}


def _model(config: TrialConfig) -> Any:
    order = ("joint", "motion", "bone")
    return _MODELS.get(tuple(name for name in order if name in config.streams.use), Absent.NOWHERE)


def _remarks(config: TrialConfig) -> tuple[str, ...]:
    two = _model(config) == "net.crossclr.CrosSCLR"
    return (*family.queue_fits(config), *(("two streams: run pretrain_crossclr instead",) if two else ()))


_SINGLE = family.template("Feeder_dual", "net.skeletonclr.SkeletonCLR", model_args=family.MOCO_ARGS)
_CROSS = family.template(
    "Feeder_dual", "net.crossclr_3views.CrosSCLR", model_args=family.MOCO_ARGS, more={"view": "all"}
)
_SHARED = (*family.FEEDER, *family.MOCO, *family.STGCN, *family.OPTIM)

TARGETS = {
    "crossclr": Target(
        title="CrosSCLR",
        url="LinguoLi/CrosSCLR",
        commit="792b70c",
        source="config/CrosSCLR/crossclr_3views_xview.yaml",
        run="python main.py pretrain_crossclr_3views --config FILE",
        style="yaml",
        template=_CROSS,
        keys=(
            Key("streams.use", "model", _model),
            *_SHARED,
            Key("topk", "topk"),
            Key("cross_start", "cross_epoch", epoch_of("cross_start")),
            Key("context", "context"),
        ),
        elsewhere=family.FRAMES,
        there=family.HIDDEN,
        remarks=_remarks,
    ),
    "skeletonclr": Target(
        title="SkeletonCLR",
        url="LinguoLi/CrosSCLR",
        commit="792b70c",
        source="processor/pretrain_skeletonclr.py (no YAML ships)",
        run="python main.py pretrain_skeletonclr --config FILE",
        style="yaml",
        template=_SINGLE,
        keys=(*_SHARED, Key("streams.use", "view", family.stream)),
        elsewhere=family.FRAMES,
        there=family.HIDDEN,
        remarks=lambda config: (*family.queue_fits(config), *family.one_stream_a_run(config, "view")),
    ),
}
