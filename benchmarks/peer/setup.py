"""What both sides of a comparison share: the clips, each method's sizes, and the two ways in which ours may run.

A published batch of SCD-Net or CMD takes minutes a step on one CPU thread, so that there is a table of smaller ones;
every row says what it was measured with. What is scaled is scaled on both sides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.peer.augment import Array
from methods.data.layouts import NTU25
from methods.data.preprocess import DEFAULT_STEPS, apply_steps, parse_steps
from methods.data.splits import Split
from methods.data.synthetic import SyntheticClip, SyntheticConfig, generate_clips, held_out_subjects
from methods.nn.encoder import EncoderConfig
from methods.nn.gru import GruConfig
from methods.nn.twopath import TwoPathConfig
from methods.training.clips import Clips
from methods.training.config import TrialConfig, published, with_settings
from methods.training.pretrain import Run, start

Index = NDArray[np.int64]
PAPERS, TABLE = "published", "table"  # where sizes come from
PAPER_WIDTH = 16  # channels of the ST-GCN's first stage


@dataclass(frozen=True)
class Size:
    """Clips a step on a CPU, and the settings that are not as published there, by dotted name."""

    batch: int
    settings: Mapping[str, Any] = field(default_factory=dict)


# Every method's step in a few seconds on one thread. Batches are multiples of five where they are not as published, so
# that one clip in five can have a second body; networks are as published but where a step, or an optimiser's step over
# the weights of a wide head, would drown what is compared. A queue holds as many batches as published.
SIZES: Mapping[str, Size] = {
    "skeletonclr": Size(20),
    "crossclr": Size(10),
    "aimclr": Size(10),
    "skelemixclr": Size(10),
    "skelemixclr_plus": Size(5),
    "skeletonbyol": Size(5),
    "cmal": Size(5),
    "cmcs": Size(5, {"encoder.dim": 256, "hidden": 1024, "projection": 256}),
    "skeletonbt": Size(20, {"projection": 2048}),
    "pstl": Size(10, {"projection": 2048}),
    "scdnet": Size(5, {"encoder.d_model": 1024, "hidden": 1024}),
    "cmd": Size(10, {"encoder.hidden": 256, "hidden": 512}),
    "crrl": Size(32),
}

# The settings that carry a width -> what they must be a multiple of.
WIDTHS: Mapping[type[Any], Mapping[str, int]] = {
    EncoderConfig: {"encoder.width": 1, "encoder.dim": 1},
    GruConfig: {"encoder.hidden": 1},
    TwoPathConfig: {"encoder.base": 4, "encoder.d_model": 16},
}
HEAD_WIDTHS = {"hidden": 1, "projection": 1}


def paper_config(method: str) -> TrialConfig:
    """The method as its official code has it, in float32 and with all bodies; other draws in each epoch.

    (That code repeats its draws because its loader's workers are seeded alike; a loader without workers does not.)
    """
    settings: dict[str, Any] = {"augment.repeat": False}
    config = published(method, preset="paper_code")
    plain = {"bodies": "all", "precision": "fp32"}
    return with_settings(config, settings | {f"encoder.{k}": v for k, v in plain.items() if hasattr(config.encoder, k)})


def scaled_config(
    method: str, sizes: str = TABLE, batch: int | None = None, frames: int | None = None, width: int | None = None
) -> tuple[TrialConfig, str]:
    """The configuration that both sides get, and in words what of it is not as published.

    ``width``: the first stage's of ST-GCN, published 16; every other width is scaled by as much. ``batch`` and
    ``frames`` replace the table's or the paper's.
    """
    paper = paper_config(method)
    settings: dict[str, Any] = dict(SIZES[method].settings) if sizes == TABLE else {}
    if width is not None:
        for name, multiple in {**WIDTHS[type(paper.encoder)], **HEAD_WIDTHS}.items():
            before = settings.get(name, value_of(paper, name))
            if before is not None:
                settings[name] = multiple * max(1, round(before * width / PAPER_WIDTH / multiple))
    chosen = batch or (SIZES[method].batch if sizes == TABLE else paper.optim.batch)
    settings["optim.batch"] = chosen
    if frames is not None:
        settings["frames"] = frames
    queue = value_of(paper, "queue")
    if queue is not None:
        settings["queue"] = max(1, queue // paper.optim.batch) * chosen
    changed = {name: value for name, value in settings.items() if value != value_of(paper, name)}
    words = ", ".join(f"{name.removeprefix('optim.')} {v} of {value_of(paper, name)}" for name, v in changed.items())
    return with_settings(paper, settings), words or "as published"


def value_of(config: TrialConfig, name: str) -> Any:
    """A setting by its dotted name; None where this method has none of that name."""
    part, _, inner = name.rpartition(".")
    if not part and hasattr(config, inner):
        return getattr(config, inner)
    return getattr(getattr(config, part or "params"), inner, None)


def recorded_options(config: TrialConfig, device: torch.device) -> tuple[TrialConfig, str]:
    """The same with the options that a result records: recorded bodies only, bf16 where the processor has units for it.

    The second value names them; it is empty where there are none.
    """
    settings: dict[str, Any] = {}
    if hasattr(config.encoder, "bodies"):
        settings["encoder.bodies"] = "real"
        if device.type == "cuda":
            settings["optim.order"] = "stratified"  # without it a step cannot be replayed as a graph
    if hasattr(config.encoder, "precision") and has_bf16(device):
        settings["encoder.precision"] = "bf16"
    words = ", ".join(f"{name.partition('.')[2]} {value}" for name, value in settings.items())
    return with_settings(config, settings), words


def has_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bf16 in units of its own; of a processor, as far as the system tells."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    info = Path("/proc/cpuinfo")
    words = info.read_text(encoding="utf-8", errors="replace").split() if info.is_file() else []
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(words)


@dataclass
class Bench:
    """The generated clips, by subject, on both sides' terms: a memory map (N, C, T, V, M) for each T that is asked for.

    ``train`` and ``held`` are clips of different subjects. One clip in five has a second body.
    """

    count: int
    folder: Path
    device: torch.device
    _made: dict[int, Clips] = field(default_factory=dict)

    @cached_property
    def raw(self) -> list[SyntheticClip]:
        config = SyntheticConfig(cameras=1, clips_per_cell=max(1, -(-self.count // 150)))
        return list(generate_clips(config))

    def clips(self, frames: int) -> Clips:
        """All clips at T = ``frames``."""
        if frames not in self._made:
            steps = parse_steps(DEFAULT_STEPS)
            array = np.stack([apply_steps(c.frames, len(c.frames), NTU25, steps, frames) for c in self.raw])
            path = self.folder / f"clips_{frames}.npy"
            np.save(path, array.astype(np.float32))
            data: Array = np.load(path, mmap_mode="r", allow_pickle=False)
            labels = np.array([c.label for c in self.raw])
            self._made[frames] = Clips(data, labels, self.subjects, NTU25, int(labels.max()) + 1, "benchmark")
        return self._made[frames]

    @cached_property
    def subjects(self) -> NDArray[Any]:
        return np.array([c.subject for c in self.raw])

    @cached_property
    def two_persons(self) -> NDArray[np.bool_]:
        """(N,) whether a clip has a second body."""
        bodies: NDArray[np.bool_] = np.array([bool(np.any(c.frames[:, 1])) for c in self.raw])
        return bodies

    @cached_property
    def train(self) -> Index:
        return np.flatnonzero(~self._unseen)

    @cached_property
    def held(self) -> Index:
        return np.flatnonzero(self._unseen)

    @cached_property
    def _unseen(self) -> NDArray[np.bool_]:
        return np.isin(self.subjects, held_out_subjects(SyntheticConfig().subjects))

    def some(self, count: int, of: Index) -> Index:
        """``count`` clips of ``of``, the same each time, with its share of second bodies."""
        if count > len(of):
            raise ValueError(f"{count} clips are wanted and {len(of)} are there: give a larger --clips")
        order = np.random.default_rng(0).permutation(of)
        second = order[self.two_persons[order]]
        first = order[~self.two_persons[order]]
        pairs = min(len(second), max(count - len(first), round(count * len(second) / len(of))))
        return np.sort(np.concatenate([second[:pairs], first[: count - pairs]]))

    def split(self, train: Index) -> Split:
        """A search's split: fitted on ``train``, scored on the clips of the other subjects."""
        none = np.zeros(0, dtype=np.int64)
        return Split("subjects", train, self.held, none, None, (), "by subject")

    def run(self, config: TrialConfig, index: Index) -> Run:
        """Our side, ready to train on clips ``index``."""
        captured = self.device.type == "cuda"  # changes no number
        return start(config, self.clips(config.frames), index, seed=0, device=self.device, captured=captured)


def at_stage(run: Run, begins: float) -> float:
    """Put a run to the first epoch of a stage that begins at this share of it; the progress there."""
    run.epoch = min(math.ceil(begins * run.config.epochs), run.config.epochs - 1)
    while run.epoch / run.config.epochs < begins:
        run.epoch += 1
    run.step = run.epoch * run.steps_per_epoch
    return run.step / run.total_steps


def without_dropout(config: TrialConfig) -> TrialConfig:
    """For a comparison of numbers: the two sides draw their dropout differently."""
    return replace(config, encoder=replace(config.encoder, dropout=0.0))
