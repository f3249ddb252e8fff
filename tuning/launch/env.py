"""What the processes of a Ray cluster are told by their environment: ``env.sh``, read by every start command.

The figures were measured with Ray 2.60 on three hosts (docs/clusters.md has the table and what listens where).
"""

from __future__ import annotations

from collections.abc import Mapping

# Ray's own check is made for web services. Trials last minutes and nodes are loaded: a network that is away for 20 s
# must not cost a trial, and a machine without power should be noticed within a minute. The head asks each node every
# period; an answer that does not come within the time-out, or is refused, counts, and so many in a row mean death:
# 4 x (10 + 3) s when nothing comes back. Only the head's processes read these four.
HEALTH: Mapping[str, str] = {
    "RAY_health_check_initial_delay_ms": "10000",
    "RAY_health_check_period_ms": "3000",
    "RAY_health_check_timeout_ms": "10000",
    "RAY_health_check_failure_threshold": "4",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "120",  # how long a node or a driver waits for a head that is away
}

# Prometheus' pages have no token in front of them. The nodes' is switched off; the two of the head cannot be, so they
# are given a port that no server can have: each logs that once and goes on.
CLOSED: Mapping[str, str] = {
    "RAY_enable_metrics_collection": "0",
    "AUTOSCALER_METRIC_PORT": "-1",
    "DASHBOARD_METRIC_PORT": "-1",
    "RAY_USAGE_STATS_ENABLED": "0",
}

_SCRIPT = """# Sourced by every Ray start command of the cluster '{name}'; written by `skeltune cluster up`.
# No secret stands here: Ray reads the token from its file, so that no process has it in its environment or its title.
skeltune_home="${{SKELTUNE_CLUSTER_HOME:-$HOME/.skeltune/clusters/{name}}}"
if [ ! -s "$skeltune_home/token" ] || [ ! -O "$skeltune_home/token" ]; then
    echo "skeltune: $skeltune_home/token is missing, empty or not yours: no Ray without a token" >&2
    return 1
fi
case "$(ls -lnd "$skeltune_home/token")" in
    -??-------*) ;;
    *) echo "skeltune: others can read the token; run: chmod 600 $skeltune_home/token" >&2; return 1 ;;
esac
# Ray makes its temp-dir and the sockets in it everybody's; they lie in a folder that only its owner can enter.
skeltune_temp="/tmp/skeltune-{name}"
(umask 077; mkdir -p "$skeltune_temp")
if [ -L "$skeltune_temp" ] || [ ! -O "$skeltune_temp" ] || ! chmod 700 "$skeltune_temp"; then
    echo "skeltune: $skeltune_temp belongs to somebody else" >&2
    return 1
fi
unset RAY_AUTH_TOKEN
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$skeltune_home/token"
{exports}
"""


def env_script(name: str, *, tls: bool) -> str:
    """The text of ``env.sh`` for the cluster ``name``; POSIX shell, to be sourced."""
    lines = [f"export {key}={value}" for key, value in {**HEALTH, **CLOSED}.items()]
    if tls:
        parts = {"CA_CERT": "ca.crt", "SERVER_CERT": "node.crt", "SERVER_KEY": "node.key"}
        lines.append("export RAY_USE_TLS=1")
        lines += [f'export RAY_TLS_{key}="$skeltune_home/tls/{file}"' for key, file in parts.items()]
    return _SCRIPT.format(name=name, exports="\n".join(lines))
