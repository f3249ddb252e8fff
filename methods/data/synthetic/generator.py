"""Generated skeletons: seeded clips of articulated bodies in the NTU-25 layout, the data set that needs no download.

Bodies are in `puppet`, what they do in `movements`; this file sets them before cameras, spoils them as a depth sensor
would, and writes them. The generator was tuned by one thing only, measured in benchmarks/generator.py: a nearest
neighbour on raw joints stays clearly below a supervised ST-GCN on unseen subjects and unseen cameras. Since then it is
frozen; a test pins its output.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from methods.data.layouts.layout import NTU25
from methods.data.skeletons import SkeletonDataset
from methods.data.synthetic.movements import ACTIONS, TWO_PERSON, perform
from methods.data.synthetic.puppet import JOINTS, Array, Style, draw_style
from methods.data.writer import DatasetWriter
from methods.errors import InputError, did_you_mean

__all__ = ["ACTIONS", "PERSONS", "QUICKSTART", "TWO_PERSON", "SyntheticClip", "SyntheticConfig", "generate_clips",
           "write_synthetic"]  # fmt: skip

PERSONS = 2
_SHORTEST, _LONGEST = 8, 3000  # frames: fewer show no movement, more are a typing error
_CAMERA_SPREAD = 27.0  # degrees to each side; NTU RGB+D has 45, but shows each side of the people twice
# Trackers know the trunk best and the ends of the limbs worst (factor on the noise).
_NOISE_FACTOR = np.ones(JOINTS)
_NOISE_FACTOR[[0, 1, 2, 20, 12, 16]] = 0.6
_NOISE_FACTOR[[6, 7, 10, 11, 14, 18]] = 1.4
_NOISE_FACTOR[[15, 19, 21, 22, 23, 24]] = 2.0


@dataclass(frozen=True)
class SyntheticConfig:
    """What to generate: every action x subject x camera is a cell of `clips_per_cell` clips.

    ``noise`` is in metres (1 sigma of an average joint), ``dropout`` the share of joint frames that are lost,
    ``min_frames``..``max_frames`` the ragged lengths at ``fps``. A clip depends on ``seed`` and its own action,
    subject, camera and repeat only, so a smaller configuration is a part of a larger one. Raises `InputError`.
    """

    clips_per_cell: int = 2
    subjects: int = 10
    cameras: int = 3
    actions: tuple[str, ...] = ACTIONS
    noise: float = 0.012
    dropout: float = 0.02
    min_frames: int = 30
    max_frames: int = 90
    fps: float = 20.0
    seed: int = 0

    def __post_init__(self) -> None:
        faults = _range_faults(self) + [
            f"actions: unknown action {name!r}{did_you_mean(name, ACTIONS)}"
            for name in self.actions
            if name not in ACTIONS
        ]
        if len(set(self.actions)) < max(2, len(self.actions)):
            faults.append(f"actions: want at least two different names and none twice, got {list(self.actions)}")
        if self.min_frames > self.max_frames:
            faults.append(f"min_frames: {self.min_frames} is more than max_frames {self.max_frames}")
        if faults:
            raise InputError(*faults)

    @property
    def total(self) -> int:
        """The number of clips."""
        return len(self.actions) * self.subjects * self.cameras * self.clips_per_cell


def _range_faults(cfg: SyntheticConfig) -> list[str]:
    limits: dict[str, tuple[float, float]] = {
        "clips_per_cell": (1, 10_000), "subjects": (2, 10_000), "cameras": (1, 99), "noise": (0, 1),
        "dropout": (0, 0.9), "min_frames": (_SHORTEST, _LONGEST), "max_frames": (_SHORTEST, _LONGEST), "fps": (1, 1000),
        "seed": (0, 2**63),
    }  # fmt: skip
    faults = []
    for name, (low, high) in limits.items():
        value = getattr(cfg, name)
        whole = name not in ("noise", "dropout", "fps")
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
            faults.append(f"{name}: want {'a whole number' if whole else 'a number'}, got {value!r}")
        elif not (math.isfinite(value) and low <= value <= high):
            faults.append(f"{name}: want {low:g} to {high:g}, got {value!r}")
    return faults


# The embedded default, frozen: change nothing here without a new name, for results would no longer compare.
QUICKSTART = SyntheticConfig()


class SyntheticClip(NamedTuple):
    """One clip: frames (T, M, V, C) float32 in metres, camera space with y up and z away from the camera.

    ``label`` counts in the configuration's actions; ``subject`` and ``camera`` count from 1, as NTU RGB+D does.
    """

    frames: NDArray[np.float32]
    label: int
    subject: int
    camera: int
    name: str


def generate_clips(cfg: SyntheticConfig) -> Iterator[SyntheticClip]:
    """Yield every clip of `cfg`, actions innermost, so that any prefix is about balanced."""
    styles = [draw_style(np.random.default_rng([cfg.seed, 1, subject])) for subject in range(1, cfg.subjects + 1)]
    for repeat in range(cfg.clips_per_cell):
        for subject, style in enumerate(styles, start=1):
            for camera in range(1, cfg.cameras + 1):
                for label, action in enumerate(cfg.actions):
                    key = [cfg.seed, 2, ACTIONS.index(action), subject, camera, repeat]
                    frames = _record(cfg, action, style, camera, np.random.default_rng(key))
                    yield SyntheticClip(
                        frames, label, subject, camera, f"{action}_s{subject:02d}_c{camera}_r{repeat + 1:02d}"
                    )


def write_synthetic(path: str | Path, cfg: SyntheticConfig = QUICKSTART) -> SkeletonDataset:
    """Generate `cfg` and write it to `path` with the splits xsub (about 60/40 of the subjects) and xview.

    xview, absent when there is one camera, tests on camera 1, which stands to one side, as in NTU RGB+D.
    Raises `InputError` when the path cannot be written.
    """
    subjects, cameras = [], []
    with DatasetWriter(path, NTU25, cfg.actions, PERSONS, source={"synthetic": asdict(cfg)}) as writer:
        for clip in generate_clips(cfg):
            writer.append(clip.frames, clip.label, clip.subject, camera=clip.camera, name=clip.name)
            subjects.append(clip.subject)
            cameras.append(clip.camera)
        unseen = np.isin(subjects, held_out_subjects(cfg.subjects))
        splits = {"xsub": np.where(unseen, 2, 1).astype(np.int8)}
        if cfg.cameras > 1:
            splits["xview"] = np.where(np.asarray(cameras) == 1, 2, 1).astype(np.int8)
        return writer.finish(splits=splits)


def held_out_subjects(subjects: int) -> list[int]:
    """The test subjects of xsub: two in five, spread over the range, and never fewer than one."""
    return [s for s in range(1, subjects + 1) if 2 * s // 5 > 2 * (s - 1) // 5] or [subjects]


def _record(
    cfg: SyntheticConfig, action: str, style: Style, camera: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """One performance before one camera: (T, M, V, 3)."""
    frames = int(rng.integers(cfg.min_frames, cfg.max_frames + 1))
    bodies = perform(action, rng, style, np.arange(frames) / cfg.fps)
    facing = rng.uniform(-40.0, 40.0)
    if len(bodies) == PERSONS:  # a pair is seen from the side, and from either side
        facing += 90.0 * rng.choice([-1.0, 1.0])
    to_camera = _camera(cfg, camera, rng)
    spot = np.array([rng.uniform(-0.4, 0.4), 0.0, rng.uniform(-0.4, 0.4)])
    out = np.zeros((frames, PERSONS, JOINTS, 3), dtype=np.float32)
    for person, body in enumerate(bodies):
        seen = (body @ _yaw(facing).T + spot - to_camera[0]) @ to_camera[1].T
        out[:, person] = _sense(cfg, seen, rng)
    return out


def _yaw(degrees: float) -> Array:
    angle = math.radians(degrees)
    return np.array([[math.cos(angle), 0, math.sin(angle)], [0, 1, 0], [-math.sin(angle), 0, math.cos(angle)]])


def _camera(cfg: SyntheticConfig, camera: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Place (3,) and axes (3, 3) of a camera; rows are its left, up and forward, as Kinect's camera space has it."""
    mount = np.random.default_rng([cfg.seed, 3, camera])  # each camera has its own height and distance
    spread = 0.0 if cfg.cameras == 1 else _CAMERA_SPREAD * (1 - 2 * (camera - 1) / (cfg.cameras - 1))
    yaw = math.radians(spread + rng.uniform(-6, 6))
    distance, height = (
        mount.uniform(2.6, 3.8) + rng.uniform(-0.3, 0.5),
        mount.uniform(0.9, 1.8) + rng.uniform(-0.1, 0.1),
    )
    tilt = math.atan2(height - 0.95, distance) + math.radians(rng.uniform(-4, 4))
    level = np.array([-math.sin(yaw), 0.0, -math.cos(yaw)])
    up = np.array([0.0, 1.0, 0.0])
    forward, above = math.cos(tilt) * level - math.sin(tilt) * up, math.cos(tilt) * up + math.sin(tilt) * level
    place = np.array([distance * math.sin(yaw), height, distance * math.cos(yaw)])
    return place, np.stack([np.cross(up, level), above, forward])


