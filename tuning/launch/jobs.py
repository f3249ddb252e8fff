"""Searches as jobs of a Ray cluster: submitted, listed and stopped through a tunnel to the head's own job server."""

from __future__ import annotations

import datetime
import shlex
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from methods.errors import InputError
from tuning.launch.job_client import job_client
from tuning.launch.kinds import ClusterFile
from tuning.launch.memory import remember
from tuning.launch.package import Staged, megabytes, stage
from tuning.launch.variables import check_environment

Say = Callable[[str], None]
ACTIVE = ("PENDING", "RUNNING")
RUNS = "~/skeltune-runs"  # on the nodes, where the file names no folder that they share
TOLD_EVERY = 10.0  # seconds between lines about a long upload
_RUN, _FOLDER, _SPACE, _AGAIN = "skeltune_run", "skeltune_runs", "skeltune_space", "skeltune_again"


@dataclass(frozen=True)
class Job:
    """A job of a cluster.

    ``run``, ``runs`` (its parent folder there), ``space`` (hash) and ``again`` (the command that goes on) are empty for
    jobs of others. ``started``: seconds since 1970, 0 for not yet.
    """

    id: str
    state: str
    message: str
    started: float
    run: str = ""
    runs: str = ""
    space: str = ""
    again: str = ""

    @property
    def active(self) -> bool:
        return self.state in ACTIVE

    @property
    def title(self) -> str:
        """The search's name, or the id of a job that is no search."""
        return self.run or self.id


def submit(
    cluster: ClusterFile,
    space: Path,
    *,
    runs: str | None = None,
    store: str | None = None,
    data_from: str | None = None,
    env: Mapping[str, str] | None = None,
    again: str = "",
    say: Say = print,
) -> str:
    """Start the search of ``space`` on the head of ``cluster`` and return the job's id.

    ``runs``: the folder on the nodes for run folders. ``store``, ``data_from``: URLs for the search. ``env``: for the
    job's processes. ``again``: the command that goes on, for whoever reads the status. Raises ``InputError`` for what
    the user can mend, also where the same search runs there, and ``WorkFailed`` where the cluster does not answer.
    """
    from tuning.launch.check import grown

    folder = check_runs(runs or default_runs(cluster))
    passed = check_environment(env or {})
    expect = expectation(grown(cluster))
    with tempfile.TemporaryDirectory(prefix="skeltune-") as temporary:
        staged = stage(space, Path(temporary, "job"))
        for note in staged.notes:
            say(f"note: {note}")
        request = request_of(staged, runs=folder, store=store, data_from=data_from, expect=expect, env=passed)
        request["metadata"][_AGAIN] = again
        request["submission_id"] = f"{staged.run}-{_now():%Y%m%dT%H%M%SZ}"
        with job_client(cluster) as client:
            for job in read_jobs(client):
                if job.active and job.run == staged.run:
                    raise InputError(
                        f"search '{staged.run}' runs on cluster '{cluster.name}' already, as {job.id}; look at it: "
                        f"skeltune cluster logs {shlex.quote(str(cluster.path))} {staged.run}"
                    )
            say(f"sending {len(staged.files)} files, {megabytes(staged.size)} (nothing where they are there already)")
            with _told("still sending", say):
                job_id = str(client.submit_job(**request))
    remember(cluster.name, staged.run, {"job": job_id, "runs": folder, "space": staged.space_hash, "again": again})
    return job_id


def request_of(
    staged: Staged,
    *,
    runs: str,
    store: str | None,
    data_from: str | None,
    expect: str,
    env: Mapping[str, str],
) -> dict[str, Any]:
    """What Ray's job server is asked for; the search asks for no processor, so that it runs on the head."""
    return {
        "entrypoint": entrypoint(staged.space_name, runs=runs, store=store, data_from=data_from, expect=expect),
        "runtime_env": {"working_dir": str(staged.folder), "env_vars": {"OMP_NUM_THREADS": "1", **env}},
        "metadata": {_RUN: staged.run, _FOLDER: runs, _SPACE: staged.space_hash},
        "entrypoint_num_cpus": 0,
    }


