"""One method on one dataset: a search around the published configuration, and what all shipped files have alike."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from methods.base import JointMethod
from methods.fields import FieldInfo, Range, field_table
from methods.registry import MethodEntry
from tuning.config.schema import ScheduleSpec
from tuning.space import shipped_facts as facts
from tuning.space.domains import value_text
from tuning.space.lines import Line, as_published, block, domain_text, drawn, flow, remark
from tuning.space.shipped_facts import TITLES, Dataset

REACHES = (0.9999, 0.9998, 0.9995, 0.999, 0.998, 0.997, 0.996)  # upper ends of a momentum's range
FEWEST_STEPS = 200  # before the first rung
ETA = 3
OPS = ("crop", "crop_resize", "shear", "corrupt", "flip", "rotate", "noise", "blur", "axis_mask", "joint_mask",
       "segment_mask")  # fmt: skip


def space_of(data: Dataset, entry: MethodEntry) -> str:
    """The text of ``<dataset>/<method>.yaml``."""
    epochs, why = data.epochs.get(entry.name, (entry.recipe.epochs, "as published"))
    first = first_rung(data, epochs, entry.recipe.optim.batch)
    trials = 120 if data.few else 60
    lines = [
        *opening(
            data, entry.name, f"{TITLES[entry.name]} on {data.title}: a search around the published configuration."
        ),
        *remark(_results(data, entry)),
        *remark(
            f"A full run is {epochs} epochs of about {data.clips // entry.recipe.optim.batch} steps (batch "
            f"{entry.recipe.optim.batch}). {UNKNOWN_COST}"
        ),
        *head(data, entry.name, _preprocess(data, entry)),
        "search:",
        *_preset(entry),
        "  method:",
        f"    {entry.name}:",
        *_own(data, entry, first),
        *_augment(entry),
        "  encoder:",
        *_encoder(data, entry),
        "  optim:",
        *_optim(data, entry),
        *_streams(entry),
        "probe: {kind: linear}",
        *schedule(epochs, first, why, late_stages([entry])),
        "sampler: {startup_trials: 12}",
        *_starts(data, entry),
        f"budget: {{trials: {trials}, on_end: finish, parallel: auto, per_trial: {{gpu: one, cpu: 2}}}}",
        "finish: {rerun: {top: 3, seeds: 3}, retrain: {seeds: 3}}",
    ]
    return "\n".join(lines) + "\n"


# --- what a comparison has too ----------------------------------------------------------------------------------------

UNKNOWN_COST = "GPU-hours: unknown, never measured; `skeltune search SPACE --dry-run` counts epochs."


def opening(data: Dataset, name: str, about: str) -> list[str]:
    """What the file is, and the commands that use it."""
    commands = [f"skeltune data convert {data.source} data/{data.folder}", f"skeltune search {data.folder}/{name}"]
    width = max(map(len, commands)) + 5
    says = ["once, or never: see `set`", "the same command resumes"]
    return [*remark(about), *(f"#   {c.ljust(width)}{s}" for c, s in zip(commands, says, strict=True))]


def head(data: Dataset, name: str, preprocess: tuple[str, str]) -> list[str]:
    """From ``format`` to ``data``."""
    about_data = [
        Line("set", f"data/{data.folder}", data.raw),
        Line("split", *data.split),
        Line("validate_on", *data.validate_on),
        Line("preprocess", *preprocess),
    ]
    run = f"{data.folder}-{name}".replace("_", "-")
    return ["format: 1", f"name: {run}", "seed: 0", "data:", *block(about_data, 2)]


def first_rung(data: Dataset, epochs: int, batch: int) -> int:
    """A ninth of the run (of few clips a sixth), and 200 steps at least with the largest batch that is drawn."""
    largest = max(facts.FEW_BATCH[batch].bounds) if data.few else batch
    return max(epochs // (6 if data.few else 9), -(-FEWEST_STEPS // (data.clips // largest)))


def schedule(epochs: int, first: int, why: str, late: str, per_method: bool = False) -> list[str]:
    """The ladder, why the run is so long, and what the rungs say nothing of. ``per_method``: who is compared there."""
    spec = ScheduleSpec.model_validate({"max": epochs, "asha": {"min": first, "eta": ETA}})
    probed = f"probed after {', '.join(map(str, spec.rungs()))} epochs"
    probed += ", below the last within each method, as they learn at different speeds" if per_method else ""
    asha = f"{{min: {first}, eta: {ETA}" + (", ladder: per_method}" if per_method else "}")
    ladder = [Line("max", str(epochs), why), Line("asha", asha, probed + (f". {late}" if late else ""))]
    return ["schedule:", "  unit: epoch", *block(ladder, 2)]


def late_stages(entries: Iterable[MethodEntry]) -> str:
    """What the rungs before the last may say nothing of."""
    named = [
        f"{entry.name}: {stage.name} (from {value_text(stage.start)} of the run on)"
        for entry in entries
        for stage in entry.cls.stages(entry.config())[1:]
    ]
    return f"A rung before it says nothing of, as `check` warns: {', '.join(named)}" if named else ""


def own_line(data: Dataset, field: FieldInfo, published: Any, steps: int) -> Line:
    """One of a method's own parameters; ``steps`` lie before the first rung."""
    if field.name == "queue":
        return _queue(data, field, published)
    if field.name == "projector_norm" and field.range is None:
        why = "true keeps short runs from sending every clip the same way"
        return drawn(field, published, Range("choice", (False, True)), why)
    if field.range is not None and field.range.kind == "near_one":
        low, high = field.range.bounds
        reached = next((m for m in REACHES if m <= high and 1 / (1 - m) <= steps), published)
        return drawn(field, published, Range("near_one", (low, max(reached, published))))
    return drawn(field, published)


