"""Learning curves of real networks on tabular tasks, from the surrogate of LCBench (YAHPO), as problems for a search.

A flat problem is one task with seven hyperparameters. A composite is conditional: four tasks play four methods, each
with a ceiling, two shared hyperparameters and five of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from methods.errors import InputError, did_you_mean
from tuning.engine.choices import METHOD, Choices
from tuning.engine.simulator import Point
from tuning.space.domains import Draw

TOP = 52  # epochs of a full training
RUNGS = (2, 6, 18, 52)
ETA = 3
FEATURES = ("batch_size", "learning_rate", "momentum", "weight_decay", "num_layers", "max_units", "max_dropout")
TASK_ID = "OpenML_task_id"
LEFT_OUT = "167083"  # has a number in the surrogate, but is not in its space
SAMPLED, SAMPLE_SEED, LOW = 20_000, 52_001, 0.1  # random configurations behind a task's scale
BATCH = 2_000
COSTS = ("epoch", "time")
LEAST_SECONDS = 1e-3  # the surrogate's time need not grow with every epoch
COMPOSITE = Path(__file__).with_name("lcbench_composite.json")


def default_folder() -> Path:
    """$SKELTUNE_CURVES, else ../shared/bench."""
    return Path(os.environ.get("SKELTUNE_CURVES") or "../shared/bench")


def locate(folder: Path) -> Path:
    """The folder that holds ``model.onnx``: the one given, or ``lcbench`` in it. Raises ``InputError``."""
    for path in (folder, folder / "lcbench"):
        if (path / "model.onnx").is_file():
            return path.resolve()
    raise InputError(
        f"{folder}: no model.onnx there nor in {folder / 'lcbench'}; --curves or SKELTUNE_CURVES says where"
    )


@dataclass(frozen=True)
class Scale:
    """A task's range of accuracies in percent: ``best`` and the 10 % quantile ``low`` of random configurations."""

    best: float
    low: float

    def score(self, accuracy: Any) -> Any:
        """0 at ``low``, 1 at ``best``; not clipped."""
        return (accuracy - self.low) / (self.best - self.low)


class Surrogate:
    """The model and the space of its configurations. Raises ``InputError`` for what cannot be read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        space = _read_json(folder / "config_space.json")
        given = {entry["name"]: entry for entry in space["hyperparameters"]}
        self.tasks = tuple(str(task) for task in given[TASK_ID]["choices"])
        self.draws = tuple(_draw(given[name]) for name in FEATURES)
        self._codes = _codes(self.tasks, folder / "encoding.json")
        self._session = _session(folder / "model.onnx")

    def check(self, task: str) -> str | None:
        """A line about a task that the surrogate does not know."""
        return None if task in self._codes else f"no task {task} in {self.folder}{did_you_mean(task, self._codes)}"

    def predict(self, task: str, settings: np.ndarray, epochs: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Accuracy in percent and training time in seconds, (configurations, epochs), of rows ordered as FEATURES."""
        rows = np.empty((len(settings), len(epochs), 1 + len(FEATURES)), np.float32)
        rows[:, :, 0] = epochs
        rows[:, :, 1:] = settings[:, None]
        flat = rows.reshape(-1, rows.shape[-1])
        code = np.full((len(flat), 1), self._codes[task], np.int32)
        out = self._session.run(None, {"x_cat": code, "x_cont": flat})[0].reshape(len(settings), len(epochs), -1)
        return out[..., 1].astype(float), out[..., 0].astype(float)

    def scale(self, task: str) -> Scale:
        """The task's scale; computed once for a task and a model, and kept in the cache."""
        path = cache_folder() / f"{_digest(self.folder / 'model.onnx')}-{task}.json"
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            kept = json.loads(path.read_text(encoding="utf-8"))
            return Scale(float(kept["best"]), float(kept["low"]))
        scale = self._sampled(task)
        with contextlib.suppress(OSError):  # a cache that cannot be written costs a second, not the run
            _keep(path, json.dumps({"best": scale.best, "low": scale.low, "task": task, "sampled": SAMPLED}))
        return scale

    def _sampled(self, task: str) -> Scale:
        rng = np.random.default_rng(SAMPLE_SEED)
        rows = np.array([settings({d.name: d.sample(rng) for d in self.draws}) for _ in range(SAMPLED)])
        found = [self.predict(task, rows[i : i + BATCH], (TOP,))[0][:, 0] for i in range(0, SAMPLED, BATCH)]
        accuracies = np.concatenate(found)
        return Scale(float(accuracies.max()), float(np.quantile(accuracies, LOW)))


@lru_cache(maxsize=4)
def surrogate(folder: Path) -> Surrogate:
    """One surrogate for a process."""
    return Surrogate(folder)


