"""`skeltune train` and `skeltune evaluate`: one configuration, in this process, without Ray."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from methods.errors import InputError
from methods.training.config import StreamsConfig, TrialConfig
from methods.training.seeds import derive_seed
from tuning.allocation import keep_memory
from tuning.config.schema import SearchSpec
from tuning.datasets import source_of
from tuning.files import write_text
from tuning.plan import probe_config
from tuning.provenance import surroundings
from tuning.session import CHECKPOINT, Session, Task
from tuning.space import load_search
from tuning.words import duration

RESULT = "result.json"


def load_config(path: Path | str) -> tuple[SearchSpec, TrialConfig]:
    """The one configuration of a file with nothing left to search; ``InputError`` when something is still free."""
    spec, space = load_search(Path(path))
    if len(space.branches) > 1 or any(space.free.values()):
        free = ", ".join(d.name for b in space.branches for d in b.draws) or "method"
        raise InputError(
            f"{path}: this is a search space, not one configuration; still free: {free}. "
            f"Search it with: skeltune search {path}"
        )
    return spec, space.resolve({"method": space.methods[0]})


def change(config: TrialConfig, epochs: int | None, stream: str | None) -> TrialConfig:
    """The configuration with another length (schedules are fractions and rescale) or one stream only."""
    if epochs is not None:
        config = dataclasses.replace(config, epochs=epochs)
    if stream is not None:
        if stream not in config.streams.use:
            used = ", ".join(config.streams.use)
            raise InputError(f"--stream {stream}: this configuration uses {used}")
        config = dataclasses.replace(config, streams=StreamsConfig(use=(stream,)))
    return config


def train(
    config_file: Path | str,
    *,
    out: Path | str | None = None,
    epochs: int | None = None,
    stream: str | None = None,
    seed: int | None = None,
    device: str = "auto",
    threads: int | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train one configuration on the whole training split and probe it on the test split; returns the result.

    Without ``seed`` the first retraining seed of the file's provenance is taken, which repeats that run. Writes
    ``checkpoint.pt`` and ``result.json`` to ``out`` (default ``runs/train-<name>``); the same call resumes.
    """
    spec, config = load_config(config_file)
    config = change(config, epochs, stream)
    told = spec.provenance
    torch.set_num_threads(threads or int((told.get("hardware") or {}).get("threads") or torch.get_num_threads()))
    keep_memory()
    seed = _seed(spec, told) if seed is None else seed
    folder = Path(out) if out is not None else Path("runs") / f"train-{spec.name}"
    source = source_of(spec)
    _say_other_data(told, source.fingerprint, say)
    task = Task("train", config.to_dict(), seed, (config.epochs,), str(folder), train_on="whole", score="test")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        session = Session(task, source, probe_config(spec), device, graphs=spec.budget.per_trial.graphs)
    except OSError as error:
        raise InputError(f"{folder}: the output folder cannot be written ({error.strerror})") from error
    except InputError as error:
        raise InputError(
            *(f"{folder}: {fault}" if "checkpoint" in fault else fault for fault in error.faults)
        ) from None
    say(f"{config.method} on {spec.data.set}, {len(session.run.index)} clips, {config.epochs} epochs, seed {seed}")
    result = _epochs(session, say)
    result |= {"seed": seed, "config": config.to_dict(), **surroundings(torch.get_num_threads())}
    write_text(folder / RESULT, json.dumps(result, indent=2) + "\n")
    _compare(result, told, config, epochs, stream, say)
    say(f"weights: {folder / CHECKPOINT}   result: {folder / RESULT}")
    return result


def _seed(spec: SearchSpec, told: Mapping[str, Any]) -> int:
    seeds = (told.get("seeds") or {}).get("retrain") or []
    return int(seeds[0]) if seeds else derive_seed(spec.seed, "retrain", 0)


def _say_other_data(told: Mapping[str, Any], fingerprint: str, say: Callable[[str], None]) -> None:
    recorded = (told.get("data") or {}).get("fingerprint")
    if recorded and recorded != fingerprint:
        say(f"note: this is other data than the file was found on ({fingerprint[:12]}, then {recorded[:12]})")


def _epochs(session: Session, say: Callable[[str], None]) -> dict[str, Any]:
    """All epochs that are left, about twenty lines of progress, the last result."""
    total, spent, begun = session.run.config.epochs, 0.0, session.run.epoch
    result: dict[str, Any] = {}
    while not result.get("done"):
        result = session.step()
        if "ended" in result:
            raise TrainingFailed(f"{result['detail']}: this configuration cannot be trained here")
        spent += result["seconds"]
        epoch = result["epoch"]
        if epoch % max(1, total // 20) == 0 or result["done"]:
            left = spent / max(1, epoch - begun) * (total - epoch)
            say(
                f"epoch {epoch:>4}/{total}  loss {result['train_loss']:.4f}  spread {result['spread']:.3f}"
                + (f"  about {duration(left)} left" if left else "")
            )
    return result


class TrainingFailed(Exception):
    """The run diverged or collapsed."""


def _compare(
    result: Mapping[str, Any],
    told: Mapping[str, Any],
    config: TrialConfig,
    epochs: int | None,
    stream: str | None,
    say: Callable[[str], None],
) -> None:
    streams = ", ".join(f"{name} {100 * pair[0]:.1f}" for name, pair in result["streams"].items())
    alone = f" ({streams})" if len(config.streams.use) > 1 else ""
    say(f"test top1 {100 * result['top1']:.2f}{alone}")
    test = told.get("test") or {}
    if test and epochs is None and stream is None:
        spread = test.get("spread")
        around = f" ± {100 * spread:.2f}" if spread is not None else ""
        say(f"the file states {100 * test['mean']:.2f}{around}")
