"""Tune over Ray's client (`ray://`): the search runs here, its trials there.

By itself Tune ships the whole search to the cluster when the client is connected: the journal, its lock, and what a
user sees would be on another machine than the command. It can be told to stay, by an argument that has no public name,
and then stumbles over one thing: it asks the local raylet, which a client does not have, for a folder to write to.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ray


def connected() -> bool:
    """Whether this process is a client of a cluster, not a part of one."""
    return bool(ray.util.client.ray.is_connected())


def fit_here(scratch: Path, **tuner: Any) -> None:
    """As ``tune.Tuner(**tuner).fit()``, with Tune's loop in this process; its own files go below ``scratch``."""
    import ray.train._internal.storage
    from ray.tune.impl.tuner_internal import TunerInternal

    storage: Any = ray.train._internal.storage
    before = storage._get_ray_train_session_dir
    storage._get_ray_train_session_dir = lambda: str(scratch)
    try:
        TunerInternal(**tuner, _tuner_kwargs={"_remote": False}).fit()
    finally:
        storage._get_ray_train_session_dir = before
