"""Picasso-Wang/CRRL at 4d06d50: the flags of src/parse_args_for_pretrain.py; one run of ours is two of theirs.

Its switches are ``type=bool``: any word is true, the empty one alone is false. What it sets after parsing (temperature,
queue, momentum, lambda, the teacher's path) and its list of decay epochs can be changed in its source only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from methods.training.config import TrialConfig
from tuning.official.keys import NEGLIGIBLE, Absent, Key, Target

_ON, _OFF = 1, ""
_SOURCE = "src/parse_args_for_pretrain.py"


def _runs(config: TrialConfig) -> tuple[Mapping[str, Any], ...]:
    """The contrastive run, then the one that it teaches; either alone where the other has no length."""
    first = round(config.params.fuse_start * config.epochs)
    contrast = {"--epochs": first, "--contrastive": _ON, "--teacher_student": _OFF}
    fuse = {"--epochs": config.epochs - first, "--teacher_student": _ON}
    alone = {"--epochs": config.epochs, "--reconstruct": _ON, "--teacher_student": _OFF}
    if first == 0:
        return (alone,)
    return (contrast,) if first == config.epochs else (contrast, fuse)


def _remarks(config: TrialConfig) -> tuple[str, ...]:
    decays = f"the rate falls after epochs 18 and 50 of each run (lr_decay_epochs in {_SOURCE})"
    teacher = f"before the second run, write the first one's checkpoint into checkpoint_path in {_SOURCE}"
    found = [decays, teacher] if len(_runs(config)) == 2 else [decays]
    meant = config.params.fuse_start * config.epochs
    if abs(meant - round(meant)) >= NEGLIGIBLE:
        found.append(f"fuse_start: {meant:g} epochs are meant, the first run takes {round(meant)}")
    return tuple(found)


def _way(other: str) -> Any:
    return lambda config: _OFF if config.params.reconstruct == other else Absent.AS_THERE


TARGETS = {
    "crrl": Target(
        title="CRRL",
        url="Picasso-Wang/CRRL",
        commit="4d06d50",
        source=_SOURCE,
        run="python main_pretrain.py",
        style="flags",
        template={"--gpu": 0, "--num_workers": 4, "--dataset": "ntu", "--ntu_dataset": "xsub"},
        keys=(
            Key("epochs", "--epochs", lambda config: Absent.AS_THERE, ("fuse_start",)),
            Key("optim.batch", "--batch_size"),
            Key("optim.lr", "--learning_rate"),
            Key("optim.step_factor", "--lr_decay_rate"),
            Key("optim.sgd_momentum", "--momentum"),
            Key("optim.weight_decay", "--weight_decay"),
            Key("optim.nesterov", "--nesterov", lambda config: _ON if config.optim.nesterov else _OFF),
            Key("encoder.hidden", "--hidden_units"),
            Key("encoder.layers", "--layers"),
            Key("encoder.dropout", "--dropout"),
            Key("key_head_frozen", "--if_update_key_mlp", lambda c: _OFF if c.params.key_head_frozen else _ON),
            Key("", "--if_recon_reversely", _way("forward"), ("reconstruct",)),
            Key("", "--if_recon_forwardly", _way("reverse")),
        ),
        elsewhere={
            "temperature": f"{_SOURCE}, opt.temperature",
            "momentum": f"{_SOURCE}, opt.contra_momentum",
            "queue": f"{_SOURCE}, opt.K",
            "distill_weight": f"{_SOURCE}, opt.lambda_ts",
            "optim.step_at": f"{_SOURCE}, lr_decay_epochs of each run",
        },
        there=dict.fromkeys(("hidden", "projection"), lambda config: 2 * config.encoder.hidden),
        remarks=_remarks,
        runs=_runs,
    )
}
