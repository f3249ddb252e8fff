"""CRRL: an encoder that tells clips apart by their movement teaches one that can play them back.

Objective   Wang et al. (CRRL), arXiv:2111.11051, and its public code. Contrastive motion learner: InfoNCE of a clip's
            positions against a momentum encoder's queue of velocities. Sequence reconstructor: what the encoder holds
            at the first frame is decoded into the clip, what it holds at the last into the clip reversed, by the same
            decoder. Information fuser: a new encoder reconstructs and, through a head, is drawn to the features of the
            contrastive one, which is frozen; the new one is kept.
Stages      The public code trains the learner, and from its checkpoint the fuser, in two runs of 60 epochs. Here they
            are the stages ``contrast`` and ``fuse`` of one run, and ``fuse_start`` says where they meet: at 1 the
            learner is alone, at 0 there is no teacher and the reconstructor is alone. From ``fuse_start`` on it is the
            student that is probed, and it starts anew there.
Departures  The key's head follows the query's (``key_head_frozen``) and the teacher teaches without dropout
            (``teacher_dropout``). The learning rate has one schedule for both stages; the public code halves it after
            18 and after 50 of the 60 epochs of either (here: the first of these, in the second stage). Any batch size
            fits the queue. Published clips are of different lengths and padded; here they are T frames long, and what
            of it is zero at their end counts as padding too. The public code has no preprocessing and no velocities
            (frame by frame differences are assumed).
Scale       The code's data come normalised, in a way that it does not show. On coordinates in metres (UTD-MHAD) the
            summed errors at the published rate saturate the student within an epoch (it then counts as collapsed), and
            velocities are so small that keys look alike: ``reduction: mean``, ``encoder.input_norm: scale`` help.
Shapes      N clips, C channels, T frames, V joints, M persons, F = V*C*M features a frame, D width of the encoder.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from methods.augment.ops import reverse_time, velocity
from methods.augment.policy import AugmentConfig
from methods.base import Method, Stage, StepOutput, Views, tunable, two_views
from methods.errors import InputError
from methods.fields import require
from methods.filled import valid_lengths
from methods.losses import feature_distillation, feature_spread, info_nce, reconstruction
from methods.nn.ema import check_momentum, slow_copy
from methods.nn.encoder import Encoder
from methods.nn.gru import GruConfig, GruEncoder
from methods.nn.heads import mlp
from methods.nn.queue import MemoryQueue
from methods.recipe import OptimConfig, Recipe
from methods.registry import register

if TYPE_CHECKING:
    from methods.augment.policy import Policy

WAYS = {"both": ("forward", "reverse"), "forward": ("forward",), "reverse": ("reverse",)}  # what is reconstructed


@dataclass(frozen=True)
class CRRLConfig:
    """Everything a YAML may set under ``method: {crrl: ...}``."""

    fuse_start: float = tunable(
        0.5, uniform=(0.2, 0.8), doc="share of the run before the student; 1 = contrast alone, 0 = reconstruction alone"
    )
    temperature: float = tunable(0.1, log=(0.03, 0.5), doc="tau of InfoNCE")
    momentum: float = tunable(0.999, near_one=(0.9, 0.9999), doc="m of the key encoder")
    momentum_schedule: str = tunable(
        "constant", choice=("constant", "cosine"), doc="cosine lets m rise to 1 at the end of the contrast stage"
    )
    queue: int = tunable(64, choice=(32, 64, 256, 1024, 4096, 16384), doc="K, number of negatives remembered")
    hidden: int = tunable(512, choice=(128, 256, 512, 1024), doc="hidden width of the projector and the student's head")
    projection: int = tunable(512, choice=(64, 128, 256, 512), doc="width of the compared vectors")
    key: str = tunable(
        "velocity", choice=("velocity", "view"), doc="the key's clip: velocities, or as it is (then augment it)"
    )
    key_head_frozen: bool = tunable(
        False, choice=(False, True), doc="the key's head is random and stays so (the public code: true)"
    )
    distill_weight: float = tunable(0.1, log=(1e-3, 10.0), doc="lambda of the distance to the teacher's features")
    reconstruct: str = tunable("both", choice=tuple(WAYS), doc="both, or forward or reverse alone")
    reduction: str = tunable(
        "sum", choice=("sum", "mean"), doc="a frame's squared errors: summed over its F features, or their mean"
    )
    teacher_dropout: bool = tunable(
        False, choice=(False, True), doc="the frozen teacher keeps its dropout (the public code: true)"
    )

    def __post_init__(self) -> None:
        check_momentum(self)
        require(0 <= self.fuse_start <= 1, f"fuse_start is a share of the run in [0, 1], got {self.fuse_start}")
        require(self.key in ("velocity", "view"), f"key must be velocity or view, got {self.key!r}")
        require(
            0 <= self.distill_weight < math.inf,
            f"distill_weight must be finite, not negative, got {self.distill_weight}",
        )
        require(self.reconstruct in WAYS, f"reconstruct must be one of {', '.join(WAYS)}, got {self.reconstruct!r}")
        require(self.reduction in ("sum", "mean"), f"reduction must be sum or mean, got {self.reduction!r}")

    @property
    def teaches(self) -> bool:
        """Whether the student has a teacher that was trained and that it listens to."""
        return self.fuse_start > 0 and self.distill_weight > 0


RECIPE = Recipe(
    frames=50,
    epochs=120,
    encoder=GruConfig(hidden=256, layers=2, dropout=0.2, input_norm="none", pool="mean", lengths="valid"),
    augment=AugmentConfig(crop=0.0, shear=0.0),
    optim=OptimConfig(
        name="sgd", lr=0.05, batch=32, schedule="step", step_at=78 / 120, step_factor=0.5, weight_decay=1e-4
    ),
    source="CRRL's public code: its contrastive and its teacher-student run of 60 epochs each, one after the other",
    paper_code={"key_head_frozen": True, "teacher_dropout": True},
)


@register("crrl", config=CRRLConfig, recipe=RECIPE)
class CRRL(Method):
    """Query encoder, projector, their momentum copies and a queue; a student with its head, and the decoder."""

    only_streams = ("joint",)  # the key already is the motion
    encoder: GruEncoder  # whose state at each frame is read

    def __init__(self, config: CRRLConfig, encoder: GruEncoder) -> None:
        super().__init__(config, encoder)
        _check_encoder(config, encoder.config)
        self.projector = mlp(encoder.dim, config.hidden, config.projection)
        self.slow_encoder = slow_copy(encoder, config)
        frozen = mlp(encoder.dim, config.hidden, config.projection) if config.key_head_frozen else None
        self.slow_projector = slow_copy(frozen or self.projector, config)
        self.queue = MemoryQueue(config.queue, config.projection)
        self.student = drawn_anew(encoder)
        self.student_head = mlp(encoder.dim, config.hidden, encoder.dim)
        self.decoder = nn.GRU(
            encoder.dim,
            encoder.gru.input_size,
            encoder.gru.num_layers,
            batch_first=True,
            dropout=encoder.gru.dropout,
        )
        self.fused: Tensor  # whether the student is what is probed: part of the state, so that a checkpoint says it
        self.register_buffer("fused", torch.tensor(config.fuse_start == 0))

    @classmethod
    def stages(cls, config: CRRLConfig) -> tuple[Stage, ...]:
        """``contrast`` up to ``fuse_start``, then ``fuse``; each alone where the other has no length."""
        if config.fuse_start == 0:
            return (Stage("reconstruct", 0.0),)
        contrast = Stage("contrast", 0.0)
        fuse = Stage("fuse", config.fuse_start, probed="the student, a new encoder that the contrastive one teaches")
        return (contrast, fuse) if config.fuse_start < 1 else (contrast,)

    @property
    def not_captured(self) -> str:
        return "clips of different lengths are packed by the host" if self.encoder.config.lengths == "valid" else ""

    @property
    def probed(self) -> Encoder:
        """The contrastive encoder, or the student once its stage has begun."""
        return self.student if self.fused else self.encoder

    def make_views(self, clips: Tensor, policy: Policy, generator: Generator) -> Views:
        """``a``: positions; ``b``: the key's clip, by default velocities; of clips (N, C, T, V, M).

        ``extra``: ``key_lengths`` (N,), the valid frames of the positions that ``b`` was made of.
        """
        views = two_views(clips, policy, generator)
        lengths = valid_lengths(views["b"])
        key = velocity(views["b"], lengths) if self.config.key == "velocity" else views["b"]
        return Views({"a": views["a"], "b": key}, views.present, {"key_lengths": lengths})

    def loss(self, views: Views, progress: float) -> StepOutput:
        """InfoNCE of ``a`` against ``b`` in the first stage; reconstruction of ``a`` and distillation in the second."""
        if progress < self.config.fuse_start:
            return self._contrast(views, progress / self.config.fuse_start)
        self.fused.fill_(True)
        return self._fuse(views["a"])

    def _lengths(self, clips: Tensor) -> Tensor | None:
        """(N,) valid frames; None where the encoder takes all frames for valid."""
        return valid_lengths(clips) if self.encoder.config.lengths == "valid" else None

    def _contrast(self, views: Views, progress: float) -> StepOutput:
        """The contrastive motion learner; ``progress`` of its own stage."""
        query = self.projector(self.encoder(views["a"], views.present))  # (N, projection)
        # The key encoder moves before its pass, as in MoCo: it follows the weights of the step before.
        self.slow_encoder.update(self.encoder, progress)
        if not self.config.key_head_frozen:
            self.slow_projector.update(self.projector, progress)
        key = self._key(views)
        # A copy of the queue: the rows written below would otherwise change under the backward pass.
        loss = info_nce(query, key, self.queue.keys.clone(), self.config.temperature)
        self.queue.enqueue(key)
        return StepOutput(loss, {"nce": loss.detach(), "projection_spread": feature_spread(query)})

    @torch.no_grad()
    def _key(self, views: Views) -> Tensor:
        """Unit keys (N, projection) of view ``b``: as long as its positions, a velocity's last valid frame is zero."""
        encoder = cast(GruEncoder, self.slow_encoder.target)
        lengths = self._lengths(views["a"])
        if lengths is not None:
            lengths = views.extra.get("key_lengths", lengths)
        features = encoder.pool(encoder.states(views["b"], lengths), lengths)
        return F.normalize(self.slow_projector(features), dim=1)

    def _fuse(self, clips: Tensor) -> StepOutput:
        """The information fuser, or without a teacher the sequence reconstructor."""
        c, lengths = self.config, self._lengths(clips)
        states = self.student.states(clips, lengths)  # (N, T, D)
        losses = self._reconstruct(states, clips, lengths)
        total = torch.stack(list(losses.values())).sum()
        if c.teaches:
            features = self.student_head(self.student.pool(states, lengths))  # (N, D)
            losses["distillation"] = feature_distillation(features, self._taught(clips, lengths))
            total = total + c.distill_weight * losses["distillation"]
        return StepOutput(total, {name: loss.detach() for name, loss in losses.items()})

    def _reconstruct(self, states: Tensor, clips: Tensor, lengths: Tensor | None) -> dict[str, Tensor]:
        """Way -> its loss: from the state at the first frame the clip, from that at its last the clip reversed."""
        n, frames, _ = states.shape
        if lengths is None:
            lengths = torch.full((n,), frames, device=states.device)
        each = torch.arange(n, device=states.device)
        ends = {"forward": states[:, 0], "reverse": states[each, lengths - 1]}  # (N, D): each has seen all frames
        ways, over = WAYS[self.config.reconstruct], 1 if self.config.reduction == "sum" else self.decoder.hidden_size
        decoded = self.decode(torch.cat([ends[way] for way in ways]), frames).chunk(len(ways))
        losses = {}
        for way, prediction in zip(ways, decoded, strict=True):
            reverse = torch.full((n,), way == "reverse", device=clips.device)
            target = flat_frames(reverse_time(clips, reverse, lengths))
            losses[way] = reconstruction(prediction, target, lengths) / over
        return losses

    def decode(self, held: Tensor, frames: int) -> Tensor:
        """What an encoder holds (N, D), fed in at every step, into T = ``frames`` frames (N, T, F)."""
        # Causal, so that frames past a clip's end change nothing before it: they need not be left out.
        played: Tensor = self.decoder(held[:, None].expand(-1, frames, -1))[0]
        return played

    @torch.no_grad()
    def _taught(self, clips: Tensor, lengths: Tensor | None) -> Tensor:
        """Features (N, D) of the frozen contrastive encoder; only its dropout may go on, a batch norm never moves."""
        teacher, training = self.encoder, self.encoder.training
        teacher.eval()
        teacher.gru.train(training and self.config.teacher_dropout)
        features = teacher.pool(teacher.states(clips, lengths), lengths)
        teacher.train(training)
        return features


def flat_frames(clips: Tensor) -> Tensor:
    """Clips (N, C, T, V, M) -> (N, T, F), in the order in which the encoder has them."""
    return clips.permute(0, 2, 3, 1, 4).flatten(2)


def drawn_anew(encoder: GruEncoder) -> GruEncoder:
    """An encoder of the same shape with weights of its own, drawn as ``encoder.init`` says."""
    fresh = copy.deepcopy(encoder)
    fresh.gru.reset_parameters()
    if fresh.config.init == "xavier":
        for weight in fresh.gru.parameters():
            if weight.dim() == 2:
                nn.init.xavier_uniform_(weight)
    return fresh


def _check_encoder(config: CRRLConfig, encoder: GruConfig) -> None:
    """Forward reconstruction starts at the first frame, where only a backward direction has seen the clip."""
    blind = encoder.stepwise or not encoder.bidirectional
    if blind and "forward" in WAYS[config.reconstruct] and config.fuse_start < 1:
        said = "encoder.stepwise: true" if encoder.stepwise else "encoder.bidirectional: false"
        raise InputError(
            f"crrl plays a clip forward from what the encoder holds at its first frame, where {said} has seen no other "
            "frame; use a true bidirectional encoder, or reconstruct: reverse"
        )
