"""A commented search space from the field tables of the methods: editing beats remembering."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from methods.fields import FieldInfo, Range, field_table
from methods.registry import MethodEntry, get_method, list_methods
from tuning.space.domains import value_text


def template(methods: Sequence[str] = (), *, data: str = "synthetic", name: str = "my-search") -> str:
    """YAML text that loads as it is: every parameter of each method, those with a suggested range drawn from it.

    Raises ``InputError`` for an unknown method.
    """
    entries = [get_method(method) for method in methods or list_methods()]
    longest = max(entry.recipe.epochs for entry in entries)
    lines = [
        f"# {name}: a search over {', '.join(entry.name for entry in entries)}.",
        f"# Check it with: skeltune check {name}.yaml      Run it with: skeltune search {name}.yaml",
        "format: 1",
        f"name: {name}",
        "seed: 0",
        f"data: {{set: {data}, split: xsub, validate_on: auto}}",
        "search:",
        "  method:",
        "    one_of:",
    ]
    for entry in entries:
        lines += _branch(entry)
    lines += [
        "  augment:",
        "    strength: {uniform: [0.2, 1.4]}   # 0 identity, 1 the method's published recipe",
        "  streams: {use: [joint], loss: equal, fuse: equal}",
        "probe: {kind: linear}",
        f"schedule: {{unit: epoch, max: {longest}, asha: {{min: {max(1, longest // 9)}, eta: 3}}}}",
        "start_from: [published]",
        "budget: {trials: 24, on_end: finish, per_trial: {gpu: auto, cpu: 1}}",
        "finish: {rerun: {top: 3, seeds: 3}, retrain: {seeds: 3}}",
    ]
    return "\n".join(lines) + "\n"


def _branch(entry: MethodEntry) -> list[str]:
    lines = [f"      {entry.name}:                       # {entry.summary}"]
    published = entry.config()
    for field in field_table(entry.config).values():
        lines.append(_line(field, getattr(published, field.name), " " * 8))
    optim = field_table(type(entry.recipe.optim))["lr"]
    rate = entry.recipe.optim.lr
    span = Range("log", (float(f"{rate / 10:.3g}"), float(f"{rate * 3:.3g}")))
    lines += [" " * 8 + "optim:", _line(optim, rate, " " * 10, span)]
    return lines


def _line(field: FieldInfo, published: Any, indent: str, span: Range | None = None) -> str:
    span = span or field.range
    # The published value belongs into the range, or a search could not even find what the paper used.
    if span is None or not _holds(span, published):
        value = value_text(published)
    else:
        value = f"{{{span.kind}: {value_text(list(span.bounds))}}}"
    return f"{indent}{field.name}: {value}".ljust(54) + f"  # published {value_text(published)}; {field.doc}"


def _holds(span: Range, value: Any) -> bool:
    if span.kind == "choice":
        return value in span.bounds
    low, high = span.ends()
    return bool(low <= value <= high)
