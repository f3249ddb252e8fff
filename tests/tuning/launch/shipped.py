"""The shipped cluster files, as a user fills them in."""

from __future__ import annotations

import re
from pathlib import Path

from tuning.launch.kinds import ClusterFile, parse_cluster_text

FOLDER = Path(__file__).resolve().parents[3] / "cluster"
FILES = ("onprem.yaml", "aws.yaml", "gcp.yaml", "kuberay.yaml", "slurm.sh")
WORDS = {
    "EDIT-head-address": "10.0.0.1",
    "EDIT-worker-address": "10.0.0.2",
    "EDIT-another-worker-address": "10.0.0.3",
    "EDIT-/shared": "/shared",
    "EDIT-folder-with-the-skeltune-wheel": str(FOLDER),  # any folder that is there
    "~/.ssh/id_ed25519": str(FOLDER / "README.md"),  # any file that is there
    "EDIT-ami": "ami-0123456789abcdef0",
    "EDIT-region": "europe-west4",
    "EDIT-zone": "europe-west4-a",
}
LEFT = re.compile(r"EDIT-(?P<word>[\w.-]+)")


def text_of(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def filled_text(name: str) -> str:
    text = text_of(name)
    for word, value in WORDS.items():
        text = text.replace(word, value)
    return LEFT.sub(lambda match: match["word"], text)


def filled(name: str) -> ClusterFile:
    return parse_cluster_text(filled_text(name), Path(name))