def _queue(data: Dataset, field: FieldInfo, published: int) -> Line:
    """No longer than the data, but for the published length where that makes any sense."""
    why = f"longer than the data, about {data.clips:,} clips: a clip meets its own older copies"
    if published >= 8 * data.clips:
        return drawn(field, published, facts.FEW_QUEUE, why)
    bounds = field.range.bounds if field.range is not None else ()
    fitting = tuple(sorted({length for length in bounds if length <= data.clips} | {published}))
    return drawn(field, published, Range("choice", fitting), why if published > data.clips else "")


# --- sections of one method's file ------------------------------------------------------------------------------------


def _results(data: Dataset, entry: MethodEntry) -> str:
    found = facts.RESULTS[data.folder].get(entry.name)
    return f"Published linear evaluation, top-1 in %: {found or 'none was found for this dataset'}."


def _preprocess(data: Dataset, entry: MethodEntry) -> tuple[str, str]:
    if data.preprocess is not None:
        return data.preprocess
    if entry.name in facts.SIDE_BY_SIDE:
        of = "its code prepares nothing, so as CMD's" if entry.name == "crrl" else "as in its code, for gaps too"
        return "agcn", f"{of}: around the first person's spine, so that two bodies keep their distance"
    return "crossclr", "as in the public code, with a rotation that never turns the wrong way"


def _preset(entry: MethodEntry) -> list[str]:
    if not entry.recipe.paper_code:
        return []
    return ["  # preset: paper_code   takes every quirk of the public code; leave `preprocess` out then"]


def _own(data: Dataset, entry: MethodEntry, first: int) -> list[str]:
    published, table = entry.config(), field_table(entry.config)
    names = facts.OWN[entry.name]
    if data.few and "projector_norm" in table and not published.projector_norm:
        names = (*names, "projector_norm")
    steps = data.clips // entry.recipe.optim.batch * first
    lines = [Line("frames", str(entry.recipe.frames), "published; another T costs another array on disk")]
    lines += [own_line(data, table[name], getattr(published, name), steps) for name in names]
    rest = [name for name in table if name not in names]
    reasons = [why for name in rest if (why := facts.REASONS.get((entry.name, name)))]
    return [*block(lines, 6), *remark("; ".join([as_published(rest, published), *reasons]) if rest else "", 6)]


def _augment(entry: MethodEntry) -> list[str]:
    if entry.name in facts.NO_AUGMENT:
        return remark("augment: nothing, as published", 2)
    recipe = entry.recipe.augment
    table = field_table(type(recipe))
    active = ", ".join(f"{name} {value_text(getattr(recipe, name))}" for name in OPS if getattr(recipe, name))
    strength = drawn(table["strength"], recipe.strength, why=f"scales the recipe: {active}")
    free = [drawn(table[name], getattr(recipe, name)) for name in facts.AUGMENT.get(entry.name, ())]
    return ["  augment:", *block([strength, *free], 4)]


def _encoder(data: Dataset, entry: MethodEntry) -> list[str]:
    recipe = entry.recipe.encoder
    table = field_table(type(recipe))
    names = facts.ENCODER.get(entry.name, facts.ENCODERS[recipe.name])
    names += tuple(name for name in facts.FEW_ENCODERS[recipe.name] if data.few and name not in names)
    lines = [drawn(table[name], getattr(recipe, name)) for name in names]
    rest = [name for name in table if name not in (*names, "name")]
    return [*block(lines, 4), *remark(as_published(rest, recipe, recipe.name), 4)]


def _optim(data: Dataset, entry: MethodEntry) -> list[str]:
    recipe = entry.recipe.optim
    table = field_table(type(recipe))
    spans = {"lr": facts.LR.get(entry.name, facts.SGD), **facts.OPTIM.get(entry.name, {})}
    if data.few:
        spans["batch"] = facts.FEW_BATCH[recipe.batch]
    lines = [drawn(table[name], getattr(recipe, name), span) for name, span in spans.items()]
    if entry.name in data.step_at:
        value, why = data.step_at[entry.name]
        lines.append(Line("step_at", value_text(value), f"published {recipe.step_at:.4g} for NTU; {why}"))
    known = {line.name for line in lines}
    return [*block(lines, 4), *remark(as_published([name for name in table if name not in known], recipe), 4)]


def _streams(entry: MethodEntry) -> list[str]:
    use = value_text(entry.recipe.use)
    if issubclass(entry.cls, JointMethod):
        lines = [
            Line("use", use, "published"),
            Line("loss", domain_text(Range("simplex", entry.recipe.use)), "published equal: the plain sum"),
            Line("fuse", "fitted", "published equal; these weights are found out of fold, on training subjects"),
        ]
        return ["  streams:", *block(lines, 4)]
    if entry.cls.only_streams:
        return flow("streams", {"use": use}, 2, "the only one: the key already is the motion")
    said = "[joint, motion, bone] trains three branches; `fuse: fitted` then weighs their votes"
    return flow("streams", {"use": use}, 2, said)


def _starts(data: Dataset, entry: MethodEntry) -> list[str]:
    if entry.name not in data.own:
        return ["start_from: [published]"]
    setting, why = data.own[entry.name]
    return block([Line("start_from", f"[published, {{method: {{{entry.name}: {{{setting}}}}}}}]", why)], 0)
