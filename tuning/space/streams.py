"""The ``streams`` section: which streams, and weights by name, which a config holds in the order of ``use``."""

from __future__ import annotations

from typing import Any

from methods.errors import did_you_mean
from tuning.config.yaml_source import Leaf, Listing, Node, Report, Table
from tuning.space.domains import Choice, Fixed, Simplex
from tuning.space.fields import Written, read_field, read_fields
from tuning.space.types import hints_of

OWNER = "of 'streams'"
WEIGHTS = ("loss", "fuse")


def read_streams(table: Table, default_use: tuple[str, ...], report: Report) -> dict[str, Written]:
    """Every entry of ``streams``; ``default_use`` holds where ``use`` is not written."""
    from methods.training.config import StreamsConfig

    found = read_fields(table, StreamsConfig, OWNER, report, skip=("use", *WEIGHTS))
    use_node = table.get("use")
    use: tuple[str, ...] | None = default_use
    if use_node is not None:
        written = _read_use(table, use_node, report)
        use = None
        if written is not None:
            found["use"] = written
            use = written.domain.fixed if isinstance(written.domain, Fixed) else None
    for name in WEIGHTS:
        node = table.get(name)
        if node is not None:
            weights = _read_weights(name, table, node, use, report)
            if weights is not None:
                found[name] = weights
    return found


def _read_use(table: Table, node: Node, report: Report) -> Written | None:
    """``use: [joint, bone]`` is a value; ``{choice: [[joint], [joint, bone]]}`` a choice among such lists."""
    from methods.data.streams import STREAMS
    from methods.training.config import StreamsConfig

    key = table.key_place("use")
    if isinstance(node, Leaf) and isinstance(node.value, str):
        report.add(node.place, f"'use' is a list of streams; write [{node.value}]")
        return None
    written = read_field("use", key, node, hints_of(StreamsConfig)["use"], report)
    if written is None:
        return None
    good = True
    for leaf in _leaves(node):
        if leaf.value not in STREAMS:
            report.add(leaf.place, f"unknown stream '{leaf.value}'{did_you_mean(str(leaf.value), STREAMS)}")
            good = False
    return written if good else None


def _leaves(node: Node) -> list[Leaf]:
    if isinstance(node, Leaf):
        return [node]
    inner = (
        node.items if isinstance(node, Listing) else [v for _, _, v in node.entries] if isinstance(node, Table) else ()
    )
    return [leaf for item in inner for leaf in _leaves(item)]


def _read_weights(name: str, table: Table, node: Node, use: tuple[str, ...] | None, report: Report) -> Written | None:
    from methods.training.config import StreamsConfig

    key, hint = table.key_place(name), hints_of(StreamsConfig)[name]
    if isinstance(node, Listing):
        report.add(node.place, f"'{name}' goes by name: write {{joint: 0.5, ...}} or {{simplex: [joint, ...]}}")
        return None
    by_name = isinstance(node, Table) and not (len(node.entries) == 1 and node.words[0] in ("choice", "simplex"))
    if isinstance(node, Table) and by_name:
        return _read_fixed_weights(name, table, node, use, report)
    written = read_field(name, key, node, hint, report)
    if written is None:
        return None
    if isinstance(written.domain, Simplex):
        return _read_simplex_weights(name, table, written, use, report)
    if isinstance(written.domain, Choice) and written.domain.by_index:
        report.add(node.place, f"not supported by this version: '{name}' as a choice among weights")
        return None
    return written


def _read_simplex_weights(
    name: str, table: Table, written: Written, use: tuple[str, ...] | None, report: Report
) -> Written | None:
    """A simplex over exactly the streams in use, in their order, as the config wants its weights."""
    node, names = table.get(name), written.domain.names if isinstance(written.domain, Simplex) else ()
    if not isinstance(node, Table):
        return None
    argument = node.entries[0][2]
    if use is None:
        _no_choice_of_use(name, table, node, report)
        return None
    if set(names) != set(use):
        for leaf in _leaves(argument):
            if leaf.value not in use:
                report.add(leaf.place, _not_used(name, str(leaf.value), use))
        missing = [stream for stream in use if stream not in names]
        if missing:
            report.add(argument.place, f"'{name}': simplex leaves out {', '.join(missing)}, which 'use' lists")
        return None
    return Written(name, Simplex(use), written.key, written.place)


def _read_fixed_weights(
    name: str, table: Table, node: Table, use: tuple[str, ...] | None, report: Report
) -> Written | None:
    """``{joint: 0.5, motion: 0.2, bone: 0.3}`` -> weights in the order of ``use``."""
    from methods.data.streams import STREAMS

    words = [key for key in node.words if key not in STREAMS]
    if len(node.entries) == 1 and words and words[0] not in (use or ()):
        at = node.key_place(words[0])
        report.add(at, f"'{name}': unknown word '{words[0]}'{did_you_mean(words[0], (*STREAMS, 'simplex'))}")
        return None
    if use is None:
        _no_choice_of_use(name, table, node, report)
        return None
    before = len(report.faults)
    values: dict[str, float] = {}
    for stream, at, item in node.entries:
        if stream not in use:
            report.add(at, _not_used(name, stream, use))
            continue
        weight = read_field(f"{name}.{stream}", at, item, float, report)
        if weight is not None and not isinstance(weight.domain, Fixed):
            report.add(item.place, f"'{name}': weights are drawn together; write {{simplex: [{', '.join(use)}]}}")
        elif weight is not None:
            values[stream] = weight.domain.midpoint()
    missing = [stream for stream in use if stream not in node.words]
    if missing:
        report.add(node.place, f"'{name}' gives no weight to {', '.join(missing)}, which 'use' lists")
    if len(report.faults) > before:
        return None
    return Written(name, Fixed(tuple(values[s] for s in use)), table.key_place(name), node.place)


def _no_choice_of_use(name: str, table: Table, node: Node, report: Report) -> None:
    use: Any = table.get("use")
    if isinstance(use, Table):
        report.add(node.place, f"not supported by this version: weights in '{name}' where 'use' is drawn; write equal")


def _not_used(name: str, stream: str, use: tuple[str, ...]) -> str:
    return f"'{name}': stream '{stream}' is not in use{did_you_mean(stream, use)}"
