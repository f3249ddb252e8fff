"""One method on several streams: a branch for each, one set of views, one weighted loss."""

from __future__ import annotations

from functools import partial

import torch
from torch import Generator, Tensor, nn

from methods.augment.policy import Policy
from methods.base import Method, StepOutput, Views
from methods.data.layouts import Layout
from methods.data.streams import derive
from methods.errors import InputError
from methods.nn.build import build_encoder
from methods.registry import get_method
from methods.training.config import TrialConfig
from methods.training.seeds import derive_seed


class Branches(nn.Module):
    """Stream name -> :class:`Method`, each with its own encoder and heads.

    Every stream sees the same augmented clips; the stream is taken before or after augmentation as the method says.
    The loss is L = S * sum_s w_s L_s (``StreamsConfig``).
    """

    def __init__(self, config: TrialConfig, layout: Layout, seed: int) -> None:
        super().__init__()
        entry = get_method(config.method)
        if entry.cls.shares_across_streams:
            raise InputError(f"method '{config.method}' trains its streams jointly, which this version cannot do yet")
        self.config = config
        self.layout = layout
        self.policy = Policy(config.augment, layout)
        self.weights = config.streams.loss_weights()
        branches: dict[str, Method] = {}
        for stream in config.streams.use:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(derive_seed(seed, "init", stream))
                branches[stream] = entry.cls(config.params, build_encoder(config.encoder, layout))
        self.branches = nn.ModuleDict(branches)

    def _each(self) -> list[tuple[str, Method]]:
        return [(name, branch) for name, branch in self.branches.items() if isinstance(branch, Method)]

    def _views(self, clips: Tensor, generator: Generator) -> dict[str, Views]:
        """Stream -> its views of the same batch of joint clips (N, C, T, V, M)."""
        each = self._each()
        if each[0][1].streams_derived == "before_views":
            state = generator.get_state()
            out = {}
            for name, branch in each:
                generator.set_state(state)  # the same draws for every stream
                out[name] = branch.make_views(derive(clips, name, self.layout), self.policy, generator)
            return out
        views = each[0][1].make_views(clips, self.policy, generator)
        return {name: views.map(partial(derive, stream=name, layout=self.layout)) for name, _ in each}

    def forward(self, clips: Tensor, generator: Generator, progress: float) -> StepOutput:
        """Weighted loss of one batch (N, C, T, V, M), and each branch's logs under ``stream/name``."""
        views = self._views(clips, generator)
        total = clips.new_zeros(())
        logs: dict[str, Tensor] = {}
        for (name, branch), weight in zip(self._each(), self.weights, strict=True):
            out = branch.loss(views[name], progress)
            total = total + weight * out.loss
            logs[f"{name}/loss"] = out.loss.detach()
            logs.update({f"{name}/{key}": value for key, value in out.logs.items()})
        return StepOutput(total, logs)

    def after_step(self, progress: float) -> None:
        for _, branch in self._each():
            branch.after_step(progress)

    def embed(self, clips: Tensor) -> dict[str, Tensor]:
        """Stream -> features (N, D) of un-augmented joint clips (N, C, T, V, M)."""
        present = (clips != 0).flatten(1, 3).any(1)
        return {name: branch.embed(derive(clips, name, self.layout), present) for name, branch in self._each()}
