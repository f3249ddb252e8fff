"""Runs a search: connects to Ray, binds the parts together, and leads it from the first ask to best.yaml."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from methods.errors import InputError
from methods.training.seeds import derive_seed
from tuning.config.schema import SearchSpec
from tuning.engine.journal import Journal, JournalState, TrialState
from tuning.observe.curves import Curves
from tuning.observe.lines import EventLines
from tuning.plan import Plan, Stop, open_run, plan_search
from tuning.recorder import Recorder, trial_key
from tuning.session import Task
from tuning.slots import Slots, find_slots
from tuning.words import duration

ENGINES = ("stock", "random-asha")


class Budget:
    """Whether another trial may begin."""

    def __init__(self, spec: SearchSpec, state: JournalState, gpus: float, stop: Stop) -> None:
        self.spec, self.state, self.gpus, self.stop = spec.budget, state, gpus, stop
        self.begun = time.monotonic()

    def __call__(self) -> bool:
        b = self.spec
        if self.stop.asked or (b.trials is not None and len(self.state.trials) >= b.trials):
            return False
        if b.minutes is not None and time.monotonic() - self.begun > 60 * b.minutes:
            return False
        return b.gpu_hours is None or self.gpu_hours() < b.gpu_hours

    def gpu_hours(self) -> float:
        """What all trials have used so far; on a machine without a GPU, slot-hours."""
        return sum(t.seconds for t in self.state.trials.values()) * (self.gpus or 1.0) / 3600


def run_search(
    space_file: Path | str,
    *,
    runs: Path | str = "runs",
    engine: str = "stock",
    address: str | None = None,
    say: Callable[[str], None] = print,
) -> Path | None:
    """Run or continue the search of ``space_file`` in ``runs/<name>``; returns the path of best.yaml if it got there.

    Raises ``InputError`` for whatever the user can mend. Safe to kill at any instant: the same call goes on.
    """
    if engine not in ENGINES:
        raise InputError(f"engine '{engine}' is not one of {', '.join(ENGINES)} in this version")
    plan = plan_search(Path(space_file), Path(runs))
    if len(plan.space.branches) == 1 and not any(plan.space.free.values()):
        raise InputError(
            f"{space_file}: there is nothing to search, every parameter is fixed; train it with: "
            f"skeltune train {space_file}"
        )
    if address is None:
        find_slots(plan.spec.budget, this_machine())  # a wish that cannot be met is told before anything starts
    for note in plan.notes:
        say(f"note: {note}")
    with open_run(plan) as journal, _ray(address) as cluster:
        slots = find_slots(plan.spec.budget, cluster)
        return _Search(plan, journal, slots, engine, say).run()


def this_machine() -> dict[str, float]:
    """What a local Ray will find, without starting one."""
    import torch

    return {"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}


@contextmanager
def _ray(address: str | None) -> Iterator[Mapping[str, float]]:
    """A connection to Ray; gives the cluster's resources. A local Ray is started and ended here."""
    quiet_ray()
    import ray

    if ray.is_initialized():  # somebody else's (a notebook, a test): leave it running
        yield ray.cluster_resources()
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        ray.init(include_dashboard=False, **options)
    else:
        try:
            ray.init(address=address, **options)
        except (ConnectionError, ValueError, RuntimeError) as error:
            first = str(error).strip().splitlines()[0]
            raise InputError(f"no Ray cluster at '{address}': {first}") from error
    try:
        yield ray.cluster_resources()
    finally:
        ray.shutdown()


def quiet_ray() -> None:
    """Settings that Ray reads from the environment; ours unless the user has set them."""
    for name, value in {
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # three loggers that take most of the controller's time
        "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a heartbeat between rungs has no score
        "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours
        "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # Ray's snapshot is never read
        "TUNE_WARN_THRESHOLD_S": "30",
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
        "TUNE_MAX_PENDING_TRIALS_PG": "auto",
    }.items():
        os.environ.setdefault(name, value)


class _Search:
    """One call of :func:`run_search`: the parts that a Tuner is made of, bound together."""

    def __init__(self, plan: Plan, journal: Journal, slots: Slots, engine: str, say: Callable[[str], None]) -> None:
        self.plan, self.journal, self.slots, self.engine, self.say = plan, journal, slots, engine, say
        self.stop = Stop()
        self.lines = EventLines(journal.state, plan.ladder, plan.spec.budget.trials, slots.count)
        self.recorder = Recorder(journal, plan.folder, (self.lines, Curves(plan.folder)))

    def run(self) -> Path | None:
        from tuning.finish import finish

        if self.journal.torn:
            self.say("the journal's last line was torn by a crash; it was cut off")
        known = len(self.journal.state.trials)
        if known:
            pending = len(self.journal.state.pending)
            self.say(f"going on in {self.plan.folder}: {known - pending} trials ended, {pending} to continue")
        with self.stop.on_interrupt():
            begun = time.monotonic()
            try:
                self._search()
            finally:
                self.recorder.close()
            state = self.journal.state
            self.say(f"{len(state.ended)} trials in {duration(time.monotonic() - begun)}; " + _census(state))
            best = None
            if not self.stop.asked and self.plan.spec.budget.on_end == "stop":
                self.say(
                    "budget.on_end is `stop`: no finalist is confirmed; with `finish` the same command goes on there"
                )
                return None
            if not self.stop.asked:
                best = finish(self.plan, self.journal, self.slots, self.stop, self.say)
            if best is None:
                self.say("not finished yet; the same command goes on")
            return best

    def _search(self) -> None:
        from tuning import stock
        from tuning.fit import fit

        scheduler = stock.StockAsha(self.plan.ladder, self.recorder, lambda: self.stop.asked)
        budget = Budget(self.plan.spec, self.journal.state, self.slots.gpu, self.stop)
        if not self.journal.state.pending and not budget():
            return
        searcher = stock.StockSearcher(
            self.plan.space, self.plan.spec, self.recorder, self._task, budget, self.engine == "random-asha"
        )
        fit(searcher, scheduler, self.plan, self.slots, retries=self.plan.spec.budget.retries)

    def _task(self, trial: TrialState) -> dict[str, Any]:
        from tuning.trial import task_config

        config = self.plan.space.resolve(trial.draws)
        return task_config(
            Task(
                key=trial_key(trial.trial),
                config=config.to_dict(),
                seed=derive_seed(self.plan.spec.seed, "trial", trial.trial),
                probe_at=self.plan.ladder.rungs,
                folder=str(self.recorder.trial_folder(trial.trial).absolute()),
            )
        )


def _census(state: JournalState) -> str:
    """`12 culled, 3 top, 1 diverged`."""
    counts: dict[str, int] = {}
    for trial in state.ended:
        counts[trial.ended or ""] = counts.get(trial.ended or "", 0) + 1
    return ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items(), key=lambda item: -item[1]))
