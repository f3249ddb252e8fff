"""How a table says what our settings are called in an official repository, and what of a configuration takes effect."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from methods.augment.policy import AugmentConfig
from methods.training.config import TrialConfig

NEGLIGIBLE = 0.01  # of an epoch: what writing a share with four digits loses


class Absent(Enum):
    """What a table writes where it has no value: the setting cannot be said there, or their file says it already."""

    NOWHERE = "nowhere"
    AS_THERE = "as there"


@dataclass(frozen=True)
class Rounded:
    """``value`` is written where ``exact`` is meant: an epoch for a share of the run."""

    value: Any
    exact: float


@dataclass(frozen=True)
class Key:
    """Our field ``ours`` (dotted; the method's own without a dot) becomes ``theirs``, one key or several.

    ``write``: the value there, of the whole settled configuration; by default the field's own. ``covers``: further
    fields of ours that are said along with it. A key without ``ours`` is made of several and covers none by itself.
    """

    ours: str
    theirs: str | tuple[str, ...]
    write: Callable[[TrialConfig], Any] | None = None
    covers: tuple[str, ...] = ()

    def names(self) -> tuple[str, ...]:
        return (self.theirs,) if isinstance(self.theirs, str) else self.theirs


@dataclass(frozen=True)
class Target:
    """One network of an official repository, as its configuration is written.

    ``source``: the file of ``url`` at ``commit`` that ``template`` restates (dotted keys of a YAML, flags, or names of
    sacred, by ``style``); ``run``: the command line, with FILE where a YAML goes. ``elsewhere``: our field -> where in
    their code it stands. ``there``: our field -> the value that their code has, where that is not the preset
    ``paper_code``'s. ``idle``: fields that take no effect in a configuration. ``remarks``: lines about one. ``runs``:
    flags of each run, where one of ours is several of theirs.
    """

    title: str
    url: str
    commit: str
    source: str
    run: str
    style: str
    template: Mapping[str, Any]
    keys: tuple[Key, ...]
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    there: Mapping[str, Callable[[TrialConfig], Any]] = field(default_factory=dict)
    idle: Callable[[TrialConfig], set[str]] = lambda config: set()
    remarks: Callable[[TrialConfig], tuple[str, ...]] = lambda config: ()
    runs: Callable[[TrialConfig], tuple[Mapping[str, Any], ...]] = lambda config: ({},)


# Operations that `augment.strength` makes larger; what belongs to one is idle where it is off.
_PROBABILITIES = ("corrupt", "flip", "blur", "axis_mask", "time_flip", "joint_mask", "segment_mask")
_SCALED = ("shear", "rotate", "noise", *_PROBABILITIES)
_OPTIONS = {
    "crop_resize": ("crop_resize_frames",),
    "shear": ("shear_probability",),
    "corrupt": ("corrupt_joints",),
    "flip": ("flip_reflect",),
    "rotate": ("rotate_probability", "rotate_both_ways"),
    "noise": ("noise_probability", "noise_absent"),
    "blur": ("blur_normalise",),
    "joint_mask": ("joint_mask_joints", "joint_mask_seeds", "joint_mask_fair"),
    "segment_mask": ("segment_mask_share",),
}


def settled(config: TrialConfig) -> TrialConfig:
    """The same configuration at strength 1: every operation at the amplitude or probability it really has."""
    augment, strength = config.augment, config.augment.strength
    values: dict[str, Any] = {"strength": 1.0}
    for name in _SCALED:
        value = getattr(augment, name) * strength
        values[name] = min(value, 1.0) if name in _PROBABILITIES else value
    values["crop"] = augment.crop / strength if strength else 0.0
    values["crop_resize"] = max(0.0, 1 - (1 - augment.crop_resize) * strength) if augment.crop_resize else 0.0
    if strength == 0:
        values["crop_resize"] = 0.0
    return dataclasses.replace(config, augment=dataclasses.replace(augment, **values))


def idle(config: TrialConfig) -> set[str]:
    """Dotted names of the settings that change nothing in a run of this (settled) configuration."""
    off = {
        f"augment.{option}" for op, options in _OPTIONS.items() if not getattr(config.augment, op) for option in options
    }
    optim = config.optim
    if optim.name == "adam":
        off |= {"optim.sgd_momentum", "optim.nesterov"}
    if optim.schedule != "step":
        off |= {"optim.step_at", "optim.step_factor"}
    if len(config.streams.use) == 1:
        off.add("streams.loss")
    return off | {"augment.strength"}


def flat(config: TrialConfig) -> dict[str, Any]:
    """Dotted name -> value of everything that decides a run of pretraining (how streams are fused later does not)."""
    values = {field.name: getattr(config.params, field.name) for field in dataclasses.fields(config.params)}
    values |= {"frames": config.frames, "epochs": config.epochs, "preprocess": config.preprocess}
    for part in ("encoder", "augment", "optim"):
        whole = getattr(config, part)
        values |= {f"{part}.{field.name}": getattr(whole, field.name) for field in dataclasses.fields(whole)}
    return values | {"streams.use": config.streams.use, "streams.loss": config.streams.loss}


def is_on(augment: AugmentConfig, ops: Mapping[str, str]) -> str:
    """The letters of the operations that are on."""
    return "".join(letter for op, letter in ops.items() if getattr(augment, op))


def nearest(value: float, whole: Callable[[int], Any] = lambda number: number) -> Any:
    """``whole`` of the nearest whole number, marked where that is another number."""
    number = round(value)
    return whole(number) if abs(number - value) < NEGLIGIBLE else Rounded(whole(number), value)


def epoch_of(share: str) -> Callable[[TrialConfig], Any]:
    """A writer: the epoch after which the method's ``share`` of the run lies behind."""
    return lambda config: nearest(getattr(config.params, share) * config.epochs)
