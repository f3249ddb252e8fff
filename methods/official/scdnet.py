"""SCD-Net's repository (cong-wu/SCD-Net, commit 0af1b19): one network of two paths, its momentum copy, three queues."""

from __future__ import annotations

import re

from methods.official.places import Place, queue_place

_LEVEL = {"t": "time", "s": "space", "i": "instance"}
# What the part of a path that follows its name becomes, by successive substitution.
_GRAPH = (
    (r"^data_bn\.", "norm."),
    (r"^l(\d+)\.", lambda found: f"units.{int(found[1]) - 1}."),
    (r"\.gcn1\.PA$", ".spatial.graph"),
    (r"\.gcn1\.convs\.(\d)\.conv1\.", r".spatial.relations.\1.receiver."),
    (r"\.gcn1\.convs\.(\d)\.conv2\.", r".spatial.relations.\1.sender."),
    (r"\.gcn1\.convs\.(\d)\.conv3\.", r".spatial.relations.\1.value."),
    (r"\.gcn1\.convs\.(\d)\.conv4\.", r".spatial.relations.\1.relation."),
    (r"\.gcn1\.down\.", ".spatial.shortcut."),
    (r"\.gcn1\.bn\.", ".spatial.norm."),
    (r"\.gcn1\.alpha$", ".spatial.alpha"),
    (r"\.tcn1\.branches\.(\d)\.3\.conv\.", r".temporal.branches.\1.3."),
    (r"\.tcn1\.branches\.(\d)\.3\.bn\.", r".temporal.branches.\1.4."),
    (r"\.tcn1\.", ".temporal."),
    (r"\.residual\.conv\.", ".shortcut.0."),
    (r"\.residual\.bn\.", ".shortcut.1."),
)


def scdnet(name: str) -> Place | None:
    """Our place of an entry of its pretraining network (``scd/builder.py``); None for a classifier."""
    for letter, level in _LEVEL.items():
        queue = queue_place(name, "queue", f"{letter}_queue")
        if queue is not None:
            return Place(queue.name.replace("keys", f"keys_{level}"), queue.lies)
    found = re.fullmatch(r"encoder_([qk])\.(.*)", name)
    if found is None:
        return None
    slow, copy = ("slow_", ".target") if found[1] == "k" else ("", "")
    head = re.fullmatch(r"([tsi])_proj\.(.*)", found[2])
    if head is not None:
        return Place(f"{slow}projectors.{_LEVEL[head[1]]}{copy}.{head[2]}")
    inner = twopath_name(found[2].removeprefix("encoder."))
    return None if inner is None else Place(f"{slow}encoder{copy}.{inner}")


def twopath_name(name: str) -> str | None:
    """Our name of an entry of its encoder (``scd/scd_encoder.py``); None for what is no part of it."""
    found = re.fullmatch(r"(gcn|channel)_([ts])\.(.*)", name) or re.fullmatch(r"()([ts])_encoder\.layers\.(.*)", name)
    if found is None:
        return None
    part, path, rest = found[1], _LEVEL[found[2]], found[3]
    if part != "gcn":
        return f"{path}.{'tokens' if part else 'attention'}.{rest}"
    for pattern, ours in _GRAPH:
        rest = re.sub(pattern, ours, rest)
    return f"{path}.graph.{rest}"
