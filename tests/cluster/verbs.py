"""``python verbs.py up|down|nodes FILE [--tls] [--timeout S]``: the launch room's functions as one command."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from methods.errors import InputError, WorkFailed
from tuning.launch.kinds import read_cluster_file
from tuning.launch.ray_cluster import down, nodes, up


def say(line: str) -> None:
    """A line with the seconds since the start."""
    print(f"{time.monotonic() - BEGIN:5.1f} {line}", flush=True)


def main(verb: str, file: str, *options: str) -> int:
    """Exit code as the verbs have it."""
    cluster = read_cluster_file(Path(file))
    try:
        if verb == "up":
            seconds = float(options[options.index("--timeout") + 1]) if "--timeout" in options else 120
            up(cluster, tls="--tls" in options, timeout_s=seconds, say=say)
        elif verb == "down":
            down(cluster, force="--force" in options, running=list, say=say)
        else:
            for node in nodes(cluster):
                print(node.address, "alive" if node.alive else "dead", f"{node.cpu:g} CPU", node.why)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except WorkFailed as error:
        print(error, file=sys.stderr)
        return 1
    return 0


BEGIN = time.monotonic()
if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
