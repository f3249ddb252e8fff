"""One configuration of ours as an official repository's YAML or command line, and what cannot be said there."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from methods.errors import InputError, did_you_mean
from methods.training.config import TrialConfig, published
from tuning.official import aimclr, cmcs, cmd, crossclr, crrl, pstl, scdnet, skelemixclr
from tuning.official.keys import Absent, Rounded, Target, flat, idle, settled

# Repository -> our method -> its target; a new repository is one file and one line here.
TARGETS: Mapping[str, Mapping[str, Target]] = {
    "aimclr": aimclr.TARGETS,
    "crossclr": crossclr.TARGETS,
    "cmcs": cmcs.TARGETS,
    "skelemixclr": skelemixclr.TARGETS,
    "pstl": pstl.TARGETS,
    "scdnet": scdnet.TARGETS,
    "crrl": crrl.TARGETS,
    "cmd": cmd.TARGETS,
}


@dataclass(frozen=True)
class Exported:
    """``text``: the file, which names all the rest in comments; the rest one line each.

    ``absent``: settings of ours that their code has otherwise and no key for. ``edits``: those that stand in their
    code. ``remarks``: what was rounded or has to be known. ``kept``: their settings that stay as they ship.
    """

    text: str
    absent: tuple[str, ...]
    edits: tuple[str, ...]
    remarks: tuple[str, ...]
    kept: tuple[str, ...]


def export_official(config: TrialConfig, repository: str, made_from: str, file: str = "FILE") -> Exported:
    """Write ``config`` for ``repository``; ``made_from`` and ``file`` name what it comes from and goes to in comments.

    Raises ``InputError`` for an unknown repository and for a method that it does not have.
    """
    target = _target(config.method, repository)
    config = settled(config)
    values, written, absent, remarks = dict(target.template), set[str](), list[str](), list(target.remarks(config))
    ours, covered = flat(config), set[str]()
    for key in target.keys:
        value = key.write(config) if key.write is not None else ours[key.ours]
        covered |= {key.ours, *key.covers}
        if isinstance(value, Rounded):
            meant = key.covers[-1] if key.covers else key.ours
            remarks.append(f"{meant}: {value.exact:g} is meant, {key.names()[0]} takes {_shown(value.value)}")
            value = value.value
        if value is Absent.NOWHERE:
            absent.append(f"{key.ours}: {_shown(ours[key.ours])} ({_why_not(key.names()[0])})")
        elif value is not Absent.AS_THERE:
            values |= dict.fromkeys(key.names(), value)
            written |= set(key.names())
    edits = _rest(target, config, covered, absent)
    kept = [f"{name} {_shown(value)}" for name, value in target.template.items() if name not in written]
    text = _comment(target, made_from, file, absent, edits, remarks, kept) + _body(target, values, config)
    return Exported(text, tuple(absent), tuple(edits), tuple(remarks), tuple(kept))


def _why_not(key: str) -> str:
    """A name in parentheses is no key but what their code always does."""
    return f"there {key[1:-1]}" if key.startswith("(") else f"{key} cannot say it"


def _target(method: str, repository: str) -> Target:
    if repository not in TARGETS:
        raise InputError(f"unknown repository '{repository}'{did_you_mean(repository, TARGETS)}")
    if method in TARGETS[repository]:
        return TARGETS[repository][method]
    having = [name for name, targets in TARGETS.items() if method in targets]
    hint = f"; it is --to {' or '.join(having)}" if having else "; no official repository that we know has it"
    raise InputError(f"method '{method}' is none of {repository}'s ({', '.join(TARGETS[repository])}){hint}")


def _rest(target: Target, config: TrialConfig, covered: set[str], absent: list[str]) -> list[str]:
    """Settings without a key that their code has otherwise: those in its source, and into ``absent`` the others."""
    ours, official = flat(config), settled(published(config.method, preset="paper_code"))
    theirs, edits = flat(official), []
    for name, value in ours.items():
        if name in covered | idle(config) | target.idle(config):
            continue
        has = target.there[name](config) if name in target.there else theirs[name]
        if _same(value, has):
            continue
        if name in target.elsewhere:
            edits.append(f"{name}: {_shown(value)} (there {_shown(has)}), in {target.elsewhere[name]}")
        else:
            absent.append(f"{name}: {_shown(value)} (there {_shown(has)})")
    return edits


def _same(a: Any, b: Any) -> bool:
    both = isinstance(a, float | int) and isinstance(b, float | int)
    return bool(abs(a - b) <= 1e-9 * max(1.0, abs(a))) if both else bool(a == b)


def _shown(value: Any) -> str:
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(_shown, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _comment(
    target: Target, made_from: str, file: str, absent: list[str], edits: list[str], remarks: list[str], kept: list[str]
) -> str:
    lines = [
        f"{target.title}, from {made_from} by skeltune",
        f"for {target.url} at {target.commit}, keys of {target.source}",
    ]
    if target.style == "yaml":
        lines.append(f"run there: {target.run.replace('FILE', file)}")
    parts = {"to be set in its code:": edits, "without a counterpart there:": absent, "mind:": remarks}
    for title, some in parts.items():
        lines += [title, *(f"  {line}" for line in some)] if some else []
    whole = textwrap.wrap(", ".join(kept), 110, break_on_hyphens=False)
    lines += ["settings of its own, not of yours (paths are to be filled in):", *(f"  {line}" for line in whole)]
    return "".join(f"# {line}\n" for line in lines)


def _body(target: Target, values: Mapping[str, Any], config: TrialConfig) -> str:
    if target.style == "yaml":
        return yaml.safe_dump(_nested(values), sort_keys=False, default_flow_style=None, width=110)
    commands = []
    for own in target.runs(config):
        words = [
            _sacred(name, value) if target.style == "sacred" else _flag(name, value)
            for name, value in ({**values, **own}).items()
        ]
        commands.append(" \\\n  ".join([target.run, *(word for word in words if word)]))
    return "\n".join(commands) + "\n"


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as dictionaries in dictionaries."""
    whole: dict[str, Any] = {}
    for name, value in values.items():
        *path, last = name.split(".")
        inside = whole
        for part in path:
            inside = inside.setdefault(part, {})
        inside[last] = value
    return whole


def _flag(name: str, value: Any) -> str:
    """A switch that is off is left out; a list stands as so many words."""
    if isinstance(value, bool):
        return name if value else ""
    return " ".join([name, *(shlex.quote(_word(v)) for v in (value if isinstance(value, list) else [value]))])


def _sacred(name: str, value: Any) -> str:
    """Sacred takes a word that is no Python literal for itself."""
    return shlex.quote(f"{name}={_word(value)}")


def _word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)
