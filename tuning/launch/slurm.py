"""Searches as jobs of SLURM: the commands that one would type, and what this machine can see of the run."""

from __future__ import annotations

import getpass
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from methods.errors import InputError, WorkFailed
from tuning.launch.kinds import ClusterFile
from tuning.launch.memory import remember, remembered
from tuning.launch.native import answer, need, perform, word
from tuning.launch.package import read_space
from tuning.launch.variables import check_environment

Say = Callable[[str], None]
_OUTPUT = re.compile(r"^#SBATCH\s+(?:--output(?:=|\s+)|-o\s*)(?P<name>\"[^\"]*\"|'[^']*'|\S+)", re.MULTILINE)
_DEFAULT_OUTPUT = "slurm-%j.out"


def submit(
    cluster: ClusterFile,
    space: Path,
    *,
    runs: str | None = None,
    store: str | None = None,
    data_from: str | None = None,
    env: Mapping[str, str] | None = None,
    again: str = "",
    run: bool = False,
    say: Say = print,
) -> str:
    """Print the `sbatch` line, or run it; returns the search's name.

    ``runs`` is a folder that this machine and the nodes see alike. Raises ``InputError`` for a wrong space or no
    `sbatch` here, and ``WorkFailed`` where SLURM refuses.
    """
    _, spec, _ = read_space(space)
    line = submit_line(cluster, space, runs=runs, store=store, data_from=data_from, env=check_environment(env or {}))
    if not run:
        say(line)
        return spec.name
    need("sbatch")
    job = answer(line).strip().partition(";")[0]
    if not re.fullmatch(r"\d+", job):
        raise WorkFailed(f"sbatch did not answer with a job's number but with {job[:80]!r}")
    log = Path.cwd() / log_name(cluster, job)
    folder = str(Path(runs or "runs").expanduser().absolute())
    remember(cluster.name, spec.name, {"job": job, "runs": folder, "log": str(log), "again": again})
    say(f"{spec.name}: job {job}, its words come to {log}")
    return spec.name


def submit_line(
    cluster: ClusterFile,
    space: Path,
    *,
    runs: str | None,
    store: str | None,
    data_from: str | None,
    env: Mapping[str, str],
) -> str:
    """The one command; what stands behind the script's name goes to `skeltune search`."""
    words = ["env", *(f"{name}={value}" for name, value in env.items())] if env else []
    words += ["sbatch", "--parsable", word(cluster.path), word(space)]
    for option, value in (("--runs", runs), ("--store", store), ("--data-from", data_from)):
        words += [option, str(Path(value).expanduser()) if option == "--runs" else value] if value else []
    return shlex.join(words)


def log_name(cluster: ClusterFile, job: str) -> str:
    """The file that SLURM writes the job's words to, relative to where it was submitted; unknown parts are ``*``."""
    match = _OUTPUT.search(cluster.text)
    pattern = match["name"].strip("\"'") if match else _DEFAULT_OUTPUT
    known = {"x": cluster.name, "j": job, "A": job, "u": getpass.getuser(), "%": "%"}
    return re.sub(r"%\d*([A-Za-z%])", lambda found: known.get(found[1], "*"), pattern)


def queue_line(cluster: ClusterFile, job: str = "") -> str:
    """`squeue` for one job, or for all jobs of this file that are the user's."""
    return shlex.join(["squeue", f"--jobs={job}"] if job else ["squeue", *_mine(cluster)])


def cancel_line(cluster: ClusterFile) -> str:
    """`scancel` for all jobs of this file that are the user's."""
    return shlex.join(["scancel", *_mine(cluster)])


def log_line(cluster: ClusterFile, facts: Mapping[str, Any], follow: bool) -> str:
    """`tail -F` of a job's log, or `cat`; without a known job of every log of this file here."""
    if facts.get("log"):
        name = shlex.quote(str(facts["log"]))
    else:  # the shell is to find it: quoted but for the stars
        name = "*".join(shlex.quote(part) if part else "" for part in log_name(cluster, "*").split("*"))
    return f"tail -n +1 -F {name}" if follow else f"cat {name}"


def status(cluster: ClusterFile, name: str | None, *, runs: str | None, run: bool, say: Say) -> None:
    """Print or run `squeue`, and tell of each search whose run folder this machine sees."""
    known = remembered(cluster.name)
    facts = known.get(name, {}) if name else {}
    if run:
        need("squeue")
    try:
        perform([queue_line(cluster, str(facts.get("job") or ""))], run=run, say=say)
    except WorkFailed:
        say(f"SLURM no longer knows the job {facts.get('job')}: it has ended")
    for line in run_lines({name: facts} if name else known, runs):
        say(line)


def run_lines(known: Mapping[str, Mapping[str, Any]], runs: str | None) -> list[str]:
    """`skeltune status` of each search whose folder this machine sees."""
    from tuning.report import read_run, status_lines

    found = []
    for name, facts in known.items():
        folder = Path(runs or str(facts.get("runs") or "runs")).expanduser()
        try:
            found += status_lines(read_run(name, folder))
        except InputError as error:
            found.append(f"{name}: {error.faults[0]}")
    return found


def logs(cluster: ClusterFile, name: str, *, follow: bool, run: bool, say: Say) -> None:
    """Print or run the command that shows a job's log."""
    perform([log_line(cluster, remembered(cluster.name).get(name, {}), follow)], run=run, say=say)


def down(cluster: ClusterFile, *, force: bool, run: bool, say: Say) -> None:
    """Print or run `scancel`. Raises ``InputError`` while jobs are queued or run, unless ``force``."""
    if run:
        need("scancel")
        queued = answer(f"{queue_line(cluster)} --noheader --format=%i").split()
        if not queued:
            say(f"no job of '{cluster.name}' is queued or runs")
            return
        if not force:
            raise InputError(
                f"{len(queued)} jobs of '{cluster.name}' are queued or run ({', '.join(queued[:5])}): --force cancels "
                "them; each search goes on with the same submit"
            )
    perform([cancel_line(cluster)], run=run, say=say)


def _mine(cluster: ClusterFile) -> list[str]:
    return [f"--user={getpass.getuser()}", f"--name={cluster.name}"]
