"""Official weights -> a configuration, a state and a checkpoint of ours that `skeltune evaluate` can probe."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from methods.data.layouts import Layout
from methods.data.streams import STREAMS
from methods.errors import InputError, did_you_mean
from methods.official.load import Official, fill, recognise
from methods.official.reading import Stored, read_weights
from methods.registry import get_method
from methods.training import checkpoint
from methods.training.branches import JOINT, Branches
from methods.training.config import StreamsConfig, TrialConfig, published, with_settings

PRESET = "paper_code"
PERSONS = 2  # where the weights do not say
# Options that CRRL stores beside its weights, as our settings.
_STORED = {
    "temperature": "temperature",
    "contra_momentum": "momentum",
    "lambda_ts": "distill_weight",
    "dropout": "encoder.dropout",
}


@dataclass(frozen=True)
class Imported:
    """Official weights as ours: ``state`` fits :class:`~methods.training.branches.Branches` of ``config``.

    ``notes``: what was found, what was assumed and what was left out, a line each. ``persons``, ``channels``: M and C;
    persons None where the weights take any number.
    """

    config: TrialConfig
    state: Mapping[str, Tensor]
    notes: tuple[str, ...]
    layout: Layout
    persons: int | None
    channels: int


def import_official(
    paths: Path | Sequence[Path],
    repository: str,
    *,
    layout: Layout | None = None,
    stream: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Imported:
    """Read an official checkpoint (of CRRL also one of each run) into our method of the same networks.

    Sizes come from the weights' shapes; whatever they do not say is the published recipe's, preset ``paper_code``,
    unless ``settings`` (dotted name -> value) says otherwise. ``stream``: what one network was trained on, by default
    joints. ``layout``: the joints, by default the usual layout of that many. Raises ``InputError``, all faults at once.
    """
    files = [paths] if isinstance(paths, Path) else list(paths)
    if len(files) != 1 and repository != "crrl":
        raise InputError(f"{repository} stores one file a run, got {len(files)}; several are for --from crrl")
    where = ", ".join(map(str, files))
    stored = read_weights(files)
    official = recognise(stored.tensors, repository, where, layout)
    config = _configured(official, stored, _streams(official, stream, where), settings or {})
    sizes = official.sizes
    try:
        model = Branches(config, sizes.layout, seed=0, persons=sizes.persons or PERSONS, channels=sizes.channels)
    except InputError as error:
        raise InputError(*(f"{where}: {fault}" for fault in error.faults)) from None
    key = f"branches.{JOINT if official.variant.streams else config.streams.use[0]}."
    wanted = {name.removeprefix(key): value for name, value in model.state_dict().items()}
    state, left = fill(official, wanted, where)
    notes = _notes(official, config, left, settings or {})
    return Imported(
        config, {key + name: value for name, value in state.items()}, notes, sizes.layout, sizes.persons, sizes.channels
    )


def write_imported(out: Path, imported: Imported, sources: Sequence[Path]) -> None:
    """Store ``imported`` as a checkpoint of ours; it holds no optimiser's state, so that training cannot go on.

    Raises ``InputError`` where ``out`` is one of the ``sources`` or cannot be written.
    """
    if any(out.exists() and out.samefile(source) for source in sources):
        raise InputError(f"{out}: is the official checkpoint itself; give another --out")
    state = {
        "format": checkpoint.FORMAT,
        "config": imported.config.to_dict(),
        "layout": imported.layout.to_dict(),
        "persons": imported.persons or PERSONS,
        "channels": imported.channels,
        "fingerprint": "",
        "index": "",
        "seed": 0,
        "epoch": imported.config.epochs,
        "step": 0,
        "low_spread": 0,
        "model": dict(imported.state),
        "optimiser": {},
        "extra": {"imported": list(imported.notes)},
    }
    try:
        checkpoint.write_atomically(out, state)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror})") from error


def _streams(official: Official, stream: str | None, where: str) -> tuple[str, ...]:
    own = official.variant.streams
    if stream is None:
        return own or ("joint",)
    if stream not in STREAMS:
        raise InputError(f"--stream: unknown stream '{stream}'{did_you_mean(stream, STREAMS)}")
    if own:
        raise InputError(
            f"{where}: has the streams {', '.join(own)} in it; --stream is for files of one that is not said"
        )
    return (stream,)


def _configured(
    official: Official, stored: Stored, streams: tuple[str, ...], settings: Mapping[str, Any]
) -> TrialConfig:
    """The published configuration with what the file says, and last what the user says."""
    method = official.variant.method
    own = {field.name for field in dataclasses.fields(get_method(method).config)}
    found = {name: value for name, value in official.sizes.settings.items() if "." in name or name in own | {"frames"}}
    config = published(method, preset=PRESET)
    config = dataclasses.replace(config, streams=StreamsConfig(use=streams))
    config = with_settings(config, found | dict(official.variant.settings) | _said(stored, own))
    known = settable(config)
    unknown = [f"--set {name}: no such setting{did_you_mean(name, known)}" for name in settings if name not in known]
    if unknown:
        raise InputError(*unknown)
    try:
        return with_settings(config, settings)
    except TypeError as error:  # a word where a number belongs
        raise InputError(f"--set: a value of the wrong kind: {error}") from error


def _said(stored: Stored, own: set[str]) -> dict[str, Any]:
    options = stored.options
    said = {ours: options[name] for name, ours in _STORED.items() if isinstance(options.get(name), float | int)}
    if options.get("reconstruct") is True and "fuse_start" in own:
        said["fuse_start"] = 0.0  # the sequence reconstructor alone: no teacher
    return {name: value for name, value in said.items() if "." in name or name in own}


def settable(config: TrialConfig) -> list[str]:
    """Dotted names of every setting: the method's own without a dot, ``encoder.dropout``, ``frames``."""
    names = [field.name for field in dataclasses.fields(config.params)]
    for part in ("encoder", "augment", "optim"):
        names += [f"{part}.{field.name}" for field in dataclasses.fields(getattr(config, part))]
    return [*names, "frames", "epochs"]


