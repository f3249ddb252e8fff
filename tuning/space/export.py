"""A config as a search space with nothing left to search: the same grammar, every domain collapsed to its value."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import yaml

from methods.errors import InputError
from tuning.config.schema import FORMAT, SearchSpec
from tuning.config.yaml_source import CORE_RESOLVERS

if TYPE_CHECKING:
    from methods.training.config import TrialConfig


class _Dumper(yaml.SafeDumper):
    """Writes what our loader reads; a word that YAML 1.1 or 1.2 would take for something else is quoted."""

    yaml_implicit_resolvers = {  # noqa: RUF012  (PyYAML's own class attribute)
        **yaml.SafeDumper.yaml_implicit_resolvers,
        None: list(CORE_RESOLVERS),
    }

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _float(dumper: yaml.SafeDumper, value: float) -> yaml.ScalarNode:
    """``repr`` reads back as the same number; PyYAML's own ``1.0e-05`` does too, but no person writes it."""
    return dumper.represent_scalar("tag:yaml.org,2002:float", repr(value))


_Dumper.add_representer(float, _float)


def dump(spec: SearchSpec, config: TrialConfig, provenance: Mapping[str, Any] | None = None) -> str:
    """YAML that loads again with nothing free and resolves to an equal ``config``.

    Everything is written out, published defaults too, so that the file means the same in a later version. Raises
    ``InputError`` for a provenance that is no plain data.
    """
    document: dict[str, Any] = {
        "format": FORMAT,
        "name": spec.name,
        "seed": spec.seed,
        "data": _section(spec.data.model_dump(exclude_none=True)) | {"preprocess": list(config.preprocess)},
        "search": _search(config),
        "probe": _section(spec.probe.model_dump()),
        "schedule": _schedule(spec, config.epochs),
        "sampler": _section(spec.sampler.model_dump()),
        "objectives": list(spec.objectives),
        "budget": _section(spec.budget.model_dump()),
        "finish": _section(spec.finish.model_dump()) | {"export": None},
    }
    document["data"].pop("frames", None)  # stands inside the method, where it wins
    if provenance:
        document["provenance"] = _section(provenance)
    text = yaml.dump(document, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True)
    return str(text)


def _search(config: TrialConfig) -> dict[str, Any]:
    own = {"frames": config.frames, **_fields(config.params)}
    streams = _fields(config.streams)
    for name in ("loss", "fuse"):
        if not isinstance(streams[name], str):
            streams[name] = dict(zip(config.streams.use, streams[name], strict=True))
    return {
        "method": {config.method: own},
        "augment": _fields(config.augment),
        "encoder": _fields(config.encoder),
        "optim": _fields(config.optim),
        "streams": streams,
    }


def _fields(part: Any) -> dict[str, Any]:
    return {f.name: _plain(getattr(part, f.name), f.name) for f in dataclasses.fields(part)}


def _schedule(spec: SearchSpec, epochs: int) -> dict[str, Any]:
    """The spec's schedule with the config's own length of a full run."""
    schedule: dict[str, Any] = _section(spec.schedule.model_dump())
    schedule["max"] = epochs
    schedule["asha"]["min"] = min(schedule["asha"]["min"], epochs)
    return schedule


def _section(values: Mapping[str, Any]) -> dict[str, Any]:
    return {str(k): _plain(v, str(k)) for k, v in values.items()}


def _plain(value: Any, where: str) -> Any:
    """Lists, dicts and scalars; a number that YAML cannot carry (nan, infinity) becomes null."""
    if isinstance(value, Mapping):
        return _section(value)
    if isinstance(value, tuple | list):
        return [_plain(v, where) for v in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    raise InputError(f"'{where}' cannot be written as YAML: {type(value).__name__}")
