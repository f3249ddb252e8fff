"""A commented search space from the field tables of the methods: editing beats remembering."""

from __future__ import annotations

from collections.abc import Sequence

from methods.base import JointMethod
from methods.fields import Range, field_table
from methods.registry import MethodEntry, get_method, list_methods
from tuning.config.schema import SamplerSpec
from tuning.space.domains import value_text
from tuning.space.lines import Line, block, domain_text, drawn, fixed, holds, remark

ETA = 3


def template(methods: Sequence[str] = (), *, data: str = "synthetic", name: str = "my-search") -> str:
    """YAML text that loads as it is: every parameter of each method, those with a suggested range drawn from it.

    Without ``methods`` it is of all that are registered. The encoder is that of each method's own architecture, at its
    published sizes. Raises ``InputError`` for an unknown method.
    """
    entries = [get_method(method) for method in dict.fromkeys(methods or list_methods())]
    longest = max(entry.recipe.epochs for entry in entries)
    named = ", ".join(entry.name for entry in entries)
    lines = [
        *remark(f"{name}: a search over {named}."),
        *remark(f"Check it with: skeltune check {name}.yaml      Run it with: skeltune search {name}.yaml"),
        "format: 1",
        f"name: {name}",
        "seed: 0",
        "data:",
        *block(_data(data), 2),
        "search:",
        "  method:",
        "    one_of:",
    ]
    for entry in entries:
        lines += _branch(entry)
    lines += [
        "  augment:",
        "    strength: {uniform: [0.2, 1.4]}   # 0 identity, 1 the method's published recipe",
        *_streams(entries),
        "probe: {kind: linear}",
        *_how(longest, len(entries)),
    ]
    return "\n".join(lines) + "\n"


def _how(longest: int, methods: int) -> list[str]:
    """How the space is searched: every word, with what else it may be."""
    several = methods > 1
    asha = [
        Line("min", str(max(1, longest // 9)), "the first rung, in epochs; 200 steps at least"),
        Line("eta", str(ETA), "about one in eta goes on at a rung, to one eta times as far"),
        Line("rule", "promote", "those who do not go on wait; stop: they end, where checkpoints are expensive"),
        Line("ladder", "per_method" if several else "shared", "per_method: below the top within a method"),
        Line("brackets", "1", "2, 3: a share of trials is first judged a rung, two rungs later; for late bloomers"),
        Line("grow", "false", "true: no rung above the second before the order of the best changes; for long runs"),
        Line("repeats", "5", "trials run again to the first rung with another seed: what differs less is a tie"),
    ]
    sampler = [
        Line("name", "portfolio", "rank_gp and tpe by turns, as they fare; or either alone, random, gp, cmaes"),
        Line("startup_trials", str(max(10, ETA * methods)), "drawn from the space, methods in turn"),
        Line(
            "random_share", value_text(SamplerSpec().random_share), "of the later ones too: nothing is missed for good"
        ),
    ]
    budget = [
        Line(
            "trials", str(max(24, ETA**2 * methods)), "or epochs, minutes, gpu_hours, money with price; first to come"
        ),
        Line("in_flight", "finish", "when that is spent, running trials get to their next rung; stop: they end"),
        Line("parallel", "auto", "side by side: what fits"),
        Line("per_trial", "{gpu: one, cpu: 1}", "gpu: 0.5 puts two on a GPU, auto as many as a calibration finds"),
        Line("on_end", "finish", "stop: confirm nothing, export nothing"),
    ]
    lines = [
        Line("objectives", "[top1]", "a second one, gpu_seconds or parameters: a front instead of one best"),
        Line("start_from", "[published]", "then configs of your own"),
        Line("warm_start", "[]", "run folders, journals, Optuna studies, exported configs, to learn from"),
    ]
    finish = [
        Line("rerun", "{top: 3, seeds: 3}", "the best again with new seeds, 3 at most: no more than it takes to tell"),
        Line("retrain", "{seeds: 3}", "the winner on the whole training split; then the test split, once"),
    ]
    return [
        "schedule:",
        *block([Line("unit", "epoch"), Line("max", str(longest), "a full run")], 2),
        "  asha:",
        *block(asha, 4),
        "sampler:",
        *block(sampler, 2),
        *block(lines, 0),
        "budget:",
        *block(budget, 2),
        "finish:",
        *block(finish, 2),
    ]


def _data(data: str) -> list[Line]:
    return [
        Line("set", data, "synthetic, a dataset folder, or a download in a form that we read"),
        Line("split", "xsub", "one that the dataset stores (see `skeltune data inspect`), or {test_subjects: [...]}"),
        Line("validate_on", "auto", "training subjects drawn by the seed; cv for small sets"),
        Line("preprocess", "default", "or another recipe, as crossclr, agcn, ctrgcn, ucla; or a list of steps"),
    ]


def _branch(entry: MethodEntry) -> list[str]:
    published = entry.config()
    own = []
    for field in field_table(entry.config).values():
        value = getattr(published, field.name)
        # The published value belongs into the range, or a search could not even find what the paper used.
        inside = field.range is not None and holds(field.range, value)
        own.append(drawn(field, value) if inside else fixed(field, value, value))
    return [
        f"      {entry.name}:",
        *remark(entry.summary, 8),
        *_stages(entry),
        *block([Line("frames", str(entry.recipe.frames), "published; T"), *own], 8),
        "        optim:",
        *block(_optim(entry), 10),
        "        encoder:   # as published; what may be drawn stands behind each line",
        *block(_encoder(entry), 10),
    ]


def _stages(entry: MethodEntry) -> list[str]:
    stages = entry.cls.stages(entry.config())
    if len(stages) < 2:
        return []
    named = ", ".join(f"{stage.name} from {value_text(stage.start)}" for stage in stages)
    return remark(f"Stages, in shares of the run: {named}. A rung before a stage says nothing of it.", 8)


def _optim(entry: MethodEntry) -> list[Line]:
    """The learning rate around its published value; the rest of the optimiser as published."""
    recipe, table = entry.recipe.optim, field_table(type(entry.recipe.optim))
    around = Range("log", (float(f"{recipe.lr / 10:.3g}"), float(f"{recipe.lr * 3:.3g}")))
    kept = [fixed(table[name], getattr(recipe, name), getattr(recipe, name)) for name in ("name", "batch", "schedule")]
    return [drawn(table["lr"], recipe.lr, around), *kept]


def _encoder(entry: MethodEntry) -> list[Line]:
    """Every setting of the method's own architecture, fixed as published; a suggested range stands in the comment."""
    lines = []
    for field in field_table(type(entry.recipe.encoder)).values():
        several = field.range is not None and len(field.range.bounds) > 1
        hint = f"; {domain_text(field.range)}" if field.range is not None and several else ""
        lines.append(Line(field.name, value_text(getattr(entry.recipe.encoder, field.name)), field.doc + hint))
    return lines


def _streams(entries: Sequence[MethodEntry]) -> list[str]:
    """The published streams; where methods differ in them, none are written, and each keeps its own."""
    uses = {entry.recipe.use for entry in entries}
    if len(uses) > 1:
        text = (
            "streams: each method has its published ones, for no choice suits all; or, for those that take them, "
            "{use: [joint, motion, bone], loss: equal, fuse: fitted}"
        )
        return remark(text, 2)
    (use,) = uses
    together = all(issubclass(entry.cls, JointMethod) for entry in entries) and len(use) > 1
    loss = domain_text(Range("simplex", use)) if together else "equal"
    return [f"  streams: {{use: {value_text(use)}, loss: {loss}, fuse: {'fitted' if len(use) > 1 else 'equal'}}}"]
