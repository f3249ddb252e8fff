"""One look at a cluster file before anything is started: every fault at once, at its line; notes for the rest."""

from __future__ import annotations

from pathlib import Path

from tuning.config.errors import ConfigError, Fault
from tuning.config.yaml_source import Report
from tuning.launch.against_space import check_space, shared_by
from tuning.launch.kinds import ClusterFile
from tuning.launch.kube_file import check_kube_file
from tuning.launch.ray_file import check_ray_file
from tuning.launch.size import grown, machines, smallest
from tuning.launch.slurm_file import check_slurm_file

__all__ = ["check_cluster", "grown", "machines", "shared_by", "smallest"]


def check_cluster(
    file: ClusterFile,
    space: Path | None = None,
    *,
    runs: Path | None = None,
    store: str | None = None,
    data_from: str | None = None,
) -> list[str]:
    """Check ``file``, and whether the search ``space`` can run on its cluster; returns notes to print, in order.

    ``runs``, ``store`` and ``data_from`` are what `submit` will be given. Raises ``ConfigError`` with all faults of
    both files, and ``InputError`` where ``space`` is no readable file.
    """
    report = Report(str(file.path), file.text)
    look = {"ray": check_ray_file, "kuberay": check_kube_file, "slurm": check_slurm_file}[file.kind]
    notes = look(file, report)
    faults = _in_order(report)
    if space is not None:
        theirs, more = check_space(file, space, runs=runs, store=store, data_from=data_from)
        faults += _in_order(theirs)
        notes += more
    if faults:
        raise ConfigError(faults)
    return notes


def _in_order(report: Report) -> list[Fault]:
    return sorted(report.faults, key=lambda fault: (fault.line, fault.col))
