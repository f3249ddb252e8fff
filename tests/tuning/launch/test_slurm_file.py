"""SLURM scripts: options as sbatch reads them, and planted faults, each at its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuning.config.errors import ConfigError, Fault
from tuning.launch.check import check_cluster, grown, smallest
from tuning.launch.kinds import parse_cluster_text
from tuning.launch.slurm_file import options_of

HEX = "0123456789abcdef" * 4
SCRIPT = """#!/bin/bash
# EDIT the partition where your site has no default
#SBATCH --job-name=lab
#SBATCH -N 3 --ntasks-per-node=1
#SBATCH --cpus-per-task 8   # of each node
#SBATCH --gpus-per-node=a100:2
#SBATCH --time=1-00:00:00
#SBATCH --no-kill
#SBATCH --output="log %j.txt"
##SBATCH --partition=gpu

export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$HOME/token"
unset RAY_AUTH_TOKEN
ray start --head
"""
PLANTED = [  # what is replaced, by what, a piece of the message, the line it is told at
    ("--ntasks-per-node=1", "--ntask-per-node=1", "no option --ntask-per-node; did you mean 'ntasks-per-node'?", 4),
    ("-N 3", "-Y 3", "sbatch has no option -Y", 4),
    ("-N 3", "-N three", "-N must be a number of nodes", 4),
    ("-N 3", "-N 0", "-N must be a number of nodes", 4),
    ("--cpus-per-task 8 ", "--cpus-per-task 0 ", "--cpus-per-task must be a whole number of at least 1, got '0'", 5),
    ("--cpus-per-task 8 ", "--cpus-per-task ", "--cpus-per-task needs a value", 5),
    ("--time=1-00:00:00", "--time=24h", "--time must be minutes, HH:MM:SS or D-HH:MM:SS, got '24h'", 7),
    ("--no-kill", "--mem=32Gi", "--mem must be a size such as 32G, got '32Gi'", 8),
    ("--no-kill", "--time=1", "--time is given twice; the first is on line 7", 8),
    ("--no-kill", "--partition=EDIT-partition", "still to be filled in: EDIT-partition", 8),
    ("--no-kill", "--partition=EDIT", "still to be filled in: EDIT", 8),
    ("#!/bin/bash\n", "# a script\n", "the first line must say what runs this script", 1),
    ("ray start", "#SBATCH --nice=1\nray start", "sbatch reads no #SBATCH line below the first command (line 12)", 14),
    ("RAY_AUTH_MODE=token ", "", "Ray is started without RAY_AUTH_MODE=token", 14),
    ("RAY_AUTH_MODE=token ", "RAY_AUTH_MODE=disabled ", "RAY_AUTH_MODE=disabled lets everybody", 12),
    ("unset RAY_AUTH_TOKEN", f"export RAY_AUTH_TOKEN={HEX}", "this looks like a token", 13),
    ("unset RAY_AUTH_TOKEN", "export WANDB_API_KEY=abcdef", "this looks like a password", 13),
    ("unset RAY_AUTH_TOKEN", "ray stop --force", "`ray stop` ends every Ray on the node", 13),
    ("--head", "--head --dashboard-host 0.0.0.0", "the dashboard must listen on 127.0.0.1 only", 14),
]


def faults_of(text: str) -> list[Fault]:
    try:
        check_cluster(parse_cluster_text(text, Path("x.sh")))
    except ConfigError as error:
        return list(error.where)
    return []


def test_a_script_in_order_has_no_fault_and_grows_to_what_it_asks_for() -> None:
    file = parse_cluster_text(SCRIPT, Path("x.sh"))
    assert check_cluster(file) == []
    assert (file.name, grown(file), smallest(file)) == ("lab", {"CPU": 24.0, "GPU": 6.0}, 3)


def test_options_are_read_as_sbatch_reads_them() -> None:
    assert {option.name: option.value for option in options_of(SCRIPT)} == {
        "job-name": "lab", "nodes": "3", "ntasks-per-node": "1", "cpus-per-task": "8", "gpus-per-node": "a100:2",
        "time": "1-00:00:00", "no-kill": "", "output": "log %j.txt",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "gpus"),
    [
        ("--gres=gpu:4", 8.0),
        ("--gres=gpu", 2.0),
        ("--gres=gpu:a100:2,lustre:1", 4.0),
        ("--gpus-per-task=1", 2.0),
        ("", 0.0),
    ],
)
def test_gpus_are_counted_however_they_are_asked_for(lines: str, gpus: float) -> None:
    script = f"#!/bin/sh\n#SBATCH -J a\n#SBATCH -N2 {lines}\n"
    assert grown(parse_cluster_text(script, Path("x.sh"))) == {"CPU": 2.0, "GPU": gpus}


@pytest.mark.parametrize(("old", "new", "message", "line"), PLANTED)
def test_a_planted_fault_is_caught_at_its_line(old: str, new: str, message: str, line: int) -> None:
    assert old in SCRIPT
    faults = faults_of(SCRIPT.replace(old, new, 1))
    assert (line, True) in [(fault.line, message in fault.message) for fault in faults], [str(f) for f in faults]
