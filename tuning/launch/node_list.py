"""Who is in a Ray cluster, asked through a tunnel to the head's loopback, with the token."""

from __future__ import annotations

import enum
import http.client
import json
import socket
from dataclasses import dataclass
from typing import Any

from methods.errors import InputError, WorkFailed
from tuning.launch.home import token_of
from tuning.launch.kinds import ClusterFile
from tuning.launch.remote import NobodyListens, head_of, tunnel

DASHBOARD_PORT = 8265
_LARGEST = 64 << 20  # bytes of an answer that are read
_UNAUTHORIZED = (401, 403)


class Answer(enum.Enum):
    """What the head's dashboard says to somebody without a token, and then to us."""

    NOBODY = "nothing answers"
    OPEN = "it answers without a token"
    FOREIGN = "it does not take our token"
    OURS = "it takes our token"


@dataclass(frozen=True)
class NodeInfo:
    """A node of the cluster: its address, what it brings, and for one that is gone why."""

    address: str
    alive: bool
    cpu: float
    gpu: float
    why: str
    head: bool = False


def temp_dir(cluster: ClusterFile) -> str:
    """The folder on every node by which the cluster's processes are known; Ray's own temp-dir is ``ray`` in it."""
    return f"/tmp/skeltune-{cluster.name}"


def address_of(host: str) -> str:
    """The IP address of ``host``, by which Ray calls its nodes; the name itself if nobody knows it."""
    try:
        return socket.gethostbyname(host)
    except OSError:
        return host


def nodes(cluster: ClusterFile) -> list[NodeInfo]:
    """All nodes that the head knows, the dead too, the head first.

    Raises ``InputError`` if there is no token here or it is not taken, ``WorkFailed`` if the head cannot be asked.
    """
    token = token_of(cluster.name)
    with tunnel(head_of(cluster), DASHBOARD_PORT) as port:
        status, body = _get(port, "/api/v0/nodes?detail=1&limit=10000", token)
    if status in _UNAUTHORIZED:
        raise InputError(f"the head does not take the token of '{cluster.name}' that lies on this machine")
    try:
        rows = json.loads(body)["data"]["result"]["result"]
        found = [_node(row) for row in rows]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise WorkFailed(f"the head's list of nodes cannot be read (HTTP {status})") from None
    return sorted(found, key=lambda node: (not node.head, not node.alive, node.address))


def ask(cluster: ClusterFile) -> Answer:
    """Who answers at the head's dashboard. Raises as ``tunnel`` does if the head cannot be reached."""
    path = "/api/v0/nodes?limit=1"
    try:
        with tunnel(head_of(cluster), DASHBOARD_PORT) as port:
            status, _ = _get(port, path, None)
            if status not in _UNAUTHORIZED:
                return Answer.OPEN
            try:
                token = token_of(cluster.name)
            except InputError:
                return Answer.FOREIGN
            status, _ = _get(port, path, token)
            return Answer.FOREIGN if status in _UNAUTHORIZED else Answer.OURS
    except NobodyListens:
        return Answer.NOBODY


def _get(port: int, path: str, token: str | None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
        answer = connection.getresponse()
        return answer.status, answer.read(_LARGEST)
    except (OSError, http.client.HTTPException) as error:
        raise WorkFailed(f"the head's dashboard does not answer: {error!r}") from None
    finally:
        connection.close()


def _node(row: dict[str, Any]) -> NodeInfo:
    total = row.get("resources_total") or {}
    alive = row["state"] == "ALIVE"
    why = "" if alive else " ".join(str(row.get("state_message") or "gone").split())[:300]
    return NodeInfo(
        address=str(row["node_ip"]),
        alive=alive,
        cpu=float(total.get("CPU") or 0),
        gpu=float(total.get("GPU") or 0),
        why=why,
        head=bool(row.get("is_head_node")),
    )
