"""Environment variables that travel with a job: only those that were named, and never the cluster's keys."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

from methods.errors import InputError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def given(pairs: Sequence[str]) -> dict[str, str]:
    """`NAME=VALUE`, or `NAME` with the value that it has here. Raises ``InputError`` for one that has none."""
    found, missing = {}, []
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals and name not in os.environ:
            missing.append(f"--env {name}: there is no such variable here; give it as {name}=VALUE")
        found[name] = value if equals else os.environ.get(name, "")
    if missing:
        raise InputError(*missing)
    return found


def check_environment(env: Mapping[str, str]) -> dict[str, str]:
    """``env`` as it is; raises ``InputError`` for names that are none, and for what holds the cluster's keys."""
    faults = [f"--env {name}: this is no name of a variable" for name in env if not _NAME.fullmatch(name)]
    faults += [
        f"--env {name}: the cluster's keys are set by its start commands, and never sent with a job"
        for name in env
        if name.startswith(("RAY_AUTH", "RAY_TLS", "RAY_USE_TLS"))
    ]
    if faults:
        raise InputError(*faults)
    return dict(env)
