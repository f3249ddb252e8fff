"""How a search on a Ray cluster is doing: its nodes, its jobs, and each run's own journal, copied here and replayed."""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from methods.errors import InputError, WorkFailed, did_you_mean
from tuning.launch.job_client import job_client
from tuning.launch.jobs import Job, Say, jobs_of, newest, read_jobs
from tuning.launch.kinds import ClusterFile
from tuning.launch.memory import folder_of, remembered
from tuning.launch.standing import RunState, Standing
from tuning.run_files import BEST_FILE, JOURNAL_FILE, SPACE_FILE

if TYPE_CHECKING:
    from tuning.launch.ray_cluster import NodeInfo
    from tuning.launch.remote import Host

COPIED = (JOURNAL_FILE, SPACE_FILE, BEST_FILE, "nodes.json")
AGAIN_S = 3.0  # between attempts to reach a cluster that is being followed
PATIENCE_S = 600.0  # how long it may be away
_STAMP = ".copied"  # its time is that of the last copy


def status(cluster: ClusterFile, run: str | None = None, *, runs: str | None = None) -> Standing:
    """Ask the cluster, copy what its searches have written into a folder here, and read that.

    With ``run`` of that one alone, which with ``runs`` (its parent folder there) need not have been submitted from
    here. Where the head cannot be asked, the last copies are told. Raises ``InputError`` and ``WorkFailed`` where
    there is nothing to tell.
    """
    from tuning.launch.ray_cluster import nodes
    from tuning.launch.remote import head_of

    known = remembered(cluster.name)
    trouble, there, jobs, head = "", list["NodeInfo"](), list[Job](), None
    try:
        there, jobs, head = list(nodes(cluster)), jobs_of(cluster), head_of(cluster)
    except (InputError, WorkFailed) as error:
        if not known:
            raise
        trouble = str(error).splitlines()[0]
    last = {job.run: job for job in jobs if job.run}  # the newest of a name stands last
    names = dict.fromkeys([*last, *known, *([run] if run and runs else [])])
    if run is not None and run not in names:
        raise InputError(f"no search '{run}' on cluster '{cluster.name}'{did_you_mean(run, names)}")
    states = [
        _state(cluster, name, last.get(name), known.get(name, {}), head, runs) for name in names if run in (None, name)
    ]
    others = tuple(job for job in jobs if not job.run and job.active)
    return Standing(cluster.name, trouble, tuple(there), tuple(states), others if run is None else ())


def _state(
    cluster: ClusterFile, run: str, job: Job | None, facts: dict[str, Any], head: Host | None, runs: str | None
) -> RunState:
    try:
        folder = folder_of(cluster.name, run)
    except ValueError as error:  # somebody else's job of that shape
        return RunState(str(run)[:100], job.state if job else "", job.id if job else "", str(error), None, None, "")
    there = runs or (job.runs if job else "") or str(facts.get("runs") or "")
    fault = _copy(head, there, run, folder) if head is not None and there else ""
    (line, *more), summary = _read(run, folder)
    again = (job.again if job else "") or str(facts.get("again") or "")
    remark = fault or _remark(job, head is not None, bool(summary and summary["best"]), again, cluster)
    job_id = job.id if job else str(facts.get("job") or "")
    state, age = job.state if job else "", _age(folder)
    return RunState(run, state, job_id, line, summary, age, str(folder), remark, tuple(more))


def _copy(head: Host, runs: str, run: str, folder: Path) -> str:
    """Bring the copy up to date; why that was not possible, or empty."""
    from tuning.launch.remote import copy_from

    base = f"{runs.removeprefix('~/')}/{run}"  # a relative path begins in the home
    try:
        copy_from(head, [f"{base}/{name}" for name in COPIED], folder, missing_ok=True)
    except (InputError, WorkFailed) as error:
        return f"its run folder could not be copied: {str(error).splitlines()[0]}"
    (folder / _STAMP).touch()
    return ""


def _read(run: str, folder: Path) -> tuple[list[str], dict[str, Any] | None]:
    from tuning.report import read_run, status_lines

    if not (folder / JOURNAL_FILE).is_file():
        return [f"{run}: has not written anything yet"], None
    try:
        found = read_run(run, folder.parent)
        return status_lines(found), found.summary()
    except InputError as error:
        return [f"{run}: the copy in {folder} cannot be read: {error.faults[0].splitlines()[0]}"], None


def _remark(job: Job | None, asked: bool, best: bool, again: str, cluster: ClusterFile) -> str:
    """What is wrong with a search that should be running, and what goes on with it."""
    if best or not asked or (job is not None and job.active):
        return ""
    if job is None:
        why = "no job of it is there: the head was started anew since"
    elif job.state == "SUCCEEDED":
        why = "it ended before its best.yaml"
    else:
        why = f"its driver is gone: {job.message.partition(', last available logs')[0] or job.state.lower()}"
    return f"{why}; this goes on: {again or f'skeltune cluster submit {shlex.quote(str(cluster.path))} SPACE'}"


def _age(folder: Path) -> float | None:
    try:
        return max(0.0, time.time() - (folder / _STAMP).stat().st_mtime)
    except FileNotFoundError:
        return None


class _Printed:
    """Prints a log that may come again from its beginning, each character once."""

    def __init__(self, echo: Callable[[str], None]) -> None:
        self._echo, self.shown, self._seen = echo, 0, 0  # characters printed, and given in this telling
        self.fault: OSError | None = None  # of our own output, not of the cluster

    def anew(self) -> None:
        self._seen = 0

    def take(self, text: str) -> None:
        fresh = text[max(0, self.shown - self._seen) :]
        self._seen += len(text)
        self.shown = max(self.shown, self._seen)
        try:
            if fresh:
                self._echo(fresh)
        except OSError as error:
            self.fault = error
            raise


def logs(
    cluster: ClusterFile,
    run: str,
    *,
    follow: bool = False,
    echo: Callable[[str], None],
    say: Say,
    wait: Callable[[float], None] = time.sleep,
) -> Job:
    """Print what the job of ``run`` has printed; with ``follow`` until it ends, also over broken connections.

    Returns the job as it was last seen. Raises ``InputError`` for no such job and ``WorkFailed`` where the cluster
    cannot be asked, while following after ten minutes without it.
    """
    if not follow:
        with job_client(cluster) as client:
            job = newest(read_jobs(client), run, cluster)
            echo(client.get_job_logs(job.id))
            return job
    printed, away, job_id, reached = _Printed(echo), 0.0, run, False
    while True:
        before = printed.shown
        try:
            with job_client(cluster) as client:
                job_id, reached = newest(read_jobs(client), job_id, cluster).id, True
                printed.anew()
                asyncio.run(_tail(client, job_id, printed))
                job = newest(read_jobs(client), job_id, cluster)
            away = 0.0
            if not job.active:
                return job
        except WorkFailed as error:
            if printed.fault is not None:
                raise printed.fault from None
            if printed.shown > before:
                away = 0.0
            if away >= PATIENCE_S or not reached:
                raise
            if away == 0.0:
                say(f"{error}; trying again")
        away += AGAIN_S
        wait(AGAIN_S)


async def _tail(client: Any, job_id: str, printed: _Printed) -> None:
    async for text in client.tail_job_logs(job_id):
        printed.take(text)
