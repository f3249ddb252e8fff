"""Assembles and runs Ray's Tuner: the one place that knows its knobs."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import tune

from tuning.plan import Plan
from tuning.slots import Slots
from tuning.trial import Trial, Workplace
from tuning.unsaved import Unsaved

Turn = Callable[[], None]
MANY = 10**9  # the searcher says when it is enough


def fit(
    searcher: Any,
    scheduler: Any,
    plan: Plan,
    slots: Slots,
    retries: int,
    *,
    turn: Turn | None = None,
    limited: bool = True,
) -> None:
    """Run trials until ``searcher`` has no more. Results are what ``scheduler`` wrote down; nothing is returned.

    ``turn`` is called at every step of Ray's loop, whether results come or not. ``limited``: Ray keeps to ``slots``; a
    searcher that does so itself may have them grow.

    Ray's own records go to a throw-away folder: its experiment state is never trusted (it loses rungs on a restore, and
    a torn file makes it start over).
    """
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # a trial's failure is told in one line, by the recorder
    workplace = Workplace(plan.source, plan.probe, slots.threads)
    trainable = tune.with_resources(tune.with_parameters(Trial, workplace=workplace), slots.resources)
    scratch = Path(tempfile.mkdtemp(prefix="skeltune-ray-"))
    try:
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=scheduler,
                num_samples=MANY,
                max_concurrent_trials=slots.count if limited else None,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="search",
                storage_path=str(scratch),
                verbose=0,
                callbacks=[Turns(turn)] if turn is not None else [],
                failure_config=tune.FailureConfig(max_failures=retries),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False, checkpoint_frequency=0),
            ),
        )
        tuner.fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


class Turns(Unsaved, tune.Callback):  # type: ignore[misc]  # ray is not typed
    """Ray's callback, instead of its three loggers: commands to a running search are looked at here."""

    def __init__(self, turn: Turn) -> None:
        self.turn = turn

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self.turn()
