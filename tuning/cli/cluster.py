"""`skeltune cluster check | up | submit | status | logs | down`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tuning.launch.kinds import ClusterFile

app = typer.Typer(
    help="Searches on a cluster: machines of your own, a cloud, SLURM, Kubernetes. The file says which.",
    no_args_is_help=True,
)

File = Annotated[Path, typer.Argument(help="A cluster file: for Ray's launcher, a SLURM script, or for KubeRay.")]
Run = Annotated[
    bool, typer.Option("--run", help="SLURM and KubeRay: run the native commands instead of printing them.")
]


@app.command(epilog="Example: `skeltune cluster check cluster/onprem.yaml my.yaml --runs /shared/runs`")
def check(
    file: File,
    space: Annotated[str | None, typer.Argument(help="Also: can this search run there?")] = None,
    runs: Annotated[str | None, typer.Option(help="The folder on the nodes for run folders.")] = None,
) -> None:
    """Say everything that is wrong with a cluster file, without touching a machine. Exit code 2 for a fault."""
    cluster = _read(file)
    for note in _checked(cluster, space, runs):
        typer.echo(f"note: {note}")
    typer.echo(f"{file}: fine")


_UP = """Example: `skeltune cluster up cluster/onprem.yaml`

    a fresh token lies in ~/.skeltune/clusters/onprem
    Ray's launcher is at work
    3 of 3 nodes are there
    dashboard: ssh -N -L 8265:127.0.0.1:8265 -p 22 me@10.0.0.1
"""


@app.command(epilog=_UP)
def up(
    file: File,
    space: Annotated[str | None, typer.Argument(help="Also: can this search run there?")] = None,
    nodes: Annotated[int | None, typer.Option(min=1, help="Wait for so many; default: all that the file says.")] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait for them.")] = 600.0,
    tls: Annotated[bool, typer.Option("--tls", help="Also encrypt what the nodes say to each other.")] = False,
    run: Run = False,
) -> None:
    """Bring the cluster up, or what is missing of it, and wait until the nodes are there."""
    cluster = _read(file)
    for note in _checked(cluster, space):
        typer.echo(f"note: {note}", err=True)
    if cluster.kind == "slurm":
        typer.echo(
            f"SLURM lends nodes job by job, so there is nothing to bring up: skeltune cluster submit {file} SPACE"
        )
    elif cluster.kind == "kuberay":
        from tuning.launch import kuberay

        kuberay.up(cluster, run=run, say=typer.echo)
    else:
        from tuning.launch.ray_cluster import up as bring_up

        bring_up(cluster, tls=tls, want=nodes, timeout_s=timeout, say=typer.echo)


_SUBMIT = """Examples:

`skeltune cluster submit cluster/onprem.yaml my.yaml --runs /shared/runs`

`skeltune cluster submit cluster/aws.yaml my.yaml --store s3://lab/runs --data-from s3://lab/ntu60`

It ends with:

    my: submitted as my-20260301T120000Z
    skeltune cluster status cluster/onprem.yaml my
    skeltune cluster logs cluster/onprem.yaml my --follow
"""


@app.command(epilog=_SUBMIT)
def submit(
    file: File,
    space: Annotated[str, typer.Argument(help="A search-space YAML, or the name of a shipped one.")],
    runs: Annotated[
        str | None,
        typer.Option(help="The folder on the nodes for run folders; all of them must see it, or use --store."),
    ] = None,
    store: Annotated[str | None, typer.Option(help="A URL to which journal and checkpoints are copied.")] = None,
    data_from: Annotated[str | None, typer.Option(help="A URL that each node fetches the dataset from.")] = None,
    env: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE for the search's processes, or NAME for its value here.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="KubeRay: the file to write the manifest to.")] = None,
    run: Run = False,
) -> None:
    """Start a search on the cluster. The same command goes on with a search that was interrupted."""
    from tuning.launch.variables import given

    cluster = _read(file)
    for note in _checked(cluster, space, runs, store, data_from):
        typer.echo(f"note: {note}", err=True)
    passed = given(env or [])
    words = ["skeltune", "cluster", "submit", str(file), space]
    for option, value in (("--runs", runs), ("--store", store), ("--data-from", data_from)):
        words += [option, value] if value else []
    again = shlex.join([*words, *(word for pair in env or [] for word in ("--env", pair)), *(["--run"] if run else [])])
    path = Path(space)
    if cluster.kind == "kuberay":
        from tuning.launch import kuberay

        name = kuberay.submit(
            cluster, path, runs=runs, store=store, data_from=data_from, env=passed, out=out, run=run, say=typer.echo
        )
    elif cluster.kind == "slurm":
        from tuning.launch import slurm

        name = slurm.submit(
            cluster, path, runs=runs, store=store, data_from=data_from, env=passed, again=again, run=run, say=typer.echo
        )
    else:
        from tuning.launch import jobs

        job = jobs.submit(
            cluster, path, runs=runs, store=store, data_from=data_from, env=passed, again=again, say=typer.echo
        )
        name = job.rpartition("-")[0]
        typer.echo(f"{name}: submitted as {job}")
    native = " --run" if cluster.kind != "ray" else ""
    # What is printed for a shell or for kubectl stays that alone on standard output.
    for verb, option in (("status", ""), ("logs", " --follow")):
        typer.echo(
            f"skeltune cluster {verb} {shlex.quote(str(file))} {name}{option}{native}", err=bool(native) and not run
        )


_STATUS = """Example: `skeltune cluster status cluster/onprem.yaml`

    onprem: 3 nodes, 24 CPU, 8 GPU
    my: 7 of 40 trials ended (5 culled, 2 top), 8 running or to continue
      running my-20260301T120000Z
