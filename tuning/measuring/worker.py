"""The process that measures: reads what to do from its standard input, a JSON object a line, and answers likewise.

    open      the data, the probe, device and threads, as a trial of the search would have them
    profile   a configuration: the time of its steps and of a rung, and its memory
    hold      a configuration: build it, warm it up, keep it; its memory
    turn      train what is held for some seconds; samples and seconds

Ends with its input, so that none outlives who started it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch

from methods.data import Split
from methods.errors import InputError
from methods.registry import get_method
from methods.training import evaluate
from methods.training.config import from_dict
from methods.training.pretrain import start
from methods.training.probe import ProbeConfig
from methods.training.run import Run
from tuning.allocation import keep_memory
from tuning.datasets import DataSource
from tuning.measuring.memory import Meter
from tuning.measuring.rung import time_rung
from tuning.measuring.steps import Stepper, samples_within, time_spread, time_stage
from tuning.session import pick_device


class Bench:
    """What :func:`answer` works on: the data of a search, and the run that is held."""

    def __init__(self) -> None:
        self.source: DataSource
        self.probe: ProbeConfig
        self.split: Split
        self.device: torch.device
        self.seed = 0
        self.held: Stepper | None = None

    def open(
        self, source: Mapping[str, Any], probe: Mapping[str, Any], device: str, threads: int, seed: int
    ) -> dict[str, Any]:
        """The data of a search. Raises ``InputError`` where it is not there, or there is no such device."""
        torch.set_num_threads(threads)
        self.source, self.probe, self.seed = DataSource(**source), ProbeConfig(**probe), seed
        self.split, self.device = self.source.split(), pick_device(device)
        gpu = self.device.type == "cuda"
        return {"device": torch.cuda.get_device_name(self.device) if gpu else "cpu"}

    def _start(self, config: Mapping[str, Any]) -> Run:
        built = from_dict(config)
        clips = self.source.clips(built.frames, built.preprocess)
        index = evaluate.pretraining_index(self.split)
        return start(built, clips, index, seed=self.seed, device=self.device)

    def profile(self, config: Mapping[str, Any], steps: int, seconds: float) -> dict[str, Any]:
        """Time of steps stage by stage, of an epoch's end, of rungs at the top and below it; the peak of memory."""
        meter = Meter(self.device)
        run = self._start(config)
        stages = get_method(run.config.method).cls.stages(run.config.params)
        timed = [time_stage(run, s.name, s.start, steps, seconds / len(stages)) for s in stages]
        rung = time_rung(run, self.split, self.probe, seconds)
        below = time_rung(run, self.split, self.probe, seconds, below_top=True) if self.probe.subset else rung
        return {
            "batch": run.config.optim.batch,
            "steps_per_epoch": run.steps_per_epoch,
            "stages": [dataclasses.asdict(stage) for stage in timed],
            "spread_s": time_spread(run),
            "rung": dataclasses.asdict(rung),
            "rung_below": dataclasses.asdict(below),
            "memory": dataclasses.asdict(meter.read()),
        }

    def hold(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """A run that is warm, in its last stage: a step in each stage, and the features of a batch as at a rung."""
        self.held = None  # frees the last one first
        meter = Meter(self.device)
        run = self._start(config)
        for stage in get_method(run.config.method).cls.stages(run.config.params):
            self.held = Stepper(run, stage.start)
            self.held.take()
        time_rung(run, self.split, self.probe, 0.0)
        return {"memory": dataclasses.asdict(meter.read())}

    def turn(self, seconds: float) -> dict[str, Any]:
        """Train what is held."""
        if self.held is None:
            raise InputError("nothing is held that could be trained")
        samples, spent = samples_within(self.held, seconds)
        return {"samples": samples, "seconds": spent}


def answer(bench: Bench, line: str) -> dict[str, Any]:
    """What comes of one line of input; a failure is an answer too."""
    asked = json.loads(line)
    do: Callable[..., dict[str, Any]] = getattr(bench, asked.pop("do"))
    try:
        return do(**asked)
    except InputError as error:
        return {"faults": list(error.faults)}
    except (torch.cuda.OutOfMemoryError, MemoryError) as error:
        return {"failed": f"out of memory ({_first(error)})", "memory": True}
    except Exception as error:  # the one who asked decides what it means
        return {"failed": f"{type(error).__name__}: {_first(error)}"}


def _first(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def main() -> None:
    """Answer until the input ends. What a library prints goes to standard error: the output is for answers alone."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    keep_memory()  # as a trial does
    bench = Bench()
    for line in sys.stdin:
        print(json.dumps(answer(bench, line)), file=out, flush=True)


if __name__ == "__main__":
    main()
