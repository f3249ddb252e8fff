"""One configuration, whole: everything that decides what a pretraining run does, as frozen typed values."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from methods.augment.policy import AugmentConfig
from methods.data.preprocess import DEFAULT_STEPS, expand_steps, parse_steps
from methods.data.streams import STREAMS
from methods.errors import InputError, did_you_mean
from methods.fields import require, tunable
from methods.nn.encoder import EncoderConfig
from methods.recipe import OptimConfig
from methods.registry import get_method


@dataclass(frozen=True)
class StreamsConfig:
    """Everything a YAML may set under ``streams``.

    ``loss`` weighs the streams' losses: L = S * sum_s w_s L_s with weights that sum to 1, so ``equal`` is the published
    plain sum. ``fuse`` mixes the streams' log-softmax at the probe; ``fitted`` finds those weights out of fold on the
    training subjects. Weights come in the order of ``use``.
    """

    use: tuple[str, ...] = tunable(("joint",), doc="which streams, each with its own branch")
    loss: str | tuple[float, ...] = tunable("equal", doc="equal, or one weight a stream")
    fuse: str | tuple[float, ...] = tunable("equal", doc="equal, fitted, or one weight a stream")

    def __post_init__(self) -> None:
        require(len(self.use) > 0, "streams.use names no stream")
        for name in self.use:
            require(name in STREAMS, f"unknown stream '{name}'{did_you_mean(name, STREAMS)}")
        require(len(set(self.use)) == len(self.use), f"streams.use names a stream twice: {', '.join(self.use)}")
        self._check("loss", self.loss, ("equal",))
        self._check("fuse", self.fuse, ("equal", "fitted"))

    def _check(self, name: str, value: str | tuple[float, ...], words: tuple[str, ...]) -> None:
        if isinstance(value, str):
            require(value in words, f"streams.{name} must be {' or '.join(words)} or weights, got '{value}'")
            return
        require(
            len(value) == len(self.use),
            f"streams.{name} has {len(value)} weights for {len(self.use)} streams ({', '.join(self.use)})",
        )
        usable = all(math.isfinite(w) and w >= 0 for w in value) and sum(value) > 0
        require(usable, f"streams.{name} must be finite, not negative and not all zero, got {value}")

    def loss_weights(self) -> tuple[float, ...]:
        """S * w_s: what each stream's loss is multiplied by (all ones for ``equal``)."""
        return tuple(w * len(self.use) for w in _normal(self.loss, len(self.use)))

    def fuse_weights(self) -> tuple[float, ...] | None:
        """Weights that sum to 1, or None where they are to be ``fitted``."""
        return None if self.fuse == "fitted" else _normal(self.fuse, len(self.use))


def _normal(weights: str | tuple[float, ...], count: int) -> tuple[float, ...]:
    if isinstance(weights, str):
        return (1.0 / count,) * count
    total = sum(weights)
    return tuple(w / total for w in weights)