def entrypoint(
    space: str, *, runs: str, store: str | None, data_from: str | None, expect: str, address: str = "auto"
) -> str:
    """The shell command of a search on a cluster: every word survives the shell as it is."""
    words = ["python", "-m", "tuning", "search", space, "--runs"]
    rest = ["--address", address]
    for option, value in (("--store", store), ("--data-from", data_from), ("--expect", expect)):
        rest += [option, value] if value else []
    return f"{shlex.join(words)} {home_quoted(runs)} {shlex.join(rest)}"


def home_quoted(path: str) -> str:
    """``path`` quoted for a shell, but for a leading ``~/``, which means the home there."""
    return f"~/{shlex.quote(path[2:])}" if path.startswith("~/") and path[2:] else shlex.quote(path)


def default_runs(cluster: ClusterFile) -> str:
    """`runs` in the first folder that the file says all nodes share, else in the home."""
    from tuning.launch.check import shared_by

    first = next((folder for folder in shared_by(cluster) if folder.startswith("/")), "")
    return f"{first.rstrip('/')}/runs" if first else RUNS


def check_runs(runs: str) -> str:
    """``runs`` as it is; raises ``InputError`` for what would be lost with the job's folder, or is no path."""
    if not runs.startswith(("/", "~/")) or runs == "~/" or any(ord(c) < 32 or ord(c) == 127 for c in runs):
        raise InputError(f"--runs {runs!r}: give an absolute path on the cluster's nodes, or one that begins with ~/")
    return runs


def expectation(resources: Mapping[str, float]) -> str:
    """`CPU=32,GPU=8`: what the cluster has when it has grown; empty where that is not known."""
    named = {name: value for name, value in resources.items() if name in ("CPU", "GPU") and value > 0}
    return ",".join(f"{name}={named[name]:g}" for name in sorted(named))


def jobs_of(cluster: ClusterFile) -> list[Job]:
    """All jobs that the cluster knows, the newest last. Raises ``WorkFailed`` where it does not answer."""
    with job_client(cluster) as client:
        return read_jobs(client)


def running(cluster: ClusterFile) -> list[str]:
    """What runs on the cluster: names of searches, and ids of jobs of others."""
    return [job.title for job in jobs_of(cluster) if job.active]


def stop(cluster: ClusterFile, run: str) -> bool:
    """End the search ``run``; it stays resumable. False if it was not running; ``InputError`` for no such job."""
    with job_client(cluster) as client:
        job = newest(read_jobs(client), run, cluster)
        return job.active and bool(client.stop_job(job.id))


def newest(jobs: list[Job], run: str, cluster: ClusterFile) -> Job:
    """The last job of the search ``run`` (or with that id). Raises ``InputError`` with the names that there are."""
    from methods.errors import did_you_mean

    found = [job for job in jobs if run in (job.run, job.id)]
    if found:
        return found[-1]
    known = {job.title for job in jobs}
    raise InputError(f"no job of a search '{run}' on cluster '{cluster.name}'{did_you_mean(run, known)}")


def read_jobs(client: Any) -> list[Job]:
    """All jobs that a job server knows, the newest last."""
    found = []
    for told in client.list_jobs():
        about = told.metadata or {}
        found.append(
            Job(
                id=str(told.submission_id or told.job_id or "?"),
                state=str(getattr(told.status, "value", told.status)),
                message=" ".join((told.message or "").split()),
                started=(told.start_time or 0) / 1000,
                run=about.get(_RUN, ""),
                runs=about.get(_FOLDER, ""),
                space=about.get(_SPACE, ""),
                again=about.get(_AGAIN, ""),
            )
        )
    return sorted(found, key=lambda job: (job.active and not job.started, job.started))


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


@contextmanager
def _told(what: str, say: Say, every_s: float = TOLD_EVERY) -> Iterator[None]:
    """Say every so often that it is still going on."""
    over, begun = threading.Event(), time.monotonic()

    def tell() -> None:
        while not over.wait(every_s):
            say(f"{what}, {time.monotonic() - begun:.0f} s so far")

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()
