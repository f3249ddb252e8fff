"""One method on several streams: a branch for each, or all streams in one; one set of views, one weighted loss."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Generator, Tensor, nn

from methods.augment.policy import Policy
from methods.base import JointMethod, Method, StepOutput, Views
from methods.data.layouts import Layout
from methods.data.streams import derive
from methods.filled import present_bodies
from methods.nn.build import build_encoder
from methods.nn.encoder import Encoder
from methods.nn.stgcn import STGCN
from methods.registry import get_method
from methods.training.config import TrialConfig
from methods.training.seeds import derive_seed

JOINT = "joint_method"  # the key of the one branch of a method that trains its streams together


class Branches(nn.Module):
    """Stream name -> :class:`Method`, each with its own encoder and heads; or one :class:`JointMethod` for all.

    Every stream sees the same augmented clips; the stream is taken before, after or amid augmentation as the method
    says. The loss is L = S * sum_s w_s L_s (``StreamsConfig``). ``persons`` and ``channels`` are the clips' M and C.
    """

    def __init__(self, config: TrialConfig, layout: Layout, seed: int, *, persons: int = 2, channels: int = 3) -> None:
        super().__init__()
        entry = get_method(config.method)
        self.config = config
        self.layout = layout
        self.policy = Policy(config.augment, layout)
        self.weights = dict(zip(config.streams.use, config.streams.loss_weights(), strict=True))

        def encoder() -> Encoder:
            return build_encoder(config.encoder, layout, channels, frames=config.frames, persons=persons)

        branches: dict[str, Method] = {}
        if issubclass(entry.cls, JointMethod):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(derive_seed(seed, "init", "joint method"))
                branches[JOINT] = entry.cls(config.params, {stream: encoder() for stream in config.streams.use})
        else:
            for stream in config.streams.use:
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(derive_seed(seed, "init", stream))
                    branches[stream] = entry.cls(config.params, encoder())
        self.branches = nn.ModuleDict(branches)

    def _each(self) -> list[tuple[str, Method]]:
        return [(name, branch) for name, branch in self.branches.items() if isinstance(branch, Method)]

    def encoders(self) -> list[Encoder]:
        """Every encoder that is probed: whose statistics are settled and whose features are watched."""
        found: list[Encoder] = []
        for _, branch in self._each():
            own = branch.encoders.values() if isinstance(branch, JointMethod) else [branch.probed]
            found += [encoder for encoder in own if isinstance(encoder, Encoder)]
        return found

    def views(self, clips: Tensor, generator: Generator) -> dict[str, Views]:
        """Stream -> its views of the same batch of joint clips (N, C, T, V, M)."""
        names, each = self.config.streams.use, dict(self._each())
        first = next(iter(each.values()))
        when = first.streams_derived
        if when == "before_views":
            return self._with_equal_draws(
                generator, {n: partial(each[n].make_views, derive(clips, n, self.layout), self.policy) for n in names}
            )
        views = first.make_views(clips, self.policy, generator)
        derived = {name: views.map(partial(derive, stream=name, layout=self.layout)) for name in names}
        if when == "between":
            return self._with_equal_draws(
                generator, {n: partial(each.get(n, first).finish_views, derived[n], self.policy) for n in names}
            )
        return derived

    @staticmethod
    def _with_equal_draws(generator: Generator, makers: Mapping[str, partial[Views]]) -> dict[str, Views]:
        """Every stream's views from the same state of the generator, so that they belong together."""
        state = generator.get_state()
        out = {}
        for name, make in makers.items():
            generator.set_state(state)
            out[name] = make(generator)
        return out

    def forward(self, clips: Tensor, generator: Generator, progress: float) -> StepOutput:
        """Weighted loss of one batch (N, C, T, V, M), and each stream's logs under ``stream/name``."""
        return self.loss(self.views(clips, generator), progress)

    def loss(self, views: Mapping[str, Views], progress: float) -> StepOutput:
        """The same of :meth:`views` of a batch."""
        total = next(iter(next(iter(views.values())).clips.values())).new_zeros(())
        logs: dict[str, Tensor] = {}
        for name, out in self._losses(views, progress).items():
            total = total + self.weights[name] * out.loss
            logs[f"{name}/loss"] = out.loss.detach()
            logs.update({f"{name}/{key}": value for key, value in out.logs.items()})
        return StepOutput(total, logs)

    def _losses(self, views: Mapping[str, Views], progress: float) -> Mapping[str, StepOutput]:
        each = self._each()
        branch = each[0][1]
        if isinstance(branch, JointMethod):
            return branch.losses(views, progress)
        return {name: branch.loss(views[name], progress) for name, branch in each}

    def fix_bodies(self, rows: Tensor) -> None:
        """Say that row i of every training batch has ``rows[i]`` bodies (batch,), as a stratified order has it."""
        for _, branch in self._each():
            for module in branch.modules():
                if isinstance(module, STGCN) and not branch.mixes_bodies:
                    module.fix_bodies(rows)

    def stage_starts(self) -> tuple[float, ...]:
        """Where each stage of the method begins, as a share of the run."""
        return tuple(stage.start for stage in get_method(self.config.method).cls.stages(self.config.params))

    def not_captured(self) -> str:
        """Why a step cannot be replayed as a CUDA graph; empty where it can."""
        _, first = self._each()[0]
        if len(self.config.streams.use) > 1 and first.streams_derived != "after_views":
            return "its streams rewind one generator"
        return first.not_captured

    def after_step(self, progress: float) -> None:
        for _, branch in self._each():
            branch.after_step(progress)

    def embed(self, clips: Tensor) -> dict[str, Tensor]:
        """Stream -> features (N, D) of un-augmented joint clips (N, C, T, V, M)."""
        present = present_bodies(clips)
        each = self._each()
        streams = {name: derive(clips, name, self.layout) for name in self.config.streams.use}
        branch = each[0][1]
        if isinstance(branch, JointMethod):
            return branch.embed_streams(streams, present)
        return {name: branch.embed(streams[name], present) for name, branch in each}
