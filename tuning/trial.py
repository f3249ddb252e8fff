"""ONE trial on Ray: the only file that knows both Ray and the training loop."""

from __future__ import annotations

import dataclasses
import json
import time
from typing import Any

import ray
import torch
from ray import tune

from methods.errors import InputError
from tuning.allocation import keep_memory
from tuning.session import Session, Task
from tuning.workplace import Workplace, faults_here

PAYLOAD = "payload"


class Trial(tune.Trainable):  # type: ignore[misc]  # ray is not typed
    """One :class:`Session` behind Ray's interface. The actor is kept and used again: the data stays mapped."""

    def setup(self, config: dict[str, Any], workplace: Workplace) -> None:  # type: ignore[override]  # with_parameters
        """Take the task in ``config['task']``. Its work begins with the first step: that is watched for hanging."""
        self.workplace = workplace
        torch.set_num_threads(workplace.threads)
        if workplace.device != "cuda":
            keep_memory()
        self._take(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next task in the same process."""
        self._take(new_config)
        return True

    def _take(self, config: dict[str, Any]) -> None:
        self._task = Task(**config["task"])
        before: Session | None = getattr(self, "session", None)
        if before is not None:
            before.close()
        self.session: Session | None = None  # frees the last model before the next one is built

    def _begin(self) -> Session:
        """Begin the task, or go on with its checkpoint. Raises ``InputError`` where this machine cannot work."""
        place = self.workplace
        faults = faults_here(place)
        if faults:
            raise InputError(*faults)
        there = place.sees_its_folder
        return Session(
            self._task, place.source, place.probe, place.device, place.checkpoints, there, graphs=place.graphs
        )

    def step(self) -> dict[str, Any]:
        """One epoch. Ray sees the few keys that it decides by; the whole result travels as one string."""
        if self.session is None:
            self.session = self._begin()
        # A stored result is given again after an interruption: where and when it is given is not part of it.
        result = self.session.step() | {"node": ray.util.get_node_ip_address(), "clock": time.time()}
        if result["done"]:
            self.workplace.checkpoints.forget(self.session.task)
        seen = {key: result[key] for key in ("epoch", "top1", "done") if key in result}
        return seen | {PAYLOAD: json.dumps(result)}  # Ray flattens nested dicts, and copies them into its own logs


def unpack(result: dict[str, Any]) -> dict[str, Any] | None:
    """The session's result inside what Ray hands to a scheduler; None where there is none."""
    payload = result.get(PAYLOAD)
    return json.loads(payload) if isinstance(payload, str) else None


def task_config(task: Task, avoid: tuple[str, ...] = (), alone: bool = False) -> dict[str, Any]:
    """What Ray carries to the actor. ``avoid``: ids of nodes that it shall not be on; ``alone``: a whole GPU for it."""
    place = {"avoid": list(avoid), "alone": alone}
    return {"task": dataclasses.asdict(task), "place": place}
