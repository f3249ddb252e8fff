"""What every pretext method is: an encoder, a loss on views, what happens after a step, and its stages.

The base class owns no optimiser, schedule, device, log or data: those belong to :mod:`methods.training`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Generator, Tensor, nn

from methods.errors import InputError
from methods.fields import tunable
from methods.filled import present_bodies
from methods.nn.encoder import Encoder

if TYPE_CHECKING:
    from methods.augment.policy import Policy

__all__ = [
    "JointMethod",
    "Method",
    "Stage",
    "StepOutput",
    "Views",
    "tunable",
    "two_views",
]


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


@dataclass(frozen=True)
class Stage:
    """A part of a method's own schedule: from ``start``, a fraction of the whole run (never of a rung), to the next.

    ``probed`` says that from here on another encoder is probed than before (CRRL's fuse), which a report must name.
    """

    name: str
    start: float
    probed: str = ""


def two_views(clips: Tensor, policy: Policy, generator: Generator) -> Views:
    """Two independently augmented copies, ``a`` and ``b``, of ``clips`` (N, C, T, V, M): the contrastive default."""
    present = present_bodies(clips)
    return Views({"a": policy(clips, generator), "b": policy(clips, generator)}, present)


class Method(nn.Module):
    """One branch of pretraining: subclasses hold heads, momentum copies and queues beside ``encoder``.

    ``shares_across_streams`` is True for methods that train their streams jointly; others get one independent branch
    a stream. ``streams_derived`` says where a stream is taken: ``after_views`` (the CrosSCLR family and CMD),
    ``before_views`` (PSTL), or ``between`` (SCD-Net): after :meth:`make_views`, before :meth:`finish_views`.
    ``only_streams`` names the streams that a method can use, where it cannot use all, ``least_streams`` how many it
    needs, and ``for_one_stream`` the method to take for fewer.
    """

    shares_across_streams: ClassVar[bool] = False
    streams_derived: ClassVar[str] = "after_views"
    only_streams: ClassVar[tuple[str, ...]] = ()
    least_streams: ClassVar[int] = 1
    for_one_stream: ClassVar[str] = ""

    def __init__(self, config: Any, encoder: Encoder) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder

    @classmethod
    def stages(cls, config: Any) -> tuple[Stage, ...]:
        """The stages of a run with ``config``, in order, the first at 0; most methods have one."""
        return (Stage("train", 0.0),)

    def make_views(self, clips: Tensor, policy: Policy, generator: Generator) -> Views:
        """Augment a batch of clips (N, C, T, V, M) on its device; by default two views of the same kind."""
        return two_views(clips, policy, generator)

    def finish_views(self, views: Views, policy: Policy, generator: Generator) -> Views:
        """What is done to views after the stream has been taken (``streams_derived = "between"``); nothing else."""
        return views

    def loss(self, views: Views, progress: float) -> StepOutput:
        """The pretext loss. ``progress`` in [0, 1) is the share of the whole run that lies behind, never of a rung."""
        raise NotImplementedError

    def after_step(self, progress: float) -> None:
        """Called once after each optimiser step, e.g. to move a target network."""

    @property
    def mixes_bodies(self) -> bool:
        """Whether an encoder may get other bodies than the batch's clips have."""
        return False

    @property
    def not_captured(self) -> str:
        """Why a step cannot be replayed as a CUDA graph (it reads something back, say); empty where it can."""
        return ""

    @property
    def probed(self) -> Encoder:
        """The encoder whose features a probe sees; a method that trains another in a later stage says which here."""
        return self.encoder

    def embed(self, clips: Tensor, present: Tensor | None = None) -> Tensor:
        """What a probe sees: pooled backbone features (N, D), before any projector."""
        features: Tensor = self.probed(clips, present)
        return features


class JointMethod(Method):
    """A method that trains its streams together: one encoder a stream, and terms that look across.

    Subclasses implement :meth:`losses`; ``loss`` and ``embed`` of a single branch do not exist. Raises ``InputError``
    at construction where a method cannot work with the streams in use.
    """

    shares_across_streams = True

    def __init__(self, config: Any, encoders: Mapping[str, Encoder]) -> None:
        nn.Module.__init__(self)
        if not encoders:
            raise InputError("a method needs at least one stream")
        self.config = config
        self.encoders = nn.ModuleDict(dict(encoders))

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams in use, in the order of the configuration."""
        return tuple(self.encoders)

    def losses(self, views: Mapping[str, Views], progress: float) -> Mapping[str, StepOutput]:
        """Stream -> its loss: its own term and the cross terms in which it is the one that learns.

        The caller weighs and sums them; equal weights give the published plain sum.
        """
        raise NotImplementedError

    def embed_streams(self, clips: Mapping[str, Tensor], present: Tensor | None = None) -> dict[str, Tensor]:
        """Stream -> what a probe sees, (N, D), from that stream's clips (N, C, T, V, M)."""
        return {name: self.encoders[name](x, present) for name, x in clips.items()}
