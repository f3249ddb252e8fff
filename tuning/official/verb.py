"""What `skeltune import` and `skeltune export` do: options to values, the work, the files that they write."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from methods.data import SkeletonDataset, open_dataset
from methods.data.layouts import Layout
from methods.errors import InputError
from tuning.datasets import converted_path
from tuning.files import write_text
from tuning.layout_file import find_layout
from tuning.official.export import export_official
from tuning.official.weights import Imported, import_official, write_imported
from tuning.train import load_config


def import_verb(
    files: Sequence[Path],
    repository: str,
    *,
    out: Path | None = None,
    stream: str | None = None,
    layout: str | None = None,
    data: Path | None = None,
    changes: Sequence[str] = (),
    say: Callable[[str], None] = print,
) -> Path:
    """Import ``files`` and return the checkpoint's path.

    ``layout``: a name or a file. ``data``: the dataset that it is to be evaluated on, whose joints are taken and whose
    clips must fit. ``changes``: NAME=VALUE, a value as JSON or else a word. Raises ``InputError``, nothing being
    written then.
    """
    settings = dict(_change(change) for change in changes)
    dataset = None if data is None else open_dataset(data if (data / "meta.json").is_file() else converted_path(data))
    joints = find_layout(layout) if layout is not None else dataset.layout if dataset is not None else None
    imported = import_official(files, repository, layout=joints, stream=stream, settings=settings)
    if dataset is not None:
        _check(dataset, imported, joints)
    target = out if out is not None else files[0].with_name(f"{files[0].stem}.skeltune.pt")
    write_imported(target, imported, files)
    for note in imported.notes:
        say(note)
    say(f"{target}: evaluate it with: skeltune evaluate {target} --data {data or 'DIR'}")
    return target


def export_verb(config: Path, repository: str, *, out: Path | None = None, say: Callable[[str], None] = print) -> None:
    """Write the one configuration of a file for ``repository``, to ``out`` or as it is said.

    Raises ``InputError`` when something is still free in the file, or the repository does not have its method.
    """
    _, trial = load_config(config)
    exported = export_official(trial, repository, str(config), str(out or "FILE"))
    if out is None:
        say(exported.text.rstrip("\n"))
        return
    try:
        write_text(out, exported.text)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror})") from error
    for line in exported.text.splitlines():
        if line.startswith("#"):
            say(line.removeprefix("# "))
    say(f"written: {out}")


def _change(change: str) -> tuple[str, Any]:
    name, given, value = change.partition("=")
    if not given:
        raise InputError(f"--set {change}: write NAME=VALUE")
    try:
        parsed = json.loads(value)
    except json.JSONDecodeError:
        return name, value
    return name, tuple(parsed) if isinstance(parsed, list) else parsed


def _check(dataset: SkeletonDataset, imported: Imported, joints: Layout | None) -> None:
    """The dataset's clips must be of the sizes that some encoders have in their weights."""
    faults = []
    if joints is not None and dataset.layout != joints:
        faults.append(f"{dataset.path}: its joints are {dataset.layout.name}, not {joints.name}")
    if dataset.num_channels != imported.channels:
        faults.append(
            f"{dataset.path}: {dataset.num_channels} coordinates a joint, the weights take {imported.channels}"
        )
    if imported.config.method in ("cmd", "crrl", "scdnet") and dataset.num_persons != imported.persons:
        faults.append(f"{dataset.path}: {dataset.num_persons} bodies a clip, the weights take {imported.persons}")
    if faults:
        raise InputError(*faults)
