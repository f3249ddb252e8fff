"""A head's job server as far as Ray's client asks it, and programs that only note how they were called."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

RAY_FILE = """cluster_name: lab
provider: {type: local, head_ip: 10.0.0.1, worker_ips: [10.0.0.2]}
auth: {ssh_user: me}
metadata: {shared: [/shared]}
"""


@dataclass
class JobServer:
    """Answers like Ray's dashboard. ``jobs``: what it lists, ``log``: of every job, ``breaks``: so many tails break."""

    token: str
    port: int = 0
    jobs: list[dict[str, Any]] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    breaks: int = 0
    packages: set[str] = field(default_factory=set)
    requests: list[tuple[str, str]] = field(default_factory=list)
    submitted: list[dict[str, Any]] = field(default_factory=list)
    refusal: str = ""
    after_log: str = ""  # the state of all jobs once a tail has come to its end

    def add(
        self, run: str, state: str, *, started: int = 1, runs: str = "/shared/runs", message: str = "", **more: Any
    ):
        self.jobs.append(
            {
                "type": "SUBMISSION",
                "submission_id": f"{run}-{started}",
                "status": state,
                "entrypoint": "python -m tuning",
                "message": message,
                "start_time": started * 1000,
                "metadata": {"skeltune_run": run, "skeltune_runs": runs, "skeltune_again": "skeltune cluster submit X"},
                **more,
            }
        )

    async def answer(self, request):  # noqa: PLR0911
        from aiohttp import web

        self.requests.append((request.method, request.path))
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.Response(status=403, text="Forbidden: Invalid authentication token")
        if request.path == "/api/version":
            return web.json_response({"version": "4", "ray_version": "2.60.0", "ray_commit": "-"})
        if request.path.startswith("/api/packages/"):
            if request.method == "PUT":
                await request.read()
                self.packages.add(request.path)
            return web.Response(status=200 if request.path in self.packages else 404)
        if request.path.endswith("/logs/tail"):
            return await self._tail(request)
        if request.path.endswith("/logs"):
            return web.json_response({"logs": "".join(self.log)})
        if request.path.endswith("/stop"):
            return web.json_response({"stopped": True})
        if request.method == "POST":
            if self.refusal:
                return web.Response(status=500, text=self.refusal)
            told = await request.json()
            self.submitted.append(told)
            return web.json_response({"job_id": told["submission_id"], "submission_id": told["submission_id"]})
        return web.json_response(self.jobs)

    async def _tail(self, request):
        from aiohttp import web

        socket = web.WebSocketResponse()
        await socket.prepare(request)
        broken = self.breaks > 0
        self.breaks -= broken
        for text in self.log[: len(self.log) // 2] if broken else self.log:
            await socket.send_str(text)
        if broken:
            request.transport.close()
            return socket
        for job in self.jobs:
            job["status"] = self.after_log or job["status"]
        await socket.close()
        return socket


@pytest.fixture
def head(tmp_path, monkeypatch):
    """A cluster 'lab' whose tunnel leads to a :class:`JobServer`."""
    web = pytest.importorskip("aiohttp.web")
    pytest.importorskip("ray.job_submission")
    from tuning.launch import remote
    from tuning.launch.home import make_keys, token_of

    monkeypatch.setenv("SKELTUNE_HOME", str(tmp_path / "home"))
    make_keys("lab", tls=False)
    server = JobServer(token_of("lab"))
    loop, ready = asyncio.new_event_loop(), threading.Event()

    async def begin():
        app = web.Application(client_max_size=1 << 28)
        app.router.add_route("*", "/{rest:.*}", server.answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server.port = site._server.sockets[0].getsockname()[1]
        ready.set()
        return runner

    def serve():
        asyncio.set_event_loop(loop)
        runner = loop.run_until_complete(begin())
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())

    thread = threading.Thread(target=serve)
    thread.start()
    assert ready.wait(10)

    @contextlib.contextmanager
    def tunnel(host, remote_port, **_):
        assert (host.address, remote_port) == ("10.0.0.1", 8265)
        yield server.port

    monkeypatch.setattr(remote, "tunnel", tunnel)
    yield server
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)


@pytest.fixture
def lab(tmp_path):
    """The cluster file of 'lab'."""
    from tuning.launch.kinds import parse_cluster_text

    path = tmp_path / "lab.yaml"
    path.write_text(RAY_FILE)
    return parse_cluster_text(RAY_FILE, path)


@pytest.fixture
def stubs(tmp_path, monkeypatch):
    """``stubs(name, answer, code)`` puts a program on the PATH; ``stubs.calls()``: all calls, each a list of words."""
    folder, record = tmp_path / "bin", tmp_path / "calls"
    folder.mkdir()
    record.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    class Stubs:
        def __call__(self, name: str, answer: str = "", code: int = 0) -> None:
            (folder / f"{name}.out").write_text(answer)
            script = folder / name
            script.write_text(
                f'#!/bin/bash\nfile=$(mktemp "{record}/$(date +%s%N).XXXXXX")\n'
                f'printf "%s\\0" {name} "$@" > "$file"\ncat "{folder}/{name}.out"\nexit {code}\n'
            )
            script.chmod(0o755)

        def calls(self) -> list[list[str]]:
            return [p.read_text().split("\0")[:-1] for p in sorted(record.iterdir())]

    return Stubs()


@pytest.fixture
def golden():
    """``golden(name, text)`` compares with a file beside the tests; SKELTUNE_GOLDEN=write writes it."""

    def compare(name: str, text: str) -> None:
        path = Path(__file__).parent / "golden" / name
        if os.environ.get("SKELTUNE_GOLDEN") == "write":
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        assert text == path.read_text()

    return compare
