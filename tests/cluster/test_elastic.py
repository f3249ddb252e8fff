"""A cluster that grows with the trials that wait and shrinks when they are done: Ray's autoscaler, on one host.

The provider is Ray's own stand-in for a cloud: its machines are raylets beside the head's. What asks for them, and what
takes them away, is what a cloud would see.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from hosts import Lab, wait_for

from methods.data.synthetic import SyntheticConfig, write_synthetic
from tuning.engine.journal import replay

SPACE = """
format: 1
name: growing
seed: 3
data: {{set: {data}, split: xsub, validate_on: auto, frames: 32}}
search:
  method: {{skeletonbyol: {{momentum: {{near_one: [0.9, 0.99]}}, hidden: 8, projection: 8}}}}
  encoder: {{width: 4, dim: 16, depth: 3, dropout: 0.0, init: torch, bodies: real}}
  optim: {{name: adam, lr: {{log: [0.0005, 0.01]}}, batch: 8, schedule: cosine}}
  streams: {{use: [joint], fuse: equal}}
probe: {{l2: 0.01}}
schedule: {{max: 9, asha: {{min: 3, eta: 3}}}}
budget: {{trials: 120, per_trial: {{gpu: 0, cpu: 1}}, on_end: stop}}
"""
KIND = {"resources": {"CPU": 1, "object_store_memory": 100_000_000}, "node_config": {}}
CONFIG = {
    "cluster_name": "growing",
    "max_workers": 2,
    "upscaling_speed": 1.0,
    "idle_timeout_minutes": 0.2,
    "provider": {
        "type": "fake_multinode",
        "disable_node_updaters": True,
        "use_node_id_as_ip": True,
        "disable_launch_config_check": True,
    },
    "auth": {},
    "docker": {},
    "available_node_types": {
        "ray.head.default": {**KIND, "max_workers": 0},  # as the stand-in calls its head
        "worker": {**KIND, "min_workers": 0, "max_workers": 2},
    },
    "head_node_type": "ray.head.default",
    "file_mounts": {},
    "cluster_synced_files": [],
    "file_mounts_sync_continuously": False,
    "rsync_exclude": [],
    "rsync_filter": [],
    "initialization_commands": [],
    "setup_commands": [],
    "head_setup_commands": [],
    "worker_setup_commands": [],
    "head_start_ray_commands": [],
    "worker_start_ray_commands": [],
}
ENV = {
    "RAY_AUTH_MODE": "disabled",  # nobody else is on this host
    "RAY_FAKE_CLUSTER": "1",
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    "RAY_enable_autoscaler_v2": "0",
}
COUNT = """
import ray
ray.init(address="auto", log_to_driver=False)
print("alive", sum(node["Alive"] for node in ray.nodes()))
"""


def test_trials_that_wait_make_it_grow_and_idle_it_shrinks(lab: Lab) -> None:
    shared = Path(lab.shared[0])
    actions = ("walk", "wave", "squat", "clap")
    data = shared / "growing"
    write_synthetic(data, SyntheticConfig(clips_per_cell=4, subjects=5, cameras=2, actions=actions, max_frames=60))
    space = shared / "growing.yaml"
    space.write_text(SPACE.format(data=data))
    config = shared / "autoscaling.json"
    config.write_text(json.dumps(CONFIG))
    start = (
        f"ray start --head --port=6379 --node-ip-address={lab.address('h1')} --num-cpus=1 --include-dashboard=false "
        f"--object-store-memory=100000000 --autoscaling-config={config} --disable-usage-stats"
    )
    lab.run("h1", start, env=ENV, timeout=120)
    runs = shared / "growing-runs"
    command = (
        f"exec python -m tuning search {space} --runs {runs} --address auto --expect CPU=3 > {shared}/out.log 2>&1"
    )
    begun = time.monotonic()
    search = lab.popen("h1", command, env=ENV)

    def nodes() -> int:
        file = runs / "growing" / "nodes.json"
        return len(json.loads(file.read_text())["nodes"]) if file.is_file() else 0

    wait_for(lambda: nodes() == 3 or search.poll() is not None, 120, "three nodes")
    assert search.poll() is None, (shared / "out.log").read_text()
    print(f"\ngrown from 1 to 3 nodes {time.monotonic() - begun:.1f} s after the command")
    assert search.wait(timeout=400) == 0, (shared / "out.log").read_text()
    ended = time.monotonic()
    state = replay(runs / "growing" / "journal.jsonl")
    assert state.count == 120
    # With so short an idle time-out a node may be taken back just before its first trial: that counts against nobody.
    assert not [failure for trial in state.trials.values() for failure in trial.failures if failure.counted]

    def alive() -> int:
        return int(lab.run("h1", ["python", "-c", COUNT], env=ENV).stdout.split()[-1])

    wait_for(lambda: alive() == 1, 90, "one node", every=2.0)
    print(f"shrunk to 1 node {time.monotonic() - ended:.1f} s after the end")
    lab.run("h1", "ray stop --force", env=ENV, check=False)  # the host is a namespace of its own
