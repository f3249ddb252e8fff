"""All methods on one dataset, on equal terms: three streams, one preprocessing, one length of a run."""

from __future__ import annotations

from collections.abc import Sequence

from methods.augment.policy import AugmentConfig
from methods.fields import field_table
from methods.registry import MethodEntry
from tuning.space import shipped_facts as facts
from tuning.space.domains import value_text
from tuning.space.lines import Line, block, domain_text, drawn, remark
from tuning.space.shipped_facts import Dataset
from tuning.space.shipped_method import ETA, UNKNOWN_COST, first_rung, head, late_stages, opening, own_line, schedule

SHARED = ("crossclr", "one for all, that of most; the files of scdnet, cmd and crrl have agcn")
LENGTH = "one length for all (published: 60 to 451); their schedules are fractions of it"
STREAMS = (
    Line("use", "[joint, motion, bone]"),
    Line("loss", "equal", "a weight means nothing to methods whose streams share nothing"),
    Line("fuse", "fitted", "published equal; these weights are found out of fold, on training subjects"),
)


def compare(data: Dataset, entries: Sequence[MethodEntry]) -> str:
    """The text of ``<dataset>/compare.yaml``: the methods that take three streams, each with a few parameters."""
    fitting = [entry for entry in entries if not entry.cls.only_streams]
    alone = ", ".join(entry.name for entry in entries if entry.cls.only_streams)
    first = max(first_rung(data, data.compared, entry.recipe.optim.batch) for entry in fitting)
    lines = [
        *opening(
            data,
            "compare",
            f"Which method suits {data.title}? {len(fitting)} methods on equal terms: joint, motion and bone, one "
            f"preprocessing, {data.compared} epochs.",
        ),
        *remark(
            f"A branch draws a few parameters of its method; {data.folder}/METHOD draws more. Not here: {alone}, which "
            "takes the joint stream alone. On the joint stream, for about a third of the work: `use: [joint]`, without "
            "crossclr (it needs two streams), cmcs and cmd (they are cmal and SkeletonCLR with a GRU then), with "
            f"{alone}."
        ),
        *remark(UNKNOWN_COST),
        *head(data, "compare", data.preprocess or SHARED),
        "search:",
        "  method:",
        "    one_of:",
        *(line for entry in fitting for line in _branch(data, entry, first)),
        "  augment:",
        *block([drawn(field_table(AugmentConfig)["strength"], 1.0, why="scales each method's own recipe")], 4),
        "  streams:",
        *block(STREAMS, 4),
        "probe: {kind: linear}",
        *schedule(data.compared, first, LENGTH, late_stages(fitting), per_method=True),
        f"sampler: {{startup_trials: {ETA * len(fitting)}}}",
        *block([Line("start_from", "[published]", "each method once")], 0),
        "budget: {trials: 120, on_end: finish, parallel: auto, per_trial: {gpu: one, cpu: 2}}",
        "finish: {rerun: {top: 3, seeds: 3}, retrain: {seeds: 3}}",
    ]
    return "\n".join(lines) + "\n"


def _branch(data: Dataset, entry: MethodEntry, first: int) -> list[str]:
    published, table = entry.config(), field_table(entry.config)
    names = facts.COMPARED[entry.name]
    if data.few and "queue" in table:
        names = (*names, "queue")
    recipe = entry.recipe.optim
    steps = data.clips // recipe.batch * first
    lines = [own_line(data, table[name], getattr(published, name), steps) for name in names]
    optim, said = {"lr": domain_text(facts.LR.get(entry.name, facts.SGD))}, f"published lr {value_text(recipe.lr)}"
    if data.few:
        optim["batch"], said = domain_text(facts.FEW_BATCH[recipe.batch]), f"{said}, batch {recipe.batch}"
    inside = ", ".join(f"{key}: {value}" for key, value in optim.items())
    return [f"      {entry.name}:", *block([*lines, Line("optim", f"{{{inside}}}", said)], 8)]
