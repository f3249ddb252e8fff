"""What every pretext method is: an encoder, a loss on views, and what happens after a step. Four methods in all.

The base class owns no optimiser, schedule, device, log or data: those belong to :mod:`methods.training`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Generator, Tensor, nn

from methods.fields import tunable
from methods.nn.encoder import Encoder

if TYPE_CHECKING:
    from methods.augment.policy import Policy

__all__ = ["Method", "StepOutput", "Views", "tunable", "two_views"]  # a method file needs this module and few others


@dataclass(frozen=True)
class Views:
    """What a method's loss receives. There is no label field: labels cannot reach a pretext task by accident.

    ``clips``: view name -> (N, C, T, V, M). ``present``: (N, M) bool, which bodies were really recorded (a view may
    add noise to an empty one, so this is taken before augmentation). ``extra``: masks, permutations, lengths.
    """

    clips: Mapping[str, Tensor]
    present: Tensor
    extra: Mapping[str, Tensor] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Tensor:
        return self.clips[name]

    def map(self, change: Callable[[Tensor], Tensor]) -> Views:
        """The same views with ``change`` applied to every clip tensor (how streams are derived)."""
        return Views({name: change(x) for name, x in self.clips.items()}, self.present, self.extra)


@dataclass(frozen=True)
class StepOutput:
    """``loss``: a scalar to descend. ``logs``: name -> detached scalar tensors, read once an epoch."""

    loss: Tensor
    logs: Mapping[str, Tensor] = field(default_factory=dict)


def two_views(clips: Tensor, policy: Policy, generator: Generator) -> Views:
    """Two independently augmented copies, ``a`` and ``b``, of ``clips`` (N, C, T, V, M): the contrastive default."""
    present = (clips != 0).flatten(1, 3).any(1)
    return Views({"a": policy(clips, generator), "b": policy(clips, generator)}, present)


class Method(nn.Module):
    """One branch of pretraining: subclasses hold heads, momentum copies and queues beside ``encoder``.

    ``shares_across_streams`` is True for methods that train their streams jointly; others get one independent branch
    a stream. ``streams_derived`` says where a stream is taken: ``after_views`` (the CrosSCLR family and CMD) or
    ``before_views`` (PSTL).
    """

    shares_across_streams: ClassVar[bool] = False
    streams_derived: ClassVar[str] = "after_views"

    def __init__(self, config: Any, encoder: Encoder) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder

    def make_views(self, clips: Tensor, policy: Policy, generator: Generator) -> Views:
        """Augment a batch of clips (N, C, T, V, M) on its device; by default two views of the same kind."""
        return two_views(clips, policy, generator)

    def loss(self, views: Views, progress: float) -> StepOutput:
        """The pretext loss. ``progress`` in [0, 1) is the share of the whole run that lies behind, never of a rung."""
        raise NotImplementedError

    def after_step(self, progress: float) -> None:
        """Called once after each optimiser step, e.g. to move a target network."""

    def embed(self, clips: Tensor, present: Tensor | None = None) -> Tensor:
        """What a probe sees: pooled backbone features (N, D), before any projector."""
        features: Tensor = self.encoder(clips, present)
        return features
