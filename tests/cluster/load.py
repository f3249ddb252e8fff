"""Run on the head, ``python load.py NODES READY``: a worker process on every node, so that its port listens too."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import ray


@ray.remote(num_cpus=0.5, scheduling_strategy="SPREAD")
class Sitter:
    """Sits on a node; its data lies in that node's object store."""

    def where(self) -> str:
        ray.put(b"x" * 1_000_000)
        return ray.util.get_node_ip_address()


ray.init(address="auto", log_to_driver=False)
sitters = [Sitter.remote() for _ in range(2 * int(sys.argv[1]))]
while len(set(ray.get([sitter.where.remote() for sitter in sitters]))) < int(sys.argv[1]):
    sitters.append(Sitter.remote())
Path(sys.argv[2]).write_text("ready")
time.sleep(1000)
