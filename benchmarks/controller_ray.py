"""What does a search cost beside its trials? The whole loop on real Ray, with trials that do nothing.

    python -m benchmarks.controller_ray --trials 200,1000 --rounds 2 --json FILE

Sides, in turns: ``skeltune`` (our engine and its journal, flushed to the disk at every decision), ``stock`` (Ray's
OptunaSearch and ASHAScheduler under the same settings, with our journal) and ``ray`` (the same two classes alone, with
Ray's three loggers, as Ray Tune is used). All keep their actors. Every side runs until so many trials were asked for;
what differs is how many epochs these trials get, so seconds are given per trial and per report.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from ray import tune

from benchmarks.timing import machine, write_json
from methods.training.seeds import derive_seed
from tuning.adapters import EngineScheduler, EngineSearcher
from tuning.config.schema import BudgetSpec, SearchSpec
from tuning.driver import quiet_ray
from tuning.engine.choices import choices_of
from tuning.engine.journal import Journal
from tuning.engine.ladder import Ladder
from tuning.engine.state import TrialState
from tuning.engine.virtual import Setting, make_engine
from tuning.floor import Floor
from tuning.recorder import Recorder
from tuning.resources import find_space
from tuning.run_files import trial_key
from tuning.session import Task
from tuning.space import Space, load_search
from tuning.stock import Definition, StockAsha, StockSearcher, make_sampler
from tuning.trial import PAYLOAD, task_config

RUNGS, ETA, SLOTS = (1, 3, 9), 3, 2


class Nothing(tune.Trainable):  # type: ignore[misc]
    """Reports at once whatever its draws hash to; goes on after the epoch that its task says."""

    def setup(self, config: dict[str, Any]) -> None:
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        task = config.get("task") or {"folder": "0", "seed": hash(json.dumps(config, sort_keys=True, default=str))}
        self.always = "task" not in config  # OptunaSearch takes no report without a score
        self.epoch, self.base = int(task["folder"]), (int(task["seed"]) % 10007) / 10007

    def step(self) -> dict[str, Any]:
        self.epoch += 1
        result: dict[str, Any] = {"epoch": self.epoch, "rung": self.epoch in RUNGS, "done": self.epoch >= RUNGS[-1]}
        result["seconds"] = 0.0
        if result["rung"] or self.always:
            result |= {"top1": self.base * (1 - 0.5 / self.epoch), "loss": 1.0}
        seen = {k: result[k] for k in ("epoch", "top1", "done") if k in result}
        return seen | {PAYLOAD: json.dumps(result)}


class NothingFloor(Floor):
    """Tasks of :class:`Nothing`: where to go on stands where the folder would."""

    def task(self, trial: TrialState) -> Task:
        return trivial(trial)


def trivial(trial: TrialState) -> Task:
    """A task that needs no data."""
    seed = derive_seed(0, json.dumps(trial.draws, sort_keys=True))
    return Task(trial_key(trial.trial), {}, seed, RUNGS, folder=str(trial.epochs))


def run_tuner(searcher: Any, scheduler: Any, *, limited: bool, loggers: bool, samples: int = 10**9) -> None:
    """A Tuner with the settings of `tuning/fit.py`, around :class:`Nothing`."""
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "0" if loggers else "1"
    scratch = tempfile.mkdtemp(prefix="skeltune-bench-")
    try:
        tune.Tuner(
            tune.with_resources(Nothing, {"cpu": 1}),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=scheduler,
                num_samples=samples,
                max_concurrent_trials=SLOTS if limited else None,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="bench",
                storage_path=scratch,
                verbose=0,
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False, checkpoint_frequency=0),
            ),
        ).fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def skeltune(space: Space, spec: SearchSpec, folder: Path, seed: int) -> tuple[int, int]:
    """Trials asked for and epochs reported."""
    with Journal(folder / "journal.jsonl", {"space": "", "data": ""}) as journal:
        ladder = Ladder(RUNGS, ETA, rule="promote", repeats=5)
        setting = Setting(ladder, spec.sampler, spec.budget, seed)
        engine = make_engine(journal, choices_of(space), setting)
        floor = NothingFloor(engine, space, folder, seed)
        run_tuner(EngineSearcher(floor, lambda: SLOTS), EngineScheduler(floor), limited=False, loggers=False)
        return len(journal.state.trials), journal.state.epochs


def stock(space: Space, spec: SearchSpec, folder: Path, seed: int) -> tuple[int, int]:
    """The same through Ray's classes and our journal."""
    with Journal(folder / "journal.jsonl", {"space": "", "data": ""}) as journal:
        recorder = Recorder(journal, folder)
        ladder = Ladder(RUNGS, ETA)
        searcher = StockSearcher(
            space,
            dataclasses.replace(spec, seed=seed, sampler=spec.sampler.model_copy(update={"name": "tpe"})),
            recorder,
            lambda trial: task_config(trivial(trial)),
            lambda: journal.state.count < (spec.budget.trials or 0),
        )
        run_tuner(searcher, StockAsha(ladder, recorder), limited=True, loggers=False)
        return len(journal.state.trials), journal.state.epochs


