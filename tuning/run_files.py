"""What lies in a run folder, and what a trial is called there."""

from __future__ import annotations

SPACE_FILE, JOURNAL_FILE, BEST_FILE, TEST_FILE = "space.yaml", "journal.jsonl", "best.yaml", "test.json"
WEIGHTS_FILE = "best.pt"
MARK_FILE = ".seen"  # a word by which a node knows that it sees this folder
NODES_FILE = "nodes.json"  # the nodes of the cluster as the driver last saw them; for people


def trial_key(trial: int) -> str:
    """t0007: how a trial is called in folders and lines."""
    return f"t{trial:04d}"
