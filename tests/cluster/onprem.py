"""The shipped cluster/onprem.yaml with its EDIT lines filled in for a lab, and its verbs as said on the client."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from hosts import CLIENT, Lab

REPOSITORY = Path(__file__).resolve().parents[2]
VERBS = Path(__file__).with_name("verbs.py")


class Onprem:
    """A cluster ``name`` on the hosts of ``lab`` (all, or those given): the first is the head."""

    def __init__(self, lab: Lab, name: str = "lab", hosts: list[str] | None = None) -> None:
        self.lab, self.name = lab, name
        self.hosts = hosts or lab.hosts
        self.file = Path(lab.shared[0]) / f"{name}.yaml"
        self.temp_dir = f"/tmp/skeltune-{name}"
        self.write()

    def write(self) -> None:
        """(Again) the file, for the hosts as they are now."""
        text = (REPOSITORY / "cluster/onprem.yaml").read_text()
        workers = ", ".join(self.lab.address(host) for host in self.hosts[1:])
        text = text.replace("onprem", self.name)
        text = text.replace("EDIT-head-address", self.lab.address(self.hosts[0]))
        text = re.sub(r"worker_ips: \[[^]]*\]", f"worker_ips: [{workers}]", text)
        text = text.replace("EDIT-user", "root").replace("EDIT-/shared", self.lab.shared[0])
        text = re.sub(r"\n  ~/skeltune-wheel: .*", "", text)
        setup = f"setup_commands:\n  - ln -sfn {self.lab.venv} ~/skeltune-venv\n\n"  # what the wheel would bring
        text = re.sub(r"setup_commands:.*?\n\n", setup, text, flags=re.DOTALL)
        small = "--num-cpus=1 --object-store-memory=100000000"  # three of them share this machine
        text = re.sub(rf"--temp-dir={self.temp_dir}(/ray)?", f"--temp-dir={self.temp_dir}/ray {small}", text)
        assert "EDIT" not in re.sub(r"#.*", "", text), text
        self.file.write_text(text)

    def verb(self, *words: str, check: bool = True, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """``up``, ``down`` or ``nodes`` of the cluster, on the client."""
        verb, *options = words
        command = ["python", str(VERBS), verb, str(self.file), *options]
        return self.lab.run(CLIENT, command, check=check, timeout=timeout)

    def alive(self) -> set[str]:
        """Names of the hosts whose nodes are alive."""
        names = {self.lab.address(host): host for host in self.lab.hosts}
        lines = self.verb("nodes", timeout=60).stdout.splitlines()
        return {names[line.split()[0]] for line in lines if " alive " in line}
