"""maoyunyao/CMD at 6e9a8ac: the flags of pretrain_moco_cmd.py as in script_pretrain_moco_cmd.sh, its options."""

from __future__ import annotations

from typing import Any

from methods.training.config import TrialConfig
from tuning.official import isc
from tuning.official.keys import Absent, Key, Target


def _streams(config: TrialConfig) -> Any:
    """It always trains all three."""
    return Absent.AS_THERE if set(config.streams.use) == {"joint", "motion", "bone"} else Absent.NOWHERE


TARGETS = {
    "cmd": Target(
        title="CMD",
        url="maoyunyao/CMD",
        commit="6e9a8ac",
        source="pretrain_moco_cmd.py, as script_pretrain_moco_cmd.sh calls it",
        run="python pretrain_moco_cmd.py",
        style="flags",
        template={"--mlp": True, "--skeleton-representation": "graph-based", **isc.DATA, "--workers": 32, "--seed": 42},
        keys=(
            *isc.OPTIM,
            Key("teacher_temperature", "--teacher-t"),
            Key("student_temperature", "--student-t"),
            Key("topk", "--topk", lambda config: config.params.neighbours),
            Key("cmd_weight", "--cmd-weight"),
            Key("temperature", "--contrast-t"),
            Key("queue", "--contrast-k"),
            Key("momentum", "--contrast-m"),
            Key("projection", "--contrast-dim"),
            Key("streams.use", "(all three streams)", _streams),
        ),
        elsewhere={
            **isc.OPTIONS,
            "encoder.hidden": "options/options_pretraining.py, en_hidden_size",
            "encoder.layers": "options/options_pretraining.py, en_num_layers",
        },
        there={"hidden": lambda config: 2 * config.encoder.hidden},
    )
}