def _notes(
    official: Official, config: TrialConfig, left: tuple[str, ...], settings: Mapping[str, Any]
) -> tuple[str, ...]:
    sizes, variant = official.sizes, official.variant
    found = {name: value for name, value in sizes.settings.items() if name in settable(config)}
    assumed = {f.name: getattr(config.params, f.name) for f in dataclasses.fields(config.params)}
    assumed |= {f"encoder.{f.name}": getattr(config.encoder, f.name) for f in dataclasses.fields(config.encoder)}
    assumed |= {"frames": config.frames, "epochs": config.epochs, "preprocess": "+".join(config.preprocess)}
    known = found.keys() | settings.keys() | variant.settings.keys() | {"encoder.name"}
    assumed = {name: value for name, value in assumed.items() if name not in known}
    notes = [
        f"{official.repository.url}: {variant.title}, as {config.method} on {', '.join(config.streams.use)}",
        f"from the weights: {_listed(found)}; layout {sizes.layout.name} ({sizes.layout.num_joints} joints)",
        f"from the published recipe, preset {PRESET}: {_listed(assumed)}",
    ]
    if settings:
        notes.append(f"as you say: {_listed(settings)}")
    if not variant.streams and not get_method(config.method).cls.only_streams:
        notes.append("the weights do not say which stream they were trained on (--stream)")
    notes += [f"ignored: {', '.join(names)}: {what}" for what, names in official.ignored.items()]
    if left:
        notes.append(f"not in the file, left at their initialisation: {', '.join(left)}")
    if variant.method == "crrl" and sizes.persons != 1:
        notes.append(
            "CRRL's code does not say in which order a frame's numbers lie; they are taken as joint, axis, body"
        )
    return (*notes, *sizes.notes)


def _listed(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())