class Problem(ABC):
    """What is searched: its choices, the curves of a trial, and how far a value is from the best.

    Implements ``Curves`` of the simulator; a trial's curve is computed once, whole.
    """

    name: str
    group: str
    choices: Choices

    def __init__(self, cost: str = "epoch") -> None:
        self._cost = cost
        self._curves: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    @abstractmethod
    def curve(self, draws: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """The value after each epoch, and the training time until then."""

    @abstractmethod
    def regret(self, value: float) -> float:
        """How far ``value`` is from the best that is known, on a scale where 1 is poor."""

    def point(self, trial: int, draws: Mapping[str, Any], epoch: int) -> Point:
        """The epoch-th epoch (from 1) of these draws."""
        if trial not in self._curves:
            values, clock = self.curve(draws)
            self._curves[trial] = values, np.maximum(np.diff(clock, prepend=0.0), LEAST_SECONDS)
        values, seconds = self._curves[trial]
        return Point(1.0 if self._cost == "epoch" else float(seconds[epoch - 1]), float(values[epoch - 1]))

    def final(self, trial: int) -> float:
        """The value of a trial trained in full, however far the search let it come."""
        return float(self._curves[trial][0][-1])


class Flat(Problem):
    """One task; the value is its accuracy in [0, 1], the regret is on the task's scale."""

    group = "flat"

    def __init__(self, source: Surrogate, task: str, cost: str = "epoch") -> None:
        super().__init__(cost)
        self.name, self._source, self._scale = task, source, source.scale(task)
        self.choices = Choices(((task, source.draws),))

    def curve(self, draws: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        accuracy, clock = self._source.predict(self.name, np.array([settings(draws)]), range(1, TOP + 1))
        return accuracy[0] / 100, clock[0]

    def regret(self, value: float) -> float:
        return 1.0 - float(self._scale.score(100 * value))


class Composite(Problem):
    """Tasks as methods; the value is the method's ceiling times the accuracy on the task's scale, at least 0."""

    group = "composite"

    def __init__(self, source: Surrogate, tasks: Sequence[str], cost: str = "epoch") -> None:
        super().__init__(cost)
        told = _read_json(COMPOSITE)
        self.name, self._source = "+".join(tasks), source
        self._ceilings = dict(zip(tasks, map(float, told["ceilings"]), strict=True))
        self._scales = {task: source.scale(task) for task in tasks}
        self._shared = frozenset(told["shared"])
        self.choices = Choices(tuple((f"t{task}", tuple(self._branch(task))) for task in tasks))

    def _branch(self, task: str) -> Iterator[Draw]:
        for draw in self._source.draws:
            name = draw.name if draw.name in self._shared else f"{METHOD}/t{task}/{draw.name}"
            yield Draw(name, draw.kind, draw.low, draw.high, draw.log, draw.choices)

    def curve(self, draws: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        task = str(draws[METHOD])[1:]
        own = {name.rsplit("/", 1)[-1]: value for name, value in draws.items() if name != METHOD}
        accuracy, clock = self._source.predict(task, np.array([settings(own)]), range(1, TOP + 1))
        return self._ceilings[task] * np.maximum(self._scales[task].score(accuracy[0]), 0.0), clock[0]

    def regret(self, value: float) -> float:
        return max(self._ceilings.values()) - value


def settings(draws: Mapping[str, Any]) -> list[float]:
    """The surrogate's inputs; sizes are drawn as real numbers and rounded."""
    return [float(round(draws[f]) if f in ("batch_size", "max_units") else draws[f]) for f in FEATURES]


def problem(source: Surrogate, name: str, cost: str = "epoch") -> Problem:
    """A fresh problem by its name: a task, or the tasks of a composite joined by ``+``."""
    tasks = name.split("+")
    return Flat(source, name, cost) if len(tasks) == 1 else Composite(source, tasks, cost)


def faults_of(source: Surrogate, tasks: Sequence[str], composite: Sequence[str]) -> list[str]:
    """What is wrong with the tasks that a user named, one line each."""
    faults = [line for task in dict.fromkeys([*tasks, *composite]) if (line := source.check(task))]
    wanted = len(_read_json(COMPOSITE)["ceilings"])
    if composite and len(composite) != wanted:
        faults.append(f"--composite takes {wanted} tasks (ceilings in {COMPOSITE.name}), got {len(composite)}")
    if len(set(composite)) < len(composite):
        faults.append(f"--composite names a task twice: {','.join(composite)}")
    return faults


def cache_folder() -> Path:
    """Where scales are kept: $SKELTUNE_CACHE, else ~/.cache/skeltune."""
    return Path(os.environ.get("SKELTUNE_CACHE") or Path.home() / ".cache" / "skeltune") / "lcbench"


def _codes(tasks: Sequence[str], path: Path) -> dict[str, int]:
    """The surrogate numbers tasks in the order of their words from 1 (0: unknown); the file says so of some of them."""
    words = sorted({*tasks, LEFT_OUT})
    codes = {task: 1 + words.index(task) for task in tasks}
    told = _read_json(path)[TASK_ID]
    wrong = [f"{path}: task {task} is number {told[task]}, expected {codes[task]}"
             for task in told if task in codes and told[task] != codes[task]]  # fmt: skip
    if wrong:
        raise InputError(*wrong)
    return codes


def _draw(entry: Mapping[str, Any]) -> Draw:
    """A hyperparameter as a draw; whole numbers on a logarithmic scale are drawn as real ones."""
    whole = entry["type"] == "uniform_int" and not entry["log"]
    low, high = float(entry["lower"]), float(entry["upper"])
    return Draw(entry["name"], "int" if whole else "float", low, high, log=bool(entry["log"]))


def _session(path: Path) -> Any:
    try:
        runtime = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise InputError("the surrogate of LCBench needs onnxruntime: pip install onnxruntime") from error
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@lru_cache(maxsize=4)
def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _keep(path: Path, text: str) -> None:
    """Write by rename, under a name of its own: several processes may do so at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".scale-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(name, path)
    except OSError:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