"""


@app.command(epilog=_STATUS)
def status(
    file: File,
    name: Annotated[str | None, typer.Argument(metavar="[RUN]", help="One search; default: all.")] = None,
    runs: Annotated[str | None, typer.Option(help="Where its run folder lies, if it was submitted elsewhere.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
    run: Run = False,
) -> None:
    """Say which nodes are there and how far each search is. Exit code 1 where the cluster cannot be asked."""
    cluster = _read(file)
    if cluster.kind != "ray":
        from methods.errors import InputError
        from tuning.launch import kuberay, slurm

        if as_json:
            raise InputError("--json: for Ray's own clusters; squeue and kubectl have options of their own for that")
        if cluster.kind == "slurm":
            slurm.status(cluster, name, runs=runs, run=run, say=typer.echo)
        else:
            kuberay.status(cluster, name, run=run, say=typer.echo)
        return
    from tuning.launch.follow import status as ask

    standing = ask(cluster, name, runs=runs)
    if as_json:
        typer.echo(json.dumps(standing.as_json(), indent=2))
    else:
        for line in standing.lines():
            typer.echo(line)
    if standing.trouble:
        raise typer.Exit(1)


@app.command(epilog="Example: `skeltune cluster logs cluster/onprem.yaml my --follow`")
def logs(
    file: File,
    name: Annotated[str, typer.Argument(metavar="RUN", help="The search's name.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the search ends.")] = False,
    run: Run = False,
) -> None:
    """Show what a search prints. With --follow exit code 1 where it ends without success."""
    cluster = _read(file)
    if cluster.kind != "ray":
        _native(cluster).logs(cluster, name, follow=follow, run=run, say=typer.echo)
    else:
        from functools import partial

        from tuning.launch.follow import logs as show

        job = show(cluster, name, follow=follow, echo=partial(typer.echo, nl=False), say=partial(typer.echo, err=True))
        if follow and job.state != "SUCCEEDED":
            typer.echo(f"skeltune: {job.title}: {job.state.lower()}", err=True)
            raise typer.Exit(1)


@app.command(epilog="Example: `skeltune cluster down cluster/onprem.yaml`")
def down(
    file: File,
    force: Annotated[bool, typer.Option("--force", help="Also while a search runs; it can go on elsewhere.")] = False,
    run: Run = False,
) -> None:
    """End the cluster and look that nothing of it is left."""
    cluster = _read(file)
    if cluster.kind != "ray":
        _native(cluster).down(cluster, force=force, run=run, say=typer.echo)
    else:
        from tuning.launch.jobs import running
        from tuning.launch.ray_cluster import down as end

        end(cluster, force=force, running=lambda: running(cluster), say=typer.echo)


def _read(file: Path) -> ClusterFile:
    from tuning.launch.kinds import read_cluster_file

    return read_cluster_file(file)


def _native(cluster: ClusterFile) -> ModuleType:
    """The module with the commands of a cluster that is not Ray's own."""
    from tuning.launch import kuberay, slurm

    return slurm if cluster.kind == "slurm" else kuberay


def _checked(
    cluster: ClusterFile,
    space: str | None = None,
    runs: str | None = None,
    store: str | None = None,
    data_from: str | None = None,
) -> list[str]:
    """The notes about the file, and about the search on its cluster; raises for every fault."""
    from tuning.launch.check import check_cluster
    from tuning.resources import find_space

    path = None if space is None else find_space(space)
    return check_cluster(cluster, path, runs=Path(runs) if runs else None, store=store, data_from=data_from)
