"""Levigty/CMCS at e3d0bbf: keys of config/three_streams/ntu60_cs/*.yaml and config/single_stream/stgcn/ntu60_cs/*."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from methods.training.config import TrialConfig
from tuning.official import family
from tuning.official.keys import Absent, Key, Target, epoch_of

_ARGS: Mapping[str, Any] = {"model_args.use_momentum": True}
_MORE: Mapping[str, Any] = {"knn_monitor": False}
_SHARED = (
    *family.FEEDER,
    *family.STGCN,
    Key("encoder.dim", "model_args.feature_dim"),
    Key("hidden", ("model_args.projection_hidden_size", "model_args.prediction_hidden_size")),
    Key("projection", "model_args.projection_size"),
    Key("momentum", "model_args.moving_average_decay"),
    *family.OPTIM,
)


def _all(config: TrialConfig) -> Any:
    return "all" if set(config.streams.use) == {"joint", "motion", "bone"} else Absent.NOWHERE


TARGETS = {
    "cmal": Target(
        title="CMAL, one stream",
        url="Levigty/CMCS",
        commit="e3d0bbf",
        source="config/single_stream/stgcn/ntu60_cs/pretext/pretext_caca_512_2048_512_2048_0.996_joint.yaml",
        run="python main.py pretrain_skeleton --config FILE",
        style="yaml",
        template=family.template("Feeder_dual", "net.caca_single_modal.CACA", model_args=_ARGS, more=_MORE),
        keys=(*_SHARED, Key("streams.use", "stream", family.stream)),
        elsewhere=family.FRAMES,
        remarks=lambda config: family.one_stream_a_run(config, "stream"),
    ),
    "cmcs": Target(
        title="CMCS, three streams",
        url="Levigty/CMCS",
        commit="e3d0bbf",
        source="config/three_streams/ntu60_cs/pretext_caca_3views_xsub_cross_2_10.yaml",
        run="python main.py pretrain_skeleton_3views --config FILE",
        style="yaml",
        template=family.template("Feeder_dual", "net.caca_three_modal.CACA_3views", model_args=_ARGS, more=_MORE),
        keys=(
            *_SHARED,
            Key("topk", "model_args.topk"),
            Key("cross_weight", "model_args.lamb"),
            Key("streams.use", "stream", _all),
            Key("cross_start", "cross_epoch", epoch_of("cross_start")),
        ),
        elsewhere=family.FRAMES,
    ),
}
