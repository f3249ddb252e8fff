"""ONE trial on Ray: the only file that knows both Ray and the training loop."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

import torch
from ray import tune

from methods.training.probe import ProbeConfig
from tuning.datasets import DataSource
from tuning.session import Session, Task

PAYLOAD = "payload"


@dataclass(frozen=True)
class Workplace:
    """What all trials of a search share: put into Ray's object store once."""

    source: DataSource
    probe: ProbeConfig
    threads: int
    device: str = "auto"


class Trial(tune.Trainable):  # type: ignore[misc]  # ray is not typed
    """One :class:`Session` behind Ray's interface. The actor is kept and used again: the data stays mapped."""

    def setup(self, config: dict[str, Any], workplace: Workplace) -> None:  # type: ignore[override]  # with_parameters
        """Begin the task in ``config['task']``, or go on with its checkpoint."""
        self.workplace = workplace
        torch.set_num_threads(workplace.threads)
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next task in the same process."""
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        place = self.workplace
        self.session: Session | None = None  # frees the last model before the next one is built
        self.session = Session(Task(**config["task"]), place.source, place.probe, place.device)

    def step(self) -> dict[str, Any]:
        """One epoch. Ray sees the few keys that it decides by; the whole result travels as one string."""
        if self.session is None:
            raise RuntimeError("step before setup")
        result = self.session.step()
        seen = {key: result[key] for key in ("epoch", "top1", "done") if key in result}
        return seen | {PAYLOAD: json.dumps(result)}  # Ray flattens nested dicts, and copies them into its own logs


def unpack(result: dict[str, Any]) -> dict[str, Any] | None:
    """The session's result inside what Ray hands to a scheduler; None where there is none."""
    payload = result.get(PAYLOAD)
    return json.loads(payload) if isinstance(payload, str) else None


def task_config(task: Task) -> dict[str, Any]:
    """What Ray carries to the actor."""
    return {"task": dataclasses.asdict(task)}
