"""Assembles and runs Ray's Tuner: the one place that knows its knobs."""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune

from tuning.config.schema import BudgetSpec
from tuning.ground import Ground
from tuning.slots import Slots
from tuning.trial import Trial, unpack
from tuning.unsaved import Unsaved
from tuning.watching import over_client
from tuning.watching.hung import LOOK_EVERY_S, Silence
from tuning.words import duration

Turn = Callable[[], None]
MANY = 10**9  # the searcher says when it is enough


def fit(
    searcher: Any,
    scheduler: Any,
    ground: Ground,
    budget: BudgetSpec,
    retries: int,
    *,
    turn: Turn | None = None,
    limited: bool = True,
    say: Callable[[str], None] = print,
) -> None:
    """Run trials until ``searcher`` has no more. Results are what ``scheduler`` wrote down; nothing is returned.

    ``turn`` is called at every step of Ray's loop, whether results come or not. ``limited``: Ray keeps to ``slots``; a
    searcher that does so itself may have them grow.

    Ray's own records go to a throw-away folder: its experiment state is never trusted (it loses rungs on a restore, and
    a torn file makes it start over).
    """
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # a trial's failure is told in one line, by the recorder
    slots, hung_after = ground.slots, budget.hung_after
    trainable = tune.with_resources(tune.with_parameters(Trial, workplace=ground.place), Placing(slots))
    silence = Silence(None if isinstance(hung_after, str) else 60.0 * hung_after, time.monotonic)
    scratch = Path(tempfile.mkdtemp(prefix="skeltune-ray-"))
    try:
        tuner: dict[str, Any] = {
            "trainable": trainable,
            "tune_config": tune.TuneConfig(
                search_alg=searcher,
                scheduler=scheduler,
                num_samples=MANY,
                max_concurrent_trials=slots.count if limited else None,
                reuse_actors=True,
            ),
            "run_config": tune.RunConfig(
                name="search",
                storage_path=str(scratch),
                verbose=0,
                callbacks=[Turns(turn or (lambda: None), silence, say)],
                failure_config=tune.FailureConfig(max_failures=retries),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False, checkpoint_frequency=0),
            ),
        }
        if over_client.connected():
            over_client.fit_here(scratch, **tuner)
        else:
            tune.Tuner(**tuner).fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@dataclass(frozen=True)
class Placing:
    """What of the cluster a trial takes, by the ``place`` in its config (:func:`tuning.trial.task_config`)."""

    slots: Slots

    def __call__(self, config: Mapping[str, Any]) -> tune.PlacementGroupFactory:
        place = config["place"]
        gpu = max(1.0, self.slots.gpu) if place["alone"] and self.slots.gpu else self.slots.gpu
        bundle = {"CPU": self.slots.cpu, **({"GPU": gpu} if gpu else {})}
        if not place["avoid"]:
            return tune.PlacementGroupFactory([bundle])
        elsewhere = {"ray.io/node-id": f"!in({','.join(place['avoid'])})"}
        return tune.PlacementGroupFactory([bundle], bundle_label_selector=[elsewhere])


class Turns(Unsaved, tune.Callback):  # type: ignore[misc]  # ray is not typed
    """Ray's callback, instead of its three loggers: commands to a running search, and trials that hang."""

    def __init__(self, turn: Turn, silence: Silence, say: Callable[[str], None]) -> None:
        self.turn, self.silence, self.say = turn, silence, say
        self._looked = time.monotonic()

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self.turn()
        if time.monotonic() - self._looked >= min(LOOK_EVERY_S, self.silence.fixed or LOOK_EVERY_S):
            self._looked = time.monotonic()
            self._end_silent(trials)

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        self.silence.heard(trial.trial_id)
        payload = unpack(result)
        if payload is not None and "seconds" in payload:
            self.silence.epoch(_method(trial), float(payload["seconds"]))

    def _end_silent(self, trials: list[Any]) -> None:
        running = {trial.trial_id: trial for trial in trials if _at_work(trial)}
        for key, seconds in self.silence.silent({key: _method(trial) for key, trial in running.items()}).items():
            name = running[key].config["task"]["key"]
            limit = duration(self.silence.limit(_method(running[key])))
            self.say(f"{name}: nothing heard of it for {duration(seconds)} (limit {limit}); its worker is killed")
            actor = running[key].temporary_state.ray_actor
            if actor is not None:
                with contextlib.suppress(Exception):  # its node may be gone: that is told by Ray
                    ray.kill(actor)


def _at_work(trial: Any) -> bool:
    """Whether a worker has it: it trains, or a worker that was free is being given it."""
    return trial.status == "RUNNING" or (trial.status == "PENDING" and trial.temporary_state.ray_actor is not None)


def _method(trial: Any) -> str:
    return str(trial.config["task"]["config"]["method"])
