"""What somebody without the token can do: ``python probe.py`` reads its targets as JSON.

Every listening port is asked in every language that Ray speaks, once without a token and once with a wrong one. A JSON
list comes out: each page with its status, each gRPC port with how many methods refused, and each method that did not.
"""

from __future__ import annotations

import http.client
import json
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

WRONG = "0123456789abcdef" * 4
TOKENS = (None, WRONG)
PAGES = (
    *("/", "/metrics", "/api/version", "/api/jobs/", "/nodes?view=summary", "/api/v0/actors", "/api/v0/nodes", "/logs"),
    *("/api/v0/logs/file?filename=raylet.out", "/api/job_agent/jobs/", "/api/cluster_status", "/api/ray/version"),
    *("/api/healthz", "/api/local_raylet_healthz", "/api/gcs_healthz", "/worker/traceback?pid=1", "/log_proxy"),
    *("/api/actors/kill?actor_id=00", "/api/profiling_enabled", "/timeline", "/api/packages/protocol/gcs/x.zip"),
)
POSTS = (
    ("/api/jobs/", b'{"entrypoint": "touch %s"}'),
    ("/api/job_agent/jobs/", b'{"entrypoint": "touch %s"}'),
    ("/get_or_create_runtime_env", b""),
    ("/get_runtime_envs_info", b""),
    ("/report_events", b"[]"),
)
REFUSED = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
# No such method, or no gRPC at all on that port.
NOT_THERE = (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNAVAILABLE)


def speaks_http(address: str, port: int) -> bool:
    """True if a plain HTTP/1.1 request is answered in kind (a gRPC server is not able to)."""
    try:
        with socket.create_connection((address, port), timeout=3) as connection:
            connection.settimeout(3)
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return connection.recv(16).startswith(b"HTTP/1.")
    except OSError:
        return False


def over_http(address: str, port: int, mark: str) -> Iterator[dict[str, Any]]:
    """Each page and each post, and whether it was refused."""
    for token in TOKENS:
        asked = [("GET", page, None) for page in PAGES]
        asked += [("POST", page, body.replace(b"%s", mark.encode())) for page, body in POSTS]
        for method, page, body in asked:
            connection = http.client.HTTPConnection(address, port, timeout=10)
            headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
            try:
                connection.request(method, page, body, headers)
                answer = connection.getresponse()
                status, size = answer.status, len(answer.read())
            except (OSError, http.client.HTTPException) as error:
                status, size = type(error).__name__, 0
            finally:
                connection.close()
            wrong = "wrong token" if token else "no token"
            yield {"kind": "HTTP", "what": f"{method} {page}", "who": wrong, "said": str(status), "bytes": size}


def over_grpc(address: str, port: int, methods: list[str], token: str | None, as_node: bool) -> dict[str, str]:
    """The status of each method, called with an empty message, as a node of the cluster would or not."""
    options = [("grpc.enable_http_proxy", 0)]
    target = f"{address}:{port}"
    channel = grpc.insecure_channel(target, options=options)
    metadata = [("node_id", "11" * 28)] if as_node else []
    metadata += [("authorization", f"Bearer {token}")] if token else []
    said = {}
    with channel:
        for method in methods:
            try:
                channel.unary_unary(method)(b"", timeout=3, metadata=metadata)
                said[method] = "OK"
            except grpc.RpcError as error:
                said[method] = error.code().name
                if error.code() is grpc.StatusCode.UNAVAILABLE:
                    break  # not gRPC: every method would say so
    return said


def one(address: str, port: int, methods: list[str], mark: str, as_node: bool) -> list[dict[str, Any]]:
    """Everything about one port; a gRPC port's refusals are only counted."""
    where = {"host": address, "port": port}
    if speaks_http(address, port):
        return [where | row for row in over_http(address, port, mark)]
    rows = []
    for token in TOKENS:
        said = over_grpc(address, port, methods, token, as_node)
        refused = sum(code in {status.name for status in REFUSED} for code in said.values())
        who = "wrong token" if token else "no token"
        rows.append(where | {"kind": "gRPC", "what": "", "who": who, "said": "refused", "methods": refused})
        quiet = {status.name for status in (*REFUSED, *NOT_THERE)}
        loud = {name: code for name, code in said.items() if code not in quiet}
        rows += [where | {"kind": "gRPC", "what": name, "who": who, "said": code} for name, code in loud.items()]
    return rows


def main() -> None:
    """Read the targets from standard input, print the findings."""
    order = json.load(sys.stdin)
    jobs = [(address, port) for address, ports in order["targets"].items() for port in ports]
    with ThreadPoolExecutor(max_workers=8) as pool:
        found = list(pool.map(lambda job: one(*job, order["methods"], order["mark"], order.get("as_node", True)), jobs))
    json.dump([row for rows in found for row in rows], sys.stdout)


if __name__ == "__main__":
    main()
