"""The small shipped spaces: generated skeletons, tiny encoders, seconds a run. To see a method at work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from methods.fields import Range, field_table
from methods.registry import MethodEntry
from tuning.space.domains import value_text
from tuning.space.lines import Line, block, domain_text, drawn, flow, remark
from tuning.space.shipped_facts import NO_AUGMENT, TITLES
from tuning.space.shipped_method import late_stages

SIZES = {"queue": 128, "hidden": 64, "projection": 32}
DRAWN = ("temperature", "momentum", "off_diagonal")  # where a method has them
MOMENTUM, LR = Range("near_one", (0.9, 0.999)), Range("log", (5e-4, 0.01))
ENCODERS: Mapping[str, Mapping[str, Any]] = {
    "stgcn": {"width": 8, "dim": 32, "depth": 3, "dropout": 0.0, "init": "torch", "input_norm": "scale", "segments": 4,
              "bodies": "real"},
    "twopath": {"base": 4, "d_model": 32, "heads": 4, "dropout": 0.0},
    "gru": {"hidden": 32, "layers": 1},
}  # fmt: skip
SECONDS = {  # CPU time of six epochs without probes, one core of an AMD EPYC, 2026-11-21
    "skeletonclr": 5, "skeletonbyol": 8, "cmal": 8, "cmcs": 26, "crossclr": 14, "aimclr": 8, "skelemixclr": 9,
    "skelemixclr_plus": 15, "skeletonbt": 6, "pstl": 10, "scdnet": 39, "cmd": 4, "crrl": 1,
}  # fmt: skip
OPTIM = {"name": "adam", "batch": "32", "schedule": "cosine"}


def small_space(entry: MethodEntry) -> str:
    """One method at toy sizes."""
    name = f"small-{entry.name.replace('_', '-')}"
    lines = [
        *remark(f"{TITLES[entry.name]} at toy size: generated skeletons, {_time([entry])} a run on one core."),
        f"#   skeltune search small/{entry.name}      to see the method run; its score says nothing of the method",
        *_top(name),
        "search:",
        "  method:",
        f"    {entry.name}:",
        *block(_own(entry), 6),
        "  augment: {strength: {uniform: [0.2, 1.4]}}" if entry.name not in NO_AUGMENT else "  # augment: nothing",
        *flow("encoder", _encoder(entry), 2),
        *block([_optim(entry)], 2),
        *flow("streams", {"use": value_text(entry.recipe.use)}, 2),
        *_bottom(startup=3, trials=6, late=late_stages([entry])),
    ]
    return "\n".join(lines) + "\n"


def small_compare(entries: Sequence[MethodEntry]) -> str:
    """All methods at toy sizes."""
    lines = [
        *remark(f"All {len(entries)} methods at toy size: generated skeletons, {_time(entries)} a run on one core."),
        "#   skeltune search small/compare      to see them run; the scores say nothing of the methods",
        *remark("Each has its published streams, as no choice of streams suits all."),
        *_top("small-compare"),
        "search:",
        "  method:",
        "    one_of:",
    ]
    for entry in entries:
        lines += [
            f"      {entry.name}:",
            *block(_own(entry), 8),
            *flow("encoder", _encoder(entry), 8),
            *block([_optim(entry)], 8),
        ]
    lines += [
        "  augment: {strength: {uniform: [0.2, 1.4]}}",
        *_bottom(startup=len(entries), trials=2 * len(entries), late=late_stages(entries)),
    ]
    return "\n".join(lines) + "\n"


def _time(entries: Sequence[MethodEntry]) -> str:
    seconds = [SECONDS[entry.name] for entry in entries]
    least, most = min(seconds), max(seconds)
    return f"about {most} s" if least == most else f"{least} to {most} s"


def _top(name: str) -> list[str]:
    return [
        "format: 1",
        f"name: {name}",
        "seed: 0",
        "data: {set: synthetic, split: xsub, validate_on: auto, frames: 16}",
    ]


def _own(entry: MethodEntry) -> list[Line]:
    published, table = entry.config(), field_table(entry.config)
    lines = []
    for name in (name for name in DRAWN if name in table):
        span = MOMENTUM if name == "momentum" else None
        lines.append(drawn(table[name], getattr(published, name), span))
    for name, size in SIZES.items():
        if name in table:
            value = getattr(published, name)
            lines.append(Line(name, str(min(size, value)), f"published {value}"))
    if "projector_norm" in table:
        value = value_text(published.projector_norm)
        lines.append(Line("projector_norm", "true", f"published {value}; keeps short runs from collapsing"))
    return lines


def _encoder(entry: MethodEntry) -> dict[str, str]:
    return {key: value_text(value) for key, value in ENCODERS[entry.recipe.encoder.name].items()}


def _optim(entry: MethodEntry) -> Line:
    recipe = entry.recipe.optim
    inside = {"name": OPTIM["name"], "lr": domain_text(LR), "batch": OPTIM["batch"], "schedule": OPTIM["schedule"]}
    text = ", ".join(f"{key}: {value}" for key, value in inside.items())
    return Line("optim", f"{{{text}}}", f"published lr {value_text(recipe.lr)} of {recipe.name}")


def _bottom(*, startup: int, trials: int, late: str) -> list[str]:
    why = "14 steps an epoch, too few to judge by" + (f". {late}" if late else "")
    schedule = Line("schedule", "{unit: epoch, max: 6, asha: {min: 2, eta: 2, ladder: shared, repeats: 0}}", why)
    return [
        "probe: {kind: linear, l2: 0.01}",
        *block([schedule], 0),
        f"sampler: {{startup_trials: {startup}}}",
        f"budget: {{trials: {trials}, on_end: finish, parallel: auto, per_trial: {{gpu: one, cpu: 1}}}}",
        "finish: {rerun: {top: 1, seeds: 2}, retrain: {seeds: 1}}",
    ]
