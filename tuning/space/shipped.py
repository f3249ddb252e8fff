"""The shipped search spaces, written from the methods' own tables: ``python -m tuning.space.shipped search_spaces``.

Eighty files that differ in what their method and their dataset ask for are kept in step by being written, and a test
holds that what lies under ``search_spaces`` is what this writes. People edit a copy.
"""

from __future__ import annotations

import sys
from pathlib import Path

from methods.registry import get_method
from tuning.space.shipped_compare import compare
from tuning.space.shipped_facts import DATASETS, TITLES
from tuning.space.shipped_method import space_of
from tuning.space.shipped_small import small_compare, small_space


def shipped_files() -> dict[str, str]:
    """Path below ``search_spaces`` -> text, of every file that is written (``quickstart`` and UTD-MHAD's are not)."""
    entries = [get_method(name) for name in TITLES]
    found: dict[str, str] = {}
    for data in DATASETS:
        found |= {f"{data.folder}/{entry.name}.yaml": space_of(data, entry) for entry in entries}
        found[f"{data.folder}/compare.yaml"] = compare(data, entries)
    found |= {f"small/{entry.name}.yaml": small_space(entry) for entry in entries}
    found["small/compare.yaml"] = small_compare(entries)
    return found


def write(folder: Path) -> list[Path]:
    """Write every file below ``folder``; returns their paths."""
    written = []
    for name, text in shipped_files().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written


if __name__ == "__main__":
    print(f"{len(write(Path(sys.argv[1] if len(sys.argv) > 1 else 'search_spaces')))} files")
