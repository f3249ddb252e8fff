"""What this machine remembers of searches on clusters: how each was submitted, and the last copy of its run folder.

It lies beside the folders of the clusters' keys, not in them: those travel to every node.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tuning.files import write_text
from tuning.launch.home import cluster_home

SUBMITTED = "submitted.json"
RUN_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}")  # as in a search space: it names a folder


def runs_of(cluster: str) -> Path:
    """The folder with a folder for each search of ``cluster``: what `skeltune report --runs` takes."""
    home = cluster_home(cluster)
    return home.parent.parent / "cluster_runs" / home.name


def folder_of(cluster: str, run: str) -> Path:
    """The folder of one search, made if need be. Raises ``ValueError`` for what cannot be a search's name."""
    if not RUN_NAME.fullmatch(run):
        raise ValueError(f"{run!r} is no name of a search")
    folder = runs_of(cluster) / run
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def remember(cluster: str, run: str, facts: dict[str, Any]) -> None:
    """Keep how ``run`` was submitted: ``job``, ``runs``, ``again`` (the command), ... as plain values."""
    write_text(folder_of(cluster, run) / SUBMITTED, json.dumps(facts, indent=2) + "\n")


def remembered(cluster: str) -> dict[str, dict[str, Any]]:
    """``run -> facts`` of all searches that were submitted from here; what cannot be read is left out."""
    found = {}
    for path in sorted(runs_of(cluster).glob(f"*/{SUBMITTED}")):
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(facts, dict):
            found[path.parent.name] = facts
    return found
