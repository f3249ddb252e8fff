"""A joint layout written by hand: YAML (or JSON, which is YAML too) -> :class:`methods.data.layouts.Layout`.

```yaml
name: stick_figure
joints: [pelvis, chest, head, left_hand, right_hand, left_foot, right_foot]   # in the order of your arrays
parents:                        # who hangs from whom; the one joint that is not named here is the root
  chest: pelvis
  head: chest
  left_hand: chest
  right_hand: chest
  left_foot: pelvis
  right_foot: pelvis
# Everything below follows from the names where it is left out.
centre: chest                   # what centring subtracts and where the graph's hops begin
mirror: [pelvis, chest, head, right_hand, left_hand, right_foot, left_foot]   # what each joint becomes in a mirror
shoulders: [left_hand, right_hand]   # left, right; null: there are none
spine: [pelvis, chest]          # lower, upper; null: there is none
parts:                          # each joint once; masks and mixing work on these
  trunk: [pelvis, chest, head]
  left_arm: [left_hand]
  right_arm: [right_hand]
  left_leg: [left_foot]
  right_leg: [right_foot]
```

``parents`` may also be a list in the order of the joints, with null for the root, and a joint may be given by its index
(from 0) wherever one is asked for.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from methods.data.layouts import LAYOUTS, Layout
from methods.data.layouts.plain import LayoutError, Where
from methods.errors import InputError, did_you_mean
from tuning.config.errors import ConfigError, Place
from tuning.config.yaml_source import Leaf, Listing, Node, Report, Table, parse_yaml, plain, read_file


def find_layout(name_or_path: str | Path) -> Layout:
    """A built-in layout by name ('ntu25', also 'NTU-25'), else the file; raises as :func:`load_layout_file`."""
    path = Path(name_or_path)
    if path.suffix.lower() in (".yaml", ".yml", ".json") or path.is_file():
        return load_layout_file(path)
    key = re.sub(r"[^a-z0-9]", "", str(name_or_path).lower())
    if key in LAYOUTS:
        return LAYOUTS[key]
    raise InputError(f"unknown layout '{name_or_path}'{did_you_mean(key, LAYOUTS)}; or give the path of a YAML file")


def load_layout_file(path: str | Path) -> Layout:
    """Read a layout from a YAML or JSON file.

    Raises :class:`tuning.config.errors.ConfigError` with every fault and its place, and ``InputError`` for what is no
    readable file.
    """
    return layout_from_text(read_file(Path(path)), str(path))


def layout_from_text(text: str, file: str = "<text>") -> Layout:
    """:func:`load_layout_file` for a text that is at hand; ``file`` names it in messages."""
    report, root = parse_yaml(text, file)
    if root is None:
        raise ConfigError([dataclasses.replace(fault, message=_reworded(fault.message)) for fault in report.faults])
    layout = _read(root, report)
    report.raise_if_any()
    if layout is None:  # cannot be: the report then said why
        raise InputError(f"{file}: this layout cannot be read")
    return layout


def _read(root: Table, report: Report) -> Layout | None:
    try:
        return Layout.from_dict(plain(root))
    except LayoutError as error:
        for where, message in error.found:
            report.add(_place(root, where), message)
        return None


def _place(root: Table, where: Where) -> Place:
    """The value that ``where`` leads to; its key where that is a list or a mapping or there is no such value."""
    node: Node = root
    key = root.place
    for step in where:
        below: Node | None = None
        if isinstance(node, Table):  # an index: parents as a mapping, of the joint that has it
            word = plain(root)["joints"][step] if isinstance(step, int) else step
            key, below = node.key_place(word), node.get(word)
        elif isinstance(node, Listing) and isinstance(step, int) and step < len(node.items):
            below = node.items[step]
        if below is None:
            return key
        node = below
    return node.place if isinstance(node, Leaf) else key


def _reworded(message: str) -> str:
    """What the reader of YAML says of a file without a mapping, of a layout instead of a search space."""
    if message.startswith("the file is empty"):
        return "the file is empty; a layout needs name, joints and parents"
    if message.startswith("a search space is a mapping"):
        return "a layout is a mapping with name, joints and parents"
    return message.replace("a search space", "a layout file")
