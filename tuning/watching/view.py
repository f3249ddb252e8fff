"""The cluster as Ray sees it now: what it has, who came, who went, and where new trials shall not go."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray

from tuning.files import write_text
from tuning.watching.nodes import BAD, BadNodes


class ClusterView:
    """Looked at again every few seconds.

    ``file``: where `status` reads it; ``say`` is told of who comes and goes; ``expected``: resources that the cluster
    will have when it has grown, for a cluster grows when trials wait for it.
    """

    EVERY_S = 5.0

    def __init__(
        self,
        file: Path | None = None,
        say: Callable[[str], None] = lambda line: None,
        expected: Mapping[str, float] | None = None,
    ) -> None:
        self.bad = BadNodes()
        self.expected = dict(expected or {})
        self.now: dict[str, float] = {}
        self.resources: dict[str, float] = dict(self.expected)
        self._file, self._say = file, say
        self._ids: dict[str, tuple[str, ...]] = {}  # address -> Ray's ids of the nodes there
        self._rows: list[dict[str, Any]] = []
        self._looked = -float("inf")

    def look(self) -> None:
        """Ask Ray, if the last answer is some seconds old."""
        if time.monotonic() - self._looked < self.EVERY_S:
            return
        self._looked = time.monotonic()
        with contextlib.suppress(Exception):  # a node that comes or goes: what was known serves until the next look
            self._take(ray.nodes(), ray.cluster_resources())

    def _take(self, nodes: list[Mapping[str, Any]], resources: Mapping[str, float]) -> None:
        self.now = dict(resources)
        both = resources.keys() | self.expected.keys()
        self.resources = {name: max(resources.get(name, 0.0), self.expected.get(name, 0.0)) for name in both}
        alive = [node for node in nodes if node["Alive"]]
        ids: dict[str, tuple[str, ...]] = {}
        for node in alive:
            address = str(node["NodeManagerAddress"])
            ids[address] = (*ids.get(address, ()), str(node["NodeID"]))
        for address in sorted(ids.keys() - self._ids.keys()):
            self.bad.came_back(address)
            if self._ids:
                self._say(f"node {address} joined")
        for address in sorted(self._ids.keys() - ids.keys()):
            self._say(f"node {address} is gone")
        self._ids = ids
        self._write([_row(node, str(node["NodeManagerAddress"]) in self.bad.bad) for node in alive])

    def _write(self, rows: list[dict[str, Any]]) -> None:
        rows = sorted(rows, key=lambda row: (row["node"], row["id"]))
        if self._file is not None and rows != self._rows:
            with contextlib.suppress(OSError):  # for people only; the journal is what must not be lost
                write_text(self._file, json.dumps({"nodes": rows}, indent=1) + "\n")
        self._rows = rows

    def nodes(self) -> list[tuple[str, str]]:
        """Address and Ray's id of every node that is alive."""
        return [(address, node) for address, ids in sorted(self._ids.items()) for node in ids]

    def failed(self, node: str, trial: int, kind: str) -> None:
        """A trial failed on a machine; it is told when that makes it a bad one."""
        if self.bad.failed(node, trial, kind):
            self.tell_bad(node)

    def tell_bad(self, node: str) -> None:
        """A machine has just become a bad one."""
        self._say(f"node {node}: {BAD} different trials failed there one after the other; new ones go elsewhere")

    def avoid(self) -> tuple[str, ...]:
        """Ray's ids of the nodes to keep new trials away from; nobody where there would be no other node."""
        bad = self.bad.bad & self._ids.keys()
        if not bad or bad == self._ids.keys():
            return ()
        return tuple(sorted(node for address in bad for node in self._ids[address]))


def _row(node: Mapping[str, Any], bad: bool) -> dict[str, Any]:
    has = node.get("Resources", {})
    return {
        "node": str(node["NodeManagerAddress"]),
        "host": str(node.get("NodeManagerHostname", "")),
        "id": str(node["NodeID"]),
        "cpu": has.get("CPU", 0.0),
        "gpu": has.get("GPU", 0.0),
        "avoided": bad,
    }