@dataclass(frozen=True)
class TrialConfig:
    """One point of a search: what :func:`methods.training.pretrain.pretrain` needs, and nothing about the search.

    ``params`` is an instance of the method's own config dataclass, ``encoder`` one of its architecture's. ``epochs`` is
    the length of the *full* run: every schedule is a fraction of it. ``frames`` = T; ``preprocess`` are named steps of
    :mod:`methods.data.preprocess`.
    """

    method: str
    params: Any
    epochs: int
    frames: int = 50
    preprocess: tuple[str, ...] = DEFAULT_STEPS
    encoder: Any = field(default_factory=EncoderConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    streams: StreamsConfig = field(default_factory=StreamsConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)

    def __post_init__(self) -> None:
        entry = get_method(self.method)
        require(
            isinstance(self.params, entry.config),
            f"method '{self.method}' takes {entry.config.__name__}, got {type(self.params).__name__}",
        )
        require(
            type(self.encoder) is type(entry.recipe.encoder),
            f"method '{self.method}' takes {type(entry.recipe.encoder).__name__} as its encoder, got "
            f"{type(self.encoder).__name__}",
        )
        only = entry.cls.only_streams
        strange = [name for name in self.streams.use if only and name not in only]
        require(
            not strange, f"method '{self.method}' knows the stream {', '.join(only)} only, not {', '.join(strange)}"
        )
        least = entry.cls.least_streams
        require(
            len(self.streams.use) >= least,
            f"method '{self.method}' needs {least} streams or more, streams.use has {', '.join(self.streams.use)}"
            + (f"; its method for fewer is {entry.cls.for_one_stream}" if entry.cls.for_one_stream else ""),
        )
        require(self.epochs >= 1, f"epochs must be at least 1, got {self.epochs}")
        require(self.frames >= 4, f"frames must be at least 4 (the encoder strides time by 4), got {self.frames}")
        parse_steps(self.preprocess)
        object.__setattr__(self, "preprocess", expand_steps(self.preprocess))  # a recipe's name becomes its steps

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dict of numbers, strings, lists: fit for JSON and YAML, read back by :func:`from_dict`."""
        return _plain(dataclasses.asdict(self))  # type: ignore[no-any-return]  # a dict goes in, a dict comes out


PRESETS = ("clean", "paper_code")


def published(method: str, epochs: int | None = None, preset: str = "clean") -> TrialConfig:
    """The method's published configuration with its published streams.

    ``preset``: ``clean`` (our defaults: the paper without its code's quirks) or ``paper_code`` (every quirk as in the
    official code, preprocessing included). Raises ``InputError`` for an unknown method or preset.
    """
    entry = get_method(method)
    recipe = entry.recipe
    config = TrialConfig(
        method=method,
        params=entry.config(),
        epochs=recipe.epochs if epochs is None else epochs,
        frames=recipe.frames,
        encoder=recipe.encoder,
        augment=recipe.augment,
        streams=StreamsConfig(use=recipe.use),
        optim=recipe.optim,
    )
    if preset not in PRESETS:
        raise InputError(f"unknown preset '{preset}'{did_you_mean(preset, PRESETS)}")
    return with_settings(config, recipe.paper_code) if preset == "paper_code" else config


def with_settings(config: TrialConfig, settings: Mapping[str, Any]) -> TrialConfig:
    """``config`` with some fields changed, by dotted name: ``encoder.init``, ``frames``, or one of the method's own."""
    changes: dict[str, dict[str, Any]] = {}
    for name, value in settings.items():
        part, _, inner = name.rpartition(".")
        whole = not part and name in {f.name for f in dataclasses.fields(TrialConfig)}
        changes.setdefault("" if whole else part or "params", {})[inner] = value
    parts = {part: dataclasses.replace(getattr(config, part), **fields) for part, fields in changes.items() if part}
    return dataclasses.replace(config, **parts, **changes.get("", {}))


def from_dict(values: Mapping[str, Any]) -> TrialConfig:
    """Rebuild a :class:`TrialConfig` from :meth:`TrialConfig.to_dict`. Raises ``InputError`` for unknown keys."""
    rest = dict(values)
    entry = get_method(str(rest.get("method", "")))
    parts: dict[str, type[Any]] = {
        "params": entry.config,
        "encoder": type(entry.recipe.encoder),
        "augment": AugmentConfig,
        "streams": StreamsConfig,
        "optim": OptimConfig,
    }
    for name, cls in parts.items():
        rest[name] = _build(cls, rest.get(name, {}), name)
    if "preprocess" in rest:
        rest["preprocess"] = expand_steps(rest["preprocess"])
    built: TrialConfig = _build_typed(TrialConfig, rest, "config")
    return built


def _build(cls: type[Any], values: Any, where: str) -> Any:
    if not isinstance(values, Mapping):
        raise InputError(f"'{where}' must hold settings, got {values!r}")
    plain = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return _build_typed(cls, plain, where)


def _build_typed(cls: type[Any], values: Mapping[str, Any], where: str) -> Any:
    known = [f.name for f in dataclasses.fields(cls)]
    unknown = [k for k in values if k not in known]
    if unknown:
        raise InputError(*(f"unknown setting '{where}.{k}'{did_you_mean(k, known)}" for k in unknown))
    required = [f.name for f in dataclasses.fields(cls) if f.default is f.default_factory is dataclasses.MISSING]
    missing = [name for name in required if name not in values]
    if missing:
        raise InputError(*(f"setting '{where}.{name}' is missing" for name in missing))
    try:
        return cls(**values)
    except TypeError as error:  # a word where a number belongs; files of ours never hold that
        raise InputError(f"'{where}' holds a value of the wrong kind: {error}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return value
