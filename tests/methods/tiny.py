"""Tiny data and configurations for the tests of the methods room: a step takes milliseconds."""

from __future__ import annotations

import copy
import dataclasses
from functools import partial
from typing import Any

import numpy as np
import torch

from methods.augment.policy import Policy
from methods.base import JointMethod, Method, StepOutput, Views
from methods.data.layouts import NTU25, Layout, layout_from_parts
from methods.data.streams import derive
from methods.nn.build import build_encoder
from methods.nn.encoder import EncoderConfig
from methods.nn.gru import GruConfig
from methods.nn.twopath import TwoPathConfig
from methods.registry import get_method
from methods.training.clips import Clips
from methods.training.config import TrialConfig, published

ENCODER = EncoderConfig(width=4, dim=16, depth=3, dropout=0.0)
SMALLER = {  # what makes another architecture small; the rest stays as the method's recipe has it
    GruConfig: {"hidden": 8, "layers": 2, "dropout": 0.0},
    TwoPathConfig: {"base": 4, "d_model": 8, "heads": 2, "dropout": 0.0},
}
SMALL = {"queue": 12, "hidden": 16, "projection": 8}  # whichever of these a method has; 12 is no multiple of 5 or 8

# A layout of nobody's: 15 joints in a bush, the root in the middle of the list.
BUSH15 = layout_from_parts(
    "bush15",
    tuple(f"joint{i}" for i in range(15)),
    (3, 3, 3, 7, 3, 7, 5, -1, 7, 8, 9, 9, 8, 12, 13),
)


def tree(parents: list[int], centre: int = 0) -> Layout:
    """A layout of any shape; every joint is its own mirror image."""
    count = len(parents)
    names = tuple(f"joint{i}" for i in range(count))
    return Layout("tree", names, tuple(parents), centre, tuple(range(count)), None)


def movements(
    count: int, frames: int = 16, layout: Layout = NTU25, persons: int = 2, classes: int = 4, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Clips (N, 3, T, V, M) float32 and labels (N,): a class swings its own few joints at its own speed.

    Every second clip has its later bodies empty.
    """
    rng = np.random.default_rng(seed)
    pose = np.random.default_rng(99).normal(0, 0.5, (3, 1, layout.num_joints, 1))
    labels = np.arange(count) % classes
    data = np.zeros((count, 3, frames, layout.num_joints, persons), dtype=np.float32)
    for i, label in enumerate(labels):
        own = np.random.default_rng(label)
        reach = own.normal(0, 0.6, (3, 1, layout.num_joints, 1)) * (own.random((1, 1, layout.num_joints, 1)) < 0.4)
        phase = rng.uniform(0, 2 * np.pi)
        swing = np.sin(np.linspace(0, 2 * np.pi * (1 + label), frames) + phase)[None, :, None, None]
        jitter = rng.normal(0, 0.05, (3, frames, layout.num_joints, persons))
        data[i] = pose * rng.normal(1, 0.05) + reach * swing + jitter
        if i % 2:
            data[i, ..., 1:] = 0
    return data, labels


def make_clips(count: int = 32, frames: int = 16, subjects: int = 4, **how: Any) -> Clips:
    """A :class:`Clips` of :func:`movements`; the subject changes with every four clips."""
    layout = how.pop("layout", NTU25)
    data, labels = movements(count, frames, layout, **how)
    people = np.stack([np.arange(count) // 4 % subjects, np.full(count, -1)], 1)
    return Clips(data, labels, people, layout, int(labels.max()) + 1, fingerprint="tiny")


def own_config(name: str, **changes: Any) -> Any:
    """The method's own settings at their published values, but for small sizes and ``changes``."""
    config = get_method(name).config()
    known = {f.name for f in dataclasses.fields(config)}
    return dataclasses.replace(config, **{k: v for k, v in (SMALL | changes).items() if k in known})


def small_encoder(name: str, **changes: Any) -> Any:
    """A small config of the architecture that the method uses, with those ``changes`` that it knows."""
    published = get_method(name).recipe.encoder
    if isinstance(published, EncoderConfig):
        small: Any = ENCODER
    else:
        small = dataclasses.replace(published, **SMALLER[type(published)])
    known = {f.name for f in dataclasses.fields(small)}
    return dataclasses.replace(small, **{k: v for k, v in changes.items() if k in known})


def make_method(
    name: str,
    layout: Layout = NTU25,
    seed: int = 0,
    encoder: Any = None,
    frames: int = 16,
    persons: int = 2,
    **own: Any,
) -> Method:
    """A small instance in train mode, its weights a function of ``seed``; joint streams come as :func:`as_one`.

    ``frames`` and ``persons`` are those of its clips: some architectures have them in their weights.
    """
    cls, use = get_method(name).cls, get_method(name).recipe.use
    shape = small_encoder(name) if encoder is None else encoder
    build = partial(build_encoder, shape, layout, frames=frames, persons=persons)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if issubclass(cls, JointMethod):
            return as_one(cls, layout)(own_config(name, **own), {stream: build() for stream in use}).train()
        return cls(own_config(name, **own), build()).train()


def as_one(cls: type[JointMethod], layout: Layout) -> type[JointMethod]:
    """``cls`` with the ``loss`` and ``embed`` of a single branch, so that one contract is held against every method.

    Views are of joints, as for the others; losses add up, features lie side by side.
    """

    def streams_of(self: JointMethod, clips: torch.Tensor) -> dict[str, torch.Tensor]:
        return {stream: derive(clips, stream, layout) for stream in self.streams}

    def loss(self: JointMethod, views: Views, progress: float) -> StepOutput:
        outs = self.losses({s: views.map(partial(derive, stream=s, layout=layout)) for s in self.streams}, progress)
        logs = {f"{stream}/{key}": value for stream, out in outs.items() for key, value in out.logs.items()}
        return StepOutput(sum((out.loss for out in outs.values()), torch.zeros(())), logs)

    def embed(self: JointMethod, clips: torch.Tensor, present: torch.Tensor | None = None) -> torch.Tensor:
        return torch.cat(list(self.embed_streams(streams_of(self, clips), present).values()), 1)

    def encoder(self: JointMethod) -> Any:
        """All encoders as one, past ``embed_streams``."""

        def features(clips: torch.Tensor) -> torch.Tensor:
            return torch.cat([self.encoders[s](x) for s, x in streams_of(self, clips).items()], 1)

        features.dim = sum(each.dim for each in self.encoders.values())
        return features

    return type(cls.__name__, (cls,), {"loss": loss, "embed": embed, "encoder": property(encoder)})


def make_config(method: str = "skeletonbyol", epochs: int = 3, **changes: Any) -> TrialConfig:
    """A trial of seconds: the method's recipe with a small encoder, 16 frames and batches of 8."""
    base = published(method, epochs)
    optim = dataclasses.replace(base.optim, batch=8, lr=0.02)
    own = {"params": own_config(method), "encoder": small_encoder(method), "frames": 16, "optim": optim}
    return dataclasses.replace(base, **(own | changes))


def policy(name: str, layout: Layout = NTU25) -> Policy:
    """The method's published augmentations."""
    return Policy(get_method(name).recipe.augment, layout)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Two state dicts, bit for bit."""

    def equal(x: Any, y: Any) -> bool:
        return torch.equal(x, y) if isinstance(x, torch.Tensor) else bool(x == y)

    return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)


def copy_state(module: torch.nn.Module) -> dict[str, Any]:
    return copy.deepcopy(dict(module.state_dict()))