def _sense(cfg: SyntheticConfig, body: Array, rng: np.random.Generator) -> Array:
    """What a sensor makes of a body (T, V, 3): noise, worse for hidden joints, and joints or frames that are lost."""
    frames = len(body)
    white = rng.normal(0.0, 1.0, (frames + 8, JOINTS, 3))
    drift = np.cumsum(white, axis=0)
    slow = (drift[8:] - drift[:-8]) / math.sqrt(8)  # a running mean: noise that stays for some frames
    hidden = np.clip((body[..., 2] - body[:, 20:21, 2]) / 0.25, 0.0, 1.0)  # behind the trunk, seen from the camera
    size = cfg.noise * _NOISE_FACTOR * (1.0 + 1.5 * hidden)
    out = body + size[..., None] * (0.6 * white[8:] + 0.8 * slow)
    for _ in range(rng.poisson(cfg.dropout * frames * JOINTS / 5.0)):
        joint, start, length = int(rng.integers(JOINTS)), int(rng.integers(frames)), int(rng.integers(2, 9))
        lost = slice(start, start + length)
        jump = rng.normal(0.0, 0.15, 3) if rng.random() < 0.4 else 0.0
        out[lost, joint] = out[max(0, start - 1), joint] + jump
    for _ in range(rng.poisson(2.0 * cfg.dropout)):  # rarely the whole body is lost for some frames
        start = int(rng.integers(1, frames))
        out[start : start + int(rng.integers(1, 5))] = 0.0
    return out
