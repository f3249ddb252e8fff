"""SLURM on hosts of the laboratory: Debian's slurm-wlm and munge, one controller, every host a node.

What a namespace of a container does not have is done without: processes are tracked by group (``proctrack/pgid``),
which is the weakest of SLURM's ways and so the hardest test for leaving nothing behind; no cgroup limits anything.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from hosts import CLIENT, Lab, wait_for

NEEDED = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "scontrol")
OVER = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "BOOT_FAIL")

CONF = """ClusterName=lab
SlurmctldHost={controller}({address})
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=/tmp/munge/socket,cred_expire=5
CryptoType=crypto/munge
StateSaveLocation=/tmp/slurmctld
SlurmdSpoolDir=/tmp/slurmd
SlurmctldPidFile=/tmp/slurmctld.pid
SlurmdPidFile=/tmp/slurmd.pid
SlurmctldLogFile=/tmp/slurmctld.log
SlurmdLogFile=/tmp/slurmd.log
SlurmctldPort=6817
SlurmdPort=6818
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
MpiDefault=none
ReturnToService=2
SlurmdTimeout=10
KillWait=15
InactiveLimit=0
OverTimeLimit=0
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0,requeue_setup_env_fail
GresTypes=gpu
{nodes}
PartitionName=all Nodes=ALL Default=YES State=UP OverSubscribe=NO
"""
NODE = "NodeName={name} NodeAddr={address} CPUs={cpus} RealMemory={memory} Gres=gpu:{gpus} State=UNKNOWN"


def missing() -> str:
    """Why no SLURM can stand here, or nothing."""
    absent = [
        tool for tool in NEEDED if shutil.which(tool, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None
    ]
    return f"needs {', '.join(absent)} (Debian: slurm-wlm, munge)" if absent else ""


class Slurm:
    """SLURM over all hosts of a lab; jobs are submitted at the client. ``folder`` is seen by all hosts.

    ``folder/home`` is the home directory that all nodes share, as on a real cluster.
    """

    def __init__(self, lab: Lab, folder: Path, cpus: int = 2, memory: int = 4000, gpus: int = 1) -> None:
        self.lab, self.folder = lab, folder
        self.home = folder / "home"
        self.home.mkdir(mode=0o700)
        (folder / "slurm").mkdir()
        self.conf = folder / "slurm/slurm.conf"
        rows = [
            NODE.format(name=name, address=lab.address(name), cpus=cpus, memory=memory, gpus=gpus) for name in lab.hosts
        ]
        self.conf.write_text(CONF.format(controller=CLIENT, address=lab.address(CLIENT), nodes="\n".join(rows)))
        devices = ",".join(
            ("/dev/null", "/dev/zero", "/dev/full", "/dev/random")[:gpus]
        )  # any character device will do
        (folder / "slurm/gres.conf").write_text(f"Name=gpu File={devices}\n")
        (folder / "slurm/cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")
        self.key = folder / "slurm/munge.key"
        self.key.write_bytes(os.urandom(128))
        self.key.chmod(0o600)
        self._munge(CLIENT)
        self._daemon(CLIENT, "slurmctld")
        for host in lab.hosts:
            self.boot(host)
        wait_for(lambda: self.states() == {"idle"}, 30, "all nodes idle")

    # -- as a user would -----------------------------------------------------------------------------------------

    def run(self, command: str, *, check: bool = True, env: Mapping[str, str] | None = None) -> str:
        """A command at the client, with SLURM's own verbs at hand; what it printed."""
        return self.lab.run(CLIENT, command, env=self.environment() | dict(env or {}), check=check).stdout

    def submit(self, command: str, *, env: Mapping[str, str] | None = None) -> int:
        """Submit a job (``command``: all that stands behind ``sbatch``); its number."""
        return int(self.run(f"cd {self.folder} && sbatch --parsable {command}", env=env).split(";")[0])

    def environment(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.conf), "HOME": str(self.home)}

    def job(self, number: int) -> dict[str, str]:
        """What the controller says of a job: JobState, ExitCode, Restarts, ..."""
        return dict(re.findall(r"(\S+?)=(\S*)", self.run(f"scontrol -o show job {number}")))

    def wait(self, number: int, seconds: float) -> dict[str, str]:
        """Wait for a job's end and for its nodes to be free again; what the controller says of it."""
        found: dict[str, str] = {}

        def over() -> bool:
            found.update(self.job(number))
            return found["JobState"] in OVER

        wait_for(over, seconds, f"job {number} to end", 0.5)
        wait_for(lambda: self.states() <= {"idle", "down", "down*"}, 60, "nodes free again", 0.5)
        return found

    def states(self) -> set[str]:
        """The nodes' states."""
        return set(self.run("sinfo -h -N -o %T").split())

    # -- as an administrator would -------------------------------------------------------------------------------

    def boot(self, host: str) -> None:
        """What a node starts when it comes up."""
        self.lab.run(host, "mount -t tmpfs tmpfs /sys/fs/cgroup")  # the namespace's own: slurmd insists on looking
        self._munge(host)
        self._daemon(host, "slurmd")

    def _munge(self, host: str) -> None:
        options = "--force --socket=/tmp/munge/socket --pid-file=/tmp/munge/pid --seed-file=/tmp/munge/seed"
        self.lab.run(
            host,
            f"rm -rf /tmp/munge && mkdir -m 755 /tmp/munge && munged {options} --key-file={self.key}"
            " --log-file=/tmp/munge/log && munge -n -S /tmp/munge/socket >/dev/null",
        )

    def _daemon(self, host: str, name: str) -> None:
        self.lab.run(host, f"mkdir -p /tmp/{name} && {name}", env={"SLURM_CONF": str(self.conf)})