def plain_ray(space: Space, spec: SearchSpec, folder: Path, seed: int) -> tuple[int, int]:
    """Ray's classes alone."""
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    reports = 0

    class Counting(ASHAScheduler):  # type: ignore[misc]
        def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> Any:
            nonlocal reports
            reports += 1
            return super().on_trial_result(tune_controller, trial, result)

    searcher = OptunaSearch(space=Definition(space), metric="top1", mode="max", sampler=make_sampler("tpe", seed, 10))
    scheduler = Counting(
        time_attr="epoch", metric="top1", mode="max", max_t=RUNGS[-1], grace_period=1, reduction_factor=ETA
    )
    run_tuner(searcher, scheduler, limited=True, loggers=True, samples=spec.budget.trials or 0)
    return spec.budget.trials or 0, reports


SIDES = {"skeltune": skeltune, "stock": stock, "ray": plain_ray}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", default="200,1000")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--sides", default="skeltune,stock,ray")
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args(arguments)
    quiet_ray()
    spec, space = load_search(find_space("quickstart"))
    ray.init(num_cpus=SLOTS, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    rows: list[dict[str, Any]] = []
    sides = options.sides.split(",")
    for trials in map(int, options.trials.split(",")):
        sized = dataclasses.replace(spec, budget=BudgetSpec(trials=trials))
        for number in range(options.rounds):
            for side in sides if number % 2 == 0 else reversed(sides):
                folder = Path(tempfile.mkdtemp(prefix="skeltune-bench-"))
                begun = time.perf_counter()
                asked, epochs = SIDES[side](space, sized, folder, number)
                seconds = time.perf_counter() - begun
                rows.append({"side": side, "trials": asked, "round": number, "epochs": epochs, "seconds": seconds})
                rows[-1]["journal_bytes"] = sum(p.stat().st_size for p in folder.glob("journal.jsonl"))
                shutil.rmtree(folder, ignore_errors=True)
                print(rows[-1], flush=True)
                write_json(options.json, {"machine": machine(torch_device()), "rows": rows})
    print("\n".join(table(rows)))


def torch_device() -> Any:
    """The CPU, as `benchmarks.timing` wants it."""
    import torch

    return torch.device("cpu")


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Medians over rounds."""
    lines = ["| side | trials | epochs | trials/s | ms a report |", "|---|---|---|---|---|"]
    for side, trials in dict.fromkeys((r["side"], round(r["trials"], -2)) for r in rows):
        own = [r for r in rows if r["side"] == side and round(r["trials"], -2) == trials]
        rate = statistics.median(r["trials"] / r["seconds"] for r in own)
        each = statistics.median(1000 * r["seconds"] / r["epochs"] for r in own)
        epochs = statistics.median(r["epochs"] for r in own)
        lines.append(f"| {side} | {own[0]['trials']} | {epochs:.0f} | {rate:.1f} | {each:.1f} |")
    return lines


if __name__ == "__main__":
    main()
