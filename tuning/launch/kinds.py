"""What a cluster file is: for Ray's launcher, for SLURM or for KubeRay; told from what it says, not from its name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tuning.config.errors import Place
from tuning.config.yaml_source import LARGEST_FILE, Leaf, Node, Report, Table, parse_node, plain, read_file

Kind = Literal["ray", "slurm", "kuberay"]

# It names a folder, a job, a Kubernetes object and a tag of cloud machines: the narrowest of their rules.
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_SBATCH = re.compile(r"^#SBATCH(?=\s|$)", re.MULTILINE)
_JOB_NAME = re.compile(r"^#SBATCH\s+(?:--job-name(?:=|\s+)|-J\s*)(?P<name>\"[^\"]*\"|'[^']*'|\S+)", re.MULTILINE)
_MARKER = re.compile(r"^(?:---|\.\.\.)(?=\s|$)")
_BREAK = re.compile(r"(?<=\n)|(?<=\r)(?!\n)|(?<=[\x85\u2028\u2029])")  # after each line, its end kept
_KUBERAY_KINDS = ("RayCluster", "RayJob")


@dataclass(frozen=True)
class ClusterFile:
    """One cluster file, read but not yet checked.

    ``name`` is the cluster's: ``cluster_name``, ``metadata.name`` of the RayCluster (else of the RayJob), or
    ``--job-name``. ``documents`` holds a tree for each YAML document (none for SLURM), ``tree`` the one that the name
    was read from; ``plain`` is the same as dicts, tuples and scalars: one dict for Ray, a tuple of dicts for KubeRay.
    """

    path: Path
    kind: Kind
    name: str
    text: str
    tree: Table | None
    documents: tuple[Table, ...]
    plain: Any


def read_cluster_file(path: Path) -> ClusterFile:
    """Read ``path`` and tell its kind and name.

    Raises ``InputError`` for what is no text file and ``ConfigError`` with all faults for what is no YAML, is of no
    kind that we know, or has no usable name.
    """
    return parse_cluster_text(read_file(path), path)


def parse_cluster_text(text: str, path: Path) -> ClusterFile:
    """The cluster file that ``text`` is; ``path`` is for messages. Raises ``ConfigError``."""
    report = Report(str(path), text)
    if len(text) > LARGEST_FILE:
        report.add(Place(1, 1), f"the file has {len(text)} characters; a cluster file has at most {LARGEST_FILE}")
    elif not text.strip():
        report.add(Place(1, 1), "the file is empty")
    report.raise_if_any()
    if text.startswith("#!") or _SBATCH.search(text):
        return _slurm(text, path, report)
    documents = _documents(text, report)
    report.raise_if_any()
    kinds = [_kind_of(document) for document in documents]
    if len(documents) == 1 and kinds == ["ray"]:
        tree = documents[0]
        name = _name(tree.get("cluster_name"), tree.key_place("cluster_name"), "cluster_name", report)
        report.raise_if_any()
        return ClusterFile(path, "ray", name, text, tree, documents, plain(tree))
    if "kuberay" in kinds:
        return _kuberay(text, path, documents, report)
    report.add(documents[0].place, _UNKNOWN)
    report.raise_if_any()
    raise AssertionError("unreachable")


_UNKNOWN = (
    "this is no cluster file: one for Ray's launcher has 'provider:', one for KubeRay has 'apiVersion:', "
    "and one for SLURM is a shell script with #SBATCH lines"
)


def place_at(text: str, start: int, width: int = 1) -> Place:
    """Where the character ``start`` of ``text`` stands."""
    before = [line for line in _BREAK.split(text[:start]) if line]
    if not before or before[-1][-1] in "\n\r\x85\u2028\u2029":
        return Place(len(before) + 1, 1, width)
    return Place(len(before), len(before[-1]) + 1, width)


def _kind_of(document: Table) -> Kind | None:
    if document.get("apiVersion") is not None:
        return "kuberay"
    return "ray" if "provider" in document.words or "cluster_name" in document.words else None


def _documents(text: str, report: Report) -> tuple[Table, ...]:
    """The tree of each YAML document; each is read behind as many empty lines as stand before it in the file."""
    found: list[Table] = []
    for before, chunk in _chunks(text):
        root = parse_node("\n" * before + chunk, report)
        if isinstance(root, Table):
            found.append(root)
        elif root is not None:
            report.add(root.place, _UNKNOWN)
    if not found and not report.faults:
        report.add(Place(1, 1), "the file says nothing: it holds only comments")
    return tuple(found)


def _chunks(text: str) -> Iterator[tuple[int, str]]:
    """``(lines before it, text)`` of each document that holds more than comments."""
    start = 0
    lines: list[str] = []
    for number, line in enumerate(part for part in _BREAK.split(text) if part):
        marker = _MARKER.match(line)
        if marker:
            if _says_something(lines):
                yield start, "".join(lines)
            start, lines = number, []
        lines.append("   " + line[3:] if marker else line)
    if _says_something(lines):
        yield start, "".join(lines)


def _says_something(lines: list[str]) -> bool:
    return any(line.strip() and not line.lstrip().startswith("#") for line in lines)


def _kuberay(text: str, path: Path, documents: tuple[Table, ...], report: Report) -> ClusterFile:
    """The name is the RayCluster's, or the RayJob's where there is no RayCluster."""
    for wanted in _KUBERAY_KINDS:
        for document in documents:
            kind = document.get("kind")
            if isinstance(kind, Leaf) and kind.value == wanted:
                metadata = document.get("metadata")
                inner = metadata if isinstance(metadata, Table) else Table(document.key_place("metadata"), ())
                name = _name(inner.get("name"), inner.key_place("name"), "metadata.name", report)
                report.raise_if_any()
                return ClusterFile(path, "kuberay", name, text, document, documents, tuple(map(plain, documents)))
    report.add(documents[0].key_place("kind"), "no document of this file is of kind RayCluster or RayJob")
    report.raise_if_any()
    raise AssertionError("unreachable")


def _slurm(text: str, path: Path, report: Report) -> ClusterFile:
    if not _SBATCH.search(text):
        report.add(Place(1, 1), "this shell script has no #SBATCH line, so SLURM would not know what to give it")
        report.raise_if_any()
    match = _JOB_NAME.search(text)
    if match is None:
        first = _SBATCH.search(text)
        report.add(
            place_at(text, first.start() if first else 0, 7), "no '#SBATCH --job-name=NAME': it names the cluster"
        )
        report.raise_if_any()
        raise AssertionError("unreachable")
    place = place_at(text, match.start("name"), len(match["name"]))
    name = _name(Leaf(place, match["name"].strip("\"'")), place, "--job-name", report)
    report.raise_if_any()
    return ClusterFile(path, "slurm", name, text, None, (), None)


def _name(node: Node | None, place: Place, key: str, report: Report) -> str:
    """The cluster's name, or a fault at ``place``."""
    value = node.value if isinstance(node, Leaf) else None
    if isinstance(value, str) and NAME.fullmatch(value):
        return value
    if node is None:
        report.add(place, f"the file needs '{key}': it names the cluster")
    else:
        shown = "a list or mapping" if not isinstance(node, Leaf) else repr(value)
        rule = "1 to 40 small letters, digits and hyphens, and begin with a letter or digit"
        at = node.place if isinstance(node, Leaf) else place
        report.add(at, f"'{key}' names the cluster and must be {rule}, got {shown}")
    return ""
