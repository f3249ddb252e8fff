"""The files that a search space refers to and a job needs beside it: where a warm start comes from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from methods.errors import InputError
from tuning.config.schema import SearchSpec
from tuning.run_files import JOURNAL_FILE, SPACE_FILE


def referred(spec: SearchSpec) -> tuple[dict[str, Path], tuple[str, ...]]:
    """``path relative to the space file -> file here`` of what is to be sent, and notes about what is not.

    Only what a relative path leads to, beside the YAML or from the working directory, is sent. Raises ``InputError``
    for a file out of a cluster's own folder: a token must not travel by accident.
    """
    from tuning.engine.studies import hidden

    files: dict[str, Path] = {}
    notes: list[str] = []
    for text in spec.warm_start:
        found = None if "://" in text else _find(text, spec)
        if "://" in text:
            notes.append(f"warm_start {hidden(text)} is read by the job: the cluster's head must reach it")
        elif found is None and _fixed(text):
            notes.append(f"warm_start {text} is not sent: it must lie at that path on the cluster's head")
        elif found is None:
            notes.append(f"warm_start {text} is not here: the job looks for it in its run folder's parent (--runs)")
        else:
            files |= dict(_with_company(*found))
    return files, tuple(notes)


def _fixed(text: str) -> bool:
    return text.startswith("~") or Path(text).is_absolute()


def _find(text: str, spec: SearchSpec) -> tuple[str, Path] | None:
    """The name, without what follows ``#``, and what lies there; None for nothing and for absolute paths."""
    if _fixed(text):
        return None
    for name in dict.fromkeys((text, text.partition("#")[0])):
        for root in (Path(spec.origin), Path.cwd()):
            if name and (root / name).exists():
                return name, root / name
    return None


def _with_company(name: str, path: Path) -> Iterator[tuple[str, Path]]:
    """A run folder is its journal and its space; a journal's space lies beside it."""
    if path.is_dir():
        if not (path / JOURNAL_FILE).is_file():
            raise InputError(f"warm_start {name}: {path} is no run folder: it holds no {JOURNAL_FILE}")
        name, path = f"{name}/{JOURNAL_FILE}", path / JOURNAL_FILE
    from tuning.launch.home import cluster_home

    if cluster_home("-").parent.resolve() in path.resolve().parents:
        raise InputError(f"warm_start {name}: {path} lies in the folder of a cluster's keys and is not sent")
    yield name, path
    company = path.with_name(SPACE_FILE)
    if path.name.endswith(".jsonl") and company.is_file():
        yield str(Path(name).with_name(SPACE_FILE)), company
